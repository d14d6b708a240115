"""The definitions of lab 09, taken from the notebook, against second sources."""

import math

import numpy as np
import pytest
import torch
from helpers import cell_source, check_resume, definitions
from torch import nn
from torch.distributions import AffineTransform, Independent, MultivariateNormal, Normal

from labutils import seed_everything
from labutils.data import InMemoryLoader

lab = definitions("09_flows")


@pytest.fixture(autouse=True)
def seeded():
    seed_everything(0)


def run_cells(cells, space=None, **names):
    """Execute cells of the lab, reduced, with these names set before; return the namespace."""
    space = space or definitions("09_flows")
    vars(space).update({"dataset": "digits", "limit": 64, "batch_size": 16, "show": lambda *_, **__: None,
                        "show_figure": lambda *_, **__: None, **names})
    for cell in cells:
        exec(cell_source("09_flows", cell), vars(space))
    return space


def bent_flow(n_layers=4):
    """A coupling flow with weights large enough to bend the plane."""
    flow = lab.RealNVP(n_layers)
    for p in flow.parameters():
        nn.init.normal_(p, std=0.1)
    return flow


# ------------------------------------------------------------------------------------- coupling flows

def test_a_coupling_layer_keeps_one_coordinate_and_its_inverse_undoes_it():
    z = torch.randn(50, 2)
    for kept in (0, 1):
        layer = bent_flow(2).layers[kept]
        x, log_det = layer(z)
        back, log_det_back = layer.inverse(x)
        assert layer.kept == kept and torch.equal(x[:, kept], z[:, kept])
        assert not torch.isclose(x[:, 1 - kept], z[:, 1 - kept]).all()
        torch.testing.assert_close(back, z, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(log_det_back, -log_det)
        jacobians = torch.func.vmap(torch.func.jacrev(lambda point, layer=layer: layer(point[None])[0][0]))(z)
        torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobians).logabsdet, rtol=1e-4, atol=1e-5)


def test_the_density_of_a_coupling_flow_is_that_of_the_jacobian_and_its_integral_is_1():
    flow, z = bent_flow(), torch.randn(50, 2)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda point: flow(point[None])[0]))(z)
    expected = Normal(0, 1).log_prob(z).sum(1) - torch.linalg.slogdet(jacobians).logabsdet
    torch.testing.assert_close(flow.log_prob(flow(z)), expected, rtol=1e-3, atol=1e-3)
    points, area = lab.plane(15, 601)
    with torch.no_grad():
        assert flow.log_prob(points).exp().sum().item() * area == pytest.approx(1, abs=0.01)


def test_the_density_of_a_coupling_flow_is_zukos():
    zuko = pytest.importorskip("zuko")
    flow = bent_flow()

    def as_zuko(layer):     # of zuko's own coupling layer, whose affine map goes from points to noise
        def affine(kept):
            s, t = layer.scale_and_shift(kept[:, 0])
            return AffineTransform((-t * (-s).exp())[:, None], (-s).exp()[:, None], event_dim=1)
        return zuko.transforms.CouplingTransform(affine, torch.arange(2) == layer.kept)
    chain = zuko.transforms.ComposedTransform(*map(as_zuko, reversed(flow.layers)))
    base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    x = torch.randn(100, 2)
    expected = zuko.distributions.NormalizingFlow(chain, base).log_prob(x)
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=1e-4, atol=1e-4)


def test_a_layer_gets_its_number_and_waves_of_it():
    found = lab.waves(torch.tensor([0.0, 1.0]), n=2)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0, 0, 1, 1], [1.0, 1, 0, 0, -1]]), atol=1e-6, rtol=0)
    assert lab.Coupling(0).net[0].in_features == lab.waves(torch.zeros(3)).shape[1] == 13


def test_the_blur_of_the_data_is_gone_by_the_middle_of_the_training():
    """Seen from the nearest mode, a point has the variance of the mode and that of the noise, in two coordinates."""
    seen = []

    def loss(model, x):
        seen.append(torch.cdist(x, lab.CENTRES).min(dim=1).values.square().mean().item() / 2)
        return model(x).square().mean()
    lab.train_in_plane(nn.Linear(2, 1), loss, 20, blur=0.1)
    for step, noise in ((0, 0.1), (5, 0.05), (10, 0), (15, 0), (19, 0)):
        assert seen[step] == pytest.approx(lab.SPREAD**2 + noise**2, rel=0.3), step


