"""Checks of the exercises: each says what is probably wrong with an answer, never what is right.

A check takes the student's function, calls it on known values, on other seeds and on other shapes, and
either prints that the exercise is done or raises `WrongAnswer`. The first message names the likely
misconception, the second one for the same exercise adds a stronger hint. What is right comes from a
second source (torch.distributions, SciPy, autograd, a case that can be done in the head), so that this
file gives nothing away. Names: `check_` and the name of the function that the exercise asks for.
"""

import math
from collections import Counter
from contextlib import suppress
from functools import reduce, wraps
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from scipy.stats import wasserstein_distance
from torch import nn
from torch.distributions import Normal, kl_divergence

from .data import InMemoryLoader

_misses = Counter()     # wrong answers so far, by exercise


class WrongAnswer(AssertionError):
    """An answer that does not pass. JupyterLab shows the message alone, without the traceback."""

    def _render_traceback_(self):
        return [f"Not yet. {self}"]


def exercise(check):
    """Make a function a check: its random numbers are its own, and an answer that it does not refuse is right."""
    name = check.__name__.removeprefix("check_")

    @wraps(check)
    def checked(answer):
        with torch.random.fork_rng(devices=[]):     # the lab draws on as if nobody had checked
            check(answer)
        _misses.pop(name, None)
        print(f"{name}: right.")
    return checked


class Mistake(NamedTuple):
    """A wrong value, what it probably means, and the stronger hint for the second time."""
    value: object
    hint: str
    stronger: str


def refuse(exercise, hint, stronger):
    """Raise `WrongAnswer` with the hint; from the second time on with the stronger one as well."""
    _misses[exercise] += 1
    raise WrongAnswer(hint if _misses[exercise] == 1 else f"{hint} {stronger}")


def require(exercise, condition, hint, stronger):
    """Refuse the answer unless the condition holds."""
    if not condition:
        refuse(exercise, hint, stronger)


def require_graph(exercise, given):
    """Refuse a loss that has the right value and cannot be trained with."""
    require(exercise, getattr(given, "requires_grad", False), "The value is right, but it carries no graph: nothing can be trained with it.",
            "Where does the tensor become a plain number, or lose what it was computed from?")


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


# ------------------------------------------------------------------------------------------- lab 01

@exercise
def check_compress(answer):
    """Project (m, d) on the fewest principal directions of (n, d) that explain a share of the variance: (m, d)."""
    from sklearn.decomposition import PCA       # here, so that only this check waits for it
    name = "compress"
    line = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    for seed, (n, m, d), share in ((0, (60, 5, 12), 0.6), (1, (200, 3, 20), 0.95), (2, (12, 4, 30), 0.6)):
        base, new, shift, axes = draws(seed, (n, d), (m, d), (1, d), (d, d))
        turn, scale = torch.linalg.qr(axes)[0], torch.linspace(0.3, 3, d)
        x_train, x_new = (base * scale) @ turn + 2 * shift, (new * scale + 1) @ turn + 2 * shift
        full = PCA(svd_solver="full").fit(x_train.numpy())
        mean, directions, s = (torch.from_numpy(part) for part in (full.mean_, full.components_, full.singular_values_))
        k = PCA(share, svd_solver="full").fit(x_train.numpy()).n_components_
        raw_s, raw = torch.linalg.svd(x_train, full_matrices=False)[1:]
        rows = torch.linalg.svd(x_train - mean, full_matrices=False)[2]

        def there_and_back(k, directions, off, on):
            return (x_new - off) @ directions[:k].T @ directions[:k] + on

        def fewest(values):
            return int((values.cumsum(0) / values.sum() < share).sum()) + 1
        right = there_and_back(k, directions, mean, mean)
        given = answer(x_train, x_new, share)
        compare(name, given, right, [
            Mistake(there_and_back(k, directions, mean, 0), "The mean has been taken off and never put back.",
                    "Look at a reconstruction: what is missing in every picture?"),
            Mistake(there_and_back(k, directions, 0, mean), "The mean is counted twice: it was never taken off before it was added.",
                    "The directions start at the mean, not at the origin. Where do the coordinates start?"),
            Mistake(there_and_back(fewest(raw_s**2), raw, 0, 0), "The data are not centred: the first direction points at the mean.",
                    "A principal direction shows how pictures differ from one another."),
            Mistake(there_and_back(k, directions, x_new.mean(0), x_new.mean(0)), "The mean of the new images is used.",
                    "A code must mean the same for any batch: which mean do directions and codes belong to?"),
            Mistake(there_and_back(fewest(s), directions, mean, mean),
                    "The share is counted in singular values, which are no variances.",
                    "A singular value has the unit of a pixel. Which unit has a variance?"),
            Mistake(there_and_back(k - 1, directions, mean, mean), "One component is missing: the share is not reached.",
                    "The first entry of a cumulative sum stands for how many components?"),
            Mistake(there_and_back(k + 1, directions, mean, mean), "One component too many: with one less the share is reached as well.",
                    "The first entry of a cumulative sum stands for how many components?"),
            *([Mistake(there_and_back(k, rows.T, mean, mean), "The wrong axis of V is cut.",
                       "Which of the two axes counts the directions, and which the pixels?")] if n >= d else []),
            Mistake(x_new, "The images come back as they were: all components are kept.",
                    "How many does the share ask for?"),
        ], tolerance=1e-3)
    compare(name, answer(line, torch.tensor([[0.0, 2.0], [5.0, 5.0]]), 0.9), [[1.0, 1.0], [5.0, 5.0]])


@exercise
def check_transposed_size(answer):
    """Pixels along one side that a transposed convolution makes of n, with padding and output padding: a number."""
    name = "transposed_size"
    for n, k, s, p, extra in ((6, 7, 4, 3, 2), (7, 4, 2, 1, 0), (7, 3, 2, 1, 1), (1, 7, 1, 0, 0), (9, 5, 3, 0, 2), (4, 2, 5, 0, 3)):
        right = F.conv_transpose2d(torch.zeros(1, 1, n, n), torch.zeros(1, 1, k, k), stride=s, padding=p,
                                   output_padding=extra).shape[-1]
        compare(name, answer(n, k, s, p, extra), right, [
            Mistake(right + 4 * p, "The padding makes the output larger.",
                    "It is the padding of the convolution that is undone. What did that one do to the picture?"),
            Mistake(right + p, "The padding is counted on one side only.", "A row of pixels has two ends."),
            Mistake(right + 2 * p, "The padding is not counted.", "Compare a layer with padding=0 and one with padding=1."),
            Mistake(right + extra, "The output padding is counted on both sides.",
                    "It belongs to the remainder of a division, and that is at one end."),
            Mistake(right - extra, "The output padding is not counted.",
                    "Two inputs of different sizes may shrink to the same one. Which of them is to come back?"),
            Mistake(right + s, "The copies of the kernel are counted as n steps.",
                    "Draw two copies: how many steps lie between the first and the last of n?"),
            Mistake((n + 2 * p - k) // s + 1, "This is the size after a convolution, not after a transposed one.",
                    "Is the output to be smaller or larger than the input?"),
            Mistake(right - k, "The width of the last copy is not counted.",
                    "Where does the last copy start, and where does it end?"),
            Mistake(right - 1, "One pixel is missing.", "Count the case n = 1 by hand."),
        ])


