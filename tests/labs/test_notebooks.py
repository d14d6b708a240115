"""Every notebook: its form, as it is committed, and its run from end to end, reduced."""

import ast
import json
import re

import nbformat
import pytest
import yaml
from helpers import NOTEBOOKS, code_cells, command, executes, needs_mnist

from labutils.instructor.labs import lab_parameters
from labutils.instructor.run import find_results
from labutils.paths import PROJECT_ROOT

COMMON = ["dataset", "data_dir", "epochs", "batch_size", "limit", "seed", "device", "pretrained", "resume", "out_dir", "tensorboard_dir"]
COMMON_FIGURES = {"epochs", "seconds", "images_per_second", "device", "dataset"}
FIGURES = {
    "01_autoencoder": {"pca_error", "mlp_error", "conv_error", "linear_ratio_2", "linear_ratio_8", "linear_ratio_32"},
    "02_vae": {"test_loss", "test_reconstruction", "test_kl"},
    "03_conv_vae": {"test_loss", "test_reconstruction", "test_kl", "faces_train_loss", "faces_test_loss"},
    "04_gan": {f"{part}_{figure}" for part in ("mlp", "dcgan") for figure in ("d_loss", "g_loss", "d_real", "d_fake")},
    "05_wgan": {"critic_loss", "wasserstein_estimate", "max_abs_weight"},
}
# less than quick.yml, for runs that must end well but need not show anything
TINY = {"dataset": "digits", "limit": 256, "epochs": 1, "dcgan_epochs": 1, "snapshot_every": 2,
        "sweep_images": 300, "sweep_epochs": 1, "faces_epochs": 2, "n_samples": 64, "ring_steps": 20,
        "comparison_epochs": 1, "device": "cpu"}
TIMES = ("seconds", "images_per_second")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def tags(cell):
    return cell.metadata.get("tags", [])


def tiny_parameters(path, **more):
    """Return TINY, and more, as arguments for papermill, without what the lab does not have."""
    names = re.findall(r"^(\w+):", parameters_cell(path).source, flags=re.M)
    return [word for name, value in {**TINY, **more}.items() if name in names for word in ("-p", name, str(value))]


def parameters_cell(path):
    [cell] = [cell for cell in code_cells(path) if "parameters" in tags(cell)]
    return cell


def test_the_labs_are_there():
    assert {path.stem for path in NOTEBOOKS} >= set(FIGURES)


# ------------------------------------------------------------------------------------------- form

