"""Lab 10: its generators, the scoreboard and what it says in README.md, and the cells that show what a family can."""

import math
import re
from statistics import fmean

import nbformat
import pytest
import torch
from helpers import LABS, cell_source, code_cells, definitions, notebook_path
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily

from labutils.checkpoints import read_card, save_checkpoint
from labutils.device import seed_everything
from labutils.errors import BadValue
from labutils.evaluation import ImageClassifier
from labutils.instructor import compare
from labutils.instructor.bands import read_expected
from labutils.instructor.labs import UsageError, lab_parameters, read_lab
from labutils.instructor.record import find_metrics

NAME = "10_compare"
ENTRIES = ("vaes", "gans", "autoregressive", "vqvae", "vae_gan", "flows")
# what the labs store with their weights, and lab 10 needs to build the networks
CONFIG = {"architecture": "784-400-20", "latent_dim": 5, "channels": 8, "n_layers": 1, "n_codes": 6, "code_dim": 4,
          "grid": 7}


def execute(space, *ids):
    """Execute cells of the lab in the namespace of its definitions."""
    for cell_id in ids:
        exec(cell_source(NAME, cell_id), vars(space))


@pytest.fixture
def lab():
    """The definitions of the lab with its entries, and a few grey pictures for data."""
    space = definitions(NAME)
    space.GENERATORS = {}
    seed_everything(0)
    images = (255 * torch.rand(60, 1, 28, 28)).byte()
    space.train, space.test, space.n = images[:40], images[40:], 20
    space.train_loader = type("Loader", (), {"labels": torch.arange(40) % 10})
    execute(space, *ENTRIES, "find")
    return space


def built(lab, key):
    """Return what draws and draw(n) of an entry, whose networks are not trained."""
    def load(number=0, **modules):
        [module] = modules.values()
        assert number < len(lab.GENERATORS[key].weights)
        return module.eval()
    return lab.GENERATORS[key].build(CONFIG, load)


# -------------------------------------------------------------------------------------- the generators

def test_each_entry_draws_as_many_pictures_as_are_asked_for_and_not_the_same_again(lab):
    for key, entry in lab.GENERATORS.items():
        network, draw = built(lab, key)
        pictures, more = (lab.draw_many(draw, 5, batch_size=3) for _ in range(2))
        assert pictures.shape == (5, 1, 28, 28) and pictures.dtype == torch.uint8, key
        assert not torch.equal(pictures, more), key
        assert sum(p.numel() for p in network.parameters()) > 100
        assert not entry.binary or set(pictures.unique().tolist()) <= {0, 255}


def test_each_entry_names_a_lab_and_metrics_that_its_weights_have(lab):
    card = read_card()
    for entry in lab.GENERATORS.values():
        assert entry.lab in LABS and entry.nats[0] in ("exact", "bound", "none")
        assert all(name.startswith(entry.lab[:2]) for name in entry.weights)
        for number, metric in entry.nats[1:]:
            about = card.get(f"{entry.weights[number]}_mnist")
            assert about is None or about["metrics"][metric] > 0
    shipped = {name.removesuffix("_mnist") for entry in lab.GENERATORS.values() for name in entry.weights}
    generators = {name for name, about in card.items() if about["lab"] in
                  {entry.lab for entry in lab.GENERATORS.values()} and re.search("vae|gan|flow|regressive", name)}
    others = {"02_vae_classifier", "06_vae", "07_vqvae_level", "07_vqvae_level_prior"}      # parts of a lesson
    assert {name.removesuffix("_mnist") for name in generators} - shipped <= others


