"""The definitions of lab 03, taken from the notebook, against second sources."""

import math

import cv2
import numpy as np
import pytest
import torch
from helpers import cell_source, check_resume, definitions
from scipy.optimize import minimize_scalar
from torch import distributions, nn

from labutils import Training, seed_everything
from labutils.data import InMemoryLoader

lab = definitions("03_conv_vae")


@pytest.fixture(autouse=True)
def float32_on_every_machine(monkeypatch):
    """Without bfloat16 the sums below are exact enough to compare."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    seed_everything(0)


class Linear(lab.VAE):
    """The smallest network that fits the notebook's functions: images (B, 1, 4, 4), two latents."""

    def __init__(self):
        super().__init__()
        self.latent_dim = 2
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
        self.decoder = nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 4, 4)))


# ---------------------------------------------------------------------------------------- networks

@pytest.mark.parametrize("name, shape, latent_dim", [
    ("conv", (1, 28, 28), 32), ("pool", (1, 32, 32), 16), ("pool", (3, 64, 64), 16), ("pool", (1, 28, 28), 16),
    ("pool", (3, 45, 45), 16), ("pool", (1, 16, 16), 16),
])
def test_shapes(name, shape, latent_dim):
    vae = lab.build(name, shape)
    logits, q = vae(torch.rand(7, *shape))
    assert logits.shape == (7, *shape) and logits.dtype == torch.float32
    assert q.mean.shape == q.stddev.shape == (7, latent_dim) and vae.latent_dim == latent_dim
    pictures = vae.draw(q.mean)
    assert pictures.shape == (7, *shape) and 0 <= pictures.min() < pictures.max() <= 1
    assert not any(isinstance(layer, nn.Sigmoid) for layer in vae.modules())


def layers(module, kind):
    return [layer for layer in module.modules() if isinstance(layer, kind)]


def test_the_layers_of_the_network_for_digits():
    vae = lab.ConvVAE()
    down, up = ([(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0], c.padding[0]) for c in layers(*part)]
                for part in ((vae.encoder, nn.Conv2d), (vae.decoder, nn.ConvTranspose2d)))
    assert down == [(1, 16, 4, 2, 0), (16, 32, 4, 2, 0), (32, 64, 4, 2, 0)]
    assert up == [(32, 256, 3, 2, 0), (256, 128, 4, 1, 0), (128, 64, 3, 2, 0), (64, 1, 4, 2, 0)]
    assert len(layers(vae.encoder, nn.BatchNorm2d)) == 2 and len(layers(vae.decoder, nn.BatchNorm2d)) == 3
    assert {a.negative_slope for a in layers(vae.encoder, nn.LeakyReLU)} == {0.2}
    assert len(layers(vae.decoder, nn.ReLU)) == 3
    assert isinstance(vae.encoder[-1], nn.Conv2d) and isinstance(vae.decoder[-1], nn.ConvTranspose2d)


def test_the_layers_of_the_network_for_larger_pictures():
    vae = lab.PoolVAE(3, 64)
    down, up = layers(vae.encoder, nn.Conv2d), layers(vae.decoder, nn.ConvTranspose2d)
    assert [c.out_channels for c in down] == [8, 16, 32, 64]
    assert {(c.kernel_size[0], c.stride[0]) for c in down} == {(4, 2)}
    assert [c.out_channels for c in up] == [32, 16, 8, 3] and len(layers(vae.encoder, nn.ReLU)) == 5
    assert [(m.in_features, m.out_features) for m in layers(vae, nn.Linear)] == [(64, 128), (128, 32), (16, 64)]


def test_the_pool_forgets_positions_and_its_picture_is_cut_from_the_middle():
    x = torch.rand(1, 1, 32, 32)
    h = lab.PoolVAE().encoder[:8](x)
    torch.testing.assert_close(lab.PoolVAE().encoder[8:10](h), h.mean(dim=(2, 3)))
    vae = lab.PoolVAE(1, 27)        # 32 - 27 = 5: two pixels less on one side, three on the other
    z = torch.randn(2, 16)
    torch.testing.assert_close(vae.decode(z), vae.decoder[:-1](z)[..., 2:29, 2:29])


