"""The labs as a student meets them, in JupyterLab on a small screen: nothing red, no line cut, pictures that fit on it.

A headless browser opens and saves each lab as it is stored, and runs one with tiny parameters. The tests run where
Chromium and the Python package playwright are installed (no download of a browser is needed).
"""

import re
import secrets
import socket
import subprocess
import time
import urllib.request

import nbformat
import pytest
from helpers import BIN, LABS, ONE_CORE, PROJECT_ROOT, code_cells, notebook_path, page_flaws, prepare_copy

from labutils.instructor.pages import as_page

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
KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
SCREEN = {"width": 1366, "height": 768}
OPEN = """async name => {
    const panel = await window.jupyterapp.commands.execute('docmanager:open', {path: name});
    await panel.context.ready;
    await panel.revealed;
}"""
# [cell, text] of what is red, [cell, description] of a picture that is not there, and [cell, kind, its width, that of
# its box] of what is wider than its box; long lines of an output are not cut but wrapped, which spoils a table as well
FLAWS = """async () => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.notebookConfig = {...notebook.notebookConfig, windowingMode: 'none'};      // all cells are rendered
    await Promise.all(notebook.widgets.map(cell => cell.ready));
    const all = selector => [...notebook.node.querySelectorAll(selector)];
    for (let n = -1, formulas; n !== (formulas = all('mjx-container').length); n = formulas) {
        await new Promise(done => setTimeout(done, 300));
    }
    all('mjx-assistive-mml').forEach(text => text.remove());        // for screen readers: takes room, unseen
    const cellOf = node => notebook.widgets.find(cell => cell.node.contains(node)).model.id;
    const texts = all('.jp-OutputArea-output pre'), kinds = ['stderr', 'error'];
    texts.forEach(text => { text.style.whiteSpace = 'pre'; });
    const wide = [...texts, ...all('.jp-OutputArea-output, .cm-scroller, .jp-RenderedMarkdown')]
        .filter(box => box.scrollWidth > box.clientWidth + 1)
        .map(box => [cellOf(box), box.className || 'text', box.scrollWidth, box.clientWidth]);
    texts.forEach(text => { text.style.whiteSpace = ''; });
    const missing = all('img').filter(img => !img.naturalWidth).map(img => [cellOf(img), img.alt]);
    return [...wide, ...missing, ...kinds.flatMap(kind => all(`[data-mime-type="application/vnd.jupyter.${kind}"]`))
        .map(red => [cellOf(red), red.textContent.slice(0, 200)])];
}"""
SAVE_AND_CLOSE = """async () => {
    const panel = window.jupyterapp.shell.currentWidget;
    await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;     // which JupyterLab writes into the notebook
    await new Promise(done => setTimeout(done, 100));
    await panel.context.save();
    await panel.sessionContext.shutdown();
    panel.close();
}"""
SHOW_CELL = """async index => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = index;
    await notebook.scrollToItem(index);
    notebook.widgets.forEach((cell, i) => { cell.node.id = i === index ? 'shown' : ''; });
}"""
SLIDER_PICTURE = "#shown .widget-interact img"
# pixels: from the first slider to the end of the picture, the height for both, and the picture's width and own width
SIZES = """selector => {
    const picture = document.querySelector(selector), box = picture.getBoundingClientRect();
    const top = picture.closest('.widget-interact').getBoundingClientRect().top;
    const there = window.jupyterapp.shell.currentWidget.content.node.clientHeight;
    return [box.bottom - top, there, box.width, picture.naturalWidth];
}"""
# as `make solutions` starts it
HOOK = re.search(r"--ContentsManager\S+", (PROJECT_ROOT / "Makefile").read_text())[0]


def sliders(cells):
    """Return the indices of the cells that make a slider."""
    return [i for i, cell in enumerate(cells) if re.search(r"^interact\(", "".join(cell["source"]), flags=re.M)]


