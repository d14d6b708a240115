"""Run labs on a Dask cluster: a worker executes each run in its own folder, and the files come back."""

import asyncio
import json
import logging
import socket
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from tornado.ioloop import PeriodicCallback

from ..paths import replacing
from .jobs import report_line, share_cores
from .kernel import Watch, describe
from .labs import DamagedLab, UsageError, lab_parameters
from .record import (Outcome, as_json, circumstances, earlier_runs, files_in, fingerprint, new_record, read_run,
                     remove_files, remove_half_written)
from .run import kept_outcomes, run_job

try:
    from distributed import Client, KilledWorker, Security, as_completed, get_worker, rpc
except ImportError as error:
    raise UsageError(f"--scheduler needs the package distributed ({error}); get it with: "
                     'pip install -c constraints.txt -e ".[cluster]"') from None

CONNECT_TIMEOUT = 10    # seconds until the scheduler must answer


def run_on_cluster(jobs, address):
    """Run jobs on the workers of the scheduler at `address`; return their outcomes in the order of the jobs.

    address  tcp://HOST:PORT, tls://HOST:PORT, or the JSON file that `dask scheduler --scheduler-file` writes

    What went well earlier is kept, as in `run_jobs`. The files that a run has written on its worker are copied to its
    `job.folder` on this machine. The worker needs a checkout with the same code: no code is sent, so that the revision
    in run.json is true. Raises `UsageError` for an address without a scheduler, and for workers with other code. If it
    ends early, also by `KeyboardInterrupt`, runs that are queued or in progress are cancelled.
    """
    kept = kept_outcomes(jobs, earlier_runs(jobs))
    outcomes = {job.folder: report_line(done) for job in jobs if (done := kept.get(job.folder) or without_worker(job))}
    if left := [job for job in jobs if job.folder not in outcomes]:
        with connect(address) as client:
            await_workers(client, address)
            check_workers(client, left)
            print(f"{address}: {len(left)} runs for {len(client.nthreads())} workers", file=sys.stderr, flush=True)
            for job, outcome, files in finished(client, left):
                outcomes[job.folder] = report_line(receive(job, outcome, files))
    return [outcomes[job.folder] for job in jobs]


def without_worker(job):
    """Return the outcome of a job whose lab is damaged on this machine, else None."""
    try:
        lab_parameters(job.lab)
    except DamagedLab:
        return run_job(job)
    return None


def connect(address):
    """Return a client of the scheduler at `address`; raises `UsageError`."""
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)      # it prints what we report
    try:
        is_file = address.endswith(".json")
        found = json.loads(Path(address).read_text(encoding="utf-8"))["address"] if is_file else address
        asyncio.run(asyncio.wait_for(greet(found), CONNECT_TIMEOUT))
        return Client(found, timeout=CONNECT_TIMEOUT)
    except (ValueError, LookupError) as error:
        raise UsageError(f"--scheduler {address}: {error}; an address looks like tcp://HOST:8786") from None
    except Exception as error:      # OSError, or whatever the answer of another program leads to
        raise UsageError(f"--scheduler {address}: no Dask scheduler answers there within {CONNECT_TIMEOUT} s "
                         f"({describe(error)}); start one with: dask scheduler") from None


async def greet(address):
    """Ask a scheduler who it is: a client would wait for ever for a server that accepts and says nothing."""
    async with rpc(address, connection_args=Security().get_connection_args("client")) as scheduler:
        if (identity := await scheduler.identity())["type"] != "Scheduler":
            raise OSError(f"it is a {identity['type']}")


def await_workers(client, address):
    """Wait until there is a worker, and say so."""
    if not client.nthreads():
        print(f"{address} has no workers yet; waiting for the first: dask worker {address} --nthreads 1",
              file=sys.stderr, flush=True)
        client.wait_for_workers(1)


