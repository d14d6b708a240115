"""Run one lab with papermill; keep what it made and what is known of the run, also when it fails."""

import asyncio
import hashlib
import json
import logging
import platform
import re
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from copy import deepcopy
from datetime import datetime, timezone
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import nbformat
import papermill
import psutil
from nbconvert import HTMLExporter
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from ..checkpoints import PRETRAINED_DIR
from ..paths import HALF_WRITTEN, PROJECT_ROOT, replacing
from .labs import UsageError, effective_parameters, lab_path, read_lab

START_TIMEOUT = 120     # seconds until the kernel must answer
SAVE_EVERY = 5          # seconds: to write a large notebook takes some 20 ms
QUIET_KERNEL = ["--IPKernelApp.log_level=CRITICAL"]     # its complaints about an interruption would stand between our lines
NO_FIGURES = ("resume", "tensorboard_dir")      # parameters on which no figure depends
PACKAGES = ("labutils", "torch", "torchvision", "numpy", "papermill")
EXPORTING = threading.Lock()    # the exporter keeps state while it works


class Job(NamedTuple):
    """One lab to run: its parameters, the folder for what it writes, seconds for a cell; `force`: whatever lies there."""
    lab: str
    parameters: dict
    folder: Path
    timeout: int
    force: bool = False


class Outcome(NamedTuple):
    """How a run ended: status "ok", "failed" or "interrupted", the figures or the error; `kept` from an earlier run."""
    lab: str
    status: str
    seconds: float
    results: dict
    error: str = ""
    run: str = ""
    kept: bool = False


class Watch:
    """A run as seen from outside while it goes on: how far it is, what its kernel uses. `stop` ends it."""

    def __init__(self):
        self.notebook, self.kernel, self.started, self.stopped = None, None, None, False
        self.cell, self.cpu_seconds, self.peak_memory = 0, 0.0, 0
        self.found = {}     # the files that were in the folder before, as `files_in` has them
        self.saved = ""     # what stands in the file of the notebook

    def attach(self, pid):
        """Take note of the kernel's process."""
        with suppress(psutil.NoSuchProcess):
            self.kernel = psutil.Process(pid)
        if self.stopped:        # it came while there was no kernel to kill
            self.stop()

    def begin_cell(self, cell_index, **_):
        """Take note of the cell in progress, counted from 1."""
        self.cell = cell_index + 1

    def measure(self, **_):
        """Take note of the kernel's CPU time and memory; a kernel that is dead leaves the last values."""
        with suppress(psutil.Error, OSError):
            self.cpu_seconds = sum(self.kernel.cpu_times()[:4])     # user and system, its own and its ended children's
            self.peak_memory = max(self.peak_memory, peak_memory(self.kernel))

    def place(self):
        """Say where the run was stopped."""
        return f"stopped in cell {self.cell} of {len(self.notebook.cells)}" if self.cell else "stopped before its first cell"

    def stop(self):
        """Kill the kernel, now or as soon as it is there, with all processes that it has started."""
        self.stopped = True
        with suppress(psutil.Error, AttributeError):
            for process in [*self.kernel.children(recursive=True), self.kernel]:
                with suppress(psutil.Error):
                    process.kill()


def peak_memory(process):
    """Return the most bytes that a process has held; where the system does not count that, those of this moment."""
    if platform.system() == "Linux":
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        return 1024 * int(found[1]) if found else 0     # a zombie has none
    memory = process.memory_info()
    return getattr(memory, "peak_wset", memory.rss)


class WatchedClient(PapermillNotebookClient):
    """papermill's client, which shows its kernel to a `Watch`, and calls `save` every few seconds."""

    def __init__(self, manager, watch, save, **options):
        super().__init__(manager, on_cell_start=self.begin_cell, on_cell_executed=watch.measure, **options)
        self.watch, self.save, self.timer = watch, save, None

    def begin_cell(self, **about):
        """Tell the watch; with the first cell begins the saving."""
        self.watch.begin_cell(**about)
        if self.timer is None:
            self.save_later()

    def save_later(self):
        """Save in some seconds, and so on: in the client's own thread, when it waits for the kernel."""
        self.timer = asyncio.get_running_loop().call_later(SAVE_EVERY, self.save_now)

    def save_now(self):
        """Save, and see to the next time."""
        self.save()
        self.save_later()

    def start_new_kernel(self, **options):
        """Start the kernel and show it."""
        super().start_new_kernel(**options)
        self.watch.attach(self.km.provisioner.pid)

    @contextmanager
    def setup_kernel(self, **options):
        """Have a kernel as long as the block lasts; at the end measure it, and save no more."""
        with super().setup_kernel(**options):
            try:
                yield
            finally:
                self.watch.measure()
                if self.timer is not None:
                    self.timer.cancel()


