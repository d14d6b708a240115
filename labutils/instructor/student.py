"""The labs without their solutions, in student/ of this checkout, for whoever learns alone.

From there the notebooks find labutils, data and weights as those with the solutions do.
"""

import hashlib
import json

import nbformat

from ..paths import PROJECT_ROOT, replacing
from .labs import UsageError
from .release import read_labs, student_version

FOLDER = PROJECT_ROOT / "student"       # as deep as notebooks/, so that ../docs/ is the same folder


def write_student_labs(folder=FOLDER):
    """Write each lab, without solutions, to `folder`/NAME.ipynb, unless somebody has worked in the notebook there.

    A notebook in which a cell has been changed or run stays as it is. If the lab itself is another one by now, a line
    says so. Raises `UsageError` where nothing can be written, and for a damaged lab.
    """
    for name, notebook in read_labs().items():
        path, lab = folder / f"{name}.ipynb", student_version(name, notebook)
        lab.metadata["labutils"] = {"content": content(lab)}
        try:
            given, found = state(path)
            if found == given != content(lab):      # nothing is there, or an older version as it was written
                with replacing(path) as part:
                    nbformat.write(lab, part)
            elif given != content(lab):
                print(f"{path}: you have worked in it, so it stays as it is, but the lab has a new version. "
                      "To get that, rename your notebook, and type 'make student'")
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror or error}") from None


def state(path):
    """Return the `content` of a notebook as it was written and as it is now; (None, None) if there is none."""
    try:
        notebook = nbformat.read(path, as_version=4)
        return notebook.metadata.get("labutils", {}).get("content"), content(notebook)
    except FileNotFoundError:
        return None, None
    except OSError:
        raise
    except Exception:       # what is not a notebook raises errors of six classes
        return None, "damaged"


def content(notebook):
    """Return a sum of what somebody who works in a notebook changes: its cells, and which of them have been run."""
    cells = [(cell.cell_type, cell.source, bool(cell.get("execution_count") or cell.get("outputs")),
              *cell.get("attachments", {}).values()) for cell in notebook.cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()
