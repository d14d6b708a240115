"""Right and wrong answers to the exercises of lab 04; `test_checks.py` hands them to the checks."""

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.distance import jensenshannon


# ------------------------------------------------------------------------------ best_discriminator

def best(n_real, n_fake):
    p, q = n_real / n_real.sum(), n_fake / n_fake.sum()
    return torch.where(p + q > 0, p / (p + q), 0.5)


def best_in_numpy(n_real, n_fake):
    p, q = n_real.numpy() / n_real.numpy().sum(), n_fake.numpy() / n_fake.numpy().sum()
    return np.divide(p, p + q, out=np.full(len(p), 0.5), where=p + q > 0)


def best_one_by_one(n_real, n_fake):
    a, b = n_real.tolist(), n_fake.tolist()
    return [0.5 if x + y == 0 else x * sum(b) / (x * sum(b) + y * sum(a)) for x, y in zip(a, b)]


def densities(function, fill=0.5):
    def answer(n_real, n_fake):
        p, q = n_real / n_real.sum(), n_fake / n_fake.sum()
        return torch.where(n_real + n_fake > 0, function(p, q), fill)
    return answer


# ------------------------------------------------------------------------------------- smooth_step

def cross_entropy(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def smooth(real_target=None, fake_target=0.0, *, cut=True, clear=True, weigh=lambda real, fake: real + fake, give=None):
    """A step of the discriminator with a mistake to choose; target None: the argument's."""
    def step(discriminator, generator, optimizer, x, z, target=0.9):
        fake = generator(z)
        a = real_target(target) if real_target else target
        b = fake_target(target) if callable(fake_target) else fake_target
        real_loss = cross_entropy(discriminator(x), a)
        fake_loss = cross_entropy(discriminator(fake.detach() if cut else fake), b)
        if clear:
            optimizer.zero_grad()
        loss = weigh(real_loss, fake_loss)
        loss.backward()
        optimizer.step()
        return give(real_loss, fake_loss) if give else loss
    return step


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
    loss = F.binary_cross_entropy(real, torch.full_like(real, target)) + F.binary_cross_entropy(fake, torch.zeros_like(fake))
    loss.backward()
    optimizer.step()
    return loss


def cleared_behind(discriminator, generator, optimizer, x, z, target=0.9):
    loss = smooth(cut=False)(discriminator, generator, optimizer, x, z, target)
    generator.zero_grad()
    return loss


def joined_mean(discriminator, generator, optimizer, x, z, target=0.9):
    logits = discriminator(torch.cat([x, generator(z).detach()]))
    loss = F.binary_cross_entropy_with_logits(logits, torch.tensor([target] * len(x) + [0.0] * len(z))[:, None])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def cleared_between(discriminator, generator, optimizer, x, z, target=0.9):
    optimizer.zero_grad()
    real = cross_entropy(discriminator(x), target)
    real.backward()
    optimizer.zero_grad()
    fake = cross_entropy(discriminator(generator(z).detach()), 0.0)
    fake.backward()
    optimizer.step()
    return real + fake


def two_steps(clear_again):
    def step(discriminator, generator, optimizer, x, z, target=0.9):
        optimizer.zero_grad()
        real = cross_entropy(discriminator(x), target)
        real.backward()
        optimizer.step()
        if clear_again:
            optimizer.zero_grad()
        fake = cross_entropy(discriminator(generator(z).detach()), 0.0)
        fake.backward()
        optimizer.step()
        return real + fake
    return step


def both_move(discriminator, generator, optimizer, x, z, target=0.9):
    everything = torch.optim.SGD([*discriminator.parameters(), *generator.parameters()], lr=0.1)
    return smooth(cut=False)(discriminator, generator, everything, x, z, target)


def no_step(discriminator, generator, optimizer, x, z, target=0.9):
    optimizer.zero_grad()
    loss = cross_entropy(discriminator(x), target) + cross_entropy(discriminator(generator(z).detach()), 0.0)
    loss.backward()
    return loss


def targets_of_one_size(discriminator, generator, optimizer, x, z, target=0.9):
    ones = torch.ones(len(x), 1)
    loss = (F.binary_cross_entropy_with_logits(discriminator(x), target * ones)
            + F.binary_cross_entropy_with_logits(discriminator(generator(z).detach()), 0 * ones))
    loss.backward()
    return loss


# ---------------------------------------------------------------------------------------- js_bound

def d_loss(real, fake):
    return (F.softplus(-real).mean() + F.softplus(fake).mean()).item()


def bound_by_library(real, fake):
    loss = [F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, t)) for logits, t in ((real, 1.0), (fake, 0.0))]
    return 1 - torch.stack(loss).mean() / torch.log(torch.tensor(2.0))


