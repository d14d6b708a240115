"""Run one lab, and save what it made and what is known of the run, also when it fails."""

import time
from contextlib import contextmanager
from copy import deepcopy

import nbformat

from .kernel import Watch, describe, execute
from .labs import UsageError, effective_parameters, lab_path
from .pages import as_page
from .record import (Outcome, Run, as_json, files_in, find_metrics, fingerprint, new_record, read_run, remove_files,
                     remove_half_written, write_text)

KEPT = "kept from an earlier run"


def run_job(job, watch=None):
    """Run one lab and return its `Outcome`; never raises for a fault of the lab or of the disk.

    Afterwards `job.folder` has the executed notebook (as far as it came), its HTML, run.json, and, if all went well,
    results.json with the metrics that `show_results` got. If an earlier run in the folder was stopped, with the same
    code and parameters, its trainings are resumed, unless `job.force` is set. Otherwise the files that it has left are
    removed. While the run goes on, and for ever if this process is killed, run.json says "interrupted", and the
    notebook is saved every few seconds.
    """
    return Runner(job, watch or Watch()).run()


class Runner:
    """A job in progress: its kernel, its record, the files of its folder. The first of its `faults` is reported."""

    def __init__(self, job, watch):
        self.job, self.watch, self.record, self.faults = job, watch, new_record(job), []
        self.files_before, self.saved_text = {}, ""

    def run(self):
        """Do all steps and return the `Outcome`; the later ones also after a fault in an earlier one."""
        job, watch, record, metrics = self.job, self.watch, self.record, {}
        watch.started = time.perf_counter()
        with self.noting_faults():
            self.prepare()
            self.execute()
            if not (metrics := find_metrics(watch.notebook)):
                raise UsageError("the notebook ran, but show_results was not called in it")
        stopped, seconds = watch.stopped, time.perf_counter() - watch.started       # a later signal did not end the lab
        for step in (lambda: remove_half_written(job.folder), lambda: self.save_outputs(metrics), self.note_files):
            with self.noting_faults():
                step()
        record.status, record.error = self.verdict(stopped)
        record.seconds, record.cpu_seconds = round(seconds, 3), round(watch.cpu_seconds, 3)
        record.peak_memory, record.device = watch.peak_memory, metrics.get("device")
        with self.noting_faults():
            self.write_record()
        watch.notebook, (status, error) = None, self.verdict(stopped)       # a sweep has many notebooks
        return Outcome(job.lab, status, seconds, {} if error else metrics, error, job.name)

    @contextmanager
    def noting_faults(self):
        """Note an exception of the block, and go on after it."""
        try:
            yield
        except Exception as fault:      # papermill, nbclient, zmq and nbconvert have no common class of errors
            self.faults.append(fault)

    def verdict(self, stopped):
        """Return (status, error); `stopped`: a signal ended the lab."""
        if not self.faults:
            return "ok", ""
        if stopped:
            return "interrupted", f"stopped {self.watch.where()}"
        return "failed", describe(self.faults[0], self.watch)

    def prepare(self):
        """Make the folder, and remove what an earlier run has left there, unless it is resumed."""
        job, record = self.job, self.record
        job.folder.mkdir(parents=True, exist_ok=True)
        remove_half_written(job.folder)
        self.files_before, earlier = files_in(job.folder), read_run(job.folder) or Run(folder=job.folder)
        (job.folder / "results.json").unlink(missing_ok=True)
        record.files = earlier.files
        self.write_record()         # from now on it no longer says that the earlier run went well
        record.fingerprint = fingerprint(job)
        record.resumed = (not job.force and earlier.fingerprint == record.fingerprint and earlier.status != "ok"
                          and "resume" in effective_parameters(job.lab, {}) and any(job.folder.glob("*.state")))
        if not record.resumed:
            remove_files(job.folder, earlier.files)
            remove_states(job.folder)
            self.files_before, record.files = files_in(job.folder), []
        self.write_record()

    def execute(self):
        """Execute the lab's notebook; raises what stopped it."""
        parameters = self.job.parameters | {"out_dir": str(self.job.folder)}
        if above := tensorboard_dir(self.job):      # in one folder, two runs would be one curve
            parameters["tensorboard_dir"] = f"{above}/{self.job.name}"
        if self.record.resumed:
            parameters["resume"] = True
        execute(lab_path(self.job.lab), parameters, self.watch, self.autosave, self.job.timeout)

    def autosave(self):
        """Write the notebook and the list of files, if they have changed."""
        text = nbformat.writes(without_progress(deepcopy(self.watch.notebook)))     # the client still adds to its own
        if text != self.saved_text:
            write_text(self.job.folder / f"{self.job.lab}.ipynb", text)
            self.saved_text = text
        files = self.record.files
        self.note_files()
        if self.record.files != files:
            self.write_record()

    def save_outputs(self, metrics):
        """Write the notebook and its HTML, if the run got that far, and the metrics, if there are any."""
        folder, lab, notebook = self.job.folder, self.job.lab, self.watch.notebook
        if notebook is not None:
            write_text(folder / f"{lab}.ipynb", nbformat.writes(without_progress(notebook)))
            write_text(folder / f"{lab}.html", as_page(notebook, self.job.name))
        if metrics:
            write_text(folder / "results.json", as_json(metrics))
            remove_states(folder)

    def note_files(self):
        """List the files of the run in its record: those listed already, and all that are new or have changed."""
        self.record.files = sorted(name for name, changed in files_in(self.job.folder).items()
                                   if name in self.record.files or self.files_before.get(name) != changed)

    def write_record(self):
        """Write run.json."""
        write_text(self.job.folder / "run.json", as_json(self.record))


