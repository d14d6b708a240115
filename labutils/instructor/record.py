"""What is known of a run: run.json and the files in the run's folder.

`Record` has the fields of run.json, and `read_run` is the only function that reads a run's folder: the report, the
bands, and whatever looks for earlier runs get a `Run` from it, even if the folder is damaged.
"""

import hashlib
import json
import platform
import re
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from ..paths import HALF_WRITTEN, PROJECT_ROOT, replacing
from ..results import METRICS_TYPE
from .labs import effective_parameters, lab_path, read_lab, with_labs_used

LABUTILS = Path(__file__).parents[1]
CARD = PROJECT_ROOT / "checkpoints/card.json"         # of the shipped weights
NO_METRICS = ("instructor", "checks", "plots.py")       # the parts of labutils on which no metric depends
NEUTRAL_PARAMETERS = ("resume", "tensorboard_dir")      # parameters on which no metric depends
PACKAGES = ("labutils", "torch", "torchvision", "numpy", "papermill")


class Job(NamedTuple):
    """One lab to run.

    parameters  {name: value}, which replace the lab's own values
    folder      for all that the run writes
    timeout     seconds for one cell
    force       start from the beginning, whatever an earlier run has left in the folder
    """
    lab: str
    parameters: dict
    folder: Path
    timeout: int = 4 * 3600
    force: bool = False

    @property
    def name(self):
        return self.folder.name


class Outcome(NamedTuple):
    """How a run ended: "ok", "failed" or "interrupted"; its metrics, or the error.

    kept    of an earlier run that is not repeated: a line that says so
    """
    lab: str
    status: str
    seconds: float
    metrics: dict
    error: str = ""
    name: str = ""
    kept: str = ""


@dataclass
class Record:
    """The fields of run.json. Status: "ok", "failed", "interrupted", or "damaged" if the file does not say."""
    lab: str = ""
    status: str = "damaged"
    error: str = ""
    parameters: dict = field(default_factory=dict)
    started: str = ""                   # ISO 8601, UTC
    seconds: float = None
    cpu_seconds: float = None           # of the kernel
    peak_memory: float = None           # of the kernel, in bytes
    device: str = None
    python: str = ""
    versions: dict = field(default_factory=dict)
    revision: str = None                # of the project, if it is under git
    modified: bool = False              # the working tree differed from the revision
    files: list = field(default_factory=list)       # names of what the run has left in its folder
    fingerprint: str = None
    resumed: bool = False               # a training of an earlier run was resumed


FIELDS = {about.name: about.type for about in fields(Record)}


@dataclass
class Run(Record):
    """A run as its folder tells it. What is damaged in the folder is named in `error`; `names` are all files in it."""
    folder: Path = None
    metrics: dict = field(default_factory=dict)
    names: list = field(default_factory=list)

    @property
    def name(self):
        return self.folder.name


# ---------------------------------------------------------------------------------------- reading

def read_run(folder):
    """Return the `Run` in a folder, or None if there is none.

    Never raises: a field that is missing or has the wrong type keeps its default. Metrics are read only if the run
    went well; those that are not finite numbers are None.
    """
    try:
        names = [path.name for path in sorted(folder.iterdir(), key=natural) if not path.name.startswith(".")]
    except OSError:     # not a folder, or one that may not be read
        return None
    if folder.name.startswith(".") or not any(name == "run.json" or name.endswith(".ipynb") for name in names):
        return None
    problems = []
    found = {name: value for name, value in read_object(folder / "run.json", problems).items()
             if name in FIELDS and value is not None}
    good = {name: value for name, value in found.items()
            if (is_number(value) if FIELDS[name] is float else isinstance(value, FIELDS[name]))}
    problems += [f"run.json is damaged: {name}" for name in found if name not in good]
    run = Run(**{"lab": folder.name.partition(",")[0], **good}, folder=folder, names=names)
    if run.status == "ok":
        run.metrics = read_object(folder / "results.json", problems)
    run.error = "; ".join(filter(None, [run.error, *problems]))
    return run


def read_object(path, problems):
    """Return the JSON object in a file, or {} and a line about the fault in `problems`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: None)
        if isinstance(found, dict):
            return found
        problems.append(f"{path.name} is damaged: it does not hold an object")
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        problems.append(f"{path.name} is damaged: {type(error).__name__}")
    return {}


def is_number(value):
    """Tell whether a value is a number to calculate with: finite, not a bool, and below 1e100."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e100


