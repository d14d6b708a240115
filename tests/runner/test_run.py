"""`labs run`: how runs end, what is kept of them, which are not repeated. The notebooks import nothing large."""

import errno
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import nbformat
import psutil
import pytest
from helpers import write_lab

from labutils.instructor import bands, cli, jobs, labs, run
from labutils.instructor.run import Job, Outcome, Watch, earlier_outcome
from labutils.paths import replacing

PARAMETERS = 'value: int = 1  # a figure\nseed: int = 0  # of nothing\nresume: bool = False  # go on\nout_dir: str = "runs/x"  # files'
RESULT = ("from IPython.display import display\n"
          "display({'application/json': {'loss': value, 'device': 'cpu'}, 'text/plain': ''}, raw=True)")
BEGUN = ("import os, subprocess, time\nchild = subprocess.Popen(['sleep', '600'])\n"
         "with open({pipe!r}, 'w') as file:\n    file.write(f'{{os.getpid()}} {{child.pid}}\\n')\ntime.sleep(600)")
CELLS = {
    "01_good": [RESULT],
    "02_waits": ["print('before')", BEGUN, RESULT],
    "03_waits": ["print('before')", BEGUN, RESULT],
    "04_good": ["open(out_dir + '/times.txt', 'a').write('.')", RESULT],
    "05_raises": ["print('before')", "raise RuntimeError('one\\ntwo')", RESULT],
    "06_dies": ["print('before')", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", RESULT],
    "07_hangs": ["print('before')", "import time; time.sleep(600)", RESULT],
    "09_trains": ["import os, pathlib, signal\nstate = pathlib.Path(out_dir) / 'vae.state'\nbegun = state.exists()\n"
                  "state.write_text('')\nif not begun: os.kill(os.getpid(), signal.SIGKILL)", RESULT.replace("value", "resume")],
    "08_large": ["block = bytearray(b'1' * (200 << 20)); del block\nfor i in range(3_000_000): pass", RESULT],
}
PATIENCE = 300      # seconds; only what is broken takes so long
# whoever runs the tests in the background, or under nohup, has signals ignored
PROGRAM = ("import signal, sys; from pathlib import Path; from labutils.instructor import cli, labs\n"
           "signal.signal(signal.SIGINT, signal.default_int_handler); signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
           "labs.NOTEBOOKS = Path(sys.argv[1]); sys.exit(cli.main(sys.argv[2:]))")


def write(folder, name, cells):
    """Write a lab; its cells may name the pipe by which a kernel tells that it has begun."""
    write_lab(folder, name, PARAMETERS, [cell.format(pipe=str(folder / "pipe")) if cell is BEGUN else cell for cell in cells])


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """The folder of the small labs, in the place of the course's."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name, cells in CELLS.items():
        write(folder, name, cells)
    monkeypatch.setattr(labs, "NOTEBOOKS", folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


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
        processes.append(subprocess.Popen([sys.executable, "-c", PROGRAM, notebooks, *map(str, arguments)], **options))
        return processes[-1]
    yield start
    for process in processes:
        process.kill()
        process.wait()


def read(path):
    return json.loads(path.read_text())


def status(out, name):
    return read(out / name / "run.json")["status"]


def printed_by_cells(path):
    return [output.text for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])
            if output.output_type == "stream"]


def until(condition):
    """Wait for what another process does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def hidden(out):
    """Return what was not written to its end."""
    return [path for path in out.rglob("*") if path.name.startswith(".")]


def all_gone(processes):
    return not psutil.wait_procs(processes, timeout=PATIENCE)[1]


# ------------------------------------------------------------------------------------------ interrupted

@pytest.mark.parametrize("number, n_jobs", [(signal.SIGINT, 1), (signal.SIGINT, 2), (signal.SIGTERM, 1), (signal.SIGTERM, 2),
                                            (signal.SIGHUP, 1)])
def test_a_signal_ends_kernels_and_keeps_what_was_done(begun, started, tmp_path, number, n_jobs):
    out = tmp_path / "out"
    process = started("run", "01_good", "02_waits", "03_waits", "04_good", "--jobs", n_jobs, "--out", out)
    kernels = begun(n_jobs)
    process.send_signal(number)
    printed, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and "interrupted; what was done is kept" in errors, errors
    assert "Traceback" not in errors and all_gone(kernels)
    assert status(out, "01_good") == "ok" and read(out / "01_good/results.json")["loss"] == 1
    waiting = ["02_waits", "03_waits"][:n_jobs]
    for name in waiting:
        record = read(out / name / "run.json")
        assert record["status"] == "interrupted" and record["error"] == "stopped in cell 4 of 5" and record["seconds"] > 0
        assert printed_by_cells(out / name / f"{name}.ipynb") == ["before\n"] and (out / name / f"{name}.html").exists()
        assert not (out / name / "results.json").exists() and f"{name}: interrupted" in errors
    assert sorted(path.name for path in out.iterdir()) == ["01_good", *waiting] and hidden(out) == []
    assert printed.count("interrupted") == 3 and "not begun" in printed


def test_a_signal_before_the_kernel_answers_ends_it_too(begun, started, tmp_path, monkeypatch):
    kernel_that(f"echo $$ > {tmp_path / 'notebooks/pipe'}; exec sleep 600", tmp_path, monkeypatch)
    process = started("run", "01_good", "--out", tmp_path / "out")
    kernels = begun(1)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)      # impatient
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130 and all_gone(kernels), errors
    assert read(tmp_path / "out/01_good/run.json")["error"] == "stopped before its first cell"


