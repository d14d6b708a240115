"""The three lists of requirements agree, and the commands of README and TEACHING exist."""

import re
import shlex
import tomllib
from importlib.metadata import distributions

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from labutils.instructor.cli import build_parser
from labutils.instructor.labs import lab_names
from labutils.instructor.run import find_results
from labutils.instructor.sweep import plan
from labutils.paths import PROJECT_ROOT


def constraints():
    lines = (PROJECT_ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def project():
    return tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]


def conda():
    return yaml.safe_load((PROJECT_ROOT / "environment.yml").read_text())


def requirements():
    extras = project()["optional-dependencies"].values()
    return [Requirement(text) for text in [*project()["dependencies"], *sum(extras, [])]]


def test_constraints_are_exact_versions_without_addresses():
    assert constraints()
    for line in constraints():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line), line


def test_each_requirement_is_pinned_to_a_version_that_it_allows():
    pins = dict(line.lower().split("==") for line in constraints())
    for requirement in requirements():
        assert pins[requirement.name] in requirement.specifier, requirement


def test_each_installed_package_allows_the_oldest_python_of_the_project():
    """The first release of it: a package that asks for 3.11.5 cannot be installed beside Debian's 3.11.2."""
    oldest = project()["requires-python"].removeprefix(">=") + ".0"
    pinned = {line.lower().replace("_", "-") for line in constraints()}
    found = {f"{d.metadata['Name'].lower().replace('_', '-')}=={d.version}": d.metadata.get("Requires-Python") for d in distributions()}
    assert len(pinned & set(found)) > 100
    assert not [name for name, python in found.items() if name in pinned and python and oldest not in SpecifierSet(python)]


def test_conda_has_the_same_pins_and_the_project_itself():
    pip = conda()["dependencies"][-1]["pip"]
    pins = {line for line in pip if "==" in line}
    assert pins <= set(constraints())
    assert {pin.split("==")[0] for pin in pins} == {requirement.name for requirement in requirements()}
    assert pip[0] == "-c constraints.txt" and pip[-1] == "-e ."


def test_conda_takes_a_python_that_the_project_supports():
    python = next(d for d in conda()["dependencies"] if str(d).startswith("python="))
    version = python.split("=")[1]
    assert version in Requirement(f"python{project()['requires-python']}").specifier
    workflow = yaml.safe_load((PROJECT_ROOT / ".github/workflows/test.yml").read_text())
    assert version in workflow["jobs"]["test"]["strategy"]["matrix"]["python"]


def test_the_packages_that_were_asked_for_are_there():
    names = {requirement.name for requirement in requirements()}
    asked = {"torch", "torchvision", "numpy", "matplotlib", "opencv-python-headless", "jupyterlab", "nbval", "papermill"}
    assert asked <= names


def test_the_targets_of_make_in_the_readme_exist():
    readme = (PROJECT_ROOT / "README.md").read_text()
    makefile = (PROJECT_ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^make ([a-z]+)", readme, flags=re.M))
    assert {"labs", "test", "lab", "full"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


@pytest.mark.parametrize("document", ["README.md", "TEACHING.md"])
def test_the_labs_commands_of_the_documents_are_taken(document):
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```", (PROJECT_ROOT / document).read_text(), flags=re.M | re.S))
    commands = re.findall("^labs .*", blocks, flags=re.M)
    assert commands
    for line in commands:
        options = build_parser().parse_args(shlex.split(line, comments=True)[1:])
        if options.name == "run":
            plan(options.labs, options.parameters, quick=options.quick)
        elif options.name in ("refresh", "release"):
            assert set(options.labs) <= set(lab_names()), line


def test_the_links_of_the_readme_lead_somewhere():
    readme = (PROJECT_ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#]+)\)", readme) + re.findall(r'src="([^"]+)"', readme)
    local = [link for link in links if "://" not in link]
    assert local
    for link in local:
        assert (PROJECT_ROOT / link).exists(), link


@pytest.mark.parametrize("row, lab, prefix", [
    ("VAE, 784-400-20 (02)", "02_vae", ""), ("convolutional VAE (03)", "03_conv_vae", ""), ("MLP GAN (04)", "04_gan", "mlp_"),
    ("DCGAN (04)", "04_gan", "dcgan_"), ("Wasserstein GAN (05)", "05_wgan", "")])
def test_the_figures_of_the_readme_are_those_of_the_notebooks(row, lab, prefix):
    readme = (PROJECT_ROOT / "README.md").read_text()
    [line] = [line for line in readme.splitlines() if line.startswith(f"| {row} |")]
    results = find_results(nbformat.read(PROJECT_ROOT / f"notebooks/{lab}.ipynb", as_version=4))
    figures = {name: results[prefix + name] for name in ("frechet", "precision", "recall", "class_entropy")}
    expected = [f"{figures['frechet']:.0f}", *(f"{figures[name]:.2f}" for name in ("precision", "recall", "class_entropy"))]
    assert [cell.strip() for cell in line.split("|")[2:-1]] == expected
    assert results[prefix + "n_samples"] == 10_000
    assert f"{results[prefix + 'frechet_floor']:.1f}" in readme
