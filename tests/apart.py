"""Notebooks without a kernel, in processes of their own that begin with all that takes seconds to import."""

import multiprocessing
import os
import zlib
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path

import matplotlib
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbformat.v4 import new_code_cell, new_output
from traitlets.config import Config

# also what torch imports in the first step of an optimiser
SLOW = ["torch", "torch._dynamo", "torchvision", "cv2", "matplotlib.pyplot", "scipy.stats", "scipy.optimize",
        "sklearn.datasets", "IPython.core.interactiveshell", "nbformat", "labutils.evaluation", "labutils.training"]


def apart(function, *arguments):
    """Call a function of a module in a process of its own; return what it returns, or raise what it raises."""
    if os.name == "nt":
        context = multiprocessing.get_context("spawn")
    else:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(SLOW)
    with ProcessPoolExecutor(1, context) as process:
        return process.submit(function, *arguments).result()


def execute(notebook, name, folder, parameters):
    """Execute a notebook in `folder`, with other values of its parameters, as papermill would; return it with outputs.

    As in a kernel, get_ipython() finds a shell, which displays pictures. Python takes a line of the notebook for one
    of the file "lab NAME, cell ID". The metadata `files` of a cell have {name: checksum} of what is in `out_dir` then.
    """
    os.chdir(folder)
    matplotlib.use("agg")
    shell, ids = InteractiveShell.instance(config=Config(HistoryManager={"hist_file": ":memory:"})), []
    shell.compile.get_code_name = lambda *_: f"lab {name}, cell {ids[-1]}"
    position = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    lines = ["# Parameters", *(f"{key} = {value!r}" for key, value in parameters.items())]
    notebook.cells.insert(position + 1, new_code_cell("\n".join(lines)))
    for cell in notebook.cells:
        if cell.cell_type == "code" and "skip-execution" not in cell.metadata.get("tags", []):
            ids.append(cell.id)
            with capture_output() as said:
                shell.run_cell(cell.source, store_history=True).raise_error()
            cell.outputs = [new_output("stream", text=said.stdout),
                            *(new_output("display_data", output.data) for output in said.outputs)]
            cell.metadata["files"] = {path.name: checksum(path, path.stat().st_mtime_ns)
                                      for path in Path(parameters["out_dir"]).glob("*.*")}
    return notebook


@lru_cache(None)
def checksum(path, written):
    """Return a checksum of a file as it was written then; its tensors of a checkpoint, which also has times."""
    content = path.read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little") if path.suffix in (".safetensors", ".state") else 0
    return zlib.crc32(content[begin:])
