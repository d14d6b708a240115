"""The lists of requirements agree, and what the documents say of commands, links and metrics is true."""

import re
import shlex
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, distributions, requires, version

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from labutils.instructor.cli import command_line
from labutils.instructor.labs import lab_names
from labutils.instructor.sweep import plan
from labutils.paths import PROJECT_ROOT

DOCUMENTS = sorted(str(path.relative_to(PROJECT_ROOT)) for folder in (PROJECT_ROOT, PROJECT_ROOT / "docs")
                   for path in folder.glob("*.md"))


def read(path):
    return (PROJECT_ROOT / path).read_text()


SYSTEMS = [{"sys_platform": sys_platform, "platform_system": system, "os_name": os_name, "platform_machine": machine,
            "python_version": python, "python_full_version": f"{python}.0"}
           for sys_platform, system, os_name, machine in (
               ("linux", "Linux", "posix", "x86_64"), ("linux", "Linux", "posix", "aarch64"),
               ("darwin", "Darwin", "posix", "arm64"), ("win32", "Windows", "nt", "AMD64"))
           for python in ("3.11", "3.12", "3.13")]


def constraints():
    return [Requirement(line) for line in read("constraints.txt").splitlines() if not line.startswith("#")]


def pins(system=None):
    """Return {package: version} of the constraints that count on a system; none: this one."""
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in constraints()
            if not pin.marker or pin.marker.evaluate(system)}


def project():
    return tomllib.loads(read("pyproject.toml"))["project"]


def requirements():
    extras = project()["optional-dependencies"].values()
    return [Requirement(text) for text in [*project()["dependencies"], *sum(extras, [])]]


def needed(first, system=None):
    """Yield the requirements `first` and those of their packages, as far as these are installed here."""
    todo, seen = list(first), set()
    while todo:
        requirement = todo.pop()
        if (text := str(requirement)) in seen:
            continue
        seen.add(text)
        extras = ["", *requirement.extras]
        yield requirement
        todo += [each for each in needed_by(requirement.name) if applies(each, extras, system or {})]


@cache
def needed_by(name):
    """Return the requirements of a package; none for one that is not installed, since it is for another system."""
    try:
        return [Requirement(text) for text in requires(name) or []]
    except PackageNotFoundError:
        return []


def applies(requirement, extras, system):
    return not requirement.marker or any(requirement.marker.evaluate({**system, "extra": extra}) for extra in extras)


# ----------------------------------------------------------------------------------- requirements

STALE = "constraints.txt is stale: its first lines say how to make it again"


def test_constraints_are_exact_versions_without_addresses():
    assert constraints()
    for pin in constraints():
        assert re.fullmatch(r"==[A-Za-z0-9.]+", str(pin.specifier)) and not pin.url and not pin.extras, pin
    command = read("constraints.txt").splitlines()[1].lstrip("# ")
    assert command in read("CONTRIBUTING.md")
    comments = [line for line in read("constraints.txt").splitlines() if line.startswith("#")]
    assert command.startswith("uv pip compile --universal ")
    assert not re.search(r"://|--\S*index|/\w+/", "".join(comments))


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda system: f"{system['platform_machine']}-{system['sys_platform']}"
                                                               f"-{system['python_version']}")
def test_all_that_is_needed_is_pinned_on_every_system_to_a_version_that_is_allowed(system):
    """Also what the packages need in turn; what these need on other systems is known from their metadata."""
    found = pins(system)
    for requirement in needed(requirements(), system):
        name = canonicalize_name(requirement.name)
        assert name in found, f"{requirement}: {STALE}"
        assert requirement.specifier.contains(found[name], prereleases=True), f"{requirement}, {found[name]}: {STALE}"


def test_what_is_installed_is_what_is_pinned():
    found = pins()
    installed = {name: version(name) for name in {canonicalize_name(each.name) for each in needed(requirements())}
                 if any(True for _ in distributions(name=name))}
    assert len(installed) > 100
    # a local label (2.15.0+cpu) says how a version was built, not which one it is
    assert not {name: (here, found[name]) for name, here in installed.items()
                if here.partition("+")[0] != found[name]}, STALE


def test_each_installed_package_allows_the_first_release_of_the_oldest_python():
    """A package that needs 3.11.5 cannot be installed with Debian's 3.11.2."""
    oldest = project()["requires-python"].removeprefix(">=") + ".0"
    found = {canonicalize_name(package.metadata["Name"]): package.metadata.get("Requires-Python")
             for package in distributions()}
    assert len(pins().keys() & found.keys()) > 100
    assert not [name for name in pins().keys() & found.keys()
                if found[name] and oldest not in SpecifierSet(found[name])]


def test_students_get_none_of_the_packages_that_only_the_tests_and_the_grading_need():
    """nbgrader, for example, would add a menu to JupyterLab. nbval brings pytest."""
    found = {canonicalize_name(each.name) for each in needed(map(Requirement, project()["dependencies"]))}
    extras = {Requirement(text).name for texts in project()["optional-dependencies"].values() for text in texts}
    assert {"ipykernel", "widgetsnbextension"} < found and "nbgrader" in extras and extras & found == {"pytest"}


def test_conda_installs_the_same_with_a_python_that_is_tested():
    *_, python, _, pip = yaml.safe_load(read("environment.yml"))["dependencies"]
    assert pip == {"pip": ["-c constraints.txt", "-e ."]}
    workflow = yaml.safe_load(read(".github/workflows/test.yml"))
    version = python.removeprefix("python=")
    assert version in workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert version in SpecifierSet(project()["requires-python"])


# -------------------------------------------------------------------------------------- documents

def test_the_targets_of_make_in_the_readme_exist():
    targets = set(re.findall(r"^make ([a-z]+)", read("README.md"), flags=re.M))
    assert {"labs", "lab"} <= targets <= set(re.findall(r"^([a-z]+):", read("Makefile"), flags=re.M))


def test_the_labs_commands_of_the_documents_are_accepted():
    blocks = "".join("".join(re.findall(r"^```sh\n(.*?)^```", read(path), flags=re.M | re.S)) for path in DOCUMENTS)
    lines = re.findall(r"^labs .*", blocks, flags=re.M)
    assert len(lines) > 10
    for line in lines:
        verb, *arguments = shlex.split(line, comments=True)[1:]
        options = command_line.commands[verb].make_context(verb, arguments).params
        if verb == "run":
            plan(list(options["names"]), options["parameters"], quick=options["quick"])
        elif verb in ("refresh", "release"):
            assert set(options["names"]) <= set(lab_names()), line


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_links_of_a_document_lead_somewhere(document):
    text = read(document)
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) + re.findall(r'src="([^"]+)"', text)
    folder = (PROJECT_ROOT / document).parent
    assert not [link for link in links if "://" not in link and not (folder / link).exists()]
