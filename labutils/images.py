"""Pictures: tensors to bytes, many pictures on one sheet, shown in the notebook and saved in files."""

import math

import cv2
import numpy as np
import PIL.Image
import torch
from IPython.display import Image, display

from .errors import BadValue, require_whole
from .paths import project_path, replacing


def require_range(image_range):
    """Raise `ValueError` unless `image_range` is two finite numbers, the lower one first."""
    try:
        low, high = image_range
        if low < high and math.isfinite(high - low):
            return
    except (TypeError, ValueError):
        pass
    raise BadValue(f"image_range={image_range!r}: must be (low, high) with low < high, for example (0, 1) or (-1, 1)")


def to_uint8(array, image_range=(0, 1)):
    """Return a uint8 copy of a tensor or array of any shape; `image_range` becomes 0..255.

    Values outside the range are clipped; uint8 input is returned unchanged. Raises `ValueError` for
    values that are not finite, for anything but an array of real numbers, and for a bad range.
    """
    require_range(image_range)
    if isinstance(array, torch.Tensor):
        array = array.detach().float().cpu().numpy() if array.is_floating_point() else array.cpu().numpy()
    array = np.asarray(array)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "biuf":
        raise BadValue(f"an image of dtype {array.dtype}: a picture is a tensor or an array of real numbers")
    if not np.isfinite(array).all():
        raise BadValue("the image holds values that are not finite (NaN or infinity); "
                       "look at the loss: the training has probably diverged")
    low, high = image_range
    return np.rint((array.clip(low, high) - low) * (255 / (high - low))).astype(np.uint8)


