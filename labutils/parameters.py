"""The parameters of a notebook, read by the types that its parameters cell declares, wherever a run has them from.

papermill gives text for `-p pretrained false`, and for `learning_rate: 1e-3` in a file, which is text in YAML 1.1. As a
condition all text is true, and as a number none can be used.
"""

import ast
import math
from contextlib import suppress

from .errors import BadValue

WANTED = {"bool": "True or False", "int": "a whole number", "float": "a number", "str": "text"}
NONE = ("", "none", "null")


def read_parameters(variables):
    """Give each parameter of a notebook a value of the type that it is declared with: "false" becomes False.

    variables  the notebook's `globals()`, where IPython keeps the cells that have run, as "In"

    A second call changes nothing. Raises `ValueError` for a value of another type, and for a name that papermill has
    set and that no parameter has.
    """
    cells, types = variables.get("In", []), {}
    for source in cells:        # the sources, because annotations are kept in other places from Python 3.14 on
        types |= declared_in(source)
    require_known(cells[-2:-1], types)
    for name in [name for name in types if name in variables]:
        try:
            variables[name] = read_value(variables[name], types[name])
        except ValueError:
            kind, optional = split(types[name])
            way_out = "put it in quotes, or give it to papermill with -r" if kind == "str" else "set it"
            raise BadValue(f"{name}={variables[name]!r}: must be {WANTED[kind]}{' or None' * optional}; {way_out} in "
                           "the parameters cell") from None


def declared_in(source):
    """Return {name: type} of the variables that a cell declares with one of our types."""
    try:
        nodes = [node for node in ast.parse(source).body if isinstance(node, ast.AnnAssign)]
    except SyntaxError:     # this cell did not run
        return {}
    types = {ast.unparse(node.target): ast.unparse(node.annotation) for node in nodes}
    return {name: type_name for name, type_name in types.items() if split(type_name)[0] in WANTED}


def require_known(cells, names):
    """Raise `ValueError` if one of the cells is papermill's, and sets a name that is not among `names`."""
    for source in cells:
        injected = ast.parse(source).body if names and source.startswith("# Parameters\n") else []
        for node in injected:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) not in names:
                raise BadValue(f"{ast.unparse(node)}: this notebook has no such parameter; it has: {', '.join(names)}")


def read_value(value, type_name):
    """Return a value as the type of a parameter, "int", "float", "bool", "str" or an `Optional[...]` of these.

    Text is read, and a whole number may be a float. Raises `ValueError` where nothing can be meant. A value of another
    type than these stays as it is.
    """
    kind, optional = split(type_name)
    if optional and (value is None or isinstance(value, str) and value.strip().lower() in NONE):
        return None
    return READERS[kind](value) if kind in READERS else value


def split(type_name):
    """Return the type in an `Optional[...]` and whether there is one: ("int", True) for "Optional[int]"."""
    return type_name.removeprefix("Optional[").removesuffix("]"), type_name.startswith("Optional[")


def read_bool(value):
    """Return True or False, or what the text says; raises `ValueError`."""
    if isinstance(value, bool):
        return value
    try:
        return {"true": True, "false": False}[value.strip().lower()]
    except (AttributeError, KeyError):
        raise ValueError from None


def read_int(value):
    """Return a whole number that is an int, a float or text; raises `ValueError`."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if (number := read_float(value)).is_integer():      # such as 1e3
        return int(number)
    raise ValueError


def read_float(value):
    """Return a finite number that is a float, an int or text; raises `ValueError`."""
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise ValueError
    with suppress(OverflowError):
        if math.isfinite(number := float(value)):
            return number
    raise ValueError


def read_str(value):
    """Return text; raises `ValueError` for a number, of which 007 and 7 would be one."""
    if not isinstance(value, str):
        raise ValueError
    return value


READERS = {"bool": read_bool, "int": read_int, "float": read_float, "str": read_str}
