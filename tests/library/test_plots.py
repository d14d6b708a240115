"""Curves that grow while a training goes on."""

import sys

import pytest
from IPython.display import Image

from labutils import plots
from labutils.plots import LiveCurves


class Screen:
    """What a notebook shows: it replaces `display` and its handle."""

    def __init__(self):
        self.pictures = []

    def display(self, picture, display_id):
        assert display_id
        self.pictures.append(picture)
        return self

    def update(self, picture, raw=False):
        self.pictures.append(picture)


@pytest.fixture
def screen(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(plots, "display", screen.display)
    return screen


def test_nothing_is_drawn_where_nobody_watches(screen, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    curves = LiveCurves(["loss"])
    curves.update({"loss": [1.0]})
    curves.close()
    assert screen.pictures == []


def test_the_curve_is_drawn_in_place_and_removed(screen, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "lab.ipynb")
    curves = LiveCurves(["loss"])
    curves.update({"loss": [1.0], "other": [2.0]})
    curves.next_time = 0
    curves.update({"loss": [1.0, 0.5], "other": [2.0, 2.0]})
    first, second = screen.pictures
    assert isinstance(first, Image) and first.data != second.data and first.alt
    curves.close()
    assert screen.pictures[2] == {"text/plain": ""}


def test_at_most_one_drawing_a_second_and_a_fiftieth_of_the_time(screen, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", "lab.ipynb")
    now = [100.0]
    monkeypatch.setattr(plots.time, "perf_counter", lambda: now[0])
    curves = LiveCurves(["loss"])
    for _ in range(100):
        curves.update({"loss": [1.0]})
        now[0] += 0.1                   # ten epochs a second
    assert 9 <= len(screen.pictures) <= 10
    slow = LiveCurves(["loss"])
    monkeypatch.setattr(plots, "draw_curves", lambda *_, **__: now.__setitem__(0, now[0] + 3))      # 3 seconds
    monkeypatch.setattr(plots, "picture_of", lambda *_: "picture")
    slow.update({"loss": [1.0]})
    assert slow.next_time - now[0] == 150


def test_every_value_is_written_once_as_an_event(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (pip install tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    curves = LiveCurves(["loss"], run="vae", tensorboard_dir=tmp_path)
    curves.update({"loss": [3.0], "kl": [1.0]})
    curves.update({"loss": [3.0, 2.5, 2.0], "kl": [1.0, 1.5, 2.0]})
    curves.close()
    events = EventAccumulator(str(tmp_path / "vae")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 3.0), (2, 2.5), (3, 2.0)]
    assert [event.value for event in events.Scalars("kl")] == [1.0, 1.5, 2.0]


def test_event_files_without_tensorboard_are_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="tensorboard_dir=.*pip install tensorboard"):
        LiveCurves(["loss"], tensorboard_dir=tmp_path / "events")
    assert not (tmp_path / "events").exists()
