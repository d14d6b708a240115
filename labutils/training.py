"""What every training needs around the model: the set-up, initial weights, means, and the bookkeeping of a loop."""

import time
from pathlib import Path

import cv2
import numpy as np
import torch
from IPython import get_ipython
from torch import nn

from .checkpoints import (
    find_pretrained,
    load_checkpoint,
    load_state,
    read_checkpoint,
    save_state,
    weights_of,
    write_checkpoint,
)
from .device import get_device, seed_everything
from .errors import BadValue, require_whole
from .images import encode, save_image
from .limits import cores
from .paths import PROJECT_ROOT, make_dir, project_path
from .plots import LiveDisplay
from .results import duration
from .speed import keep_memory


def set_up(seed, device, out_dir, **counts):
    """Prepare a lab: seed all random numbers, make the folder `out_dir`, choose the device and print it.

    counts  parameters that must be whole numbers of at least 1, by name, such as `epochs=epochs`

    From here on an interrupt ends in one line. Returns the `torch.device`; raises `ValueError` for a bad count, seed
    or device, and `OSError` for a folder that cannot be made.
    """
    require_positive(**counts)
    seed_everything(seed)
    device = get_device(device)
    make_dir(out_dir)
    keep_memory()
    torch.set_num_threads(min(torch.get_num_threads(), cores()))    # it takes those of the machine, not the container
    if shell := get_ipython():
        shell.set_custom_exc((KeyboardInterrupt,), show_interrupt)
    print(f"running on {device}")
    return device


def show_interrupt(shell, kind, error, trace, tb_offset=None):
    """Show an interrupt (Kernel, Interrupt) in one line, which says what a training keeps; IPython calls it."""
    training, cell = Training.running or (None, None)
    line = training.interrupted() if cell == shell.execution_count else "Interrupted."
    shell._showtraceback(kind, error, [line])       # the cell still counts as failed: Run All stops here


def require_positive(**settings):
    """Raise `ValueError` unless every setting is a whole number of at least 1."""
    require_at_least(1, **settings)


def require_at_least(least, **settings):
    """Raise `ValueError` unless every setting is a whole number, and not below `least`."""
    require_whole(least, "; set it in the parameters cell", **settings)


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
                dtype = torch.float64 if value.device.type in ("cpu", "cuda") else torch.float32    # MPS has no float64
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


