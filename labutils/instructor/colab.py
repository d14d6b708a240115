"""The first code cell of each lab: on Google Colab it fetches the course, anywhere else it does nothing.

Where the course lies is said once, in pyproject.toml: Repository = "…", under [project.urls]. After a change there,
`python -m labutils.instructor.colab` writes the cells of the committed notebooks again.
"""

import json
import tomllib

import nbformat

from ..paths import PROJECT_ROOT, replacing
from .labs import lab_names, lab_path, read_lab

CELL_ID = "colab"
SOURCE = """\
# On Google Colab this cell fetches the course. Anywhere else it does nothing.
import subprocess
import sys
from pathlib import Path

repository = ADDRESS  # where the course lies


class NotFetched(Exception):
    def _render_traceback_(self):  # one line in place of a traceback
        return [str(self)]


if "google.colab" in sys.modules:
    if not repository:
        raise NotFetched('repository = "": write the address of the course between the quotes')
    if not Path("course").exists():
        git = subprocess.run(["git", "clone", "--depth", "1", "--", repository, "course"],
                             capture_output=True, text=True)
        if git.returncode:
            raise NotFetched(f"{repository} cannot be fetched: {' '.join(git.stderr.split())}")
    sys.path.insert(0, str(Path("course").resolve()))"""


def source(address):
    """Return the source of the cell for a repository's address; "": not known."""
    return SOURCE.replace("ADDRESS", json.dumps(address))


def repository():
    """Return the address of the course's repository that pyproject.toml names, or ""."""
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project.get("urls", {}).get("Repository", "")


def set_address(notebook, address):
    """Write a repository's address into the cell of a notebook that has one."""
    for cell in notebook.cells:
        if cell.get("id") == CELL_ID:
            cell.source = source(address)


def write_cells():
    """Write the address that pyproject.toml names into the committed notebooks."""
    for name in lab_names():
        notebook = read_lab(name)
        set_address(notebook, repository())
        with replacing(lab_path(name)) as part:
            nbformat.write(notebook, part)


if __name__ == "__main__":
    write_cells()
