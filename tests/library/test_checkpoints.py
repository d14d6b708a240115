"""Weights in files: saving, loading, refusing, and the weights that come with the course."""

import hashlib
import json
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Boobytrap, quick
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from labutils import CheckpointError, find_pretrained, load_checkpoint, save_checkpoint
from labutils.checkpoints import PRETRAINED_DIR, read_card, read_checkpoint
from labutils.instructor.weights import ABOUT, ship, table


def network(hidden=8):
    return nn.Sequential(nn.Linear(4, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, 2))


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    modules = {"generator": network(), "critic": network(6)}
    modules["generator"](torch.randn(10, 4))       # changes the running mean of the batch normalisation
    config = {"epochs": 3, "history": {"loss": [2.0, 1.5]}}
    path = save_checkpoint(tmp_path / "gan.safetensors", config=config, **modules)
    return path, modules


def test_round_trip(saved):
    path, modules = saved
    copies = {"generator": network(), "critic": network(6)}
    assert load_checkpoint(path, **copies) == {"epochs": 3, "history": {"loss": [2.0, 1.5]}}
    for name, module in modules.items():
        for key, tensor in module.state_dict().items():
            torch.testing.assert_close(copies[name].state_dict()[key], tensor, rtol=0, atol=0)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells which files are mapped")
def test_nothing_that_was_read_keeps_its_file(saved):
    """Windows lets nobody replace a file that is mapped into memory, as the state of a training is after each epoch."""
    path, modules = saved
    _, tensors = read_checkpoint(path)
    assert str(path) not in Path("/proc/self/maps").read_text() and len(tensors) > 10
    assert torch.equal(tensors["critic/0.weight"], modules["critic"][0].weight)


def test_one_module_of_several_can_be_loaded(saved):
    path, modules = saved
    copy = network(6)
    load_checkpoint(path, critic=copy)
    assert torch.equal(copy[0].weight, modules["critic"][0].weight)


def test_another_architecture_is_named_and_nothing_is_loaded(saved):
    path, _ = saved
    generator, critic = network(), network(7)
    before = generator[0].weight.clone()
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path, generator=generator, critic=critic)
    for part in (str(path), "'critic'", "'0.weight'", "(6, 4)", "(7, 4)", "'epochs': 3", "pretrained=False"):
        assert part in str(error.value)
    assert torch.equal(generator[0].weight, before)


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


# -------------------------------------------------------------------------------------- bad input

def safetensors_file(header):
    """The bytes of a safetensors file with this header and no content."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header


def with_config(config, tensors=None):
    """The bytes of a file whose header holds the config and describes the tensors; the tensors are missing."""
    return safetensors_file({"__metadata__": {"config": config}, **(tensors or {})})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a good checkpoint of `nn.Linear(3, 2)` as `net`."""
    path = tmp_path_factory.mktemp("checkpoint") / "net.safetensors"
    return save_checkpoint(path, config={"epochs": 3}, net=nn.Linear(3, 2)).read_bytes()


WEIGHT = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
BAD_CHECKPOINTS = {
    "empty": b"", "one byte": b"\0", "text": b"weights, please", "a zip": b"PK\x03\x04" + bytes(100),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "a pickle": pickle.dumps(Boobytrap()), "an old pickle": pickle.dumps(Boobytrap(), 0),
    "a header longer than the file": b"\xff" * 8 + b"{}", "a header without end": safetensors_file(b"{" * 1000),
    "a header that is no JSON": safetensors_file(b"not json"), "a header that is a list": safetensors_file(b"[]"),
    "a header that is no UTF-8": safetensors_file(b"\xff\xfe"),
    "no config": safetensors_file({}), "a config that is no JSON": with_config("{"),
    "a config that is a list": with_config("[1]"), "a config that is a number": with_config("5"),
    "a config of many levels": with_config("[" * 100_000),
    "a config that is no text": safetensors_file({"__metadata__": {"config": 5}}),
    "no tensors": with_config("{}"), "tensors beyond the end": with_config("{}", {"net/weight": WEIGHT}),
    "an unknown type": with_config("{}", {"net/weight": {**WEIGHT, "dtype": "X9"}}),
    "a negative shape": with_config("{}", {"net/weight": {**WEIGHT, "shape": [-1]}}),
}


def check_refused(path):
    """Check that the file is refused by its name, loads nothing and runs no code."""
    network = nn.Linear(3, 2)
    before = [tensor.clone() for tensor in network.state_dict().values()]
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path, net=network)
    message = str(error.value)
    assert str(path) in message and "pretrained=False" in message and "\n" not in message
    assert all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), before)), "something is loaded"
    assert not hasattr(sys, "boobytrap"), "code was run"


