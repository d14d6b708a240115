"""The report on a folder of runs: results.csv for a spreadsheet, index.html to compare what the labs have made."""

import csv
import hashlib
import json
import math
import os
import re
import statistics
from base64 import b64encode
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import cv2
import jinja2
import numpy as np
from matplotlib.ticker import MaxNLocator
from safetensors import SafetensorError, safe_open

from ..paths import replacing
from ..plots import COLOURS
from .labs import UsageError

# what run.json may hold, and of which type
FIELDS = {"lab": str, "status": str, "error": str, "parameters": dict, "seconds": float, "cpu_seconds": float,
          "peak_memory": float, "device": str, "revision": str, "modified": bool, "started": str}
DASHES = ("none", "8 4", "2 5", "12 4 2 4")      # with the colours: 24 runs that can be told apart
PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
PICTURES_PER_LAB, KINDS_OF_PICTURES = 150, 8
THUMBNAIL = (280, 160)      # pixels: a picture is made to fit
POINTS = 100                # of one curve
PLOT = (70, 10, 588, 274)   # left, top, right, bottom of a chart's axes in its drawing of 600 x 324
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")     # HTML and UTF-8 have no room for them


class Run(NamedTuple):
    """One run, as its folder tells it: status "ok", "failed", "interrupted", or "damaged" where run.json is no help."""
    folder: Path
    files: list
    lab: str
    status: str
    error: str
    parameters: dict
    results: dict
    facts: dict

    @property
    def name(self):
        return self.folder.name

    @property
    def label(self):
        """What tells this run from the others of its lab."""
        return self.name.removeprefix(f"{self.lab},")

    @property
    def setting(self):
        """The parameters but for the seed."""
        return {name: value for name, value in self.parameters.items() if name != "seed"}

    @property
    def code_and_setting(self):
        """What runs have in common whose figures may be averaged: all but the seed."""
        return {**self.setting, "revision": revision(self, 7)}

    @property
    def page(self):
        """The run's executed HTML; its folder where there is none."""
        return f"{self.lab}.html" if f"{self.lab}.html" in self.files else ""


