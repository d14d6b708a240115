"""The report on a folder of runs: results.csv for a spreadsheet, index.html to compare what the labs have made."""

import csv
import hashlib
import json
import math
import os
import re
import statistics
from base64 import b64decode, b64encode
from collections import Counter
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import cv2
import jinja2
import numpy as np
from matplotlib.ticker import MaxNLocator
from safetensors import SafetensorError, safe_open

from ..paths import replacing
from ..plots import COLOURS
from ..results import duration
from .labs import UsageError
from .record import is_number, natural, read_run

DASHES = ("none", "8 4", "2 5", "12 4 2 4")      # with the colours: 24 runs that can be told apart
PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
PICTURES_PER_LAB, KINDS_OF_PICTURES = 150, 8
THUMBNAIL = (280, 160)      # pixels: a picture is made to fit
POINTS = 100                # of one curve
PLOT = (70, 10, 588, 274)   # left, top, right, bottom of a chart's axes in its drawing of 600 x 324
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")     # not allowed in HTML or UTF-8


def make_report(folder):
    """Write results.csv and index.html about the runs in `folder`, and return the path of index.html.

    Raises `UsageError` for a folder that does not exist, has no runs in it, or cannot be written.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; name the one that 'labs run' has written, such as runs/quick")
    runs = [run for run in map(read_run, sorted(folder.iterdir(), key=natural)) if run]
    if not runs:
        raise UsageError(f"there are no runs in {folder}; name the folder that 'labs run' has written, such as "
                         "runs/quick")
    page = render(folder, runs)
    try:
        with replacing(folder / "results.csv") as part, part.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_NONNUMERIC).writerows(csv_rows(runs))
        with replacing(folder / "index.html") as part:
            part.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write the report into {folder}: {error.strerror}; close results.csv in other "
                         "programs, or copy the runs to where you may write") from None
    return folder / "index.html"


def label(run):
    """Return what distinguishes a run from the others of its lab."""
    return run.name.removeprefix(f"{run.lab},")


def setting(run):
    """Return the parameters of a run except for the seed."""
    return {name: value for name, value in run.parameters.items() if name != "seed"}


def page_of(run):
    """Return the name of the run's executed HTML, or "" if there is none: a link then leads to its folder."""
    return f"{run.lab}.html" if f"{run.lab}.html" in run.names else ""


# --- results.csv

def csv_rows(runs):
    """Return the rows of results.csv: its head, then one row a run."""
    parameters, metrics = (list(dict.fromkeys(name for run in runs for name in getattr(run, part)))
                           for part in ("parameters", "metrics"))
    rows = [["run", "lab", "status", "error", *(f"parameters.{name}" for name in parameters),
             *(f"results.{name}" for name in metrics),
             "seconds", "cpu_seconds", "peak_memory_mb", "device", "revision", "started"]]
    for run in runs:
        rows.append([run.name, run.lab, run.status, run.error, *map(run.parameters.get, parameters),
                     *map(run.metrics.get, metrics), run.seconds, run.cpu_seconds, memory_mb(run), run.device,
                     revision(run), run.started])
    return [[csv_cell(value) for value in row] for row in rows]


def csv_cell(value):
    """Return a value as a cell that no spreadsheet takes for a formula."""
    if is_number(value):
        return value
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    text = UNPRINTABLE.sub("\ufffd", text)
    return f"'{text}" if FORMULA.match(text) else text


def memory_mb(run):
    """Return the most memory that a run had, in MB, or None."""
    return None if run.peak_memory is None else round(run.peak_memory / 1e6, 1)


def revision(run, digits=None):
    """Return a run's revision, with -dirty, as in git describe, if files had been changed since."""
    return (run.revision or "")[:digits] + ("-dirty" if run.modified else "")


# --- index.html

def render(folder, runs):
    """Return the page about the runs as text."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    environment.filters.update(duration=duration, url=url, revision=revision, memory_mb=memory_mb, inline=pair_list,
                               label=label, page=page_of,
                               sha256=lambda text: b64encode(hashlib.sha256(text.encode()).digest()).decode())
    template = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    by_lab = {}
    for run in runs:
        by_lab.setdefault(run.lab, []).append(run)
    page = template.render(
        title=folder.name, runs=sorted(runs, key=lambda run: run.status == "ok"),
        colours=COLOURS, dashes=DASHES, plot=PLOT, seconds=sum(run.seconds or 0 for run in runs),
        labs=[section(lab, runs) for lab, runs in by_lab.items()])
    return UNPRINTABLE.sub("\ufffd", page)


def section(lab, runs):
    """Return what the page shows of one lab."""
    drawn = charts(runs)
    with_curves = sorted({k for chart in drawn for k, *_ in chart["lines"]})
    return {"name": lab, "metrics": metric_table(runs), "charts": drawn, "pictures": pictures(runs),
            "styles": line_styles(runs), "legend": [(k, runs[k]) for k in with_curves]}


def url(part):
    """Return a part of a path for a link; whatever it holds, the link stays below the page's folder."""
    return quote(os.fsencode(part), safe="")


