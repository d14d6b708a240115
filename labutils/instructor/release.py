"""Versions of the course to hand out: one for students, without the solutions, and one with them."""

import json
import re
import shutil
import tempfile
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from urllib.parse import unquote

import nbformat

from ..paths import PROJECT_ROOT
from .colab import CELL_ID, repository, set_address
from .jupyter import KERNEL
from .labs import UsageError, lab_names, lab_title, read_lab, with_labs_used

# besides the notebooks
PARTS = ("labutils", "checkpoints", "pyproject.toml", "constraints.txt", "environment.yml", "LICENSE",
         "LICENSE-text", "CITATION.cff", "docs/speed.md", "notebooks/quick", "notebooks/expected")
# targets of the Makefile that need files which are not handed out, or that end at the first exercise that is not done
NO_TESTS = ("test", "check", "lint", "gallery", "book", "book-solutions", r"\.venv/(tests|docs)-installed")
NO_TARGETS = {"student": ("labs", "full", *NO_TESTS), "solutions": NO_TESTS}
README = """# Labs on deep generative models

{labs}

## Start

{needs}

Open a terminal in the folder in which this file lies, and type

```sh
make lab
```

This makes a virtual environment in `.venv` ({size}) and opens JupyterLab on the notebooks. Where there is no make, as
on Windows, type these three lines instead (elsewhere `python3` for `py`, and `.venv/bin/` for `.venv\\Scripts\\`):

```sh
py -m venv .venv
.venv\\Scripts\\python -m pip install -c constraints.txt -e .
.venv\\Scripts\\jupyter lab notebooks
```

The next time the last one is enough, and `make lab` starts at once.

## Work

Open a notebook, the first one first, and step through it with Shift+Enter. {exercises}

Each notebook has one cell of *parameters*: change a value, run again, and compare. On a slow machine, or without a
network, start with `dataset = "digits"`; with `pretrained = True` you take the trained weights. Pictures and weights go
to `runs/`.

## Data

{data}

## Other ways to install

In an environment made in one of these ways, type `jupyter lab notebooks` here.

{install}

## Licence

{licence}
"""
EXERCISES = {
    "student": "Where a cell says `# YOUR CODE HERE`, put your answer in the place of the line below it, and run the "
               "cell. Then run the next cell, `checks.check_...`: it says at once whether the answer is right, or what "
               "is probably wrong. *Run All* stops at the first exercise that is not done.",
    "solutions": "This is the version with the solutions: they are folded away in the cells of the exercises."}
# what may be meant as a mark, and what is one for nbgrader alone
DOUBTFUL = re.compile(r".*(\b(BEGIN|END)[\s_:-]*(SOLUTION|HIDDEN|MARK)|\bAUTOTEST\b).*", re.I)
TEACHERS_ONLY = {"answer", "instructor"}        # tags of cells that no student gets


def release(folder, names=(), address=None):
    """Write `folder`/student, `folder`/solutions and `folder`/student.zip with the labs `names`; none: all.

    A lab that takes definitions from other labs brings these with it. On Google Colab the notebooks fetch the course
    from `address`; None: the one of pyproject.toml. All appears at once, or nothing does. Raises `UsageError` for a
    folder that is not empty, an unknown lab, or a notebook with a mark that is not closed.
    """
    folder = Path(folder).resolve()
    with new_folder(folder) as whole:
        notebooks = read_labs(with_labs_used(names), address)
        students = {name: student_version(name, notebook) for name, notebook in notebooks.items()}
        write_version(whole / "student", students)
        write_version(whole / "solutions", notebooks)
        shutil.make_archive(str(whole / "student"), "zip", whole, "student")
    return folder


def read_labs(names=(), address=None):
    """Return {name: notebook} of the labs `names`; none: all. Raises `UsageError` for an unknown one.

    A kernel's name of the instructor's own is replaced: no other computer has it. The cell for Google Colab gets the
    `address` of the course; None: the one of pyproject.toml.
    """
    notebooks = {name: read_lab(name) for name in dict.fromkeys(names or lab_names())}
    for notebook in notebooks.values():
        notebook.metadata["kernelspec"] = KERNEL
        set_address(notebook, repository() if address is None else address)
    return notebooks


