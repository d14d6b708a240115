"""The command line of `labs`.

Exit codes: 0 all ran, 1 a lab failed, a report could not be written, or `--check` found a figure outside its band,
2 bad usage, 130 interrupted.
"""

import argparse
import os
import re
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

from ..paths import make_dir
from . import labs
from .labs import UsageError
from .signals import on_signals

RUN_HELP = """Execute labs. LAB, -f and -p combine: the names choose among the runs of the file, a run of the file
without a lab is for every lab, and -p comes in the place of what the file or --quick say, for every run. A run that has
gone well with the same code and parameters is not repeated, so that an interrupted sweep goes on where it stood."""


def main(arguments=None):
    """Run the command line and return its exit code."""
    options = build_parser().parse_args(arguments)
    with on_signals(signal.default_int_handler):
        try:
            code = options.command(options)
            sys.stdout.flush()
            return code
        except UsageError as error:
            print(f"labs {options.name}: {error}", file=sys.stderr)
            return 2
        except ImportError as error:
            print(f"labs {options.name}: {error}; 'labs doctor' says what is missing and what to do", file=sys.stderr)
            return 1
        except BrokenPipeError:     # nobody reads on: labs list | head -1
            return 1
        except KeyboardInterrupt:
            with suppress(OSError):     # a closed terminal takes no lines
                print("interrupted; what was done is kept", file=sys.stderr)
            return 130
        finally:
            drop_unwritten()


def drop_unwritten():
    """Drop what was printed and nobody takes: Python would try once more at its end, and change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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

    report = commands.add_parser("report", help="write index.html and results.csv about a folder of runs")
    report.add_argument("folder", type=place, metavar="DIR", help="what 'labs run' was given as --out")
    report.set_defaults(command=report_command)

    bands = commands.add_parser("bands", help="make the bands of notebooks/expected/ from runs with at least five seeds")
    bands.add_argument("folder", type=place, metavar="DIR", help="what 'labs run' was given as --out")
    bands.add_argument("profile", choices=("quick", "full"), help="which settings the runs had")
    bands.set_defaults(command=bands_command)

    release = commands.add_parser("release", help="write a version for students and one with solutions")
    release.add_argument("folder", type=place, metavar="DIR", help="a new folder: takes student/, student.zip and solutions/")
    release.add_argument("labs", nargs="*", metavar="LAB", help="names of labs; none: all of them")
    release.set_defaults(command=release_command)

    data = commands.add_parser("data", help="say which data sets are here, or fetch some ahead of a class")
    data.add_argument("names", nargs="*", metavar="NAME", help="data sets to fetch and verify; none: say what is here")
    data.add_argument("--to", type=place, metavar="DIR", help="a shared folder: made readable for all, and read-only")
    data.set_defaults(command=data_command)

    doctor = commands.add_parser("doctor", help="examine the installation, and say what is wrong and what to do")
    doctor.set_defaults(command=doctor_command)
    return parser


def add_run(commands):
    """Describe `labs run`."""
    run = commands.add_parser("run", help="execute labs; keep notebook, HTML and figures of each", description=RUN_HELP)
    run._negative_number_matcher = re.compile(r"-\.?\d")     # as argparse has it from Python 3.14 on: -1,2 is a value
    run.add_argument("labs", nargs="*", metavar="LAB", help="names of labs; none: those of the file, or all of them")
    run.add_argument("--quick", action="store_true", help="the reduced settings of notebooks/quick/")
    run.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                     help="set a parameter; VALUE,VALUE runs each; may be repeated: every combination is run")
    run.add_argument("-f", dest="file", type=Path, metavar="FILE",
                     help="a YAML list of runs, such as {lab: 02_vae, seed: [0, 1]}: a list of values runs each")
    run.add_argument("--out", type=place, metavar="DIR", help="default: runs/quick or runs/full")
    where = run.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=positive, default=1, metavar="N", help="runs at one time, the longest first")
    where.add_argument("--scheduler", metavar="ADDRESS",
                       help="run on the workers of this Dask scheduler (tcp://HOST:8786, or its JSON file)")
    run.add_argument("--device", help="auto, cuda, mps or cpu")
    run.add_argument("--timeout", type=positive, default=4 * 3600, metavar="SECONDS",
                     help="longest time for one cell (default: four hours)")
    run.add_argument("--force", action="store_true", help="run also what has gone well with the same code and parameters")
    run.add_argument("--check", action="store_true", help="compare the metrics with their bands in notebooks/expected/")
    run.set_defaults(command=run_command)


def positive(text):
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def place(text):
    """Parse the path of a folder that may be there or not, and return it, absolute; ~ is the user's own folder."""
    try:
        path = Path(text).expanduser().resolve()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):      # to be told by who needs it
            path.stat()
        return path
    except (OSError, RuntimeError) as error:        # a name too long; a user who is not there, or links in a circle
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise argparse.ArgumentTypeError(f"{text!r}: {reason}; name another folder") from None


def run_command(options):
    """`labs run`: check all that was asked for, then run."""
    from .sweep import plan
    given = options.parameters + ([["device", options.device]] if options.device is not None else [])
    runs = plan(list(dict.fromkeys(options.labs)), given, options.file, options.quick)
    if options.scheduler is None:   # a worker may have what this machine has not
        check_device(options.device)
    bands = check_unchanged(runs, "quick" if options.quick else "full") if options.check else None
    out = make_out(options.out or labs.PROJECT_ROOT / "runs" / ("quick" if options.quick else "full"))
    with reserved(out):
        return execute_runs(runs, out, options, bands)