def test_the_flow_draws_as_lab_09_judges_it(lab):
    called, theirs = {}, lab.from_lab

    def paint(net, x0, y, **options):
        called.update(options)
        return x0
    lab.from_lab = lambda *names: (theirs("09_flows", "UNet"), paint)
    _, draw = built(lab, "flow_matching")
    draw(2)
    default = {name: float(about["default"]) for name, about in lab_parameters("09_flows").items()
               if name in ("steps_per_picture", "guidance")}
    assert called == {"steps": default["steps_per_picture"], "guidance": default["guidance"]}
    assert called["steps"] * 4 == 20 and lab.GENERATORS["flow_matching"].name.endswith("20 calls")


def test_the_bound_of_codes_and_pixels_is_the_sum_of_both(lab):
    card = read_card()
    metrics = [card[f"{name}_mnist"]["metrics"] for name in lab.GENERATORS["vqvae"].weights]
    lab.generators = {"vqvae": ([{"metrics": about} for about in metrics], None, None)}
    assert lab.nats_of("vqvae") == metrics[0]["test_reconstruction"] + metrics[1]["test_nats"]


def test_a_missing_checkpoint_says_which_lab_trains_it_and_the_others_go_on(lab, tmp_path, capsys):
    vae, _ = built(lab, "vae")
    whole = lab.from_lab("02_vae", "VAE")((784, 400, 20))
    lab.runs, lab.dataset = str(tmp_path), "digits"
    for run in ("a", "b"):      # two runs of one lab
        save_checkpoint(tmp_path / run / "02_vae_784-400-20_digits.safetensors",
                        config={"architecture": "784-400-20", "metrics": {"test_loss": 99.5}, "seconds": 7},
                        vae=whole)
    execute(lab, "load")
    told = capsys.readouterr().out
    assert list(lab.generators) == ["vae"] and "2 files, taking the one in a" in told
    assert "DCGAN: left out (no weights 04_gan_dcgan; 'labs run 04_gan' trains them)" in told
    execute(lab, "words")
    assert lab.nats_of("vae") == 99.5 and lab.nats_text("vae") == "≤ 99.5"


def test_weights_of_another_network_are_left_out_in_one_line_and_none_at_all_is_an_error(lab, tmp_path, capsys):
    lab.runs, lab.dataset = str(tmp_path), "mnist"
    with pytest.raises(BadValue, match=f"runs='{tmp_path}': no weights of any lab for mnist"):
        execute(lab, "load")
    save_checkpoint(tmp_path / "04_gan_mlp_mnist.safetensors", config={"latent_dim": 7, "metrics": {}},
                    generator=lab.from_lab("04_gan", "MLPGenerator")(6))
    capsys.readouterr()
    with pytest.raises(BadValue, match="no weights"):
        execute(lab, "load")
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("MLP GAN")]
    assert "left out" in line and "does not fit the module 'generator'" in line


@pytest.mark.parametrize("changed, words", [
    ({"n_draws": 1}, "n_draws=1: must be a whole number of at least 2"),
    ({"n_samples": 9}, "n_samples=9: must be a whole number of at least 10"),
    ({"limit": 3}, "limit=3"), ({"dataset": "kmnist"}, "dataset='kmnist': the course's weights have learned digits"),
    ({"runs": "runs/nowhere"}, "runs='runs/nowhere': there is no such folder")])
def test_a_bad_value_is_refused_before_anything_is_loaded(tmp_path, changed, words):
    space = {}
    for cell_id in ("imports", "parameters"):
        exec(cell_source(NAME, cell_id), space)
    space |= {"out_dir": str(tmp_path), "device": "cpu", **changed}
    with pytest.raises(ValueError, match=re.escape(words)):
        exec(cell_source(NAME, "set-up"), space)


# --------------------------------------------------------------------------------------- the judging

def test_the_judging_measures_each_draw_and_times_the_drawing_alone(lab, monkeypatch):
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(lab.time, "perf_counter", lambda: next(clock))
    drawn, measured = [], []

    def draw(n):
        drawn.append(n)
        return lab.train[:n]

    class Ruler:
        def measure(self, pictures, n_nearest):
            measured.append(len(pictures))
            return {"frechet": float(len(measured))}
    mean, spread, seconds, kept = lab.judge_draws(draw, 3, Ruler())
    assert drawn == measured == [20, 20, 20] and torch.equal(kept, lab.train[:20])
    assert mean == {"frechet": 2} and spread == {"frechet": 1} and seconds == 1000 * 15 / 60


