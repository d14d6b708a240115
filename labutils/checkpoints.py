"""Weights in files: safetensors with their settings beside them, never a pickle.

A checkpoint is one safetensors file. Tensors are named "module/parameter"; the settings and the
history lie in the file's header as JSON. Reading it runs no code (https://github.com/huggingface/safetensors).
"""

import hashlib
import json

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .paths import PROJECT_ROOT, project_path, replacing
from .training import get_device

PRETRAINED_DIR = PROJECT_ROOT / "checkpoints"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read, or belongs to another network."""


def save_checkpoint(path, *, config, **state):
    """Write the weights of modules to one file.

    path    a relative one is taken from the project's root
    config  whatever JSON can hold: settings, figures, history
    state   modules by name: `save_checkpoint(path, config={...}, generator=generator)`

    Returns the path.
    """
    return write_checkpoint(path, config, {f"{name}/{key}": tensor.detach().cpu().contiguous()
                                           for name, module in state.items()
                                           for key, tensor in module.state_dict().items()})


def write_checkpoint(path, config, tensors):
    """Write what `read_checkpoint` returns to a file; return its path."""
    path = project_path(path)
    with replacing(path) as part:
        save_file(tensors, part, metadata={"config": json.dumps(config)})
    return path


def load_checkpoint(path, *, device="cpu", **modules):
    """Load weights into modules, by the names under which they were saved; return the config.

    All is checked before the first weight is written: a module is loaded whole or left alone.
    Raises `CheckpointError` for a file that is missing, truncated or of another format, and for
    weights of another architecture; `ValueError` for a device that is not there.
    """
    path, device = project_path(path), get_device(device)
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
            if not isinstance(config, dict):
                raise ValueError("its config is no JSON object")
            return config, {key: file.get_tensor(key) for key in file.keys()}
    except KeyError:
        raise CheckpointError(f"{path} is a safetensors file without a config; {way_out}") from None
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
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
    """Return the path of the course's own weights `checkpoints/NAME.safetensors`, or None.

    Raises `CheckpointError` where the file is not the one that the card describes.
    """
    path = PRETRAINED_DIR / f"{name}.safetensors"
    if not path.is_file():
        return None
    found, expected = sha256(path), read_card().get(name, {}).get("sha256")
    if found != expected:
        raise CheckpointError(f"{path} is not the file of the card {PRETRAINED_DIR / 'card.json'}: its SHA-256 sum is "
                              f"{found}, and should be {expected}; bring it back with 'git checkout checkpoints', or "
                              "train anew with pretrained=False")
    return path


def read_card():
    """Return the card of the course's weights: {name: {"lab", "dataset", "epochs", ..., "sha256"}}."""
    path = PRETRAINED_DIR / "card.json"
    try:
        return json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}); bring it back with 'git checkout checkpoints'") from None


def sha256(path):
    """Return the SHA-256 sum of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