def test_a_run_that_is_stopped_before_its_kernel_is_there_ends_with_it(notebooks, tmp_path):
    watch = Watch()
    watch.stop()
    outcome = run.run_job(Job("07_hangs", {}, tmp_path / "07_hangs", 60), watch)
    assert outcome.status == "interrupted" and outcome.error == "stopped before its first cell"
    assert not watch.kernel.is_running()


def test_a_runner_that_is_killed_leaves_interrupted_and_no_kernel(begun, started, notebooks, tmp_path):
    out = tmp_path / "out"
    process = started("run", "04_good", "02_waits", "--out", out)
    kernel, child = begun(1)
    process.kill()
    process.wait(timeout=PATIENCE)
    assert all_gone([kernel])
    child.kill()        # Jupyter's kernels see that they are alone, and end; nobody is left to end what they started
    assert status(out, "04_good") == "ok" and status(out, "02_waits") == "interrupted"
    write(notebooks, "02_waits", [RESULT])
    assert cli.main(["run", "04_good", "02_waits", "--out", str(out)]) == 0, "the sweep goes on where it stood"
    assert (out / "04_good/times.txt").read_text() == "." and status(out, "02_waits") == "ok" and hidden(out) == []


def test_a_runner_that_is_killed_leaves_the_notebook_and_the_list_of_files(begun, started, notebooks, tmp_path):
    write(notebooks, "02_waits", ["open(out_dir + '/a.png', 'w')\nprint('before')", BEGUN, RESULT])
    folder = tmp_path / "out/02_waits"
    process = started("run", "02_waits", "--out", folder.parent)
    _, child = begun(1)
    until(lambda: read(folder / "run.json")["files"])
    process.kill()
    process.wait(timeout=PATIENCE)
    child.kill()
    assert read(folder / "run.json")["files"] == ["02_waits.ipynb", "a.png"] and status(folder.parent, "02_waits") == "interrupted"
    assert printed_by_cells(folder / "02_waits.ipynb") == ["before\n"] and not (folder / "02_waits.html").exists()
    assert cli.main(["report", str(folder.parent)]) == 0


def test_the_notebook_is_saved_on_the_way_once_for_each_change_and_the_outputs_stay_whole(notebooks, tmp_path, monkeypatch):
    slow = ("import sys, time\nfrom IPython.display import display\nsys.stderr.write('\\r 1%')\nsys.stderr.flush()\n"
            "shown = display('first', display_id=True)\nfor n in range(5):\n    time.sleep(0.2)\n    shown.update(n)\ntime.sleep(1)")
    write(notebooks, "01_good", [slow, RESULT])
    saved = []

    def write_text(path, text):
        if path.suffix == ".ipynb":
            saved.append([output.get("name") or output.data["text/plain"]
                          for cell in nbformat.reads(text, as_version=4).cells for output in cell.get("outputs", [])])
        run_write_text(path, text)
    run_write_text = run.write_text
    monkeypatch.setattr(run, "write_text", write_text)
    monkeypatch.setattr(run, "SAVE_EVERY", 0.05)
    assert run.run_job(Job("01_good", {}, tmp_path / "out", 60)).status == "ok"
    assert ["0"] in saved and ["3"] in saved and saved[-1] == ["4", ""] and len(saved) < 20
    assert not any("stderr" in outputs for outputs in saved), "without the progress bar"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), ValueError("whatever")])
