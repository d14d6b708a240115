"""What every training loop needs around the model: device, seed, initial weights, meters."""

import contextlib
import ctypes
import random
import warnings
from collections import Counter

import numpy as np
import torch
from torch import nn
from torch.autograd.graph import get_gradient_edge
from tqdm import tqdm

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3      # from glibc's malloc.h


def get_device(prefer="auto"):
    """Return a `torch.device`; "auto" takes CUDA, then MPS, then the CPU.

    Raises `ValueError` for a device that this machine, or this build of torch, does not have.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if prefer == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    try:
        device = torch.device(prefer)
        there = available.get(device.type, False)
        if there and device.type == "cuda" and device.index is not None:
            there = device.index < torch.cuda.device_count()
    except (RuntimeError, TypeError):
        there = False
    if not there:
        found = ", ".join(name for name, there in available.items() if there)
        raise ValueError(f"device={prefer!r}: not to be had here; torch {torch.__version__} finds: "
                         f'{found}. Take one of these, or device="auto"')
    return device


def seed_everything(seed):
    """Seed Python's, NumPy's and PyTorch's generators, the GPU's too; raises as `require_seed`."""
    require_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def require_seed(seed):
    """Raise `ValueError` unless `seed` is a whole number from 0 to 2**32 - 1 (NumPy's bound)."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed!r}: must be a whole number from 0 to {2**32 - 1}")


def require_positive(**settings):
    """Raise `ValueError` unless every setting is a whole number of at least 1.

    `require_positive(epochs=epochs)` belongs before the data is loaded: nobody should wait for an
    error that can be seen at once.
    """
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}={value!r}: must be a whole number of at least 1; "
                             "set it in the cell of the parameters")


def init_weights(module, std=0.02):
    """Initialise one layer as in DCGAN; use as `network.apply(init_weights)`.

    Weights of convolutions and linear layers N(0, std), of batch normalisation N(1, std), all
    biases 0 (Radford, Metz, Chintala 2016, arXiv:1511.06434, section 4).
    """
    if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)):
        nn.init.normal_(module.weight, 0, std)
    elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
        nn.init.normal_(module.weight, 1, std)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


class AverageMeter:
    """Weighted mean of the values seen since the last reset.

    A tensor is added up on its own device, in float64 where the device has it, and read only when
    `sum` or `avg` is asked for: a loop without `.item()` does not wait for the GPU at every step.
    """

    def __init__(self):
        self.reset()

    def reset(self):
        """Forget everything."""
        self.count, self._sum = 0, 0.0

    def update(self, value, n=1):
        """Add `value`, a number or a tensor with one element: the mean over `n` cases."""
        if isinstance(value, torch.Tensor):
            if not isinstance(self._sum, torch.Tensor):
                dtype = torch.float32 if value.device.type == "mps" else torch.float64      # MPS has no float64
                self._sum = torch.tensor(self._sum, dtype=dtype, device=value.device)
            self._sum.add_(value.detach().reshape(()), alpha=n)     # one call, and no wait for the device
        else:
            self._sum = self._sum + value * n
        self.count += n

    @property
    def sum(self):
        """Sum of all values, each times its `n`: a float."""
        return float(self._sum)

    @property
    def avg(self):
        """Mean over all cases: a float; NaN where there is none yet."""
        return self.sum / self.count if self.count else float("nan")


