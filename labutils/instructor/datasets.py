"""`labs data`: which data sets lie on this machine, and fetching them ahead of a class."""

import os
import re
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from ..data import (DATASETS, FILES, IDX_SOURCES, DatasetError, data_dirs, download_celeba, download_idx, find_celeba,
                    find_idx, idx_path, load_dataset, load_idx)
from ..paths import make_dir
from .labs import UsageError

# the sets that lie in files, and the name of their folder; the others come with the project
FOLDERS = {**{name: source.torchvision_class for name, source in IDX_SOURCES.items()}, "celeba": "celeba"}
LOCKS = (".labs.lock", *(f".{folder}.lock" for folder in FOLDERS.values()))


class State(NamedTuple):
    """What is known of a data set: "verified", "damaged" or "missing", its folder, its bytes, and a remark."""
    verdict: str
    folder: Path | None = None
    size: int = 0
    remark: str = ""

    def __str__(self):
        size = f"{self.size / 1e6:.1f} MB in {self.folder}" if self.folder else ""
        return "  ".join(filter(None, [f"{self.verdict:<8}", size, self.remark]))


def report():
    """Print the state of every data set; return 1 if one is damaged, else 0."""
    states = {name: examine(name) for name in DATASETS[:-1]}
    for name, state in states.items():
        print(f"{name:<8}  {state}")
    print(f"looked for in {', '.join(map(str, data_dirs()))}")
    return int(any(state.verdict == "damaged" for state in states.values()))


def fetch(names, to=None):
    """Fetch and verify the data sets `names`, into the shared folder `to` if given; say of each how it is.

    Returns 0, or 1 if one cannot be had or is damaged. Raises `UsageError` for an unknown name, and for a
    folder `to` that cannot be one for data sets alone.
    """
    for name in names:
        if name not in DATASETS[:-1] and not re.match("folder:.", name):
            raise UsageError(f"there is no data set {name!r}; the data sets are: {', '.join(DATASETS)}")
    if to is not None:
        check_shared(to)
    states = {}
    for name in dict.fromkeys(names):
        states[name] = state = bring(name, to)
        whole = state.verdict == "verified"
        print(f"{name:<8}  {state}" if whole else f"labs data: {name}: {state.remark}",
              file=sys.stdout if whole else sys.stderr, flush=True)
    closed = [str(folder) for folder in to.parents if not folder.stat().st_mode & stat.S_IXOTH] if to and to.exists() else []
    if closed:
        print(f"note: other users cannot reach {to}: {closed[-1]} is closed to them")
    return int(any(state.verdict != "verified" for state in states.values()))


def check_shared(to):
    """Raise `UsageError` if `to` is no folder, or holds what is no data set: all in it becomes read-only."""
    if to.exists() and not to.is_dir():
        raise UsageError(f"--to {to}: is not a folder; name one for data sets alone")
    others = [path.name for path in (to.iterdir() if to.exists() else ())
              if path.name not in FOLDERS.values() and not path.name.startswith((".download-", *LOCKS))]
    if others:
        raise UsageError(f"--to {to}: holds more than data sets ({', '.join(sorted(others)[:3])}), and would become "
                         "read-only; name a folder for data sets alone")


# --------------------------------------------------------------------------------------- one data set

def find(name, to=None):
    """Return the folder in which the files of a data set lie, or None; with `to`, they must lie there."""
    if name == "celeba":
        root = find_celeba(to)
        folder = root and root / "celeba"
    else:
        folder = find_idx(name, to)
    return folder if folder and (to is None or folder.is_relative_to(to)) else None


def examine(name, to=None):
    """Return the `State` of a data set; all its files are read and verified."""
    folder, size = None, 0
    try:
        if name in FOLDERS:
            folder = find(name, to)
            if folder is None:
                return State("missing", remark=f"'labs data {name}' fetches it")
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return State("verified", folder, size, verify(name, folder))
    except (DatasetError, ImportError, OSError) as error:
        return State("damaged", folder, size, str(error))


