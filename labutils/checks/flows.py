"""Checks of the exercises on flows."""

import torch
from torch.distributions import (
    AffineTransform,
    Categorical,
    Independent,
    Laplace,
    MixtureSameFamily,
    Normal,
    SigmoidTransform,
    TransformedDistribution,
)
from torch.distributions.transforms import ExpTransform

from . import Check, comparison, draws, require, unchanged

# ------------------------------------------------------------------------------ the density of a pushed point


def _pushed(base, *transforms):
    """Arguments for an exercise, of a distribution that torch pushes through the transforms; the last one knows it."""
    pushed = TransformedDistribution(base, list(transforms))
    x = pushed.sample((6,))

    def inverse(x):
        for transform in reversed(transforms):
            x = transform.inv(x)
        return x
    base.pushed = pushed        # for the right answer alone
    return x, inverse, base


def _pushes():
    torch.manual_seed(0)
    yield _pushed(Normal(0.0, 1.0), AffineTransform(1.0, -2.0))
    yield _pushed(Normal(0.5, 2.0), ExpTransform())
    yield _pushed(Laplace(0.0, 1.0), AffineTransform(0.0, 0.5), SigmoidTransform())


def _slope(x, inverse):
    return torch.func.vmap(torch.func.grad(inverse))(x)


@comparison(cases=lambda: list(_pushes()),
            before=[(unchanged(0), "The points that were handed over have been changed.",
                     "Compute with a copy of your own."),
                    (lambda given, used, kept: not used[0].requires_grad,
                     "The points of the caller ask for gradients now.", "Switch that on for a copy of your own."),
                    (lambda given, used, kept: not torch.as_tensor(given).isnan().any(),
                     "Some results are no number: a map that falls has a negative slope, which has no logarithm.",
                     "Probability does not care for the direction: how long is the interval?")])
def check_pushed_log_prob(x, inverse, base):
    """Log density (n,) at points x (n,) of draws of `base` that went through the inverse of `inverse`."""
    return base.pushed.log_prob(x)


check_pushed_log_prob.misconceptions = [
    (lambda x, inverse, base: base.log_prob(inverse(x)) - _slope(x, inverse).abs().log(),
     "The slope has the wrong sign: where the map stretches, the density must get thinner.",
     "Push noise through x = 2z. How high is the density at 0, compared with that of the noise?"),
    (lambda x, inverse, base: base.log_prob(inverse(x)),
     "The slope is missing: this is the density of z, seen at x.", "Does the area under it add up to 1?"),
    (lambda x, inverse, base: base.log_prob(inverse(x)) + _slope(x, inverse).abs(),
     "The slope is added as it is; in a log density a factor is a sum of logarithms.",
     "Write the formula for the density first, and then take its logarithm."),
    (lambda x, inverse, base: (base.log_prob(inverse(x)) + _slope(x, inverse).abs().log()).exp(),
     "This is the density; its logarithm is asked for.", "What does log_prob of the base return?"),
    (lambda x, inverse, base: base.log_prob(x) + _slope(x, inverse).abs().log(),
     "The noise has its density at z, not at x.", "From which z does this x come?"),
    (lambda x, inverse, base: base.log_prob(inverse(x)) + _slope(x, inverse).abs().log().sum(),
     "Each point gets the slopes of all points.", "One number for each x: where do you sum?"),
]

# ------------------------------------------------------------------------------- the best velocity of a data set


def _noisy(t, data):
    """The distribution of the noisy points at the time t."""
    parts = Independent(Normal(t * data, torch.full_like(data, 1 - t)), 1)
    return MixtureSameFamily(Categorical(torch.ones(len(data))), parts)


def _by_score(x, t, data):
    """The best velocity by the score of the noisy points, which autograd finds: v = (x - E[x0 | x]) / t."""
    x = x.detach().requires_grad_()
    score, = torch.autograd.grad(_noisy(t, data).log_prob(x).sum(), x)
    return (x + (1 - t) * score).detach() / t


def _shares(x, t, data, width=1.0, power=2):
    """Weights of the data points (B, N), right for the width 1 - t."""
    noise = (x[:, None] - t * data).norm(dim=2) / width
    return (-(noise**power) / 2).softmax(dim=1)


def _along(shares):
    """Return a wrong velocity: the mean of the lines' velocities with these weights."""
    def velocity(x, t, data):
        return (shares(x, t, data)[:, :, None] * (data - x[:, None]) / (1 - t)).sum(dim=1)
    return velocity


