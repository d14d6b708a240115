"""Each check takes right answers of any form, and refuses wrong ones with the right message."""

import json
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
import torch
from helpers import NOTEBOOKS, code_cells, definitions
from nbclient import NotebookClient

from labutils import checks

NOTEBOOK = {path.stem.split("_", 1)[1]: path for path in NOTEBOOKS}      # of a lab's name without its number
FILES = sorted(Path(checks.__file__).parent.glob("*.py"))
LABS = sorted(set(NOTEBOOK) | {path.stem for path in FILES} - {"__init__"})
CHECKS, ANSWERS = {}, {}        # {(lab, name of the exercise): check} and {lab: {name of the exercise: answers}}
for lab in LABS:
    module = import_module(f"labutils.checks.{lab}") if lab in {path.stem for path in FILES} else None
    CHECKS |= {(lab, name.removeprefix("check_")): check for name, check in vars(module or checks).items()
               if name.startswith("check_")}
    [answers] = list(Path(__file__).parent.glob(f"answers_[0-9][0-9]_{lab}.py")) or [None]
    ANSWERS[lab] = import_module(answers.stem).ANSWERS if answers else {}

each_lab = pytest.mark.parametrize("lab", LABS)
each_check = pytest.mark.parametrize("lab, name", [pytest.param(*key, id="-".join(key)) for key in CHECKS])


def answers_of(lab, name, kind):
    return ANSWERS[lab].get(name, {}).get(kind, [])


def each(items):
    """Parametrize a test with each check and each of its `items(lab, name)`."""
    return pytest.mark.parametrize("lab, name, item", [
        pytest.param(*key, item, id=f"{'-'.join(key)}-{i}") for key in CHECKS for i, item in enumerate(items(*key))])


@cache
def solutions(lab):
    """Return what a notebook defines, its solutions among it."""
    return definitions(NOTEBOOK[lab].stem)


def refusals(check, answer):
    """Return the messages of an answer that is handed in twice."""
    messages = []
    for _ in range(2):
        torch.manual_seed(0)
        with pytest.raises(checks.WrongAnswer) as refusal:
            check(answer)
        messages.append(str(refusal.value))
    return messages


@pytest.fixture(autouse=True)
def fresh():
    for check in CHECKS.values():
        check.misses = 0
    torch.manual_seed(0)


@each_lab
def test_a_lab_has_the_checks_that_its_notebook_calls(lab):
    assert lab in NOTEBOOK, f"labutils/checks/{lab}.py belongs to no notebook"
    source = "\n".join(cell.source for cell in code_cells(NOTEBOOK[lab]))
    called = set(re.findall(r"^checks\.check_(\w+)\(", source, re.MULTILINE))
    assert {name for of, name in CHECKS if of == lab} == called


@each_lab
def test_every_check_of_a_lab_has_wrong_answers_to_try_it_with(lab):
    own = {name for of, name in CHECKS if of == lab}
    assert set(ANSWERS[lab]) <= own
    wrong = {name: [*answers_of(lab, name, "wrong"), *CHECKS[lab, name].misconceptions] for name in own}
    assert [name for name in own if len(wrong[name]) < 3] == [], "three wrong answers at least"


@each_check
def test_the_solution_of_the_notebook_passes(lab, name, capsys):
    CHECKS[lab, name](getattr(solutions(lab), name))
    assert capsys.readouterr().out == f"{name}: right.\n"


@each(lambda lab, name: answers_of(lab, name, "right"))
def test_a_right_answer_of_any_form_passes(lab, name, item, capsys):
    CHECKS[lab, name](item)
    assert capsys.readouterr().out == f"{name}: right.\n"


@each(lambda lab, name: [*CHECKS[lab, name].misconceptions, *getattr(CHECKS[lab, name].also, "misconceptions", ())])
def test_a_misconception_is_named_and_then_followed_by_a_stronger_hint(lab, name, item, capsys):
    wrong, hint, stronger = item
    check = CHECKS[lab, name]
    assert refusals(check, lambda *arguments: wrong(*arguments)) == [hint, f"{hint} {stronger}"] and len(stronger) > 10
    assert capsys.readouterr().out == ""


