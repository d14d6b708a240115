"""The labs of the course: their notebooks, and the parameters that these take.

Packages are imported where they are used: `labs doctor` has to start even if one of them is missing.
"""

import ast
import itertools
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from ..parameters import read_value
from ..paths import PROJECT_ROOT

NOTEBOOKS = PROJECT_ROOT / "notebooks"


class UsageError(ValueError):
    """A mistake in what the user asked for: the message says which, and what would be right."""


class DamagedLab(UsageError):
    """The file of a lab is not a notebook."""


def check_course():
    """Raise `UsageError` in a course whose environment belongs to another one, or if that environment is called.

    An environment leads to the folder in which it was made. So a copy of that folder would work on the original.
    """
    with suppress(OSError):     # the folder that we are in is gone
        here = Path.cwd().resolve()
        if course := next(filter(is_course, (here, *here.parents)), None):
            return refuse_other(course)
    # what stands before the packages of the environment, as by PYTHONPATH, is there because somebody wants it
    before = itertools.takewhile(lambda folder: Path(folder).name not in ("site-packages", "dist-packages"), sys.path)
    if PROJECT_ROOT not in [Path(folder).resolve() for folder in before]:
        for program in (Path(sys.prefix, "bin", "python"), Path(sys.argv[0])):      # .venv/bin/labs, of a course
            for course in filter(is_course, [*program.parent.resolve().parents][1:2]):
                refuse_other(course)


def is_course(folder):
    """Tell whether a folder is that of a course: this one, a copy, or one that was handed out."""
    return (folder / "pyproject.toml").is_file() and (folder / "labutils" / "__init__.py").is_file()


def refuse_other(course):
    """Raise `UsageError` unless a course is the one that these modules belong to."""
    if course != PROJECT_ROOT:
        raise UsageError(f"in {course} this command would work on the labs of {PROJECT_ROOT}, where it was made; "
                         f"delete {course / '.venv'}, if it is there, and type make in {course}, or call labs in "
                         f"{PROJECT_ROOT}")


def lab_names():
    """Return the names of all labs, in the order of the course; raises `UsageError` if there is none."""
    names = sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if not names:
        raise UsageError(f"there are no labs in {NOTEBOOKS}: labutils was installed without its course; call labs in "
                         "the folder of the course, after: pip install -c constraints.txt -e .")
    return names


def full_name(start, source=""):
    """Return the name of the lab that is meant by its name, the start of it, or its number.

    Raises `UsageError` if it is none or may be several; the message begins with the `source` of the name.
    """
    start, names = str(start), lab_names()
    found = [name for name in names if name.startswith(start or " ")
             or start.isdecimal() and int(name[:2]) == int(start)]
    if start in names or len(found) == 1:
        return start if start in names else found[0]
    fault = f"{start!r} is the start of {', '.join(found)}; say which" if found else (
        f"there is no lab {start!r}; the labs are: {', '.join(names)}")
    raise UsageError(f"{source} {fault}".lstrip())


def lab_path(name):
    """Return the notebook of a lab; raises `UsageError` as `full_name` does."""
    return NOTEBOOKS / f"{full_name(name)}.ipynb"


def read_lab(name):
    """Return the notebook of a lab; raises `DamagedLab` for a file that is not a notebook."""
    import nbformat
    path = lab_path(name)
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except Exception:       # what is not a notebook raises errors of six classes
        raise DamagedLab(f"{path} is not a notebook; restore it with git checkout") from None
    return notebook


def with_labs_used(names):
    """Return the names of labs, and of those here whose definitions they take by `from_lab`; raises `DamagedLab`."""
    from ..notebooks import labs_used
    names = list(dict.fromkeys(names))
    others = set(lab_names()).difference(names) if names else ()
    for name in names:      # grows while it is walked over
        names += [other for other in labs_used(read_lab(name)) if other in others and other not in names]
    return sorted(names)


def lab_title(name):
    """Return the first heading of a lab."""
    headings = [line for cell in read_lab(name).cells for line in cell.source.splitlines() if line.startswith("#")]
    return headings[0].lstrip("# ") if headings else ""


