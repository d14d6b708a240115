"""Checks of the exercises on the Wasserstein GAN."""

import math
from contextlib import suppress
from functools import reduce

import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance
from torch import nn

from . import Check, comparison, draws, require, unchanged


def _mean_way(a, b, power=1, dearest=False):
    """Mean length of the ways between two clouds (n, d), paired by the plan with the least (or largest) total cost."""
    ways = (a[:, None] - b).norm(dim=2)
    plan = linear_sum_assignment(ways.detach() ** power, maximize=dearest)
    return (ways[plan] ** power).mean()


@comparison(cases=lambda: [(x, 2 * y + shift) for seed, n, shift in ((0, 5, 0.5), (1, 200, 3.0), (2, 51, -1.0))
                           for x, y in [draws(seed, (n,), (n,))]],
            before=[(unchanged(0, 1), "The samples that were handed over have been changed.",
                     "Some functions work in place. Does the order of the caller's numbers survive?")])
def check_sample_wasserstein(x, y):
    """Wasserstein-1 distance of two samples of equally many numbers, (n,) and (n,): a scalar."""
    return wasserstein_distance(x, y)


check_sample_wasserstein.misconceptions = [
    (lambda x, y: (x - y).abs().mean(),
     "The grains are paired as they were drawn, which is one plan among many and not the cheapest.",
     "The order within a sample means nothing. In which order does nobody overtake?"),
    (lambda x, y: _mean_way(x[:, None], y[:, None], power=2),
     "The ways are squared: that cost belongs to the distance of order 2.", "Order 1: mass times way."),
    (lambda x, y: _mean_way(x[:, None], y[:, None], power=2).sqrt(),
     "This is the distance of order 2, the root of a mean of squares.", "Order 1: mass times way."),
    (lambda x, y: len(x) * wasserstein_distance(x, y),
     "The ways are added up as if each grain had the mass 1.", "What does one of n grains weigh?"),
    *((lambda x, y, sign=sign: sign * (x.mean() - y.mean()),
       "Ways to the left and to the right cancel each other: only the means are compared.",
       "Carrying costs the same in both directions.") for sign in (1, -1)),
    (lambda x, y: _mean_way(x[:, None], y[:, None], dearest=True),
     "Every grain overtakes all others: this is the dearest plan.", "Is one of the samples the wrong way round?"),
]


def _way(v):
    """Distance of a cloud of points from the same one moved by v."""
    [points] = draws(3, (8, len(v)))
    return _mean_way(points, points + v)


def _gradient(v):
    return torch.autograd.functional.jacobian(_way, v)


@comparison(cases=lambda: [(scale * draws(seed, (d,))[0],)
                           for seed, d, scale in ((0, 2, 1.0), (1, 1, 5.0), (2, 7, 20.0), (3, 3, 0.1))])
def check_shift_gradient(v):
    """Gradient with respect to v of the distance of a distribution and the same one moved by v: (d,) -> (d,)."""
    return _gradient(v)


check_shift_gradient.misconceptions = [
    (lambda v: -_gradient(v), "It points the wrong way: along it the distance becomes smaller.",
     "A gradient points uphill. Which way must the heap move for the distance to grow?"),
    (torch.sign, "This takes each coordinate for a line of its own; the way is measured straight across.",
     "How far is it to v = (3, 4), and is your vector as long as it should be?"),
    (_way, "This is the distance; its gradient is asked for.", "One number for each coordinate of v."),
    (lambda v: v, "This is the gradient of half the squared distance: it fades when the heaps come close.",
     "Order 1: the way itself, not its square."),
    (lambda v: 2 * v, "This is the gradient of the squared distance: it fades when the heaps come close.",
     "Order 1: the way itself, not its square."),
    (lambda v: v / v.abs().sum(), "The coordinates are added up, as if one could only walk along the axes.",
     "How far is it to v = (3, 4)?"),
    (lambda v: _gradient(v) / _way(v),
     "The length of v is divided out once too often: the gradient would fade far away.",
     "Compare the gradients for v and for 2v."),
]


class _OnePicture(nn.Module):
    """A generator for checks: one picture (1, 1, 2, 2) whatever the code; it keeps the codes."""

    def __init__(self, picture):
        super().__init__()
        self.picture, self.codes = nn.Parameter(picture), []

    def forward(self, z):
        self.codes.append(z.detach().clone())
        return self.picture.expand(len(z), -1, -1, -1)


def _linear_critic(weight, bias=0.0):
    """The critic f(x) = weight x + bias of pictures with as many pixels as weight (n,) has numbers."""
    layer = nn.utils.skip_init(nn.Linear, len(weight), 1)
    with torch.no_grad():
        layer.weight.copy_(weight[None])
        layer.bias.fill_(bias)
    return nn.Sequential(nn.Flatten(), layer)


