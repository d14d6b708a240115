"""Right and wrong answers to the exercises of lab 05; `test_checks.py` hands them to the checks."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import nn


# ---------------------------------------------------------------------------- Wasserstein of samples

def by_cumulative_sums(x, y):
    places = torch.cat([x, y]).unique()
    P, Q = ((sample[:, None] <= places).double().mean(0) for sample in (x, y))
    return ((P - Q).abs()[:-1] * places.diff()).sum().item()


def in_place(x, y):
    x.numpy().sort()
    y.numpy().sort()
    return (x - y).abs().mean()


def ordered(x):
    return x.sort().values


# --------------------------------------------------------------------------------- moved as a whole

def shift_by_autograd(v):
    v = v.clone().requires_grad_()
    return torch.autograd.grad((v**2).sum().sqrt(), v)[0]


# ------------------------------------------------------------------------------------ critic's turn

def turn_in_one_draw(critic, generator, optimizer, batches, latent_dim, clip):
    """All pictures in one large batch, gradients by autograd, clip by clamping data."""
    with torch.no_grad():
        fakes = generator(torch.randn(len(batches) * len(batches[0]), latent_dim, device=batches[0].device))
    estimates = []
    for x, x_fake in zip(batches, fakes.split(len(batches[0]))):
        loss = critic(x_fake).mean() - critic(x).mean()
        parameters = list(critic.parameters())
        for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters)):
            p.grad = gradient
        optimizer.step()
        for p in parameters:
            p.data = torch.clip(p.data, -clip, clip)
        estimates.append(-loss.item())
    return np.array(estimates)


def turn(*, sign=1, zero=True, when="after", low=-1, biases=True, mean=torch.mean, noise="fresh", detach=True,
         placed=True, returned=lambda early, late: early):
    def critic_turn(critic, generator, optimizer, batches, latent_dim, clip):
        place = {"device": batches[0].device if placed else None}
        early, late, once = [], [], torch.randn(len(batches[0]), latent_dim, **place)

        def close_the_box():
            for p in critic.parameters():
                if biases or p.dim() > 1:
                    p.data.clamp_(low * clip, clip)
        for x in batches:
            z = {"fresh": torch.randn(len(x), latent_dim, **place), "once": once[:len(x)], "short": torch.randn(len(x), 3),
                 "even": torch.rand(len(x), latent_dim)}[noise]
            x_fake = generator(z)
            x_fake = x_fake.detach() if detach else x_fake
            if when == "before":
                close_the_box()
            estimate = mean(critic(x)) - mean(critic(x_fake))
            if zero is True:
                optimizer.zero_grad()
            (-sign * estimate).backward()
            optimizer.step()
            if zero == "behind":
                optimizer.zero_grad()
            if when == "after":
                close_the_box()
            early.append(estimate.detach())
            late.append((mean(critic(x)) - mean(critic(x_fake))).detach())
        if when == "end":
            close_the_box()
        return returned(torch.stack(early), torch.stack(late))
    return critic_turn


def turn_that_leaves_the_generator_frozen(critic, generator, *arguments):
    generator.requires_grad_(False)
    return turn()(critic, generator, *arguments)


def turn_without_fakes(critic, generator, optimizer, batches, latent_dim, clip):
    return torch.stack([critic(x).mean() for x in batches])


def turn_that_does_nothing(critic, generator, optimizer, batches, latent_dim, clip):
    return [(critic(x).mean() - critic(generator(torch.randn(len(x), latent_dim))).mean()).detach() for x in batches]


# ---------------------------------------------------------------------------------- Lipschitz bound

def factor(layer):
    return {nn.LeakyReLU: lambda: max(1.0, layer.negative_slope), nn.Sigmoid: lambda: 0.25}.get(type(layer), lambda: 1.0)()


def bound(size=lambda w: torch.linalg.matrix_norm(w, ord=2), factor=factor, combine=math.prod):
    def lipschitz_bound(critic):
        sizes = [float(size(layer.weight.detach())) for layer in critic if isinstance(layer, nn.Linear)]
        return combine(sizes) * math.prod(factor(layer) for layer in critic if not isinstance(layer, nn.Linear))
    return lipschitz_bound


def bound_by_power_iteration(critic):
    total = torch.ones(())
    for layer in critic:
        if isinstance(layer, nn.Linear):
            v = torch.ones(layer.in_features)
            for _ in range(2000):
                v = F.normalize(layer.weight.T @ (layer.weight @ v), dim=0)
            total = total * (layer.weight @ v).norm()
        else:
            total = total * factor(layer)
    return total


def bound_of_the_product(critic):
    product = torch.eye(critic[1].in_features)
    for layer in critic:
        product = layer.weight @ product if isinstance(layer, nn.Linear) else product
    return product.norm() * math.prod(factor(layer) for layer in critic)


# -------------------------------------------------------------------------------- one-sided penalty

def lines(x, x_fake):
    t = torch.rand(len(x), 1, 1, 1)
    return t * x + (1 - t) * x_fake


def penalty(*, points=lines, keep=True, norm=lambda g: g.flatten(1).norm(dim=1),
            cost=lambda slope, limit: (F.relu(slope - limit) ** 2).mean()):
    def one_sided_penalty(critic, x, x_fake, limit):
        between = points(x, x_fake).detach().requires_grad_()
        gradient, = torch.autograd.grad(critic(between).sum(), between, create_graph=keep)
        return cost(norm(gradient), limit)
    return one_sided_penalty


def penalty_one_by_one(critic, x, x_fake, limit):
    """Without autograd.grad on the batch: each picture on its own, from the other end of the line."""
    total = 0
    for real, fake in zip(x, x_fake):
        point = real + torch.rand(()) * (fake - real)
        gradient = torch.func.grad(lambda p: critic(p[None]).squeeze())(point)
        slope = (gradient**2).sum().sqrt()
        total = total + torch.where(slope > limit, (slope - limit) ** 2, 0 * slope)
    return total / len(x)


def penalty_by_backward(critic, x, x_fake, limit):
    between = lines(x, x_fake).requires_grad_()
    critic(between).sum().backward(create_graph=True)
    return (F.relu(between.grad.flatten(1).norm(dim=1) - limit) ** 2).mean()


ANSWERS = {
    "sample_wasserstein": {
        "right": [lambda x, y: (ordered(x) - ordered(y)).abs().mean(), by_cumulative_sums,
                  lambda x, y: np.abs(np.sort(x.numpy()) - np.sort(y.numpy())).mean()],
        "wrong": [
            (lambda x, y: (x - y).abs().mean(), "paired as they were drawn"),
            (lambda x, y: (ordered(x) - ordered(y)).square().mean(), "ways are squared"),
            (lambda x, y: (ordered(x) - ordered(y)).square().mean().sqrt(), "distance of order 2"),
            (lambda x, y: (ordered(x) - ordered(y)).abs().sum(), "mass 1"),
            (lambda x, y: (ordered(x) - ordered(y)).mean(), "cancel each other"),
            (lambda x, y: (ordered(y) - ordered(x)).mean(), "cancel each other"),
            (lambda x, y: (x.mean() - y.mean()).abs(), "only the means"),
            (lambda x, y: (ordered(x) - ordered(y).flip(0)).abs().mean(), "dearest plan"),
            (lambda x, y: (ordered(x) - ordered(y)).abs(), "shape"),
            (in_place, "have been changed"),
            (lambda x, y: None, "returns NoneType"),
        ]},
    "shift_gradient": {
        "right": [lambda v: v / v.norm(), shift_by_autograd, lambda v: (v.numpy() / np.linalg.norm(v.numpy())).tolist()],
        "wrong": [
            (lambda v: -v / v.norm(), "wrong way"),
            (lambda v: v.sign(), "line of its own"),
            (lambda v: v.norm(), "its gradient is asked for"),
            (lambda v: v, "half the squared distance"),
            (lambda v: 2 * v, "gradient of the squared distance"),
            (lambda v: v / v.abs().sum(), "along the axes"),
            (lambda v: v / v.norm() ** 2, "once too often"),
            (lambda v: torch.ones_like(v), "values are not"),
        ]},
    "critic_turn": {
        "right": [turn(), turn_in_one_draw, turn(returned=lambda early, late: list(early))],
        "wrong": [
            (turn(sign=-1), "sign of the loss is reversed"),
            (turn(when="before"), "closed before the step"),
            (turn(when="never"), "not clipped"),
            (turn(when="end"), "once at the end"),
            (turn(low=-math.inf), "no floor"),
            (turn(biases=False), "the bias is not"),
            (turn(zero=False), "gradients of earlier batches"),
            (turn(zero="behind"), "from before the call"),
            (turn(placed=False), "not made on the device"),
            (turn_that_leaves_the_generator_frozen, "can no longer learn"),
            (turn(mean=torch.sum), "summed over the batch"),
            (turn(noise="once"), "used again"),
            (turn(noise="even"), "not standard normal"),
            (turn(noise="short"), "not the shape"),
            (turn(detach=False), "gradient in the generator"),
            (turn(returned=lambda early, late: -early), "loss is returned"),
            (turn(returned=lambda early, late: late), "after the step"),
            (turn(returned=lambda early, late: early.mean()), "One number"),
            (turn(returned=lambda early, late: None), "returns NoneType"),
            (turn_without_fakes, "never called"),
            (turn_that_does_nothing, "has not learned"),
        ]},
    "lipschitz_bound": {
        "right": [bound(), bound_by_power_iteration, bound(size=lambda w: torch.linalg.svdvals(w)[0])],
        "wrong": [
            (bound(factor=lambda layer: 1.0), "activation is left out"),
            (bound(factor=lambda layer: getattr(layer, "negative_slope", factor(layer))), "slope on the left"),
            (bound(size=torch.linalg.norm), "Frobenius"),
            (bound(size=lambda w: w.abs().max()), "largest weights"),
            (bound(size=lambda w: w.abs().max() * math.sqrt(w.numel())), "largest weight alone"),
            (bound(size=lambda w: torch.linalg.eigvalsh(w.T @ w)[-1]), "square of the bound"),
            (bound(size=lambda w: torch.linalg.svdvals(w)[-1]), "smallest singular values"),
            (bound(size=lambda w: torch.linalg.svdvals(w).sum()), "added up"),
            (bound(combine=sum), "layers are added"),
            (bound_of_the_product, "multiplied first"),
            (lambda critic: [1.0, 2.0], "shape"),
        ]},
    "one_sided_penalty": {
        "right": [penalty(), penalty_one_by_one, penalty(cost=lambda slope, limit: (slope.clamp(min=limit) - limit).square().mean())],
        "wrong": [
            (penalty(cost=lambda slope, limit: ((slope - limit) ** 2).mean()), "two sides"),
            (penalty(norm=lambda g: g.flatten(1).norm(dim=0)), "runs over the batch"),
            (penalty(norm=lambda g: g.norm()), "one long gradient"),
            (penalty(norm=lambda g: g.abs()), "each pixel"),
            (penalty(keep=False), "No gradient of the penalty"),
            (penalty(cost=lambda slope, limit: (F.relu(slope - 1) ** 2).mean()), "limit is not used"),
            (penalty(norm=lambda g: g.flatten(1).square().sum(1)), "root is missing"),
            (penalty(cost=lambda slope, limit: F.relu(slope - limit).mean()), "not squared"),
            (penalty(cost=lambda slope, limit: (F.relu(slope - limit) ** 2).sum()), "sum over the batch"),
            (penalty(cost=lambda slope, limit: -(F.relu(slope - limit) ** 2).mean()), "steep critics would be rewarded"),
            (penalty(cost=lambda slope, limit: (F.relu(limit - slope) ** 2).mean()), "those above do not"),
            (penalty(cost=lambda slope, limit: F.relu(slope - limit).mean() ** 2), "mean is squared"),
            (penalty(cost=lambda slope, limit: F.relu(slope.mean() - limit) ** 2), "flat places pay"),
            (penalty(cost=lambda slope, limit: (F.relu(slope - limit) * F.relu(slope - limit).detach()).mean()), "weights is wrong"),
            (penalty_by_backward, "leaves its gradients"),
            (penalty(points=lambda x, x_fake: x), "same place"),
            (penalty(points=lambda x, x_fake: x_fake), "same place"),
            (penalty(points=lambda x, x_fake: (x + x_fake) / 2), "same place"),
            (penalty(points=lambda x, x_fake: x_fake + torch.rand(()) * (x - x_fake)), "same place"),
            (penalty(points=lambda x, x_fake: x_fake + torch.rand_like(x) * (x - x_fake)), "not on the lines"),
            (penalty(points=lambda x, x_fake: x_fake + torch.randn(len(x), 1, 1, 1) * (x - x_fake)), "beyond the ends"),
            (penalty(points=lambda x, x_fake: x_fake + torch.rand(len(x), 1, 1, 1) ** 3 * (x - x_fake)), "evenly"),
        ]},
}
