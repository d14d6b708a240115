"""Checks of the exercises of the lab autoencoder."""

import torch
import torch.nn.functional as F
from torch import nn

from ..data import InMemoryLoader
from . import Check, close, compare, draws, require, require_graph


@Check
def check_compress(answer):
    """Project (m, d) on the fewest principal directions of (n, d) that explain a share of the variance: (m, d)."""
    from sklearn.decomposition import PCA  # here, so that only this check waits for it
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
        compare(given, right, [
            (there_and_back(k, directions, mean, 0), "The mean has been taken off and never put back.",
                    "Look at a reconstruction: what is missing in every picture?"),
            (there_and_back(k, directions, 0, mean), "The mean is counted twice: it was never taken off before it was added.",
                    "The directions start at the mean, not at the origin. Where do the coordinates start?"),
            (there_and_back(fewest(raw_s**2), raw, 0, 0), "The data are not centred: the first direction points at the mean.",
                    "A principal direction shows how pictures differ from one another."),
            (there_and_back(k, directions, x_new.mean(0), x_new.mean(0)), "The mean of the new images is used.",
                    "A code must mean the same for any batch: which mean do directions and codes belong to?"),
            (there_and_back(fewest(s), directions, mean, mean),
                    "The share is counted in singular values, which are no variances.",
                    "A singular value has the unit of a pixel. Which unit has a variance?"),
            (there_and_back(k - 1, directions, mean, mean), "One component is missing: the share is not reached.",
                    "The first entry of a cumulative sum stands for how many components?"),
            (there_and_back(k + 1, directions, mean, mean), "One component too many: with one less the share is reached as well.",
                    "The first entry of a cumulative sum stands for how many components?"),
            *([(there_and_back(k, rows.T, mean, mean), "The wrong axis of V is cut.",
                       "Which of the two axes counts the directions, and which the pixels?")] if n >= d else []),
            (x_new, "The images come back as they were: all components are kept.",
                    "How many does the share ask for?"),
        ], tolerance=1e-3)
    compare(answer(line, torch.tensor([[0.0, 2.0], [5.0, 5.0]]), 0.9), [[1.0, 1.0], [5.0, 5.0]])


@Check
def check_transposed_size(answer):
    """Pixels along one side that a transposed convolution makes of n, with padding and output padding: a number."""
    for n, k, s, p, extra in ((6, 7, 4, 3, 2), (7, 4, 2, 1, 0), (7, 3, 2, 1, 1), (1, 7, 1, 0, 0), (9, 5, 3, 0, 2), (4, 2, 5, 0, 3)):
        right = F.conv_transpose2d(torch.zeros(1, 1, n, n), torch.zeros(1, 1, k, k), stride=s, padding=p,
                                   output_padding=extra).shape[-1]
        compare(answer(n, k, s, p, extra), right, [
            (right + 4 * p, "The padding makes the output larger.",
                    "It is the padding of the convolution that is undone. What did that one do to the picture?"),
            (right + p, "The padding is counted on one side only.", "A row of pixels has two ends."),
            (right + 2 * p, "The padding is not counted.", "Compare a layer with padding=0 and one with padding=1."),
            (right + extra, "The output padding is counted on both sides.",
                    "It belongs to the remainder of a division, and that is at one end."),
            (right - extra, "The output padding is not counted.",
                    "Two inputs of different sizes may shrink to the same one. Which of them is to come back?"),
            (right + s, "The copies of the kernel are counted as n steps.",
                    "Draw two copies: how many steps lie between the first and the last of n?"),
            ((n + 2 * p - k) // s + 1, "This is the size after a convolution, not after a transposed one.",
                    "Is the output to be smaller or larger than the input?"),
            (right - k, "The width of the last copy is not counted.",
                    "Where does the last copy start, and where does it end?"),
            (right - 1, "One pixel is missing.", "Count the case n = 1 by hand."),
        ])


