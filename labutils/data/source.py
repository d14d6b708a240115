"""What every data set can do: be found, loaded, verified and downloaded."""

import os
import re
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from ..errors import OneLine
from ..paths import PROJECT_ROOT, make_dir, project_path
from .network import trouble_with, web_page, why_silent


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
    files                 the names of its files and folders
    has_all(folder)       a method: tell whether the folder holds all that is needed
    read(folder, limit)   a method: read the files there; returns and raises as `load`
    """

    instead = "digits"
    files = ()

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
                for folder in self.places(root):
                    if self.has_all(folder) and (folder == root / self.subfolder or self.owns(folder)):
                        return folder
            except PermissionError:
                raise DatasetError(f"the folder {root / self.subfolder} may not be read; open it to all users, or name "
                                   "another one with data_dir or LABS_DATA_DIR") from None
        return None

    def places(self, root):
        """Return the folders below a data folder where its files may be, the usual one first."""
        return [root / self.subfolder]

    def owns(self, folder):
        """Tell whether the files in one of the unusual places are those of this set, and not of another one."""
        return False

    def names(self):
        """Return the names of its files, as an error message tells them."""
        return ", ".join(self.files)

    def path(self, folder, file):
        """Return the path of one of `files` in `folder`, or None."""
        return folder / file if (folder / file).exists() else None

    def contents(self, folder):
        """Return {the usual name: path} of the set's files in the folder that `find` has found."""
        return {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}

    def look(self, data_dir=None):
        """Say what lies where its files should be, in a few words; "" where no file or folder of it is found."""
        roots = data_dirs(data_dir)
        usual, there = [root / self.subfolder for root in roots], {}
        for place in (place for root in roots for place in self.places(root)):
            there[place] = [file for file in self.files if self.path(place, file)]
        best = max(there, key=lambda place: len(there[place]) if place in usual or self.owns(place) else 0)
        missing = [file for file in self.files if file not in there[best]]
        if there[best] and missing:
            return f"{best} lacks {', '.join(missing)}"
        if other := next((place for place, files in there.items() if len(files) == len(self.files)), None):
            return (f"the files in {other} have not the checksums of {self.torchvision_name}; if they are its files "
                    f"all the same, move them to {usual[0]}")
        found = next((folder for folder in usual if folder.is_dir()), None)
        return f"{found} {listing(found)}" if found else ""

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
            if not copy_of and (silence := why_silent(self.servers())):
                raise DatasetError(silence)
            with FileLock(root / f".{self.name}.lock"):
                if not self.has_all(folder):
                    self.fill(root, copy_of)
        except (OSError, RuntimeError, ImportError) as error:
            raise DatasetError(self.failure(error, data_dir, folder, copy_of)) from error
        return folder

    def failure(self, error, data_dir, folder, copy_of):
        """Say in one line why the set cannot be put into `folder`, and the ways out."""
        cause = " ".join(str(error).split())        # torchvision's own errors have several lines
        if trouble := trouble_with(folder, error):
            return (f"the data set {self.name!r} cannot be put into {folder}: {trouble} ({cause}); name another folder "
                    f'with data_dir or LABS_DATA_DIR, or take dataset="{self.instead}", which comes with the project')
        if copy_of:
            return f"{copy_of} cannot be copied to {folder} ({cause})"
        roots = data_dirs(data_dir)
        looked_in = f"{roots[0]} (data_dir={str(data_dir)!r})" if data_dir else " nor in ".join(map(str, roots))
        there = self.look(data_dir) or f"{roots[0]} {listing(roots[0])}"
        return (f"the data set {self.name!r} is neither in {looked_in} nor can it be downloaded ({cause}); take "
                f'dataset="{self.instead}", which comes with the project, or put the files into {folder}: '
                f"{self.names()}; now {there}")

    def fill(self, root, copy_of):
        """Download or copy the files into a temporary folder, then move them into `root`."""
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as part:
            target = Path(part) / self.subfolder
            for name, path in self.contents(copy_of).items() if copy_of else ():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / name)
            if not copy_of:
                self.fetch(part)
            move(target, root / self.subfolder)

    def fetch(self, folder):
        """Let torchvision download the files into `folder`; raises what it raises, or `DatasetError` for a web page."""
        try:
            self.torchvision_class(folder, download=True)
        except (OSError, RuntimeError) as error:
            if page := web_page(Path(folder)):
                raise DatasetError(f"the server sent a web page in place of {page}, as networks with a login page do: "
                                   "log in with a browser and try again") from error
            raise


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
        what = f"{path} is no folder" if os.path.exists(path) else f"there is no folder {path}"
        raise DatasetError(f"{name}={str(folder)!r}: {what}; correct the name, make the folder, or {way_out}")
    return path


def move(source, target):
    """Move a file or folder to `target`; a folder that exists there keeps its other files."""
    if source.is_dir() and target.is_dir():
        for path in source.iterdir():
            move(path, target / path.name)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)


def listing(folder, n=4):
    """Say in a few words what a folder holds."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []
    if not names:
        return "is empty" if folder.is_dir() else "does not exist"
    more = f" and {len(names) - n} more" if len(names) > n else ""
    return f"holds {', '.join(names[:n])}{more}"


def simple(name):
    """Return the letters and digits of a name, small: "fashion-mnist" and "FashionMNIST" are the same folder."""
    return re.sub("[^a-z0-9]", "", name.lower())
