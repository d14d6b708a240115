"""The device that computes, and the seeds."""

import random

import numpy as np
import pytest
import torch
from helpers import anything, check_named, quick
from hypothesis import given

from labutils import get_device, seed_everything


@pytest.mark.parametrize("cuda, mps, expected", [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_prefers_cuda_then_mps_then_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert get_device().type == expected


@pytest.mark.parametrize("prefer", ["cuda", "cuda:7", "cuda:x", "mps", "gpu", "", "cpu ", None, 3.5, [1], "meta"])
def test_a_device_that_is_not_there_is_named(monkeypatch, prefer):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError) as error:
        get_device(prefer)
    assert f"device={prefer!r}" in str(error.value) and 'device="auto"' in str(error.value)


def test_seed_repeats_all_three_generators():
    def draw():
        return random.random(), np.random.rand(), torch.rand(3)
    seed_everything(3)
    first = draw()
    seed_everything(3)
    second = draw()
    seed_everything(4)
    other = draw()
    assert first[:2] == second[:2] and torch.equal(first[2], second[2])
    assert first[0] != other[0] and first[1] != other[1] and not torch.equal(first[2], other[2])


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "0", True, None, float("nan"), [1]])
def test_a_bad_seed_is_named(seed):
    with pytest.raises(ValueError, match="seed="):
        seed_everything(seed)


@quick
@given(value=anything)
def test_any_value_is_accepted_or_named(value):
    check_named("seed", value, lambda: seed_everything(value))
    check_named("device", value, lambda: get_device(value))
