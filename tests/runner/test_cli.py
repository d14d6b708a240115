"""The command line: a mistake is one line that names the value and the way out; nothing is left half-written."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import BIN, quick, read_json, write_lab
from hypothesis import assume, given
from hypothesis import strategies as st

from labutils.data import SOURCES
from labutils.instructor import cli, labs
from labutils.paths import PROJECT_ROOT


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course of one good lab and some files that are not labs: the folder above its notebooks."""
    folder = tmp_path_factory.mktemp("course")
    notebooks = folder / "notebooks"
    for name in ("notebooks/quick", "full"):
        (folder / name).mkdir(parents=True)
    write_lab(notebooks, "01_good")
    write_lab(notebooks, "02_unclosed", ["### BEGIN SOLUTION\n1"])
    for name, text in {"notebooks/03_text.ipynb": "<<<<<<< HEAD", "notebooks/04_list.ipynb": "[]",
                       "notebooks/05_empty.ipynb": "", "notebooks/06_object.ipynb": '{"cells": 5}',
                       "notebooks/quick/01_good.yml": "epochs: [1\n", "notebooks/quick/02_unclosed.yml": "passes: 1",
                       "a_file": "", "full/thesis.tex": ""}.items():
        (folder / name).write_text(text)
    (folder / "loop").symlink_to("loop")
    return folder


@pytest.fixture
def at_course(course, monkeypatch, no_data, offline):
    """The fake course as the working folder; no data set but the bundled ones, no server, no GPU."""
    monkeypatch.setattr(labs, "NOTEBOOKS", course / "notebooks")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(course)
    return course


def refused(capsys, arguments):
    """Run the command line; return its exit code and its only line of error."""
    code = cli.main(arguments)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err and len(err.splitlines()) == 1, err
    return code, err


