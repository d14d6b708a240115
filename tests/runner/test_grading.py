"""A course for nbgrader and the page about a class, without nbgrader itself: tests/labs/test_nbgrader.py has that."""

import subprocess

import nbformat
import pytest
import yaml
from helpers import LABS, page_flaws, trains, write_lab
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labutils.instructor import cli
from labutils.instructor.grading import SetParameters, make_course
from labutils.instructor.labs import read_lab
from labutils.instructor.misconceptions import alike, counts, make_page, outcomes
from labutils.instructor.release import student_version

SMALL_LABS = {}


def graded(**said):
    """Return an executed notebook in which the check of each exercise said {exercise: (name of the error, text)}."""
    cells = []
    for name, error in said.items():
        outputs = [new_output("error", ename=error[0], evalue=error[1], traceback=[])] if error else []
        about = {"grade_id": f"check_{name}", "grade": True, "solution": False}
        cells.append(new_code_cell(outputs=outputs, metadata={"nbgrader": about}))
    return new_notebook(cells=cells)


def test_the_gradebook_and_the_hand_ins_are_ignored_by_git(tmp_path):
    make_course(tmp_path, ["02_vae"])
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    private = ["gradebook.db", "gradebook.db.2026-11-27", "grades.csv", "misconceptions.html", "submitted/ada/x",
               "autograded/ada/x", "feedback/ada/x"]
    handed_out = ["nbgrader_config.py", "grading.yml", "source/02_vae/02_vae.ipynb", "release/02_vae/02_vae.ipynb"]
    done = subprocess.run(["git", "check-ignore", *private, *handed_out], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == private


def test_no_hand_in_goes_on_from_what_another_one_has_left(tmp_path):
    """Also where all of them are run in one checkout, which then has one folder `runs`."""
    make_course(tmp_path / "course", LABS)
    values = yaml.safe_load((tmp_path / "course/grading.yml").read_text())
    folders = set()
    for lab in LABS:
        for student in ("ada", "ben"):
            cell = new_code_cell("resume, out_dir = True, 'runs/mine'", metadata={"tags": ["parameters"]})
            for _ in range(2):      # nbgrader has every preprocessor twice
                SetParameters(values=values).preprocess(new_notebook(cells=[cell]), {
                    "nbgrader": {"notebook": lab, "student": student}})
            exec(cell.source, found := {})
            folders.add(found["out_dir"])
            assert found["resume"] is not trains(lab), "lab 10 trains nothing, and has no such parameter"
    assert len(folders) == 2 * len(LABS)


def test_an_assignment_brings_the_labs_whose_definitions_it_takes_without_their_solutions(notebooks, tmp_path):
    for name, source in (("01_good", "def f():\n    ### BEGIN SOLUTION\n    secret\n    ### END SOLUTION"),
                         ("04_leans", "from labutils import from_lab\nf = from_lab('01_good', 'f')")):
        write_lab(notebooks, name, [source])
    (notebooks / "quick").mkdir()
    (notebooks / "quick/04_leans.yml").write_text("epochs: 1")
    folder = make_course(tmp_path / "course", ["04_leans"]) / "source"
    assert [path.name for path in folder.iterdir()] == ["04_leans"]
    [other] = (folder / "04_leans/notebooks").iterdir()
    assert other.name == "01_good.ipynb" and "secret" not in other.read_text()


def test_a_picture_of_a_solution_is_refused_since_nbgrader_would_hand_it_out(notebooks, tmp_path, capsys):
    about = {"grade_id": "twice", "solution": True, "grade": True, "points": 1, "locked": False, "schema_version": 3,
             "task": False}
    cell = new_markdown_cell("![The answer](attachment:a.png)", metadata={"nbgrader": about}, id="sketch",
                             attachments={"a.png": {"image/png": "c2VjcmV0"}})
    nbformat.write(new_notebook(cells=[cell]), notebooks / "01_good.ipynb")
    assert cli.main(["release", "--nbgrader", str(tmp_path / "course"), "01_good"]) == 2
    assert "01_good, cell sketch: nbgrader would hand out" in capsys.readouterr().err
    assert not (tmp_path / "course").exists()
    assert "c2VjcmV0" not in str(student_version("01_good", read_lab("01_good")))


def test_one_misconception_is_counted_once_whatever_its_numbers_and_with_the_stronger_hint():
    off = ["Off by 3.5.", "Off by 1e-05.", "Off by 3.5. Which term?"]
    assert alike([*off, "Other."]) == [*3 * ["Off by …."], "Other."]
    assert alike(["The KL has 784 terms.", "The KL has 784 terms."]) == 2 * ["The KL has 784 terms."]
    hand_ins = [{"kl": text} for text in ("Once.", "Twice.", "right", "Twice. Look again.")]
    assert counts(hand_ins) == {"kl": [("right", 1), ("Twice.", 2), ("Once.", 1)]}


def test_of_an_error_of_the_students_own_only_the_kind_is_told():
    notebook = graded(a=None, b=("WrongAnswer", "The sum."), c=("NotDone", "put it"), d=("OSError", "/home/ada"))
    assert outcomes(notebook) == {"a": "right", "b": "The sum.", "c": "not done yet",
                                  "d": "OSError in the student's code"}


def test_what_a_check_said_is_text_on_the_page_and_lost_hand_ins_are_counted(tmp_path):
    path = tmp_path / "autograded/ada/02_vae/02_vae.ipynb"
    lost = tmp_path / "submitted/ben/02_vae/02_vae.ipynb"
    for file in (path, lost, tmp_path / "submitted/ada/02_vae/02_vae.ipynb"):
        file.parent.mkdir(parents=True)
        nbformat.write(graded(kl=("WrongAnswer", "<b>Ada</b> & 3 < 4")), file)
    assert cli.main(["misconceptions", str(tmp_path)]) == 0
    page = (tmp_path / "misconceptions.html").read_text()
    assert "&lt;b&gt;Ada&lt;/b&gt; &amp; 3 &lt; 4" in page and "02_vae: 1 hand-in (1 more could not be graded)<" in page


@pytest.mark.browser
def test_the_page_about_a_class_can_be_read_without_eyes_and_without_a_network(browser, tmp_path):
    path = tmp_path / "autograded/ada/02_vae/02_vae.ipynb"
    path.parent.mkdir(parents=True)
    nbformat.write(graded(kl=("WrongAnswer", "The sum."), elbo=None), path)
    flaws = page_flaws(browser, make_page(tmp_path))
    assert not flaws, "\n".join(flaws)


def test_a_course_in_which_nothing_is_graded_is_one_line(tmp_path, capsys):
    assert cli.main(["misconceptions", str(tmp_path)]) == 2
    assert "no graded hand-ins" in capsys.readouterr().err


def test_a_course_needs_a_new_folder_and_labs_that_there_are(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert cli.main(["release", "--nbgrader", str(tmp_path)]) == 2
    assert cli.main(["release", "--nbgrader", str(tmp_path / "new"), "nothing"]) == 2
    assert "not an empty folder" in (said := capsys.readouterr().err) and "'nothing'" in said
    assert not (tmp_path / "new").exists()
