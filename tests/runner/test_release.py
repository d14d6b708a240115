"""Versions to hand out: nothing of a solution in the student's, and every exercise can be solved there."""

import ast
import importlib
import json
import pkgutil
import re
import subprocess
import zipfile

import nbformat
import pytest
from helpers import LABS, definitions, notebook_path, solutions, tags, write_lab

from labutils import checks
from labutils.instructor import cli, colab, labs
from labutils.instructor.labs import UsageError, read_lab
from labutils.instructor.release import read_labs, release, student_version
from labutils.paths import PROJECT_ROOT

SMALL_LABS = {}
each_lab = pytest.mark.parametrize("lab", LABS)


def read(path):
    return nbformat.read(path, as_version=4)


def solution_lines(cell):
    """Return the lines between the marks of a cell that say something of their own."""
    inside, lines = False, []
    for line in cell.source.splitlines():
        if "### BEGIN SOLUTION" in line or "### END SOLUTION" in line:
            inside = not inside
        elif inside and len(line.strip()) > 12:
            lines.append(line.strip())
    return lines


# ------------------------------------------------------------------------------------ the real labs

@each_lab
def test_a_lab_has_exercises_with_checks_and_marks(lab):
    notebook = read_lab(lab)
    exercises = solutions(notebook)
    tests = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade")]
    assert 1 <= len(tests) <= 8
    for cell in exercises.values():
        assert cell.source.count("### BEGIN SOLUTION") == cell.source.count("### END SOLUTION") == 1
        assert cell.metadata.jupyter.source_hidden, "solutions are folded"
    for cell in tests:
        name = cell.metadata.nbgrader.grade_id.removeprefix("check_")
        assert cell.source == f"checks.check_{name}({name})" and name in exercises
        assert cell.metadata.nbgrader.points >= 1 and cell.outputs[0].text == f"{name}: right.\n"


def test_grade_ids_are_unique_in_the_course_and_each_check_has_its_exercise():
    ids = [cell.metadata.nbgrader.grade_id for lab in LABS for cell in read_lab(lab).cells
           if "nbgrader" in cell.metadata]
    assert len(ids) == len(set(ids))
    graded = {name for name in ids if name.startswith("check_")}
    modules = [module.name for module in pkgutil.iter_modules(checks.__path__, "labutils.checks.")]
    names = {name for module in modules for name in vars(importlib.import_module(module))}
    assert graded == {name for name in names if name.startswith("check_")}


@each_lab
def test_nothing_of_a_solution_is_left(lab):
    notebook = read_lab(lab)
    student = student_version(lab, notebook)
    text = json.dumps(student)
    assert "SOLUTION" not in text and "HIDDEN" not in text and '"answer"' not in text and "<details>" not in text
    folded = [cell.id for cell in student.cells if "jupyter" in cell.metadata]
    assert folded == [colab.CELL_ID] and '"outputs": [{' not in text
    elsewhere = "".join(cell.source for cell in notebook.cells if not cell.metadata.get("nbgrader", {}).get("solution"))
    for cell in solutions(notebook).values():
        for line in solution_lines(cell):
            assert json.dumps(line)[1:-1] not in text or line in elsewhere, line
    assert all(cell.execution_count is None for cell in student.cells if cell.cell_type == "code")
    nbformat.validate(student)


@each_lab
def test_every_check_fails_in_the_student_version_and_passes_with_the_solutions(lab, capsys):
    """The exercise cells alone, on the definitions of the lab: `exercise` defines, `checks` judges."""
    notebook = read_lab(lab)
    student = student_version(lab, notebook)
    space = vars(definitions(lab))
    stubs, answers = solutions(student), solutions(notebook)
    names = [cell.metadata.nbgrader.grade_id.removeprefix("check_") for cell in notebook.cells
             if cell.metadata.get("nbgrader", {}).get("grade")]
    for name in names:
        exec(stubs[name].source, space)
        with pytest.raises(NotImplementedError, match=f"put your answer into {name}, "):
            exec(f"checks.check_{name}({name})", space)
        exec(answers[name].source, space)
        exec(f"checks.check_{name}({name})", space)
        assert capsys.readouterr().out == f"{name}: right.\n"


