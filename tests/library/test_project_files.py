"""Files that other programs read: the workflows, the container, the citation, the forms for issues, the licences."""

import datetime
import json
import os
import re
import shlex
import tomllib

import pytest
import yaml
from helpers import LABS
from packaging.specifiers import SpecifierSet

from labutils.instructor.cli import command_line
from labutils.instructor.release import PARTS
from labutils.paths import PROJECT_ROOT

WORKFLOWS = sorted((PROJECT_ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted(path for path in (PROJECT_ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
# programs that every system of the workflows has; a file of the project and a verb of labs are looked up
PROGRAMS = {"python", "pip", "make", "sh", "test", "mkdir", "touch", "apt-get", "rm", "useradd", "install", "exec"}


def read(path):
    return (PROJECT_ROOT / path).read_text(encoding="utf-8")


def project():
    return tomllib.loads(read("pyproject.toml"))["project"]


def check_command(line):
    """Check that the program of a line, and the file, target, extra or verb that it names, exist."""
    program, *rest = shlex.split(line)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", read("Makefile"), re.M)
        assert {word for word in rest if not word.startswith("-") and "=" not in word} <= set(targets), line
    elif program == "labs":
        command_line.commands[rest[0]].make_context(rest[0], rest[1:])
    elif program == "jupyter":
        assert rest[0] == "lab"
    else:
        assert program in PROGRAMS or os.access(PROJECT_ROOT / program, os.X_OK), line
    for extra in re.findall(r"\.\[(\w+)\]", line):
        assert extra in project()["optional-dependencies"], line
    for file in re.findall(r"-c (\S+\.txt)", line):
        assert (PROJECT_ROOT / file).is_file(), line


# -------------------------------------------------------------------------------------- workflows

@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_whole_and_what_it_calls_exists(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["name"] and workflow[True], "YAML reads the word on as true"
    for job in workflow["jobs"].values():
        assert job["runs-on"] and 0 < job["timeout-minutes"] <= 90
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w/-]+@v\d+", step["uses"])
            for line in step.get("run", "").splitlines():
                check_command(line)
        used = re.findall(r"\$\{\{ matrix\.(\w+) \}\}", json.dumps(job))
        assert set(used) == set(job.get("strategy", {}).get("matrix", {}))


def test_the_workflow_tests_each_python_that_the_readme_promises_and_three_systems():
    jobs = yaml.safe_load(read(".github/workflows/test.yml"))["jobs"]
    least, most = re.search(r"Python (3\.\d+) to (3\.\d+)", read("README.md")).groups()
    pythons = jobs["test"]["strategy"]["matrix"]["python"]
    assert [pythons[0], pythons[-1]] == [least, most]
    assert all(python in SpecifierSet(project()["requires-python"]) for python in pythons)
    assert [f">={least},<3.{int(most[2:]) + 1}"] == re.findall(r"^RANGE = (.*)$", read("Makefile"), re.M)
    assert jobs["units"]["strategy"]["matrix"]["system"] == ["macos-latest", "windows-latest"]


# -------------------------------------------------------------------------------------- container

def instructions():
    """Return [(instruction, its arguments)] of the Dockerfile."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", read("Dockerfile"), flags=re.M))
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line]


def test_the_container_copies_what_exists_and_calls_what_exists():
    found = instructions()
    for instruction, rest in found:
        if instruction == "COPY":
            owner, *sources, target = rest.split()
            assert owner == "--chown=student" and all((PROJECT_ROOT / source).exists() for source in sources)
        elif instruction == "RUN":
            for line in rest.split("&&"):
                check_command(line)
        elif instruction == "CMD":
            shell, option, line = json.loads(rest)
            assert (shell, option) == ("sh", "-c")
            for part in line.split("&&"):
                check_command(part.removeprefix(" exec "))
    first_copy, whole_copy = [index for index, (instruction, _) in enumerate(found) if instruction == "COPY"]
    assert found[whole_copy][1].endswith(" . .")
    files = set(found[first_copy][1].split())
    assert {"pyproject.toml", "constraints.txt", *project()["license-files"]} <= files, "what pip needs"


def test_the_container_runs_as_a_student_and_names_no_index():
    names = [name for name, _ in instructions()]
    assert ("USER", "student") in instructions() and names[-1] == "CMD"
    assert "USER" not in names[names.index("USER") + 1:]
    assert ("ARG", "PIP_EXTRA_INDEX_URL") in instructions()
    assert "://" not in read("Dockerfile") + read(".devcontainer/devcontainer.json")
    ignored = [line for line in read(".dockerignore").splitlines() if not line.startswith("#")]
    parts = {part.split("/")[0] for part in PARTS} | {"notebooks", "docs", "img", "README.md", "Makefile"}
    assert not parts & set(ignored) and {".git", ".venv", "data", "runs", "student"} <= set(ignored)


def test_the_development_container_is_the_container_with_the_checkout_in_the_place_of_its_copy():
    about = json.loads(read(".devcontainer/devcontainer.json"))
    folder = PROJECT_ROOT / ".devcontainer"
    assert (folder / about["build"]["dockerfile"]).resolve() == PROJECT_ROOT / "Dockerfile"
    assert (folder / about["build"]["context"]).resolve() == PROJECT_ROOT
    assert ("USER", about["remoteUser"]) in instructions()
    for line in about["postCreateCommand"].split(" && "):
        check_command(line)
    [environment] = [rest for name, rest in instructions() if name == "ENV"]
    interpreter = about["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert environment.startswith(f"PATH={os.path.dirname(interpreter)}:")


# --------------------------------------------------------------------- version, licences and forms

def test_the_version_is_the_same_wherever_it_stands():
    version, date = re.search(r"^## \[(.*?)\] - (.*)$", read("CHANGELOG.md"), re.M).groups()
    citation = yaml.safe_load(read("CITATION.cff"))
    assert project()["version"] == version == citation["version"]
    assert citation["date-released"] == datetime.date.fromisoformat(date)
    assert set(citation) >= {"cff-version", "message", "title", "authors"}
    assert citation["authors"] == project()["authors"]
    assert f"(c) {date[:4]} {project()['authors'][0]['name']}" in read("LICENSE")


def test_the_changelog_has_its_form():
    headings = re.findall(r"^(##+) (.*)$", read("CHANGELOG.md"), re.M)
    assert headings[0][0] == "##"
    for level, text in headings:
        assert level in ("##", "###")
        assert re.fullmatch(r"\[(Unreleased|\d+\.\d+\.\d+)\]( - \d{4}-\d\d-\d\d)?", text) if level == "##" else text


def test_both_licences_are_there_handed_out_and_named():
    assert project()["license"] == "MIT AND CC-BY-4.0"
    assert set(project()["license-files"]) <= set(PARTS)
    assert "https://creativecommons.org/licenses/by/4.0/legalcode" in read("LICENSE-text")
    section = read("README.md").split("## Licence")[1]
    assert all(f"]({name})" in section for name in project()["license-files"]) and "CC BY 4.0" in section


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_for_issues_asks_for_what_it_needs(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(form) == {"name", "description", "title", "labels", "body"}
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids)) and form["body"][0]["validations"]["required"]
    for field in form["body"]:
        assert field["type"] in ("textarea", "dropdown") and field["attributes"]["label"]
        if field["type"] == "dropdown":
            assert field["attributes"]["options"][:len(LABS)] == LABS
    for verb in re.findall(r"`\S*labs (\w+)`", str(form)):
        assert verb in command_line.commands
