"""Build the book of the course: `python docs/book/build.py student`, or `... solutions` (`make book`).

The pages of a version are first collected in book/sources/VERSION, laid out as the project is, so that links between
them hold. The students' sources have no solutions, and Sphinx reads nothing else. No notebook is executed.
"""

import ast
import re
import shutil
import sys
from copy import deepcopy
from pathlib import Path

import click
import nbformat
from sphinx.cmd.build import build_main

import labutils
from labutils.instructor.cli import command_line
from labutils.instructor.labs import lab_names, read_lab
from labutils.instructor.release import readme_sections, student_version
from labutils.paths import PROJECT_ROOT

HERE = Path(__file__).parent
PARTS = ("TEACHING.md", "CONTRIBUTING.md", "docs/speed.md", "docs/cluster.md", "img")
ABOUT = {"student": "The labs are shown with the outputs of a run at the lesson's values. The exercises are left for "
                    "you: their cells have no solution and no output here.",
         "solutions": "This is the instructors' version: the solutions are folded away in the cells of the exercises, "
                      "and the answers below them."}


def main(version, book):
    """Write `book`/VERSION/, which opens at index.html, and `book`/VERSION.zip; return Sphinx's exit code."""
    sources, pages = book / "sources" / version, book / version
    for folder in (sources, pages):
        shutil.rmtree(folder, ignore_errors=True)
    collect(version, sources)
    options = ["-q", "-E", "-W", "--keep-going", "-c", HERE, "-d", book / "doctrees" / version, sources, pages]
    if code := build_main(list(map(str, options))):
        return code
    shutil.copytree(sources / "img", pages / "img")     # for the pictures that README has as HTML
    shutil.make_archive(str(pages), "zip", book, version)
    print(f"the book: {pages / 'index.html'}, and {version}.zip beside it")
    return 0


def collect(version, folder):
    """Write the sources of a version into a folder."""
    for part in PARTS:
        source, target = PROJECT_ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    for name in lab_names():
        (folder / "notebooks").mkdir(exist_ok=True)
        nbformat.write(VERSIONS[version](name, read_lab(name)), folder / "notebooks" / f"{name}.ipynb")
    for page in HERE.glob("*.md"):
        text = re.sub(r"^<!-- (\w+): ?(.*?) -->$", lambda match: PIECES[match[1]](match[2], version),
                      page.read_text(encoding="utf-8"), flags=re.M)
        (folder / page.name).write_text(text, encoding="utf-8")
    for page in folder.rglob("*.md"):       # Sphinx turns links to files that are no pages into downloads
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            if not target.exists() and (source := PROJECT_ROOT / target.relative_to(folder)).is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)


# ------------------------------------------------------------------------------------------- labs

def for_students(name, notebook):
    """Return the version of a lab for students, with the stored outputs of all cells but those of the exercises."""
    stored, student = {cell.id: cell for cell in notebook.cells}, student_version(name, notebook)
    for cell in student.cells:
        if cell.cell_type == "code" and "nbgrader" not in cell.metadata:
            cell.outputs, cell.execution_count = stored[cell.id].outputs, stored[cell.id].execution_count
            fold(cell, stored[cell.id])
    return student


def for_instructors(_, notebook):
    """Return a copy of a lab with folded solutions."""
    copy = deepcopy(notebook)
    for cell in copy.cells:
        fold(cell, cell)
    return copy


def fold(cell, stored):
    """Fold a cell in the book if JupyterLab folds it as it is stored."""
    if stored.metadata.get("jupyter", {}).get("source_hidden"):
        cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]


VERSIONS = {"student": for_students, "solutions": for_instructors}


# ------------------------------------------------------------------------- pieces of the other pages

def readme(title, version):
    """Return a section of the project's README; without a title, what comes before the first one."""
    if not title:
        return (PROJECT_ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")[0]
    return re.sub("^The links lead to the labs .*", ABOUT[version], readme_sections()[title])


def verbs(*_):
    """Return the help of each verb of the command `labs`, as its `--help` prints it."""
    parent = click.Context(command_line, info_name="labs", max_content_width=100)
    helps = {"labs": command_line.get_help(parent)}
    for name, verb in command_line.commands.items():
        helps[f"labs {name}"] = verb.get_help(click.Context(verb, info_name=name, parent=parent, max_content_width=100))
    return "\n\n".join(f"## {name}\n\n```text\n{text}\n```" for name, text in helps.items())


def modules(*_):
    """Return a heading and a directive of autodoc for each module of labutils from which the labs import something."""
    names = {f"labutils.{module}": set(members) for module, members in labutils.NAMES.items()}
    for lab in lab_names():
        code = "\n".join(cell.source for cell in read_lab(lab).cells if cell.cell_type == "code")
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and re.match(r"labutils\.(?!checks)", node.module):
                names.setdefault(node.module, set()).update(member.name for member in node.names)
    return "\n\n".join(f"## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n"
                       f"   :members: {', '.join(sorted(members))}\n```" for module, members in sorted(names.items()))


PIECES = {"README": readme, "VERBS": verbs, "MODULES": modules}

if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in VERSIONS:
        sys.exit(f"usage: python docs/book/build.py {'|'.join(VERSIONS)} [DIR]")
    sys.exit(main(sys.argv[1], Path(*sys.argv[2:] or [PROJECT_ROOT / "book"]).resolve()))
