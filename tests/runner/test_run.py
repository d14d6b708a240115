"""`labs run`: how runs end, what is kept of them, which are not repeated. The notebooks import nothing large."""

import errno
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import nbformat
import psutil
import pytest
from helpers import BIN, PARAMETERS, PATIENCE, RESULT, read_json, until, write_lab
from nbclient.exceptions import DeadKernelError

from labutils.instructor import cli, jobs, kernel, labs, record, run
from labutils.instructor.kernel import Watch
from labutils.instructor.record import Job, Outcome, earlier_runs
from labutils.instructor.run import kept_outcomes, run_job, table
from labutils.paths import PROJECT_ROOT, replacing
from labutils.results import METRICS_TYPE

BEGUN = ("import os, subprocess, time\nchild = subprocess.Popen(['sleep', '600'])\n"     # tells it by a pipe
         "with open('pipe', 'w') as file:\n    file.write(f'{os.getpid()} {child.pid}\\n')\ntime.sleep(600)")
SMALL_LABS = {
    "01_good": [RESULT],
    "02_waits": ["print('before')", BEGUN, RESULT],
    "03_waits": ["print('before')", BEGUN, RESULT],
    "04_good": ["open(out_dir + '/times.txt', 'a').write('.')", RESULT],
    "05_raises": ["print('before')", "raise RuntimeError('<b>one</b>\\ntwo')", RESULT],
    "06_dies": ["print('before')", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", RESULT],
    "07_hangs": ["print('before')", "import time; time.sleep(600)", RESULT],
    "08_large": ["block = bytearray(b'1' * (200 << 20)); del block\nfor i in range(3_000_000): pass", RESULT],
    "09_trains": ["import os, pathlib, signal\nstate = pathlib.Path(out_dir) / 'vae.state'\nbegun = state.exists()\n"
                  "state.write_text('')\nif not begun: os.kill(os.getpid(), signal.SIGKILL)",
                  RESULT.replace("value", "resume")],
    "10_silent": ["print('before')"],
}
# a test run in the background, or under nohup, ignores signals
PROGRAM = ("import os, signal, sys; from pathlib import Path; from labutils.instructor import cli, labs\n"
           "sys.executable = os.environ.get('PYTHON_OF_KERNELS', sys.executable)\n"
           "signal.signal(signal.SIGINT, signal.default_int_handler); signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
           "labs.NOTEBOOKS = Path(sys.argv[1]); sys.exit(cli.main(sys.argv[2:]))")


@pytest.fixture
def begun(notebooks):
    """Return a function that waits until a kernel has begun and returns the processes that it names."""
    os.mkfifo(notebooks / "pipe")
    pipe = os.open(notebooks / "pipe", os.O_RDWR | os.O_NONBLOCK)

    def wait(n_kernels):
        text = ""
        while text.count("\n") < n_kernels:
            assert select.select([pipe], [], [], PATIENCE)[0], "no kernel has begun"
            text += os.read(pipe, 1000).decode()
        return [psutil.Process(int(number)) for number in text.split()]
    yield wait
    os.close(pipe)


@pytest.fixture
def started(notebooks):
    """Return a function that starts `labs` as a process of its own; what is left of it is killed at the end."""
    processes = []

    def start(*arguments, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        processes.append(subprocess.Popen([BIN / "python", "-c", PROGRAM, notebooks, *map(str, arguments)], **options))
        return processes[-1]
    yield start
    for process in processes:
        process.kill()
        process.wait()


def status(out, name):
    return read_json(out / name / "run.json")["status"]


def printed_by_cells(path):
    return [output.text for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])
            if output.output_type == "stream"]


def hidden(out):
    """Return what was not written to its end."""
    return [path for path in out.rglob("*") if path.name.startswith(".")]


def all_gone(processes):
    return not psutil.wait_procs(processes, timeout=PATIENCE)[1]


# ------------------------------------------------------------------------------------------ interrupted

@pytest.mark.slow
@pytest.mark.parametrize("number, n_jobs", [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1),
                                            (signal.SIGTERM, 2), (signal.SIGHUP, 1)])
def test_a_signal_ends_kernels_and_keeps_what_was_done(begun, started, tmp_path, number, n_jobs):
    out = tmp_path / "out"
    process = started("run", "01_good", "02_waits", "03_waits", "04_good", "--jobs", n_jobs, "--out", out)
    kernels = begun(n_jobs)
    process.send_signal(number)
    printed, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "interrupted; what was done is kept" in errors, errors
    assert "Traceback" not in errors and all_gone(kernels)
    assert status(out, "01_good") == "ok" and read_json(out / "01_good/results.json")["loss"] == 1
    waiting = ["02_waits", "03_waits"][:n_jobs]
    for name in waiting:
        about = read_json(out / name / "run.json")
        assert about["status"] == "interrupted" and about["error"] == "stopped in cell 5 of 6" and about["seconds"] > 0
        assert printed_by_cells(out / name / f"{name}.ipynb") == ["before\n"] and (out / name / f"{name}.html").exists()
        assert not (out / name / "results.json").exists()
        assert 0 <= errors.find(f"{name}: started\n") < errors.find(f"{name}: interrupted")
    assert sorted(path.name for path in out.iterdir()) == ["01_good", *waiting] and hidden(out) == []
    assert printed.count("interrupted") == 3 and "not started" in printed


@pytest.mark.slow
def test_a_signal_before_the_kernel_answers_ends_it_too(begun, started, tmp_path, monkeypatch):
    kernel_that(f"echo $$ > {tmp_path / 'notebooks/pipe'}; exec sleep 600", tmp_path, monkeypatch)
    process = started("run", "01_good", "--out", tmp_path / "out")
    kernels = begun(1)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)      # impatient
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and all_gone(kernels), errors
    assert read_json(tmp_path / "out/01_good/run.json")["error"] == "stopped before its first cell"


