"""The definitions of lab 05, taken from the notebook, against second sources."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from helpers import cell_source, check_resume, definitions
from scipy import stats
from torch import nn

from labutils import CheckpointError, Training, seed_everything, training

lab = definitions("05_wgan")


@pytest.fixture(autouse=True)
def seeded():
    seed_everything(0)


def run_cells(cells, space=None, **names):
    """Execute cells of the lab, reduced, with these names set before; return the namespace."""
    space = space or definitions("05_wgan")
    vars(space).update({"dataset": "digits", "limit": 64, "batch_size": 16, "show": lambda *_, **__: None, **names})
    for cell in cells:
        exec(cell_source("05_wgan", cell), vars(space))
    return space


def histograms(n=40, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(n), size=2)


# --------------------------------------------------------------------------------------- distances

def test_kl_agrees_with_scipy_and_is_infinite_off_the_support():
    p, q = histograms()
    assert lab.kl(p, q) == pytest.approx(stats.entropy(p, q))
    assert lab.kl(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == math.inf
    assert lab.kl(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(math.log(2))


def test_js_goes_through_the_mixture_and_is_bounded_by_log_2():
    p, q = histograms()
    m = (p + q) / 2
    assert lab.js(p, q) == pytest.approx(0.5 * stats.entropy(p, m) + 0.5 * stats.entropy(q, m))
    assert lab.js(p, q) == pytest.approx(lab.js(q, p))
    assert lab.js(np.array([1.0, 0]), np.array([0, 1.0])) == pytest.approx(math.log(2))


def test_wasserstein_agrees_with_scipy_also_on_uneven_positions():
    p, q = histograms()
    positions = np.sort(np.random.default_rng(1).normal(size=40))
    assert lab.wasserstein(positions, p, q) == pytest.approx(stats.wasserstein_distance(positions, positions, p, q))


def best_critic(positions, p, q):
    """The critic f (n,) of step 3 of section 5: minus the highest price g that the price f of step 2 allows."""
    _, f, _ = lab.best_plan(positions, p, q)
    return -(np.abs(positions[:, None] - positions) - f[:, None]).min(axis=0)


def test_the_best_plan_and_its_prices():
    p, q = histograms(30)
    positions = np.sort(np.random.default_rng(1).normal(size=30))
    ways, w = np.abs(positions[:, None] - positions), stats.wasserstein_distance(positions, positions, p, q)
    plan, f, g = lab.best_plan(positions, p, q)
    np.testing.assert_allclose(plan.sum(axis=1), p, atol=1e-6)
    np.testing.assert_allclose(plan.sum(axis=0), q, atol=1e-6)
    assert plan.min() >= 0 and np.sum(plan * ways) == pytest.approx(w) == p @ f + q @ g
    spare = ways - f[:, None] - g
    assert spare.min() > -1e-9 and np.abs(spare[plan > 1e-9]).max() < 1e-9
    f = best_critic(positions, p, q)
    assert (p - q) @ f == pytest.approx(w) and np.abs(np.diff(f) / np.diff(positions)).max() <= 1 + 1e-9


def test_the_gradient_of_the_distance_is_that_of_the_best_critic_held_fixed():
    positions = np.sort(np.random.default_rng(1).normal(size=30))
    (p, q), (direction, _), h = histograms(30), histograms(30, seed=2), 1e-6
    ahead, back = (lab.wasserstein(positions, p, (1 - t) * q + t * direction) for t in (h, -h))
    f = best_critic(positions, p, q)
    assert (ahead - back) / (2 * h) == pytest.approx((q - direction) @ f, rel=1e-4)


def test_wasserstein_of_points_on_a_line_agrees_with_scipy():
    a, b = np.random.default_rng(0).normal(size=(2, 60, 1)) * [[[1]], [[2]]]
    assert lab.wasserstein_of_points(a, b) == pytest.approx(stats.wasserstein_distance(a[:, 0], b[:, 0]))


@pytest.mark.parametrize("theta", [0.1, -0.5, 1.0])
def test_parallel_lines(theta):
    space = vars(lab)
    space["columns"], space["heights"] = np.linspace(-1, 1, 41), np.linspace(0, 1, 50)
    p, q = lab.line_histogram(0), lab.line_histogram(theta)
    assert lab.kl(p, q) == math.inf and lab.js(p, q) == pytest.approx(math.log(2))
    assert lab.wasserstein_of_points(lab.line_points(0), lab.line_points(theta)) == pytest.approx(abs(theta))


def line_critic(n=64):
    return nn.Sequential(nn.Linear(1, n), nn.ReLU(), nn.Linear(n, 1))


@pytest.mark.parametrize("clip", [0.1, 0.05, 1.0])
def test_the_best_critic_in_the_box_on_a_line(clip):
    x = 4 + torch.randn(50, 1) / 4
    moved, k = lab.best_in_box(x, x + 3, clip)[0] / 3, 64 * clip**2
    assert moved == pytest.approx(k, rel=1e-5) == lab.best_in_box(x + 3, x, clip)[0] / 3
    heap, heaps = torch.full((50, 1), 4.0), torch.tensor([[0.0], [8.0]]).repeat(25, 1)
    value, w, b = lab.best_in_box(heap, heaps, clip)
    assert value == pytest.approx(k / 2, rel=1e-5), "each unit adds c |b| / 2"
    assert max(abs(w), abs(b)) == pytest.approx(clip) and 1 - 1e-6 <= -b / w <= 4
    for places, sign in (((2.0, 6.2), 1), ((1.8, 6.0), -1)):     # kink at 4, open to the side that is farther
        value, w, b = lab.best_in_box(heap, torch.tensor(places)[:, None], clip)
        assert value == pytest.approx(0.275 * k, rel=1e-4) and (w, b) == pytest.approx((sign * clip / 4, -sign * clip))
    for seed in range(30):          # no other critic in the box has more
        seed_everything(seed)
        critic = line_critic()
        for p in critic.parameters():
            nn.init.uniform_(p, -2 * clip, 2 * clip).data.clamp_(-clip, clip)
        assert abs(lab.critic_loss(critic, heap, heaps).item()) <= value


def test_copies_of_the_best_unit_contribute_as_often_as_there_are_units():
    critic, x, y = line_critic(), torch.randn(20, 1), torch.randn(20, 1) + 2
    w, b, a = critic[0].weight.detach().clone(), critic[0].bias.detach().clone(), critic[2].weight.detach().clone()[0]
    share = a * ((x @ w.T + b).relu().mean(0) - (y @ w.T + b).relu().mean(0))
    lab.copy_best_unit(critic, x, y)
    assert -lab.critic_loss(critic, x, y).item() == pytest.approx(64 * share.max().item(), rel=1e-4)
    assert all(len(values.unique()) == 1 for values in (critic[0].weight, critic[0].bias, critic[2].weight))


# ---------------------------------------------------------------------------------------- networks

def test_networks():
    critic, generator = lab.Critic(), lab.Generator(100)
    pictures = generator(torch.randn(7, 100))
    assert pictures.shape == (7, 1, 28, 28) and -1 <= pictures.min() < 0 < pictures.max() <= 1
    assert critic(pictures).shape == (7, 1)
    widths = [layer.out_features for layer in critic if isinstance(layer, nn.Linear)]
    assert widths == [64, 128, 1]
    assert isinstance(list(critic)[-1], nn.Linear), "the critic has no sigmoid"
    assert [layer.out_features for layer in generator if isinstance(layer, nn.Linear)] == [64, 256, 512, 784]
    assert sum(p.numel() for p in critic.parameters()) == 784 * 64 + 64 + 64 * 128 + 128 + 128 + 1
    assert sum(p.numel() for p in generator.parameters()) == (
        100 * 64 + 64 * 256 + 256 * 512 + 512 * 784 + 3 * (64 + 256 + 512) + 784)


def test_data_and_generator_share_one_range():
    x = torch.cat([x for x, _ in run_cells(["data"], limit=64).train_loader])
    assert x.min() == -1 and x.max() == 1
    assert isinstance(lab.Generator()[-2], nn.Tanh)


@pytest.mark.parametrize("limit", [10, 15, 20, 64])
def test_the_first_collage_has_no_empty_tile(limit):
    sheets = []

    def collage(images, n_cols, **_):
        sheets.append((len(images), n_cols))
    run_cells(["data"], limit=limit, batch_size=2, collage=collage)
    [(n_images, n_cols)] = sheets
    assert 0 < n_images <= min(20, limit) and n_images % n_cols == 0


# ------------------------------------------------------------------------------------------- steps

def test_the_critics_loss_is_minus_the_difference_of_means():
    critic = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    x, fake = torch.randn(6, 4), torch.randn(3, 4)
    estimate = critic(x).sum() / 6 - critic(fake).sum() / 3
    torch.testing.assert_close(lab.critic_loss(critic, x, fake), -estimate)


def test_every_critic_step_ends_inside_the_clip():
    critic = lab.Critic()
    optimizer = torch.optim.RMSprop(critic.parameters(), lr=5e-3)       # large steps leave the box at once
    for _ in range(5):
        lab.update_critic(critic, optimizer, torch.rand(8, 1, 28, 28), -torch.rand(8, 1, 28, 28), 0.01)
        assert all(p.abs().max() <= 0.01 for p in critic.parameters())
    assert lab.max_abs_weight(critic).item() == pytest.approx(0.01)


def test_a_critic_step_raises_the_estimate_and_returns_the_one_before():
    critic = lab.Critic()
    lab.clip_weights(critic, 0.01)
    x, fake = torch.rand(32, 1, 28, 28), -torch.rand(32, 1, 28, 28)
    optimizer = torch.optim.RMSprop(critic.parameters(), lr=5e-5)
    before = -lab.critic_loss(critic, x, fake)
    estimates = [lab.update_critic(critic, optimizer, x, fake, 0.01) for _ in range(60)]
    torch.testing.assert_close(estimates[0], before.detach())
    assert estimates[-1] > estimates[0] and estimates[-1] > 0 and not estimates[-1].requires_grad


def test_gradients_of_the_critic_do_not_pile_up():
    critic = lab.Critic()
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.0)
    x, fake = torch.rand(8, 1, 28, 28), -torch.rand(8, 1, 28, 28)
    norms = []
    for _ in range(2):
        lab.update_critic(critic, optimizer, x, fake, 1.0)
        norms.append(critic[1].weight.grad.norm().item())
    assert norms[0] == norms[1] > 0


def test_a_generator_step_raises_the_score_and_leaves_the_critic_alone():
    critic, generator, z = lab.Critic(), lab.Generator(10), torch.randn(32, 10)
    before = [p.clone() for p in critic.parameters()]
    optimizer = torch.optim.RMSprop(generator.parameters(), lr=1e-3)
    score = critic(generator(z)).mean().item()
    losses = [lab.update_generator(generator, critic, optimizer, z) for _ in range(10)]
    assert losses[0].item() == pytest.approx(-score, rel=1e-4) and not losses[0].requires_grad
    assert critic(generator(z)).mean() > score, "the generated pictures please the critic more than before"
    for p, q in zip(before, critic.parameters()):
        assert torch.equal(p, q) and q.grad is None and q.requires_grad


def test_fakes_for_the_critic_carry_no_graph():
    generator = lab.Generator(lab.latent_dim)
    fakes = lab.draw_fakes(generator, 6)
    assert fakes.shape == (6, 1, 28, 28) and not fakes.requires_grad and fakes.dtype == torch.float32
    assert all(p.grad is None for p in generator.parameters())


def moves(optimizer, network):
    """Tell whether the optimiser moves all weights of the network, and no others."""
    return [id(p) for group in optimizer.param_groups for p in group["params"]] == [id(p) for p in network.parameters()]


def test_the_loop_takes_n_critic_steps_for_one_of_the_generator_and_never_leaves_the_box(tmp_path):
    space = definitions("05_wgan")
    counts, noise = {"critic": 0, "generator": 0}, set()
    update_critic, update_generator = space.update_critic, space.update_generator

    def counting_critic(critic, optimizer, x, x_fake, clip):
        assert moves(optimizer, critic) and x.shape == x_fake.shape
        estimate = update_critic(critic, optimizer, x, x_fake, clip)
        counts["critic"] += 1
        noise.add(x_fake.sum().item())
        assert max(p.abs().max() for p in critic.parameters()) <= 0.01
        return estimate

    def counting_generator(generator, critic, optimizer, z):
        counts["generator"] += 1
        noise.add(z.sum().item())
        assert moves(optimizer, generator) and generator.training
        assert counts["critic"] % 13 in (5, 10, 0)      # 13 batches an epoch: the last turn of the critic is shorter
        return update_generator(generator, critic, optimizer, z)
    space.update_critic, space.update_generator = counting_critic, counting_generator
    space.batch_size, space.image_range = 16, (-1, 1)
    train, _ = space.get_loaders("digits", 16, limit=200, image_range=(-1, 1))      # the last batch is shorter
    critic, generator = space.Critic(), space.Generator(100)
    training = Training("wgan", tmp_path, {}, critic=critic, generator=generator)
    space.fit(training, critic, generator, train, torch.randn(25, 100), 2, partial(space.update_critic, clip=0.01),
              space.rmsprop)
    assert counts == {"critic": 26, "generator": 6} and len(noise) == 32, "fresh noise in every step"
    assert training.history["max_abs_weight"] == pytest.approx([0.01] * 2)
    assert {name: len(values) for name, values in training.history.items()} == {
        "wasserstein_estimate": 2, "critic_loss": 2, "slope": 2, "max_abs_weight": 2, "trace": 26}
    assert [picture.shape for picture in training.pictures] == [(140, 140)], "of epoch 1; the next is of epoch 5"
    assert [path.name for path in tmp_path.glob("*.png")] == ["samples_wgan_epoch_001.png"]


def test_the_trainings_take_the_parameters_as_they_are_now(tmp_path):
    """A value is changed in the parameters cell, and then only the training's cell is run again."""
    space = run_cells(["data"], out_dir=str(tmp_path), epochs=1)
    found = []
    for changed in ({}, {"clip": 0.03}, {"learning_rate": 1e-3}, {"n_critic": 2}, {"latent_dim": 7}, {"seed": 3}, {}):
        run_cells(["train"], space, **{"clip": 0.01, "learning_rate": 5e-5, "n_critic": 5, "latent_dim": 100, "seed": 0,
                                       **changed})
        assert space.training.settings.items() >= changed.items()
        found.append(space.training.history["max_abs_weight"] + [p.sum().item() for p in space.generator.parameters()])
    assert found[0] == found[-1] and not [other for other in found[1:-1] if other == found[0]]
    assert found[1][0] == pytest.approx(0.03)
    for changed, message in (({"batch_size": 8}, "batch_size=8"), ({"limit": 32}, "limit=32")):
        with pytest.raises(ValueError, match=message):
            run_cells(["train"], space, **changed)
    with pytest.raises(CheckpointError, match="clip=0.01, this training has clip=0.02"):
        run_cells(["train"], space, clip=0.02, resume=True)