def test_the_network_of_linear_layers_is_lab_02s():
    vae = lab.LinearVAE()
    down, up = ([(m.in_features, m.out_features) for m in layers(part, nn.Linear)]
                for part in (vae.encoder, vae.decoder))
    assert down == [(784, 512), (512, 256), (256, 128), (128, 64)]
    assert up == [(32, 128), (128, 256), (256, 512), (512, 784)]
    assert len(layers(vae, nn.BatchNorm1d)) == len(layers(vae, nn.ReLU)) == 6
    logits, q = lab.LinearVAE((3, 8, 8))(torch.rand(5, 3, 8, 8))
    assert logits.shape == (5, 3, 8, 8) and q.mean.shape == (5, 32)


def test_logvar_is_the_log_of_a_variance():
    vae = Linear()
    x = torch.rand(5, 1, 4, 4)
    mu, logvar = vae.encoder(x).chunk(2, dim=1)
    torch.testing.assert_close(vae.encode(x).mean, mu)
    torch.testing.assert_close(vae.encode(x).variance, logvar.exp())


def test_the_gradient_passes_through_the_draw():
    vae = Linear()
    logits, q = vae(torch.rand(5, 1, 4, 4))
    logits.square().sum().backward()
    gradient = vae.encoder[1].weight.grad
    assert (gradient.abs().sum(dim=1) > 0).all(), "mu and logvar"


def test_the_sums_of_the_loss_see_float32(monkeypatch):
    monkeypatch.setattr(lab, "autocast", lambda device: torch.autocast("cpu", torch.bfloat16))
    vae = lab.ConvVAE()
    logits, q = vae(torch.rand(3, 1, 28, 28))
    assert logits.dtype == q.mean.dtype == q.stddev.dtype == torch.float32


def test_codes_and_pictures_do_not_depend_on_their_neighbours():
    """Whatever mode the network was in: batch normalisation takes its running means."""
    vae, x, z = lab.ConvVAE(), torch.rand(16, 1, 28, 28), torch.randn(16, 32)
    for method, values in ((vae.mean_code, x), (vae.draw, z)):
        vae.train()
        torch.testing.assert_close(method(values[:3]), method(values)[:3], atol=1e-5, rtol=1e-4)
        assert not vae.training and not method(values).requires_grad


# ------------------------------------------------------------------------------------------ losses

def test_likelihoods_agree_with_torch_distributions():
    logits, x = torch.randn(5, 3, 8, 8) * 3, torch.rand(5, 3, 8, 8)
    for sigma in (1.0, 0.3, 0.1):
        expected = -distributions.Normal(logits.sigmoid(), sigma).log_prob(x).sum(dim=(1, 2, 3)).mean()
        torch.testing.assert_close(lab.gaussian_nll(logits, x, sigma), expected)
    expected = -distributions.Bernoulli(logits=logits).log_prob(x.round()).sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(lab.bernoulli_nll(logits, x.round()), expected)


def test_known_likelihoods():
    zero, x = torch.zeros(3, 1, 28, 28), torch.rand(3, 1, 28, 28)
    assert lab.bernoulli_nll(zero, x).item() == pytest.approx(784 * math.log(2), rel=1e-6)
    perfect = lab.gaussian_nll(zero, torch.full_like(x, 0.5), 0.1).item()
    assert perfect == pytest.approx(784 * math.log(0.1 * math.sqrt(2 * math.pi)), rel=1e-6)
    off = lab.gaussian_nll(zero, torch.full_like(x, 0.7), 0.1).item()         # each pixel by two sigma
    assert off - perfect == pytest.approx(784 * 2, rel=1e-5)


