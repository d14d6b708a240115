"""The end of every lab: curves of its history and a table of its figures."""

import io
import json
import math

import matplotlib.pyplot as plt
from IPython.display import Image, display
from matplotlib.figure import Figure

SCREEN_DPI = 72     # keeps a notebook with its pictures under 1 MB
# Okabe and Ito's colours, which colour-blind readers can tell apart (jfly.uni-koeln.de/color, 2008)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", "-.", ":", "-", "--")


def plot_curves(history, names, *, ylabel, xlabel="epoch", x=None, title=None, level=None, alt=None):
    """Show the lists `history[name]` as curves over epochs 1, 2, ..., each with its own colour and dash.

    x      positions to draw over instead; one for each value
    level  `(value, text)`: a dotted horizontal line with its meaning
    alt    a description for readers who cannot see the curves; None: made of the names and their ends
    """
    figure = draw_curves(history, names, ylabel=ylabel, xlabel=xlabel, x=x, title=title, level=level)
    ends = ", ".join(f"{name.replace('_', ' ')} from {history[name][0]:.4g} to {history[name][-1]:.4g}" for name in names)
    show_figure(figure, alt or f"Curves of {ylabel} over {xlabel}: {ends}")


def draw_curves(history, names, *, ylabel, xlabel="epoch", x=None, title=None, level=None):
    """Return a figure of the curves; arguments as `plot_curves`."""
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
    """Return a matplotlib figure as a PNG picture with a description, and close it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=SCREEN_DPI)
    plt.close(figure)       # else the notebook would show it a second time, without its description
    return Image(data=content.getvalue(), format="png", alt=alt)


def show_results(figures):
    """Print a lab's figures as a table and emit them as `application/json` for the runner.

    figures  {name: number, string, bool or None}. Raises `ValueError` for another type, or a
             number that is not finite: a training that diverged must not pass as done.
    """
    figures = {name: plain(name, value) for name, value in figures.items()}
    width = max(len(name) for name in figures)
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:.4f}" if isinstance(value, float) else f"{name:<{width}}  {value}")
    display({"application/json": figures, "text/plain": "the same figures, for the runner"}, raw=True)


def plain(name, value):
    """Return one figure as JSON knows it; tensors and NumPy scalars become Python numbers."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}={value}: not a finite number; the training has diverged, "
                         "try a smaller learning rate")
    try:
        json.dumps(value)
    except TypeError:
        value = str(value)      # a torch.device
    return value
