"""The jobs that a command line asks for: every combination of the values, and a folder name for each."""

import hashlib
import itertools
import re
from collections import Counter
from pathlib import Path

import yaml

from . import labs
from .labs import UsageError
from .record import Job

UNSAFE = re.compile(r"[^\w.+-]")    # in the name of a folder


def plan(names, given, file=None, quick=False):
    """Return the `Job`s that are asked for, each once and in a folder that is a mere name; raises `UsageError`.

    names   labs, or their starts or numbers; none: those of the file, or all
    given   `(parameter, text)` pairs of the command line, which replace what the file says; a comma separates values
    file    a YAML list of runs, such as `{lab: 02_vae, seed: [0, 1]}`; one without a lab is for all labs
    quick   start from the reduced settings
    """
    chosen = list(map(labs.full_name, names)) or labs.lab_names()
    asked = {name: [] for name in chosen}
    for source, request in read_requests(file) if file else [("", {})]:
        if request.get("lab") == []:
            raise UsageError(f"{source} lab: the list is empty; name a lab, or leave 'lab' out for all of them")
        several = request.pop("lab", chosen)
        for name in several if isinstance(several, list) else [several]:
            if (lab := labs.full_name(name, source)) in asked:
                asked[lab] += combinations(lab, request, source, given, quick)
    if missing := [name for name in chosen if names and not asked[name]]:
        raise UsageError(f"-f {file}: it has no run of {missing[0]!r}; leave that name out, or add a run")
    return [job for lab, parameters in asked.items() for job in named_jobs(lab, parameters)]


def read_requests(path):
    """Return [(source for messages, run as {name: value})] of a YAML file; raises `UsageError`."""
    try:
        requests = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise UsageError(f"-f {path}: {reason}; name a YAML file with a list of runs") from None
    except (ValueError, RecursionError, yaml.YAMLError) as error:       # an impossible date is a ValueError
        raise UsageError(f"-f {path}: it cannot be read as YAML: {' '.join(str(error).split())}") from None
    requests = [requests] if isinstance(requests, dict) else requests
    if not isinstance(requests, list) or not requests or not all(isinstance(request, dict) for request in requests):
        raise UsageError(f"-f {path}: it should hold a list of runs, such as: - {{lab: 02_vae, seed: [0, 1]}}")
    return [(f"{path}, run {number}:", request) for number, request in enumerate(requests, 1)]


def combinations(lab, request, source, given, quick):
    """Return the parameters of each run of a lab that one request of a file and the command line ask for."""
    try:
        settings = labs.quick_settings(lab) if quick else {}
        values = {name: [value] for name, value in settings.items()}
        for name, value in request.items():
            several = value if isinstance(value, list) else [value]
            values[name] = [labs.file_value(lab, name, one, source) for one in several]
            if not several:
                raise UsageError(f"{source} {name}: the list is empty; give it at least one value")
        values |= labs.parse_parameters(lab, given)
    except labs.DamagedLab:
        return [{}]         # its run will fail and say so; the other labs run
    return [dict(zip(values, combination)) for combination in itertools.product(*values.values())]


def named_jobs(lab, several):
    """Return a lab's `Job`s with the parameters `several`, equal ones once, each with a different folder."""
    several = list({repr(sorted(parameters.items())): parameters for parameters in several}.values())
    names = dict.fromkeys(name for parameters in several for name in parameters)
    varied = [name for name in names if len({repr(parameters.get(name, ...)) for parameters in several}) > 1]
    jobs = []
    for parameters in several:
        values = [f"{name}={UNSAFE.sub('_', str(parameters[name]))[:40]}" for name in varied if name in parameters]
        # file systems count bytes, up to 255 a name; Windows allows 260 a path, and drops a dot at the end of a name
        folder = ",".join([lab, *values]).encode()[:120].decode(errors="ignore").rstrip(".")
        jobs.append(Job(lab, parameters, Path(folder)))
    uses = Counter(job.name.casefold() for job in jobs)     # for some file systems A and a are the same
    return [job._replace(folder=Path(f"{job.name},{short_hash(job)}")) if uses[job.name.casefold()] > 1 else job
            for job in jobs]


def short_hash(job):
    """Return letters that differ for jobs with different parameters."""
    return hashlib.sha256(repr(sorted(job.parameters.items())).encode()).hexdigest()[:8]