def test_a_fault_while_saving_on_the_way_is_none_of_the_run(notebooks, tmp_path, monkeypatch, error):
    write(notebooks, "01_good", ["import time; time.sleep(1)", RESULT])
    tried = []

    def autosave(job, *_):
        tried.append(job.folder.name)
        raise error
    monkeypatch.setattr(run, "autosave", autosave)
    monkeypatch.setattr(run, "SAVE_EVERY", 0.1)
    for name in ("a", "b"):
        assert run.run_job(Job("01_good", {}, tmp_path / name, 60)).status == "ok"
    assert len(tried) > 4 and tried == sorted(tried), "with its end a run is saved no more"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_sweep_starts_up_is_an_interruption_too(notebooks, tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr(cli, "execute_runs", lambda *_: os.kill(os.getpid(), number) or time.sleep(PATIENCE))
    before = signal.signal(number, lambda *_: pytest.fail("the signal has met nobody"))
    try:
        assert cli.main(["run", "01_good", "--out", str(tmp_path / "out")]) == 130
    finally:
        signal.signal(number, before)
    assert capsys.readouterr().err == "interrupted; what was done is kept\n" and hidden(tmp_path / "out") == []


@pytest.mark.parametrize("lost", ["stdout", "stderr"])
def test_a_closed_terminal_is_an_interruption_whatever_is_written_to_it(begun, started, tmp_path, lost):
    screen, terminal = pty.openpty()
    files = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, lost: terminal}
    process = started("run", "02_waits", "03_waits", "--out", tmp_path / "out", **files, stdin=terminal, start_new_session=True,
                      preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
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
    watch, keep = Watch(), run.keep
    monkeypatch.setattr(run, "keep", lambda *arguments: watch.stop() or keep(*arguments))
    outcome = run.run_job(Job("05_raises", {}, tmp_path / "05_raises", 60), watch)
    assert (outcome.status, outcome.error) == ("failed", "RuntimeError: one (cell 4)")


# ------------------------------------------------------------------------------------------ two at once

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

@pytest.mark.parametrize("n_jobs", [1, 2])
def test_each_failure_is_told_and_stops_nobody_else(notebooks, tmp_path, capsys, n_jobs):
    out = tmp_path / "out"
    (notebooks / "03_waits.ipynb").write_text("{not json")
    reasons = {"05_raises": "RuntimeError: one (cell 4)", "06_dies": "DeadKernelError: Kernel died",
               "07_hangs": "CellTimeoutError: ", "03_waits": "03_waits.ipynb is not a notebook; restore it with git checkout"}
    names = ["05_raises", "06_dies", "01_good", "03_waits", "07_hangs", "04_good"]
    assert cli.main(["run", *names, "--out", str(out), "--jobs", str(n_jobs), "--timeout", "6"]) == 1
    for name, reason in reasons.items():
        record = read(out / name / "run.json")
        assert record["status"] == "failed" and reason in record["error"] and "\n" not in record["error"]
        assert not (out / name / "results.json").exists()
        if name != "03_waits":
            assert printed_by_cells(out / name / f"{name}.ipynb") == ["before\n"]
            assert (out / name / f"{name}.html").exists()
    assert status(out, "01_good") == status(out, "04_good") == "ok" and hidden(out) == []
    printed = capsys.readouterr()
    rows = [line.split()[:2] for line in printed.out.splitlines()[2:8]]
    assert rows == [[name, "failed" if name in reasons else "ok"] for name in names], "in the order that was asked for"
    assert len(printed.err.splitlines()) == 6, "a line for each run, where there is no terminal"


def kernel_that(command, folder, monkeypatch):
    """Put a shell command in the place of the kernel."""
    spec = folder / "jupyter/kernels/python3/kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["sh", "-c", command], "display_name": "Python 3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "jupyter"))


@pytest.mark.parametrize("command, reason", [("echo $$ > {}; exec sleep 600", "Kernel didn't respond in 2 seconds"),
                                             ("echo $$ > {}; exit 3", "Kernel died before replying"),
                                             ("echo $$ > {}; nothing-of-this-name", "Kernel died before replying")])
def test_a_kernel_that_never_starts_is_a_failure_and_does_not_stay(begun, notebooks, tmp_path, monkeypatch, command, reason):
    kernel_that(command.format(notebooks / "pipe"), tmp_path, monkeypatch)
    monkeypatch.setattr(run, "START_TIMEOUT", 2)
    assert cli.main(["run", "01_good", "--out", str(tmp_path / "out")]) == 1
    record = read(tmp_path / "out/01_good/run.json")
    assert record["status"] == "failed" and reason in record["error"] and hidden(tmp_path / "out") == []
    assert not psutil.pid_exists(int(os.read(os.open(notebooks / "pipe", os.O_RDONLY | os.O_NONBLOCK), 100)))