def test_both_long_trainings_start_from_the_same_weights_and_the_same_order_of_the_batches(tmp_path):
    space = run_cells(["data"], out_dir=str(tmp_path), epochs=1, penalty_epochs=1, plot_trace=lambda *_, **__: None)
    space.runs = {key: ([1.0], None) for key in (("clip", "RMSprop 5e-5"), ("penalty", "Adam 5e-4"))}
    starts = []

    def fit(training, critic, generator, loader, *rest):
        next(training.epochs(1, loader))
        starts.append([*critic.state_dict().values(), *generator.state_dict().values(), next(iter(loader))[0], rest[0]])
        training.note(wasserstein_estimate=0.0)
    space.fit = fit
    run_cells(["train", "penalty-train"], space)
    assert len(starts) == 2 and all(map(torch.equal, *starts))


def test_the_pictures_over_time_are_labelled_with_their_epochs_also_when_they_come_with_the_weights(
        tmp_path, monkeypatch):
    labels = []
    names = {"out_dir": str(tmp_path), "epochs": 6, "label_rows": lambda sheet, rows: labels.append(rows) or sheet}
    space = run_cells(["data", "train", "over-time"], **names)
    trained = space.training
    monkeypatch.setattr(training, "find_pretrained", lambda name, **_: tmp_path / f"{name}.safetensors")
    run_cells(["train", "over-time"], space, pretrained=True, **names)
    assert labels == [["epoch 1, 5"]] * 2 and space.training.seconds == 0 and len(trained.pictures) == 2
    assert all(map(np.array_equal, trained.pictures, space.training.pictures))


