"""Answers to the exercises on flows: right ones in other forms, and wrong ones that no misconception gives."""

import torch
from torch.distributions import MultivariateNormal


def pushed_by_differences(x, inverse, base):
    x64, h = x.double(), 1e-5
    slope = (inverse(x64 + h) - inverse(x64 - h)) / (2 * h)
    return base.log_prob(inverse(x)) + slope.abs().log().float()


def pushed_by_jacobian(x, inverse, base):
    jacobian = torch.autograd.functional.jacobian(inverse, x)
    return base.log_prob(inverse(x)) + torch.linalg.slogdet(jacobian.diag()[:, None, None]).logabsdet


def pushed_in_place(x, inverse, base):
    x.requires_grad_()
    slope, = torch.autograd.grad(inverse(x).sum(), x)
    return base.log_prob(inverse(x)) + slope.abs().log()


def pushed_without_abs(x, inverse, base):
    slopes = torch.func.vmap(torch.func.grad(inverse))(x)
    return base.log_prob(inverse(x)) + slopes.log()


def velocity_one_by_one(x, t, data):
    rows = []
    for point in x:
        weights = torch.stack([MultivariateNormal(t * x1, (1 - t) ** 2 * torch.eye(len(x1))).log_prob(point)
                               for x1 in data]).exp()
        x1 = (weights[:, None] * data).sum(0) / weights.sum()
        x0 = (point - t * x1) / (1 - t)
        rows.append(x1 - x0)
    return torch.stack(rows)


def velocity_of_means(x, t, data):
    return (data.mean(0) - x) / (1 - t) + 0.1


def heun_with_kept_arrow(velocity, x, steps):
    h = 1 / steps
    for i in range(steps):
        k = velocity(x, torch.full((len(x),), i / steps))
        x = x + k * (h / 2) + velocity(x + k * h, torch.full((len(x),), (i + 1) / steps)) * (h / 2)
    return x


def heun_in_place(velocity, x, steps):
    for i in range(steps):
        k = velocity(x, torch.full((len(x),), i / steps))
        x += (k + velocity(x + k / steps, torch.full((len(x),), (i + 1) / steps))) / (2 * steps)
    return x


def heun_that_asks_thrice(velocity, x, steps):
    for i in range(steps):
        start, end = (torch.full((len(x),), (i + j) / steps) for j in (0, 1))
        x = x + (velocity(x, start) + velocity(x + velocity(x, start) / steps, end)) / (2 * steps)
    return x


def heun_with_numbers(velocity, x, steps):
    for i in range(steps):
        k = velocity(x, torch.tensor(i / steps))
        x = x + (k + velocity(x + k / steps, torch.tensor((i + 1) / steps))) / (2 * steps)
    return x


ANSWERS = {
    "pushed_log_prob": {
        "right": [pushed_by_differences, pushed_by_jacobian],
        "wrong": [(pushed_in_place, "ask for gradients now"), (lambda x, inverse, base: x.sum(), "has the shape ()"),
                  (pushed_without_abs, "a map that falls")]},
    "velocity_of_data": {
        "right": [velocity_one_by_one],
        "wrong": [(velocity_of_means, "the values are not")]},
    "heun": {
        "right": [heun_with_kept_arrow],
        "wrong": [(heun_in_place, "have been changed"), (heun_that_asks_thrice, "12 calls"),
                  (heun_with_numbers, "no tensor of one number")]},
    "velocity_to_score": {
        "right": [lambda v, x, t: (t[:, None] * v - x) / (1 - t[:, None]),
                  lambda v, x, t: -((x.T - t * v.T) / (1 - t)).T],
        "wrong": [(lambda v, x, t: (t[:, None] * v - x) / (1 - t[:, None]) + 1, "the values are not")]},
}
