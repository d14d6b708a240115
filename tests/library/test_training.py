"""Set-up, initial weights, means, and the bookkeeping of a training."""

import os
import re

import numpy as np
import pytest
import torch
from jupyter_client.manager import start_new_kernel
from torch import nn

from labutils import CheckpointError, Training, get_loaders, seed_everything
from labutils.checkpoints import read_checkpoint, save_checkpoint
from labutils.paths import PROJECT_ROOT
from labutils.training import AverageMeter, init_weights, require_at_least, require_positive, set_up


def test_set_up_seeds_keeps_memory_makes_the_folder_and_names_the_device(tmp_path, capsys, monkeypatch):
    calls = []
    monkeypatch.setattr("labutils.training.keep_memory", lambda: calls.append("keep_memory"))
    device = set_up(3, "cpu", tmp_path / "new", epochs=1)
    first = torch.rand(2)
    assert device == torch.device("cpu") and (tmp_path / "new").is_dir()
    assert calls == ["keep_memory"]
    assert capsys.readouterr().out == "running on cpu\n"
    seed_everything(3)
    assert torch.equal(torch.rand(2), first)
    with pytest.raises(ValueError, match="epochs=0"):
        set_up(3, "cpu", tmp_path / "other", epochs=0)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("epochs", [0, -3, 2.5, "ten", None, True])
def test_require_positive_names_setting_and_value(epochs):
    with pytest.raises(ValueError) as error:
        require_positive(batch=1, epochs=epochs)
    assert f"epochs={epochs!r}" in str(error.value)


def test_require_at_least_names_the_least():
    require_at_least(10, n_samples=10)
    with pytest.raises(ValueError, match="n_samples=9: must be a whole number of at least 10; set it in"):
        require_at_least(10, epochs=10, n_samples=9)


def test_init_weights_follows_dcgan():
    torch.manual_seed(0)
    network = nn.Sequential(nn.ConvTranspose2d(64, 64, 5), nn.BatchNorm2d(4000), nn.Conv2d(64, 64, 5, bias=False),
                            nn.Linear(300, 300), nn.BatchNorm1d(3, affine=False), nn.ReLU())
    network.apply(init_weights)
    for layer, mean in zip(network, (0, 1, 0, 0)):
        assert abs(layer.weight.mean().item() - mean) < 2e-3
        assert abs(layer.weight.std().item() - 0.02) < 1e-3
        assert layer.bias is None or not layer.bias.any()


def test_meter_is_the_weighted_mean():
    meter = AverageMeter()
    assert np.isnan(meter.avg)
    for value, n in ((1.0, 128), (torch.tensor(4.0), 128), (torch.tensor([7.0]), 32)):
        meter.update(value, n)
    assert meter.count == 288
    assert meter.sum == 128 + 4 * 128 + 7 * 32
    assert meter.avg == pytest.approx(meter.sum / 288)
    meter.reset()
    assert meter.count == 0 and meter.sum == 0


def test_meter_reads_nothing_from_the_device_before_it_is_asked(monkeypatch):
    def synchronises(*_):
        raise AssertionError("update waits for the device")
    meter = AverageMeter()
    weight = torch.ones(1, requires_grad=True)
    with monkeypatch.context() as patch:
        for name in ("item", "__float__", "__bool__", "cpu", "numpy", "tolist"):
            patch.setattr(torch.Tensor, name, synchronises)
        for _ in range(3):
            meter.update((weight * 2).sum(), 5)
    assert meter.avg == 2 and not meter._sum.requires_grad


def test_meter_keeps_small_values_after_many_steps():
    meter = AverageMeter()
    for _ in range(20_000):     # float32 would have lost digits by now
        meter.update(torch.tensor(0.1), 1000)
    assert meter.avg == pytest.approx(float(torch.tensor(0.1)), rel=1e-12)


# ------------------------------------------------------------------------- the books of a training