@pytest.mark.parametrize("how", BAD_CHECKPOINTS)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, how):
    path = tmp_path / "net.pt"      # torch.load would not unpickle a net.safetensors
    path.write_bytes(BAD_CHECKPOINTS[how])
    check_refused(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    check_refused(tmp_path / "missing.safetensors")
    check_refused(tmp_path)


@pytest.mark.parametrize("saved", [Boobytrap(), {"net/weight": torch.zeros(2, 3)}, nn.Linear(3, 2)],
                         ids=["trap", "tensors", "module"])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_is_refused(tmp_path, saved, zipped):
    torch.save(saved, tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    check_refused(tmp_path / "net.pt")


def test_what_numpy_saves_is_refused(tmp_path):
    np.save(tmp_path / "net.npy", np.array([Boobytrap()], dtype=object), allow_pickle=True)
    check_refused(tmp_path / "net.npy")


@pytest.mark.parametrize("network, part", [
    (nn.Linear(3, 2, bias=False), "the module has no tensor 'bias'"),
    (nn.Sequential(nn.Linear(3, 2)), "the file has no tensor '0.weight'"),
])
def test_missing_and_superfluous_tensors_are_named(tmp_path, whole, network, part):
    path = tmp_path / "net.safetensors"
    path.write_bytes(whole)
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path, net=network)
    assert part in str(error.value) and "'epochs': 3" in str(error.value) and "pretrained=False" in str(error.value)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", None])
def test_a_device_that_does_not_exist_is_not_blamed_on_the_file(tmp_path, whole, device):
    (tmp_path / "net.safetensors").write_bytes(whole)
    with pytest.raises(ValueError) as error:
        load_checkpoint(tmp_path / "net.safetensors", device=device, net=nn.Linear(3, 2))
    assert f"device={device!r}" in str(error.value) and 'device="auto"' in str(error.value)


@quick
@given(content=st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(safetensors_file)))
def test_random_bytes_are_no_checkpoint(tmp_path, content):
    (tmp_path / "net.safetensors").write_bytes(content)
    check_refused(tmp_path / "net.safetensors")


@settings(quick, max_examples=200)
@given(where=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.booleans())
def test_a_checkpoint_that_is_altered_anywhere_is_loaded_whole_or_refused(tmp_path, whole, where, value, cut):
    start = int(where * len(whole))
    content = whole[:start] if cut else whole[:start] + bytes([value]) + whole[start + 1:]
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    try:
        assert isinstance(load_checkpoint(path, net=nn.Linear(3, 2)), dict)
    except CheckpointError as error:
        assert str(path) in str(error)


def test_settings_that_json_cannot_hold_leave_no_file(tmp_path):
    with pytest.raises(TypeError, match="Tensor is not JSON serializable"):
        save_checkpoint(tmp_path / "a.safetensors", config={"loss": torch.zeros(1)}, net=nn.Linear(3, 2))
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------- the course's weights

@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty folder in the place of checkpoints/."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    monkeypatch.setattr("labutils.checkpoints.PRETRAINED_DIR", folder)
    monkeypatch.setattr("labutils.instructor.weights.PRETRAINED_DIR", folder)
    return folder


def make_run(folder, name="02_vae_mnist"):
    """Save a checkpoint as a run of a lab does; return its path and the network."""
    module = nn.Sequential(nn.Linear(300, 100), nn.BatchNorm1d(100))
    config = {"dataset": "mnist", "epochs": 3, "seed": 0, "metrics": {"test_loss": 105.5249},
              "history": {"loss": [2.0]}}
    return save_checkpoint(folder / f"{name}.safetensors", config=config, net=module), module


def test_shipped_weights_are_half_the_size_described_and_found(shelf, tmp_path):
    path, module = make_run(tmp_path)
    assert find_pretrained("02_vae_mnist") is None
    ship(path, "02_vae")
    found = find_pretrained("02_vae_mnist")
    assert found == shelf / path.name and found.stat().st_size < 0.6 * path.stat().st_size
    copy = nn.Sequential(nn.Linear(300, 100), nn.BatchNorm1d(100))
    assert load_checkpoint(found, net=copy)["history"] == {"loss": [2.0]}
    assert copy[0].weight.dtype == torch.float32
    torch.testing.assert_close(copy[0].weight, module[0].weight, rtol=1e-3, atol=1e-4)
    about = read_card()["02_vae_mnist"]
    assert about["lab"] == "02_vae" and about["epochs"] == 3 and about["metrics"] == {"test_loss": 105.5249}
    assert about["sha256"] == hashlib.sha256(found.read_bytes()).hexdigest() and about["versions"]["torch"]
    readme = (shelf / "README.md").read_text()
    assert about["sha256"] in readme and "test_loss 105.5" in readme


def test_shipping_again_replaces_one_entry_only(shelf, tmp_path):
    for name in ("a_mnist", "b_mnist", "a_mnist"):
        ship(make_run(tmp_path, name)[0], "lab")
    assert list(read_card()) == ["a_mnist", "b_mnist"]
    assert find_pretrained("a_mnist") and find_pretrained("b_mnist")


@pytest.mark.parametrize("how", ["altered", "no entry", "no card"])
def test_weights_that_are_not_those_of_the_card_are_refused(shelf, tmp_path, how):
    path, _ = make_run(tmp_path)
    ship(path, "02_vae")
    if how == "altered":
        content = bytearray((shelf / path.name).read_bytes())
        content[-1] ^= 1                        # one bit of one weight
        (shelf / path.name).write_bytes(content)
    elif how == "no entry":
        (shelf / "card.json").write_text("{}")
    else:
        (shelf / "card.json").unlink()
    with pytest.raises(CheckpointError) as error:
        find_pretrained("02_vae_mnist")
    for part in (path.name, "SHA-256", "git checkout checkpoints", "pretrained=False"):
        assert part in str(error.value)


def test_the_shipped_weights_are_those_of_the_card():
    card, files = read_card(), sorted(PRETRAINED_DIR.glob("*.safetensors"))
    assert [path.stem for path in files] == list(card) and len(files) >= 10
    assert sum(path.stat().st_size for path in files) < 36e6
    for path in files:
        assert find_pretrained(path.stem) == path
        config, tensors = read_checkpoint(path)
        config.setdefault("metrics", config.get("figures"))     # the word of files from before it was changed
        for key in ("dataset", "epochs", "seed", "metrics"):
            assert config[key] == card[path.stem][key], (path, key)
        assert "seconds" not in config or round(config["seconds"]) == card[path.stem]["seconds"]
        assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert (PRETRAINED_DIR / "README.md").read_text() == ABOUT + table(card)
