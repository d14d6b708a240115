"""Every check of an exercise takes right answers of any form and refuses wrong ones with the right message."""

import importlib
import re
from pathlib import Path

import pytest
import torch

from labutils import checks

ANSWERS = {}
for path in sorted(Path(__file__).parent.glob("answers_*.py")):
    ANSWERS |= importlib.import_module(path.stem).ANSWERS
CHECKS = {name.removeprefix("check_"): check for name, check in vars(checks).items() if name.startswith("check_")}
RIGHT = [pytest.param(name, i, id=f"{name}-{i}") for name, answers in ANSWERS.items() for i in range(len(answers["right"]))]
WRONG = [pytest.param(name, i, id=f"{name}-{answers['wrong'][i][1]}")
         for name, answers in ANSWERS.items() for i in range(len(answers["wrong"]))]


@pytest.fixture(autouse=True)
def fresh():
    checks._misses.clear()
    torch.manual_seed(0)


def test_every_check_has_answers_to_try_it_with():
    assert set(CHECKS) == set(ANSWERS)
    for name, answers in ANSWERS.items():
        assert len(answers["right"]) >= 2 and len(answers["wrong"]) >= 3, name


@pytest.mark.parametrize("name, i", RIGHT)
def test_a_right_answer_of_any_form_passes(name, i, capsys):
    CHECKS[name](ANSWERS[name]["right"][i])
    assert capsys.readouterr().out == f"{name}: right.\n"


@pytest.mark.parametrize("name, i", WRONG)
def test_a_wrong_answer_is_refused_by_its_misconception_and_then_with_a_stronger_hint(name, i, capsys):
    answer, expected = ANSWERS[name]["wrong"][i]
    messages = []
    for _ in range(2):
        torch.manual_seed(0)
        with pytest.raises(checks.WrongAnswer) as refusal:
            CHECKS[name](answer)
        messages.append(str(refusal.value))
    assert expected in messages[0], messages[0]
    assert messages[1].startswith(messages[0]) and len(messages[1]) > len(messages[0]) + 10
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", CHECKS)
def test_an_unsolved_exercise_says_so(name):
    def stub(*_):
        raise NotImplementedError("put your answer here")
    with pytest.raises(NotImplementedError, match="put your answer here"):
        CHECKS[name](stub)


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_leaves_the_random_numbers_of_the_lab_alone(name):
    def draws_and_gives_up(*_):
        torch.rand(3)
        raise NotImplementedError
    before = torch.random.get_rng_state()
    CHECKS[name](ANSWERS[name]["right"][0])
    with pytest.raises(NotImplementedError):
        CHECKS[name](draws_and_gives_up)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_after_a_right_answer_the_hints_begin_anew():
    answers = ANSWERS["walk"]
    for _ in range(2):
        with pytest.raises(checks.WrongAnswer):
            checks.check_walk(answers["wrong"][0][0])
    checks.check_walk(answers["right"][0])
    with pytest.raises(checks.WrongAnswer) as refusal:
        checks.check_walk(answers["wrong"][0][0])
    assert str(refusal.value) == "All frames are equal: the unchanged code is decoded each time."


def test_jupyter_shows_the_message_and_no_traceback():
    assert checks.WrongAnswer("the sign").__class__._render_traceback_(checks.WrongAnswer("the sign")) == ["Not yet. the sign"]


def test_a_check_gives_nothing_away():
    """No message contains code of an answer."""
    source = Path(checks.__file__).read_text()
    messages = re.findall(r'"([A-Z][^"]{30,})"', source.split('"""', 2)[2])
    assert messages
    for message in messages:
        assert not re.search(r"\.detach\(\)|\.clamp_?\(|\.clone\(|create_graph=|sum\(dim=", message), message