def train(folder, n_epochs, resume=False, settings=None, hidden=4, **options):
    """Train a tiny network; return its weights and the `Training`."""
    seed_everything(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, hidden), nn.Linear(hidden, 1))
    optimizer = torch.optim.Adam(network.parameters())
    loader, _ = get_loaders("digits", 24, limit=64)
    training = Training("a", folder, settings or {"seed": 0}, resume=resume, **options, network=network)
    for epoch in training.epochs(n_epochs, loader, optimizer=optimizer):
        for x, _ in training.batches():
            optimizer.zero_grad()
            loss = (network(x) - torch.rand(len(x), 1)).square().mean()
            loss.backward()
            optimizer.step()
            training.add(len(x), loss=loss)
        training.note(**training.means(), trace=[epoch, -epoch])
        training.keep_picture(f"picture_{epoch}", np.full((2, 2), epoch, np.uint8))
    return network, training


def test_the_history_has_weighted_means_of_each_epoch_and_every_number_of_a_list(tmp_path):
    losses, loader = [], get_loaders("digits", 24, limit=64)[0]
    training = Training("a", tmp_path, {}, network=nn.Linear(1, 1))
    for epoch in training.epochs(2, loader):
        sizes = [len(x) for x, _ in training.batches()]
        assert sizes == [24, 24, 16]
        values = torch.arange(3.0) + 10 * epoch
        for n, value in zip(sizes, values):
            training.add(n, loss=value)
        losses.append((values * torch.tensor(sizes)).sum().item() / 64)
        training.note(**training.means(), trace=[epoch, -epoch])
        assert training.means() == {}, "an epoch begins without the values of the one before"
    assert training.history == {"loss": pytest.approx(losses), "trace": [1, -1, 2, -2]}
    assert training.n_epochs == 2 and training.images_per_second == pytest.approx(128 / training.seconds)


def test_a_line_says_how_far_the_training_is_and_one_is_left(tmp_path, monkeypatch, capsys):
    lines = []
    monkeypatch.setattr("labutils.training.LiveDisplay.tell", lambda _, line: lines.append(line))
    for first, last in ((1, 3), (4, 5)):        # 64 images make 3 batches of 24 at most
        train(tmp_path, last, resume=first > 1, curves=["loss", "trace"])
        steps = [(epoch, batch) for epoch in range(first, last + 1) for batch in (1, 2, 3)]
        for line, (epoch, batch) in zip(lines, steps, strict=True):
            assert re.fullmatch(rf"a: epoch {epoch} of {last}, batch {batch} of 3, \d s, about \d s to go", line)
        assert lines[-1].endswith("about 0 s to go")
        lines.clear()
        out, err = capsys.readouterr()
        n = last - first + 1
        assert re.fullmatch(rf"a: {n} epochs in \d s, loss 0\.\d+, trace -{last}", out.splitlines()[-1]) and not err


