"""The report on runs: what is in it, what damaged folders do to it, and how it behaves in a browser."""

import csv
import json
import math
import os
import shutil
import statistics
import tempfile
import tomllib
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import cv2
import nbformat
import numpy as np
import pytest
import torch
from helpers import page_flaws
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter

from labutils import save_checkpoint, save_image, show
from labutils.images import label_rows
from labutils.instructor import cli
from labutils.instructor.record import Run, natural, read_run
from labutils.instructor.report import (chart, charts, csv_cell, line_styles, make_report, metric_table,
                                        pictures, read_curves, short, spread, thumbnail)
from labutils.paths import PROJECT_ROOT
from labutils.results import duration

EVIL = '<script>document.title = "hacked"</script> & "quoted" \'é漢\''


def write_run(out, lab, results=None, /, *, curves=None, picture=True, **about):
    """Write a run's folder, named after what is `varied`, as `labs run` would; `about` goes to run.json."""
    varied = about.pop("varied", [])
    parameters = about.setdefault("parameters", {})
    folder = out / ",".join([lab, *(f"{name}={parameters[name]}" for name in varied)])
    folder.mkdir(parents=True)
    run = {"lab": lab, "status": "ok", "error": "", "seconds": 75.0, "cpu_seconds": 140.0, "peak_memory": 812_300_000,
           "device": "cpu", "revision": "2ae0cb4f", "modified": False, "started": "2026-11-21T09:30:00+00:00", **about}
    (folder / "run.json").write_text(json.dumps(run))
    if run["status"] == "ok":
        (folder / "results.json").write_text(json.dumps(results or {"loss": 1.0}))
    for name in (f"{lab}.html", f"{lab}.ipynb"):
        (folder / name).write_text("here")
    if picture:
        cv2.imwrite(str(folder / "samples.png"), np.random.default_rng(0).integers(0, 255, (300, 600, 3), np.uint8))
    if curves:
        save(folder / f"{lab}_net.safetensors", {"epochs": 10, "history": curves})
    return folder


def save(path, config):
    """Write the smallest checkpoint with this config."""
    save_checkpoint(path, net=torch.nn.Linear(1, 1), config=config)


def falling(seed, n=10):
    """A curve as trainings have them."""
    return [100 * math.exp(-k / 3) + 5 + seed for k in range(n)]


@pytest.fixture
def out(tmp_path):
    """Two labs of six runs: settings by seeds; one run has failed."""
    for lab in ("02_one", "05_two"):
        for dim in (2, 10):
            for seed in range(3):
                failed = lab == "05_two" and dim == 10 and seed == 2
                write_run(tmp_path / "sweep", lab, {"test_loss": 100 + 10 * dim + seed, "device": "cpu", "epochs": 10},
                          varied=["latent_dim", "seed"], parameters={"latent_dim": dim, "seed": seed, "epochs": 10},
                          curves={"train_loss": falling(seed), "test_loss": falling(dim)},
                          **({"status": "failed", "error": f"RuntimeError: {EVIL}"} if failed else {}))
    return tmp_path / "sweep"


def rows(out):
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class Page(HTMLParser):
    """A page taken apart: its elements as (tag, attributes), its text; raises where the tags do not nest."""
    VOID = {"meta", "img", "line", "wbr"}

    def __init__(self, path):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert len(attributes) == len(dict(attributes)), attributes
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in {"line", "polyline"}
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if self.open[-1:] not in (["script"], ["style"]) else ""

    def all(self, tag, attribute):
        return [attributes.get(attribute) for name, attributes in self.elements if name == tag]


def test_the_table_for_spreadsheets_has_a_row_for_each_run(out):
    assert cli.main(["report", str(out)]) == 0
    table = rows(out)
    assert list(table[0]) == [
        "run", "lab", "status", "error", "parameters.latent_dim", "parameters.seed", "parameters.epochs",
        "results.test_loss", "results.device", "results.epochs",
        "seconds", "cpu_seconds", "peak_memory_mb", "device", "revision", "started"]
    names = [row["run"] for row in table[2:4]]
    assert names == ["02_one,latent_dim=2,seed=2", "02_one,latent_dim=10,seed=0"], "2 before 10"
    assert len(table) == 12 and table[0]["results.test_loss"] == "120" and table[0]["peak_memory_mb"] == "812.3"
    assert table[-1]["status"] == "failed" and table[-1]["results.test_loss"] == "" and EVIL in table[-1]["error"]


