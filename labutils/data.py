"""Data sets of small pictures, held in memory, and the loaders that serve them in batches."""

import gzip
import hashlib
import math
import os
import socket
import tempfile
import threading
import zlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import cv2
import numpy as np
import torch
from filelock import FileLock
from PIL import Image, ImageOps

from .images import require_range
from .paths import PROJECT_ROOT, make_dir, project_path
from .device import get_device, require_seed

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte",
         "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
PIECE = 2**18       # values that a loader brings to float at one time: 1 MB


class DatasetError(RuntimeError):
    """A data set is missing and cannot be fetched, or a file of it is damaged."""


class IdxSource(NamedTuple):
    """A data set in MNIST's file format: its torchvision class, and the MD5 of its unpacked files.

    torchvision knows the MD5 sums of the packed files; `md5` is empty where those of the unpacked
    ones are not published.
    """
    torchvision_class: str
    md5: tuple = ()


IDX_SOURCES = {
    "mnist": IdxSource("MNIST", (
        "6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637")),
    "fashion": IdxSource("FashionMNIST", (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a", "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a", "15d484375f8d13e6eb1aabb0c3f46965")),
    "kmnist": IdxSource("KMNIST"),
}
DATASETS = ("digits", "faces", *IDX_SOURCES, "celeba", "folder:PATH")


# ---------------------------------------------------------------------------------------- loaders

class InMemoryLoader:
    """Batches of a data set that lies on the device as uint8.

    Iterating yields `(images, labels)`: images float32 of shape (B, C, H, W) in `image_range`,
    labels int64 of shape (B,). The last batch may be shorter. With `shuffle` every pass has a new
    order, drawn from a generator of its own: same seed, same orders, whatever else draws numbers.
    """

    def __init__(self, images, labels, batch_size, *, image_range=(0, 1), shuffle=False, seed=0):
        self.images, self.labels = images, labels      # uint8 (N, C, H, W), int64 (N,)
        self.batch_size, self.image_range, self.shuffle = batch_size, image_range, shuffle
        self.generator = torch.Generator().manual_seed(seed)

    @property
    def n_images(self):
        """Images in one pass."""
        return len(self.images)

    def __len__(self):
        """Batches in one pass."""
        return -(-self.n_images // self.batch_size)

    def __iter__(self):
        if self.shuffle:    # drawn on the CPU, so that every device sees the same order
            order = torch.randperm(self.n_images, generator=self.generator).to(self.images.device)
        # several small batches are gathered and brought to float in one go: a call for each would cost more than its work
        piece = 16 * PIECE if self.images.is_cuda else PIECE        # what stays in a CPU's cache is little work for a GPU
        n_batches = max(1, piece // (self.batch_size * self.images[0].numel()))
        for start in range(0, self.n_images, n_batches * self.batch_size):
            part = slice(start, start + n_batches * self.batch_size)
            if self.shuffle:        # index_select copies whole rows: several times faster than images[index]
                images, labels = (data.index_select(0, order[part]) for data in (self.images, self.labels))
            else:
                images, labels = self.images[part], self.labels[part]
            yield from zip(self.to_float(images).split(self.batch_size), labels.split(self.batch_size))

    def state_dict(self):
        """Return what the orders to come depend on, for `TrainingState`."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state):
        """Go on with the orders of the loader that `state_dict` was taken from."""
        self.generator.set_state(state["generator"])

    def to_float(self, images):
        """Bring uint8 images to float32 in `image_range`."""
        low, high = self.image_range
        return images.to(torch.float32).div_(255 / (high - low)).add_(low)


def get_loaders(name="mnist", batch_size=64, *, data_dir=None, limit=None, image_range=(0, 1),
                device="cpu", seed=0, image_shape=None):
    """Return `(train, test)`, two `InMemoryLoader`s for the data set `name`.

    name         one of `DATASETS`; "digits" and "faces" come with the project, "folder:PATH" takes any
                 folder of pictures, and the others are looked for in `data_dir`, $LABS_DATA_DIR and
                 `data/`, and downloaded by torchvision if absent
    batch_size   images in a batch
    limit        at most so many training images and at most so many test images; None: all
    image_range  (low, high), the values of black and white
    seed         of the training set's shuffling; the test set keeps its order
    image_shape  the (C, H, W) that the caller's networks take; None: any

    Raises `ValueError` for a bad argument and `DatasetError` for missing or damaged files.
    """
    for what, value in (("batch_size", batch_size), ("limit", limit)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (what == "limit" and value is None) and not (whole and value >= 1):
            hint = ", or None for all images" if what == "limit" else ""
            raise ValueError(f"{what}={value!r}: must be a whole number of at least 1{hint}")
    require_range(image_range)
    require_seed(seed)
    device = get_device(device)
    images, labels, test_images, test_labels = load_dataset(name, data_dir, limit)
    if image_shape is not None and images.shape[1:] != image_shape:
        raise ValueError(f"dataset={name!r}: its pictures have the shape {tuple(images.shape[1:])} (channels, height, "
                         f"width), the networks here take {image_shape}: choose another data set, or adapt the networks")
    train = InMemoryLoader(images[:limit].to(device), labels[:limit].to(device), batch_size,
                           image_range=image_range, shuffle=True, seed=seed)
    test = InMemoryLoader(test_images[:limit].to(device), test_labels[:limit].to(device),
                          batch_size, image_range=image_range)
    return train, test


def load_dataset(name, data_dir=None, limit=None):
    """Return `(images, labels, test_images, test_labels)` as CPU tensors.

    Images are uint8: (N, 1, 28, 28) for the sets in MNIST's format and "digits", (N, 1, 32, 32) for
    "faces", (N, 3, 64, 64) for "celeba", (N, 1 or 3, 64, 64) for a folder. Labels are int64: classes
    (N,), attributes (N, 40) for "celeba", zeros where there are none. `limit` spares the sets of
    single files the reading of what is not asked for. Raises as `get_loaders`.
    """
    if name == "digits":
        return make_digits()
    if name == "faces":
        return make_faces()
    if name == "celeba":
        return load_celeba(data_dir, limit)
    if isinstance(name, str) and name.startswith("folder:") and name != "folder:":
        return load_folder(project_path(name.removeprefix("folder:")), limit)
    if not isinstance(name, str) or name not in IDX_SOURCES:
        raise ValueError(f"unknown data set {name!r}: dataset must be one of {', '.join(DATASETS)}")
    return load_idx(name, find_idx(name, data_dir) or download_idx(name, data_dir))


# ----------------------------------------------------------------------- files in MNIST's format

def data_dirs(data_dir=None):
    """Return the folders in which data sets are looked for; the first takes downloads."""
    named = [data_dir, os.environ.get("LABS_DATA_DIR")]
    return [project_path(folder) for folder in named if folder] + [PROJECT_ROOT / "data"]


def idx_path(folder, file):
    """Return the path of an IDX file in `folder`, raw or gzipped, or None; raises `DatasetError`."""
    candidates = (folder / file, folder / f"{file}.gz")
    try:
        return next((path for path in candidates if path.is_file()), None)
    except PermissionError:
        raise DatasetError(f"the folder {folder} may not be read; open it to all users, or name another one with "
                           "data_dir or LABS_DATA_DIR") from None


def find_idx(name, data_dir=None):
    """Return the first folder that holds all four files of the data set `name`, or None."""
    for root in data_dirs(data_dir):
        folder = root / IDX_SOURCES[name].torchvision_class / "raw"
        if all(idx_path(folder, file) for file in FILES):
            return folder
    return None


def load_idx(name, folder):
    """Read and verify the four files of a set in MNIST's format; returns and raises as `load_dataset`."""
    arrays = [read_idx(folder, name, file) for file in FILES]
    for images, labels, file in zip(arrays[::2], arrays[1::2], FILES[::2]):
        if len(images) != len(labels):
            raise DatasetError(f"{folder / file} holds {len(images)} images, but its label file "
                               f"{len(labels)} labels; delete the folder to fetch the set again")
    images, labels, test_images, test_labels = map(torch.from_numpy, arrays)
    return images[:, None], labels.long(), test_images[:, None], test_labels.long()


def read_idx(folder, name, file):
    """Read one IDX file, raw or gzipped, as a uint8 array of shape (N,) or (N, rows, columns).

    The checksum is verified: of the unpacked content, or else of the packed file. For an unpacked
    KMNIST file, whose sum is not published, header and length are all that can be verified.
    Raises `DatasetError`.
    """
    path = idx_path(folder, file)
    way_out = ("delete it and run again: a fresh copy is downloaded; without a network take "
               'dataset="digits"')
    try:
        packed = path.read_bytes()
        content = gzip.decompress(packed) if path.suffix == ".gz" else packed
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path} cannot be read ({error}); {way_out}") from error
    if not is_genuine(name, file, content, packed if path.suffix == ".gz" else None):
        raise DatasetError(f"{path} is truncated or altered (its MD5 sum is not that of the "
                           f"published {IDX_SOURCES[name].torchvision_class} file); {way_out}")
    start = 4 + 4 * content[3]      # the fourth byte is the number of dimensions
    shape = np.frombuffer(content[4:start].ljust(start - 4, b"\0"), ">u4").tolist()
    if len(content) != start + math.prod(shape):
        raise DatasetError(f"{path} is truncated: {len(content)} bytes; {way_out}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def is_genuine(name, file, content, packed=None):
    """Tell whether a file is the published one, by the MD5 sum of its content or of its packing."""
    source = IDX_SOURCES[name]
    if source.md5:
        return hashlib.md5(content).hexdigest() == source.md5[FILES.index(file)]
    if packed is not None:
        return hashlib.md5(packed).hexdigest() == dict(torchvision_class(name).resources)[f"{file}.gz"]
    return content[:4] == bytes((0, 0, 8, 3 if "images" in file else 1))


def torchvision_class(name):
    """Return torchvision's class of the data set; imported late, since it takes a second."""
    import torchvision.datasets
    return getattr(torchvision.datasets, IDX_SOURCES[name].torchvision_class)


def download_idx(name, data_dir=None):
    """Let torchvision download and verify a data set; return the folder of its files.

    The files appear under their names only when all are whole. Processes that ask for the same
    set wait for the first of them. Raises `DatasetError`, without a network within 30 seconds.
    """
    dataset_class, root = torchvision_class(name), data_dirs(data_dir)[0]
    failed = (f"the data set {name!r} is neither in {' nor in '.join(map(str, data_dirs(data_dir)))} "
              'nor can it be {}; take dataset="digits", which comes with the project, or put the '
              f"files into {root / dataset_class.__name__ / 'raw'}")
    if not any_answers(dataset_class.mirrors):
        raise DatasetError(failed.format("downloaded (no server answers)"))
    try:
        make_dir(root)
        with FileLock(root / f".{dataset_class.__name__}.lock"):
            if folder := find_idx(name, root):
                return folder
            with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as part:
                dataset_class(part, download=True)
                folder = make_dir(root / dataset_class.__name__ / "raw")
                for path in (Path(part) / dataset_class.__name__ / "raw").iterdir():
                    os.replace(path, folder / path.name)
    except (OSError, RuntimeError) as error:
        raise DatasetError(failed.format(f"downloaded ({error})")) from error
    return folder


def any_answers(urls, seconds=15):
    """Tell whether any of the servers accepts a connection; never takes longer than `seconds`."""
    answers = threading.Event()
    threads = [threading.Thread(target=knock, args=(url, answers), daemon=True) for url in urls]
    for thread in threads:      # threads, because a name server that hangs honours no time-out
        thread.start()
    for thread in threads:
        thread.join(seconds / len(threads))
    return answers.is_set()


def knock(url, answers):
    """Set the event `answers` if the server of `url` accepts a connection."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port or 80), timeout=10).close()
        answers.set()
    except OSError:
        pass


# -------------------------------------------------------------------------------- bundled digits

@lru_cache(maxsize=1)
def make_digits(n_train=1500, n_variants=3, seed=0):
    """Make the data set "digits": scikit-learn's handwritten digits in MNIST's format.

    The 1,797 real digits of 8x8 pixels (E. Alpaydin and C. Kaynak, Optical Recognition of
    Handwritten Digits, UCI 1998) come with scikit-learn. The first 1,500 make the training set,
    each with three variants under small random affine maps: 6,000 images. The last 297, by other
    writers for the most part, make the test set as they are. Returns what `load_dataset` does.
    """
    from sklearn.datasets import load_digits
    small, labels = load_digits(return_X_y=True)
    large = [enlarge(digit) for digit in small.reshape(-1, 8, 8)]
    rng = np.random.default_rng(seed)
    variants = [affine_variant(digit, rng) for _ in range(n_variants) for digit in large[:n_train]]
    train = torch.from_numpy(np.stack([to_mnist_format(d) for d in large[:n_train] + variants]))
    test = torch.from_numpy(np.stack([to_mnist_format(d) for d in large[n_train:]]))
    labels = torch.from_numpy(labels).long()
    return (train[:, None], labels[:n_train].repeat(1 + n_variants), test[:, None], labels[n_train:])


def enlarge(digit, contrast=12):
    """Bring an 8x8 digit (0 to 16) to 80x80 in 0..1, with the sharp edges of a pen stroke."""
    smooth = cv2.resize(digit.astype(np.float32) / 16, (80, 80), interpolation=cv2.INTER_CUBIC)
    edge = np.tanh(contrast / 4)    # a logistic curve through (0, 0) and (1, 1)
    return (0.5 + np.tanh(contrast / 2 * (smooth - 0.5)) / (2 * edge)).clip(0, 1)


def affine_variant(digit, rng):
    """Turn, shear, scale and shift an 80x80 digit a little, as another hand might have."""
    angle, shear = rng.uniform(-0.2, 0.2, 2)                    # radians
    scale_x, scale_y = rng.uniform(0.88, 1.08, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[scale_x, shear], [0, scale_y]])
    centre = np.array([39.5, 39.5])
    shift = centre - matrix @ centre + rng.uniform(-3, 3, 2)    # 3 pixels of 80
    return cv2.warpAffine(digit, np.column_stack([matrix, shift]), (80, 80))


def to_mnist_format(digit):
    """Average an 80x80 digit in 0..1 down to 20x20, inside a black frame: uint8 28x28."""
    box = cv2.resize(digit, (20, 20), interpolation=cv2.INTER_AREA)
    return np.pad((box * 255).round().astype(np.uint8), 4)


# ------------------------------------------------------------------------------------ bundled faces

@lru_cache(maxsize=1)
def make_faces(n_train=80, side=32, seed=0):
    """Make the data set "faces": 100 photographs of faces, grey, enlarged from 25x25 to 32x32.

    They come with scikit-image (`skimage.data.lfw_subset`), which took them from Labeled Faces in the
    Wild (G. B. Huang and others, University of Massachusetts Amherst, TR 07-49, 2007). Which 80 make
    the training set is drawn with `seed`. Returns what `load_dataset` does.
    """
    from skimage.data import lfw_subset
    faces = lfw_subset()[:100].astype(np.float32)           # what follows them is background
    large = [cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC) for face in faces]
    images = torch.from_numpy((np.stack(large).clip(0, 1) * 255).round().astype(np.uint8))[:, None]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    labels = torch.zeros(len(images), dtype=torch.long)
    return images[order[:n_train]], labels[:n_train], images[order[n_train:]], labels[n_train:]


# ------------------------------------------------------------------------------ folders of pictures

PICTURE_ENDINGS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}


def load_folder(folder, limit=None, side=64):
    """Load the pictures of a folder and of its subfolders, of any size and mode, as squares.

    In the order of their paths the 1st, 11th, 21st, ... become the test set. Grey if all of them
    are, else RGB. Files that cannot be read are named and skipped. Returns what `load_dataset` does;
    with `limit` no more files are read than so many training images need. Raises `DatasetError`.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_ENDINGS and path.is_file())
    if not paths:
        what = "holds no pictures" if folder.is_dir() else "does not exist"
        raise DatasetError(f"the folder {folder} {what}; put files there ({', '.join(sorted(PICTURE_ENDINGS))}), "
                           'or take dataset="faces", which comes with the project')
    images = read_pictures(paths, None if limit is None else limit + limit // 9 + 1, side)
    if len(images) < 2:
        raise DatasetError(f"the folder {folder} holds {len(images)} readable picture(s) among {len(paths)} "
                           "file(s): at least two are needed, one to train and one to test with")
    if (images == images[..., :1]).all():
        images = images[..., :1]
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    is_test = torch.arange(len(images)) % 10 == 0
    labels = torch.zeros(len(images), dtype=torch.long)
    return images[~is_test], labels[~is_test], images[is_test], labels[is_test]


def read_pictures(paths, n_wanted=None, side=64):
    """Read at most `n_wanted` pictures as uint8 (N, side, side, 3), RGB; say which files are skipped."""
    images, skipped = [], []
    for path in paths:
        if len(images) == n_wanted:
            break
        image = read_picture(path)
        if image is None:
            skipped.append(path.name)
        else:
            images.append(to_square(image, side))
    if skipped:
        names = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        print(f"warning: {len(skipped)} file(s) skipped that cannot be read as pictures: {names}")
    return np.stack(images) if images else np.empty((0, side, side, 3), np.uint8)


def read_picture(path):
    """Return a picture file as uint8 (H, W, 3), RGB, turned upright; None if it is not a whole one."""
    try:
        with Image.open(path) as picture:       # OpenCV would return half a picture for half a file
            if picture.mode.startswith("I"):    # 16 bits; convert() would clip them at 255
                picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def to_square(image, side):
    """Cut the largest square out of the middle of (H, W, 3) and bring it to (side, side, 3)."""
    height, width = image.shape[:2]
    size = min(height, width)
    top, left = (height - size) // 2, (width - size) // 2
    way = cv2.INTER_AREA if size > side else cv2.INTER_CUBIC
    return cv2.resize(image[top:top + size, left:left + size], (side, side), interpolation=way)


# ------------------------------------------------------------------------------------------- CelebA

def load_celeba(data_dir=None, limit=None, side=64):
    """Load CelebA, RGB: 162,770 training and 19,962 test images with 40 attributes each, 0 or 1.

    Z. Liu, P. Luo, X. Wang, X. Tang: Deep Learning Face Attributes in the Wild, ICCV 2015. As 64x64
    pictures they take 2.2 GB of memory, and reading them some minutes: use `limit`. Returns what
    `load_dataset` does; the attributes are in the files' order (15 eyeglasses, 31 smiling). Raises
    `DatasetError`.
    """
    from torchvision.datasets import CelebA
    root = find_celeba(data_dir) or download_celeba(data_dir)
    parts = []
    for split in ("train", "test"):
        try:
            source = CelebA(root, split=split, target_type="attr")
            images = np.empty((min(limit or len(source), len(source)), side, side, 3), np.uint8)
            for i in range(len(images)):
                images[i] = to_square(np.asarray(source[i][0].convert("RGB")), side)
        except (OSError, RuntimeError) as error:
            raise DatasetError(f"the copy of CelebA in {root / 'celeba'} is damaged or not complete ({error}); delete "
                               'it to fetch the set again, or take dataset="faces"') from error
        parts += [torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), source.attr[:len(images)].long()]
    return tuple(parts)


def find_celeba(data_dir=None):
    """Return the first folder with a subfolder `celeba` that holds the attributes and pictures, or None."""
    return next((root for root in data_dirs(data_dir) if (root / "celeba/list_attr_celeba.txt").is_file()
                 and (root / "celeba/img_align_celeba").is_dir()), None)


def download_celeba(data_dir=None):
    """Let torchvision download CelebA (1.4 GB); return the folder above it. Raises `DatasetError`."""
    from torchvision.datasets import CelebA
    root = data_dirs(data_dir)[0]
    failed = (f"the data set 'celeba' is neither in {' nor in '.join(map(str, data_dirs(data_dir)))} nor can it be "
              'downloaded ({}); take dataset="faces", which comes with the project, or put the files into '
              f"{root / 'celeba'}")
    if not any_answers(["https://drive.google.com"]):
        raise DatasetError(failed.format("no server answers"))
    try:
        make_dir(root)
        with FileLock(root / ".celeba.lock"):
            if not find_celeba(root):
                with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as part:
                    CelebA(part, download=True)
                    os.replace(Path(part) / "celeba", root / "celeba")
    except (OSError, RuntimeError, ImportError) as error:
        raise DatasetError(failed.format(error)) from error
    return root
