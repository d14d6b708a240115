"""Checks of the exercises on generative adversarial networks."""

import math
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import rel_entr
from torch import nn
from torch.distributions import Bernoulli

from . import comparison, draws


def _counts():
    for seed, n_bins in ((0, 6), (1, 15)):
        generator = torch.Generator().manual_seed(seed)
        n_real, n_fake = (torch.randint(1, high, (n_bins,), generator=generator) for high in (90, 900))
        n_real[0] = n_fake[0] = n_real[1] = n_fake[2] = 0
        yield n_real, n_fake
    # bins that can be read off: only real points, only synthetic ones, as many, three to one, none
    yield torch.tensor([20, 0, 50, 30, 0]), torch.tensor([0, 40, 50, 10, 0])


def _fill(formula, empty):
    """Return the function of the counts that is `empty` in empty bins and formula(n_real, n_fake) in the others."""
    return lambda n_real, n_fake: formula(n_real, n_fake).double().masked_fill(n_real + n_fake == 0, empty)


def _odds(n_real, n_fake):
    """The ratio of the densities."""
    return n_real * (n_fake.sum().double() / n_real.sum()) / n_fake


def _best(n_real, n_fake):
    return Bernoulli(logits=_odds(n_real, n_fake).log(), validate_args=False).probs


@comparison(cases=_counts, before=[
    (lambda given, *_: not isinstance(given, torch.Tensor) or not given.isnan().any(),
     "An empty bin gives nan: zero by zero.", "What is asked for in a bin that neither sample has reached?")])
def check_best_discriminator(n_real, n_fake):
    """p_r / (p_r + p_g) in each bin, estimated from two samples of any size: counts (K,) and (K,) -> (K,)."""
    return _fill(_best, 0.5)(n_real, n_fake)


check_best_discriminator.misconceptions = [
    *((_fill(_best, side), "An empty bin is given to one of the two sides.",
       "Undecided: which D is neither real nor synthetic?") for side in (0.0, 1.0)),
    *((_fill(wrong, empty), *hints) for wrong, *hints in [
        (lambda n_real, n_fake: n_real / (n_real + n_fake),
         "The samples differ in size, and the larger one counts for more.",
         "Equally often: turn both counts into densities first."),
        (lambda n_real, n_fake: _best(n_fake, n_real),
         "Real and synthetic are exchanged.", "D is the probability that a point is real."),
        (_odds, "This is the ratio of the densities, not a probability.",
         "Which function of it lies between 0 and 1?"),
        (lambda n_real, n_fake: _odds(n_real, n_fake).log(),
         "This is the best logit; D itself is asked for.", "Section 2 says how D comes from its logit."),
        (lambda n_real, n_fake: _odds(n_real, n_fake) > 1, "Every bin is given to one side: 0 or 1.",
         "A bin that holds points of both sides leaves a doubt, and the best D says how large."),
        (lambda n_real, n_fake: n_real / n_fake,
         "The counts are divided by each other.", "Densities first, then the formula for D*."),
        (lambda n_real, n_fake: n_real / n_real.sum(),
         "This is the density of the real points.", "D* sets it against something."),
    ] for empty in (0.5, 0.0, 1.0)),
]


class _Step:
    """What the step of a linear discriminator is made of, by the formulas of logistic regression."""

    def __init__(self, discriminator, generator, optimizer, x, z, target):
        self.weights, self.left = discriminator[1].weight.detach().clone(), discriminator[1].weight.grad
        self.rate, self.target, self.n, self.m = optimizer.param_groups[0]["lr"], target, len(x), len(z)
        self.inputs = x.flatten(1), z @ generator[0].weight.detach().T

    def half(self, inputs, target, moved=0):
        """Mean cross entropy of one batch and its gradient with respect to the weights, moved along gradients."""
        d = Bernoulli(logits=inputs @ (self.weights - self.rate * moved).T)
        losses = target * d.log_prob(torch.ones(1)) + (1 - target) * d.log_prob(torch.zeros(1))
        return -losses.mean(), (d.probs - target).T @ inputs / len(inputs)

    def losses(self, target):
        return self.half(self.inputs[0], target)[0], self.half(self.inputs[1], 0)[0]

    def real(self, target):
        return self.half(self.inputs[0], target)[1]

    def fake(self, target, moved=0):
        return self.half(self.inputs[1], target, moved)[1]