class WatchedEngine(NBClientEngine):
    """papermill's engine with a `Watch`. The kernel gets its folder from here: a chdir would be one for all threads."""

    @classmethod
    def execute_managed_notebook(cls, manager, kernel_name, *, watch, save, folder, start_timeout, execution_timeout, **_):
        """Execute the notebook of papermill's `manager`, and call `save` now and then; time-outs in seconds."""
        watch.notebook = manager.nb
        quiet = logging.getLogger("labs.quiet")     # what it would print stands in the error that we report
        quiet.setLevel(logging.CRITICAL)
        WatchedClient(manager, watch, save, kernel_name=kernel_name, startup_timeout=start_timeout,
                      timeout=execution_timeout, extra_arguments=list(QUIET_KERNEL),
                      resources={"metadata": {"path": folder}}, log=quiet).execute()


papermill_engines.register("labs", WatchedEngine)


def run_job(job, watch=None):
    """Run one lab and return its `Outcome`; never raises for a fault of the lab or of the disk.

    In `job.folder` lie afterwards the executed notebook (as far as it came), its HTML, `run.json`
    (parameters, circumstances, status, the files it has left), and, if all went well, `results.json` (what
    `show_results` got). The trainings of a run that was stopped, in the same folder, with the same code and
    parameters, are resumed, but by `job.force`; else what the run before has left there by its record is removed.
    While the run goes on, and for ever if this process is killed, `run.json` says "interrupted"; beside it
    lies the notebook as it was some seconds ago.
    """
    watch, record = watch or Watch(), new_record(job)
    watch.started = time.perf_counter()
    error = attempt(begin, job, watch, record) or attempt(execute, job, watch, record) or without_results(watch.notebook)
    stopped, seconds = watch.stopped, time.perf_counter() - watch.started       # a later signal is not what ended the lab
    results = {} if error else find_results(watch.notebook)
    attempt(remove_halves, job.folder)
    fault = attempt(keep, job, watch.notebook, results)
    attempt(note_files, job, watch, record)
    status = "interrupted" if error and stopped else "failed" if error or fault else "ok"
    error = watch.place() if status == "interrupted" else error or fault
    record |= {"status": status, "error": error, "seconds": round(seconds, 3), "cpu_seconds": round(watch.cpu_seconds, 3),
               "peak_memory": watch.peak_memory, "device": results.get("device")}
    if fault := attempt(write_text, job.folder / "run.json", as_json(record)):
        status, error = (status, error) if error else ("failed", fault)
        attempt(overwrite, job.folder / "run.json", record | {"status": status, "error": error})
    watch.notebook = watch.saved = None     # a sweep has many
    return Outcome(job.lab, status, seconds, {} if error else results, error, job.folder.name)


def attempt(action, *arguments):
    """Call `action` and return "", or one line about the error that it raised."""
    try:
        action(*arguments)
        return ""
    except Exception as fault:      # papermill, nbclient, zmq and nbconvert have no common class of errors
        return describe(fault)


def describe(fault):
    """Say in one line what stopped a notebook."""
    if isinstance(fault, papermill.PapermillExecutionError):
        text = str(fault.evalue).strip().splitlines()
        return f"{fault.ename}: {text[0] if text else 'no message'} (cell {fault.exec_count})"
    if isinstance(fault, UsageError):
        return str(fault)
    return f"{type(fault).__name__}: {str(fault).strip() or 'no message'}".splitlines()[0]


def new_record(job):
    """Return what `run.json` says of a run that has not come to its end."""
    return {"lab": job.lab, "status": "interrupted", "error": "the run did not come to its end",
            "parameters": job.parameters, "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "seconds": None, "cpu_seconds": None, "peak_memory": None, "device": None, **circumstances(),
            "files": [], "fingerprint": None}


@cache
def circumstances():
    """Return Python, versions of packages, and the revision of the project, if it is under git."""
    revision, modified = None, False
    with suppress(OSError, subprocess.SubprocessError):     # no git, or not a working tree
        root, revision_here = git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(root) == PROJECT_ROOT:      # a copy of the course may lie in a repository of somebody's own
            revision, modified = revision_here, bool(git("status", "--porcelain", "--untracked-files=no"))
    return {"python": platform.python_version(), "versions": {package: version(package) for package in PACKAGES},
            "revision": revision, "modified": modified}


def git(*arguments):
    """Return what git says about the project."""
    return subprocess.run(["git", "--no-optional-locks", "-C", PROJECT_ROOT, *arguments], check=True, timeout=30,
                          capture_output=True, text=True).stdout