@each_lab
def test_stubs_keep_the_signature_and_the_docstring(lab):
    notebook = read_lab(lab)
    stubs = solutions(student_version(lab, notebook))
    for name, cell in solutions(notebook).items():
        whole, stub = ({part.name: part for part in ast.parse(source).body if isinstance(part, ast.FunctionDef)}
                       for source in (cell.source, stubs[name].source))
        assert name in stub or name not in whole, "what the exercise asks for"      # and not a helper of its solution
        for function, other in stub.items():
            assert ast.unparse(whole[function].args) == ast.unparse(other.args)
            assert ast.get_docstring(whole[function]) == ast.get_docstring(other) and ast.get_docstring(other)


# -------------------------------------------------------------------------------------- the command

@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return release(tmp_path_factory.mktemp("course") / "out")


def test_a_release_has_all_that_it_needs(released):
    assert sorted(p.name for p in released.iterdir()) == ["solutions", "student", "student.zip"]
    lab = LABS[0]
    for version in ("student", "solutions"):
        for part in (f"notebooks/{lab}.ipynb", f"notebooks/quick/{lab}.yml", f"notebooks/expected/{lab}.yml",
                     "labutils/checks/__init__.py", "Makefile", "constraints.txt", "README.md",
                     "LICENSE", "LICENSE-text", "checkpoints/card.json", "docs/speed.md"):
            assert (released / version / part).is_file(), part
        assert not list((released / version).rglob("__pycache__")) and not list((released / version).rglob("tests"))
    assert (released / f"solutions/notebooks/{lab}.ipynb").read_text() == notebook_path(lab).read_text()
    with zipfile.ZipFile(released / "student.zip") as archive:
        names = archive.namelist()
        assert f"student/notebooks/{lab}.ipynb" in names and all(name.startswith("student/") for name in names)
        assert b"BEGIN SOLUTION" not in archive.read(f"student/notebooks/{lab}.ipynb")


def hidden_lines():
    """Return the lines of all solutions and answers (of an answer its sentences) that stand nowhere else in a lab."""
    hidden, shown = set(), ""
    for cell in (cell for lab in LABS for cell in read_lab(lab).cells):
        if {"answer", "instructor"} & set(tags(cell)):
            hidden.update(part for part in re.split(r"\n|(?<=[.?!]) ", cell.source) if not part.startswith("<"))
        elif cell.metadata.get("nbgrader", {}).get("solution"):
            hidden.update(solution_lines(cell))
        else:
            shown += cell.source + "\n"
    return {line for line in map(str.strip, hidden) if len(line) > 12 and line not in shown}


def test_no_line_of_a_solution_is_in_any_file_that_a_student_gets(released):
    lines = hidden_lines()
    assert len(lines) > 150
    with zipfile.ZipFile(released / "student.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    found = [(name, line) for line in lines for form in {line, json.dumps(line)[1:-1], json.dumps(
        line, ensure_ascii=False)[1:-1]} for name, content in files.items() if form.encode() in content]
    assert found == []


@pytest.mark.parametrize("version, targets", [("student", {"lab", "clean"}),
                                              ("solutions", {"lab", "clean", "labs", "full"})])
def test_a_version_has_a_readme_and_a_makefile_of_its_own(released, version, targets):
    folder = released / version
    readme, makefile = (folder / "README.md").read_text(), (folder / "Makefile").read_text()
    assert set(re.findall("^([a-z]+):", makefile, re.M)) == targets and "make labs" not in readme + makefile
    opened = subprocess.run(["make", "--no-print-directory", "-n", "lab"], cwd=folder, capture_output=True, text=True,
                            check=True).stdout
    assert "/lab/tree/notebooks" in opened.splitlines()[-1] and "-e .\n" in opened and "tests-installed" not in makefile
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in link]
    assert len(links) == len(LABS) + 3 and all((folder / link).exists() for link in links)
    assert all(part in readme for part in ("make lab\n", "`digits`", "conda env create", "[MIT](LICENSE)"))
    assert ".venv\\Scripts\\jupyter lab notebooks\n" in readme, "Windows has no make"
    assert ("YOUR CODE HERE" in readme) == (version == "student")
    whole = (PROJECT_ROOT / "README.md").read_text()
    for pattern in (r"Python 3\.11 .*\(.*`python3-venv`\)\.", r"in `\.venv` \(about .* GB, .*?\)"):
        assert re.search(pattern, readme)[0] in whole, "the same Pythons and packages"