@pytest.mark.parametrize("value, text", [
    ("=1+1", "'=1+1"), ("+1", "'+1"), ("-cmd|' /c calc'!A0", "'-cmd|' /c calc'!A0"), ("@SUM(A1)", "'@SUM(A1)"),
    ("\t=1", "'\t=1"),
    (" =1", "' =1"), ("＝1", "'＝1"), ("\rx", "'\rx"), ("a=1", "a=1"), ("", ""), (None, ""), (-1.5, -1.5),
    (True, "true"), ([1, "x"], '[1, "x"]'), ("bad \x00 \ud800", "bad \ufffd \ufffd"), (math.inf, "Infinity")])
def test_no_cell_is_a_formula(value, text):
    assert csv_cell(value) == text


def test_heads_of_columns_are_not_formulas_and_cells_may_hold_separators(tmp_path):
    write_run(tmp_path, "02_one", {"=HYPERLINK(1)": "a;=1,\"b\"\nc", "\ud800": 1}, parameters={"@x": "=2"})
    make_report(tmp_path)
    [row] = rows(tmp_path)
    assert row["results.\ufffd"] == "1" and row["parameters.@x"] == "'=2"
    assert row["results.=HYPERLINK(1)"] == "a;=1,\"b\"\nc"


def test_metrics_are_averaged_over_seeds_and_over_nothing_else(tmp_path):
    values = {(2, 0): 1.0, (2, 1): 2.0, (2, 2): 4.0, (20, 0): 7.0}
    for (dim, seed), loss in values.items():
        write_run(tmp_path, "02_one", {"loss": loss, "name": "x", "ok": True, **({"extra": 5} if seed else {})},
                  varied=["latent_dim", "seed"], parameters={"latent_dim": dim, "seed": seed, "epochs": 3})
    write_run(tmp_path, "02_one,other", {"loss": 100.0}, parameters={"latent_dim": 2, "seed": 3, "epochs": 4})
    names, table = metric_table([read_run(folder) for folder in sorted(tmp_path.iterdir())])
    assert names == ["loss", "extra"]
    table = {setting: (n, metrics) for setting, n, metrics in table}
    std = statistics.stdev([1, 2, 4])
    assert table["latent_dim 2, epochs 3"] == (3, [(pytest.approx(7 / 3), f"2.3 ± {std:.1f}"), (5, "5 ± 0 (n = 2)")])
    assert table["latent_dim 20, epochs 3"] == (1, [(7, "7"), (None, "")])
    assert table["latent_dim 2, epochs 4"][0] == 1


def test_a_seed_that_was_run_twice_counts_once_and_revisions_are_not_mixed(tmp_path):
    write_run(tmp_path, "02_one", {"loss": 9.0}, started="2026-11-20T09:30:00+00:00")      # seed 0, run again below
    for seed, loss in enumerate([1.0, 2.0, 4.0]):
        write_run(tmp_path, "02_one", {"loss": loss}, varied=["seed"], parameters={"seed": seed})
        write_run(tmp_path, "02_one,new", {"loss": 7.0}, varied=["seed"], parameters={"seed": seed}, lab="02_one",
                  revision="f00dcafe")
    _, table = metric_table([read_run(folder) for folder in sorted(tmp_path.iterdir())])
    std = statistics.stdev([1, 2, 4])
    assert {setting: (n, metrics) for setting, n, metrics in table} == {
        "revision 2ae0cb4": (3, [(pytest.approx(7 / 3), f"2.3 ± {std:.1f}")]), "revision f00dcaf": (3, [(7, "7 ± 0")])}


@pytest.mark.parametrize("values, text", [
    ([105.5, 105.6], "105.550 ± 0.071"), ([0.6, 6.0], "3.3 ± 3.8"), ([1e5, 2e5], "150000 ± 70711"), ([7], "7"),
    ([0.0025, 0.0026], "0.002550 ± 0.000071"), ([1e-9, 2e-9], "1.5e-09 ± 7.1e-10"), ([1e90, -1e90], "0 ± 1.4e+90"),
    ([5.5, 5.5], "5.5 ± 0")])
