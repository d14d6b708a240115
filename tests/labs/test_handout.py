"""The zip that students get: in an empty folder its README, followed word for word, ends in a solved exercise.

The environment is the one of the tests, since another one would take 6.5 GB: `make lab` finds it in `.venv`.
"""

import os
import re
import socket
import stat
import subprocess
import time
import urllib.request
import zipfile

import nbformat
import pytest
from helpers import BIN, LABS, ONE_CORE, notebook_path, solutions

from labutils.instructor.release import release

pytestmark = [pytest.mark.slow, pytest.mark.browser]

LAB = LABS[0]
OPEN = """async path => {
    const app = window.jupyterapp;
    const panel = await app.commands.execute('docmanager:open', {path});
    await panel.context.ready;
    await panel.sessionContext.ready;
    app.shell.activateById(panel.id);
}"""
CELLS = """() => {
    const cells = window.jupyterapp.shell.currentWidget.content.model.cells;
    return Array.from({length: cells.length}, (_, i) => cells.get(i).toJSON());
}"""
WRITE = """([id, source]) => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = notebook.widgets.findIndex(cell => cell.model.id === id);
    notebook.activeCell.model.sharedModel.setSource(source);
}"""
RUN = "async command => { await window.jupyterapp.commands.execute(command); }"     # such as Shift+Enter


@pytest.fixture
def address(tmp_path):
    """The address of the JupyterLab that `make lab` opens in the folder of the zip, and that folder."""
    release(tmp_path / "course")
    with zipfile.ZipFile(tmp_path / "course/student.zip") as archive:
        archive.extractall(tmp_path / "empty")
    folder = tmp_path / "empty/student"
    readme = (folder / "README.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^```sh\n(make .*)\n```$", readme, re.M)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    borrow_environment(folder, f"--no-browser --allow-root --expose-app-in-browser --port={port} "
                               "--ServerApp.port_retries=0 --IdentityProvider.token=test")
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(command.split(), cwd=folder, stdout=log, stderr=log, start_new_session=True,
                                   env={**ONE_CORE, "JUPYTER_CONFIG_DIR": str(tmp_path / "config"), "UV": ""})
    try:
        wait_for(f"http://127.0.0.1:{port}/api/status?token=test")
        opened = re.search(r"default_url=(\S+)", (tmp_path / "log.txt").read_text())[1]
        yield f"http://127.0.0.1:{port}{opened}?token=test", folder
    finally:
        os.killpg(process.pid, 15)
        process.wait(20)


def borrow_environment(folder, options):
    """Make `.venv` of `folder` as make leaves it, with the programs of this environment and the labutils of the zip."""
    programs = folder / ".venv/bin"
    programs.mkdir(parents=True)
    for name in ("python", "pip"):
        (programs / name).symlink_to(BIN / name)
    jupyter = programs / "jupyter"
    jupyter.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec "{BIN}/jupyter" "$@" {options}\n')
    jupyter.chmod(jupyter.stat().st_mode | stat.S_IXUSR)
    (folder / ".venv/installed").write_text(f"{folder}\n")


def wait_for(url):
    """Wait until a server answers."""
    for _ in range(120):
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("no server")


def said(page):
    """Return {id of a cell: what running it has shown as text} of the open notebook."""
    page.wait_for_function("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'")
    return {cell["id"]: "".join(str(output.get("text") or output.get("evalue") or "") for output in cell["outputs"])
            for cell in page.evaluate(CELLS) if cell["cell_type"] == "code"}


def test_the_readme_of_the_zip_leads_to_a_solved_exercise_and_its_check(browser, address):
    url, folder = address
    page = browser.new_page()
    page.set_default_timeout(300_000)
    page.goto(url)
    page.wait_for_function("window.jupyterapp !== undefined")
    page.evaluate("async () => { await window.jupyterapp.restored; }")
    page.evaluate(OPEN, f"notebooks/{LAB}.ipynb")
    cells = page.evaluate(CELLS)
    [parameters] = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    page.evaluate(WRITE, [parameters["id"], parameters["source"].replace('"mnist"', '"digits"')])
    page.evaluate(RUN, "notebook:run-all-cells")
    stopped = next(id for id, text in said(page).items() if "put your answer into" in text)
    assert (folder / f"runs/{LAB}").is_dir(), "the labutils of the zip"

    exercise, check = next((a, b) for a, b in zip(cells, cells[1:]) if b["id"] == stopped)
    name = exercise["metadata"]["nbgrader"]["grade_id"]
    solution = solutions(nbformat.read(notebook_path(LAB), as_version=4))[name].source
    [answer] = re.findall(r"### BEGIN SOLUTION\n(.*)\n *### END SOLUTION", solution, re.S)
    source = re.sub(r"(# YOUR CODE HERE\n).*$", lambda stub: stub[1] + answer, exercise["source"])
    page.evaluate(WRITE, [exercise["id"], source])
    for _ in (exercise, check):
        page.evaluate(RUN, "notebook:run-cell-and-select-next")
    assert said(page)[check["id"]] == f"{name}: right.\n"
    page.close()
