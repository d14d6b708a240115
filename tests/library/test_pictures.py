"""Pictures of one's own: what cameras, telephones, microscopes and drawing programs write, and what lies beside it."""

import io
import struct

import cv2
import numpy as np
import pytest
from helpers import write_picture
from PIL import Image, ImageOps

from labutils.data import load_dataset, pictures
from labutils.data.source import DatasetError

STEPS = np.arange(40 * 60).reshape(40, 60) % 251        # all corners differ


def load(folder):
    """Return the pictures of a folder, at most ten, as an array (N, C, 64, 64) in the order of their paths."""
    images, _, test_images, _ = load_dataset(f"folder:{folder}")
    return np.concatenate([test_images.numpy(), images.numpy()])


def bright(image):
    """Return the part of a picture that is brighter than half."""
    return (image > 127).mean()


# ------------------------------------------------------------------------------ orientation

def jpeg_with(exif):
    """A JPEG file of STEPS with the bytes of an EXIF block."""
    file = io.BytesIO()
    Image.fromarray(STEPS.astype(np.uint8)).save(file, "JPEG", quality=95, exif=b"Exif\0\0" + exif)
    return file.getvalue()


def exif_block(orientation, *entries):
    """An EXIF block with an orientation and other entries (tag, type, count, value)."""
    entries = sorted([(0x0112, 3, 1, orientation), *entries])
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("ending", ["jpeg", "png", "tiff", "webp"])
def test_every_orientation_is_pillows(ending, turned):
    exif = Image.Exif()
    exif[0x0112] = turned
    file = io.BytesIO()
    Image.fromarray(STEPS.astype(np.uint8)).convert("RGB").save(file, ending, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
    np.testing.assert_array_equal(pictures.read_picture(file.getvalue()).pixels, expected)


def test_an_exif_block_that_pillow_cannot_write_again_loses_nothing():
    content = jpeg_with(exif_block(6, (0x9000, 11, 1, 7)))       # the version as a float
    with pytest.raises(TypeError):
        ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert pictures.read_picture(content).pixels.shape == (60, 40, 3)


def test_no_exif_block_raises_or_warns(recwarn):
    rng = np.random.default_rng(0)
    for _ in range(500):
        entries = [(int(rng.integers(0x0113, 0xffff)), int(rng.integers(0, 15)), int(rng.integers(0, 9)),
                    int(rng.integers(0, 2**32))) for _ in range(rng.integers(0, 5))]
        assert pictures.read_picture(jpeg_with(exif_block(6, *entries))).pixels.shape == (60, 40, 3)
        noise = pictures.read_picture(jpeg_with(rng.bytes(rng.integers(0, 60))))
        assert noise.pixels.shape in {(40, 60, 3), (60, 40, 3)} and not recwarn.list


def test_pictures_of_16_bits_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3
    values = np.linspace(0, 65535, 80).astype(np.uint16)[:, None].repeat(80, axis=1)
    for ending in ("png", "tif"):
        Image.fromarray(values).save(tmp_path / f"a.{ending}", exif=exif)
    for image in load(tmp_path)[:, 0]:
        assert image[2].max() > 240 and image[-3].max() < 15


# ------------------------------------------------------------------------------ what lies in a folder

def test_hidden_folders_and_those_of_the_system_are_not_read(tmp_path):
    for i, folder in enumerate(["", "cats", ".ipynb_checkpoints", ".thumbnails", "@eaDir", "cats/.Trash-1000/files",
                                "__MACOSX", "$RECYCLE.BIN", "System Volume Information"]):
        write_picture(tmp_path / folder / f"{i}.png", (STEPS + i).astype(np.uint8))
    write_picture(tmp_path / "._0.png", STEPS.astype(np.uint8))
    assert len(load(tmp_path)) == 2


def test_a_hidden_folder_that_is_named_is_read(tmp_path):
    for i in range(2):
        write_picture(tmp_path / ".mine" / f"{i}.png", (STEPS + i).astype(np.uint8))
    assert len(load(tmp_path / ".mine")) == 2


def test_of_identical_files_one_is_taken(tmp_path, capsys):
    for i in range(20):         # copies would be both test and training pictures
        write_picture(tmp_path / f"{i:02d}.png", (STEPS + i % 5).astype(np.uint8))
    images, _, test_images, _ = load_dataset(f"folder:{tmp_path}")
    assert (len(images), len(test_images)) == (4, 1)
    assert "15 file(s) left out that are identical to another one" in capsys.readouterr().out


def test_files_passed_over_are_counted_by_ending(tmp_path, capsys):
    for i in range(3):
        write_picture(tmp_path / f"{i}.jpg", (STEPS + i).astype(np.uint8))
    for i in range(60):
        (tmp_path / f"{i}.HEIC").write_bytes(b"heic")
    (tmp_path / "notes.txt").write_text("notes")
    assert len(load(tmp_path)) == 3
    assert "passed over 60 .heic, 1 .txt; read are " in capsys.readouterr().out


def test_a_folder_with_nothing_special_says_nothing(tmp_path, capsys):
    for i in range(3):
        write_picture(tmp_path / f"{i}.png", (STEPS + i).astype(np.uint8))
    load(tmp_path)
    assert capsys.readouterr().out == ""


def test_gifs_are_read(tmp_path):
    for i in range(2):
        write_picture(tmp_path / f"{i}.gif", (STEPS + i).astype(np.uint8))
    assert len(load(tmp_path)) == 2


# ------------------------------------------------------------------------------ transparency

@pytest.mark.parametrize("ink, mode, form", [(0, "RGBA", "png"), (0, "LA", "png"), (0, "P", "png"), (0, "RGBA", "gif"),
                                             (0, "RGBA", "webp"), (0, "RGBA", "tif"), (255, "RGBA", "png"),
                                             (255, "LA", "png"), (0, "16", "png"), (255, "16", "png")])
def test_ink_on_a_transparent_ground_is_seen(tmp_path, capsys, ink, mode, form):
    for name, right in ("a", 40), ("b", 42):
        pixels = np.full((64, 64, 4), ink, np.uint8)
        pixels[..., 3] = 0
        pixels[20:44, 20:right, 3] = 255
        if mode == "16":
            cv2.imwrite(str(tmp_path / f"{name}.png"), pixels.astype(np.uint16) * 257)
        else:
            picture = Image.fromarray(pixels)
            picture = picture.quantize(method=Image.Quantize.FASTOCTREE) if mode == "P" else picture.convert(mode)
            assert picture.has_transparency_data
            picture.save(tmp_path / f"{name}.{form}")
    for image, part in zip(load(tmp_path), (24 * 20 / 64**2, 24 * 22 / 64**2)):
        assert bright(image) == pytest.approx(part if ink else 1 - part, abs=0.01)
    assert f"2 transparent picture(s) are put on {'black' if ink else 'white'}" in capsys.readouterr().out


def test_half_transparent_ink_is_mixed_with_the_ground(tmp_path):
    for name, alpha in ("a", 0), ("b", 128):
        pixels = np.zeros((64, 64, 4), np.uint8)
        pixels[..., 3] = alpha
        pixels[:10, :, 3] = 255
        write_picture(tmp_path / f"{name}.png", pixels)
    empty, half = load(tmp_path)[:, 0]
    assert empty[40, 40] == 255 and half[40, 40] == 127 and half[5, 40] == 0


# ------------------------------------------------------------------------------ more than 8 bits

@pytest.mark.parametrize("top, white", [(1, 1), (250, 255), (1000, 1023), (4000, 4095), (65000, 65535)])
@pytest.mark.parametrize("colour", [False, True])
def test_values_are_scaled_by_what_is_in_the_files(tmp_path, capsys, top, white, colour):
    ramp = np.linspace(0, top, 64).round().astype(np.uint16)[None].repeat(64, axis=0)
    for name, values in ("bright", ramp), ("dark", ramp // 4):
        cv2.imwrite(str(tmp_path / f"{name}.png"), values[..., None].repeat(3, axis=2) if colour else values)
    bright_one, dark_one = load(tmp_path)[:, 0]
    assert bright_one.max() == round(top / white * 255) and len(np.unique(bright_one)) == min(top + 1, 64)
    assert dark_one.max() == round(top // 4 / white * 255), "a dark picture stays dark"
    assert f"go up to {top}, so {white} is taken for white" in capsys.readouterr().out


def test_colours_of_16_bits_keep_their_order(tmp_path):
    for name, value in ("a", 65535), ("b", 40000):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((64, 64, 3), (0, 20000, value), np.uint16))     # blue first
    assert load(tmp_path)[0, :, 5, 5].tolist() == [255, 78, 0]


@pytest.mark.parametrize("top, white", [(0.9, 1), (240.0, 255)])
def test_floats_are_scaled(tmp_path, top, white):
    ramp = np.linspace(0, top, 64, dtype=np.float32)[None].repeat(64, axis=0)
    for name, values in ("a", ramp), ("b", ramp[:, ::-1].copy()):
        Image.fromarray(values).save(tmp_path / f"{name}.tif")
    assert load(tmp_path).max() == round(top / white * 255)


@pytest.mark.parametrize("values, parts", [
    (np.linspace(0, 1e6, 64, dtype=np.float32), ["values up to 1e+06", "8 or 16 bits"]),
    (np.linspace(-1, 1, 64, dtype=np.float32), ["0 readable"]),
    (np.full(64, np.nan, np.float32), ["0 readable"]),
    (np.full(64, 3000, np.uint16), ["come out as one grey", "187 to 187 of 255"])])
def test_values_without_a_unit_are_refused(tmp_path, values, parts):
    for name, rows in ("a", 64), ("b", 65):
        Image.fromarray(values[None].repeat(rows, axis=0)).save(tmp_path / f"{name}.tif")
    with pytest.raises(DatasetError) as error:
        load(tmp_path)
    assert all(part in str(error.value) for part in [str(tmp_path) if "grey" in parts[0] else "", *parts])


def test_odd_names_and_links_in_a_circle(tmp_path):
    for i, name in enumerate(["köln 猫.png", "a" * 200 + ".png"]):
        write_picture(tmp_path / "album" / name, (STEPS + i).astype(np.uint8))
    (tmp_path / "album" / "round").symlink_to(tmp_path / "album", target_is_directory=True)
    (tmp_path / "album" / "nowhere.png").symlink_to(tmp_path / "nowhere.png")
    assert len(load(tmp_path / "album")) == 2
