"""What the tests share: the definitions of a notebook, its cells, and programs of the environment."""

import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
import urllib.request
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
import torch
import yaml
from apart import apart, execute
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image

from labutils import Training, get_loaders, save_checkpoint, seed_everything
from labutils.checkpoints import read_checkpoint
from labutils.data import SOURCES, InMemoryLoader
from labutils.instructor.bands import bands_of, read_expected
from labutils.notebooks import definitions  # noqa: F401
from labutils.paths import PROJECT_ROOT

NOTEBOOK_DIR = PROJECT_ROOT / "notebooks"
NOTEBOOKS = sorted(NOTEBOOK_DIR.glob("*.ipynb"))
LABS = [path.stem for path in NOTEBOOKS]
BIN = Path(sys.executable).parent
ONE_CORE = {**os.environ, "OMP_NUM_THREADS": "1"}   # the threads of two runs, side by side, would wait for each other

needs_mnist = pytest.mark.skipif(SOURCES["mnist"].find() is None,
                                 reason="the real MNIST is not here: set LABS_DATA_DIR")


# settings of hypothesis; its fixtures are the test's, which serve all examples
quick = settings(max_examples=60, deadline=None, derandomize=True,
                 suppress_health_check=[HealthCheck.function_scoped_fixture])
anything = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
                     st.lists(st.integers(), max_size=3))


def check_named(name, value, call):
    """Check that a call with the argument `name` equal to `value` goes well, or that its `ValueError` names both."""
    try:
        call()
    except ValueError as error:
        assert f"{name}={value!r}" in str(error)


class Boobytrap:
    """What a pickle can hold: loading it runs code, which sets `sys.boobytrap`."""

    def __reduce__(self):
        return exec, ("import sys; sys.boobytrap = True",)


def write_picture(path, array):
    """Write a uint8 array as a picture file; make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def no_proxy(monkeypatch):
    """Take all proxies out of the environment, and let urllib look there again."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)


def idx(shape, content=b"", kind=8):
    """Return the bytes of a file in MNIST's format; kind 8 is uint8."""
    return bytes((0, 0, kind, len(shape))) + struct.pack(f">{len(shape)}I", *shape) + content


def notebook_path(lab):
    """Return the path of a lab's notebook."""
    return NOTEBOOK_DIR / f"{lab}.ipynb"


def code_cells(path):
    """Return the code cells of a notebook."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def cell_source(lab, cell_id):
    """Return the source of one code cell of a lab."""
    [source] = [cell.source for cell in code_cells(notebook_path(lab)) if cell.id == cell_id]
    return source


def tags(cell):
    """Return the tags of a cell."""
    return cell.metadata.get("tags", [])


def trains(lab):
    """Tell whether a lab trains anything, and so has the parameters and the files of a training."""
    return any("Training(" in cell.source for cell in code_cells(notebook_path(lab)))


def parameters_cell(lab):
    """Return the cell of a lab's parameters."""
    [cell] = [cell for cell in code_cells(notebook_path(lab)) if "parameters" in tags(cell)]
    return cell


# by the ends of the parameters' names: runs that must end well, but need not show anything
TINY = {"epochs": 1, "steps": 4, "every": 2, "images": 100, "n_samples": 32, "batch_size": 32, "limit": 128,
        "dataset": "digits", "device": "cpu"}


def tiny(lab, **more):
    """Return the lesson's parameters of a lab that are to be smaller in the shortest run, and more: {name: value}."""
    names = re.findall(r"^(\w+):", parameters_cell(lab).source, flags=re.M)
    values = {name: value for name in names for end, value in TINY.items() if name == end or name.endswith(f"_{end}")}
    return {**values, **more}


def tiny_quick(lab, **more):
    """Return `tiny` on top of the lab's reduced settings."""
    return yaml.safe_load((NOTEBOOK_DIR / f"quick/{lab}.yml").read_text(encoding="utf-8")) | tiny(lab, **more)


def options(parameters):
    """Return parameters as options of papermill and `labs run`."""
    return [word for name, value in parameters.items() for word in ("-p", name, str(value))]