def _step(slope=lambda s: s.real(s.target) + s.fake(0), loss=lambda s: sum(s.losses(s.target))):
    """Return a step along slope(s) that returns loss(s), the right ones unless given."""
    def step(discriminator, *rest):
        s = _Step(discriminator, *rest)
        discriminator[1].weight.data = s.weights - s.rate * slope(s)
        return loss(s)
    return step


def _run(step, discriminator, generator, *rest):
    """The weights of the discriminator after a step, and the loss; both players have old gradients before it."""
    [discriminator[1].weight.grad] = draws(9, (1, 6))       # as a generator's plain backward() leaves it
    generator[0].weight.grad = torch.ones(6, 4)             # its own step would clear them
    loss = step(discriminator, generator, *rest)
    return discriminator[1].weight, loss


def _games():
    for seed, b_real, b_fake, target in ((0, 6, 4, 0.9), (1, 3, 8, 0.7), (2, 5, 5, 0.9)):
        discriminator = nn.Sequential(nn.Flatten(), nn.utils.skip_init(nn.Linear, 6, 1, bias=False))
        generator = nn.Sequential(nn.utils.skip_init(nn.Linear, 4, 6, bias=False), nn.Unflatten(1, (1, 3, 2)))
        x, z, w_d, w_g = draws(seed, (b_real, 1, 3, 2), (b_fake, 4), (1, 6), (6, 4))
        # logits so small that a sigmoid and its logarithm are exact, too
        discriminator[1].weight.data, generator[0].weight.data = w_d / 3, w_g
        yield discriminator, generator, torch.optim.SGD(discriminator.parameters(), lr=0.5), x, z, target


@comparison(cases=_games, call=lambda *arguments: _run(*arguments)[1])
def _loss_of_step(*arguments):
    """The loss that a step returns."""
    return _step()(*arguments)


_loss_of_step.misconceptions = [
    (_step(loss=lambda s: sum(s.losses(1))),
     "The step is right, but the loss that is returned has the target 1.", "Return what was minimised."),
    (_step(loss=lambda s: s.losses(s.target)[0]),
     "The step is right, but only the loss of the real images is returned.", "The sum of both halves."),
    (_step(loss=lambda s: s.losses(s.target)[1]),
     "The step is right, but only the loss of the synthetic images is returned.", "The sum of both halves."),
    (_step(loss=lambda s: sum(s.losses(s.target)) / 2),
     "The step is right, but half the loss is returned.", "The sum of both halves."),
]


@comparison(
    cases=_games, call=lambda *arguments: _run(*arguments)[0], also=_loss_of_step,
    errors=(ValueError, "The loss refuses its targets: {}.",
            "There is one target for each logit, and the two batches need not be equally large."),
    before=[(lambda weights, used, kept: torch.equal(used[1][0].weight, kept[1][0].weight),
             "The weights of the generator have moved.",
             "This step belongs to the discriminator alone: whose weights may change?"),
            (lambda weights, used, kept: used[1][0].weight.grad is not None and (used[1][0].weight.grad == 1).all(),
             "The gradients of the generator have changed in the step of the discriminator.",
             "Where must the graph of the synthetic images be cut?"),
            (lambda weights, used, kept: not torch.equal(weights, kept[0][1].weight),
             "The weights of the discriminator have not moved.", "A gradient alone changes nothing: who applies it?")])
def check_smooth_step(*arguments):
    """A step of D with softened targets for real images only; the generator is left alone. Returns the loss."""
    return _step()(*arguments)