def test_black_and_white_is_compared_with_black_and_white_and_copies_are_training_images(lab):
    compared = {}

    class Ruler:
        def __init__(self, classifier, images, n):
            self.images = images

        def measure(self, pictures, n_nearest=0):
            compared.setdefault(tuple(self.images.unique().tolist()), []).append(pictures)
            return {"frechet": 0.0}
    lab.GENERATORS = {"grey": lab.Entry("grey", "GAN", "04_gan", (), None),
                      "binary": lab.Entry("binary", "GAN", "04_gan", (), None, draws=2, binary=True)}
    lab.generators = {key: (None, None, lambda n, fill=fill: torch.full((n, 1, 28, 28), fill, dtype=torch.uint8))
                      for key, fill in (("grey", 7), ("binary", 255))}
    lab.Yardstick, lab.classifier, lab.yardstick = Ruler, None, Ruler(None, lab.train, 20)
    lab.seed, lab.n_draws, lab.progress = 1, 3, lambda keys, text: keys        # with seed 0 the tosses are the pictures
    execute(lab, "judge")
    black_and_white, grey = compared.pop((0, 255)), compared.popitem()[1]
    assert [set(pictures.unique().tolist()) <= {0, 255} for pictures in black_and_white] == [True] * 3     # the floor
    assert [int(pictures.max()) for pictures in grey[:3]] == [7] * 3 and len(grey) == 6
    reference = lab.train[:lab.n].flatten(1).tolist()
    assert all(row in reference for pictures in grey[3:] for row in pictures.flatten(1).tolist())
    assert torch.equal(lab.judged["copies"][3], grey[3]) and lab.judged["grey"][0] == {"frechet": 0.0}


def test_binarised_pictures_have_the_grey_values_as_their_mean(lab):
    grey = torch.arange(0, 256, 51, dtype=torch.uint8)
    drawn = lab.binarised(grey[:, None].expand(-1, 20_000))
    assert set(drawn.unique().tolist()) == {0, 255}
    torch.testing.assert_close(drawn.float().mean(1), grey.float(), rtol=0, atol=3)
    assert drawn[0].max() == 0 and drawn[-1].min() == 255, "black stays black, and white white"


def test_the_likelihood_of_copies_is_that_of_a_mixture(lab):
    copied, real = torch.bernoulli(torch.rand(2, 7, 1, 28, 28)).unbind()
    flip = 0.1
    components = Independent(Bernoulli(copied.flatten(1) * (1 - 2 * flip) + flip), 1)
    mixture = MixtureSameFamily(Categorical(torch.ones(7)), components)
    expected = -mixture.log_prob(real.flatten(1)).mean().item()
    assert lab.copies_nats(real, copied, flip) == pytest.approx(expected, rel=1e-5)


def test_a_mixture_with_noise_loses_no_more_than_log_100(lab):
    """The bound of section 6, on a distribution whose density is known."""
    p = torch.distributions.Normal(torch.zeros(50), 0.1)
    noise = torch.distributions.Uniform(torch.full((50,), -5.0), 5.0)
    x = p.sample((1000,))
    both = torch.stack([p.log_prob(x).sum(1) + math.log(0.01), noise.log_prob(x).sum(1) + math.log(0.99)])
    loss = p.log_prob(x).sum(1) - both.logsumexp(0)
    assert loss.max() <= math.log(100) + 1e-4


# ----------------------------------------------------------------------------------- what is written

