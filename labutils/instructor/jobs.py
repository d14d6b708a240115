"""Run many labs, several at a time: a thread drives each kernel, so that no run can bring down another."""

import json
import os
import sys
import time
from collections import defaultdict
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from statistics import median

from tqdm import tqdm

from ..limits import cores
from .kernel import Watch, remove_dead_sockets
from .labs import DamagedLab, read_lab
from .record import Outcome, earlier_runs, find_metrics
from .run import kept_outcomes, run_job
from .signals import on_signals


def run_jobs(jobs, n_workers=1):
    """Run jobs, `n_workers` at a time (if several, the longest first); return their outcomes in the order of the jobs.

    A run that went well earlier, with the same code and parameters, is kept unless `job.force`. Ctrl-C and
    SIGTERM kill the kernels: runs in progress end as "interrupted", with what was executed so far.
    """
    n_workers = max(1, min(n_workers, len(jobs)))
    share_cores(n_workers)
    remove_dead_sockets()
    watches, futures, earlier = [Watch() for _ in jobs], [None] * len(jobs), earlier_runs(jobs)
    known, kept = seconds_taken(earlier), kept_outcomes(jobs, earlier)
    with ThreadPoolExecutor(n_workers) as pool, stopping(watches):
        for i in longest_first(jobs, known) if n_workers > 1 else range(len(jobs)):
            futures[i] = pool.submit(run_or_keep, jobs[i], watches[i], kept)
        follow(futures, jobs, watches, known)
    return [future.result() for future in futures]


def share_cores(n_kernels):
    """Give each of so many kernels its share of the cores, unless OMP_NUM_THREADS says what a kernel gets.

    More threads than cores would wait for one another. One kernel that may use the whole machine is left alone: torch
    knows best what to do with two threads of one core.
    """
    found = cores()
    if n_kernels > 1 or found < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, found // n_kernels)))


def longest_first(jobs, known):
    """Return the indices of the jobs, the longest first: started last, they would leave the other cores idle.

    known    `seconds_taken` by earlier runs; for a lab without any, the seconds stored in its notebook count
    """
    stored = {lab: [stored_seconds(lab)] for lab in {job.lab for job in jobs}}
    took = [median(known[work_key(job)] or stored[job.lab]) for job in jobs]
    return sorted(range(len(jobs)), key=took.__getitem__, reverse=True)


def stored_seconds(lab):
    """Return how long the training took whose outputs are stored in a lab's notebook, or 0."""
    try:
        seconds = find_metrics(read_lab(lab)).get("seconds")
    except DamagedLab:      # its run will say so
        return 0
    return seconds if isinstance(seconds, (int, float)) else 0


def run_or_keep(job, watch, kept):
    """Return the outcome of a job: kept, new, or not started because all is to end."""
    if watch.stopped:
        return Outcome(job.lab, "interrupted", 0, {}, "not started", job.name)
    return kept.get(job.folder) or run_job(job, watch)


@contextmanager
def stopping(watches):
    """Let a signal end the runs that are watched, instead of this process."""
    def stop(*_):
        for watch in watches:       # takes no lock: a second signal may come in the middle of this
            watch.stop()
    with on_signals(stop):
        try:
            yield
        except BaseException:   # for example our lines go into a closed pipe: nobody follows the runs any more
            if any(watch.stopped for watch in watches):     # by the signal of a terminal that was closed
                raise KeyboardInterrupt from None
            stop()
            raise


def follow(futures, jobs, watches, seconds):
    """Print a line when a run begins, and when it ends; between them, on a terminal, one that is redrawn every second.

    seconds    `seconds_taken` by earlier runs, to which the new ones are added
    """
    numbers, terminal, lines = dict(zip(futures, range(len(jobs)))), sys.stderr.isatty(), {}
    while numbers:
        # not without a time-out: Python would not see a signal that comes just before it blocks
        done, _ = wait(numbers, timeout=1, return_when=FIRST_COMPLETED)
        for future in done:
            number = numbers.pop(future)
            if number in lines:
                lines.pop(number).close()
                sys.stderr.write("\r" if terminal else "")      # tqdm leaves the cursor where the line has ended
            report_line(future.result())
            if future.result().status == "ok":
                seconds[work_key(jobs[number])].append(future.result().seconds)
        for number in [number for number in numbers.values() if watches[number].started]:
            if number not in lines:
                tqdm.write(f"{jobs[number].name}: started", file=sys.stderr)
                lines[number] = tqdm(bar_format="{desc}", leave=False, file=sys.stderr, dynamic_ncols=True,
                                     disable=not terminal)
            lines[number].set_description_str(progress(jobs[number], watches[number], seconds))


def progress(job, watch, seconds):
    """Say in one line how far a run is and, if earlier runs tell, how long it will still take."""
    elapsed, notebook = time.perf_counter() - watch.started, watch.notebook
    n_cells = len(notebook.cells) if notebook else "?"
    text = f"{job.name}: cell {watch.cell} of {n_cells}, {tqdm.format_interval(elapsed)}"
    known = seconds[work_key(job)]
    if known and median(known) > elapsed:
        text += f", about {tqdm.format_interval(median(known) - elapsed)} left"
    return text


def work_key(run):
    """Return what jobs and runs have in common that take about the same time: all but the seed."""
    others = {name: value for name, value in run.parameters.items() if name != "seed"}
    return run.lab, json.dumps(others, sort_keys=True, default=str)


def seconds_taken(runs):
    """Return {work key: [seconds of each run]}."""
    seconds = defaultdict(list)
    for run in runs:
        if run.seconds is not None:
            seconds[work_key(run)].append(run.seconds)
    return seconds


def report_line(outcome):
    """Print how a run ended, at once, and return the outcome."""
    text = f"{outcome.name or outcome.lab}: {outcome.status}, {outcome.seconds:.0f} s"
    text += f": {outcome.error}" if outcome.error else f" ({outcome.kept})" if outcome.kept else ""
    tqdm.write(text, file=sys.stderr)       # above the lines that are redrawn
    return outcome
