"""Weights in files: safetensors with their settings beside them, never a pickle.

A checkpoint is one safetensors file. Tensors are named "module/parameter"; the settings and the
history lie in the file's header as JSON. Reading it runs no code (https://github.com/huggingface/safetensors).
"""

import json

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .paths import PROJECT_ROOT, project_path, replacing

PRETRAINED_DIR = PROJECT_ROOT / "checkpoints"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read, or belongs to another network."""


def save_checkpoint(path, *, config, half=False, **state):
    """Write the weights of modules to one file.

    path    a relative one is taken from the project's root
    config  whatever JSON can hold: settings, figures, history
    half    store float32 as float16, at half the size, for weights that are only used, not trained on
    state   modules by name: `save_checkpoint(path, config={...}, generator=generator)`

    Returns the path.
    """
    tensors = {}
    for name, module in state.items():
        for key, tensor in module.state_dict().items():
            tensor = tensor.detach().cpu().contiguous()
            tensors[f"{name}/{key}"] = tensor.half() if half and tensor.is_floating_point() else tensor
    path = project_path(path)
    with replacing(path) as part:
        save_file(tensors, part, metadata={"config": json.dumps(config)})
    return path


def load_checkpoint(path, *, device="cpu", **modules):
    """Load weights into modules, by the names under which they were saved; return the config.

    All is checked before the first weight is written: a module is loaded whole or left alone.
    Raises `CheckpointError` for a file that is missing, truncated or of another format, and for
    weights of another architecture.
    """
    path = project_path(path)
    config, tensors = read_checkpoint(path, device)
    states = {}
    for name, module in modules.items():
        states[name] = {key.partition("/")[2]: tensor for key, tensor in tensors.items()
                        if key.partition("/")[0] == name}
        if mismatch := first_mismatch(states[name], module.state_dict()):
            settings = {key: value for key, value in config.items() if not isinstance(value, (dict, list))}
            raise CheckpointError(f"{path} does not fit the module {name!r}: {mismatch}. The file was "
                                  f"saved with {settings}; build the network with these settings, "
                                  "or train anew with pretrained=False")
    for name, module in modules.items():
        module.load_state_dict(states[name])
    return config


def read_checkpoint(path, device="cpu"):
    """Return `(config, tensors)` of a checkpoint file; raises `CheckpointError`."""
    way_out = "save it again with save_checkpoint, or train anew with pretrained=False"
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; {way_out}")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            config = json.loads((file.metadata() or {})["config"])
            return config, {key: file.get_tensor(key) for key in file.keys()}
    except KeyError:
        raise CheckpointError(f"{path} is a safetensors file without a config; {way_out}") from None
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}): truncated, or of "
                              f"another format, which is not read (a pickle can run code); {way_out}") from error


def first_mismatch(saved, wanted):
    """Describe the first tensor whose name or shape differs between two state dicts, or None."""
    for key in [*wanted, *saved]:
        if key not in saved:
            return f"the file has no tensor {key!r}"
        if key not in wanted:
            return f"the module has no tensor {key!r}"
        if saved[key].shape != wanted[key].shape:
            return f"{key!r} is {tuple(saved[key].shape)} in the file and {tuple(wanted[key].shape)} in the module"
    return None


def find_pretrained(name):
    """Return the path of the course's own weights `checkpoints/NAME.safetensors`, or None."""
    path = PRETRAINED_DIR / f"{name}.safetensors"
    return path if path.is_file() else None