class _Autoencoder(nn.Module):
    """A small autoencoder for checks: (B, 1, 28, 28) -> code (B, 3) -> images."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 784), nn.Unflatten(1, (1, 28, 28)))

    def forward(self, x):
        return self.decoder(self.encoder(x))


@Check
def check_encode_all(answer):
    """Codes (N, k) of all images of a loader, in its order, without a graph."""
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
        compare(given, right, [
            (right[:whole], "The last, shorter batch is left out.",
                    "How many codes should there be, and how many are there?"),
            (right[start:], "Only the last batch is returned.", "Is each pass of the loop kept somewhere?"),
            (right[:size], "Only the first batch is returned.", "Where does the return statement stand?"),
            (torch.cat([right, right.new_zeros(-n % size, 3)]), "The shorter batch is filled up with zeros.",
                    "A code for a picture that does not exist will be counted by everyone who comes later."),
            (torch.stack([part.mean(0) for part in right.split(size)]), "There is one row for each batch, not for each image.",
                    "Nothing is to be averaged here."),
            (pictures, "These are the reconstructions, not the codes.", "Which half of the network makes the code?"),
        ])
        require(not getattr(given, "requires_grad", False), "The codes carry their graph with them.",
                "All the activations of all batches stay in memory. Who is going to call backward?")


@Check
def check_corrupt(answer):
    """Images (B, 1, 28, 28) with normal noise of deviation sigma, cut off to 0..1; the argument stays as it was."""
    torch.manual_seed(0)
    x = draws(7, (40, 1, 28, 28))[0].sigmoid().round()     # not the seed of the noise
    kept = x.clone()
    noisy = answer(x, 0.5)
    require(isinstance(noisy, torch.Tensor) and noisy.shape == x.shape,
            f"The noisy images should have the shape {tuple(x.shape)}, not {tuple(getattr(noisy, 'shape', ()))}.",
            "One noisy image for each clean one. Does the function end in a return statement?")
    require(torch.equal(x, kept), "The clean images have been changed: nothing is left to compare with.",
            "Operators such as += and methods that end in _ write into the tensor that they are given.")
    require(noisy.min() >= 0 and noisy.max() <= 1, "Pixels lie outside of 0..1.",
            "What becomes of a white pixel that gets still more?")
    require(close(answer(x, 1e-14), x, 1e-6), "Where sigma is next to 0 the images change.", "Noise of no width is no noise.")
    require(not torch.equal(noisy, answer(x, 0.5)), "The noise is the same at each call.",
            "The network would learn this one pattern by heart. What fixes it?")
    grey, black = torch.full((60, 1, 28, 28), 0.5), torch.zeros(60, 1, 28, 28)
    noise = answer(grey, 0.1) - 0.5
    width = noise.std().item()
    require(not torch.equal(noise[0], noise[1]), "Every image of the batch gets the same noise.",
            "How many numbers do you draw, and how many pixels has the batch?")
    require(noise[0].std() > 0.01 * width, "Every pixel of an image gets the same noise: only the brightness changes.",
            "How many numbers do you draw, and how many pixels has the batch?")
    dark = answer(black, 0.1)
    require(dark.max() < 1 or (dark == 0).double().mean() > 0.1, "The images are stretched to 0..1, which moves every pixel.",
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
    require(abs((answer(black, 0.3) == 0).double().mean() - 0.5) < 0.02, "What leaves the range is not cut off.",
            "Folding or stretching moves other pixels as well. How many pixels of a black image should stay black?")


@Check
def check_denoising_loss(answer):
    """Squared error of what the model makes of the noisy images, against the clean ones: a scalar."""
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
        require(torch.equal(x, kept), "The clean images have been changed.", "The loss is to read them only.")
        compare(given, right, [
            (total(model(noisy), noisy) / b, "The network is rewarded for keeping the noise.",
                    "What should come out if the network were perfect? Compare with that."),
            (total(model(x), x) / b, "The noise is never used: this is a plain autoencoder.",
                    "What does the network get to see?"),
            (total(model(x), noisy) / b, "Clean and noisy images have changed places.",
                    "What goes in, and what should come out?"),
            (total(noisy, x) / b, "The network does not appear: this is the amount of noise.",
                    "Which images is the network to draw?"),
            (F.mse_loss(model(noisy), x), "The error is averaged over the pixels as well.",
                    "Sums over pixels, means over images."),
            (total(model(noisy), x), "The batch is summed: the loss would grow with the size of the batch.",
                    "Sums over pixels, means over images."),
            (total(model(noisy), x).sqrt(), "A root of a sum is no mean squared error.",
                    "Look at its gradient in the box above."),
            ((model(noisy) - x).flatten(1).norm(dim=1).mean(), "A root of a sum is no squared error.",
                    "Look at its gradient in the box above."),
            ((model(noisy) - x).abs().sum() / b, "These are absolute errors.", "The squared error is asked for."),
        ], tolerance=1e-3)
        require_graph(given)
