"""The Makefile: what installs, what refuses to, and a course folder that was copied or renamed with its .venv."""

import os
import platform
import re
import shutil
import subprocess
import sys

import pytest

from labutils.instructor.release import NO_TARGETS, makefile
from labutils.paths import PROJECT_ROOT

# a program that notes how it was called; for what makes a virtual environment, it leaves two programs of its kind there
FAKE = """#!/bin/sh
echo "$(basename "$0") $*" >> calls
case "$*" in *venv*) mkdir -p .venv/bin && cp "$0" .venv/bin/python && cp "$0" .venv/bin/pip;; esac
"""


@pytest.fixture
def course(tmp_path):
    """A folder with the Makefile, whose path has a space."""
    folder = tmp_path / "my course"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(PROJECT_ROOT / name, folder)
    return folder


def make(folder, *arguments, **environment):
    """Run make as a person would: not as a part of the make that runs these tests."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run([shutil.which("make"), "--no-print-directory", *arguments], cwd=folder,
                          env={**own, **environment}, capture_output=True, text=True)


def programs(folder, *names):
    """Return a PATH with a shell's own programs and the fakes `names`."""
    folder.mkdir()
    for name in ("sh", "basename", "mkdir", "cp", "rm", "cat", "test"):
        (folder / name).symlink_to(shutil.which(name))
    for name in names:
        (folder / name).write_text(FAKE)
        (folder / name).chmod(0o755)
    return str(folder)


@pytest.mark.parametrize("has_uv, arguments, calls", [
    (True, [], ["uv venv --quiet --seed --python >=3.11,<3.14 .venv", "python -c",
                "uv pip install --python .venv/bin/python --quiet -c constraints.txt -e ."]),
    (True, ["UV="], ["python3 -m venv .venv", "python -c",
                     "python -m pip install --disable-pip-version-check --quiet -c constraints.txt -e ."]),
    (False, ["PYTHON=python3.12"], ["python3.12 -m venv .venv", "python -c",
                                    "python -m pip install --disable-pip-version-check --quiet -c constraints.txt "
                                    "-e ."])])
def test_uv_installs_where_there_is_one_and_pip_elsewhere(course, tmp_path, has_uv, arguments, calls):
    path = programs(tmp_path / "bin", "python3", "python3.12", *["uv"] * has_uv)
    done = make(course, ".venv/installed", *arguments, PATH=path)
    assert done.returncode == 0, done.stderr
    found = (course / "calls").read_text().splitlines()
    assert [call.split(" -c import")[0] + " -c" * (" -c import" in call) for call in found] == calls
    assert (course / ".venv/installed").read_text() == f"{course}\n"


def test_a_second_make_installs_nothing(course, tmp_path):
    path = programs(tmp_path / "bin", "python3")
    for _ in range(2):
        assert make(course, ".venv/installed", PATH=path).returncode == 0
    assert (course / "calls").read_text().count("pip install") == 1
    (course / ".venv/installed").unlink()       # interrupted: the environment that is there is kept
    assert make(course, ".venv/installed", PATH=path).returncode == 0
    assert (course / "calls").read_text().count("venv .venv") == 1


@pytest.mark.parametrize("rename", [False, True])
@pytest.mark.parametrize("version", ["own", "student"])
def test_a_course_that_was_copied_or_renamed_with_its_environment_is_noticed_before_anything_is_done(
        course, tmp_path, version, rename):
    if version == "student":
        (course / "Makefile").write_text(makefile(NO_TARGETS["student"]))
    path = programs(tmp_path / "bin", "python3")
    assert make(course, ".venv/installed", PATH=path).returncode == 0
    (course / "calls").unlink()
    other = tmp_path / "copy of it"
    (shutil.move if rename else shutil.copytree)(course, other)
    for target in ([], ["lab"], [".venv/installed"], ["-n", "lab"]):
        done = make(other, *target, PATH=path)
        [line] = done.stderr.splitlines()
        assert done.returncode == 2 and f".venv was made for {course}, and works only there" in line
        assert "rm -r .venv" in line and not (other / "calls").exists() and not done.stdout
    assert make(other, "clean", PATH=path).returncode == 0 and not (other / ".venv").exists()
    assert make(other, ".venv/installed", PATH=path).returncode == 0


@pytest.mark.parametrize("version, system, machine, said", [
    ((3, 10, 4), "linux", "x86_64", "Python 3.11 or later is needed"),
    ((3, 12, 1), "darwin", "x86_64", "no builds for Intel Macs"),
    ((3, 12, 1), "darwin", "arm64", False), ((3, 11, 0), "linux", "x86_64", False),
    ((3, 13, 0), "win32", "AMD64", False)])
def test_a_python_that_cannot_do_is_named(version, system, machine, said, monkeypatch):
    steps = make(PROJECT_ROOT, "-n", "-W", "pyproject.toml", ".venv/installed").stdout
    [code] = re.findall(r"python -c '(.*?)'", steps)
    monkeypatch.setattr(sys, "version_info", version)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(SystemExit) as stop:
        exec(code)
    assert said in stop.value.code if said else stop.value.code is False
