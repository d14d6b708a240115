"""Bands for the metrics of a run: how they are made, and what is outside them."""

import json
import math

import pytest
import yaml
from helpers import RESULT
from scipy.stats import norm

from labutils.instructor import cli, labs
from labutils.instructor.bands import band, bands_of, check, make_bands
from labutils.instructor.labs import UsageError
from labutils.instructor.record import Outcome

SMALL_LABS = {"01_one": [RESULT], "02_two": [RESULT]}
METRICS = "metrics: {loss: [null, null], modes: [0, 8], recall: [0, 1]}\n"


@pytest.fixture
def expected(notebooks):
    """The folder of the bands: both labs have a list of metrics, and no bands; reduced settings take 1 epoch."""
    for kind, text in (("expected", METRICS), ("quick", "epochs: 1")):
        (notebooks / kind).mkdir()
        for name in SMALL_LABS:
            (notebooks / f"{kind}/{name}.yml").write_text(text)
    return notebooks / "expected"


def write_runs(folder, lab, losses, **parameters):
    """Write reduced runs with a seed for each loss; the first is of another revision."""
    for seed, loss in enumerate(losses):
        run = folder / f"{lab},seed={seed}"
        run.mkdir(parents=True)
        about = {"lab": lab, "status": "ok", "revision": "abc" if seed else "0ld",
                 "parameters": {"epochs": 1, **parameters, "seed": seed}}
        (run / "run.json").write_text(json.dumps(about))
        metrics = {"loss": loss, "modes": 8, "recall": seed % 2, "epochs": 1, "seconds": 9.5, "device": "cpu"}
        (run / "results.json").write_text(json.dumps(metrics))


def test_a_band_holds_all_but_one_in_a_thousand():
    """For so many values that their deviation is known, it ends at the 0.05 % and the 99.95 % point."""
    values = norm.ppf([(i + 0.5) / 20_000 for i in range(20_000)], loc=10, scale=2).tolist()
    assert band(values) == pytest.approx([10 - 2 * norm.ppf(0.9995), 10 + 2 * norm.ppf(0.9995)], abs=0.01)


def test_few_values_make_a_wide_band_and_equal_ones_a_narrow_one():
    low, high = band([1.0, 1.1, 0.9, 1.0, 1.0])
    deviation = 0.005**0.5
    assert (high - low) / 2 == pytest.approx(8.610 * deviation * (6 / 5) ** 0.5, rel=1e-3)      # t, 4 degrees
    assert band([8, 8, 8, 8, 8]) == [7.92, 8.08]
    assert band([-50.0] * 5) == [-50.5, -49.5] and band([0.0] * 5) == [-0.01, 0.01]


def test_a_band_is_cut_to_what_a_metric_can_be_and_left_out_where_no_run_could_leave_it():
    assert band([8] * 5, (0, 8)) == [7.92, 8] and band([0.0] * 5, (0, None)) == [0, 0.01]
    assert band([-50.0] * 5, (None, -50)) == [-50.5, -50] and band([3] * 5, (0, 8)) == [2.97, 3.03]
    assert band([0, 1, 0, 1, 0], (0, 1)) is None


def test_bands_are_made_of_the_listed_metrics_and_keep_those_of_other_labs_and_profiles(tmp_path, expected):
    (expected / "01_one.yml").write_text(METRICS + "full: {seeds: [0, 1, 2, 3, 4], bands: {loss: [0, 9]}}")
    write_runs(tmp_path / "a", "01_one", [100, 101, 102, 101, 100], device="cpu")
    write_runs(tmp_path / "b", "02_two", [1, 2, 3, 2, 1])
    assert make_bands(tmp_path / "a", "quick") == {"01_one": 2} and make_bands(tmp_path / "b", "quick") == {"02_two": 2}
    made = yaml.safe_load((expected / "01_one.yml").read_text())
    assert set(made["quick"]["bands"]) == {"loss", "modes"}, "a band of recall would cover its whole range"
    assert made["quick"]["seeds"] == [0, 1, 2, 3, 4] and made["quick"]["revisions"] == ["0ld", "abc"]
    assert made["full"]["bands"] == {"loss": [0, 9]} and made["metrics"]["loss"] == [None, None]
    assert "&" not in (expected / "01_one.yml").read_text(), "no anchors of YAML"


def test_too_few_seeds_missing_metrics_and_another_profile_make_no_band(tmp_path, expected):
    write_runs(tmp_path / "a", "01_one", [100, 101, 102, 101])
    write_runs(tmp_path / "b", "01_one", [100] * 5, rate=2.0)
    write_runs(tmp_path / "c", "01_one", [100, 101, 102, 101, None])
    for folder, profile, part in (
            ("a", "quick", r"01_one has 4 seed\(s\)"),
            ("b", "quick", "seed=0 was run with other values of rate than the profile 'quick'"),
            ("a", "full", "seed=0 was run with other values of epochs than the profile 'full'"),
            ("c", "quick", "seed=4: the run has no metric 'loss'"), ("", "quick", "no runs that went well")):
        with pytest.raises(UsageError, match=part):
            make_bands(tmp_path / folder, profile)
    assert (expected / "01_one.yml").read_text() == METRICS


