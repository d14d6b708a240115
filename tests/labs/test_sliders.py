import os
import sys

import cv2
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from test_notebooks import prepare_copy

from labutils import explore, sliders
from labutils.paths import PROJECT_ROOT


@pytest.fixture
def shown(monkeypatch):
    """What was displayed."""
    shown = []
    monkeypatch.setattr(sliders, "display", shown.append)
    return shown


def grey(level, size=4):
    return np.full((size, size), level, np.uint8)


def test_the_picture_follows_the_slider(shown):
    controls = explore(grey, level=(0, 255, 1, 100), size=(2, 8, 2, 4))
    [box] = shown
    picture = box.children[0]

    def seen():
        return cv2.imdecode(np.frombuffer(picture.value, np.uint8), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(seen(), grey(100, 4))
    controls["level"].value = 37
    np.testing.assert_array_equal(seen(), grey(37, 4))
    controls["size"].value = 8
    np.testing.assert_array_equal(seen(), grey(37, 8))


def test_ranges_and_steps(shown):
    controls = explore(lambda whole, part: grey(int(whole + part)), whole=(0, 9, 1, 3), part=(-3.0, 3.0, 0.5, 0.0))
    whole, part = controls["whole"], controls["part"]
    assert (whole.min, whole.max, whole.step, whole.value) == (0, 9, 1, 3) and isinstance(whole.value, int)
    assert (part.min, part.max, part.step, part.value) == (-3, 3, 0.5, 0) and isinstance(part.value, float)
    assert whole.description == "whole"


def test_without_ipywidgets_a_lab_goes_on(shown, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert explore(grey, level=(0, 255, 1, 100)) == {}
    assert not shown and "ipywidgets" in capsys.readouterr().out


def test_a_kernel_without_ipywidgets_runs_every_cell_of_a_lab(tmp_path, monkeypatch):
    """Those of the sliders too, as a student would who steps through."""
    (tmp_path / "ipywidgets.py").write_text("raise ImportError('not installed')")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))
    path = PROJECT_ROOT / "notebooks/02_vae.ipynb"
    notebook = nbformat.read(prepare_copy(path, tmp_path), as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, skip_cells_with_tag="", timeout=600, resources=resources).execute()
    said = [output.text for cell in notebook.cells if "skip-execution" in cell.metadata.get("tags", []) for output in cell.outputs]
    assert len(said) >= 2 and all("The sliders need ipywidgets, which is not installed" in text for text in said)
