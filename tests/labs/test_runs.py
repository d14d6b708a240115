"""Every lab from end to end: its reduced run, nbval, plain papermill, and the version for students."""

import json
import re
import subprocess
import time

import nbformat
import psutil
import pytest
import torch
from helpers import LABS, code_cells, command, needs_mnist, notebook_path, prepare_copy, solutions, started, tags, tiny

from labutils.checkpoints import read_checkpoint
from labutils.instructor.bands import read_expected
from labutils.instructor.jobs import stored_seconds
from labutils.instructor.record import find_metrics
from labutils.instructor.release import release

pytestmark = pytest.mark.slow
TIMES = {"seconds", "images_per_second"}
LONGEST_FIRST = sorted(LABS, key=stored_seconds, reverse=True)


def in_groups(label=""):
    """Return the labs, each with its tests in a group: one worker runs them all, and the others have other labs."""
    return [pytest.param(lab, marks=pytest.mark.xdist_group(lab + label)) for lab in LONGEST_FIRST]


@pytest.mark.parametrize("name", in_groups(", reduced"))
def test_the_reduced_run_reports_all_metrics_and_they_lie_in_their_bands(name, tmp_path):
    done = command("labs", "run", name, "--quick", "--check", "--device", "cpu", "--out", tmp_path, timeout=3600)
    n_metrics = len(read_expected(name)["metrics"])
    assert done.returncode == 0 and f"{n_metrics} metrics compared" in done.stdout, done.stdout + done.stderr


@pytest.fixture(scope="module", params=in_groups())
def lab(request):
    return request.param


def results_of(notebook):
    return find_metrics(nbformat.read(notebook, as_version=4))


@pytest.fixture(scope="module")
def plain(lab, tmp_path_factory):
    """What plain papermill makes of a lab, as the README says, with seed 0: its folder."""
    folder = tmp_path_factory.mktemp("plain")
    done = command("papermill", f"notebooks/{lab}.ipynb", folder / "out.ipynb", "--cwd", "notebooks",
                   "-f", f"notebooks/quick/{lab}.yml", *tiny(lab, out_dir=folder / "out"))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def released(lab, tmp_path_factory):
    return release(tmp_path_factory.mktemp("course") / "out", [lab])


def run_student(lab, released, folder, answers=()):
    """Execute the student's version of a lab, with answers {grade_id: source} in place of stubs."""
    student = nbformat.read(released / f"student/notebooks/{lab}.ipynb", as_version=4)
    for name in answers:
        solutions(student)[name].source = answers[name]
    nbformat.write(student, folder / "student.ipynb")
    return command("papermill", folder / "student.ipynb", folder / "out.ipynb", "--cwd", released / "student/notebooks",
                   "-f", released / f"student/notebooks/quick/{lab}.yml", *tiny(lab, out_dir=folder / "out"))


def test_plain_papermill_runs_the_lab_as_the_readme_says(lab, plain):
    results = results_of(plain / "out.ipynb")
    assert results["dataset"] == "digits" and set(results) >= set(read_expected(lab)["metrics"])


def test_the_students_version_with_the_solutions_gives_the_same_metrics(lab, plain, released, tmp_path):
    whole = nbformat.read(released / f"solutions/notebooks/{lab}.ipynb", as_version=4)
    done = run_student(lab, released, tmp_path, {name: cell.source for name, cell in solutions(whole).items()})
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (results_of(folder / "out.ipynb") for folder in (plain, tmp_path))
    assert {name for name in {*first, *second} if first.get(name, ...) != second.get(name, ...)} <= TIMES


@pytest.mark.xdist_group("stub")
def test_the_students_version_runs_up_to_its_first_stub(tmp_path):
    lab, released = LONGEST_FIRST[-1], release(tmp_path / "out", LONGEST_FIRST[-1:])
    done = run_student(lab, released, tmp_path)
    stubs = solutions(nbformat.read(released / f"student/notebooks/{lab}.ipynb", as_version=4))
    expected = f"NotImplementedError: {next(iter(stubs))}: put your answer"
    assert done.returncode == 1 and expected in done.stderr, done.stderr[-2000:]