def test_the_mean_has_the_digits_that_its_deviation_leaves(values, text):
    assert spread(values)[1] == text


def test_a_run_that_failed_comes_first_with_its_error(out):
    page = make_report(out).read_text()
    body = page[page.index("<tbody>"):]
    assert body.index('class="bad"') < body.index("RuntimeError") < body.index("02_one,<wbr>latent_dim=2,<wbr>seed=0")
    (out / "05_two,latent_dim=10,seed=2/results.json").write_text('{"test_loss": 1}')      # of an earlier run
    assert make_report(out).read_text() == page
    assert "1 failed" in page and "11 ok" in page and page.count("(failed)") == 1


def test_a_run_leads_to_its_html_and_is_called_by_what_varies(out):
    page = Page(make_report(out))
    assert "02_one%2Clatent_dim%3D10%2Cseed%3D0/02_one.html" in page.all("a", "href")
    assert "samples (latent_dim=10,seed=0)" in page.all("img", "alt")


def test_a_revision_with_changes_is_marked(tmp_path):
    write_run(tmp_path, "01_a", revision="0123456789abcdef", modified=True)
    assert "0123456-dirty" in Page(make_report(tmp_path)).text
    assert rows(tmp_path)[0]["revision"] == "0123456789abcdef-dirty"


def test_run_json_without_the_newer_keys_is_enough(tmp_path):
    (tmp_path / "01_old").mkdir()
    (tmp_path / "01_old/run.json").write_text(json.dumps({"lab": "01_old", "status": "ok", "error": "", "seconds": 3.5,
                                                          "parameters": {}, "python": "3.12", "versions": {}}))
    (tmp_path / "01_old/results.json").write_text('{"loss": 0.5}')
    page = Page(make_report(tmp_path))
    assert rows(tmp_path)[0]["results.loss"] == "0.5" and "1 run of 1 lab: 1 ok. 4 s" in " ".join(page.text.split())
    assert "all runs" in page.text and "damaged" not in page.text


def test_an_interrupted_run_that_has_only_a_notebook_is_shown(tmp_path):
    write_run(tmp_path, "01_a", status="interrupted")
    (tmp_path / "02_b").mkdir()
    (tmp_path / "02_b/02_b.ipynb").write_text("{}")
    for name in (".02_b-x", "data"):        # neither is a run: a part of one, and a folder of something else
        (tmp_path / name).mkdir()
    (tmp_path / ".02_b-x/run.json").write_text("{}")
    text = Page(make_report(tmp_path)).text
    assert [(row["run"], row["status"]) for row in rows(tmp_path)] == [("01_a", "interrupted"), ("02_b", "damaged")]
    assert "run.json cannot be read: No such file" in text


DAMAGES = {
    "not JSON": ("run.json", b"{not json"), "no UTF-8": ("run.json", b'{"lab": "\xff"}'), "empty": ("run.json", b""),
    "a list": ("run.json", b"[1]"), "deep": ("run.json", b"[" * 100_000), "no status": ("run.json", b"{}"),
    "wrong types": ("run.json", b'{"lab": [1], "status": "ok"}'),
    "a huge number": ("run.json", b'{"status": "ok", "seconds": 1' + b"0" * 400 + b"}"),
    "an infinite one": ("run.json", b'{"status": "ok", "peak_memory": 1e999}'),
    "true for a number": ("run.json", b'{"status": "ok", "seconds": true}'),
    "results": ("results.json", b"nonsense"), "results a list": ("results.json", b"[]")}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_named_and_the_others_are_shown(tmp_path, damage):
    write_run(tmp_path, "01_good")
    name, content = DAMAGES[damage]
    (write_run(tmp_path, "02_bad") / name).write_bytes(content)
    text = Page(make_report(tmp_path)).text
    assert "damaged" in text and "01_good" in text
    good, bad = rows(tmp_path)
    assert (good["run"], bad["run"]) == ("01_good", "02_bad") and "damaged" in "".join(bad.values())


def test_missing_and_odd_files_do_not_matter(tmp_path):
    folder = write_run(tmp_path, "01_good")
    for name in ("01_good.html", "results.json"):
        (folder / name).unlink()
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    (folder / "weights.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0notjson!")
    for name in ("folder.png", "folder.safetensors"):
        (folder / name).mkdir()
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "training.state").write_bytes(b"large")
    page = Page(make_report(tmp_path))
    assert "results.json cannot be read" in page.text and len(page.all("img", "src")) == 1
    assert "01_good/" in page.all("a", "href") and not [link for link in page.all("a", "href") if ".state" in link]


