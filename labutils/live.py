"""Losses while a training goes on: drawn where somebody watches, and written for TensorBoard on request."""

import os
import time

from IPython.display import display

from .paths import project_path
from .results import draw_curves, picture_of


class LiveCurves:
    """Curves of a history that grow with the training.

    names            the lists of the history that are drawn; TensorBoard gets all of them
    run              name of this training: the folder of its event files
    tensorboard_dir  folder above it, a relative one is taken from the project's root; None: no event files

    They are drawn in an open notebook only, at most once a second, and in at most a fiftieth of the time. `close`
    takes them away again. papermill, nbval and nbconvert see nothing of them. Raises `ValueError` where event
    files are asked for and the package tensorboard is missing.
    """

    def __init__(self, *names, run="training", tensorboard_dir=None):
        self.names, self.writer, self.written = names, None, {}
        self.handle, self.next_time = None, 0
        if tensorboard_dir is not None:
            self.writer = event_writer(tensorboard_dir, run)

    def update(self, history):
        """Show and write what is new in `history`, {name: list of numbers}; x is `history["epoch"]` or 1, 2, ..."""
        if self.writer:
            self.write(history)
        if somebody_watches() and time.perf_counter() >= self.next_time:
            self.draw(history)

    def draw(self, history):
        """Draw the curves, in place of the last drawing, and settle when the next one may come."""
        start = time.perf_counter()
        figure = draw_curves(history, self.names, ylabel="while it trains", x=history.get("epoch"))
        picture = picture_of(figure, "Curves of the training so far")
        if self.handle:
            self.handle.update(picture)
        else:
            self.handle = display(picture, display_id=True)
        end = time.perf_counter()
        self.next_time = end + max(1, 50 * (end - start))

    def write(self, history):
        """Write the values that are new since the last call as TensorBoard's scalars."""
        for name, values in history.items():
            for step in range(self.written.get(name, 0), len(values)):
                self.writer.add_scalar(name, values[step], step + 1)
            self.written[name] = len(values)
        self.writer.flush()

    def close(self):
        """Take the drawing away, and close the event files."""
        if self.handle:
            self.handle.update({"text/plain": ""}, raw=True)
        if self.writer:
            self.writer.close()


def somebody_watches():
    """Tell whether the kernel belongs to an open notebook: Jupyter's server gives its kernels the notebook's name."""
    return "JPY_SESSION_NAME" in os.environ


def event_writer(tensorboard_dir, run):
    """Return a writer of TensorBoard's event files in `tensorboard_dir`/`run`; raises `ValueError`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(f"tensorboard_dir={str(tensorboard_dir)!r}: the package tensorboard is not installed; "
                         "pip install tensorboard, or take tensorboard_dir=None") from None
    return SummaryWriter(project_path(tensorboard_dir) / run)