# --------------------------------------------------------------------------------- small notebooks

def new_cell(kind, source, **more):
    """Return a cell: code, markdown or raw."""
    return getattr(nbformat.v4, f"new_{kind}_cell")(source, **more)


def write_exercise(folder, source, tags=(), kind="code"):
    """Write a lab with one exercise, `twice`, in a cell of a kind."""
    about = {"grade_id": "twice", "solution": True, "grade": False, "locked": False, "schema_version": 3, "task": False}
    cell = new_cell(kind, source, metadata={"tags": list(tags), "nbgrader": about}, id="exercise")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Lab"), cell])
    nbformat.write(notebook, folder / "01_good.ipynb")


def test_regions_are_replaced_where_they_stand(notebooks, tmp_path):
    write_exercise(notebooks, "def twice(x):\n    '''2x'''\n    ### BEGIN SOLUTION\n    y = x\n    return y + x\n"
                              "    ### END SOLUTION\n\nprint('kept')\n"
                              "### BEGIN HIDDEN TESTS\nassert twice(2) == 4\n### END HIDDEN TESTS")
    release(tmp_path / "r", ["01_good"])
    source = read(tmp_path / "r/student/notebooks/01_good.ipynb").cells[1].source
    assert source == ("def twice(x):\n    '''2x'''\n    # YOUR CODE HERE\n    raise NotImplementedError("
                      "\"twice: put your answer in the place of this line\")\n\nprint('kept')")


@pytest.mark.parametrize("mark", ["### {} SOLUTION", "# {} SOLUTION", "## {} SOLUTION", "#{} SOLUTION", "{} SOLUTION",
                                  "    #    {} SOLUTION   ", "# --- {} SOLUTION (2 points) ---", "### {} HIDDEN TESTS",
                                  "#{} HIDDEN TESTS", "### {} MARK SCHEME", "== {} MARK SCHEME =="])
@pytest.mark.parametrize("kind", ["code", "markdown", "raw"])
def test_what_stands_between_marks_goes_in_every_way_in_which_nbgrader_takes_them(kind, mark):
    cell = new_cell(kind, f"first\n{mark.format('BEGIN')}\nsecret\n\nmore\n{mark.format('END')}\nlast")
    [cell] = student_version("01_good", nbformat.v4.new_notebook(cells=[cell])).cells
    stub = ["YOUR CODE HERE" if kind == "code" else "YOUR ANSWER HERE"] if "SOLUTION" in mark else []
    assert cell.source.startswith("first\n") and cell.source.endswith("\nlast")
    assert not {"secret", "more", "BEGIN", "END"} & set(cell.source.split())
    assert re.findall("YOUR [A-Z]+ HERE", cell.source) == stub


@pytest.mark.parametrize("kind", ["code", "markdown"])
def test_a_solution_without_marks_is_the_whole_cell(notebooks, kind):
    write_exercise(notebooks, "secret = 1", kind=kind)
    cell = student_version("01_good", read_lab("01_good")).cells[1]
    assert "secret" not in cell.source and re.search("YOUR (CODE|ANSWER) HERE", cell.source)


@pytest.mark.parametrize("source", [
    "# begin solution\nsecret\n# end solution", "### Begin Solution\nsecret\n### End Solution", "# BEGIN  SOLUTION\nx",
    "#BEGIN_SOLUTION\nx", "# BEGIN-SOLUTION\nx", "# BEGIN: SOLUTION\nx", "# BEGINSOLUTION\nx", "# END hidden tests",
    "### BEGIN HIDDEN\nx", "### BEGIN MARKS\nx", "### AUTOTEST f(3)", "### HASHED AUTOTEST f(3)"])