def collage(images, n_cols, *, image_range=(0, 1), scale=1):
    """Arrange pictures row by row on one sheet of `n_cols` columns.

    images  (N, H, W), (N, 1, H, W) or (N, 3, H, W), float in `image_range`, or uint8
    scale   enlargement by a whole number, nearest neighbour

    Returns a uint8 array (rows*H*scale, n_cols*W*scale), with a last axis of 3 for colour. The end of an
    incomplete last row is black. Raises `ValueError` for another shape.
    """
    tiles = to_uint8(images, image_range)
    if tiles.ndim == 3:
        tiles = tiles[:, None]
    if tiles.ndim != 4 or tiles.shape[1] not in (1, 3) or len(tiles) == 0:
        raise BadValue(f"images of shape {tuple(tiles.shape)}: a collage takes (N, H, W), "
                       "(N, 1, H, W) or (N, 3, H, W), and at least one picture")
    require_whole(n_cols=n_cols, scale=scale)
    n, channels, height, width = tiles.shape
    n_rows = -(-n // n_cols)
    sheet = np.zeros((n_rows * n_cols, channels, height, width), np.uint8)
    sheet[:n] = tiles
    sheet = sheet.reshape(n_rows, n_cols, channels, height, width).transpose(0, 3, 1, 4, 2)
    sheet = sheet.reshape(n_rows * height, n_cols * width, channels)
    return enlarged(sheet[..., 0] if channels == 1 else sheet, scale)


def enlarged(picture, scale):
    """Return a picture, (H, W) or (H, W, 3), enlarged by a whole number, nearest neighbour."""
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


def require_number(name, value, low, high):
    """Raise `ValueError` unless `value` is a number from `low` to `high`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise BadValue(f"{name}={value!r}: must be a number from {low} to {high}")


def label_rows(sheet, labels, size=0.45):
    """Return a sheet, uint8 (H, W) or (H, W, 3), with a label to the left of each of its len(labels) equal rows.

    labels  texts of plain letters: OpenCV's fonts have no others
    size    of the letters; 0.45 is about 10 pixels high
    """
    font, height = (cv2.FONT_HERSHEY_SIMPLEX, size, 1), len(sheet) / len(labels)
    sizes = [cv2.getTextSize(label, *font)[0] for label in labels]
    margin = np.zeros((len(sheet), max(width for width, _ in sizes) + 14, *sheet.shape[2:]), np.uint8)
    for row, (label, (_, letters)) in enumerate(zip(labels, sizes)):
        corner = 6, round((row + 0.5) * height + letters / 2)
        cv2.putText(margin, label, corner, *font[:2], (255, 255, 255), 1, cv2.LINE_AA)
    return np.hstack([margin, sheet])


def show(image, title=None, *, alt=None):
    """Show a uint8 picture, (H, W) or RGB (H, W, 3), at its own size, with its title above it.

    alt  a description for readers who cannot see it; None: its title

    The notebook stores the PNG file that `save_image` would write. A matplotlib figure of the same picture
    would need one and a half to two times the bytes.
    """
    if title:
        print(title)
    display(Image(data=encode(image), format="png", alt=alt or title))


def save_image(path, image):
    """Write a uint8 picture, (H, W) or RGB (H, W, 3), in the format that the ending of the path names.

    A relative path starts at the project's root. Returns the path. Raises `ValueError` for a picture of
    another type and for an ending that OpenCV does not know.
    """
    path = project_path(path)
    try:
        content = encode(image, path.suffix)
    except ValueError as error:
        raise BadValue(f"{path}: {error}") from None
    with replacing(path) as part:
        part.write_bytes(content)
    return path


def save_animation(path, frames, *, scale=1, most=12, per_second=3, hold=2):
    """Write uint8 pictures of one shape, (H, W) or RGB (H, W, 3), as an animation that starts again after its end.

    path        ends in .webp; a relative one starts at the project's root
    scale       enlargement by a whole number, nearest neighbour
    most        of more pictures than this, so many are taken: the first, the last, and others at equal distances
    per_second  pictures in a second, 0.1 to 50
    hold        seconds for which the last picture stays, 0.02 to 60

    No pixel is changed. Returns the path. Raises `ValueError` for another ending, for pictures of another type or of
    different shapes, for none, and for a number out of its range.
    """
    path, frames = project_path(path), require_frames(path, frames)
    require_whole(scale=scale, most=most)
    require_number("per_second", per_second, 0.1, 50)
    require_number("hold", hold, 0.02, 60)
    taken = np.unique(np.linspace(len(frames) - 1, 0, min(most, len(frames))).round().astype(int))
    first, *others = [PIL.Image.fromarray(enlarged(frames[i], scale)) for i in taken]
    durations = [round(1000 / per_second)] * len(others) + [round(1000 * hold)]
    with replacing(path) as part:
        first.save(part, save_all=True, append_images=others, duration=durations, loop=0, lossless=True, method=6)
    return path


def require_frames(path, frames):
    """Return the pictures of an animation as arrays; raises `ValueError` if they, or the end of the path, are wrong."""
    if not str(path).endswith(".webp"):
        raise BadValue(f"{path}: the file of an animation ends in .webp")
    frames = [require_picture(frame) for frame in frames]
    if len({frame.shape for frame in frames}) != 1:
        shapes = ", ".join(dict.fromkeys(str(frame.shape) for frame in frames)) or "none"
        raise BadValue(f"{path}: an animation takes pictures of one shape, at least one; these are {shapes}")
    return frames


def encode(image, ending=".png"):
    """Return the bytes of a picture file with this ending, from uint8 (H, W) or RGB (H, W, 3); raises `ValueError`."""
    image = require_picture(image)
    bgr = image[..., ::-1] if image.ndim == 3 else image       # OpenCV's order of colours
    try:
        options = [cv2.IMWRITE_PNG_COMPRESSION, 9]      # about half the bytes of OpenCV's default
        return cv2.imencode(ending, np.ascontiguousarray(bgr), options)[1].tobytes()
    except cv2.error:
        raise BadValue(f"unknown picture format {ending!r}; take .png") from None


def require_picture(image):
    """Return a picture as an array; raises `ValueError` unless it is uint8, (H, W) or (H, W, 3)."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or image.size == 0:
        raise BadValue(f"an image of dtype {image.dtype} and shape {image.shape}; a picture to save is uint8, "
                       "(H, W) or (H, W, 3): use to_uint8 or collage first")
    return image
