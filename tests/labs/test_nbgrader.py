"""nbgrader takes a lab as it is: it makes the assignment, and grades a submission with two wrong answers."""

import os
import shutil

import nbformat
import pytest
from helpers import BIN, ONE_CORE, command, notebook_path, prepare_copy, solutions

nbgrader_api = pytest.importorskip("nbgrader.api", reason="nbgrader is not installed (pip install nbgrader)")
LAB = "02_vae"
ACTIVATED = {**ONE_CORE, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}    # nbgrader looks for alembic on the path
WRONG = {"gaussian_kl": "def gaussian_kl(mu_q, logvar_q, mu_p, logvar_p):\n    return -mu_q.sum(dim=1)",
         "walk": "def walk(vae, z, latent, values):\n    return vae.draw(z.repeat(len(values), 1))"}


def submit(course, student, answers):
    """Hand in the released notebook with the given sources {grade_id: source} in place of the stubs."""
    folder = course / "submitted" / student / "labs"
    folder.mkdir(parents=True)
    notebook = nbformat.read(course / f"release/labs/{LAB}.ipynb", as_version=4)
    for name, cell in solutions(notebook).items():
        cell.source = answers[name]
    nbformat.write(notebook, folder / f"{LAB}.ipynb")


@pytest.mark.slow
def test_generate_and_autograde(tmp_path):
    course = tmp_path / "course"
    (course / "source/labs").mkdir(parents=True)
    prepare_copy(LAB, course / "source/labs", out_dir=tmp_path / "out")       # tiny, so that grading is quick
    at = f"--CourseDirectory.root={course}"
    done = command("nbgrader", "generate_assignment", "labs", "--create", at, env=ACTIVATED)
    assert done.returncode == 0, done.stderr[-3000:]
    released = (course / f"release/labs/{LAB}.ipynb").read_text()
    assert "BEGIN SOLUTION" not in released and "raise NotImplementedError()" in released

    right = {name: cell.source for name, cell in solutions(nbformat.read(notebook_path(LAB), as_version=4)).items()}
    submit(course, "student", {**right, **WRONG})
    done = command("nbgrader", "autograde", "labs", "--create", at, env=ACTIVATED)
    assert done.returncode == 0, done.stderr[-3000:]

    marks = [cell.metadata.get("nbgrader", {}) for cell in nbformat.read(notebook_path(LAB), as_version=4).cells]
    points = {mark.grade_id: mark.points for mark in marks if mark.get("grade")}
    with nbgrader_api.Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        graded = gradebook.find_submission_notebook(LAB, "labs", "student").grades
        grades = {grade.name: grade.score for grade in graded}
    assert grades == {**points, "check_gaussian_kl": 0, "check_walk": 0} != points
    shutil.rmtree(course)