def test_a_run_that_is_stopped_before_its_kernel_is_there_ends_with_it(notebooks, tmp_path):
    watch = Watch()
    watch.stop()
    outcome = run_job(Job("07_hangs", {}, tmp_path / "07_hangs", 60), watch)
    assert outcome.status == "interrupted" and outcome.error == "stopped before its first cell"
    assert not watch.kernel.is_running()


@pytest.mark.slow
def test_a_runner_that_is_killed_leaves_interrupted_and_no_kernel(begun, started, notebooks, tmp_path):
    out = tmp_path / "out"
    process = started("run", "04_good", "02_waits", "--out", out)
    kernel, child = begun(1)
    process.kill()
    process.wait(timeout=PATIENCE)
    assert all_gone([kernel])
    child.kill()        # Jupyter's kernels see that they are alone, and end; nobody is left to end what they started
    assert status(out, "04_good") == "ok" and status(out, "02_waits") == "interrupted"
    write_lab(notebooks, "02_waits", [RESULT])
    assert cli.main(["run", "04_good", "02_waits", "--out", str(out)]) == 0, "the sweep goes on where it stood"
    assert (out / "04_good/times.txt").read_text() == "." and status(out, "02_waits") == "ok" and hidden(out) == []


@pytest.mark.slow
def test_a_runner_that_is_killed_leaves_the_notebook_and_the_list_of_files(begun, started, notebooks, tmp_path):
    write_lab(notebooks, "02_waits", ["open(out_dir + '/a.png', 'w')\nprint('before')", BEGUN, RESULT])
    folder = tmp_path / "out/02_waits"
    process = started("run", "02_waits", "--out", folder.parent)
    _, child = begun(1)
    until(lambda: read_json(folder / "run.json")["files"])
    process.kill()
    process.wait(timeout=PATIENCE)
    child.kill()
    about = read_json(folder / "run.json")
    assert about["files"] == ["02_waits.ipynb", "a.png"] and about["status"] == "interrupted"
    assert printed_by_cells(folder / "02_waits.ipynb") == ["before\n"] and not (folder / "02_waits.html").exists()
    assert cli.main(["report", str(folder.parent)]) == 0


def test_the_notebook_is_saved_on_the_way_once_for_each_change_and_stays_whole(notebooks, tmp_path, monkeypatch):
    slow = ("import sys, time\nfrom IPython.display import display\nsys.stderr.write('\\r 1%')\nsys.stderr.flush()\n"
            "shown = display('first', display_id=True)\n"
            "for n in range(5):\n    time.sleep(0.2)\n    shown.update(n)\ntime.sleep(1)")
    write_lab(notebooks, "01_good", [slow, RESULT])
    saved = []

    def write_text(path, text):
        if path.suffix == ".ipynb":
            saved.append([output.get("name") or output.data["text/plain"]
                          for cell in nbformat.reads(text, as_version=4).cells for output in cell.get("outputs", [])])
        record.write_text(path, text)
    monkeypatch.setattr(run, "write_text", write_text)
    monkeypatch.setattr(kernel, "SAVE_EVERY", 0.05)
    assert run_job(Job("01_good", {}, tmp_path / "out", 60)).status == "ok"
    assert ["0"] in saved and ["3"] in saved and saved[-1] == ["4", ""] and len(saved) < 20
    assert not any("stderr" in outputs for outputs in saved), "without the progress bar"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("whatever")])
