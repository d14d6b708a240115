"""A training that is killed and resumed ends with the very weights and figures of one that was left alone."""

import json
import os
import signal
import subprocess
import textwrap
import time

import psutil
import pytest
import torch
from helpers import PROJECT_ROOT, command, executes, started
from torch import nn

from labutils import CheckpointError, TrainingState, get_loaders, seed_everything
from labutils.checkpoints import read_checkpoint

# how the main training of each lab is called: networks by name, and the call of `fit`
CALLS = {
    "01_autoencoder": ("model=lab.ConvAutoencoder(4)", "lab.fit(model, train, epochs, 'conv', 1e-3)"),
    "02_vae": ("vae=lab.VAE((784, 20, 4), True)", "lab.fit(vae, train, test, torch.randn(4, 4))"),
    "03_conv_vae": ("vae=lab.build('conv', (1, 28, 28))",
                    "lab.fit('digits', vae, train, test, epochs, sigma=None, beta=1, x_fixed=train.to_float(train.images[:4]))"),
    "04_gan": ("generator=lab.Generator(8).to(memory_format=torch.channels_last), discriminator=lab.Discriminator()",
               "lab.fit(generator, discriminator, train, epochs, torch.randn(4, 8), betas=(0.5, 0.9), every=2, stem='dcgan')"),
    "05_wgan": ("critic=lab.Critic(), generator=lab.Generator(8)", "lab.fit(critic, generator, train, torch.randn(4, 8))"),
}
SCRIPT = """
    import json, os, pathlib, signal, sys
    import torch
    sys.path.insert(0, {tests!r})
    from helpers import definitions
    from labutils import get_loaders, save_checkpoint, seed_everything
    from labutils.data import InMemoryLoader

    class KilledHalfway(InMemoryLoader):
        epoch = 0

        def __iter__(self):
            self.epoch += 1
            for i, batch in enumerate(super().__iter__()):
                if self.epoch == 3 and i == 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield batch

    def run(out, resume, loader_class):
        lab.out_dir, lab.resume = out, resume
        train, test = get_loaders("digits", 16, limit=100, image_range=(0, 1))
        train.__class__ = loader_class
        seed_everything(0)
        networks = dict({networks})
        globals().update(networks, train=train, test=test)
        result = {call}
        config = {{"history": result if isinstance(result, dict) else result[0],
                  "next": torch.rand(3).tolist()}}      # the random numbers go on alike, too
        save_checkpoint(out / "end.safetensors", config=config, **networks)

    lab = definitions({lab!r})
    epochs, out = 4, pathlib.Path(sys.argv[1])
    lab.epochs, lab.batch_size, lab.latent_dim = epochs, 16, 8
    lab.device, lab.image_range, lab.progress = torch.device("cpu"), (0, 1), lambda iterable, _: iterable
    torch.set_num_threads(1)
    if sys.argv[2] == "kill":
        run(out / "alone", False, InMemoryLoader)
        run(out / "killed", False, KilledHalfway)
    run(out / "killed", True, InMemoryLoader)
"""


def run_killed_and_resumed(lab, folder):
    """Train alone, and again up to a `kill -9`; note the epoch of what that has left; resume."""
    networks, call = CALLS[lab]
    script = textwrap.dedent(SCRIPT).format(tests=str(PROJECT_ROOT / "tests"), lab=lab, networks=networks, call=call)
    killed = command("python", "-c", script, folder, "kill")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    [state] = (folder / "killed").glob("*.state")
    epoch = read_checkpoint(state)[0]["epoch"]
    return epoch, command("python", "-c", script, folder, "resume"), folder


@pytest.mark.parametrize("lab", CALLS)
@executes(run_killed_and_resumed)
def test_kill_9_and_resume_end_bit_identical(lab, executed):
    [(epoch, resumed, folder)] = executed
    assert epoch == 2
    assert resumed.returncode == 0 and "going on after epoch 2" in resumed.stdout, resumed.stderr[-2000:]
    expected, found = (read_checkpoint(folder / name / "end.safetensors") for name in ("alone", "killed"))
    assert found[0] == expected[0] and all(torch.equal(found[1][key], expected[1][key]) for key in expected[1])


TINY = ["-p", "dataset", "digits", "-p", "limit", "512", "-p", "epochs", "12", "-p", "sweep_images", "300", "-p", "sweep_epochs", "1",
        "-p", "n_samples", "64", "-p", "device", "cpu"]


def run_a_lab_alone(folder):
    return command("labs", "run", "02_vae", *TINY, "--out", folder), folder / "02_vae"


