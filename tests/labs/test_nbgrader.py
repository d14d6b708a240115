"""nbgrader on the course that `labs release --nbgrader` writes: what students get, and a class of three is graded."""

import ast
import csv
import json
import os
import re
from copy import deepcopy
from itertools import count

import nbformat
import pytest
import yaml
from helpers import BIN, LABS, ONE_CORE, command, notebook_path, solutions, tags, tiny, trains

from hypothesis import example, given, settings
from hypothesis import strategies as st

from labutils.instructor import cli
from labutils.instructor.colab import CELL_ID
from labutils.instructor.labs import UsageError, with_labs_used
from labutils.instructor.release import student_version
from labutils.notebooks import is_definition

pytest.importorskip("nbgrader", reason="nbgrader is not installed (pip install nbgrader)")
from nbgrader.preprocessors import ClearHiddenTests, ClearMarkScheme, ClearSolutions  # noqa: E402

LAB = "02_vae"
ACTIVATED = {**ONE_CORE, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}    # nbgrader looks for alembic on the path


def read(path):
    return nbformat.read(path, as_version=4)


def nbgrader(course, *arguments):
    """Run a command of nbgrader in the folder of a course."""
    done = command("nbgrader", *arguments, cwd=course, env=ACTIVATED)
    assert done.returncode == 0, done.stderr[-3000:]


def nbgrader_marks(notebook):
    """Return {grade_id: (solution, points)} of a notebook."""
    marks = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
    return {mark.grade_id: (mark.solution, mark.get("points")) for mark in marks}


def check_released(folder, lab):
    """Check that students get all that they need of a lab, and nothing of a solution."""
    notebook, released = read(notebook_path(lab)), read(folder / f"{lab}.ipynb")
    text = "\n".join(cell.source for cell in released.cells)
    as_elsewhere = "\n".join(cell.source for cell in student_version(lab, notebook).cells).replace("](../", "](")
    stub = re.compile(r"NotImplementedError\(.*\)")
    assert stub.sub("", text) == stub.sub("", as_elsewhere) and "SOLUTION" not in text and "<details>" not in text
    assert "raise NotImplementedError('put your answer in the place of this line')" in text
    assert nbgrader_marks(released) == nbgrader_marks(notebook)
    assert [cell.id for cell in released.cells if "jupyter" in cell.metadata] == [CELL_ID]     # it alone is folded
    assert not any("answer" in tags(cell) or cell.get("outputs") for cell in released.cells)
    assert sum("parameters" in tag for cell in released.cells for tag in tags(cell)) == 1
    links = re.findall(r"\]\(((?:\.\.|docs)/[^)#]+)\)", text)
    assert all((folder / link).is_file() for link in links), links
    for part in ("labutils/checks/__init__.py", "checkpoints/card.json", "README.md", "quick.yml",
                 "constraints.txt", "requirements.txt"):
        assert (folder / part).is_file(), part
    weights = {path.name.partition("_")[0] for path in folder.glob("checkpoints/*.safetensors")}
    assert weights == {name[:2] for name in with_labs_used([lab]) if trains(name)} | {"classifier"}
    whole, cleared = ({line.strip() for cell in version.cells for line in cell.source.splitlines()}
                      for version in (notebook, student_version(lab, notebook)))
    hidden = [json.dumps(line)[1:-1] for line in whole - cleared
              if len(line) > 12 and not line.startswith("###")]
    files = {path: json.dumps(path.read_text(encoding="utf-8", errors="ignore")) if path.suffix != ".ipynb"
             else path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()}
    assert hidden and [(path, line) for path, text in files.items() for line in hidden if line in text] == []


# -------------------------------------------------------------------------------- our release and nbgrader's

TEXT = st.lists(st.sampled_from(["text", "    text", "", "x = 'END'"]), max_size=2)
MARK = st.tuples(st.sampled_from(["### ", "# ", "#", "", "    ## "]), st.sampled_from(["", " ", " (2 points)"]))
NAME = st.sampled_from(["SOLUTION", "HIDDEN TESTS", "MARK SCHEME"])
STRAY = st.sampled_from(["# BEGIN SOLUTION", "# End Solution", "#BEGIN_SOLUTION", "### END  SOLUTION"])
BLOCKS = st.recursive(st.one_of(TEXT, TEXT, STRAY.map(lambda line: [line])), lambda inside: st.builds(
    lambda name, mark, lines: [f"BEGIN {name}".join(mark), *sum(lines, []), f"END {name}".join(mark)],
    NAME, MARK, st.lists(inside, max_size=3)), max_leaves=4)
CELLS = st.lists(st.tuples(st.sampled_from(["code", "markdown", "raw"]),
                           st.lists(BLOCKS, max_size=4).map(lambda blocks: sum(blocks, [])), st.booleans()), max_size=2)


def with_numbers(cells):
    """Return a notebook of (kind, lines, whether it is a solution); each line of text has a number of its own."""
    numbers, notebook = count(100), nbformat.v4.new_notebook()
    for kind, lines, solution in cells:
        source = "\n".join(line.replace("text", f"line{next(numbers)}") for line in lines)
        about = {"grade_id": "x", "solution": solution, "grade": True}
        notebook.cells.append(getattr(nbformat.v4, f"new_{kind}_cell")(source, metadata={"nbgrader": about}))
    return notebook


