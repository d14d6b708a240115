"""What makes a training faster without changing what it computes, except for rounding."""

import contextlib
import ctypes
import warnings
from collections import Counter

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import get_gradient_edge

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3      # from glibc's malloc.h


def keep_memory():
    """Let the C library keep up to 1 GB of freed memory for the next training step.

    glibc gives a large block back to the system when it is freed. The next tensor of the same size then comes in
    fresh pages of 4 kB, and the system has to find and clear each of them: about ten thousand in a step of a
    convolutional network. The change affects only this process. With another C library it has no effect.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):      # no glibc
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, 32 * 2**20)       # the largest value that glibc takes
        library.mallopt(M_TRIM_THRESHOLD, 2**30)


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


class GraphedStep:
    """A training step that a GPU repeats as one CUDA graph. Other devices call the step as it is.

        step = GraphedStep(lambda x: train_step(vae, optimizer, x, beta), optimizer)
        for x, _ in loader:
            reconstruction, kl = step(x)

    A step of a small network is a hundred kernels of a few microseconds each, and Python takes longer to start one
    than the GPU takes to compute it. A graph is a list of kernels that is recorded once and started with a single call
    (PyTorch documentation, "CUDA semantics", section "CUDA Graphs").

    step        function of one or more tensors on one device; returns a tuple of tensors that need no gradient
    optimizers  those that the step calls; on a GPU they are set to keep all their numbers there (`capturable`)

    The first `WARM_UP` calls with inputs of one shape run the step as it is, and the next call records it. A recording
    holds kernels, not Python: nothing is printed, and branches and numbers other than the inputs stay as they were.
    When a learning rate changes, the step is recorded again. Noise is fresh in each call. A step that cannot be
    recorded is called as it is from then on, with a warning that says why.
    """

    WARM_UP = 3     # the first steps choose algorithms and create what the optimisers keep

    def __init__(self, step, *optimizers):
        self.step, self.optimizers = step, optimizers
        self.rates, self.calls, self.graphs, self.obstacle = None, Counter(), {}, None

    def __call__(self, *inputs):
        if self.obstacle or not inputs[0].is_cuda:
            return self.step(*inputs)
        with torch.cuda.device(inputs[0].device):       # streams and graphs belong to one GPU of several
            return self.on_gpu(inputs)

    def on_gpu(self, inputs):
        """Take the step: as it is for the first inputs of a shape, by its graph from then on."""
        rates = [group["lr"] for group in self.groups()]
        if rates != self.rates:
            self.rates, self.calls, self.graphs = rates, Counter(), {}
        shapes = tuple(x.shape for x in inputs)     # the last batch of an epoch may be shorter: a graph of its own
        self.calls[shapes] += 1
        if self.calls[shapes] <= self.WARM_UP:
            return self.warm_up(inputs) if self.calls[shapes] < self.WARM_UP else self.find_obstacle(inputs)
        if shapes not in self.graphs:
            self.graphs[shapes] = self.record(inputs)
        graph, recorded_inputs, results = self.graphs[shapes]
        for recorded, x in zip(recorded_inputs, inputs):
            recorded.copy_(x)
        graph.replay()
        return tuple(result.clone() for result in results)      # the next replay writes into the same memory

    def groups(self):
        """Return the parameter groups of all optimisers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def warm_up(self, inputs):
        """Take the step on a separate stream, as a recording does, with optimisers that count on the device."""
        for group in self.groups():
            group["capturable"] = True
        for optimizer in self.optimizers:
            for state in optimizer.state.values():
                if "step" in state:
                    state["step"] = state["step"].to(inputs[0].device)      # a loaded state has it on the CPU
        current, own = torch.cuda.current_stream(), torch.cuda.Stream()
        own.wait_stream(current)
        with torch.cuda.stream(own):
            results = self.step(*inputs)
        current.wait_stream(own)
        return results

    def find_obstacle(self, inputs):
        """Take the last step before the recording, and look for what would make the recording fail.

        A recording that fails leaves PyTorch unable to draw random numbers, so none is started that would fail.
        """
        with reads_of_the_device() as reads:
            results = self.warm_up(inputs)
        if reads:
            self.obstacle = "it reads a value from the device, with .item(), print or if"
        elif any(has_live_graph(p) for group in self.groups() for p in group["params"]):
            self.obstacle = ("an older result of a network still holds its graph: compute that under torch.no_grad(), "
                             "or let the step return .detach()")
        if self.obstacle:
            warnings.warn("this training step cannot be recorded as a CUDA graph, so it runs without one, slower: "
                          f"{self.obstacle}", stacklevel=4)
        return results

    def record(self, inputs):
        """Record the step without taking it; return the graph and the memory of its inputs and results."""
        recorded_inputs, graph = [x.clone() for x in inputs], torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            return graph, recorded_inputs, self.step(*recorded_inputs)


@contextlib.contextmanager
def reads_of_the_device():
    """Collect in a list the warnings about operations that wait for the GPU, which a graph cannot hold."""
    reads, mode = [], torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield reads
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            reads += [warning for warning in caught if "called a synchronizing CUDA operation" in str(warning.message)]


def has_live_graph(parameter):
    """Tell whether an earlier result still holds a graph that leads to this parameter."""
    if not parameter.requires_grad:
        return False
    get_gradient_edge(parameter).node.metadata["seen"] = True      # the node lives while a graph holds it
    return "seen" in get_gradient_edge(parameter).node.metadata


class ConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d`, faster in a decoder's first layers.

    Takes images (B, C, H, W). An input of one pixel goes through a linear layer. On a CPU an input no larger than the
    kernel gets a faster gradient. Other inputs, and layers with padding, dilation or groups, take PyTorch's own way.
    """

    def forward(self, x):
        options = self.padding, self.output_padding, self.dilation, self.groups
        plain = options == ((0, 0), (0, 0), (1, 1), 1) and x.ndim == 4
        if plain and x.shape[2:] == (1, 1):
            return self.as_linear_layer(x)
        if plain and x.device.type == "cpu" and all(n <= k for n, k in zip(x.shape[2:], self.kernel_size)):
            return TransposedConvolution.apply(x, self.weight, self.bias, self.stride)
        return super().forward(x)

    def as_linear_layer(self, x):
        """Multiply each number of the codes (B, C, 1, 1) by its whole kernel: with one pixel nothing overlaps."""
        n_weights = self.kernel_size[0] * self.kernel_size[1]
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)
        rows = F.linear(x.flatten(1), weight, None if self.bias is None else self.bias.repeat(n_weights))
        return rows.unflatten(1, (*self.kernel_size, -1)).permute(0, 3, 1, 2)


class TransposedConvolution(torch.autograd.Function):
    """A transposed convolution that computes both of its gradients as convolutions.

    PyTorch (oneDNN) computes the gradient of the weights with a special kernel, which takes up to twice as long.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(context, x, weight, bias, stride):
        context.save_for_backward(x, weight)
        context.stride = stride
        return F.conv_transpose2d(x, weight, bias, stride)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(context, gradient):
        x, weight = context.saved_tensors
        x_gradient = F.conv2d(gradient, weight, stride=context.stride)
        # for the weights, the channels of the gradient and of x change places with the batch
        swapped = (t.transpose(0, 1).contiguous(memory_format=torch.channels_last) for t in (gradient, x))
        weight_gradient = F.conv2d(*swapped, dilation=context.stride).transpose(0, 1)
        return x_gradient, weight_gradient, gradient.sum((0, 2, 3)) if context.needs_input_grad[2] else None, None
