"""Checks of the exercises of the lab wgan."""

import math
from contextlib import suppress
from functools import reduce

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance
from torch import nn

from . import Check, close, compare, draws, require


def _mean_way(a, b, power=1, dearest=False):
    """Mean length of the ways between two clouds (n, d), paired by the plan with the least (or largest) total cost."""
    ways = (a[:, None] - b).norm(dim=2)
    plan = linear_sum_assignment(ways.detach() ** power, maximize=dearest)
    return (ways[plan] ** power).mean()


@Check
def check_sample_wasserstein(answer):
    """Wasserstein-1 distance of two samples of equally many numbers, (n,) and (n,): a scalar."""
    for seed, n, shift in ((0, 5, 0.5), (1, 200, 3.0), (2, 51, -1.0)):
        x, y = draws(seed, (n,), (n,))
        y = 2 * y + shift
        x_given, y_given = x.clone(), y.clone()
        given = answer(x_given, y_given)
        require(torch.equal(x, x_given) and torch.equal(y, y_given),
                "The samples that were handed over have been changed.",
                "Some functions work in place. Does the order of the caller's numbers survive?")
        right, means = wasserstein_distance(x, y), x.mean() - y.mean()
        of_squares = _mean_way(x[:, None], y[:, None], power=2)
        compare(given, right, [
            ((x - y).abs().mean(),
                    "The grains are paired as they were drawn, which is one plan among many and not the cheapest.",
                    "The order within a sample means nothing. In which order does nobody overtake?"),
            (of_squares, "The ways are squared: that cost belongs to the distance of order 2.",
                    "Order 1: mass times way."),
            (of_squares.sqrt(),
                    "This is the distance of order 2, the root of a mean of squares.", "Order 1: mass times way."),
            (n * right, "The ways are added up as if each grain had the mass 1.", "What does one of n grains weigh?"),
            (means, "Ways to the left and to the right cancel each other: only the means are compared.",
                    "Carrying costs the same in both directions."),
            (-means, "Ways to the left and to the right cancel each other: only the means are compared.",
                    "Carrying costs the same in both directions."),
            (_mean_way(x[:, None], y[:, None], dearest=True),
                    "Every grain overtakes all others: this is the dearest plan.",
                    "Is one of the samples the wrong way round?"),
        ])


@Check
def check_shift_gradient(answer):
    """Gradient with respect to v of the distance of a distribution and the same one moved by v: (d,) -> (d,)."""
    for seed, d, scale in ((0, 2, 1.0), (1, 1, 5.0), (2, 7, 20.0), (3, 3, 0.1)):
        v, points = draws(seed, (d,), (8, d))
        v = scale * v
        moved = v.clone().requires_grad_()
        way = _mean_way(points, points + moved)
        right, = torch.autograd.grad(way, moved)
        compare(answer(v.clone()), right, [
            (-right, "It points the wrong way: along it the distance becomes smaller.",
                    "A gradient points uphill. Which way must the heap move for the distance to grow?"),
            (v.sign(), "This takes each coordinate for a line of its own; the way is measured straight across.",
                    "How far is it to v = (3, 4), and is your vector as long as it should be?"),
            (way, "This is the distance; its gradient is asked for.", "One number for each coordinate of v."),
            (v, "This is the gradient of half the squared distance: it fades when the heaps come close.",
                    "Order 1: the way itself, not its square."),
            (2 * v, "This is the gradient of the squared distance: it fades when the heaps come close.",
                    "Order 1: the way itself, not its square."),
            (v / v.abs().sum(), "The coordinates are added up, as if one could only walk along the axes.",
                    "How far is it to v = (3, 4)?"),
            (v / v.square().sum(), "The length of v is divided out once too often: the gradient would fade far away.",
                    "Compare the gradients for v and for 2v."),
        ])


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
    for gap, rate in zip(gaps, rates):
        weight = weight.clip(low * clip, clip) if before else weight
        early.append(weight @ gap)
        push = rate * gap + keep * push + old
        old = 0
        weight = weight + push
        weight = weight if before else weight.clip(low * clip, clip)
        late.append(weight @ gap)
    return weight, torch.stack(early), torch.stack(late)


