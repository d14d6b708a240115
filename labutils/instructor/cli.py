"""The command line of `labs`.

Exit codes: 0 all ran, 1 a lab failed, a report could not be written, or `--check` found a metric outside its band,
2 bad usage, 130 interrupted.
"""

import os
import signal
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import click
except ImportError as error:
    sys.exit(f"labs: {error}; install the course's packages: pip install -c constraints.txt -e .")

from . import labs
from .labs import UsageError
from .signals import on_signals


class Verb(click.Command):
    """A verb. Alone, one that needs an argument is answered with its help."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.no_args_is_help = any(parameter.required for parameter in self.params)


class Group(click.Group):
    """The verbs; a wrong one is answered with the right ones."""

    command_class = Verb

    def get_command(self, context, name):
        if name not in self.commands:
            context.fail(f"there is no command {name!r}; the commands are: {', '.join(self.commands)}")
        return self.commands[name]


@click.group(cls=Group, no_args_is_help=True)
@click.version_option(package_name="labutils", prog_name="labs", message="%(prog)s %(version)s")
def command_line():
    """Run the labs of the course, compare what they have made, and hand them out.

    \b
    labs run --quick               every lab in its reduced form, in runs/quick/
    labs run 02_vae -p beta 4      one lab with another value
    labs release spring-course     versions for students and with solutions

    'labs COMMAND --help' says more. A LAB may also be called by its number or the start of its name: labs run 02
    """
    labs.check_course()


def main(arguments=None):
    """Run the command line and return its exit code; every error is one line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    with suppress(AttributeError):      # a terminal or a pipe that lacks a letter gets a question mark
        sys.stdout.reconfigure(errors="replace")
    with on_signals(signal.default_int_handler):
        try:
            with command_line.make_context("labs", arguments) as context:
                code = command_line.invoke(context)
            sys.stdout.flush()
            return code
        except click.exceptions.Exit as stop:       # --help
            return stop.exit_code
        except click.exceptions.NoArgsIsHelpError as error:
            print(error.format_message(), file=sys.stderr)
            return 2
        except click.ClickException as error:
            return fail(error.ctx.command_path if error.ctx else "labs", error.format_message(), 2)
        except UsageError as error:
            return fail(f"labs {context.invoked_subcommand}", error, 2)
        except ImportError as error:
            return fail(f"labs {context.invoked_subcommand}", f"{error}; 'labs doctor' says what to do", 1)
        except BrokenPipeError:     # nobody reads on: labs list | head -1
            return 1
        except KeyboardInterrupt:
            with suppress(OSError):     # a closed terminal takes no lines
                print("interrupted; what was done is kept", file=sys.stderr)
            return 130
        finally:
            drop_unwritten()


def fail(command, message, code):
    """Print one line of error, and return the exit code."""
    print(f"{command}: {' '.join(str(message).split())}", file=sys.stderr)
    return code


def drop_unwritten():
    """Drop printed text that nobody takes: Python would try once more at its end, and change the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


# ------------------------------------------------------------------------------- types of arguments

def folder_path(text):
    """Parse the path of a folder that may exist or not, and return it, absolute; ~ is the user's own folder."""
    try:
        path = Path(text).expanduser().resolve()
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):      # whoever needs it reports these
            path.stat()
        return path
    except (OSError, RuntimeError) as error:        # a name too long; a user who does not exist, or links in a circle
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise click.BadParameter(f"{text!r}: {reason}; name another folder") from None


def full_names(context, parameter, names):
    """Return the names of the labs that are meant, each once, as `labs.full_name` does; 'classifier' is no lab."""
    return list(dict.fromkeys(name if name == "classifier" else labs.full_name(name) for name in names))


folder_argument = click.argument("folder", type=folder_path, metavar="DIR")
labs_argument = click.argument("names", nargs=-1, metavar="[LAB]...", callback=full_names)
AT_LEAST_1 = click.IntRange(min=1)


# --------------------------------------------------------------------------------------- labs run

@command_line.command()
@labs_argument
@click.option("--quick", is_flag=True, help="Take the reduced settings of notebooks/quick/.")
@click.option("-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE",
              help="Set a parameter; VALUE,VALUE runs each; may be repeated: every combination is run.")
@click.option("-f", "file", metavar="FILE",
              help="A YAML list of runs, such as {lab: 02_vae, seed: [0, 1]}: a list of values runs each.")