def lab_parameters(name):
    """Return {parameter: {"inferred_type_name", "default", "help"}} of a lab; raises `DamagedLab`."""
    path = lab_path(name)
    return inspected(name, path, path.stat().st_mtime_ns)


@cache
def inspected(name, *_state):
    """Return what papermill finds in a lab's parameters cell, once for each state of the file."""
    import papermill
    notebook = read_lab(name)
    try:
        return papermill.inspect_notebook(notebook)
    except ValueError as error:     # no kernel in its metadata
        raise DamagedLab(f"{lab_path(name)}: {error} Save it in JupyterLab, or restore it with git checkout") from None


def effective_parameters(name, given):
    """Return {parameter: value} of a run: the lab's own values, replaced by those that are `given`."""
    known = lab_parameters(name)
    return {**{key: literal(about["default"]) for key, about in known.items() if key != "out_dir"}, **given}


def literal(text):
    """Return the value of a literal, and any other expression as it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def runs_folder(name):
    """Return the folder for runs of a kind: runs/NAME of the project."""
    return NOTEBOOKS.parent / "runs" / name


def quick_settings(name):
    """Return the reduced settings of a lab, of `notebooks/quick/NAME.yml`; raises `UsageError` where there are none."""
    settings = read_yaml(NOTEBOOKS / "quick" / f"{name}.yml")
    for parameter, value in settings.items():
        file_value(name, parameter, value, f"notebooks/quick/{name}.yml:")
    return settings


def read_yaml(path):
    """Return the {name: value} of a YAML file; raises `UsageError` for a missing file, and for one of another form."""
    import yaml
    try:
        return dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}; restore it with git checkout, or write it") from None
    except (OSError, TypeError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path} is not YAML of the form 'name: value' ({' '.join(str(error).split())}); "
                         "restore it with git checkout") from None


def parse_parameters(name, given):
    """Return the `(parameter, text)` pairs as {parameter: values}, by the types that the lab declares.

    A comma separates values. Raises `UsageError` for a parameter that the lab does not have or that is named
    twice, and for text of another type.
    """
    values = {}
    for parameter, text in given:
        if parameter in values:
            raise UsageError(f"-p {parameter} {text}: {parameter!r} is named twice; put all its values into one, "
                             "with commas between")
        type_name, parts = declared_type(name, parameter, "-p"), text.split(",")
        if len(parts) > 1 and "" in parts:
            raise UsageError(f"-p {parameter} {text}: a value is missing before or after a comma; "
                             "a value that contains a comma goes into a file (-f)")
        values[parameter] = [parse_value(parameter, part, type_name, "-p") for part in parts]
    return values


def declared_type(name, parameter, source):
    """Return the type of a lab's parameter; raises `UsageError` if the lab does not have it, and for out_dir."""
    known = lab_parameters(name)
    if parameter == "out_dir":
        raise UsageError(f"{source} out_dir: every run gets its own folder; name the folder above them with --out")
    if parameter not in known:
        raise UsageError(f"{source} {parameter}: the lab {name} has no parameter {parameter!r}; "
                         f"it has: {', '.join(known)}")
    return known[parameter]["inferred_type_name"]


def parse_value(parameter, text, type_name, source):
    """Return the value that the text of one parameter means; raises `UsageError`."""
    try:
        return read_value(text, type_name)
    except ValueError:
        raise UsageError(f"{source} {parameter} {text}: the parameter {parameter!r} takes a value of type "
                         f"{type_name}") from None


def file_value(name, parameter, value, source):
    """Return a value that a YAML file gives to a lab's parameter; raises `UsageError` for one of another type."""
    type_name = declared_type(name, parameter, source)
    if isinstance(value, str):
        return parse_value(parameter, value, type_name, source)
    try:
        return read_value(value, type_name)
    except ValueError:
        raise UsageError(f"{source} {parameter} {value!r}: the parameter {parameter!r} takes a value of type "
                         f"{type_name}" + ("; put it in quotes" if "str" in type_name else "")) from None
