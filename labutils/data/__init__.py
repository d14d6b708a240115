"""Data sets of small pictures, and the loaders that serve them from memory in batches.

A new data set is one class, a `Source` that says where its files are and how they are read, and one line in `SOURCES`.
"""

from ..device import get_device, require_seed
from ..errors import BadValue, require_whole
from ..images import require_range
from ..paths import project_path
from .bundled import Digits, Faces
from .idx import FashionMnist, Kmnist, Mnist
from .loader import InMemoryLoader
from .pictures import CelebA, Folder
from .source import DatasetError

SOURCES = {source.name: source for source in (
    Digits(),
    Faces(),
    Mnist(),
    FashionMnist(),
    Kmnist(),
    CelebA(),
)}
DATASETS = (*SOURCES, "folder:PATH")
__all__ = ["DATASETS", "SOURCES", "DatasetError", "InMemoryLoader", "find_source", "get_loaders", "load_dataset"]


def find_source(name):
    """Return the `Source` of a data set, by its name; raises `ValueError` for a name that is not in `DATASETS`."""
    if isinstance(name, str) and name.startswith("folder:") and name != "folder:":
        return Folder(project_path(name.removeprefix("folder:")))
    if not isinstance(name, str) or name not in SOURCES:
        raise BadValue(f"unknown data set {name!r}: dataset must be one of {', '.join(DATASETS)}")
    return SOURCES[name]


def load_dataset(name, data_dir=None, limit=None):
    """Return `(images, labels, test_images, test_labels)` of a data set, as `Source.load` describes them."""
    return find_source(name).load(data_dir, limit)


def get_loaders(name="mnist", batch_size=64, *, data_dir=None, limit=None, image_range=(0, 1),
                device="cpu", seed=0, image_shape=None, min_batch=1):
    """Return `(train, test)`, two `InMemoryLoader`s for the data set `name`.

    name         one of `DATASETS`; "digits" and "faces" come with the project, "folder:PATH" is any
                 folder of pictures, and the others are looked for in data folders, and downloaded
                 by torchvision into the first if they are not there
    batch_size   images in a batch
    data_dir     the only data folder; None: $LABS_DATA_DIR, if it is set, and `data/`
    limit        the most training images and the most test images to take; None: all
    image_range  (low, high), the values of black and white
    seed         for the order of the training images; the test images keep their order
    image_shape  the (C, H, W) that the caller's networks need; None: any
    min_batch    how many images a training batch needs, 2 for batch normalisation; if fewer would be left for the
                 last batch, these are not taken

    Raises `ValueError` for a bad argument and `DatasetError` for missing or damaged files.
    """
    require_whole(min_batch, batch_size=batch_size)
    if limit is not None:
        require_whole(1, ", or None for all images", limit=limit)
    require_range(image_range)
    require_seed(seed)
    device = get_device(device)
    images, labels, test_images, test_labels = load_dataset(name, data_dir, limit)
    if image_shape is not None and images.shape[1:] != image_shape:
        raise BadValue(f"dataset={name!r}: its pictures have the shape {tuple(images.shape[1:])} (channels, height, "
                       f"width), but the networks need {image_shape}: choose another data set, or adapt the networks")
    if (n_train := len(images[:limit])) < min_batch:
        raise BadValue(f"dataset={name!r}, limit={limit}: {n_train} training images, and a batch needs {min_batch}; "
                       "take a larger limit, or another data set")
    if n_train % batch_size < min_batch:
        n_train -= n_train % batch_size
    train = InMemoryLoader(images[:n_train].to(device), labels[:n_train].to(device), batch_size,
                           image_range=image_range, shuffle=True, seed=seed)
    test = InMemoryLoader(test_images[:limit].to(device), test_labels[:limit].to(device),
                          batch_size, image_range=image_range)
    train.settings = test.settings = {"dataset": name, "batch_size": batch_size, "limit": limit}
    return train, test