def execute_runs(runs, out, options, bands):
    """Run what was asked for, print how it went, and return the exit code; raises `KeyboardInterrupt` if it was stopped."""
    from .jobs import run_jobs      # late: papermill's engine takes a second to import
    from .run import Job, table
    jobs = [Job(run.lab, run.parameters, out / run.name, options.timeout, options.force) for run in runs]
    if options.scheduler is None:
        outcomes = run_jobs(jobs, options.jobs)
    else:
        from .cluster import run_on_cluster
        outcomes = run_on_cluster(jobs, options.scheduler)
    try:
        print(f"\n{table(outcomes)}\n\nresults: {os.path.relpath(out)}")
    finally:
        if any(outcome.status == "interrupted" for outcome in outcomes):
            raise KeyboardInterrupt     # even if a closed terminal takes no lines
    faults = [outcome.error for outcome in outcomes if outcome.error]
    if len(outcomes) > 1:
        faults += report_fault(out)
    if bands:
        faults += print_check(outcomes, bands)
    return 1 if faults else 0


def check_unchanged(runs, profile):
    """Return the bands of a profile for runs, {lab: {figure: [low, high]}}.

    Raises `UsageError` for runs with other parameters than those of the bands, for labs without bands, and where
    there are no bands to be read.
    """
    from .bands import bands_of, other_parameters
    for run in runs:
        with suppress(labs.DamagedLab):     # its run will say so
            if others := other_parameters(run.lab, run.parameters, profile):
                raise UsageError("--check compares with the figures of unchanged parameters, "
                                 f"{run.name} sets {', '.join(others)}; leave out one or the other")
    return bands_of(dict.fromkeys(run.lab for run in runs), profile)


def report_fault(folder):
    """Write the report about a sweep; return [], or [what is wrong], which is printed and brings down nothing else."""
    try:
        report_command(argparse.Namespace(folder=folder))
        return []
    except UsageError as error:
        print(f"labs run: {error}", file=sys.stderr)
        return [str(error)]


def print_check(outcomes, bands):
    """Compare figures with their bands; print and return what lies outside."""
    from .bands import check
    outside, n_compared = check(outcomes, bands)
    print("\n".join([f"{n_compared} metrics compared with notebooks/expected, {len(outside)} faults", *outside]))
    return outside


def make_out(folder):
    """Make the folder that takes the runs; raises `UsageError` if that cannot be."""
    try:
        return make_dir(folder)
    except OSError as error:
        raise UsageError(f"--out {folder}: {error}") from None


@contextmanager
def reserved(folder):
    """Keep other runs out of a folder while the block lasts; raises `UsageError` if one is at work there."""
    from filelock import FileLock, Timeout
    lock = FileLock(folder / ".run.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UsageError(f"another 'labs run' is at work in {folder}; wait until it has ended, "
                         "or name another folder with --out") from None
    except OSError as error:
        raise UsageError(f"--out {folder}: nothing can be written there ({error.strerror}); name another folder") from None
    try:
        yield
    finally:
        with suppress(OSError):     # while it is held: nobody else has it. Windows lets no open file go
            os.unlink(lock.lock_file)
        lock.release()


def check_device(device):
    """Refuse a device that is not there before any kernel starts; raises `UsageError`."""
    if device is not None:
        from ..device import get_device
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
            labs.read_lab(name)     # an unknown name stops here, before an hour's work, and what is no notebook

    from .refresh import refresh, refresh_classifier
    from .run import describe, key_figures
    code = 0
    for name in names:
        try:
            figures = refresh_classifier() if name == "classifier" else refresh(name)
            print(f"{name}: {key_figures(figures)}", flush=True)
        except Exception as fault:      # as in `attempt`; the others are none the worse for it
            print(f"labs refresh: {name}: {describe(fault)}", file=sys.stderr)
            code = 1
    return code


def bands_command(options):
    """`labs bands`: what the figures of a run may be, from runs with several seeds."""
    from .bands import make_bands
    for lab, n_figures in make_bands(options.folder, options.profile).items():
        print(f"{lab}: bands of {n_figures} figures")
    return 0


def report_command(options):
    """`labs report`: compare runs."""
    from .report import make_report
    print(f"report: {os.path.relpath(make_report(options.folder))}")
    return 0


def release_command(options):
    """`labs release`: hand-outs."""
    from .release import release
    folder = release(options.folder, options.labs)
    print(f"for students: {folder / 'student'} and {folder / 'student.zip'}\nwith solutions: {folder / 'solutions'}")
    return 0


def data_command(options):
    """`labs data`: what is here, or fetch what is named."""
    if options.to and not options.names:
        raise UsageError(f"--to {options.to}: name the data sets to put there, for example mnist")
    from . import datasets
    return datasets.fetch(options.names, options.to) if options.names else datasets.report()


def doctor_command(options):
    """`labs doctor`: say how the installation is."""
    from .doctor import doctor
    return doctor()


if __name__ == "__main__":
    sys.exit(main())