def natural(path):
    """Return a key that sorts seed=10 after seed=2."""
    return [int(part) if k % 2 else part for k, part in enumerate(re.split("([0-9]+)", path.name))]


def find_metrics(notebook):
    """Return the metrics that the last `show_results` of a notebook emitted, or {}."""
    for cell in reversed(notebook.cells):
        for output in cell.get("outputs", []):
            if METRICS_TYPE in output.get("data", {}):
                return output.data[METRICS_TYPE]
    return {}


def earlier_runs(jobs):
    """Return the runs that went well in the folders above those of the jobs."""
    folders = [folder for parent in {job.folder.parent for job in jobs} if parent.is_dir()
               for folder in sorted(parent.iterdir())]
    return [run for run in map(read_run, folders) if run and run.status == "ok"]


# ---------------------------------------------------------------------------------------- writing

def new_record(job):
    """Return the record of a run that has just started; until it is complete it says "interrupted"."""
    return Record(job.lab, "interrupted", "the run did not come to its end", job.parameters,
                  datetime.now(timezone.utc).isoformat(timespec="seconds"), **circumstances())


def as_json(data):
    """Return the text of a JSON file; `data` may be a `Record`."""
    return json.dumps(data, indent=2, default=vars) + "\n"


def write_text(path, text):
    """Write a file completely or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


@cache
def circumstances():
    """Return the version of Python, those of packages, and the revision of the project, if it is under git."""
    revision, modified = None, False
    with suppress(OSError, subprocess.SubprocessError):     # no git, or not a working tree
        root, revision_here = git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(root) == PROJECT_ROOT:      # a copy of the course may be inside another repository
            revision, modified = revision_here, bool(git("status", "--porcelain", "--untracked-files=no"))
    return {"python": platform.python_version(), "versions": {package: version(package) for package in PACKAGES},
            "revision": revision, "modified": modified}


def git(*arguments):
    """Return the output of git for the project."""
    return subprocess.run(["git", "--no-optional-locks", "-C", PROJECT_ROOT, *arguments], check=True, timeout=30,
                          capture_output=True, text=True, encoding="utf-8").stdout


# ------------------------------------------------------------------------------------ fingerprint

def fingerprint(job):
    """Return a SHA-256 sum of everything in the course that the metrics of a run depend on.

    That is the code of the notebook and of those from which it takes definitions, the modules of labutils except for
    checks, plots and the `labs` command, the card of the shipped weights, and the parameters. Raises `UsageError` as
    `read_lab` does.
    """
    modules = [path for path in sorted(LABUTILS.rglob("*.py")) if path.relative_to(LABUTILS).parts[0] not in NO_METRICS]
    sources = [path.read_text(encoding="utf-8") for path in [*modules, CARD] if path.exists()]
    parameters = {name: value for name, value in effective_parameters(job.lab, job.parameters).items()
                  if name not in NEUTRAL_PARAMETERS}
    labs = {name: lab_path(name) for name in with_labs_used([job.lab])}
    parts = [[lab_code(name, path, path.stat().st_mtime_ns) for name, path in labs.items()], sources, parameters]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


@cache
def lab_code(name, *_state):
    """Return the code of a lab's cells, read once for each state of its file."""
    return [cell.source for cell in read_lab(name).cells if cell.cell_type == "code"]


# ------------------------------------------------------------------------------------------ files

def files_in(folder):
    """Return {relative path: time of change} of the files that count as results, without run.json and links.

    States of trainings only serve to resume them, and hidden files are incomplete: neither counts.
    """
    paths = {path.relative_to(folder): path for path in folder.rglob("*")}
    return {name.as_posix(): path.stat().st_mtime_ns for name, path in paths.items()
            if name.suffix != ".state" and not any(part.startswith(".") for part in name.parts)
            and name != Path("run.json") and path.is_file() and not path.is_symlink()}


def remove_files(folder, names):
    """Remove those of the `files_in` a folder whose names a record lists. No name leads out of the folder."""
    for name in files_in(folder):
        if name in names:
            (folder / name).unlink()


def remove_half_written(folder):
    """Remove the incomplete files that a killed kernel has left."""
    for path in folder.rglob(f"{HALF_WRITTEN}*"):
        if path.is_file():
            path.unlink()
