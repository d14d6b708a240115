"""Pictures: conversion to bytes, collages, files, and how they are shown."""

import cv2
import numpy as np
import pytest
import torch
from helpers import anything, check_named, quick
from hypothesis import given
from PIL import Image, ImageSequence

from labutils import collage, save_image, show, to_uint8
from labutils.images import label_rows, save_animation


def test_to_uint8_maps_the_range_and_clips():
    values = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0])
    assert to_uint8(values, (-1, 1)).tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(values).tolist() == [0, 0, 0, 255, 255]
    assert to_uint8(np.array([0.5 / 255 - 1e-4, 0.5 / 255 + 1e-4])).tolist() == [0, 1]


def test_to_uint8_takes_bfloat16_and_leaves_bytes_alone():
    assert to_uint8(torch.ones(2, dtype=torch.bfloat16)).tolist() == [255, 255]
    assert to_uint8(torch.tensor([3, 200], dtype=torch.uint8)).tolist() == [3, 200]


def test_collage_equals_a_sheet_put_together_by_hand():
    a, b, c = (np.full((2, 3), v, np.uint8) for v in (10, 20, 30))
    a[0, 0] = 99
    by_hand = np.array([[99, 10, 10, 20, 20, 20],
                        [10, 10, 10, 20, 20, 20],
                        [30, 30, 30, 0, 0, 0],
                        [30, 30, 30, 0, 0, 0]], np.uint8)
    np.testing.assert_array_equal(collage(np.stack([a, b, c]), n_cols=2), by_hand)
    larger = collage(torch.from_numpy(np.stack([a, b, c]))[:, None], n_cols=2, scale=2)
    np.testing.assert_array_equal(larger, by_hand.repeat(2, 0).repeat(2, 1))


def test_collage_of_colour_keeps_the_channels_apart():
    images = torch.zeros(2, 3, 4, 5)
    images[0, 0] = 1                # the first picture is red, the second blue
    images[1, 2] = 1
    sheet = collage(images, n_cols=2)
    assert sheet.shape == (4, 10, 3)
    assert sheet[0, 0].tolist() == [255, 0, 0] and sheet[3, 9].tolist() == [0, 0, 255]


@pytest.mark.parametrize("shape", [(60, 40), (60, 40, 3)])
def test_label_rows_writes_one_label_to_each_row_and_leaves_the_sheet_as_it_is(shape):
    sheet = np.arange(np.prod(shape), dtype=np.int64).reshape(shape).astype(np.uint8)
    labelled = label_rows(sheet, ["a", "", "long label"])
    margin, rest = np.split(labelled, [labelled.shape[1] - 40], axis=1)
    np.testing.assert_array_equal(rest, sheet)
    ink = [np.argwhere(row.max(axis=-1) if row.ndim == 3 else row) for row in np.split(margin, 3)]
    assert [len(pixels) > 0 for pixels in ink] == [True, False, True]
    assert all(abs(pixels[:, 0].mean() - 9.5) < 4 for pixels in (ink[0], ink[2]))       # in the middle of its row
    assert 3 * ink[0][:, 1].max() < ink[2][:, 1].max() < margin.shape[1] - 1


def test_save_image_keeps_colours_and_grey_values(tmp_path):
    rgb = np.zeros((2, 2, 3), np.uint8)
    rgb[0, 0] = 255, 128, 0
    path = save_image(tmp_path / "deep" / "rgb.png", rgb)
    assert cv2.imread(str(path))[0, 0].tolist() == [0, 128, 255]       # OpenCV reads BGR
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(cv2.imread(str(save_image(tmp_path / "g.png", grey)), 0), grey)


def test_save_image_leaves_nothing_half_written(tmp_path, monkeypatch):
    path = save_image(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_image(path, np.ones((2, 2), np.uint8))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("shape", [(30, 50), (30, 50, 3)])
@pytest.mark.parametrize("n, most, taken", [(3, 12, [0, 1, 2]), (9, 5, [0, 2, 4, 6, 8]), (8, 3, [0, 4, 7]),
                                            (4, 1, [3]), (1, 12, [0])])
def test_an_animation_shows_the_pictures_in_order_and_holds_the_last_one(tmp_path, shape, n, most, taken):
    frames = np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)
    path = save_animation(tmp_path / "new" / "a.webp", frames, scale=2, most=most, per_second=4, hold=1.5)
    durations, time, shown = [], 0, []
    with Image.open(path) as animation:
        assert len(taken) == 1 or animation.info["loop"] == 0       # for ever
        for frame in ImageSequence.Iterator(animation):
            shown.append(np.asarray(frame.convert("RGB")))
            end = frame.info.get("timestamp", 0) + frame.info.get("duration", 0)
            durations, time = [*durations, end - time], end
    expected = [np.broadcast_to(frame.reshape(30, 50, -1), (30, 50, 3)) for frame in frames[taken]]
    np.testing.assert_array_equal(shown, np.stack(expected).repeat(2, 1).repeat(2, 2))
    assert durations in ([250] * (len(taken) - 1) + [1500], [0])
    assert [file.name for file in path.parent.iterdir()] == ["a.webp"]