def test_maximum_likelihood_brings_the_density_to_the_data():
    flow = lab.train_in_plane(lab.RealNVP(4), lab.negative_log_likelihood, 60)
    x = lab.ring(2000)
    assert lab.negative_log_likelihood(flow, x) < lab.negative_log_likelihood(lab.RealNVP(4), x) - 0.3
    assert lab.negative_log_likelihood(flow, x).item() > -lab.RING.log_prob(x).mean().item()


def test_the_grid_of_the_plane():
    points, area = lab.plane(2, 5)
    assert points.shape == (25, 2) and points.min() == -2 and points.max() == 2 and area == 1


# ------------------------------------------------------------------------------------------- solvers

def growth(x, t):
    return x * (1 + t.view(-1, *[1] * (x.ndim - 1)))        # x(1) = x(0) exp(1.5)


@pytest.mark.parametrize("solver, order", [("euler", 1), ("heun", 2), ("midpoint", 2)])
def test_a_solver_has_its_order(solver, order):
    x, solve = torch.ones(3, 1, 2, 2).double(), getattr(lab, solver)
    errors = [(solve(growth, x, steps) - math.exp(1.5)).abs().max().item() for steps in (20, 40)]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("solver, cost", [("euler", 1), ("heun", 2), ("midpoint", 2)])
def test_the_calls_of_a_solver(solver, cost):
    times = []

    def velocity(x, t):
        times.append(t[0].item())
        return x * 0
    getattr(lab, solver)(velocity, torch.ones(4, 2), 5)
    assert len(times) == 5 * cost and times[0] == 0 and max(times) <= 1 + 1e-6


@pytest.mark.parametrize("steps", [0, -1, 1.5])
def test_a_bad_number_of_steps_is_named(steps, tmp_path):
    for solver in (lab.euler, lab.midpoint, lab.flow_log_prob):
        with pytest.raises(ValueError, match=f"steps={steps}: must be a whole number of at least 1"):
            solver(growth, torch.ones(2, 2), steps)
    with pytest.raises(ValueError, match=f"steps_per_picture={steps}"):
        run_cells(["set-up"], read_parameters=lambda _: None, steps_per_picture=steps, out_dir=str(tmp_path))


def test_the_divergence_is_the_trace_of_the_jacobian():
    net, x, t = lab.PointVelocity(), torch.randn(20, 2), torch.rand(20)
    v, divergence = lab.with_divergence(net, x, t)
    jacobians = torch.func.vmap(torch.func.jacrev(lambda point, time: net(point[None], time[None])[0]))(x, t)
    torch.testing.assert_close(divergence, jacobians.diagonal(dim1=1, dim2=2).sum(dim=1))
    torch.testing.assert_close(v, net(x, t).detach())


def test_the_density_of_a_linear_flow_is_a_known_normal_one():
    A = torch.tensor([[0.3, -1.0], [0.8, -0.5]])
    end = MultivariateNormal(torch.zeros(2), torch.matrix_exp(A) @ torch.matrix_exp(A).T)
    x = end.sample((50,))
    found = lab.flow_log_prob(lambda x, t: x @ A.T, x, 60)
    torch.testing.assert_close(found, end.log_prob(x), rtol=1e-3, atol=1e-3)


def test_the_density_of_a_continuous_flow_is_zukos():
    zuko = pytest.importorskip("zuko")
    net, x = lab.PointVelocity(), torch.randn(20, 2)

    def backwards(s, x):        # zuko's flow goes from points to noise
        return -net(x, (1 - s).expand(len(x)))
    transform = zuko.transforms.FreeFormJacobianTransform(backwards, torch.tensor(0.0), torch.tensor(1.0),
                                                          exact=True)
    z, log_det = transform.call_and_ladj(x)
    torch.testing.assert_close(lab.flow_log_prob(net, x, 100), Normal(0, 1).log_prob(z).sum(1) + log_det,
                               rtol=1e-3, atol=1e-3)


# ------------------------------------------------------------------------------------ flow matching

