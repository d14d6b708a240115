"""Errors of ours in a real kernel: one line each; what is not ours keeps its traceback."""

import re

import nbformat
import pytest
from helpers import NOTEBOOKS, PROJECT_ROOT, code_cells
from nbclient import NotebookClient

START = """import torch
from labutils import get_loaders, load_checkpoint, set_up, collage
import labutils.data.source as source
source.why_silent = lambda urls: "no server answers"
def look(x):
    return collage(x, n_cols=4)"""
# a cell, and what its line says: the name and the value, and the way out
OURS = {
    "get_loaders('mnist', data_dir='{folder}')":
        ["DatasetError: ", "'mnist'", "data_dir='{folder}'", "no server answers", 'dataset="digits"', "(line 1 of the"],
    "import math\n\nget_loaders('mnist', data_dir='{folder}/typo')":
        ["DatasetError: data_dir='{folder}/typo': there is no folder", "make the folder", "(line 3 of the cell)"],
    "get_loaders('mnits')": ["BadValue: unknown data set 'mnits'", "digits", "(line 1 of the cell)"],
    "set_up(0, 'cpu', '{folder}', epochs=0)": ["BadValue: epochs=0", "at least 1"],
    "set_up(0, 'cpu', '/dev/null/below')": ["BadFolder: cannot create the folder /dev/null/below", "choose another"],
    "load_checkpoint('{folder}/vae.safetensors')": ["CheckpointError: there is no", "/vae.safetensors", "train with"],
    "x = torch.ones(8, 784)\nlook(x)": ["BadValue: images of shape (8, 784)", "(N, H, W)", "(line 2 of the cell)"],
}
OTHERS = {      # a mistake in a student's code, and a bug
    "def step(x):\n    return x @ x\nstep(torch.ones(2, 3))": ["RuntimeError", "return x @ x", "step(torch.ones"],
    "int('seven')": ["ValueError", "int('seven')", "Traceback"],
}


@pytest.mark.slow
def test_a_kernel_tells_errors_of_ours_in_one_line_and_keeps_other_tracebacks(tmp_path, monkeypatch):
    monkeypatch.delenv("LABS_DATA_DIR", raising=False)
    cells = [START, *(source.format(folder=tmp_path) for source in [*OURS, *OTHERS])]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(notebook, allow_errors=True, kernel_name="python3").execute()
    assert not notebook.cells[0].outputs
    for cell, parts in zip(notebook.cells[1:], [*OURS.values(), *OTHERS.values()], strict=True):
        [output] = cell.outputs
        text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.traceback))
        assert all(part.format(folder=tmp_path) in text for part in parts), text
        assert (parts in OTHERS.values()) == ("\n" in text), text


def test_what_we_raise_is_told_in_one_line():
    """Apart from an error that labutils itself catches."""
    sources = {path: path.read_text() for path in sorted((PROJECT_ROOT / "labutils").rglob("*.py"))
               if not {"instructor", "checks"} & set(path.parts)}
    sources |= {path: "\n".join(cell.source for cell in code_cells(path)) for path in NOTEBOOKS}
    found = {(path.name, line) for path, source in sources.items()
             for line in re.findall(r"raise (?:Value|OS|Runtime|Type)Error\(.*", source)}
    assert found == {("checkpoints.py", 'raise ValueError("its config is not a JSON object")')}
