"""Bands: between which values the figures of a lab may lie, in tests/expected.yml, made from runs with several seeds."""

import json
import math
import statistics

import yaml
from scipy.stats import t

from ..paths import PROJECT_ROOT, replacing
from .labs import UsageError

EXPECTED = PROJECT_ROOT / "tests/expected.yml"
LEAST_SEEDS = 5
NOT_FIGURES = ("epochs", "n_samples", "code_dim", "seconds", "images_per_second")      # settings and times, dcgan_epochs too
HEAD = """\
# Between which values the figures of a run may lie: 'labs run --quick --check' compares with them.
# Made by 'labs run --quick -p seed 0,1,2,3,4 --out runs/bands', then 'labs bands runs/bands quick'; the profile full by
# the same without --quick.
# A band is the interval that a run with another seed leaves once in a thousand times, if the runs are normally
# distributed (Student's t prediction interval), and never narrower than one per cent of the mean to either side, or
# than 0.01 where the mean is 0.
"""


def band(values):
    """Return (low, high): the prediction interval of 99.9 % for one more value, four digits, at least 1 % of the mean.

    Where the mean is 0, at least 0.01.
    """
    n, mean = len(values), statistics.fmean(values)
    half = t.ppf(0.9995, n - 1) * statistics.stdev(values) * math.sqrt(1 + 1 / n)
    half = max(half, abs(mean) / 100 or 0.01)
    return [float(f"{mean - half:.4g}"), float(f"{mean + half:.4g}")]


def make_bands(folder, profile):
    """Write the bands of the runs in `folder` into tests/expected.yml, and return {lab: number of figures}.

    The bands of other labs and profiles stay. Raises `UsageError` where a lab has fewer than five seeds, and for runs
    that differ in more than their seed.
    """
    runs = {}
    for path in sorted(folder.glob("*/run.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        if run["status"] == "ok":
            results = json.loads((path.parent / "results.json").read_text(encoding="utf-8"))
            runs.setdefault(run["lab"], {})[run["parameters"].get("seed", 0)] = (run, results)
    if not runs:
        raise UsageError(f"there are no runs that went well in {folder}; make them with: labs run --quick -p seed 0,1,2,3,4")
    expected = read_expected()
    for lab, seeds in runs.items():
        others = {json.dumps({**run["parameters"], "seed": None}, sort_keys=True) for run, _ in seeds.values()}
        if len(seeds) < LEAST_SEEDS or len(others) > 1:
            raise UsageError(f"{folder}: {lab} has {len(seeds)} seed(s) and {len(others)} setting(s) of the other parameters; "
                             f"a band takes at least {LEAST_SEEDS} seeds of one setting")
        figures = {name: band([results[name] for _, results in seeds.values()])
                   for name in next(iter(seeds.values()))[1] if all(is_figure(name, results) for _, results in seeds.values())}
        run = next(iter(seeds.values()))[0]
        expected.setdefault(profile, {})[lab] = {"seeds": sorted(seeds), "revision": run["revision"], "figures": figures}
    with replacing(EXPECTED) as part:
        part.write_text(HEAD + yaml.safe_dump(expected, sort_keys=True, default_flow_style=None, width=120), encoding="utf-8")
    return {lab: len(expected[profile][lab]["figures"]) for lab in runs}


def is_figure(name, results):
    """Tell whether a run has a number under this name that says how well it went."""
    value = results.get(name)
    return not name.endswith(NOT_FIGURES) and isinstance(value, (int, float)) and not isinstance(value, bool)


def read_expected():
    """Return {profile: {lab: {"figures": {name: [low, high]}, ...}}}."""
    return (yaml.safe_load(EXPECTED.read_text(encoding="utf-8")) or {}) if EXPECTED.is_file() else {}


def check(outcomes, profile):
    """Compare the figures of runs with their bands; return (lines about what lies outside, number of figures compared)."""
    expected, outside, n_compared = read_expected().get(profile, {}), [], 0
    for outcome in outcomes:
        if outcome.status != "ok":
            continue
        if outcome.lab not in expected:
            outside.append(f"{outcome.lab}: no band for the profile {profile!r}; make one with labs bands")
            continue
        for name, (low, high) in expected[outcome.lab]["figures"].items():
            value, n_compared = outcome.results.get(name), n_compared + 1
            if value is None or not low <= value <= high:
                outside.append(f"{outcome.run or outcome.lab}: {name} = {value} lies outside {low} to {high}")
    return outside, n_compared
