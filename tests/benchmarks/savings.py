"""What each saving brings to the training step of lab 02's VAE: one at a time, added to the plain loop of most labs.

    python tests/benchmarks/savings.py --device cpu         with MNIST: LABS_DATA_DIR, or data/

The trainings take 15 steps each in turns, so that other work on the machine slows all of them alike. The first turn
warms up and does not count; the times are medians of the others. docs/speed.md explains the savings.
"""

import argparse
import contextlib
import sys
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import definitions  # noqa: E402
from speed import plain_loader  # noqa: E402

from labutils import AverageMeter, GraphedStep, get_device, get_loaders, seed_everything  # noqa: E402

N_STEPS = 15


def steps(lab, loader, device, *, fused=False, read=False, bfloat16=False, graph=False):
    """Train a new network and never stop; yield a meter after each step, whose average waits for the device."""
    if not bfloat16:
        lab.autocast = lambda _: contextlib.nullcontext()
    seed_everything(0)
    vae = lab.VAE(*lab.ARCHITECTURES[lab.architecture]).to(device)
    optimizer = torch.optim.Adam(vae.parameters(), lr=lab.learning_rate, fused=fused)
    graphed = GraphedStep(lambda x: lab.train_step(vae, optimizer, x, lab.beta), optimizer)
    take_step = graphed if graph else graphed.step
    meters = AverageMeter(), AverageMeter()
    while True:
        for x, _ in loader:
            for meter, term in zip(meters, take_step(x.to(device))):
                meter.update(term.item() if read else term, len(x))
            yield meters[0]


def main():
    """Print the milliseconds of a step, with one saving more in each line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--architecture", default="784-400-20")
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    device = get_device(options.device)

    def start(loader, **savings):
        lab = definitions("02_vae")         # a namespace of its own, in which autocast may do nothing
        lab.architecture = options.architecture
        return steps(lab, loader, device, **savings)

    in_memory, _ = get_loaders("mnist", definitions("02_vae").batch_size, device=device)
    one_by_one = plain_loader(SimpleNamespace(image_range=(0, 1), batch_size=in_memory.batch_size))
    trainings = {"the plain loop": start(one_by_one, read=True), "+ data in memory": start(in_memory, read=True),
                 "+ no reading in the loop": start(in_memory), "+ fused optimiser": start(in_memory, fused=True),
                 "+ bfloat16": start(in_memory, fused=True, bfloat16=True)}
    if device.type == "cuda":
        trainings["+ a CUDA graph"] = start(in_memory, fused=True, bfloat16=True, graph=True)
    times = {name: [] for name in trainings}
    for _ in range(options.rounds):
        for name, training in trainings.items():
            begin = time.perf_counter()
            for meter in islice(training, N_STEPS):
                pass
            meter.avg       # waits for the device
            times[name].append((time.perf_counter() - begin) / N_STEPS)
    plain = np.median(times["the plain loop"][1:])
    for name, seconds in times.items():
        median = np.median(seconds[1:])
        print(f"{name:<26}{1000 * median:6.2f} ms a step, {plain / median:5.2f} times as fast as the plain loop")


if __name__ == "__main__":
    main()
