"""Run labs with papermill; keep what they made, also when they fail."""

import json
import os
import platform
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from typing import NamedTuple

import nbformat
import papermill
from nbconvert import HTMLExporter

from ..paths import replacing
from .labs import lab_path

START_TIMEOUT = 120     # seconds until the kernel must answer
QUIET_KERNEL = ["--IPKernelApp.log_level=ERROR"]    # its warnings would stand between our lines
PACKAGES = ("labutils", "torch", "torchvision", "numpy", "papermill")


class Outcome(NamedTuple):
    """How the run of one lab ended: status "ok" or "failed", and the figures or the error."""
    lab: str
    status: str
    seconds: float
    results: dict
    error: str = ""


class Job(NamedTuple):
    """One lab to run: its parameters, the folder that takes what it writes, seconds for a cell."""
    lab: str
    parameters: dict
    folder: str
    timeout: int
    bar: bool = False


def run_job(job):
    """Run one lab and return its `Outcome`; never raises for a fault of the lab.

    In `job.folder` lie afterwards the executed notebook (as far as it came), its HTML, `run.json`
    (parameters, versions, status), and, if all went well, `results.json` (what `show_results` got).
    """
    folder, source, start = job.folder, lab_path(job.lab), time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").unlink(missing_ok=True)      # of an earlier run: no longer true
    results, error = {}, ""
    with replacing(folder / f"{job.lab}.ipynb") as part:
        try:
            papermill.execute_notebook(
                str(source), str(part), {**job.parameters, "out_dir": str(folder)},
                cwd=str(source.parent), kernel_name="python3", progress_bar=job.bar,
                start_timeout=START_TIMEOUT, execution_timeout=job.timeout, extra_arguments=QUIET_KERNEL)
        except Exception as fault:      # papermill, nbclient and zmq have no common class of errors
            error = describe(fault)
        if part.stat().st_size == 0:    # it failed before the first cell
            part.write_bytes(source.read_bytes())
        notebook = without_progress(nbformat.read(part, as_version=4))
        nbformat.write(notebook, part)
    if not error:
        results = find_results(notebook)
        error = "" if results else "the notebook ran, but show_results was not called in it"
    seconds = time.perf_counter() - start
    outcome = Outcome(job.lab, "failed" if error else "ok", seconds, results, error)
    write_report(job, outcome, notebook)
    return outcome


def describe(fault):
    """Say in one line what stopped a notebook."""
    if isinstance(fault, papermill.PapermillExecutionError):
        return f"{fault.ename}: {fault.evalue} (cell {fault.exec_count})"
    return f"{type(fault).__name__}: {str(fault).strip() or 'no message'}".splitlines()[0]


def without_progress(notebook):
    """Remove the redrawn lines of progress bars from the outputs, and return the notebook."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs
                            if not (output.output_type == "stream" and output.name == "stderr" and "\r" in output.text)]
    return notebook


def find_results(notebook):
    """Return the figures that the last `show_results` of a notebook emitted, or {}."""
    for cell in reversed(notebook.cells):
        for output in cell.get("outputs", []):
            if "application/json" in output.get("data", {}):
                return output.data["application/json"]
    return {}


def write_report(job, outcome, notebook):
    """Write the HTML, `run.json` and `results.json` of a run, each whole or not at all."""
    html, _ = HTMLExporter().from_notebook_node(notebook)
    run = {"lab": job.lab, "status": outcome.status, "error": outcome.error, "seconds": outcome.seconds,
           "parameters": job.parameters, "python": platform.python_version(),
           "versions": {package: version(package) for package in PACKAGES}}
    texts = {f"{job.lab}.html": html, "run.json": json.dumps(run, indent=2) + "\n"}
    if outcome.status == "ok":
        texts["results.json"] = json.dumps(outcome.results, indent=2) + "\n"
    for name, text in texts.items():
        with replacing(job.folder / name) as part:
            part.write_text(text, encoding="utf-8")


def run_jobs(jobs, n_workers=1):
    """Run jobs, `n_workers` at a time, and yield their outcomes as they are done, in order."""
    if n_workers == 1:
        for job in jobs:
            print(f"{job.lab}: running …", file=sys.stderr, flush=True)
            yield report_line(run_job(job))
        return
    # each kernel gets its share of the cores: more threads than cores would slow all of them down
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // n_workers)))
    with ProcessPoolExecutor(n_workers, mp_context=get_context("spawn")) as pool:
        for outcome in pool.map(run_job, jobs):
            yield report_line(outcome)


def report_line(outcome):
    """Print how a lab ended, at once, and return the outcome."""
    text = f"{outcome.lab}: {outcome.status}, {outcome.seconds:.0f} s"
    print(f"{text}: {outcome.error}" if outcome.error else text, file=sys.stderr, flush=True)
    return outcome


def table(outcomes):
    """Return the outcomes as a table in plain text: lab, status, seconds, key figures."""
    rows = [("lab", "status", "seconds", "key figures")]
    rows += [(o.lab, o.status, f"{o.seconds:.0f}", o.error or key_figures(o.results)) for o in outcomes]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([*(text.ljust(width) for text, width in zip(row, widths)), row[3]]) for row in rows)


def key_figures(results, n=4):
    """Return the first figures of a lab in one line; what every lab has is left out."""
    common = ("epochs", "seconds", "images_per_second", "device", "dataset")
    figures = [(name, value) for name, value in results.items()
               if name not in common and isinstance(value, (int, float)) and not isinstance(value, bool)]
    return ", ".join(f"{name} {value:.4g}" for name, value in figures[:n])