anything = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), max_leaves=8,
                        extend=lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(), some, max_size=3))
run_jsons = st.fixed_dictionaries({}, optional={"status": st.sampled_from(["ok", "failed"]), **dict.fromkeys(
    ("parameters", "lab", "seconds", "started", "revision", "error"), anything)})


@settings(max_examples=60, deadline=None)
@given(run=run_jsons, results=anything,
       config=anything | st.fixed_dictionaries({"history": anything, "epochs": anything}))
def test_whatever_the_files_hold_there_is_a_report(run, results, config):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "01_x"
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps(run))
        (folder / "results.json").write_text(json.dumps(results))
        save(folder / "x.safetensors", config)
        Page(make_report(name))
        assert len(rows(Path(name))) == 1


def test_everything_shown_is_escaped(tmp_path):
    evil = EVIL.replace("/", "\\")      # what a file name may hold
    folder = write_run(tmp_path, evil, {EVIL: 1.0, "text": EVIL}, parameters={EVIL: EVIL}, device=EVIL, revision=EVIL,
                       started=EVIL, curves={EVIL: [1.0] * 10, "b": [2] * 10})
    (folder / "samples.png").rename(folder / f"{evil}.png")
    write_run(tmp_path, "01_a", parameters={EVIL: 1}, status=EVIL, error=EVIL, lab=EVIL)
    (tmp_path / "bytes\udcff").mkdir()      # a name that is no UTF-8
    (tmp_path / "bytes\udcff/run.json").write_text(json.dumps({"status": "failed", "error": "\ud800 \x00"}))
    path = make_report(tmp_path)
    page = Page(path)
    assert {tag for tag, _ in page.elements} <= {
        "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "h4", "p", "strong", "a", "nav",
        "ul", "li", "div", "table", "thead", "tbody", "tr", "th", "td", "span", "wbr", "section", "svg", "line",
        "text", "polyline", "figure", "figcaption", "img", "script"}
    assert len(page.all("script", "src")) == 1 and page.text.count(EVIL) >= 6
    for link in page.all("a", "href"):
        assert link.startswith("#") or (tmp_path / os.fsdecode(unquote_to_bytes(link))).exists(), link


def test_the_page_is_sound(out):
    page = Page(make_report(out))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    referred = {link[1:] for link in page.all("a", "href") if link.startswith("#")}
    referred |= {name for _, attributes in page.elements for name in attributes.get("aria-labelledby", "").split()}
    assert len(ids) == len(set(ids)) and referred <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if tag in {"h1", "h2", "h3", "h4"}]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:]))
    assert all(page.all("img", "alt")) and None not in page.all("th", "scope")
    assert all(source.startswith("data:image/webp;base64,") for source in page.all("img", "src"))
    assert not [attributes for _, attributes in page.elements if "style" in attributes], "the CSP would refuse them"
    assert "default-src 'none'" in page.all("meta", "content")[2]


def test_a_second_report_is_the_same_and_leaves_nothing_else(out):
    first = make_report(out).read_bytes()
    assert make_report(out).read_bytes() == first
    assert sorted(p.name for p in out.iterdir() if p.is_file()) == ["index.html", "results.csv"]
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def test_curves_come_from_the_header(tmp_path):
    folder = write_run(tmp_path, "04_two", curves={
        "epoch": [0.5, 1.0, 1.5], "d_loss": [3, 2.5, 2], "loss": list(range(10)), "trace": list(range(20)),
        "weights": [1, 2], "final": 0.5, "diverged": [1.0] * 8 + [math.nan, math.inf], "words": ["a"] * 10, "none": []})
    [path] = folder.glob("*.safetensors")
    curves = read_curves(path)
    assert set(curves) == {"d_loss", "loss", "trace", "diverged"}, "two weights are fewer than the epochs"
    assert curves["d_loss"] == [(0.5, 3), (1.0, 2.5), (1.5, 2)]
    assert curves["loss"] == [(k + 1, k) for k in range(10)] and curves["trace"][:2] == [(0.5, 0), (1, 1)]
    assert curves["diverged"] == [(k + 1, 1) for k in range(8)]
    for config in ({"epochs": 2, "errors": [3, 2]}, [1], None, {"history": None}, {"history": [[1, 2]]},
                   {"epochs": "2", "history": {"epoch": 3}}):
        save(path, config)
        assert read_curves(path) == {}