def test_the_line_from_noise_to_data_and_its_velocity():
    x0, x1, t = torch.randn(4, 1, 2, 2), torch.randn(4, 1, 2, 2), torch.tensor([0.0, 0.25, 0.5, 1.0])
    x = lab.between(x0, x1, t)
    assert torch.equal(x[0], x0[0]) and torch.equal(x[3], x1[3])
    torch.testing.assert_close(x[1], 0.75 * x0[1] + 0.25 * x1[1])
    ahead = lab.between(x0, x1, t + 0.5)
    torch.testing.assert_close((ahead - x) / 0.5, x1 - x0, rtol=1e-4, atol=1e-4)


def test_the_loss_asks_for_data_minus_noise_at_the_point_and_time_of_the_line():
    """A network that knows the data point has the loss 0 with the right target, and only then."""
    x1 = torch.full((64, 3), 2.0)

    def knowing(x, t):
        return (x1 - x) / (1 - t[:, None])
    assert lab.flow_matching_loss(knowing, x1).item() < 1e-3
    assert lab.flow_matching_loss(lambda x, t: -knowing(x, t), x1).item() > 10


def test_the_loss_is_summed_over_a_point_and_averaged_over_the_batch_with_uniform_times():
    seen = []

    def nothing(x, t, *labels):
        seen.append((t, labels))
        return torch.zeros_like(x)
    x1, y = torch.zeros(5000, 1, 2, 2), torch.arange(5000)
    assert lab.flow_matching_loss(nothing, x1, y).item() == pytest.approx(4, abs=0.2), "the variance of the noise"
    [(t, [labels])] = seen
    assert labels is y and 0 <= t.min() < 0.01 and 0.99 < t.max() < 1 and len(t.unique()) > 4500
    assert t.mean().item() == pytest.approx(0.5, abs=0.02) and t.var().item() == pytest.approx(1 / 12, abs=0.005)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.9, 1.0])
def test_the_best_velocity_of_a_gaussian_is_its_conditional_mean(t):
    """By the formula for jointly normal numbers, in three dimensions."""
    mean, spread = torch.tensor([[1.0, -2.0, 0.5]]), 0.4
    x = torch.randn(10, 3)
    covariance, variance = t * spread**2 - (1 - t), (1 - t) ** 2 + (t * spread) ** 2
    expected = mean + covariance / variance * (x - t * mean)
    torch.testing.assert_close(lab.best_velocity(x, torch.full((10,), t), mean, spread), expected)


def test_the_best_velocity_of_the_ring_has_the_least_loss():
    x0, x1, t = torch.randn(20_000, 2), lab.ring(20_000), torch.rand(20_000)
    x = lab.between(x0, x1, t)
    best = lab.best_velocity(x, t)
    least = (best - (x1 - x0)).square().sum(1).mean()
    for other in (1.05 * best, best + 0.1, lab.best_velocity(x, t, spread=0.2), lab.best_velocity(x, 0.9 * t)):
        assert (other - (x1 - x0)).square().sum(1).mean() > least
    residual = (best - (x1 - x0)) * best            # what is left is orthogonal to it
    assert residual.sum(1).mean().abs() < 0.05


def test_followed_to_the_end_the_best_velocity_draws_the_ring():
    n_modes, share = lab.count_modes(lab.heun(lab.best_velocity, torch.randn(4000, 2), 60))
    assert n_modes == 8 and share > 0.97


def test_a_network_of_points_learns_the_best_velocity_only_if_it_knows_the_time():
    found = {}
    for name in ("no time", "sines"):
        seed_everything(0)
        net = lab.train_in_plane(lab.PointVelocity(lab.CLOCKS[name]), lab.flow_matching_loss, 300)
        with torch.no_grad():
            found[name] = lab.errors_of(net, torch.randn(4000, 2), lab.ring(4000))
    loss, lines, error = found["sines"]
    np.testing.assert_allclose(loss, lines + error, rtol=0.05)
    assert error[:3].max() < 0.1 < found["no time"][2][:3].min()


# ---------------------------------------------------------------------------------------- the U-Net

def told_unet(**options):
    """A U-Net whose last layers are not zero, so that everything it is told reaches the result."""
    net = lab.UNet(**options)
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.05)
    return net.eval()


def test_the_unet_starts_at_zero_and_keeps_the_shape():
    x, t, y = torch.randn(3, 1, 28, 28), torch.rand(3), torch.tensor([0, 9, lab.NO_LABEL])
    v = lab.UNet()(x, t, y)
    assert v.shape == x.shape and v.dtype == torch.float32 and v.abs().max() < 0.1


