"""The lists of requirements agree, and what the documents say of commands, links and metrics is true."""

import re
import shlex
import tomllib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distributions, requires

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from labutils.instructor.cli import command_line
from labutils.instructor.labs import lab_names, read_lab
from labutils.instructor.record import find_metrics
from labutils.instructor.sweep import plan
from labutils.paths import PROJECT_ROOT

DOCUMENTS = sorted(str(path.relative_to(PROJECT_ROOT)) for folder in (PROJECT_ROOT, PROJECT_ROOT / "docs")
                   for path in folder.glob("*.md"))


def read(path):
    return (PROJECT_ROOT / path).read_text()


def constraints():
    return [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]


def project():
    return tomllib.loads(read("pyproject.toml"))["project"]


def requirements():
    extras = project()["optional-dependencies"].values()
    return [Requirement(text) for text in [*project()["dependencies"], *sum(extras, [])]]


# ----------------------------------------------------------------------------------- requirements

def test_constraints_are_exact_versions_without_addresses():
    assert constraints()
    for line in constraints():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line


def test_each_requirement_is_pinned_to_a_version_that_it_allows():
    pins = dict(line.lower().split("==") for line in constraints())
    for requirement in requirements():
        assert pins[requirement.name] in requirement.specifier, requirement


def test_each_installed_package_allows_the_first_release_of_the_oldest_python():
    """A package that needs 3.11.5 cannot be installed with Debian's 3.11.2."""
    oldest = project()["requires-python"].removeprefix(">=") + ".0"
    pinned = {line.lower().replace("_", "-") for line in constraints()}
    found = {f"{package.metadata['Name'].lower().replace('_', '-')}=={package.version}":
             package.metadata.get("Requires-Python") for package in distributions()}
    assert len(pinned & set(found)) > 100
    assert not [name for name, python in found.items()
                if name in pinned and python and oldest not in SpecifierSet(python)]


def test_students_get_none_of_the_packages_that_only_the_tests_and_the_grading_need():
    """nbgrader, for example, would add a menu to JupyterLab. nbval brings pytest."""
    found = set()

    def add(requirement):
        if requirement.name.lower() in found or requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            return
        found.add(requirement.name.lower())
        with suppress(PackageNotFoundError):        # for another system
            for text in requires(requirement.name) or []:
                add(Requirement(text))
    for text in project()["dependencies"]:
        add(Requirement(text))
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


@pytest.mark.parametrize("row, lab, prefix", [
    ("VAE, 784-400-20 (02)", "02_vae", ""), ("convolutional VAE (03)", "03_conv_vae", ""),
    ("MLP GAN (04)", "04_gan", "mlp_"), ("DCGAN (04)", "04_gan", "dcgan_"),
    ("Wasserstein GAN, weight clipping (05)", "05_wgan", ""),
    ("Wasserstein GAN, gradient penalty (05)", "05_wgan", "penalty_")])
def test_the_metrics_of_the_readme_are_those_of_the_notebooks(row, lab, prefix):
    [line] = [line for line in read("README.md").splitlines() if line.startswith(f"| {row} |")]
    results = find_metrics(read_lab(lab))
    metrics = results | {name.removeprefix(prefix): results[name] for name in results if name.startswith(prefix)}
    expected = [f"{metrics[name]:.{digits}f} ± {metrics[f'{name}_sd']:.{digits}f}"
                for name, digits in (("frechet", 0), ("kid", 0), ("precision", 3), ("recall", 2))]
    assert [cell.strip() for cell in line.split("|")[2:-1]] == [*expected, f"{metrics['class_entropy']:.2f}"]
    assert metrics["n_samples"] == 10_000 and f"{metrics['frechet_floor']:.1f}" in read("README.md")
