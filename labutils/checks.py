"""Checks of the exercises: each says what is probably wrong with an answer, never what is right.

A check takes the student's function, calls it on known values, on other seeds and on other shapes, and
either prints that the exercise is done or raises `WrongAnswer`. The first message names the likely
misconception, the second one for the same exercise adds a stronger hint. What is right comes from a
second source (torch.distributions, SciPy, autograd, a case that can be done in the head), so that this
file gives nothing away. Names: `check_` and the name of the function that the exercise asks for.
"""

from collections import Counter
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal, kl_divergence

_misses = Counter()     # wrong answers so far, by exercise


class WrongAnswer(AssertionError):
    """An answer that does not pass. JupyterLab shows the message alone, without the traceback."""

    def _render_traceback_(self):
        return [f"Not yet. {self}"]


class Mistake(NamedTuple):
    """A wrong value, what it probably means, and the stronger hint for the second time."""
    value: object
    hint: str
    stronger: str


def refuse(exercise, hint, stronger):
    """Raise `WrongAnswer` with the hint; from the second time on with the stronger one as well."""
    _misses[exercise] += 1
    raise WrongAnswer(hint if _misses[exercise] == 1 else f"{hint} {stronger}")


def accept(exercise):
    """Say that an exercise is done, and forget its wrong answers."""
    _misses.pop(exercise, None)
    print(f"{exercise}: right.")


def require(exercise, condition, hint, stronger):
    """Refuse the answer unless the condition holds."""
    if not condition:
        refuse(exercise, hint, stronger)


def compare(exercise, given, right, mistakes=(), *, tolerance=1e-4):
    """Refuse a tensor, array or number that is not `right`, naming the first mistake that fits."""
    try:
        given = torch.as_tensor(given).detach().double().cpu()
    except (TypeError, ValueError, RuntimeError):
        refuse(exercise, f"The function returns {type(given).__name__}, a tensor is asked for.",
               "Does it end in a return statement?")
    right = torch.as_tensor(right).double()
    if close(given, right, tolerance):
        return
    for mistake in mistakes:
        if close(given, torch.as_tensor(mistake.value).double(), tolerance):
            refuse(exercise, mistake.hint, mistake.stronger)
    if given.shape != right.shape:
        refuse(exercise, f"The result has the shape {tuple(given.shape)}, and {tuple(right.shape)} is asked for.",
               "Over which dimension does the formula sum, and which one must be left?")
    refuse(exercise, f"The shape is right, the values are not: the largest difference is {(given - right).abs().max():.3g}.",
           "Try the case that you can do in your head, and print each term of the formula.")


def close(a, b, tolerance):
    """Tell whether two tensors have one shape and nearly the same values."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def draws(seed, *shapes):
    """Tensors of standard normal values from a generator of their own, one for each shape."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


# ------------------------------------------------------------------------------------------- lab 02

def check_gaussian_kl(answer):
    """KL(N(mu_q, exp(logvar_q)) || N(mu_p, exp(logvar_p))) summed over the latents: four (B, d) -> (B,)."""
    name = "gaussian_kl"
    for seed, shape in ((0, (1, 1)), (1, (5, 3)), (2, (3, 20))):
        mu_q, logvar_q, mu_p, logvar_p = draws(seed, *[shape] * 4)

        def kl(q_mu, q_std, p_mu, p_std):
            return kl_divergence(Normal(q_mu, q_std), Normal(p_mu, p_std))
        q, p = (mu_q, (logvar_q / 2).exp()), (mu_p, (logvar_p / 2).exp())
        each = kl(*q, *p)
        compare(name, answer(mu_q, logvar_q, mu_p, logvar_p), each.sum(1), [
            Mistake(-each.sum(1), "The sign of the KL is wrong: a divergence is never negative.",
                    "It is the mean of log q - log p under q. Which of the two stands first in your code?"),
            Mistake(kl(*p, *q).sum(1), "This is the divergence of p from q, with the roles exchanged.",
                    "The mean is taken under the first of the two: its variance stands above, not below."),
            Mistake(2 * each.sum(1), "The result is twice too large.", "Where has the factor of the log density gone?"),
            Mistake(kl(mu_q, logvar_q.exp(), mu_p, logvar_p.exp()).sum(1),
                    "A variance is taken for a deviation: exp(logvar) is already a square.",
                    "Compare what you square with the definition logvar = log(sigma^2)."),
            Mistake(each.mean(1), "The mean over the latents is returned, where their sum is asked for.",
                    "Independent latents: log densities add up."),
            Mistake(each.sum(0), "The sum runs over the wrong axis: over the batch, not over the latents.",
                    "One figure for each image: which dimension counts the images?"),
            Mistake(each.sum(), "Everything is summed to one number; one for each image is asked for.",
                    "Say along which dimension to sum."),
        ])
    zero = torch.zeros(2, 4)
    compare(name, answer(zero, zero, zero, zero), torch.zeros(2))
    accept(name)


class _Recorder:
    """A decoder for checks: draws a code as 28x28 equal pixels of its weighted sum, and keeps the codes."""

    def __init__(self, latent_dim):
        self.weights = torch.arange(1.0, latent_dim + 1)

    def draw(self, z):
        return (z @ self.weights)[:, None, None, None].expand(-1, 1, 28, 28)


