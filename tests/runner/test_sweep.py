"""The runs that a command line or a file asks for; nothing is executed."""

import pytest
from helpers import PARAMETERS, write_lab

from labutils.instructor import cli, labs
from labutils.instructor.sweep import plan

SMALL_LABS = {"01_one": []}


@pytest.fixture(autouse=True)
def two_labs(notebooks):
    """Two labs with the same parameters, but that the second has no seed; the folder of their notebooks."""
    write_lab(notebooks, "02_two", [], PARAMETERS.replace("seed: int = 0  # of all\n", ""))
    (notebooks / "quick").mkdir()
    for name in ("01_one", "02_two"):
        (notebooks / f"quick/{name}.yml").write_text("epochs: 1\n")
    return notebooks


def names(*arguments, **options):
    return [job.name for job in plan(*arguments, **options)]


def file(folder, text):
    (folder / "runs.yml").write_text(text, encoding="utf-8")
    return folder / "runs.yml"


def test_without_anything_each_lab_runs_once_as_it_stands():
    found = [(job.lab, job.parameters, job.name) for job in plan([], [])]
    assert found == [("01_one", {}, "01_one"), ("02_two", {}, "02_two")]


def test_commas_make_a_grid_in_order_and_only_what_varies_is_in_the_name():
    runs = plan(["01_one"], [("seed", "0,1"), ("rate", "0.5"), ("epochs", "3,4")])
    assert [run.name for run in runs] == ["01_one,seed=0,epochs=3", "01_one,seed=0,epochs=4",
                                          "01_one,seed=1,epochs=3", "01_one,seed=1,epochs=4"]
    assert runs[1].parameters == {"seed": 0, "rate": 0.5, "epochs": 4}


def test_values_keep_their_types_and_equal_ones_run_once(notebooks):
    runs = plan(["01_one"], [("rate", "1,1.0,1e0,2"), ("pretrained", "True,false"), ("dataset", "1,None")])
    assert len(runs) == 8 and {type(run.parameters["rate"]) for run in runs} == {float}
    assert {run.parameters["pretrained"] for run in runs} == {True, False}
    assert {run.parameters["dataset"] for run in runs} == {"1", "None"}
    path = file(notebooks, "[{lab: 01_one, rate: [1, 2.5, 1e-3], seed: '7', pretrained: 'false', epochs: 2.0}]")
    runs = plan([], [], path)
    assert [run.parameters["rate"] for run in runs] == [1.0, 2.5, 0.001] and type(runs[0].parameters["rate"]) is float
    assert runs[0].parameters == {"rate": 1.0, "seed": 7, "pretrained": False, "epochs": 2}


def test_quick_is_below_the_file_and_the_file_below_p(notebooks):
    path = file(notebooks, "- {lab: 01_one, epochs: 5, rate: 3}")
    assert plan([], [], None, True)[0].parameters == {"epochs": 1}
    assert plan([], [("rate", "4")], path, True)[0].parameters == {"epochs": 5, "rate": 4.0}


def test_names_choose_from_the_file_and_a_run_without_lab_is_for_all(notebooks):
    path = file(notebooks, "- {lab: 01_one, seed: [0, 1]}\n- {lab: 02_two, epochs: 1}\n- {rate: 9}\n"
                           "- {lab: [01_one, 02_two], epochs: 8}")
    assert names([], [], path) == ["01_one,seed=0", "01_one,seed=1", "01_one,rate=9.0", "01_one,epochs=8",
                                   "02_two,epochs=1", "02_two,rate=9.0", "02_two,epochs=8"]
    assert names(["02_two"], [], path) == ["02_two,epochs=1", "02_two,rate=9.0", "02_two,epochs=8"]
    path = file(notebooks, "lab: 01_one")
    assert names(["01_one"], [("epochs", "1,2")], path) == ["01_one,epochs=1", "01_one,epochs=2"]


def test_two_runs_never_share_a_folder(notebooks):
    values = ["a/b", "a_b", "a,b", "Q", "q", "x" * 60 + "1", "x" * 60 + "2", "../..", "é"]
    path = file(notebooks, f"- {{lab: 01_one, dataset: {values}}}")
    found = names([], [], path)
    assert len({name.casefold() for name in found}) == len(values)
    assert all(len(name.encode()) < 255 and "/" not in name for name in found) and found[-1] == "01_one,dataset=é"
    assert found[0].startswith("01_one,dataset=a_b,") and found == names([], [], path), "the same names each time"
    assert names([], [], file(notebooks, "[{lab: 01_one, seed: 1}, {lab: 01_one, seed: 1}]")) == ["01_one"]


