"""The `labs` command on small notebooks that go well or fail; test_run.py has the other ways to end."""

import json
import re

import nbformat
import pytest
from helpers import write_lab

from labutils.instructor import cli, labs
from labutils.instructor.refresh import normalise
from labutils.instructor.run import find_results, table

PARAMETERS = ('dataset: str = "digits"  # which data set\nepochs: int = 2  # passes\nrate: float = 0.1  # learning rate\n'
              'pretrained: bool = False  # load weights\nlimit: int = None  # images\nseed: int = 0  # of all\n'
              'device: str = "auto"  # where\nout_dir: str = "runs/x"  # pictures')
RESULT = "from labutils import show_results\nshow_results({'loss': epochs * rate, 'epochs': epochs, 'seconds': 0.5})"
CELLS = {
    "01_good": [RESULT],
    "02_raises": ["print('before')", "raise RuntimeError('the <b>reason</b>')", RESULT],
    "05_silent": ["1 + 1"],
    "06_writes": ["from labutils import make_dir\n(make_dir(out_dir) / 'picture.txt').write_text('here')", RESULT],
}


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """A folder with all the small labs, in the place of the course's."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in CELLS:
        write_lab(folder, name, PARAMETERS, CELLS[name], heading=True)
    (folder / "quick.yml").write_text("epochs: 1\nother_lab: 3\n")
    monkeypatch.setattr(labs, "NOTEBOOKS", folder)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


def read(path):
    return json.loads(path.read_text())


def test_a_run_leaves_notebook_html_figures_and_circumstances(notebooks, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["run", "01_good", "--out", str(out), "-p", "rate", "0.5", "-p", "limit", "None"]) == 0
    folder = out / "01_good"
    assert sorted(p.name for p in folder.iterdir()) == ["01_good.html", "01_good.ipynb", "results.json", "run.json"]
    assert read(folder / "results.json") == {"loss": 1.0, "epochs": 2, "seconds": 0.5}
    run = read(folder / "run.json")
    assert run["status"] == "ok" and run["parameters"] == {"rate": 0.5, "limit": None}
    assert run["versions"]["papermill"] and run["seconds"] > 0
    assert "loss" in (folder / "01_good.html").read_text()
    printed = capsys.readouterr()
    assert "loss 1" in printed.out and "results:" in printed.out and "01_good: ok" in printed.err


def test_quick_takes_the_settings_that_the_lab_has_and_p_wins(notebooks, tmp_path):
    assert cli.main(["run", "01_good", "--quick", "--out", str(tmp_path / "a")]) == 0
    assert read(tmp_path / "a/01_good/run.json")["parameters"] == {"epochs": 1}
    assert cli.main(["run", "01_good", "--quick", "-p", "epochs", "3", "--out", str(tmp_path / "b")]) == 0
    assert read(tmp_path / "b/01_good/results.json")["epochs"] == 3


def test_files_of_a_lab_go_to_its_own_folder(notebooks, tmp_path):
    assert cli.main(["run", "06_writes", "--out", str(tmp_path / "o")]) == 0
    assert (tmp_path / "o/06_writes/picture.txt").read_text() == "here"


@pytest.mark.parametrize("name, reason", [
    ("02_raises", "RuntimeError: the <b>reason</b> (cell 4)"),
    ("05_silent", "show_results was not called"),
])
def test_a_failing_lab_does_not_stop_the_others(notebooks, tmp_path, capsys, name, reason):
    out = tmp_path / "out"
    assert cli.main(["run", name, "01_good", "--out", str(out), "--timeout", "8"]) == 1
    failed, good = read(out / name / "run.json"), read(out / "01_good/run.json")
    assert failed["status"] == "failed" and reason in failed["error"]
    assert good["status"] == "ok" and (out / "01_good/results.json").exists()
    assert not (out / name / "results.json").exists()
    assert nbformat.read(out / name / f"{name}.ipynb", as_version=4).cells
    assert "<b>reason</b>" not in (out / name / f"{name}.html").read_text(), "HTML of an error is escaped"
    assert [p for p in (out / name).iterdir() if p.name.startswith(".")] == []
    assert "failed" in capsys.readouterr().out


def test_an_executed_cell_is_kept_when_a_later_one_fails(notebooks, tmp_path):
    cli.main(["run", "02_raises", "--out", str(tmp_path)])
    cells = nbformat.read(tmp_path / "02_raises/02_raises.ipynb", as_version=4).cells
    assert any("before" in output.get("text", "") for cell in cells for output in cell.get("outputs", []))


def test_an_old_result_does_not_survive_a_failure(notebooks, tmp_path):
    assert cli.main(["run", "01_good", "--out", str(tmp_path)]) == 0
    (notebooks / "02_raises.ipynb").replace(notebooks / "01_good.ipynb")
    assert cli.main(["run", "01_good", "--out", str(tmp_path)]) == 1
    assert not (tmp_path / "01_good/results.json").exists()


def test_a_notebook_that_is_none_is_named(notebooks, capsys):
    (notebooks / "01_good.ipynb").write_text("{not json")
    assert cli.main(["list", "01_good"]) == 2
    assert "01_good.ipynb is not a notebook" in capsys.readouterr().err


def test_list_names_labs_and_parameters(notebooks, capsys):
    assert cli.main(["list"]) == 0
    assert "02_raises       Lab 02_raises" in capsys.readouterr().out
    assert cli.main(["list", "01_good"]) == 0
    assert "epochs = 2" in capsys.readouterr().out


def test_a_lab_that_raises_is_not_refreshed_and_the_others_are(notebooks, capsys):
    before = (notebooks / "02_raises.ipynb").read_text()
    assert cli.main(["refresh", "02_raises", "01_good"]) == 1
    out, err = capsys.readouterr()
    assert "labs refresh: 02_raises: RuntimeError: the <b>reason</b> (cell 3)\n" in err and "Traceback" not in err
    assert (notebooks / "02_raises.ipynb").read_text() == before and out.startswith("01_good: loss")


def test_the_table_says_what_failed():
    from labutils.instructor.run import Outcome
    text = table([Outcome("02_vae", "ok", 12.3, {"test_loss": 105.9, "epochs": 10}), Outcome("04_gan", "failed", 1, {}, "no data")])
    assert [line.split() for line in text.splitlines()] == [
        ["lab", "status", "seconds", "key", "figures"], ["02_vae", "ok", "12", "test_loss", "105.9"],
        ["04_gan", "failed", "1", "no", "data"]]


def test_normalise_keeps_what_is_said_and_drops_what_a_run_adds():
    output = nbformat.v4.new_output
    cell = nbformat.v4.new_code_cell("1", execution_count=7, metadata={"tags": ["t"], "papermill": {"duration": 3}, "execution": {}})
    cell.outputs = [output("stream", name="stderr", text="\r 10%"), output("stream", name="stdout", text="kept\n"),
                    output("stream", name="stderr", text="/tmp/ipykernel_77/1.py:1: UserWarning"),
                    output("stream", name="stdout", text="came in two parts, for the time it took"),
                    output("execute_result", {"text/plain": "1"}, execution_count=7, metadata={"isolated": True})]
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"papermill": {"a": 1}, "widgets": {}, "language_info": {"name": "python", "version": "3.1"}})
    before = cell.id
    normalise(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"} and notebook.metadata.language_info == {"name": "python"}
    assert cell.metadata == {"tags": ["t"]} and cell.execution_count == 7 and cell.id == before
    assert [o.get("text", "") for o in cell.outputs] == ["kept\ncame in two parts, for the time it took", ""]
    assert find_results(notebook) == {}


LIVELY = ["import sys, time, warnings\nfor n in range(3):\n    print('line', n)\n    sys.stdout.flush()\n"
          "    sys.stderr.write('told on stderr\\n')\n    sys.stderr.flush()\n    time.sleep(0.01 + time.time() % 0.05)\n"
          "warnings.warn('its path has the number of the process in it')",
          "from tqdm.auto import tqdm\nfor n in tqdm(range(3)):\n    pass",
          "from tqdm import tqdm\nfor n in tqdm(range(3)):\n    print('epoch', n)\n    sys.stdout.flush()",
          "import ipywidgets\nipywidgets.IntSlider(3)",
          "from labutils import show\nimport numpy as np\nshow(np.eye(8, dtype=np.uint8), 'a picture')",
          "import matplotlib.pyplot as plt\nfigure, axes = plt.subplots()\naxes.plot([1, 2])\nplt.show()",
          "from IPython.display import display\nshown = display('first', display_id=True)\nshown.update('last')",
          "from labutils import show_results\nshow_results({'loss': 1.0, 'seconds': time.time()})"]


def test_a_second_refresh_differs_in_nothing_but_times(notebooks):
    write_lab(notebooks, "01_good", PARAMETERS, LIVELY, heading=True)
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
    outputs = json.dumps([cell.get("outputs", []) for cell in nbformat.reads(found[0], as_version=4).cells])
    assert all(part in outputs for part in ("line 2", "epoch 2", "image/png", "a picture", "IntSlider", "'last'", "loss"))
    assert not any(part in outputs for part in ("stored", "stderr", "widget-view"))
    assert [cell.id for cell in nbformat.reads(found[0], as_version=4).cells] == [cell.id for cell in stored.cells]
