"""Bad input of every kind: one line that names the value and the way out, never a traceback, nothing half-written."""

import json
import re

import pytest
import torch
from helpers import quick, write_lab
from hypothesis import assume, given
from hypothesis import strategies as st

from labutils.instructor import cli, labs

PARAMETERS = ("epochs: int = 2  # passes\nrate: float = 0.1  # learning rate\npretrained: bool = False  # load weights\n"
              'device: str = "cpu"  # where\nout_dir: str = "runs/x"  # pictures')


# --------------------------------------------------------------------------------- the command line

@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course of one good lab and some files that are no labs: the folder above its notebooks."""
    folder = tmp_path_factory.mktemp("course")
    notebooks = folder / "notebooks"
    notebooks.mkdir()
    write_lab(notebooks, "01_good", PARAMETERS, ["1"], heading=True)
    write_lab(notebooks, "02_unclosed", PARAMETERS, ["### BEGIN SOLUTION\n1"], heading=True)
    (notebooks / "03_text.ipynb").write_text("<<<<<<< HEAD")
    (notebooks / "04_list.ipynb").write_text("[]")
    (notebooks / "05_empty.ipynb").write_text("")
    (notebooks / "06_object.ipynb").write_text('{"cells": 5}')
    (notebooks / "quick.yml").write_text("epochs: [1\n")
    (folder / "a_file").write_text("")
    (folder / "loop").symlink_to("loop")
    (folder / "full").mkdir()
    (folder / "full/thesis.tex").write_text("")
    return folder


@pytest.fixture
def at_course(course, monkeypatch):
    """The course in the place of the real one; no data set but the bundled ones, and nobody answers."""
    monkeypatch.setattr(labs, "NOTEBOOKS", course / "notebooks")
    monkeypatch.setattr("labutils.data.source.PROJECT_ROOT", course)
    monkeypatch.setattr("labutils.data.source.any_answers", lambda urls: False)
    monkeypatch.delenv("LABS_DATA_DIR", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(course)
    return course


def refused(capsys, arguments):
    """Run the command line; return its exit code and its last line of error, the only one but for argparse's usage."""
    try:
        code = cli.main(arguments)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith(("usage: ", "  "))]
    assert "Traceback" not in out + err and len(lines) == 1, err
    return code, lines[0]


USAGE = [
    ([], ["labs: error", "required"]),
    (["dance"], ["'dance'", "run", "doctor"]),
    (["--wrong"], ["labs: error"]),
    (["run", "03_vea"], ["'03_vea'", "01_good"]),
    (["run", ""], ["''", "01_good"]),
    (["run", "../01_good"], ["'../01_good'", "01_good"]),
    (["run", "01_good.ipynb"], ["'01_good.ipynb'", "01_good"]),
    (["run", "01_good", "--wrong"], ["--wrong"]),
    (["run", "01_good", "-p", "epoch", "3"], ["01_good", "'epoch'", "epochs"]),
    (["run", "01_good", "-p", "", "3"], ["01_good", "''", "epochs"]),
    (["run", "01_good", "-p", "epochs"], ["-p", "2 arguments"]),
    (["run", "01_good", "-p", "epochs", "ten"], ["epochs ten", "int"]),
    (["run", "01_good", "-p", "epochs", "2.5"], ["epochs 2.5", "int"]),
    (["run", "01_good", "-p", "epochs", ""], ["epochs", "int"]),
    (["run", "01_good", "-p", "epochs", "1e3"], ["epochs 1e3", "int"]),
    (["run", "01_good", "-p", "rate", "fast"], ["rate fast", "float"]),
    (["run", "01_good", "-p", "rate", "0.1 0.2"], ["rate 0.1 0.2", "float"]),
    (["run", "01_good", "-p", "pretrained", "maybe"], ["pretrained maybe", "bool"]),
    (["run", "01_good", "-p", "pretrained", "1"], ["pretrained 1", "bool"]),
    (["run", "01_good", "-p", "out_dir", "x"], ["out_dir", "--out"]),
    (["run", "01_good", "--device", "gpu"], ["'gpu'", "cpu"]),
    (["run", "01_good", "--device", ""], ["device=''", "cpu"]),
    (["run", "01_good", "--device", "cuda"], ["'cuda'", "cpu"]),
    (["run", "01_good", "--device", "cuda:x"], ["'cuda:x'", "cpu"]),
    (["run", "--jobs", "0"], ["--jobs", "'0'", "at least 1"]),
    (["run", "--jobs", "two"], ["--jobs", "'two'", "at least 1"]),
    (["run", "--jobs", "1.5"], ["--jobs", "'1.5'", "at least 1"]),
    (["run", "--jobs", "²"], ["--jobs", "'²'", "at least 1"]),
    (["run", "--timeout", "-1"], ["--timeout", "'-1'", "at least 1"]),
    (["run", "--timeout", ""], ["--timeout", "''", "at least 1"]),
    (["run", "--quick", "01_good"], ["quick.yml", "git checkout"]),
    (["list", "nothing"], ["'nothing'", "01_good"]),
    (["list", "01_good", "02_unclosed"], ["02_unclosed"]),
    (["list"], ["is not a notebook", "git checkout"]),
    (["list", "03_text"], ["03_text.ipynb is not a notebook", "git checkout"]),
    (["list", "04_list"], ["04_list.ipynb is not a notebook", "git checkout"]),
    (["list", "05_empty"], ["05_empty.ipynb is not a notebook", "git checkout"]),
    (["list", "06_object"], ["06_object.ipynb is not a notebook", "git checkout"]),
    (["refresh", "nothing"], ["'nothing'", "01_good"]),
    (["refresh", "01_good", "-p", "epochs", "1"], ["-p"]),
    (["release"], ["DIR"]),
    (["release", "full"], ["full", "name a new one"]),
    (["release", "a_file"], ["a_file", "name a new one"]),
    (["release", "a_file/below", "01_good"], ["a_file/below", "cannot be made", "name another one"]),
    (["release", "new", "nothing"], ["'nothing'", "01_good"]),
    (["release", "new", "02_unclosed"], ["02_unclosed", "### BEGIN SOLUTION", "END"]),
    (["release", "new", "03_text"], ["03_text.ipynb is not a notebook", "git checkout"]),
    (["release", "new", "06_object"], ["06_object.ipynb is not a notebook", "git checkout"]),
    (["data", "mnits"], ["'mnits'", "mnist"]),
    (["data", "mnist", ""], ["''", "mnist"]),
    (["data", "folder:"], ["folder:", "folder:PATH"]),
    (["data", "--to", "full"], ["--to", "full", "mnist"]),
    (["data", "mnist", "--to", "a_file"], ["a_file", "not a folder"]),
    (["data", "--all"], ["--all"]),
    (["doctor", "me"], ["me"]),
    (["run", "-f", "nothing.yml"], ["-f nothing.yml", "cannot be read as YAML"]),
    (["run", "01_good", "-p", "epochs", "1,,2"], ["epochs 1,,2", "nothing beside a comma"]),
    (["run", "01_good", "--check", "-p", "rate", "0.5"], ["--check", "01_good sets rate"]),
    (["run", "01_good", "--scheduler", "127.0.0.1:1", "--jobs", "2"], ["--jobs", "--scheduler"]),
    (["report"], ["DIR"]),
    (["report", "nothing"], ["nothing is not a folder", "runs/quick"]),
    (["report", "notebooks"], ["there are no runs in", "runs/quick"]),
    (["bands", "nothing"], ["profile"]),
    (["bands", "nothing", "slow"], ["'slow'", "quick"]),
    (["bands", "nothing", "quick"], ["no runs that went well in", "nothing", "labs run --quick"]),
    *[([*arguments, path], [repr(path), reason, "name another folder"])
      for arguments in (["run", "--out"], ["report"], ["bands"], ["release"], ["data", "mnist", "--to"])
      for path, reason in (("~nobody_here/x", "home directory"), ("loop/x", "loop"), ("x" * 300, "File name too long"))],
]


