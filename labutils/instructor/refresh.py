"""Execute the committed notebooks at the lesson's values; store their outputs, normalised, and their weights."""

import nbformat

from .. import evaluation
from ..checkpoints import read_card
from ..paths import replacing
from .jobs import run_jobs
from .jupyter import KERNEL
from .labs import lab_path, runs_folder
from .record import Job, read_run
from .weights import ship


def refresh(name):
    """Execute a lab as it is, write it back with its new outputs, and ship the weights that it has saved.

    It runs as `labs run` would run it, in runs/refresh/NAME, from the beginning. If it does not go well, notebook and
    weights stay as they were. Returns the `Outcome`.
    """
    job = Job(name, {}, runs_folder("refresh") / name, force=True)
    [outcome] = run_jobs([job])
    if outcome.status == "ok":
        notebook = normalise(nbformat.read(job.folder / f"{name}.ipynb", as_version=4))
        with replacing(lab_path(name)) as part:
            nbformat.write(notebook, part)
        for file in read_run(job.folder).files:
            if file.endswith(".safetensors"):
                ship(job.folder / file, name)
    return outcome


def refresh_classifier():
    """Train the classifier that judges samples, and ship it; return its metrics."""
    path = evaluation.train_shipped()
    ship(path, "evaluation")
    return read_card()[path.stem]["metrics"]


def normalise(notebook):
    """Take out of an executed notebook what a run adds and what differs from run to run; return it.

    What stays are the lab's own cells, ids, tags and counts, and its outputs but for stderr and ids of widgets. Times
    differ from run to run only where the lab itself prints them. JupyterLab would save the notebook as it is then.
    """
    notebook.metadata = {"kernelspec": KERNEL, "language_info": notebook.metadata["language_info"]}
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    executed = [cell for cell in notebook.cells if cell.get("execution_count")]
    for count, cell in enumerate(executed, start=1):
        cell.execution_count = count
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in ("tags", "jupyter", "nbgrader")}
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
        if cell.metadata.get("jupyter", {}).get("source_hidden") is not True:
            cell.metadata.pop("jupyter", None)
        if "outputs" in cell:
            cell.outputs = normal_outputs(cell)
    return notebook


def normal_outputs(cell):
    """Return the outputs of a cell without stderr and ids of widgets; text that was printed in parts is joined."""
    outputs = []
    for output in cell.outputs:
        output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
        if "data" in output:
            output.data = as_in_javascript(output.data)
        if "metadata" in output:        # of a picture its description and its width stay
            output.metadata = {mime: {key: about[key] for key in ("alt", "width") if key in about}
                               for mime, about in output.metadata.items() if isinstance(about, dict)}
        if "execution_count" in output:
            output.execution_count = cell.execution_count
        if outputs and output.output_type == outputs[-1].output_type == "stream" and output.name == "stdout":
            outputs[-1].text += output.text
        elif output.get("name") != "stderr":
            outputs.append(output)
    return outputs


def as_in_javascript(value):
    """Return what JSON holds as JupyterLab writes it, which has no 1.0, only 1."""
    if isinstance(value, dict):
        return {key: as_in_javascript(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_in_javascript(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
