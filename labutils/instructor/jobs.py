"""Run many labs, some at a time: a thread drives each kernel, so that nothing of one run can pull down another."""

import json
import os
import sys
import time
from collections import defaultdict
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from statistics import median

from tqdm import tqdm

from .labs import DamagedLab, read_lab
from .run import Outcome, Watch, earlier_outcome, earlier_records, find_results, run_job, runs_beside
from .signals import on_signals


def run_jobs(jobs, n_workers=1):
    """Run jobs, `n_workers` at a time (if several, the longest first); return their outcomes in the order of the jobs.

    A run that went well earlier, with the same code and parameters, is kept unless `job.force`. Ctrl-C and
    SIGTERM kill the kernels: runs in progress end as "interrupted", with what was executed so far.
    """
    n_workers = max(1, min(n_workers, len(jobs)))
    if n_workers > 1:
        # each kernel gets its share of the cores: more threads than cores would slow all of them down
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // n_workers)))
    watches, futures, records = [Watch() for _ in jobs], [None] * len(jobs), earlier_records(jobs)
    known, beside = earlier_seconds(records.values()), runs_beside(jobs, records)
    with ThreadPoolExecutor(n_workers) as pool, stopping(watches):
        for i in longest_first(jobs, known) if n_workers > 1 else range(len(jobs)):
            futures[i] = pool.submit(run_or_keep, jobs[i], watches[i], beside)
        follow(futures, jobs, watches, known)
    return [future.result() for future in futures]


def longest_first(jobs, known):
    """Return the indices of jobs, those that take longest first: begun last, they would leave the other cores idle.

    known    what earlier runs took (`earlier_seconds`); for a lab without any, the training stored in its notebook tells
    """
    stored = {lab: [stored_seconds(lab)] for lab in {job.lab for job in jobs}}
    took = [median(known[likeness(job.lab, job.parameters)] or stored[job.lab]) for job in jobs]
    return sorted(range(len(jobs)), key=took.__getitem__, reverse=True)


def stored_seconds(lab):
    """Return how long the training took whose outputs are stored in a lab, or 0."""
    try:
        seconds = find_results(read_lab(lab)).get("seconds")
    except DamagedLab:      # its run will say so
        return 0
    return seconds if isinstance(seconds, (int, float)) else 0


def run_or_keep(job, watch, beside):
    """Return the outcome of a job: kept, new, or not begun because all is to end."""
    if watch.stopped:
        return Outcome(job.lab, "interrupted", 0, {}, "not begun", job.folder.name)
    return (None if job.force else earlier_outcome(job, beside)) or run_job(job, watch)


@contextmanager
def stopping(watches):
    """Let a signal end the runs that are watched, instead of this process."""
    def stop(*_):
        for watch in watches:       # takes no lock: a second signal may come in the middle of this
            watch.stop()
    with on_signals(stop):
        try:
            yield
        except BaseException:   # a closed pipe under our lines, for example: nobody follows the runs any more
            if any(watch.stopped for watch in watches):     # by a signal, a terminal's last: it takes no lines any more
                raise KeyboardInterrupt from None
            stop()
            raise


def follow(futures, jobs, watches, seconds):
    """Print a line for each run that has ended; on a terminal also one for each in progress, redrawn every second.

    seconds    what earlier runs took (`earlier_seconds`), to which the new ones are added
    """
    numbers, terminal, lines = dict(zip(futures, range(len(jobs)))), sys.stderr.isatty(), {}
    while numbers:
        # not without a time-out: Python would not see a signal that comes just before it blocks
        done, _ = wait(numbers, timeout=1, return_when=FIRST_COMPLETED)
        for future in done:
            number = numbers.pop(future)
            if number in lines:
                lines.pop(number).close()
                sys.stderr.write("\r")      # tqdm leaves the cursor where the line has ended
            report_line(future.result())
            if future.result().status == "ok":
                seconds[likeness(jobs[number].lab, jobs[number].parameters)].append(future.result().seconds)
        for number in numbers.values() if terminal else ():
            if watches[number].started:
                if number not in lines:
                    lines[number] = tqdm(bar_format="{desc}", leave=False, file=sys.stderr, dynamic_ncols=True)
                lines[number].set_description_str(progress(jobs[number], watches[number], seconds))


def progress(job, watch, seconds):
    """Say in one line how far a run is, and how long it will still take if earlier ones tell."""
    elapsed, notebook = time.perf_counter() - watch.started, watch.notebook
    n_cells = len(notebook.cells) if notebook else "?"
    text = f"{job.folder.name}: cell {watch.cell} of {n_cells}, {tqdm.format_interval(elapsed)}"
    known = seconds[likeness(job.lab, job.parameters)]
    if known and median(known) > elapsed:
        text += f", about {tqdm.format_interval(median(known) - elapsed)} left"
    return text


def likeness(lab, parameters):
    """Return what runs that take about the same time have in common: all but the seed."""
    others = {name: value for name, value in parameters.items() if name != "seed"}
    return lab, json.dumps(others, sort_keys=True, default=str)


def earlier_seconds(records):
    """Return {likeness: seconds of the runs that went well}, by their records."""
    seconds = defaultdict(list)
    for run in records:
        with suppress(ValueError, LookupError, TypeError, AttributeError):      # damaged, or not ours
            seconds[likeness(run["lab"], run["parameters"])].append(float(run["seconds"]))
    return seconds


def report_line(outcome):
    """Print how a run ended, at once, and return the outcome."""
    text = f"{outcome.run or outcome.lab}: {outcome.status}, {outcome.seconds:.0f} s"
    text += f": {outcome.error}" if outcome.error else " (kept from an earlier run)" if outcome.kept else ""
    tqdm.write(text, file=sys.stderr)       # above the lines that are redrawn
    return outcome
