"""A lab on the GPU of a Mac, as far as that can be tried without one.

A device of our own computes on the CPU, refuses what every device refuses (NumPy reads no tensor on it), and
complains of what MPS cannot do: an operator without a kernel in torch's own table, float64, a generator of the CPU,
tensors of two devices in one operator. A complaint names its line of the lab. The results are those of the CPU: MPS's
own kernels and their speed are not tried.
"""

import linecache
import re
import sys
from pathlib import Path

import torch
import torchgen
import yaml
from apart import execute
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

import labutils.checkpoints

NAME = "mac"
KEYS = torch._C.DispatchKey
COMPOSITE = (KEYS.CompositeImplicitAutograd, KEYS.CompositeExplicitAutograd,
             KEYS.CompositeExplicitAutogradNonFunctional)
COPIES = {"_copy_from", "_copy_from_and_resize", "_to_copy"}        # between devices: each device has them
complaints, running = {}, []        # the second: the composite operators that are being taken apart


def with_mps_kernels():
    """Return the names of the operators with a kernel for MPS, by the table that torch is built from."""
    table = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    entries = yaml.load(table.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    found = {entry["func"].partition("(")[0]: entry for entry in entries}
    return {name for name, entry in found.items()       # a structured operator has the kernels of its out= form
            if "MPS" in str(list(found.get(entry.get("structured_delegate"), entry).get("dispatch", {})))}


HAS_KERNEL = with_mps_kernels()


class Module(_DummyBackendModule):
    """What torch asks of a device's module."""

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]


class OnMac(torch.Tensor):
    """A tensor on the device; `inner` has its values."""

    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=f"{NAME}:0")

    def __init__(self, inner):
        self.inner = inner

    def tolist(self):               # these two are refused to subclasses, not to devices
        return self.cpu().tolist()

    def __format__(self, spec):
        return self.cpu().__format__(spec)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return compute(operator, *args, **(kwargs or {}))


def compute(operator, *args, **kwargs):
    """Compute an operator as MPS would: by its kernel, else out of other operators, else there is a complaint."""
    name = operator._name.removeprefix("aten::")
    if name not in HAS_KERNEL | COPIES and "convolution" not in name:   # MPS has its own way to convolutions
        key = next(filter(operator.has_kernel_for_dispatch_key, COMPOSITE), None)
        if key is None:
            complain(f"{operator} has no kernel for MPS")
        elif operator not in running:       # a composite that calls itself is a view or an alias
            running.append(operator)
            try:
                out = operator._op_dk(key, *args, **kwargs)
            finally:
                running.pop()
            if all(isinstance(x, OnMac) or x.device.type != NAME for x in tensors(out)):
                return out
    if name == "_copy_from":
        inner_of(args[1]).copy_(inner_of(args[0]))
        return args[1]
    if name not in COPIES:
        check(operator, args, kwargs)
    return on_cpu(operator, args, kwargs)


def on_cpu(operator, args, kwargs):
    """Compute an operator on the CPU; its results are on the device, unless they are copied from it."""
    given = {id(inner_of(x)): x for x in tensors((args, kwargs)) if isinstance(x, OnMac)}
    target = kwargs.get("device")
    leaves = target is not None and torch.device(target).type != NAME

    def wrap(x):
        if not isinstance(x, torch.Tensor) or leaves:
            return x
        if x.dtype == torch.float64 and not running:    # inside of its own operators torch asks for the device
            complain(f"{operator} makes float64, which MPS does not have")
        if id(x) not in given:
            return OnMac(x)
        if given[id(x)].shape != x.shape:       # an out= that was empty
            given[id(x)].data = OnMac(x)
        return given[id(x)]
    args = [torch.tensor(x) if isinstance(x, (int, float)) and str(argument.type) == "Tensor" else x
            for x, argument in zip(args, operator._schema.arguments)]
    return tree_map(wrap, operator(*tree_map(inner_of, args), **tree_map(inner_of, kwargs)))