class _Autoencoder(nn.Module):
    """A small autoencoder for checks: (B, 1, 28, 28) -> code (B, 3) -> images."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 784), nn.Unflatten(1, (1, 28, 28)))

    def forward(self, x):
        return self.decoder(self.encoder(x))


@exercise
def check_encode_all(answer):
    """Codes (N, k) of all images of a loader, in its order, without a graph."""
    name = "encode_all"
    for seed, n, size in ((0, 11, 4), (1, 8, 4), (2, 5, 8), (3, 1, 1)):
        images = (255 * draws(seed, (n, 1, 28, 28))[0].sigmoid()).to(torch.uint8)
        loader = InMemoryLoader(images, torch.arange(n), size)
        torch.manual_seed(seed)
        model = _Autoencoder()
        with torch.no_grad():
            right = model.encoder(loader.to_float(images))
            pictures = model.decoder(right)
        whole = n // size * size
        start = n - (n % size or size)      # of the last batch
        given = answer(model, loader)
        compare(name, given, right, [
            Mistake(right[:whole], "The last, shorter batch is left out.",
                    "How many codes should there be, and how many are there?"),
            Mistake(right[start:], "Only the last batch is returned.", "Is each pass of the loop kept somewhere?"),
            Mistake(right[:size], "Only the first batch is returned.", "Where does the return statement stand?"),
            Mistake(torch.cat([right, right.new_zeros(-n % size, 3)]), "The shorter batch is filled up with zeros.",
                    "A code for a picture that does not exist will be counted by everyone who comes later."),
            Mistake(torch.stack([part.mean(0) for part in right.split(size)]), "There is one row for each batch, not for each image.",
                    "Nothing is to be averaged here."),
            Mistake(pictures, "These are the reconstructions, not the codes.", "Which half of the network makes the code?"),
        ])
        require(name, not getattr(given, "requires_grad", False), "The codes carry their graph with them.",
                "All the activations of all batches stay in memory. Who is going to call backward?")


@exercise
def check_corrupt(answer):
    """Images (B, 1, 28, 28) with normal noise of deviation sigma, cut off to 0..1; the argument stays as it was."""
    name = "corrupt"
    torch.manual_seed(0)
    x = draws(7, (40, 1, 28, 28))[0].sigmoid().round()     # not the seed of the noise
    kept = x.clone()
    noisy = answer(x, 0.5)
    require(name, isinstance(noisy, torch.Tensor) and noisy.shape == x.shape,
            f"The noisy images should have the shape {tuple(x.shape)}, not {tuple(getattr(noisy, 'shape', ()))}.",
            "One noisy image for each clean one. Does the function end in a return statement?")
    require(name, torch.equal(x, kept), "The clean images have been changed: nothing is left to compare with.",
            "Operators such as += and methods that end in _ write into the tensor that they are given.")
    require(name, noisy.min() >= 0 and noisy.max() <= 1, "Pixels lie outside of 0..1.",
            "What becomes of a white pixel that gets still more?")
    require(name, close(answer(x, 1e-14), x, 1e-6), "Where sigma is next to 0 the images change.", "Noise of no width is no noise.")
    require(name, not torch.equal(noisy, answer(x, 0.5)), "The noise is the same at each call.",
            "The network would learn this one pattern by heart. What fixes it?")
    grey, black = torch.full((60, 1, 28, 28), 0.5), torch.zeros(60, 1, 28, 28)
    noise = answer(grey, 0.1) - 0.5
    width = noise.std().item()
    require(name, not torch.equal(noise[0], noise[1]), "Every image of the batch gets the same noise.",
            "How many numbers do you draw, and how many pixels has the batch?")
    require(name, noise[0].std() > 0.01 * width, "Every pixel of an image gets the same noise: only the brightness changes.",
            "How many numbers do you draw, and how many pixels has the batch?")
    dark = answer(black, 0.1)
    require(name, dark.max() < 1 or (dark == 0).double().mean() > 0.1, "The images are stretched to 0..1, which moves every pixel.",
            "Only what has left the range needs treatment.")
    require(name, abs(noise.mean()) < 0.01, "On average the pixels become lighter or darker.",
            "The mean of the noise should be zero: look at the range of the function that draws it.")
    require(name, abs(width - 0.01) > 0.002, "The deviation is sigma squared.", "Is sigma a deviation or a variance here?")
    require(name, abs(width - 0.1**0.5) > 0.05, "The deviation is the root of sigma.",
            "Is sigma a deviation or a variance here?")
    require(name, width < 0.3, "The noise has the same width for every sigma.", "Where does sigma enter?")
    require(name, noise.abs().max() > 0.25, "The noise is not normal: its tails are missing.",
            "Which function draws from a normal distribution?")
    require(name, abs(width - 0.1) < 0.005, f"The deviation of the noise is {width:.3f} where sigma is 0.1.",
            "Measure it yourself, on a grey image.")
    require(name, abs((answer(black, 0.3) == 0).double().mean() - 0.5) < 0.02, "What leaves the range is not cut off.",
            "Folding or stretching moves other pixels as well. How many pixels of a black image should stay black?")


@exercise
def check_denoising_loss(answer):
    """Squared error of what the model makes of the noisy images, against the clean ones: a scalar."""
    name = "denoising_loss"
    weight = torch.tensor(0.5, requires_grad=True)

    def model(images):
        return 0.3 + weight * images
    for seed, shape in ((0, (4, 1, 28, 28)), (1, (7, 3, 5, 5)), (2, (1, 1, 2, 2))):
        x, noisy = (values.sigmoid() for values in draws(seed, shape, shape))
        kept, b = x.clone(), len(x)

        def total(a, b):
            return F.mse_loss(a, b, reduction="sum")
        right = total(model(noisy), x) / b
        given = answer(model, x, noisy)
        require(name, torch.equal(x, kept), "The clean images have been changed.", "The loss is to read them only.")
        compare(name, given, right, [
            Mistake(total(model(noisy), noisy) / b, "The network is rewarded for keeping the noise.",
                    "What should come out if the network were perfect? Compare with that."),
            Mistake(total(model(x), x) / b, "The noise is never used: this is a plain autoencoder.",
                    "What does the network get to see?"),
            Mistake(total(model(x), noisy) / b, "Clean and noisy images have changed places.",
                    "What goes in, and what should come out?"),
            Mistake(total(noisy, x) / b, "The network does not appear: this is the amount of noise.",
                    "Which images is the network to draw?"),
            Mistake(F.mse_loss(model(noisy), x), "The error is averaged over the pixels as well.",
                    "Sums over pixels, means over images."),
            Mistake(total(model(noisy), x), "The batch is summed: the loss would grow with the size of the batch.",
                    "Sums over pixels, means over images."),
            Mistake(total(model(noisy), x).sqrt(), "A root of a sum is no mean squared error.",
                    "Look at its gradient in the box above."),
            Mistake((model(noisy) - x).flatten(1).norm(dim=1).mean(), "A root of a sum is no squared error.",
                    "Look at its gradient in the box above."),
            Mistake((model(noisy) - x).abs().sum() / b, "These are absolute errors.", "The squared error is asked for."),
        ], tolerance=1e-3)
        require_graph(name, given)


# ------------------------------------------------------------------------------------------- lab 02

@exercise
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


class _Recorder:
    """A decoder for checks: draws a code as 28x28 equal pixels of its weighted sum, and keeps the codes."""

    def __init__(self, latent_dim):
        self.weights = torch.arange(1.0, latent_dim + 1)

    def draw(self, z):
        return (z @ self.weights)[:, None, None, None].expand(-1, 1, 28, 28)


@exercise
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


@exercise
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
        given = answer(logits.clone().requires_grad_(), x, mu.clone().requires_grad_(), logvar.clone().requires_grad_(), beta)
        compare(name, given, total + beta * kl_total, [
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
        require_graph(name, given)


@exercise
def check_sample_codes(answer):
    """Draw n codes from the aggregate posterior of codes with means and log variances (N, d): (n, d)."""
    name = "sample_codes"
    mu = torch.tensor([[-4.0, 4.0]]).repeat(300, 1)
    logvar = torch.tensor([[-2.0, 0.0]]).repeat(300, 1)
    mu[200:], logvar[200:] = -mu[200:], logvar[200:].flip(1)        # two thirds of the pictures left, one third right
    torch.manual_seed(0)
    z = answer(mu, logvar, 6000)
    require(name, isinstance(z, torch.Tensor) and z.shape == (6000, 2),
            f"The codes should have the shape (6000, 2), n and the number of latents, not {tuple(getattr(z, 'shape', ()))}.",
            "Each draw takes two steps: which picture, then where in its Gaussian?")
    z = z.double()
    right_side = z[:, 0] > 0
    require(name, len(z.unique(dim=0)) > 5000, "Codes are repeated: they have no noise of their own.",
            "A mean is not a draw: its Gaussian has a width, too.")
    require(name, (z[:, 0].abs() < 1).double().mean() < 0.02, "Many codes lie where no picture has its code.",
            "The mixture of Gaussians is not the Gaussian with the mean and the variance of them all.")
    require(name, ((z[:, 0] > 0) != (z[:, 1] > 0)).double().mean() > 0.99, "The latents of one code come from different pictures.",
            "First choose the picture, then draw all its latents.")
    require(name, abs(right_side.double().mean() - 1 / 3) < 0.05, "The pictures are not chosen equally often.",
            "Every picture counts 1/N. A third of these has its code on the right.")
    widths = torch.stack([z[~right_side].std(0), z[right_side].std(0)])     # a row for each side
    variances, deviations = torch.tensor([[-2.0, 0.0], [0.0, -2.0]]).exp(), torch.tensor([[-1.0, 0.0], [0.0, -1.0]]).exp()
    require(name, not close(widths, variances.double(), 0.05), "A variance is taken for a deviation.",
            "logvar is the logarithm of the variance.")
    require(name, widths[0, 0] < 0.8 * widths[0, 1], "The latents do not have each a width of their own.",
            "Draw noise for every latent of every code.")
    require(name, widths[1, 1] < 0.8 * widths[1, 0], "The width is not that of the picture whose mean was taken.",
            "Mean and logvar belong together: choose once.")
    require(name, close(widths, deviations.double(), 0.1), "The width of the single Gaussians is wrong.",
            "Compare the spread around one mean with its logvar.")


# ------------------------------------------------------------------------------------------- lab 03

def _seen(layers, side=600):
    """Pixels in a row that reach one output of a stack of convolutions, by the gradient."""
    x = torch.ones(1, 1, side, requires_grad=True, dtype=torch.double)
    out = x
    for kernel, stride in layers:
        out = F.conv1d(out, torch.ones(1, 1, kernel, dtype=torch.double) / kernel, stride=stride)
    [gradient] = torch.autograd.grad(out[0, 0, out.shape[2] // 2], x)
    return int((gradient > 0).sum())


@exercise
def check_receptive_field(answer):
    """Pixels along one side that one output of a stack of convolutions sees: list of (kernel, stride) -> number."""
    name = "receptive_field"
    for layers in ([(5, 2), (3, 3), (7, 2)], [(3, 1), (3, 1)], [(4, 2)] * 4, [(7, 2)], [(1, 1), (6, 3), (2, 1), (3, 2)]):
        kernels, strides = zip(*layers, strict=True)
        steps, mistaken = 1, Counter()
        for kernel, stride in layers:
            mistaken["own"] += (kernel - 1) * steps * stride
            mistaken["whole"] += kernel * steps
            steps *= stride
        mistaken["single"] = 1 + sum((k - 1) * s for k, s in zip(kernels, (1, *strides), strict=False))
        right = _seen(layers)
        compare(name, answer(list(layers)), right, [
            Mistake(1 + sum(kernels) - len(layers), "The strides are not counted.",
                    "Two neighbours in the second layer: how far apart do they lie in the picture?"),
            Mistake(1 + mistaken["own"], "A layer's own stride is counted too early.",
                    "A stride moves the outputs of its layer apart. Which kernels have to reach farther for that?"),
            Mistake(mistaken["single"], "Only the stride of the layer before is counted.",
                    "In the third layer one step is how many pixels?"),
            Mistake(mistaken["whole"], "The pixels of a kernel are counted, where its steps are needed.",
                    "A kernel of 3 pixels: how many steps from the first to the last?"),
            Mistake(right - 1, "One pixel is missing.", "What does a stack without any layer see?"),
            Mistake(_seen(layers[::-1]), "The layers are taken in the wrong order.",
                    "Which layer reads the picture itself?"),
            Mistake(sum(kernels), "The kernels are added up.", "Two kernels of 3, with stride 1: draw them."),
            Mistake(math.prod(kernels), "The kernels are multiplied.", "Two kernels of 3, with stride 1: draw them."),
            Mistake(math.prod(strides), "This is how far neighbours lie apart, not how much one of them sees.",
                    "The windows of neighbours overlap."),
        ])


@exercise
def check_pixel_nll(answer):
    """-log N(x; x_hat, exp(logvar)) with a variance for each pixel: three times (B, C, H, W) -> a scalar."""
    name = "pixel_nll"
    for seed, shape in ((0, (3, 1, 4, 5)), (1, (5, 3, 8, 8)), (2, (1, 1, 1, 1))):
        x_hat, logvar, x = draws(seed, *[shape] * 3)
        b = len(x)

        def nll(deviation):
            return -Normal(x_hat, deviation).log_prob(x)
        each = nll((logvar / 2).exp())
        total, errors, constant = each.sum() / b, (x - x_hat) ** 2, math.log(2 * math.pi) * x[0].numel() / 2
        compare(name, answer(x_hat, logvar, x), total, [
            Mistake(total - constant, "The constant of the normal density is missing: this is no log density.",
                    "Integrate your density over one pixel. Is it 1?"),
            Mistake(total - logvar.sum() / b / 2, "A large variance costs nothing: the network would make it infinite.",
                    "The factor before the exponential depends on the variance, too."),
            Mistake(total - logvar.sum() / b, "The sign of the logarithm of the variance is wrong.",
                    "A wide density is a low one. Which sign has its negative logarithm?"),
            Mistake(nll(logvar.exp()).sum() / b, "A variance is taken for a deviation: exp(logvar) is already a square.",
                    "Compare what you square with the definition logvar = log(sigma^2)."),
            Mistake(total + (errors / logvar.exp()).sum() / b / 2, "The squared error counts twice.",
                    "Where has the factor in the exponent of the density gone?"),
            Mistake(total + (errors * (logvar.exp() - (-logvar).exp())).sum() / b / 2,
                    "The error is multiplied by the variance: the surer the network, the less would an error matter.",
                    "An error of one sigma should cost the same whatever sigma is."),
            Mistake(each.mean(), "The mean over the pixels is returned.", "Sums over pixels, means over images."),
            Mistake(each.sum(), "The batch is summed: the loss would grow with the size of the batch.",
                    "Sums over pixels, means over images."),
            Mistake(-total, "This is the log likelihood, not its negative.", "It is to be minimised."),
        ], tolerance=1e-3)


@exercise
def check_stable_nll(answer):
    """Bernoulli NLL from logits of any size, summed over the pixels: twice (B, C, H, W) -> (B,)."""
    name = "stable_nll"
    for seed, shape in ((0, (3, 1, 4, 5)), (1, (5, 3, 8, 8))):
        logits, noise = draws(seed, shape, shape)
        x = noise.sigmoid()

        def nll(logits, x):
            return F.binary_cross_entropy_with_logits(logits.double(), x.double(), reduction="none").flatten(1)
        each = nll(logits, x)
        compare(name, answer(logits, x), each.sum(1), [
            Mistake(-each.sum(1), "The sign is wrong: this is the log likelihood itself.",
                    "Probabilities are at most 1: which sign has the answer?"),
            Mistake(nll(-logits, x).sum(1), "Black and white have changed places.",
                    "A large logit stands for a white pixel. Which of the two terms should then be small?"),
            Mistake((-x * F.logsigmoid(logits)).flatten(1).sum(1), "Only the white part of each pixel is counted.",
                    "A coin has two sides."),
            Mistake(nll(logits.sigmoid(), x).sum(1), "A sigmoid too many.",
                    "The arguments are logits, and what is it that you start with?"),
            Mistake(each.mean(1), "The mean over the pixels is returned.", "Independent pixels: log probabilities add up."),
            Mistake(each.sum(), "Everything is summed to one number; one for each image is asked for.",
                    "Which dimension counts the images?"),
            Mistake(each.sum(1).mean(), "The mean over the batch is returned; one number for each image is asked for.",
                    "Which dimension counts the images?"),
        ])
    far = torch.tensor([-2000.0, -150.0, -30.0, 25.0, 120.0, 1500.0])[:, None, None, None].repeat(1, 1, 1, 3)
    far = far.requires_grad_()
    x = torch.tensor([0.0, 0.5, 1.0]).expand(6, 1, 1, 3)
    given, right = answer(far, x), nll(far, x).sum(1)
    if isinstance(given, (list, tuple)):
        given = torch.stack(list(given))
    require(name, isinstance(given, torch.Tensor), "The result is no tensor: nothing could be trained with it.",
            "Stay with functions of torch.")
    require(name, bool(torch.isfinite(given).all()), "Large logits give inf or nan.",
            "Print the sigmoid and the exponential of 120 and of -120 in float32, and what a logarithm makes of them.")
    require(name, bool((given > 0.9 * right).all()), "Beyond some size, errors cost no more: a probability has been cut off.",
            "The network is sure and wrong, and nothing tells it so. Can the result be had without the probability?")
    compare(name, given, right)
    require_graph(name, given)
    [gradient] = torch.autograd.grad(given.sum(), far)
    require(name, bool(torch.isfinite(gradient).all()), "The values are right, their gradient is nan.",
            "torch.where also goes backwards through the branch that it did not take.")
    compare(name, gradient, torch.autograd.grad(right.sum(), far)[0], [
        Mistake(torch.zeros_like(far), "The gradient is zero everywhere.", "Does the result depend on the logits?"),
    ])


@exercise
def check_cyclic_beta(answer):
    """Weight of the KL at a step: from 0 to beta over the first part `ramp` of each period, then constant."""
    name = "cyclic_beta"
    cases = (       # period, ramp, beta, and one period by hand
        (8, 0.5, 4.0, [0, 1, 2, 3, 4, 4, 4, 4]),
        (10, 0.25, 1.0, [0, 0.4, 0.8, *[1] * 7]),
        (5, 1.0, 10.0, [0, 2, 4, 6, 8]))
    for period, ramp, beta, one in cases:
        given = [answer(step, period, ramp, beta) for step in range(3 * period)]
        right, step = torch.tensor(one * 3).double(), torch.arange(3.0 * period).double()
        compare(name, given, right, [
            Mistake(torch.tensor(one + [beta] * 2 * period), "There is only one cycle: after the first period beta never falls back.",
                    "What should the first step of the second period give?"),
            Mistake(step % period / period * beta, "The rise takes the whole period, where the part `ramp` of it is asked for.",
                    "After how many steps should beta be reached?"),
            Mistake(step % period / (ramp * period) * beta, "beta is exceeded.",
                    "What should happen when the rise is over?"),
            Mistake(step / (ramp * period) * beta, "beta rises for ever.",
                    "What should happen when the rise is over, and what after a period?"),
            Mistake(right / beta, "The weight ends at 1, not at beta.", "Where does beta enter?"),
            Mistake(right.roll(-1), "The schedule is one step ahead.",
                    "The first step has the number 0. What should it give?"),
            Mistake(right.roll(1), "The schedule is one step late.",
                    "The first step has the number 0. What should it give?"),
            Mistake(beta - right, "The weight falls where it should rise.", "The code is to be cheap at first."),
            Mistake(torch.where(right < beta, 0, right), "The weight jumps from 0 to beta.", "Is a division rounding down?"),
            Mistake(torch.full_like(right, beta), "The weight is constant.", "Where does the step enter?"),
        ])


@exercise
def check_balanced_vector(answer):
    """Mean over classes of the difference of mean codes, with minus without: (n, d), (n,), (n,) bool -> (d,)."""
    name = "balanced_vector"
    cases = (       # for each class: its label, members with the attribute, members without
        (0, 3, [(0, 2, 9), (2, 6, 3), (5, 4, 0), (6, 1, 1)]),
        (1, 8, [(0, 5, 1), (1, 2, 7), (2, 0, 3), (3, 3, 3)]),
        (2, 2, [(7, 4, 6)]))
    for seed, d, classes in cases:
        centres, directions = (3 * values for values in draws(seed, (len(classes), d), (len(classes), d)))
        codes, labels, has = [], [], []
        generator = torch.Generator().manual_seed(seed)
        for (label, n_with, n_without), centre, direction in zip(classes, centres, directions, strict=True):
            for mean, n in ((centre + direction, n_with), (centre, n_without)):
                scatter = torch.randn((n, d), generator=generator)
                codes += list(mean + scatter - scatter.mean(0))
            labels += [label] * (n_with + n_without)
            has += [True] * n_with + [False] * n_without
        order = torch.randperm(len(codes), generator=generator)
        codes, labels, has = torch.stack(codes)[order], torch.tensor(labels)[order], torch.tensor(has)[order]
        kept = codes.clone()
        counts = torch.tensor(classes)[:, 1:].double()
        both = (counts > 0).all(1)
        size, n_with = (weights * both for weights in (counts.sum(1), counts[:, 0]))
        directions, centres = directions.double(), centres.double()
        means = torch.stack([codes[labels == label].mean(0) for label, *_ in classes]).double()
        centred = codes - torch.stack([codes[labels == label].mean(0) for label in labels])
        right = directions[both].mean(0)
        given = answer(codes, labels, has)
        require(name, torch.equal(codes, kept), "The codes have been changed.", "Write the differences to a new tensor.")
        if isinstance(given, torch.Tensor):
            require(name, not given.isnan().any(), "The result is nan: a mean over no pictures at all.",
                    "Some class may have the attribute in all of its pictures, or in none.")
        compare(name, given, right, [
            Mistake(codes[has].mean(0) - codes[~has].mean(0),
                    "All classes are thrown together: the vector also means the classes that have the attribute more often.",
                    "Compare like with like: what must two groups share before they are subtracted?"),
            Mistake(-right, "The vector points the wrong way: adding it takes the attribute off.", "With minus without."),
            Mistake((n_with @ directions) / n_with.sum(), "Classes with more pictures that have the attribute count more.",
                    "Each class has one vote."),
            Mistake((size @ directions) / size.sum(), "Larger classes count more.", "Each class has one vote."),
            Mistake(directions[both].sum(0) / len(classes), "A class that lacks one of the groups counts as a difference of zero.",
                    "Such a class says nothing. What is the mean of the others?"),
            Mistake(directions[both].sum(0), "The differences are summed, where their mean is asked for.",
                    "The vector would grow with the number of classes."),
            Mistake((centres + directions)[both].mean(0), "This is the mean code of the pictures with the attribute.",
                    "What do these pictures share with the ones without?"),
            Mistake(right / right.norm(), "The vector has been given the length 1.",
                    "One step along it should be the way from without to with. How long is that?"),
            Mistake(centred[has].mean(0) - centred[~has].mean(0),
                    "The class means are taken off, but then all classes are thrown together.",
                    "A class's mean depends on how many of its pictures have the attribute."),
            Mistake(((centres + directions)[both] - means[both]).mean(0), "The pictures with the attribute are compared with all of their class.",
                    "All of them include those with the attribute."),
        ], tolerance=1e-3)


# ------------------------------------------------------------------------------------------- lab 04

@exercise
def check_best_discriminator(answer):
    """p_r / (p_r + p_g) in each bin, estimated from two samples of any size: counts (K,) and (K,) -> (K,)."""
    name = "best_discriminator"
    # bins that can be read off: only real points, only synthetic ones, as many, three to one, none
    known = torch.tensor([20, 0, 50, 30, 0]), torch.tensor([0, 40, 50, 10, 0]), torch.tensor([1, 0, 0.5, 0.75, 0.5])
    for seed, n_bins in ((None, 5), (0, 6), (1, 15)):
        if seed is None:
            n_real, n_fake, right = known
        else:
            generator = torch.Generator().manual_seed(seed)
            n_real, n_fake = (torch.randint(1, high, (n_bins,), generator=generator) for high in (90, 900))
            n_real[0] = n_fake[0] = n_real[1] = n_fake[2] = 0
            prior = n_fake.sum().double() / n_real.sum()        # real points count so much more, for equal shares
            right = torch.distributions.Bernoulli(logits=(n_real * prior / n_fake).log(), validate_args=False).probs
            right[0] = 0.5
        given = answer(n_real.clone(), n_fake.clone())
        require(name, not isinstance(given, torch.Tensor) or not given.isnan().any(), "An empty bin gives nan: zero by zero.",
                "What is asked for in a bin that neither sample has reached?")
        empty, ratio = n_real + n_fake == 0, n_real.double() / n_fake
        p, q = n_real / n_real.sum(), n_fake / n_fake.sum()
        hinted = [
            (n_real / (n_real + n_fake),
             "The samples differ in size, and the larger one counts for more.",
             "Equally often: turn both counts into densities first."),
            (1 - right, "Real and synthetic are exchanged.", "D is the probability that a point is real."),
            (p / q, "This is the ratio of the densities, not a probability.",
             "Which function of it lies between 0 and 1?"),
            ((p / q).log(), "This is the best logit; D itself is asked for.",
             "Section 2 says how D comes from its logit."),
            ((p > q).double(), "Every bin is given to one side: 0 or 1.",
             "A bin that holds points of both sides leaves a doubt, and the best D says how large."),
            (ratio, "The counts are divided by each other.", "Densities first, then the formula for D*."),
            (p, "This is the density of the real points.", "D* sets it against something."),
        ]
        variants = [Mistake(torch.where(empty, fill, value.double()), *words)
                    for value, *words in hinted for fill in (0.5, 0.0, 1.0)]
        zero, one = (torch.where(empty, fill, right.double()) for fill in (0.0, 1.0))
        silent = ("An empty bin is given to one of the two sides.", "Undecided: which D is neither real nor synthetic?")
        compare(name, given, right, [Mistake(zero, *silent), Mistake(one, *silent), *variants])


@exercise
def check_smooth_step(answer):
    """A step of D with softened targets for real images only; the generator is left alone. Returns the loss."""
    name, rate = "smooth_step", 0.5
    for seed, (b_real, b_fake), target in ((0, (6, 4), 0.9), (1, (3, 8), 0.7), (2, (5, 5), 0.9)):
        x, z, w_d, w_g, left = draws(seed, (b_real, 1, 3, 2), (b_fake, 4), (1, 6), (6, 4), (1, 6))
        w_d = w_d / 3       # logits so small that a sigmoid and its logarithm are exact, too
        discriminator = nn.Sequential(nn.Flatten(), nn.Linear(6, 1, bias=False))
        generator = nn.Sequential(nn.Linear(4, 6, bias=False), nn.Unflatten(1, (1, 3, 2)))
        for layer, weights in ((discriminator[1], w_d), (generator[0], w_g)):
            layer.weight = nn.Parameter(weights.clone())
        discriminator[1].weight.grad = left.clone()             # as a generator's plain backward() leaves it
        generator[0].weight.grad = torch.ones(6, 4)             # its own step would clear them
        optimizer = torch.optim.SGD(discriminator.parameters(), lr=rate)
        try:
            loss = answer(discriminator, generator, optimizer, x, z, target)
        except ValueError as error:
            refuse(name, f"The loss refuses its targets: {error}.",
                   "There is one target for each logit, and the two batches need not be equally large.")
        weight, fed = discriminator[1].weight.detach(), (x.flatten(1), z @ w_g.T)

        def halves(w, real_target=target, fake_target=0.0):
            """Value and slope by w of each half, by the formulas of logistic regression."""
            found = []
            for inputs, t in zip(fed, (real_target, fake_target)):
                d = torch.distributions.Bernoulli(logits=inputs @ w.T)
                entropy = -(t * d.log_prob(torch.ones(1)) + (1 - t) * d.log_prob(torch.zeros(1)))
                found.append((entropy.mean(), (d.probs - t).T @ inputs / len(inputs)))
            return found

        def after(*slopes):
            """The weights after a step along these slopes."""
            return w_d - rate * sum(slopes)

        (real_loss, real), (fake_loss, fake) = halves(w_d)
        sharp, both, swapped, wrong_side, onto_fake = (
            halves(w_d, *targets)
            for targets in ((1, 0), (target, 1 - target), (0, target), (1, 1 - target), (target, target)))
        joined = (b_real * real + b_fake * fake) / (b_real + b_fake)
        between = after(real)
        require(name, torch.equal(generator[0].weight, w_g), "The weights of the generator have moved.",
                "This step belongs to the discriminator alone: whose weights may change?")
        kept = generator[0].weight.grad
        require(name, kept is not None and torch.equal(kept, torch.ones(6, 4)),
                "The gradients of the generator have changed in the step of the discriminator.",
                "Where must the graph of the synthetic images be cut?")
        require(name, not torch.equal(weight, w_d), "The weights of the discriminator have not moved.",
                "A gradient alone changes nothing: who applies it?")
        compare(name, weight, after(real, fake), [
            Mistake(after(real, fake, left),
                    "Old gradients have entered the step: the ones that were there before the call.",
                    "Before the call, other steps have left something in the gradients. What removes it, and when?"),
            Mistake(after(real), "Only the real images have had a say in the step.",
                    "Two halves, one step: follow both gradients."),
            Mistake(after(fake), "Only the synthetic images have had a say in the step.",
                    "Is something removed between the two halves?"),
            Mistake(after(sharp[0][1], fake), "The real images have the target 1: nothing is softened.",
                    "Use the argument."),
            Mistake(after(both[0][1], both[1][1]), "Both sides are softened, where only the real one should be.",
                    "What does the method say of the target of synthetic images?"),
            Mistake(after(wrong_side[0][1], wrong_side[1][1]), "The wrong side is softened.",
                    "It is the real images that get a target below 1."),
            Mistake(after(swapped[0][1], swapped[1][1]),
                    "The targets are exchanged: real images are taught to be synthetic.",
                    "D is the probability that an image is real."),
            Mistake(after(onto_fake[0][1], onto_fake[1][1]), "Synthetic images have the target of real ones.",
                    "With one target for all there is nothing to tell apart."),
            Mistake(after(-real, -fake), "The step goes uphill: the loss has become larger.",
                    "Optimisers minimise. What is the sign of V in the loss?"),
            Mistake(after(real / 2, fake / 2), "The step is half as long as it should be: the two means are averaged.",
                    "A sum of two means is asked for."),
            Mistake(after(joined),
                    "The mean is taken over both batches at once, so that the larger one counts for more.",
                    "A mean for each batch, then the sum."),
            Mistake(after(b_real * real, b_fake * fake), "The batches are summed: the step would grow with their size.",
                    "A mean over each batch."),
            Mistake(between - rate * halves(between)[1][1], "There are two steps, one for each half; one is asked for.",
                    "The second half should be judged by the weights that the first one saw."),
            Mistake(between - rate * (real + halves(between)[1][1]),
                    "There are two steps, and the first half enters both.",
                    "One step after both gradients."),
        ])
        compare(name, loss, real_loss + fake_loss, [
            Mistake(sharp[0][0] + fake_loss, "The step is right, but the loss that is returned has the target 1.",
                    "Return what was minimised."),
            Mistake(real_loss, "The step is right, but only the loss of the real images is returned.",
                    "The sum of both halves."),
            Mistake(fake_loss, "The step is right, but only the loss of the synthetic images is returned.",
                    "The sum of both halves."),
            Mistake((real_loss + fake_loss) / 2, "The step is right, but half the loss is returned.",
                    "The sum of both halves."),
        ])


@exercise
def check_js_bound(answer):
    """Lower bound on JS in bits from logits (N, 1) of real and (M, 1) of synthetic images: a scalar."""
    name = "js_bound"
    nat = torch.log2(torch.tensor(torch.e)).item()              # bits in a nat

    def mean_log(logits, outcome):
        return torch.distributions.Bernoulli(logits=logits).log_prob(torch.tensor(outcome)).mean()
    sure = torch.full((3, 1), 200.0)
    undecided = torch.zeros(4, 1)
    cases = [(*draws(seed, (n, 1), (m, 1)), None) for seed, n, m in ((0, 5, 9), (1, 40, 3))]
    cases[0] = (cases[0][0] + 1, cases[0][1] - 1, None)
    for real, fake, known in (*cases, (undecided, undecided[:2], 0.0), (sure, -sure, 1.0), (-sure, -sure[:1], None)):
        real_term, fake_term = mean_log(real, 1.0), mean_log(fake, 0.0)
        value = real_term + fake_term
        right = torch.tensor(known) if known is not None else 1 + nat * value / 2
        joined = (len(real) * real_term + len(fake) * fake_term) / (len(real) + len(fake))
        lost = -sum(F.binary_cross_entropy(logits.sigmoid(), torch.full_like(logits, t))
                    for logits, t in ((real, 1.0), (fake, 0.0)))
        given = answer(real, fake)
        finite = not isinstance(given, (float, torch.Tensor)) or bool(torch.as_tensor(given).isfinite().all())
        require(name, finite, "A discriminator that is very sure gives inf or nan.",
                "The sigmoid of a large logit is 0 or 1 to the last digit. Which function takes the logit as it is?")
        compare(name, given, right, [
            Mistake(right.clamp(min=0), "Negative bounds are cut off; they should be returned as they are.",
                    "A figure below 0 says how bad the discriminator is."),
            Mistake(right / nat, "This is the bound in nats; bits are asked for.", "How many nats are a bit?"),
            Mistake(right * nat, "The step from nats to bits goes the wrong way.", "The largest value must be 1."),
            Mistake(2 * right, "This bounds twice the divergence.",
                    "In the value of the game the divergence has a factor."),
            Mistake(2 * right / nat, "This bounds twice the divergence, and in nats.",
                    "In the value of the game the divergence has a factor."),
            Mistake(-value, "This is the D loss, from which the bound has still to be made.",
                    "Solve V = -log 4 + 2 JS for JS."),
            Mistake(value, "This is V, from which the bound has still to be made.", "Solve V = -log 4 + 2 JS for JS."),
            Mistake(1 - nat * value / 2, "The sign of V is wrong: a worse discriminator would give a higher bound.",
                    "An undecided discriminator must give 0."),
            Mistake(1 + nat * (mean_log(real, 0.0) + mean_log(fake, 1.0)) / 2, "Real and synthetic are exchanged.",
                    "A large logit says real."),
            Mistake(1 + nat * joined, "One mean is taken over all logits, so that the larger sample counts for more.",
                    "The two terms of the game are two means."),
            Mistake(1 + nat * (mean_log(real.sigmoid(), 1.0) + mean_log(fake.sigmoid(), 0.0)) / 2,
                    "A sigmoid too many: a probability is taken for a logit.",
                    "Look at what your loss does to its input first."),
            Mistake(1 + nat * (real.sigmoid().mean().log() + (1 - fake.sigmoid()).mean().log()) / 2,
                    "The logarithm is taken of the mean; the mean of the logarithms is asked for.",
                    "Which of the two stands inside in V?"),
            Mistake(1 + nat * lost / 2, "The digits of a discriminator that is very sure are lost.",
                    "A cross entropy of probabilities stops at 100; one of logits does not."),
        ])


@exercise
def check_with_labels(answer):
    """Codes (B, d) or images (B, C, H, W) and labels (B,) with one-hot columns or channels behind them."""
    name = "with_labels"
    cases = (((4, 4), [2, 0, 2, 1], 4), ((7, 5), [0, 3, 1, 1, 6, 2, 0], 10), ((4, 1, 3, 2), [1, 3, 0, 1], 4),
             ((3, 2, 4, 4), [2, 0, 1], 5))
    for seed, (shape, labels, n) in enumerate(cases):
        [a], y = draws(seed, shape), torch.tensor(labels)
        kept, rest, b = a.clone(), shape[2:], shape[0]

        def spread(row):
            """A row of a batch (B, m) as the shape of `a` wants it."""
            return row.reshape(b, -1, *[1] * len(rest)).expand(-1, -1, *rest) if rest else row

        def beside(hot):
            return torch.cat([kept, spread(hot)], dim=1)
        flags = torch.tensor([[float(label == c) for c in range(n)] for label in labels])
        number = beside(y[:, None].float())
        mixed = flags.repeat(1, int(torch.tensor(rest).prod())).reshape(b, n, *rest)
        try:
            given = answer(a, y.clone(), n)
        except NotImplementedError:
            raise
        except RuntimeError as error:
            refuse(name, f"The parts do not fit together: {str(error).splitlines()[0]}",
                   "Print both shapes. They may differ in the dimension of the columns or channels only.")
        require(name, torch.equal(a, kept), "The codes or images that were handed over have been changed.",
                "Build a new tensor.")
        compare(name, given, beside(flags), [
            Mistake(number, "The label is appended as a number: class 8 would be twice class 4.",
                    "Classes have no order. A column for each of them."),
            Mistake(torch.cat([spread(flags), kept], dim=1),
                    "The labels stand in front, where they should stand behind.",
                    "First what was there, then the classes."),
            Mistake(torch.cat([kept, spread(flags)], dim=0) if flags.shape[1] == shape[1] else torch.zeros(0),
                    "The labels are put below, as more rows of the batch, and not beside.",
                    "Which dimension counts the samples, and must stay as long as it is?"),
            Mistake(beside(flags[:, :max(labels) + 1]),
                    "The number of classes is taken from the batch, which need not hold them all.",
                    "The argument says how many there are."),
            Mistake(beside(flags.roll(-1, dims=1)), "The classes are moved by one column.", "The first class is 0."),
            Mistake(beside(flags.roll(1, dims=1)), "The classes are moved by one column.", "The first class is 0."),
            Mistake(beside(flags.flip(1)), "The classes are in the opposite order.", "Class 0 has the first column."),
            Mistake(beside(torch.eye(max(b, n))[:b, :n]),
                    "The column is chosen by the place in the batch, not by the label.",
                    "Two samples of one class must get the same columns."),
            Mistake(beside(1 - flags), "Ones and zeros are exchanged.", "One-hot: a single 1 in a row."),
            Mistake(flags if not rest else spread(flags), "The labels alone are returned.",
                    "They should stand beside what was there."),
            Mistake(torch.cat([kept, mixed], dim=1),
                    "The channels mix the classes: a channel must be 1 or 0 everywhere.",
                    "Give the rows two more dimensions before you stretch them; a reshape does not know which is which."),
        ])


@exercise
def check_js_missing(answer):
    """JS in nats of packs of samples where a generator draws k of n_modes modes: three whole numbers -> a number."""
    name = "js_missing"
    for k, n_modes, pack in ((1, 2, 1), (7, 8, 1), (7, 8, 2), (1, 8, 3), (3, 5, 4), (8, 8, 2)):
        def packs(n_drawn, size=pack):
            """Probability of every pack, one by one: (n_modes ** size,)."""
            each = (torch.arange(n_modes) < n_drawn).double() / n_drawn
            joint = torch.ones(1, dtype=torch.float64)
            for _ in range(size):
                joint = torch.outer(joint, each).flatten()
            return joint

        def divergence(p, q):
            return torch.special.xlogy(p, p / q).nan_to_num().sum()

        def both(size):
            p, q = packs(n_modes, size), packs(k, size)
            return p, q, (divergence(p, (p + q) / 2) + divergence(q, (p + q) / 2)) / 2
        p, q, right = both(pack)
        single = both(1)[2]
        m, reverse = (p + q) / 2, divergence(q, p)
        given = answer(k, n_modes, pack)
        require(name, not isinstance(given, (float, torch.Tensor)) or not torch.as_tensor(given).isinf().any(),
                "The result is infinite: somewhere the mixture is missing.",
                "The divergence of p from q is infinite where q is zero. What does JS compare both with?")
        # the true value first: for pack = 1 or k = n_modes some of the mistakes give it too
        compare(name, given, right, [
            Mistake(single, "The packs are not used: this is the divergence of single samples.",
                    "How likely is it that a real pack holds no missing mode?"),
            Mistake(pack * single, "The divergence of single samples is multiplied by the size of the pack.",
                    "KL adds up over independent samples; JS, with its bound of log 2, cannot."),
            Mistake(right.sqrt(), "This is the root of the divergence.",
                    "Some libraries return a distance under this name: read what they say it is."),
            Mistake(2 * right, "The result is twice too large.", "Half of each of two divergences."),
            Mistake(right / torch.log(torch.tensor(2.0)), "This is in bits; nats are asked for.",
                    "The natural logarithm."),
            Mistake(divergence(p, m), "Only the divergence of the data from the mixture is counted.",
                    "Both sides have their half."),
            Mistake(divergence(q, m), "Only the divergence of the generator from the mixture is counted.",
                    "Both sides have their half."),
            Mistake(reverse, "This is the KL of the generator from the data.", "JS goes through the mixture m."),
            Mistake(reverse / 2, "This is half the KL of the generator from the data.",
                    "JS goes through the mixture m."),
            Mistake(-right, "The sign is wrong: a divergence is never negative.",
                    "For k = n_modes the result must be 0."),
        ], tolerance=1e-5)


# ------------------------------------------------------------------------------------------- lab 05

def _mean_way(a, b, power=1, dearest=False):
    """Mean length of the ways between two clouds (n, d), paired by the plan with the least (or largest) total cost."""
    ways = (a[:, None] - b).norm(dim=2)
    plan = linear_sum_assignment(ways.detach() ** power, maximize=dearest)
    return (ways[plan] ** power).mean()


@exercise
def check_sample_wasserstein(answer):
    """Wasserstein-1 distance of two samples of equally many numbers, (n,) and (n,): a scalar."""
    name = "sample_wasserstein"
    for seed, n, shift in ((0, 5, 0.5), (1, 200, 3.0), (2, 51, -1.0)):
        x, y = draws(seed, (n,), (n,))
        y = 2 * y + shift
        x_given, y_given = x.clone(), y.clone()
        given = answer(x_given, y_given)
        require(name, torch.equal(x, x_given) and torch.equal(y, y_given),
                "The samples that were handed over have been changed.",
                "Some functions work in place. Does the order of the caller's numbers survive?")
        right, means = wasserstein_distance(x, y), x.mean() - y.mean()
        of_squares = _mean_way(x[:, None], y[:, None], power=2)
        compare(name, given, right, [
            Mistake((x - y).abs().mean(),
                    "The grains are paired as they were drawn, which is one plan among many and not the cheapest.",
                    "The order within a sample means nothing. In which order does nobody overtake?"),
            Mistake(of_squares, "The ways are squared: that cost belongs to the distance of order 2.",
                    "Order 1: mass times way."),
            Mistake(of_squares.sqrt(),
                    "This is the distance of order 2, the root of a mean of squares.", "Order 1: mass times way."),
            Mistake(n * right, "The ways are added up as if each grain had the mass 1.", "What does one of n grains weigh?"),
            Mistake(means, "Ways to the left and to the right cancel each other: only the means are compared.",
                    "Carrying costs the same in both directions."),
            Mistake(-means, "Ways to the left and to the right cancel each other: only the means are compared.",
                    "Carrying costs the same in both directions."),
            Mistake(_mean_way(x[:, None], y[:, None], dearest=True),
                    "Every grain overtakes all others: this is the dearest plan.",
                    "Is one of the samples the wrong way round?"),
        ])


@exercise
def check_shift_gradient(answer):
    """Gradient with respect to v of the distance of a distribution and the same one moved by v: (d,) -> (d,)."""
    name = "shift_gradient"
    for seed, d, scale in ((0, 2, 1.0), (1, 1, 5.0), (2, 7, 20.0), (3, 3, 0.1)):
        v, points = draws(seed, (d,), (8, d))
        v = scale * v
        moved = v.clone().requires_grad_()
        way = _mean_way(points, points + moved)
        right, = torch.autograd.grad(way, moved)
        compare(name, answer(v.clone()), right, [
            Mistake(-right, "It points the wrong way: along it the distance becomes smaller.",
                    "A gradient points uphill. Which way must the heap move for the distance to grow?"),
            Mistake(v.sign(), "This takes each coordinate for a line of its own; the way is measured straight across.",
                    "How far is it to v = (3, 4), and is your vector as long as it should be?"),
            Mistake(way, "This is the distance; its gradient is asked for.", "One number for each coordinate of v."),
            Mistake(v, "This is the gradient of half the squared distance: it fades when the heaps come close.",
                    "Order 1: the way itself, not its square."),
            Mistake(2 * v, "This is the gradient of the squared distance: it fades when the heaps come close.",
                    "Order 1: the way itself, not its square."),
            Mistake(v / v.abs().sum(), "The coordinates are added up, as if one could only walk along the axes.",
                    "How far is it to v = (3, 4)?"),
            Mistake(v / v.square().sum(), "The length of v is divided out once too often: the gradient would fade far away.",
                    "Compare the gradients for v and for 2v."),
        ])


class _OnePicture(nn.Module):
    """A generator for checks: one picture (1, 1, 2, 2) whatever the code; it keeps the codes."""

    def __init__(self, picture):
        super().__init__()
        self.picture, self.codes = nn.Parameter(picture), []

    def forward(self, z):
        self.codes.append(z.detach().clone())
        return self.picture.expand(len(z), -1, -1, -1)


def _linear_critic(weight, bias=0.0):
    """The critic f(x) = weight x + bias of pictures with as many pixels as weight (n,) has numbers."""
    layer = nn.utils.skip_init(nn.Linear, len(weight), 1)
    with torch.no_grad():
        layer.weight.copy_(weight[None])
        layer.bias.fill_(bias)
    return nn.Sequential(nn.Flatten(), layer)


def _linear_turn(weight, gaps, rates, clip, low=-1, keep=0, before=False, old=0):
    """A turn of a linear critic along the gaps of the means (n, 4): weights, estimates before and after each step.

    `old` is the push of gradients from before the turn, and `keep` the share of each push that the next one still has.
    """
    early, late, push = [], [], 0
    for gap, rate in zip(gaps, rates):
        weight = weight.clip(low * clip, clip) if before else weight
        early.append(weight @ gap)
        push = rate * gap + keep * push + old
        old = 0
        weight = weight + push
        weight = weight if before else weight.clip(low * clip, clip)
        late.append(weight @ gap)
    return weight, torch.stack(early), torch.stack(late)


def _check_noise(name, generator, n, latent_dim):
    """Refuse codes that have the wrong shape, come twice, or are not standard normal."""
    require(name, generator.codes, "The generator is never called: with what are the real pictures compared?",
            "Each batch needs generated pictures, and these need noise.")
    shapes = {tuple(z.shape[1:]) for z in generator.codes}
    require(name, shapes == {(latent_dim,)}, "The codes have not the shape (number of pictures, latent_dim).",
            "The function is handed the length of a code.")
    codes = torch.cat(generator.codes)
    require(name, len(codes.unique(dim=0)) >= n,
            "Not every real picture meets a generated one from fresh noise: codes are used again.",
            "Where is the noise drawn, inside the loop or outside, and how much of it?")
    require(name, abs(codes.mean()) < 0.2 and abs(codes.std() - 1) < 0.2, "The codes are not standard normal.",
            "The generator knows one kind of noise only, that of its own training.")
    require(name, generator.picture.grad is None, "The critic's loss leaves a gradient in the generator.",
            "For the critic the generated pictures are given. Who needs their graph?")
    require(name, generator.picture.requires_grad, "After the turn the generator can no longer learn.",
            "What has been switched off must be switched on again, or be left alone.")


def _as_one(values):
    """A list of numbers as one tensor; anything else as it is."""
    if isinstance(values, (list, tuple)) and values:
        return torch.stack([torch.as_tensor(value).detach() for value in values])
    return values


@exercise
def check_critic_turn(answer):
    """A clipped step of the critic on each batch, with fresh noise: the estimates before each step."""
    name, rate = "critic_turn", 0.1
    for seed, sizes, latent_dim, clip in ((37, (4, 4, 3), 50, 0.15), (10, (7, 2), 80, 0.1), (2, (5,), 100, 0.2)):
        *batches, picture, weight = draws(seed, *[(n, 1, 2, 2) for n in sizes], (1, 1, 2, 2), (4,))
        weight = (clip * weight).clip(-clip, clip)
        gaps, rates = torch.stack([(x - picture).mean(0).flatten() for x in batches]), rate * torch.ones(len(sizes))
        critic, generator = _linear_critic(weight, bias=0.5), _OnePicture(picture.clone())
        critic[1].weight.grad = torch.ones(1, 4)        # as a generator's plain backward() leaves it
        optimizer = torch.optim.SGD(critic.parameters(), lr=rate)
        given = answer(critic, generator, optimizer, [x.clone() for x in batches], latent_dim, clip)
        _check_noise(name, generator, sum(sizes), latent_dim)

        right, estimates, late = _linear_turn(weight, gaps, rates, clip)
        free = _linear_turn(weight, gaps, rates, float("inf"))[0]
        compare(name, critic[1].weight[0], right, [
            Mistake(_linear_turn(weight, gaps, -rates, clip)[0],
                    "The sign of the loss is reversed: the critic learns to score real pictures low.",
                    "The optimiser makes its loss smaller. What is to become larger?"),
            Mistake(_linear_turn(weight, gaps, rates, clip, before=True)[0],
                    "The box is closed before the step, and the step opens it again.",
                    "Who uses the critic next, and what does it find?"),
            Mistake(free, "The weights are not clipped.", "Clipping that returns a new tensor leaves the old one as it is."),
            Mistake(_linear_turn(weight, gaps, rates, clip, low=-float("inf"))[0],
                    "The box has no floor: negative weights grow as they like.",
                    "A box has two sides."),
            Mistake(_linear_turn(weight, gaps, rates, clip, keep=1, old=-rate * torch.ones(4))[0],
                    "The gradients of earlier batches are still there and are added to the new ones.",
                    "Where are the gradients set to zero, and how often?"),
            Mistake(_linear_turn(weight, gaps, rates, clip, old=-rate * torch.ones(4))[0],
                    "Gradients from before the call enter the first step.", "A plain `backward` of the generator's step leaves some in the critic."),
            Mistake(_linear_turn(weight, gaps, rates * torch.tensor(sizes), clip)[0],
                    "The scores are summed over the batch: larger batches take larger steps.",
                    "The estimate is a difference of two means."),
            Mistake(free.clip(-clip, clip), "The box is closed once at the end, where it must be closed after each step.",
                    "Look at how far the line is indented."),
            Mistake(weight, "The critic has not learned: its weights are the old ones.", "Which call changes the weights?"),
        ])
        require(name, abs(critic[1].bias.item() - clip) < 1e-6, "The weights are in the box, the bias is not.",
                "Which parameters has the critic?")
        compare(name, _as_one(given), estimates, [
            Mistake(-estimates,
                    "The loss is returned; the estimate has the other sign.", "For a good critic the estimate is positive."),
            Mistake(late, "The estimates are taken after the step, with the new weights.",
                    "At which moment is the score computed that you return?"),
            Mistake(estimates.mean(),
                    "One number is returned; one for each batch is asked for.", "Keep them in a list on the way."),
        ])
    generator.codes.clear()
    with suppress(RuntimeError), torch.device("meta"):      # where torch now makes what nobody has placed
        answer(critic, generator, optimizer, batches, latent_dim, clip)
    require(name, all(z.device == generator.picture.device for z in generator.codes), "The codes are not made on the device of the pictures.",
            "Where does torch make a tensor if nobody tells it?")


def _steepest(activation):
    """The largest slope of an activation, found on a fine grid."""
    t = torch.linspace(-5, 5, 1001, requires_grad=True)
    return torch.autograd.grad(activation(t).sum(), t)[0].abs().max().item()


def _bounds(matrices, size):
    """The product of one figure of each matrix."""
    return math.prod(float(size(matrix)) for matrix in matrices)


@exercise
def check_lipschitz_bound(answer):
    """Upper bound of the slope of a sequential critic: the product of the largest slopes of its layers."""
    name = "lipschitz_bound"
    for seed, sizes, activations in ((0, (3, 5, 1), [nn.ReLU()]), (1, (4, 4, 6, 1), [nn.Tanh(), nn.LeakyReLU(0.2)]),
                                     (2, (6, 3, 1), [nn.ReLU(), nn.Sigmoid()]), (3, (5, 5, 1), [nn.LeakyReLU(3.0)]),
                                     (4, (2, 1), [])):
        matrices = draws(seed, *[(n_out, n_in) for n_in, n_out in zip(sizes[:-1], sizes[1:])])
        layers = [nn.Flatten()]
        for i, matrix in enumerate(matrices):
            layer = nn.utils.skip_init(nn.Linear, *matrix.T.shape)
            layer.weight.data, layer.bias.data = matrix.clone(), torch.ones(len(matrix))
            layers += [layer, *activations[i:i + 1]]
        squared = [torch.linalg.eigvalsh(matrix @ matrix.T).double() for matrix in matrices]
        linear = math.prod(values[-1].item() ** 0.5 for values in squared)
        slopes = [_steepest(activation) for activation in activations]
        bend = math.prod(slopes)
        left = math.prod(layer.negative_slope if isinstance(layer, nn.LeakyReLU) else slope
                         for layer, slope in zip(activations, slopes))
        compare(name, answer(nn.Sequential(*layers)), bend * linear, [
            Mistake(linear, "An activation is left out: it makes the slope larger or smaller as well.",
                    "Draw the activation. Where is it steepest, and how steep is it there?"),
            Mistake(left * linear, "The LeakyReLU counts with its slope on the left; it has a right side, too.",
                    "The bound needs the larger of both sides."),
            Mistake(bend * _bounds(matrices, torch.linalg.norm),
                    "These are Frobenius norms: a bound as well, but not the smallest for each layer.",
                    "How much longer can a matrix make one vector? Not as much in all directions at once."),
            Mistake(bend * _bounds(matrices, lambda m: m.abs().max()),
                    "The largest weights are multiplied: a layer can be steeper than any of its weights.",
                    "Try a layer with two inputs and both weights 1."),
            Mistake(bend * _bounds(matrices, lambda m: m.abs().max() * m.numel() ** 0.5),
                    "This is the bound by the largest weight alone, far above what the layers allow.",
                    "How much longer can a matrix make one vector?"),
            Mistake(bend * linear**2, "The result is the square of the bound.",
                    "An eigenvalue of W transposed times W is no singular value yet."),
            Mistake(bend * math.prod(values[values > 1e-5][0].item() ** 0.5 for values in squared),
                    "The smallest singular values are multiplied: how little a layer can stretch.",
                    "Which direction is stretched most?"),
            Mistake(bend * _bounds(matrices, lambda m: torch.linalg.matrix_norm(m, "nuc")),
                    "All singular values of a layer are added up.",
                    "A vector can point along one of these directions at a time."),
            Mistake(bend * sum(values[-1].item() ** 0.5 for values in squared),
                    "The layers are added, where one acts on what the other has made longer.",
                    "Two layers that each double the length: how long is it at the end?"),
            Mistake(bend * _bounds([reduce(lambda before, matrix: matrix @ before, matrices)], torch.linalg.norm),
                    "The matrices are multiplied first: that is the slope where no unit is switched off, and no bound.",
                    "An activation can remove the very part that would have cancelled another one."),
        ])


class _Fold(nn.Module):
    """A critic for checks: a function of the pictures (B, 1, 2, 2), summed to one score for each."""

    def __init__(self, function):
        super().__init__()
        self.function, self.scale = function, nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.scale * self.function(x.flatten(1)).flatten(1).sum(dim=1, keepdim=True)


def _check_graph(name, critic, penalty, right):
    """Refuse a penalty whose gradient does not reach the weights (n,) of a linear critic, or is not `right`."""
    weight = critic[1].weight
    require(name, isinstance(penalty, torch.Tensor) and penalty.requires_grad,
            "No gradient of the penalty reaches the critic's weights.",
            "The slope is to be differentiated once more. What becomes of the graph of the first differentiation?")
    require(name, weight.grad is None, "The first differentiation leaves its gradients in the critic's weights.",
            "Only the gradient with respect to the pictures is needed here.")
    gradient, = torch.autograd.grad(penalty, weight, allow_unused=True)
    require(name, gradient is not None and close(gradient[0], right, 1e-3),
            "The gradient of the penalty with respect to the critic's weights is wrong.",
            "Is some part of the slope cut off from the graph?")


@exercise
def check_one_sided_penalty(answer):
    """Mean of the squared excess of the slope over a limit at random points on the lines between two batches."""
    name = "one_sided_penalty"
    for seed, b, slope, limit in ((0, 5, 3.0, 1.0), (1, 7, 0.5, 1.0), (2, 3, 2.0, 1.5), (3, 6, 1.4, 2.0)):
        x, x_fake, weight = draws(seed, (b, 1, 2, 3), (b, 1, 2, 3), (6,))
        weight = slope * weight / weight.norm()
        critic = _linear_critic(weight)
        given = answer(critic, x, x_fake, limit)
        right = max(slope - limit, 0.0) ** 2
        over_batch = weight.abs() * b**0.5
        compare(name, given, right, [
            Mistake((slope - limit) ** 2, "A slope below the limit costs as well: this penalty has two sides.",
                    "For a flat critic it should be 0."),
            Mistake(F.relu(over_batch - limit).square().mean(),
                    "The norm runs over the batch: one for each pixel, where one for each picture is asked for.",
                    "Which dimension counts the pictures?"),
            Mistake(max(slope * b**0.5 - limit, 0.0) ** 2, "The slopes of the whole batch are taken for one long gradient.",
                    "One norm for each picture, then the excess, then the mean."),
            Mistake(F.relu(weight.abs() - limit).square().mean(), "The limit is set for each pixel, not for the slope.",
                    "The slope is the length of the whole gradient of a picture."),
            Mistake(max(slope - 1, 0.0) ** 2, "The limit is not used.", "It need not be 1."),
            Mistake(max(slope**2 - limit, 0.0) ** 2, "The square of the slope is compared with the limit: a root is missing.",
                    "What is the length of a gradient?"),
            Mistake(max(slope - limit, 0.0),
                    "The excess is not squared.", "A square is gentle near the limit and strong far from it."),
            Mistake(b * right,
                    "The sum over the batch is returned, where the mean is asked for.", "A larger batch should not cost more."),
            Mistake(-right, "The sign is wrong: steep critics would be rewarded.", "The penalty is added to a loss."),
            Mistake(max(limit - slope, 0.0) ** 2,
                    "Slopes below the limit cost, and those above do not.", "Which of the two is subtracted from which?"),
        ])
        _check_graph(name, critic, given, 2 * max(slope - limit, 0.0) * weight / slope)
    _check_mean(name, answer)
    _check_points(name, answer)


def _check_mean(name, answer):
    """Refuse other orders of excess, square and mean: pairs of equal pictures, each with a slope of its own."""
    x, = draws(4, (8, 1, 2, 2))
    slope = x.flatten(1).norm(dim=1)            # of half the squared length
    excess = F.relu(slope - 1.5)
    compare(name, answer(_Fold(lambda x: x**2 / 2), x, x.clone(), 1.5), (excess**2).mean(), [
        Mistake(excess.mean() ** 2,
                "The mean is squared, where the mean of the squares is asked for.", "In which order: excess, square, mean?"),
        Mistake(F.relu(slope.mean() - 1.5) ** 2,
                "The mean of all slopes is compared with the limit: flat places pay for steep ones.",
                "Each point has its own excess."),
        Mistake((slope - 1.5).square().mean(),
                "A slope below the limit costs as well: this penalty has two sides.", "For a flat critic it should be 0."),
    ])


def _check_points(name, answer):
    """Refuse points that do not lie anywhere on the lines: critics that are steep in one place only."""
    x, x_fake = torch.ones(400, 1, 2, 2), torch.full((400, 1, 2, 2), -3.0)

    def paid(function):
        return torch.as_tensor(answer(_Fold(function), x, x_fake, 1.0)).item()
    require(name, paid(lambda x: 9 * (x - x.mean(1, keepdim=True)) ** 2) < 1e-3,
            "The points are not on the lines between the pairs.",
            "One place on the line for each pair: how many random numbers does a picture need?")
    require(name, paid(lambda x: 9 * F.relu(x - 1.01) + 9 * F.relu(-3.01 - x)) < 1e-6,
            "Some points lie beyond the ends of the lines.",
            "Between 0 and 1: which random numbers are?")
    share = paid(lambda x: F.relu(x))           # slope 2 in the quarter of the line next to x: each pays 1 there
    require(name, 0.03 < share < 0.97, "All points have the same place on their lines, perhaps one of the ends.",
            "Each pair of pictures has a random place of its own.")
    require(name, 0.15 < share < 0.35,
            "The points are not spread evenly over the lines.", "Every place between 0 and 1 is equally likely.")
