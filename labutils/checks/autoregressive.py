"""Checks of the exercises on autoregressive models."""

from itertools import product

import torch
import torch.nn.functional as F
from torch import nn

from . import comparison, draws, unchanged

THIRDS, TURNS = (lambda channel, n: 3 * channel // n), (lambda channel, n: channel % 3)


def _mask(may_see, group=THIRDS):
    """Return a function of the exercise's arguments: a mask that is 1 where may_see(kind, input, output).

    Input and output are (row, column, group), the output's place is the middle of the kernel.
    """
    def mask(kind, n_out, n_in, kernel_size):
        middle = kernel_size // 2
        ones = [may_see(kind, (r, c, group(i, n_in)), (middle, middle, group(o, n_out)))
                for o, i, r, c in product(range(n_out), range(n_in), *2 * [range(kernel_size)])]
        return torch.tensor(ones).float().view(n_out, n_in, kernel_size, kernel_size)
    return mask


def _in_order(kind, seen, own):
    """Tell whether a number comes before another in the order of rows, columns and groups; kind "B": or is of it."""
    return seen < own or (kind == "B" and seen == own)


def _column_first(place):
    return place[1], place[0], place[2]


def _both_kinds(mask, *sizes):
    """The masks of both kinds, one above the other; what is no mask comes back as it is."""
    a, b = (mask(kind, *sizes) for kind in "AB")
    return torch.cat([torch.as_tensor(a).float(), torch.as_tensor(b).float()]) if a is not None else b


@comparison(cases=lambda: [("A", 3, 3, 3), ("A", 6, 9, 5), ("B", 12, 3, 3), ("B", 3, 12, 7)],
            call=lambda mask, kind, *sizes: _both_kinds(mask, *sizes))
def check_colour_mask(kind, n_out, n_in, kernel_size):
    """The mask (n_out, n_in, k, k) of a layer for three colours: its numbers in the order of their places."""
    return _mask(_in_order)(kind, n_out, n_in, kernel_size)


check_colour_mask.misconceptions = [
    (_mask(lambda kind, seen, own: seen[:2] < own[:2] or (kind == "B" and seen[:2] == own[:2])),
     "In the middle all channels are treated alike, as in a grey picture.",
     "Green may see the red of its own pixel, also with kind A. And may red see green with kind B?"),
    (_mask(lambda kind, seen, own: _in_order("BA"[kind == "B"], seen, own)),
     "Kinds A and B are exchanged.", "Which of the two belongs into the first layer, where a number would see itself?"),
    (_mask(lambda kind, seen, own: _in_order("A", seen, own)), "Kind B gives the mask of kind A.",
     "In a later layer, what stands in a group's own channels comes from earlier numbers only."),
    (_mask(lambda kind, seen, own: _in_order("B", seen, own)), "Kind A gives the mask of kind B.",
     "In the first layer, a group's own channel in the middle is the number to be predicted."),
    (_mask(lambda kind, seen, own: _in_order(kind, (*seen[:2], -seen[2]), (*own[:2], -own[2]))),
     "The order of the colours is reversed, or inputs and outputs are exchanged.",
     "Dimension 0 of a weight is the output. Does your red see green, or your green see red?"),
    (_mask(_in_order, TURNS), "The channels belong to R, G and B in turns.",
     "The first third of the channels belongs to red, the second to green, the last to blue."),
    (_mask(lambda kind, seen, own: seen[:2] <= own[:2]), "In the middle everything is seen, also later colours.",
     "Blue must stay hidden from red and from green."),
    (_mask(lambda kind, seen, own: seen[:2] < own[:2]), "In the middle nothing is seen.",
     "Green may see the red of its own pixel."),
    (_mask(lambda kind, seen, own: seen[:2] <= own[:2] and _in_order(kind, (0, 0, seen[2]), (0, 0, own[2]))),
     "The order of the colours is also applied to the pixels above and to the left.",
     "Of an earlier pixel all three colours are known."),
    (_mask(lambda kind, seen, own: _in_order(kind, _column_first(seen), _column_first(own))),
     "The mask is turned: it sees whole columns to the left and the pixels above.",
     "Dimension 2 of a weight counts the rows, dimension 3 the columns."),
    (_mask(lambda kind, seen, own: own[:2] < seen[:2] or (own[:2] == seen[:2] and _in_order(kind, seen, own))),
     "The mask sees the rows below and the pixels to the right.", "Row 0 of a kernel is the upper one."),
]

BEFORE = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]]).double()
AND_ITSELF = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 0, 0]]).double()


def _seen(first=BEFORE, later=AND_ITSELF, more=0):
    """Return a function of the exercise's arguments: where the gradient of a stack of such kernels is not 0."""
    def seen(n_layers, size, i, j):
        x = torch.zeros(1, 1, size, size, dtype=torch.double, requires_grad=True)
        y = x
        for kernel in [first] + [later] * (n_layers + more):
            y = F.conv2d(y, kernel[None, None], padding=1)
        gradient, = torch.autograd.grad(y[0, 0, i, j], x)
        return gradient[0, 0] != 0
    return seen


def _all_before(n_layers, size, i, j):
    return (torch.arange(size**2) < i * size + j).view(size, size)