@click.option("--out", type=folder_path, metavar="DIR", help="Default: runs/quick or runs/full.")
@click.option("--jobs", type=AT_LEAST_1, metavar="N",
              help="So many runs at a time, which share the cores; the longest first. Default: 1.")
@click.option("--scheduler", metavar="ADDRESS",
              help="Run on the workers of this Dask scheduler (tcp://HOST:8786, or its JSON file).")
@click.option("--device", help="auto, cuda, mps or cpu.")
@click.option("--timeout", type=AT_LEAST_1, default=4 * 3600, metavar="SECONDS",
              help="Longest time for one cell. Default: four hours.")
@click.option("--force", is_flag=True, help="Run also what has gone well with the same code and parameters.")
@click.option("--check", is_flag=True, help="Compare the metrics with their bands in notebooks/expected/.")
def run(names, quick, parameters, file, out, jobs, scheduler, device, timeout, force, check):
    """Execute labs; save notebook, HTML and metrics of each.

    LAB, -f and -p combine: the names choose among the runs of the file, a run of the file without a lab is for every
    lab, and -p replaces what the file or --quick say, for every run. A run that has gone well with the same code and
    parameters is not repeated, so that an interrupted sweep continues where it stopped.
    """
    from .sweep import plan
    if scheduler is not None and jobs is not None:
        raise UsageError("--jobs goes without --scheduler, which runs as much at a time as it has workers")
    given = [*parameters, *([("device", device)] if device is not None else [])]
    planned = plan(names, given, file, quick)
    if scheduler is None:       # a worker may have a device that this machine does not have
        check_device(device)
    profile = "quick" if quick else "full"
    bands = check_unchanged(planned, profile) if check else None
    out = out or labs.runs_folder(profile)
    planned = [job._replace(folder=out / job.name, timeout=timeout, force=force) for job in planned]
    with reserved(out):
        return execute_jobs(planned, out, jobs or 1, scheduler, bands)


def execute_jobs(jobs, out, n_workers, scheduler, bands):
    """Run the jobs, print how they went, and return the exit code; raises `KeyboardInterrupt` if they were stopped."""
    from .run import table  # late: papermill takes a second to import
    if scheduler is None:
        from .jobs import run_jobs
        outcomes = run_jobs(jobs, n_workers)
    else:
        from .cluster import run_on_cluster
        outcomes = run_on_cluster(jobs, scheduler)
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


def check_unchanged(jobs, profile):
    """Return the bands of a profile for jobs, {lab: {metric: [low, high]}}.

    Raises `UsageError` for jobs with other parameters than those of the bands, and for labs without bands.
    """
    from .bands import bands_of, other_parameters
    for job in jobs:
        with suppress(labs.DamagedLab):     # its run will say so
            if others := other_parameters(job.lab, job.parameters, profile):
                raise UsageError("--check compares with the metrics of unchanged parameters, "
                                 f"{job.name} sets {', '.join(others)}; leave out one or the other")
    return bands_of(dict.fromkeys(job.lab for job in jobs), profile)


def report_fault(folder):
    """Write the report about a sweep; return [], or [what is wrong], which is also printed: the check goes on."""
    try:
        print_report(folder)
        return []
    except UsageError as error:
        fail("labs run", error, 1)
        return [str(error)]


def print_check(outcomes, bands):
    """Compare metrics with their bands; print and return those outside."""
    from .bands import check
    outside, n_compared = check(outcomes, bands)
    print("\n".join([f"{n_compared} metrics compared with notebooks/expected, {len(outside)} faults", *outside]))
    return outside


@contextmanager
def reserved(folder):
    """Make a folder, and keep other runs out of it while the block lasts; raises `UsageError` if it cannot."""
    from filelock import FileLock, Timeout
    lock = FileLock(folder / ".run.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        raise UsageError(f"another 'labs run' is at work in {folder}; wait until it has ended, "
                         "or name another folder with --out") from None
    except OSError as error:
        raise UsageError(f"--out {folder}: nothing can be written there ({error.strerror}); "
                         "name another folder") from None
    try:
        yield
    finally:
        with suppress(OSError):     # Windows cannot unlink an open file; nobody else has it while the lock is held
            os.unlink(lock.lock_file)
        lock.release()


def check_device(device):
    """Refuse a device that this machine does not have before any kernel starts; raises `UsageError`."""
    if device is not None:
        from ..training import get_device
        try:
            get_device(device)
        except ValueError as error:
            raise UsageError(error) from None


# ------------------------------------------------------------------------------------ other verbs

