"""Bands for the figures of a run: how they are made, and what lies outside."""

import json
import math

import pytest
import yaml
from helpers import command
from scipy.stats import norm

from labutils.instructor import bands, cli, labs
from labutils.instructor.bands import band, bands_of, check, make_bands
from labutils.instructor.labs import UsageError
from labutils.instructor.run import Outcome, find_results


def write_runs(folder, lab, losses, revision="abc", **parameters):
    """Write reduced runs with a seed for each loss."""
    for seed, loss in enumerate(losses):
        run = folder / f"{lab},seed={seed}"
        run.mkdir(parents=True)
        parameters = {**labs.quick_settings(lab), **parameters, "seed": seed}
        about = {"lab": lab, "status": "ok", "parameters": parameters, "revision": revision if seed else "0ld"}
        (run / "run.json").write_text(json.dumps(about))
        results = {"loss": loss, "modes": 8, "epochs": 3, "dcgan_n_samples": 99, "faces_best_epoch": 9, "seconds": 10 + loss, "device": "cpu", "verified": True}
        (run / "results.json").write_text(json.dumps(results))


@pytest.fixture
def expected(tmp_path, monkeypatch):
    monkeypatch.setattr(bands, "EXPECTED", tmp_path / "expected.yml")
    return tmp_path / "expected.yml"


def test_a_band_holds_all_but_one_in_a_thousand():
    """For so many values that their deviation is known, it ends at the 0.05 % and the 99.95 % point."""
    values = norm.ppf([(i + 0.5) / 20_000 for i in range(20_000)], loc=10, scale=2).tolist()
    assert band(values) == pytest.approx([10 - 2 * norm.ppf(0.9995), 10 + 2 * norm.ppf(0.9995)], abs=0.01)


def test_few_values_make_a_wide_band_and_equal_ones_a_narrow_one():
    low, high = band([1.0, 1.1, 0.9, 1.0, 1.0])
    deviation = 0.005**0.5
    assert (high - low) / 2 == pytest.approx(8.610 * deviation * (6 / 5) ** 0.5, rel=1e-3)      # t of 4 degrees of freedom
    assert band([8, 8, 8, 8, 8]) == [7.92, 8.08]
    assert band([-50.0] * 5) == [-50.5, -49.5] and band([0.0] * 5) == [-0.01, 0.01]


def test_bands_are_made_of_figures_and_keep_those_of_other_labs(tmp_path, expected):
    write_runs(tmp_path / "a", "02_vae", [100, 101, 102, 101, 100], device="cpu")
    write_runs(tmp_path / "b", "04_gan", [1, 2, 3, 2, 1])
    assert make_bands(tmp_path / "a", "quick") == {"02_vae": 2} and make_bands(tmp_path / "b", "quick") == {"04_gan": 2}
    made = yaml.safe_load(expected.read_text())["quick"]
    assert set(made) == {"02_vae", "04_gan"} and set(made["02_vae"]["figures"]) == {"loss", "modes"}
    assert made["02_vae"]["seeds"] == [0, 1, 2, 3, 4] and made["02_vae"]["revisions"] == ["0ld", "abc"]
    assert "labs run --quick -p seed 0,1,2,3,4" in expected.read_text()


def test_too_few_seeds_and_runs_of_another_profile_make_no_band(tmp_path, expected):
    write_runs(tmp_path / "a", "02_vae", [100, 101, 102, 101])
    with pytest.raises(UsageError, match=r"02_vae has 4 seed\(s\)"):
        make_bands(tmp_path / "a", "quick")
    write_runs(tmp_path / "b", "02_vae", [100] * 5, beta=2)
    with pytest.raises(UsageError, match="seed=0 was run with other values of beta than the profile 'quick'"):
        make_bands(tmp_path / "b", "quick")
    with pytest.raises(UsageError, match="seed=0 was run with other values of dataset, epochs.* than the profile 'full'"):
        make_bands(tmp_path / "a", "full")
    with pytest.raises(UsageError, match="no runs that went well"):
        make_bands(tmp_path, "quick")
    assert not expected.exists()


def test_the_lessons_values_are_the_profile_full_whether_they_are_named_or_not(tmp_path, expected):
    write_runs(tmp_path, "02_vae", [100] * 5)
    for number, path in enumerate(sorted(tmp_path.glob("*/run.json"))):
        run = json.loads(path.read_text())
        parameters = {"seed": number, "batch_size": labs.effective_parameters("02_vae", {})["batch_size"]}
        path.write_text(json.dumps(run | {"parameters": parameters}))
    assert make_bands(tmp_path, "full") == {"02_vae": 2}


@pytest.mark.parametrize("name, text, part", [
    ("run.json", "{", "run.json is damaged"), ("results.json", None, "results.json cannot be read"),
    ("results.json", "[1]", "results.json is damaged")])