def nbval(copy):
    """Run nbval on a copy of a lab; return the finished process."""
    return command("python", "-m", "pytest", "--nbval-lax", "--nbval-cell-timeout=300", "--rootdir", copy.parent,
                   "-p", "no:cacheprovider", "-c", "/dev/null", copy)


def test_nbval_compares_the_marked_cells_and_another_seed_gives_other_weights(lab, plain, tmp_path):
    done = nbval(prepare_copy(lab, tmp_path, seed=1))
    assert done.returncode == 0, done.stdout[-3000:]
    passed = int(re.search(r"(\d+) passed", done.stdout).group(1))
    run = [cell for cell in code_cells(notebook_path(lab)) if "nbval-skip" not in tags(cell)]
    assert passed == len(run) + 1                       # and the cell of injected parameters
    assert list((tmp_path / "out").glob("*.png"))
    weights = [path.name for path in (tmp_path / "out").glob("*.safetensors")]
    for name in weights:
        pairs = zip(*(read_checkpoint(folder / "out" / name)[1].values() for folder in (plain, tmp_path)))
        assert not all(torch.equal(a, b) for a, b in pairs), name
    assert weights


@pytest.mark.xdist_group("nbval")
def test_nbval_notices_a_changed_output(tmp_path):
    """Cell by cell: a copy of the shortest lab whose marked outputs say something else."""
    copy = prepare_copy(LONGEST_FIRST[-1], tmp_path)
    notebook = nbformat.read(copy, as_version=4)
    marked = [cell for cell in notebook.cells if "nbval-check-output" in tags(cell)]
    marked[0].outputs[0].text += "and one line more\n"
    last = notebook.cells.index(marked[0])
    notebook.cells = notebook.cells[:last + 1]
    nbformat.write(notebook, copy)
    done = nbval(copy)
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout[-3000:]


@needs_mnist
@pytest.mark.xdist_group("pretrained")
@pytest.mark.parametrize("name", LABS)
def test_pretrained_weights_skip_the_training(name, tmp_path):
    """On real images; the short trainings of the lab, which cannot be loaded, as short as can be."""
    options = tiny(name, pretrained="true", dataset="mnist")
    done = command("labs", "run", name, "--out", tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / name / "results.json").read_text())["images_per_second"] is None


@pytest.mark.xdist_group("killed")
def test_a_lab_that_is_killed_and_resumed_ends_with_the_same_metrics(tmp_path):
    name = LONGEST_FIRST[-1]
    run = ("labs", "run", name, *tiny(name, epochs=12), "--out")
    with started(*run, tmp_path / "killed", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list((tmp_path / "killed").glob(f"{name}/[!.]*.state")):      # a whole one
            time.sleep(0.01)
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()        # the kernel
        assert process.wait(120) == 1
    record = json.loads((tmp_path / "killed" / name / "run.json").read_text())
    [state] = (tmp_path / "killed" / name).glob("*.state")
    assert record["status"] == "failed" and read_checkpoint(state)[0]["epoch"] < 12

    done, alone = command(*run, tmp_path / "killed"), command(*run, tmp_path / "alone")
    assert done.returncode == 0 and alone.returncode == 0, done.stderr + alone.stderr
    resumed, expected = (json.loads((tmp_path / folder / name / "results.json").read_text())
                         for folder in ("killed", "alone"))
    assert {metric for metric in expected if expected[metric] != resumed[metric]} <= TIMES
    assert json.loads((tmp_path / "killed" / name / "run.json").read_text())["resumed"] and not state.exists()


def test_a_bad_value_fails_the_run(tmp_path):
    done = command("labs", "run", LABS[0], "--out", tmp_path, "-p", "dataset", "mnits")
    record = json.loads((tmp_path / LABS[0] / "run.json").read_text())
    assert done.returncode == 1 and record["error"].startswith("ValueError") and "mnits" in record["error"]
    assert len([cell for cell in code_cells(tmp_path / LABS[0] / f"{LABS[0]}.ipynb") if cell.execution_count]) <= 6
