"""What a lab reports: its metrics at the end, and times in words."""

import json
import math

from .errors import BadValue

METRICS_TYPE = "application/vnd.labutils.metrics+json"     # our own: no page shows it, the labs command reads it


def show_results(metrics):
    """Show a lab's metrics as a table, which also holds them as `METRICS_TYPE` for the `labs` command.

    metrics  {name: number, string, bool or None}; other values, such as a `torch.device`, become strings

    Raises `ValueError` for a number that is not finite: a training that diverged must not count as done.
    """
    from IPython.display import display     # slow to import, and the labs command needs none of it
    metrics = {name: plain(name, value) for name, value in metrics.items()}
    width = max(len(name) for name in metrics)
    table = "\n".join(f"{name:<{width}}  {value:.4f}" if isinstance(value, float) else f"{name:<{width}}  {value}"
                      for name, value in metrics.items())
    display({METRICS_TYPE: metrics, "text/plain": table}, raw=True)


def plain(name, value):
    """Return a metric in a form that JSON can hold; tensors and NumPy scalars become Python numbers."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and not math.isfinite(value):
        raise BadValue(f"{name}={value}: not a finite number; the training has diverged, "
                       "try a smaller learning rate")
    try:
        json.dumps(value)
    except TypeError:
        value = str(value)      # such as a torch.device
    return value


def duration(seconds):
    """Return seconds in words."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