def make_report(folder):
    """Write results.csv and index.html about the runs in `folder`, and return the path of index.html.

    Raises `UsageError` for a folder that does not exist, has no runs in it, or cannot be written.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; name the one that 'labs run' has written, such as runs/quick")
    runs = [run for run in map(read_run, sorted(folder.iterdir(), key=natural)) if run]
    if not runs:
        raise UsageError(f"there are no runs in {folder}; name the folder that 'labs run' has written, such as runs/quick")
    page = render(folder, runs)
    try:
        with replacing(folder / "results.csv") as part, part.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_NONNUMERIC).writerows(csv_rows(runs))
        with replacing(folder / "index.html") as part:
            part.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write the report into {folder}: {error.strerror}; copy the runs to where you may "
                         "write") from None
    return folder / "index.html"


def natural(path):
    """Return a key that sorts seed=10 behind seed=2."""
    return [int(part) if k % 2 else part for k, part in enumerate(re.split("([0-9]+)", path.name))]


def read_run(folder):
    """Return the run in a folder, or None where there is none; what is missing or damaged is named in its `error`."""
    try:
        files = [path.name for path in sorted(folder.iterdir(), key=natural) if not path.name.startswith(".")]
    except OSError:     # not a folder, or one that may not be read
        return None
    if folder.name.startswith(".") or not any(name == "run.json" or name.endswith(".ipynb") for name in files):
        return None
    problems = []
    about = read_object(folder / "run.json", problems)
    about = {name: about[name] for name in FIELDS if about.get(name) is not None}
    facts = {name: value for name, value in about.items()
             if (number(value) if FIELDS[name] is float else isinstance(value, FIELDS[name]))}
    problems += [f"run.json is damaged: {name}" for name in about if name not in facts]
    lab, error, parameters = (facts.pop(name, default) for name, default in
                              (("lab", folder.name.partition(",")[0]), ("error", ""), ("parameters", {})))
    status = facts.pop("status", "damaged")
    results = read_object(folder / "results.json", problems) if status == "ok" else {}
    return Run(folder, files, lab, status, "; ".join(filter(None, [error, *problems])), parameters, results, facts)


def read_object(path, problems):
    """Return the JSON object in a file, or {} and one line more in `problems`; what is not a finite number is None."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: None)
        if isinstance(found, dict):
            return found
        problems.append(f"{path.name} is damaged: it holds no object")
    except OSError as error:
        problems.append(f"{path.name} cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        problems.append(f"{path.name} is damaged: {type(error).__name__}")
    return {}


def number(value):
    """Return whether a value is a number with which one can reckon: finite, not bool, not beyond all measure."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e100


# --- results.csv

def csv_rows(runs):
    """Return the rows of results.csv: its head, then one row a run."""
    parameters, results = (list(dict.fromkeys(name for run in runs for name in getattr(run, part)))
                           for part in ("parameters", "results"))
    rows = [["run", "lab", "status", "error", *(f"parameters.{name}" for name in parameters),
             *(f"results.{name}" for name in results),
             "seconds", "cpu_seconds", "peak_memory_mb", "device", "revision", "started"]]
    for run in runs:
        rows.append([run.name, run.lab, run.status, run.error, *map(run.parameters.get, parameters),
                     *map(run.results.get, results), run.facts.get("seconds"), run.facts.get("cpu_seconds"),
                     memory_mb(run), run.facts.get("device"), revision(run),
                     run.facts.get("started")])
    return [[csv_cell(value) for value in row] for row in rows]


def csv_cell(value):
    """Return a value as a cell that no spreadsheet takes for a formula."""
    if number(value):
        return value
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
    text = UNPRINTABLE.sub("\ufffd", text)
    return f"'{text}" if FORMULA.match(text) else text


def memory_mb(run):
    """Return the most memory that a run had, in MB, or None."""
    return round(run.facts["peak_memory"] / 1e6, 1) if "peak_memory" in run.facts else None


def revision(run, digits=None):
    """Return a run's revision, marked as git describe does where the files were changed after it."""
    return run.facts.get("revision", "")[:digits] + ("-dirty" if run.facts.get("modified") else "")


# --- index.html

def render(folder, runs):
    """Return the page about the runs as text."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(duration=duration, url=url, revision=revision, memory_mb=memory_mb, inline=pair_list,
                               sha256=lambda text: b64encode(hashlib.sha256(text.encode()).digest()).decode())
    template = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    labs = {}
    for run in runs:
        labs.setdefault(run.lab, []).append(run)
    page = template.render(
        title=folder.name, runs=sorted(runs, key=lambda run: run.status == "ok"), colours=COLOURS, dashes=DASHES, plot=PLOT,
        seconds=sum(run.facts.get("seconds", 0) for run in runs),
        labs=[section(lab, some) for lab, some in labs.items()])
    return UNPRINTABLE.sub("\ufffd", page)


def section(lab, runs):
    """Return what the page shows of one lab."""
    drawn, look = charts(runs), looks(runs)
    return {"name": lab, "figures": figure_table(runs), "charts": drawn, "pictures": pictures(runs), "looks": look,
            "legend": [(k, runs[k]) for k in sorted({k for chart in drawn for k, *_ in chart["lines"]})]}


def url(part):
    """Return a part of a path for a link; whatever it holds, the link stays below the page's folder."""
    return quote(os.fsencode(part), safe="")


def short(value, digits=4):
    """Return a number as a reader wants it; anything else as text."""
    if not number(value):
        return str(value)
    return f"{value:.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.{digits}g}"


def duration(seconds):
    """Return seconds in words."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


def pair_list(values):
    """Return {name: value} in one line."""
    return ", ".join(f"{name} {short(value)}" for name, value in values.items())


def figure_table(runs):
    """Return (names of figures, rows) with a row for each group of runs that differ in nothing but their seed.

    A row is (the parameters in which it differs from other groups, number of runs, [(mean, text) of each figure]).
    Of a seed that was run several times the last run counts: the same figures again would make a deviation too small.
    """
    groups = {}
    for run in (run for run in runs if run.results):
        _, by_seed = groups.setdefault(json.dumps(run.code_and_setting, sort_keys=True), (run.code_and_setting, {}))
        seed = str(run.parameters.get("seed", 0))
        by_seed[seed] = max(run, by_seed.get(seed, run), key=lambda run: str(run.facts.get("started")))
    groups = [(setting, [run.results for run in by_seed.values()]) for setting, by_seed in groups.values()]
    settings = [setting for setting, _ in groups]
    varied = [name for name in dict.fromkeys(name for setting in settings for name in setting)
              if len({json.dumps(setting.get(name)) for setting in settings}) > 1]
    names = list(dict.fromkeys(name for _, some in groups for results in some
                               for name, value in results.items() if number(value)))
    return names, [(pair_list({name: setting.get(name, "as in the lab") for name in varied}), len(some),
                    [spread([results[name] for results in some if number(results.get(name))], len(some)) for name in names])
                   for setting, some in groups]


def spread(values, n):
    """Return the mean of a figure, and mean and standard deviation as text; `n`: runs that should have it."""
    if not values:
        return None, ""
    mean, text = statistics.fmean(values), short(statistics.fmean(values))
    if len(values) > 1:
        std = statistics.stdev(values)
        places = max(0, 1 - math.floor(math.log10(std))) if std else 9     # two digits of the deviation
        text = f"{mean:.{places}f} ± {std:.{places}f}" if places < 9 and std < 1e9 else f"{text} ± {short(std, 2)}"
    return mean, text if len(values) == n else f"{text} (n = {len(values)})"


def pictures(runs):
    """Return ({kind of picture: [(run, file name, thumbnail)]}, how many kinds are left out): runs side by side.

    Of the pictures that a training has drawn on its way the last is taken.
    """
    kinds = {}
    for k, run in enumerate(runs):
        for name in run.files:
            if Path(name).suffix.lower() in PICTURES:
                kind = re.sub("_epoch_?[0-9]+(_step_?[0-9]+)?", ", last", Path(name).stem).replace("_", " ")
                kinds.setdefault(kind, {})[k] = name
    chosen = sorted(kinds, key=lambda kind: not kind.startswith(("samples", "reconstructions")))
    limit = max(1, min(KINDS_OF_PICTURES, PICTURES_PER_LAB // len(runs)))
    shown = {kind: [(runs[k], name, small) for k, name in kinds[kind].items() if (small := thumbnail(runs[k].folder / name))]
             for kind in chosen[:limit]}
    return {kind: some for kind, some in shown.items() if some}, len(chosen[limit:])


def thumbnail(path):
    """Return {"address": data URI, "width", "height"} of a small version of a picture, or None for what is none."""
    try:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
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
    """Return the charts of a lab: for each curve, that of all runs laid over each other.

    A curve that two networks of one run have (both GANs have a d_loss) has the file's name in its title.
    """
    found = [(k, path.stem, name, points) for k, run in enumerate(runs)
             for path in (run.folder / name for name in run.files if name.endswith(".safetensors"))
             for name, points in read_curves(path).items()]
    counts = Counter((k, name) for k, _, name, _ in found)
    twice = {name for (_, name), n in counts.items() if n > 1}
    lines = {}
    for k, stem, name, points in found:
        title = name.replace("_", " ")
        lines.setdefault(f"{title} ({stem})" if name in twice else title, []).append((k, runs[k], points))
    return [chart(title, some) for title, some in lines.items()]


def looks(runs):
    """Return the classes for the line of each run: a colour for each setting and a dash for each seed.

    Where the settings are one or more than there are colours, the runs take colour after colour, then the next dash.
    """
    keys = [json.dumps(run.setting, sort_keys=True) for run in runs]
    settings = list(dict.fromkeys(keys))
    if 1 < len(settings) <= len(COLOURS):
        pairs = [(settings.index(key), keys[:k].count(key)) for k, key in enumerate(keys)]
    else:
        pairs = [(k % len(COLOURS), k // len(COLOURS)) for k in range(len(runs))]
    return [f"c{colour} d{dash % len(DASHES)}" for colour, dash in pairs]


def read_curves(path):
    """Return {name: [(epoch, value)]} of the history in a checkpoint's header; no tensor is read.

    A curve has as many numbers as the history's "epoch", which then has their positions, or a number for each
    epoch or more often, spread evenly. A file that cannot be read has no curves.
    """
    try:
        with safe_open(path, framework="np") as file:
            config = json.loads((file.metadata() or {}).get("config", "{}"))
        history = {**config, **config.get("history", {})}       # lab 01 has its list in the config itself
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    positions, epochs = history.pop("epoch", None), history.get("epochs")
    curves = {}
    for name, values in history.items():
        n = len(values) if isinstance(values, list) else 0
        last, at = epochs if number(epochs) else n, positions
        if not isinstance(positions, list) or len(positions) != n:
            at = [last * (k + 1) / n for k in range(n)] if n >= last else []
        points = [(x, y) for x, y in zip(at, values if n else []) if number(x) and number(y)]
        curves.update({name: points} if points else {})
    return curves


def chart(title, lines):
    """Return what the template draws of `lines` [(k, run, [(x, y)])]: title, ticks, and the points of each polyline."""
    left, top, right, bottom = PLOT
    x_ticks = ticks([0, *(x for *_, points in lines for x, _ in points)])
    y_ticks = ticks([y for *_, points in lines for _, y in points])

    def place(x, y):
        return (round(left + (right - left) * (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])),
                round(bottom - (bottom - top) * (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])))

    drawn = []
    for k, run, points in lines:
        some = [*points[::math.ceil(len(points) / POINTS)], points[-1]]
        drawn.append((k, run, len(points), " ".join("{},{}".format(*place(x, y)) for x, y in some)))
    return {"title": title, "lines": drawn,
            "x_ticks": [(place(x, y_ticks[0])[0], f"{x:g}") for x in x_ticks],
            "y_ticks": [(place(x_ticks[0], y)[1], f"{y:g}") for y in y_ticks]}


def ticks(values):
    """Return round numbers, four to six of them, that hold all values between them."""
    low, high = min(values), max(values)
    room = 0 if high > low else abs(low) / 10 or 1
    return MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low - room, high + room).tolist()
