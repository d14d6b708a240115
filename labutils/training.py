"""What every training needs around the model: the set-up, initial weights, means, and the bookkeeping of a loop."""

import time

import torch
from torch import nn

from .checkpoints import find_pretrained, load_checkpoint, load_state, save_checkpoint, save_state
from .device import get_device, seed_everything
from .errors import BadValue
from .images import save_image
from .paths import make_dir, project_path
from .plots import LiveDisplay
from .results import duration
from .speed import keep_memory


def set_up(seed, device, out_dir, **counts):
    """Prepare a lab: seed all random numbers, make the folder `out_dir`, choose the device and print it.

    counts  parameters that must be whole numbers of at least 1, by name, such as `epochs=epochs`

    Returns the `torch.device` and the `Path`; raises `ValueError` for a bad count, seed or device.
    """
    require_positive(**counts)
    seed_everything(seed)
    device = get_device(device)
    keep_memory()
    print(f"running on {device}")
    return device, make_dir(out_dir)


def require_positive(**settings):
    """Raise `ValueError` unless every setting is a whole number of at least 1."""
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise BadValue(f"{name}={value!r}: must be a whole number of at least 1; "
                           "set it in the parameters cell")


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

    Tensors are added up on their own device, in float64 where the device has it, and read only when `sum` or `avg`
    is asked for. So a loop does not wait for the GPU in every step, as it would with `.item()`.
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


def progress(iterable, description):
    """Go through an iterable that has a length; in an open notebook a line says how far, and is gone at the end."""
    live, total = LiveDisplay(), len(iterable)
    for number, item in enumerate(iterable, 1):
        live.tell(f"{description}: {number} of {total}")
        yield item
    live.close()


class Training:
    """The bookkeeping of one training, so that its loop holds only the algorithm and what is to be noted.

        training = Training("02_vae_mnist", out_dir, {"seed": seed}, curves=["loss", "test_loss"], vae=vae)
        for epoch in training.epochs(10, train_loader, optimizer=optimizer):
            for x, _ in training.batches():
                training.add(len(x), loss=train_step(vae, optimizer, x))
            training.note(**training.means(), test_loss=evaluate(vae))
        training.save(metrics={"test_loss": training.history["test_loss"][-1]})

    name             of the training: of its weights, its state and its event files
    out_dir          folder for its files; a relative path is taken from the project's root
    settings         what describes the training: {name: a value that JSON can hold}; a resume needs the same settings
    curves           names of the lists in the history that are drawn during the training, in an open notebook
    resume           continue after the last complete epoch, if the state of this training is in `out_dir`
    tensorboard_dir  folder for TensorBoard's event files; None: none are written
    modules          the networks whose weights are saved, by name

    `history` is {name: list of numbers}, `pictures` a list of uint8 arrays. `seconds` is the time spent in `epochs`:
    0 if the weights were loaded.
    """

    def __init__(self, name, out_dir, settings, *, curves=(), resume=False, tensorboard_dir=None, **modules):
        self.name, self.out_dir, self.settings, self.modules = name, project_path(out_dir), settings, modules
        self.resume, self.curve_names, self.tensorboard_dir = resume, curves, tensorboard_dir
        self.history, self.pictures, self.seconds = {}, [], 0.0
        self.n_epochs, self.n_images, self.epoch, self.loader, self.live, self.meters = 0, 0, 0, None, None, {}
        self.start = self.first = None

    def load(self, *same):
        """Load the weights that the course ships under this name; return whether there are any.

        same  names of settings; weights that were trained with other values do not count
        """
        path = find_pretrained(self.name, **{name: self.settings[name] for name in same})
        if path is None:
            return False
        device = next(next(iter(self.modules.values())).parameters()).device
        config = load_checkpoint(path, device=device, **self.modules)
        self.history, self.n_epochs = config.get("history", {}), config["epochs"]
        print(f"loaded {path.name}: no training")
        return True

    def epochs(self, n_epochs, loader, **parts):
        """Yield the epochs up to `n_epochs`, from 1 or from where a training stopped; save the state after each.

        In an open notebook a line says how far the training is, above the curves. In the end one line is left: how many
        epochs it took, how long, and the last values of the curves.

        loader  training batches, which `batches` serves
        parts   what else has a state, by name: optimisers and schedules

        Raises `CheckpointError` for a state that is damaged or belongs to another training.
        """
        self.start, self.first = time.perf_counter(), 1
        path = self.out_dir / f"{self.name}.state"
        self.n_epochs, self.loader, parts = n_epochs, loader, {**self.modules, **parts, "loader": loader}
        if self.resume and path.is_file():
            done, (self.history, self.pictures) = load_state(path, self.settings, parts)
            print(f"going on after epoch {done}, from {path.name}")
            self.first = done + 1
        self.live = LiveDisplay(self.curve_names, run=self.name, tensorboard_dir=self.tensorboard_dir)
        for self.epoch in range(self.first, n_epochs + 1):
            yield self.epoch
            self.n_images += loader.n_images
            save_state(path, self.settings, self.epoch, parts, [self.history, self.pictures])
        self.seconds += time.perf_counter() - self.start
        self.live.close(self.last_line())

    def last_line(self):
        """Return what is left of the display: epochs, time, and the last values of the curves."""
        n = max(self.n_epochs - self.first + 1, 0)
        values = [f"{name.replace('_', ' ')} {self.history[name][-1]:.4g}" for name in self.curve_names]
        return f"{self.name}: " + ", ".join([f"{n} epoch{'s' * (n != 1)} in {duration(self.seconds)}", *values])

    @property
    def images_per_second(self):
        """Training images per second in `epochs`; None if nothing was trained."""
        return self.n_images / self.seconds if self.n_images else None

    def batches(self):
        """Yield the batches of the loader once, and tell how far the training is."""
        n_batches, before = len(self.loader), (self.epoch - self.first) * len(self.loader)
        n_left = (self.n_epochs - self.epoch + 1) * n_batches
        for number, batch in enumerate(self.loader, 1):
            yield batch
            passed = time.perf_counter() - self.start
            left = duration(passed * (n_left - number) / (before + number))
            self.live.tell(f"{self.name}: epoch {self.epoch} of {self.n_epochs}, batch {number} of {n_batches}, "
                           f"{duration(passed)}, about {left} to go")

    def add(self, n, **values):
        """Add a value to the mean of each name: a number or a tensor with one element, itself a mean over `n` cases."""
        for name, value in values.items():
            self.meters.setdefault(name, AverageMeter()).update(value, n)

    def means(self):
        """Return {name: mean of the values added since the last call}, as floats."""
        means = {name: meter.avg for name, meter in self.meters.items()}
        self.meters = {}
        return means

    def note(self, **values):
        """Append a number, or each number of a list, to the list of that name in the history."""
        for name, value in values.items():
            self.history.setdefault(name, []).extend(value if isinstance(value, list) else [value])
        self.live.update(self.history)

    def keep_picture(self, name, picture, sheet=None):
        """Append a uint8 array to `pictures`, and save it, or the `sheet` made of it, as NAME.png in `out_dir`."""
        self.pictures.append(picture)
        save_image(self.out_dir / f"{name}.png", picture if sheet is None else sheet)

    def save(self, metrics):
        """Write weights, settings, history and metrics to NAME.safetensors in `out_dir`; return the path."""
        config = {**self.settings, "epochs": self.n_epochs, "metrics": metrics, "history": self.history}
        return save_checkpoint(self.out_dir / f"{self.name}.safetensors", config=config, **self.modules)
