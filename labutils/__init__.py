"""What the notebooks of the course share. No model of any lab lives here."""

from .checkpoints import CheckpointError, TrainingState, find_pretrained, load_checkpoint, save_checkpoint
from .data import DatasetError, get_loaders
from .images import collage, save_image, show, to_uint8
from .live import LiveCurves
from .paths import make_dir
from .results import plot_curves, show_figure, show_results
from .sliders import explore
from .training import (AverageMeter, autocast, get_device, init_weights, progress, require_positive,
                       seed_everything)
