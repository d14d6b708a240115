"""The definitions of lab 08, taken from the notebook, against second sources."""

import math

import numpy as np
import pytest
import torch
from helpers import cell_source, check_resume, definitions
from torch.distributions import Normal

from labutils import Training, seed_everything

lab = definitions("08_vae_gan")
NAMES = ("encoder", "decoder", "discriminator")


@pytest.fixture(autouse=True)
def seeded():
    seed_everything(0)


def small(side=28):
    """A network and images for it; no dropout, so that its losses repeat with the seed."""
    return lab.VAEGAN(1, side, 4), torch.rand(6, 1, side, side)


def parts_of(net, x, scale=0.2):
    seed_everything(1)      # the same noise each time
    return lab.loss_parts(net, x, scale)


# --------------------------------------------------------------------------------------- distances

def test_moved_and_others_by_hand():
    x = torch.zeros(3, 1, 4, 4)
    x[0, 0, 1, 1], x[1, 0, 1, 1], x[2, 0, 1, 2] = 1, 2, 1
    own, others = lab.moved_and_others(lambda x: x, x, (0, 1))
    torch.testing.assert_close(own, torch.tensor([2**0.5, 8**0.5, 2**0.5]))
    assert others.diag().isinf().all()
    torch.testing.assert_close(others[0, 1:], torch.tensor([1, 2**0.5]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n, share", [(3, 1.0), (16, 0.0)])
def test_high_frequencies_of_waves(n, share):
    """A wave of fewer than four pixels counts, one of more does not; constants have no energy."""
    wave = torch.cos(2 * math.pi * torch.arange(48) / n)
    x = 0.5 + 0.3 * wave.expand(2, 1, 48, 48)
    assert lab.high_frequencies(x) == pytest.approx(share, abs=1e-6)


def test_high_frequencies_agree_with_numpy():
    x = torch.rand(3, 1, 28, 28)
    energy = np.abs(np.fft.fft2(x.double().numpy() - x.double().mean(dim=(2, 3), keepdim=True).numpy()))**2
    f = np.fft.fftfreq(28)
    high = np.hypot(f[:, None], f) > 0.25
    assert lab.high_frequencies(x) == pytest.approx(energy[..., high].sum() / energy.sum(), rel=1e-4)


# ---------------------------------------------------------------------------------------- networks

@pytest.mark.parametrize("channels, side", [(1, 28), (1, 32), (3, 64), (1, 36)])
def test_shapes_and_ranges(channels, side):
    net, x = lab.VAEGAN(channels, side, 5), torch.rand(4, channels, side, side)
    q = net.encoder(x)
    assert q.mean.shape == q.stddev.shape == (4, 5)
    pictures = net.decoder(q.rsample())
    assert pictures.shape == x.shape and 0 <= pictures.min() and pictures.max() <= 1
    h, logits = net.discriminator(pictures)
    assert h.shape == (4, 32, side // 4, side // 4) and logits.shape == (4,)
    assert net.reconstruct(x).shape == x.shape and not net.training


def test_the_encoder_returns_a_log_variance():
    net, x = small()
    last = net.encoder.layers[-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([1.0] * 4 + [math.log(4)] * 4)
    q = net.encoder(x)
    torch.testing.assert_close(q.mean, torch.ones(6, 4))
    torch.testing.assert_close(q.stddev, torch.full((6, 4), 2.0), rtol=5e-3, atol=0)        # bfloat16


def test_features_have_a_unit_in_training_mode():
    net, x = small()
    h, _ = net.discriminator(torch.cat([x, x / 2]))     # untrained: weights so small that eps in the norm shows
    assert h.mean(dim=(0, 2, 3)).abs().max() < 0.1 and (h.std(dim=(0, 2, 3)) - 1).abs().max() < 0.3


def test_a_picture_does_not_depend_on_the_others_in_its_batch():
    net, x = small()
    torch.testing.assert_close(net.reconstruct(x)[:2], net.reconstruct(x[:2]), rtol=0, atol=0.02)     # bfloat16


# ------------------------------------------------------------------------------------------ losses

def test_the_parts_agree_with_second_sources():
    net, x = small()
    parts = parts_of(net, x)
    seed_everything(1)
    q = net.encoder(x)
    z = torch.cat([q.mean + q.stddev * torch.randn_like(q.mean), torch.randn_like(q.mean)])
    h, logits = net.discriminator(torch.cat([x, net.decoder(z)]))
    logvar = 2 * q.stddev.log()
    kl = (0.5 * (q.mean**2 + logvar.exp() - logvar - 1)).sum(dim=1).mean()
    gaussian = Normal(h[6:12], 0.2**-0.5)
    distance = (gaussian.log_prob(h[6:12]) - gaussian.log_prob(h[:6])).flatten(1).sum(dim=1).mean()
    p = logits.double().sigmoid()
    expected = {"kl": kl, "distance": distance, "passing": -(p[6:12].log().mean() + p[12:].log().mean()) / 2,
                "telling": -p[:6].log().mean() - ((1 - p[6:12]).log().mean() + (1 - p[12:]).log().mean()) / 2}
    for name, value in expected.items():
        torch.testing.assert_close(parts[name].double(), value.double(), rtol=5e-3, atol=1e-4)


def test_the_distance_is_linear_in_the_scale_and_nothing_else_is():
    net, x = small()
    one, three = parts_of(net, x, 1.0), parts_of(net, x, 3.0)
    torch.testing.assert_close(three.pop("distance"), 3 * one.pop("distance"), rtol=1e-4, atol=0)
    torch.testing.assert_close(one, three)


def test_whose_loss_is_what():
    parts = {"kl": 1.0, "distance": 10.0, "passing": 100.0, "telling": 1000.0}
    assert lab.losses_of(parts, 0.5) == {"encoder": 11.0, "decoder": 105.0, "discriminator": 1000.0}
    assert lab.leaky_losses(parts, 0.5, 2) == {"encoder": 211.0, "decoder": 105.0, "discriminator": 1000.0}


def test_each_network_is_left_the_gradient_of_its_own_loss_and_of_no_other():
    """Red with one backward() of the sum, and with a game that reaches the encoder."""
    net, x = small()
    losses = lab.losses_of(parts_of(net, x), 0.03)
    expected = {name: torch.autograd.grad(losses[name], list(net.get_submodule(name).parameters()), retain_graph=True)
                for name in NAMES}
    for p in net.parameters():
        p.grad = torch.ones_like(p)     # an earlier step's
    lab.leave_gradients(net, losses)
    for name in NAMES:
        for p, g in zip(net.get_submodule(name).parameters(), expected[name], strict=True):
            torch.testing.assert_close(p.grad, g, rtol=1e-3, atol=1e-4 * g.abs().max().item() + 1e-8)


def test_the_encoder_does_not_feel_the_game():
    net, x = small()
    parts = parts_of(net, x)
    deaf = {**parts, "passing": 1000 * parts["passing"], "telling": 1000 * parts["telling"]}
    lab.leave_gradients(net, lab.losses_of(parts, 0.03))
    before = [p.grad.clone() for p in net.encoder.parameters()]
    lab.leave_gradients(net, lab.losses_of(deaf, 0.03))
    for a, p in zip(before, net.encoder.parameters()):
        torch.testing.assert_close(a, p.grad, rtol=1e-3, atol=1e-4 * a.abs().max().item() + 1e-8)
    lab.leave_gradients(net, lab.leaky_losses(deaf, 0.03, leak=1))
    assert any((a - p.grad).abs().max() > 0.1 * a.abs().max() for a, p in zip(before, net.encoder.parameters()))


def test_a_step_moves_all_three_networks():
    net, x = small()
    before = {name: [p.detach().clone() for p in net.get_submodule(name).parameters()] for name in NAMES}
    optimizers = [torch.optim.Adam(part.parameters(), 1e-3) for part in net.children()]
    terms = lab.update(net, optimizers, x, 0.2, 0.03)
    assert len(terms) == len(lab.PARTS) and not any(term.requires_grad for term in terms)
    for name in NAMES:
        moved = [(a != p).any() for a, p in zip(before[name], net.get_submodule(name).parameters())]
        assert any(moved), name


# ------------------------------------------------------------------------------------- bad input

@pytest.mark.parametrize("name, value", [("scale", 0.0), ("scale", -1.0), ("gamma", 0.0), ("d_rate", -0.1)])
def test_a_weight_that_is_not_positive_is_named(name, value, tmp_path):
    space = {}
    for cell in ("imports", "parameters"):
        exec(cell_source("08_vae_gan", cell), space)
    space |= {name: value, "out_dir": str(tmp_path), "device": "cpu"}
    with pytest.raises(ValueError, match=f"{name}={value}: must be larger than 0"):
        exec(cell_source("08_vae_gan", "set-up"), space)


def test_faces_of_a_side_that_does_not_fit_are_named(tmp_path):
    space = {}
    for cell in ("imports", "parameters"):
        exec(cell_source("08_vae_gan", cell), space)
    space |= {"out_dir": str(tmp_path), "device": "cpu", "dataset": "digits", "limit": 20}
    exec(cell_source("08_vae_gan", "set-up"), space)
    loader = space["get_loaders"]

    def odd(name, *arguments, **options):
        train, test = loader(name, *arguments, **options)
        if name == "faces":
            test.images = test.images[..., :30, :30]
        return train, test
    space["get_loaders"] = odd
    with pytest.raises(ValueError, match="faces_dataset='faces': pictures of 30 pixels.*multiple of 4"):
        exec(cell_source("08_vae_gan", "data"), space)


# --------------------------------------------------------------------------------------- training

def test_training_learns(tmp_path):
    train, _ = lab.get_loaders("digits", 32, limit=320)
    net = lab.VAEGAN(latent_dim=4)
    training = Training("short", tmp_path, {}, vae_gan=net)
    lab.fit(training, net, train, 4, scale=0.2, gamma=0.03, d_rate=0.2)
    assert set(training.history) == set(lab.PARTS) and len(training.history["kl"]) == 4
    assert training.history["distance"][-1] < training.history["distance"][0]


@pytest.mark.slow
def test_resume_after_kill(tmp_path):
    check_resume("08_vae_gan", "vae_gan=lab.VAEGAN(latent_dim=4)",
                 "lab.fit(training, vae_gan, train, epochs, scale=0.2, gamma=0.03, d_rate=0.2)", tmp_path)
