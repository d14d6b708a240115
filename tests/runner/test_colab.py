"""The first code cell of each lab: on Google Colab it fetches the course, elsewhere it does nothing."""

import shutil
import subprocess
import sys
import sysconfig

import nbformat
import pytest
from helpers import LABS, cell_source, code_cells, notebook_path, tags, write_lab

from labutils.instructor import cli, colab
from labutils.instructor.labs import read_lab
from labutils.paths import PROJECT_ROOT

SMALL_LABS = {}
each_lab = pytest.mark.parametrize("lab", LABS)

# This Python without its folders of packages, and so without the project; then their packages, but no .pth file.
ON_COLAB = f"""
import importlib.util, sys, types
sys.path += {sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})!r}
assert importlib.util.find_spec("labutils") is None, "the project is seen"
sys.modules["google.colab"] = types.ModuleType("google.colab")
"""
# what only the labs command needs, which Colab does not have
NOT_THERE = {"papermill", "nbval", "jupyterlab", "latex2mathml", "nbgrader"}


@each_lab
def test_each_lab_begins_with_the_cell_and_knows_where_the_course_lies(lab):
    first = code_cells(notebook_path(lab))[0]
    assert first.id == colab.CELL_ID and {"skip-execution", "nbval-skip"} <= set(tags(first))
    assert first.metadata.jupyter.source_hidden, "folded: it is no part of the lesson"
    assert first.source == colab.source(colab.repository()), "python -m labutils.instructor.colab"


def test_elsewhere_it_does_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    exec(colab.source("file:///nowhere"), {})
    assert sys.path == before and not list(tmp_path.iterdir()) and capfd.readouterr() == ("", "")


@pytest.mark.parametrize("address, said", [
    ("", 'repository = "": write the address of the course between the quotes'),
    ("file:///no/such/course", "file:///no/such/course cannot be fetched: ")])
def test_a_course_that_cannot_be_fetched_is_said_in_one_line(address, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "google.colab", sys)
    with pytest.raises(Exception) as error:
        exec(colab.source(address), {})
    [line] = error.value._render_traceback_()
    assert line.startswith(said) and "\n" not in line and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_address_comes_from_pyproject_or_from_the_release(tmp_path, monkeypatch):
    monkeypatch.setattr(colab, "PROJECT_ROOT", tmp_path)
    project = '[project]\nname = "x"\n'
    (tmp_path / "pyproject.toml").write_text(project)
    assert colab.repository() == ""
    (tmp_path / "pyproject.toml").write_text(f'{project}[project.urls]\nRepository = "https://example.org/course"\n')
    assert colab.repository() == "https://example.org/course"
    assert cli.main(["release", str(tmp_path / "own"), LABS[0]]) == 0
    assert cli.main(["release", str(tmp_path / "told"), LABS[0], "--repository", 'https://"b".org']) == 0
    assert cli.main(["release", str(tmp_path / "course"), LABS[0], "--nbgrader", "--repository", "https://c.org"]) == 0
    for path, address in (("own/student/notebooks", "https://example.org/course"),
                          ("own/solutions/notebooks", "https://example.org/course"),
                          ("told/student/notebooks", 'https://"b".org'),
                          (f"course/source/{LABS[0]}", "https://c.org")):
        space = {}
        exec(code_cells(tmp_path / path / f"{LABS[0]}.ipynb")[0].source, space)
        assert space["repository"] == address


def test_a_new_address_is_written_into_the_notebooks(notebooks, tmp_path, monkeypatch):
    write_lab(notebooks, "01_good")
    before = read_lab("01_good")
    monkeypatch.setattr(colab, "repository", lambda: "https://example.org/course")
    colab.write_cells()
    assert read_lab("01_good") == before, "a lab without the cell stays as it is"
    before.cells.insert(1, nbformat.v4.new_code_cell("old", id=colab.CELL_ID))
    nbformat.write(before, notebooks / "01_good.ipynb")
    colab.write_cells()
    assert code_cells(notebooks / "01_good.ipynb")[0].source == colab.source("https://example.org/course")


@pytest.mark.slow
def test_without_the_project_the_cell_brings_labutils_and_the_trained_weights(tmp_path):
    """An empty folder, a repository at an address, and a Python that does not know the project: no restart."""
    course, folder = tmp_path / "origin", tmp_path / "content"
    for part in ("labutils", "checkpoints", "notebooks"):
        shutil.copytree(PROJECT_ROOT / part, course / part, ignore=shutil.ignore_patterns("__pycache__"))
    git = ["git", "-C", course, "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "course"]):
        subprocess.run([*git, *arguments], check=True)
    folder.mkdir()
    imports = "\n".join(cell_source(lab, "imports") for lab in LABS)
    lines = [ON_COLAB, colab.source(course.as_uri()), imports,
             "import labutils.checkpoints",
             "print(labutils.__file__)",
             "print(labutils.find_pretrained('02_vae_784-400-20_mnist'))",
             "train, test = get_loaders('digits', 100, limit=100)",
             "right = load_classifier('digits', train)(test.images / 255).argmax(1) == test.labels",
             "print(right.float().mean().item())",
             f"print({NOT_THERE!r} & set(sys.modules))"]
    done = subprocess.run([sys.executable, "-I", "-S", "-c", "\n".join(lines)], cwd=folder, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    package, weights, accuracy, unknown = done.stdout.splitlines()
    assert package == str(folder / "course/labutils/__init__.py") and unknown == "set()"
    assert weights.startswith(str(folder / "course/checkpoints")) and float(accuracy) > 0.9