def test_a_command_that_is_not_there_is_a_failure(notebooks, tmp_path, monkeypatch):
    kernel_that("", tmp_path, monkeypatch)
    spec = tmp_path / "jupyter/kernels/python3/kernel.json"
    spec.write_text(spec.read_text().replace('"sh"', '"/nowhere/python"'))
    assert cli.main(["run", "01_good", "--out", str(tmp_path / "out")]) == 1
    assert "/nowhere/python" in read(tmp_path / "out/01_good/run.json")["error"]


@pytest.mark.parametrize("found", ["[1, 2]", "'text'", "None", "[]"])
def test_other_json_than_figures_brings_nobody_down(notebooks, tmp_path, found):
    other = f"from IPython.display import display\ndisplay({{'application/json': {found}}}, raw=True)"
    write(notebooks, "01_good", [other])
    write(notebooks, "04_good", [RESULT, other])
    assert cli.main(["run", "01_good", "04_good", "--out", str(tmp_path)]) == 1
    assert "show_results was not called" in read(tmp_path / "01_good/run.json")["error"]
    assert read(tmp_path / "04_good/results.json")["loss"] == 1, "the figures come from the cell above"


def test_a_lab_that_is_no_notebook_stops_no_other_one_before_a_check(notebooks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bands, "EXPECTED", tmp_path / "expected.yml")
    bands.EXPECTED.write_text("quick: {01_good: {figures: {loss: [2, 2]}}, 03_waits: {figures: {loss: [2, 2]}}}")
    (notebooks / "quick.yml").write_text("value: 2")
    (notebooks / "03_waits.ipynb").write_text("{not json")
    assert cli.main(["run", "01_good", "03_waits", "--quick", "--check", "--out", str(tmp_path / "out")]) == 1
    assert "1 figures compared with tests/expected.yml, 0 faults" in capsys.readouterr().out
    assert status(tmp_path / "out", "01_good") == "ok" and status(tmp_path / "out", "03_waits") == "failed"