def fingerprint(job):
    """Return a SHA-256 sum of all in the course that decides the figures of a run; raises `UsageError` as `read_lab`.

    That is the code of the notebook, the sources of labutils and the card of the shipped weights, the parameters.
    """
    code = [cell.source for cell in read_lab(job.lab).cells if cell.cell_type == "code"]
    files = [*sorted(Path(__file__).parents[1].glob("*.py")), PRETRAINED_DIR / "card.json"]
    sources = [path.read_text(encoding="utf-8") for path in files if path.exists()]
    parameters = effective_parameters(job.lab, job.parameters)
    parts = [code, sources, {name: value for name, value in parameters.items() if name not in NO_FIGURES}]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def earlier_record(folder):
    """Return what `run.json` says of an earlier run in a folder, or {}; its "files" are a list in any case."""
    try:
        record = dict(json.loads((folder / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):    # missing, or not written by us
        record = {}
    files = record.get("files")     # data: somebody may have edited them
    return {**record, "files": files if isinstance(files, list) else []}


def earlier_records(jobs):
    """Return {folder: record} of the runs that went well in the folders of the jobs and beside them."""
    paths = [path for parent in {job.folder.parent for job in jobs} for path in sorted(parent.glob("*/run.json"))]
    records = {path.parent: earlier_record(path.parent) for path in paths}
    return {folder: record for folder, record in records.items() if record.get("status") == "ok"}


def runs_beside(jobs, records):
    """Return {fingerprint: folder} of the runs in `records` that none of the jobs will write over."""
    own = {job.folder for job in jobs}
    return {str(record.get("fingerprint")): folder for folder, record in records.items() if folder not in own}


def earlier_outcome(job, beside=None):
    """Return the `Outcome` of an earlier run of the same code with the same parameters that went well, or None.

    It lies in the job's folder or, from a sweep that varied other parameters and so chose another name, in one of
    those `beside` it, {fingerprint: folder}.
    """
    try:
        mark = fingerprint(job)
    except (OSError, ValueError):       # its run will say so
        return None
    folders = [job.folder, *([beside[mark]] if beside and mark in beside else [])]
    return next(filter(None, (kept_outcome(job.lab, folder, mark) for folder in folders)), None)


def kept_outcome(lab, folder, mark):
    """Return the `Outcome` of the run in a folder if it went well and has the fingerprint `mark`, or None."""
    try:
        run = earlier_record(folder)
        if run["status"] == "ok" and run["fingerprint"] == mark:
            results = dict(json.loads((folder / "results.json").read_text(encoding="utf-8")))
            return Outcome(lab, "ok", float(run["seconds"]), results, run=folder.name, kept=True)
    except (OSError, ValueError, LookupError, TypeError):   # missing, damaged, or not written by us: run it
        pass
    return None


def wanted(path):
    """Tell whether a file is the run's to keep: not what only resumes a training, nor what is hidden or half-written."""
    return path.suffix != ".state" and not any(part.startswith(".") for part in path.parts)


def files_in(folder):
    """Return {relative path: time of change} of the `wanted` files in a folder, without `run.json` and links."""
    paths = {path.relative_to(folder): path for path in folder.rglob("*")}
    return {name.as_posix(): path.stat().st_mtime_ns for name, path in paths.items()
            if wanted(name) and name != Path("run.json") and path.is_file() and not path.is_symlink()}


def note_files(job, watch, record):
    """Let a record name the files that are the run's: those it had named, and all that were not there before as they are."""
    record["files"] = sorted(name for name, changed in files_in(job.folder).items()
                             if name in record["files"] or watch.found.get(name) != changed)


def remove_files(folder, names):
    """Remove those files in a run's folder that its record names: whatever names it holds, none leads out of the folder."""
    for name in files_in(folder):
        if name in names:
            (folder / name).unlink()


def remove_halves(folder):
    """Remove what a kernel that was killed has left half-written: such a state would not resume anything."""
    for path in folder.rglob(f"{HALF_WRITTEN}*"):
        if path.is_file():
            path.unlink()


def begin(job, watch, record):
    """Make the folder; what an earlier run has said there is no longer true, nor its files, unless it is resumed."""
    job.folder.mkdir(parents=True, exist_ok=True)
    remove_halves(job.folder)
    watch.found, stopped = files_in(job.folder), earlier_record(job.folder)
    (job.folder / "results.json").unlink(missing_ok=True)
    record["files"] = stopped["files"]
    write_text(job.folder / "run.json", as_json(record))
    record["fingerprint"] = fingerprint(job)
    record["resumed"] = (not job.force and stopped.get("fingerprint") == record["fingerprint"] and stopped.get("status") != "ok"
                         and "resume" in effective_parameters(job.lab, {}) and any(job.folder.glob("*.state")))
    if not record["resumed"]:
        remove_files(job.folder, stopped["files"])
        forget_trainings(job)
        watch.found, record["files"] = files_in(job.folder), []
    write_text(job.folder / "run.json", as_json(record))


def execute(job, watch, record):
    """Execute a lab's notebook, which `watch.notebook` holds as far as it came; raises what stopped it."""
    source = lab_path(job.lab)
    parameters = {**job.parameters, "out_dir": str(job.folder), **({"resume": True} if record["resumed"] else {})}
    papermill.execute_notebook(
        as_template(source), None, parameters, engine_name="labs", kernel_name="python3",
        progress_bar=False, autosave_cell_every=0, start_timeout=START_TIMEOUT, execution_timeout=job.timeout,
        watch=watch, save=partial(attempt, autosave, job, watch, record), folder=str(source.parent))


def as_template(path):
    """Return a path as papermill wants it, which fills in parameters where it has braces."""
    return str(path).translate(str.maketrans({"{": "{{", "}": "}}"}))


def autosave(job, watch, record):
    """Write what has changed of the notebook and of the list of files; a fault is none of the run's: `keep` comes yet."""
    text = nbformat.writes(without_progress(deepcopy(watch.notebook)))      # the client still adds to its own
    if text != watch.saved:
        write_text(job.folder / f"{job.lab}.ipynb", text)
        watch.saved = text
    before = record["files"]
    note_files(job, watch, record)
    if record["files"] != before:
        write_text(job.folder / "run.json", as_json(record))


def keep(job, notebook, results):
    """Write the notebook, its HTML and `results.json`, if there are such, each whole or not at all."""
    if notebook is not None:
        write_text(job.folder / f"{job.lab}.ipynb", nbformat.writes(without_progress(notebook)))
        with EXPORTING:
            html, _ = exporter().from_notebook_node(notebook)
        write_text(job.folder / f"{job.lab}.html", html)
    if results:
        write_text(job.folder / "results.json", as_json(results))
        forget_trainings(job)


def forget_trainings(job):
    """Remove the states from which stopped trainings would go on: they are as large as the networks, and more."""
    for state in job.folder.glob("*.state"):
        state.unlink()


@cache
def exporter():
    """Return the exporter to HTML; it is slow to make."""
    return HTMLExporter()


def as_json(data):
    """Return `data` as text to write into a file."""
    return json.dumps(data, indent=2) + "\n"


def write_text(path, text):
    """Write a file whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def without_progress(notebook):
    """Remove the redrawn lines of progress bars from the outputs, and return the notebook."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs
                            if not (output.output_type == "stream" and output.name == "stderr" and "\r" in output.text)]
    return notebook


def overwrite(path, record):
    """Put a record in the place of what stands in a file, and in no more room: that much even a full disk has given already.

    What is too long loses names of files, then the end of the error.
    """
    room = path.stat().st_size
    while len(text := json.dumps(record, separators=(",", ":"))) > room and (record["files"] or record["error"]):
        part = "files" if record["files"] else "error"
        record = record | {part: record[part][:-1]}
    with path.open("r+", encoding="utf-8") as file:
        file.write(text.ljust(room))


def find_results(notebook):
    """Return the figures that the last `show_results` of a notebook emitted, or {}."""
    for cell in reversed(notebook.cells):
        for output in cell.get("outputs", []):
            found = output.get("data", {}).get("application/json")
            if isinstance(found, dict):     # a lab may display other JSON as well
                return found
    return {}


def without_results(notebook):
    """Return "", or one line if no figures are in a notebook that has run."""
    return "" if find_results(notebook) else "the notebook ran, but show_results was not called in it"


def table(outcomes):
    """Return the outcomes as a table in plain text: run, status, seconds, key figures."""
    rows = [("lab", "status", "seconds", "key figures")]
    rows += [(o.run or o.lab, "ok (kept)" if o.kept else o.status, f"{o.seconds:.0f}", o.error or key_figures(o.results))
             for o in outcomes]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([*(text.ljust(width) for text, width in zip(row, widths)), row[3]]) for row in rows)


def key_figures(results, n=4):
    """Return the first figures of a lab in one line; what every lab has is left out."""
    common = ("epochs", "seconds", "images_per_second", "device", "dataset")
    figures = [(name, value) for name, value in results.items()
               if name not in common and isinstance(value, (int, float)) and not isinstance(value, bool)]
    return ", ".join(f"{name} {value:.4g}" for name, value in figures[:n])