@pytest.mark.slow
def test_kill_9_and_resume_end_bit_identical(tmp_path):
    check_resume("05_wgan", "critic=lab.Critic(), generator=lab.Generator(8)",
                 "lab.fit(training, critic, generator, train, torch.randn(4, 8), epochs, "
                 "lab.CONSTRAINTS['clip'][1], lab.rmsprop)", tmp_path)


def test_the_turns_of_the_critic_hold_every_batch_once():
    batches = [(torch.tensor(i), None) for i in range(7)]
    assert [[int(x) for x in turn] for turn in lab.turns(batches, 3)] == [[0, 1, 2], [3, 4, 5], [6]]


def test_the_summary_of_an_epoch_weighs_the_short_batch_and_thins_out_the_trace():
    steps = [(n, torch.tensor(float(i)), torch.tensor(0.19 - abs(i - 9) / 100)) for i, n in enumerate([10] * 24 + [2])]
    found = lab.summary(steps, torch.tensor([1.0, 3.0]))
    assert found["wasserstein_estimate"] == pytest.approx((10 * sum(range(24)) + 2 * 24) / 242)
    assert found["critic_loss"] == -found["wasserstein_estimate"] and found["slope"] == 2
    assert found["max_abs_weight"] == pytest.approx(0.19) and found["trace"] == list(range(1, 25, 2))


