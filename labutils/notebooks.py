"""What the notebook of another lab defines: lab 08 takes a network from lab 03, and no definition is written twice."""

import ast
import builtins
from symtable import symtable
from types import SimpleNamespace

import nbformat
from IPython.core.inputtransformer2 import TransformerManager

from .errors import BadValue
from .paths import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "notebooks"
STUB = "put your answer in the place of this line"


def from_lab(lab, *names, **given):
    """Return what the notebook of another lab defines: one object for one name, a tuple for several.

        ConvVAE = from_lab("03_conv_vae", "ConvVAE")
        draw, Generator = from_lab("04_gan", "draw", "Generator", DEVICE=DEVICE, latent_dim=64)

    names   of functions, classes and constants in capitals
    given   values of names that they use: `DEVICE`, and what only a run of the other lab would set

    Of the other notebook, only what the names need is executed, however indirectly: imports, functions, classes,
    constants. A parameter has the value of the notebook's parameters cell, unless it is `given`. Nothing is trained,
    drawn, set up or seeded. Each call makes new objects.

    Raises `ValueError` for a lab that is not here, a name that it does not define, a name that is used and has to be
    given, and an exercise that has not been solved here.
    """
    call = f"from_lab({', '.join(map(repr, (lab, *names)))})"
    found = statements_of(read_source(lab, call))
    here = sorted({name for statement in found for name in defined_by(statement)
                   if not isinstance(statement, (ast.Import, ast.ImportFrom))})
    if missing := [name for name in names if name not in here]:
        raise BadValue(f"{call}: lab {lab} does not define {', '.join(missing)}; it defines: {', '.join(here)}")
    kept, unknown = needed(found, names, given)
    if unknown:
        raise BadValue(f"{call}: uses {', '.join(unknown)}, which only a run of lab {lab} sets; give it here, as in "
                       f"from_lab(..., {unknown[0]}=...)")
    if stubs := [name for statement in kept if STUB in ast.unparse(statement) for name in defined_by(statement)]:
        raise BadValue(f"{call}: {', '.join(stubs)} is an exercise of lab {lab} that is not solved here; solve it in "
                       f"notebooks/{lab}.ipynb")
    space = execute(kept, lab, dict(given))
    return space[names[0]] if len(names) == 1 else tuple(space[name] for name in names)


def definitions(lab):
    """Execute all that a lab's notebook defines: imports, parameters, constants, functions, classes.

    Nothing is trained or drawn, and `DEVICE` is the CPU. The result has the definitions as attributes; they share one
    namespace, so that `lab.epochs = 1` reaches the functions.
    """
    import torch        # the `labs` command, which uses the rest of this module, starts without it
    space = SimpleNamespace(DEVICE=torch.device("cpu"))
    execute(statements_of(read_source(lab, f"definitions({lab!r})")), lab, vars(space))
    return space


def labs_used(notebook):
    """Return the names of the labs from which the code of a notebook takes definitions."""
    calls = [node for cell in notebook.cells if cell.cell_type == "code" for node in ast.walk(parse(cell.source))
             if isinstance(node, ast.Call) and ast.unparse(node.func) == "from_lab"]
    return sorted({call.args[0].value for call in calls if call.args and isinstance(call.args[0], ast.Constant)})


# ------------------------------------------------------------------------------------- its parts

def read_source(lab, call):
    """Return the cells of code of a lab's notebook; raises `ValueError`, whose message begins with the `call`."""
    labs = sorted(path.stem for path in FOLDER.glob("[0-9][0-9]_*.ipynb"))
    if not labs:
        raise BadValue(f"{call}: there are no labs in {FOLDER}; install labutils from the folder of the course, with "
                       "pip install -e .")
    if lab not in labs:
        raise BadValue(f"{call}: there is no lab {lab!r} in {FOLDER}; the labs there: {', '.join(labs)}")
    try:
        cells = nbformat.read(FOLDER / f"{lab}.ipynb", as_version=4).cells
    except Exception:       # what is not a notebook raises errors of six classes
        raise BadValue(f"{call}: {FOLDER / lab}.ipynb is not a notebook; fetch it again") from None
    return [cell.source for cell in cells if cell.cell_type == "code"]


def parse(source):
    """Return the syntax tree of a cell, in which IPython's own commands may be; an empty one if it is no Python."""
    try:
        return ast.parse(TransformerManager().transform_cell(source))
    except SyntaxError:     # somebody is still working in it
        return ast.Module([], [])


def statements_of(sources):
    """Return the statements of cells that only define something, in order."""
    return [statement for source in sources for statement in parse(source).body if is_definition(statement)]


def is_definition(statement):
    """Tell whether a statement only defines something: imports, parameters, functions, classes, constants."""
    if isinstance(statement, ast.Assign):
        if isinstance(statement.value, ast.Call) and ast.unparse(statement.value.func) == "from_lab":
            return True
        names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        return len(names) == len(statement.targets) and all(name.isupper() and name != "DEVICE" for name in names)
    return isinstance(statement, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.AnnAssign))


def defined_by(statement):
    """Return the names that a definition defines."""
    table = symtable(ast.unparse(statement), "cell", "exec")
    return {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}


def used_by(table):
    """Return the names that a statement takes from its module: those of its `symtable`, functions and classes in it."""
    names = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_referenced()
             and (table.get_type() == "module" or symbol.is_global())}
    return names.union(*map(used_by, table.get_children()))


def needed(found, names, given):
    """Return the statements among those `found` that the names need, and the names that none of them defines."""
    wanted, done = set(names), set()
    while new := wanted - done:
        done |= new
        for statement in found:
            if defined_by(statement) & new - set(given):
                wanted |= used_by(symtable(ast.unparse(statement), "cell", "exec"))
    kept = [only(statement, wanted) for statement in found if defined_by(statement) & wanted - set(given)]
    known = set().union(*map(defined_by, kept), given, dir(builtins))
    return kept, sorted(wanted - known)


def only(statement, wanted):
    """Return an import without the names that nobody wants; any other statement as it is."""
    if isinstance(statement, ast.ImportFrom):
        kept = [alias for alias in statement.names if (alias.asname or alias.name) in wanted]
        return ast.copy_location(ast.ImportFrom(statement.module, kept, statement.level), statement)
    return statement


def execute(statements, lab, space):
    """Execute the statements in the namespace `space`, and return it."""
    exec(compile(ast.Module(statements, []), f"{lab}.ipynb", "exec"), space)
    return space