check_smooth_step.misconceptions = [
    (_step(lambda s: s.real(s.target) + s.fake(0) + s.left),
     "Old gradients have entered the step: the ones that were there before the call.",
     "Before the call, other steps have left something in the gradients. What removes it, and when?"),
    (_step(lambda s: s.real(s.target)),
     "Only the real images have had a say in the step.", "Two halves, one step: follow both gradients."),
    (_step(lambda s: s.fake(0)),
     "Only the synthetic images have had a say in the step.", "Is something removed between the two halves?"),
    (_step(lambda s: s.real(1) + s.fake(0)),
     "The real images have the target 1: nothing is softened.", "Use the argument."),
    (_step(lambda s: s.real(s.target) + s.fake(1 - s.target)),
     "Both sides are softened, where only the real one should be.",
     "What does the method say of the target of synthetic images?"),
    (_step(lambda s: s.real(1) + s.fake(1 - s.target)),
     "The wrong side is softened.", "It is the real images that get a target below 1."),
    (_step(lambda s: s.real(0) + s.fake(s.target)),
     "The targets are exchanged: real images are taught to be synthetic.",
     "D is the probability that an image is real."),
    (_step(lambda s: s.real(s.target) + s.fake(s.target)),
     "Synthetic images have the target of real ones.", "With one target for all there is nothing to tell apart."),
    (_step(lambda s: -s.real(s.target) - s.fake(0)), "The step goes uphill: the loss has become larger.",
     "Optimisers minimise. What is the sign of V in the loss?"),
    (_step(lambda s: (s.real(s.target) + s.fake(0)) / 2),
     "The step is half as long as it should be: the two means are averaged.", "A sum of two means is asked for."),
    (_step(lambda s: (s.n * s.real(s.target) + s.m * s.fake(0)) / (s.n + s.m)),
     "The mean is taken over both batches at once, so that the larger one counts for more.",
     "A mean for each batch, then the sum."),
    (_step(lambda s: s.n * s.real(s.target) + s.m * s.fake(0)),
     "The batches are summed: the step would grow with their size.", "A mean over each batch."),
    (_step(lambda s: s.real(s.target) + s.fake(0, moved=s.real(s.target))),
     "There are two steps, one for each half; one is asked for.",
     "The second half should be judged by the weights that the first one saw."),
    (_step(lambda s: 2 * s.real(s.target) + s.fake(0, moved=s.real(s.target))),
     "There are two steps, and the first half enters both.", "One step after both gradients."),
]


def _mean_log(logits, outcome):
    return Bernoulli(logits=logits).log_prob(torch.tensor(outcome)).mean()


def _game(real, fake):
    """V of the logits, in bits."""
    return (_mean_log(real, 1.0) + _mean_log(fake, 0.0)) / math.log(2)


def _joined(real, fake):
    """The mean over all logits, in bits."""
    n, m = len(real), len(fake)
    return (n * _mean_log(real, 1.0) + m * _mean_log(fake, 0.0)) / (n + m) / math.log(2)


def _bound(real, fake):
    return 1 + _game(real, fake) / 2


def _logits():
    yield from ([real + shift, fake - shift] for seed, n, m, shift in ((0, 5, 9, 1), (1, 40, 3, 0))
                for real, fake in [draws(seed, (n, 1), (m, 1))])
    sure = torch.full((3, 1), 200.0)
    yield from ((torch.zeros(4, 1), torch.zeros(2, 1)), (sure, -sure), (-sure, -sure[:1]))      # 0, 1 and far below 0


@comparison(cases=_logits, before=[
    (lambda given, *_: not isinstance(given, (float, torch.Tensor)) or torch.as_tensor(given).isfinite().all(),
     "A discriminator that is very sure gives inf or nan.",
     "The sigmoid of a large logit is 0 or 1 to the last digit. Which function takes the logit as it is?")])
def check_js_bound(real, fake):
    """Lower bound on JS in bits from logits (N, 1) of real and (M, 1) of synthetic images: a scalar."""
    return _bound(real, fake)