def _symmetric(n_layers, size, i, j):
    """Both sides as the left one: no blind spot within reach."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    near = (i - rows <= n_layers + 1) & ((columns - j).abs() <= n_layers + 1)
    return near & _all_before(n_layers, size, i, j)


@comparison(cases=lambda: [(1, 9, 4, 4), (3, 13, 7, 5), (2, 7, 0, 3), (4, 11, 9, 10), (1, 6, 5, 0)])
def check_visible(n_layers, size, i, j):
    """Which pixels reach (i, j) through n_layers layers with mask B and one with mask A: bool (size, size)."""
    return _seen()(n_layers, size, i, j)


check_visible.misconceptions = [
    (_seen(first=AND_ITSELF), "The pixel sees itself: mask A is missing.",
     "The layer at the bottom, which reads the picture, has mask A."),
    (_seen(later=BEFORE), "Mask A is in every layer.", "In a layer with mask B a place sees itself as well."),
    (_seen(more=-1), "One layer is missing.", "There are n_layers with mask B, and one with mask A below them."),
    (_seen(more=1), "There is one layer too many.", "There are n_layers with mask B, and one with mask A below them."),
    (_all_before, "These are all earlier pixels. The stack does not see them all.",
     "How far up and how far to the right does one layer reach?"),
    (_symmetric, "The rectangle that the kernels span is taken, without its blind spot.",
     "To come one column to the right, a path has to go up one row."),
    (_seen(BEFORE.T.contiguous(), AND_ITSELF.T.contiguous()), "Rows and columns are exchanged.",
     "i is the row. A step goes to the row above, or to the left."),
    (_seen(BEFORE.flip(0, 1), AND_ITSELF.flip(0, 1)), "These are pixels that come later: the steps go the wrong way.",
     "From the output down, each step leads to an earlier place, or stays."),
]


class _Triangle(nn.Module):
    """Logits (B, 1, H, W) that depend on the earlier pixels by a triangular matrix; no network."""

    def __init__(self, seed, height, width):
        super().__init__()
        n = height * width
        weight, bias = draws(seed, (n, n), (n,))
        self.weight, self.bias = nn.Parameter(3 * weight.tril(-1)), nn.Parameter(bias)

    def forward(self, b):
        return (b.flatten(1) @ self.weight.T + self.bias).view_as(b)


def _gaps():
    for seed, n, height, width in ((0, 50, 3, 4), (1, 30, 5, 5)):
        b, u = (torch.special.ndtr(values) for values in draws(seed, *2 * [(n, 1, height, width)]))
        known = draws(seed + 2, (height, width))[0] > 0.3
        yield _Triangle(seed, height, width), b.round(), known, u
    yield _Triangle(5, 4, 3), b[:, :, :4, :3].round(), torch.arange(12).view(4, 3) < 6, u[:, :, :4, :3].clone()


def _draw(toss=torch.lt, places=lambda order: order, gap=lambda known: ~known, start=lambda b, known: b):
    """Return a function of the exercise's arguments, which draws one picture and one pixel after the other."""
    def draw(model, b, known, u):
        pictures, unknown = start(b.clone(), known), gap(known)
        for picture, uniforms in zip(pictures.detach(), u):
            for place in places(list(product(*map(range, known.shape)))):
                if unknown[place]:
                    p = model(picture[None]).sigmoid()[0, 0][place].detach()
                    picture[0][place] = toss(uniforms[0][place], p)
        return pictures
    return draw


def _at_once(model, b, known, u):
    return torch.where(known, b, (u < model(b * known).sigmoid()).float())


@comparison(cases=_gaps, before=[
    (unchanged(1, 2, 3), "The pictures, the mask or the uniforms that were handed over have been changed.",
     "A slice that is assigned to changes the caller's tensor. What has to be copied first?")])
def check_complete_picture(model, b, known, u):
    """The pictures b with all pixels that are not known drawn in raster order, from uniforms u: like b."""
    n_pixels, pictures = known.numel(), b.flatten(1).clone()
    for k in range(n_pixels):
        logit = pictures[:, :k] @ model.weight.detach()[k, :k] + model.bias.detach()[k]
        drawn = (torch.logit(u.flatten(1)[:, k]) < logit).float()
        pictures[:, k] = pictures[:, k] if known.flatten()[k] else drawn
    return pictures.view_as(b)


check_complete_picture.misconceptions = [
    (_at_once, "All pixels are drawn at once, from one pass: none knows what the others have become.",
     "The network has to look again after each pixel."),
    (_draw(toss=torch.gt), "The toss is reversed: a pixel becomes 1 with the probability 1 - p.",
     "A uniform number is below p with the probability p."),
    (_draw(toss=lambda u, p: p > 0.5), "Nothing is tossed: the more probable value is taken each time.",
     "Where do the uniforms come in?"),
    (_draw(toss=lambda u, p: p), "The result holds probabilities where pixels are asked for.",
     "0 or 1: compare with the uniform number."),
    (_draw(places=lambda order: sorted(order, key=lambda place: place[::-1])), "The pixels are drawn column by column.",
     "Raster order: row by row, as the model was trained."),
    (_draw(places=lambda order: order[::-1]), "The pixels are drawn from the last one to the first.",
     "Raster order begins at the upper left."),
    (_draw(gap=lambda known: known), "The known pixels are drawn, and the gap is left as it was.",
     "known is True where a pixel must stay."),
    (_draw(gap=torch.ones_like), "Known pixels are drawn as well.", "A pixel that is known must stay as it is."),
    (lambda model, b, known, u: torch.where(known, b, _draw(gap=torch.ones_like)(model, b, known, u)),
     "The gap is filled from a picture that was drawn freely, without a look at the known pixels.",
     "When the network is asked, the known pixels have to be in the picture."),
    (_draw(start=lambda b, known: torch.zeros_like(b)), "The known pixels are missing from the result.",
     "Start from the pictures, and draw only what is not known."),
]