# the browser adds sliders and live curves to what nbval runs in every lab
WITH_SLIDERS = [lab for lab in LABS if sliders(code_cells(notebook_path(lab)))]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """JupyterLab on a folder; gives the folder, and the address of a new workspace, with {} for its name."""
    folder = tmp_path_factory.mktemp("jupyter")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "log.txt").open("w")
    process = subprocess.Popen(
        [BIN / "jupyter", "lab", "--no-browser", "--allow-root", "--expose-app-in-browser", f"--port={port}",
         "--ServerApp.port_retries=0", "--IdentityProvider.token=test", f"--notebook-dir={folder}", HOOK],
        stdout=log, stderr=log, cwd=folder, env={**ONE_CORE, "JUPYTER_CONFIG_DIR": str(folder / "config"),
                                                 "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")})
    # a workspace for each page: the default one would open what the page before has left
    address = f"http://127.0.0.1:{port}/lab/workspaces/{{}}?token=test"
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


@pytest.fixture
def page(browser, server):
    """JupyterLab on a small screen, without a notebook."""
    page = browser.new_page(viewport=SCREEN)
    page.set_default_timeout(300_000)
    page.goto(server[1].format(secrets.token_hex(4)))
    page.wait_for_function("window.jupyterapp !== undefined")
    page.evaluate("async () => { await window.jupyterapp.restored; }")
    yield page
    page.close()


def test_a_lab_that_is_opened_shows_no_flaw_and_saving_it_changes_nothing(page, server):
    folder, flaws, changed = server[0], [], []
    for lab in LABS:
        stored = notebook_path(lab).read_bytes().replace(b'"version": "3.', b'"version": "3.0.')   # another Python
        copy = folder / f"{lab}.ipynb"
        copy.write_bytes(stored)
        page.evaluate(OPEN, copy.name)
        flaws += [f"{lab}: {flaw}" for flaw in page.evaluate(FLAWS)]
        page.evaluate(SAVE_AND_CLOSE)
        if copy.read_bytes() != stored:
            changed.append(lab)
    assert changed == []
    assert not flaws, "\n".join(flaws)


@pytest.mark.parametrize("lab", WITH_SLIDERS)
def test_run_all_shows_no_flaw_and_a_slider_fits_on_the_screen_and_moves_its_picture(page, server, lab):
    folder = server[0] / "tiny"
    page.evaluate(OPEN, f"tiny/{prepare_copy(lab, folder).name}")
    cells = page.evaluate(RUN_ALL)
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert all(cell["execution_count"] for cell in cells if cell["cell_type"] == "code" and cell["source"])
    assert any("image/png" in output.get("data", {}) for output in outputs)
    live = "Curves of the training so far"      # drawn while the network trains, and then removed
    assert any(live in html for html in page.evaluate("window.shown")) and live not in str(cells)
    for index in sliders(cells):
        move_slider(page, index)
        needed, there, width, own_width = page.evaluate(SIZES, SLIDER_PICTURE)
        assert needed <= there and width <= own_width, "a student has to scroll between a slider and its picture"
    assert page.evaluate(FLAWS) == []


def move_slider(page, index):
    """Show the cell with this index, and move its first slider until its picture is another one."""
    page.evaluate(SHOW_CELL, index)
    before = page.locator(SLIDER_PICTURE).first.get_attribute("src")     # the picture itself, as a data address
    handle = page.locator("#shown .noUi-handle").first
    handle.wait_for(state="visible")
    handle.focus()
    for _ in range(15):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function("([selector, old]) => ![old, undefined].includes(document.querySelector(selector)?.src)",
                           arg=[SLIDER_PICTURE, before], timeout=30_000)
    page.wait_for_function(f"() => {KERNEL}.status === 'idle'")


@pytest.mark.parametrize("lab", LABS)
def test_the_page_of_a_lab_needs_no_network_and_nobodys_eyes(browser, tmp_path, lab):
    page = tmp_path / f"{lab}.html"
    page.write_text(as_page(nbformat.read(notebook_path(lab), 4), lab), encoding="utf-8")
    flaws = page_flaws(browser, page)
    assert not flaws, "\n".join(flaws)
