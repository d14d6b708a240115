"""The labs for whoever learns alone: without solutions, and what a student has written there is never lost."""

import os
import re
import subprocess

import nbformat
import pytest
from helpers import LABS, write_lab

from labutils.instructor import cli, student
from labutils.instructor.student import FOLDER, write_student_labs
from labutils.paths import PROJECT_ROOT

SMALL_LABS = {"01_good": ["def twice(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION"],
              "02_other": ["print('other')"]}


@pytest.fixture
def folder(notebooks, tmp_path):
    """The folder of a student, with the small labs in it."""
    write_student_labs(tmp_path / "student")
    return tmp_path / "student"


def change(path, **about):
    """Change the last cell of a notebook as JupyterLab does when it saves one."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].update(about)
    notebook.metadata["language_info"] = {"name": "python", "version": "3.13.0"}
    notebook.metadata["kernelspec"]["display_name"] = "Python 3 (ipykernel)"
    nbformat.write(notebook, path)


def sources(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells]


def test_a_student_gets_the_labs_without_solutions(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["01_good.ipynb", "02_other.ipynb"]
    assert "YOUR CODE HERE" in sources(folder / "01_good.ipynb")[-1]


def test_a_second_call_writes_nothing(folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    write_student_labs(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before and capsys.readouterr().out == ""


@pytest.mark.parametrize("saved", [False, True])
def test_a_new_version_of_a_lab_replaces_a_notebook_that_nobody_worked_in(folder, notebooks, capsys, saved):
    if saved:
        change(folder / "02_other.ipynb")
    write_lab(notebooks, "02_other", ["print('new')"])
    write_student_labs(folder)
    assert sources(folder / "02_other.ipynb")[-1] == "print('new')" and capsys.readouterr().out == ""


@pytest.mark.parametrize("work", [
    {"source": "my own"}, {"execution_count": 3}, {"outputs": [nbformat.v4.new_output("stream", text="2 hours")]}])
def test_work_stays_when_the_lab_has_a_new_version_which_is_said(folder, notebooks, capsys, work):
    path = folder / "02_other.ipynb"
    change(path, **work)
    mine = path.read_bytes()
    write_student_labs(folder)
    assert path.read_bytes() == mine and capsys.readouterr().out == "", "nothing is new yet"
    write_lab(notebooks, "02_other", ["print('new')"])
    for _ in range(2):
        write_student_labs(folder)
        printed = capsys.readouterr().out
        assert path.read_bytes() == mine and printed.startswith(f"{path}: you have worked in it")
        assert printed.endswith("rename your notebook, and type 'make student'\n") and printed.count("\n") == 1
    path.rename(folder / "02_mine.ipynb")
    write_student_labs(folder)
    assert sources(path)[-1] == "print('new')" and (folder / "02_mine.ipynb").read_bytes() == mine


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 5}', "<<<<<<< HEAD"])
def test_a_damaged_notebook_stays(folder, capsys, text):
    path = folder / "01_good.ipynb"
    path.write_text(text)
    write_student_labs(folder)
    assert path.read_text() == text and str(path) in capsys.readouterr().out


def test_what_cannot_be_written_is_said_in_one_line(folder, notebooks, capsys, monkeypatch):
    (folder / "03_new.ipynb").mkdir()
    write_lab(notebooks, "03_new")
    monkeypatch.setattr(student.write_student_labs, "__defaults__", (folder,))
    assert cli.main(["student"]) == 2
    assert re.fullmatch(r"labs student: .*03_new\.ipynb cannot be written: Is a directory\n", capsys.readouterr().err)


def test_make_lab_opens_the_labs_without_solutions_and_make_solutions_those_with_them():
    def last_line(target):
        done = subprocess.run(["make", "--no-print-directory", "-n", target], cwd=PROJECT_ROOT, capture_output=True,
                              text=True, check=True)
        assert ("labs student" in done.stdout) == (target == "lab")
        return done.stdout.splitlines()[-1]
    assert "/lab/tree/student" in last_line("lab") and "/lab/tree/notebooks" in last_line("solutions")
    assert FOLDER == PROJECT_ROOT / "student"
    ignored = subprocess.run(["git", "check-ignore", "-q", FOLDER / f"{LABS[0]}.ipynb"], cwd=PROJECT_ROOT)
    assert ignored.returncode == 0 or not (PROJECT_ROOT / ".git").exists()


def test_the_links_of_the_labs_lead_from_the_students_folder_where_they_lead_from_the_other(tmp_path):
    write_student_labs(tmp_path)
    cells = [cell for lab in LABS for cell in nbformat.read(tmp_path / f"{lab}.ipynb", as_version=4).cells]
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    paths = {os.path.normpath(FOLDER / link) for link in re.findall(r"\]\(([^)#:]+\.[^)#:]+)\)", text)}
    assert f"{PROJECT_ROOT}/docs/speed.md" in paths
    assert not [path for path in paths if not os.path.exists(path.replace(f"{FOLDER}/", f"{tmp_path}/"))]
