"""Checks of the exercises on the autoencoder."""

import torch
import torch.nn.functional as F
from torch import nn

from ..data import InMemoryLoader
from . import Check, close, comparison, draws, has_graph, require, unchanged


def _fit(x_train, share):
    from sklearn.decomposition import PCA  # here, so that only this check waits for it
    return PCA(share, svd_solver="full").fit(x_train.numpy())


def _project(x_train, x_new, share, more=0):
    """Project on the directions that explain a share, and on some more or less, by the library."""
    pca = _fit(x_train, share)
    if more:
        pca = _fit(x_train, pca.n_components_ + more)
    return torch.from_numpy(pca.inverse_transform(pca.transform(x_new.numpy())))


def _project_on_rows(x_train, x_new, share):
    directions = torch.linalg.svd(x_train - x_train.mean(0), full_matrices=False)[2]
    wrong = directions.T[:_fit(x_train, share).n_components_]
    return (x_new - x_train.mean(0)) @ wrong.T @ wrong + x_train.mean(0)


def _project_by_deviations(x_train, x_new, share):
    s = torch.from_numpy(_fit(x_train, None).singular_values_)
    return _project(x_train, x_new, int((s.cumsum(0) / s.sum() < share).sum()) + 1)


def _pictures():
    for seed, (n, m, d), share in ((0, (60, 5, 12), 0.6), (1, (200, 3, 20), 0.95), (2, (12, 4, 30), 0.6)):
        base, new, shift, axes = draws(seed, (n, d), (m, d), (1, d), (d, d))
        turn, scale = torch.linalg.qr(axes)[0], torch.linspace(0.3, 3, d)
        yield (base * scale) @ turn + 2 * shift, (new * scale + 1) @ turn + 2 * shift, share
    yield torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]), torch.tensor([[0.0, 2.0], [5.0, 5.0]]), 0.9   # on a line


@comparison(cases=_pictures, tolerance=1e-3)
def check_compress(x_train, x_new, share):
    """Project (m, d) on the fewest principal directions of (n, d) that explain a share of the variance: (m, d)."""
    return _project(x_train, x_new, share)


check_compress.misconceptions = [
    (lambda x_train, x_new, share: _project(x_train, x_new, share) - x_train.mean(0),
     "The mean has been taken off and never put back.", "Look at a reconstruction: what is missing in every picture?"),
    (lambda x_train, x_new, share: _project(x_train, x_new + x_train.mean(0), share),
     "The mean is counted twice: it was never taken off before it was added.",
     "The directions start at the mean, not at the origin. Where do the coordinates start?"),
    (lambda x_train, x_new, share: _project(torch.cat([x_train, -x_train]), x_new, share),      # their mean is 0
     "The data are not centred: the first direction points at the mean.",
     "A principal direction shows how pictures differ from one another."),
    (lambda x_train, x_new, share: _project(x_train - x_train.mean(0) + x_new.mean(0), x_new, share),
     "The mean of the new images is used.",
     "A code must mean the same for any batch: which mean do directions and codes belong to?"),
    (_project_by_deviations, "The share is counted in singular values, which are no variances.",
     "A singular value has the unit of a pixel. Which unit has a variance?"),
    (lambda *arguments: _project(*arguments, more=-1), "One component is missing: the share is not reached.",
     "The first entry of a cumulative sum counts how many components?"),
    (lambda *arguments: _project(*arguments, more=1),
     "One component too many: with one less the share is reached as well.",
     "The first entry of a cumulative sum counts how many components?"),
    (_project_on_rows, "The wrong axis of V is cut.",
     "Which of the two axes counts the directions, and which the pixels?"),
    (lambda x_train, x_new, share: x_new, "The images come back as they were: all components are kept.",
     "How many does the share ask for?"),
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


class _Autoencoder(nn.Module):
    """A small autoencoder for checks: (B, 1, 28, 28) -> code (B, 3) -> images."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 784), nn.Unflatten(1, (1, 28, 28)))

    def forward(self, x):
        return self.decoder(self.encoder(x))


def _models():
    for seed, n, size in ((0, 11, 4), (1, 8, 4), (2, 5, 8), (3, 1, 1)):
        images = (255 * draws(seed, (n, 1, 28, 28))[0].sigmoid()).to(torch.uint8)
        torch.manual_seed(seed)
        yield _Autoencoder(), InMemoryLoader(images, torch.arange(n), size)


def _codes(model, loader):
    """The codes of all images at once."""
    return model.encoder(loader.to_float(loader.images)).detach()


def _batches(model, loader):
    return _codes(model, loader).split(loader.batch_size)


@comparison(cases=_models, after=[
    (lambda given, *_: not getattr(given, "requires_grad", False), "The codes carry their graph with them.",
     "All the activations of all batches stay in memory. Who is going to call backward?")])
def check_encode_all(model, loader):
    """Codes (N, k) of all images of a loader, in its order, without a graph."""
    return _codes(model, loader)


check_encode_all.misconceptions = [
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


def _noisy_images():
    weight = torch.tensor(0.5, requires_grad=True)
    for seed, shape in ((0, (4, 1, 28, 28)), (1, (7, 3, 5, 5)), (2, (1, 1, 2, 2))):
        x, noisy = draws(seed, shape, shape)
        yield lambda images: 0.3 + weight * images, x.sigmoid(), noisy.sigmoid()


def _error(a, b):
    return F.mse_loss(a, b, reduction="sum") / len(a)


@comparison(cases=_noisy_images, tolerance=1e-3, after=[has_graph],
            before=[(unchanged(1), "The clean images have been changed.", "The loss is to read them only.")])
def check_denoising_loss(model, x, noisy):
    """Squared error of what the model makes of the noisy images, against the clean ones: a scalar."""
    return _error(model(noisy), x)


check_denoising_loss.misconceptions = [
    (lambda model, x, noisy: _error(model(noisy), noisy), "The network is rewarded for keeping the noise.",
     "What should come out if the network were perfect? Compare with that."),
    (lambda model, x, noisy: _error(model(x), x),
     "The noise is never used: this is a plain autoencoder.", "What does the network get to see?"),
    (lambda model, x, noisy: _error(model(x), noisy),
     "Clean and noisy images have changed places.", "What goes in, and what should come out?"),
    (lambda model, x, noisy: _error(noisy, x),
     "The network does not appear: this is the amount of noise.", "Which images is the network to draw?"),
    (lambda model, x, noisy: F.mse_loss(model(noisy), x),
     "The error is averaged over the pixels as well.", "Sums over pixels, means over images."),
    (lambda model, x, noisy: len(x) * _error(model(noisy), x),
     "The batch is summed: the loss would grow with the size of the batch.", "Sums over pixels, means over images."),
    (lambda model, x, noisy: torch.dist(model(noisy), x),
     "A root of a sum is no mean squared error.", "Look at its gradient in the box above."),
    (lambda model, x, noisy: F.pairwise_distance(model(noisy).flatten(1), x.flatten(1), eps=0).mean(),
     "A root of a sum is no squared error.", "Look at its gradient in the box above."),
    (lambda model, x, noisy: F.l1_loss(model(noisy), x, reduction="sum") / len(x),
     "These are absolute errors.", "The squared error is asked for."),
]
