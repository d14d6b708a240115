"""The labs of the course: where their notebooks lie and which parameters they take.

Packages are imported where they are used: `labs doctor` has to start where one of them is missing.
"""

import ast

from ..paths import PROJECT_ROOT, project_path

NOTEBOOKS = PROJECT_ROOT / "notebooks"


class UsageError(ValueError):
    """A mistake in what the user asked for: the message says which, and what would be right."""


def lab_names():
    """Return the names of all labs, in the order of the course."""
    return sorted(path.stem for path in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def lab_path(name):
    """Return the notebook of a lab; raises `UsageError` for an unknown one."""
    if name not in lab_names():
        raise UsageError(f"there is no lab {name!r}; the labs are: {', '.join(lab_names())}")
    return NOTEBOOKS / f"{name}.ipynb"


def read_lab(name):
    """Return the notebook of a lab; raises `UsageError` for an unknown one, or a file that is none."""
    import nbformat
    path = lab_path(name)
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, nbformat.ValidationError):
        raise UsageError(f"{path} is not a notebook; restore it with git checkout") from None
    return notebook


def lab_title(name):
    """Return the first heading of a lab."""
    headings = [line for cell in read_lab(name).cells for line in cell.source.splitlines() if line.startswith("#")]
    return headings[0].lstrip("# ") if headings else ""


def lab_parameters(name):
    """Return {parameter: {"inferred_type_name", "default", "help"}} from a lab's parameters cell."""
    import papermill
    read_lab(name)
    return papermill.inspect_notebook(str(lab_path(name)))


def lab_out_dir(name):
    """Return the folder to which a lab writes at the lesson's values."""
    return project_path(ast.literal_eval(lab_parameters(name)["out_dir"]["default"]))


def quick_settings(name):
    """Return the reduced settings of `notebooks/quick.yml` that the lab has."""
    import yaml
    path = NOTEBOOKS / "quick.yml"
    try:
        settings = dict(yaml.safe_load(path.read_text()))
    except (OSError, TypeError, ValueError, yaml.YAMLError):
        raise UsageError(f"{path} is not YAML of the form 'name: value'; restore it with git checkout") from None
    return {key: value for key, value in settings.items() if key in lab_parameters(name)}


def parse_parameters(name, given):
    """Return the `(parameter, text)` pairs as {parameter: value}, by the types that the lab declares.

    Raises `UsageError` for a parameter that the lab does not have, or text of another type.
    """
    known = lab_parameters(name)
    values = {}
    for parameter, text in given:
        if parameter == "out_dir":
            raise UsageError("out_dir: every lab gets a folder of its own; name the folder above them with --out")
        if parameter not in known:
            raise UsageError(f"the lab {name} has no parameter {parameter!r}; it has: {', '.join(known)}")
        values[parameter] = parse_value(parameter, text, known[parameter]["inferred_type_name"])
    return values


def parse_value(parameter, text, type_name):
    """Turn the text of one parameter into the value it stands for; raises `UsageError`."""
    if text in ("None", "null"):
        return None
    try:
        if type_name == "bool":
            return {"true": True, "false": False}[text.lower()]
        return {"int": int, "float": float}.get(type_name, str)(text)
    except (KeyError, ValueError):
        raise UsageError(f"-p {parameter} {text}: the parameter {parameter!r} takes a value of type "
                         f"{type_name}") from None