def _right_shares(x, t, data):
    return _shares(x, t, data, width=1 - t)


def _cases_of_data():
    for seed, B, N, d, t in ((0, 4, 3, 2, 0.5), (1, 6, 10, 5, 0.2), (2, 3, 7, 1, 0.8), (3, 2, 2, 3, 0.6)):
        x, data = draws(seed, (B, d), (N, d))
        yield x, t, 2 * data


@comparison(cases=lambda: list(_cases_of_data()), tolerance=1e-3)
def check_velocity_of_data(x, t, data):
    """Best velocity (B, d) at points x (B, d) and the time t for data (N, d), each equally likely."""
    return _by_score(x, t, data)


check_velocity_of_data.misconceptions = [
    (_along(lambda x, t, data: torch.full((len(x), len(data)), 1 / len(data))),
     "All data points count alike, wherever x is.", "Which noise would each of them need to get here, and how likely "
     "is that noise?"),
    (_along(lambda x, t, data: _shares(x, 1.0, data, width=1 - t)),
     "The weights come from the distance between x and the data point itself, as if it were t = 1.",
     "Where on its line is the point at the time t?"),
    (_along(lambda x, t, data: _shares(x, t, data)),
     "The weights forget that the noise is scaled down: at the time t it has the deviation 1 - t.",
     "Solve the line for the noise that it needs."),
    (_along(lambda x, t, data: _shares(x, t, data, width=(1 - t) / 2**0.5)),
     "The weights fall off too fast: the density of normal noise has a half in its exponent.",
     "Compare with the log density of the standard normal distribution."),
    (_along(lambda x, t, data: _shares(x, t, data, width=1 - t, power=1)),
     "The weights need the squared length of the noise.", "Write down the density of standard normal noise."),
    (lambda x, t, data: (_right_shares(x, t, data) @ data) - x,
     "The arrow leads to the expected data point, but as if there were the whole time from 0 to 1 left.",
     "How much time is left at t?"),
    (lambda x, t, data: _right_shares(x, t, data) @ data,
     "This is the expected data point; the velocity towards it is asked for.", "A velocity is a way through a time."),
    (lambda x, t, data: -_by_score(x, t, data), "The arrow leads from data to noise.",
     "The time runs from the noise at 0 to the data at 1."),
    (lambda x, t, data: (data[_right_shares(x, t, data).argmax(dim=1)] - x) / (1 - t),
     "Only the most probable data point counts; the best velocity is a mean over all of them.",
     "Least squares find a mean, not the most probable value."),
]

# --------------------------------------------------------------------------------------------- Heun's method


def _solver(step):
    """Return a solver that takes this step(velocity, x, t (B,), h)."""
    def solve(velocity, x, steps):
        for i in range(steps):
            x = step(velocity, x, x.new_full((len(x),), i / steps), 1 / steps)
        return x
    return solve


def _by_tableau(velocity, x, steps):
    """The explicit method of two stages whose Butcher tableau has the nodes 0 and 1, and twice the weight 1/2."""
    def step(velocity, x, t, h):
        stages = []
        for node in (0.0, 1.0):
            stages.append(velocity(x + node * h * sum(stages), t + node * h))
        return x + h * sum(stage / 2 for stage in stages)
    return _solver(step)(velocity, x, steps)


def _solver_cases():
    for seed, shape, steps in ((0, (4, 2), 1), (1, (3, 1, 2, 2), 3), (2, (5, 3), 2)):
        [x] = draws(seed, shape)
        yield (lambda x, t: torch.sin(x) + (t**2).view(-1, *[1] * (x.ndim - 1)) * 3), x, steps


@Check
def _check_calls(answer):
    times = []

    def velocity(x, t):
        times.append(t)
        return -x
    answer(velocity, torch.ones(3, 2), 4)
    require(len(times) == 8, f"Four steps make {len(times)} calls of the velocity, and two for each are allowed.",
            "Keep an arrow that you need twice.")
    require(all(torch.is_tensor(t) and t.shape == (3,) for t in times),
            "The velocity is called with a time that is no tensor of one number for each point.",
            "How do the other two solvers hand the time over?")


@comparison(cases=lambda: list(_solver_cases()), also=_check_calls,
            before=[(unchanged(1), "The points that were handed over have been changed.",
                     "x += ... works in place, x = x + ... does not.")])
def check_heun(velocity, x, steps):
    """Points after `steps` steps of Heun's method from t = 0 to 1."""
    return _by_tableau(velocity, x, steps)