def short(value, digits=4):
    """Return a number as text with few digits; anything else as text."""
    if not is_number(value):
        return str(value)
    return f"{value:.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.{digits}g}"


def pair_list(values):
    """Return {name: value} in one line."""
    return ", ".join(f"{name} {short(value)}" for name, value in values.items())


def metric_table(runs):
    """Return (names of metrics, rows) with a row for each group of runs that differ only in their seed.

    A row is (the parameters that differ from group to group, number of runs, [(mean, text) of each metric]).
    If a seed was run several times, only the last run counts: equal values would make the deviation too small.
    """
    groups = {}
    for run in (run for run in runs if run.metrics):
        common = {**setting(run), "revision": revision(run, 7)}
        _, by_seed = groups.setdefault(json.dumps(common, sort_keys=True), (common, {}))
        seed = str(run.parameters.get("seed", 0))
        by_seed[seed] = max(run, by_seed.get(seed, run), key=lambda run: run.started)
    groups = [(common, [run.metrics for run in by_seed.values()]) for common, by_seed in groups.values()]
    varied = [name for name in dict.fromkeys(name for common, _ in groups for name in common)
              if len({json.dumps(common.get(name)) for common, _ in groups}) > 1]
    names = list(dict.fromkeys(name for _, group in groups for metrics in group
                               for name, value in metrics.items() if is_number(value)))
    return names, [(pair_list({name: common.get(name, "as in the lab") for name in varied}), len(group),
                    [spread([metrics.get(name) for metrics in group]) for name in names]) for common, group in groups]


def spread(of_runs):
    """Return the mean of a metric, and its mean and standard deviation as text; runs may lack the metric."""
    values = [value for value in of_runs if is_number(value)]
    if not values:
        return None, ""
    mean, text = statistics.fmean(values), short(statistics.fmean(values))
    if len(values) > 1:
        std = statistics.stdev(values)
        decimals = max(0, 1 - math.floor(math.log10(std))) if std else 9     # two digits of the deviation
        fixed = decimals < 9 and std < 1e9
        text = f"{mean:.{decimals}f} ± {std:.{decimals}f}" if fixed else f"{text} ± {short(std, 2)}"
    return mean, text if len(values) == len(of_runs) else f"{text} (n = {len(values)})"