def test_runs_share_a_chart_and_two_networks_of_one_run_do_not(tmp_path):
    for seed in range(2):
        folder = write_run(tmp_path, "04_two", varied=["seed"], parameters={"seed": seed},
                           curves={"d_loss": falling(0), "slope": falling(1)})
        save(folder / "dcgan.safetensors", {"epochs": 1, "history": {"d_loss": [1.0]}})
    drawn = charts([read_run(folder) for folder in sorted(tmp_path.iterdir())])
    assert [(chart["title"], [k for k, *_ in chart["lines"]]) for chart in drawn] == [
        ("d loss (04_two_net)", [0, 1]), ("slope", [0, 1]), ("d loss (dcgan)", [0, 1])]
    page = make_report(tmp_path).read_text()
    assert page.count("dot") > 2, "a single epoch is a dot"


def test_a_chart_puts_low_below_and_late_right():
    run = "any"
    drawn = chart("loss", [(0, run, [(1, 0.0), (10, 10.0)])])
    [(_, _, n, points)] = drawn["lines"]
    (x0, y0), (x1, y1), _ = ([int(value) for value in point.split(",")] for point in points.split())
    assert n == 2 and x0 < x1 and y0 > y1 and [text for _, text in drawn["y_ticks"]] == ["0", "2", "4", "6", "8", "10"]
    assert x1 == drawn["x_ticks"][-1][0] and y0 == drawn["y_ticks"][0][0]
    long = chart("loss", [(0, run, [(k, math.sin(k)) for k in range(5000)])])
    assert len(long["lines"][0][3].split()) <= 102
    constant = chart("loss", [(0, run, [(1, 0.25), (2, 0.25)])])
    assert len({text for _, text in constant["y_ticks"]}) == len(constant["y_ticks"]) > 2


def test_pictures_are_small_and_the_last_of_each_series(tmp_path):
    folder = write_run(tmp_path, "02_one")
    picture = (folder / "samples.png").read_bytes()
    for name in ("samples_epoch_009.png", "samples_epoch_010.png", "mlp_epoch_001_step_0900.png",
                 "mlp_epoch_002_step_0100.png", "plane.PNG"):
        (folder / name).write_bytes(picture)
    shown, left_out = pictures([read_run(folder)])
    assert {kind: [name for *_, name, _ in some] for kind, some in shown.items()} == {
        "samples": ["samples.png"], "samples, last": ["samples_epoch_010.png"],
        "mlp, last": ["mlp_epoch_002_step_0100.png"], "plane": ["plane.PNG"]}
    smalls = [small for [(*_, small)] in shown.values()]
    assert all((small["width"], small["height"]) == (280, 140) and len(small["address"]) < 30_000 for small in smalls)
    assert list(shown)[:2] == ["samples", "samples, last"] and left_out == 0
    cv2.imwrite(str(folder / "samples.png"), np.zeros((1, 2000), np.uint8))
    assert thumbnail(folder / "samples.png")["height"] == 1


def test_a_picture_has_the_description_that_its_notebook_gives_it(tmp_path, monkeypatch):
    """The notebook may have shown it with labels, or larger; another picture of the same cell does not count."""
    rng, sheets, shown = np.random.default_rng(0), {}, []
    monkeypatch.setattr("labutils.images.display", shown.append)
    cells = [nbformat.v4.new_code_cell("broken", outputs=[nbformat.v4.new_output("error")])]
    folder = write_run(tmp_path, "02_one", parameters={"seed": 3}, picture=False)
    for name in ("plain", "labelled", "large", "other"):
        sheets[name] = rng.integers(0, 255, (56, 84), np.uint8)
        save_image(folder / f"{name}.png", sheets[name])
        show({"plain": sheets[name], "labelled": label_rows(sheets[name], ["a", "b"]),
              "large": sheets[name].repeat(2, 0).repeat(2, 1)}.get(name, sheets["plain"]), alt=f'"{name}" & <it>')
        data, metadata = DisplayFormatter().format(shown.pop())
        output = nbformat.v4.new_output("display_data", data, metadata=metadata)
        cells.append(nbformat.v4.new_code_cell(f'save_image(out_dir / "{name}.png", x)', outputs=[output]))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "02_one.ipynb")
    assert sorted(Page(make_report(tmp_path)).all("img", "alt")) == sorted(
        [*(f'"{name}" & <it> (02_one)' for name in ("plain", "labelled", "large")), "other (02_one)"])


