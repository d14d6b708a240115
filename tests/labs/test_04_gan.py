"""The definitions of lab 04, taken from the notebook, against second sources."""

import copy
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import cell_source, check_resume, definitions
from scipy import integrate, stats
from scipy.spatial.distance import jensenshannon
from torch import nn
from torch.distributions import Normal

from labutils import Training, get_loaders, init_weights, seed_everything
from labutils.checkpoints import sha256

lab = definitions("04_gan")
PARTS = {
    "mlp": lambda: (lab.MLPGenerator(8), lab.MLPDiscriminator(), torch.randn(6, 8), torch.rand(6, 1, 28, 28) * 2 - 1),
    "dcgan": lambda: (lab.Generator(8), lab.Discriminator(), torch.randn(6, 8), torch.rand(6, 1, 28, 28)),
}


@pytest.fixture(autouse=True)
def float32_on_every_machine(monkeypatch):
    """Without bfloat16 the sums below are exact enough to compare."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    seed_everything(0)


@pytest.fixture(params=PARTS)
def part(request):
    return PARTS[request.param]()


def weights(network):
    return [p.detach().clone() for p in network.parameters()]


def moved(network, before):
    return [not torch.equal(a, b) for a, b in zip(before, network.parameters())]


# ---------------------------------------------------------------------------------------- networks

@pytest.mark.parametrize("generator, discriminator, latent_dim, n_generator, n_discriminator", [
    (lab.MLPGenerator, lab.MLPDiscriminator, 64, 64 * 256 + 256 + 256 * 256 + 256 + 256 * 784 + 784,
     784 * 256 + 256 + 256 * 256 + 256 + 256 + 1),
    (lab.Generator, lab.Discriminator, 100,
     25 * (100 * 512 + 512 * 256 + 256 * 128 + 128 * 64) + 16 * 64 + 2 * (512 + 256 + 128 + 64), None),
])
def test_networks(generator, discriminator, latent_dim, n_generator, n_discriminator):
    g, d = generator(latent_dim), discriminator()
    pictures = g(torch.randn(7, latent_dim))
    assert pictures.shape == (7, 1, 28, 28) and pictures.dtype == torch.float32
    logits = d(pictures)
    assert logits.shape == (7, 1) and logits.dtype == torch.float32
    low, high = g.image_range
    assert low <= pictures.min() < pictures.mean() < pictures.max() <= high
    assert sum(p.numel() for p in g.parameters()) == n_generator
    assert n_discriminator is None or sum(p.numel() for p in d.parameters()) == n_discriminator


def test_the_layers_of_the_dcgan():
    g, d = lab.Generator(100), lab.Discriminator()
    transposed = [layer for layer in g.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in transposed] == [512, 256, 128, 64, 1]
    assert [layer.kernel_size[0] for layer in transposed] == [5, 5, 5, 5, 4]
    assert [layer.stride[0] for layer in transposed] == [1, 1, 2, 1, 1]
    assert all(layer.bias is None for layer in transposed)
    h, sizes = torch.randn(2, 100, 1, 1), []
    for layer in g.layers:
        h = layer(h)
        if isinstance(layer, nn.ConvTranspose2d):
            sizes.append(h.shape[2])
    assert sizes == [5, 9, 21, 25, 28]
    convolutions = [layer for layer in d.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 128, 256]
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in d.modules()) == 2      # but not on the first
    assert not any(isinstance(layer, nn.Sigmoid) for layer in [*g.layers, *d.modules()])


def test_the_dcgan_starts_with_small_weights():
    g = lab.Generator(100).apply(init_weights)
    assert g.layers[0].weight.std().item() == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize("name, generator", [("mlp_loader", "MLPGenerator"), ("dcgan_loader", "Generator")])
def test_data_and_generator_share_one_range(name, generator):
    space = {**vars(lab), "dataset": "digits", "limit": 64, "show": lambda *_, **__: None}
    exec(cell_source("04_gan", "data"), space)
    x = torch.cat([x for x, _ in space[name]])
    assert (x.min(), x.max()) == space[generator].image_range


# ------------------------------------------------------------------------------------------ losses

def test_losses_agree_with_their_formulas(part):
    generator, discriminator, z, x = part
    generator.eval(), discriminator.eval()
    d_real, d_fake = discriminator(x).sigmoid(), discriminator(generator(z)).sigmoid()
    real, mean_real = lab.d_loss_real(discriminator, x)
    fake, mean_fake = lab.d_loss_fake(discriminator, generator, z)
    torch.testing.assert_close(real, -d_real.log().mean())
    torch.testing.assert_close(fake, -(1 - d_fake).log().mean())
    torch.testing.assert_close((mean_real, mean_fake), (d_real.mean().detach(), d_fake.mean().detach()))
    torch.testing.assert_close(lab.g_loss(discriminator, generator, z), -d_fake.log().mean())
    torch.testing.assert_close(lab.g_loss_saturating(discriminator, generator, z), (1 - d_fake).log().mean())


def test_the_optimal_discriminator_reaches_log4_minus_2js():
    p_r, p_g = stats.norm(0, 1), stats.norm(1.5, 0.7)

    def kl_to_mixture(p):
        return integrate.quad(lambda t: p.pdf(t) * math.log(p.pdf(t) / (0.5 * p_r.pdf(t) + 0.5 * p_g.pdf(t))), -8, 8)[0]
    js = 0.5 * kl_to_mixture(p_r) + 0.5 * kl_to_mixture(p_g)

    def optimal(t):         # the logit of p_r / (p_r + p_g)
        return torch.from_numpy(p_r.logpdf(t.numpy()) - p_g.logpdf(t.numpy()))
    x, z = (torch.from_numpy(p.rvs(400_000, random_state=0)) for p in (p_r, p_g))

    def value(judge):
        return -(lab.d_loss_real(judge, x)[0] + lab.d_loss_fake(judge, nn.Identity(), z)[0]).item()
    assert value(optimal) == pytest.approx(-math.log(4) + 2 * js, abs=5e-3)
    for other in (lambda t: optimal(t) + 0.3, lambda t: 1.5 * optimal(t), lambda t: 0.5 * optimal(t)):
        assert value(other) < value(optimal)


def test_slopes_of_both_generator_losses():
    logit = torch.tensor([[-6.0], [0.0], [3.0]], requires_grad=True)
    for loss, slope in ((lab.g_loss_saturating, lambda d: -d), (lab.g_loss, lambda d: d - 1)):
        [gradient] = torch.autograd.grad(loss(nn.Identity(), nn.Identity(), logit), logit)
        torch.testing.assert_close(gradient, slope(logit.detach().sigmoid()) / 3)


# ------------------------------------------------------------------------------------------- steps

def test_the_fake_loss_sends_no_gradient_into_the_generator(part):
    generator, discriminator, z, _ = part
    lab.d_loss_fake(discriminator, generator, z)[0].backward()
    assert all(p.grad is None for p in generator.parameters())
    assert all(p.grad is not None for p in discriminator.parameters())


def test_the_generator_follows_the_gradient_of_its_loss_alone(part):
    generator, discriminator, z, _ = part
    expected = torch.autograd.grad(lab.g_loss(discriminator, generator, z), list(generator.parameters()))
    for p in generator.parameters():        # gradients of an earlier step must not count
        p.grad = torch.ones_like(p)
    lab.update_g(discriminator, generator, torch.optim.SGD(generator.parameters(), lr=0.0), z)
    for p, gradient in zip(generator.parameters(), expected):
        assert gradient.any()
        torch.testing.assert_close(p.grad, gradient)


def test_each_step_moves_its_own_network_only(part):
    generator, discriminator, z, x = part
    before = weights(generator), weights(discriminator)
    lab.update_d(discriminator, generator, torch.optim.Adam(discriminator.parameters()), x, z)
    assert not any(moved(generator, before[0])) and all(moved(discriminator, before[1]))
    before = weights(generator), weights(discriminator)
    discriminator.zero_grad()
    lab.update_g(discriminator, generator, torch.optim.Adam(generator.parameters()), z)
    assert all(moved(generator, before[0])) and not any(moved(discriminator, before[1]))
    assert all(p.grad is None for p in discriminator.parameters()), "the generator's step has no use for them"


def test_two_backward_calls_are_one_on_the_sum(part):
    generator, discriminator, z, x = part
    expected = copy.deepcopy(discriminator)
    optimizer = torch.optim.SGD(discriminator.parameters(), lr=0.1)
    for p in discriminator.parameters():        # gradients of an earlier step must not count
        p.grad = torch.ones_like(p)
    loss, d_real, d_fake = lab.update_d(discriminator, generator, optimizer, x, z)
    total = F.softplus(-expected(x)).mean() + F.softplus(expected(generator(z).detach())).mean()
    total.backward()
    torch.testing.assert_close(loss, total.detach())
    assert 0 < d_real < 1 and 0 < d_fake < 1
    assert not any(value.requires_grad for value in (loss, d_real, d_fake)), "it would keep its graph for an epoch"
    for p, q in zip(discriminator.parameters(), expected.parameters()):
        torch.testing.assert_close(p, q - 0.1 * q.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_each_player_gets_better_at_its_own_aim(part):
    generator, discriminator, z, x = part
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-3)
    first, *_, last = [lab.update_d(discriminator, generator, d_optimizer, x, z) for _ in range(20)]
    assert last[0] < first[0] and last[1] > first[1] and last[2] < first[2]
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=1e-3)
    losses = [lab.update_g(discriminator, generator, g_optimizer, z) for _ in range(20)]
    assert losses[-1] < losses[0]


def test_a_round_is_a_step_for_each_player_with_codes_of_its_own(part, monkeypatch):
    generator, discriminator, _, x = part
    calls = []
    monkeypatch.setattr(lab, "update_d", lambda *arguments: calls.append(arguments) or ("d_loss", "d_real", "d_fake"))
    monkeypatch.setattr(lab, "update_g", lambda *arguments: calls.append(arguments) or "g_loss")
    assert lab.play_round(discriminator, generator, "its", "hers", x, 8) == ("d_loss", "g_loss", "d_real", "d_fake")
    (*of_d, z_d), (*of_g, z_g) = calls
    assert of_d == [discriminator, generator, "its", x] and of_g == [discriminator, generator, "hers"]
    assert z_d.shape == z_g.shape == (len(x), 8) and not torch.equal(z_d, z_g)


def test_draw_makes_bytes_and_does_not_touch_the_generator(part):
    generator, _, z, _ = part
    before = copy.deepcopy(generator.state_dict())
    pictures = lab.draw(generator, z)
    assert pictures.shape == (6, 1, 28, 28) and str(pictures.dtype) == "uint8"
    assert not generator.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in generator.state_dict().items())   # running means too


def test_fit_notes_weighted_means_and_plays_in_training_mode(tmp_path, monkeypatch):
    train, _ = get_loaders("digits", 16, limit=88)      # five batches of 16, and one of 8
    generator, discriminator, modes = lab.Generator(8), lab.Discriminator(), []

    def play_round(discriminator, generator, d_optimizer, g_optimizer, x, latent_dim):
        modes.append(generator.training)
        return tuple(torch.tensor(float(len(x) + i)) for i in range(4))
    monkeypatch.setattr(lab, "play_round", play_round)
    training = Training("game", tmp_path, {}, generator=generator, discriminator=discriminator)
    lab.fit(training, generator, discriminator, train, 2, torch.randn(4, 8), betas=(0.5, 0.9), every=4, stem="dcgan")
    assert modes == [True] * 12
    assert training.history["epoch"] == pytest.approx([4 / 6, 1, 10 / 6, 2])
    for i, name in enumerate(("d_loss", "g_loss", "d_real", "d_fake")):
        assert training.history[name] == pytest.approx(2 * [16 + i, (16 * 16 + 8 * 8) / 24 + i])
    names = [f"dcgan_epoch_{epoch:03d}_step_{step:04d}.png" for epoch in (1, 2) for step in (4, 6)]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == names
    assert [pictures.shape for pictures in training.pictures] == 4 * [(4, 1, 28, 28)]


def test_the_mean_of_the_last_epoch_weighs_each_note_with_its_steps():
    history = {"epoch": [0.6, 1, 1.6, 2], "d_loss": [9, 9, 1, 2], "g_loss": [9, 9, 3, 3]}
    assert lab.last_epoch(history, "d_loss") == pytest.approx(0.6 * 1 + 0.4 * 2)
    assert lab.last_losses(history) == pytest.approx({"d_loss": 1.4, "g_loss": 3})


@pytest.mark.slow
def test_kill_9_and_resume_end_bit_identical(tmp_path):
    networks = "generator=lab.Generator(8).to(memory_format=torch.channels_last), discriminator=lab.Discriminator()"
    check_resume("04_gan", networks, "lab.fit(training, generator, discriminator, train, epochs, torch.randn(4, 8), "
                 "betas=(0.5, 0.9), every=2, stem='dcgan')", tmp_path)


# ------------------------------------------------------------------- the cells that train, as a reader runs them

@pytest.fixture
def reader(tmp_path):
    """Return `run(cell ids, changed parameters)`, which runs cells of one notebook and returns its variables."""
    sheets = []
    space = {**vars(lab), "out_dir": str(tmp_path), "dataset": "digits", "limit": 24, "epochs": 12, "batch_size": 12,
             "dcgan_epochs": 1, "dcgan_batch_size": 2, "snapshot_every": 1, "conditional_epochs": 1, "sheets": sheets,
             "plot_game": lambda history: None, "show": lambda picture, **_: sheets.append(picture)}

    def run(*cells, **parameters):
        space.update(parameters)
        for cell in cells:
            exec(cell_source("04_gan", cell), space)
        return space
    run("data")
    return run


@pytest.mark.parametrize("part, changes", [
    ("mlp", {"latent_dim": 5, "epochs": 2}), ("dcgan", {"dcgan_latent_dim": 5, "dcgan_epochs": 2}),
    ("conditional", {"latent_dim": 5, "conditional_epochs": 2})])
def test_a_training_that_runs_again_is_the_same_and_follows_the_parameters(part, changes, reader):
    """What a reader does who changes a value, runs the parameters' cell, and then only the training's."""
    def run(**parameters):
        training = reader(f"{part}-train", **parameters)[f"{part}_training"]
        return training, [p.detach().clone() for module in training.modules.values() for p in module.parameters()]
    reader("data", dcgan_batch_size=12)         # two rounds in an epoch
    (first, before), (again, after) = run(), run()
    assert again is not first and again.history == first.history and again.n_epochs == first.n_epochs
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))

    changed, [first_layer, *_] = run(**changes, seed=1)
    assert changed.n_epochs == 2 and changed.settings["latent_dim"] == 5 and changed.settings["seed"] == 1
    assert {5, 15} & {*first_layer.shape}       # 5 numbers, and 10 more for a label
    if part != "conditional":                   # which makes its loader itself
        with pytest.raises(ValueError, match="limit=20: set after the loader was made"):
            run(limit=20)


@pytest.mark.parametrize("part, cell, n, shape", [("mlp", "mlp-samples", 4, (32, 1, 28, 28)),
                                                  ("dcgan", "dcgan-over-time", 10, (3, 1, 28, 28))])
def test_loaded_weights_show_the_pictures_over_time_of_their_training(part, cell, n, shape, reader, tmp_path,
                                                                      monkeypatch, capsys):
    trained = reader(f"{part}-train")[f"{part}_training"]
    capsys.readouterr()
    reader(cell)
    expected = capsys.readouterr().out
    assert len(trained.pictures) == len(trained.history["epoch"]) == 12

    path = tmp_path / f"{trained.name}.safetensors"
    monkeypatch.setattr("labutils.checkpoints.PRETRAINED_DIR", tmp_path)
    (tmp_path / "card.json").write_text(json.dumps({trained.name: {"sha256": sha256(path)}}))
    loaded = reader(f"{part}-train", pretrained=True)[f"{part}_training"]
    assert f"loaded {path.name}" in capsys.readouterr().out
    *_, before, after = reader(cell)["sheets"]
    assert np.array_equal(before, after) and capsys.readouterr().out == expected
    assert [pictures.shape for pictures in loaded.pictures] == n * [shape] and loaded.n_epochs == trained.n_epochs


@pytest.mark.parametrize("n", [4, 10])
def test_values_over_time_are_ever_further_apart_and_chosen_once(n):
    for length in range(1, 130):
        chosen = lab.over_time(list(range(length)), n)
        assert len(chosen) == min(n, length) and chosen[-1] == length - 1 and chosen[0] == 0
        assert all(np.diff(chosen) > 0)
        assert lab.over_time(chosen, n) == chosen, "what came with the weights"
    assert lab.over_time(list(range(1, 41)), 4) == [1, 3, 12, 40]


# ---------------------------------------------------------------------------- the best discriminator

PAIRS = [((-1.0, 1.0), (1.5, 0.7)), ((0.0, 1.0), (0.5, 2.0)), ((0.0, 1.0), (0.0, 1.0))]


@pytest.mark.parametrize("p, q", PAIRS)
def test_js_agrees_with_scipy(p, q):
    x = np.linspace(-25, 25, 20_001)        # with bins this narrow, histograms are as good as densities
    expected = jensenshannon(stats.norm(*p).pdf(x), stats.norm(*q).pdf(x)) ** 2
    assert lab.js(Normal(*p), Normal(*q)) == pytest.approx(expected, abs=1e-5)
    assert lab.js(Normal(*q), Normal(*p)) == pytest.approx(expected, abs=1e-5)


def test_js_ends_at_log_2():
    assert lab.js(Normal(-6.0, 0.5), Normal(6.0, 0.5)) == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("p, q", PAIRS)
def test_the_value_of_a_discriminator_agrees_with_quad(p, q):
    def integrand(x):
        d = 1 / (1 + math.exp(-(0.3 - x)))      # any discriminator, with the logit 0.3 - x
        return stats.norm(*p).pdf(x) * math.log(d) + stats.norm(*q).pdf(x) * math.log(1 - d)
    value = lab.game_value(0.3 - lab.GRID, Normal(*p), Normal(*q))
    assert value == pytest.approx(integrate.quad(integrand, -9, 9, limit=200)[0], abs=1e-4)


@pytest.mark.parametrize("p, q", PAIRS)
def test_the_best_logit_is_the_log_ratio(p, q):
    p, q = Normal(*p), Normal(*q)
    best = p.log_prob(lab.GRID) - q.log_prob(lab.GRID)
    torch.testing.assert_close(best.sigmoid(), p.log_prob(lab.GRID).exp()
                               / (p.log_prob(lab.GRID).exp() + q.log_prob(lab.GRID).exp()))
    assert lab.game_value(best, p, q) == pytest.approx(-math.log(4) + 2 * lab.js(p, q), abs=1e-6)
    for other in (best + 0.3, best - 0.3, 1.5 * best + 0.1, best + 0.5 * torch.sin(lab.GRID)):
        assert lab.game_value(other, p, q) < lab.game_value(best, p, q)


# ------------------------------------------------------------------------------------ the smallest game

@pytest.mark.parametrize("alternate", [True, False])
@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_a_round_of_the_dirac_gan_is_a_gradient_step_of_each_player(alternate, gamma):
    """By the losses of the lab and autograd: D(x) = sigmoid(psi x), one real picture, 0, and R1 by its definition."""
    rate, theta, psi = 0.3, torch.tensor([[0.8]], requires_grad=True), nn.Linear(1, 1, bias=False)
    nn.init.constant_(psi.weight, -1.7)
    expected = [theta.detach().clone(), psi.weight.detach().clone()]
    real = torch.zeros(1, 1, requires_grad=True)
    [slope] = torch.autograd.grad(psi(real).sum(), real, create_graph=True)
    d_loss = lab.d_loss_real(psi, real)[0] + lab.d_loss_fake(psi, nn.Identity(), theta)[0] \
        + gamma / 2 * slope.square().sum()
    expected[1] -= rate * torch.autograd.grad(d_loss, psi.weight)[0]
    if alternate:
        psi.weight.data = expected[1]
    expected[0] -= rate * torch.autograd.grad(lab.g_loss_saturating(psi, nn.Identity(), theta), theta)[0]
    found = lab.dirac_round(torch.tensor([0.8, -1.7]), rate, gamma, alternate)
    torch.testing.assert_close(found, torch.cat(expected).flatten())


def test_the_flow_of_the_dirac_gan_keeps_its_distance_and_the_penalty_shortens_it():
    """With tiny steps theta^2 + psi^2 stays (Mescheder and others 2018, section 2.2), and falls with R1."""
    plain = penalised = torch.tensor([1.0, 0.5], dtype=torch.float64)
    for _ in range(1000):
        plain, penalised = lab.dirac_round(plain, 1e-2), lab.dirac_round(penalised, 1e-2, gamma=1.0)
    assert plain.norm().item() == pytest.approx(1.25**0.5, rel=1e-2)
    assert penalised.norm() < 0.2


# ------------------------------------------------------------------------------- the conditional game

def test_a_label_is_ten_numbers_behind_the_others():
    y = torch.tensor([0, 9, 3])
    pairs = lab.with_label(torch.rand(3, 1, 28, 28) + 0.5, y)
    assert pairs.shape == (3, 794) and pairs.dtype == torch.float32
    assert pairs[:, 784:].argmax(dim=1).tolist() == y.tolist()
    assert pairs[:, 784:].sum(dim=1).tolist() == [1, 1, 1]
    assert pairs[:, :784].gt(0.4).all()


def test_the_conditional_generator_returns_the_label_that_it_was_given_and_heeds_it():
    generator, discriminator = lab.ConditionalGenerator(8).eval(), lab.ConditionalDiscriminator()
    z = torch.randn(1, 8).expand(10, 8)
    pairs = generator(lab.with_label(z, torch.arange(10)))
    assert pairs.shape == (10, 794) and pairs[:, :784].abs().max() <= 1
    torch.testing.assert_close(pairs[:, 784:], torch.eye(10))
    assert len(pairs[:, :784].unique(dim=0)) == 10
    assert discriminator(pairs).shape == (10, 1)
    swapped = lab.with_label(pairs[:, :784], torch.arange(9, -1, -1))
    assert not torch.allclose(discriminator(pairs), discriminator(swapped))


def test_both_sides_of_the_conditional_game_have_the_same_labels(tmp_path, monkeypatch):
    train, _ = get_loaders("digits", 16, limit=48, image_range=(-1, 1))
    generator, discriminator, seen = lab.ConditionalGenerator(lab.latent_dim), lab.ConditionalDiscriminator(), []
    update_d, update_g = lab.update_d, lab.update_g
    monkeypatch.setattr(lab, "update_d", lambda d, g, o, x, z: seen.append((x, z)) or update_d(d, g, o, x, z))
    monkeypatch.setattr(lab, "update_g", lambda d, g, o, z: seen.append((seen[-1][0], z)) or update_g(d, g, o, z))
    training, before = Training("pairs", tmp_path, {}, generator=generator), weights(generator)
    lab.fit_conditional(training, generator, discriminator, train, 2)
    assert len(seen) == 12 and all(moved(generator, before))
    for x, z in seen:
        assert z.shape == (16, lab.latent_dim + 10)
        torch.testing.assert_close(x[:, 784:], z[:, lab.latent_dim:])
    assert not torch.equal(seen[0][1], seen[1][1])          # fresh codes for the generator's step
    assert training.history["epoch"] == [1, 2] and set(training.history) == {"epoch", *lab.METRICS}


def test_lone_pixels_on_a_picture_drawn_by_hand():
    picture = np.zeros((28, 28), np.uint8)
    picture[5, 5], picture[10, 10:12], picture[20, 20], picture[0, 0] = 200, 200, 60, 65
    assert np.argwhere(lab.lone(picture)).tolist() == [[0, 0], [5, 5]]
    picture[6, 6] = 32
    assert np.argwhere(lab.lone(picture)).tolist() == [[0, 0]]


# ------------------------------------------------------------------------------------------ the ring

def test_the_ring_has_eight_gaussians_on_the_unit_circle():
    points = lab.ring(80_000)
    assert points.shape == (80_000, 2)
    turn = torch.atan2(points[:, 1], points[:, 0]) / (2 * math.pi) * 8
    mode = turn.round().long() % 8
    for k in range(8):
        mine = points[mode == k]
        centre = torch.tensor([math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)])
        assert len(mine) == pytest.approx(10_000, rel=0.05)                     # 5 standard deviations of the count
        torch.testing.assert_close(mine.mean(dim=0), centre, atol=0.003, rtol=0)
        torch.testing.assert_close(mine.std(dim=0), torch.full((2,), lab.SPREAD), atol=0, rtol=0.05)
        assert abs(np.corrcoef(mine.T)[0, 1]) < 0.06                            # round, not elongated


def test_the_counter_of_modes_on_points_set_by_hand():
    at = lab.CENTRES
    far = torch.zeros(1, 2)
    assert lab.count_modes(at) == (8, 1.0)
    assert lab.count_modes(far.expand(50, 2)) == (0, 0.0)
    assert lab.count_modes(torch.cat([at[:1].expand(30, 2), at[3:4].expand(30, 2), far.expand(40, 2)])) \
        == (2, pytest.approx(0.6))
    # 1 % is a hit, less is not; both are near
    assert lab.count_modes(torch.cat([at[:1].expand(99, 2), at[1:2]])) == (2, 1.0)
    assert lab.count_modes(torch.cat([at[:1].expand(198, 2), at[1:2], far])) == (1, pytest.approx(0.995))


def test_a_mode_ends_at_three_standard_deviations():
    for angle in np.linspace(0, 2 * math.pi, 7):
        step = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float32) * lab.SPREAD
        for distance, n_modes in ((2.95, 1), (3.05, 0)):
            assert lab.count_modes((lab.CENTRES[5] + distance * step)[None]) == (n_modes, float(n_modes))


def test_the_data_reach_their_own_floor():
    n_modes, share = lab.count_modes(lab.ring(20_000))
    assert n_modes == 8 and share == pytest.approx(1 - math.exp(-4.5), abs=0.003)


@pytest.mark.parametrize("pack", [1, 2, 4])
def test_a_pack_is_points_side_by_side(pack):
    discriminator = lab.ring_discriminator(pack)
    points = torch.randn(12, 2)
    logits = discriminator(points)
    assert logits.shape == (12 // pack, 1)
    rows = torch.stack([torch.cat([points[i + j] for j in range(pack)]) for i in range(0, 12, pack)])
    first, _, second, _, last = list(discriminator)[2:]
    torch.testing.assert_close(logits, last(F.relu(second(F.relu(first(rows))))))


def test_a_verdict_reaches_both_points_of_its_pack_and_no_other():
    points = torch.randn(6, 2, requires_grad=True)
    [slope] = torch.autograd.grad(lab.ring_discriminator(pack=2)(points)[1, 0], points)
    assert slope.ne(0).any(dim=1).tolist() == [False, False, True, True, False, False]


def test_both_steps_play_with_pairs():
    generator, discriminator = nn.Sequential(*lab.mlp(8, 2)), lab.ring_discriminator(pack=2)
    z, x = torch.randn(8, 8), lab.ring(8)
    loss, _, _ = lab.update_d(discriminator, generator, torch.optim.SGD(discriminator.parameters(), lr=0.0), x, z)
    real, fake = discriminator(x), discriminator(generator(z))
    assert len(real) == 4
    torch.testing.assert_close(loss, (F.softplus(-real).mean() + F.softplus(fake).mean()).detach())


@pytest.mark.parametrize("n_points, expected", [(1, 0.045), (2, 0.089)])
def test_a_missing_mode_costs_more_in_pairs(n_points, expected):
    """The two numbers in the prose: seven modes of eight, the eighth never drawn."""
    data, generator = np.full(8, 1 / 8), np.array([1 / 7] * 7 + [0])
    if n_points == 2:
        data, generator = np.outer(data, data).ravel(), np.outer(generator, generator).ravel()
    assert jensenshannon(data, generator) ** 2 == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("n_steps", [1, 20])
def test_a_short_game_ends_with_a_snapshot_of_its_last_step(n_steps):
    snapshots = lab.play_ring(n_steps, 0)
    assert list(snapshots) == sorted(snapshots) and list(snapshots)[-1] == n_steps
    assert len(snapshots) == min(n_steps, 6)
    assert all(points.shape == (2000, 2) and not points.requires_grad for points in snapshots.values())


def test_the_game_is_seeded():
    first, torch_state = lab.play_ring(6, 0, pack=2), torch.rand(1)
    again = lab.play_ring(6, 0, pack=2)
    assert all(torch.equal(a, b) for a, b in zip(first.values(), again.values()))
    assert torch.equal(torch_state, torch.rand(1))
    assert not torch.equal(first[6], lab.play_ring(6, 1, pack=2)[6])


def test_the_norm_of_a_gradient():
    generator, judge = nn.Linear(1, 1), nn.Identity()
    with torch.no_grad():
        generator.weight.fill_(0.0), generator.bias.fill_(-2.0)
    z = torch.full((5, 1), 3.0)         # every logit is -2; its slope by (weight, bias) is (z, 1)
    d = 1 / (1 + math.exp(2))
    assert lab.gradient_norm(lab.g_loss_saturating, judge, generator, z) == pytest.approx(d * math.sqrt(10), rel=1e-5)
    assert lab.gradient_norm(lab.g_loss, judge, generator, z) == pytest.approx((1 - d) * math.sqrt(10), rel=1e-5)
    assert all(p.grad is None for p in generator.parameters())      # it leaves nothing behind


@pytest.mark.slow
def test_the_packed_game_finds_all_modes_and_the_plain_one_does_not():
    (plain, _), (packed, share) = (lab.count_modes(lab.play_ring(1000, 0, pack)[1000]) for pack in (1, 2))
    assert plain <= 4 and packed == 8 and share > 0.2
