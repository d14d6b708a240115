"""What makes a training faster computes the same."""

import copy
import platform
import warnings
from contextlib import contextmanager
from unittest.mock import MagicMock

import pytest
import torch
from helpers import command
from torch import nn

from labutils import ConvTranspose2d, GraphedStep, autocast, keep_memory, seed_everything
from labutils.speed import TransposedConvolution

OBSTACLES = ["reads a value from the device", "older result of a network still holds its graph"]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")


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
        monkeypatch.setattr("labutils.speed.ctypes.CDLL", library)
        keep_memory()


# ----------------------------------------------------------------------------------- recorded steps

def small_training(device, optimizer_class, **options):
    """Return a network, its optimiser, and a step on (B, 8) that returns its loss and the mean of its noise."""
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
    """A tensor that claims to be on a GPU."""
    is_cuda = True


@pytest.fixture
def kernels(monkeypatch):
    """Replace CUDA's graphs by ones that replay the last function of the returned list, like a GPU its kernels."""
    kernels = []

    class Graph:
        def replay(self):
            self.kernel()

    @contextmanager
    def record(graph):
        yield
        graph.kernel = kernels[-1]

    def announce(mode):
        warnings.warn("Synchronization debug mode is a prototype feature and does not yet detect all operations")
    for name, stand_in in (("CUDAGraph", Graph), ("graph", record), ("Stream", MagicMock),
                           ("current_stream", MagicMock),
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
    torch.cuda.device.assert_called_with(x.device)      # else nothing of a second GPU would be recorded


def test_a_state_of_the_optimiser_that_was_loaded_on_a_cpu_counts_on_the_device(kernels):
    optimizer = torch.optim.RMSprop([weight := torch.zeros(1)])
    optimizer.state[weight]["step"] = count = MagicMock()
    GraphedStep(lambda x: (x,), optimizer)(torch.ones(4).as_subclass(OnGPU))
    count.to.assert_called_once()


@pytest.mark.filterwarnings("ignore:called a synchronizing")
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_a_step_that_cannot_be_recorded_goes_on_as_it_is(kernels, obstacle):
    network, optimizer, step = small_training("cpu", torch.optim.Adam, fused=True)
    older = network(torch.ones(4, 8)) if obstacle.startswith("older") else None

    def spoiled(x):
        if older is None:
            warnings.warn("called a synchronizing CUDA operation")      # as .item() does on a GPU in debug mode
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
@pytest.mark.parametrize("optimizer_class, options", [(torch.optim.Adam, {"fused": True}),
                                                      (torch.optim.RMSprop, {"foreach": True})])
def test_on_a_gpu_a_graph_takes_the_same_steps(optimizer_class, options):
    torch.manual_seed(1)
    batches = [torch.randn(n, 8, device="cuda") for n in (32, 32, 32, 32, 32, 8) * 6]      # a shorter last batch
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
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_on_a_gpu_a_step_that_cannot_be_recorded_goes_on_as_it_is(obstacle):
    network, optimizer, step = small_training("cuda", torch.optim.Adam, fused=True)
    x = torch.ones(4, 8, device="cuda")
    older = network(x) if obstacle.startswith("older") else None
    graphed = GraphedStep(lambda x: (step(x)[0].item(), older) if older is None else step(x), optimizer)
    with pytest.warns(UserWarning, match=f"cannot be recorded as a CUDA graph.*{obstacle}"):
        losses = [float(graphed(x)[0]) for _ in range(8)]
    assert len(set(losses)) == 8 and losses[-1] < losses[0] and not graphed.graphs
    older = None
    graphed = GraphedStep(step, optimizer)      # the GPU can still record
    losses = [float(graphed(x)[0]) for _ in range(8)]
    assert len(set(losses)) == 8 and graphed.graphs


# -------------------------------------------------------------------------- transposed convolution

# channels in and out, kernel, stride, side of the input, further options
SHAPES = [(6, 4, 5, 1, 1, {}), (6, 4, (3, 2), 2, 1, {"bias": False}),          # as a linear layer
          (6, 4, 5, 1, 5, {"bias": False}), (3, 4, 4, 1, 3, {}), (3, 2, 5, 2, 4, {}),      # as convolutions
          (3, 2, 4, 3, 2, {"bias": False}), (3, 2, (3, 4), (2, 1), 3, {}),
          (3, 2, 3, 2, 4, {}), (3, 4, 4, 2, 2, {"padding": 1}), (4, 4, 4, 1, 3, {"groups": 2}),       # PyTorch's own
          (3, 2, 3, 2, 3, {"output_padding": 1}), (3, 2, 3, 1, 3, {"dilation": 2})]


def both_layers(n_in, n_out, kernel, stride, options):
    """Return PyTorch's layer and ours with the same weights, in float64."""
    torch.manual_seed(0)
    theirs = nn.ConvTranspose2d(n_in, n_out, kernel, stride, dtype=torch.float64, **options)
    ours = ConvTranspose2d(n_in, n_out, kernel, stride, dtype=torch.float64, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("n_in, n_out, kernel, stride, side, options", SHAPES)
def test_results_and_gradients_are_those_of_pytorch(n_in, n_out, kernel, stride, side, options, memory_format):
    results = []
    for layer in both_layers(n_in, n_out, kernel, stride, options):
        layer.to(memory_format=memory_format)
        x = torch.arange(2.0 * n_in * side**2, dtype=torch.float64).sin().view(2, n_in, side, side).requires_grad_()
        y = layer(x)
        (y * torch.arange(y.numel()).cos().view_as(y)).sum().backward()
        results.append([y, x.grad, *(p.grad for p in layer.parameters())])
    torch.testing.assert_close(*results)
    alone, = torch.autograd.grad(layer(x[0]).square().sum(), x)        # one image without a batch
    together, = torch.autograd.grad(layer(x)[0].square().sum(), x)
    torch.testing.assert_close(alone, together)


@pytest.mark.parametrize("stride", [1, 2, (1, 3)])
def test_gradients_of_both_orders_match_finite_differences(stride):
    torch.manual_seed(0)
    tensors = [torch.randn(*shape, dtype=torch.float64, requires_grad=True)
               for shape in ((2, 3, 2, 3), (3, 2, 3, 3), (2,))]     # images, weights, biases
    stride = (stride, stride) if isinstance(stride, int) else stride
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda *inputs: TransposedConvolution.apply(*inputs, stride), tensors)


@pytest.mark.parametrize("side", [1, 3])
def test_autocast_takes_bfloat16_and_leaves_gradients_of_float32(side):
    torch.manual_seed(0)
    theirs = nn.ConvTranspose2d(16, 8, 3)
    ours = ConvTranspose2d(16, 8, 3)
    ours.load_state_dict(theirs.state_dict())
    results = []
    for layer, fast in ((theirs, False), (ours, True)):
        x = torch.linspace(-1, 1, 4 * 16 * side**2).view(4, 16, side, side).sin().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            y = layer(x)
        assert y.dtype == (torch.bfloat16 if fast else torch.float32)
        y.float().square().sum().backward()
        results.append([y.float(), x.grad, *(p.grad for p in layer.parameters())])
    for exact, rounded in zip(*results):
        assert rounded.dtype == torch.float32 and (exact - rounded).norm() < 0.01 * exact.norm()


def test_only_what_is_asked_for_has_a_gradient():
    layer = ConvTranspose2d(3, 2, 3)
    layer.weight.requires_grad_(False)
    x = torch.ones(2, 3, 3, 3, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is not None and x.grad is not None
    layer.requires_grad_(True)
    layer(x.detach()).sum().backward(inputs=[layer.weight])
    assert layer.weight.grad.shape == layer.weight.shape


def test_small_inputs_take_the_faster_way(monkeypatch):
    taken = []
    monkeypatch.setattr(nn.ConvTranspose2d, "forward", lambda self, x: taken.append("PyTorch's"))
    monkeypatch.setattr(TransposedConvolution, "apply", lambda *_: taken.append("ours"))
    layer = ConvTranspose2d(2, 2, (4, 3))
    for side in ((4, 3), (1, 2), (4, 4), (5, 3)):
        layer(torch.ones(1, 2, *side))
    layer(torch.ones(1, 2, 2, 2, device="meta"))
    assert taken == ["ours", "ours", "PyTorch's", "PyTorch's", "PyTorch's"]
    for device in ("cpu", "meta"):      # a linear layer wherever
        assert layer.to(device)(torch.ones(1, 2, 1, 1, device=device)).shape == (1, 2, 4, 3)
    assert len(taken) == 5


def test_a_copy_is_pytorchs_layer_with_the_same_weights():
    layer = copy.deepcopy(ConvTranspose2d(2, 3, 3))
    assert isinstance(layer, nn.ConvTranspose2d)
    assert layer.state_dict().keys() == nn.ConvTranspose2d(2, 3, 3).state_dict().keys()