@each_notebook
def test_a_notebook_is_small_valid_and_of_readable_length(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 1_000_000
    lesson = [cell for cell in notebook.cells if not cell.id.startswith(("exercise-", "bug-", "explore-"))]
    assert 30 <= len(lesson) <= 60
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert max(cell.source.count("\n") + 1 for cell in code_cells(path)) <= 40
    assert notebook.metadata.kernelspec.name == "python3"


@each_notebook
def test_headings_are_in_order(path):
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    levels = [len(hashes) for hashes in re.findall(r"^(#+) ", "\n".join(cells), flags=re.M)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(deeper <= level + 1 for level, deeper in zip(levels, levels[1:]))


@each_notebook
def test_a_notebook_is_committed_executed_without_error_and_without_traces(path):
    counts = [cell.execution_count for cell in code_cells(path) if "skip-execution" not in tags(cell)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    text = json.dumps([{k: v for k, v in output.get("data", {}).items() if k != "image/png"} or output.get("text", "")
                       for output in outputs])
    assert not re.search(r"/(home|root|tmp|work|Users|runner)/", text) and str(PROJECT_ROOT) not in text


@each_notebook
def test_every_picture_has_a_description(path):
    pictures = [(cell.id, output) for cell in code_cells(path) for output in cell.outputs if "image/png" in output.get("data", {})]
    assert pictures
    without = [cell_id for cell_id, output in pictures if len(output.metadata.get("image/png", {}).get("alt", "")) < 15]
    assert not without


@each_notebook
def test_the_parameters_are_literals_with_type_and_meaning(path):
    cell = parameters_cell(path)
    names = []
    for line, node in zip(cell.source.splitlines(), ast.parse(cell.source).body, strict=True):
        assert isinstance(node, ast.AnnAssign) and isinstance(ast.literal_eval(node.value), (str, int, float, bool, type(None)))
        assert re.search(r"  # \w", line), line
        names.append(node.target.id)
    assert names[:len(COMMON)] == COMMON
    assert list(lab_parameters(path.stem)) == names      # so many can papermill read: some signs in a comment are too much for it


@each_notebook
def test_marked_cells_are_executed_and_say_something(path):
    marked = [cell for cell in code_cells(path) if "nbval-check-output" in tags(cell)]
    assert len(marked) >= 3
    for cell in marked:
        assert cell.execution_count and any(output.get("text") for output in cell.outputs), cell.id


@each_notebook
def test_the_last_cell_reports_the_figures(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[-1].source.startswith("show_results(")
    results = find_results(notebook)
    assert set(results) >= COMMON_FIGURES | FIGURES.get(path.stem, set())
    assert results["dataset"] == "mnist", "the committed outputs are those of the lesson"


def test_each_quick_setting_belongs_to_a_lab():
    quick = yaml.safe_load((PROJECT_ROOT / "notebooks/quick.yml").read_text())
    sources = [parameters_cell(path).source for path in NOTEBOOKS]
    for name in quick:
        assert any(re.search(rf"^{name}:", source, flags=re.M) for source in sources), name


def test_the_committed_vae_reaches_its_target():
    results = find_results(nbformat.read(PROJECT_ROOT / "notebooks/02_vae.ipynb", as_version=4))
    assert results["architecture"] == "784-400-20" and results["epochs"] == 10
    assert results["test_loss"] <= 105.9
    assert results["test_loss"] == pytest.approx(results["test_reconstruction"] + results["test_kl"], rel=1e-6)


def test_the_committed_linear_autoencoders_reach_pca():
    results = find_results(nbformat.read(PROJECT_ROOT / "notebooks/01_autoencoder.ipynb", as_version=4))
    for k in (2, 8, 32):
        assert results[f"linear_ratio_{k}"] == pytest.approx(1, abs=0.05)


def test_the_committed_critic_never_left_the_clip():
    results = find_results(nbformat.read(PROJECT_ROOT / "notebooks/05_wgan.ipynb", as_version=4))
    assert 0.009 < results["max_abs_weight"] <= 0.01 * (1 + 1e-6)       # 0.01 as float32


# ---------------------------------------------------------------------------------------- execution

def prepare_copy(path, folder):
    """Copy a notebook with tiny parameters and its stored outputs, as papermill makes it."""
    copy = folder / path.name
    done = command("papermill", path, copy, "--prepare-only", *tiny_parameters(path, out_dir=folder / "out"))
    assert done.returncode == 0, done.stderr
    return copy


def validate(copy):
    """Run nbval on a copy; return the finished process."""
    return command("python", "-m", "pytest", "--nbval-lax", "--nbval-cell-timeout=300", "--rootdir", copy.parent,
                   "-p", "no:cacheprovider", "-c", "/dev/null", copy)


def run_pretrained(folder):
    """Run lab 02 with the shipped weights, on the whole test set; the rest of the lab as short as may be."""
    few = ["-p", "sweep_images", "300", "-p", "sweep_epochs", "1", "-p", "n_samples", "64"]
    return command("labs", "run", "02_vae", "--out", folder, "-p", "pretrained", "true", "-p", "device", "cpu", *few), folder


@needs_mnist
@executes(run_pretrained)       # the longest, so the first
def test_pretrained_weights_skip_the_training(executed):
    [(done, folder)] = executed
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((folder / "02_vae/results.json").read_text())
    assert results["images_per_second"] is None and results["test_loss"] < 105.9
    assert results["mean_decoded"] < 105.9      # measured with the loaded weights: test_loss is what stands in their file


def run_nbval(path, folder):
    return validate(prepare_copy(path, folder)), folder


@each_notebook
@executes(run_nbval)
def test_nbval_executes_the_lab_and_compares_the_marked_cells(path, executed):
    [(done, folder)] = executed
    assert done.returncode == 0, done.stdout[-3000:]
    passed = int(re.search(r"(\d+) passed", done.stdout).group(1))
    run = [cell for cell in code_cells(path) if "nbval-skip" not in tags(cell)]
    assert passed == len(run) + 1                       # and the cell of injected parameters
    assert list((folder / "out").glob("*.png")) and list((folder / "out").glob("*.safetensors"))


def run_nbval_on_a_changed_output(folder):
    copy = prepare_copy(PROJECT_ROOT / "notebooks/02_vae.ipynb", folder)
    notebook = nbformat.read(copy, as_version=4)
    [cell] = [cell for cell in notebook.cells if cell.id == "kl"]
    cell.outputs[0].text = cell.outputs[0].text.replace("1.1927", "1.1928")
    nbformat.write(notebook, copy)
    return validate(copy)


@executes(run_nbval_on_a_changed_output)
def test_nbval_notices_a_changed_output(executed):
    [done] = executed
    assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout[-3000:]


def run_papermill(path, folder):
    """Run a lab with seed 0, as the README says."""
    return command("papermill", f"notebooks/{path.name}", folder / "out.ipynb", "--cwd", "notebooks",
                   "-f", "notebooks/quick.yml", *tiny_parameters(path, out_dir=folder / "out")), folder / "out.ipynb"


@each_notebook
@executes(run_papermill)
def test_plain_papermill_runs_the_lab_as_the_readme_says(path, executed):
    [(done, notebook)] = executed
    assert done.returncode == 0, done.stderr[-3000:]
    results = find_results(nbformat.read(notebook, as_version=4))
    assert results["dataset"] == "digits" and set(results) >= COMMON_FIGURES | FIGURES.get(path.stem, set())


def run_two_seeds(path, folder):
    """Run a lab with the seeds 0 and 1 and the parameters of `run_papermill`."""
    return command("labs", "run", path.stem, "--quick", "--out", folder, *tiny_parameters(path, seed="0,1")), folder


@each_notebook
@executes(run_papermill, run_two_seeds)
def test_the_same_seed_gives_the_same_figures(path, executed):
    (plain, notebook), (done, folder) = executed
    assert plain.returncode == 0 and done.returncode == 0, plain.stderr[-3000:] + done.stdout + done.stderr
    results = find_results(nbformat.read(notebook, as_version=4))
    again, other = (json.loads((folder / f"{path.stem},seed={seed}/results.json").read_text()) for seed in (0, 1))
    different = {name for name in {*results, *again} if results.get(name, ...) != again.get(name, ...)}
    assert different <= set(TIMES)
    assert {name for name in other if other[name] != results[name]} - set(TIMES), "another seed, the same figures"


def run_up_to_the_data(path, **settings):
    """Execute a lab's cells up to the data, here: a kernel for each bad value would take minutes."""
    space = {}
    for cell in code_cells(path):
        exec(cell.source, space)
        if "parameters" in tags(cell):
            space |= {"dataset": "digits", "device": "cpu", **settings}
        if cell.id == "data":
            return


@each_notebook
@pytest.mark.parametrize("name, value", [("epochs", 0), ("dataset", "mnits"), ("batch_size", 0), ("limit", -1),
                                         ("n_samples", 0), ("seed", -1), ("device", "gpu")])
def test_a_bad_value_is_named_before_any_training(path, tmp_path, name, value):
    if not re.search(rf"^{name}:", parameters_cell(path).source, flags=re.M):
        pytest.skip(f"{path.stem} has no {name}")
    with pytest.raises(ValueError) as error:
        run_up_to_the_data(path, out_dir=str(tmp_path), **{name: value})
    assert name in str(error.value) and str(value) in str(error.value)


@each_notebook
def test_pictures_of_another_shape_are_named(path, tmp_path):
    with pytest.raises(ValueError) as error:
        run_up_to_the_data(path, out_dir=str(tmp_path), dataset="faces")
    assert "faces" in str(error.value) and "(1, 32, 32)" in str(error.value)


def run_bad_value(folder):
    return command("labs", "run", "02_vae", "--out", folder, "-p", "dataset", "mnits"), folder / "02_vae"


@executes(run_bad_value)
def test_a_bad_value_fails_the_run(executed):
    [(done, folder)] = executed
    run = json.loads((folder / "run.json").read_text())
    assert done.returncode == 1 and run["error"].startswith("ValueError") and "mnits" in run["error"]
    assert len([cell for cell in code_cells(folder / "02_vae.ipynb") if cell.execution_count]) <= 6
