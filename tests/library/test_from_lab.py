"""What one lab takes from the notebook of another, and how it is told what it cannot have."""

import ast

import nbformat
import pytest
import torch
from helpers import LABS, NOTEBOOK_DIR, code_cells, notebook_path

from labutils import BadValue, from_lab, notebooks
from labutils.instructor.labs import read_lab
from labutils.instructor.release import student_version

SOURCES = [
    "import math\nfrom math import cos, not_in_it\nimport not_installed",
    "width: int = 3  # of all\nseed: int = 0  # of all",
    "print('set-up')\nDEVICE = 'of this lab'\nlower = width + 1",
    "TWO = 2\n\ndef twice(x):\n    TWO_ = x\n    return TWO * TWO_",
    "%time\nclass Net:\n    size = twice(width)\n\n    def area(self):\n        return math.pi * self.size",
    "def on_device(x):\n    return x, DEVICE, [lower for lower in range(2)]",
    "1 +",
    "def twisted(): return lower",
    f"def answer(x):\n    # YOUR CODE HERE\n    raise NotImplementedError('answer: {notebooks.STUB}')",
    "def leans_on_it(x):\n    return answer(x)",
    "def twice_again(x, by=TWO): return twice(x) * by",
    "def one(x): return cos(0 * x)",
    "raise RuntimeError('trained')"]


@pytest.fixture
def labs(tmp_path, monkeypatch):
    """A folder with a lab, and a second one that takes from it."""
    for name, sources in (("01_first", SOURCES),
                          ("02_second", ["Net, twice = from_lab('01_first', 'Net', 'twice')", "class Own(Net): pass"])):
        cells = [nbformat.v4.new_markdown_cell("# Lab"), *map(nbformat.v4.new_code_cell, sources)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / f"{name}.ipynb")
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    return tmp_path


def test_only_what_a_name_needs_is_executed(labs, capsys):
    """The import of what is not installed, the set-up and the training are not."""
    twice, Net = from_lab("01_first", "twice", "Net")
    assert twice(4) == 8 and Net.size == 6 and Net().area() > 18 and capsys.readouterr().out == ""
    assert set(twice.__globals__) - {"__builtins__", "__annotations__"} == {"math", "width", "TWO", "twice", "Net"}
    assert from_lab("01_first", "one")(5) == 1, "an import brings what is wanted alone"
    assert from_lab("01_first", "twice_again")(1) == 4 and from_lab("01_first", "TWO") == 2
    assert from_lab("01_first", "Net").size == 6, "a name alone is no tuple"


def test_what_is_given_takes_the_place_of_a_parameter_and_of_what_only_a_run_sets(labs):
    assert from_lab("01_first", "Net", width=10).size == 20
    assert from_lab("01_first", "on_device", DEVICE="cpu")(1) == (1, "cpu", [0, 1])
    assert from_lab("01_first", "twisted", lower=7)() == 7
    assert from_lab("01_first", "leans_on_it", answer=abs)(-1) == 1


def test_a_lab_may_lean_on_one_that_leans_on_another(labs):
    source = notebook_path("02_vae").read_text()        # the first import of the small lab, as a real one has it
    assert "from labutils import" in source
    second = nbformat.read(labs / "02_second.ipynb", as_version=4)
    second.cells.insert(1, nbformat.v4.new_code_cell("from labutils import from_lab"))
    nbformat.write(second, labs / "02_second.ipynb")
    assert from_lab("02_second", "Own").size == 6
    assert notebooks.labs_used(second) == ["01_first"]


@pytest.mark.parametrize("call, words", [
    (("09_none", "Net"), ["no lab '09_none'", "01_first, 02_second"]),
    (("01_first", "Nte", "twice"), ["from_lab('01_first', 'Nte', 'twice')", "does not define Nte;", "Net, TWO"]),
    (("01_first", "DEVICE"), ["does not define DEVICE"]), (("01_first", "lower"), ["does not define lower"]),
    (("01_first", "math"), ["does not define math"]),
    (("01_first", "on_device"), ["uses DEVICE", "from_lab(..., DEVICE=...)"]),
    (("01_first", "twisted"), ["uses lower"]),
    (("01_first", "answer"), ["answer is an exercise of lab 01_first", "not solved here"]),
    (("01_first", "leans_on_it"), ["answer is an exercise of lab 01_first"])])
def test_what_cannot_be_had_is_said_in_one_line(labs, call, words):
    with pytest.raises(BadValue) as error:
        from_lab(*call)
    told = str(error.value)
    assert call[0] in told and call[1] in told and "\n" not in told and [w for w in words if w not in told] == []


def test_a_folder_without_labs_and_a_damaged_lab_are_said_in_one_line(labs, monkeypatch):
    (labs / "03_damaged.ipynb").write_text("{")
    with pytest.raises(BadValue, match="03_damaged.ipynb is not a notebook"):
        from_lab("03_damaged", "Net")
    monkeypatch.setattr(notebooks, "FOLDER", labs / "none")
    with pytest.raises(BadValue, match="there are no labs in .*none; install labutils from the folder of the course"):
        from_lab("01_first", "Net")


def test_the_definitions_of_a_lab_share_a_namespace(labs):
    cell = nbformat.v4.new_code_cell("def shown():\n    return width, DEVICE")
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SOURCES[1]), cell]), labs / "04_own.ipynb")
    lab = notebooks.definitions("04_own")
    lab.width = 7
    assert lab.shown() == (7, torch.device("cpu"))


# ------------------------------------------------------------------------------------ the real labs

def calls_of(lab):
    """Return the calls of `from_lab` in a lab, as (lab, names, names of what is given)."""
    nodes = [node for cell in code_cells(notebook_path(lab)) for node in ast.walk(ast.parse(cell.source))
             if isinstance(node, ast.Call) and ast.unparse(node.func) == "from_lab"]
    return [([ast.literal_eval(part) for part in node.args], {part.arg: None for part in node.keywords})
            for node in nodes]


@pytest.mark.parametrize("lab", LABS)
def test_what_the_labs_take_from_one_another_is_no_exercise_and_is_there_without_solutions(lab, tmp_path, monkeypatch):
    for other in LABS:
        nbformat.write(student_version(other, read_lab(other)), tmp_path / f"{other}.ipynb")
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    for arguments, given in calls_of(lab):
        found = from_lab(*arguments, **given)
        assert arguments[0] < lab and found is not None


def test_the_tests_find_the_notebooks_where_the_labs_do():
    assert notebooks.FOLDER == NOTEBOOK_DIR