def test_a_damaged_run_is_named_and_makes_no_band(tmp_path, expected, capsys, name, text, part):
    write_runs(tmp_path / "a", "02_vae", [100] * 6)
    path = tmp_path / "a/02_vae,seed=3" / name
    path.unlink() if text is None else path.write_text(text)
    assert cli.main(["bands", str(tmp_path / "a"), "quick"]) == 2
    message = capsys.readouterr().err
    assert f"02_vae,seed=3: {part}" in message and "remove its folder" in message and message.count("\n") == 1
    assert not expected.exists()


@pytest.mark.parametrize("text, part", [
    ("quick: {", "flow node"), ("[1]", "list"), ("quick: {02_vae: {figures: {loss: [low, 3]}}}", "no pair of numbers"),
    ("quick: {02_vae: {figures: {loss: 3}}}", "int"), ("quick: {02_vae: {seeds: [0]}}", "figures"), ("x: 2020-13-45", "month"),
    ("", "no bands of 02_vae for the profile 'quick'"),
    ("quick: {04_gan: {figures: {}}}", "no bands of 02_vae for the profile 'quick'")])
def test_bands_that_cannot_be_read_or_are_not_there_are_named_before_anything_runs(tmp_path, expected, capsys, text, part):
    expected.write_text(text)
    assert cli.main(["run", "02_vae", "--quick", "--check", "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert str(expected) in message and part in message and message.count("\n") == 1, message
    assert not (tmp_path / "out").exists()


def test_what_lies_outside_is_named(tmp_path, expected):
    write_runs(tmp_path / "a", "02_vae", [100, 101, 102, 101, 100])
    make_bands(tmp_path / "a", "quick")
    quick = bands_of(["02_vae"], "quick")
    good = Outcome("02_vae", "ok", 1, {"loss": 100.5, "modes": 8})
    assert check([good], quick) == ([], 2)
    [line], _ = check([good._replace(results={"loss": 130.0, "modes": 8}, run="02_vae,seed=7")], quick)
    assert line.startswith("02_vae,seed=7: loss = 130.0 lies outside 92.")
    for value in (None, "100.5", math.nan, True, [100.5]):
        [line], _ = check([good._replace(results={"loss": value, "modes": 8})], quick)
        assert f"loss = {value} lies outside" in line
    assert check([good._replace(status="failed", results={})], quick) == ([], 0)      # said already, by its status


def test_check_refuses_other_parameters_and_fails_outside_the_bands(tmp_path, expected, monkeypatch, capsys):
    assert cli.main(["run", "02_vae", "--quick", "--check", "-p", "beta", "4", "--out", str(tmp_path / "out")]) == 2
    assert "--check compares" in capsys.readouterr().err and not (tmp_path / "out").exists()
    write_runs(tmp_path / "a", "02_vae", [100, 101, 102, 101, 100])
    make_bands(tmp_path / "a", "quick")
    from labutils.instructor import jobs
    for loss, code in ((100.5, 0), (130.0, 1)):
        monkeypatch.setattr(jobs, "run_jobs", lambda *_, loss=loss: [Outcome("02_vae", "ok", 1, {"loss": loss, "modes": 8})])
        arguments = ["run", "02_vae", "--quick", "--check", "-p", "seed", "3", "--device", "cpu", "--out", str(tmp_path / "out")]
        assert cli.main(arguments) == code
    assert "loss = 130.0 lies outside" in capsys.readouterr().out


def test_the_figures_of_quick_runs_lie_in_their_bands(tmp_path):
    """Of all labs that have some; what the command prints names a figure outside, or a lab that failed."""
    quick = bands.read_expected()["quick"]
    n_figures = sum(len(about["figures"]) for about in quick.values())
    done = command("labs", "run", *quick, "--quick", "--check", "--device", "cpu", "--jobs", 2, "--out", tmp_path, timeout=3600)
    assert done.returncode == 0 and f"{n_figures} figures compared with tests/expected.yml, 0 faults" in done.stdout, done.stdout + done.stderr


def test_the_bands_are_of_labs_that_are_there_and_of_five_seeds():
    for profile in bands.read_expected().values():
        assert set(profile) <= set(labs.lab_names())
        assert all(len(about["seeds"]) >= 5 and about["figures"] for about in profile.values())


def test_the_figures_stored_in_the_notebooks_lie_in_their_bands():
    """The notebooks are shipped as they ran at the lesson's values: the profile "full"."""
    full = bands_of(bands.read_expected()["full"], "full")
    outside, n_compared = check([Outcome(lab, "ok", 0, find_results(labs.read_lab(lab))) for lab in full], full)
    assert not outside and n_compared > 40
