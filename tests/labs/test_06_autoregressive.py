"""The definitions of lab 06, taken from the notebook, against second sources."""

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from helpers import cell_source, check_resume, definitions
from scipy import stats
from torch import nn
from torch.distributions import Bernoulli

from labutils import CheckpointError, Training, from_lab, get_loaders, seed_everything

lab = definitions("06_autoregressive")


@pytest.fixture(autouse=True)
def seeded():
    seed_everything(0)


def coins(*shape):
    return torch.bernoulli(torch.full(shape, 0.5))


def run_cells(cells, **names):
    """Execute cells of the lab, reduced, with these names set before; return the namespace."""
    space = definitions("06_autoregressive")
    vars(space).update({"dataset": "digits", "limit": 40, "show": lambda *_, **__: None,
                        "save_image": lambda *_: None, **names})
    for cell in cells:
        exec(cell_source("06_autoregressive", cell), vars(space))
    return space


def strong(model, factor=3):
    """Enlarge the weights of a network, so that what it sees moves its logits."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p)).mul_(factor)
    return model


def gated(size, n_layers=2, **more):
    return strong(lab.GatedPixelCNN(6, n_layers, size=size, first_kernel=5, **more), 2)


# ------------------------------------------------------------------------------------- the chain rule

def test_a_toss_is_always_the_same_and_has_the_right_mean():
    x = torch.rand(400, 1, 6, 6, generator=torch.Generator().manual_seed(7))
    b = lab.toss(x)
    assert torch.equal(b, lab.toss(x)) and not torch.equal(b, lab.toss(x, seed=1))
    assert set(b.unique().tolist()) == {0, 1} and (b - x).mean().abs() < 0.01
    assert torch.equal(lab.toss(x.round()), x.round())


def test_nats_are_minus_the_log_probability_of_the_tosses():
    logits, b = 3 * torch.randn(5, 1, 4, 4), coins(5, 1, 4, 4)
    torch.testing.assert_close(lab.nats(logits, b), -Bernoulli(logits=logits).log_prob(b).sum(dim=(1, 2, 3)))
    assert lab.nats(torch.zeros(1, 784), coins(1, 784)).item() == pytest.approx(543.43, abs=0.01)


@pytest.mark.parametrize("order", [range(9), (4, 0, 8, 2, 6, 1, 7, 3, 5)])
def test_a_model_of_nine_pixels_adds_up_to_one_and_reaches_the_entropy_of_the_chain(order):
    space = run_cells(["bridge", "bridge-run"], print=lambda *_, **__: None, seed=0)
    assert stats.entropy(space.p_chain) == pytest.approx(space.entropy)
    model = space.LogisticModel(order)
    assert space.fit_exactly(model) == pytest.approx(space.entropy, abs=1e-6)
    torch.testing.assert_close((-lab.nats(model(lab.ALL), lab.ALL)).exp(), space.p_chain, atol=1e-5, rtol=1e-3)
    turn = {pixel: k for k, pixel in enumerate(order)}
    for i, j in product(range(9), repeat=2):
        assert model.before[i, j] == (turn[j] < turn[i])


# --------------------------------------------------------------------------------------------- masks

@pytest.mark.parametrize("kind, size", [("A", 3), ("B", 3), ("A", 7), ("B", 5)])
def test_a_masked_convolution_adds_up_what_comes_before(kind, size):
    layer, x, middle = lab.MaskedConv2d(kind, 2, 3, size), torch.randn(1, 2, 6, 8), size // 2
    expected = layer.bias.expand(6, 8, 3).clone()
    for i, j, r, c in product(range(6), range(8), range(6), range(8)):
        before = 8 * r + c < 8 * i + j + (kind == "B")
        if before and max(abs(r - i), abs(c - j)) <= middle:
            expected[i, j] += layer.weight[:, :, r - i + middle, c - j + middle] @ x[0, :, r, c]
    torch.testing.assert_close(layer(x)[0].permute(1, 2, 0), expected)


@pytest.mark.parametrize("make", [lambda kind, size: lab.MaskedConv2d(kind, 1, 1, size),
                                  lambda kind, size: lab.GatedLayer(4, size, kind)])
@pytest.mark.parametrize("kind, size, message", [("C", 3, "kind='C': "), ("a", 3, "kind='a': "),
                                                 ("A", 4, "kernel_size=4: "), ("B", 1, "kernel_size=1: ")])
def test_a_kernel_that_does_not_exist_is_named(make, kind, size, message):
    with pytest.raises(ValueError, match=message):
        make(kind, size)


def networks():
    yield "plain", strong(lab.PlainPixelCNN(4, 2, first_kernel=5))
    yield "gated", gated(6)
    yield "recurrent", strong(lab.PixelRNN(8))


@pytest.mark.parametrize("name, model", list(networks()))
def test_a_network_sees_no_later_pixel_by_gradient_by_value_and_by_the_sum_over_all_pictures(name, model):
    b = coins(1, 1, 6, 6)
    matrix = lab.gradient_matrix(model, b)
    assert matrix.triu().max() == 0 == lab.largest_leak(model, b) and matrix.max() > 0
    small = gated(3) if name == "gated" else model
    assert lab.sum_of_all(small) == pytest.approx(1, abs=1e-4)


class Around(nn.Module):
    """A network that adds its picture, moved by some places, to what another returns."""

    def __init__(self, model, places):
        super().__init__()
        self.model, self.places = model, places

    def forward(self, b):
        return self.model(b) + b.flatten(1).roll(self.places, dims=1).view_as(b)


def broken():
    yield "mask B in the first layer", strong(lab.PlainPixelCNN(4, 2, first_kernel=5, first="B"))
    for number in (0, 1):
        yield f"mask {number} turned", lab.turn(strong(lab.PlainPixelCNN(4, 2, first_kernel=3)), number)
    yield "a pixel around the network", Around(gated(6), 0)
    yield "the next pixel around the network", Around(gated(6), -1)
    for name, value in (("own", 1), ("reach", 1)):
        model = gated(6)
        if name == "own":       # adds the picture to what the first layer has made, and pads as for kind "B"
            model.first.add = lambda old, new: old.expand_as(new) + new
        else:                   # the vertical stack is fed with the horizontal one
            forward = model.layers[0].forward
            model.layers[0].forward = lambda v, h: forward(h, h)
        yield f"{name} {value}", model


@pytest.mark.parametrize("name, model", list(broken()))
def test_both_proofs_find_a_network_that_sees_too_much(name, model):
    b = coins(1, 1, 6, 6)
    assert lab.gradient_matrix(model, b).triu().max() > 1e-4 and lab.largest_leak(model, b) > 1e-4


def test_all_masks_turned_read_column_by_column():
    model, b = lab.turn(strong(lab.PlainPixelCNN(4, 2, first_kernel=3)), 0, 1, 2), coins(1, 1, 5, 5)
    assert lab.sum_of_all(model) == pytest.approx(1, abs=1e-4) and lab.largest_leak(model, b) > 1e-4
    by_columns = lab.gradient_matrix(model, b).view(5, 5, 5, 5).permute(1, 0, 3, 2).reshape(25, 25)
    assert by_columns.triu().max() == 0


def test_a_leak_is_looked_for_at_some_places():
    model, b = Around(gated(6), 0), coins(1, 1, 6, 6)
    assert lab.largest_leak(model, b, every=5) > 0.9 and lab.largest_leak(gated(6), b, every=5) == 0


# --------------------------------------------------------------------------------------- gated layers

def test_the_gate_is_that_of_the_paper_but_for_a_factor():
    x = torch.randn(2, 6, 3, 3)
    torch.testing.assert_close(lab.gate(x), 2 * x[:, :3].tanh() * torch.sigmoid(2 * x[:, 3:]))


def as_square(weight, kind, vertical):
    """The kernel of a stack as a part of a square one around the pixel."""
    size = weight.shape[3] if vertical else 2 * (weight.shape[3] - (kind == "B")) + 1
    square = torch.zeros(*weight.shape[:2], size, size)
    if vertical:
        square[:, :, :weight.shape[2]] = weight
    else:
        square[:, :, size // 2, :weight.shape[3]] = weight[:, :, 0]
    return square


@pytest.mark.parametrize("kind", ["A", "B"])
@pytest.mark.parametrize("size", [3, 5])
def test_the_short_kernels_are_masked_ones_without_their_zeros(kind, size):
    layer, (v, h) = lab.GatedLayer(4, size, kind), torch.randn(2, 2, 4, 7, 7)
    to_v = F.conv2d(v, as_square(layer.vertical.weight, kind, True), layer.vertical.bias, padding=size // 2)
    to_h = F.conv2d(h, as_square(layer.horizontal.weight, kind, False), layer.horizontal.bias, padding=size // 2)
    new_v = lab.gate(to_v) + (v if kind == "B" else 0)
    new_h = layer.out(lab.gate(to_h + layer.link(new_v))) + (h if kind == "B" else 0)
    for given, expected in zip(layer(v, h), (new_v, new_h)):
        torch.testing.assert_close(given, expected)


def test_a_condition_moves_the_gates_of_its_own_place_and_nothing_else():
    layer, (v, h) = lab.GatedLayer(4, 3, "B", n_conditions=10), torch.randn(2, 1, 4, 7, 7)
    condition = torch.zeros(1, 10, 7, 7)
    for plain, conditioned in zip(layer(v, h), layer(v, h, condition)):
        torch.testing.assert_close(plain, conditioned)
    condition[0, 3, 2, 5] = 1
    for plain, conditioned in zip(layer(v, h), layer(v, h, condition)):
        moved = (plain != conditioned).any(dim=1)[0].nonzero().tolist()
        assert moved == [[2, 5]]


def test_other_labs_take_the_layers_as_they_are():
    MaskedConv2d, GatedLayer = from_lab("06_autoregressive", "MaskedConv2d", "GatedLayer")
    first, second = GatedLayer(8, 3, "A", n_conditions=2), GatedLayer(8, 3, "B", n_conditions=2)
    codes, condition = torch.randn(2, 8, 7, 7), torch.randn(2, 2, 7, 7)
    v, h = second(*first(codes, codes, condition), condition)
    assert v.shape == h.shape == (2, 8, 7, 7) and MaskedConv2d("A", 8, 64, 3)(codes).shape == (2, 64, 7, 7)


@pytest.mark.parametrize("n_layers", [1, 3, 6])
def test_the_blind_spot_of_plain_masks_and_none_of_two_stacks(n_layers):
    plain, two = (lab.regions(stack(n_layers)) for stack in (lab.plain_stack, lab.TwoStacks))
    reach = n_layers + 1
    rows, columns = torch.meshgrid(7 - torch.arange(15), torch.arange(15) - 7, indexing="ij")
    before = (rows > 0) | (rows == 0) & (columns < 0)
    near = before & (rows <= reach) & (columns.abs() <= reach)
    assert torch.equal(two == 2, near), "all that the kernels reach"
    assert torch.equal(plain == 2, near & (columns <= rows)), "not the wedge to the right"
    assert (plain[7, 7], two[7, 7]) == (3, 3)


# ------------------------------------------------------------------------------------------ training

def test_a_step_tosses_afresh_and_returns_the_nats_before_it():
    model, x, seen = gated(28, 1), torch.rand(4, 1, 28, 28), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    losses = [lab.train_step(model, optimizer, x)[0] for _ in range(2)]
    assert not torch.equal(*seen) and all(set(b.unique().tolist()) == {0, 1} for b in seen)
    for loss, b in zip(losses, seen):
        assert loss.item() == pytest.approx(lab.evaluate(model, b).mean().item(), rel=0.02) and not loss.requires_grad
    torch.testing.assert_close(lab.evaluate(model, coins(130, 1, 28, 28)).shape, torch.Size([130]))


def test_the_rate_falls_in_ten_stages():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, rates = lab.stages(optimizer, 25), []
    for _ in range(30):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert sorted(set(rates)) == pytest.approx([0.2 * k for k in range(1, 11)]) and rates == sorted(rates, reverse=True)
    assert rates[0] == 2 and rates[29] == pytest.approx(0.2)


def test_the_training_notes_ten_means_an_epoch_and_lowers_them(tmp_path):
    train, _ = get_loaders("digits", 8, limit=160)
    model = lab.GatedPixelCNN(8, 1)
    training = Training("gated", tmp_path, {}, gated=model)
    lab.fit(training, model, train, 2, coins(5, 1, 28, 28))
    trace = training.history["trace"]
    assert len(trace) == 20 and len(training.history["test_nats"]) == 2 and trace[-1] < 0.9 * trace[0]


@pytest.mark.slow
def test_resume(tmp_path):
    check_resume("06_autoregressive", "gated=lab.GatedPixelCNN(6, 1)",
                 "lab.fit(training, gated, train, epochs, torch.rand(4, 1, 28, 28).round())", tmp_path)


def test_the_trainings_take_the_parameters_as_they_are_now(tmp_path):
    names = {"out_dir": str(tmp_path), "epochs": 1, "channels": 4, "n_layers": 1, "batch_size": 8, "print": print}
    space = run_cells(["data", "train"], **names)
    assert space.training.settings["channels"] == 4 == space.gated.first.out.out_channels
    with pytest.raises(CheckpointError, match="channels=4, this training has channels=6"):
        run_cells(["data", "train"], **{**names, "channels": 6, "resume": True})


def test_weights_of_another_architecture_are_not_taken(tmp_path):
    space = run_cells(["data", "train"], out_dir=str(tmp_path), epochs=1, channels=5, n_layers=1, pretrained=True,
                      dataset="digits")
    assert space.training.n_epochs == 1 and space.gated.first.out.out_channels == 5


def test_the_bounds_of_the_vae_are_upper_limits_that_fall(tmp_path):
    space = run_cells(["data", "table-train"], out_dir=str(tmp_path), plain_epochs=1, vae_epochs=1, channels=4,
                      batch_size=16, training=None)
    bounds = [space.vae_bounds(space.vae, space.b_test, k=k).mean().item() for k in (1, 10, 100)]
    assert bounds == sorted(bounds, reverse=True) and bounds[0] < 545
    assert space.vae_bounds(space.vae, space.b_test).shape == (40,)


# ------------------------------------------------------------------------------------------ sampling

@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_cache_draws_the_pictures_of_whole_passes_bit_for_bit(temperature):
    model, u = gated(8, 3), torch.rand(50, 1, 8, 8)
    slow = lab.by_whole_pictures(model, u, temperature)
    assert torch.equal(slow, lab.sample(model, u, temperature)) and 0.05 < slow.mean() < 0.95
    assert not torch.equal(slow, lab.sample(model, torch.rand(50, 1, 8, 8), temperature))


def test_a_sampler_that_reads_a_pixel_too_early_draws_other_pictures():
    space = run_cells(["cached-layer", "sample"])
    exec(cell_source("06_autoregressive", "bug-early").split("early = sample")[0], vars(space))
    model, u = gated(8, 3), torch.rand(50, 1, 8, 8)
    assert not torch.equal(lab.sample(model, u), space.sample(model, u, cached_layer=space.EarlyLayer))

    class EarlyRow(lab.CachedLayer):
        def row(self, i):
            self.v = F.pad(self.v, (0, 0, 0, 1))[:, :, 1:]
            return super().row(i)
    assert not torch.equal(lab.sample(model, u), lab.sample(model, u, cached_layer=EarlyRow))


def test_samples_have_the_frequencies_of_the_model():
    model = gated(3)
    with torch.no_grad():
        expected = (-lab.nats(model(lab.ALL.float().view(512, 1, 3, 3)), lab.ALL.float().view(512, 1, 3, 3))).exp()
    n = 40_000
    numbers = (lab.sample(model, torch.rand(n, 1, 3, 3)).flatten(1) @ (2.0 ** torch.arange(8, -1, -1))).long()
    counts, often = torch.bincount(numbers, minlength=512), n * expected > 5
    rest = (n * expected[~often].sum()).item(), counts[~often].sum().item()
    chance = stats.chisquare([*counts[often].tolist(), rest[1]], [*(n * expected[often]).tolist(), rest[0]],
                             sum_check=False).pvalue
    assert chance > 1e-3


def test_rows_that_are_known_stay_and_the_others_follow_from_them():
    model, b, u = gated(8), coins(20, 1, 8, 8), torch.rand(20, 1, 8, 8)
    before = b.clone()
    completed = lab.sample(model, u, b=b, n_known=4)
    known = torch.arange(8)[:, None].expand(8, 8) < 4
    assert torch.equal(b, before) and torch.equal(completed[:, :, :4], b[:, :, :4])
    assert torch.equal(completed, lab.complete_picture(model, b, known, u))
    assert torch.equal(lab.sample(model, u, b=b, n_known=8), b)


@pytest.mark.parametrize("temperature", [0, -1.0, math.nan])
def test_a_temperature_that_is_none_is_named(temperature):
    with pytest.raises(ValueError, match=f"temperature={temperature!r}: must be larger than 0"):
        lab.sample(gated(3), torch.rand(1, 1, 3, 3), temperature)


def test_the_recurrent_network_draws_what_its_whole_passes_say():
    model, u = strong(lab.PixelRNN(16)), torch.rand(20, 1, 5, 5)
    slow = lab.by_whole_pictures(model, u)
    assert torch.equal(model.sample(u), slow) and 0.05 < slow.mean() < 0.95


def test_another_order_of_drawing_gives_other_pictures():
    model, u, places = gated(6), torch.rand(30, 1, 6, 6), list(product(range(6), range(6)))
    space = run_cells([])
    exec(cell_source("06_autoregressive", "bug-order").split("places, drawn")[0], vars(space))
    by_rows = space.in_order(model, u, places)
    assert torch.equal(by_rows, lab.sample(model, u))
    by_columns = space.in_order(model, u, [place[::-1] for place in places])
    assert lab.evaluate(model, by_columns).mean() > lab.evaluate(model, by_rows).mean() + 1


def test_small_pictures_are_means_of_four_pixels():
    images = torch.randint(0, 256, (3, 1, 28, 28)).byte()
    expected = images.double().view(3, 1, 14, 2, 14, 2).mean(dim=(3, 5)) / 255
    torch.testing.assert_close(lab.shrink(images).double(), expected, atol=1e-6, rtol=0)


# ----------------------------------------------------------------------------------------- bad values

@pytest.mark.parametrize("name, value", [("channels", 0), ("n_layers", 0), ("plain_epochs", 0), ("vae_epochs", 1.5),
                                         ("small_epochs", -1), ("small_images", 9), ("learning_rate", 0.0),
                                         ("learning_rate", -1e-3)])
def test_a_bad_value_is_named_in_the_set_up(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"{name}={value!r}: "):
        run_cells(["set-up"], read_parameters=lambda space: None, out_dir=str(tmp_path), **{name: value})