def test_elbo_terms():
    logits, x = torch.randn(5, 1, 28, 28), torch.rand(5, 1, 28, 28)
    mu, logvar = torch.randn(2, 5, 20)
    q = distributions.Normal(mu, (logvar / 2).exp())
    closed = 0.5 * (mu**2 + logvar.exp() - logvar - 1).sum(dim=1).mean()
    for sigma, expected in ((None, lab.bernoulli_nll(logits, x)), (0.3, lab.gaussian_nll(logits, x, 0.3)),
                            ("fitted", lab.fitted_nll(logits, x))):
        reconstruction, kl = lab.elbo_terms(logits, x, q, sigma)
        torch.testing.assert_close((reconstruction, kl), (expected, closed))


def test_the_fitted_sigma_is_the_root_of_the_mean_squared_error():
    """By a search over sigma, by the derivative, and by the gradient that reaches the network."""
    logits, x = torch.randn(5, 1, 8, 8).requires_grad_(), torch.rand(5, 1, 8, 8)
    search = minimize_scalar(lambda sigma: lab.gaussian_nll(logits.detach(), x, sigma).item(), bounds=(0.01, 2),
                             method="bounded")
    fitted = lab.fitted_nll(logits, x)
    assert fitted.item() == pytest.approx(search.fun, rel=1e-5)
    rms = (logits.detach().sigmoid() - x).square().mean().sqrt()
    assert search.x == pytest.approx(rms.item(), rel=1e-2)
    sigma = rms.clone().requires_grad_()
    nll = -distributions.Normal(logits.detach().sigmoid(), sigma).log_prob(x).sum(dim=(1, 2, 3)).mean()
    [slope] = torch.autograd.grad(nll, sigma)
    assert abs(slope) < 1e-2 * x[0].numel()
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (fitted, lab.gaussian_nll(logits, x, rms.item()))]
    torch.testing.assert_close(*gradients)


def test_the_gaussian_elbo_takes_its_sigma_from_known_images():
    vae, known, x = Linear(), torch.rand(64, 1, 4, 4) / 4, torch.rand(64, 1, 4, 4)
    with torch.no_grad():
        vae.encoder[1].weight[2:] = 0
        vae.encoder[1].bias[2:] = -60       # a code without noise makes the sum exact
        sigma, elbo = lab.gaussian_elbo(vae, known, x)
        q = vae.encode(x)
        expected = distributions.Normal(vae.draw(q.mean), sigma).log_prob(x).sum(dim=(1, 2, 3)).mean()
        closed = 0.5 * (q.mean**2 + q.variance - q.variance.log() - 1).sum(dim=1).mean()
    assert sigma == pytest.approx((vae.draw(vae.encode(known).mean) - known).square().mean().sqrt().item(), rel=1e-4)
    assert elbo == pytest.approx((expected - closed).item(), rel=1e-4)


def test_sigma_is_beta_in_disguise():
    """The gradients of 2 sigma^2 (Gaussian NLL + KL) are those of the squared error + 2 sigma^2 KL."""
    vae, x, sigma = Linear(), torch.rand(5, 1, 4, 4), 0.3
    grads = []
    for way in ("gaussian", "squared error"):
        vae.zero_grad()
        seed_everything(1)
        logits, q = vae(x)
        reconstruction, kl = lab.elbo_terms(logits, x, q, sigma)
        if way == "gaussian":
            loss = 2 * sigma**2 * (reconstruction + kl)
        else:
            loss = (logits.sigmoid() - x).square().sum() / len(x) + 2 * sigma**2 * kl
        loss.backward()
        grads.append([p.grad.clone() for p in vae.parameters()])
    torch.testing.assert_close(*grads)


# ---------------------------------------------------------------------------------------- training

@pytest.mark.parametrize("sigma", [None, 0.3])
def test_a_step_lowers_the_loss_and_beta_weighs_the_kl(sigma):
    x = torch.rand(64, 1, 4, 4).round()
    ends = {}
    for beta in (1.0, 20.0):
        seed_everything(0)
        vae = Linear()
        optimizer = torch.optim.Adam(vae.parameters(), lr=2e-2)
        first, *_, last = [lab.train_step(vae, optimizer, x, sigma, beta) for _ in range(150)]
        assert last[0] + beta * last[1] < first[0] + beta * first[1]
        assert not any(term.requires_grad for term in last)
        ends[beta] = last[1].item()
    assert ends[20.0] < ends[1.0] / 5