def _check_noise(generator, n, latent_dim):
    """Refuse codes that have the wrong shape, come twice, or are not standard normal."""
    require(generator.codes, "The generator is never called: with what are the real pictures compared?",
            "Each batch needs generated pictures, and these need noise.")
    shapes = {tuple(z.shape[1:]) for z in generator.codes}
    require(shapes == {(latent_dim,)}, "The codes have not the shape (number of pictures, latent_dim).",
            "The function is handed the length of a code.")
    codes = torch.cat(generator.codes)
    require(len(codes.unique(dim=0)) >= n,
            "Not every real picture meets a generated one from fresh noise: codes are used again.",
            "Where is the noise drawn, inside the loop or outside, and how much of it?")
    require(abs(codes.mean()) < 0.2 and abs(codes.std() - 1) < 0.2, "The codes are not standard normal.",
            "The generator knows one kind of noise only, that of its own training.")
    require(generator.picture.grad is None, "The critic's loss leaves a gradient in the generator.",
            "For the critic the generated pictures are given. Who needs their graph?")
    require(generator.picture.requires_grad, "After the turn the generator can no longer learn.",
            "What has been switched off must be switched on again, or be left alone.")


def _as_one(values):
    """A list of numbers as one tensor; anything else as it is."""
    if isinstance(values, (list, tuple)) and values:
        return torch.stack([torch.as_tensor(value).detach() for value in values])
    return values


@Check
def check_critic_turn(answer):
    """A clipped step of the critic on each batch, with fresh noise: the estimates before each step."""
    rate = 0.1
    for seed, sizes, latent_dim, clip in ((37, (4, 4, 3), 50, 0.15), (10, (7, 2), 80, 0.1), (2, (5,), 100, 0.2)):
        *batches, picture, weight = draws(seed, *[(n, 1, 2, 2) for n in sizes], (1, 1, 2, 2), (4,))
        weight = (clip * weight).clip(-clip, clip)
        gaps, rates = torch.stack([(x - picture).mean(0).flatten() for x in batches]), rate * torch.ones(len(sizes))
        critic, generator = _linear_critic(weight, bias=0.5), _OnePicture(picture.clone())
        critic[1].weight.grad = torch.ones(1, 4)        # as a generator's plain backward() leaves it
        optimizer = torch.optim.SGD(critic.parameters(), lr=rate)
        given = answer(critic, generator, optimizer, [x.clone() for x in batches], latent_dim, clip)
        _check_noise(generator, sum(sizes), latent_dim)

        right, estimates, late = _linear_turn(weight, gaps, rates, clip)
        free = _linear_turn(weight, gaps, rates, float("inf"))[0]
        compare(critic[1].weight[0], right, [
            (_linear_turn(weight, gaps, -rates, clip)[0],
                    "The sign of the loss is reversed: the critic learns to score real pictures low.",
                    "The optimiser makes its loss smaller. What is to become larger?"),
            (_linear_turn(weight, gaps, rates, clip, before=True)[0],
                    "The box is closed before the step, and the step opens it again.",
                    "Who uses the critic next, and what does it find?"),
            (free, "The weights are not clipped.", "Clipping that returns a new tensor leaves the old one as it is."),
            (_linear_turn(weight, gaps, rates, clip, low=-float("inf"))[0],
                    "The box has no floor: negative weights grow as they like.",
                    "A box has two sides."),
            (_linear_turn(weight, gaps, rates, clip, keep=1, old=-rate * torch.ones(4))[0],
                    "The gradients of earlier batches are still there and are added to the new ones.",
                    "Where are the gradients set to zero, and how often?"),
            (_linear_turn(weight, gaps, rates, clip, old=-rate * torch.ones(4))[0],
                    "Gradients from before the call enter the first step.", "A plain `backward` of the generator's step leaves some in the critic."),
            (_linear_turn(weight, gaps, rates * torch.tensor(sizes), clip)[0],
                    "The scores are summed over the batch: larger batches take larger steps.",
                    "The estimate is a difference of two means."),
            (free.clip(-clip, clip), "The box is closed once at the end, where it must be closed after each step.",
                    "Look at how far the line is indented."),
            (weight, "The critic has not learned: its weights are the old ones.", "Which call changes the weights?"),
        ])
        require(abs(critic[1].bias.item() - clip) < 1e-6, "The weights are in the box, the bias is not.",
                "Which parameters has the critic?")
        compare(_as_one(given), estimates, [
            (-estimates,
                    "The loss is returned; the estimate has the other sign.", "For a good critic the estimate is positive."),
            (late, "The estimates are taken after the step, with the new weights.",
                    "At which moment is the score computed that you return?"),
            (estimates.mean(),
                    "One number is returned; one for each batch is asked for.", "Keep them in a list on the way."),
        ])
    generator.codes.clear()
    with suppress(RuntimeError), torch.device("meta"):      # where torch now makes what nobody has placed
        answer(critic, generator, optimizer, batches, latent_dim, clip)
    require(all(z.device == generator.picture.device for z in generator.codes), "The codes are not made on the device of the pictures.",
            "Where does torch make a tensor if nobody tells it?")


