"""Runs on a Dask cluster, whose scheduler and workers are real processes; some of them are killed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import Future
from threading import Thread

import nbformat
import psutil
import pytest
from helpers import PARAMETERS, PATIENCE, RESULT, read_json, until, write_lab

from labutils.instructor import cli, labs
from labutils.instructor.record import Job, Outcome
from labutils.paths import PROJECT_ROOT

distributed = pytest.importorskip("distributed")
cluster = pytest.importorskip("labutils.instructor.cluster")
pytestmark = pytest.mark.slow
WITH_SIGNALS = PARAMETERS + '\nsignals: str = ""  # folder for marks'
MARK = ("import os, signal, time\nfrom pathlib import Path\nmark = Path(signals, 'begun')\nfirst = not mark.exists()\n"
        "with mark.open('a') as file:\n    file.write(f'{os.getppid()} {os.getpid()}\\n')\n")
SMALL_LABS = {
    "01_good": [RESULT],
    "02_raises": [MARK + "raise RuntimeError('the reason')", RESULT],
    "03_waits": [MARK + "if first:\n    time.sleep(600)", RESULT],
    "04_kills": [MARK + "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(600)", RESULT],
    "05_writes": ["from pathlib import Path\nout = Path(out_dir)\n(out / 'deep').mkdir()\n"
                  "(out / 'deep/big.safetensors').write_bytes(bytes(30_000_000))\n"
                  "for name in ('t.state', '.half-x.png', 'a, b=ü.txt'):\n    (out / name).write_text(name)", RESULT],
}


class Dask:
    """A scheduler and its workers, each a process; workers have the notebooks of `folder`/theirs."""

    def __init__(self, folder):
        self.folder, self.processes, self.file = folder, [], folder / "scheduler.json"
        self.file.unlink(missing_ok=True)
        self.preload = folder / "theirs.py"
        self.preload.write_text("from pathlib import Path\nfrom labutils.instructor import labs\n"
                                f"labs.NOTEBOOKS = Path({str(folder / 'theirs')!r})\n")
        self.scheduler = self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", self.file)
        until(self.file.exists)

    def start(self, *arguments):
        environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1", "OMP_NUM_THREADS": "1"}
        with (self.folder / "dask.log").open("a") as log:
            self.processes.append(subprocess.Popen(
                [sys.executable, "-m", "dask", *map(str, arguments), "--no-dashboard"], cwd=PROJECT_ROOT,
                env=environment, stdout=log, stderr=log))
        return self.processes[-1]

    def worker(self, nanny="--no-nanny"):
        return self.start("worker", "--scheduler-file", self.file, "--nthreads", "1", nanny,
                          "--preload", self.preload, "--local-directory", self.folder)

    def has(self, n_workers):
        """Wait until there are as many workers."""
        with distributed.Client(scheduler_file=str(self.file), timeout=PATIENCE, set_as_default=False) as client:
            until(lambda: len(client.nthreads()) == n_workers)

    def on_scheduler(self, function):
        with distributed.Client(scheduler_file=str(self.file), timeout=PATIENCE, set_as_default=False) as client:
            return client.run_on_scheduler(function)

    def stop(self):
        """End all processes, with all that they have started."""
        for process in self.processes:
            if process.poll() is None:
                for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                    each.kill()
            process.wait(PATIENCE)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "theirs").mkdir()
    for name, cells in SMALL_LABS.items():
        write_lab(folder / "theirs", name, cells, WITH_SIGNALS)
    return folder


@pytest.fixture(scope="module")
def clusters():
    """What has been started: the last one is in use."""
    started = []
    yield started
    for dask in started:
        dask.stop()


@pytest.fixture
def dask(theirs, clusters):
    """A scheduler with one worker, which a nanny starts again when it has died; the tests share it while it lives."""
    if not clusters or clusters[-1].scheduler.poll() is not None:
        clusters.append(Dask(theirs))
        clusters[-1].worker("--nanny")
    return clusters[-1]


@pytest.fixture
def out(theirs, tmp_path, monkeypatch):
    """A folder for results; the small labs replace the course's, and write to `out`/../signals when they begin."""
    shutil.copytree(theirs / "theirs", tmp_path / "notebooks")
    (tmp_path / "signals").mkdir()
    monkeypatch.setattr(labs, "NOTEBOOKS", tmp_path / "notebooks")
    return tmp_path / "out"


def in_thread(function, *arguments):
    """Call a function in a thread that cannot keep the tests from ending; return the future of its value."""
    future = Future()

    def work():
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)
    Thread(target=work, daemon=True).start()
    return future


def run(scheduler, out, *arguments):
    return cli.main(["run", *arguments, "--scheduler", str(scheduler), "--out", str(out),
                     "-p", "signals", str(out.parent / "signals")])


