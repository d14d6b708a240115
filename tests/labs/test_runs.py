"""Every lab from end to end: its reduced run, the version for students, and the shipped weights; nbval on one."""

import json
import re
import subprocess
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from apart import checksum
from helpers import (
    LABS,
    bands_so_far,
    code_cells,
    command,
    needs_mnist,
    notebook_path,
    options,
    prepare_copy,
    read_json,
    run_apart,
    solutions,
    started,
    tags,
    tiny,
    tiny_quick,
    trains,
)

from labutils.checkpoints import read_checkpoint
from labutils.checks import NotDone
from labutils.instructor.bands import check, read_expected
from labutils.instructor.jobs import stored_seconds
from labutils.instructor.labs import effective_parameters, quick_settings
from labutils.instructor.record import Outcome, find_metrics
from labutils.instructor.release import student_version

pytestmark = pytest.mark.slow
LONGEST_FIRST = sorted(LABS, key=stored_seconds, reverse=True)
SHORTEST = [lab for lab in LONGEST_FIRST if trains(lab)][-1]
each_lab = pytest.mark.parametrize("lab", LONGEST_FIRST)


def read(lab):
    """Return the notebook of a lab."""
    return nbformat.read(notebook_path(lab), as_version=4)


@each_lab
def test_plain_papermill_runs_the_lab_as_the_readme_says_and_its_metrics_lie_in_their_bands(lab, tmp_path):
    as_text = ["-p", "limit", "none"]       # and read as meant
    if trains(lab):
        rate = effective_parameters(lab, quick_settings(lab))["learning_rate"]
        as_text += ["-p", "pretrained", "false", "-r", "learning_rate", rate]
    done = command("papermill", f"notebooks/{lab}.ipynb", tmp_path / "out.ipynb", "--cwd", "notebooks",
                   "-f", f"notebooks/quick/{lab}.yml", "-p", "device", "cpu", "-p", "out_dir", tmp_path / "out",
                   *as_text, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    notebook = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert marked(notebook) == marked(read(lab))        # as nbval compares
    metrics = find_metrics(notebook)
    outside, n_compared = check([Outcome(lab, "ok", 0, metrics)], bands_so_far(lab, "quick"))
    assert not outside and n_compared == len(read_expected(lab)["metrics"])
    assert metrics["dataset"] == "digits"


def marked(notebook):
    """Return {id: text} of the cells that say the same in every run."""
    return {cell.id: "".join(output.get("text") or output.data["text/plain"] for output in cell.outputs)
            for cell in notebook.cells if "nbval-check-output" in tags(cell)}


def solved(lab):
    """Return the students' version of a lab with the solutions pasted back."""
    notebook = read(lab)
    student, right = student_version(lab, notebook), solutions(notebook)
    for name, cell in solutions(student).items():
        cell.source = right[name].source
    return student


def twice(cell):
    """Return a cell and, if it can be run again, a copy of it."""
    if cell.cell_type != "code" or {"parameters", "skip-execution"} & set(tags(cell)):
        return [cell]
    return [cell, nbformat.from_dict({**cell, "id": f"{cell.id}-again"})]


def said(cell):
    """Return what a cell has printed and shown, without times, and the files that are there then."""
    text = "".join(output.get("text") or json.dumps(output.get("data")) for output in cell.outputs)     # in any pieces
    text = re.sub(r"[\d.,]+ (s|ms|min|h)\b", "(time)", text)
    return re.sub(r"(seconds|images_per_second)[ \":]+[\d.e+]+", "(time)", text), cell.metadata["files"]


def differing(notebook):
    """Return the ids of the cells that did something else when they were run again; measured times may differ."""
    cells = {cell.id: cell for cell in notebook.cells}
    return [name for name, cell in cells.items() if f"{name}-again" in cells and "measures-time" not in tags(cell)
            and said(cell) != said(cells[f"{name}-again"])]


@each_lab
def test_the_solved_students_version_does_the_same_when_every_cell_runs_twice(lab, tmp_path):
    """The same seed, the same texts, pictures and weights."""
    student = solved(lab)
    student.cells = [copy for cell in student.cells for copy in twice(cell)]
    done = run_apart(student, lab, tiny_quick(lab, out_dir=str(tmp_path)))
    assert set(read_expected(lab)["metrics"]) <= set(find_metrics(done)) and not differing(done)
    files = [path.name for path in tmp_path.iterdir()]
    assert ({".png", ".safetensors"} if trains(lab) else {".png"}) <= {Path(name).suffix for name in files}
    # pictures of a training are there as an animation, too
    assert any(name.endswith(".webp") for name in files) == any("_over_time" in name for name in files)


def test_the_students_version_runs_up_to_its_first_stub(tmp_path):
    student = student_version(SHORTEST, read(SHORTEST))
    with pytest.raises(NotDone, match=f"put your answer into {next(iter(solutions(student)))}, "):
        run_apart(student, SHORTEST, tiny(SHORTEST, out_dir=str(tmp_path)))


def test_nbval_passes_all_cells_of_a_lab_but_one_whose_stored_output_was_changed(tmp_path):
    """Each lab's marked outputs are compared above. A kernel of nbval's and a process of ours leave the same files."""
    copy = prepare_copy(SHORTEST, tmp_path)
    notebook = nbformat.read(copy, as_version=4)
    next(cell for cell in notebook.cells if "nbval-check-output" in tags(cell)).outputs[0].text += "and one line more\n"
    nbformat.write(notebook, copy)
    done = command("python", "-m", "pytest", "--nbval-lax", "--nbval-cell-timeout=300", "--rootdir", tmp_path,
                   "-p", "no:cacheprovider", "-c", "/dev/null", copy)
    run = [cell for cell in code_cells(copy) if "nbval-skip" not in tags(cell)]
    assert done.returncode == 1 and f"1 failed, {len(run) - 1} passed" in done.stdout, done.stdout[-3000:]
    run_apart(read(SHORTEST), SHORTEST, tiny_quick(SHORTEST, out_dir=str(tmp_path / "apart")))
    first, second = ({path.name: checksum(path, 0) for path in (tmp_path / name).iterdir()}
                     for name in ("out", "apart"))
    assert first == second and len(first) > 5


@needs_mnist
@pytest.mark.parametrize("lab", [*filter(trains, LONGEST_FIRST)])
def test_pretrained_weights_skip_the_training(lab, tmp_path):
    """On real images; the short trainings of the lab, which cannot be loaded, as short as can be."""
    done = run_apart(read(lab), lab, tiny(lab, pretrained=True, dataset="mnist", out_dir=str(tmp_path)))
    assert find_metrics(done)["images_per_second"] is None


def test_a_lab_that_is_killed_in_its_training_is_resumed_and_reports_all_metrics(tmp_path):
    """That a resumed training ends with the same weights, history and random numbers, each lab's own test shows."""
    name = SHORTEST
    run, folder = ("labs", "run", name, *options(tiny(name, epochs=6)), "--out", tmp_path), tmp_path / name
    with started(*run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(folder.glob("[!.]*.state")):      # a whole one
            time.sleep(0.01)
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()        # the kernel
        assert process.wait(120) == 1
    [state] = folder.glob("*.state")
    assert read_json(folder / "run.json")["status"] == "failed" and read_checkpoint(state)[0]["epoch"] < 6

    done = command(*run)
    assert done.returncode == 0, done.stderr
    assert set(read_expected(name)["metrics"]) <= set(read_json(folder / "results.json"))
    assert read_json(folder / "run.json")["resumed"] and not state.exists()


def test_a_bad_value_fails_the_run(tmp_path):
    done = command("labs", "run", LABS[0], "--out", tmp_path, "-p", "dataset", "mnits")
    record = read_json(tmp_path / LABS[0] / "run.json")
    assert done.returncode == 1 and record["error"].startswith("BadValue: unknown data set 'mnits'")
    cells = [cell for cell in code_cells(tmp_path / LABS[0] / f"{LABS[0]}.ipynb") if cell.execution_count]
    [told] = cells[-1].outputs[-1].traceback
    assert len(cells) <= 6 and "BadValue: unknown data set 'mnits'" in told and "\n" not in told
