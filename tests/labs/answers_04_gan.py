"""Answers to the exercises on GANs: right ones in other forms, and wrong ones that no misconception gives."""

import itertools
import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.distance import jensenshannon


def best_by_logits(n_real, n_fake):
    p, q = n_real / n_real.sum(), n_fake / n_fake.sum()
    return (p.log() - q.log()).sigmoid().nan_to_num(0.5)


def best_in_numpy(n_real, n_fake):
    p, q = n_real.numpy() / n_real.numpy().sum(), n_fake.numpy() / n_fake.numpy().sum()
    return np.divide(p, p + q, out=np.full(len(p), 0.5), where=p + q > 0)


def best_one_by_one(n_real, n_fake):
    a, b = n_real.tolist(), n_fake.tolist()
    return [0.5 if x + y == 0 else x * sum(b) / (x * sum(b) + y * sum(a)) for x, y in zip(a, b)]


def smooth(discriminator, generator, optimizer, x, z, target=0.9, *, cut=torch.detach, apply=True, n_fake=None):
    """A step of the discriminator with a mistake to choose."""
    real, fake = discriminator(x), discriminator(cut(generator(z)))
    loss = (F.binary_cross_entropy_with_logits(real, torch.full_like(real, target))
            + F.binary_cross_entropy_with_logits(fake, torch.zeros(n_fake or len(z), 1)))
    optimizer.zero_grad()
    loss.backward()
    if apply:
        optimizer.step()
    return loss


def uncut(*arguments):
    return smooth(*arguments, cut=lambda images: images)


def smooth_in_two_calls(discriminator, generator, optimizer, x, z, target=0.9):
    for p in discriminator.parameters():
        p.grad = None
    with torch.no_grad():
        images = generator(z)
    total = 0
    for logits, t in ((discriminator(images), 0.0), (discriminator(x), target)):
        loss = (F.softplus(logits) - t * logits).mean()
        loss.backward()
        total += loss.item()
    optimizer.step()
    return total


def smooth_in_one_batch(discriminator, generator, optimizer, x, z, target=0.9):
    images = torch.cat([x, generator(z).detach()])
    targets = torch.cat([torch.full((len(x), 1), target), torch.zeros(len(z), 1)])
    weights = torch.cat([torch.full((len(x), 1), 1 / len(x)), torch.full((len(z), 1), 1 / len(z))])
    loss = F.binary_cross_entropy_with_logits(discriminator(images), targets, weight=weights, reduction="sum")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach().numpy()


def smooth_by_probabilities(discriminator, generator, optimizer, x, z, target=0.9):
    real, fake = discriminator(x).sigmoid(), discriminator(generator(z).detach()).sigmoid()
    optimizer.zero_grad()
    loss = F.binary_cross_entropy(real, torch.full_like(real, target)) - (1 - fake).log().mean()
    loss.backward()
    optimizer.step()
    return loss


def cleared_behind(discriminator, generator, *rest):
    loss = uncut(discriminator, generator, *rest)
    generator.zero_grad()
    return loss


def both_move(discriminator, generator, optimizer, *rest):
    everything = torch.optim.SGD([*discriminator.parameters(), *generator.parameters()], lr=0.1)
    return uncut(discriminator, generator, everything, *rest)


def bound_by_library(real, fake):
    loss = [F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, t))
            for logits, t in ((real, 1.0), (fake, 0.0))]
    return 1 - torch.stack(loss).mean() / math.log(2)


def bound_in_base_2(real, fake):
    return 1 - 0.5 * (np.logaddexp2(0, -real.numpy() / math.log(2)).mean()
                      + np.logaddexp2(0, fake.numpy() / math.log(2)).mean())


def bound_by_probabilities(real, fake):
    return 1 + (real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean()) / (2 * math.log(2))


def missing_by_library(k, n_modes, pack):
    packs = list(itertools.product(range(n_modes), repeat=pack))
    p = np.full(len(packs), 1 / len(packs))
    q = np.array([max(modes) < k for modes in packs], float)
    return jensenshannon(p, q / q.sum()) ** 2


def missing_by_entropies(k, n_modes, pack):
    n, few = n_modes**pack, k**pack
    inside, outside = (1 / n + 1 / few) / 2, 1 / (2 * n)
    entropy = -few * inside * math.log(inside) - (n - few) * outside * math.log(outside)
    return torch.tensor(entropy - (math.log(n) + math.log(few)) / 2)


ANSWERS = {
    "best_discriminator": {
        "right": [best_by_logits, best_in_numpy, best_one_by_one],
        "wrong": [
            (lambda n_real, n_fake: best_by_logits(n_real, n_fake) + 0 / (n_real + n_fake), "zero by zero"),
            (lambda n_real, n_fake: (n_real / (n_real + n_fake)).nan_to_num(), "differ in size"),
            (lambda n_real, n_fake: best_by_logits(n_real, n_fake).mean(), "shape"),
            (lambda n_real, n_fake: None, "returns NoneType"),
        ]},
    "smooth_step": {
        "right": [smooth_in_two_calls, smooth_in_one_batch, smooth_by_probabilities],
        "wrong": [
            (uncut, "gradients of the generator"),
            (cleared_behind, "gradients of the generator"),
            (both_move, "weights of the generator have moved"),
            (partial(smooth, apply=False), "have not moved"),
            (partial(smooth, n_fake=6), "refuses its targets"),
            (lambda *arguments: smooth(*arguments) and None, "returns NoneType"),
        ]},
    "js_bound": {
        "right": [bound_by_library, bound_in_base_2],
        "wrong": [
            (bound_by_probabilities, "inf or nan"),
            (lambda real, fake: 1 - (F.softplus(-real[:3]) + F.softplus(fake[:3])) / math.log(4), "shape"),
        ]},
    "js_missing": {
        "right": [missing_by_library, missing_by_entropies],
        "wrong": [(lambda k, n, pack: math.inf if k < n else 0.0, "infinite")]},
}