def _linear_turn(weight, gaps, rates, clip, low=-1, keep=0, before=False, old=0):
    """A turn of a linear critic along the gaps of the means (n, 4): weights, estimates before and after each step.

    `old` is the push of gradients from before the turn, and `keep` the share of each push that the next one still has.
    """
    early, late, push = [], [], 0
    for gap, rate in zip(gaps, rates, strict=True):
        weight = weight.clip(low * clip, clip) if before else weight
        early.append(weight @ gap)
        push, old = rate * gap + keep * push + old, 0
        weight = weight + push
        weight = weight if before else weight.clip(low * clip, clip)
        late.append(weight @ gap)
    return weight, torch.stack(early), torch.stack(late)


def _turn(returned=lambda early, late: early, clip=1, weigh=lambda x: 1, end=math.inf, **changes):
    """Return a turn of a linear critic that clips to clip * limit after each step, and to end * limit at the end."""
    def turn(critic, generator, optimizer, batches, latent_dim, limit):
        for x in batches:
            generator(torch.randn(len(x), latent_dim))
        gaps = torch.stack([(x - generator.picture.detach()).mean(0).flatten() for x in batches])
        rates = [weigh(x) * optimizer.param_groups[0]["lr"] for x in batches]
        [weight] = critic[1].weight.detach()
        weight, early, late = _linear_turn(weight, gaps, rates, clip * limit, **changes)
        critic[1].weight.data, critic[1].bias.data = weight.clip(-end * limit, end * limit)[None], torch.tensor([limit])
        return returned(early, late)
    return turn


def _play(turn, critic, *rest):
    """The critic's weights after a turn, and what it returns, as one tensor if it is a list."""
    critic[1].weight.grad = torch.ones(1, 4)        # as a generator's plain backward() leaves it
    given = turn(critic, *rest)
    if isinstance(given, (list, tuple)) and given:
        given = torch.stack([torch.as_tensor(value).detach() for value in given])
    return critic[1].weight[0], given


def _batches():
    for seed, sizes, latent_dim, clip in ((37, (4, 4, 3), 50, 0.15), (10, (7, 2), 80, 0.1), (2, (5,), 100, 0.2)):
        *batches, picture, weight = draws(seed, *[(n, 1, 2, 2) for n in sizes], (1, 1, 2, 2), (4,))
        critic, generator = _linear_critic((clip * weight).clip(-clip, clip), bias=0.5), _OnePicture(picture)
        yield critic, generator, torch.optim.SGD(critic.parameters(), lr=0.1), batches, latent_dim, clip


@Check
def _check_device(answer):
    critic, generator, *rest = next(_batches())
    with suppress(RuntimeError), torch.device("meta"):      # where torch now makes what nobody has placed
        answer(critic, generator, *rest)
    require(all(z.device == generator.picture.device for z in generator.codes),
            "The codes are not made on the device of the pictures.",
            "Where does torch make a tensor if nobody tells it?")


@comparison(cases=_batches, call=lambda *arguments: _play(*arguments)[1], also=_check_device)
def _estimates(*arguments):
    """The estimates that a turn returns."""
    return _turn()(*arguments)


_estimates.misconceptions = [
    (_turn(lambda early, late: -early),
     "The loss is returned; the estimate has the other sign.", "For a good critic the estimate is positive."),
    (_turn(lambda early, late: late), "The estimates are taken after the step, with the new weights.",
     "At which moment is the score computed that you return?"),
    (_turn(lambda early, late: early.mean()),
     "One number is returned; one for each batch is asked for.", "Keep them in a list on the way."),
]


def _is_standard(codes):
    return abs(codes.mean()) < 0.2 and abs(codes.std() - 1) < 0.2


@comparison(cases=_batches, call=lambda *arguments: _play(*arguments)[0], also=_estimates, before=[
    (lambda weights, used, kept: used[1].codes,
     "The generator is never called: with what are the real pictures compared?",
     "Each batch needs generated pictures, and these need noise."),
    (lambda weights, used, kept: {z.shape[1:] for z in used[1].codes} == {(kept[4],)},
     "The codes do not have the shape (number of pictures, latent_dim).",
     "The function is handed the length of a code."),
    (lambda weights, used, kept: len(torch.cat(used[1].codes).unique(dim=0)) >= sum(map(len, kept[3])),
     "Not every real picture meets a generated one from fresh noise: codes are used again.",
     "Where is the noise drawn, inside the loop or outside, and how much of it?"),
    (lambda weights, used, kept: _is_standard(torch.cat(used[1].codes)), "The codes are not standard normal.",
     "The generator knows one kind of noise only, that of its own training."),
    (lambda weights, used, kept: used[1].picture.grad is None, "The critic's loss leaves a gradient in the generator.",
     "For the critic the generated pictures are given. Who needs their graph?"),
    (lambda weights, used, kept: used[1].picture.requires_grad, "After the turn the generator can no longer learn.",
     "What has been switched off must be switched on again, or be left alone."),
], after=[
    (lambda weights, used, kept: abs(used[0][1].bias.item() - kept[5]) < 1e-6,
     "The weights are in the box, the bias is not.", "Which parameters has the critic?")])
