"""What a class got wrong, and how often, from the hand-ins that nbgrader has graded. No student is named."""

import re
from collections import Counter
from pathlib import Path

import jinja2
import nbformat

from ..checks import NotDone, WrongAnswer
from ..paths import replacing
from .labs import UsageError

NUMBER = re.compile(r"\d+(\.\d+)?(e[+-]?\d+)?")
RIGHT, NOT_DONE = "right", "not done yet"


def make_page(course):
    """Write `course`/misconceptions.html about the hand-ins that nbgrader has graded there, and return its path.

    Raises `UsageError` for a folder without any, and for one that cannot be written.
    """
    hand_ins = {}
    for path in sorted(course.glob("autograded/*/*/*.ipynb")):
        hand_ins.setdefault(path.stem, []).append(outcomes(nbformat.read(path, as_version=4)))
    if not hand_ins:
        raise UsageError(f"there are no graded hand-ins in {course / 'autograded'}; name the folder of a course, "
                         "after 'nbgrader autograde'")
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        Path(__file__).with_name("misconceptions.html").read_text(encoding="utf-8"))
    labs = {lab: (len(given), len(list(course.glob(f"submitted/*/*/{lab}.ipynb"))) - len(given), counts(given))
            for lab, given in hand_ins.items()}
    page = course / "misconceptions.html"
    try:
        with replacing(page) as part:
            part.write_text(template.render(labs=labs), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {page}: {error.strerror}") from None
    return page


def outcomes(notebook):
    """Return {exercise: what its check says} of an executed notebook."""
    errors, exercises = {}, []
    for cell in notebook.cells:
        if grade_id := cell.metadata.get("nbgrader", {}).get("grade_id"):
            errors[grade_id] = [output for output in cell.get("outputs", []) if output.output_type == "error"]
            if cell.metadata.nbgrader.get("grade"):
                exercises.append(grade_id.removeprefix("check_"))
    return {name: outcome(errors[f"check_{name}"], errors.get(name, [])) for name in exercises}


def outcome(of_check, of_answer):
    """Return what a check says, from the errors in its cell and in the cell with the answer.

    Of an error in a student's own code only the kind is kept: its text may say who the student is.
    """
    if not of_check:
        return RIGHT
    if of_check[0].ename == WrongAnswer.__name__:
        return of_check[0].evalue
    kind = (of_answer or of_check)[0].ename     # of a function that is not there, the check has only a NameError
    return NOT_DONE if kind in (NotDone.__name__, NotImplementedError.__name__) else f"{kind} in the student's code"


def counts(hand_ins):
    """Return {exercise: [(what its check says, how often)]} of a lab's hand-ins: "right", then the most frequent."""
    said = {}
    for given in hand_ins:
        for exercise, text in given.items():
            said.setdefault(exercise, []).append(text)
    return {exercise: [(RIGHT, texts.count(RIGHT)),
                       *Counter(alike([text for text in texts if text != RIGHT])).most_common()]
            for exercise, texts in said.items()}


def alike(texts):
    """Return the texts, equal where they say the same: with other numbers, or with the stronger hint after the hint."""
    kinds = [NUMBER.sub("…", text) for text in texts]
    starts = [min((start for start in kinds if f"{kind} ".startswith(f"{start} ")), key=len) for kind in kinds]
    originals = {}
    for text, kind in zip(texts, kinds):
        originals.setdefault(kind, set()).add(text)
    return [next(iter(originals[start])) if len(originals[start]) == 1 else start for start in starts]