def test_the_lessons_values_are_the_profile_full_whether_they_are_named_or_not(tmp_path, expected):
    write_runs(tmp_path, "01_one", [100] * 5, epochs=labs.effective_parameters("01_one", {})["epochs"])
    assert make_bands(tmp_path, "full") == {"01_one": 2}


@pytest.mark.parametrize("name, text, part", [
    ("run.json", "{", "run.json is damaged"), ("results.json", None, "results.json cannot be read"),
    ("results.json", "[1]", "results.json is damaged")])
def test_a_damaged_run_is_named_and_makes_no_band(tmp_path, expected, capsys, name, text, part):
    write_runs(tmp_path / "a", "01_one", [100] * 6)
    path = tmp_path / "a/01_one,seed=3" / name
    path.unlink() if text is None else path.write_text(text)
    assert cli.main(["bands", str(tmp_path / "a"), "quick"]) == 2
    message = capsys.readouterr().err
    assert f"01_one,seed=3: {part}" in message and "remove its folder" in message and message.count("\n") == 1
    assert (expected / "01_one.yml").read_text() == METRICS


@pytest.mark.parametrize("text, part", [
    ("quick: {", "flow node"), ("[1]", "form 'name: value'"), ("x: 2020-13-45", "month"), (None, "there is no file"),
    ("quick: {}", "metrics"), (METRICS + "quick: {bands: {loss: [low, 3]}}", "not a pair of numbers"),
    (METRICS + "quick: {bands: {loss: 3}}", "TypeError"), (METRICS + "quick: {seeds: [0]}", "bands"),
    (METRICS + "quick: {bands: {lost: [1, 2]}}", "'metrics' does not list"),
    (METRICS, "no bands for the profile 'quick'"), (METRICS + "full: {bands: {}}", "no bands for the profile 'quick'")])
def test_bands_that_cannot_be_read_are_named_before_anything_runs(tmp_path, expected, capsys, text, part):
    path = expected / "01_one.yml"
    path.unlink() if text is None else path.write_text(text)
    assert cli.main(["run", "01_one", "--quick", "--check", "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert str(path) in message and part in message and message.count("\n") == 1, message
    assert not (tmp_path / "out").exists()


def test_what_is_outside_is_named(tmp_path, expected):
    write_runs(tmp_path / "a", "01_one", [100, 101, 102, 101, 100])
    make_bands(tmp_path / "a", "quick")
    quick = bands_of(["01_one"], "quick")
    metrics = {"loss": 100.5, "modes": 8, "recall": 0.5}
    good = Outcome("01_one", "ok", 1, metrics)
    assert check([good], quick) == ([], 3)
    [line], _ = check([good._replace(metrics=metrics | {"loss": 130.0}, name="01_one,seed=7")], quick)
    assert line.startswith("01_one,seed=7: loss = 130.0 is outside 92.")
    for value in (50.0, None, "100.5", math.nan, True, [100.5]):
        [line], _ = check([good._replace(metrics=metrics | {"loss": value})], quick)
        assert f"loss = {value} is outside" in line
    for recall in (None, 1.5, -0.1):        # it has no band, but must be reported, and be possible
        [line], _ = check([good._replace(metrics=metrics | {"recall": recall})], quick)
        assert f"recall = {recall} is outside 0 to 1" in line
    assert check([good._replace(status="failed", metrics={})], quick) == ([], 0)      # its status says it already


def test_check_refuses_other_parameters_and_fails_outside_the_bands(tmp_path, expected, capsys):
    run = ["run", "01_one", "--quick", "--check", "--out", str(tmp_path / "out")]
    for name in SMALL_LABS:
        (expected / f"{name}.yml").write_text("metrics: {loss: [0, 9]}\nquick: {bands: {loss: [0, 1.5]}}")
    assert cli.main([*run, "-p", "rate", "4"]) == 2
    assert "--check compares" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert cli.main([*run, "-p", "seed", "3", "--device", "cpu"]) == 0
    assert "1 metrics compared with notebooks/expected, 0 faults" in capsys.readouterr().out
    (labs.NOTEBOOKS / "quick/01_one.yml").write_text("value: 2")
    (labs.NOTEBOOKS / "02_two.ipynb").write_text("{not json")
    assert cli.main([*run, "02_two"]) == 1, "a lab that is damaged fails, the other one is compared"
    assert ", 1 faults\n01_one: loss = 2 is outside 0 to 1.5" in capsys.readouterr().out


def test_a_report_that_cannot_be_written_is_a_fault_and_the_check_goes_on(tmp_path, expected, capsys):
    for name in SMALL_LABS:
        (expected / f"{name}.yml").write_text("metrics: {loss: [0, 9]}\nfull: {bands: {loss: [0, 2]}}")
    (tmp_path / "out/results.csv").mkdir(parents=True)
    assert cli.main(["run", "--check", "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    assert "labs run: cannot write the report into" in printed.err and "2 metrics compared" in printed.out