def bound_in_base_2(real, fake):
    return 1 - 0.5 * (np.logaddexp2(0, -real.numpy() / math.log(2)).mean() + np.logaddexp2(0, fake.numpy() / math.log(2)).mean())


def bound_by_probabilities(real, fake):
    return 1 + (real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean()) / (2 * math.log(2))


def bound_that_stops(real, fake):
    loss = F.binary_cross_entropy(real.sigmoid(), torch.ones_like(real)) + F.binary_cross_entropy(fake.sigmoid(), torch.zeros_like(fake))
    return 1 - loss / (2 * math.log(2))


# ------------------------------------------------------------------------------------- with_labels

def labels_beside(hot):
    """Append what `hot(y, n_classes)` (B, m) says, as columns or channels."""
    def answer(a, y, n_classes):
        rows = hot(y, n_classes).float()
        if a.ndim == 4:
            rows = rows[:, :, None, None] * torch.ones(1, 1, *a.shape[2:])
        return torch.cat((a, rows), dim=1)
    return answer


def labels_scattered(a, y, n_classes):
    result = torch.zeros(a.shape[0], a.shape[1] + n_classes, *a.shape[2:])
    result[:, :a.shape[1]] = a
    result[torch.arange(len(a)), a.shape[1] + y] = 1
    return result


def labels_mixed(a, y, n_classes):
    rows = F.one_hot(y, n_classes)
    if a.ndim == 4:
        rows = rows.repeat(1, a.shape[2] * a.shape[3]).view(len(a), n_classes, *a.shape[2:])
    return torch.cat((a, rows), dim=1)


def labels_in_front(a, y, n_classes):
    both = labels_scattered(a, y, n_classes)
    return torch.cat((both[:, a.shape[1]:], both[:, :a.shape[1]]), dim=1)


def labels_written_over(a, y, n_classes):
    result = labels_scattered(a, y, n_classes)
    a[:, 0] = 0
    return result


# -------------------------------------------------------------------------------------- js_missing

def missing(k, n_modes, pack):
    r = (k / n_modes) ** pack
    return 0.5 * (r * math.log(2 * r / (1 + r)) + (1 - r) * math.log(2) + math.log(2 / (1 + r)))


def missing_by_library(k, n_modes, pack, power=2, base=None):
    packs = list(itertools.product(range(n_modes), repeat=pack))
    p = np.full(len(packs), 1 / len(packs))
    q = np.array([max(modes) < k for modes in packs], float)
    return jensenshannon(p, q / q.sum(), base=base) ** power


def missing_by_entropies(k, n_modes, pack):
    n, few = n_modes**pack, k**pack
    inside, outside = (1 / n + 1 / few) / 2, 1 / (2 * n)
    entropy = -few * inside * math.log(inside) - (n - few) * outside * math.log(outside)
    return torch.tensor(entropy - (math.log(n) + math.log(few)) / 2)


def missing_through(real, fake):
    def answer(k, n_modes, pack):
        r = (k / n_modes) ** pack
        return real * (r * math.log(2 * r / (1 + r)) + (1 - r) * math.log(2)) + fake * math.log(2 / (1 + r))
    return answer


