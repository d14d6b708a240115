"""Checks of the exercises of the lab conv_vae."""

import math
from collections import Counter

import torch
import torch.nn.functional as F
from torch.distributions import Normal

from . import Check, compare, draws, require, require_graph


def _seen(layers, side=600):
    """Pixels in a row that reach one output of a stack of convolutions, by the gradient."""
    x = torch.ones(1, 1, side, requires_grad=True, dtype=torch.double)
    out = x
    for kernel, stride in layers:
        out = F.conv1d(out, torch.ones(1, 1, kernel, dtype=torch.double) / kernel, stride=stride)
    [gradient] = torch.autograd.grad(out[0, 0, out.shape[2] // 2], x)
    return int((gradient > 0).sum())


@Check
def check_receptive_field(answer):
    """Pixels along one side that one output of a stack of convolutions sees: list of (kernel, stride) -> number."""
    for layers in ([(5, 2), (3, 3), (7, 2)], [(3, 1), (3, 1)], [(4, 2)] * 4, [(7, 2)], [(1, 1), (6, 3), (2, 1), (3, 2)]):
        kernels, strides = zip(*layers, strict=True)
        steps, mistaken = 1, Counter()
        for kernel, stride in layers:
            mistaken["own"] += (kernel - 1) * steps * stride
            mistaken["whole"] += kernel * steps
            steps *= stride
        mistaken["single"] = 1 + sum((k - 1) * s for k, s in zip(kernels, (1, *strides), strict=False))
        right = _seen(layers)
        compare(answer(list(layers)), right, [
            (1 + sum(kernels) - len(layers), "The strides are not counted.",
                    "Two neighbours in the second layer: how far apart do they lie in the picture?"),
            (1 + mistaken["own"], "A layer's own stride is counted too early.",
                    "A stride moves the outputs of its layer apart. Which kernels have to reach farther for that?"),
            (mistaken["single"], "Only the stride of the layer before is counted.",
                    "In the third layer one step is how many pixels?"),
            (mistaken["whole"], "The pixels of a kernel are counted, where its steps are needed.",
                    "A kernel of 3 pixels: how many steps from the first to the last?"),
            (right - 1, "One pixel is missing.", "What does a stack without any layer see?"),
            (_seen(layers[::-1]), "The layers are taken in the wrong order.",
                    "Which layer reads the picture itself?"),
            (sum(kernels), "The kernels are added up.", "Two kernels of 3, with stride 1: draw them."),
            (math.prod(kernels), "The kernels are multiplied.", "Two kernels of 3, with stride 1: draw them."),
            (math.prod(strides), "This is how far neighbours lie apart, not how much one of them sees.",
                    "The windows of neighbours overlap."),
        ])


@Check
def check_pixel_nll(answer):
    """-log N(x; x_hat, exp(logvar)) with a variance for each pixel: three times (B, C, H, W) -> a scalar."""
    for seed, shape in ((0, (3, 1, 4, 5)), (1, (5, 3, 8, 8)), (2, (1, 1, 1, 1))):
        x_hat, logvar, x = draws(seed, *[shape] * 3)
        b = len(x)

        def nll(deviation):
            return -Normal(x_hat, deviation).log_prob(x)
        each = nll((logvar / 2).exp())
        total, errors, constant = each.sum() / b, (x - x_hat) ** 2, math.log(2 * math.pi) * x[0].numel() / 2
        compare(answer(x_hat, logvar, x), total, [
            (total - constant, "The constant of the normal density is missing: this is no log density.",
                    "Integrate your density over one pixel. Is it 1?"),
            (total - logvar.sum() / b / 2, "A large variance costs nothing: the network would make it infinite.",
                    "The factor before the exponential depends on the variance, too."),
            (total - logvar.sum() / b, "The sign of the logarithm of the variance is wrong.",
                    "A wide density is a low one. Which sign has its negative logarithm?"),
            (nll(logvar.exp()).sum() / b, "A variance is taken for a deviation: exp(logvar) is already a square.",
                    "Compare what you square with the definition logvar = log(sigma^2)."),
            (total + (errors / logvar.exp()).sum() / b / 2, "The squared error counts twice.",
                    "Where has the factor in the exponent of the density gone?"),
            (total + (errors * (logvar.exp() - (-logvar).exp())).sum() / b / 2,
                    "The error is multiplied by the variance: the surer the network, the less would an error matter.",
                    "An error of one sigma should cost the same whatever sigma is."),
            (each.mean(), "The mean over the pixels is returned.", "Sums over pixels, means over images."),
            (each.sum(), "The batch is summed: the loss would grow with the size of the batch.",
                    "Sums over pixels, means over images."),
            (-total, "This is the log likelihood, not its negative.", "It is to be minimised."),
        ], tolerance=1e-3)


@Check
def check_stable_nll(answer):
    """Bernoulli NLL from logits of any size, summed over the pixels: twice (B, C, H, W) -> (B,)."""
    for seed, shape in ((0, (3, 1, 4, 5)), (1, (5, 3, 8, 8))):
        logits, noise = draws(seed, shape, shape)
        x = noise.sigmoid()

        def nll(logits, x):
            return F.binary_cross_entropy_with_logits(logits.double(), x.double(), reduction="none").flatten(1)
        each = nll(logits, x)
        compare(answer(logits, x), each.sum(1), [
            (-each.sum(1), "The sign is wrong: this is the log likelihood itself.",
                    "Probabilities are at most 1: which sign has the answer?"),
            (nll(-logits, x).sum(1), "Black and white have changed places.",
                    "A large logit stands for a white pixel. Which of the two terms should then be small?"),
            ((-x * F.logsigmoid(logits)).flatten(1).sum(1), "Only the white part of each pixel is counted.",
                    "A coin has two sides."),
            (nll(logits.sigmoid(), x).sum(1), "A sigmoid too many.",
                    "The arguments are logits, and what is it that you start with?"),
            (each.mean(1), "The mean over the pixels is returned.", "Independent pixels: log probabilities add up."),
            (each.sum(), "Everything is summed to one number; one for each image is asked for.",
                    "Which dimension counts the images?"),
            (each.sum(1).mean(), "The mean over the batch is returned; one number for each image is asked for.",
                    "Which dimension counts the images?"),
        ])
    far = torch.tensor([-2000.0, -150.0, -30.0, 25.0, 120.0, 1500.0])[:, None, None, None].repeat(1, 1, 1, 3)
    far = far.requires_grad_()
    x = torch.tensor([0.0, 0.5, 1.0]).expand(6, 1, 1, 3)
    given, right = answer(far, x), nll(far, x).sum(1)
    if isinstance(given, (list, tuple)):
        given = torch.stack(list(given))
    require(isinstance(given, torch.Tensor), "The result is no tensor: nothing could be trained with it.",
            "Stay with functions of torch.")
    require(bool(torch.isfinite(given).all()), "Large logits give inf or nan.",
            "Print the sigmoid and the exponential of 120 and of -120 in float32, and what a logarithm makes of them.")
    require(bool((given > 0.9 * right).all()), "Beyond some size, errors cost no more: a probability has been cut off.",
            "The network is sure and wrong, and nothing tells it so. Can the result be had without the probability?")
    compare(given, right)
    require_graph(given)
    [gradient] = torch.autograd.grad(given.sum(), far)
    require(bool(torch.isfinite(gradient).all()), "The values are right, their gradient is nan.",
            "torch.where also goes backwards through the branch that it did not take.")
    compare(gradient, torch.autograd.grad(right.sum(), far)[0], [
        (torch.zeros_like(far), "The gradient is zero everywhere.", "Does the result depend on the logits?"),
    ])


@Check
def check_cyclic_beta(answer):
    """Weight of the KL at a step: from 0 to beta over the first part `ramp` of each period, then constant."""
    cases = (       # period, ramp, beta, and one period by hand
        (8, 0.5, 4.0, [0, 1, 2, 3, 4, 4, 4, 4]),
        (10, 0.25, 1.0, [0, 0.4, 0.8, *[1] * 7]),
        (5, 1.0, 10.0, [0, 2, 4, 6, 8]))
    for period, ramp, beta, one in cases:
        given = [answer(step, period, ramp, beta) for step in range(3 * period)]
        right, step = torch.tensor(one * 3).double(), torch.arange(3.0 * period).double()
        compare(given, right, [
            (torch.tensor(one + [beta] * 2 * period), "There is only one cycle: after the first period beta never falls back.",
                    "What should the first step of the second period give?"),
            (step % period / period * beta, "The rise takes the whole period, where the part `ramp` of it is asked for.",
                    "After how many steps should beta be reached?"),
            (step % period / (ramp * period) * beta, "beta is exceeded.",
                    "What should happen when the rise is over?"),
            (step / (ramp * period) * beta, "beta rises for ever.",
                    "What should happen when the rise is over, and what after a period?"),
            (right / beta, "The weight ends at 1, not at beta.", "Where does beta enter?"),
            (right.roll(-1), "The schedule is one step ahead.",
                    "The first step has the number 0. What should it give?"),
            (right.roll(1), "The schedule is one step late.",
                    "The first step has the number 0. What should it give?"),
            (beta - right, "The weight falls where it should rise.", "The code is to be cheap at first."),
            (torch.where(right < beta, 0, right), "The weight jumps from 0 to beta.", "Is a division rounding down?"),
            (torch.full_like(right, beta), "The weight is constant.", "Where does the step enter?"),
        ])


@Check
def check_balanced_vector(answer):
    """Mean over classes of the difference of mean codes, with minus without: (n, d), (n,), (n,) bool -> (d,)."""
    cases = (       # for each class: its label, members with the attribute, members without
        (0, 3, [(0, 2, 9), (2, 6, 3), (5, 4, 0), (6, 1, 1)]),
        (1, 8, [(0, 5, 1), (1, 2, 7), (2, 0, 3), (3, 3, 3)]),
        (2, 2, [(7, 4, 6)]))
    for seed, d, classes in cases:
        centres, directions = (3 * values for values in draws(seed, (len(classes), d), (len(classes), d)))
        codes, labels, has = [], [], []
        generator = torch.Generator().manual_seed(seed)
        for (label, n_with, n_without), centre, direction in zip(classes, centres, directions, strict=True):
            for mean, n in ((centre + direction, n_with), (centre, n_without)):
                scatter = torch.randn((n, d), generator=generator)
                codes += list(mean + scatter - scatter.mean(0))
            labels += [label] * (n_with + n_without)
            has += [True] * n_with + [False] * n_without
        order = torch.randperm(len(codes), generator=generator)
        codes, labels, has = torch.stack(codes)[order], torch.tensor(labels)[order], torch.tensor(has)[order]
        kept = codes.clone()
        counts = torch.tensor(classes)[:, 1:].double()
        both = (counts > 0).all(1)
        size, n_with = (weights * both for weights in (counts.sum(1), counts[:, 0]))
        directions, centres = directions.double(), centres.double()
        means = torch.stack([codes[labels == label].mean(0) for label, *_ in classes]).double()
        centred = codes - torch.stack([codes[labels == label].mean(0) for label in labels])
        right = directions[both].mean(0)
        given = answer(codes, labels, has)
        require(torch.equal(codes, kept), "The codes have been changed.", "Write the differences to a new tensor.")
        if isinstance(given, torch.Tensor):
            require(not given.isnan().any(), "The result is nan: a mean over no pictures at all.",
                    "Some class may have the attribute in all of its pictures, or in none.")
        compare(given, right, [
            (codes[has].mean(0) - codes[~has].mean(0),
                    "All classes are thrown together: the vector also means the classes that have the attribute more often.",
                    "Compare like with like: what must two groups share before they are subtracted?"),
            (-right, "The vector points the wrong way: adding it takes the attribute off.", "With minus without."),
            ((n_with @ directions) / n_with.sum(), "Classes with more pictures that have the attribute count more.",
                    "Each class has one vote."),
            ((size @ directions) / size.sum(), "Larger classes count more.", "Each class has one vote."),
            (directions[both].sum(0) / len(classes), "A class that lacks one of the groups counts as a difference of zero.",
                    "Such a class says nothing. What is the mean of the others?"),
            (directions[both].sum(0), "The differences are summed, where their mean is asked for.",
                    "The vector would grow with the number of classes."),
            ((centres + directions)[both].mean(0), "This is the mean code of the pictures with the attribute.",
                    "What do these pictures share with the ones without?"),
            (right / right.norm(), "The vector has been given the length 1.",
                    "One step along it should be the way from without to with. How long is that?"),
            (centred[has].mean(0) - centred[~has].mean(0),
                    "The class means are taken off, but then all classes are thrown together.",
                    "A class's mean depends on how many of its pictures have the attribute."),
            (((centres + directions)[both] - means[both]).mean(0), "The pictures with the attribute are compared with all of their class.",
                    "All of them include those with the attribute."),
        ], tolerance=1e-3)