@pytest.mark.parametrize("shape", [(30, 50), (30, 50, 3)])
def test_show_puts_every_pixel_into_the_notebook_once(monkeypatch, capsys, shape):
    shown = []
    monkeypatch.setattr("labutils.images.display", shown.append)
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    show(picture, "its title")
    decoded = cv2.imdecode(np.frombuffer(shown[0].data, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(decoded[..., ::-1] if len(shape) == 3 else decoded, picture)
    assert shown[0].format == "png" and capsys.readouterr().out == "its title\n"


IMAGES = torch.zeros(4, 8, 8)
BYTES = np.zeros((4, 4), np.uint8)


@pytest.mark.parametrize("call, part", [
    (lambda path: collage(None, 2), "dtype object"),
    (lambda path: collage("pictures", 2), "array of real numbers"),
    (lambda path: collage([[1, 2], [3]], 2), "inhomogeneous"),
    (lambda path: collage(IMAGES + 1j, 2), "complex"),
    (lambda path: collage(IMAGES / 0, 2), "not finite"),
    *[(lambda path, images=images: collage(images, 2), str(tuple(images.shape)))
      for images in (IMAGES[0], IMAGES[None], torch.zeros(()), torch.zeros(3, 2, 4, 4))],
    (lambda path: collage(IMAGES[:0], 2), "(0, 1, 8, 8)"),
    (lambda path: collage(IMAGES[:0], 2), "at least one picture"),
    *[(lambda path, n=n: collage(IMAGES, n), f"n_cols={n!r}") for n in (0, -2, 2.0, "2", None, True)],
    *[(lambda path, scale=scale: collage(IMAGES, 2, scale=scale), f"scale={scale!r}") for scale in (0, 1.5, "large")],
    *[(lambda path, pair=pair: collage(IMAGES, 2, image_range=pair), f"image_range={pair!r}")
      for pair in ((1, 0), (0, 0), None, (0, 1, 2), (0, float("inf")))],
    (lambda path: to_uint8(BYTES, "ab"), "image_range='ab'"),
    (lambda path: to_uint8({"image": 1}), "dtype object"),
    (lambda path: to_uint8(torch.tensor([0.0, float("nan")])), "not finite"),
    (lambda path: save_image(path / "a.png", None), "uint8"),
    (lambda path: save_image(path / "a.png", IMAGES), "float32"),
    *[(lambda path, shape=shape: save_image(path / "a.png", np.zeros(shape, np.uint8)), str(shape))
      for shape in ((4,), (0, 4), (4, 4, 2), (4, 4, 4), (4, 4, 1), (1, 2, 2, 1))],
    (lambda path: save_image(path / "a.xyz", BYTES), "'.xyz'; take .png"),
    (lambda path: save_image(path / "a", BYTES), "''; take .png"),
    *[(lambda path, name=name: save_animation(path / name, [BYTES]), "ends in .webp") for name in ("a.gif", "a")],
    (lambda path: save_animation(path / "a.webp", []), "these are none"),
    (lambda path: save_animation(path / "a.webp", [BYTES, BYTES[:2]]), "these are (4, 4), (2, 4)"),
    (lambda path: save_animation(path / "a.webp", [BYTES, BYTES / 2]), "float64"),
    *[(lambda path, name=name, value=value: save_animation(path / "a.webp", [BYTES], **{name: value}),
       f"{name}={value!r}")
      for name, value in (("scale", 0), ("most", 0), ("per_second", 0), ("per_second", "3"), ("hold", -1),
                          ("hold", True))],
    (lambda path: show(IMAGES), "use to_uint8 or collage first"),
    (lambda path: show("a.png"), "use to_uint8 or collage first"),
])
def test_a_bad_argument_is_named_in_one_line_and_leaves_no_file(tmp_path, call, part):
    with pytest.raises(ValueError) as error:
        call(tmp_path)
    assert part in str(error.value) and len(str(error.value).splitlines()) == 1, str(error.value)
    assert list(tmp_path.iterdir()) == []


@quick
@given(value=anything)
def test_any_value_is_accepted_or_named(value):
    if not (isinstance(value, int) and value > 1000):       # so wide a sheet would fill the memory
        check_named("n_cols", value, lambda: collage(IMAGES, value))
    check_named("image_range", value, lambda: to_uint8(IMAGES, value))