def run_a_killed_lab(folder):
    """Kill the kernel of a lab in its training; return the exit code, the record and the epoch, and those of the same command once more."""
    lab = folder / "02_vae"
    with started("labs", "run", "02_vae", *TINY, "--out", folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(12_000):
            if (lab / "vae.state").exists() or process.poll() is not None:
                break
            time.sleep(0.01)
        for child in psutil.Process(process.pid).children(recursive=True):
            child.send_signal(signal.SIGKILL)
        process.wait(120)
    record, epoch = json.loads((lab / "run.json").read_text()), read_checkpoint(lab / "vae.state")[0]["epoch"]
    return process.returncode, record, epoch, command("labs", "run", "02_vae", *TINY, "--out", folder), lab


@executes(run_a_killed_lab, run_a_lab_alone)
def test_a_whole_lab_is_killed_and_resumed_to_the_same_figures(executed):
    (returncode, record, epoch, done, folder), (alone, folder_alone) = executed
    assert alone.returncode == 0, alone.stderr
    assert returncode == 1 and record["status"] == "failed" and epoch < 12
    assert done.returncode == 0, done.stderr
    expected, resumed = (json.loads((path / "results.json").read_text()) for path in (folder_alone, folder))
    different = {name for name in expected if expected[name] != resumed[name]}
    assert different <= {"seconds", "images_per_second"}
    assert json.loads((folder / "run.json").read_text())["resumed"] and not list(folder.glob("*.state"))


def training(path, n_epochs, resume=False, settings=None, hidden=4):
    """Train a tiny network; return its weights and history."""
    seed_everything(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, hidden), nn.Linear(hidden, 1))
    optimizer = torch.optim.Adam(network.parameters())
    loader, _ = get_loaders("digits", 32, limit=64)
    state = TrainingState(path, settings or {"seed": 0}, network=network, optimizer=optimizer, loader=loader)
    first, history = state.begin(resume, {"loss": []})
    for epoch in range(first, n_epochs + 1):
        for x, _ in loader:
            optimizer.zero_grad()
            loss = (network(x) - torch.rand(len(x), 1)).square().mean()
            loss.backward()
            optimizer.step()
        history["loss"].append(loss.item())
        state.save(epoch, history)
    return network, history


def test_more_epochs_go_on_from_a_finished_training(tmp_path):
    network, history = training(tmp_path / "a.state", 5)
    training(tmp_path / "b.state", 3)
    resumed, resumed_history = training(tmp_path / "b.state", 5, resume=True)
    assert resumed_history == history and torch.equal(resumed[1].weight, network[1].weight)
    assert training(tmp_path / "b.state", 5, resume=True)[1] == history       # nothing left to do


def test_a_training_that_a_gpu_has_begun_goes_on_on_a_cpu(tmp_path):
    for epoch in (1, 2):
        weight = torch.ones(3, requires_grad=True)
        optimizer = torch.optim.RMSprop([weight], foreach=True)
        state = TrainingState(tmp_path / "a.state", {}, optimizer=optimizer)
        assert state.begin(epoch == 2) == (epoch,)
        weight.grad = torch.ones(3)
        optimizer.step()
        optimizer.param_groups[0]["capturable"] = True      # as a GraphedStep sets it on a GPU; a CPU refuses such a step
        state.save(epoch)
    assert optimizer.state[weight]["step"] == 2


def test_without_resume_a_training_starts_anew(tmp_path):
    training(tmp_path / "a.state", 3)
    assert len(training(tmp_path / "a.state", 2)[1]["loss"]) == 2
    assert read_checkpoint(tmp_path / "a.state")[0]["epoch"] == 2


def test_another_run_s_state_is_refused_by_the_setting_that_differs(tmp_path):
    training(tmp_path / "a.state", 1)
    with pytest.raises(CheckpointError, match=r"a\.state was written with seed=0, this training has seed=1.*resume=False"):
        training(tmp_path / "a.state", 2, resume=True, settings={"seed": 1})
    with pytest.raises(CheckpointError, match=r"does not fit 'network'.*resume=False"):
        training(tmp_path / "a.state", 2, resume=True, hidden=5)


@pytest.mark.parametrize("n_bytes", [0, -20], ids=["empty", "cut"])
def test_a_damaged_state_is_refused_with_advice_that_helps(tmp_path, n_bytes):
    path = tmp_path / "a.state"
    training(path, 1)
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(CheckpointError) as error:
        training(path, 2, resume=True)
    assert f"{path} is not a whole safetensors file" in str(error.value)
    assert str(error.value).endswith("; delete it, or start anew with resume=False (labs run --force)")
    training(path, 2)
    path.write_bytes(b"")
    path.unlink()
    assert training(path, 2, resume=True)[1] == training(path, 2)[1], "either helps"


def test_an_interrupted_write_leaves_the_last_state(tmp_path, monkeypatch):
    training(tmp_path / "a.state", 1)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        training(tmp_path / "a.state", 2, resume=True)
    monkeypatch.undo()
    assert read_checkpoint(tmp_path / "a.state")[0]["epoch"] == 1 and len(list(tmp_path.iterdir())) == 1