check_heun.misconceptions = [
    (_solver(lambda v, x, t, h: x + h * v(x + h / 2 * v(x, t), t + h / 2)),
     "This is the midpoint method.", "Both arrows count, that of the start and that of the end."),
    (_solver(lambda v, x, t, h: x + h * v(x, t)), "This is Euler's method.",
     "The arrow at the start leads to the place where you look again."),
    (_solver(lambda v, x, t, h: x + h / 2 * (v(x, t) + v(x + h * v(x, t), t))),
     "At the end of the step the clock still shows the time of its start.", "How late is it after a whole step?"),
    (_solver(lambda v, x, t, h: x + h / 2 * (v(x, t) + v(x + h * v(x, t), t + h / 2))),
     "At the end of the step the clock shows the time of its middle.", "How late is it after a whole step?"),
    (_solver(lambda v, x, t, h: x + h / 2 * (v(x, t) + v(x + h / 2 * v(x, t), t + h))),
     "The first arrow is followed for half a step.", "Where is the end of the step?"),
    (_solver(lambda v, x, t, h: x + h * v(x + h * v(x, t), t + h)),
     "Only the arrow at the end counts; the mean of both is asked for.", "What has become of the first arrow?"),
    (_solver(lambda v, x, t, h: x + h * (v(x, t) + v(x + h * v(x, t), t + h))),
     "The arrows are added, so each step goes twice as far.", "The mean of two arrows is shorter than their sum."),
    (_solver(lambda v, x, t, h: x + h * v(x, t) + h / 2 * (v(x, t) + v(x + h * v(x, t), t + h))),
     "The step starts where the first arrow has led, so it is taken twice.",
     "From which place does the step along the mean start?"),
]

# ------------------------------------------------------------------------------------ from velocity to score


def _velocities():
    for seed, shape in ((0, (5, 2)), (1, (3, 4)), (2, (8, 1))):
        x, centres = draws(seed, shape, (3, shape[1]))
        yield _velocity_at(x, torch.linspace(0, 0.9, len(x)), centres)


def _velocity_at(x, t, centres):
    """Arguments for the exercise, of noisy points of a data set; the times remember it, for the right answer alone."""
    rows = [_by_score(row[None], time.item(), centres) if time else centres.mean(0) - row[None]
            for row, time in zip(x, t)]
    return torch.cat(rows), x, t


def _score(v, x, t, sign=-1, noise=lambda v, x, t: x - t * v, width=lambda t: 1 - t):
    t = t[:, None]
    return sign * noise(v, x, t) / width(t)


def _by_gaussian(v, x, t):
    """The gradient of the log density of N(t x1, (1 - t)^2) at x, for the x1 that the velocity expects."""
    x = x.detach().requires_grad_()
    t = t[:, None]
    expected = (x + (1 - t) * v).detach()
    score, = torch.autograd.grad(Normal(t * expected, 1 - t).log_prob(x).sum(), x)
    return score


@comparison(cases=lambda: list(_velocities()), tolerance=1e-3)
def check_velocity_to_score(v, x, t):
    """The score (B, d) of the noisy points x (B, d) at times t (B,) from the velocity v (B, d)."""
    return _by_gaussian(v, x, t)


check_velocity_to_score.misconceptions = [
    (lambda v, x, t: _score(v, x, t, sign=1), "The score has the wrong sign: it must lead uphill in the density.",
     "At t = 0 there is only noise. What is the gradient of the log density of standard normal noise?"),
    (lambda v, x, t: _score(v, x, t, width=torch.ones_like),
     "This is minus the expected noise. The score is that, scaled.",
     "How wide is the noise at the time t? A narrow density is steep."),
    (lambda v, x, t: _score(v, x, t, width=lambda t: (1 - t) ** 2),
     "The scale is squared once too often.",
     "The score of N(m, s^2) is -(x - m) / s^2, and x - m is s times the noise."),
    (lambda v, x, t: _score(v, x, t, width=lambda t: 1 / (1 - t)),
     "The scale is multiplied where it must be divided.", "A narrow density is steep."),
    (lambda v, x, t: _score(v, x, t, noise=lambda v, x, t: x + (1 - t) * v),
     "This takes the expected data point for the expected noise.", "Where does the line start?"),
    (lambda v, x, t: _score(v, x, t, noise=lambda v, x, t: x + t * v),
     "The way back to the noise goes against the arrow.", "From x, at the time t, back to the start: in which "
     "direction, and for how long?"),
    (lambda v, x, t: v, "This is the velocity itself.", "Find the expected noise first."),
]