def test_the_time_that_is_left_is_read_off_the_batches_of_this_run(tmp_path, monkeypatch):
    clock, lines = iter(range(0, 10_000, 10)), []
    monkeypatch.setattr("labutils.training.time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("labutils.training.LiveDisplay.tell", lambda _, line: lines.append(line))
    train(tmp_path, 2)
    assert lines[0].endswith(", 10 s, about 50 s to go") and lines[3].endswith(", 50 s, about 25 s to go")


def test_the_seconds_of_a_training_that_goes_on_are_those_of_all_its_parts(tmp_path):
    _, first = train(tmp_path, 2)
    _, second = train(tmp_path, 3, resume=True)
    assert 0 < second.earlier_seconds <= first.seconds, "saved after the last epoch, which is before its end"
    saved = read_checkpoint(second.save(metrics={}))[0]["seconds"]
    assert saved == second.earlier_seconds + second.seconds > second.earlier_seconds


def test_what_is_saved_is_loaded_again_by_its_name(tmp_path, monkeypatch, capsys):
    network, training = train(tmp_path, 2, settings={"seed": 0, "beta": 4})
    path = training.save(metrics={"loss": 1.5})
    config, tensors = read_checkpoint(path)
    assert path == tmp_path / "a.safetensors"
    assert config == {"seed": 0, "beta": 4, "epochs": 2, "seconds": training.seconds, "metrics": {"loss": 1.5},
                      "history": training.history} and training.seconds > 0
    assert torch.equal(tensors["network/1.weight"], network[1].weight)

    shipped = [("a", {"beta": 4})]
    monkeypatch.setattr("labutils.training.find_pretrained",
                        lambda name, **same: path if (name, same) in shipped else None)
    seed_everything(1)
    other = nn.Sequential(nn.Flatten(), nn.Linear(784, 4), nn.Linear(4, 1))
    loaded = Training("a", tmp_path, {"beta": 4}, network=other)
    assert loaded.load("beta") and torch.equal(other[1].weight, network[1].weight)
    assert loaded.history == training.history and loaded.n_epochs == 2
    assert loaded.seconds == 0 and loaded.images_per_second is None
    assert read_checkpoint(loaded.save(metrics={}))[0]["seconds"] == training.seconds, "it took as long as it did"
    assert "loaded a.safetensors" in capsys.readouterr().out
    assert not Training("a", tmp_path, {"beta": 5}, network=other).load("beta")

    save_checkpoint(path, config={"epochs": 2}, network=network)
    assert loaded.load("beta") and loaded.history == {}, "weights that were shipped without a history"


def test_curves_and_event_files_get_each_note_and_are_closed_at_the_end(tmp_path, monkeypatch):
    calls = []

    class Display:
        def __init__(self, *arguments, **options):
            calls.append((arguments, options))

        def update(self, history):
            calls.append(len(history["loss"]))

        def tell(self, line):
            pass

        def close(self, line):
            calls.append(line.split(" in ")[0])
    monkeypatch.setattr("labutils.training.LiveDisplay", Display)
    train(tmp_path, 2, curves=["loss"], tensorboard_dir="events")
    assert calls == [((["loss"],), {"run": "a", "tensorboard_dir": "events"}), 1, 2, "a: 2 epochs"]


def test_pictures_are_kept_and_saved(tmp_path):
    training = train(tmp_path, 2)[1]
    assert [picture.max() for picture in training.pictures] == [1, 2] and len(list(tmp_path.glob("picture_*.png"))) == 2


@pytest.mark.parametrize("shape", [(5, 7), (24, 1, 28, 28), (6, 4, 3)], ids=["sheet", "digits", "colour"])
def test_the_weights_bring_the_pictures_over_time_with_them(tmp_path, monkeypatch, shape):
    network, rng = nn.Linear(1, 1), np.random.default_rng(0)
    training = Training("a", tmp_path, {}, network=network)
    training.pictures = [rng.integers(0, 256, shape, np.uint8) for _ in range(3)]
    monkeypatch.setattr("labutils.training.find_pretrained", lambda _: tmp_path / "a.safetensors")
    for pictures, expected in ((None, training.pictures), (training.pictures[1:], training.pictures[1:]), ([], [])):
        training.save({}, pictures)
        loaded = Training("a", tmp_path, {}, network=network)
        assert loaded.load()
        assert len(loaded.pictures) == len(expected) and all(map(np.array_equal, loaded.pictures, expected))


def orders(loader, settings, folder, n_epochs=2):
    """Train nothing; return the labels in the order in which a `Training` has served them."""
    training = Training("a", folder, settings, network=nn.Linear(1, 1))
    return [labels.tolist() for _ in training.epochs(n_epochs, loader) for _, labels in training.batches()]


def test_a_training_begins_with_the_first_order_of_its_seed_whatever_ran_before(tmp_path):
    loader, _ = get_loaders("digits", 24, limit=64, seed=1)
    first = orders(loader, {"seed": 1}, tmp_path)
    assert orders(loader, {"seed": 1}, tmp_path) == first
    assert orders(loader, {"seed": 2}, tmp_path) != first
    assert orders(get_loaders("digits", 24, limit=64, seed=2)[0], {"seed": 1}, tmp_path) == first


@pytest.mark.parametrize("changed", [{"batch_size": 32}, {"limit": 100}, {"dataset": "mnist"}], ids=str)
def test_a_loader_of_other_settings_is_refused(tmp_path, changed):
    loader, _ = get_loaders("digits", 24, limit=64)
    settings = {"seed": 0, "dataset": "digits", "limit": 64, "batch_size": 24, **changed}
    [(name, value)] = changed.items()
    reason = f"{name}={value!r}: set after the loader was made, with {loader.settings[name]!r}"
    with pytest.raises(ValueError, match=reason):
        orders(loader, settings, tmp_path)


def test_epochs_that_were_not_complete_do_not_count(tmp_path):
    training = Training("a", tmp_path, {}, network=nn.Linear(1, 1))
    for epoch in training.epochs(4, get_loaders("digits", 32, limit=64)[0]):
        if epoch == 3:
            break
    assert training.n_epochs == 2


KERNEL = """
import pathlib, time
import torch
from labutils import Training, get_loaders, set_up
DEVICE = set_up(0, "cpu", "{folder}")
loader, _ = get_loaders("digits", 32, limit=64)
def train(name, wait_in):
    training = Training(name, "{folder}", {{}}, network=torch.nn.Linear(1, 1))
    for epoch in training.epochs(4, loader):
        if epoch == wait_in:
            print("now", flush=True)
            time.sleep(60)
        if wait_in == "fail":
            1 / 0
"""


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "line"), [
    ("train('a', 3)", "Interrupted in epoch 3 of 4: 2 complete epochs are kept. To go on, set resume = True in the "
                      "parameters, run that cell, then this one."),
    ("train('a', 1)", "Interrupted in epoch 1 of 4: nothing is kept yet. Run this cell again to train from the "
                      "beginning."),
    ("train('a', None); print('now'); time.sleep(60)", "Interrupted."),
    ("print('now'); time.sleep(60)", "Interrupted."),
], ids=["in the third epoch", "in the first epoch", "after the training", "in a cell without one"])
def test_an_interrupt_ends_in_one_line(tmp_path, kernel, cell, line):
    answer, said = kernel(KERNEL.format(folder=tmp_path)), []
    assert answer["status"] == "ok" and kernel("train('a', 'fail')")["status"] == "error"    # that one is over
    answer = kernel(cell, interrupt_at="now\n", said=said)
    assert answer["status"] == "error" and answer["ename"] == "KeyboardInterrupt"
    assert [message["traceback"] for message in said if "traceback" in message] == [[line]]
    assert not [message for message in said if message.get("name") == "stderr"]
    assert kernel("1 / 0")["status"] == "error", "the kernel lives"