def test_gradients_do_not_pile_up_over_steps():
    x, vae = torch.rand(16, 1, 4, 4), Linear()
    optimizer = torch.optim.SGD(vae.parameters(), lr=0.0)
    norms = []
    for _ in range(2):
        seed_everything(5)
        lab.train_step(vae, optimizer, x, None, 1.0)
        norms.append(vae.encoder[1].weight.grad.norm().item())
    assert norms[0] == norms[1] > 0


def test_evaluate_weighs_the_shorter_last_batch_and_draws_the_code():
    vae, x = Linear(), torch.rand(10, 1, 4, 4)
    assert lab.evaluate(vae, [(x, None)], None)[0] != lab.evaluate(vae, [(x, None)], None)[0]
    with torch.no_grad():
        vae.encoder[1].weight[2:] = 0
        vae.encoder[1].bias[2:] = -60       # a code without noise makes the sum exact
        for sigma in (None, 0.5):
            expected = lab.elbo_terms(vae.decode(vae.encode(x).mean), x, vae.encode(x), sigma)
            reconstruction, kl = lab.evaluate(vae, [(x[:8], None), (x[8:], None)], sigma)
            assert (reconstruction, kl) == pytest.approx((expected[0].item(), expected[1].item()), rel=1e-4)
    assert not vae.training, "batch normalisation must not learn from test images"


def test_fit_keeps_a_history_and_a_sheet_for_every_epoch(tmp_path, monkeypatch):
    step, evaluate, steps, tested = lab.train_step, lab.evaluate, [], []

    def watched_step(vae, optimizer, x, sigma, beta):
        assert vae.training and (sigma, beta) == (None, 2.0)
        terms = step(vae, optimizer, x, sigma, beta)
        steps.append(len(x) / 20 * terms[1].item())     # its part of the mean over 20 images
        return terms

    monkeypatch.setattr(lab, "train_step", watched_step)
    monkeypatch.setattr(lab, "evaluate", lambda *arguments: tested.append(arguments) or evaluate(*arguments))
    train = InMemoryLoader(torch.randint(256, (20, 1, 4, 4), dtype=torch.uint8), torch.zeros(20), 16, shuffle=True)
    x = train.to_float(train.images)
    test, training, vae = [(x, None)], Training("test", tmp_path, {}), Linear()
    lab.fit(training, vae, train, test, 3, sigma=None, beta=2.0, x_fixed=x[:8])
    history = training.history
    assert {len(values) for values in history.values()} == {3} and len(history) == 6
    for part in ("train", "test"):
        expected = [r + 2.0 * k for r, k in zip(history[f"{part}_reconstruction"], history[f"{part}_kl"])]
        assert history[f"{part}_loss"] == pytest.approx(expected)
    assert history["train_kl"] == pytest.approx([sum(steps[i:i + 2]) for i in (0, 2, 4)], rel=1e-5)
    assert tested == [(vae, test, None)] * 3
    assert len(training.pictures) == 3 == len(list(tmp_path.glob("reconstructions_epoch_*.png")))


def test_fit_without_fixed_images_keeps_no_sheets(tmp_path):
    train = InMemoryLoader(torch.randint(256, (20, 1, 4, 4), dtype=torch.uint8), torch.zeros(20), 16)
    training = Training("test", tmp_path, {})
    lab.fit(training, Linear(), train, [(torch.rand(2, 1, 4, 4), None)], 1, sigma=0.5, beta=1)
    assert training.pictures == [] and not list(tmp_path.glob("*.png"))


