"""`labs data`: which data sets are on this machine, and fetching some before a class."""

import sys
from pathlib import Path
from typing import NamedTuple

from ..data import SOURCES, DatasetError, find_source
from ..data.network import proxies, without_password
from ..data.source import data_dirs
from ..paths import make_dir
from .labs import UsageError


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
    """Print the state of every data set; return 1 if one is damaged, else 0.

    Raises `UsageError` if LABS_DATA_DIR names a folder that does not exist.
    """
    try:
        folders = data_dirs()
    except DatasetError as error:
        raise UsageError(str(error)) from None
    states = {name: examine(source) for name, source in SOURCES.items()}
    for name, state in states.items():
        print(f"{name:<8}  {state}")
    print(f"looked for in {', '.join(map(str, folders))}")
    if found := proxies():
        print(f"downloads go through the proxy {', '.join(sorted(set(map(without_password, found.values()))))}")
    return int(any(state.verdict == "damaged" for state in states.values()))


def fetch(names, folder=None):
    """Fetch and verify the data sets `names`, into `folder` if it is given; print the state of each.

    Returns 0, or 1 if one is damaged or cannot be fetched. Raises `UsageError` for an unknown name, and for a
    `folder` that is a file.
    """
    try:
        sources = {name: find_source(name) for name in names}
    except ValueError as error:
        raise UsageError(str(error)) from None
    if folder and folder.exists() and not folder.is_dir():
        raise UsageError(f"--to {folder}: is not a folder")
    code = 0
    for name, source in sources.items():
        state = fetch_one(source, folder)
        if state.verdict == "verified":
            print(f"{name:<8}  {state}", flush=True)
        else:
            print(f"labs data: {name}: {state.remark}", file=sys.stderr, flush=True)
            code = 1
    return code


def fetch_one(source, folder=None):
    """Download a data set unless it is here, or put it into `folder`, by a copy if it is here; return its `State`."""
    try:
        if source.subfolder and source.find(folder and make_dir(folder)) is None:
            if here := source.find() if folder else None:
                source.verify(here)
            source.download(folder, copy_of=here)
        return examine(source, folder)
    except (DatasetError, OSError) as error:
        return State("missing", remark=str(error))


def how_to_get(source, data_dir=None):
    """Say of a missing data set what lies in its place, and how it comes here."""
    there = source.look(data_dir)
    folder = data_dirs(data_dir)[0] / source.subfolder
    return (f"{there}; " if there else "") + f"'labs data {source.name}' fetches it into {folder}"


def examine(source, data_dir=None):
    """Return the `State` of a data set; all its files are read and verified."""
    folder, size = None, 0
    try:
        if source.subfolder:
            folder = source.find(data_dir)
            if folder is None:
                return State("missing", remark=how_to_get(source, data_dir))
            size = sum(path.stat().st_size for path in source.contents(folder).values())
        return State("verified", folder, size, source.verify(folder))
    except (DatasetError, ImportError, OSError) as error:
        return State("damaged", folder, size, str(error))