# ----------------------------------------------------------------------------------------- results

def test_the_largest_weight_may_be_negative_and_a_bias():
    critic = lab.Critic()
    critic[-1].bias.data.fill_(-7.0)
    assert lab.max_abs_weight(critic) == 7


def test_a_sample_does_not_depend_on_the_other_codes():
    generator, z = lab.Generator(10), torch.randn(8, 10)
    torch.testing.assert_close(lab.sample(generator, z)[:2], lab.sample(generator.train(), z[:2]))


def test_gradients_of_a_critic_are_those_of_torch_func():
    critic, x = lab.Critic(), torch.rand(5, 1, 28, 28)
    one_by_one = torch.func.vmap(torch.func.grad(lambda picture: critic(picture[None]).squeeze()))(x)
    torch.testing.assert_close(lab.gradients(critic, x), one_by_one.flatten(1))


def test_a_settled_critic_is_a_copy_and_its_path_starts_at_the_critic_of_the_training():
    space = definitions("05_wgan")
    train, _ = space.get_loaders("digits", 16, limit=200, image_range=(-1, 1))
    space.settle_steps, space.train_loader, space.latent_dim = 60, train, 10
    critic, generator = space.Critic(), space.Generator(10)
    real, fake = torch.rand(200, 1, 28, 28), space.sample(generator, torch.randn(200, 10))
    weights = [p.clone() for network in (critic, generator) for p in network.parameters()]
    statistics = [b.clone() for b in generator.buffers()]
    step = partial(space.update_critic, clip=0.05)
    settled, path = space.settle(critic, generator, step, space.ADAM, real, fake)
    assert path.shape == (3, 31) and path[0].tolist() == list(range(0, 61, 2))
    assert path[1, 0] == pytest.approx(-space.critic_loss(critic, real, fake).item(), abs=1e-6)
    assert path[1, -1] == pytest.approx(-space.critic_loss(settled, real, fake).item(), abs=1e-6)
    slopes = space.gradients(settled, fake[:200]).norm(dim=1)
    assert path[2, -1] == pytest.approx(slopes.mean().item()) and path[1, -1] > path[1, 0]
    assert space.max_abs_weight(settled) <= 0.05
    after = [p for network in (critic, generator) for p in network.parameters()]
    assert all(map(torch.equal, weights, after)) and all(map(torch.equal, statistics, generator.buffers()))