def _steepest(activation):
    """The largest slope of an activation, found on a fine grid."""
    t = torch.linspace(-5, 5, 1001, requires_grad=True)
    return torch.autograd.grad(activation(t).sum(), t)[0].abs().max().item()


def _bounds(matrices, size):
    """The product of one figure of each matrix."""
    return math.prod(float(size(matrix)) for matrix in matrices)


@Check
def check_lipschitz_bound(answer):
    """Upper bound of the slope of a sequential critic: the product of the largest slopes of its layers."""
    for seed, sizes, activations in ((0, (3, 5, 1), [nn.ReLU()]), (1, (4, 4, 6, 1), [nn.Tanh(), nn.LeakyReLU(0.2)]),
                                     (2, (6, 3, 1), [nn.ReLU(), nn.Sigmoid()]), (3, (5, 5, 1), [nn.LeakyReLU(3.0)]),
                                     (4, (2, 1), [])):
        matrices = draws(seed, *[(n_out, n_in) for n_in, n_out in zip(sizes[:-1], sizes[1:])])
        layers = [nn.Flatten()]
        for i, matrix in enumerate(matrices):
            layer = nn.utils.skip_init(nn.Linear, *matrix.T.shape)
            layer.weight.data, layer.bias.data = matrix.clone(), torch.ones(len(matrix))
            layers += [layer, *activations[i:i + 1]]
        squared = [torch.linalg.eigvalsh(matrix @ matrix.T).double() for matrix in matrices]
        linear = math.prod(values[-1].item() ** 0.5 for values in squared)
        slopes = [_steepest(activation) for activation in activations]
        bend = math.prod(slopes)
        left = math.prod(layer.negative_slope if isinstance(layer, nn.LeakyReLU) else slope
                         for layer, slope in zip(activations, slopes))
        compare(answer(nn.Sequential(*layers)), bend * linear, [
            (linear, "An activation is left out: it makes the slope larger or smaller as well.",
                    "Draw the activation. Where is it steepest, and how steep is it there?"),
            (left * linear, "The LeakyReLU counts with its slope on the left; it has a right side, too.",
                    "The bound needs the larger of both sides."),
            (bend * _bounds(matrices, torch.linalg.norm),
                    "These are Frobenius norms: a bound as well, but not the smallest for each layer.",
                    "How much longer can a matrix make one vector? Not as much in all directions at once."),
            (bend * _bounds(matrices, lambda m: m.abs().max()),
                    "The largest weights are multiplied: a layer can be steeper than any of its weights.",
                    "Try a layer with two inputs and both weights 1."),
            (bend * _bounds(matrices, lambda m: m.abs().max() * m.numel() ** 0.5),
                    "This is the bound by the largest weight alone, far above what the layers allow.",
                    "How much longer can a matrix make one vector?"),
            (bend * linear**2, "The result is the square of the bound.",
                    "An eigenvalue of W transposed times W is no singular value yet."),
            (bend * math.prod(values[values > 1e-5][0].item() ** 0.5 for values in squared),
                    "The smallest singular values are multiplied: how little a layer can stretch.",
                    "Which direction is stretched most?"),
            (bend * _bounds(matrices, lambda m: torch.linalg.matrix_norm(m, "nuc")),
                    "All singular values of a layer are added up.",
                    "A vector can point along one of these directions at a time."),
            (bend * sum(values[-1].item() ** 0.5 for values in squared),
                    "The layers are added, where one acts on what the other has made longer.",
                    "Two layers that each double the length: how long is it at the end?"),
            (bend * _bounds([reduce(lambda before, matrix: matrix @ before, matrices)], torch.linalg.norm),
                    "The matrices are multiplied first: that is the slope where no unit is switched off, and no bound.",
                    "An activation can remove the very part that would have cancelled another one."),
        ])


class _Fold(nn.Module):
    """A critic for checks: a function of the pictures (B, 1, 2, 2), summed to one score for each."""

    def __init__(self, function):
        super().__init__()
        self.function, self.scale = function, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * self.function(x.flatten(1)).flatten(1).sum(dim=1, keepdim=True)


def _check_graph(critic, penalty, right):
    """Refuse a penalty whose gradient does not reach the weights (n,) of a linear critic, or is not `right`."""
    weight = critic[1].weight
    require(isinstance(penalty, torch.Tensor) and penalty.requires_grad,
            "No gradient of the penalty reaches the critic's weights.",
            "The slope is to be differentiated once more. What becomes of the graph of the first differentiation?")
    require(weight.grad is None, "The first differentiation leaves its gradients in the critic's weights.",
            "Only the gradient with respect to the pictures is needed here.")
    gradient, = torch.autograd.grad(penalty, weight, allow_unused=True)
    require(gradient is not None and close(gradient[0], right, 1e-3),
            "The gradient of the penalty with respect to the critic's weights is wrong.",
            "Is some part of the slope cut off from the graph?")


