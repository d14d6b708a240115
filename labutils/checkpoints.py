"""Weights in files: safetensors with settings, never a pickle.

A checkpoint is one safetensors file. Tensors are named "module/parameter"; the file's header holds the settings
and the history as JSON. Reading it runs no code (https://github.com/huggingface/safetensors).
"""

import hashlib
import json

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .device import get_device
from .errors import OneLine
from .paths import PROJECT_ROOT, project_path, replacing

PRETRAINED_DIR = PROJECT_ROOT / "checkpoints"


class CheckpointError(OneLine, RuntimeError):
    """A checkpoint cannot be read, or belongs to another network."""


def save_checkpoint(path, *, config, **state):
    """Write the weights of modules to one file.

    path    a relative one starts at the project's root
    config  a dict that JSON can hold: settings, metrics, history
    state   modules by name: `save_checkpoint(path, config={...}, generator=generator)`

    Returns the path.
    """
    return write_checkpoint(path, config, weights_of(state))


def weights_of(modules):
    """Return the weights of modules by name as {"module/parameter": tensor on the CPU}."""
    return {f"{name}/{key}": tensor.detach().cpu().contiguous()
            for name, module in modules.items() for key, tensor in module.state_dict().items()}


def write_checkpoint(path, config, tensors):
    """Write a config and tensors by name to a file, for `read_checkpoint`; return its path."""
    path = project_path(path)
    with replacing(path) as part:
        save_file(tensors, part, metadata={"config": json.dumps(config)})
    return path


def load_checkpoint(path, *, device="cpu", **modules):
    """Load weights into modules, by the names under which they were saved; return the config.

    Everything is checked before the first weight is changed: either all modules are loaded or none is.
    Raises `CheckpointError` for a file that is missing, truncated or of another format, and for weights
    of another architecture; raises `ValueError` for a device that does not exist here.
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
                                  "or train with pretrained=False")
    for name, module in modules.items():
        module.load_state_dict(states[name])
    return config


def read_checkpoint(path, device="cpu", way_out="save it again with save_checkpoint, or train with pretrained=False"):
    """Return `(config, tensors)` of a checkpoint file; raises `CheckpointError`, whose message ends with `way_out`."""
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; {way_out}")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            config = json.loads((file.metadata() or {})["config"])
            if not isinstance(config, dict):
                raise ValueError("its config is not a JSON object")
            # copies: a tensor of safe_open is a view of the file, which Windows would not let anybody replace
            return config, {key: file.get_tensor(key).clone() for key in file.keys()}
    except KeyError:
        raise CheckpointError(f"{path} is a safetensors file without a config; {way_out}") from None
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}): it is truncated or has another "
                              f"format, which is not read, since a pickle can run code; {way_out}") from error


def first_mismatch(saved, expected):
    """Describe the first tensor whose name or shape differs between two state dicts; return None if all agree."""
    for key in [*expected, *saved]:
        if key not in saved:
            return f"the file has no tensor {key!r}"
        if key not in expected:
            return f"the module has no tensor {key!r}"
        if saved[key].shape != expected[key].shape:
            return f"{key!r} is {tuple(saved[key].shape)} in the file and {tuple(expected[key].shape)} in the module"
    return None


def save_state(path, settings, epoch, parts, record):
    """Write all that a training needs to go on after an epoch: `load_state` reads it.

    settings  what must be the same when the training goes on: {name: whatever JSON can hold}
    parts     {name: object with a `state_dict`}: modules, optimisers, schedules, loaders
    record    lists and dicts of numbers and arrays that the training has filled

    PyTorch's random numbers are saved too, so that on a CPU the resumed training ends with the same weights and
    metrics as one that was never stopped.
    """
    tensors = {}
    state = pack({"parts": {name: part.state_dict() for name, part in parts.items()},
                  "random": random_state(), "record": record}, tensors)
    write_checkpoint(path, {"settings": settings, "epoch": epoch, "state": state}, tensors)


def load_state(path, settings, parts):
    """Bring the parts and the random numbers to where `save_state` found them; return the epoch and the record.

    Raises `CheckpointError` for a damaged file, and for one that was written with other settings or other parts.
    """
    saved, tensors = read_checkpoint(path, way_out="delete it, or start again with resume=False (labs run --force)")
    for name, value in json.loads(json.dumps(settings)).items():        # as the file holds them: a tuple is a list
        if saved["settings"].get(name) != value:
            raise CheckpointError(f"{path} was written with {name}={saved['settings'].get(name)!r}, this training has "
                                  f"{name}={value!r}: set it back, or start again with resume=False")
    state = unpack(saved["state"], tensors)
    for name, part in parts.items():
        try:
            part.load_state_dict(state["parts"][name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} does not fit {name!r}: {str(error).splitlines()[0]} Build what was trained "
                                  "then, or start again with resume=False") from None
        if isinstance(part, torch.optim.Optimizer):
            adapt_to_parameters(part)
    set_random_state(state["random"])
    return saved["epoch"], state["record"]


def pack(value, tensors):
    """Return nested dicts and lists as JSON can hold them; tensors and arrays go into `tensors`, their names stay."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        name = str(len(tensors))
        tensors[name] = torch.as_tensor(value).detach().cpu().contiguous()
        return {"array" if isinstance(value, np.ndarray) else "tensor": name}
    if isinstance(value, dict):
        return {"items": [[key, pack(item, tensors)] for key, item in value.items()]}      # a key may be a number
    if isinstance(value, (list, tuple)):
        return [pack(item, tensors) for item in value]
    return value


