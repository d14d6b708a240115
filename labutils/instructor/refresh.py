"""Execute the committed notebooks at the lesson's values; store their outputs, normalised, and their weights."""

import tempfile
import time
from pathlib import Path

import nbformat
import papermill

from .. import evaluation
from ..checkpoints import read_card
from ..paths import replacing
from .labs import lab_out_dir, lab_path
from .run import QUIET_KERNEL, START_TIMEOUT, as_template, find_results
from .weights import ship


def refresh(name):
    """Execute a lab as it stands and write it back with its new outputs; return its figures.

    The weights that it has saved go to checkpoints/. All is left as it was if a cell fails. What
    differs between two runs without saying anything (kernel's names, progress bars and whatever else comes
    on stderr, ids and state of widgets, times but for those that a lab prints) is taken out.
    """
    path, start = lab_path(name), time.time()
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / path.name
        papermill.execute_notebook(as_template(path), str(part), cwd=str(path.parent), kernel_name="python3",
                                   start_timeout=START_TIMEOUT, extra_arguments=QUIET_KERNEL)
        notebook = normalise(nbformat.read(part, as_version=4))
    with replacing(path) as part:
        nbformat.write(notebook, part)
    for weights in sorted(lab_out_dir(name).glob("*.safetensors")):
        if weights.stat().st_mtime >= start:        # not those of an earlier run with other parameters
            ship(weights, name)
    return find_results(notebook)


def refresh_classifier():
    """Train the classifier that judges samples, and ship it; return its figures."""
    path = evaluation.train_shipped()
    ship(path, "evaluation")
    return read_card()[path.stem]["figures"]


def normalise(notebook):
    """Keep cells, ids, tags, counts and outputs of a notebook; drop all that a run adds beside."""
    notebook.metadata = {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
                         "language_info": {"name": "python"}}
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in ("tags", "jupyter", "nbgrader")}
        if not cell.metadata.get("tags"):
            cell.metadata.pop("tags", None)
        if cell.metadata.get("jupyter", {}).get("source_hidden") is not True:
            cell.metadata.pop("jupyter", None)
        if "outputs" in cell:
            cell.outputs = lasting(cell.outputs)
        for output in cell.get("outputs", []):
            if "metadata" in output:        # of a picture its description stays
                output.metadata = {mime: {"alt": about["alt"]} for mime, about in output.metadata.items()
                                   if isinstance(about, dict) and "alt" in about}
    return notebook


def lasting(outputs):
    """Return outputs without stderr and ids of widgets, and as one what was printed in one go, however it has come."""
    kept = []
    for output in outputs:
        output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
        if kept and output.output_type == kept[-1].output_type == "stream" and output.name == "stdout":
            kept[-1].text += output.text
        elif output.get("name") != "stderr":
            kept.append(output)
    return kept