@Check
def check_one_sided_penalty(answer):
    """Mean of the squared excess of the slope over a limit at random points on the lines between two batches."""
    for seed, b, slope, limit in ((0, 5, 3.0, 1.0), (1, 7, 0.5, 1.0), (2, 3, 2.0, 1.5), (3, 6, 1.4, 2.0)):
        x, x_fake, weight = draws(seed, (b, 1, 2, 3), (b, 1, 2, 3), (6,))
        weight = slope * weight / weight.norm()
        critic = _linear_critic(weight)
        given = answer(critic, x, x_fake, limit)
        right = max(slope - limit, 0.0) ** 2
        over_batch = weight.abs() * b**0.5
        compare(given, right, [
            ((slope - limit) ** 2, "A slope below the limit costs as well: this penalty has two sides.",
                    "For a flat critic it should be 0."),
            (F.relu(over_batch - limit).square().mean(),
                    "The norm runs over the batch: one for each pixel, where one for each picture is asked for.",
                    "Which dimension counts the pictures?"),
            (max(slope * b**0.5 - limit, 0.0) ** 2, "The slopes of the whole batch are taken for one long gradient.",
                    "One norm for each picture, then the excess, then the mean."),
            (F.relu(weight.abs() - limit).square().mean(), "The limit is set for each pixel, not for the slope.",
                    "The slope is the length of the whole gradient of a picture."),
            (max(slope - 1, 0.0) ** 2, "The limit is not used.", "It need not be 1."),
            (max(slope**2 - limit, 0.0) ** 2, "The square of the slope is compared with the limit: a root is missing.",
                    "What is the length of a gradient?"),
            (max(slope - limit, 0.0),
                    "The excess is not squared.", "A square is gentle near the limit and strong far from it."),
            (b * right,
                    "The sum over the batch is returned, where the mean is asked for.", "A larger batch should not cost more."),
            (-right, "The sign is wrong: steep critics would be rewarded.", "The penalty is added to a loss."),
            (max(limit - slope, 0.0) ** 2,
                    "Slopes below the limit cost, and those above do not.", "Which of the two is subtracted from which?"),
        ])
        _check_graph(critic, given, 2 * max(slope - limit, 0.0) * weight / slope)
    _check_mean(answer)
    _check_points(answer)


def _check_mean(answer):
    """Refuse other orders of excess, square and mean: pairs of equal pictures, each with a slope of its own."""
    x, = draws(4, (8, 1, 2, 2))
    slope = x.flatten(1).norm(dim=1)            # of half the squared length
    excess = F.relu(slope - 1.5)
    compare(answer(_Fold(lambda x: x**2 / 2), x, x.clone(), 1.5), (excess**2).mean(), [
        (excess.mean() ** 2,
                "The mean is squared, where the mean of the squares is asked for.", "In which order: excess, square, mean?"),
        (F.relu(slope.mean() - 1.5) ** 2,
                "The mean of all slopes is compared with the limit: flat places pay for steep ones.",
                "Each point has its own excess."),
        ((slope - 1.5).square().mean(),
                "A slope below the limit costs as well: this penalty has two sides.", "For a flat critic it should be 0."),
    ])


def _check_points(answer):
    """Refuse points that do not lie anywhere on the lines: critics that are steep in one place only."""
    x, x_fake = torch.ones(400, 1, 2, 2), torch.full((400, 1, 2, 2), -3.0)

    def paid(function):
        return torch.as_tensor(answer(_Fold(function), x, x_fake, 1.0)).item()
    require(paid(lambda x: 9 * (x - x.mean(1, keepdim=True)) ** 2) < 1e-3,
            "The points are not on the lines between the pairs.",
            "One place on the line for each pair: how many random numbers does a picture need?")
    require(paid(lambda x: 9 * F.relu(x - 1.01) + 9 * F.relu(-3.01 - x)) < 1e-6,
            "Some points lie beyond the ends of the lines.",
            "Between 0 and 1: which random numbers are?")
    share = paid(lambda x: F.relu(x))           # slope 2 in the quarter of the line next to x: each pays 1 there
    require(0.03 < share < 0.97, "All points have the same place on their lines, perhaps one of the ends.",
            "Each pair of pictures has a random place of its own.")
    require(0.15 < share < 0.35,
            "The points are not spread evenly over the lines.", "Every place between 0 and 1 is equally likely.")
