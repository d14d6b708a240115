"""What every data set can do: be found, loaded, verified and downloaded."""

import os
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock

from ..errors import OneLine
from ..paths import PROJECT_ROOT, make_dir, project_path


class DatasetError(OneLine, RuntimeError):
    """A data set is missing and cannot be downloaded, or one of its files is damaged."""


class Source:
    """One data set.

    name       what `get_loaders` calls it
    subfolder  the path of its files inside a data folder; None: it has no files there
    remark     what `labs data` says about it, once it is verified
    """

    name = subfolder = None
    remark = ""

    def find(self, data_dir=None):
        """Return the first folder that holds all its files, or None; raises `DatasetError` as `data_dirs`."""
        return None

    def load(self, data_dir=None, limit=None):
        """Return `(images, labels, test_images, test_labels)` as CPU tensors; download the files if they are not found.

        Images are uint8 (N, C, H, W). Labels are int64: classes (N,), attributes (N, 40) for CelebA, zeros (N,) for
        pictures without classes. With `limit`, a data set with one file for each picture reads no more files than
        that many images need. Raises `DatasetError`.
        """
        raise NotImplementedError

    def verify(self, folder=None):
        """Read all its files, those in `folder` where it has one; return a remark. Raises `DatasetError` for damage."""
        self.load()
        return self.remark


class DownloadedSource(Source):
    """A data set that torchvision downloads.

    torchvision_name      the name of its class in torchvision.datasets
    instead               the bundled data set that an error message offers
    has_all(folder)       a method: tell whether the folder holds all files
    read(folder, limit)   a method: read the files there; returns and raises as `load`
    """

    instead = "digits"

    def servers(self):
        """Return the addresses that the files come from."""
        return self.torchvision_class.mirrors

    @property
    def torchvision_class(self):
        """torchvision's class of the data set; imported late, since that takes a second."""
        import torchvision.datasets
        return getattr(torchvision.datasets, self.torchvision_name)

    def find(self, data_dir=None):
        for root in data_dirs(data_dir):
            try:
                if self.has_all(root / self.subfolder):
                    return root / self.subfolder
            except PermissionError:
                raise DatasetError(f"the folder {root / self.subfolder} may not be read; open it to all users, or name "
                                   "another one with data_dir or LABS_DATA_DIR") from None
        return None

    def load(self, data_dir=None, limit=None):
        return self.read(self.find(data_dir) or self.download(data_dir), limit)

    def download(self, data_dir=None, copy_of=None):
        """Put the data set into the first data folder and return the folder of its files.

        torchvision downloads and verifies it, or it is copied from the folder `copy_of`. The files appear
        under their names only when all are complete. Processes that need the same data set wait for the first
        of them. Raises `DatasetError`, without a network within 30 seconds.
        """
        roots = data_dirs(data_dir)
        root, folder = roots[0], roots[0] / self.subfolder
        try:
            make_dir(root)
            if not copy_of and not any_answers(self.servers()):
                raise OSError("no server answers")
            with FileLock(root / f".{self.name}.lock"):
                if not self.has_all(folder):
                    self.fill(root, copy_of)
        except (OSError, RuntimeError, ImportError) as error:
            if copy_of:
                raise DatasetError(f"{copy_of} cannot be copied to {folder} ({error})") from error
            looked_in = f"{root} (data_dir={str(data_dir)!r})" if data_dir else " nor in ".join(map(str, roots))
            raise DatasetError(f"the data set {self.name!r} is neither in {looked_in} nor can it be downloaded "
                               f'({error}); take dataset="{self.instead}", which comes with the project, or put the '
                               f"files into {folder}") from error
        return folder

    def fill(self, root, copy_of):
        """Download or copy the files into a temporary folder, then move them into `root`."""
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as part:
            if copy_of:
                shutil.copytree(copy_of, Path(part) / self.subfolder, copy_function=shutil.copyfile)
            else:
                self.torchvision_class(part, download=True)
            move(Path(part) / self.subfolder, root / self.subfolder)


def data_dirs(data_dir=None):
    """Return the folders in which data sets are looked for; downloads go into the first.

    That is `data_dir` alone if it is given, else $LABS_DATA_DIR, if it is set, and `data/`. Raises `DatasetError` for
    one of the first two that does not exist: another folder may hold other data.
    """
    if data_dir:
        return [existing(data_dir, "data_dir", "take data_dir=None, for $LABS_DATA_DIR and data/")]
    named = os.environ.get("LABS_DATA_DIR")
    return ([existing(named, "LABS_DATA_DIR", "unset it, for data/")] if named else []) + [PROJECT_ROOT / "data"]


def existing(folder, name, way_out):
    """Return the path of the folder that the parameter or variable `name` gives; raises `DatasetError` without it."""
    path = project_path(folder)
    if not os.path.isdir(path):
        raise DatasetError(f"{name}={str(folder)!r}: there is no folder {path}; correct the name, make the folder, or "
                           f"{way_out}")
    return path


def move(source, target):
    """Move a file or folder to `target`; a folder that exists there keeps its other files."""
    if source.is_dir() and target.is_dir():
        for path in source.iterdir():
            move(path, target / path.name)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)


def any_answers(urls, seconds=15):
    """Tell whether any of the servers accepts a connection; never takes longer than `seconds`."""
    answers = threading.Event()
    threads = [threading.Thread(target=knock, args=(url, answers), daemon=True) for url in urls]
    for thread in threads:      # threads, because a name server that hangs ignores the time-out
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
