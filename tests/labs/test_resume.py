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
