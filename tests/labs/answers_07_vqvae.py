"""Answers to the exercises on discrete codes: right ones in other forms, and wrong ones that no misconception gives."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def loss_by_mse(z, e, commitment):
    """Both terms by a function for means over all numbers."""
    d = z.shape[1]
    return d * F.mse_loss(e, z.detach()) + commitment * d * F.mse_loss(z, e.detach())


def loss_backwards(z, e, commitment):
    """The difference the other way round, one point after the other."""
    total = 0
    for point, vector in zip(z, e):
        total = total + ((vector - point.detach()) ** 2).sum() + commitment * ((vector.detach() - point) ** 2).sum()
    return total / len(z)


def loss_by_one_norm(z, e, commitment):
    return (z.detach() - e).abs().sum(1).mean() + commitment * (z - e.detach()).abs().sum(1).mean()


def perplexity_by_numpy(codes, n_codes):
    _, counts = np.unique(codes.numpy(), return_counts=True)
    p = counts / counts.sum()
    return float(np.prod(p ** -p))


def perplexity_in_bits(codes, n_codes):
    p = F.one_hot(codes.flatten(), n_codes).double().mean(0)
    p = p[p > 0]
    return 2 ** -(p * p.log2()).sum()


def perplexity_with_nan(codes, n_codes):
    p = torch.bincount(codes.flatten(), minlength=n_codes) / codes.numel()
    return torch.exp(-(p * p.log()).sum())


def markov_in_loops(train_codes, test_codes, n_codes):
    pairs, firsts = np.ones((n_codes, n_codes)), np.ones(n_codes)
    for row in train_codes.flatten(0, 1).tolist():
        firsts[row[0]] += 1
        for a, b in zip(row, row[1:]):
            pairs[a, b] += 1
    total = 0.0
    for row in test_codes.flatten(0, 1).tolist():
        total -= math.log(firsts[row[0]] / firsts.sum())
        for a, b in zip(row, row[1:]):
            total -= math.log(pairs[a, b] / pairs[a].sum())
    return total / len(test_codes)


def markov_across_rows(train_codes, test_codes, n_codes):
    """The last code of a row is taken for the neighbour of the next row's first."""
    table = torch.ones(n_codes, n_codes)
    for grid in train_codes:
        for a, b in zip(grid.flatten()[:-1], grid.flatten()[1:]):
            table[a, b] += 1
    log_p = (table / table.sum(1, keepdim=True)).log()
    flat = test_codes.flatten(1)
    return -log_p[flat[:, :-1], flat[:, 1:]].sum() / len(test_codes)


ANSWERS = {
    "codebook_loss": {
        "right": [loss_by_mse, loss_backwards],
        "wrong": [(lambda z, e, commitment: None, "returns NoneType"), (loss_by_one_norm, "values are not")]},
    "perplexity": {
        "right": [perplexity_by_numpy, perplexity_in_bits],
        "wrong": [(perplexity_with_nan, "not a number"), (lambda codes, n_codes: n_codes, "values are not")]},
    "markov_nats": {"right": [markov_in_loops], "wrong": [(markov_across_rows, "values are not")]},
}