# ------------------------------------------------------------------------------------ gradient penalty

@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 3.0])
def test_the_penalty_of_a_linear_critic_is_known(slope):
    critic = nn.Sequential(nn.Flatten(), nn.Linear(784, 1))
    w = torch.randn(1, 784)
    critic[1].weight.data.copy_(slope * w / w.norm())
    penalty = lab.gradient_penalty(critic, torch.rand(6, 1, 28, 28), torch.rand(6, 1, 28, 28))
    assert penalty.item() == pytest.approx((slope - 1) ** 2, abs=1e-5)


def test_the_penalty_looks_between_the_two_batches_with_a_position_for_each_pair():
    seen = []

    def spy(x):
        seen.append(x.detach())
        return (x**2).flatten(1).sum(dim=1, keepdim=True)
    lab.gradient_penalty(spy, torch.zeros(500, 1, 28, 28), torch.ones(500, 1, 28, 28))
    [x] = seen
    t = x[:, 0, 0, 0]
    assert torch.equal(x, t[:, None, None, None].expand_as(x)), "one position for all pixels of a pair"
    assert t.min() >= 0 and t.max() <= 1 and t.mean().item() == pytest.approx(0.5, abs=0.05)
    assert len(t.unique()) > 400


def test_the_penalty_reaches_the_weights_and_pulls_the_slope_to_one():
    critic = nn.Sequential(nn.Flatten(), nn.Linear(784, 1))
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    same = torch.rand(16, 1, 28, 28)            # no difference to find: only the penalty works
    for _ in range(300):
        lab.update_critic_penalty(critic, optimizer, same, same)
    assert critic[1].weight.norm().item() == pytest.approx(1, abs=0.02)