def test_a_fault_while_saving_on_the_way_is_none_of_the_run(notebooks, tmp_path, monkeypatch, error):
    write_lab(notebooks, "01_good", ["import time; time.sleep(1)", RESULT])
    tried = []

    def autosave(runner):
        tried.append(runner.job.name)
        raise error
    monkeypatch.setattr(run.Runner, "autosave", autosave)
    monkeypatch.setattr(kernel, "SAVE_EVERY", 0.1)
    for name in ("a", "b"):
        assert run_job(Job("01_good", {}, tmp_path / name, 60)).status == "ok"
    assert len(tried) > 4 and tried == sorted(tried), "with its end a run is saved no more"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_sweep_starts_up_is_an_interruption_too(notebooks, tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr(cli, "execute_jobs", lambda *_: os.kill(os.getpid(), number) or time.sleep(PATIENCE))
    before = signal.signal(number, lambda *_: pytest.fail("the signal has met nobody"))
    try:
        assert cli.main(["run", "01_good", "--out", str(tmp_path / "out")]) == 130
    finally:
        signal.signal(number, before)
    assert capsys.readouterr().err == "interrupted; what was done is kept\n" and hidden(tmp_path / "out") == []


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["stdout", "stderr"])
def test_a_closed_terminal_is_an_interruption_whatever_is_written_to_it(begun, started, tmp_path, lost):
    screen, terminal = pty.openpty()
    files = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, lost: terminal}
    process = started("run", "02_waits", "03_waits", "--out", tmp_path / "out", **files, stdin=terminal,
                      start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    begun(1)
    os.close(terminal)
    os.close(screen)
    assert process.wait(timeout=PATIENCE) == 130 and status(tmp_path / "out", "02_waits") == "interrupted"


def test_signals_keep_their_meaning_before_and_after(monkeypatch):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    hung_up = signal.signal(signal.SIGHUP, signal.SIG_IGN)      # as under nohup
    try:
        before = [signal.getsignal(number) for number in numbers]
        with jobs.stopping([]):
            assert signal.getsignal(signal.SIGTERM) != before[1] and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert [signal.getsignal(number) for number in numbers] == before
    finally:
        signal.signal(signal.SIGHUP, hung_up)


def test_an_error_while_following_ends_the_runs(begun, started, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    process = started("run", "01_good", "02_waits", "--jobs", "2", "--out", tmp_path / "out", stderr=writer)
    os.close(writer)
    assert process.wait(timeout=PATIENCE) == 1 and status(tmp_path / "out", "02_waits") == "interrupted"


def test_lines_that_nobody_reads_are_dropped(started):
    reader, writer = os.pipe()
    os.close(reader)
    process = started("list", "01_good", stdout=writer)
    os.close(writer)
    assert process.communicate(timeout=PATIENCE)[1] == "" and process.returncode == 1


def test_a_labs_own_error_is_not_hidden_by_a_signal_that_comes_later(notebooks, tmp_path, monkeypatch):
    watch, save_outputs = Watch(), run.Runner.save_outputs
    monkeypatch.setattr(run.Runner, "save_outputs", lambda *arguments: watch.stop() or save_outputs(*arguments))
    outcome = run_job(Job("05_raises", {}, tmp_path / "05_raises", 60), watch)
    assert (outcome.status, outcome.error) == ("failed", "RuntimeError: <b>one</b> (cell 4)")


# ------------------------------------------------------------------------------------------ two at once

@pytest.mark.slow
def test_two_runs_never_share_a_folder_and_a_killed_one_leaves_it_free(begun, started, notebooks, tmp_path, capsys):
    out = tmp_path / "out"
    first = started("run", "02_waits", "--out", out)
    begun(1)
    assert cli.main(["run", "01_good", "--out", str(out / ".." / "out")]) == 2
    message = capsys.readouterr().err
    assert f"another 'labs run' is at work in {out};" in message and "--out" in message and message.count("\n") == 1
    assert not (out / "01_good").exists() and cli.main(["report", str(out)]) == 0
    assert cli.main(["run", "01_good", "--out", str(tmp_path / "other")]) == 0
    first.kill()
    first.wait(timeout=PATIENCE)
    assert cli.main(["run", "01_good", "--out", str(out)]) == 0
    assert hidden(out) == [] == hidden(tmp_path / "other")


def test_a_folder_in_which_nothing_can_be_written_is_refused(notebooks, tmp_path, capsys):
    (tmp_path / "out/.run.lock").mkdir(parents=True)
    assert cli.main(["run", "01_good", "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert f"--out {tmp_path / 'out'}: nothing can be written there" in message and message.count("\n") == 1


# ---------------------------------------------------------------------------------------------- failed

@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_each_failure_is_told_and_stops_nobody_else(notebooks, tmp_path, capsys, n_jobs):
    out = tmp_path / "out"
    (notebooks / "03_waits.ipynb").write_text("{not json")
    reasons = {"05_raises": "RuntimeError: <b>one</b> (cell 4)", "10_silent": "show_results was not called in it",
               "06_dies": "killed in cell 5 of 6 by SIGKILL, while it held 0.",
               "07_hangs": "stopped in cell 5 of 6, which took longer than 20 s; --timeout SECONDS allows more",
               "03_waits": "03_waits.ipynb is not a notebook; restore it with git checkout"}
    names = ["05_raises", "06_dies", "01_good", "03_waits", "10_silent", "07_hangs", "04_good"]
    assert cli.main(["run", *names, "--out", str(out), "--jobs", str(n_jobs), "--timeout", "20"]) == 1
    for name, reason in reasons.items():
        about = read_json(out / name / "run.json")
        assert about["status"] == "failed" and reason in about["error"] and "\n" not in about["error"]
        assert not (out / name / "results.json").exists()
        if name != "03_waits":
            assert printed_by_cells(out / name / f"{name}.ipynb") == ["before\n"]
            assert "<b>one</b>" not in (out / name / f"{name}.html").read_text(), "the HTML of an error is escaped"
    assert status(out, "01_good") == status(out, "04_good") == "ok" and hidden(out) == []
    printed = capsys.readouterr()
    rows = [line.split()[:2] for line in printed.out.splitlines()[2:9]]
    assert rows == [[name, "failed" if name in reasons else "ok"] for name in names], "in the order that was asked for"
    lines = printed.err.splitlines()        # where there is no terminal
    assert len([line for line in lines if not line.endswith(": started")]) == 7 and "07_hangs: started" in lines
    assert len(lines) == len(set(lines))


def kernel_that(command, folder, monkeypatch):
    """Replace the Python of the kernels by a shell command."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{command}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("PYTHON_OF_KERNELS", str(program))


@pytest.mark.parametrize("command, reason", [("echo $$ > {}; exec sleep 600", "Kernel didn't respond in 2 seconds"),
                                             ("echo $$ > {}; exit 3", "Kernel died before replying"),
                                             ("echo $$ > {}; nothing-of-this-name", "Kernel died before replying")])
def test_a_kernel_that_never_starts_is_a_failure_and_is_gone(begun, notebooks, tmp_path, monkeypatch, command, reason):
    kernel_that(command.format(notebooks / "pipe"), tmp_path, monkeypatch)
    monkeypatch.setattr(kernel, "START_TIMEOUT", 2)
    assert cli.main(["run", "01_good", "--out", str(tmp_path / "out")]) == 1
    about = read_json(tmp_path / "out/01_good/run.json")
    assert about["status"] == "failed" and reason in about["error"] and hidden(tmp_path / "out") == []
    assert "(before its first cell); 'labs doctor' examines" in about["error"]
    assert not psutil.pid_exists(int(os.read(os.open(notebooks / "pipe", os.O_RDONLY | os.O_NONBLOCK), 100)))


def test_a_command_that_is_not_there_is_a_failure(notebooks, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert cli.main(["run", "01_good", "--out", str(tmp_path / "out")]) == 1
    assert "/nowhere/python" in read_json(tmp_path / "out/01_good/run.json")["error"]


@pytest.mark.parametrize("found", ["[1, 2]", "{'loss': 5}"])
def test_other_json_than_metrics_brings_nobody_down(notebooks, tmp_path, found):
    other = f"from IPython.display import display\ndisplay({{'application/json': {found}}}, raw=True)"
    write_lab(notebooks, "01_good", [other])
    write_lab(notebooks, "04_good", [RESULT, other])
    assert cli.main(["run", "01_good", "04_good", "--out", str(tmp_path)]) == 1
    assert "show_results was not called" in read_json(tmp_path / "01_good/run.json")["error"]
    assert read_json(tmp_path / "04_good/results.json")["loss"] == 1, "the metrics come from the cell above"


@pytest.mark.parametrize("name", ["01_good.ipynb", "01_good.html", "results.json", "run.json"])
def test_a_full_disk_is_a_failure_of_the_run_that_met_it(notebooks, tmp_path, monkeypatch, capsys, name):
    out, folder = tmp_path / "out", tmp_path / "out/01_good"

    @contextmanager
    def replacing_on_a_full_disk(path):
        at_the_end = (folder / "results.json").exists()
        full = path == folder / name and (at_the_end or name != "run.json")
        with replacing(path) as part:
            yield part
            if full:
                raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(record, "replacing", replacing_on_a_full_disk)
    assert cli.main(["run", "01_good", "04_good", "--out", str(out)]) == 1
    assert "01_good: failed" in (printed := capsys.readouterr().err) and "No space left on device" in printed
    assert hidden(out) == [] and status(out, "04_good") == "ok"
    if name == "run.json":
        assert status(out, "01_good") == "interrupted", "as it stood on the way"
    else:
        assert status(out, "01_good") == "failed" and not (folder / name).exists()


def test_a_labs_own_error_is_not_hidden_by_a_full_disk(notebooks, tmp_path, monkeypatch):
    def save_outputs(*_):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(run.Runner, "save_outputs", save_outputs)
    assert run_job(Job("05_raises", {}, tmp_path / "out")).error == "RuntimeError: <b>one</b> (cell 4)"


# ------------------------------------------------------------------------------------------------ kept

def test_what_has_gone_well_is_not_repeated_but_by_force(notebooks, tmp_path, capsys):
    arguments = ["run", "04_good", "--out", str(tmp_path)]
    assert cli.main(arguments) == 0 and "kept" not in capsys.readouterr().err
    before = read_json(tmp_path / "04_good/run.json") | {"seconds": 999}        # no run takes as long
    (tmp_path / "04_good/run.json").write_text(json.dumps(before))
    assert cli.main(arguments) == 0 and read_json(tmp_path / "04_good/run.json") == before
    printed = capsys.readouterr()
    assert "04_good: ok" in printed.err and "kept from an earlier run" in printed.err
    assert "ok (kept)" in printed.out and "loss 1" in printed.out
    assert (tmp_path / "04_good/times.txt").read_text() == "."
    assert cli.main([*arguments, "--force"]) == 0
    assert (tmp_path / "04_good/times.txt").read_text() == ".", "what the run before has left is gone"
    assert read_json(tmp_path / "04_good/run.json")["seconds"] < 999 and "kept" not in capsys.readouterr().err


def kept(job):
    """Return the outcome that a job keeps of an earlier run, or None."""
    return kept_outcomes([job], earlier_runs([job])).get(job.folder)


def test_a_lab_is_run_again_when_one_changes_from_which_it_takes_definitions(notebooks, tmp_path):
    write_lab(notebooks, "01_good", ["from labutils import from_lab\nX = from_lab('04_good', 'X')", RESULT])
    before = record.fingerprint(job := Job("01_good", {}, tmp_path))
    assert record.fingerprint(job) == before
    write_lab(notebooks, "04_good", ["X = 2", RESULT])
    assert record.fingerprint(job) != before


def test_a_run_is_kept_only_if_it_is_whole_and_nothing_has_changed(notebooks, tmp_path):
    job = Job("01_good", {"value": 2}, tmp_path / "01_good", 9)
    assert kept(job) is None
    good = {"status": "ok", "seconds": 3, "fingerprint": record.fingerprint(job)}

    def kept_after(job=job, metrics='{"loss": 2}', **values):
        job.folder.mkdir(exist_ok=True)
        (job.folder / "run.json").write_text(json.dumps({**good, **values}))
        (job.folder / "results.json").write_text(metrics)
        return kept(job)
    assert kept_after() == Outcome("01_good", "ok", 3, {"loss": 2}, "", "01_good", run.KEPT)
    assert kept_after(job._replace(force=True)) is None
    assert kept_after(job._replace(parameters={"value": 3})) is None and kept_after(job._replace(lab="04_good")) is None
    assert kept_after(status="failed") is kept_after(status="interrupted") is kept_after(fingerprint=None) is None
    assert kept_after(seconds=None) is kept_after(metrics="[1]") is kept_after(metrics="") is None
    for text in ("", "{", "[]", "null", "{}", "\xff"):
        kept_after()
        (job.folder / "run.json").write_text(text, encoding="latin-1")
        assert kept(job) is None, text
    kept_after()
    (job.folder / "results.json").unlink()
    assert kept(job) is None
    (notebooks / "01_good.ipynb").write_text("{")
    assert kept_after() is None


def test_a_sweep_that_grows_repeats_nothing_though_its_folders_are_called_otherwise(notebooks, tmp_path, capsys):
    arguments = ["run", "04_good", "--out", str(tmp_path)]
    assert cli.main(arguments) == 0
    assert cli.main([*arguments, "-p", "value", "1,2"]) == 0
    assert cli.main([*arguments, "-p", "value", "2,1", "-p", "seed", "0,1"]) == 0
    assert capsys.readouterr().err.count("kept from an earlier run") == 3
    assert sorted(path.name for path in tmp_path.glob("04_good*")) == [
        "04_good", "04_good,value=1,seed=1", "04_good,value=2", "04_good,value=2,seed=1"]


def test_what_the_sweep_itself_writes_over_is_not_kept_for_another_run(notebooks, tmp_path):
    assert cli.main(["run", "01_good", "-p", "value", "5", "--out", str(tmp_path / "out")]) == 0
    (tmp_path / "runs.yml").write_text("[{lab: 01_good, value: 5}, {lab: 01_good}]")
    assert cli.main(["run", "-f", str(tmp_path / "runs.yml"), "--out", str(tmp_path / "out")]) == 0
    assert [read_json(path)["loss"] for path in sorted(tmp_path.glob("out/*/results.json"))] == [1, 5]


def test_what_failed_is_run_again_and_an_old_result_goes(notebooks, tmp_path):
    arguments, path = ["run", "05_raises", "--out", str(tmp_path)], tmp_path / "05_raises/run.json"
    assert cli.main(arguments) == 1
    before = path.stat().st_mtime_ns
    (tmp_path / "05_raises/results.json").write_text("{}")
    assert cli.main(arguments) == 1 and path.stat().st_mtime_ns > before
    assert not (tmp_path / "05_raises/results.json").exists()


def test_the_fingerprint_changes_with_what_decides_the_metrics_and_nothing_else(notebooks, tmp_path, monkeypatch):
    def fingerprint(name="01_good", **parameters):
        return record.fingerprint(Job(name, parameters, tmp_path))

    def changes(path, text):
        before = fingerprint()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return fingerprint() != before
    assert fingerprint() == fingerprint(value=1) == fingerprint(resume=True) != fingerprint(value=2)
    assert fingerprint() != fingerprint("04_good")
    before, path = fingerprint(), notebooks / "01_good.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("words"))
    notebook.cells[-2].outputs = [nbformat.v4.new_output("stream", text="an output")]
    nbformat.write(notebook, path)
    assert fingerprint() == before, "words and outputs decide nothing"
    notebook.cells[-2].source += "  # changed"
    nbformat.write(notebook, path)
    assert fingerprint() != before
    package = tmp_path / "labutils"
    monkeypatch.setattr(record, "LABUTILS", package)
    monkeypatch.setattr(record, "CARD", tmp_path / "card.json")
    for name in ("a.py", "data/b.py"):
        assert changes(package / name, "x = 1") and changes(package / name, "x = 2")
    assert changes(tmp_path / "card.json", "{}")
    for name in ("checks/__init__.py", "instructor/run.py", "plots.py"):
        assert not changes(package / name, "x = 1"), f"no metric depends on {name}"


# -------------------------------------------------------------------------------------- sweep and record

def test_a_sweep_gives_each_run_its_folder_and_record(notebooks, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["run", "01_good", "-p", "value", "2,20", "-p", "seed", "3", "--jobs", "2", "--out", str(out)]) == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["01_good,value=2", "01_good,value=20", "index.html", "results.csv"]
    assert read_json(out / "01_good,value=20/results.json")["loss"] == 20
    about = read_json(out / "01_good,value=2/run.json")
    assert about["parameters"] == {"value": 2, "seed": 3} and about["lab"] == "01_good"
    assert "01_good,value=20  ok" in capsys.readouterr().out


def test_the_record_says_what_the_kernel_took_and_what_it_ran_on(notebooks, tmp_path):
    assert cli.main(["run", "08_large", "--out", str(tmp_path)]) == 0
    about = read_json(tmp_path / "08_large/run.json")
    assert list(about) == ["lab", "status", "error", "parameters", "started", "seconds", "cpu_seconds", "peak_memory",
                           "device", "python", "versions", "revision", "modified", "files", "fingerprint", "resumed"]
    assert about["resumed"] is False and datetime.fromisoformat(about["started"]).utcoffset().total_seconds() == 0
    assert 200 << 20 < about["peak_memory"] < 2 << 30, "of the kernel, also of what it has given back"
    assert 0.05 < about["cpu_seconds"] and about["device"] == "cpu" and len(about["fingerprint"]) == 64
    assert {"torch", "labutils"} < set(about["versions"]) and about["error"] == ""


def test_the_revision_is_the_projects_own(tmp_path, monkeypatch):
    def circumstances(root):
        monkeypatch.setattr(record, "PROJECT_ROOT", root)
        record.circumstances.cache_clear()
        return [record.circumstances()[key] for key in ("revision", "modified")]

    def git(*arguments):
        return subprocess.run(["git", "-C", tmp_path, "-c", "user.name=A", "-c", "user.email=a@b.c", *arguments],
                              check=True, capture_output=True, text=True).stdout.strip()
    assert circumstances(tmp_path) == [None, False]
    git("init", "-q")
    assert circumstances(tmp_path) == [None, False], "nothing committed"
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    assert circumstances(tmp_path) == [git("rev-parse", "HEAD"), False]
    (tmp_path / "file").write_text("2")
    assert circumstances(tmp_path) == [git("rev-parse", "HEAD"), True]
    (tmp_path / "course").mkdir()
    assert circumstances(tmp_path / "course") == [None, False], "a copy in a repository of somebody's own"
    monkeypatch.setenv("PATH", "")
    assert circumstances(tmp_path) == [None, False], "no git here"
    record.circumstances.cache_clear()


def test_jobs_share_the_cores(notebooks, tmp_path, monkeypatch):
    write_lab(notebooks, "01_good", ["import os\nvalue = int(os.environ.get('OMP_NUM_THREADS', 0))", RESULT])
    monkeypatch.setattr(jobs, "cores", lambda: 6)
    for n_cores, n_jobs, seeds, expected in ((6, 1, "0", 0), (64, 8, "0", 6), (64, 8, "0,1", 3)):
        monkeypatch.setattr(os, "cpu_count", lambda: n_cores)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        arguments = ["run", "01_good", "-p", "seed", seeds, "--jobs", str(n_jobs), "--out", str(tmp_path), "--force"]
        assert cli.main(arguments) == 0
        assert read_json(tmp_path / f"01_good{',seed=1' if ',' in seeds else ''}/results.json")["loss"] == expected


@pytest.mark.parametrize("n_cores, n_kernels, set_by_user, expected", [
    (2, 2, None, "1"), (2, 3, None, "1"), (7, 2, None, "3"), (64, 2, None, "32"), (64, 2, "5", "5"),
    (64, 1, None, None), (2, 1, None, "2"), (2, 1, "64", "64")])
def test_a_kernel_gets_its_share_of_what_the_command_may_use(monkeypatch, n_cores, n_kernels, set_by_user, expected):
    monkeypatch.setattr(jobs, "cores", lambda: n_cores)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setenv("OMP_NUM_THREADS", set_by_user or "")
    if set_by_user is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    jobs.share_cores(n_kernels)
    assert os.environ.get("OMP_NUM_THREADS") == expected


def test_each_kernel_works_in_the_folder_of_the_notebooks(notebooks, tmp_path):
    here = os.getcwd()
    for name in ("01_good", "04_good"):
        write_lab(notebooks, name, ["import os\nopen(out_dir + '/here.txt', 'w').write(os.getcwd())", RESULT])
    assert cli.main(["run", "01_good", "04_good", "--jobs", "2", "--out", str(tmp_path / "out")]) == 0
    assert {(tmp_path / "out" / name / "here.txt").read_text() for name in ("01_good", "04_good")} == {str(notebooks)}
    assert os.getcwd() == here


LOOK = ("import json, os, pathlib, sys\nimport labutils\nfrom ipykernel.connect import get_connection_info\n"
        "about = get_connection_info(unpack=True)\n"
        "found = {'transport': about['transport'], 'ip': about['ip'], 'python': sys.executable, "
        "'labutils': labutils.__file__}\npathlib.Path(out_dir, 'kernel.json').write_text(json.dumps(found))")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
@pytest.mark.parametrize("folder, transport", [("short", "ipc"), ("x" * 90, "tcp")])
def test_a_kernel_listens_on_files_where_their_path_is_not_too_long(notebooks, tmp_path, monkeypatch, folder,
                                                                     transport):
    """A free port may be taken by another process. It is our kernel, whatever python3 a user has installed."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        temporary, spec = Path(short) / folder, tmp_path / "jupyter/kernels/python3/kernel.json"
        temporary.mkdir()
        spec.parent.mkdir(parents=True)
        spec.write_text(json.dumps({"argv": ["false"], "display_name": "Python 3", "language": "python"}))
        for name, value in {"JUPYTER_PATH": tmp_path / "jupyter", "PYTHONPATH": "."}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        write_lab(notebooks, "01_good", [LOOK, RESULT])
        (notebooks / "labutils").mkdir()        # where the kernel starts; a relative path must not lead there
        (notebooks / "labutils/__init__.py").write_text("")
        path = notebooks / "01_good.ipynb"
        path.write_text(path.read_text().replace('"name": "python3"', '"name": "of-the-author"'))
        assert cli.main(["run", "01_good", "--out", str(tmp_path / "out")]) == 0
        about = read_json(tmp_path / "out/01_good/kernel.json")
        assert about["transport"] == transport and (transport == "tcp" or about["ip"].startswith(str(temporary)))
        assert about["python"] == sys.executable and Path(about["labutils"]).parents[1] == PROJECT_ROOT
        assert list(temporary.iterdir()) == [], "the files of its sockets are gone"


def test_sockets_of_killed_runners_go_and_nothing_else(tmp_path, monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        sockets = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for open_one, name in zip(sockets, ("labs-dead-1", "labs-alive-1", "labs-new-1", "other-1")):
            open_one.bind(f"{folder}/{name}")
            if name != "labs-new-1":
                os.utime(f"{folder}/{name}", (0, 0))
        sockets[1].listen()
        for name in ("labs-file-1", "labs-file"):
            Path(folder, name).write_text("")
            os.utime(f"{folder}/{name}", (0, 0))
        for number in (0, 2, 3):
            sockets[number].close()
        kernel.remove_dead_sockets()
        assert sorted(os.listdir(folder)) == ["labs-alive-1", "labs-file", "labs-file-1", "labs-new-1", "other-1"]
        sockets[1].close()


@pytest.mark.parametrize("exit_code, peak, kills, parts", [
    (-9, 7.9e9, 0, ["killed in cell 2 of 3, probably for want of memory: it held 7.9 of 8.0 GB; a smaller batch_size"]),
    (-9, 0.4e9, 1, ["killed in cell 2 of 3, probably for want of memory: it held 0.4 of 8.0 GB"]),
    (-9, 0.4e9, 0, ["killed in cell 2 of 3 by SIGKILL, while it held 0.4 of 8.0 GB of memory; run it again"]),
    (-11, 7.9e9, 0, ["killed in cell 2 of 3 by SIGSEGV, while it held 7.9 of 8.0 GB", "'labs doctor'"]),
    (-63, 1e9, 0, ["killed in cell 2 of 3 by a signal, while it held 1.0 of 8.0 GB"]),
    (3, 7.9e9, 1, ["the kernel ended in cell 2 of 3 with exit code 3; 'labs doctor'"]),
    (None, 0, 0, ["the kernel ended in cell 2 of 3; 'labs doctor'"])])
def test_a_death_is_told_with_its_place_and_cause(monkeypatch, exit_code, peak, kills, parts):
    watch = Watch()
    watch.notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("") for _ in range(3)])
    watch.cell, watch.exit_code, watch.peak_memory = 2, exit_code, peak
    monkeypatch.setattr(kernel, "memory_limit", lambda machine: 8e9)
    monkeypatch.setattr(kernel, "out_of_memory_kills", lambda: kills)
    line = kernel.describe(DeadKernelError("Kernel died"), watch)
    assert all(part in line for part in parts) and "\n" not in line


@pytest.mark.slow
def test_a_kernel_that_had_all_the_memory_is_told_alike_everywhere(notebooks, tmp_path, monkeypatch, capsys):
    """Measured while its cell goes on, since the dead cannot be asked."""
    monkeypatch.setattr(kernel, "memory_limit", lambda machine: 250e6)
    write_lab(notebooks, "06_dies", ["import os, signal, time\nblock = b'1' * (200 << 20)\ntime.sleep(2)\n"
                                     "os.kill(os.getpid(), signal.SIGKILL)", RESULT])
    out = tmp_path / "out"
    assert cli.main(["run", "06_dies", "01_good", "--out", str(out)]) == 1
    line = read_json(out / "06_dies/run.json")["error"]
    assert re.fullmatch("killed in cell 4 of 5, probably for want of memory: it held 0.[3-6] of 0.2 GB; "
                        "a smaller batch_size or limit needs less", line)
    printed = capsys.readouterr()
    assert line in printed.out and line in printed.err and line in (out / "results.csv").read_text("utf-8")
    assert line in (out / "index.html").read_text(encoding="utf-8")


def test_each_run_has_a_folder_for_tensorboard_and_a_kept_one_says_that_it_writes_nothing(notebooks, tmp_path, capsys):
    """In one folder, two runs would be one curve."""
    write_lab(notebooks, "01_good", ["open(out_dir + '/told.txt', 'w').write(str(tensorboard_dir))", RESULT],
              PARAMETERS + "\ntensorboard_dir: str = None  # events")
    arguments = ["run", "01_good", "-p", "seed", "0,1", "--out", str(tmp_path)]

    def told():
        return [(tmp_path / f"01_good,seed={seed}/told.txt").read_text() for seed in (0, 1)]
    assert cli.main(arguments) == 0 and told() == ["None", "None"]
    assert "TensorBoard" not in capsys.readouterr().err
    arguments += ["-p", "tensorboard_dir", "events"]
    assert cli.main(arguments) == 0 and told() == ["None", "None"]
    assert capsys.readouterr().err.count("(kept from an earlier run; --force runs it again, for TensorBoard)") == 2
    assert cli.main([*arguments, "--force"]) == 0
    assert told() == ["events/01_good,seed=0", "events/01_good,seed=1"]


def test_the_table_says_what_failed():
    good, bad = Outcome("01_one", "ok", 12.3, {"loss": 105.9, "epochs": 9}), Outcome("02_two", "failed", 1, {}, "why")
    assert table([good, bad]).splitlines() == [
        "lab     status  seconds  metrics", "01_one  ok      12       loss 105.9", "02_two  failed  1        why"]


# -------------------------------------------------------------------------------------------- progress

def test_on_a_terminal_a_line_of_each_run_is_redrawn(begun, started, tmp_path):
    screen, stderr = pty.openpty()
    termios.tcsetwinsize(stderr, (24, 80))
    process = started("run", "02_waits", "03_waits", "--jobs", "2", "--out", tmp_path / "out", stderr=stderr)
    begun(2)
    text, deadline = "", time.monotonic() + PATIENCE
    while not ("02_waits: cell 5 of 6, 00:" in text and "03_waits: cell 5 of 6, 00:" in text):
        assert select.select([screen], [], [], PATIENCE)[0] and time.monotonic() < deadline, text
        text += os.read(screen, 10_000).decode()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == 130
    assert "\r" in text
    os.close(stderr)
    os.close(screen)


def test_the_rest_is_estimated_from_earlier_runs_of_the_same_kind(tmp_path, monkeypatch):
    def earlier(name, **values):
        (tmp_path / name).mkdir()
        about = {"lab": "01_one", "status": "ok", "seconds": 100, "parameters": {"epochs": 3, "seed": 0}}
        (tmp_path / name / "run.json").write_text(json.dumps({**about, **values}))
        (tmp_path / name / "results.json").write_text("{}")
    earlier("a")
    earlier("b", seconds=160, parameters={"seed": 7, "epochs": 3})
    earlier("c", seconds=1, status="failed")
    earlier("d", seconds=9000, parameters={"epochs": 30})
    earlier("e", lab=["damaged"])
    earlier("f", seconds=None)
    watch = Watch()
    watch.started, watch.cell = 1000.0, 3
    watch.notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("") for _ in range(8)])
    monkeypatch.setattr(jobs.time, "perf_counter", lambda: 1010.0)

    def line(**parameters):
        job = Job("01_one", parameters, tmp_path / "01_one", 9)
        return jobs.progress(job, watch, jobs.seconds_taken(earlier_runs([job])))
    assert line(epochs=3, seed=1) == "01_one: cell 3 of 8, 00:10, about 02:00 left"
    assert line(epochs=30) == "01_one: cell 3 of 8, 00:10, about 2:29:50 left"
    assert line(epochs=4) == "01_one: cell 3 of 8, 00:10"
    monkeypatch.setattr(jobs.time, "perf_counter", lambda: 1200.0)
    assert line(epochs=3) == "01_one: cell 3 of 8, 03:20", "longer than before: the rest is unknown"


def test_of_runs_side_by_side_the_longest_begin_first(notebooks, tmp_path, monkeypatch):
    def store(lab, metrics):
        notebook = nbformat.read(notebooks / f"{lab}.ipynb", as_version=4)
        notebook.cells[-1].outputs = [nbformat.v4.new_output("display_data", {METRICS_TYPE: metrics})]
        nbformat.write(notebook, notebooks / f"{lab}.ipynb")
    store("04_good", {"seconds": 50})
    store("05_raises", {"seconds": None})
    store("06_dies", {"seconds": 9000})
    (notebooks / "07_hangs.ipynb").write_text("damaged")
    (tmp_path / "earlier").mkdir()
    about = {"lab": "06_dies", "status": "ok", "seconds": 3, "parameters": {"value": 1}}
    (tmp_path / "earlier/run.json").write_text(json.dumps(about))
    names = ["05_raises", "07_hangs", "06_dies", "04_good", "01_good"]
    work = [Job(name, {"value": 1}, tmp_path / name, 9) for name in names]
    known = jobs.seconds_taken(earlier_runs(work))
    order = [names[i] for i in jobs.longest_first(work, known)]
    assert order == ["04_good", "06_dies", "05_raises", "07_hangs", "01_good"]

    begun, together = [], threading.Barrier(2, timeout=PATIENCE)

    def run_two(job, *_):
        begun.append(job.lab)
        if len(begun) <= 2:
            together.wait()
        return Outcome(job.lab, "ok", 1, {})
    monkeypatch.setattr(jobs, "run_or_keep", run_two)
    assert [outcome.lab for outcome in jobs.run_jobs(work, 2)] == names and set(begun[:2]) == {"04_good", "06_dies"}
    begun.clear()
    monkeypatch.setattr(jobs, "run_or_keep", lambda job, *_: begun.append(job.lab) or Outcome(job.lab, "ok", 1, {}))
    jobs.run_jobs(work)
    assert begun == names, "one after the other, they come as they were named"


def test_a_run_that_was_killed_in_its_training_is_resumed(notebooks, tmp_path):
    job = Job("09_trains", {"value": 2}, tmp_path / "out", 60)
    assert run_job(job).status == "failed" and (job.folder / "vae.state").exists()
    assert run_job(job).metrics["loss"] is True
    about = read_json(job.folder / "run.json")
    assert about["resumed"] is True and about["parameters"] == {"value": 2}
    assert not (job.folder / "vae.state").exists(), "it is of no more use, and large"
    assert kept(job).metrics["loss"] is True


def test_other_parameters_other_code_and_force_start_a_training_again(notebooks, tmp_path):
    job = Job("09_trains", {"value": 2}, tmp_path / "out", 60)
    assert run_job(job).status == "failed"
    other = job._replace(parameters={"value": 3})
    assert run_job(other).status == "failed"            # the state is gone: killed once more
    [outcome] = jobs.run_jobs([other._replace(force=True)])
    assert outcome.status == "failed" and read_json(job.folder / "run.json")["resumed"] is False
    assert run_job(other).metrics["loss"] is True


def test_a_state_that_cannot_be_removed_is_a_fault_of_its_run_alone(notebooks, tmp_path):
    (tmp_path / "01_good/x.state").mkdir(parents=True)
    assert cli.main(["run", "01_good", "04_good", "--force", "--out", str(tmp_path)]) == 1
    assert "x.state" in read_json(tmp_path / "01_good/run.json")["error"] and status(tmp_path, "04_good") == "ok"


def test_what_a_killed_kernel_has_left_half_written_goes_and_resumes_nothing(notebooks, tmp_path):
    halves = ("import os, signal\nfrom labutils.paths import replacing\nos.makedirs(out_dir + '/deep', exist_ok=True)\n"
              "for name in ('a.png', 'deep/a.png', 'vae.state'):\n    replacing(f'{out_dir}/{name}').__enter__()\n")
    write_lab(notebooks, "09_trains", [halves + "os.kill(os.getpid(), signal.SIGKILL)"])
    job = Job("09_trains", {}, tmp_path / "out/09_trains", 60)
    assert run_job(job).status == "failed" and hidden(tmp_path / "out") == []
    with replacing(job.folder / "vae.state") as half:       # by a runner that was killed as well
        assert run_job(job).status == "failed" and not half.exists()
        assert not read_json(job.folder / "run.json")["resumed"]
        half.touch()


def test_a_project_may_lie_in_a_folder_with_braces(notebooks, tmp_path, monkeypatch):
    (tmp_path / "a {b} {{c").mkdir()
    write_lab(tmp_path / "a {b} {{c", "01_good", [RESULT])
    monkeypatch.setattr(labs, "NOTEBOOKS", tmp_path / "a {b} {{c")
    assert cli.main(["run", "01_good", "--out", str(tmp_path / "out {d}")]) == 0 == cli.main(["refresh", "01_good"])


# ----------------------------------------------------------------------------------- files of earlier runs

def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_an_earlier_run_has_left_goes_and_what_was_put_there_stays(notebooks, tmp_path):
    write_lab(notebooks, "01_good", ["import pathlib\nfor name in (f'{value}.png', f'deep/{value}.png', 'mine.txt'):\n"
                                 "    path = pathlib.Path(out_dir, name)\n    path.parent.mkdir(exist_ok=True)\n"
                                 "    path.write_text(name)", "if value == 2: raise ValueError('late')", RESULT])
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("by hand")
    (folder / "mine.txt").write_text("by hand, and written over")

    def after(value):
        run_job(Job("01_good", {"value": value}, folder, 60))
        return read_json(folder / "run.json")["files"], files(folder)
    made = ["01_good.html", "01_good.ipynb", "1.png", "deep/1.png", "mine.txt", "results.json"]
    assert after(1) == (made, sorted([*made, "notes.txt", "run.json"]))
    made = ["01_good.html", "01_good.ipynb", "2.png", "deep/2.png", "mine.txt"]
    assert after(2) == (made, sorted([*made, "notes.txt", "run.json"])), "also a run that failed has its list"
    (notebooks / "01_good.ipynb").write_text("{")
    assert after(2) == (made, sorted([*made, "notes.txt", "run.json"])), "it could not begin, and lists what is there"


def test_a_resumed_run_keeps_the_files_of_the_one_that_was_stopped(notebooks, tmp_path):
    draws = "import pathlib\npathlib.Path(out_dir, f'{resume}.png').write_text('')"
    write_lab(notebooks, "09_trains", [draws, *SMALL_LABS["09_trains"]])
    job = Job("09_trains", {}, tmp_path / "out", 60)
    assert run_job(job).status == "failed"
    made = ["09_trains.html", "09_trains.ipynb", "False.png"]
    assert read_json(job.folder / "run.json")["files"] == made, "a state is not a result"
    assert run_job(job).status == "ok"
    assert read_json(job.folder / "run.json")["files"] == [*made, "True.png", "results.json"]


@pytest.mark.parametrize("named", [["../x", "{outside}/x", "link.png", "links/x", "deep", ".", "", 7, None, ["x"], {},
                                    ".hidden", "deep/../../x", "run.json"], {"x": 1}, "../x", None, 7])
def test_a_list_that_somebody_has_edited_leads_nowhere_else(notebooks, tmp_path, named):
    folder, outside = tmp_path / "out/01_good", tmp_path / "outside"
    for path in (outside / "x", tmp_path / "out/x", folder / "deep/kept", folder / ".hidden", folder / "gone"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (folder / "links").symlink_to(outside)
    (folder / "link.png").symlink_to(outside / "x")
    if isinstance(named, list):
        named = [f"{outside}/x" if name == "{outside}/x" else name for name in named] + ["gone"]
    (folder / "run.json").write_text(json.dumps({"files": named}))
    before = sorted(tmp_path.rglob("*"))
    assert run_job(Job("01_good", {}, folder, 60)).status == "ok"
    assert set(before) - set(tmp_path.rglob("*")) == ({folder / "gone"} if isinstance(named, list) else set())
    assert (folder / "links/x").exists()