def begun(out):
    """Return [(pid of the worker, pid of the kernel)] of the runs that have left a mark."""
    mark = out.parent / "signals/begun"
    return [tuple(map(int, line.split())) for line in mark.read_text().splitlines()] if mark.exists() else []


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_sweep_is_complete_although_a_worker_is_killed(dask, out, capsys):
    second = dask.worker()
    dask.has(2)
    code = in_thread(run, dask.file, out, "03_waits", "01_good", "05_writes")
    until(lambda: begun(out) or code.done())
    for pid in begun(out)[0]:
        os.kill(pid, signal.SIGKILL)
    assert code.result(PATIENCE) == 0
    for lab in ("01_good", "03_waits"):
        assert names(out / lab) == [f"{lab}.html", f"{lab}.ipynb", "results.json", "run.json"]
    assert names(out / "05_writes") == ["05_writes.html", "05_writes.ipynb", "a, b=ü.txt", "deep/big.safetensors",
                                        "results.json", "run.json"]
    assert (out / "05_writes/deep/big.safetensors").stat().st_size == 30_000_000
    assert all(read_json(path)["status"] == "ok" for path in out.glob("*/run.json"))
    assert len({worker for worker, _ in begun(out)}) == 2, "the run was given to another worker"
    rows = capsys.readouterr().out.splitlines()[2:5]
    assert [row.split()[0] for row in rows] == ["03_waits", "01_good", "05_writes"]
    assert run(dask.file, out, "03_waits", "01_good") == 0
    assert capsys.readouterr().out.count("ok (kept)") == 2 and len(begun(out)) == 2
    second.terminate()
    dask.has(1)


def test_a_lab_that_is_no_notebook_here_stops_no_other_one(dask, out):
    (labs.NOTEBOOKS / "02_raises.ipynb").write_text("{not json")
    assert run(dask.file, out, "02_raises", "01_good") == 1
    assert "02_raises.ipynb is not a notebook" in read_json(out / "02_raises/run.json")["error"]
    assert read_json(out / "01_good/run.json")["status"] == "ok" and len(begun(out)) == 0


def test_what_an_earlier_sweep_has_done_is_not_run_again(dask, out, capsys):
    assert run(dask.file, out, "01_good") == 0
    assert run(dask.file, out, "01_good", "-p", "seed", "0,1") == 0
    assert "01_good: ok" in capsys.readouterr().err
    assert names(out / "01_good,seed=1") and not (out / "01_good,seed=0").exists()


def test_a_worker_that_lives_long_records_the_revision_of_the_moment(dask, out):
    def commit(revision):       # on the worker
        from labutils.instructor import record
        record.git = lambda *arguments: f"{record.PROJECT_ROOT}\n{revision}" if "rev-parse" in arguments else ""
    for revision in ("first", "second"):
        with distributed.Client(scheduler_file=str(dask.file), timeout=PATIENCE, set_as_default=False) as client:
            client.run(commit, revision)
        assert run(dask.file, out, "01_good", "--force") == 0
        assert read_json(out / "01_good/run.json")["revision"] == revision


def test_a_failing_lab_fails_once_and_comes_back_as_far_as_it_came(dask, out):
    (out / "02_raises").mkdir(parents=True)
    for name, text in {"results.json": "{}", "old.png": "", "run.json": '{"files": ["old.png"]}'}.items():
        (out / "02_raises" / name).write_text(text)
    assert run(dask.file, out, "02_raises") == 1
    assert names(out / "02_raises") == ["02_raises.html", "02_raises.ipynb", "run.json"]
    assert read_json(out / "02_raises/run.json")["files"] == ["02_raises.html", "02_raises.ipynb"]
    assert "the reason" in read_json(out / "02_raises/run.json")["error"] and len(begun(out)) == 1
    cells = nbformat.read(out / "02_raises/02_raises.ipynb", as_version=4).cells
    assert any(output.output_type == "error" for cell in cells for output in cell.get("outputs", []))


def test_a_run_that_kills_its_workers_is_given_up_and_takes_no_other_with_it(dask, out):
    def allow(n):
        dask.on_scheduler(lambda dask_scheduler: setattr(dask_scheduler, "allowed_failures", n))
    (out / "04_kills").mkdir(parents=True)
    (out / "04_kills/run.json").write_text('{"status": "ok"}')     # of an earlier run
    allow(0)
    assert run(dask.file, out, "04_kills", "01_good") == 1
    allow(1)
    assert len(begun(out)) == 2, "once among the others, once by itself"
    failed = read_json(out / "04_kills/run.json")
    assert failed["status"] == "failed" and "worker that ran it died" in failed["error"] and "\n" not in failed["error"]
    assert read_json(out / "01_good/run.json")["status"] == "ok"
    until(lambda: list(dask.folder.glob("dask-scratch-space/*/tmp*")) == [])    # what the killed ones have left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_cancels_what_is_queued_or_in_progress(dask, out, capsys, number):
    def interrupt():
        until(lambda: begun(out))
        os.kill(os.getpid(), number)

    def missed(*_):
        pytest.fail("the signal has met nobody")
    before = signal.signal(number, missed)
    try:
        in_thread(interrupt)
        assert run(dask.file, out, "03_waits", "01_good") == 130 and signal.getsignal(number) is missed
    finally:
        signal.signal(number, before)
    assert "interrupted" in capsys.readouterr().err
    until(lambda: dask.on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)) == 0)
    until(lambda: not psutil.pid_exists(begun(out)[0][1]))      # the kernel of the run in progress
    assert not (out / "03_waits").exists()


