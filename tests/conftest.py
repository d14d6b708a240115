"""What the tests share: the definitions of a notebook, and where the real MNIST lies."""

import ast
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from labutils.data import find_idx
from labutils.paths import PROJECT_ROOT

NOTEBOOKS = sorted((PROJECT_ROOT / "notebooks").glob("*.ipynb"))
BIN = Path(sys.executable).parent

# a shell that starts the tests in the background leaves Ctrl-C and a closed terminal ignored, by children too
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, handler)

needs_mnist = pytest.mark.skipif(find_idx("mnist") is None,
                                 reason="the real MNIST is not here: set LABS_DATA_DIR")


def code_cells(path):
    """Return the code cells of a notebook."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def cell_source(lab, cell_id):
    """Return the source of one code cell of a lab."""
    [source] = [cell.source for cell in code_cells(PROJECT_ROOT / "notebooks" / f"{lab}.ipynb") if cell.id == cell_id]
    return source


def write_lab(folder, name, parameters, sources, heading=False):
    """Write a small lab: the cell of its parameters, then a code cell for each source; above them its heading, if asked for."""
    cells = [nbformat.v4.new_markdown_cell(f"# Lab {name}")] if heading else []
    cells += [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}), *map(nbformat.v4.new_code_cell, sources)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / f"{name}.ipynb")


def definitions(lab):
    """Execute what a lab's notebook defines (imports, parameters, constants, functions, classes).

    Nothing is trained or drawn. The result has the definitions as attributes; they share one
    namespace, so that `lab.epochs = 1` reaches the functions.
    """
    kept = []
    for cell in code_cells(PROJECT_ROOT / "notebooks" / f"{lab}.ipynb"):
        kept += [node for node in ast.parse(cell.source).body if is_definition(node)]
    space = SimpleNamespace()
    exec(compile(ast.Module(kept, []), f"{lab}.ipynb", "exec"), vars(space))
    return space


def is_definition(node):
    """Tell whether a statement only defines something."""
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Name) and target.id.isupper() for target in node.targets)
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.AnnAssign))


def command(*arguments, timeout=900, **options):
    """Run a program of the environment from the project's root; return the finished process."""
    program, *rest = map(str, arguments)
    return subprocess.run([BIN / program, *rest], cwd=PROJECT_ROOT, capture_output=True, text=True,
                          timeout=timeout, **options)