def digits(lab, n_images, **parameters):
    """Give a lab parameters and a loader of so many random pictures, as its first cells would have made them."""
    vars(lab).update(dataset="digits", limit=n_images, epochs=1, batch_size=16, image_shape=(1, 28, 28), **parameters)
    loader = InMemoryLoader(torch.randint(256, (n_images, 1, 28, 28), dtype=torch.uint8), torch.zeros(n_images), 16,
                            shuffle=True)
    loader.settings = {name: getattr(lab, name) for name in ("dataset", "limit", "batch_size")}
    lab.train_loader, lab.test_loader, lab.x = loader, loader, loader.to_float(loader.images)


def test_the_cell_that_trains_starts_anew_with_the_parameters_of_the_moment(tmp_path):
    """The real cell, after a reader has run the parameters cell again, and nothing else."""
    lab, cell = definitions("03_conv_vae"), cell_source("03_conv_vae", "train")
    digits(lab, 40, out_dir=str(tmp_path))
    ends = []
    for parameters in ({}, {}, {"beta": 4.0}, {"seed": 1}):
        vars(lab).update(parameters)
        torch.rand(3)       # whatever was drawn before
        exec(cell, vars(lab))
        ends.append((lab.training.history, lab.training.settings["beta"], lab.training.n_epochs))
    assert ends[0] == ends[1] and ends[2][1:] == (4.0, 1)
    assert len({str(history) for history, *_ in ends}) == 3
    lab.batch_size = 8
    with pytest.raises(ValueError, match="batch_size=8.*get_loaders"):
        exec(cell, vars(lab))


def test_the_short_trainings_of_both_sections_have_the_same_parameters(tmp_path):
    lab, cell, trained = definitions("03_conv_vae"), cell_source("03_conv_vae", "sweep"), []
    digits(lab, 40, out_dir=str(tmp_path), sweep_images=30)
    lab.new_convolutions = None
    lab.train_few = lambda name, make, settings: trained.append((name, settings)) or (None, None)
    earlier = [(None, Training("earlier", tmp_path, lab.few_settings(seed=seed))) for seed in (0, 1)]
    lab.few_trained = {"convolutions": earlier}
    exec(cell, vars(lab))
    assert lab.short["cross entropy"] is earlier and len(lab.short) == 5
    wanted = {"sigma 1": (1.0, 1), "sigma 0.3": (0.3, 1), "sigma fitted": ("fitted", 1),
              "cross entropy, beta 4": (None, 4)}
    assert [(name, s["seed"], s["sigma"], s["beta"]) for name, s in trained] == [
        (name, seed, *values) for name, values in wanted.items() for seed in (0, 1)]
    assert {s["limit"] for _, s in trained} == {30}
    for name, value in (("sweep_epochs", 9), ("sweep_images", 20), ("seed", 5), ("learning_rate", 0.1)):
        before = getattr(lab, name)
        setattr(lab, name, value)
        with pytest.raises(ValueError, match="earlier: trained with other values"):
            exec(cell, vars(lab))
        setattr(lab, name, before)
    exec(cell, vars(lab))


def test_linear_layers_are_not_compared_with_a_network_of_other_parameters(tmp_path):
    lab, cell = definitions("03_conv_vae"), cell_source("03_conv_vae", "like-with-like")
    lab.training = Training("before", tmp_path, lab.settings_now(beta=4))
    with pytest.raises(ValueError, match="before: trained with other values"):
        exec(cell, vars(lab))


@pytest.mark.parametrize("pretrained, n_epochs", [(False, 7), (True, 2)])
def test_short_trainings_take_few_images_and_with_pretrained_few_epochs(monkeypatch, pretrained, n_epochs):
    for name, value in {"pretrained": pretrained, "sweep_epochs": 7, "sweep_images": 100, "limit": 50}.items():
        monkeypatch.setattr(lab, name, value)
    settings = lab.few_settings(seed=3)
    assert settings == {**lab.settings_now(), "seed": 3, "limit": 50, "batch_size": 128, "epochs": n_epochs}
    monkeypatch.setattr(lab, "limit", None)
    assert lab.few_settings()["limit"] == 100 and lab.few_settings(sigma="fitted")["sigma"] == "fitted"


