"""Every notebook: its form, as it is committed, and the files that belong to it."""

import ast
import base64
import hashlib
import io
import json
import re
from xml.etree import ElementTree

import nbformat
import pytest
import torch
import yaml
from helpers import (
    LABS,
    NOTEBOOK_DIR,
    NOTEBOOKS,
    bands_so_far,
    code_cells,
    notebook_path,
    parameters_cell,
    tags,
    trains,
)
from PIL import Image, ImageColor

from labutils.instructor.bands import check, read_expected
from labutils.instructor.labs import lab_parameters, read_lab
from labutils.instructor.record import Outcome, find_metrics
from labutils.parameters import read_parameters
from labutils.paths import PROJECT_ROOT

COMMON = ["dataset", "data_dir", "epochs", "batch_size", "limit", "seed", "device", "pretrained", "resume", "out_dir",
          "tensorboard_dir"]
COMMON_RESULTS = {"epochs", "seconds", "images_per_second", "device", "dataset"}
OF_A_TRAINING = {"epochs", "batch_size", "pretrained", "resume", "tensorboard_dir", "images_per_second"}

each_lab = pytest.mark.parametrize("lab", LABS)


# ------------------------------------------------------------------------------------- the files of a lab

@each_lab
def test_each_lab_has_its_files_and_is_named_in_the_documents(lab):
    """What a new lab needs, by name; CONTRIBUTING.md has the list."""
    sources = "\n".join(cell.source for cell in code_cells(notebook_path(lab)))
    topic = lab.split("_", 1)[1]
    needed = [f"notebooks/quick/{lab}.yml", f"notebooks/expected/{lab}.yml", f"tests/labs/test_{lab}.py"]
    needed += [f"labutils/checks/{topic}.py"] if "checks." in sources else []
    assert [path for path in needed if not (PROJECT_ROOT / path).is_file()] == []
    for document in ("README.md", "TEACHING.md"):
        rows = re.findall(r"^\| \[?(\d\d)\b", (PROJECT_ROOT / document).read_text(), flags=re.M)
        assert lab[:2] in rows, f"no row for lab {lab} in {document}"
    if trains(lab):
        tests = (PROJECT_ROOT / f"tests/labs/test_{lab}.py").read_text()
        assert "check_resume(" in tests, f"no test of the resume of the training of {lab}"


@pytest.mark.parametrize("pattern", ["notebooks/quick/{}.yml", "notebooks/expected/{}.yml", "tests/labs/test_{}.py"])
def test_no_file_is_left_of_a_lab_that_is_gone(pattern):
    start, end = pattern.split("{}")
    paths = [path.relative_to(PROJECT_ROOT).as_posix() for path in PROJECT_ROOT.glob(pattern.format("[0-9][0-9]_*"))]
    found = {path.removeprefix(start).removesuffix(end) for path in paths}
    assert found == set(LABS)


@each_lab
def test_each_reduced_setting_is_a_parameter_of_the_lab(lab):
    assert set(yaml.safe_load((NOTEBOOK_DIR / f"quick/{lab}.yml").read_text())) <= set(lab_parameters(lab))


@pytest.mark.parametrize("profile", ["quick", "full"])
@each_lab
def test_the_bands_are_of_five_seeds_and_within_what_a_metric_can_be(lab, profile):
    expected = read_expected(lab)
    if profile not in expected:
        pytest.skip(f"{lab} has no bands for {profile!r} yet: labs bands makes them")
    assert len(expected[profile]["seeds"]) >= 5 and expected[profile]["bands"]
    for name, (low, high) in expected[profile]["bands"].items():
        least, most = expected["metrics"][name]
        assert low < high and (least is None or low >= least) and (most is None or high <= most), name
        assert (low, high) != (least, most), f"no run can leave the band of {name}"


@each_lab
def test_the_stored_outputs_report_all_metrics_within_their_bands(lab):
    """The notebooks are shipped as they ran at the lesson's values: the profile "full"."""
    assert read_lab(lab).cells[-1].source.startswith("show_results(")
    results = find_metrics(read_lab(lab))
    common = COMMON_RESULTS if trains(lab) else COMMON_RESULTS - OF_A_TRAINING
    assert set(results) >= common | set(read_expected(lab)["metrics"])
    assert results["dataset"] == "mnist", "the committed outputs are those of the lesson"
    outside, n_compared = check([Outcome(lab, "ok", 0, results)], bands_so_far(lab, "full"))
    assert not outside and n_compared == len(read_expected(lab)["metrics"])


