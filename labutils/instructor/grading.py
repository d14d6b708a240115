"""A course for nbgrader: its folder, and what nbgrader has to do differently for these labs."""

import json
import tomllib
from pathlib import Path

import nbformat
import yaml
from nbconvert.preprocessors import Preprocessor
from traitlets import Bool, Dict

from ..paths import PROJECT_ROOT
from .labs import UsageError, effective_parameters, lab_title, quick_settings, read_lab, with_labs_used
from .release import copy_parts, for_students, new_folder, read_labs, readme_sections, student_version

# of the project, besides the notebook and its trained weights
PARTS = ("labutils", "docs/speed.md", "constraints.txt", "LICENSE", "LICENSE-text", "checkpoints/card.json")
README = """# {title}

Open `{name}.ipynb` in JupyterLab, and hand in this file. Leave the rest of the folder beside it: the notebook needs it.

Where a cell says `# YOUR CODE HERE`, replace the line below it with your answer. The line `checks.check_...` after it
says at once whether it is right, or what is probably wrong. The notebook has one cell of *parameters*: change a value,
run again, and compare. On a slow machine start with `dataset = "digits"` and the smaller values in `quick.yml`.

## On a computer of your own

One environment, beside the folders of the labs, serves for all of them. You need Python 3.11 to 3.13.

```sh
python3 -m venv ../labs-env
../labs-env/bin/pip install -r requirements.txt
../labs-env/bin/jupyter lab {name}.ipynb
```

(On Windows `py` for `python3`, and `..\\labs-env\\Scripts\\` for `../labs-env/bin/`.)

## Data

{data}
"""
GRADING = """# Grading runs every hand-in with these parameters, whatever the student has set. They are the reduced
# ones; no check depends on them. A lab that has no entry here runs with the student's own parameters.
"""
# names, marks and hand-ins of students
IGNORED = "/gradebook.db*\n/submitted/\n/autograded/\n/feedback/\n/*.csv\n/misconceptions.html\n"


def make_course(folder, names=(), address=None):
    """Write `folder` as a course of nbgrader, with an assignment for each of the labs `names`; none: all.

    On Google Colab the notebooks fetch the course from `address`; None: the one of pyproject.toml.

    All appears at once, or nothing does. Raises `UsageError` for a folder that is not empty, an unknown lab, and what
    nbgrader would hand out: marks that it does not understand, and pictures of a solution.
    """
    folder = Path(folder).resolve()
    with new_folder(folder) as course:
        notebooks = read_labs(names, address)
        for name, notebook in notebooks.items():
            write_assignment(course / "source" / name, name, notebook)
        values = {name: {"out_dir": f"runs/{name}", **effective_parameters(name, quick_settings(name))}
                  for name in notebooks}
        write(course, {
            "nbgrader_config.py": Path(__file__).with_name("nbgrader_config.py").read_text(encoding="utf-8"),
            "grading.yml": GRADING + yaml.safe_dump(values, sort_keys=False), ".gitignore": IGNORED})
    return folder


def write_assignment(folder, name, notebook):
    """Write the folder of one lab: the notebook with its solutions, which nbgrader removes, and all that it needs."""
    notebook, cleared = for_students(notebook), student_version(name, notebook)
    for cell, clear in zip(notebook.cells, cleared.cells):
        if cell.get("attachments", {}) != clear.get("attachments", {}):
            raise UsageError(f"{name}, cell {cell.id}: nbgrader would hand out the picture of the solution, which is "
                             "attached to this cell; put the picture into a cell with the tag 'answer'")
        if cell.cell_type == "markdown":        # the notebook lies beside docs/ here
            cell.source = cell.source.replace("](../", "](")
    needed = with_labs_used([name])
    copy_parts(folder, [*PARTS, *weights_of(needed)])
    nbformat.write(notebook, folder / f"{name}.ipynb")
    for other in needed:        # for `from_lab`
        if other != name:
            (folder / "notebooks").mkdir(exist_ok=True)
            nbformat.write(student_version(other, read_lab(other)), folder / f"notebooks/{other}.ipynb")
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    settings = yaml.safe_dump(quick_settings(name), sort_keys=False)
    write(folder, {
        "README.md": README.format(title=lab_title(name), name=name, data=readme_sections()["Data"]),
        "requirements.txt": "\n".join(["-c constraints.txt", *project["dependencies"], ""]),
        "quick.yml": f"# The reduced settings: papermill {name}.ipynb out.ipynb -f quick.yml\n{settings}"})


def weights_of(names):
    """Return the paths in the project of the trained weights of labs, and of those of the classifier that judges."""
    card = json.loads((PROJECT_ROOT / "checkpoints/card.json").read_text(encoding="utf-8"))
    return [f"checkpoints/{file}.safetensors" for file, about in card.items() if about["lab"] in (*names, "evaluation")]


def write(folder, texts):
    """Write {name of a file: text} into a folder."""
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


class SetParameters(Preprocessor):
    """Sets the parameters of a lab in what a student has handed in; each writes to a folder of its own."""

    enabled = Bool(True)
    values = Dict(help="{lab: {parameter: value}}").tag(config=True)

    def preprocess(self, notebook, resources):
        about = resources["nbgrader"]
        if values := dict(self.values.get(about["notebook"], {})):
            values["out_dir"] = f"{values.get('out_dir', 'runs')}/{about['student']}"
        lines = "\n".join(["\n\n# set for grading", *(f"{name} = {value!r}" for name, value in values.items())])
        for cell in notebook.cells:
            if values and {"parameters", "injected-parameters"} & set(cell.metadata.get("tags", [])):
                # once: nbgrader reads its configuration twice, and so has every preprocessor of it twice
                cell.source = cell.source.removesuffix(lines) + lines
        return notebook, resources


class WarningsAreNoErrors(Preprocessor):
    """Moves what a check has written to stderr to stdout: nbgrader gives a right answer that warns no points."""

    enabled = Bool(True)

    def preprocess_cell(self, cell, resources, index):
        if cell.metadata.get("nbgrader", {}).get("grade"):
            for output in cell.get("outputs", []):
                if output.get("name") == "stderr":
                    output.name = "stdout"
        return cell, resources