def verify(name, folder):
    """Read a data set; return a remark on what could not be verified. Raises `DatasetError`."""
    if name == "celeba":
        verify_celeba(folder)
    elif name in IDX_SOURCES:
        load_idx(name, folder)
        if not IDX_SOURCES[name].md5 and any(idx_path(folder, file).suffix != ".gz" for file in FILES):
            return "(headers and lengths only: no checksums of the unpacked files are published)"
    else:
        load_dataset(name)
        return "" if name.startswith("folder:") else "comes with the project"
    return ""


def verify_celeba(folder):
    """Raise `DatasetError` unless CelebA's tables have their checksums, and all pictures are there."""
    from torchvision.datasets import CelebA
    way_out = "delete the folder to fetch the set again"
    try:
        wanted = set(CelebA(folder.parent, split="all").filename)
    except (OSError, RuntimeError, ValueError) as error:
        raise DatasetError(f"{folder} is damaged ({error}); {way_out}") from error
    if absent := wanted - set(os.listdir(folder / "img_align_celeba")):
        raise DatasetError(f"{folder} lacks {len(absent)} of {len(wanted)} pictures; {way_out}")


# ------------------------------------------------------------------------------------------- fetching

def bring(name, to=None):
    """Fetch a data set unless it is there, and verify it; return its `State`."""
    try:
        if name in FOLDERS and to is not None:
            return share(name, to)
        if name in FOLDERS and find(name) is None:
            download(name)
        return examine(name)
    except (DatasetError, OSError) as error:
        return State("missing", remark=str(error))


def share(name, to):
    """Bring a data set into the folder `to`, for all to read and nobody to write by accident; return its `State`.

    What is there, verified and read-only is left untouched. Processes that ask at once wait for each other.
    """
    state = examine(name, to)
    if state.verdict == "damaged" or (state.verdict == "verified" and not unsealed(name, to)):
        return state
    reopen(name, to)
    with FileLock(to / LOCKS[0]):
        try:
            reopen(name, to)        # who had the lock before has closed the folder
            if find(name, to) is None:
                copy(name, to) if find(name) else download(name, to)
            state = examine(name, to)
            for path in unsealed(name, to) if state.verdict == "verified" else ():
                path.chmod(0o555 if path.is_dir() else 0o444)
        finally:
            if any((to / folder).exists() for folder in FOLDERS.values()):
                to.chmod(0o555)
    return state


def reopen(name, to):
    """Make the folder `to`, or let its owner write to it again. Raises `DatasetError` for anybody else."""
    for folder in (make_dir(to), to / FOLDERS[name], to / FOLDERS[name] / "raw"):
        try:
            if folder.exists() and not os.access(folder, os.W_OK):
                folder.chmod(0o755)
        except PermissionError:
            raise DatasetError(f"{folder} is read-only and belongs to another user: ask them for the data set {name!r}, "
                               "or name another folder with --to") from None


def unsealed(name, to):
    """Return the paths of a data set in `to`, and `to` itself, that are not read-only for everybody."""
    folder = to / FOLDERS[name]
    paths = [path for path in (*folder.rglob("*"), folder, to) if not path.is_symlink()]
    return [path for path in paths if stat.S_IMODE(path.stat().st_mode) not in (0o444, 0o555)]


def download(name, to=None):
    """Let torchvision download a data set."""
    if name == "celeba":
        download_celeba(to)
    else:
        download_idx(name, to)


def copy(name, to):
    """Copy a data set that lies elsewhere on this machine into `to`, beside what is left of it there. Raises `DatasetError`."""
    source = find(name)
    verify(name, source)
    inside = Path(FOLDERS[name]) / ("" if name == "celeba" else "raw")
    with tempfile.TemporaryDirectory(dir=to, prefix=".download-") as part:
        shutil.copytree(source, Path(part) / inside, copy_function=shutil.copyfile)
        merge(Path(part), to)


def merge(source, target):
    """Move all in the folder `source` into `target`; a folder that is there already takes its files one by one."""
    for path in source.iterdir():
        if (target / path.name).is_dir():
            merge(path, target / path.name)
        else:
            os.replace(path, target / path.name)