def run_apart(notebook, lab, parameters):
    """Execute a version of a lab's notebook without a kernel; return it with outputs."""
    return apart(execute, notebook, lab, NOTEBOOK_DIR, parameters)


def bands_so_far(lab, profile):
    """Return the bands of a lab for a profile, or the limits of its metrics as long as it has no bands."""
    expected = read_expected(lab)
    return bands_of([lab], profile) if profile in expected else {lab: expected["metrics"]}


def prepare_copy(lab, folder, **more):
    """Copy a lab with tiny parameters and its stored outputs, as papermill makes it; return the copy's path."""
    folder.mkdir(exist_ok=True)
    copy = folder / f"{lab}.ipynb"
    done = command("papermill", notebook_path(lab), copy, "--prepare-only",
                   *options(tiny_quick(lab, **{"out_dir": folder / "out", **more})))
    assert done.returncode == 0, done.stderr
    return copy


def solutions(notebook):
    """Return {grade_id: cell} of the cells that hold solutions."""
    return {cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells
            if cell.metadata.get("nbgrader", {}).get("solution")}


PARAMETERS = """value: int = 1  # becomes the loss
dataset: str = "digits"  # which data set
epochs: int = 2  # passes
rate: float = 0.1  # learning rate
pretrained: bool = False  # load weights
seed: int = 0  # of all
device: str = "cpu"  # where
resume: bool = False  # go on
out_dir: str = "runs/x"  # files"""
RESULT = ("from IPython.display import display\n"       # as show_results, without its imports
          "display({'application/vnd.labutils.metrics+json': {'loss': value, 'device': 'cpu'}, 'text/plain': ''}, "
          "raw=True)")


def write_lab(folder, name, sources=(RESULT,), parameters=PARAMETERS):
    """Write a small lab: its heading, the cell of its parameters, and a code cell for each source."""
    cells = [nbformat.v4.new_markdown_cell(f"# Lab {name}"),
             nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
             *map(nbformat.v4.new_code_cell, sources)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / f"{name}.ipynb")


def read_json(path):
    """Return what a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


PATIENCE = 300      # seconds; only what is broken takes so long


def until(condition):
    """Wait until something that another process does is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@contextmanager
def started(*arguments, **options):
    """Start a program of the environment, from the project's root and on one core; kill it when the block ends."""
    program, *rest = map(str, arguments)
    options = {"cwd": PROJECT_ROOT, "text": True, "env": ONE_CORE, **options}
    with subprocess.Popen([BIN / program, *rest], **options) as process:
        try:
            yield process
        finally:
            process.kill()