def check_critic_turn(*arguments):
    """A clipped step of the critic on each batch, with fresh noise: the estimates before each step."""
    return _turn()(*arguments)


check_critic_turn.misconceptions = [
    (_turn(weigh=lambda x: -1), "The sign of the loss is reversed: the critic learns to score real pictures low.",
     "The optimiser makes its loss smaller. What is to become larger?"),
    (_turn(before=True), "The box is closed before the step, and the step opens it again.",
     "Who uses the critic next, and what does it find?"),
    (_turn(clip=math.inf),
     "The weights are not clipped.", "Clipping that returns a new tensor leaves the old one as it is."),
    (_turn(low=-math.inf), "The box has no floor: negative weights grow as they like.", "A box has two sides."),
    (_turn(keep=1, old=-0.1), "The gradients of earlier batches are still there and are added to the new ones.",
     "Where are the gradients set to zero, and how often?"),
    (_turn(old=-0.1), "Gradients from before the call enter the first step.",
     "A plain `backward` of the generator's step leaves some in the critic."),
    (_turn(weigh=len), "The scores are summed over the batch: larger batches take larger steps.",
     "The estimate is a difference of two means."),
    (_turn(clip=math.inf, end=1), "The box is closed once at the end, where it must be closed after each step.",
     "Look at how far the line is indented."),
    (_turn(weigh=lambda x: 0), "The critic has not learned: its weights are the old ones.",
     "Which call changes the weights?"),
]


def _critics():
    for seed, sizes, activations in ((0, (3, 5, 1), [nn.ReLU()]), (1, (4, 4, 6, 1), [nn.Tanh(), nn.LeakyReLU(0.2)]),
                                     (2, (6, 3, 1), [nn.ReLU(), nn.Sigmoid()]), (3, (5, 5, 1), [nn.LeakyReLU(3.0)]),
                                     (4, (2, 1), [])):
        layers = [nn.Flatten()]
        for i, matrix in enumerate(draws(seed, *zip(sizes[1:], sizes[:-1], strict=True))):
            layer = nn.utils.skip_init(nn.Linear, *matrix.T.shape)
            layer.weight.data, layer.bias.data = matrix, torch.ones(len(matrix))
            layers += [layer, *activations[i:i + 1]]
        yield [nn.Sequential(*layers)]


def _steepest(activation):
    """The largest slope of an activation, found on a fine grid."""
    t = torch.linspace(-5, 5, 1001, requires_grad=True)
    return torch.autograd.grad(activation(t).sum(), t)[0].abs().max().item()


def _stretch(matrix, which=-1):
    """A singular value that is not zero, the largest unless another is asked for."""
    values = torch.linalg.eigvalsh(matrix @ matrix.T).double()
    return values[values > 1e-5][which] ** 0.5


def _bound(size=_stretch, slope=_steepest, join=math.prod):
    """Return the function of a critic: the product of its slopes and of what `join` makes of its matrices' sizes."""
    def bound(critic):
        sizes = [float(size(layer.weight.detach())) for layer in critic if hasattr(layer, "weight")]
        return join(sizes) * math.prod(slope(layer) for layer in critic[1:] if not hasattr(layer, "weight"))
    return bound


def _bound_of_product(critic):
    matrices = [layer.weight.detach() for layer in critic if hasattr(layer, "weight")]
    product = reduce(lambda before, matrix: matrix @ before, matrices)
    return _bound(lambda matrix: 1)(critic) * torch.linalg.norm(product)


@comparison(cases=_critics)
def check_lipschitz_bound(critic):
    """Upper bound of the slope of a sequential critic: the product of the largest slopes of its layers."""
    return _bound()(critic)


