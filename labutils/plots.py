"""Curves of a finished training, and of one that is still running."""

import base64
import io
import os
import time
from html import escape

import matplotlib.pyplot as plt
from IPython import get_ipython
from IPython.display import Image, display
from matplotlib.figure import Figure
from PIL import Image as Pillow

from .errors import BadValue
from .paths import project_path

SCREEN_DPI = 72     # at this size on the screen a figure fills half its width
# Okabe and Ito's colours, which colour-blind readers can tell apart (jfly.uni-koeln.de/color, 2008)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", "-.", ":", "-", "--")


def plot_curves(history, names, *, ylabel, xlabel="epoch", x=None, title=None, level=None, alt=None):
    """Show the lists `history[name]` as curves over epochs 1, 2, ..., each with its own colour and dash.

    x      positions to draw over instead; one for each value
    level  `(value, text)`: a dotted horizontal line with its meaning
    alt    a description for readers who cannot see the curves; None: the names, with their first and last values
    """
    figure = draw_curves(history, names, ylabel=ylabel, xlabel=xlabel, x=x, title=title, level=level)
    ends = ", ".join(f"{name.replace('_', ' ')} from {history[name][0]:.4g} to {history[name][-1]:.4g}"
                     for name in names)
    show_figure(figure, alt or f"Curves of {ylabel} over {xlabel}: {ends}")


def draw_curves(history, names, *, ylabel, xlabel="epoch", x=None, title=None, level=None):
    """Return a figure of the curves; the arguments are those of `plot_curves`."""
    figure = Figure(figsize=(6.5, 3.4), dpi=SCREEN_DPI)
    axes = figure.subplots()
    for name, colour, line in zip(names, COLOURS, LINES):
        values = history[name]
        positions = range(1, len(values) + 1) if x is None else x
        axes.plot(positions, values, line, color=colour, label=name.replace("_", " "),
                  marker="o" if len(values) <= 20 else None, markersize=4)
    if level is not None:
        axes.axhline(level[0], color="0.4", linestyle=":", label=level[1])
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    return figure


def show_figure(figure, alt):
    """Show a matplotlib figure with a description `alt` for readers who cannot see it."""
    display(picture_of(figure, alt))


def picture_of(figure, alt):
    """Return a matplotlib figure as a PNG picture with the description `alt`, and close it.

    It has twice the pixels of its size on the page, for screens with a high resolution, and at most 256 colours: with
    that it takes fewer bytes than the simple resolution in full colour.
    """
    drawn, content = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=2 * SCREEN_DPI)
    plt.close(figure)       # otherwise the notebook would show it again, without its description
    picture = Pillow.open(drawn).convert("RGB").quantize(256, Pillow.Quantize.FASTOCTREE, dither=Pillow.Dither.NONE)
    picture.save(content, "png", optimize=True)
    return Image(data=content.getvalue(), format="png", alt=alt, width=picture.width // 2)


class LiveDisplay:
    """How far a training is: a line of text, and below it the curves of its history, at one place that is redrawn.

    names            the lists of the history that are drawn; TensorBoard gets all of them
    run              name of this training: the folder of its event files
    tensorboard_dir  where that folder is made, from the project's root; None: no event files

    It is shown only in an open notebook, never under papermill, nbval and nbconvert. The line is redrawn at most twice
    a second; the curves at most once a second, and they take at most a fiftieth of the time. At the end only one line
    is left. Raises `ValueError` if event files are asked for and the package tensorboard is missing.
    """

    def __init__(self, names=(), run="training", tensorboard_dir=None):
        self.names, self.writer, self.written = names, None, {}
        self.handle, self.line, self.picture, self.next_line, self.next_picture = None, "", "", 0, 0
        self.watched = in_open_notebook()
        if tensorboard_dir is not None:
            self.writer = event_writer(tensorboard_dir, run)

    def tell(self, line):
        """Show a line of text in place of the last one."""
        if self.watched and time.perf_counter() >= self.next_line:
            self.line = line
            self.redraw()
            self.next_line = time.perf_counter() + 0.5

    def update(self, history):
        """Draw and write what is new in `history`, {name: list of numbers}, over `history["epoch"]` or 1, 2, ..."""
        if self.writer:
            self.write(history)
        if self.watched and self.names and time.perf_counter() >= self.next_picture:
            self.draw(history)

    def draw(self, history):
        """Draw the curves in place of the last drawing, and set the time from which the next one may come."""
        start = time.perf_counter()
        figure = draw_curves(history, self.names, ylabel="during the training", x=history.get("epoch"))
        picture = picture_of(figure, "")
        data = base64.b64encode(picture.data).decode()
        self.picture = (f'<img alt="Curves of the training so far" width="{picture.width}" '
                        f'src="data:image/png;base64,{data}">')
        self.redraw()
        end = time.perf_counter()
        self.next_picture = end + max(1, 50 * (end - start))

    def redraw(self):
        """Show the line and the curves in place of the last ones."""
        content = {"text/html": f"<div>{escape(self.line)}</div>{self.picture}", "text/plain": self.line}
        if self.handle:
            self.handle.update(content, raw=True)
        else:
            self.handle = display(content, raw=True, display_id=True)

    def write(self, history):
        """Write the values that are new since the last call as TensorBoard's scalars."""
        for name, values in history.items():
            for step in range(self.written.get(name, 0), len(values)):
                self.writer.add_scalar(name, values[step], step + 1)
            self.written[name] = len(values)
        self.writer.flush()

    def close(self, line=""):
        """Leave one last line in place of the display, or nothing, and close the event files."""
        if self.handle:
            self.handle.update({"text/plain": line} if line else {"text/html": "", "text/plain": ""}, raw=True)
        elif line:
            print(line)
        if self.writer:
            self.writer.close()


def in_open_notebook():
    """Tell whether the kernel belongs to an open notebook.

    Jupyter's server gives its kernels the notebook's name, and Colab has a variable of its own. VS Code puts the path
    of the notebook among its variables; VSCODE_PID alone, which it sets too, is missing in WSL and in containers.
    """
    if (shell := get_ipython()) and "__vsc_ipynb_file__" in shell.user_ns:
        return True
    return not os.environ.keys().isdisjoint({"JPY_SESSION_NAME", "VSCODE_PID", "COLAB_RELEASE_TAG"})


def event_writer(tensorboard_dir, run):
    """Return a writer of TensorBoard's event files in `tensorboard_dir`/`run`; raises `ValueError`."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise BadValue(f"tensorboard_dir={str(tensorboard_dir)!r}: the package tensorboard is not installed; "
                       "pip install tensorboard, or take tensorboard_dir=None") from None
    return SummaryWriter(project_path(tensorboard_dir) / run)
