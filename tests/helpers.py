"""What the tests share: the definitions of a notebook, its cells, and programs of the environment."""

import ast
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from labutils.data import SOURCES
from labutils.paths import PROJECT_ROOT

NOTEBOOKS = sorted((PROJECT_ROOT / "notebooks").glob("*.ipynb"))
BIN = Path(sys.executable).parent
ONE_CORE = {**os.environ, "OMP_NUM_THREADS": "1"}   # the threads of two runs, side by side, would wait for each other
RUNNING = set()     # processes of the tests

needs_mnist = pytest.mark.skipif(SOURCES["mnist"].find() is None,
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


@contextmanager
def started(*arguments, **options):
    """Start a program of the environment, from the project's root and on one core; have it as long as the block lasts."""
    program, *rest = map(str, arguments)
    with subprocess.Popen([BIN / program, *rest], cwd=PROJECT_ROOT, text=True, **{"env": ONE_CORE, **options}) as process:
        RUNNING.add(process)
        try:
            yield process
        finally:
            process.kill()
            RUNNING.discard(process)


def command(*arguments, timeout=900, **options):
    """Run a program as `started` does; return the finished process."""
    with started(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        stdout, stderr = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


# ------------------------------------------------------------------------------- runs, two at a time

def executes(*functions):
    """Mark a test that looks at what the functions return: its fixture `executed` lists that.

    A function gets by name `folder`, empty and its own; the test's parameters; fixtures of the module. Those of
    all the selected tests of a file are called two at a time, from its first such test on; tests that mark the same
    function and have the same parameters share one call. What a function raises, each of its tests raises.
    """
    return pytest.mark.executes.with_args(*functions)


def calls(item):
    """Return {key: (function, parameters)} of what a test has marked."""
    parameters, name = (item.callspec.params, item.callspec.id) if hasattr(item, "callspec") else ({}, "")
    return {(function, name): (function, parameters) for mark in item.iter_markers("executes") for function in mark.args}
