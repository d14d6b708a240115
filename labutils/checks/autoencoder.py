"""Checks of the exercises on the autoencoder."""

import torch
import torch.nn.functional as F
from torch import nn

from ..data import InMemoryLoader
from . import Check, close, comparison, draws, require, unchanged


def _complete(x, visible, mean, v, k, solve=None, keep=True, shift=None):
    """Fill hidden pixels from the first k directions; `solve` gives the codes of rows, a library if it is None."""
    from scipy.linalg import lstsq      # here, so that only this check waits for it
    x, mean, v, seen = x.double(), mean.double(), v.double()[:, :k], visible.numpy()
    rows = (x - (mean if shift is None else shift))
    z = solve(rows, v) if solve else torch.from_numpy(lstsq(v[seen].numpy(), rows[:, seen].numpy().T)[0].T)
    return torch.where(visible & keep, x, mean + z @ v.T)


def _half_hidden():
    for seed, n, d, k, hidden in ((0, 40, 12, 3, slice(6, None)), (1, 60, 20, 5, slice(None, None, 3)),
                                  (2, 12, 30, 1, slice(0, 28)), (3, 50, 10, 4, slice(0, 1))):
        base, shift, axes, noise = draws(seed, (n, d), (1, d), (d, d), (7, d))
        x = base @ (torch.linalg.qr(axes)[0] * torch.linspace(3, 0.3, d)).T + 2 * shift
        mean, v = x.mean(0), torch.linalg.svd(x - x.mean(0), full_matrices=False)[2].T
        visible = torch.ones(d, dtype=torch.bool)
        visible[hidden] = False
        yield torch.where(visible, x[:7], 3 * noise), visible, mean, v, k       # what is hidden holds anything


@comparison(cases=_half_hidden, tolerance=1e-3, before=[
    (unchanged(0), "The given images have been changed.", "Assigning to some pixels of a tensor writes into it.")])
def check_complete(x, visible, mean, v, k):
    """Images (n, d) whose hidden pixels are those of the point of PCA's subspace that fits the visible ones best."""
    return _complete(x, visible, mean, v, k)


check_complete.misconceptions = [
    (lambda x, visible, mean, v, k: _complete(x * visible, visible, mean, v, k, lambda rows, v: rows @ v),
     "The hidden pixels count as black pixels.",
     "They are unknown: the code may be chosen by the visible ones only. How many equations are there?"),
    (lambda x, visible, mean, v, k: _complete(x, visible, mean, v, k, lambda rows, v: (rows * visible) @ v),
     "The hidden pixels count as pixels of the mean, which pulls the code towards zero.",
     "Without some of its rows, are the columns of V still orthonormal? If not, the transpose is no inverse."),
    (lambda x, visible, mean, v, k: _complete(x, visible, mean, v, k, lambda rows, v: rows @ v),
     "The code is computed from the hidden pixels, too.", "What may the function know about a hidden pixel?"),
    (lambda x, visible, mean, v, k: _complete(x, visible, mean, v, k, keep=False),
     "The visible pixels have changed, too.", "They are known. Which pixels are asked for?"),
    (lambda x, visible, mean, v, k: _complete(x, visible, mean, v, k, shift=0),
     "The mean has not been taken off before the code is computed.",
     "A code counts from the mean picture, not from black."),
    (lambda x, visible, mean, v, k: torch.where(visible, x, _complete(x, visible, mean, v, k) - mean),
     "The mean has not been put back.", "The code tells how a picture differs from the mean picture."),
    (lambda x, visible, mean, v, k: torch.where(visible, x, mean),
     "Every picture gets the same filling, the mean.",
     "What do the visible pixels say about the picture? How many unknowns has the code?"),
    (lambda x, visible, mean, v, k: _complete(x, ~visible, mean, v, k),
     "Hidden and visible pixels have changed places.", "What does True stand for in `visible`?"),
    (lambda x, visible, mean, v, k: _complete(x, visible, mean, v, k)[:, ~visible],
     "Only the hidden pixels are returned.", "The whole pictures are asked for."),
]