@pytest.mark.slow
def test_vs_code_gets_one_display_that_is_updated(tmp_path, kernel):
    """As its kernels have it: a variable with the notebook's path. Everything goes to one display, by its id."""
    said = []
    assert kernel(KERNEL.format(folder=tmp_path))["status"] == "ok"
    kernel("__vsc_ipynb_file__ = 'lab.ipynb'")
    kernel(f"training = Training('a', '{tmp_path}', {{}}, network=torch.nn.Linear(1, 1))\n"
           "for epoch in training.epochs(4, loader):\n    list(training.batches())", said=said)
    kernel("del __vsc_ipynb_file__")
    shown = [message for message in said if "transient" in message]
    assert len(shown) > 1 and len({message["transient"]["display_id"] for message in shown}) == 1
    assert "a: epoch 1 of 4, batch 1 of 2" in shown[0]["data"]["text/html"]
    assert shown[-1]["data"]["text/plain"].startswith("a: 4 epochs in ")


@pytest.fixture(scope="module")
def kernel():
    """A real kernel; gives kernel(code, interrupt_at=None, said=None) -> its reply.

    said  list to which the contents of its messages are added; the kernel is interrupted when it prints `interrupt_at`
    """
    manager, client = start_new_kernel()

    def execute(code, interrupt_at=None, said=None):
        def listen(message):
            if said is not None:
                said.append(message["content"])
            if interrupt_at and message["content"].get("text", "").endswith(interrupt_at):
                manager.interrupt_kernel()
        return client.execute_interactive(code, output_hook=listen, timeout=60)["content"]
    yield execute
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_more_epochs_go_on_from_a_finished_training(tmp_path):
    network, training = train(tmp_path / "whole", 5)
    train(tmp_path / "halves", 3)
    for _ in range(2):      # the second time nothing is left to do
        resumed_network, resumed = train(tmp_path / "halves", 5, resume=True)
        assert resumed.history == training.history and torch.equal(resumed_network[1].weight, network[1].weight)
        assert [picture.max() for picture in resumed.pictures] == [1, 2, 3, 4, 5]


