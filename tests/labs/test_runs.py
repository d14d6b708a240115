"""Every lab from end to end: its reduced run, nbval, the version for students, and the shipped weights."""

import json
import re
import subprocess
import time

import nbformat
import psutil
import pytest
import torch
from helpers import (
    LABS,
    code_cells,
    command,
    needs_mnist,
    notebook_path,
    prepare_copy,
    read_json,
    solutions,
    started,
    tags,
    tiny,
    trains,
)

from labutils.checkpoints import read_checkpoint
from labutils.instructor.bands import bands_of, check, read_expected
from labutils.instructor.jobs import stored_seconds
from labutils.instructor.labs import effective_parameters, quick_settings
from labutils.instructor.record import Outcome, find_metrics
from labutils.instructor.release import release

pytestmark = pytest.mark.slow
LONGEST_FIRST = sorted(LABS, key=stored_seconds, reverse=True)
each_lab = pytest.mark.parametrize("lab", LONGEST_FIRST)


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
    metrics = find_metrics(nbformat.read(tmp_path / "out.ipynb", as_version=4))
    outside, n_compared = check([Outcome(lab, "ok", 0, metrics)], bands_of([lab], "quick"))
    assert not outside and n_compared == len(read_expected(lab)["metrics"])
    assert metrics["dataset"] == "digits"


def nbval(copy):
    """Run nbval on a copy of a lab; return the finished process."""
    return command("python", "-m", "pytest", "--nbval-lax", "--nbval-cell-timeout=300", "--rootdir", copy.parent,
                   "-p", "no:cacheprovider", "-c", "/dev/null", copy)


def run_student(lab, folder, solved):
    """Execute the student's version of a lab: as it is, or with the solutions pasted back and every cell twice."""
    released = release(folder / "course", [lab])
    student, whole = (nbformat.read(released / version / f"notebooks/{lab}.ipynb", as_version=4)
                      for version in ("student", "solutions"))
    for name, cell in solutions(student).items() if solved else ():
        cell.source = solutions(whole)[name].source
    if solved:
        student.cells = [copy for cell in student.cells for copy in twice(cell)]
    nbformat.write(student, folder / "student.ipynb")
    return command("papermill", folder / "student.ipynb", folder / "out.ipynb", "--cwd", released / "student/notebooks",
                   "-f", released / f"student/notebooks/quick/{lab}.yml", *tiny(lab, out_dir=folder / "out"))


def twice(cell):
    """Return a cell and, if it can be run again, a copy of it."""
    if cell.cell_type != "code" or {"parameters", "skip-execution"} & set(tags(cell)):
        return [cell]
    return [cell, nbformat.from_dict({**cell, "id": f"{cell.id}-again"})]


def said(cell):
    """Return what a cell has printed and shown, without times."""
    text = "".join(output.get("text") or json.dumps(output.get("data")) for output in cell.outputs)     # in any pieces
    text = re.sub(r"[\d.,]+ (s|ms|min|h)\b", "(time)", text)
    return re.sub(r"(seconds|images_per_second)[ \":]+[\d.e+]+", "(time)", text)


def differing(notebook):
    """Return the ids of the cells that said something else when they were run again; measured times may differ."""
    cells = {cell.id: cell for cell in notebook.cells}
    return [name for name, cell in cells.items() if f"{name}-again" in cells and "measures-time" not in tags(cell)
            and said(cell) != said(cells[f"{name}-again"])]


@each_lab
def test_nbval_compares_the_marked_cells_and_the_solved_students_version_gives_the_same(lab, tmp_path):
    """The same seed: in the notebook by nbval, and in the students' version, solved, where every cell runs twice."""
    done = nbval(prepare_copy(lab, tmp_path / "nbval"))
    assert done.returncode == 0, done.stdout[-3000:]
    passed = int(re.search(r"(\d+) passed", done.stdout).group(1))
    run = [cell for cell in code_cells(notebook_path(lab)) if "nbval-skip" not in tags(cell)]
    assert passed == len(run) + 1                       # and the cell of injected parameters

    done = run_student(lab, tmp_path, solved=True)
    assert done.returncode == 0, done.stderr[-3000:]
    solved = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert set(read_expected(lab)["metrics"]) <= set(find_metrics(solved)) and not differing(solved)
    first, second = ({path.name: path for path in folder.iterdir()}
                     for folder in (tmp_path / "nbval/out", tmp_path / "out"))
    kinds = {".png", ".safetensors"} if trains(lab) else {".png"}
    assert first.keys() == second.keys() and kinds <= {path.suffix for path in first.values()}
    # pictures of a training are there as an animation, too
    assert any(name.endswith(".webp") for name in first) == any("_over_time" in name for name in first)
    for name, path in first.items():
        if path.suffix in (".png", ".webp"):
            assert path.read_bytes() == second[name].read_bytes(), name
        else:
            pairs = zip(*(read_checkpoint(file)[1].values() for file in (path, second[name])), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs), name


def test_the_students_version_runs_up_to_its_first_stub(tmp_path):
    done = run_student(LONGEST_FIRST[-1], tmp_path, solved=False)
    stub = next(iter(solutions(nbformat.read(tmp_path / "student.ipynb", as_version=4))))
    assert done.returncode == 1 and f"Not done yet: put your answer into {stub}" in done.stderr, done.stderr[-2000:]


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
@pytest.mark.parametrize("lab", filter(trains, LONGEST_FIRST))
def test_pretrained_weights_skip_the_training(lab, tmp_path):
    """On real images; the short trainings of the lab, which cannot be loaded, as short as can be."""
    options = tiny(lab, pretrained="true", dataset="mnist")
    done = command("labs", "run", lab, "--out", tmp_path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_json(tmp_path / lab / "results.json")["images_per_second"] is None


def test_a_lab_that_is_killed_in_its_training_is_resumed_and_reports_all_metrics(tmp_path):
    """That a resumed training ends with the same weights, history and random numbers, each lab's own test shows."""
    name = LONGEST_FIRST[-1]
    run, folder = ("labs", "run", name, *tiny(name, epochs=6), "--out", tmp_path), tmp_path / name
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