def check(operator, args, kwargs):
    """Complain of arguments that MPS refuses; an index may be on the CPU."""
    found = [x for x in tensors((args, kwargs)) if isinstance(x, OnMac) or x.dim()]
    if len({isinstance(x, OnMac) for x in found}) == 2 and not re.search("index|copy_", operator._name):
        complain(f"{operator} gets tensors on the device and on the CPU")
    if any(isinstance(x, torch.Generator) for x in tree_leaves((args, kwargs))):
        complain(f"{operator} gets a generator of the CPU")


def tensors(tree):
    """Return the tensors in a nest of arguments."""
    return [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]


def inner_of(x):
    """Return what stands for `x` on the CPU."""
    if isinstance(x, torch.device) and x.type == NAME:
        return torch.device("cpu")
    if not isinstance(x, OnMac):
        return x
    if x.shape != x.inner.shape:        # squeeze_ and its like know the shape alone
        x.inner = x.inner.as_strided(x.shape, x.stride(), x.storage_offset())
    return x.inner


def complain(what):
    """Note a complaint, and the line of the lab; a backward pass has none."""
    frame, place = sys._getframe(), "in a backward pass"
    while frame:
        file, line = frame.f_code.co_filename, linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        lent = file.endswith(".ipynb")      # by another lab; its lines are not known, its names are
        if "float64" in what and (".quantile(" in line or lent and "quantile" in frame.f_code.co_names):
            return      # it ranks in float64 where there is any; what it does on MPS is torch's to know
        if file.startswith("lab "):
            place = f"{file}:{frame.f_lineno}"
            break
        frame = frame.f_back
    complaints[f"{place}: {what}"] = None


class Lstm(torch.autograd.Function):
    """What `torch.lstm` gives: one operator on MPS, while torch takes its CUDA kernel for a device of our own."""

    @staticmethod
    def forward(ctx, options, *given):
        with torch.enable_grad():
            ctx.given = [inner_of(x).detach().requires_grad_() for x in given]
            x, h, c, *weights = ctx.given
            ctx.found = LSTM(x, (h, c), weights, *options)
        return tuple(OnMac(x.detach()) for x in ctx.found)

    @staticmethod
    def backward(ctx, *gradients):
        found = torch.autograd.grad(ctx.found, ctx.given, [inner_of(x) for x in gradients])
        return None, *map(OnMac, found)


LSTM, TENSOR = torch._VF.lstm, torch.tensor


def lstm(x, hx, weights, *options):
    """Compute `torch.lstm` on the device."""
    return Lstm.apply(options, x, *hx, *weights)


def tensor(data, **options):
    """Do what `torch.tensor` does; it takes single numbers of every device but those of a subclass."""
    return TENSOR(tree_map(lambda x: x.item() if isinstance(x, OnMac) else x, data), **options)


def set_up_device():
    """Let torch and labutils know the device."""
    _setup_privateuseone_for_python_backend(NAME, Module())
    fallback, kernels = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    fallback.fallback(compute, "PrivateUse1")
    fallback.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    kernels.impl("_copy_from", lambda *args: compute(torch.ops.aten._copy_from.default, *args), "PrivateUse1")
    for module in [module for name, module in sys.modules.items() if name.startswith("labutils")]:
        if hasattr(module, "get_device"):
            module.get_device = torch.device
    torch._VF.lstm, torch.tensor = lstm, tensor
    read = labutils.checkpoints.read_checkpoint

    def read_checkpoint(path, device="cpu", *args):     # safetensors knows torch's own devices alone
        config, found = read(path, "cpu", *args)
        return config, {key: tensor.to(device) for key, tensor in found.items()}
    labutils.checkpoints.read_checkpoint = read_checkpoint
    return fallback, kernels


def complaints_of(notebook, name, folder, parameters):
    """Execute a notebook on the device, as `execute` does; return the complaints. A process has the device for good."""
    keep = set_up_device()      # without a name, torch would forget the kernels
    execute(notebook, name, folder, {**parameters, "device": NAME})
    return [*complaints] if keep else []
