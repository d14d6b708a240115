"""The project's root, and writing files so that nobody ever sees half of one."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from .errors import BadFolder

PROJECT_ROOT = Path(__file__).resolve().parents[1]
HALF_WRITTEN = ".part-"      # the start of a file's name until it is complete


def project_path(path):
    """Return `path` as an absolute `Path`; a relative one starts at the project's root, not in the kernel's folder."""
    return PROJECT_ROOT / os.path.expanduser(path)      # the ~ of an unknown user stays, as in a shell


def make_dir(path):
    """Create the folder `path` if necessary and return it as `project_path` does; raises `OSError`."""
    folder = project_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadFolder(f"cannot create the folder {folder}: {error.strerror}; "
                        "choose another one, where you may write") from error
    return folder


@contextmanager
def replacing(path):
    """Provide a temporary path in the same folder; the file there replaces `path` when the block ends without error.

    An error in the block, such as a full disk, leaves `path` unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=HALF_WRITTEN, suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)   # only the owner can read the files of mkstemp
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