def _size(n, kernel, stride, padding, output_padding):
    """Pixels along one side after a transposed convolution, by the library."""
    image, weight = torch.zeros(1, 1, n, n), torch.zeros(1, 1, kernel, kernel)
    return F.conv_transpose2d(image, weight, None, stride, padding, output_padding).shape[-1]


@comparison(cases=lambda: [(6, 7, 4, 3, 2), (7, 4, 2, 1, 0), (7, 3, 2, 1, 1), (1, 7, 1, 0, 0), (9, 5, 3, 0, 2),
                           (4, 2, 5, 0, 3)])
def check_transposed_size(n, kernel, stride, padding, output_padding):
    """Pixels along one side that a transposed convolution makes of n, with padding and output padding: a number."""
    return _size(n, kernel, stride, padding, output_padding)


check_transposed_size.misconceptions = [
    (lambda n, k, s, p, extra: _size(n, k, s, p, extra) + 4 * p, "The padding makes the output larger.",
     "It is the padding of the convolution that is undone. What did that one do to the picture?"),
    (lambda n, k, s, p, extra: _size(n, k, s, p, extra) + p,
     "The padding is counted on one side only.", "A row of pixels has two ends."),
    (lambda n, k, s, p, extra: _size(n, k, s, 0, extra),
     "The padding is not counted.", "Compare a layer with padding=0 and one with padding=1."),
    (lambda n, k, s, p, extra: _size(n, k, s, p, extra) + extra, "The output padding is counted on both sides.",
     "It belongs to the remainder of a division, and that is at one end."),
    (lambda n, k, s, p, extra: _size(n, k, s, p, 0), "The output padding is not counted.",
     "Two inputs of different sizes may shrink to the same one. Which of them is to come back?"),
    (lambda n, k, s, p, extra: _size(n + 1, k, s, p, extra), "The copies of the kernel are counted as n steps.",
     "Draw two copies: how many steps are there between the first and the last of n?"),
    (lambda n, k, s, p, extra: (n + 2 * p - k) // s + 1,
     "This is the size after a convolution, not after a transposed one.",
     "Is the output to be smaller or larger than the input?"),
    (lambda n, k, s, p, extra: _size(n, k, s, p, extra) - k, "The width of the last copy is not counted.",
     "Where does the last copy start, and where does it end?"),
    (lambda n, k, s, p, extra: _size(n, k, s, p, extra) - 1, "One pixel is missing.", "Count the case n = 1 by hand."),
]


class _Spy(nn.Module):
    """Leaves codes as they are in evaluation mode, and adds 1 in training mode; notes the largest batch."""

    largest = 0

    def forward(self, z):
        self.largest = max(self.largest, len(z))
        return z + self.training


