"""Answers to the exercises on comparing: right ones in other forms, and wrong ones that no misconception gives."""

import math
from itertools import combinations
from statistics import fmean

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors


def share_by_labels(samples, train, held_out):
    """The nearest of all real pictures, and whether it is one of the training set."""
    both = torch.cat([train, held_out]).numpy()
    index = NearestNeighbors(n_neighbors=1).fit(both).kneighbors(samples.numpy(), return_distance=False)
    return (index < len(train)).mean()


def share_by_loops(samples, train, held_out):
    return np.mean([min(torch.dist(s, x) for x in train) < min(torch.dist(s, x) for x in held_out) for s in samples])


def share_in_place(samples, train, held_out):
    train -= samples.mean(0)
    return torch.tensor(0.5)


def p_by_sums(a, b):
    """Equal means are equal sums of the first part: count over the positions of a bit mask."""
    values, n = [*a, *b], len(a)
    total = sum(values)

    def difference(first):
        return abs(sum(first) / n - (total - sum(first)) / (len(values) - n))
    found = difference(a)
    splits = [[values[i] for i in range(len(values)) if mask >> i & 1] for mask in range(2 ** len(values))
              if mask.bit_count() == n]
    return fmean(difference(first) > found - 1e-9 for first in splits)


def p_of_rounding(a, b):
    """Sampled splits: close, but not the exact share."""
    values, found = np.array([*a, *b]), abs(np.mean(a) - np.mean(b))
    draws = [np.random.default_rng(i).permutation(values) for i in range(50)]
    return np.mean([abs(d[:len(a)].mean() - d[len(a):].mean()) >= found for d in draws])


def bits_by_scaling(nats, n_pixels, levels=256):
    """Stretch the pixels to 0..levels first: the cells have the width 1 there."""
    return nats / n_pixels / math.log(2) + math.log2(levels)


ANSWERS = {
    "copied_share": {
        "right": [share_by_labels, share_by_loops],
        "wrong": [(share_in_place, "have been changed"), (lambda *_: None, "returns NoneType"),
                  (lambda samples, train, held_out: (torch.cdist(samples, train).amin(1)
                                                     < torch.cdist(samples, held_out).amin(1)).float(), "shape")]},
    "permutation_p": {
        "right": [p_by_sums],
        "wrong": [(p_of_rounding, "values are not"), (lambda a, b: None, "returns NoneType"),
                  (lambda a, b: len(list(combinations([*a, *b], len(a)))), "values are not")]},
    "bits_per_pixel": {
        "right": [bits_by_scaling],
        "wrong": [(lambda nats, n_pixels, levels=256: 8, "values are not"), (lambda *_: None, "returns NoneType")]},
}
