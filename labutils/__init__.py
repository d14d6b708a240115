"""What the notebooks of the course share. No model of any lab is defined here."""

from importlib import import_module

NAMES = {
    "checkpoints": ("CheckpointError", "find_pretrained", "load_checkpoint", "save_checkpoint"),
    "data": ("DatasetError", "get_loaders"),
    "device": ("get_device", "seed_everything"),
    "errors": ("BadValue",),
    "images": ("collage", "save_image", "show", "to_uint8"),
    "notebooks": ("from_lab",),
    "plots": ("plot_curves", "show_figure"),
    "results": ("show_results",),
    "speed": ("ConvTranspose2d", "GraphedStep", "autocast", "keep_memory"),
    "training": ("AverageMeter", "Training", "init_weights", "progress", "require_positive", "set_up"),
}
__all__ = sorted(sum(NAMES.values(), ()))


def __getattr__(name):
    """Import a name when it is first asked for: `labs doctor` has to start where torch does not."""
    for module, names in NAMES.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
