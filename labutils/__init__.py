"""What the notebooks of the course share. No model of any lab lives here."""

from importlib import import_module

NAMES = {
    "checkpoints": ("CheckpointError", "TrainingState", "find_pretrained", "load_checkpoint", "save_checkpoint"),
    "data": ("DatasetError", "get_loaders"),
    "images": ("collage", "save_image", "show", "to_uint8"),
    "layers": ("ConvTranspose2d",),
    "live": ("LiveCurves",),
    "paths": ("make_dir",),
    "results": ("plot_curves", "show_figure", "show_results"),
    "sliders": ("explore",),
    "training": ("AverageMeter", "GraphedStep", "autocast", "get_device", "init_weights", "keep_memory",
                 "progress", "require_positive", "seed_everything"),
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
