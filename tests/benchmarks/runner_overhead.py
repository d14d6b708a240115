"""What `labs run` costs beside papermill: the same trivial notebook through both, in turns.

    python tests/benchmarks/runner_overhead.py --runs 200

Not a test: the figures are those of this machine and of what else it does.
"""

import argparse
import contextlib
import io
import os
import statistics
import tempfile
import time
from pathlib import Path

import nbformat
import papermill

from labutils.instructor import cli, labs
from labutils.instructor.jobs import run_jobs
from labutils.instructor.run import QUIET_KERNEL, Job

PARAMETERS = 'seed: int = 0  # of nothing\nout_dir: str = "runs/x"  # files'
RESULT = ("from IPython.display import display\n"
          "display({'application/json': {'loss': seed}, 'text/plain': ''}, raw=True)")


def write_notebook(folder):
    """Write the trivial notebook in the place of the course's labs."""
    cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}), nbformat.v4.new_code_cell(RESULT)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "01_trivial.ipynb")
    labs.NOTEBOOKS = folder


def by_papermill(folder, number):
    """Execute the notebook with papermill alone."""
    papermill.execute_notebook(str(labs.lab_path("01_trivial")), str(folder / f"{number}.ipynb"), {"seed": number},
                               kernel_name="python3", progress_bar=False, extra_arguments=list(QUIET_KERNEL))


def by_runner(folder, number):
    """Execute the notebook as `labs run` does."""
    with contextlib.redirect_stderr(io.StringIO()):
        [outcome] = run_jobs([Job("01_trivial", {"seed": number}, folder / f"01_trivial,seed={number}", 600)])
    assert outcome.status == "ok" and not outcome.kept, outcome


def sweep(folder, n_runs):
    """Execute the notebook `n_runs` times by one command, the report included."""
    numbers = ",".join(map(str, range(n_runs)))
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(["run", "01_trivial", "-p", "seed", numbers, "--out", str(folder / "sweep")]) == 0


def seconds(action, *arguments):
    """Return how long a call takes: wall time, and CPU time of this process and its ended children."""
    start, used = time.perf_counter(), sum(os.times()[:4])
    action(*arguments)
    return time.perf_counter() - start, sum(os.times()[:4]) - used


def measure(n_runs, folder):
    """Return {way: [(wall, CPU) of each run]}, the ways in turns, and those of a sweep, twice: the second time all is kept."""
    ways = {"papermill": by_papermill, "labs run": by_runner}
    times = {f"{name}, first": [seconds(way, folder, n_runs)] for name, way in ways.items()}    # templates, versions, git
    times |= {name: [] for name in ways}
    for number in range(n_runs):
        for name, way in list(ways.items())[:: 1 if number % 2 else -1]:
            times[name].append(seconds(way, folder, number))
    times["extra"] = [(b[0] - a[0], b[1] - a[1]) for a, b in zip(times["papermill"], times["labs run"])]
    for name in ("one sweep", "the sweep, kept"):
        times[name] = [tuple(value / n_runs for value in seconds(sweep, folder, n_runs))]
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200, metavar="N")
    n_runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        write_notebook(Path(folder))
        times = measure(n_runs, Path(folder))
    print(f"seconds a run, {n_runs} runs\n{'':<16}  {'wall: mean':>10}  {'median':>7}  {'CPU: mean':>10}  {'median':>7}")
    for name, pairs in times.items():
        wall, used = zip(*pairs)
        print(f"{name:<16}  {statistics.mean(wall):10.3f}  {statistics.median(wall):7.3f}  "
              f"{statistics.mean(used):10.3f}  {statistics.median(used):7.3f}")


if __name__ == "__main__":
    main()
