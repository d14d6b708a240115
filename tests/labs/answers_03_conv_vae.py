"""Right and wrong answers to the exercises of lab 03; `test_checks.py` hands them to the checks."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Normal


def field(layers):
    size, step = 1, 1
    for kernel, stride in layers:
        size, step = size + (kernel - 1) * step, step * stride
    return size


def field_from_behind(layers):
    size = 1
    for kernel, stride in reversed(layers):
        size = (size - 1) * stride + kernel
    return torch.tensor(size)


def field_with_own_stride(layers):
    size, step = 1, 1
    for kernel, stride in layers:
        step *= stride
        size += (kernel - 1) * step
    return size


def field_of_whole_kernels(layers):
    size, step = 0, 1
    for kernel, stride in layers:
        size, step = size + kernel * step, step * stride
    return size


def field_of_single_strides(layers):
    size, before = 1, 1
    for kernel, stride in layers:
        size, before = size + (kernel - 1) * before, stride
    return size


def gaussian(x_hat, logvar, x, *, width=1, price=1, error=1, constant=math.log(2 * math.pi)):
    return 0.5 * (error * (x - x_hat) ** 2 * (-width * logvar).exp() + price * logvar + constant)


def pixel_nll(reduce=lambda each: each.sum() / len(each), **changes):
    return lambda *arguments: reduce(gaussian(*arguments, **changes))


def pixel_nll_by_library(x_hat, logvar, x):
    return -Normal(x_hat, logvar.exp().sqrt()).log_prob(x).flatten(1).sum(-1).mean()


def pixel_nll_by_other_library(x_hat, logvar, x):
    return F.gaussian_nll_loss(x_hat, x, logvar.exp(), full=True, reduction="sum") / len(x)


def bernoulli(logits, x):
    return F.softplus(logits) - x * logits


def stable_by_hand(logits, x):
    return (logits.clamp(min=0) - x * logits + torch.log1p((-logits.abs()).exp())).flatten(1).sum(1)


def of_probability(logits, x, cut=lambda p: p):
    p = logits.sigmoid()
    return -(x * cut(p).log() + (1 - x) * cut(1 - p).log()).flatten(1).sum(1)


def with_a_bad_branch(logits, x):
    safe = torch.where(logits > 0, logits + torch.log1p((-logits).exp()), torch.log1p(logits.exp()))
    return (safe - x * logits).flatten(1).sum(1)


def cycle(step, period, ramp, beta):
    return beta * min(1.0, step % period / (ramp * period))


def cycle_by_numpy(step, period, ramp, beta):
    return np.interp(step % period, [0, ramp * period], [0, beta])


def cycle_of_tensors(step, period, ramp, beta):
    part = torch.tensor(step / period)
    return beta * ((part - part.floor()) / ramp).clamp(max=1)


def differences(codes, labels, has):
    """Mean code with minus mean code without, and the number of pictures, for each class."""
    out = {}
    for label in labels.unique().tolist():
        own = labels == label
        out[label] = codes[own & has].mean(0) - codes[own & ~has].mean(0), own & has, own
    return out


def valid(codes, labels, has):
    return [entry for entry in differences(codes, labels, has).values() if not entry[0].isnan().any()]


def balanced(codes, labels, has):
    return torch.stack([entry[0] for entry in valid(codes, labels, has)]).mean(0)


def balanced_by_matrices(codes, labels, has):
    members = F.one_hot(labels).to(codes.dtype)
    there, absent = members * has[:, None], members * ~has[:, None]
    use = (there.sum(0) > 0) & (absent.sum(0) > 0)
    gap = (there.T @ codes)[use] / there.sum(0)[use, None] - (absent.T @ codes)[use] / absent.sum(0)[use, None]
    return gap.numpy().mean(axis=0)


def weighted(codes, labels, has, part):
    entries = valid(codes, labels, has)
    weights = torch.tensor([float(entry[part].sum()) for entry in entries])
    return weights @ torch.stack([entry[0] for entry in entries]) / weights.sum()


def first_of_each(codes, labels, has):
    return torch.stack([codes[own & has][0] - codes[own & ~has][0] for own in (labels == label for label in labels.unique())
                        if (own & has).any() and (own & ~has).any()]).mean(0)


def pooled(codes, has):
    return codes[has].mean(0) - codes[~has].mean(0)


def centred(codes, labels):
    return codes - torch.stack([codes[labels == label].mean(0) for label in labels])


ANSWERS = {
    "receptive_field": {
        "right": [field, field_from_behind],
        "wrong": [
            (lambda layers: 1 + sum(k - 1 for k, _ in layers), "strides are not counted"),
            (field_with_own_stride, "own stride"),
            (field_of_single_strides, "layer before"),
            (field_of_whole_kernels, "where its steps are needed"),
            (lambda layers: field(layers) - 1, "One pixel is missing"),
            (lambda layers: field(layers[::-1]), "wrong order"),
            (lambda layers: sum(k for k, _ in layers), "added up"),
            (lambda layers: math.prod(k for k, _ in layers), "multiplied"),
            (lambda layers: math.prod(s for _, s in layers), "neighbours lie apart"),
            (lambda layers: (field(layers),) * 2, "shape"),
        ]},
    "pixel_nll": {
        "right": [pixel_nll(), pixel_nll_by_library, pixel_nll_by_other_library],
        "wrong": [
            (pixel_nll(constant=0), "constant of the normal density"),
            (pixel_nll(price=0), "costs nothing"),
            (pixel_nll(price=-1), "sign of the logarithm"),
            (pixel_nll(width=2, price=2), "variance is taken for a deviation"),
            (pixel_nll(error=2), "counts twice"),
            (pixel_nll(width=-1), "multiplied by the variance"),
            (pixel_nll(torch.mean), "mean over the pixels"),
            (pixel_nll(torch.sum), "batch is summed"),
            (pixel_nll(lambda each: -each.sum() / len(each)), "not its negative"),
            (pixel_nll(lambda each: each.flatten(1).sum(1)), "shape"),
        ]},
    "stable_nll": {
        "right": [lambda logits, x: bernoulli(logits, x).flatten(1).sum(1), stable_by_hand,
                  lambda logits, x: -(x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum((1, 2, 3)),
                  lambda logits, x: [bernoulli(one, pixels).sum() for one, pixels in zip(logits, x, strict=True)],
                  lambda logits, x: -Bernoulli(logits=logits, validate_args=False).log_prob(x).flatten(1).sum(1)],
        "wrong": [
            (lambda logits, x: -bernoulli(logits, x).flatten(1).sum(1), "log likelihood itself"),
            (lambda logits, x: bernoulli(logits, x.round()).flatten(1).sum(1), "values are not"),
            (lambda logits, x: bernoulli(-logits, x).flatten(1).sum(1), "changed places"),
            (lambda logits, x: -(x * F.logsigmoid(logits)).flatten(1).sum(1), "Only the white part"),
            (lambda logits, x: bernoulli(logits.sigmoid(), x).flatten(1).sum(1), "sigmoid too many"),
            (lambda logits, x: bernoulli(logits, x).flatten(1).mean(1), "mean over the pixels"),
            (lambda logits, x: bernoulli(logits, x).sum(), "summed to one number"),
            (lambda logits, x: bernoulli(logits, x).sum() / len(x), "mean over the batch"),
            (of_probability, "inf or nan"),
            (lambda logits, x: (torch.log1p(logits.exp()) - x * logits).flatten(1).sum(1), "inf or nan"),
            (lambda logits, x: of_probability(logits, x, lambda p: p + 1e-12), "cut off"),
            (lambda logits, x: of_probability(logits, x, lambda p: p.clamp(1e-7, 1)), "cut off"),
            (lambda logits, x: F.binary_cross_entropy(logits.sigmoid(), x, reduction="none").flatten(1).sum(1), "cut off"),
            (with_a_bad_branch, "gradient is nan"),
            (lambda logits, x: stable_by_hand(logits.detach(), x), "carries no graph"),
            (lambda logits, x: stable_by_hand(logits.detach(), x).numpy(), "no tensor"),
        ]},
    "cyclic_beta": {
        "right": [cycle, cycle_by_numpy, cycle_of_tensors],
        "wrong": [
            (lambda step, period, ramp, beta: beta * min(1.0, step / (ramp * period)), "only one cycle"),
            (lambda step, period, ramp, beta: beta * (step % period) / period, "whole period"),
            (lambda step, period, ramp, beta: beta * (step % period) / (ramp * period), "exceeded"),
            (lambda step, period, ramp, beta: beta * step / (ramp * period), "rises for ever"),
            (lambda step, period, ramp, beta: cycle(step, period, ramp, 1.0), "ends at 1"),
            (lambda step, period, ramp, beta: cycle(step + 1, period, ramp, beta), "one step ahead"),
            (lambda step, period, ramp, beta: cycle(step - 1, period, ramp, beta), "one step late"),
            (lambda step, period, ramp, beta: beta - cycle(step, period, ramp, beta), "falls where"),
            (lambda step, period, ramp, beta: beta * min(1, step % period // (ramp * period)), "jumps"),
            (lambda step, period, ramp, beta: beta, "constant"),
        ]},
    "balanced_vector": {
        "right": [balanced, balanced_by_matrices],
        "wrong": [
            (lambda codes, labels, has: pooled(codes, has), "All classes are thrown together"),
            (lambda codes, labels, has: -balanced(codes, labels, has), "points the wrong way"),
            (lambda codes, labels, has: weighted(codes, labels, has, 1), "that have the attribute count more"),
            (lambda codes, labels, has: weighted(codes, labels, has, 2), "Larger classes"),
            (lambda codes, labels, has: torch.stack([e[0].nan_to_num() for e in differences(codes, labels, has).values()]).mean(0),
             "difference of zero"),
            (lambda codes, labels, has: torch.stack([e[0] for e in valid(codes, labels, has)]).sum(0), "summed"),
            (lambda codes, labels, has: torch.stack([codes[e[1]].mean(0) for e in valid(codes, labels, has)]).mean(0),
             "mean code of the pictures with"),
            (lambda codes, labels, has: F.normalize(balanced(codes, labels, has), dim=0), "length 1"),
            (lambda codes, labels, has: pooled(centred(codes, labels), has), "class means are taken off"),
            (lambda codes, labels, has: torch.stack([codes[e[1]].mean(0) - codes[e[2]].mean(0)
                                                     for e in valid(codes, labels, has)]).mean(0), "with all of their class"),
            (lambda codes, labels, has: torch.stack([e[0] for e in differences(codes, labels, has).values()]).mean(0), "nan"),
            (lambda codes, labels, has: codes.mul_(2).mean(0), "have been changed"),
            (first_of_each, "values are not"),
        ]},
}