def command(*arguments, timeout=900, **options):
    """Run a program as `started` does; return the finished process."""
    with started(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
        stdout, stderr = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


# ------------------------------------------------------------------------------ kill -9 and resume

class KilledHalfway(InMemoryLoader):
    """A loader that kills its process, as `kill -9` would, in epoch 3."""

    epoch = 0

    def __iter__(self):
        self.epoch += 1
        for i, batch in enumerate(super().__iter__()):
            if self.epoch == 3 and i == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch


def train_four_epochs(lab, networks, call, out, resume, loader_class):
    """Train what `check_resume` says; keep weights, history and the next random numbers; return what was printed."""
    torch.set_num_threads(1)
    lab = definitions(lab)
    train, test = get_loaders("digits", 16, limit=100, image_range=(0, 1))
    train.__class__ = loader_class
    lab.epochs, lab.batch_size, lab.latent_dim, lab.image_range = 4, 16, 8, (0, 1)
    lab.out_dir, lab.resume, lab.train_loader, lab.test_loader = str(out), resume, train, test
    seed_everything(0)
    networks = eval(f"dict({networks})", {"torch": torch, "lab": lab})
    training = Training("resumed", out, {}, resume=resume, **networks)
    with redirect_stdout(StringIO()) as said:
        exec(call, {"torch": torch, "lab": lab, "epochs": 4, "train": train, "test": test, "training": training,
                    **networks})
    config = {"history": training.history, "pictures": len(training.pictures), "next": torch.rand(3).tolist()}
    save_checkpoint(out / "end.safetensors", config=config, **networks)
    return said.getvalue()


def check_resume(lab, networks, call, folder):
    """Train alone, and again up to a `kill -9` in epoch 3; resume, and compare weights, history and random numbers.

    networks  code: the networks by name, such as "vae=lab.VAE((784, 20, 4))"
    call      code: the call of the lab's `fit` for `epochs` epochs, with `training`, `train`, `test` and the networks
    """
    alone, killed = folder / "alone", folder / "killed"
    apart(train_four_epochs, lab, networks, call, alone, False, InMemoryLoader)
    with pytest.raises(BrokenProcessPool):
        apart(train_four_epochs, lab, networks, call, killed, False, KilledHalfway)
    assert read_checkpoint(killed / "resumed.state")[0]["epoch"] == 2
    assert "going on after epoch 2" in apart(train_four_epochs, lab, networks, call, killed, True, InMemoryLoader)
    expected, found = (read_checkpoint(out / "end.safetensors") for out in (alone, killed))
    assert found[0] == expected[0] and all(torch.equal(found[1][key], expected[1][key]) for key in expected[1])


# --------------------------------------------------------------------------------------- pages of HTML

# pictures without a description of their own or without content, TeX that is not code, links that lead nowhere
PAGE_FLAWS = r"""() => {
    const all = selector => [...document.querySelectorAll(selector)], seen = {};
    const look = node => node === document.body ? '' : `${look(node.parentNode)} ${node.tagName}.${node.className}`;
    for (const node of all('body *')) {     // axe looks at the contrast of two elements of each kind: it is slow
        const kind = node.closest('math, svg') ? '' : look(node);
        if (kind && (seen[kind] = (seen[kind] ?? 0) + 1) <= 2
            && [...node.childNodes].some(part => part.nodeType === 3 && part.data.trim())) node.dataset.sample = '';
    }
    const pictures = all('img').filter(picture => !picture.naturalWidth || !picture.alt.trim()
        || /without a description|no description/i.test(picture.alt));
    const unseen = all('math').filter(formula => !formula.closest('details') && !formula.getBoundingClientRect().width);
    const leads = link => link.protocol.startsWith('http')
        || document.getElementById(decodeURIComponent(link.hash.slice(1)));
    const text = document.body.cloneNode(true);
    text.querySelectorAll('code:not(.tex), pre, script, style').forEach(part => part.remove());
    return [...pictures.map(picture => `picture ${picture.alt}`), ...unseen.map(formula => formula.outerHTML),
            ...all('a[href]').filter(link => !leads(link)).map(link => `link ${link.getAttribute('href')}`),
            ...(text.textContent.match(/[$].{0,40}|\\[a-zA-Z]+/g) ?? []).map(tex => `TeX ${tex}`)];
}"""

# what axe, which is slow, need not look at: words of code like those that are samples, and what is in a formula
THIN = """() => {
    const all = selector => document.querySelectorAll(selector);
    all('pre span:not([data-sample])').forEach(word => word.replaceWith(...word.childNodes));
    all('math').forEach(formula => formula.replaceChildren('x'));
}"""


def leads(folder, flaw):
    """Tell whether a flaw is a link to a file that is there, seen from the folder of the page."""
    kind, _, target = flaw.partition(" ")
    return kind == "link" and (folder / unquote(target)).exists()


def page_flaws(browser, path):
    """Return what is wrong with a file of HTML that is opened without a network, in the light and in the dark theme."""
    Axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe
    page, flaws = browser.new_page(offline=True, color_scheme="light", reduced_motion="reduce"), []
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or flaws.append(request.url))
    page.goto(path.as_uri())
    flaws += [flaw for flaw in page.evaluate(PAGE_FLAWS) if not leads(path.parent, flaw)]
    page.evaluate(THIN)
    contrast = "color-contrast"
    checks = [("light", None, {"rules": {contrast: {"enabled": False}}}),
              *((theme, "[data-sample]", {"runOnly": [contrast]}) for theme in ("light", "dark"))]
    for theme, part, options in checks:
        page.emulate_media(color_scheme=theme)
        found = Axe().run(page, part, {"resultTypes": ["violations"], **options}).response["violations"]
        flaws += [f"{theme}: {rule['id']}: {node['html'][:200]}" for rule in found for node in rule["nodes"]]
    page.close()
    return flaws