check_lipschitz_bound.misconceptions = [
    (_bound(slope=lambda activation: 1.0), "An activation is left out: it makes the slope larger or smaller as well.",
     "Draw the activation. Where is it steepest, and how steep is it there?"),
    (_bound(slope=lambda activation: getattr(activation, "negative_slope", _steepest(activation))),
     "The LeakyReLU counts with its slope on the left; it has a right side, too.",
     "The bound needs the larger of both sides."),
    (_bound(torch.linalg.norm), "These are Frobenius norms: a bound as well, but not the smallest for each layer.",
     "How much longer can a matrix make one vector? Not as much in all directions at once."),
    (_bound(lambda matrix: matrix.abs().max()),
     "The largest weights are multiplied: a layer can be steeper than any of its weights.",
     "Try a layer with two inputs and both weights 1."),
    (_bound(lambda matrix: matrix.abs().max() * matrix.numel() ** 0.5),
     "This is the bound by the largest weight alone, far above what the layers allow.",
     "How much longer can a matrix make one vector?"),
    (_bound(lambda matrix: _stretch(matrix) ** 2),
     "The result is the square of the bound.", "An eigenvalue of W transposed times W is no singular value yet."),
    (_bound(lambda matrix: _stretch(matrix, 0)),
     "The smallest singular values are multiplied: how little a layer can stretch.",
     "Which direction is stretched most?"),
    (_bound(lambda matrix: torch.linalg.matrix_norm(matrix, "nuc")),
     "All singular values of a layer are added up.", "A vector can point along one of these directions at a time."),
    (_bound(join=sum), "The layers are added, where one acts on what the other has made longer.",
     "Two layers that each double the length: how long is it at the end?"),
    (_bound_of_product,
     "The matrices are multiplied first: that is the slope where no unit is switched off, and no bound.",
     "An activation can remove the very part that would have cancelled another one."),
]


def _planes():
    for seed, n, n_fake, size, clip in ((0, 5, 5, 3, None), (1, 7, 4, 2, 0.01), (2, 3, 6, 4, None), (3, 6, 6, 3, 0.5)):
        x, x_fake = draws(seed, (n, 1, size, size), (n_fake, 1, size, size))
        yield (x, x_fake + 0.5) if clip is None else (x, x_fake + 0.5, clip)


def _plane(ball=2, box=1, means=lambda x, x_fake: x.mean(0) - x_fake.mean(0)):
    """Return a function that gives the gradients of norms of the difference of means, for the slope and for the clip.

    The largest w d over all w with a dual norm up to 1 is the norm of d, and the w that reaches it is its gradient.
    """
    def plane(x, x_fake, clip=None):
        gap, order = means(x, x_fake).flatten(), ball if clip is None else box
        gradient = torch.autograd.functional.jacobian(lambda d: torch.linalg.vector_norm(d, order), gap)
        return gradient if clip is None else clip * gradient
    return plane


def _gap(x, x_fake, clip=None):
    return (x.mean(0) - x_fake.mean(0)).flatten()


@comparison(cases=_planes)
def check_best_plane(*arguments):
    """Weights of the best plane as a critic, with a limited slope or with limited weights: (n_pixels,)."""
    return _plane()(*arguments)


check_best_plane.misconceptions = [
    (lambda *arguments: -_plane()(*arguments), "The sign is reversed: this plane scores generated pictures high.",
     "High for real, low for generated."),
    (_gap, "This is the difference of the means. Its direction is one thing, its length another.",
     "How long may w be, and how large may each of its numbers be?"),
    (_plane(box=2), "With a clip the vector has the length clip: the whole slope is limited, not each weight.",
     "Take one pixel alone: how far may its weight go, and does another pixel mind?"),
    (lambda x, x_fake, clip=None: _plane()(x, x_fake), "The clip is not used.", "Each weight within [-clip, clip]."),
    (lambda x, x_fake, clip=None: _plane()(x, x_fake) if clip is None else _gap(x, x_fake).clamp(-clip, clip),
     "The difference is cut off at the clip: pixels with a small difference get less than they may have.",
     "What does a pixel with a small difference add, and what could it add?"),
    (lambda x, x_fake, clip=None: _plane()(x, x_fake) if clip is None
     else clip * _gap(x, x_fake) / _gap(x, x_fake).abs().max(),
     "The difference is shrunk until it fits into the box: only one weight reaches the bound.",
     "Is there any weight that could still be larger, to the good of the estimate?"),
    (_plane(ball=1, box=1), "Without a clip each weight is 1 or -1: the slope of this plane is larger than 1.",
     "The slope of a plane is the length of w, as Pythagoras has it."),
    (lambda x, x_fake, clip=None: _gap(x, x_fake) / _gap(x, x_fake).abs().sum() if clip is None
     else _plane()(x, x_fake, clip),
     "The absolute weights add up to 1: the slope of this plane is smaller than it may be.",
     "The slope of a plane is the length of w, as Pythagoras has it."),
    (_plane(means=lambda x, x_fake: x.sum(0) - x_fake.sum(0)),
     "The batches are summed, not averaged: a larger batch counts for more.", "The estimate is made of two means."),
    (_plane(means=lambda x, x_fake: x[0] - x_fake[0]), "Only the first picture of each batch is used.",
     "The estimate is made of two means over the batches."),
]