def test_the_cells_that_show_what_a_family_can_do_are_there(lab):
    execute(lab, "abilities")
    for family, shown in lab.CAN.items():
        assert set(shown) <= set(lab.ABILITIES)
        for place in filter(None, shown.values()):
            name, cell_id = place
            ids = [cell.id for cell in code_cells(notebook_path(name))]
            assert cell_id in ids, (family, place)
            assert re.fullmatch(r"\d\d, \d+", lab.section_of(*place)), (family, place)
    assert lab.section_of("02_vae", "bounds") == "02, 9" and lab.section_of("99_none", "x") == "99"


@pytest.mark.parametrize("key, name, start", [("vae", "02_vae", ""), ("conv_vae", "03_conv_vae", ""),
                                              ("wgan", "05_wgan", ""), ("wgan_penalty", "05_wgan", "penalty_")])
def test_the_trainings_of_section_5_are_those_of_the_bands(lab, key, name, start):
    """A band is as wide to both sides of the mean of its runs, unless it is cut."""
    bands = read_expected(name)["full"]["bands"]
    for metric, values in zip(("frechet", "recall"), lab.TRAININGS[key]):
        assert len(values) == 5
        if (low := bands[start + metric][0]) > 0 and (high := bands[start + metric][1]) != 1:
            assert fmean(values) == pytest.approx((low + high) / 2, rel=0.005), metric


def test_the_table_of_the_readme_is_the_scoreboard_of_the_lab():
    """`python -m labutils.instructor.compare` mends what this test finds."""
    text = compare.README.read_text(encoding="utf-8")
    assert compare.with_scoreboard(text) == text


@pytest.mark.parametrize("key, name, metric", [
    ("vae", "02_vae", "frechet"), ("conv_vae", "03_conv_vae", "frechet"), ("mlp_gan", "04_gan", "mlp_frechet"),
    ("dcgan", "04_gan", "dcgan_frechet"), ("wgan", "05_wgan", "frechet"),
    ("wgan_penalty", "05_wgan", "penalty_frechet"),
    ("pixelcnn", "06_autoregressive", "frechet"), ("vqvae", "07_vqvae", "frechet"),
    ("vae_gan", "08_vae_gan", "frechet"), ("flow_matching", "09_flows", "frechet")])
def test_the_scoreboard_agrees_with_what_each_lab_has_measured(key, name, metric):
    """Where it does not, weights have been trained anew: `labs refresh 10_compare`."""
    ours, theirs = (find_metrics(read_lab(lab)) for lab in (NAME, name))
    assert ours[f"frechet_{key}"] == pytest.approx(theirs[metric], rel=0.05, abs=5 * theirs[f"{metric}_sd"])


def test_the_scoreboard_takes_the_place_of_one_table_and_of_nothing_else(monkeypatch):
    monkeypatch.setattr(compare, "scoreboard", lambda: "| Generator (lab) | a |\n| --- | --- |\n| new | 1 |")
    text = ("# T\n\n| Lab | x |\n| --- | --- |\n| 1 | 2 |\n\n"
            "| Generator (lab) | old |\n| --- | --- |\n| a | b |\n| c | d |")
    after = compare.with_scoreboard(f"{text}\n\nAnd | so on.\n")
    assert after == (text[:text.index("| Generator")] + "| Generator (lab) | a |\n| --- | --- |\n| new | 1 |"
                     "\n\nAnd | so on.\n")
    with pytest.raises(UsageError, match="README.md has 0 tables"):
        compare.with_scoreboard("# T\n")


def test_a_lab_without_a_stored_scoreboard_is_said(monkeypatch):
    monkeypatch.setattr(compare, "read_lab", lambda name: nbformat.v4.new_notebook())
    with pytest.raises(UsageError, match="labs refresh 10_compare"):
        compare.scoreboard()


def test_the_classifier_of_the_scoreboard_has_64_features():
    """The counts of means and covariances in the box about the number of pictures."""
    n = ImageClassifier().to_logits.in_features
    assert n == 64 and n * (n + 1) // 2 == 2080
