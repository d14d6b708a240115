import hashlib
import pickle

import pytest
import torch
from safetensors.torch import save_file
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
    """Save what a run of a lab leaves; return its path and the network."""
    module = nn.Sequential(nn.Linear(300, 100), nn.BatchNorm1d(100))
    config = {"dataset": "mnist", "epochs": 3, "seed": 0, "figures": {"test_loss": 105.5249}, "history": {"loss": [2.0]}}
    return save_checkpoint(folder / f"{name}.safetensors", config=config, net=module), module


def test_what_is_shipped_is_half_the_size_described_and_found(shelf, tmp_path):
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
    assert about["lab"] == "02_vae" and about["epochs"] == 3 and about["figures"] == {"test_loss": 105.5249}
    assert about["sha256"] == hashlib.sha256(found.read_bytes()).hexdigest() and about["versions"]["torch"]
    readme = (shelf / "README.md").read_text()
    assert about["sha256"] in readme and "test_loss 105.5" in readme


def test_a_second_shipping_replaces_its_own_entry_only(shelf, tmp_path):
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
    assert sum(path.stat().st_size for path in files) < 25e6
    for path in files:
        assert find_pretrained(path.stem) == path
        config, tensors = read_checkpoint(path)
        assert {key: config[key] for key in ("dataset", "epochs", "seed", "figures")} \
            == {key: card[path.stem][key] for key in ("dataset", "epochs", "seed", "figures")}
        assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert (PRETRAINED_DIR / "README.md").read_text() == ABOUT + table(card)
