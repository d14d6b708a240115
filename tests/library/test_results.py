"""The last cell of a lab: a table for readers, which also holds the metrics for the labs command."""

import nbformat
import pytest
import torch

from labutils import show_results
from labutils.instructor.record import find_metrics


@pytest.fixture
def shown(monkeypatch):
    """What `show_results` has displayed, as outputs of a cell."""
    outputs = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: outputs.append(
        nbformat.v4.new_output("display_data", data)))
    return outputs


def test_the_metrics_are_shown_once_as_a_table_and_read_whole(shown, capsys):
    show_results({"loss": torch.tensor(0.123456), "n_samples": 10, "device": torch.device("cpu"), "rate": None})
    [output] = shown
    assert output.data["text/plain"].split("\n") == ["loss       0.1235", "n_samples  10", "device     cpu",
                                                     "rate       None"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=shown)])
    assert find_metrics(notebook) == {"loss": pytest.approx(0.123456), "n_samples": 10, "device": "cpu", "rate": None}
    assert capsys.readouterr().out == "", "once, and not a second time as text"


@pytest.mark.parametrize("value", [float("nan"), torch.tensor(float("inf"))])
def test_a_training_that_has_diverged_does_not_count_as_done(shown, value):
    with pytest.raises(ValueError, match="loss=(nan|inf): .*diverged"):
        show_results({"loss": value})
    assert not shown