def pictures(runs):
    """Return ({kind of picture: [(run, description, file name, thumbnail)]}, how many kinds are left out).

    Of the pictures that a training has drawn after some of its epochs, only the last is taken.
    """
    kinds = {}
    for k, run in enumerate(runs):
        for name in run.names:
            if Path(name).suffix.lower() in PICTURES:
                kind = re.sub("_epoch_?[0-9]+(_step_?[0-9]+)?", ", last", Path(name).stem).replace("_", " ")
                kinds.setdefault(kind, {})[k] = name
    chosen = sorted(kinds, key=lambda kind: not kind.startswith(("samples", "reconstructions")))
    limit = max(1, min(KINDS_OF_PICTURES, PICTURES_PER_LAB // len(runs)))
    told = [descriptions(run, [kinds[kind][k] for kind in chosen[:limit] if k in kinds[kind]])
            for k, run in enumerate(runs)]
    shown = {kind: [(runs[k], told[k].get(name, kind), name, small) for k, name in kinds[kind].items()
                    if (small := thumbnail(runs[k].folder / name))] for kind in chosen[:limit]}
    return {kind: group for kind, group in shown.items() if group}, len(chosen[limit:])


def descriptions(run, names):
    """Return {file name: description} of those pictures of a run that its notebook shows in the cell that saves them.

    A damaged notebook describes nothing.
    """
    found = {}
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        for cell in json.loads((run.folder / f"{run.lab}.ipynb").read_text(encoding="utf-8"))["cells"]:
            for name in [name for name in names if f'"{name}"' in "".join(cell["source"])]:
                saved = decode((run.folder / name).read_bytes())
                for output in cell["outputs"]:
                    if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
                        if is_enlarged(saved, decode(b64decode(output["data"]["image/png"]))):
                            found[name] = str(alt)
    return found


def is_enlarged(saved, shown):
    """Tell whether the picture `shown` is `saved`, a whole number of times as large, and perhaps labelled at its left.
    """
    scale = max(1, len(shown) // len(saved))
    return np.array_equal(shown[::scale, shown.shape[1] - scale * saved.shape[1]::scale], saved)


def decode(content):
    """Return the picture in a file's content as an array (height, width, 3), or None if it cannot be read."""
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None


def thumbnail(path):
    """Return {"address": data URI, "width", "height"} of a small version of a picture, or None if it cannot be read."""
    try:
        image = decode(path.read_bytes())
    except OSError:
        return None
    if image is None:
        return None
    height, width = image.shape[:2]
    scale = min(1, THUMBNAIL[0] / width, THUMBNAIL[1] / height)
    width, height = max(1, round(scale * width)), max(1, round(scale * height))
    small = cv2.imencode(".webp", cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA),
                         [cv2.IMWRITE_WEBP_QUALITY, 60])[1]
    return {"address": "data:image/webp;base64," + b64encode(small).decode(), "width": width, "height": height}


# --- curves

def charts(runs):
    """Return the charts of a lab: one for each curve, with the lines of all runs.

    A curve that two networks of one run have (both GANs have a d_loss) gets the file's name in its title.
    """
    found = [(k, path.stem, name, points) for k, run in enumerate(runs)
             for path in (run.folder / name for name in run.names if name.endswith(".safetensors"))
             for name, points in read_curves(path).items()]
    counts = Counter((k, name) for k, _, name, _ in found)
    twice = {name for (_, name), n in counts.items() if n > 1}
    lines = {}
    for k, stem, name, points in found:
        title = name.replace("_", " ")
        lines.setdefault(f"{title} ({stem})" if name in twice else title, []).append((k, runs[k], points))
    return [chart(title, group) for title, group in lines.items()]


def line_styles(runs):
    """Return the CSS classes for the line of each run: a colour for each setting and a dash for each seed.

    With only one setting, or more than there are colours, the runs take all colours with one dash, then with the next.
    """
    keys = [json.dumps(setting(run), sort_keys=True) for run in runs]
    settings = list(dict.fromkeys(keys))
    if 1 < len(settings) <= len(COLOURS):
        pairs = [(settings.index(key), keys[:k].count(key)) for k, key in enumerate(keys)]
    else:
        pairs = [(k % len(COLOURS), k // len(COLOURS)) for k in range(len(runs))]
    return [f"c{colour} d{dash % len(DASHES)}" for colour, dash in pairs]


def read_curves(path):
    """Return {name: [(epoch, value)]} of the history in a checkpoint's header; no tensor is read.

    If the history has a list "epoch" of the same length, it has the positions of a curve's values. Otherwise these are
    spread evenly over the epochs, of which there are config["epochs"]; a list with fewer values than epochs is not a
    curve. A file that cannot be read has no curves.
    """
    try:
        with safe_open(path, framework="np") as file:
            config = json.loads((file.metadata() or {}).get("config", "{}"))
        history, epochs = dict(config.get("history", {})), config.get("epochs")
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    positions = history.pop("epoch", None)
    curves = {}
    for name, values in history.items():
        n = len(values) if isinstance(values, list) else 0
        last, at = epochs if is_number(epochs) else n, positions
        if not isinstance(positions, list) or len(positions) != n:
            at = [last * (k + 1) / n for k in range(n)] if n >= last else []
        points = [(x, y) for x, y in zip(at, values if n else []) if is_number(x) and is_number(y)]
        curves.update({name: points} if points else {})
    return curves


def chart(title, lines):
    """Return what the template draws of `lines` [(k, run, [(x, y)])]: title, ticks, and the points of each polyline."""
    left, top, right, bottom = PLOT
    x_ticks = ticks([0, *(x for *_, points in lines for x, _ in points)])
    y_ticks = ticks([y for *_, points in lines for _, y in points])

    def position(x, y):
        return (round(left + (right - left) * (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])),
                round(bottom - (bottom - top) * (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])))

    drawn = []
    for k, run, points in lines:
        thinned = [*points[::math.ceil(len(points) / POINTS)], points[-1]]
        drawn.append((k, run, len(points), " ".join("{},{}".format(*position(x, y)) for x, y in thinned)))
    return {"title": title, "lines": drawn,
            "x_ticks": [(position(x, y_ticks[0])[0], f"{x:g}") for x in x_ticks],
            "y_ticks": [(position(x_ticks[0], y)[1], f"{y:g}") for y in y_ticks]}


def ticks(values):
    """Return four to six round numbers; all values are between the first and the last."""
    low, high = min(values), max(values)
    margin = 0 if high > low else abs(low) / 10 or 1
    return MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low - margin, high + margin).tolist()