def test_a_folder_in_which_a_run_is_at_work_is_refused(dask, out, capsys):
    with cli.reserved(out):
        assert run(dask.file, out, "01_good") == 2
    assert f"another 'labs run' is at work in {out};" in capsys.readouterr().err and names(out) == []


def test_a_worker_with_other_code_is_refused(dask, out, capsys, monkeypatch):
    dask.has(1)
    write_lab(labs.NOTEBOOKS, "01_good", ["1 + 1", RESULT], WITH_SIGNALS)
    assert run(dask.file, out, "01_good") == 2
    message = capsys.readouterr().err
    assert "worker tcp://127.0.0.1" in message and "another version of 01_good" in message and message.count("\n") == 1
    assert names(out) == []

    monkeypatch.setattr(cluster, "check_workers", lambda *_: None)      # as if it had come later
    assert run(dask.file, out, "01_good") == 1
    assert "another version of 01_good" in read_json(out / "01_good/run.json")["error"]
    assert names(out / "01_good") == ["run.json"]


def test_a_first_worker_is_waited_for(tmp_path, capsys):
    alone = Dask(tmp_path)
    try:
        with cluster.connect(str(alone.file)) as client:
            waiting = in_thread(cluster.await_workers, client, "tcp://here")
            until(lambda: "tcp://here has no workers yet" in capsys.readouterr().err)
            assert not waiting.done()
            alone.start("worker", "--scheduler-file", alone.file, "--no-nanny", "--local-directory", tmp_path)
            waiting.result(PATIENCE)
    finally:
        alone.stop()


def test_the_end_of_the_scheduler_is_an_end(dask, out):
    code = in_thread(run, dask.file, out, "03_waits", "01_good")
    until(lambda: begun(out) or code.done())
    dask.scheduler.kill()
    assert code.result(PATIENCE) == 1
    failed = read_json(out / "03_waits/run.json")
    assert failed["status"] == "failed" and "scheduler-connection-lost" in failed["error"]


@pytest.mark.parametrize("address, parts", [
    ("", ["tcp://HOST:8786"]),
    ("nonsense", ["'nonsense'", "tcp://HOST:8786"]),
    ("http://localhost:80", ["'http'", "tcp://HOST:8786"]),
    ("tcp://127.0.0.1:port", ["'port'", "tcp://HOST:8786"]),
    ("tcp://127.0.0.1:1", ["tcp://127.0.0.1:1", "no Dask scheduler answers", "dask scheduler"]),
    ("/nowhere/scheduler.json", ["/nowhere/scheduler.json", "No such file"]),
    ("tls://127.0.0.1:1", ["TLS configuration"]),
])
def test_an_address_without_scheduler_is_named(out, capsys, monkeypatch, address, parts):
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT", 1)
    assert run(address, out, "01_good") == 2
    message = capsys.readouterr().err
    assert all(part in message for part in parts) and message.count("\n") == 1, message
    assert names(out) == []


def test_a_server_that_says_nothing_is_not_waited_for(out, capsys, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert run(f"127.0.0.1:{server.getsockname()[1]}", out, "01_good") == 2
    assert "no Dask scheduler answers" in capsys.readouterr().err


def test_without_distributed_it_is_said_how_to_get_it(out, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "labutils.instructor.cluster")
    assert run("tcp://127.0.0.1:1", out, "01_good") == 2
    message = capsys.readouterr().err
    assert ".[cluster]" in message and message.count("\n") == 1


def test_files_that_cannot_be_written_are_a_failure(out):
    out.write_text("a file where a folder should be")
    job = Job("01_good", {}, out / "01_good", 60)
    outcome = cluster.receive(job, Outcome("01_good", "ok", 1, {"loss": 1}), {"run.json": b"{}"})
    assert outcome.status == "failed" and "its files came back" in outcome.error and outcome.metrics == {}


def test_run_json_is_the_last_file_and_absent_when_one_before_it_fails(tmp_path):
    (tmp_path / "run.json").write_text('{"status": "ok"}')
    (tmp_path / ".part-x.png").write_text("of one who was killed")
    (tmp_path / "z").write_text("a file where a folder should be")
    with pytest.raises(OSError):
        cluster.write_files(tmp_path, {"run.json": b"{}", "a": b"new", "z/b": b""})
    assert names(tmp_path) == ["a", "z"]
