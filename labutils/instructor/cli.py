"""The command line of `labs`. Exit codes: 0 all ran, 1 a lab failed, 2 bad usage, 130 interrupted."""

import argparse
import os
import sys
from pathlib import Path

from ..paths import make_dir
from . import labs
from .labs import UsageError

RUN_HELP = """Execute labs. LAB, -f and -p combine: the names choose among the runs of the file, a run of the file
without a lab is for every lab, and -p comes in the place of what the file or --quick say, for every run. A run that has
gone well with the same code and parameters is not repeated, so that an interrupted sweep goes on where it stood."""


def main(arguments=None):
    """Run the command line and return its exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        return options.command(options)
    except UsageError as error:
        print(f"labs {options.name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what was done is kept", file=sys.stderr)
        return 130


def build_parser():
    """Describe commands and options."""
    parser = argparse.ArgumentParser(prog="labs", description="Run the labs of the course.")
    commands = parser.add_subparsers(dest="name", required=True)

    add_run(commands)

    listing = commands.add_parser("list", help="the labs, or the parameters of one")
    listing.add_argument("lab", nargs="?", metavar="LAB")
    listing.set_defaults(command=list_command)

    refresh = commands.add_parser("refresh", help="re-execute committed notebooks at the lesson's values, and ship their weights")
    refresh.add_argument("labs", nargs="*", metavar="LAB",
                         help="names of labs, or 'classifier', which judges samples; none: all labs")
    refresh.set_defaults(command=refresh_command)

    release = commands.add_parser("release", help="write a version for students and one with solutions")
    release.add_argument("folder", type=Path, metavar="DIR", help="a new folder: takes student/, student.zip and solutions/")
    release.add_argument("labs", nargs="*", metavar="LAB", help="names of labs; none: all of them")
    release.set_defaults(command=release_command)
    return parser


def add_run(commands):
    """Describe `labs run`."""
    run = commands.add_parser("run", help="execute labs; keep notebook, HTML and figures of each", description=RUN_HELP)
    run.add_argument("labs", nargs="*", metavar="LAB", help="names of labs; none: those of the file, or all of them")
    run.add_argument("--quick", action="store_true", help="the reduced settings of notebooks/quick.yml")
    run.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                     help="set a parameter; VALUE,VALUE runs each; may be repeated: every combination is run")
    run.add_argument("-f", dest="file", type=Path, metavar="FILE",
                     help="a YAML list of runs, such as {lab: 02_vae, seed: [0, 1]}: a list of values runs each")
    run.add_argument("--out", type=Path, metavar="DIR", help="default: runs/quick or runs/full")
    where = run.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=positive, default=1, metavar="N", help="runs at one time")
    where.add_argument("--scheduler", metavar="ADDRESS",
                       help="run on the workers of this Dask scheduler (tcp://HOST:8786, or its JSON file)")
    run.add_argument("--device", help="auto, cuda, mps or cpu")
    run.add_argument("--timeout", type=positive, default=4 * 3600, metavar="SECONDS",
                     help="longest time for one cell (default: four hours)")
    run.add_argument("--force", action="store_true", help="run also what has gone well with the same code and parameters")
    run.set_defaults(command=run_command)


def positive(text):
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def run_command(options):
    """`labs run`: check all that was asked for, then run."""
    from .sweep import plan
    given = options.parameters + ([["device", options.device]] if options.device else [])
    runs = plan(list(dict.fromkeys(options.labs)), given, options.file, options.quick)
    if options.scheduler is None:   # a worker may have what this machine has not
        check_device(options.device)
    out = make_out(options.out or labs.PROJECT_ROOT / "runs" / ("quick" if options.quick else "full"))

    from .jobs import run_jobs      # late: papermill's engine takes a second to import
    from .run import Job, table
    jobs = [Job(run.lab, run.parameters, out / run.name, options.timeout, run.varied) for run in runs]
    if options.scheduler is None:
        outcomes = run_jobs(jobs, options.jobs, options.force)
    else:
        from .cluster import run_on_cluster
        outcomes = run_on_cluster(jobs, options.scheduler, options.force)
    print(f"\n{table(outcomes)}\n\nresults: {os.path.relpath(out)}")
    if any(outcome.status == "interrupted" for outcome in outcomes):
        raise KeyboardInterrupt
    return 1 if any(outcome.error for outcome in outcomes) else 0


def make_out(folder):
    """Make the folder that takes the runs; raises `UsageError` if that cannot be."""
    try:
        return make_dir(folder.expanduser().resolve())
    except OSError as error:
        raise UsageError(f"--out {folder}: {error}") from None


def check_device(device):
    """Refuse a device that is not there before any kernel starts; raises `UsageError`."""
    if device:
        from ..training import get_device
        try:
            get_device(device)
        except ValueError as error:
            raise UsageError(error) from None


def list_command(options):
    """`labs list`: names and titles, or one lab's parameters with their defaults."""
    if options.lab is None:
        for name in labs.lab_names():
            print(f"{name:<14}  {labs.lab_title(name)}")
        return 0
    for name, about in labs.lab_parameters(options.lab).items():
        print(f"{name + ' = ' + about['default']:<34}  {about['help']}")
    return 0


def refresh_command(options):
    """`labs refresh`: execute, normalise, write back."""
    names = list(dict.fromkeys(options.labs)) or labs.lab_names()
    for name in names:
        if name != "classifier":
            labs.lab_path(name)     # an unknown name stops here, before an hour's work

    from .refresh import refresh, refresh_classifier
    from .run import key_figures
    for name in names:
        figures = refresh_classifier() if name == "classifier" else refresh(name)
        print(f"{name}: {key_figures(figures)}", flush=True)
    return 0


def release_command(options):
    """`labs release`: hand-outs."""
    from .release import release
    folder = release(options.folder, options.labs)
    print(f"for students: {folder / 'student'} and {folder / 'student.zip'}\nwith solutions: {folder / 'solutions'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