def keep_memory():
    """Let the C library keep up to 1 GB of freed memory for the next training step.

    glibc returns a large block to the system when it is freed, and the next step's tensor of the same size comes in
    pages of 4 kB again, each of which the system first has to find and to clear: with the pictures of a convolutional
    network some ten thousand a step. Affects this process only, and nothing where the C library is another one.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):      # no glibc
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)       # the largest value that glibc takes
        library.mallopt(M_TRIM_THRESHOLD, 2**30)


class GraphedStep:
    """A training step that a GPU repeats as one CUDA graph. On other devices it is called as it is.

        step = GraphedStep(lambda x: train_step(vae, optimizer, x, beta), optimizer)
        for x, _ in loader:
            reconstruction, kl = step(x)

    A step of a small network is a hundred kernels of a few microseconds, and Python takes longer to start one than
    the GPU to compute it. A graph is a list of kernels, recorded once, that starts with a single call (PyTorch
    documentation, "CUDA semantics", section "CUDA Graphs").

    step        function of one or more tensors on one device; returns a tuple of tensors that need no gradient
    optimizers  those that it calls; on a GPU they are set to keep all their numbers there (`capturable`)

    The first `WARM_UP` calls with inputs of one shape run as they are, the next one records. What is recorded is
    kernels, not Python: prints, branches and numbers other than the inputs stay what they were at that moment. Only
    learning rates are looked after: when one changes, the step is recorded anew. Noise is fresh each time. A step
    that cannot be recorded goes on as it is, with a warning that says why.
    """

    WARM_UP = 3     # the first steps choose algorithms and create what the optimisers keep

    def __init__(self, step, *optimizers):
        self.step, self.optimizers = step, optimizers
        self.rates, self.calls, self.graphs, self.obstacle = None, Counter(), {}, None

    def __call__(self, *inputs):
        if self.obstacle or not inputs[0].is_cuda:
            return self.step(*inputs)
        with torch.cuda.device(inputs[0].device):       # of several GPUs the one that streams and graphs belong to
            return self.on_gpu(inputs)

    def on_gpu(self, inputs):
        """Take the step: as it is for the first inputs of a shape, by its graph from then on."""
        rates = [group["lr"] for group in self.groups()]
        if rates != self.rates:
            self.rates, self.calls, self.graphs = rates, Counter(), {}
        shapes = tuple(x.shape for x in inputs)     # the last batch of an epoch may be shorter: a graph of its own
        self.calls[shapes] += 1
        if self.calls[shapes] <= self.WARM_UP:
            return self.warm_up(inputs) if self.calls[shapes] < self.WARM_UP else self.look_ahead(inputs)
        if shapes not in self.graphs:
            self.graphs[shapes] = self.record(inputs)
        graph, places, results = self.graphs[shapes]
        for place, x in zip(places, inputs):
            place.copy_(x)
        graph.replay()
        return tuple(result.clone() for result in results)      # the next replay writes into the same memory

    def groups(self):
        """Return the groups of weights of all optimisers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def warm_up(self, inputs):
        """Take the step on a stream of its own, as a recording does, with optimisers that count on the device."""
        for group in self.groups():
            group["capturable"] = True
        for optimizer in self.optimizers:
            for state in optimizer.state.values():
                if "step" in state:
                    state["step"] = state["step"].to(inputs[0].device)      # on the CPU if it was loaded so
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            results = self.step(*inputs)
        here.wait_stream(aside)
        return results

    def look_ahead(self, inputs):
        """Take the last step before a recording, and look for what would spoil it.

        A recording that fails leaves PyTorch unable to draw random numbers, so it is not tried where it would.
        """
        with reads_of_the_device() as reads:
            results = self.warm_up(inputs)
        if reads:
            self.obstacle = "it reads a value of the device, with .item(), print or if"
        elif any(is_held(p) for group in self.groups() for p in group["params"]):
            self.obstacle = ("an older result of a network still holds its graph: compute that under torch.no_grad(), "
                             "or let the step return .detach()")
        if self.obstacle:
            warnings.warn(f"this training step cannot be recorded as a CUDA graph and goes on as it is, slower: {self.obstacle}",
                          stacklevel=4)
        return results

    def record(self, inputs):
        """Record the step without taking it; return the graph and the memory of its inputs and results."""
        places, graph = [x.clone() for x in inputs], torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            return graph, places, self.step(*places)


@contextlib.contextmanager
def reads_of_the_device():
    """Collect in a list the warnings of operations that wait for the GPU: a graph cannot hold them."""
    reads, mode = [], torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield reads
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            reads += [warning for warning in caught if "called a synchronizing CUDA operation" in str(warning.message)]


def is_held(parameter):
    """Tell whether some result still holds the graph through which it would send this parameter its gradient."""
    if not parameter.requires_grad:
        return False
    get_gradient_edge(parameter).node.metadata["seen"] = True      # the node lives as long as something holds it
    return "seen" in get_gradient_edge(parameter).node.metadata


def progress(iterable, description):
    """Wrap an iterable in a progress bar that redraws at most twice a second."""
    return tqdm(iterable, desc=description, mininterval=0.5, leave=False, dynamic_ncols=True)


def has_bfloat16(device):
    """Tell whether `device` multiplies matrices faster in bfloat16 than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        return bool(features.get("avx512_bf16") or features.get("amx_bf16"))
    return False


def autocast(device):
    """Return a context that runs matrix products and convolutions in bfloat16 where that is faster.

    Weights, sums and losses stay float32. On other hardware the context changes nothing.
    """
    if has_bfloat16(device):
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()
