import platform

import numpy as np
import pytest
import torch
from conftest import command
from torch import nn

from labutils import AverageMeter, autocast, get_device, init_weights, keep_memory, require_positive, seed_everything


@pytest.mark.parametrize("cuda, mps, expected", [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_auto_prefers_cuda_then_mps_then_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert get_device().type == expected


@pytest.mark.parametrize("prefer", ["cuda", "cuda:7", "mps", "gpu", "", None, 3.5, "meta"])
def test_a_device_that_is_not_there_is_named(monkeypatch, prefer):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError) as error:
        get_device(prefer)
    assert f"device={prefer!r}" in str(error.value) and 'device="auto"' in str(error.value)


def test_seed_repeats_all_three_generators():
    import random

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


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "0", True, None])
def test_a_bad_seed_is_named(seed):
    with pytest.raises(ValueError, match="seed="):
        seed_everything(seed)


@pytest.mark.parametrize("epochs", [0, -3, 2.5, "ten", None, True])
def test_require_positive_names_setting_and_value(epochs):
    with pytest.raises(ValueError) as error:
        require_positive(batch=1, epochs=epochs)
    assert f"epochs={epochs!r}" in str(error.value)


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


def test_autocast_follows_the_hardware(monkeypatch):
    layer, x = nn.Linear(4, 4), torch.ones(1, 4)
    for fast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast})
        with autocast(torch.device("cpu")):
            assert layer(x).dtype == dtype


FAULTS = """
import resource, torch
from labutils import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        step = [torch.empty(200_000 + 1000 * i).fill_(1) for i in range(80)]       # 1 MB each, all freed in each round
        del step
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
given_back = faults()
keep_memory()
faults()
print(given_back, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in its own way")
def test_memory_of_one_step_is_there_for_the_next():
    done = command("python", "-c", FAULTS)
    given_back, kept = map(int, done.stdout.split())
    assert given_back > 10_000 and kept < given_back / 20


def test_without_glibc_nothing_is_kept_and_nothing_fails(monkeypatch):
    for library in (lambda name: object(), lambda name: open("/nonexistent/libc")):     # as on macOS and on Windows
        monkeypatch.setattr("labutils.training.ctypes.CDLL", library)
        keep_memory()