RUN = ("run", "01_good")
USAGE = [
    (["dance"], ["'dance'", "run", "doctor"]),
    (["--wrong"], ["labs: No such option '--wrong'"]),
    (["run", "03_vea"], ["labs run: ", "'03_vea'", "01_good"]),
    (["run", ""], ["''", "01_good"]),
    (["run", "../01_good"], ["'../01_good'", "01_good"]),
    (["run", "0"], ["'0' is the start of 01_good, 02_unclosed,", "say which"]),
    *[(["run", name], [repr(name), "there is no lab", "01_good"]) for name in ("good", "1_good", "7", "010", "*")],
    (["run", "01_good.ipynb"], ["'01_good.ipynb'", "01_good"]),
    ([*RUN, "--wrong"], ["--wrong"]),
    ([*RUN, "-p", "epoch", "3"], ["01_good", "'epoch'", "epochs"]),
    ([*RUN, "-p", "", "3"], ["01_good", "''", "epochs"]),
    ([*RUN, "-p", "epochs"], ["-p", "2 arguments"]),
    *[([*RUN, "-p", "epochs", value], [f"epochs {value}", "int"]) for value in ("ten", "2.5", "", "nan")],
    *[([*RUN, "-p", "rate", value], [f"rate {value}", "float"]) for value in ("fast", "0.1 0.2")],
    *[([*RUN, "-p", "pretrained", value], [f"pretrained {value}", "bool"]) for value in ("maybe", "1")],
    ([*RUN, "-p", "epochs", "-1,-x"], ["epochs -x", "int"]),
    ([*RUN, "-p", "epochs", "1,,2"], ["epochs 1,,2", "comma"]),
    ([*RUN, "-p", "dataset", "a,"], ["dataset a,", "comma"]),
    ([*RUN, "-p", "seed", "0", "-p", "seed", "1"], ["-p seed 1: 'seed' is named twice"]),
    ([*RUN, "-p", "out_dir", "a,b"], ["out_dir", "--out"]),
    *[([*RUN, "--device", device], [repr(device), "cpu"]) for device in ("gpu", "", "cuda", "cuda:x")],
    *[(["run", name, value], [name, value, "range"])
      for name in ("--jobs", "--timeout") for value in ("0", "two", "1.5", "²", "")],
    ([*RUN, "--quick"], ["quick/01_good.yml", "git checkout"]),
    (["run", "--quick", "02_unclosed"], ["quick/02_unclosed.yml", "'passes'", "epochs"]),
    ([*RUN, "--check"], ["expected/01_good.yml", "git checkout"]),
    ([*RUN, "--check", "-p", "rate", "0.5"], ["--check", "01_good sets rate"]),
    ([*RUN, "--scheduler", "127.0.0.1:1", "--jobs", "2"], ["--jobs", "--scheduler"]),
    (["run", "-f", "nothing.yml"], ["-f nothing.yml: there is no such file", "name a YAML file"]),
    (["run", "-f", "notebooks"], ["-f notebooks: Is a directory", "name a YAML file"]),
    (["run", "-f", "notebooks/quick/01_good.yml"], ["-f notebooks/quick/01_good.yml", "cannot be read as YAML"]),
    ([*RUN, "--out", "/dev/null/x"], ["/dev/null/x"]),
    (["list", "nothing"], ["'nothing'", "01_good"]),
    (["list", "01_good", "02_unclosed"], ["02_unclosed"]),
    (["list"], ["is not a notebook", "git checkout"]),
    *[([*verb, lab], [f"{lab}.ipynb is not a notebook", "git checkout"])
      for verb in (["list"], ["refresh", "01_good"], ["release", "new"])
      for lab in ("03_text", "04_list", "05_empty", "06_object")],
    (["refresh", "nothing"], ["'nothing'", "01_good"]),
    (["refresh", "01_good", "-p", "epochs", "1"], ["-p"]),
    (["release", "full"], ["full is not an empty folder", "name a new one"]),
    (["release", "a_file"], ["a_file", "name a new one"]),
    (["release", "a_file/below", "01_good"], ["a_file/below", "cannot be made", "name another one"]),
    (["release", "/proc/x", "01_good"], ["the folder /proc/x cannot be made"]),
    (["release", "new", "nothing"], ["'nothing'", "01_good"]),
    (["release", "new", "02_unclosed"], ["02_unclosed", "### BEGIN SOLUTION", "END"]),
    (["data", "mnits"], ["'mnits'", "mnist"]),
    (["data", "mnist", ""], ["''", "mnist"]),
    (["data", "folder:"], ["folder:", "folder:PATH"]),
    (["data", "--to", "full"], ["--to", "full", "mnist"]),
    (["data", "mnist", "--to", "a_file"], ["a_file", "not a folder"]),
    (["data", "--all"], ["--all"]),
    (["doctor", "me"], ["me"]),
    (["report", "nothing"], ["nothing is not a folder", "runs/quick"]),
    (["report", "notebooks"], ["there are no runs in", "runs/quick"]),
    (["bands", "nothing"], ["quick, full"]),
    (["bands", "nothing", "slow"], ["'slow'", "quick"]),
    (["bands", "nothing", "quick"], ["no runs that went well in", "nothing", "labs run --quick"]),
    *[([*arguments, path], [repr(path), reason, "name another folder"])
      for arguments in (["run", "--out"], ["report"], ["bands"], ["release"], ["data", "mnist", "--to"])
      for path, reason in (("~nobody_here/x", "home directory"), ("loop/x", "loop"), ("x" * 300, "name too long"))],
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
def test_a_data_set_that_cannot_be_had_is_one_line_and_1(at_course, capsys, arguments, parts):
    code, line = refused(capsys, arguments)
    assert code == 1 and all(part in line for part in parts), line


@pytest.mark.parametrize("scheduler", [[], ["--scheduler", "127.0.0.1:1"]])
def test_a_lab_that_is_not_a_notebook_fails_by_its_name(at_course, tmp_path, capsys, scheduler):
    """Even before a cluster is asked."""
    if scheduler:
        pytest.importorskip("distributed")
    code, line = refused(capsys, ["run", "03_text", "--out", str(tmp_path / "out"), *scheduler])
    assert code == 1 and "03_text: failed" in line and "03_text.ipynb is not a notebook; restore it" in line
    assert read_json(tmp_path / "out/03_text/run.json")["status"] == "failed"


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@quick
@given(text=words, command=st.sampled_from([["run"], ["list"], ["refresh"], ["data"], ["release", "new"], ["dance"],
                                            ["run", "01_good", "--device"], ["run", "01_good", "--jobs"]]))
def test_any_text_as_an_argument_is_refused(at_course, capsys, text, command):
    assume(not re.match("--help|--$|auto|cpu", text) and not (text.isdecimal() and int(text)))
    # hypothesis takes words out of the sources
    assume(text not in SOURCES and text != "classifier" and not re.match("0[1-6]", text))
    code, line = refused(capsys, [*command, text])
    assert code == 2


@quick
@given(text=words, type_name=st.sampled_from(["int", "float", "bool", "str", "Optional[int]", "Optional[str]"]))
def test_any_text_as_a_value_has_the_parameters_type_or_is_refused(text, type_name):
    try:
        value = labs.parse_value("name", text, type_name, "-p")
    except labs.UsageError as error:
        assert repr(text)[1:-1] in repr(str(error)) and type_name in str(error)
    else:
        assert type(value).__name__ in type_name or value is None and "Optional" in type_name


def test_list_names_labs_and_parameters(at_course, monkeypatch, tmp_path, capsys):
    assert cli.main(["list", "01_good"]) == 0
    assert re.search("^epochs = 2 +passes$", capsys.readouterr().out, flags=re.M)
    monkeypatch.setattr(labs, "NOTEBOOKS", tmp_path)
    for name in ("01_good", "02_other"):
        write_lab(tmp_path, name)
    assert cli.main(["list"]) == 0
    assert capsys.readouterr().out == "01_good         Lab 01_good\n02_other        Lab 02_other\n"


@pytest.mark.parametrize("name", ["1", "01", "01_", "01_g", "01_good"])
def test_a_lab_may_be_called_by_its_number_or_the_start_of_its_name(at_course, monkeypatch, tmp_path, capsys, name):
    asked = []
    monkeypatch.setattr(cli, "execute_jobs", lambda jobs, *_: asked.extend(job.name for job in jobs) or 0)
    assert cli.main(["run", name, "01_good", "--out", str(tmp_path / "out")]) == 0 and asked == ["01_good"]
    (tmp_path / "runs.yml").write_text(f"- {{lab: {name}, epochs: 3}}\n- {{lab: ['{name}'], epochs: 4}}")
    assert cli.main(["run", "-f", str(tmp_path / "runs.yml"), "--out", str(tmp_path / "out")]) == 0
    assert asked[1:] == ["01_good,epochs=3", "01_good,epochs=4"]
    assert cli.main(["list", name]) == 0 and "epochs = 2" in capsys.readouterr().out
    assert cli.main(["release", str(tmp_path / "new"), name]) == 0
    assert [path.name for path in (tmp_path / "new/student/notebooks").glob("*.ipynb")] == ["01_good.ipynb"]


def test_the_name_of_a_lab_is_itself_although_another_one_begins_with_it(monkeypatch, tmp_path):
    for name in ("02_vae", "02_vae_more", "03_x"):
        write_lab(tmp_path, name)
    monkeypatch.setattr(labs, "NOTEBOOKS", tmp_path)
    assert labs.full_name("02_vae") == "02_vae" and labs.full_name("02_vae_") == "02_vae_more"
    for name, fault in {"02": "'02' is the start of 02_vae, 02_vae_more; say which", "": "there is no lab ''"}.items():
        with pytest.raises(labs.UsageError, match=fault):
            labs.full_name(name)


@pytest.mark.parametrize("arguments", [["list"], ["list", "01"], ["run"], ["run", "--quick"], ["run", "01_good"],
                                       ["refresh"], ["release", "new"], ["release", "--nbgrader", "new"], ["student"]])
def test_without_labs_a_command_says_so(monkeypatch, tmp_path, capsys, arguments):
    """As where labutils was installed without the folder of its course."""
    monkeypatch.setattr(labs, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.chdir(tmp_path)
    code, line = refused(capsys, arguments)
    assert code == 2 and f"there are no labs in {tmp_path / 'notebooks'}" in line and "pip install" in line
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------ copies of a course

@pytest.fixture
def copied(tmp_path):
    """A copy of the course with its environment, as far as it can be told by its files."""
    for name in ("pyproject.toml", "labutils/__init__.py", ".venv/bin/labs", "notebooks/01_good.ipynb"):
        (tmp_path / "copied" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copied" / name).touch()
    return tmp_path / "copied"


def refused_as_a_copy(capsys, folder, *arguments):
    code, line = refused(capsys, arguments)
    return code == 2 and all(part in line for part in (str(folder), str(PROJECT_ROOT), ".venv", "make"))


@pytest.mark.parametrize("below", [".", "notebooks", "labutils"])
def test_in_a_copy_of_the_course_the_command_refuses_to_work_on_the_original(copied, monkeypatch, capsys, below):
    monkeypatch.chdir(copied / below)
    for arguments in (["list"], ["run"], ["release", "new"], ["student"], ["doctor"]):
        assert refused_as_a_copy(capsys, copied, *arguments), arguments
    assert not (copied / below / "new").exists() and not (copied / "student").exists()


@pytest.mark.parametrize("found", ["prefix", "program"])
def test_the_environment_of_a_copy_is_refused_from_anywhere(copied, tmp_path, monkeypatch, capsys, found):
    monkeypatch.chdir(tmp_path)
    of_copy, of_original = str(copied / ".venv"), str(PROJECT_ROOT / ".venv")
    # .venv/bin/python -m labutils.instructor.cli, or .venv/bin/labs, whose first line still names the original's Python
    monkeypatch.setattr(sys, "prefix", of_copy if found == "prefix" else of_original)
    monkeypatch.setattr(sys, "argv", [f"{of_copy if found == 'program' else of_original}/bin/labs"])
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if Path(folder).resolve() != PROJECT_ROOT])
    assert refused_as_a_copy(capsys, copied, "list")
    monkeypatch.setattr(sys, "path", [*sys.path, str(PROJECT_ROOT)])        # by a .pth file of the environment
    assert refused_as_a_copy(capsys, copied, "list")
    monkeypatch.setattr(sys, "path", [str(PROJECT_ROOT), *sys.path])        # by PYTHONPATH, which somebody has set
    assert cli.main(["list"]) == 0


def test_elsewhere_and_in_the_course_itself_the_command_works(tmp_path, monkeypatch):
    """And in a folder of another project."""
    (tmp_path / "link").symlink_to(PROJECT_ROOT)
    (tmp_path / "project/labutils").mkdir(parents=True)     # no course: it has no pyproject.toml
    (tmp_path / "project/labutils/__init__.py").touch()
    for folder in (tmp_path, tmp_path / "project", tmp_path / "link", tmp_path / "link/notebooks", PROJECT_ROOT):
        monkeypatch.chdir(folder)
        assert cli.main(["list"]) == 0


def test_a_second_checkout_whose_own_modules_are_used_is_no_copy(copied, monkeypatch):
    monkeypatch.setattr(labs, "PROJECT_ROOT", copied)
    monkeypatch.chdir(copied)
    assert cli.main(["list"]) == 0


def test_a_letter_that_a_pipe_lacks_ends_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(labs, "NOTEBOOKS", tmp_path)
    write_lab(tmp_path, "01_Fréchet")
    program = ("import sys; from pathlib import Path; from labutils.instructor import cli, labs\n"
               "labs.NOTEBOOKS = Path(sys.argv[1]); sys.exit(cli.main(['list']))")
    done = subprocess.run([BIN / "python", "-c", program, tmp_path], capture_output=True, text=True,
                          env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, "01_Fr?chet      Lab 01_Fr?chet\n"), done.stderr


@pytest.mark.parametrize("arguments, part", [
    ([], "labs run --quick   "), (["release"], "labs release spring-course"), (["report"], "runs/quick"),
    (["bands"], "five seeds")])
def test_labs_alone_and_a_verb_that_needs_more_say_what_to_do(capsys, arguments, part):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(" ".join(["Usage: labs", *arguments])) and part in " ".join(err.split("\n"))


@pytest.mark.parametrize("arguments", [[], ["run"], ["bands"]])
def test_help_is_no_error(capsys, arguments):
    assert cli.main([*arguments, "--help"]) == 0
    assert capsys.readouterr().out.startswith(" ".join(["Usage: labs", *arguments]))


def test_an_interruption_while_a_verb_works_is_130(at_course, monkeypatch, capsys):
    monkeypatch.setattr(labs, "lab_parameters", lambda name: signal.raise_signal(signal.SIGINT))
    assert cli.main(["list", "01_good"]) == 130
    assert capsys.readouterr().err == "interrupted; what was done is kept\n"
