"""The device that computes, and the seeds of all random numbers."""

import random

import numpy as np
import torch

from .errors import BadValue


def get_device(prefer="auto"):
    """Return a `torch.device`; "auto" takes CUDA, then MPS, then the CPU.

    Raises `ValueError` for a device that this machine, or this build of torch, does not have.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if prefer == "auto":
        return torch.device(next(name for name, exists in available.items() if exists))
    try:
        device = torch.device(prefer)
        there = available.get(device.type, False)
        if there and device.type == "cuda" and device.index is not None:
            there = device.index < torch.cuda.device_count()
    except (RuntimeError, TypeError):
        there = False
    if not there:
        found = ", ".join(name for name, exists in available.items() if exists)
        raise BadValue(f"device={prefer!r}: not available here; torch {torch.__version__} finds: "
                       f'{found}. Take one of these, or device="auto"')
    return device


def seed_everything(seed):
    """Seed Python's, NumPy's and PyTorch's generators, the GPU's included; raises what `require_seed` raises."""
    require_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def require_seed(seed):
    """Raise `ValueError` unless `seed` is a whole number from 0 to 2**32 - 1 (NumPy's bound)."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise BadValue(f"seed={seed!r}: must be a whole number from 0 to {2**32 - 1}")
