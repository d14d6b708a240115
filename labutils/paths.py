"""Where the project lies, and how a file is written so that nobody ever sees half of it."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
HALF_WRITTEN = ".part-"      # so begins the name of a file until it is whole


def project_path(path):
    """Return `path` as an absolute `Path`; a relative one is taken from the project's root.

    The folder in which a kernel happens to stand never matters.
    """
    return PROJECT_ROOT / os.path.expanduser(path)      # leaves the ~ of an unknown user as it is, as a shell does


def make_dir(path):
    """Create the folder `path` (relative to the project's root) and return it as a `Path`."""
    folder = project_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot create the folder {folder}: {error.strerror}; "
                      f"choose another one, where you may write") from error
    return folder


@contextmanager
def replacing(path):
    """Give a temporary path beside `path` that takes its place when the block ends well.

    An error inside the block, a full disk for example, leaves `path` as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=HALF_WRITTEN, suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)   # mkstemp makes files that only their owner can read
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