@contextmanager
def new_folder(folder):
    """Provide a temporary folder, which becomes `folder` if the block ends without error.

    Raises `UsageError` for a folder that is not empty or cannot be made.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not an empty folder; name a new one, so that no version is mixed with another")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".release-") as part:
            whole = Path(part) / folder.name
            whole.mkdir()
            yield whole
            if folder.exists():
                folder.rmdir()
            whole.rename(folder)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be made ({error.strerror or error}); name another one") from None


def write_version(folder, notebooks):
    """Write the notebooks {name: notebook} and all that they need; the name of `folder` is that of the version."""
    copy_parts(folder, PARTS)
    for name, notebook in notebooks.items():
        nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")
    (folder / "README.md").write_text(readme(folder.name, notebooks), encoding="utf-8")
    (folder / "Makefile").write_text(makefile(NO_TARGETS[folder.name]), encoding="utf-8", newline="\n")


def copy_parts(folder, parts):
    """Copy files and folders of the project, named by their paths in it, into `folder`."""
    for part in parts:
        source, target = PROJECT_ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, target)


def readme(version, names):
    """Return the README of a version; its parts about data, packages and licence are those of the project's README."""
    sections = readme_sections()
    contents = "\n".join(f"- [{lab_title(name)}](notebooks/{name}.ipynb)" for name in names)
    install = "\n".join(re.findall("^- .*", sections["Other ways to install"], re.M))
    needs = sections["Start"].splitlines()[0].replace("git, ", "")
    size = re.search(r"in `\.venv` \((.*?)\)", sections["Start"])[1]
    return README.format(labs=contents, needs=needs, size=size, exercises=EXERCISES[version], data=sections["Data"],
                         install=install, licence=sections["Licence"])


def readme_sections():
    """Return {title: text} of the sections of the project's README."""
    text = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    return {title: body.strip() for title, body in re.findall(r"^## (.*)\n((?:(?!## ).*\n?)*)", text, re.M)}


def makefile(without):
    """Return the project's Makefile without some of its targets; its `make lab` opens the notebooks as they are."""
    about, *rules = (PROJECT_ROOT / "Makefile").read_text(encoding="utf-8").split("\n\n")
    kept = [rule.replace("solutions:", "lab:") for rule in rules
            if not re.search(rf"^({'|'.join(without)}|lab|student|\.PHONY):", rule, re.M)]
    variables = [line for line in about.splitlines() if not line.startswith(("#", "PYTEST"))]
    return "\n\n".join(["\n".join(variables), *kept]) + "\n"


def student_version(name, notebook):
    """Return a copy of a lab's notebook without solutions, hidden tests, answers, outputs and traces of them.

    Raises `UsageError` for a mark that is not closed or not understood.
    """
    student = for_students(notebook)
    for cell in student.cells:
        try:
            clear(cell)
        except ValueError as error:
            raise UsageError(f"{name}, cell {cell.id}: {error}") from None
    return student


def for_students(notebook):
    """Return a copy of a lab's notebook without outputs and answers; its solutions are still in it, and not folded."""
    copy = deepcopy(notebook)
    copy.cells = [cell for cell in copy.cells if not TEACHERS_ONLY & set(cell.metadata.get("tags", []))]
    copy.metadata = {key: value for key, value in notebook.metadata.items() if key in ("kernelspec", "language_info")}
    for cell in copy.cells:
        kept = ("tags", "nbgrader") + ("jupyter",) * (cell.get("id") == CELL_ID)    # which stays folded
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in kept}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return copy


def clear(cell):
    """Take out of a cell what no student gets, as nbgrader does. Raises `ValueError` for what may be a mark, too."""
    about = cell.metadata.get("nbgrader", {})
    instead = stub(cell.cell_type, about.get("grade_id", "this exercise"))
    source = without(cell.source, "SOLUTION", instead)
    whole = about.get("solution") and source == cell.source     # no marks: the whole cell is the solution
    for region in ("HIDDEN TESTS", "MARK SCHEME"):
        source = without(source, region)
    if left := DOUBTFUL.search(f"{source}\n{json.dumps(cell.metadata)}"):
        raise ValueError(f"{left[0].strip()!r} is no mark that 'labs release' understands; write it in capitals and "
                         "with one space, as in '### BEGIN SOLUTION' (or HIDDEN TESTS, or MARK SCHEME)")
    cell.source = source = "\n".join(instead) if whole else source.rstrip("\n")
    attached, links = cell.pop("attachments", {}), unquote(source)
    if shown := {file: data for file, data in attached.items() if f"attachment:{file}" in links}:
        cell.attachments = shown


def without(source, region, instead=()):
    """Return a source without the lines of a region and their marks; the lines `instead` stand where one began."""
    kept, begin = [], None
    for line in source.split("\n"):
        begins, ends = (f"{word} {region}" in line for word in ("BEGIN", "END"))
        if begins and begin is not None or ends and (begins or begin is None):
            raise ValueError(f"the mark {line.strip()!r} has no partner; every BEGIN needs its END, on another line")
        if begins:
            begin = line
            kept += [line[:len(line) - len(line.lstrip())] + new for new in instead]
        elif ends:
            begin = None
        elif begin is None:
            kept.append(line)
    if begin is not None:
        raise ValueError(f"the mark {begin.strip()!r} has no partner; every BEGIN needs its END, on another line")
    return "\n".join(kept)


def stub(cell_type, exercise):
    """Return the lines that replace a solution."""
    if cell_type != "code":
        return ["YOUR ANSWER HERE"]
    return ["# YOUR CODE HERE", f'raise NotImplementedError("{exercise}: put your answer in the place of this line")']