@pytest.mark.parametrize("text", ["", "[]", '{"cells": [{}]}', '{"cells": [{"source": "\\"samples.png\\"", "outputs": '
                                  '[{"metadata": {"image/png": {"alt": 3}}, "data": {"image/png": "AAAA"}}]}]}'])
def test_a_notebook_that_cannot_be_read_describes_nothing(tmp_path, text):
    (write_run(tmp_path, "02_one") / "02_one.ipynb").write_text(text)
    assert Page(make_report(tmp_path)).all("img", "alt") == ["samples (02_one)"]


def test_pictures_of_one_kind_are_shown_together_and_are_not_too_many(tmp_path):
    for seed in range(20):
        folder = write_run(tmp_path, "02_one", varied=["seed"], parameters={"seed": seed})
        for k in range(9):
            shutil.copy(folder / "samples.png", folder / f"kind{k}.png")
    runs = [read_run(folder) for folder in tmp_path.iterdir()]
    for n, kinds in ((2, 8), (20, 7)):
        shown, left_out = pictures(runs[:n])
        assert [len(some) for some in shown.values()] == [n] * kinds and left_out == 10 - kinds and "samples" in shown


def test_a_setting_has_a_colour_and_a_seed_a_dash(tmp_path):
    def look(*runs):
        return line_styles([Run("x", "ok", parameters={"dim": dim, "seed": seed}) for dim, seed in runs])
    assert look((2, 0), (2, 1), (20, 0), (20, 1)) == ["c0 d0", "c0 d1", "c1 d0", "c1 d1"]
    assert look(*((2, seed) for seed in range(8)))[:2] == ["c0 d0", "c1 d0"], "one setting: colours for the seeds"
    assert len(set(look(*((dim, 0) for dim in range(24))))) == 24


@pytest.mark.parametrize("value, text", [
    (60000, "60000"), (105.5198, "105.5"), (0.000123456, "0.0001235"), (1e12, "1e+12"), (-23456.7, "-23457"), (3, "3"),
    (True, "True"), (None, "None"), ("x", "x"), (math.inf, "inf")])
def test_numbers_are_short(value, text):
    assert short(value) == text


@pytest.mark.parametrize("seconds, text", [(0.4, "0 s"), (99, "99 s"), (130, "2 min"), (3599, "60 min"),
                                           (7150, "1 h 59 min"), (7190, "2 h 00 min")])
def test_durations_are_in_words(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("name, part", [
    ("nowhere", "is not a folder"), ("file", "is not a folder"), ("empty", "there are no runs"),
    ("others", "there are no runs"), ("closed", "cannot write the report")])
def test_what_cannot_be_reported_is_said_in_one_line(tmp_path, capsys, name, part):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "others/notes").mkdir(parents=True)
    write_run(tmp_path / "closed", "01_a")
    (tmp_path / "closed/results.csv").mkdir()       # for root every folder is open
    assert cli.main(["report", str(tmp_path / name)]) == 2
    message = capsys.readouterr().err
    assert part in message and str(tmp_path / name) in message and message.count("\n") == 1
    assert not list(tmp_path.glob("*/index.html"))


def test_the_template_is_packed():
    declared = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    files = {path.name for path in (PROJECT_ROOT / "labutils/instructor").glob("*.*") if path.suffix != ".py"}
    assert files and all(any(fnmatch(name, pattern) for pattern in declared["labutils.instructor"]) for name in files)


@pytest.fixture
def many(tmp_path):
    """200 runs of one lab, with five curves and a picture each."""
    for seed in range(200):
        write_run(tmp_path / "many", "05_two", {f"figure_{k}": seed * k for k in range(8)}, varied=["seed"],
                  parameters={"seed": seed}, curves={name: falling(seed, 500) for name in "abcde"})
    return tmp_path / "many"