@command_line.command("list")
@click.argument("lab", required=False)
def list_labs(lab):
    """List the labs, or the parameters of one."""
    if lab is None:
        for name in labs.lab_names():
            print(f"{name:<14}  {labs.lab_title(name)}")
        return 0
    for name, about in labs.lab_parameters(labs.full_name(lab)).items():
        print(f"{name + ' = ' + about['default']:<34}  {about['help']}")
    return 0


@command_line.command()
@labs_argument
def refresh(names):
    """Re-execute committed notebooks, and ship their weights.

    They run at the lesson's values. LAB may also be 'classifier', which judges samples; without any name, all labs are
    refreshed.
    """
    names = names or labs.lab_names()
    for name in names:
        if name != "classifier":
            labs.read_lab(name)     # stops here for an unknown or damaged lab, before an hour's work
    from .refresh import refresh, refresh_classifier
    from .run import first_metrics
    code = 0
    for name in names:
        if name == "classifier":
            print(f"{name}: {first_metrics(refresh_classifier())}", flush=True)
            continue
        outcome = refresh(name)
        if outcome.status == "interrupted":
            raise KeyboardInterrupt
        if outcome.error:       # it is printed already; the other labs are refreshed
            code = 1
        else:
            print(f"{name}: {first_metrics(outcome.metrics)}", flush=True)
    return code


@command_line.command()
@folder_argument
def report(folder):
    """Write index.html and results.csv about runs.

    DIR is what 'labs run' was given as --out, or runs/quick or runs/full.
    """
    print_report(folder)
    return 0


def print_report(folder):
    """Write the report, and print where it is; raises `UsageError`."""
    from .report import make_report
    print(f"report: {os.path.relpath(make_report(folder))}")


@command_line.command()
@folder_argument
@click.argument("profile", type=click.Choice(["quick", "full"]))
def bands(folder, profile):
    """Make the bands in notebooks/expected/ from runs.

    DIR is what 'labs run' was given as --out; it holds runs of each lab with at least five seeds, all with the settings
    of the profile.
    """
    from .bands import make_bands
    for lab, n_bands in make_bands(folder, profile).items():
        print(f"{lab}: {n_bands} bands")
    return 0


@command_line.command()
@folder_argument
@labs_argument
@click.option("--nbgrader", is_flag=True, help="Write a course for nbgrader, with an assignment for each lab.")
@click.option("--repository", metavar="URL", help="Where this version will lie: Google Colab fetches it there.")
def release(folder, names, nbgrader, repository):
    """Write versions for students and with solutions.

    DIR is a new folder, which gets student/, student.zip and solutions/, with the labs named or with all. For example:
    labs release spring-course
    """
    if nbgrader:
        from .grading import make_course
        folder = make_course(folder, names, repository)
        print(f"a course for nbgrader: {folder}\nassignments: {', '.join(sorted(os.listdir(folder / 'source')))}")
        return 0
    from .release import release
    folder = release(folder, names, repository)
    print(f"for students: {folder / 'student'} and {folder / 'student.zip'}\nwith solutions: {folder / 'solutions'}")
    if more := [name for name in labs.with_labs_used(names) if name not in names]:
        print(f"with {', '.join(more)}, whose definitions the named labs use")
    return 0


@command_line.command()
@folder_argument
def misconceptions(folder):
    """Write a page that says what a class got wrong, without names.

    DIR is the folder of a course of nbgrader, in which hand-ins have been graded.
    """
    from .misconceptions import make_page
    print(f"page: {os.path.relpath(make_page(folder))}")
    return 0


@command_line.command()
def student():
    """Write the labs without solutions to student/.

    For whoever learns alone, in this checkout. A notebook in student/ that somebody has worked in stays as it is.
    """
    from .student import FOLDER, write_student_labs
    write_student_labs()
    print(f"labs without solutions: {os.path.relpath(FOLDER)}")
    return 0


@command_line.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--to", "folder", type=folder_path, metavar="DIR", help="A folder for the data sets; default: data/.")
def data(names, folder):
    """Say which data sets are here, or fetch those named."""
    if folder and not names:
        raise UsageError(f"--to {folder}: name the data sets to put there, for example mnist")
    from . import datasets
    return datasets.fetch(names, folder) if names else datasets.report()


@command_line.command()
def doctor():
    """Examine the installation, and say what to repair."""
    from .doctor import doctor
    return doctor()


if __name__ == "__main__":
    sys.exit(main())
