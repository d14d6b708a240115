"""Answers to the exercises on the WGAN: right ones in other forms, and wrong ones that no misconception gives."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def by_cumulative_sums(x, y):
    places = torch.cat([x, y]).unique()
    P, Q = ((sample[:, None] <= places).double().mean(0) for sample in (x, y))
    return ((P - Q).abs()[:-1] * places.diff()).sum().item()


def in_place(x, y):
    x.numpy().sort()
    y.numpy().sort()
    return (x - y).abs().mean()


def shift_by_autograd(v):
    v = v.clone().requires_grad_()
    return torch.autograd.grad((v**2).sum().sqrt(), v)[0]


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
            x_fake = generator({
                "fresh": torch.randn(len(x), latent_dim, **place), "once": once[:len(x)],
                "short": torch.randn(len(x), 3), "even": torch.rand(len(x), latent_dim)}[noise])
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


def bound_by_power_iteration(critic):
    total = torch.ones(())
    for layer in critic:
        if isinstance(layer, nn.Linear):
            v = torch.ones(layer.in_features)
            for _ in range(2000):
                v = F.normalize(layer.weight.T @ (layer.weight @ v), dim=0)
            total = total * (layer.weight @ v).norm()
        else:
            total = total * max(getattr(layer, "negative_slope", 0), 0.25 if isinstance(layer, nn.Sigmoid) else 1.0)
    return total


def lines(x, x_fake):
    t = torch.rand(len(x), 1, 1, 1)
    return t * x + (1 - t) * x_fake


def penalty(*, points=lines, keep=True, square=torch.square):
    def one_sided_penalty(critic, x, x_fake, limit):
        between = points(x, x_fake).detach().requires_grad_()
        gradient, = torch.autograd.grad(critic(between).sum(), between, create_graph=keep)
        return square(gradient.flatten(1).norm(dim=1).clamp(min=limit) - limit).mean()
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
        "right": [by_cumulative_sums, lambda x, y: np.abs(np.sort(x.numpy()) - np.sort(y.numpy())).mean()],
        "wrong": [
            (lambda x, y: (x - y).abs(), "shape"),
            (in_place, "have been changed"),
            (lambda x, y: None, "returns NoneType"),
        ]},
    "shift_gradient": {
        "right": [shift_by_autograd, lambda v: (v.numpy() / np.linalg.norm(v.numpy())).tolist()],
        "wrong": [(torch.ones_like, "values are not")]},
    "critic_turn": {
        "right": [turn_in_one_draw, turn(returned=lambda early, late: list(early))],
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
            (turn(noise="short"), "not have the shape"),
            (turn(detach=False), "gradient in the generator"),
            (turn(returned=lambda early, late: -early), "loss is returned"),
            (turn(returned=lambda early, late: late), "after the step"),
            (turn(returned=lambda early, late: early.mean()), "One number"),
            (turn(returned=lambda early, late: None), "returns NoneType"),
            (turn_without_fakes, "never called"),
            (turn_that_does_nothing, "has not learned"),
        ]},
    "lipschitz_bound": {
        "right": [bound_by_power_iteration],
        "wrong": [(lambda critic: [1.0, 2.0], "shape")]},
    "one_sided_penalty": {
        "right": [penalty_one_by_one, penalty()],
        "wrong": [
            (penalty(keep=False), "No gradient of the penalty"),
            (penalty(square=lambda excess: excess * excess.detach()), "weights is wrong"),
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
