"""What `labs run` costs more than papermill: the same trivial notebook through both, in turns.

    python tests/benchmarks/runner_overhead.py --runs 200

Not a test: the times are those of this machine, and of what else it does.
"""

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import papermill

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import write_lab  # noqa: E402

from labutils.instructor import cli, labs  # noqa: E402
from labutils.instructor.jobs import run_jobs  # noqa: E402
from labutils.instructor.kernel import QUIET_KERNEL  # noqa: E402
from labutils.instructor.record import Job  # noqa: E402


def by_papermill(folder, number):
    """Execute the notebook with papermill alone."""
    papermill.execute_notebook(str(labs.lab_path("01_trivial")), str(folder / f"{number}.ipynb"), {"seed": number},
                               kernel_name="python3", progress_bar=False, extra_arguments=list(QUIET_KERNEL))


def by_runner(folder, number):
    """Execute the notebook as `labs run` does."""
    [outcome] = run_jobs([Job("01_trivial", {"seed": number}, folder / f"01_trivial,seed={number}", 600)])
    assert outcome.status == "ok" and not outcome.kept, outcome


def sweep(folder, n_runs):
    """Execute the notebook `n_runs` times by one command, the report included."""
    numbers = ",".join(map(str, range(n_runs)))
    assert cli.main(["run", "01_trivial", "-p", "seed", numbers, "--out", str(folder / "sweep")]) == 0


def seconds(action, *arguments):
    """Return how long a silent call takes: wall time, and CPU time of this process and its ended children."""
    start, used = time.perf_counter(), sum(os.times()[:4])
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        action(*arguments)
    return time.perf_counter() - start, sum(os.times()[:4]) - used


def measure(n_runs, folder):
    """Return {way: [(wall, CPU) of each run]}: both ways in turns, then a sweep, and the same sweep once more."""
    ways = {"papermill": by_papermill, "labs run": by_runner}
    times = {f"{name}, first": [seconds(way, folder, n_runs)] for name, way in ways.items()}    # loads what both need
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
        labs.NOTEBOOKS = Path(folder)
        write_lab(labs.NOTEBOOKS, "01_trivial")
        times = measure(n_runs, Path(folder))
    print(f"seconds a run, {n_runs} runs")
    print(f"{'':<16}  {'wall: mean':>10}  {'median':>7}  {'CPU: mean':>10}  {'median':>7}")
    for name, pairs in times.items():
        wall, used = zip(*pairs)
        print(f"{name:<16}  {statistics.mean(wall):10.3f}  {statistics.median(wall):7.3f}  "
              f"{statistics.mean(used):10.3f}  {statistics.median(used):7.3f}")


if __name__ == "__main__":
    main()
