"""Answers to the exercises on the WGAN: right ones in other forms, and wrong ones that no misconception gives."""

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


def turn(*, clipped=1, noise="fresh", detach=torch.detach, placed=True, returned=list):
    """A turn of the critic with a mistake to choose; it clips the parameters with at least so many dimensions."""
    def critic_turn(critic, generator, optimizer, batches, latent_dim, clip):
        device, estimates = batches[0].device if placed else None, []
        once = torch.randn(len(batches[0]), latent_dim, device=device)
        for x in batches:
            z = torch.randn(len(x), latent_dim, device=device)
            x_fake = detach(generator({"fresh": z, "once": once[:len(x)], "short": z[:, :3], "moved": z + 0.5,
                                       "wide": 2 * z}[noise]))
            estimates.append(critic(x).mean() - critic(x_fake).mean())
            optimizer.zero_grad()
            (-estimates[-1]).backward()
            optimizer.step()
            for p in critic.parameters():
                if p.dim() >= clipped:
                    p.data.clamp_(-clip, clip)
        return returned(estimates)
    return critic_turn


def turn_that_leaves_the_generator_frozen(critic, generator, *arguments):
    generator.requires_grad_(False)
    return turn()(critic, generator, *arguments)


def turn_without_fakes(critic, generator, optimizer, batches, latent_dim, clip):
    return torch.stack([critic(x).mean() for x in batches])


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
        "right": [turn_in_one_draw, turn()],
        "wrong": [
            (turn(clipped=2), "the bias is not"),
            (turn(placed=False), "not made on the device"),
            (turn_that_leaves_the_generator_frozen, "can no longer learn"),
            (turn(noise="once"), "used again"),
            (turn(noise="moved"), "not standard normal"),
            (turn(noise="wide"), "not standard normal"),
            (turn(noise="short"), "not have the shape"),
            (turn(detach=lambda x_fake: x_fake), "gradient in the generator"),
            (turn(returned=lambda estimates: None), "returns NoneType"),
            (turn_without_fakes, "never called"),
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
