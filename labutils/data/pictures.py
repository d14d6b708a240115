"""Data sets with one file for each picture: any folder, and CelebA."""

import hashlib
import io
import os
import warnings
from collections import Counter, namedtuple

import cv2
import numpy as np
import torch
from PIL import Image

from .source import DatasetError, DownloadedSource, Source

SIDE = 64       # height and width to which pictures are scaled
ENDINGS = {".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".webp", ".avif", ".tif", ".tiff", ".pgm", ".ppm"}
# folders of systems and programs, with copies of the pictures; those with a dot at their start are left out anyway
SYSTEM_FOLDERS = {"@eadir", "__macosx", "$recycle.bin", "system volume information", "lost+found"}
WHITES = (1, 255, 1023, 4095, 16383, 65535)     # the brightest value that a file of more than 8 bits may mean
UPRIGHT = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1),
           6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90}   # of EXIF

# pixels   (H, W, 3), RGB, uint8 or float32; those of a transparent picture are multiplied by alpha
# alpha    (H, W), float32 in 0..1; None: the picture has no transparent part
# largest  the largest value of a picture of more than 8 bits, whose unit is not known; None: 255 is white
Picture = namedtuple("Picture", "pixels alpha largest")


class Folder(Source):
    """The pictures of a folder and of its subfolders, of any size and mode, as squares: (N, 1 or 3, 64, 64).

    In the order of their paths the 1st, 11th, 21st, ... are the test set. The images are grey if all files are, else
    RGB. Hidden folders and those of the system are not looked into. Of identical files one is taken, so that no test
    picture is a training picture. Transparent pictures get a white ground, or a black one if their ink is bright.
    Values of more than 8 bits are scaled by the largest one in the folder. What is left out or assumed is printed.
    """

    def __init__(self, path):
        self.path = path

    def load(self, data_dir=None, limit=None):
        files = [path for path in sorted(self.path.rglob("*")) if path.is_file() and not self.is_hidden(path)]
        paths = [path for path in files if path.suffix.lower() in ENDINGS]
        if others := Counter(path.suffix.lower() or path.name for path in files if path.suffix.lower() not in ENDINGS):
            print(f"{self.path}: passed over {', '.join(f'{n} {ending}' for ending, n in others.most_common(8))}; "
                  f"read are {', '.join(sorted(ENDINGS))}")
        if not paths:
            what = "holds no pictures" if self.path.is_dir() else "does not exist"
            raise DatasetError(f"the folder {self.path} {what}; put files there ({', '.join(sorted(ENDINGS))}), "
                               'or take dataset="faces", which comes with the project')
        images = read_pictures(paths, None if limit is None else limit + limit // 9 + 1)
        if len(images) < 2:
            raise DatasetError(f"the folder {self.path} holds {len(images)} readable picture(s) among {len(paths)} "
                               "file(s): at least two different ones are needed, one for training and one for the test")
        if np.ptp(images) < 10:
            raise DatasetError(f"the {len(images)} pictures of {self.path} all come out as one grey, "
                               f"{images.min()} to {images.max()} of 255; open one in another program, and save it "
                               "with 8 bits and values from black to white")
        if (images == images[..., :1]).all():
            images = images[..., :1]
        images = to_tensor(images)
        is_test = torch.arange(len(images)) % 10 == 0
        labels = torch.zeros(len(images), dtype=torch.long)
        return images[~is_test], labels[~is_test], images[is_test], labels[is_test]

    def is_hidden(self, path):
        """Tell whether a file, or a folder on the way to it, is hidden or the system's."""
        parts = path.relative_to(self.path).parts
        return any(part.startswith(".") or part.lower() in SYSTEM_FOLDERS for part in parts)


def read_pictures(paths, n_wanted=None):
    """Read at most `n_wanted` pictures as uint8 (N, SIDE, SIDE, 3), RGB; print what is left out or assumed.

    Raises `DatasetError` for values whose unit cannot be told.
    """
    squares, skipped, seen, n_copies = [], [], set(), 0
    for path in paths:
        if len(squares) == n_wanted:
            break
        content = read_bytes(path)
        digest = hashlib.sha256(content).digest()
        if content and digest in seen:
            n_copies += 1
        elif (picture := read_picture(content)) is None:
            skipped.append(path.name)
        else:
            alpha = None if picture.alpha is None else to_square(picture.alpha)
            squares.append(Picture(to_square(picture.pixels), alpha, picture.largest))
            seen.add(digest)
    if n_copies:
        print(f"{n_copies} file(s) left out that are identical to another one")
    if skipped:
        names = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        print(f"warning: {len(skipped)} file(s) skipped that cannot be read as pictures: {names}")
    return as_images(squares)


def read_bytes(path):
    """Return the content of a file; nothing, if it may not be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def read_picture(content):
    """Return the `Picture` in the bytes of a file, turned upright; None if they are damaged or no picture."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as picture:
            deep = any(";16" in str(tile) for tile in picture.tile) or picture.mode[0] in "IF"
            picture.load()      # OpenCV would return half a picture for half a file
            pixels, alpha = deep_pixels(picture, content) if deep else flat_pixels(picture)
            turn = UPRIGHT.get(orientation(picture), np.asarray)
    except Exception:       # a damaged file makes Pillow raise anything
        return None
    pixels = turn(pixels if pixels.ndim == 3 else pixels[..., None].repeat(3, axis=2))
    largest = float(pixels.max()) if deep else None
    if alpha is None or (alpha == 1).all():
        return Picture(pixels, None, largest)
    alpha = turn(alpha)
    return Picture(pixels * alpha[..., None], alpha, largest)


def flat_pixels(picture):
    """Return the pixels of a picture of 8 bits, uint8 (H, W, 3), and its alpha, float32 (H, W), or None."""
    if not picture.has_transparency_data:
        return np.asarray(picture.convert("RGB")), None
    pixels = np.asarray(picture.convert("RGBA"))
    return pixels[..., :3], pixels[..., 3].astype(np.float32) / 255


def deep_pixels(picture, content):
    """Return the pixels of a picture of more than 8 bits, float32 (H, W[, 3]) as in the file, and its alpha or None.

    Raises `ValueError` for values that are negative or no numbers.
    """
    pixels = np.asarray(picture)
    if pixels.dtype == np.uint8:        # Pillow keeps eight bits of a colour
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels.ndim == 3:
            pixels = pixels[..., [2, 1, 0, 3][:pixels.shape[2]]]        # OpenCV has blue first
    pixels = pixels.astype(np.float32)
    if not np.isfinite(pixels).all() or pixels.min() < 0:
        raise ValueError
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        return pixels[..., :3], pixels[..., 3] / 65535
    return pixels, None


def orientation(picture):
    """Return the EXIF orientation of a picture, 1 to 8; 1, if its EXIF block is damaged."""
    try:
        return int(picture.getexif().get(0x0112, 1))
    except Exception:       # whatever an EXIF block can raise
        return 1


def as_images(squares):
    """Return squares (a list of `Picture`) as uint8 (N, SIDE, SIDE, 3): one unit and one ground for all.

    Raises `DatasetError` for values that are too large for a unit that we know.
    """
    white = find_white([square.largest for square in squares if square.largest is not None])
    scaled = [square.pixels if square.largest is None else square.pixels * (255 / white) for square in squares]
    ground = find_ground([(pixels, square.alpha) for pixels, square in zip(scaled, squares)
                          if square.alpha is not None])
    images = np.empty((len(squares), SIDE, SIDE, 3), np.uint8)
    for image, pixels, square in zip(images, scaled, squares):
        if square.alpha is not None:
            pixels = pixels + (1 - square.alpha[..., None]) * ground
        image[:] = pixels if pixels.dtype == np.uint8 else np.clip(np.rint(pixels), 0, 255)
    return images


def find_white(largest):
    """Return the value that means white in pictures of more than 8 bits, of which the `largest` values are given."""
    if not largest:
        return None
    if max(largest) > WHITES[-1]:
        raise DatasetError(f"a picture has values up to {max(largest):.6g}, and nothing says which one is white; save "
                           "the pictures with 8 or 16 bits")
    white = next(value for value in WHITES if value >= max(largest))
    print(f"pictures of more than 8 bits: values go up to {max(largest):.6g}, so {white} is taken for white")
    return white


def find_ground(inks):
    """Return the grey to put under transparent pictures, given as (pixels, alpha): 255, or 0 if their ink is bright."""
    if not inks:
        return None
    ink = sum(pixels.mean(axis=2).sum() for pixels, _ in inks) / max(sum(alpha.sum() for _, alpha in inks), 1e-6)
    ground = 255 if ink < 128 else 0
    print(f"{len(inks)} transparent picture(s) are put on {'white' if ground else 'black'}: "
          f"their ink is {'dark' if ground else 'bright'}")
    return ground


def to_square(image):
    """Cut the largest square out of the middle of (H, W[, 3]) and scale it to (SIDE, SIDE[, 3])."""
    height, width = image.shape[:2]
    size = min(height, width)
    top, left = (height - size) // 2, (width - size) // 2
    interpolation = cv2.INTER_AREA if size > SIDE else cv2.INTER_CUBIC
    return cv2.resize(image[top:top + size, left:left + size], (SIDE, SIDE), interpolation=interpolation)


def to_tensor(images):
    """Return an array (N, H, W, C) as a tensor (N, C, H, W)."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


class CelebA(DownloadedSource):
    """Faces in RGB, 162,770 for training and 19,962 for the test, with 40 attributes each, 0 or 1.

    Z. Liu, P. Luo, X. Wang, X. Tang: Deep Learning Face Attributes in the Wild, ICCV 2015. The images are
    (N, 3, 64, 64), the attributes in the order of the files (15 eyeglasses, 31 smiling). The download is 1.4 GB.
    All images together use 2.2 GB of memory and take minutes to read: use `limit`.
    """

    name, subfolder, torchvision_name, instead = "celeba", "celeba", "CelebA", "faces"
    files = ("img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt",
             "list_bbox_celeba.txt", "list_landmarks_align_celeba.txt")

    def servers(self):
        return ["https://drive.google.com"]

    def has_all(self, folder):
        return (folder / "list_attr_celeba.txt").is_file() and (folder / "img_align_celeba").is_dir()

    def read(self, folder, limit=None):
        parts = []
        for split in ("train", "test"):
            try:
                source = self.torchvision_class(folder.parent, split=split, target_type="attr")
                images = np.empty((min(limit or len(source), len(source)), SIDE, SIDE, 3), np.uint8)
                for i in range(len(images)):
                    images[i] = to_square(np.asarray(source[i][0].convert("RGB")))
            except (OSError, RuntimeError) as error:
                raise DatasetError(f"the copy of CelebA in {folder} is damaged or not complete ({error}); delete "
                                   'it to download the set again, or take dataset="faces"') from error
            parts += [to_tensor(images), source.attr[:len(images)].long()]
        return tuple(parts)

    def verify(self, folder=None):
        """Verify the checksums of the tables, and that all pictures are there; they are not read."""
        way_out = "delete the folder to download the set again"
        try:
            listed = set(self.torchvision_class(folder.parent, split="all").filename)
        except (OSError, RuntimeError, ValueError) as error:
            raise DatasetError(f"{folder} is damaged ({error}); {way_out}") from error
        if absent := listed - set(os.listdir(folder / "img_align_celeba")):
            raise DatasetError(f"{folder} lacks {len(absent)} of {len(listed)} pictures; {way_out}")
        return ""
