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


def plane_by_hoelder(x, x_fake, clip=None):
    """The w that gives the largest w d, one pixel at a time in the box, by the closed form in the ball, in NumPy."""
    d = (x.double().mean(0) - x_fake.double().mean(0)).numpy().ravel()
    if clip is None:
        return d / np.sqrt((d**2).sum())
    return np.where(d > 0, clip, -clip)


def plane_by_ascent(x, x_fake, clip=None):
    """The best plane found by small steps uphill, each followed by the limit."""
    d, w = (x.mean(0) - x_fake.mean(0)).flatten(), torch.zeros(x[0].numel())
    for _ in range(20_000 if clip else 1):
        w = w + (1 if clip is None else clip) * d
        w = w / w.norm() if clip is None else w.clamp(-clip, clip)
    return w


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
    "best_plane": {
        "right": [plane_by_hoelder, plane_by_ascent],
        "wrong": [
            (lambda x, x_fake, clip=None: x.mean(0) - x_fake.mean(0), "shape"),
            (lambda x, x_fake, clip=None: None, "returns NoneType"),
        ]},
}