def require_same(settings, loader):
    """Raise `ValueError` if a loader was made with another data set, batch size or limit than `settings` say."""
    for name, value in loader.settings.items():
        if settings.get(name, value) != value:
            raise BadValue(f"{name}={settings[name]!r}: set after the loader was made, with {value!r}; run the cells "
                           "from the one that calls get_loaders to this one again")


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
    resume           continue after the last complete epoch, if the state of this training is in `out_dir`, where a
                     notebook in the same folder has left it
    tensorboard_dir  folder for TensorBoard's event files; None: none are written
    modules          the networks whose weights are saved, by name

    `history` is {name: list of numbers}, `pictures` a list of uint8 arrays, `n_epochs` the number of complete epochs.
    `seconds` is the time spent in `epochs`: 0 if the weights were loaded. `earlier_seconds` is what the training of
    loaded weights took, or what a resume goes on from.
    """

    running = None      # the training whose loop runs, and the number of its cell

    def __init__(self, name, out_dir, settings, *, curves=(), resume=False, tensorboard_dir=None, **modules):
        self.name, self.out_dir, self.settings, self.modules = name, project_path(out_dir), settings, modules
        self.resume, self.curve_names, self.tensorboard_dir = resume, curves, tensorboard_dir
        self.history, self.pictures, self.seconds, self.earlier_seconds = {}, [], 0.0, 0.0
        self.state_path = self.out_dir / f"{name}.state"
        self.n_epochs, self.n_images, self.epoch, self.meters = 0, 0, 0, {}
        self.start = self.first = self.n_wanted = self.loader = self.parts = self.live = None     # `begin` sets them

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
        self.earlier_seconds = config.get("seconds", 0.0)
        self.pictures = unpack_pictures(read_checkpoint(path)[1])
        print(f"loaded {path.name}: no training")
        return True

    def epochs(self, n_epochs, loader, **parts):
        """Yield the epochs up to `n_epochs`, from 1 or from where a training stopped; save the state after each.

        In an open notebook a line says how far the training is, above the curves. In the end one line is left: how many
        epochs it took, how long, and the last values of the curves.

        loader  training batches, which `batches` serves, from its first order on: that of the seed in the settings
        parts   what else has a state, by name: optimisers and schedules

        Raises `CheckpointError` for a state that is damaged or belongs to another training, and `ValueError` for a
        loader that was made with other settings.
        """
        require_same(self.settings, loader)
        if "seed" in self.settings:
            loader.generator.manual_seed(self.settings["seed"])
        self.begin(n_epochs, loader, {**self.modules, **parts, "loader": loader})
        for self.epoch in range(self.first, n_epochs + 1):
            yield self.epoch
            self.n_epochs = self.epoch
            self.n_images += loader.n_images
            seconds = self.earlier_seconds + self.seconds + time.perf_counter() - self.start
            save_state(self.state_path, self.state_settings(), self.epoch, self.parts,
                       [self.history, self.pictures, seconds])
        self.seconds += time.perf_counter() - self.start
        self.live.close(self.last_line())
        Training.running = None

    def begin(self, n_epochs, loader, parts):
        """Prepare the loop of `epochs`; load the state of a training that is to go on."""
        self.start, self.first, self.n_wanted, self.loader, self.parts = time.perf_counter(), 1, n_epochs, loader, parts
        shell = get_ipython()
        Training.running = self, shell and shell.execution_count
        if self.resume and self.state_path.is_file():
            self.n_epochs, record = load_state(self.state_path, self.state_settings(), parts)
            self.history, self.pictures, *seconds = record      # states of earlier versions have no seconds
            self.earlier_seconds = sum(seconds)
            print(f"going on after epoch {self.n_epochs}, from {self.state_path.name}")
            self.first = self.n_epochs + 1
        self.live = LiveDisplay(self.curve_names, run=self.name, tensorboard_dir=self.tensorboard_dir)

    def state_settings(self):
        """Return what must be the same when a training goes on: its settings, and the folder of its notebook.

        The state stays when the training has ended: more epochs may follow, and a notebook that is run again after a
        kernel has died takes the trainings that had ended from there. It is of no use to a notebook in another folder,
        such as that of another student, which may train with other code. The folder is told from the project's root,
        so that a course can be moved.
        """
        here = Path.cwd()       # of the kernel
        folder = here.relative_to(PROJECT_ROOT) if here.is_relative_to(PROJECT_ROOT) else here
        return {**self.settings, "notebook_folder": folder.as_posix()}

    def last_line(self):
        """Return what is left of the display: epochs, time, and the last values of the curves."""
        n = self.n_epochs - self.first + 1
        values = [f"{name.replace('_', ' ')} {self.history[name][-1]:.4g}" for name in self.curve_names]
        return f"{self.name}: " + ", ".join([f"{n} epoch{'s' * (n != 1)} in {duration(self.seconds)}", *values])

    def interrupted(self):
        """Close the display; return the line that says what an interrupted training has kept, and how to go on."""
        self.live.close()
        Training.running, n = None, self.n_epochs
        start = f"Interrupted in epoch {self.epoch} of {self.n_wanted}: "
        if n == 0:
            return start + "nothing is kept yet. Run this cell again to train from the beginning."
        return start + (f"{n} complete epoch{'s are' if n > 1 else ' is'} kept. To go on, set resume = True in the "
                        "parameters, run that cell, then this one.")

    @property
    def images_per_second(self):
        """Training images per second in `epochs`; None if nothing was trained."""
        return self.n_images / self.seconds if self.n_images else None

    def batches(self):
        """Yield the batches of the loader once, and tell how far the training is."""
        n_batches, before = len(self.loader), (self.epoch - self.first) * len(self.loader)
        n_left = (self.n_wanted - self.epoch + 1) * n_batches
        for number, batch in enumerate(self.loader, 1):
            yield batch
            passed = time.perf_counter() - self.start
            left = duration(passed * (n_left - number) / (before + number))
            self.live.tell(f"{self.name}: epoch {self.epoch} of {self.n_wanted}, batch {number} of {n_batches}, "
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

    def save(self, metrics, pictures=None):
        """Write weights, settings, history, metrics and pictures to NAME.safetensors in `out_dir`; return the path.

        pictures  uint8 arrays of one shape that a lab with these weights shows; None: all that were kept
        """
        config = {**self.settings, "epochs": self.n_epochs, "seconds": self.earlier_seconds + self.seconds,
                  "metrics": metrics, "history": self.history}
        tensors = weights_of(self.modules) | pack_pictures(self.pictures if pictures is None else pictures)
        return write_checkpoint(self.out_dir / f"{self.name}.safetensors", config, tensors)


def pack_pictures(pictures):
    """Return N uint8 arrays of one shape, (H, W) or more, as tensors for a file: bytes of one PNG, and the shape."""
    if not pictures:
        return {}
    stack = np.stack(pictures)
    sheet = stack.reshape(stack.shape[0] * stack.shape[1], -1)      # one grey picture: a third of the bytes
    return {"pictures/png": torch.frombuffer(bytearray(encode(sheet)), dtype=torch.uint8),
            "pictures/shape": torch.tensor(stack.shape)}


def unpack_pictures(tensors):
    """Undo `pack_pictures`: return the list of arrays; an empty one if there are none."""
    if "pictures/png" not in tensors:
        return []
    sheet = cv2.imdecode(tensors["pictures/png"].numpy(), cv2.IMREAD_UNCHANGED)
    return list(sheet.reshape(tensors["pictures/shape"].tolist()))