def tensorboard_dir(job):
    """Return the folder for TensorBoard's event files that a job names, or that its lab has as its own."""
    return effective_parameters(job.lab, job.parameters).get("tensorboard_dir")


def remove_states(folder):
    """Remove the states of trainings: they are larger than the networks, and of no use after a run that went well."""
    for state in folder.glob("*.state"):
        state.unlink()


def without_progress(notebook):
    """Remove the redrawn lines of progress bars from the outputs, and return the notebook."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs
                            if not (output.output_type == "stream" and output.name == "stderr" and "\r" in output.text)]
    return notebook


def kept_outcomes(jobs, earlier):
    """Return {folder of a job: Outcome} for the jobs that need not run, since one of the `earlier` runs did the same.

    The same is: the same code and parameters, and the run went well. It may be in the job's own folder or, if an
    earlier sweep varied other parameters and so named its folders differently, in another one that no job writes to.
    """
    in_folder = {run.folder: run for run in earlier if not run.error and run.seconds is not None}
    targets, kept = {job.folder for job in jobs}, {}
    elsewhere = {run.fingerprint: run for folder, run in in_folder.items() if folder not in targets}
    for job in jobs:
        try:
            key = None if job.force else fingerprint(job)
            note = KEPT + ("; --force runs it again, for TensorBoard" if tensorboard_dir(job) else "")
        except (OSError, ValueError):       # the run will report the fault
            continue
        for run in (in_folder.get(job.folder), elsewhere.get(key)):
            if key and run and run.fingerprint == key:
                kept.setdefault(job.folder, Outcome(job.lab, "ok", run.seconds, run.metrics, "", run.name, note))
    return kept


def table(outcomes):
    """Return the outcomes as a table in plain text: run, status, seconds, first metrics."""
    rows = [("lab", "status", "seconds", "metrics")]
    for outcome in outcomes:
        rows.append((outcome.name or outcome.lab, "ok (kept)" if outcome.kept else outcome.status,
                     f"{outcome.seconds:.0f}", outcome.error or first_metrics(outcome.metrics)))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([*(text.ljust(width) for text, width in zip(row, widths)), row[3]]) for row in rows)


def first_metrics(metrics, n=4):
    """Return the first metrics of a lab in one line, without those that every lab has."""
    common = ("epochs", "seconds", "images_per_second", "device", "dataset")
    found = [(name, value) for name, value in metrics.items()
             if name not in common and isinstance(value, (int, float)) and not isinstance(value, bool)]
    return ", ".join(f"{name} {value:.4g}" for name, value in found[:n])