@pytest.mark.parametrize("arguments, parts", USAGE, ids=lambda value: " ".join(value)[:80] if value else "nothing")
def test_a_bad_command_is_one_line_and_2(at_course, capsys, arguments, parts):
    before = sorted(at_course.rglob("*"))
    code, line = refused(capsys, arguments)
    assert code == 2 and all(part in line for part in parts), line
    assert sorted(at_course.rglob("*")) == before, "nothing is left behind"


@pytest.mark.parametrize("arguments, parts", [
    (["data", "mnist"], ["'mnist'", "no server answers", 'dataset="digits"']),
    (["data", "celeba"], ["'celeba'", "no server answers", 'dataset="faces"']),
    (["data", "folder:nothing"], ["nothing does not exist", 'dataset="faces"']),
    (["data", "folder:~nobody-of-this-name"], ["~nobody-of-this-name does not exist"]),
    (["data", "mnist", "--to", "a_file/below"], ["cannot create the folder", "a_file/below", "another one"]),
])
def test_what_cannot_be_had_is_one_line_and_1(at_course, capsys, arguments, parts):
    code, line = refused(capsys, arguments)
    assert code == 1 and all(part in line for part in parts), line


def test_a_lab_that_is_no_notebook_fails_by_its_name_and_the_others_run(at_course, capsys):
    code, line = refused(capsys, ["run", "03_text", "--out", "new"])
    assert code == 1 and "03_text: failed" in line and "03_text.ipynb is not a notebook; restore it with git checkout" in line


def test_so_it_does_before_a_cluster_is_asked(at_course, capsys, tmp_path):
    pytest.importorskip("distributed")
    code, line = refused(capsys, ["run", "03_text", "--scheduler", "127.0.0.1:1", "--out", str(tmp_path / "out")])
    assert code == 1 and "03_text: failed" in line and "03_text.ipynb is not a notebook" in line
    assert json.loads((tmp_path / "out/03_text/run.json").read_text())["status"] == "failed"


@pytest.mark.parametrize("name", ["03_text", "04_list", "06_object"])
def test_what_is_no_notebook_is_not_refreshed(at_course, capsys, name):
    code, line = refused(capsys, ["refresh", "01_good", name])
    assert code == 2 and f"{name}.ipynb is not a notebook" in line


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@quick
@given(text=words, command=st.sampled_from([["run"], ["list"], ["refresh"], ["data"], ["release", "new"], ["dance"],
                                            ["run", "01_good", "--device"], ["run", "01_good", "--jobs"]]))
def test_any_text_as_an_argument_is_refused(at_course, capsys, text, command):
    assume(not re.match("-{1,2}h|--$|auto|cpu", text) and not (text.isdecimal() and int(text)))
    code, line = refused(capsys, [*command, text])
    assert code == 2


@quick
@given(text=words, type_name=st.sampled_from(["int", "float", "bool", "str"]))
def test_any_text_as_a_value_has_the_parameters_type_or_is_refused(text, type_name):
    try:
        value = labs.parse_value("name", text, type_name, "-p")
    except labs.UsageError as error:
        assert repr(text)[1:-1] in repr(str(error)) and type_name in str(error)
    else:
        assert value is None or type(value).__name__ == type_name
