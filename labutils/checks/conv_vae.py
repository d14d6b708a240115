"""Checks of the exercises on the convolutional VAE."""

import math

import torch
import torch.nn.functional as F
from torch.distributions import Normal

from . import Check, comparison, draws, has_graph, per_image, require, require_close, unchanged


def _seen(layers, side=600):
    """Pixels from the first to the last in a row that reach one output of a stack of convolutions, by the gradient."""
    x = torch.ones(1, 1, side, requires_grad=True, dtype=torch.double)
    out = x
    for width, step in layers:
        out = F.conv1d(out, torch.ones(1, 1, width, dtype=torch.double) / width, stride=step)
    [gradient] = torch.autograd.grad(out[0, 0, out.shape[2] // 2], x)
    reached = gradient.flatten().nonzero()
    return int(reached.max() - reached.min()) + 1


@comparison(cases=lambda: [(layers,) for layers in (
    [(5, 2), (3, 3), (7, 2)], [(3, 1), (3, 1)], [(4, 2)] * 4, [(7, 2)], [(1, 1), (6, 3), (2, 1), (3, 2)])])
def check_receptive_field(layers):
    """Pixels along one side that one output of a stack of convolutions sees: list of (kernel, stride) -> number."""
    return _seen(layers)


check_receptive_field.misconceptions = [
    (lambda layers: _seen([(kernel, 1) for kernel, _ in layers]), "The strides are not counted.",
     "Two neighbours in the second layer: how far apart are they in the picture?"),
    (lambda layers: _seen([part for kernel, stride in layers for part in ((1, stride), (kernel, 1))]),
     "A layer's own stride is counted too early.",
     "A stride moves the outputs of its layer apart. Which kernels have to reach farther for that?"),
    (lambda layers: 1 + sum(_seen([(1, stride), (kernel, 1)]) - 1
                            for (kernel, _), (_, stride) in zip(layers, [(1, 1), *layers], strict=False)),
     "Only the stride of the layer before is counted.", "In the third layer one step is how many pixels?"),
    (lambda layers: _seen([(kernel + 1, stride) for kernel, stride in layers]) - 1,
     "The pixels of a kernel are counted, where its steps are needed.",
     "A kernel of 3 pixels: how many steps from the first to the last?"),
    (lambda layers: _seen(layers) - 1, "One pixel is missing.", "What does a stack without any layer see?"),
    (lambda layers: _seen(layers[::-1]), "The layers are taken in the wrong order.",
     "Which layer reads the picture itself?"),
    (lambda layers: sum(kernel for kernel, _ in layers), "The kernels are added up.",
     "Two kernels of 3, with stride 1: draw them."),
    (lambda layers: math.prod(kernel for kernel, _ in layers), "The kernels are multiplied.",
     "Two kernels of 3, with stride 1: draw them."),
    (lambda layers: math.prod(stride for _, stride in layers),
     "This is how far neighbours are apart, not how much one of them sees.", "The windows of neighbours overlap."),
]


def _nll(x_hat, logvar, x):
    """Negative log density of each pixel, by the library."""
    return -Normal(x_hat, (logvar / 2).exp()).log_prob(x)


def _pixels():
    for seed, shape in ((0, (3, 1, 4, 5)), (1, (5, 3, 8, 8)), (2, (1, 1, 1, 1))):
        x_hat, logvar, x = draws(seed, *[shape] * 3)
        yield x_hat.requires_grad_(), logvar.requires_grad_(), x


@comparison(cases=_pixels, tolerance=1e-3, after=[has_graph])
def check_pixel_nll(x_hat, logvar, x):
    """-log N(x; x_hat, exp(logvar)) with a variance for each pixel: three times (B, C, H, W) -> a scalar."""
    return per_image(_nll(x_hat, logvar, x))


check_pixel_nll.misconceptions = [
    (lambda x_hat, logvar, x: per_image(_nll(x_hat, logvar, x) - math.log(2 * math.pi) / 2),
     "The constant of the normal density is missing: this is no log density.",
     "Integrate your density over one pixel. Is it 1?"),
    (lambda x_hat, logvar, x: per_image(_nll(x_hat, logvar, x) - logvar / 2),
     "A large variance costs nothing: the network would make it infinite.",
     "The factor before the exponential depends on the variance, too."),
    (lambda x_hat, logvar, x: per_image(_nll(x_hat, logvar, x) - logvar),
     "The sign of the logarithm of the variance is wrong.",
     "A wide density is a low one. Which sign has its negative logarithm?"),
    (lambda x_hat, logvar, x: per_image(_nll(x_hat, 2 * logvar, x)),
     "A variance is taken for a deviation: exp(logvar) is already a square.",
     "Compare what you square with the definition logvar = log(sigma^2)."),
    (lambda x_hat, logvar, x: per_image(2 * _nll(x_hat, logvar, x) - _nll(x, logvar, x)),
     "The squared error counts twice.", "Where has the factor in the exponent of the density gone?"),
    (lambda x_hat, logvar, x: per_image(_nll(x_hat, -logvar, x) + logvar),
     "The error is multiplied by the variance: the surer the network, the less would an error matter.",
     "An error of one sigma should cost the same whatever sigma is."),
    (lambda *images: _nll(*images).mean(),
     "The mean over the pixels is returned.", "Sums over pixels, means over images."),
    (lambda *images: _nll(*images).sum(),
     "The batch is summed: the loss would grow with the size of the batch.", "Sums over pixels, means over images."),
    (lambda *images: -per_image(_nll(*images)),
     "This is the log likelihood, not its negative.", "It is to be minimised."),
]


def _coins(logits, x):
    """Negative log probability of each pixel, by the library, in double precision: (B, pixels)."""
    return F.binary_cross_entropy_with_logits(logits.double(), x.double(), reduction="none").flatten(1)


@Check
def _check_large(answer):
    """Refuse answers that break at large logits or at 0: in their value, or in its gradient."""
    logits = torch.tensor([0.0, -2000.0, -150.0, -30.0, 25.0, 120.0, 1500.0])[:, None, None, None].repeat(1, 1, 1, 3)
    logits, x = logits.requires_grad_(), torch.tensor([0.0, 0.5, 1.0]).expand(7, 1, 1, 3)
    given, right = answer(logits, x), _coins(logits, x).sum(1)
    if isinstance(given, (list, tuple)):
        given = torch.stack(list(given))
    require(isinstance(given, torch.Tensor), "The result is no tensor: nothing could be trained with it.",
            "Stay with functions of torch.")
    require(given.isfinite().all(), "Large logits give inf or nan.",
            "Print the sigmoid and the exponential of 120 and of -120 in float32, and what a logarithm makes of them.")
    require((given > 0.9 * right).all(), "Beyond some size, errors cost no more: a probability has been cut off.",
            "The network is sure and wrong, and nothing tells it so. Can the result be had without the probability?")
    require_close(given, right)
    require(has_graph[0](given), *has_graph[1:])
    [gradient] = torch.autograd.grad(given.sum(), logits)
    require(gradient.isfinite().all(), "The values are right, their gradient is nan.",
            "torch.where also goes backwards through the branch that it did not take.")
    [right_gradient] = torch.autograd.grad(right.sum(), logits)
    require_close(gradient, right_gradient, [
        (torch.zeros_like(logits), "The gradient is zero everywhere.", "Does the result depend on the logits?"),
        (torch.cat([-x[:1], right_gradient[1:]]), "The gradient is wrong at a logit of 0, and only there.",
         "Two functions with a kink at 0 add up to a smooth one. Autograd does not see that: is there one function of "
         "torch for their sum?"),
    ])


@comparison(cases=lambda: [(logits, noise.sigmoid()) for seed, shape in ((0, (3, 1, 4, 5)), (1, (5, 3, 8, 8)))
                           for logits, noise in [draws(seed, shape, shape)]], also=_check_large)
def check_stable_nll(logits, x):
    """Bernoulli NLL from logits of any size, summed over the pixels: twice (B, C, H, W) -> (B,)."""
    return _coins(logits, x).sum(1)


check_stable_nll.misconceptions = [
    (lambda logits, x: -_coins(logits, x).sum(1), "The sign is wrong: this is the log likelihood itself.",
     "Probabilities are at most 1: which sign has the answer?"),
    (lambda logits, x: _coins(-logits, x).sum(1), "Black and white have changed places.",
     "A large logit means a white pixel. Which of the two terms should then be small?"),
    (lambda logits, x: (-x * F.logsigmoid(logits)).flatten(1).sum(1),
     "Only the white part of each pixel is counted.", "A coin has two sides."),
    (lambda logits, x: _coins(logits.sigmoid(), x).sum(1), "A sigmoid too many.",
     "The arguments are logits, and what is it that you start with?"),
    (lambda logits, x: _coins(logits, x).mean(1),
     "The mean over the pixels is returned.", "Independent pixels: log probabilities add up."),
    (lambda logits, x: _coins(logits, x).sum(),
     "Everything is summed to one number; one for each image is asked for.", "Which dimension counts the images?"),
    (lambda logits, x: per_image(_coins(logits, x)),
     "The mean over the batch is returned; one number for each image is asked for.",
     "Which dimension counts the images?"),
]

BY_HAND = {8: [0, 1, 2, 3, 4, 4, 4, 4], 10: [0, 0.4, 0.8, 1, 1, 1, 1, 1, 1, 1], 5: [0, 2, 4, 6, 8]}    # {period: one}


def _cycle(step, period, ramp, beta):
    return BY_HAND[period][step % period]


@comparison(cases=lambda: [(8, 0.5, 4.0), (10, 0.25, 1.0), (5, 1.0, 10.0)],
            call=lambda schedule, period, *rest: [schedule(step, period, *rest) for step in range(3 * period)])
def check_cyclic_beta(step, period, ramp, beta):
    """Weight of the KL at a step: from 0 to beta over the first part `ramp` of each period, then constant."""
    return _cycle(step, period, ramp, beta)


check_cyclic_beta.misconceptions = [
    (lambda step, period, ramp, beta: _cycle(step, period, ramp, beta) if step < period else beta,
     "There is only one cycle: after the first period beta never falls back.",
     "What should the first step of the second period give?"),
    (lambda step, period, ramp, beta: step % period / period * beta,
     "The rise takes the whole period, where the part `ramp` of it is asked for.",
     "After how many steps should beta be reached?"),
    (lambda step, period, ramp, beta: step % period / (ramp * period) * beta,
     "beta is exceeded.", "What should happen when the rise is over?"),
    (lambda step, period, ramp, beta: step / (ramp * period) * beta,
     "beta rises for ever.", "What should happen when the rise is over, and what after a period?"),
    (lambda step, period, ramp, beta: _cycle(step, period, ramp, beta) / beta,
     "The weight ends at 1, not at beta.", "Where does beta enter?"),
    (lambda step, *rest: _cycle(step + 1, *rest),
     "The schedule is one step ahead.", "The first step has the number 0. What should it give?"),
    (lambda step, *rest: _cycle(step - 1, *rest),
     "The schedule is one step late.", "The first step has the number 0. What should it give?"),
    (lambda step, period, ramp, beta: beta - _cycle(step, period, ramp, beta),
     "The weight falls where it should rise.", "The code is to be cheap at first."),
    (lambda step, period, ramp, beta: beta * (_cycle(step, period, ramp, beta) == beta),
     "The weight jumps from 0 to beta.", "Is a division rounding down?"),
    (lambda step, period, ramp, beta: beta, "The weight is constant.", "Where does the step enter?"),
]


def _codes():
    for seed, d, classes in (       # of each class: its label, members with the attribute, members without
            (0, 3, [(0, 2, 9), (2, 6, 3), (5, 4, 0), (6, 1, 1)]),
            (1, 8, [(0, 5, 1), (1, 2, 7), (2, 0, 3), (3, 3, 3)]),
            (2, 2, [(7, 4, 6)])):
        rows = [(label, has) for label, *counts in classes for has, n in zip((1, 0), counts, strict=True)
                for _ in range(n)]
        codes, order = draws(seed, (len(rows), d), (len(rows),))
        labels, has = torch.tensor(rows)[order.argsort()].T
        yield 3 * codes, labels, has.bool()


def _of_groups(formula):
    """Return a formula of the classes that have both groups as a function of codes, labels and attribute.

    It gets the mean codes without and with the attribute, both (C, d), and the sizes of the groups (C, 2). The means
    are fitted to the codes by least squares.
    """
    def vector(codes, labels, has):
        groups = F.one_hot(2 * labels + has, 2 * (int(labels.max()) + 1)).double()
        means = (torch.linalg.pinv(groups) @ codes.double()).unflatten(0, (-1, 2))
        sizes = groups.sum(0).unflatten(0, (-1, 2))
        both = sizes.amin(1) > 0
        return formula(means[both, 0], means[both, 1], sizes[both])
    return vector


def _centred(codes, labels):
    """The codes without the mean of their class, the residual of a fit."""
    classes = F.one_hot(labels).double()
    return codes - classes @ torch.linalg.pinv(classes) @ codes.double()


_vector = _of_groups(lambda absent, there, sizes: (there - absent).mean(0))
_sum = _of_groups(lambda absent, there, sizes: (there - absent).sum(0))


def _pooled(codes, has):
    return codes[has].mean(0) - codes[~has].mean(0)


@comparison(cases=_codes, tolerance=1e-3, before=[
    (unchanged(0), "The codes have been changed.", "Write the differences to a new tensor."),
    (lambda given, *_: not isinstance(given, torch.Tensor) or not given.isnan().any(),
     "The result is nan: a mean over no pictures at all.",
     "Some class may have the attribute in all of its pictures, or in none.")])
def check_balanced_vector(codes, labels, has):
    """Mean over classes of the difference of mean codes, with minus without: (n, d), (n,), (n,) bool -> (d,)."""
    return _vector(codes, labels, has)


check_balanced_vector.misconceptions = [
    (lambda codes, labels, has: _pooled(codes, has),
     "All classes are thrown together: the vector also means the classes that have the attribute more often.",
     "Compare like with like: what must two groups share before they are subtracted?"),
    (lambda codes, labels, has: -_vector(codes, labels, has),
     "The vector points the wrong way: adding it takes the attribute off.", "With minus without."),
    (_of_groups(lambda absent, there, sizes: sizes[:, 1] @ (there - absent) / sizes[:, 1].sum()),
     "Classes with more pictures that have the attribute count more.", "Each class has one vote."),
    (_of_groups(lambda absent, there, sizes: sizes.sum(1) @ (there - absent) / sizes.sum()),
     "Larger classes count more.", "Each class has one vote."),
    (lambda codes, labels, has: _sum(codes, labels, has) / len(labels.unique()),
     "A class that lacks one of the groups counts as a difference of zero.",
     "Such a class says nothing. What is the mean of the others?"),
    (_sum, "The differences are summed, where their mean is asked for.",
     "The vector would grow with the number of classes."),
    (_of_groups(lambda absent, there, sizes: there.mean(0)),
     "This is the mean code of the pictures with the attribute.",
     "What do these pictures share with the ones without?"),
    (lambda codes, labels, has: F.normalize(_vector(codes, labels, has), dim=0),
     "The vector has been given the length 1.",
     "One step along it should be the way from without to with. How long is that?"),
    (lambda codes, labels, has: _pooled(_centred(codes, labels), has),
     "The class means are taken off, but then all classes are thrown together.",
     "A class's mean depends on how many of its pictures have the attribute."),
    (_of_groups(lambda absent, there, sizes: (sizes[:, :1] * (there - absent) / sizes.sum(1, keepdim=True)).mean(0)),
     "The pictures with the attribute are compared with all of their class.",
     "All of them include those with the attribute."),
]
