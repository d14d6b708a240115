"""Bands: the values that the metrics of a lab may have, in notebooks/expected/, made from runs with several seeds."""

import math
import statistics

import yaml
from scipy.stats import t

from . import labs
from .labs import UsageError, effective_parameters, quick_settings
from .record import is_number, read_run, write_text
from .report import revision

MIN_SEEDS = 5
HEAD = """\
# The metrics of {lab}: the values that each can have at all (null: no limit), and bands, the values that a run of a
# profile may have. 'labs run --check' compares with them, 'labs bands' makes them; CONTRIBUTING.md says how.
"""


def band(values, limits=(None, None)):
    """Return [low, high], the prediction interval of 99.9 % for one more value, or None if no value can leave it.

    If the runs are normally distributed, one in a thousand is outside (Student's t prediction interval). A band has
    four digits, and reaches at least 1 % of the mean to either side, or 0.01 where the mean is 0. It is cut to the
    `limits` of the metric, None where there is no limit.
    """
    n, mean = len(values), statistics.fmean(values)
    half = t.ppf(0.9995, n - 1) * statistics.stdev(values) * math.sqrt(1 + 1 / n)
    half = max(half, abs(mean) / 100 or 0.01)
    made = [float(f"{mean - half:.4g}"), float(f"{mean + half:.4g}")]
    low, high = limits
    cut = [made[0] if low is None else max(made[0], low), made[1] if high is None else min(made[1], high)]
    return None if cut == [low, high] else cut


def make_bands(folder, profile):
    """Write the bands of the runs in `folder` into notebooks/expected/, and return {lab: number of bands}.

    Bands of other labs and of the other profile stay. Raises `UsageError` where a lab has fewer than five seeds or a
    run lacks a metric, for runs with other parameters than the profile's, and for damaged ones.
    """
    by_lab, expected = {}, {}
    for run in good_runs(folder, profile):
        by_lab.setdefault(run.lab, {})[run.parameters.get("seed", 0)] = run
    for lab, runs in by_lab.items():
        expected[lab] = read_expected(lab)
        if len(runs) < MIN_SEEDS:
            raise UsageError(f"{folder}: {lab} has {len(runs)} seed(s); a band takes at least {MIN_SEEDS}")
        bands = {name: band(values_of(name, runs.values()), limits)
                 for name, limits in expected[lab]["metrics"].items()}
        revisions = sorted({revision(run) for run in runs.values()})        # the runs may take several days
        expected[lab][profile] = {"seeds": sorted(runs), "revisions": revisions,
                                  "bands": {name: pair for name, pair in bands.items() if pair}}
    for lab, about in expected.items():
        text = yaml.safe_dump(about, sort_keys=False, default_flow_style=None, width=120)
        write_text(expected_path(lab), HEAD.format(lab=lab) + text)
    return {lab: len(about[profile]["bands"]) for lab, about in expected.items()}


def values_of(name, runs):
    """Return the values of a metric in runs; raises `UsageError` for a run without it."""
    for run in runs:
        if not is_number(run.metrics.get(name)):
            raise UsageError(f"{run.folder}: the run has no metric {name!r}, which {expected_path(run.lab)} lists; "
                             "repeat the run, or take the metric out of the list")
    return [run.metrics[name] for run in runs]


def good_runs(folder, profile):
    """Return the runs in a folder that went well; raises `UsageError` as `make_bands`, and where there are none."""
    runs = [run for path in sorted(folder.glob("*/run.json")) if (run := read_run(path.parent))]
    for run in runs:
        if run.status == "damaged" or run.status == "ok" and run.error:
            raise UsageError(f"{run.folder}: {run.error}; repeat the run, or remove its folder")
        if run.status == "ok" and (others := other_parameters(run.lab, run.parameters, profile)):
            raise UsageError(f"{run.folder} was run with other values of {', '.join(others)} than the profile "
                             f"{profile!r} has; remove it, or name the other profile")
    if good := [run for run in runs if run.status == "ok"]:
        return good
    raise UsageError(f"there are no runs that went well in {folder}; "
                     "make them with: labs run --quick -p seed 0,1,2,3,4")


def other_parameters(lab, parameters, profile):
    """Return the parameters that differ from the profile's, except for seed and device; raises `DamagedLab`."""
    usual = effective_parameters(lab, quick_settings(lab) if profile == "quick" else {})
    return [name for name, value in effective_parameters(lab, parameters).items()
            if name not in ("seed", "device") and usual.get(name, ...) != value]


def expected_path(lab):
    """Return the file of a lab's metrics and bands."""
    return labs.NOTEBOOKS / "expected" / f"{lab}.yml"


def read_expected(lab):
    """Return {"metrics": {name: [low, high]}, profile: {"bands": {name: [low, high]}, ...}} of a lab.

    Raises `UsageError` for a file that is missing or of another form.
    """
    path, expected = expected_path(lab), labs.read_yaml(expected_path(lab))
    try:
        tables = [expected["metrics"], *(about["bands"] for name, about in expected.items() if name != "metrics")]
        for low, high in (pair for table in tables for pair in table.values()):
            if not all(value is None or is_number(value) for value in (low, high)):
                raise ValueError(f"[{low}, {high}] is not a pair of numbers")
        if unknown := {name for table in tables for name in table} - set(expected["metrics"]):
            raise ValueError(f"bands of {', '.join(sorted(unknown))}, which 'metrics' does not list")
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UsageError(f"{path} does not hold metrics and bands ({type(error).__name__}: {error}); "
                         "restore it with git checkout") from None
    return expected


def bands_of(names, profile):
    """Return {lab: {metric: [low, high]}} for labs: the band of each metric, or its limits where it has no band.

    Raises `UsageError` for a lab without bands, and as `read_expected`.
    """
    expected = {lab: read_expected(lab) for lab in names}
    for lab, about in expected.items():
        if profile not in about:
            raise UsageError(f"{expected_path(lab)} has no bands for the profile {profile!r}; make them with "
                             "labs bands")
    return {lab: about["metrics"] | about[profile]["bands"] for lab, about in expected.items()}


def check(outcomes, bands):
    """Compare the metrics of runs with `bands`, {lab: {metric: [low, high]}}.

    Returns (a line for each metric outside, number of metrics compared).
    """
    outside, n_compared = [], 0
    for outcome in outcomes:
        for name, (low, high) in bands[outcome.lab].items() if outcome.status == "ok" else ():
            value, n_compared = outcome.metrics.get(name), n_compared + 1
            if not is_number(value) or low is not None and value < low or high is not None and value > high:
                outside.append(f"{outcome.name or outcome.lab}: {name} = {value} is outside {low} to {high}")
    return outside, n_compared