ANSWERS = {
    "best_discriminator": {
        "right": [best, best_in_numpy, best_one_by_one,
                  densities(lambda p, q: (p.log() - q.log()).sigmoid())],
        "wrong": [
            (lambda a, b: torch.where(a + b > 0, a / (a + b), 0.5), "differ in size"),
            (lambda a, b: (a / a.sum()) / (a / a.sum() + b / b.sum()), "zero by zero"),
            (lambda a, b: torch.nan_to_num((a / a.sum()) / (a / a.sum() + b / b.sum())), "empty bin is given to one"),
            (lambda a, b: best(b, a), "exchanged"),
            (densities(lambda p, q: p / q), "ratio of the densities"),
            (densities(lambda p, q: (p / q).log()), "best logit"),
            (densities(lambda p, q: (p > q).float()), "given to one side"),
            (densities(lambda p, q: p), "density of the real points"),
            (lambda a, b: best(a, b).mean(), "shape"),
            (lambda a, b: None, "returns NoneType"),
        ]},
    "smooth_step": {
        "right": [smooth(), smooth_in_two_calls, smooth_in_one_batch, smooth_by_probabilities],
        "wrong": [
            (smooth(cut=False), "gradients of the generator"),
            (cleared_behind, "gradients of the generator"),
            (both_move, "weights of the generator have moved"),
            (smooth(clear=False), "Old gradients"),
            (no_step, "have not moved"),
            (smooth(weigh=lambda real, fake: real + 0 * fake), "Only the real images"),
            (cleared_between, "Only the synthetic images"),
            (smooth(lambda target: 1.0), "nothing is softened"),
            (smooth(fake_target=lambda target: 1 - target), "Both sides are softened"),
            (smooth(lambda target: 1.0, lambda target: 1 - target), "wrong side"),
            (smooth(lambda target: 0.0, lambda target: target), "targets are exchanged"),
            (smooth(fake_target=lambda target: target), "target of real ones"),
            (smooth(weigh=lambda real, fake: -real - fake), "uphill"),
            (smooth(weigh=lambda real, fake: (real + fake) / 2), "half as long"),
            (joined_mean, "both batches at once"),
            (two_steps(True), "one for each half"),
            (two_steps(False), "first half enters both"),
            (targets_of_one_size, "refuses its targets"),
            (smooth(give=lambda real, fake: real), "only the loss of the real"),
            (smooth(give=lambda real, fake: None), "returns NoneType"),
        ]},
    "js_bound": {
        "right": [lambda real, fake: 1 - d_loss(real, fake) / math.log(4), bound_by_library, bound_in_base_2],
        "wrong": [
            (lambda real, fake: math.log(2) - d_loss(real, fake) / 2, "nats"),
            (lambda real, fake: 2 - d_loss(real, fake) / math.log(2), "twice the divergence."),
            (lambda real, fake: math.log(4) - d_loss(real, fake), "and in nats"),
            (lambda real, fake: d_loss(real, fake), "This is the D loss"),
            (lambda real, fake: -d_loss(real, fake), "This is V"),
            (lambda real, fake: 1 + d_loss(real, fake) / math.log(4), "sign of V"),
            (lambda real, fake: 1 - d_loss(fake, real) / math.log(4), "exchanged"),
            (lambda real, fake: 1 - torch.cat([F.softplus(-real), F.softplus(fake)]).mean() / math.log(2), "One mean"),
            (lambda real, fake: 1 - d_loss(real.sigmoid(), fake.sigmoid()) / math.log(4), "sigmoid too many"),
            (bound_by_probabilities, "inf or nan"),
            (bound_that_stops, "digits"),
            (lambda real, fake: max(0.0, 1 - d_loss(real, fake) / math.log(4)), "cut off"),
            (lambda real, fake: (1 - (F.softplus(-real[:3]) + F.softplus(fake[:3])) / math.log(4)), "shape"),
        ]},
    "with_labels": {
        "right": [labels_beside(F.one_hot), labels_scattered, labels_beside(lambda y, n: torch.eye(n)[y]),
                  lambda a, y, n: labels_scattered(a, y, n).numpy()],
        "wrong": [
            (labels_beside(lambda y, n: y[:, None]), "as a number"),
            (labels_in_front, "in front"),
            (lambda a, y, n: torch.cat((a, F.one_hot(y, n)), dim=0), "below"),
            (lambda a, y, n: torch.cat((a, F.one_hot(y, n)), dim=-1), "do not fit together"),
            (labels_beside(lambda y, n: F.one_hot(y)), "taken from the batch"),
            (labels_beside(lambda y, n: F.one_hot((y - 1) % n, n)), "moved by one"),
            (labels_beside(lambda y, n: F.one_hot(n - 1 - y, n)), "opposite order"),
            (labels_beside(lambda y, n: F.one_hot(torch.arange(len(y)), max(n, len(y)))[:, :n]), "place in the batch"),
            (labels_beside(lambda y, n: 1 - F.one_hot(y, n)), "Ones and zeros"),
            (labels_mixed, "mix the classes"),
            (labels_written_over, "have been changed"),
            (lambda a, y, n: F.one_hot(y, n), "labels alone"),
        ]},
    "js_missing": {
        "right": [missing, missing_by_library, missing_by_entropies],
        "wrong": [
            (lambda k, n, pack: missing(k, n, 1), "packs are not used"),
            (lambda k, n, pack: pack * missing(k, n, 1), "multiplied"),
            (lambda k, n, pack: missing_by_library(k, n, pack, power=1), "root"),
            (missing_through(1, 1), "twice"),
            (lambda k, n, pack: missing_by_library(k, n, pack, base=2), "bits"),
            (missing_through(1, 0), "Only the divergence of the data"),
            (missing_through(0, 1), "Only the divergence of the generator"),
            (lambda k, n, pack: pack * math.log(n / k), "KL of the generator"),
            (lambda k, n, pack: pack * math.log(n / k) / 2, "half the KL"),
            (lambda k, n, pack: -missing(k, n, pack), "sign is wrong"),
            (lambda k, n, pack: math.inf if k < n else 0.0, "infinite"),
        ]},
}
