"""Checks of the exercises on comparing generators."""

import math
from itertools import combinations

import numpy as np
import torch
from scipy.spatial import KDTree
from scipy.stats import permutation_test, ttest_ind
from torch.distributions import Uniform

from . import comparison, draws, unchanged


def _nearest(a, b):
    """Distance from each row of a to the nearest row of b."""
    return torch.as_tensor(KDTree(b).query(a)[0])


def _clouds():
    """Honest samples, copies, near copies, samples that avoid the training data, few of many, in several dimensions."""
    for seed, n, m, d, copied, shift in ((0, 40, 30, 2, 0, 0.0), (1, 20, 50, 5, 20, 0.0), (2, 30, 30, 3, 11, 0.01),
                                         (3, 25, 40, 2, 0, 1.0), (4, 200, 8, 4, 60, 0.1)):
        samples, train, held_out = draws(seed, (n, d), (m, d), (m, d))
        samples[:copied] = train.repeat(1 + copied // m, 1)[:copied] + shift / 10
        yield samples, train + shift, held_out


@comparison(cases=lambda: list(_clouds()),
            before=[(unchanged(0, 1, 2), "The features that were handed over have been changed.",
                     "Some functions work in place.")])
def check_copied_share(samples, train, held_out):
    """Share of the samples (n, d) that are nearer to a row of train (m, d) than to any of held_out (m, d): a scalar."""
    return (_nearest(samples, train) < _nearest(samples, held_out)).double().mean()


check_copied_share.misconceptions = [
    (lambda samples, train, held_out: (_nearest(samples, train) > _nearest(samples, held_out)).double().mean(),
     "This is the share of the samples that are nearer to the held-out pictures.",
     "What should come out for exact copies: 0 or 1?"),
    (lambda samples, train, held_out: (_nearest(train, samples) < _nearest(held_out, samples)).double().mean(),
     "The search goes the wrong way: from each real picture to its nearest sample.",
     "Whose nearest neighbour is asked for, and how many answers does that give?"),
    (lambda samples, train, held_out: (_nearest(samples, train).mean() < _nearest(samples, held_out).mean()).double(),
     "The mean distances are compared, which gives a yes or no for all samples together.",
     "Decide for each sample, then take the share."),
    (lambda samples, train, held_out: _nearest(samples, train).mean() / _nearest(samples, held_out).mean(),
     "This is a ratio of mean distances: a few samples that are far from everything decide it.",
     "Decide for each sample, then take the share."),
    (lambda samples, train, held_out: (torch.cdist(samples, train).mean(1)
                                       < torch.cdist(samples, held_out).mean(1)).double().mean(),
     "The distance to a set is taken as the mean over the set; a copy is near to one picture of it only.",
     "Which of all the distances of one sample shows that it is a copy?"),
    (lambda samples, train, held_out: (_nearest(samples, train) < _nearest(samples, held_out)).double().sum(),
     "This counts the samples; their share is asked for.", "Divide by what?"),
    (lambda samples, train, held_out: (_nearest(samples, train) == 0).double().mean(),
     "This finds exact copies only. A copy that is moved a little escapes.", "Compare two distances."),
]


def _means(a, b, axis):
    return abs(np.mean(a, axis=axis) - np.mean(b, axis=axis))


def _p(a, b, statistic=_means, alternative="greater", **options):
    """p-value of SciPy's exact permutation test."""
    return permutation_test((np.array(a, float), np.array(b, float)), statistic, vectorized=True, n_resamples=np.inf,
                            alternative=alternative, **options).pvalue


def _strict(a, b):
    """Share of the splits whose means differ by more than those of a and b."""
    values, found, n = np.array([*a, *b], float), _means(a, b, 0), len(a)
    wider = [_means(np.array(first), np.delete(values, index), 0) > found + 1e-9
             for index in combinations(range(len(values)), n) for first in [values[list(index)]]]
    return np.mean(wider)


@comparison(cases=lambda: [((4.0, 3.5, 8.25, 1.0, 2.0), (0.5, 9.0, 4.75, 6.5, 7.25)),
                           ((1.0, 2.0, 3.0), (11.0, 12.0, 13.0)), ((1.0, 5.0), (2.0, 2.5, 7.0, 3.0)),
                           ((0.5, 0.25, 0.75, 0.5, 1.5), (0.5, 0.75, 1.25, 2.0)),
                           ((554.0, 556.0, 585.0, 568.0), (560.0, 541.0, 533.0, 550.0, 548.0))])
def check_permutation_p(a, b):
    """Share of all splits whose means differ, in either direction, by at least as much as those found: a scalar."""
    return _p(a, b)


check_permutation_p.misconceptions = [
    (_strict, "The split that was found is not counted: only larger differences are.",
     "At least as large: can the share be 0?"),
    (lambda a, b: _p(a, b, lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis)),
     "Only one direction is counted: that a is larger.", "In either direction: what about the sign of the difference?"),
    (lambda a, b: _p(a, b, lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis), "less"),
     "Only one direction is counted: that b is larger.", "In either direction: what about the sign of the difference?"),
    (lambda a, b: 1 - _strict(a, b), "This is the share of the splits whose difference is no larger.",
     "A small value shall mean: hardly chance."),
    (lambda a, b: ttest_ind(a, b).pvalue, "This is the p-value of a t-test, which assumes normal distributions.",
     "Try all splits, and count."),
    (lambda a, b: _p(a, b, lambda x, y, axis: abs(np.median(x, axis=axis) - np.median(y, axis=axis))),
     "The medians are compared; the means are asked for.", "Which statistic does the task name?"),
]


