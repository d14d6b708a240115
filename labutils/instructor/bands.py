"""Bands: between which values the figures of a lab may lie, in tests/expected.yml, made from runs with several seeds."""

import math
import statistics

import yaml
from scipy.stats import t

from ..paths import PROJECT_ROOT, replacing
from .labs import UsageError, effective_parameters, quick_settings
from .report import read_run, revision

EXPECTED = PROJECT_ROOT / "tests/expected.yml"
LEAST_SEEDS = 5
# settings and times, dcgan_epochs too; the best of many epochs may be any of them
NOT_FIGURES = ("epochs", "n_samples", "code_dim", "seconds", "images_per_second", "best_epoch")
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

    The bands of other labs and profiles stay. Raises `UsageError` where a lab has fewer than five seeds, for runs with
    other parameters than the profile's, and for damaged ones.
    """
    labs = {}
    for run in good_runs(folder, profile):
        labs.setdefault(run.lab, {})[run.parameters.get("seed", 0)] = run
    expected = read_expected()
    for lab, runs in labs.items():
        if len(runs) < LEAST_SEEDS:
            raise UsageError(f"{folder}: {lab} has {len(runs)} seed(s); a band takes at least {LEAST_SEEDS}")
        names = [name for name in next(iter(runs.values())).results if all(is_figure(name, run.results) for run in runs.values())]
        figures = {name: band([run.results[name] for run in runs.values()]) for name in names}
        revisions = sorted({revision(run) for run in runs.values()})        # seeds are run over several days
        expected.setdefault(profile, {})[lab] = {"seeds": sorted(runs), "revisions": revisions, "figures": figures}
    with replacing(EXPECTED) as part:
        part.write_text(HEAD + yaml.safe_dump(expected, sort_keys=True, default_flow_style=None, width=120), encoding="utf-8")
    return {lab: len(expected[profile][lab]["figures"]) for lab in labs}


def good_runs(folder, profile):
    """Return the runs in a folder that went well; raises `UsageError` as `make_bands`, and where there are none."""
    runs = [run for path in sorted(folder.glob("*/run.json")) if (run := read_run(path.parent))]
    for run in runs:
        if run.status == "damaged" or run.status == "ok" and run.error:
            raise UsageError(f"{run.folder}: {run.error}; repeat the run, or remove its folder")
        if run.status == "ok" and (others := other_parameters(run.lab, run.parameters, profile)):
            raise UsageError(f"{run.folder} was run with other values of {', '.join(others)} than the profile {profile!r} has; "
                             "remove it, or name the other profile")
    if good := [run for run in runs if run.status == "ok"]:
        return good
    raise UsageError(f"there are no runs that went well in {folder}; make them with: labs run --quick -p seed 0,1,2,3,4")


def other_parameters(lab, parameters, profile):
    """Return the parameters of a run, but for seed and device, that are not those of the profile; raises `DamagedLab`."""
    usual = effective_parameters(lab, quick_settings(lab) if profile == "quick" else {})
    return [name for name, value in effective_parameters(lab, parameters).items()
            if name not in ("seed", "device") and usual.get(name, ...) != value]


def is_figure(name, results):
    """Tell whether a run has a number under this name that says how well it went."""
    return not name.endswith(NOT_FIGURES) and is_number(results.get(name))


def is_number(value):
    """Tell whether a value is a number that can lie in a band."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def read_expected():
    """Return {profile: {lab: {"figures": {name: [low, high]}, ...}}}; raises `UsageError` for a file that is none."""
    try:
        expected = (yaml.safe_load(EXPECTED.read_text(encoding="utf-8")) or {}) if EXPECTED.is_file() else {}
        pairs = [pair for labs in expected.values() for about in labs.values() for pair in about["figures"].values()]
        if not all(is_number(low) and is_number(high) for low, high in pairs):
            raise ValueError("a band is no pair of numbers")
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{EXPECTED} holds no bands ({' '.join(str(error).split())}); restore it with git checkout") from None
    return expected


def bands_of(labs, profile):
    """Return {lab: {figure: [low, high]}}; raises `UsageError` where a lab has none, and as `read_expected`."""
    expected = read_expected().get(profile, {})
    if missing := [lab for lab in labs if lab not in expected]:
        raise UsageError(f"{EXPECTED} has no bands of {', '.join(missing)} for the profile {profile!r}; "
                         "make them with labs bands")
    return {lab: expected[lab]["figures"] for lab in labs}


def check(outcomes, bands):
    """Compare the figures of runs with `bands`, {lab: {figure: [low, high]}}.

    Returns (lines about what lies outside, number of figures compared).
    """
    outside, n_compared = [], 0
    for outcome in outcomes:
        for name, (low, high) in bands[outcome.lab].items() if outcome.status == "ok" else ():
            value, n_compared = outcome.results.get(name), n_compared + 1
            if not is_number(value) or not low <= value <= high:
                outside.append(f"{outcome.run or outcome.lab}: {name} = {value} lies outside {low} to {high}")
    return outside, n_compared
