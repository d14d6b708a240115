"""`labs refresh`: what it stores is of a run that went well, and says nothing of the machine."""

import json
import re

import nbformat
import pytest
from helpers import RESULT, read_json, write_lab

from labutils.checkpoints import read_checkpoint
from labutils.instructor import cli
from labutils.instructor.record import find_metrics
from labutils.instructor.refresh import normalise

SMALL_LABS = {"01_good": [RESULT], "02_raises": ["raise RuntimeError('the <b>reason</b>')", RESULT]}
SAVES = """import torch
from labutils import save_checkpoint
config = {'dataset': dataset, 'epochs': epochs, 'seed': seed, 'metrics': {'loss': 0.5}}
save_checkpoint(out_dir + '/net.safetensors', config=config, net=torch.nn.Linear(1, 1))"""
LIVELY = ["import sys, time, warnings\nfor n in range(3):\n    print('line', n)\n    sys.stdout.flush()\n"
          "    sys.stderr.write('on stderr\\n')\n    sys.stderr.flush()\n    time.sleep(0.01 + time.time() % 0.05)\n"
          "warnings.warn('its path has the number of the process in it')",
          "from tqdm.auto import tqdm\nfor n in tqdm(range(3)):\n    pass",
          "from tqdm import tqdm\nfor n in tqdm(range(3)):\n    print('epoch', n)\n    sys.stdout.flush()",
          "import ipywidgets\nipywidgets.IntSlider(3)",
          "from labutils import show\nimport numpy as np\nshow(np.eye(8, dtype=np.uint8), 'a picture')",
          "import matplotlib.pyplot as plt\nfigure, axes = plt.subplots()\naxes.plot([1, 2])\nplt.show()",
          "from IPython.display import display\nshown = display('first', display_id=True)\nshown.update('last')",
          "from labutils import show_results\nshow_results({'loss': 1.0, 'seconds': time.time()})"]


@pytest.fixture(autouse=True)
def shipped(tmp_path, monkeypatch):
    """The folder that takes the shipped weights."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for module in ("checkpoints", "instructor.weights"):
        monkeypatch.setattr(f"labutils.{module}.PRETRAINED_DIR", folder)
    return folder


def test_a_lab_that_raises_is_not_refreshed_and_the_others_are(notebooks, capsys):
    before = (notebooks / "02_raises.ipynb").read_text()
    assert cli.main(["refresh", "02_raises", "01_good"]) == 1
    out, err = capsys.readouterr()
    assert "02_raises: failed, " in err and "RuntimeError: the <b>reason</b> (cell 3)\n" in err
    assert (notebooks / "02_raises.ipynb").read_text() == before and out == "01_good: loss 1\n"


def test_weights_are_shipped_from_a_new_training_at_the_lessons_values(notebooks, tmp_path, shipped):
    write_lab(notebooks, "01_good", [SAVES, RESULT.replace("value", "resume")])
    lab = notebooks / "01_good.ipynb"
    lab.write_text(lab.read_text().replace('"name": "python3"', '"name": "ada-env"'))      # a kernel of one's own
    folder = tmp_path / "runs/refresh/01_good"      # with a stopped training, and weights that somebody put there
    folder.mkdir(parents=True)
    for name in ("vae.state", "old.safetensors"):
        (folder / name).write_text("")
    assert cli.main(["refresh", "01_good"]) == 0
    assert nbformat.read(lab, 4).metadata.kernelspec.name == "python3"
    assert read_json(folder / "run.json")["parameters"] == {} and not read_json(folder / "results.json")["loss"]
    assert sorted(path.name for path in shipped.iterdir()) == ["README.md", "card.json", "net.safetensors"]
    about = read_json(shipped / "card.json")["net"]
    assert about["lab"] == "01_good" and about["metrics"] == {"loss": 0.5}
    tensors = read_checkpoint(shipped / "net.safetensors")[1].values()
    assert {str(tensor.dtype) for tensor in tensors} == {"torch.float16"}


def test_normalise_keeps_what_is_said_and_drops_what_a_run_adds():
    output, new_cell = nbformat.v4.new_output, nbformat.v4.new_code_cell
    first = new_cell("a = 1", execution_count=6, metadata={"tags": ["parameters"]})
    cell = new_cell("1", execution_count=8, metadata={"tags": ["t"], "papermill": {"duration": 3}, "execution": {}})
    cell.outputs = [output("stream", name="stderr", text="\r 10%"), output("stream", name="stdout", text="kept\n"),
                    output("stream", name="stderr", text="/tmp/ipykernel_77/1.py:1: UserWarning"),
                    output("stream", name="stdout", text="came in two parts, for the time it took"),
                    output("execute_result", {"text/plain": "1", "application/json": {"a": [1.0, {"b": 0.5}]}},
                           execution_count=8, metadata={"isolated": True})]
    injected = new_cell("out_dir = '/home/me'", execution_count=7, metadata={"tags": ["injected-parameters"]})
    notebook = nbformat.v4.new_notebook(
        cells=[first, injected, cell, new_cell("skipped")],
        metadata={"papermill": {"a": 1}, "widgets": {}, "language_info": {"name": "python", "version": "3.1"}})
    ids = [first.id, cell.id, notebook.cells[-1].id]
    normalise(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python", "version": "3.1"}, "JupyterLab would add it"
    assert [cell.id for cell in notebook.cells] == ids, "without the cell that gave the run its folder"
    assert [cell.execution_count for cell in notebook.cells] == [1, 2, None] and cell.metadata == {"tags": ["t"]}
    assert [o.get("text", "") for o in cell.outputs] == ["kept\ncame in two parts, for the time it took", ""]
    assert json.dumps(cell.outputs[1].data["application/json"]) == '{"a": [1, {"b": 0.5}]}'
    assert cell.outputs[1].execution_count == 2 and cell.outputs[1].metadata == {} and find_metrics(notebook) == {}


def test_a_second_refresh_differs_only_in_times(notebooks):
    write_lab(notebooks, "01_good", LIVELY)
    path = notebooks / "01_good.ipynb"
    stored = nbformat.read(path, as_version=4)
    stored.cells[-1].outputs = [nbformat.v4.new_output("stream", text="stored")]
    stored.cells += [nbformat.v4.new_code_cell("1", metadata={"tags": ["skip-execution"]}, execution_count=9,
                                               outputs=[nbformat.v4.new_output("stream", text="stored")])]
    nbformat.write(stored, path)
    found = []
    for _ in range(2):
        assert cli.main(["refresh", "01_good"]) == 0
        found.append(path.read_text())
    without_times = [re.sub(r'(seconds[": ]+)[0-9.]+', r"\1", text) for text in found]
    assert found[0] != found[1] and without_times[0].splitlines() == without_times[1].splitlines()
    cells = nbformat.reads(found[0], as_version=4).cells
    outputs = json.dumps([cell.get("outputs", []) for cell in cells])
    for part in ("line 2", "epoch 2", "image/png", "a picture", "IntSlider", "'last'", "loss"):
        assert part in outputs
    assert not any(part in found[0] for part in ("stored", "stderr\"", "widget-view", "runs/refresh"))
    assert [cell.id for cell in cells] == [cell.id for cell in stored.cells]
    assert [cell.execution_count for cell in cells[1:]] == [*range(1, len(LIVELY) + 2), None]