def test_a_short_training_starts_from_its_seed_and_keeps_to_its_settings(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(lab, "out_dir", str(tmp_path))
    monkeypatch.setattr(lab, "few_train", "train", raising=False)
    monkeypatch.setattr(lab, "few_test", "test", raising=False)
    monkeypatch.setattr(lab, "fit", lambda *arguments, **loss: given.append((arguments[2:], loss)))
    for seed in (1, 1, 2):
        network, training = lab.train_few("kind", Linear, lab.few_settings(seed=seed, sigma=0.3, epochs=5))
        assert training.settings["seed"] == seed and training.modules == {"vae": network}
        given.append(network.decoder[0].weight)
    assert given[0] == (("train", "test", 5), {"sigma": 0.3, "beta": 1})
    assert torch.equal(given[1], given[3]) and not torch.equal(given[1], given[5])


def test_the_sheets_that_are_shown_are_the_same_when_only_they_were_kept():
    assert lab.milestones(list(range(10))) == [0, 5, 9]
    for n in range(1, 20):
        kept = lab.milestones(list(range(n)))
        assert lab.milestones(kept) == kept and kept[0] == 0 and kept[-1] == n - 1


@pytest.mark.parametrize("n, shape", [(30, (112, 840)), (20, (56, 840)), (7, (56, 392)), (1, (56, 56))])
def test_a_collage_has_whole_rows(n, shape):
    """Few pictures would leave black tiles in the last one."""
    sheet = lab.tiled(torch.full((n, 1, 28, 28), 0.5), n_cols=15)
    assert sheet.shape == shape and sheet.min() == sheet.max()
    assert lab.tiled(torch.rand(4, 3, 64, 64), n_cols=2).shape == (128, 128, 3)


@pytest.mark.slow
def test_kill_9_and_resume_end_bit_identical(tmp_path):
    call = "lab.fit(training, vae, train, test, epochs, sigma=None, beta=1, x_fixed=train.to_float(train.images[:4]))"
    check_resume("03_conv_vae", "vae=lab.build('conv', (1, 28, 28))", call, tmp_path)


def test_true_images_are_on_the_left_and_reconstructions_on_the_right():
    vae, x = Linear(), torch.rand(8, 1, 4, 4)
    sheet = lab.true_and_reconstructed(vae, x, n_cols=4)
    true, reconstructed = sheet[:, :32], sheet[:, -32:]
    assert np.array_equal(true, lab.collage(x, 4, scale=2))
    assert np.array_equal(reconstructed, lab.collage(vae.draw(vae.encode(x).mean), 4, scale=2))


def test_a_reconstruction_does_not_depend_on_its_neighbours():
    vae, x = lab.ConvVAE(), torch.rand(16, 1, 28, 28)
    few, many = (lab.true_and_reconstructed(vae, pictures) for pictures in (x[:8], x))
    assert np.abs(few.astype(int) - many[:len(few)]).max() <= 1 and not vae.training


# ---------------------------------------------------------------------------------- latent arithmetic

def bar(slope=0.0, width=3, height=12):
    """A bar whose rows lean to the right by `slope` pixels for each row upwards."""
    image = torch.zeros(1, 1, 28, 28)
    for i, row in enumerate(range(8, 8 + height)):
        start = 12 + round(slope * (height / 2 - i))
        image[..., row, start:start + width] = 1
    return image


@pytest.mark.parametrize("slope", [-1.0, 0.0, 1.0])
def test_slant_of_bars(slope):
    assert lab.slant(bar(slope)).item() == pytest.approx(slope, abs=1e-5)


def test_slant_agrees_with_opencv_and_ignores_position_and_brightness():
    x = torch.rand(4, 1, 28, 28)**4
    expected = [-m["mu11"] / m["mu02"] for m in (cv2.moments(image[0].numpy()) for image in x)]
    torch.testing.assert_close(lab.slant(x), torch.tensor(expected, dtype=torch.float32), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(lab.slant(x), lab.slant(x / 3), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(lab.slant(bar(0.5)), lab.slant(bar(0.5).roll((3, -4), (2, 3))), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("width, height", [(1, 12), (3, 12), (5, 20), (4, 4)])
def test_thickness_of_bars(width, height):
    expected = 2 * width * height / (2 * (width + height))
    assert lab.thickness(bar(0, width, height)).item() == pytest.approx(expected, rel=1e-6)


def test_thickness_counts_the_outline_at_the_edge_of_the_picture_and_each_colour_once():
    assert lab.thickness(torch.ones(1, 1, 28, 28)).item() == pytest.approx(14)
    grey = torch.rand(2, 1, 9, 9)
    for moment in (lab.slant, lab.thickness):
        torch.testing.assert_close(moment(grey.expand(2, 3, 9, 9)), moment(grey), atol=1e-5, rtol=1e-4)


def test_masks_are_a_tenth_each_and_come_from_the_moments():
    x = torch.cat([bar(s) * 0.9 + 0.01 * torch.rand(1, 1, 28, 28) for s in np.linspace(-1, 1, 50)])
    high, low = lab.attribute_masks(x, torch.zeros(50, dtype=torch.long))["slanted"]
    assert high.sum() == low.sum() == 5
    assert lab.slant(x)[high].min() >= lab.slant(x)[~high].max() and lab.slant(x)[low].max() <= lab.slant(x)[~low].min()


def test_a_class_is_compared_with_itself():
    slopes = (*np.linspace(-1, 0, 20), *np.linspace(0, 1, 20))
    x = torch.cat([bar(slope) + 0.01 * torch.rand(1, 1, 28, 28) for slope in slopes])
    labels = torch.tensor([0] * 20 + [7] * 20)         # the second class leans more than the first; others are absent
    for mask in lab.attribute_masks(x, labels)["slanted"]:
        assert labels[mask].bincount(minlength=8)[[0, 7]].tolist() == [2, 2]


def test_masks_from_the_attributes_of_celeba():
    labels = torch.zeros(6, 40, dtype=torch.long)
    labels[:2, 15], labels[1:4, 31] = 1, 1
    masks = lab.attribute_masks(torch.rand(6, 3, 64, 64), labels)
    assert masks["glasses"][0].tolist() == [True, True, False, False, False, False]
    assert masks["smile"][0].tolist() == [False, True, True, True, False, False]
    assert all(torch.equal(high, ~low) for high, low in masks.values())


def test_attribute_vectors_are_differences_of_mean_codes():
    vae, x = Linear(), torch.rand(40, 1, 4, 4)
    vectors = lab.attribute_vectors(vae, x, torch.zeros(40, dtype=torch.long))
    codes = vae.encode(x).mean
    for name, values in (("slanted", lab.slant(x)), ("thick", lab.thickness(x))):
        order = values.argsort()
        torch.testing.assert_close(vectors[name], codes[order[-4:]].mean(dim=0) - codes[order[:4]].mean(dim=0))


def test_add_attribute_starts_from_the_mean_code():
    vae, x, vector = Linear(), torch.rand(3, 1, 4, 4), torch.randn(2)
    frames = lab.add_attribute(vae, x, vector, torch.tensor([0.0, 1.5]))
    assert frames.shape == (3, 2, 1, 4, 4)
    torch.testing.assert_close(frames[:, 0], vae.draw(vae.encode(x).mean))
    torch.testing.assert_close(frames[2, 1], vae.draw(vae.encode(x[2:]).mean + 1.5 * vector)[0])


def test_traverse_changes_one_latent_only():
    vae = Linear()
    z, values, axis = torch.randn(1, 2), torch.linspace(-3, 3, 5), torch.tensor([0.0, 1.0])
    frames = lab.traverse(vae, z, axis, values)
    for frame, value in zip(frames, values):
        torch.testing.assert_close(frame[None], vae.draw(torch.stack([z[0, 0], value])[None]))
    with pytest.raises(AssertionError, match="equal"):
        lab.traverse(vae, z, axis, torch.ones(5))


def test_traverse_along_a_slanted_axis_keeps_the_rest_of_the_code():
    vae, seen = Linear(), []
    vae.draw = lambda codes: seen.append(codes) or codes
    axis, across = torch.tensor([0.6, 0.8]), torch.tensor([-0.8, 0.6])
    z, values = torch.randn(1, 2), torch.linspace(-3, 3, 5)
    lab.traverse(vae, z, axis, values)
    torch.testing.assert_close(seen[0] @ axis, values)
    torch.testing.assert_close(seen[0] @ across, (z @ across).expand(5))


def test_the_most_used_latents_come_first(monkeypatch):
    monkeypatch.setattr(lab, "describe", lambda vae, x: (0.0, torch.tensor([0.2, 3.0, 0.0, 1.0])))
    assert lab.used_axes(None, torch.zeros(1), 3).argmax(dim=1).tolist() == [1, 3, 0]


def test_a_turn_of_the_code_leaves_the_bound_and_a_diagonal_noise_pays_for_it():
    torch.manual_seed(0)
    vae, x = Linear(), torch.rand(20_000, 1, 4, 4)
    with torch.no_grad():
        vae.encoder[1].bias[2:] = torch.tensor([-6.0, 0.0])        # one narrow latent, one wide one
        vae.decoder[0].weight[:, 0], vae.decoder[0].weight[:, 1] = 2, 0.1
        turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
        terms = lab.turned_terms(vae, x, turn)
        q = vae.encode(x)
    (still, kl), (turned, full_kl), (diagonal, diagonal_kl) = terms.values()
    torch.testing.assert_close(full_kl, kl, rtol=1e-4, atol=0)
    assert turned.item() == pytest.approx(still.item(), abs=0.1), "another draw of the same codes"
    variance = q.variance @ (turn**2).T         # of the turned code, by the rule for a sum of independent terms
    closed = 0.5 * ((q.mean @ turn.T)**2 + variance - variance.log() - 1).sum(dim=1).mean()
    torch.testing.assert_close(diagonal_kl, closed, rtol=1e-4, atol=0)
    assert diagonal + diagonal_kl > turned + full_kl + 0.3


def test_latents_are_found_again_by_their_correlation():
    codes, others = torch.randn(500, 3), torch.randn(500, 4)
    expected = np.abs(np.corrcoef(codes.T, others.T)[:3, 3:]).max(axis=1)
    np.testing.assert_allclose(lab.found_again(codes, others), expected, rtol=1e-4)
    shuffled = -2 * codes[:, [2, 0, 1]] + 5
    torch.testing.assert_close(lab.found_again(codes, shuffled), torch.ones(3))


def test_describe_gives_the_error_of_the_mean_and_the_kl_of_each_latent():
    vae, x = Linear(), torch.rand(6, 1, 4, 4)
    error, kl = lab.describe(vae, x)
    q = vae.encode(x)
    assert error == pytest.approx(((vae.draw(q.mean) - x)**2).mean().item()**0.5, rel=1e-5)
    closed = 0.5 * (q.mean**2 + q.variance - q.variance.log() - 1)
    torch.testing.assert_close(kl, closed.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_a_face_is_recognised_if_its_own_photograph_is_the_nearest():
    class Given(nn.Module):
        def mean_code(self, x):
            return x + self.error

        def draw(self, z):
            return z

    vae, pictures, others = Given(), torch.zeros(3, 1, 1, 1), torch.tensor([0.35]).view(1, 1, 1, 1)
    pictures[:, 0, 0, 0] = torch.tensor([0.0, 1.0, 2.0])
    vae.error = 0.1
    assert lab.n_recognised(vae, pictures, others) == 3
    vae.error = 0.3         # the first is now nearer to the stranger, and the others are still nearest to themselves
    assert lab.n_recognised(vae, pictures, others) == 2
