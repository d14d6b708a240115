import hashlib
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from labutils import CheckpointError, find_pretrained, load_checkpoint, save_checkpoint
from labutils.checkpoints import PRETRAINED_DIR


def network(hidden=8):
    return nn.Sequential(nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, 2))


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    modules = {"generator": network(), "critic": network(6)}
    modules["generator"](torch.randn(10, 4))       # moves the running mean of the batch normalisation
    path = save_checkpoint(tmp_path / "gan.safetensors", config={"epochs": 3, "history": {"loss": [2.0, 1.5]}}, **modules)
    return path, modules


def test_round_trip(saved):
    path, modules = saved
    copies = {"generator": network(), "critic": network(6)}
    assert load_checkpoint(path, **copies) == {"epochs": 3, "history": {"loss": [2.0, 1.5]}}
    for name, module in modules.items():
        for key, tensor in module.state_dict().items():
            torch.testing.assert_close(copies[name].state_dict()[key], tensor, rtol=0, atol=0)


def test_one_module_of_several_can_be_loaded(saved):
    path, modules = saved
    copy = network(6)
    load_checkpoint(path, critic=copy)
    assert torch.equal(copy[0].weight, modules["critic"][0].weight)


def test_half_is_smaller_and_loads_into_float32(tmp_path):
    module, copy = nn.Linear(300, 100), nn.Linear(300, 100)
    full = save_checkpoint(tmp_path / "full.safetensors", config={}, net=module)
    half = save_checkpoint(tmp_path / "half.safetensors", config={}, half=True, net=module)
    assert half.stat().st_size < 0.55 * full.stat().st_size
    load_checkpoint(half, net=copy)
    assert copy.weight.dtype == torch.float32
    torch.testing.assert_close(copy.weight, module.weight, rtol=1e-3, atol=1e-4)


def test_another_architecture_is_named_and_nothing_is_loaded(saved):
    path, _ = saved
    generator, critic = network(), network(7)
    before = generator[0].weight.clone()
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path, generator=generator, critic=critic)
    for part in (str(path), "'critic'", "'0.weight'", "(6, 4)", "(7, 4)", "'epochs': 3", "pretrained=False"):
        assert part in str(error.value)
    assert torch.equal(generator[0].weight, before)


@pytest.mark.parametrize("module, message", [
    (nn.Sequential(nn.Linear(4, 8)), "the module has no tensor '1.bias'"),
    (nn.Sequential(*network(), nn.Linear(2, 2)), "the file has no tensor '3.weight'"),
])
def test_missing_and_superfluous_tensors_are_named(saved, module, message):
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(saved[0], generator=module)


class Boobytrap:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle ran code')",)


def damage(path, how):
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-20])
    elif how == "header only":
        path.write_bytes(path.read_bytes()[:30])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "pickle":
        path.write_bytes(pickle.dumps(Boobytrap()))
    elif how == "torch.save":
        torch.save(network().state_dict(), path)
    elif how == "no config":
        save_file({"generator/0.weight": torch.zeros(1)}, path)
    elif how == "missing":
        path.unlink()
    elif how == "a folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize("how", ["truncated", "header only", "empty", "pickle", "torch.save", "no config", "missing", "a folder"])
def test_a_damaged_file_gets_one_clear_error(saved, how):
    path, modules = saved
    damage(path, how)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path, **modules)
    assert str(path) in str(error.value) and "pretrained=False" in str(error.value)


def test_a_failed_save_keeps_the_old_file(saved, monkeypatch):
    path, modules = saved
    before = path.read_bytes()

    def full_disk(tensors, part, metadata):
        part.write_bytes(b"half")
        raise OSError("No space left on device")
    monkeypatch.setattr("labutils.checkpoints.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, config={}, **modules)
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_find_pretrained(tmp_path, monkeypatch):
    monkeypatch.setattr("labutils.checkpoints.PRETRAINED_DIR", tmp_path)
    assert find_pretrained("lab") is None
    path = save_checkpoint(tmp_path / "lab.safetensors", config={}, net=network())
    assert find_pretrained("lab") == path


def test_the_shipped_weights_are_those_of_the_card():
    card = (PRETRAINED_DIR / "README.md").read_text()
    files = sorted(PRETRAINED_DIR.glob("*.safetensors"))
    assert len(files) == card.count("\n| `") and sum(path.stat().st_size for path in files) < 25e6
    for path in files:
        [line] = [line for line in card.splitlines() if line.startswith(f"| `{path.stem}` |")]
        assert hashlib.sha256(path.read_bytes()).hexdigest() in line, path.name