def cleared_by_nbgrader(notebook):
    """Return a notebook as nbgrader hands it out; raises its errors."""
    notebook = deepcopy(notebook)
    for preprocessor in (ClearSolutions, ClearHiddenTests, ClearMarkScheme):
        notebook, _ = preprocessor(enforce_metadata=False).preprocess(notebook, {})
    return notebook


@settings(max_examples=200, deadline=None, derandomize=True)
@given(CELLS)
@example([("code", ["text", "# BEGIN SOLUTION", "text", "# END SOLUTION"], True)])
@example([("markdown", ["text"], True)])
def test_no_line_that_nbgrader_takes_out_reaches_a_student_through_our_release(cells):
    notebook = with_numbers(cells)
    try:
        ours = student_version("any", notebook)
    except UsageError:
        return
    kept, handed_out = (set(re.findall(r"line\d+", str(version))) for version in (cleared_by_nbgrader(notebook), ours))
    assert handed_out == kept


# ------------------------------------------------------------------------------------------ a class

def submit(course, student, answers, change=lambda notebook: None):
    """Hand in the released notebook with the given sources {grade_id: source} in place of the stubs, and changed."""
    notebook = read(course / f"release/{LAB}/{LAB}.ipynb")
    for name, source in answers.items():
        solutions(notebook)[name].source = source
    change(notebook)
    folder = course / "submitted" / student / LAB
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{LAB}.ipynb")


def set_badly(notebook):
    """Set parameters that a grader's computer does not have."""
    [cell] = [cell for cell in notebook.cells if "parameters" in tags(cell)]
    cell.source += "\nepochs, device, out_dir = 10000, 'mps', '/proc/x'"


def delete_trainings(notebook):
    """Leave the definitions and the exercises."""
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "markdown" or "nbgrader" in cell.metadata
                      or all(map(is_definition, ast.parse(cell.source).body))]


def delete_trainings_and_a_check(notebook):
    """Leave less, as somebody would who has deleted too much."""
    delete_trainings(notebook)
    notebook.cells = [cell for cell in notebook.cells
                      if cell.metadata.get("nbgrader", {}).get("grade_id") != "check_walk"]


def hand_in(course):
    """Hand in for three students: all right, with a warning; a half; a broken notebook."""
    right = {name: cell.source for name, cell in solutions(read(notebook_path(LAB))).items()}
    warning = right["walk"].replace("    ### BEGIN", "    import warnings; warnings.warn('slow')\n    ### BEGIN")
    submit(course, "ada", {**right, "walk": warning}, set_badly)
    submit(course, "ben", {
        "gaussian_kl": "def gaussian_kl(mu_q, logvar_q, mu_p, logvar_p):\n    return -mu_q.sum(dim=1)",
        "walk": "def walk(vae, z, latent, values):\n    return vae.draw(z.repeat(len(values), 1))",
        "leave_one_out": right["leave_one_out"]}, delete_trainings)
    submit(course, "cleo", {
        "gaussian_kl": "def gaussian_kl(mu_q, logvar_q, mu_p, logvar_p)\n    return 0",
        "leave_one_out": "def leave_one_out(scores, values):\n    return open('/home/cleo/answer.pt')",
        "walk": right["walk"]}, delete_trainings_and_a_check)


def make_grading_quick(course):
    """Put the values of the shortest run into what grading sets."""
    settings = course / "grading.yml"
    values = yaml.safe_load(settings.read_text())
    values[LAB] |= tiny(LAB)
    settings.write_text(yaml.safe_dump(values))


@pytest.mark.slow
def test_labs_are_handed_out_and_a_class_of_three_is_graded(tmp_path):
    course = tmp_path / "course"
    assert cli.main(["release", "--nbgrader", str(course)]) == 0
    nbgrader(course, "generate_assignment", "*")
    for lab in LABS:
        check_released(course / "release" / lab, lab)
    make_grading_quick(course)
    hand_in(course)
    nbgrader(course, "autograde", LAB)

    nbgrader(course, "export")
    with (course / "grades.csv").open() as file:
        scores = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)
                  if row["assignment"] == LAB}
    points = {name: value for name, (_, value) in nbgrader_marks(read(notebook_path(LAB))).items() if value}
    assert scores["ada"] == (sum(points.values()), sum(points.values()))
    assert scores["ben"][0] == points["check_leave_one_out"] and scores["cleo"][0] == points["check_walk"]

    graded = read(course / f"autograded/ada/{LAB}/{LAB}.ipynb")
    assert not [output for cell in graded.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert sum(cell.source.count("# set for grading") for cell in graded.cells) == 1
    assert (course / f"autograded/ada/{LAB}/runs/{LAB}/ada").is_dir()       # each hand-in has a folder of its own

    nbgrader(course, "generate_feedback", LAB)
    assert [path.name for path in (course / "feedback/ben").rglob("*.*")] == [f"{LAB}.html"]
    assert "data:image/svg" in (course / f"feedback/ben/{LAB}/{LAB}.html").read_text()

    assert cli.main(["misconceptions", str(course)]) == 0
    page = (course / "misconceptions.html").read_text()
    assert f"{LAB}: 3 hand-ins" in page and not re.search("ada|ben|cleo", page)
    said = re.findall(r"<td>(.*)</td>\n.*</div>(\d)</td>", page)
    assert ("All frames are equal: the unchanged code is decoded each time.", "1") in said
    assert {("right", "1"), ("right", "2"), ("not done yet", "2"), ("SyntaxError in the student&#39;s code", "1"),
            ("FileNotFoundError in the student&#39;s code", "1")} < {*said}