def test_a_step_with_the_penalty_returns_the_estimate_alone():
    critic = lab.Critic()
    x, fake = torch.rand(8, 1, 28, 28), torch.rand(8, 1, 28, 28)
    before = -lab.critic_loss(critic, x, fake)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3)
    torch.testing.assert_close(lab.update_critic_penalty(critic, optimizer, x, fake), before.detach())


def test_a_spectral_critic_divides_each_matrix_by_its_largest_singular_value():
    critic = lab.spectral_critic()
    with torch.no_grad():
        for _ in range(500):
            critic(torch.rand(2, 1, 28, 28))
    layers = [layer for layer in critic if hasattr(layer, "weight")]
    assert [layer.out_features for layer in layers] == [64, 128, 1]
    critic.eval()
    for layer in layers:
        raw = layer.parametrizations.weight.original
        torch.testing.assert_close(layer.weight, raw / torch.linalg.svdvals(raw)[0], rtol=1e-3, atol=1e-4)
    x, y = 20 * torch.randn(2, 500, 1, 28, 28)
    assert ((critic(x) - critic(y)).flatten().abs() <= 1.001 * (x - y).flatten(1).norm(dim=1)).all(), "1-Lipschitz"


def test_the_constraints_are_what_their_names_say():
    assert set(lab.CONSTRAINTS) == {"clip", "penalty", "spectral"}
    for name, (make_critic, step) in lab.CONSTRAINTS.items():
        critic = make_critic()
        assert (name == "spectral") == any("parametrizations" in key for key in critic.state_dict())
        optimizer = torch.optim.RMSprop(critic.parameters(), lr=0.5)
        step(critic, optimizer, torch.rand(8, 1, 28, 28), torch.rand(8, 1, 28, 28))
        assert lab.max_abs_weight(critic) == pytest.approx(0.01) if name == "clip" else lab.max_abs_weight(critic) > 0.4


def test_the_recipes_are_what_their_names_say():
    for name, optimizer in lab.RECIPES.items():
        kind, rate = name.split()
        made = optimizer([nn.Parameter(torch.zeros(1))])
        assert type(made).__name__ == kind and made.defaults["lr"] == float(rate)


def test_a_short_training_is_the_same_algorithm_and_is_judged_after_each_epoch():
    space = definitions("05_wgan")
    played, update_generator = [], space.update_generator

    def critic_step(critic, optimizer, x, x_fake):
        assert moves(optimizer, critic) and x.shape == x_fake.shape
        assert x.min() == -1 and not x_fake.requires_grad
        played.append("critic")
        return space.update_critic(critic, optimizer, x, x_fake, 0.01)

    def generator_step(generator, critic, optimizer, z):
        assert moves(optimizer, generator) and z.shape == (16, 100) and generator.training
        played.append("generator")
        return update_generator(generator, critic, optimizer, z)
    space.update_generator, space.judge = generator_step, lambda classifier, images: (images, None)
    space.classifier, space.reference, space.n_compared = None, "reference", 7
    space.frechet_distance = lambda images, reference: (images.dtype, len(images), reference)
    run_cells(["data"], space, limit=200)
    generator, seconds, distances = space.short_training(space.Critic, critic_step, space.ADAM, 2, 3)
    epoch = 2 * [*5 * ["critic"], "generator"] + [*3 * ["critic"], "generator"]     # 13 batches
    assert played == 2 * epoch and isinstance(generator, space.Generator)
    assert distances == 2 * [(torch.uint8, 7, "reference")] and 0 < seconds[0] < seconds[1]
    space.batch_size = 8
    with pytest.raises(ValueError, match="batch_size=8"):
        space.short_training(space.Critic, critic_step, space.ADAM, 2, 3)


def test_the_short_trainings_of_one_seed_start_from_the_same_weights_and_the_same_order_of_the_batches():
    space = run_cells(["data"])
    critics, starts = [], []

    def train_epoch(batches, generator, train_critic, train_generator):
        starts.append([*map(torch.clone, generator.state_dict().values()), *(x for x, _ in batches)])
        return [(1, torch.tensor(0.0), None)]
    space.train_epoch, space.judge, space.frechet_distance = train_epoch, lambda *_: (None, None), lambda *_: 0.0
    space.classifier, space.reference, space.n_compared = None, None, 7
    for make_critic, step in space.CONSTRAINTS.values():
        space.short_training(lambda make=make_critic: critics.append(make()) or critics[-1], step, space.ADAM, 1, 5)
    for critic, start in zip(critics[1:], starts[1:], strict=True):
        assert all(map(torch.equal, starts[0], start)) and torch.equal(critic[1].bias, critics[0][1].bias)