@comparison(cases=lambda: [(0.0, 784), (-1064.0, 784), (300.0, 784, 256), (-5.5, 12, 16), (7.0, 3, 2),
                           (-100.0, 100, 1000)])
def check_bits_per_pixel(nats, n_pixels, levels=256):
    """Bits a pixel of a picture with so many levels, of a density with so many nats over pixels in 0..1: a scalar.

    A flat density over a cube has the same number of nats, and its cells can be counted.
    """
    side = torch.tensor(levels * math.exp(nats / n_pixels), dtype=torch.float64)
    return Uniform(torch.zeros_like(side), side).entropy() / math.log(2)


check_bits_per_pixel.misconceptions = [
    (lambda nats, n_pixels, levels=256: nats / n_pixels / math.log(2),
     "The width of the cells is missing: this number changes with the unit of the pixels.",
     "How many bits should the flat density with 0 nats need for a byte?"),
    (lambda nats, n_pixels, levels=256: nats / n_pixels / math.log(2) - math.log2(levels),
     "The cells count the wrong way: finer levels cost more bits.", "Is the probability of a cell larger or smaller "
     "than the density?"),
    (lambda nats, n_pixels, levels=256: nats / n_pixels + math.log(levels), "This is in nats; bits are asked for.",
     "How many nats are a bit?"),
    (lambda nats, n_pixels, levels=256: nats / math.log(2) + n_pixels * math.log2(levels),
     "This is the whole picture; one pixel is asked for.", "Divide by what?"),
    (lambda nats, n_pixels, levels=256: (nats + math.log(levels)) / (n_pixels * math.log(2)),
     "Only one pixel gets the width of its cell; the volume has all of them.", "What is the volume of a cube with so "
     "many edges?"),
    (lambda nats, n_pixels, levels=256: (nats / math.log(2) + n_pixels * 8) / n_pixels,
     "Eight bits are taken for granted, whatever the number of levels.", "What if there are two levels?"),
    (lambda nats, n_pixels, levels=256: (nats + n_pixels * math.log(levels)) * math.log(2) / n_pixels,
     "Nats are turned into bits the wrong way round.", "Is a nat more or less than a bit?"),
]