def check_walk(answer):
    """Decode a code (1, d) with one latent set to each of n values, the others kept: (n, 1, 28, 28)."""
    name = "walk"
    for seed, d, latent in ((0, 3, 1), (1, 8, 0), (2, 5, 4)):
        vae, (z, values) = _Recorder(d), draws(seed, (1, d), (6,))
        kept = z.clone()
        given = answer(vae, z, latent, values)
        require(name, torch.equal(z, kept), "The code that was handed over has been changed.",
                "Assigning to a part of a tensor changes it for everyone. Work on a copy.")
        codes = kept.repeat(6, 1)
        codes[:, latent] = values
        added, all_latents = kept.repeat(6, 1), values[:, None].expand(-1, d)
        added[:, latent] += values
        still = vae.draw(kept).expand(6, -1, -1, -1)
        compare(name, given, vae.draw(codes), [
            Mistake(still, "All frames are equal: the unchanged code is decoded each time.",
                    "Follow the changed copy: which variable goes to the decoder?"),
            Mistake(vae.draw(added), "The values are added to the latent; it is to be set to them.",
                    "The walk is to go from the first value to the last, wherever the code was."),
            Mistake(vae.draw(all_latents), "All latents take the value, where one is to change.",
                    "Index the column of this latent only."),
            Mistake(still[:1], "One frame is returned, and one for each value is asked for.",
                    "A row of codes for each value, then one call of the decoder."),
        ])
    accept(name)


def check_beta_loss(answer):
    """Bernoulli NLL summed over pixels plus beta times the KL summed over latents, mean over the batch: a scalar."""
    name = "beta_loss"
    for seed, (b, d), beta in ((0, (4, 2), 1.0), (1, (7, 20), 4.0), (2, (1, 5), 0.5)):
        logits, mu, logvar, noise = draws(seed, (b, 784), (b, d), (b, d), (b, 1, 28, 28))
        x = noise.sigmoid()
        nll = -(x.flatten(1) * F.logsigmoid(logits) + (1 - x.flatten(1)) * F.logsigmoid(-logits))
        kl = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0))
        total, kl_total = nll.sum() / b, kl.sum() / b
        twice = F.binary_cross_entropy_with_logits(logits.sigmoid(), x.flatten(1), reduction="sum") / b
        compare(name, answer(logits, x, mu, logvar, beta), total + beta * kl_total, [
            Mistake(nll.mean() + beta * kl_total, "The cross entropy is averaged over the pixels: a hidden beta of 784.",
                    "What does reduction='mean' divide by?"),
            Mistake(total + beta * kl.mean(), "The KL is averaged over the latents, where their sum is asked for.",
                    "Sum over the latents, then take the mean over the images."),
            Mistake(nll.mean() + beta * kl.mean(), "Both terms are averaged over all their elements, and these are not equally many.",
                    "Sums over pixels and latents, means over images."),
            Mistake(nll.sum() + beta * kl.sum(), "The batch is summed: the loss would grow with the size of the batch.",
                    "Divide by the number of images."),
            Mistake(total + kl_total, "beta is not used.", "It weighs one of the two terms."),
            Mistake(beta * total + kl_total, "beta weighs the wrong term.", "A larger beta makes the code dearer, not the pixels."),
            Mistake(total - beta * kl_total, "The sign of the KL is wrong: the code would be free to run away.",
                    "The loss is minus the ELBO. Which sign has the KL in the ELBO?"),
            Mistake(twice + beta * kl_total, "A sigmoid too many: the loss takes logits as they are.",
                    "What does '_with_logits' do first?"),
        ], tolerance=1e-3)
    accept(name)


def check_sample_codes(answer):
    """Draw n codes from the aggregate posterior of codes with means and log variances (N, d): (n, d)."""
    name = "sample_codes"
    mu = torch.tensor([[-4.0, 0.0]]).repeat(300, 1)
    mu[200:, 0] = 4.0                       # two thirds of the pictures left, one third right
    logvar = torch.tensor([[-2.0, 0.0]]).repeat(300, 1)
    torch.manual_seed(0)
    z = answer(mu, logvar, 6000)
    require(name, isinstance(z, torch.Tensor) and z.shape == (6000, 2),
            f"The codes should have the shape (6000, 2), n and the number of latents, not {tuple(getattr(z, 'shape', ()))}.",
            "Each draw takes two steps: which picture, then where in its Gaussian?")
    z = z.double()
    within = torch.where(z[:, 0] > 0, z[:, 0] - 4, z[:, 0] + 4).std()
    require(name, len(z.unique(dim=0)) > 5000, "Codes are repeated: they have no noise of their own.",
            "A mean is not a draw: its Gaussian has a width, too.")
    require(name, (z[:, 0].abs() < 2).double().mean() < 0.02, "Many codes lie where no picture has its code.",
            "The mixture of Gaussians is not the Gaussian with the mean and the variance of them all.")
    require(name, abs((z[:, 0] > 0).double().mean() - 1 / 3) < 0.05, "The pictures are not chosen equally often.",
            "Every picture counts 1/N. A third of these has its code on the right.")
    right = torch.tensor(-1.0).exp().item()
    require(name, abs(within - torch.tensor(-2.0).exp()) > 0.05 * right, "A variance is taken for a deviation.",
            "logvar is the logarithm of the variance.")
    require(name, abs(within - right) < 0.1 * right, "The width of the single Gaussians is wrong.",
            "Compare the spread around one mean with its logvar.")
    require(name, abs(z[:, 1].std() - 1) < 0.1, "The latents do not have each a width of their own.",
            "Draw noise for every latent of every code.")
    accept(name)