def check_workers(client, jobs):
    """Raise `UsageError` if a worker would refuse one of the jobs."""
    for job in {job.lab: sendable(job) for job in jobs}.values():
        for address, fault in client.run(check_course, job, fingerprint(job), on_error="return").items():
            if fault:
                raise UsageError(f"worker {address}: {describe(fault)}")


def check_course(job, expected):
    """Raise `UsageError` unless this machine has the code with the fingerprint `expected`."""
    if fingerprint(job) != expected:
        raise UsageError(f"{socket.gethostname()} has another version of {job.lab} or labutils than this machine; "
                         "bring its checkout to the same state and restart the worker")


def sendable(job):
    """Return the job for a worker, which knows only the name of its folder."""
    return job._replace(folder=job.name)


def finished(client, jobs):
    """Yield (job, outcome, files) as the runs end.

    When workers have died too often, Dask also gives up runs that were only queued there. So a run that was given up
    among others is tried once more at the end, alone: if it fails again, the fault is its own.
    """
    futures = {client.submit(run_here, sendable(job), fingerprint(job), pure=False): job for job in jobs}
    suspects = []
    for future in as_completed(list(futures)):
        job = futures.pop(future)       # once nothing refers to the future, the worker drops the files
        try:
            yield job, *future.result()
        except Exception as error:      # of the worker, of the connection, of Dask
            if isinstance(error, KilledWorker) and len(jobs) > 1:
                suspects.append(job)
            else:
                yield job, *lost(job, error)
    for job in suspects:
        yield from finished(client, [job])


def run_here(job, expected):
    """On a worker: run a job in a temporary folder; return its outcome and what it wrote, {relative path: bytes}."""
    circumstances.cache_clear()     # a worker may live long, and its checkout may change
    check_course(job, expected)
    share_cores(get_worker().state.nthreads)
    # Dask removes what a killed worker has left in its folder when the next one starts there
    with tempfile.TemporaryDirectory(dir=get_worker().local_directory, ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) / job.folder
        with cancellable() as watch:
            outcome = run_job(job._replace(folder=folder), watch)
        return outcome, {name: (folder / name).read_bytes() for name in [*files_in(folder), "run.json"]
                         if (folder / name).exists()}


@contextmanager
def cancellable():
    """On a worker: give a `Watch` that stops the run when nobody is waiting for it any more."""
    watch, worker, key = Watch(), get_worker(), get_worker().get_current_task()

    def look():
        if worker.state.tasks[key].state == "cancelled":
            watch.stop()

    looking = PeriodicCallback(look, 1000)      # milliseconds
    worker.loop.add_callback(looking.start)
    try:
        yield watch
    finally:
        worker.loop.add_callback(looking.stop)


def receive(job, outcome, files):
    """Write the files of a run into `job.folder`, and return its outcome."""
    try:
        write_files(job.folder, files)
    except OSError as error:
        fault = f"its files came back, but {describe(error)}"
        return outcome._replace(status="failed", metrics={}, error=fault)
    return outcome


def lost(job, error):
    """Return the outcome and the files of a run of which nothing came back."""
    reason = describe(error)
    if isinstance(error, KilledWorker):
        reason = f"each worker that ran it died, the last one being {error.last_worker.address}; out of memory?"
    record = new_record(job)
    record.status, record.error = "failed", reason
    return Outcome(job.lab, "failed", 0, {}, reason, job.name), {"run.json": as_json(record).encode()}


def write_files(folder, files):
    """Write files {relative path: bytes} into `folder`, each completely or not at all, run.json as the last one."""
    remove_half_written(folder)
    if earlier := read_run(folder):
        remove_files(folder, earlier.files)
    for name in ("run.json", "results.json"):      # of an earlier run, and no longer true
        (folder / name).unlink(missing_ok=True)
    for name in sorted(files, key=lambda name: name == "run.json"):
        with replacing(folder / name) as part:
            part.write_bytes(files[name])