def test_two_hundred_runs_make_a_page_of_a_few_megabytes(many):
    path = make_report(many)
    page = Page(path)
    assert path.stat().st_size < 6e6 and len(page.all("img", "src")) == 200 and len(rows(many)) == 200
    assert page.all("polyline", "class").count("c0 d0") < 200, "24 looks, so that neighbours differ"


def open_page(browser, path, **options):
    """Open a file in a browser; return the page and the list of what it has asked for or complained about."""
    page, events = browser.new_page(**options), []
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    page.on("request", lambda request: events.append(request.url) if not request.url.startswith("data:") else None)
    page.goto(path.as_uri(), timeout=60_000)
    assert events.pop(0) == path.as_uri()
    return page, events


@pytest.mark.browser
def test_in_a_browser_rows_are_sorted_and_nothing_is_loaded(browser, out):
    write_run(out, "01_evil", {EVIL: 1.0}, parameters={"x": EVIL}, lab=EVIL, seconds=9.25)
    write_run(out, "01_half", seconds=9.5)
    write_run(out, "01_unknown", seconds=None)
    (out / "01_evil/samples.png").rename(out / "01_evil/<img src=x onerror=alert(1)>.png")
    page, events = open_page(browser, make_report(out))
    table = page.locator("table").first
    seconds = table.locator("tbody tr td:nth-child(4)")
    assert seconds.first.text_content() == "75 s"
    table.locator("th button", has_text="Time").first.click()
    assert seconds.all_text_contents() == ["9 s", "10 s", *["75 s"] * 12, ""]
    table.locator("th button", has_text="Time").first.click()
    assert seconds.all_text_contents() == [*["75 s"] * 12, "10 s", "9 s", ""], "what is missing stays below"
    assert table.locator("th[aria-sort]").text_content() == "Time"
    table.locator("th button", has_text="Run").click()
    names = table.locator("tbody th").all_text_contents()
    assert names == sorted(names, key=lambda name: natural(Path(name))) and names[0].startswith("01_evil")
    table.locator("th button", has_text="Run").click()
    assert table.locator("tbody th").all_text_contents() == names[::-1]
    assert page.title() == "Runs in sweep" and events == []
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    ground = page.locator("tr.bad").first.evaluate("row => getComputedStyle(row).backgroundColor")
    assert ground == "rgb(253, 238, 233)", "the CSP lets the style in"
    page.close()


@pytest.mark.browser
def test_the_page_fits_a_phone_and_a_dark_ground(browser, out):
    page, events = open_page(browser, make_report(out), viewport={"width": 360, "height": 700}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360 and events == []
    boxes = page.evaluate("""[...document.querySelectorAll('table')].map(table => {
        const box = table.parentElement;
        box.scrollLeft = 100;
        const left = element => Math.round(element.getBoundingClientRect().left - box.getBoundingClientRect().left);
        return [getComputedStyle(box).overflowX, box.scrollLeft, left(table), left(table.rows[1].cells[0])];
    })""")
    assert boxes[0] == ["auto", 100, -100, 0] and {box[0] for box in boxes} == {"auto"}, "the names stay in sight"
    colours = page.evaluate("['body', '.bad'].map(name => getComputedStyle(document.querySelector(name)).color)")
    assert colours == ["rgb(255, 255, 255)", "rgb(255, 156, 128)"]
    page.close()


@pytest.mark.browser
def test_the_page_can_be_read_without_eyes_and_without_a_network(browser, out):
    flaws = page_flaws(browser, make_report(out))
    assert not flaws, "\n".join(flaws)


@pytest.mark.browser
def test_without_script_the_page_is_whole(browser, out):
    page, events = open_page(browser, make_report(out), java_script_enabled=False)
    assert page.locator("table").first.locator("tbody tr").count() == 12 and page.locator("svg polyline").count() > 12
    assert page.locator("th button").count() == 0
    page.close()


@pytest.mark.browser
def test_two_hundred_runs_are_sorted_at_a_click(browser, many):
    page, events = open_page(browser, make_report(many))
    table = page.locator("table").first
    table.locator("th button", has_text="Parameters").click()
    assert table.locator("tbody th").nth(199).text_content() == "05_two,seed=199" and events == []
    page.close()
