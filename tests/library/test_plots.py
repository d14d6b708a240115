"""The display of a training that goes on: a line, and curves that grow."""

import sys
from types import SimpleNamespace

import pytest

from labutils import plots
from labutils.plots import LiveDisplay
from labutils.training import progress


class Screen:
    """What a notebook shows: it replaces `display`, its handle and the clock."""

    def __init__(self):
        self.contents, self.time = [], 100.0

    def display(self, content, raw, display_id):
        assert raw and display_id
        self.contents.append(content)
        return self

    def update(self, content, raw):
        assert raw
        self.contents.append(content)

    def lines(self):
        return [content["text/plain"] for content in self.contents]


@pytest.fixture
def screen(monkeypatch):
    """A screen with a notebook open on it."""
    screen = Screen()
    monkeypatch.setenv("JPY_SESSION_NAME", "lab.ipynb")
    monkeypatch.setattr(plots, "display", screen.display)
    monkeypatch.setattr(plots.time, "perf_counter", lambda: screen.time)
    return screen


def test_where_nobody_watches_nothing_is_shown_but_the_last_line(screen, monkeypatch, capsys):
    monkeypatch.delenv("JPY_SESSION_NAME")
    live = LiveDisplay(["loss"])
    live.tell("epoch 1")
    live.update({"loss": [1.0]})
    live.close("2 epochs")
    assert list(progress([1, 2], "steps")) == [1, 2]
    assert screen.contents == [] and capsys.readouterr() == ("2 epochs\n", "")


@pytest.mark.parametrize("name", ["VSCODE_PID", "COLAB_RELEASE_TAG"])
def test_other_notebooks_are_known_by_their_variables(screen, monkeypatch, name):
    monkeypatch.delenv("JPY_SESSION_NAME")
    assert not plots.in_open_notebook()
    monkeypatch.setenv(name, "1")
    assert plots.in_open_notebook()


def test_vs_code_is_known_by_the_variable_that_it_sets_in_the_kernel(screen, monkeypatch):
    """In WSL and in containers its kernels have none of its environment."""
    monkeypatch.delenv("JPY_SESSION_NAME")
    shell = SimpleNamespace(user_ns={})
    monkeypatch.setattr(plots, "get_ipython", lambda: shell)
    assert not plots.in_open_notebook()
    shell.user_ns["__vsc_ipynb_file__"] = "/home/ada/02_vae.ipynb"
    assert plots.in_open_notebook()


def test_line_and_curves_have_one_place_and_one_line_is_left(screen, capsys):
    live = LiveDisplay(["loss"])
    live.tell("epoch 1 & more")
    live.update({"loss": [1.0], "other": [2.0]})
    screen.time += 60
    live.update({"loss": [1.0, 0.5], "other": [2.0, 2.0]})
    live.tell("epoch 2")
    live.close("2 epochs")
    first, second, third, fourth, last = screen.contents
    assert first == {"text/html": "<div>epoch 1 &amp; more</div>", "text/plain": "epoch 1 & more"}
    picture = '<img alt="Curves of the training so far" width="468" src="data:'
    assert second["text/html"].startswith(first["text/html"] + picture)
    assert second["text/html"] != third["text/html"] and third["text/plain"] == "epoch 1 & more"
    assert fourth["text/html"] == third["text/html"].replace("epoch 1 &amp; more", "epoch 2")
    assert last == {"text/plain": "2 epochs"} and capsys.readouterr() == ("", "")


def test_progress_is_one_line_that_goes(screen, capsys):
    for _ in progress(range(4), "steps"):
        screen.time += 1
    assert screen.lines() == ["steps: 1 of 4", "steps: 2 of 4", "steps: 3 of 4", "steps: 4 of 4", ""]
    assert capsys.readouterr() == ("", "")


def test_two_lines_a_second_one_drawing_a_second_and_a_fiftieth_of_the_time(screen, monkeypatch):
    live = LiveDisplay(["loss"])
    monkeypatch.setattr(live, "redraw", lambda: screen.contents.append(live.line))
    for number in range(100):           # ten a second
        live.tell(str(number))
        screen.time += 0.1
    assert 17 <= len(screen.contents) <= 20
    screen.contents.clear()
    for _ in range(100):
        live.update({"loss": [1.0]})
        screen.time += 0.1
    assert 9 <= len(screen.contents) <= 10
    slow = LiveDisplay(["loss"])
    monkeypatch.setattr(plots, "draw_curves", lambda *_, **__: setattr(screen, "time", screen.time + 3))    # 3 seconds
    monkeypatch.setattr(plots, "picture_of", lambda *_: plots.Image(data=b"picture", format="png"))
    slow.update({"loss": [1.0]})
    assert slow.next_picture - screen.time == 150


def test_every_value_is_written_once_as_an_event(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (pip install tensorboard)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    live = LiveDisplay(["loss"], run="vae", tensorboard_dir=tmp_path)
    live.update({"loss": [3.0], "kl": [1.0]})
    live.update({"loss": [3.0, 2.5, 2.0], "kl": [1.0, 1.5, 2.0]})
    live.close()
    events = EventAccumulator(str(tmp_path / "vae")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 3.0), (2, 2.5), (3, 2.0)]
    assert [event.value for event in events.Scalars("kl")] == [1.0, 1.5, 2.0]


def test_event_files_without_tensorboard_are_refused_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="tensorboard_dir=.*pip install tensorboard"):
        LiveDisplay(["loss"], tensorboard_dir=tmp_path / "events")
    assert not (tmp_path / "events").exists()
