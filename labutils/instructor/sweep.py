"""Which runs a command line asks for: every combination of the values, and a name for each run."""

import hashlib
import itertools
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import yaml

from . import labs
from .labs import UsageError


UNFIT = re.compile(r"[^\w.+-]")     # for the name of a folder


class Run(NamedTuple):
    """A lab with parameters; `name`: of its folder."""
    lab: str
    parameters: dict
    name: str


def plan(names, given, file=None, quick=False):
    """Return the `Run`s that are asked for, each once; raises `UsageError`.

    names   labs; none: those of the file, or all
    given   `(parameter, text)` pairs of the command line, which win over the file; a comma separates values
    file    a YAML list of runs, such as `{lab: 02_vae, seed: [0, 1]}`; one without a lab is for all labs
    quick   start from the reduced settings
    """
    chosen = names or labs.lab_names()
    asked = {name: [] for name in chosen if labs.lab_path(name)}
    for place, request in read_requests(file) if file else [("", {})]:
        if request.get("lab") == []:
            raise UsageError(f"{place} lab: the list is empty; name a lab, or leave 'lab' out for all of them")
        several = request.pop("lab", chosen)
        for lab in several if isinstance(several, list) else [several]:
            labs.lab_path(lab, place)
            if lab in asked:
                asked[lab] += combinations(lab, request, place, given, quick)
    if missing := [name for name in names if not asked[name]]:
        raise UsageError(f"-f {file}: it has no run of {missing[0]!r}; leave that name out, or add a run")
    return [run for lab, parameters in asked.items() for run in named_runs(lab, parameters)]


def read_requests(path):
    """Return the runs that a YAML file asks for, each with its place for messages; raises `UsageError`."""
    try:
        requests = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:      # a date that is none is a ValueError
        raise UsageError(f"-f {path}: it cannot be read as YAML: {' '.join(str(error).split())}") from None
    requests = [requests] if isinstance(requests, dict) else requests
    if not isinstance(requests, list) or not requests or not all(isinstance(request, dict) for request in requests):
        raise UsageError(f"-f {path}: it should hold a list of runs, such as: - {{lab: 02_vae, seed: [0, 1]}}")
    return [(f"{path}, run {number}:", request) for number, request in enumerate(requests, 1)]


def combinations(lab, request, place, given, quick):
    """Return the parameters of each run of a lab that a request of a file and a command line stand for."""
    try:
        settings = labs.quick_settings(lab) if quick else {}
        values = {name: [value] for name, value in settings.items()}
        for name, value in request.items():
            several = value if isinstance(value, list) else [value]
            values[name] = [labs.file_value(lab, name, one, place) for one in several]
            if not several:
                raise UsageError(f"{place} {name}: the list is empty; give it at least one value")
        values |= labs.parse_parameters(lab, given)
    except labs.DamagedLab:
        return [{}]         # its run will fail and say so; the other labs run
    return [dict(zip(values, combination)) for combination in itertools.product(*values.values())]


def named_runs(lab, several):
    """Return a lab's `Run`s with the parameters `several`, equal ones once, each with a folder's name of its own."""
    several = list({repr(sorted(parameters.items())): parameters for parameters in several}.values())
    names = dict.fromkeys(name for parameters in several for name in parameters)
    varied = [name for name in names if len({repr(parameters.get(name, ...)) for parameters in several}) > 1]
    runs = []
    for parameters in several:
        values = [f"{name}={UNFIT.sub('_', str(parameters[name]))[:40]}" for name in varied if name in parameters]
        folder = ",".join([lab, *values]).encode()[:200]        # bytes are what a file system counts, up to 255
        runs.append(Run(lab, parameters, folder.decode(errors="ignore")))
    uses = Counter(run.name.casefold() for run in runs)     # some file systems take A for a
    return [run._replace(name=f"{run.name},{short_hash(run)}") if uses[run.name.casefold()] > 1 else run for run in runs]


def short_hash(run):
    """Return some letters that tell apart runs whose names do not."""
    return hashlib.sha256(repr(sorted(run.parameters.items())).encode()).hexdigest()[:8]