def test_long_values_in_any_script_make_folders_that_a_disk_takes(notebooks, tmp_path):
    write_lab(notebooks, "03_text", [], PARAMETERS + '\nnote: str = ""  # a word')
    found = names(["03_text"], [("dataset", f"{'漢' * 50},x"), ("note", f"{'字' * 50},{'字' * 51}")])
    for name in found:
        (tmp_path / name).mkdir()
    assert len(set(found)) == 4


def test_names_of_folders_hold_on_windows_too():
    """No dot at the end, which it drops; none of its signs; room for the folders above and the files below."""
    found = names(["01_one"], [("dataset", rf"a.,a,b:c,b?c,x<y>|,c\d,{'e' * 90}"), ("value", "1000000000,2000000000"),
                               ("rate", "1.23456789012345,2.3"), ("epochs", "100000000,200000000"),
                               ("seed", "100000000,200000000"), ("pretrained", "true,false")])
    assert len({name.casefold() for name in found}) == 7 * 32 and max(map(len, found)) < 130
    assert not any(set(name) & set('<>:"/\\|?*') or name.endswith((".", " ")) for name in found)
    assert names(["01_one"], [("dataset", "a.,b")]) == ["01_one,dataset=a", "01_one,dataset=b"]


def test_negative_numbers_are_values(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(cli, "execute_jobs", lambda jobs, *_: asked.extend(jobs) or 0)
    arguments = ["run", "01_one", "-p", "rate", "-1,-.5", "-p", "epochs", "-2", "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    assert [job.parameters for job in asked] == [{"rate": -1, "epochs": -2}, {"rate": -.5, "epochs": -2}]


def test_a_damaged_lab_is_planned_and_will_fail(notebooks):
    whole = (notebooks / "01_one.ipynb").read_text()
    for text in ("{", "", "[]", "null", "\xff", '{"cells": 3}', whole.replace("python3", "")):
        (notebooks / "01_one.ipynb").write_text(text, encoding="latin-1")
        with pytest.raises(labs.DamagedLab, match="01_one.ipynb"):
            labs.lab_parameters("01_one")
    assert plan([], [("epochs", "1,2")], quick=True)[0].parameters == {}
    assert names([], [("epochs", "1,2")]) == ["01_one", "02_two,epochs=1", "02_two,epochs=2"]


@pytest.mark.parametrize("text, parts", [
    ("- {lab: 01_one, sed: 1}", ["run 1", "'sed'", "seed"]),
    ("- {lab: 01_one}\n- {lab: 02_two, seed: 1}", ["run 2", "02_two", "'seed'"]),
    ("- {lab: 09_none}", ["'09_none'", "01_one"]),
    ("- {lab: 7}", ["7", "01_one"]),
    ("- {lab: {a: b}}", ["01_one"]),
    ("- {lab: 01_one, epochs: 2.5}", ["epochs 2.5", "int"]),
    ("- {lab: 01_one, epochs: null}", ["epochs None", "int"]),
    ("- {lab: 01_one, epochs: true}", ["epochs True", "int"]),
    ("- {lab: 01_one, epochs: ten}", ["epochs ten", "int"]),
    ("- {lab: 01_one, dataset: 2020-01-01}", ["datetime", "str", "quotes"]),
    ("- {lab: 01_one, rate: [[1]]}", ["[1]", "float"]),
    ("- {lab: 01_one, rate: []}", ["rate", "empty"]),
    ("- {lab: 01_one, out_dir: x}", ["out_dir", "--out"]),
    ("- {lab: [], seed: 1}", ["run 1", "lab: the list is empty"]),
    ("- {lab: 01_one, dataset: 2020-13-45}", ["cannot be read as YAML", "month"]),
    ("- {lab: 01_one, seed: " + "1" * 5000 + "}", ["cannot be read as YAML", "limit"]),
    ("[" * 3000, ["cannot be read as YAML", "recursion"]),
    ("- {1: 2}", ["run 1", "1"]),
    ("[]", ["list of runs", "lab:"]), *[(text, ["list of runs"]) for text in ("", "just text", "- 3")],
    ("a: [1", ["cannot be read as YAML"]), ("a: b: c", ["cannot be read as YAML"]),
    ("!!python/object:os.system {}", ["cannot be read as YAML"]),
])
def test_a_mistake_in_the_file_is_named_in_one_line(notebooks, tmp_path, capsys, text, parts):
    path = file(notebooks, text)
    assert cli.main(["run", "-f", str(path), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert all(part in message for part in [*parts, "runs.yml"]), message
    assert message.count("\n") == 1 and not (tmp_path / "out").exists()


def test_a_name_without_a_run_in_the_file_is_refused(notebooks, capsys):
    path = file(notebooks, "- {lab: 01_one}")
    assert cli.main(["run", "02_two", "-f", str(path)]) == 2
    assert "no run of '02_two'" in capsys.readouterr().err
