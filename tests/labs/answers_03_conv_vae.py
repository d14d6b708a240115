"""Answers to the exercises on convolutional VAEs: right ones in other forms, wrong ones that no misconception gives."""

import numpy as np
import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Normal


def field_from_behind(layers):
    size = 1
    for kernel, stride in reversed(layers):
        size = (size - 1) * stride + kernel
    return torch.tensor(size)


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


def cycle_by_numpy(step, period, ramp, beta):
    return np.interp(step % period, [0, ramp * period], [0, beta])


def cycle_of_tensors(step, period, ramp, beta):
    part = torch.tensor(step / period)
    return beta * ((part - part.floor()) / ramp).clamp(max=1)


def balanced_by_matrices(codes, labels, has):
    members = F.one_hot(labels).to(codes.dtype)
    there, absent = members * has[:, None], members * ~has[:, None]
    use = (there.sum(0) > 0) & (absent.sum(0) > 0)
    gap = (there.T @ codes)[use] / there.sum(0)[use, None] - (absent.T @ codes)[use] / absent.sum(0)[use, None]
    return gap.numpy().mean(axis=0)


def means_of_all_classes(codes, labels, has):
    groups = [(codes[has & (labels == label)], codes[~has & (labels == label)]) for label in labels.unique()]
    return torch.stack([there.mean(0) - absent.mean(0) for there, absent in groups]).mean(0)


def first_of_each(codes, labels, has):
    groups = [(codes[has & (labels == label)], codes[~has & (labels == label)]) for label in labels.unique()]
    return torch.stack([there[0] - absent[0] for there, absent in groups if len(there) and len(absent)]).mean(0)


ANSWERS = {
    "receptive_field": {
        "right": [field_from_behind],
        "wrong": [(lambda layers: (field_from_behind(layers),) * 2, "shape")]},
    "pixel_nll": {
        "right": [pixel_nll_by_library, pixel_nll_by_other_library],
        "wrong": [(lambda *a: pixel_nll_by_library(*a)[None], "shape"),
                  (lambda *a: pixel_nll_by_library(*a).detach(), "carries no graph")]},
    "stable_nll": {
        "right": [
            lambda logits, x: bernoulli(logits, x).flatten(1).sum(1),
            lambda logits, x: -(x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum((1, 2, 3)),
            lambda logits, x: [bernoulli(one, pixels).sum() for one, pixels in zip(logits, x, strict=True)],
            lambda logits, x: -Bernoulli(logits=logits, validate_args=False).log_prob(x).flatten(1).sum(1)],
        "wrong": [
            (lambda logits, x: bernoulli(logits, x.round()).flatten(1).sum(1), "values are not"),
            (of_probability, "inf or nan"),
            (lambda logits, x: (torch.log1p(logits.exp()) - x * logits).flatten(1).sum(1), "inf or nan"),
            (lambda logits, x: of_probability(logits, x, lambda p: p + 1e-12), "cut off"),
            (lambda logits, x: of_probability(logits, x, lambda p: p.clamp(1e-7, 1)), "cut off"),
            (lambda *a: F.binary_cross_entropy(a[0].sigmoid(), a[1], reduction="none").flatten(1).sum(1), "cut off"),
            (with_a_bad_branch, "gradient is nan"),
            (stable_by_hand, "gradient is wrong at a logit of 0"),
            (lambda logits, x: stable_by_hand(logits.detach(), x), "carries no graph"),
            (lambda logits, x: stable_by_hand(logits.detach(), x).numpy(), "no tensor"),
        ]},
    "cyclic_beta": {
        "right": [cycle_by_numpy, cycle_of_tensors],
        "wrong": [(lambda *a: [cycle_by_numpy(*a)], "shape")]},
    "balanced_vector": {
        "right": [balanced_by_matrices],
        "wrong": [
            (means_of_all_classes, "nan"),
            (lambda codes, labels, has: codes.mul_(2).mean(0), "have been changed"),
            (first_of_each, "values are not"),
        ]},
}