@each(lambda lab, name: answers_of(lab, name, "wrong"))
def test_a_wrong_answer_is_refused_by_its_misconception_and_then_with_a_stronger_hint(lab, name, item, capsys):
    answer, expected = item
    first, second = refusals(CHECKS[lab, name], answer)
    assert expected in first, first
    assert second.startswith(first) and len(second) > len(first) + 10
    assert capsys.readouterr().out == ""


@each_check
def test_an_unsolved_exercise_says_so(lab, name):
    def stub(*_):
        raise NotImplementedError("put your answer here")
    with pytest.raises(checks.NotDone, match=f"put your answer into {name}, "):
        CHECKS[lab, name](stub)


@each_check
def test_a_check_leaves_the_random_numbers_of_the_lab_alone(lab, name):
    def draws_and_gives_up(*_):
        torch.rand(3)
        raise NotImplementedError
    right = getattr(solutions(lab), name)
    before = torch.random.get_rng_state()
    CHECKS[lab, name](right)
    with pytest.raises(NotImplementedError):
        CHECKS[lab, name](draws_and_gives_up)
    assert torch.equal(torch.random.get_rng_state(), before)


@each_check
def test_after_a_right_answer_the_first_hint_comes_alone_again(lab, name):
    check = CHECKS[lab, name]
    first, second = refusals(check, lambda *_: None)
    check(getattr(solutions(lab), name))
    assert first != second and refusals(check, lambda *_: None) == [first, second]


ANSWERS_THAT_END = {
    "def gaussian_kl(*parameters):\n    raise NotImplementedError":
        "Not done yet: put your answer into gaussian_kl, in the cell above.",
    "def gaussian_kl(*parameters):\n    return 0": "Not yet. The result has the shape (), and (1,) is asked for.",
    "def gaussian_kl(mu, *others):\n    return helper(mu)\ndef helper(mu):\n    return mu.summe()": "AttributeError",
    "gaussian_kl = lambda mu_q: mu_q.sum(dim=1)":       # called in vain: no frame of the student's own
        "Not yet. The check cannot use this answer. TypeError: <lambda>() takes 1 positional argument but 4 were given",
}


@pytest.mark.slow
def test_a_kernel_shows_the_students_own_lines_and_nothing_of_the_checks():
    """In place of a traceback that prints every misconception, every hint and what is right."""
    cells = ["from labutils.checks import vae as checks"]
    cells += [f"{answer}\ntry_it = checks.check_gaussian_kl\ntry_it(gaussian_kl)" for answer in ANSWERS_THAT_END]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    NotebookClient(notebook, allow_errors=True, kernel_name="python3").execute()
    shown = ["\n".join(cell.outputs[-1].traceback) for cell in notebook.cells[1:]]
    shown = [re.sub(r"\x1b\[[0-9;]*m", "", text) for text in shown]
    for text, expected in zip(shown, ANSWERS_THAT_END.values(), strict=True):
        assert expected in text and "labutils" not in text and "misconception" not in text, text
    stub, wrong, typo, call = shown
    assert len(stub.splitlines()) == len(wrong.splitlines()) == len(call.splitlines()) == 1
    assert "return helper(mu)" in typo and "mu.summe()" in typo and "try_it(gaussian_kl)" in typo


def test_a_traceback_keeps_what_is_not_ours():
    """Also the frames below the student's own, of a library or of a file in another folder of this name."""
    def answer(*_):
        json.loads("no json")
    with pytest.raises(json.JSONDecodeError) as error:
        CHECKS["vae", "gaussian_kl"](answer)
    names = [entry.name for entry in error.traceback]
    assert names[-4:] == ["answer", "loads", "decode", "raw_decode"] and "judge" not in names


def test_the_checks_give_nothing_away():
    """No message contains code of an answer."""
    sources = [path.read_text().split('"""', 2)[2] for path in FILES]
    messages = re.findall(r'"([A-Z][^"]{30,})"', "\n".join(sources))
    assert messages
    for message in messages:
        assert not re.search(r"\.detach\(\)|\.clamp_?\(|\.clone\(|create_graph=|sum\(dim=", message), message
