"""The labs as a student meets them: JupyterLab in a headless browser, Run All, no error, sliders that move the picture.

Runs where Chromium and the Python package playwright are installed (no download of a browser is needed).
"""

import re
import secrets
import socket
import subprocess
import time
import urllib.request

import pytest
from helpers import BIN, LABS, ONE_CORE, code_cells, notebook_path, prepare_copy

pytestmark = pytest.mark.browser

RUN_ALL = """async () => {
    const panel = window.jupyterapp.shell.currentWidget;
    await panel.context.ready;
    await panel.sessionContext.ready;
    window.shown = [];      // the HTML that is displayed or redrawn, also that which is gone at the end
    panel.sessionContext.session.kernel.iopubMessage.connect((_, {header, content}) => {
        if (header.msg_type.endsWith('display_data')) {
            window.shown.push(content.data['text/html'] ?? '');
        }
    });
    await window.jupyterapp.commands.execute('notebook:run-all-cells');
    const cells = panel.content.model.cells;
    return Array.from({length: cells.length}, (_, i) => cells.get(i).toJSON());
}"""
SHOW_CELL = """async index => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = index;
    await notebook.scrollToItem(index);
}"""
SLIDER_PICTURE = ".widget-interact img"


def sliders(cells):
    """Return the indices of the cells that make a slider."""
    return [i for i, cell in enumerate(cells) if re.search(r"^interact\(", "".join(cell["source"]), flags=re.M)]


# the browser adds sliders and live curves to what nbval runs in every lab
WITH_SLIDERS = [lab for lab in LABS if sliders(code_cells(notebook_path(lab)))]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab on copies of the labs with tiny parameters; gives (folder, address with {} for the notebook)."""
    folder = tmp_path_factory.mktemp("jupyter")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "log.txt").open("w")
    process = subprocess.Popen(
        [BIN / "jupyter", "lab", "--no-browser", "--allow-root", "--expose-app-in-browser", f"--port={port}",
         "--ServerApp.port_retries=0", "--IdentityProvider.token=test", f"--notebook-dir={folder}"],
        stdout=log, stderr=log, cwd=folder, env={**ONE_CORE, "JUPYTER_CONFIG_DIR": str(folder / "config"),
                                                 "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")})
    # a workspace for each page: the default one would open what the page before has left
    address = f"http://127.0.0.1:{port}/lab/workspaces/{{workspace}}/tree/{{notebook}}?token=test"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status?token=test", timeout=2)
                break
            except OSError:
                time.sleep(0.5)
        yield folder, address
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def opened(request, browser, server):
    """Open a lab and Run All, once for all tests of it; gives the page and the cells with their outputs."""
    (folder, address), lab = server, request.param
    prepare_copy(lab, folder)
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(address.format(workspace=secrets.token_hex(4), notebook=f"{lab}.ipynb"))
    page.wait_for_function("""name => {
        const panel = window.jupyterapp?.shell?.currentWidget;
        return panel?.context?.path === name && panel.content.model?.cells?.length > 10;
    }""", arg=f"{lab}.ipynb", timeout=60_000)
    page.set_default_timeout(300_000)
    yield page, page.evaluate(RUN_ALL)
    page.close()


@pytest.mark.parametrize("opened", WITH_SLIDERS, indirect=True)
def test_run_all_ends_without_an_error_cell_and_a_slider_moves_the_picture(opened):
    page, cells = opened
    outputs = [(cell["id"], output) for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert not [(i, output) for i, output in outputs if output["output_type"] == "error"]
    assert all(cell["execution_count"] for cell in cells if cell["cell_type"] == "code" and cell["source"])
    assert any("image/png" in output.get("data", {}) for _, output in outputs)
    live = "Curves of the training so far"      # drawn while the network trains, and then removed
    assert any(live in html for html in page.evaluate("window.shown")) and live not in str(cells)
    assert not [(i, output) for i, output in outputs if output.get("name") == "stderr"], "a student sees red"
    move_slider(page, sliders(cells)[0])


def move_slider(page, index):
    """Show the cell with this index, and move its slider until its picture is another one."""
    page.evaluate(SHOW_CELL, index)
    before = page.locator(SLIDER_PICTURE).first.get_attribute("src")     # the picture itself, as a data address
    handle = page.locator(".noUi-handle").first
    handle.wait_for(state="visible")
    handle.focus()
    for _ in range(15):
        page.keyboard.press("ArrowLeft")        # the slider of lab 05 begins at its right end
    page.wait_for_function("([selector, old]) => ![old, undefined].includes(document.querySelector(selector)?.src)",
                           arg=[SLIDER_PICTURE, before], timeout=30_000)
