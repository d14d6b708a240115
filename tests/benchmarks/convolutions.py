"""What each saving brings to the training step of lab 03's convolutional VAE: 128 pictures of noise a step.

    python tests/benchmarks/convolutions.py --device cpu

The trainings take two steps each in turns, so that other work on the machine slows all of them alike. The first turn
warms up and does not count; the times are medians of the others. docs/speed.md explains the savings.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers import definitions  # noqa: E402

from labutils import ConvTranspose2d, get_device, keep_memory  # noqa: E402

N_STEPS = 2
WAYS = {        # bfloat16, memory format, transposed convolution
    "as PyTorch has it": (False, torch.contiguous_format, nn.ConvTranspose2d),
    "channels_last": (False, torch.channels_last, nn.ConvTranspose2d),
    "bfloat16": (True, torch.contiguous_format, nn.ConvTranspose2d),
    "both": (True, torch.channels_last, nn.ConvTranspose2d),
    "+ ConvTranspose2d": (True, torch.channels_last, ConvTranspose2d),
}


def timed_step(device, bfloat16, memory_format, layer):
    """Return a function that trains a new network for a few steps and returns the seconds of one."""
    lab = definitions("03_conv_vae")        # a namespace of its own, in which autocast may do nothing
    if not bfloat16:
        lab.autocast = lambda _: torch.autocast(device.type, enabled=False)
    vae = lab.ConvVAE().to(device, memory_format=memory_format)
    for module in vae.decoder:
        if isinstance(module, nn.ConvTranspose2d):
            module.forward = partial(layer.forward, module)
    optimizer = torch.optim.Adam(vae.parameters(), lr=lab.learning_rate, fused=True)
    pictures = torch.rand(128, 1, 28, 28, device=device)

    def run():
        start = time.perf_counter()
        for _ in range(N_STEPS):
            terms = lab.train_step(vae, optimizer, pictures, None, 1.0)
        terms[0].item()         # waits for the device
        return (time.perf_counter() - start) / N_STEPS
    return run


def main():
    """Print the milliseconds of a step for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    keep_memory()
    runs = [timed_step(get_device(options.device), *way) for way in WAYS.values()]
    times = [[run() for run in runs] for _ in range(options.rounds)][1:]
    for name, median in zip(WAYS, np.median(times, axis=0)):
        print(f"{name:<18}{1000 * median:7.1f} ms a step of 128 pictures")


if __name__ == "__main__":
    main()