check_js_bound.misconceptions = [
    (lambda real, fake: _bound(real, fake).clamp(min=0),
     "Negative bounds are cut off; they should be returned as they are.",
     "A number below 0 says how bad the discriminator is."),
    (lambda real, fake: _bound(real, fake) * math.log(2),
     "This is the bound in nats; bits are asked for.", "How many nats are a bit?"),
    (lambda real, fake: _bound(real, fake) / math.log(2),
     "The step from nats to bits goes the wrong way.", "The largest value must be 1."),
    (lambda real, fake: 2 * _bound(real, fake),
     "This bounds twice the divergence.", "In the value of the game the divergence has a factor."),
    (lambda real, fake: 2 * _bound(real, fake) * math.log(2),
     "This bounds twice the divergence, and in nats.", "In the value of the game the divergence has a factor."),
    (lambda real, fake: -_game(real, fake) * math.log(2),
     "This is the D loss, from which the bound has still to be made.", "Solve V = -log 4 + 2 JS for JS."),
    (lambda real, fake: _game(real, fake) * math.log(2),
     "This is V, from which the bound has still to be made.", "Solve V = -log 4 + 2 JS for JS."),
    (lambda real, fake: 2 - _bound(real, fake),
     "The sign of V is wrong: a worse discriminator would give a higher bound.",
     "An undecided discriminator must give 0."),
    (lambda real, fake: _bound(-real, -fake), "Real and synthetic are exchanged.", "A large logit says real."),
    (lambda real, fake: 1 + _joined(real, fake),
     "One mean is taken over all logits, so that the larger sample counts for more.",
     "The two terms of the game are two means."),
    (lambda real, fake: _bound(real.sigmoid(), fake.sigmoid()),
     "A sigmoid too many: a probability is taken for a logit.", "Look at what your loss does to its input first."),
    (lambda real, fake: 1 + (real.sigmoid().mean().log2() + (-fake).sigmoid().mean().log2()) / 2,
     "The logarithm is taken of the mean; the mean of the logarithms is asked for.",
     "Which of the two is inside in V?"),
    (lambda real, fake: 1 - sum(F.binary_cross_entropy(logits.sigmoid(), torch.full_like(logits, t))
                                for logits, t in ((real, 1.0), (fake, 0.0))) / math.log(4),
     "The digits of a discriminator that is very sure are lost.",
     "A cross entropy of probabilities stops at 100; one of logits does not."),
]


def _packs(n_drawn, n_modes, pack):
    """Probability of every pack of samples of the first `n_drawn` modes, one by one: (n_modes ** pack,)."""
    return reduce(np.kron, [(np.arange(n_modes) < n_drawn) / n_drawn] * pack)


def _of_packs(formula):
    """Return formula(probabilities of the data's packs, of the generator's) as a function of the arguments."""
    return lambda k, n_modes, pack: formula(_packs(n_modes, n_modes, pack), _packs(k, n_modes, pack))


def _kl(p, q):
    return rel_entr(p, q).sum()


_js = _of_packs(lambda p, q: (_kl(p, (p + q) / 2) + _kl(q, (p + q) / 2)) / 2)


@comparison(
    cases=lambda: [(1, 2, 1), (7, 8, 1), (7, 8, 2), (1, 8, 3), (3, 5, 4), (8, 8, 2)], tolerance=1e-5,
    before=[(lambda given, *_: not isinstance(given, (float, torch.Tensor)) or not torch.as_tensor(given).isinf().any(),
             "The result is infinite: somewhere the mixture is missing.",
             "The divergence of p from q is infinite where q is zero. What does JS compare both with?")])
def check_js_missing(k, n_modes, pack):
    """JS in nats of packs of samples where a generator draws k of n_modes modes: three whole numbers -> a number."""
    return _js(k, n_modes, pack)


check_js_missing.misconceptions = [
    (lambda k, n_modes, pack: _js(k, n_modes, 1), "The packs are not used: this is the divergence of single samples.",
     "How likely is it that a real pack holds no missing mode?"),
    (lambda k, n_modes, pack: pack * _js(k, n_modes, 1),
     "The divergence of single samples is multiplied by the size of the pack.",
     "KL adds up over independent samples; JS, with its bound of log 2, cannot."),
    (lambda *numbers: _js(*numbers) ** 0.5, "This is the root of the divergence.",
     "Some libraries return a distance under this name: read what they say it is."),
    (lambda *numbers: 2 * _js(*numbers), "The result is twice too large.", "Half of each of two divergences."),
    (lambda *numbers: _js(*numbers) / math.log(2), "This is in bits; nats are asked for.", "The natural logarithm."),
    (_of_packs(lambda p, q: _kl(p, (p + q) / 2)),
     "Only the divergence of the data from the mixture is counted.", "Both sides have their half."),
    (_of_packs(lambda p, q: _kl(q, (p + q) / 2)),
     "Only the divergence of the generator from the mixture is counted.", "Both sides have their half."),
    (_of_packs(lambda p, q: _kl(q, p)),
     "This is the KL of the generator from the data.", "JS goes through the mixture m."),
    (_of_packs(lambda p, q: _kl(q, p) / 2),
     "This is half the KL of the generator from the data.", "JS goes through the mixture m."),
    (lambda *numbers: -_js(*numbers), "The sign is wrong: a divergence is never negative.",
     "For k = n_modes the result must be 0."),
]