def test_a_training_that_a_gpu_has_begun_goes_on_on_a_cpu(tmp_path):
    for last_epoch in (1, 2):
        module, loader = nn.Linear(1, 1), get_loaders("digits", 32, limit=64)[0]
        optimizer = torch.optim.RMSprop(module.parameters(), foreach=True)
        training = Training("a", tmp_path, {}, resume=True, module=module)
        for epoch in training.epochs(last_epoch, loader, optimizer=optimizer):
            module.weight.grad = torch.ones(1, 1)
            optimizer.step()
            optimizer.param_groups[0]["capturable"] = True      # as GraphedStep sets it on a GPU; a CPU refuses it
        assert epoch == last_epoch
    assert optimizer.state[module.weight]["step"] == 2


def test_without_resume_a_training_starts_again(tmp_path):
    train(tmp_path, 3)
    assert len(train(tmp_path, 2)[1].history["loss"]) == 2
    assert read_checkpoint(tmp_path / "a.state")[0]["epoch"] == 2


def test_the_state_of_another_run_is_refused_by_the_setting_that_differs(tmp_path):
    train(tmp_path, 1)
    with pytest.raises(CheckpointError, match=r"a\.state was written with seed=0, .* has seed=1.*resume=False"):
        train(tmp_path, 2, resume=True, settings={"seed": 1})
    with pytest.raises(CheckpointError, match=r"does not fit 'network'.*resume=False"):
        train(tmp_path, 2, resume=True, hidden=5)


@pytest.mark.parametrize("n_epochs", [1, 3], ids=["finished", "interrupted"])
def test_no_hand_in_goes_on_from_that_of_another_student(tmp_path, monkeypatch, n_epochs):
    """Two notebooks in one checkout, with the same parameters, so that both write to one folder."""
    for name in ("ada", "ben"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "ada")
    train(tmp_path / "out", 1)
    monkeypatch.chdir(tmp_path / "ben")
    with pytest.raises(CheckpointError, match=r"a\.state was written with notebook_folder='.*/ada', this training has "
                                              r"notebook_folder='.*/ben'.*resume=False"):
        train(tmp_path / "out", n_epochs, resume=True)
    monkeypatch.chdir(tmp_path / "ada")
    assert train(tmp_path / "out", n_epochs, resume=True)[1].n_epochs == n_epochs
    monkeypatch.chdir(PROJECT_ROOT / "tests")
    train(tmp_path / "out", 1)
    folder = read_checkpoint(tmp_path / "out/a.state")[0]["settings"]["notebook_folder"]
    assert folder == "tests", "a course that is moved keeps its states"


@pytest.mark.parametrize("n_bytes", [0, -20], ids=["empty", "cut"])
def test_a_damaged_state_is_refused_with_advice_that_helps(tmp_path, n_bytes):
    state = tmp_path / "a.state"
    train(tmp_path, 1)
    state.write_bytes(state.read_bytes()[:n_bytes])
    with pytest.raises(CheckpointError) as error:
        train(tmp_path, 2, resume=True)
    assert f"{state} is not a whole safetensors file" in str(error.value)
    assert str(error.value).endswith("; delete it, or start again with resume=False (labs run --force)")
    history = train(tmp_path, 2)[1].history
    state.unlink()
    assert train(tmp_path, 2, resume=True)[1].history == history, "either helps"


def test_an_interrupted_write_leaves_the_last_state(tmp_path, monkeypatch):
    train(tmp_path, 1)
    monkeypatch.setattr("labutils.training.save_image", lambda *_: None)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        train(tmp_path, 2, resume=True)
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "a.state")[0]["epoch"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"a.state", "picture_1.png"}
