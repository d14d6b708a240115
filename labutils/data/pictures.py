"""Data sets with one file for each picture: any folder, and CelebA."""

import os

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps

from .source import DatasetError, DownloadedSource, Source

SIDE = 64       # height and width to which pictures are scaled
ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}


class Folder(Source):
    """The pictures of a folder and of its subfolders, of any size and mode, as squares: (N, 1 or 3, 64, 64).

    In the order of their paths the 1st, 11th, 21st, ... are the test set. The images are grey if all files
    are, else RGB. Files that cannot be read are named and skipped.
    """

    def __init__(self, path):
        self.path = path

    def load(self, data_dir=None, limit=None):
        paths = sorted(path for path in self.path.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
        if not paths:
            what = "holds no pictures" if self.path.is_dir() else "does not exist"
            raise DatasetError(f"the folder {self.path} {what}; put files there ({', '.join(sorted(ENDINGS))}), "
                               'or take dataset="faces", which comes with the project')
        images = read_pictures(paths, None if limit is None else limit + limit // 9 + 1)
        if len(images) < 2:
            raise DatasetError(f"the folder {self.path} holds {len(images)} readable picture(s) among {len(paths)} "
                               "file(s): at least two are needed, one for training and one for the test")
        if (images == images[..., :1]).all():
            images = images[..., :1]
        images = to_tensor(images)
        is_test = torch.arange(len(images)) % 10 == 0
        labels = torch.zeros(len(images), dtype=torch.long)
        return images[~is_test], labels[~is_test], images[is_test], labels[is_test]


def read_pictures(paths, n_wanted=None):
    """Read at most `n_wanted` pictures as uint8 (N, SIDE, SIDE, 3), RGB; print which files are skipped."""
    images, skipped = [], []
    for path in paths:
        if len(images) == n_wanted:
            break
        image = read_picture(path)
        if image is None:
            skipped.append(path.name)
        else:
            images.append(to_square(image))
    if skipped:
        names = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        print(f"warning: {len(skipped)} file(s) skipped that cannot be read as pictures: {names}")
    return np.stack(images) if images else np.empty((0, SIDE, SIDE, 3), np.uint8)


def read_picture(path):
    """Return a picture file as uint8 (H, W, 3), RGB, turned upright; None if it is damaged or no picture."""
    try:
        with Image.open(path) as picture:       # OpenCV would return half a picture for half a file
            if picture.mode.startswith("I"):    # 16 bits; convert() would clip them at 255
                picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def to_square(image):
    """Cut the largest square out of the middle of (H, W, 3) and scale it to (SIDE, SIDE, 3)."""
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