# --------------------------------------------------------------------------------------------- its form

@each_lab
def test_a_notebook_is_small_valid_and_of_readable_length(lab):
    notebook = read_lab(lab)
    nbformat.validate(notebook)
    assert notebook_path(lab).stat().st_size < 1_000_000
    lesson = [cell for cell in notebook.cells if not cell.id.startswith(("exercise-", "bug-", "explore-", "colab"))]
    assert len(lesson) <= 60
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert max(cell.source.count("\n") + 1 for cell in code_cells(notebook_path(lab))) <= 40
    assert notebook.metadata.kernelspec.name == "python3"


@each_lab
def test_the_helpers_leave_the_algorithm_to_the_lab(lab):
    """A loop that can be read aloud, few names from outside, one short set-up."""
    cells = code_cells(notebook_path(lab))
    nodes = [node for cell in cells for node in ast.walk(ast.parse(cell.source))]
    loops = [node for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("fit")]
    assert max((loop.end_lineno - loop.lineno + 1 for loop in loops), default=0) <= 18
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "labutils"]
    assert len(imports) == 1 and len(imports[0].names) <= 14
    [set_up] = [cell for cell in cells if "set_up(" in cell.source]
    assert set_up.source.count("\n") < 10


@each_lab
def test_headings_are_in_order(lab):
    cells = [cell.source for cell in read_lab(lab).cells if cell.cell_type == "markdown"]
    levels = [len(hashes) for hashes in re.findall(r"^(#+) ", "\n".join(cells), flags=re.M)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(deeper <= level + 1 for level, deeper in zip(levels, levels[1:]))


@each_lab
def test_a_notebook_is_committed_executed_without_error_and_without_traces(lab):
    counts = [cell.execution_count for cell in code_cells(notebook_path(lab)) if "skip-execution" not in tags(cell)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in code_cells(notebook_path(lab)) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    text = json.dumps([{k: v for k, v in output.get("data", {}).items() if k != "image/png"} or output.get("text", "")
                       for output in outputs])
    assert not re.search(r"/(home|root|tmp|work|Users|runner)/", text) and str(PROJECT_ROOT) not in text


@each_lab
def test_the_diagrams_in_a_notebook_are_those_of_img(lab):
    """`python img/diagrams.py` mends what this test finds."""
    for cell in nbformat.read(notebook_path(lab), as_version=4).cells:
        shown = re.findall(r"\]\(attachment:(.+?)\)", cell.source)
        assert sorted(cell.get("attachments", {})) == sorted(shown), cell.id
        assert "../img/" not in cell.source, "a notebook alone would not show it"
        for file in shown:
            svg, forms = (PROJECT_ROOT / "img" / file).read_bytes(), cell.attachments[file]
            assert list(forms) == ["image/png", "image/svg+xml"], "JupyterLab shows the first, and of these no SVG"
            assert base64.b64decode(forms["image/svg+xml"]) == svg, file
            png = Image.open(io.BytesIO(base64.b64decode(forms["image/png"])))
            assert png.info["source"] == hashlib.sha256(svg).hexdigest(), file


def test_every_diagram_is_shown_in_a_lab():
    text = "".join(path.read_text(encoding="utf-8") for path in NOTEBOOKS)
    assert [path.name for path in PROJECT_ROOT.glob("img/*.svg") if f"(attachment:{path.name})" not in text] == []


def luminance(colour):
    """Return the relative luminance of (r, g, b) in 0..255, by WCAG 2."""
    parts = [v / 255 / 12.92 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


@pytest.mark.parametrize("path", sorted(PROJECT_ROOT.glob("img/*.svg")), ids=lambda path: path.stem)
def test_a_diagram_is_readable_on_every_ground(path):
    """It brings a light card; each text has the contrast of WCAG AA with the card and with every tint on it."""
    parts = [part.attrib | {"text": part.tag.endswith("text")} for part in ElementTree.parse(path).iter()]
    card = next(part for part in parts if float(part.get("width", 0)) > 600 and "fill" in part and "rx" in part)
    ground = ImageColor.getrgb(card["fill"])
    tints = [[o * a + (1 - o) * b for a, b in zip(ImageColor.getrgb(part["fill"]), ground)]
             for part in parts if (o := float(part.get("fill-opacity", 0)))]
    texts = [ImageColor.getrgb(part.get("fill", "#1f2328")) for part in parts if part["text"]]
    least = min((luminance(a) + 0.05) / (luminance(b) + 0.05) for b in texts for a in (ground, *tints))
    assert texts and least >= 4.5


@each_lab
def test_every_picture_has_a_description(lab):
    pictures = [(cell.id, output) for cell in code_cells(notebook_path(lab)) for output in cell.outputs
                if "image/png" in output.get("data", {})]
    assert pictures
    without = [cell_id for cell_id, output in pictures if len(output.metadata.get("image/png", {}).get("alt", "")) < 15]
    assert not without


@each_lab
def test_the_parameters_are_literals_with_type_and_meaning(lab):
    cell = parameters_cell(lab)
    names = []
    for line, node in zip(cell.source.splitlines(), ast.parse(cell.source).body, strict=True):
        assert isinstance(node, ast.AnnAssign)
        assert isinstance(ast.literal_eval(node.value), (str, int, float, bool, type(None)))
        assert re.search(r"  # \w", line), line
        assert re.fullmatch(r"bool|int|float|str" if ast.literal_eval(node.value) is not None
                            else r"Optional\[(int|float|str)\]", ast.unparse(node.annotation)), line
        names.append(node.target.id)
    common = [name for name in COMMON if trains(lab) or name not in OF_A_TRAINING]
    assert names[:len(common)] == common
    assert list(lab_parameters(lab)) == names     # as papermill reads them: some signs in a comment confuse it


# by a parameter's type: what a run may give it, as text or as another number, and what that means; what it may not be
MEANT = {"bool": {"false": False, "TRUE": True, " False": False}, "int": {"10": 10, 7.0: 7, "1e3": 1000, "1_000": 1000},
         "float": {"1e-3": 0.001, "5": 5.0, 2: 2.0}, "str": {"digits": "digits", "007": "007"}}
REFUSED = {"bool": ["no", "", 1, 0, None], "int": ["ten", "1.5", 2.5, True, "", "None", "inf", None],
           "float": ["fast", True, "", "nan", float("inf"), 10**400, "null", None], "str": [7, 1e-3, True, None]}


def read_by(lab, **given):
    """Return a lab's parameters after the line that reads them, where a run has `given` some other values."""
    source = parameters_cell(lab).source
    space = {"In": [source, "# Parameters\n" + "".join(f"{name} = ...\n" for name in given), "this cell"]}
    exec(f"from typing import Optional\n{source}", space)
    space |= given
    read_parameters(space)
    return {name: space[name] for name in lab_parameters(lab)}


@each_lab
def test_each_parameter_is_read_by_its_type_or_refused_by_its_name(lab):
    """Each bool, number and None as text, which papermill gives, and what else YAML may make of it."""
    own = read_by(lab)
    assert own == {name: ast.literal_eval(about["default"]) for name, about in lab_parameters(lab).items()}
    for name, about in lab_parameters(lab).items():
        kind = about["inferred_type_name"].removeprefix("Optional[").removesuffix("]")
        optional = {text: None for text in ("None", "none", "null", "", None) if own[name] is None}
        for given, meant in {**MEANT[kind], **optional}.items():
            found = read_by(lab, **{name: given})
            assert found == {**own, name: meant} and type(found[name]) is type(meant), (name, given)
        for given in [value for value in REFUSED[kind] if value not in optional]:
            with pytest.raises(ValueError) as error:
                read_by(lab, **{name: given})
            assert str(error.value).startswith(f"{name}={given!r}: must be ") and "parameters cell" in str(error.value)
    with pytest.raises(ValueError, match="epoch = ...: this notebook has no such parameter; it has: dataset, data_dir"):
        read_by(lab, epoch=5)


@each_lab
def test_the_set_up_reads_the_parameters_first(lab):
    sources = [cell.source for cell in code_cells(notebook_path(lab))]
    [set_up] = [source for source in sources if "set_up(" in source]
    assert set_up.startswith("read_parameters(globals())") and "globals()" not in "".join(sources).replace(set_up, "")


@each_lab
def test_no_cell_gives_a_parameter_another_value(lab):
    """Or a cell that is run again, after a change in the parameters cell, would take a value that nobody sees there.

    `read_parameters` sets them, too: to the same value, as the type that is declared.
    """
    parameters, changed = set(lab_parameters(lab)), {}
    for cell in code_cells(notebook_path(lab)):
        if "parameters" not in tags(cell):
            names = {node.id for node in of_the_cell(ast.parse(cell.source))
                     if isinstance(node, ast.Name) and isinstance(node.ctx, (ast.Store, ast.Del))}
            changed |= {cell.id: names & parameters} if names & parameters else {}
    assert not changed


OWN_SCOPE = (ast.FunctionDef, ast.Lambda, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def of_the_cell(node):
    """Yield the nodes below one that belong to the cell itself, and to no function, class or comprehension in it."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, OWN_SCOPE):
            yield from of_the_cell(child)


@each_lab
def test_no_printed_line_is_cut_in_a_small_window(lab):
    """Of text that stands alone; ruff looks at the code."""
    printed = [(cell.id, line) for cell in code_cells(notebook_path(lab)) for output in cell.outputs
               for line in (output.get("text") or output.get("data", {}).get("text/plain", "")).splitlines()
               if "image/png" not in output.get("data", {})]
    assert printed and not [(cell_id, line) for cell_id, line in printed if len(line) > 100]


@each_lab
def test_marked_cells_are_executed_and_say_something(lab):
    marked = [cell for cell in code_cells(notebook_path(lab)) if "nbval-check-output" in tags(cell)]
    assert len(marked) >= 3
    for cell in marked:
        assert cell.execution_count and any(output.get("text") for output in cell.outputs), cell.id


# ------------------------------------------------------------------------------------ before it trains

def run_up_to_the_data(lab, **settings):
    """Execute a lab's cells up to the data, in this process, and return its variables: kernels would take minutes."""
    space = {}
    for cell in code_cells(notebook_path(lab)):
        exec(cell.source, space)
        if "parameters" in tags(cell):
            space |= {"dataset": "digits", "device": "cpu", **settings}
        if cell.id == "data":
            return space


@each_lab
def test_the_seed_decides_the_order_of_the_data_and_all_random_numbers(lab, tmp_path):
    draws = []
    for seed in (0, 0, 1):
        space = run_up_to_the_data(lab, out_dir=str(tmp_path), seed=seed)
        x, _ = next(iter(next(value for value in space.values() if getattr(value, "shuffle", False))))
        draws.append((torch.rand(3), x))
    assert all(torch.equal(a, b) for a, b in zip(*draws[:2])) and not any(map(torch.equal, *draws[1:]))


@each_lab
@pytest.mark.parametrize("name, value", [("epochs", 0), ("dataset", "mnits"), ("batch_size", 0), ("limit", -1),
                                         ("n_samples", 0), ("seed", -1), ("device", "gpu"), ("limit", 9),
                                         ("n_samples", 9), ("sweep_images", 9), ("faces_batch_size", 1)])
def test_a_bad_value_is_named_before_any_training(lab, tmp_path, name, value):
    if name not in lab_parameters(lab):
        pytest.skip(f"{lab} has no {name}")
    with pytest.raises(ValueError) as error:
        run_up_to_the_data(lab, out_dir=str(tmp_path), **{name: value})
    assert name in str(error.value) and str(value) in str(error.value)


@each_lab
def test_pictures_of_another_shape_are_named(lab, tmp_path):
    with pytest.raises(ValueError) as error:
        run_up_to_the_data(lab, out_dir=str(tmp_path), dataset="faces")
    words = "(1, 32, 32)" if trains(lab) else "the course's weights have learned digits"
    assert "faces" in str(error.value) and words in str(error.value)