class _Autoencoder(nn.Module):
    """A small autoencoder for checks: (B, 1, 28, 28) -> code (B, 3) -> images. It starts in training mode."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 3), _Spy())
        self.decoder = nn.Sequential(nn.Linear(3, 784), nn.Unflatten(1, (1, 28, 28)))

    def forward(self, x):
        return self.decoder(self.encoder(x))


def _models():
    for seed, n, size in ((0, 11, 4), (1, 8, 4), (2, 5, 8), (3, 3, 1)):
        images = (255 * draws(seed, (n, 1, 28, 28))[0].sigmoid()).to(torch.uint8)
        torch.manual_seed(seed)
        yield _Autoencoder(), InMemoryLoader(images, torch.arange(n), size)


def _codes(model, loader):
    """The codes of all images at once, in evaluation mode."""
    return model.eval().encoder(loader.to_float(loader.images)).detach()


def _batches(model, loader):
    return _codes(model, loader).split(loader.batch_size)


@comparison(cases=_models, after=[
    (lambda given, *_: not getattr(given, "requires_grad", False), "The codes carry their graph with them.",
     "All the activations of all batches stay in memory. Who is going to call backward?"),
    (lambda given, used, _: used[0].encoder[-1].largest <= used[1].batch_size,
     "The codes are right, but more images than a batch went through the network at once.",
     "A larger set would not fit into memory. What does the loader give, one after another?")])
def check_encode_all(model, loader):
    """Codes (N, k) of all images of a loader, in its order, without a graph, in evaluation mode."""
    return _codes(model, loader)


check_encode_all.misconceptions = [
    (lambda model, loader: model.train().encoder(loader.to_float(loader.images)),
     "The network is still in training mode.",
     "Some layers behave otherwise in training. Which method of a module switches that off?"),
    (lambda model, loader: _codes(model, loader)[:loader.n_images // loader.batch_size * loader.batch_size],
     "The last, shorter batch is left out.", "How many codes should there be, and how many are there?"),
    (lambda model, loader: _batches(model, loader)[-1],
     "Only the last batch is returned.", "Is each pass of the loop kept somewhere?"),
    (lambda model, loader: _batches(model, loader)[0],
     "Only the first batch is returned.", "Where in the loop is the return statement?"),
    (lambda model, loader: F.pad(_codes(model, loader), (0, 0, 0, -loader.n_images % loader.batch_size)),
     "The shorter batch is filled up with zeros.",
     "A code for a picture that does not exist will be counted by everyone who comes later."),
    (lambda model, loader: torch.stack([batch.mean(0) for batch in _batches(model, loader)]),
     "There is one row for each batch, not for each image.", "Nothing is to be averaged here."),
    (lambda model, loader: model.decoder(_codes(model, loader)),
     "These are the reconstructions, not the codes.", "Which half of the network makes the code?"),
]


@Check
def check_corrupt(answer):
    """Images (B, 1, 28, 28) with normal noise of deviation sigma, cut off to 0..1; the argument stays as it was."""
    torch.manual_seed(0)
    x = draws(7, (40, 1, 28, 28))[0].sigmoid().round()     # not the seed of the noise
    before = x.clone()
    noisy = answer(x, 0.5)
    require(isinstance(noisy, torch.Tensor) and noisy.shape == x.shape,
            f"The noisy images should have the shape {tuple(x.shape)}, not {tuple(getattr(noisy, 'shape', ()))}.",
            "One noisy image for each clean one. Does the function end in a return statement?")
    require(torch.equal(x, before), "The clean images have been changed: nothing is left to compare with.",
            "Operators such as += and methods that end in _ write into the tensor that they are given.")
    require(noisy.min() >= 0 and noisy.max() <= 1, "Pixels are outside of 0..1.",
            "What becomes of a white pixel that gets still more?")
    require(close(answer(x, 1e-14), x, 1e-6), "Where sigma is next to 0 the images change.",
            "Noise of no width is no noise.")
    require(not torch.equal(noisy, answer(x, 0.5)), "The noise is the same at each call.",
            "The network would learn this one pattern by heart. What fixes it?")
    black = torch.zeros(60, 1, 28, 28)
    _check_noise(answer(black + 0.5, 0.1) - 0.5, answer(black, 0.1))
    require(abs((answer(black, 0.3) == 0).double().mean() - 0.5) < 0.02, "What leaves the range is not cut off.",
            "Folding or stretching moves other pixels as well. How many pixels of a black image should stay black?")


def _check_noise(noise, dark):
    """Refuse noise of grey images that is not normal with deviation 0.1, and black images `dark` that it stretches."""
    from scipy.stats import kstest      # here, so that only this check waits for it
    width = noise.std().item()
    require(not torch.equal(noise[0], noise[1]), "Every image of the batch gets the same noise.",
            "How many numbers do you draw, and how many pixels has the batch?")
    require(noise[0].std() > 0.01 * width, "Every pixel of an image gets the same noise: only the brightness changes.",
            "How many numbers do you draw, and how many pixels has the batch?")
    require(dark.max() < 1 or (dark == 0).double().mean() > 0.1,
            "The images are stretched to 0..1, which moves every pixel.",
            "Only what has left the range needs treatment.")
    require(abs(noise.mean()) < 0.01, "On average the pixels become lighter or darker.",
            "The mean of the noise should be zero: look at the range of the function that draws it.")
    require(abs(width - 0.01) > 0.002, "The deviation is sigma squared.", "Is sigma a deviation or a variance here?")
    require(abs(width - 0.1**0.5) > 0.05, "The deviation is the root of sigma.",
            "Is sigma a deviation or a variance here?")
    require(width < 0.3, "The noise has the same width for every sigma.", "Where does sigma enter?")
    require(noise.abs().max() > 0.25, "The noise is not normal: its tails are missing.",
            "Which function draws from a normal distribution?")
    require(abs(width - 0.1) < 0.005, f"The deviation of the noise is {width:.3f} where sigma is 0.1.",
            "Measure it yourself, on a grey image.")
    require(kstest(noise.flatten().numpy() / width, "norm").statistic < 0.015,
            "The deviation is right, but the noise is not normal.",
            "Plot a histogram of it beside the density. Which function draws from a normal distribution?")


def _noisy_images():
    for seed, n, d, sigma in ((0, 50, 6, 0.5), (1, 200, 12, 2.0), (2, 8, 15, 1.0), (3, 30, 5, 0.01)):
        base, shift, axes, new = draws(seed, (n, d), (1, d), (d, d), (4, d))
        x = base @ (torch.linalg.qr(axes)[0] * torch.linspace(3, 0.3, d)).T + 2 * shift
        _, s, vt = torch.linalg.svd(x - x.mean(0), full_matrices=False)
        yield new + 2 * shift, x.mean(0), vt.T, s, n, sigma


def _denoise(noisy, mean, v, s, n, sigma):
    """The linear map of least expected squared error, cov(clean, noisy) cov(noisy)^-1, without the axes of PCA."""
    clean = (v * s.square() / n) @ v.T
    weights = torch.linalg.solve((clean + sigma**2 * torch.eye(len(mean))).double(), clean.double())
    return mean + (noisy - mean).double() @ weights


def _shrunk(weight):
    """Return an answer that multiplies the coordinate along the j-th direction by weight(s, n, sigma)_j."""
    return lambda noisy, mean, v, s, n, sigma: mean + (noisy - mean) @ v * weight(s, n, sigma) @ v.T


@comparison(cases=_noisy_images, tolerance=1e-3)
def check_denoise(noisy, mean, v, s, n, sigma):
    """The linear estimate (m, d) of images with the least squared error, from images with normal noise."""
    return _denoise(noisy, mean, v, s, n, sigma)


check_denoise.misconceptions = [
    (_shrunk(lambda s, n, sigma: s.square() / (s.square() + sigma**2)),
     "The variance of a direction is not divided by the number of images.",
     "A sum of squares grows with the number of images, and a variance does not."),
    (_shrunk(lambda s, n, sigma: s.square() / n / (s.square() / n + sigma)),
     "A variance is added to a deviation.", "Which unit has sigma, and which one has its square?"),
    (_shrunk(lambda s, n, sigma: s / n**0.5 / (s / n**0.5 + sigma)),
     "Deviations are compared, and errors count in squares.", "Write down the expected squared error and derive it."),
    (_shrunk(lambda s, n, sigma: (s.square() / n / (s.square() / n + sigma**2)).sqrt()),
     "The pictures have the right variance, not the least error.",
     "Write down the expected squared error of one coordinate, and set its derivative to zero."),
    (_shrunk(lambda s, n, sigma: sigma**2 / (s.square() / n + sigma**2)),
     "This is what should be taken away: the estimated noise, on the mean.",
     "What should become of a direction with much signal and little noise?"),
    (_shrunk(lambda s, n, sigma: (s.square() / n > sigma**2).float()),
     "Each direction is kept or dropped as a whole.",
     "A factor of 1 keeps all the noise of a direction. Which factor has the least expected error?"),
    (_shrunk(lambda s, n, sigma: torch.ones_like(s)), "Nothing is made smaller: the noise is still there.",
     "In which directions is there more noise than signal?"),
    (lambda noisy, mean, v, s, n, sigma: _denoise(noisy, 0 * mean, v, s, n, sigma),
     "The mean is made smaller, too.", "The variances are those around the mean picture."),
    (lambda noisy, mean, v, s, n, sigma: _denoise(noisy, mean, v, s, n, sigma) - mean,
     "The mean has been taken off and never put back.", "Look at a picture: what is missing?"),
]
