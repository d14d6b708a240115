"""Every lab on a device like the GPU of a Mac (tests/mac.py), which `device="auto"` takes there."""

import nbformat
import pytest
import torch.utils.backend_registration
from apart import apart
from helpers import LABS, NOTEBOOK_DIR, notebook_path, tiny_quick, write_lab

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch knows no devices that are written in Python")]


def complaints(path, parameters):
    """Execute a notebook on the device; return what it complains of."""
    from mac import complaints_of       # torch without such devices cannot import it
    return apart(complaints_of, nbformat.read(path, as_version=4), path.stem, NOTEBOOK_DIR, parameters)


@pytest.mark.parametrize("lab", LABS)
def test_a_lab_calls_nothing_that_the_gpu_of_a_mac_lacks(lab, tmp_path):
    assert complaints(notebook_path(lab), tiny_quick(lab, out_dir=str(tmp_path))) == []


LACKS = {       # a line of a lab, and what the complaint says
    "torch.special.ndtri(x)": "special_ndtri.out has no kernel",
    "x.double()": "float64",
    "torch.linspace(0, 1, 5, dtype=torch.float64, device=device)": "float64",
    "torch.rand(3, generator=torch.Generator(), device=device)": "generator of the CPU",
    "x + torch.ones(3, 3)": "on the device and on the CPU",
}
HAS = """network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(),
                              torch.nn.Linear(8, 3)).to(device)
optimizer = torch.optim.Adam(network.parameters())
loss = torch.nn.functional.cross_entropy(network(torch.rand(5, 1, 4, 4).to(device)), torch.arange(5, device=device) % 3)
loss.backward()
optimizer.step()
x[torch.randperm(3)] *= 2
lstm, pair = torch.nn.LSTM(3, 4, batch_first=True).to(device), torch.tensor([loss.detach(), x[0, 0]])
lstm(x[None])[0].sum().backward()
assert lstm.weight_hh_l0.grad.abs().sum() > 0 and pair.shape == (2,)
assert f"{loss:.3f}" != "" and len(x.tolist()) == 3"""


def test_what_a_gpu_of_a_mac_lacks_is_named_with_its_line(tmp_path):
    write_lab(tmp_path, "01_small", ["import torch\nx = torch.rand(3, 3, device=device)", HAS, *LACKS])
    found = complaints(tmp_path / "01_small.ipynb", {"out_dir": str(tmp_path)})
    cells = {line.partition(":1: ")[0] for line in found}
    assert len(cells) == len(LACKS) and all(cell.startswith("lab 01_small, cell ") for cell in cells), found
    assert all(any(part in line for line in found) for part in LACKS.values()), found
