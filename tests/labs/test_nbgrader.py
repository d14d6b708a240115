"""nbgrader takes a lab as it is: it makes the assignment, and grades a right and a wrong submission."""

import os
import shutil

import nbformat
import pytest
from helpers import BIN, ONE_CORE, command
from test_notebooks import tiny_parameters
from test_release import solutions

from labutils.paths import PROJECT_ROOT

nbgrader_api = pytest.importorskip("nbgrader.api", reason="nbgrader is not installed (pip install nbgrader)")
LAB = PROJECT_ROOT / "notebooks/02_vae.ipynb"
ACTIVATED = {**ONE_CORE, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}    # nbgrader looks for alembic on the path
WRONG = {"gaussian_kl": "def gaussian_kl(mu_q, logvar_q, mu_p, logvar_p):\n    return -mu_q.sum(dim=1)",
         "walk": "def walk(vae, z, latent, values):\n    return vae.draw(z.repeat(len(values), 1))"}


def submit(course, student, answers):
    """Hand in the released notebook with the given sources {grade_id: source} in place of the stubs."""
    folder = course / "submitted" / student / "labs"
    folder.mkdir(parents=True)
    notebook = nbformat.read(course / "release/labs/02_vae.ipynb", as_version=4)
    for name, cell in solutions(notebook).items():
        cell.source = answers[name]
    nbformat.write(notebook, folder / "02_vae.ipynb")


@pytest.mark.nbgrader
def test_generate_and_autograde(tmp_path):
    course = tmp_path / "course"
    (course / "source/labs").mkdir(parents=True)
    source = course / "source/labs/02_vae.ipynb"        # the lab with small parameters, so that grading is quick
    assert command("papermill", LAB, source, "--prepare-only",
                   *tiny_parameters(LAB, out_dir=tmp_path / "out")).returncode == 0
    at = f"--CourseDirectory.root={course}"
    done = command("nbgrader", "generate_assignment", "labs", "--create", at, env=ACTIVATED)
    assert done.returncode == 0, done.stderr[-3000:]
    released = (course / "release/labs/02_vae.ipynb").read_text()
    assert "BEGIN SOLUTION" not in released and "raise NotImplementedError()" in released

    right = {name: cell.source for name, cell in solutions(nbformat.read(LAB, as_version=4)).items()}
    submit(course, "right", right)
    submit(course, "wrong", {**right, **WRONG})
    done = command("nbgrader", "autograde", "labs", "--create", at, env=ACTIVATED)
    assert done.returncode == 0, done.stderr[-3000:]

    points = {cell.metadata.nbgrader.grade_id: cell.metadata.nbgrader.points
              for cell in nbformat.read(LAB, as_version=4).cells if cell.metadata.get("nbgrader", {}).get("grade")}
    with nbgrader_api.Gradebook(f"sqlite:///{course}/gradebook.db") as gradebook:
        grades = {student: {grade.name: grade.score for grade in
                            gradebook.find_submission_notebook("02_vae", "labs", student).grades} for student in ("right", "wrong")}
    assert grades["right"] == points
    assert grades["wrong"] == {**points, "check_gaussian_kl": 0, "check_walk": 0}
    shutil.rmtree(course)