def test_the_unet_is_told_the_time_and_the_label():
    net, x = told_unet(), torch.randn(2, 1, 28, 28)
    y = torch.tensor([3, 5])
    with torch.no_grad():
        before = net(x, torch.tensor([0.2, 0.2]), y)
        later, other = net(x, torch.tensor([0.8, 0.2]), y), net(x, torch.tensor([0.2, 0.2]), y.flip(0))
        hidden = net(x, torch.tensor([0.2, 0.2]), torch.full((2,), lab.NO_LABEL))
    size = before.abs().mean()
    assert (later[0] - before[0]).abs().mean() > 0.01 * size, "another time, another velocity"
    assert torch.allclose(later[1], before[1], atol=1e-2), "each picture has its own time"
    assert (other - before).abs().mean() > 0.01 * size and (hidden - before).abs().mean() > 0.01 * size


def test_every_pixel_can_reach_the_whole_picture():
    net, x = told_unet(), torch.randn(1, 1, 28, 28, requires_grad=True)
    v = net(x, torch.tensor([0.3]), torch.tensor([4]))
    gradient, = torch.autograd.grad(v[0, 0, 14, 14], x)
    assert (gradient != 0).float().mean() > 0.7


def test_the_times_are_told_by_slow_and_fast_waves():
    found = lab.time_features(torch.tensor([0.0, 0.3]), n=8, fastest=100.0)
    assert found.shape == (2, 8)
    torch.testing.assert_close(found[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    assert found[1, 0].item() == pytest.approx(math.sin(0.3)) and found[1, 7].item() == pytest.approx(
        math.cos(30), abs=1e-4)


# -------------------------------------------------------------------------------------- the training

def test_the_average_follows_the_weights():
    net, average = nn.Linear(2, 2), nn.Linear(2, 2)
    expected = 0.9 * average.weight + 0.1 * net.weight
    lab.update_average(average, net, 0.9)
    torch.testing.assert_close(average.weight, expected)
    lab.update_average(average, net, 0.0)
    assert torch.equal(average.bias, net.bias)


def test_hidden_labels():
    y = torch.arange(20_000) % 10
    found = lab.hide_labels(y, 0.1)
    hidden = found == lab.NO_LABEL
    assert hidden.float().mean().item() == pytest.approx(0.1, abs=0.01) and torch.equal(found[~hidden], y[~hidden])
    assert len(y[hidden].unique()) == 10


def small_space(tmp_path, **names):
    space = run_cells(["data"], out_dir=str(tmp_path), epochs=1, **names)
    unet = space.UNet
    space.UNet = lambda: unet(width=8, inner_width=8, n_inner=1, e_dim=8)
    return space


def test_the_training_keeps_an_average_and_hides_labels(tmp_path):
    space = small_space(tmp_path)
    labels, hide = [], space.hide_labels
    space.hide_labels = lambda y, share: labels.append((hide(y, share), share)) or labels[-1][0]
    run_cells(["train"], space, label_dropout=0.4, average_decay=0.5)
    assert {share for _, share in labels} == {0.4} and sum(len(y) for y, _ in labels) == 64
    assert space.training.history.keys() == {"loss"} and space.training.n_epochs == 1
    pairs = list(zip(space.average.parameters(), space.net.parameters()))
    assert not any(p.requires_grad for p, _ in pairs) and any(not torch.equal(p, q) for p, q in pairs)


def test_the_training_takes_the_parameters_as_they_are_now(tmp_path):
    space, found = small_space(tmp_path), []
    for changed in ({}, {"learning_rate": 1e-2}, {"average_decay": 0.5}, {"label_dropout": 0.9}, {"seed": 3}, {}):
        run_cells(["train"], space, **{"learning_rate": 2e-3, "average_decay": 0.9, "label_dropout": 0.1, "seed": 0,
                                       **changed})
        assert space.training.settings.items() >= changed.items()
        found.append([p.sum().item() for p in space.average.parameters()])
    assert found[0] == found[-1] and not [other for other in found[1:-1] if other == found[0]]


@pytest.mark.slow
def test_kill_9_and_resume_end_bit_identical(tmp_path):
    check_resume("09_flows", "net=lab.UNet(8, 8, 1, 8), average=lab.UNet(8, 8, 1, 8)",
                 "lab.fit(training, net, average, train, epochs)", tmp_path)


@pytest.mark.parametrize("name, value", [("label_dropout", 0), ("label_dropout", 1), ("average_decay", 1.0),
                                         ("average_decay", -0.1), ("ring_steps", 0), ("ring_seeds", 0)])
def test_a_bad_setting_is_named(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        run_cells(["set-up"], read_parameters=lambda _: None, out_dir=str(tmp_path), **{name: value})


def test_pictures_without_classes_are_refused_before_any_training(tmp_path):
    """A folder has zeros for labels, CelebA has forty attributes."""
    for labels in (torch.zeros(20, dtype=torch.long), torch.zeros(20, 40, dtype=torch.long), torch.arange(20)):
        with pytest.raises(ValueError, match="dataset='folder:x': pictures without classes"):
            lab.require_classes("folder:x", labels)
    images, labels = torch.zeros(30, 1, 28, 28, dtype=torch.uint8), torch.zeros(30, dtype=torch.long)
    loader = InMemoryLoader(images, labels, 16)
    with pytest.raises(ValueError, match="dataset='folder:x'"):
        run_cells(["data"], dataset="folder:x", get_loaders=lambda *_, **__: (loader, loader))


# ------------------------------------------------------------------------------------------- drawing

def labelled(x, t, y):
    """A velocity that is the label, and -1 without one."""
    return torch.where(y == lab.NO_LABEL, -1.0, y.float()).view(-1, 1, 1, 1).expand_as(x)


@pytest.mark.parametrize("guidance, expected", [(0, [-1, -1]), (0.5, [0.5, 2]), (1, [2, 5]), (3, [8, 17])])
def test_guidance_goes_from_no_label_through_the_label_and_beyond(guidance, expected):
    velocity = lab.picture_velocity(labelled, torch.tensor([2, 5]), guidance)
    found = velocity(torch.zeros(2, 1, 2, 2), torch.zeros(2))
    assert found[:, 0, 0, 0].tolist() == expected


def test_without_labels_there_is_nothing_to_guide():
    x, t = torch.zeros(2, 1, 2, 2), torch.zeros(2)
    assert (lab.picture_velocity(labelled, None)(x, t) == -1).all()
    with pytest.raises(ValueError, match="guidance=2.0: pictures without labels cannot be guided"):
        lab.picture_velocity(labelled, None, 2.0)


def test_painted_pictures_depend_on_their_own_noise_and_label_alone():
    net, x0, y = told_unet(), *lab.noise_and_labels(6, 0)
    many = lab.paint(net.train(), x0, y, 2)
    assert many.shape == (6, 1, 28, 28) and str(many.dtype) in ("uint8", "torch.uint8") and y.tolist() == list(range(6))
    few = lab.paint(net, x0[4:], y[4:], 2)
    assert np.abs(np.asarray(many[4:], int) - np.asarray(few, int)).max() <= 2, "but for bfloat16"
    assert torch.equal(lab.noise_and_labels(6, 0)[0], x0) and not torch.equal(lab.noise_and_labels(6, 1)[0], x0)


def test_one_step_of_the_best_velocity_is_the_mean():
    x = lab.euler(lambda x, t: lab.best_velocity(x, t, torch.tensor([[3.0, 1.0], [1.0, 1.0]])), torch.randn(5, 2), 1)
    torch.testing.assert_close(x, torch.tensor([[2.0, 1.0]]).expand(5, 2), rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------------- the diffusion view

@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_picture_and_noise_are_the_conditional_means(t):
    """For normal data, by the formula for jointly normal numbers; and the score is that of the noisy points."""
    mean, spread = torch.tensor([[1.0, -2.0]]), 0.4
    x, t = torch.randn(10, 2), torch.full((10,), t)
    variance = ((1 - t) ** 2 + (t * spread) ** 2)[:, None]
    v = lab.best_velocity(x, t, mean, spread)
    picture, noise = lab.picture_and_noise(v, x, t)
    offset = x - t[:, None] * mean
    torch.testing.assert_close(picture, mean + t[:, None] * spread**2 / variance * offset)
    torch.testing.assert_close(noise, (1 - t)[:, None] / variance * offset)
    torch.testing.assert_close(lab.velocity_to_score(v, x, t), -offset / variance, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(lab.between(noise, picture, t), x)
