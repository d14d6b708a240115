import platform
import warnings
from contextlib import contextmanager
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from helpers import command
from torch import nn

from labutils import (AverageMeter, GraphedStep, autocast, get_device, init_weights, keep_memory, require_positive,
                      seed_everything)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")


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


# ----------------------------------------------------------------------------------- recorded steps

def small_training(device, optimizer_class, **options):
    """Return a network, its optimiser and a step on (B, 8) that adds noise; it returns its loss and the mean of the noise."""
    seed_everything(0)
    network = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8)).to(device)
    optimizer = optimizer_class(network.parameters(), lr=1e-2, **options)

    def step(x):
        noise = torch.randn_like(x)
        loss = (network(x + noise) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach(), noise.mean()
    return network, optimizer, step


def test_on_a_cpu_a_graphed_step_is_the_step():
    network, optimizer, step = small_training("cpu", torch.optim.Adam)
    calls = []
    graphed = GraphedStep(lambda x, y: calls.append((x, y)) or (x,), optimizer)
    x, y = torch.ones(2), torch.zeros(3)
    for _ in range(6):
        assert graphed(x, y)[0] is x
    assert len(calls) == 6 and calls[5][1] is y
    assert optimizer.param_groups[0]["capturable"] is False


class OnGPU(torch.Tensor):
    """A tensor that says that it lies on a GPU."""
    is_cuda = True


@pytest.fixture
def kernels(monkeypatch):
    """Put in place of CUDA's graphs ones that replay the last function of the list that is returned, as a GPU its kernels."""
    kernels = []

    class Graph:
        def replay(self):
            self.kernel()

    @contextmanager
    def record(graph):
        yield
        graph.kernel = kernels[-1]

    def announce(mode):
        warnings.warn("Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations")
    for name, stand_in in (("CUDAGraph", Graph), ("graph", record), ("Stream", MagicMock), ("current_stream", MagicMock),
                           ("stream", MagicMock()), ("device", MagicMock()), ("get_sync_debug_mode", int),
                           ("set_sync_debug_mode", announce)):
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return kernels


def test_a_graph_is_recorded_for_each_shape_and_anew_for_another_learning_rate(kernels):
    optimizer = torch.optim.Adam([torch.zeros(1)], lr=1e-2)

    def step(x):
        result = x * optimizer.param_groups[0]["lr"]
        kernels.append(lambda rate=optimizer.param_groups[0]["lr"]: result.copy_(x * rate))
        return result,
    graphed, results, expected = GraphedStep(step, optimizer), [], []
    for epoch in range(12):
        optimizer.param_groups[0]["lr"] = rate = 2.0 if epoch < 6 else 3.0
        for n in (4, 4, 3):
            x = torch.rand(n).as_subclass(OnGPU)
            results += graphed(x)
            expected.append(rate * x)
    torch.testing.assert_close(results, expected)       # each of its own, however often the graph has written since
    assert len(kernels) == 2 * 2 * (GraphedStep.WARM_UP + 1), "steps that went through Python"
    assert optimizer.param_groups[0]["capturable"] is True
    torch.cuda.device.assert_called_with(x.device)      # else a second GPU would train in vain: nothing of it is recorded


def test_a_state_of_the_optimiser_that_was_loaded_on_a_cpu_counts_on_the_device(kernels):
    optimizer = torch.optim.RMSprop([weight := torch.zeros(1)])
    optimizer.state[weight]["step"] = count = MagicMock()
    GraphedStep(lambda x: (x,), optimizer)(torch.ones(4).as_subclass(OnGPU))
    count.to.assert_called_once()


@pytest.mark.filterwarnings("ignore:called a synchronizing")
@pytest.mark.parametrize("obstacle", ["reads a value of the device", "older result of a network still holds its graph"])
def test_a_step_that_cannot_be_recorded_goes_on_as_it_is(kernels, obstacle):
    network, optimizer, step = small_training("cpu", torch.optim.Adam, fused=True)
    older = network(torch.ones(4, 8)) if obstacle.startswith("older") else None

    def spoiled(x):
        if older is None:
            warnings.warn("called a synchronizing CUDA operation")      # as .item() does on a GPU, in the mode that is asked for
        return step(x.as_subclass(torch.Tensor))
    graphed = GraphedStep(spoiled, optimizer)
    with pytest.warns(UserWarning, match=f"cannot be recorded as a CUDA graph.*{obstacle}") as warned:
        losses = [graphed(torch.ones(4, 8).as_subclass(OnGPU))[0].item() for _ in range(8)]
    assert sum("recorded" in str(warning.message) for warning in warned) == 1
    assert len(set(losses)) == 8 and losses[-1] < losses[0] and not graphed.graphs


def test_a_result_without_its_graph_is_no_obstacle(kernels):
    network, optimizer, step = small_training("cpu", torch.optim.Adam, fused=True)
    with torch.no_grad():
        older = network(torch.ones(4, 8))
    network[0].bias.requires_grad_(False)
    graphed = GraphedStep(lambda x: step(x.as_subclass(torch.Tensor)), optimizer)
    for _ in range(GraphedStep.WARM_UP):
        graphed(torch.ones(4, 8).as_subclass(OnGPU))
    assert graphed.obstacle is None and not older.requires_grad


@needs_gpu
@pytest.mark.parametrize("optimizer_class, options", [(torch.optim.Adam, {"fused": True}), (torch.optim.RMSprop, {"foreach": True})])
def test_on_a_gpu_a_graph_takes_the_same_steps(optimizer_class, options):
    torch.manual_seed(1)
    batches = [torch.randn(n, 8, device="cuda") for n in (32, 32, 32, 32, 32, 8) * 6]      # the last of an epoch is shorter
    ends = []
    for graphed in (False, True):
        network, optimizer, step = small_training("cuda", optimizer_class, **options)
        step = GraphedStep(step, optimizer) if graphed else step
        results = []
        for i, x in enumerate(batches):
            if i == 20:
                optimizer.param_groups[0]["lr"] = 1e-3      # a number that the graph has to learn of
            results.append(step(x))
        ends.append([*network.parameters(), torch.tensor([[loss, noise] for loss, noise in results])])
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)
    assert len({noise for _, noise in ends[1][-1].tolist()}) == len(batches), "noise that was drawn twice"
    assert step.graphs, "nothing was recorded"


@needs_gpu
@pytest.mark.parametrize("obstacle", ["reads a value of the device", "older result of a network still holds its graph"])
def test_on_a_gpu_a_step_that_cannot_be_recorded_goes_on_as_it_is(obstacle):
    network, optimizer, step = small_training("cuda", torch.optim.Adam, fused=True)
    x = torch.ones(4, 8, device="cuda")
    older = network(x) if obstacle.startswith("older") else None
    graphed = GraphedStep(lambda x: (step(x)[0].item(), older) if older is None else step(x), optimizer)
    with pytest.warns(UserWarning, match=f"cannot be recorded as a CUDA graph.*{obstacle}"):
        losses = [float(graphed(x)[0]) for _ in range(8)]
    assert len(set(losses)) == 8 and losses[-1] < losses[0] and not graphed.graphs
    del older
    graphed = GraphedStep(step, optimizer)      # the GPU can still record
    losses = [float(graphed(x)[0]) for _ in range(8)]
    assert len(set(losses)) == 8 and graphed.graphs