@pytest.mark.parametrize("command", [["release"], ["release", "--nbgrader"]])
@pytest.mark.parametrize("kind", ["code", "markdown", "raw"])
def test_what_may_be_a_mark_and_is_not_understood_is_refused(notebooks, tmp_path, capsys, source, command, kind):
    write_exercise(notebooks, source, kind=kind)
    assert cli.main([*command, str(tmp_path / "r"), "01_good"]) == 2
    assert "01_good, cell exercise: " in (said := capsys.readouterr().err) and "is no mark that" in said
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("about", [{"tags": ["begin solution"]}, {"nbgrader": {"grade_id": "end_solution"}}])
def test_a_mark_in_what_a_cell_keeps_beside_its_source_is_refused(about):
    cell = new_cell("code", "x = 1", metadata=about)
    with pytest.raises(UsageError, match="is no mark that"):
        student_version("01_good", nbformat.v4.new_notebook(cells=[cell]))


@pytest.mark.parametrize("source", ["In the end, solutions differ.", "the weekend solution", "x_end = solution",
                                    "the hidden layers at the end", "Marks: the beginning of the solution"])
def test_prose_and_names_that_are_no_marks_pass(source):
    cell = new_cell("markdown", source)
    assert student_version("01_good", nbformat.v4.new_notebook(cells=[cell])).cells[0].source == source


def test_a_released_notebook_has_the_kernel_that_every_computer_has(notebooks):
    write_exercise(notebooks, "x = 1")
    path = notebooks / "01_good.ipynb"
    notebook = read(path)
    notebook.metadata["kernelspec"] = {"name": "ada-env", "display_name": "Ada's", "language": "python"}
    nbformat.write(notebook, path)
    [solutions] = read_labs().values()
    for released in (solutions, student_version("01_good", solutions)):
        assert released.metadata.kernelspec == {"name": "python3", "display_name": "Python 3 (ipykernel)",
                                                "language": "python"}


@pytest.mark.parametrize("tag", ["answer", "instructor"])
def test_cells_for_teachers_are_gone(notebooks, tmp_path, tag):
    write_exercise(notebooks, "secret = 1", [tag])
    release(tmp_path / "r", ["01_good"])
    assert len(read(tmp_path / "r/student/notebooks/01_good.ipynb").cells) == 1
    assert len(read(tmp_path / "r/solutions/notebooks/01_good.ipynb").cells) == 2


@pytest.mark.parametrize("source", ["### BEGIN SOLUTION\nx = 1", "x = 1\n### END SOLUTION",
                                    "### BEGIN HIDDEN TESTS\nassert 1"])
def test_a_mark_without_its_partner_is_named_and_nothing_is_written(notebooks, tmp_path, source, capsys):
    write_exercise(notebooks, source)
    assert cli.main(["release", str(tmp_path / "r"), "01_good"]) == 2
    message = capsys.readouterr().err
    assert "01_good" in message and "### " in message and "partner" in message
    assert not (tmp_path / "r").exists() and [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_labs_whose_definitions_a_lab_takes_come_with_it(notebooks, tmp_path, capsys):
    for name, source in (("01_good", "x = 1"), ("02_leans", "X = from_lab('01_good', 'X')"), ("03_none", "x = 1"),
                         ("04_leans", "from labutils import from_lab\nX = from_lab('02_leans', 'X')\n"
                                      "try:\n    Y = from_lab('05_none', 'Y')\nexcept ValueError:\n    pass")):
        write_lab(notebooks, name, [source])
    assert cli.main(["release", str(tmp_path / "r"), "04_leans"]) == 0
    assert "with 01_good, 02_leans, whose definitions" in capsys.readouterr().out
    found = [path.stem for path in sorted((tmp_path / "r/student/notebooks").glob("*.ipynb"))]
    assert found == ["01_good", "02_leans", "04_leans"]


def test_an_empty_folder_may_be_there_already(notebooks, tmp_path):
    write_exercise(notebooks, "x = 1")
    (tmp_path / "r").mkdir()
    assert release(tmp_path / "r", ["01_good"]) == tmp_path / "r"
    assert (tmp_path / "r/student.zip").is_file() and labs.NOTEBOOKS == notebooks