def test_a_report_that_cannot_be_written_is_a_fault_and_the_check_goes_on(notebooks, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bands, "EXPECTED", tmp_path / "expected.yml")
    bands.EXPECTED.write_text("full: {01_good: {figures: {loss: [0, 2]}}, 04_good: {figures: {loss: [0, 2]}}}")
    (tmp_path / "out/results.csv").mkdir(parents=True)
    assert cli.main(["run", "01_good", "04_good", "--check", "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert "labs run: cannot write the report into" in printed.err and "2 figures compared" in printed.out


@pytest.mark.parametrize("name", ["01_good.ipynb", "01_good.html", "results.json", "run.json"])
def test_a_full_disk_is_a_failure_of_the_run_that_met_it(notebooks, tmp_path, monkeypatch, name):
    out, place = tmp_path / "out", tmp_path / "out/01_good"

    @contextmanager
    def replacing_on_a_full_disk(path):
        full = path == place / name and (name != "run.json" or (place / "results.json").exists())     # run.json: at the end of the run
        with replacing(path) as part:
            yield part
            if full:
                raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(run, "replacing", replacing_on_a_full_disk)
    assert cli.main(["run", "01_good", "04_good", "--out", str(out)]) == 1
    assert hidden(out) == [] and status(out, "04_good") == "ok"
    record = read(place / "run.json")
    assert record["status"] == "failed" and "No space left on device" in record["error"]
    assert name == "run.json" or not (place / name).exists()


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 128 kB: the HTML of a notebook does not fit."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this user may not mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full(notebooks, small_disk):
    assert cli.main(["run", "01_good", "--out", str(small_disk)]) == 1
    record = read(small_disk / "01_good/run.json")
    assert record["status"] == "failed" and "No space left on device" in record["error"]
    assert sorted(path.name for path in (small_disk / "01_good").iterdir()) == ["01_good.ipynb", "run.json"]
    nbformat.validate(nbformat.read(small_disk / "01_good/01_good.ipynb", as_version=4))


@pytest.mark.parametrize("cell, told", [("", "No space left on device"), ("raise ValueError('the reason')", "ValueError: the reason (cell 4)")])
def test_a_disk_without_any_room_has_a_record_that_is_true(notebooks, small_disk, capsys, cell, told):
    fill = ("import time\ntry:\n    with open(out_dir + '/fill.png', 'wb', buffering=0) as file:\n        while True:\n"
            "            file.write(bytes(512))\nexcept OSError:\n    time.sleep(0.5)")
    write(notebooks, "01_good", [fill, cell, RESULT])
    folder = small_disk / "01_good"
    assert cli.main(["run", "01_good", "--out", str(small_disk)]) == 1
    assert "No space left" in capsys.readouterr().out or cell
    record = read(folder / "run.json")
    assert record["status"] == "failed" and told in record["error"] and record["seconds"] > 0
    assert record["files"] == ["fill.png"] == [path.name for path in folder.iterdir() if path.name != "run.json"]
    assert cli.main(["report", str(small_disk)]) == 2, "no room for it"
    run.overwrite(folder / "run.json", record | {"status": "ok"})           # of an earlier run
    assert cli.main(["run", "01_good", "--out", str(small_disk)]) == 1      # it cannot even write that it begins
    assert read(folder / "run.json")["status"] == "failed"


@pytest.mark.parametrize("n_files, n_left", [(0, 0), (2, 2), (300, 9)])
def test_a_record_that_is_put_in_the_place_of_another_is_cut_to_its_length(tmp_path, n_files, n_left):
    (tmp_path / "run.json").write_text(run.as_json({"status": "interrupted", "error": "", "files": [f"{n:03}.png" for n in range(9)]}))
    room = (tmp_path / "run.json").stat().st_size
    names = [f"{n:03}.png" for n in range(n_files)]
    run.overwrite(tmp_path / "run.json", {"status": "failed", "error": "ü" * (10 if n_files else 1000), "files": names})
    record = read(tmp_path / "run.json")
    assert (tmp_path / "run.json").stat().st_size == room and record["status"] == "failed"
    assert record["files"] == names[:len(record["files"])] and len(record["files"]) == n_left and set(record["error"]) == {"ü"}


# ------------------------------------------------------------------------------------------------ kept

def test_what_has_gone_well_is_not_repeated_but_by_force(notebooks, tmp_path, capsys):
    arguments = ["run", "04_good", "--out", str(tmp_path)]
    assert cli.main(arguments) == 0 and "kept" not in capsys.readouterr().err
    before = read(tmp_path / "04_good/run.json") | {"seconds": 999}        # no run anew takes as long
    (tmp_path / "04_good/run.json").write_text(json.dumps(before))
    assert cli.main(arguments) == 0 and read(tmp_path / "04_good/run.json") == before
    printed = capsys.readouterr()
    assert "04_good: ok" in printed.err and "kept from an earlier run" in printed.err
    assert "ok (kept)" in printed.out and "loss 1" in printed.out
    assert (tmp_path / "04_good/times.txt").read_text() == "."
    assert cli.main([*arguments, "--force"]) == 0
    assert (tmp_path / "04_good/times.txt").read_text() == ".", "what the run before has left is gone"
    assert read(tmp_path / "04_good/run.json")["seconds"] < 999 and "kept" not in capsys.readouterr().err


def test_a_run_is_kept_only_if_it_is_whole_and_nothing_has_changed(notebooks, tmp_path):
    job = Job("01_good", {"value": 2}, tmp_path / "01_good", 9)
    assert earlier_outcome(job) is None
    record = {"status": "ok", "seconds": 3, "fingerprint": run.fingerprint(job)}

    def kept(job=job, results='{"loss": 2}', **values):
        for name, text in (("run.json", json.dumps({**record, **values})), ("results.json", results)):
            run.write_text(job.folder / name, text)
        return earlier_outcome(job)
    assert kept() == Outcome("01_good", "ok", 3, {"loss": 2}, "", "01_good", True)
    assert kept(job._replace(parameters={"value": 3})) is None and kept(job._replace(lab="04_good")) is None
    assert kept(status="failed") is None and kept(status="interrupted") is None and kept(fingerprint=None) is None
    assert kept(seconds=None) is None and kept(results="[1]") is None and kept(results="") is None
    for text in ("", "{", "[]", "null", "{}", "\xff"):
        kept()
        (job.folder / "run.json").write_text(text, encoding="latin-1")
        assert earlier_outcome(job) is None, text
    kept()
    (job.folder / "results.json").unlink()
    assert earlier_outcome(job) is None
    (notebooks / "01_good.ipynb").write_text("{")
    assert kept() is None


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
    assert [read(path)["loss"] for path in sorted(tmp_path.glob("out/*/results.json"))] == [1, 5]


def test_what_failed_is_run_again_and_an_old_result_goes(notebooks, tmp_path):
    arguments, record = ["run", "05_raises", "--out", str(tmp_path)], tmp_path / "05_raises/run.json"
    assert cli.main(arguments) == 1
    before = record.stat().st_mtime_ns
    (tmp_path / "05_raises/results.json").write_text("{}")
    assert cli.main(arguments) == 1 and record.stat().st_mtime_ns > before
    assert not (tmp_path / "05_raises/results.json").exists()


def test_the_fingerprint_holds_what_decides_the_figures(notebooks, tmp_path, monkeypatch):
    def mark(name="01_good", **parameters):
        return run.fingerprint(Job(name, parameters, tmp_path, 9))
    assert mark() == mark(value=1) != mark(value=2) and mark() != mark("04_good")
    before = mark()
    notebook = nbformat.read(notebooks / "01_good.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("words"))
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="an output")]
    nbformat.write(notebook, notebooks / "01_good.ipynb")
    assert mark() == before, "words and outputs decide nothing"
    package = tmp_path / "labutils"
    (package / "instructor").mkdir(parents=True)
    (package / "a.py").write_text("x = 1")
    monkeypatch.setattr(run, "__file__", str(package / "instructor/run.py"))
    other = mark()
    (package / "instructor/b.py").write_text("x = 1")
    assert other != before and mark() == other, "a lab does not import instructor/"
    (package / "a.py").write_text("x = 2")
    assert mark() != other
    monkeypatch.setattr(run, "PRETRAINED_DIR", tmp_path)
    other = mark()
    (tmp_path / "card.json").write_text("{}")
    assert mark() != other


# -------------------------------------------------------------------------------------- sweep and record

def test_a_sweep_gives_each_run_its_folder_and_record(notebooks, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["run", "01_good", "-p", "value", "2,20", "-p", "seed", "3", "--jobs", "2", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["01_good,value=2", "01_good,value=20", "index.html", "results.csv"]
    assert read(out / "01_good,value=20/results.json")["loss"] == 20
    record = read(out / "01_good,value=2/run.json")
    assert record["parameters"] == {"value": 2, "seed": 3} and record["lab"] == "01_good"
    assert "01_good,value=20  ok" in capsys.readouterr().out


def test_the_record_says_what_the_kernel_took_and_what_it_ran_on(notebooks, tmp_path):
    assert cli.main(["run", "08_large", "--out", str(tmp_path)]) == 0
    record = read(tmp_path / "08_large/run.json")
    assert list(record) == ["lab", "status", "error", "parameters", "started", "seconds", "cpu_seconds",
                            "peak_memory", "device", "python", "versions", "revision", "modified", "files", "fingerprint", "resumed"]
    assert record["resumed"] is False and datetime.fromisoformat(record["started"]).utcoffset().total_seconds() == 0
    assert 200 << 20 < record["peak_memory"] < 2 << 30, "of the kernel, also of what it has given back"
    assert 0.05 < record["cpu_seconds"] and record["device"] == "cpu" and len(record["fingerprint"]) == 64
    assert {"torch", "labutils"} < set(record["versions"]) and record["error"] == ""


def test_the_revision_is_the_projects_own(tmp_path, monkeypatch):
    def circumstances(root):
        monkeypatch.setattr(run, "PROJECT_ROOT", root)
        run.circumstances.cache_clear()
        return [run.circumstances()[key] for key in ("revision", "modified")]

    def git(*arguments):
        return subprocess.run(["git", "-C", tmp_path, "-c", "user.name=A", "-c", "user.email=a@b.c", *arguments], check=True,
                              capture_output=True, text=True).stdout.strip()
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
    run.circumstances.cache_clear()


def test_jobs_share_the_cores(notebooks, tmp_path, monkeypatch):
    write(notebooks, "01_good", [RESULT.replace("value", "int(__import__('os').environ.get('OMP_NUM_THREADS', 0))", 1)])
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS")
    for n_jobs, seeds, expected in ((1, "0", 0), (8, "0", 0), (8, "0,1", 4)):
        assert cli.main(["run", "01_good", "-p", "seed", seeds, "--jobs", str(n_jobs), "--out", str(tmp_path), "--force"]) == 0
        assert read(tmp_path / f"01_good{',seed=1' if ',' in seeds else ''}/results.json")["loss"] == expected


def test_kernels_stand_in_the_folder_of_the_notebooks_whatever_runs_beside(notebooks, tmp_path):
    here = os.getcwd()
    for name in ("01_good", "04_good"):
        write(notebooks, name, ["import os\nopen(out_dir + '/here.txt', 'w').write(os.getcwd())", RESULT])
    assert cli.main(["run", "01_good", "04_good", "--jobs", "2", "--out", str(tmp_path / "out")]) == 0
    assert {(tmp_path / "out" / name / "here.txt").read_text() for name in ("01_good", "04_good")} == {str(notebooks)}
    assert os.getcwd() == here


# -------------------------------------------------------------------------------------------- progress

def test_on_a_terminal_a_line_of_each_run_is_redrawn(begun, started, tmp_path):
    screen, stderr = pty.openpty()
    termios.tcsetwinsize(stderr, (24, 80))
    process = started("run", "02_waits", "03_waits", "--jobs", "2", "--out", tmp_path / "out", stderr=stderr)
    begun(2)
    text, deadline = "", time.monotonic() + PATIENCE
    while not ("02_waits: cell 4 of 5, 00:" in text and "03_waits: cell 4 of 5, 00:" in text):
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
        record = {"lab": "02_vae", "status": "ok", "seconds": 100, "parameters": {"epochs": 3, "seed": 0}}
        (tmp_path / name / "run.json").write_text(json.dumps({**record, **values}))
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
        job = Job("02_vae", parameters, tmp_path / "02_vae", 9)
        return jobs.progress(job, watch, jobs.earlier_seconds(run.earlier_records([job]).values()))
    assert line(epochs=3, seed=1) == "02_vae: cell 3 of 8, 00:10, about 02:00 left"
    assert line(epochs=30) == "02_vae: cell 3 of 8, 00:10, about 2:29:50 left"
    assert line(epochs=4) == "02_vae: cell 3 of 8, 00:10"
    monkeypatch.setattr(jobs.time, "perf_counter", lambda: 1200.0)
    assert line(epochs=3) == "02_vae: cell 3 of 8, 03:20", "longer than ever: nothing is known of the rest"


def test_of_runs_side_by_side_the_longest_begin_first(notebooks, tmp_path, monkeypatch):
    def store(lab, figures):
        notebook = nbformat.read(notebooks / f"{lab}.ipynb", as_version=4)
        notebook.cells[-1].outputs = [nbformat.v4.new_output("display_data", {"application/json": figures})]
        nbformat.write(notebook, notebooks / f"{lab}.ipynb")
    store("04_good", {"seconds": 50})
    store("05_raises", {"seconds": None})
    store("06_dies", {"seconds": 9000})
    (notebooks / "07_hangs.ipynb").write_text("damaged")
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier/run.json").write_text(json.dumps({"lab": "06_dies", "status": "ok", "seconds": 3, "parameters": {"value": 1}}))
    names = ["05_raises", "07_hangs", "06_dies", "04_good", "01_good"]
    work = [Job(name, {"value": 1}, tmp_path / name, 9) for name in names]
    known = jobs.earlier_seconds(run.earlier_records(work).values())
    assert [names[i] for i in jobs.longest_first(work, known)] == ["04_good", "06_dies", "05_raises", "07_hangs", "01_good"]

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
    assert run.run_job(job).status == "failed" and (job.folder / "vae.state").exists()
    assert run.run_job(job).results["loss"] is True
    about = json.loads((job.folder / "run.json").read_text())
    assert about["resumed"] is True and about["parameters"] == {"value": 2}
    assert not (job.folder / "vae.state").exists(), "it is of no more use, and large"
    assert earlier_outcome(job).results["loss"] is True


def test_other_parameters_other_code_and_force_start_a_training_anew(notebooks, tmp_path):
    job = Job("09_trains", {"value": 2}, tmp_path / "out", 60)
    assert run.run_job(job).status == "failed"
    other = job._replace(parameters={"value": 3})
    assert run.run_job(other).status == "failed"            # the state is gone: killed once more
    [outcome] = jobs.run_jobs([other._replace(force=True)])
    assert outcome.status == "failed" and read(job.folder / "run.json")["resumed"] is False
    assert run.run_job(other).results["loss"] is True


def test_a_state_that_cannot_be_removed_is_a_fault_of_its_run_alone(notebooks, tmp_path):
    (tmp_path / "01_good/x.state").mkdir(parents=True)
    assert cli.main(["run", "01_good", "04_good", "--force", "--out", str(tmp_path)]) == 1
    assert "x.state" in read(tmp_path / "01_good/run.json")["error"] and status(tmp_path, "04_good") == "ok"


def test_what_a_killed_kernel_has_left_half_written_goes_and_resumes_nothing(notebooks, tmp_path):
    halves = ("import os, signal\nfrom labutils.paths import replacing\nos.makedirs(out_dir + '/deep', exist_ok=True)\n"
              "for name in ('a.png', 'deep/a.png', 'vae.state'):\n    replacing(f'{out_dir}/{name}').__enter__()\n")
    write(notebooks, "09_trains", [halves + "os.kill(os.getpid(), signal.SIGKILL)"])
    job = Job("09_trains", {}, tmp_path / "out/09_trains", 60)
    assert run.run_job(job).status == "failed" and hidden(tmp_path / "out") == []
    with replacing(job.folder / "vae.state") as half:       # by a runner that was killed as well
        assert run.run_job(job).status == "failed" and not half.exists() and not read(job.folder / "run.json")["resumed"]
        half.touch()


def test_a_project_may_lie_in_a_folder_with_braces(notebooks, tmp_path, monkeypatch):
    (tmp_path / "a {b} {{c").mkdir()
    write(tmp_path / "a {b} {{c", "01_good", [RESULT])
    monkeypatch.setattr(labs, "NOTEBOOKS", tmp_path / "a {b} {{c")
    assert cli.main(["run", "01_good", "--out", str(tmp_path / "out {d}")]) == 0 == cli.main(["refresh", "01_good"])


# ----------------------------------------------------------------------------------- files of earlier runs

def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_an_earlier_run_has_left_goes_and_what_was_put_there_stays(notebooks, tmp_path):
    write(notebooks, "01_good", ["import pathlib\nfor name in (f'{value}.png', f'deep/{value}.png', 'mine.txt'):\n"
                                 "    path = pathlib.Path(out_dir, name)\n    path.parent.mkdir(exist_ok=True)\n"
                                 "    path.write_text(name)", "if value == 2: raise ValueError('late')", RESULT])
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("by hand")
    (folder / "mine.txt").write_text("by hand, and written over")

    def after(value):
        run.run_job(Job("01_good", {"value": value}, folder, 60))
        return read(folder / "run.json")["files"], files(folder)
    made = ["01_good.html", "01_good.ipynb", "1.png", "deep/1.png", "mine.txt", "results.json"]
    assert after(1) == (made, sorted([*made, "notes.txt", "run.json"]))
    made = ["01_good.html", "01_good.ipynb", "2.png", "deep/2.png", "mine.txt"]
    assert after(2) == (made, sorted([*made, "notes.txt", "run.json"])), "also a run that failed has its list"
    (notebooks / "01_good.ipynb").write_text("{")
    assert after(2) == (made, sorted([*made, "notes.txt", "run.json"])), "it could not begin, and says what lies there"


def test_a_resumed_run_keeps_the_files_of_the_one_that_was_stopped(notebooks, tmp_path):
    write(notebooks, "09_trains", ["import pathlib\npathlib.Path(out_dir, f'{resume}.png').write_text('')", *CELLS["09_trains"]])
    job = Job("09_trains", {}, tmp_path / "out", 60)
    assert run.run_job(job).status == "failed"
    assert read(job.folder / "run.json")["files"] == ["09_trains.html", "09_trains.ipynb", "False.png"], "a state is no result"
    assert run.run_job(job).status == "ok"
    assert read(job.folder / "run.json")["files"] == ["09_trains.html", "09_trains.ipynb", "False.png", "True.png",
                                                      "results.json"]


@pytest.mark.parametrize("named", [["../x", "{outside}/x", "link.png", "links/x", "deep", ".", "", 7, None, ["x"], {}, ".hidden",
                                    "deep/../../x", "run.json"], {"x": 1}, "../x", None, 7])
def test_a_list_that_somebody_has_edited_leads_nowhere_else(notebooks, tmp_path, named):
    folder, outside = tmp_path / "out/01_good", tmp_path / "outside"
    for path in (outside / "x", tmp_path / "out/x", folder / "deep/kept", folder / ".hidden", folder / "gone"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (folder / "links").symlink_to(outside)
    (folder / "link.png").symlink_to(outside / "x")
    named = [f"{outside}/x" if name == "{outside}/x" else name for name in named] + ["gone"] if isinstance(named, list) else named
    (folder / "run.json").write_text(json.dumps({"files": named}))
    before = sorted(tmp_path.rglob("*"))
    assert run.run_job(Job("01_good", {}, folder, 60)).status == "ok"
    assert set(before) - set(tmp_path.rglob("*")) == ({folder / "gone"} if isinstance(named, list) else set())
    assert (folder / "links/x").exists()