def unpack(value, tensors):
    """Undo `pack`; tuples come back as lists."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "items" in value:
        return {key: unpack(item, tensors) for key, item in value["items"]}
    return tensors[value["tensor"]] if "tensor" in value else tensors[value["array"]].numpy()


def adapt_to_parameters(optimizer):
    """Give what an optimiser has loaded the memory layout of its parameters, and undo what a GPU's graphs have set.

    Fused steps walk through averages and weights in the order of memory. A CPU refuses `capturable`, which
    `GraphedStep` sets on a GPU.
    """
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = optimizer.defaults["capturable"]
    for parameter, averages in optimizer.state.items():
        for name, tensor in averages.items():
            if isinstance(tensor, torch.Tensor) and tensor.shape == parameter.shape:
                averages[name] = torch.empty_like(parameter).copy_(tensor)


def random_state():
    """Return the state of PyTorch's random numbers, on the CPU and on all GPUs."""
    state = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}
    return state | ({"mps": torch.mps.get_rng_state()} if torch.backends.mps.is_available() else {})


def set_random_state(state):
    """Continue with the random numbers of `random_state`, on the devices that exist here."""
    torch.set_rng_state(state["cpu"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def find_pretrained(name, **settings):
    """Return the path of the course's weights `checkpoints/NAME.safetensors`; without any, print so and return None.

    `settings`, such as `beta=4`, are those with which the weights must have been trained. Raises `CheckpointError`
    for a file that is not the one in the card.
    """
    path = PRETRAINED_DIR / f"{name}.safetensors"
    if not path.is_file():
        print(f"the course has no weights {name}: training")
        return None
    found, expected = sha256(path), read_card().get(name, {}).get("sha256")
    if found != expected:
        raise CheckpointError(f"{path} is not the file in {PRETRAINED_DIR / 'card.json'}: its SHA-256 sum is {found}, "
                              f"and should be {expected}; restore it with 'git checkout checkpoints', or train with "
                              "pretrained=False")
    config = read_checkpoint(path)[0] if settings else {}
    for setting, value in settings.items():
        if config[setting] != value:
            print(f"the course's weights {name} were trained with {setting} = {config[setting]}, not {value}: training")
            return None
    return path


def read_card():
    """Return the card of the course's weights: {name: {"lab", "dataset", "epochs", ..., "sha256"}}."""
    path = PRETRAINED_DIR / "card.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON ({error}); restore it with 'git checkout checkpoints'") from None


def sha256(path):
    """Return the SHA-256 sum of a file, in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
