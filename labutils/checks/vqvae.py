"""Checks of the exercises on discrete codes."""

import math

import torch
from scipy.stats import entropy
from torch.distributions import Categorical

from . import comparison, draws, unchanged


def _value_and_gradients(loss, z, e, commitment):
    """What a loss of points and vectors is worth, and where it pulls both: a tensor (1 + 2 N d,)."""
    z, e = z.clone().requires_grad_(), e.clone().requires_grad_()
    value = loss(z, e, commitment)
    if not isinstance(value, torch.Tensor):
        return value
    pulls = torch.autograd.grad(value, (z, e), allow_unused=True, materialize_grads=True)
    return torch.cat([value.detach().reshape(1), *(pull.flatten() for pull in pulls)])


class _Pulled(torch.autograd.Function):
    """A value whose gradients are given: those of points and of vectors, (N, d) each."""

    @staticmethod
    def forward(context, z, e, value, on_z, on_e):
        context.save_for_backward(on_z, on_e)
        return value

    @staticmethod
    def backward(context, gradient):
        on_z, on_e = context.saved_tensors
        return gradient * on_z, gradient * on_e, None, None, None


def _loss(for_e=lambda beta: 1, for_z=lambda beta: beta, share=lambda z: 1 / len(z)):
    """Return a loss whose terms weigh for_e(beta), which pulls the vectors, and for_z(beta), which pulls the points."""
    def loss(z, e, beta):
        way, value = (z - e).detach() * share(z), share(z) * (z - e).detach().square().sum()
        return _Pulled.apply(z, e, (for_e(beta) + for_z(beta)) * value, 2 * for_z(beta) * way, -2 * for_e(beta) * way)
    return loss


@comparison(cases=lambda: [(*draws(seed, (n, d), (n, d)), commitment)
                           for seed, n, d, commitment in ((0, 3, 2, 0.25), (1, 50, 8, 1.5), (2, 7, 1, 0.1))],
            call=_value_and_gradients)
def check_codebook_loss(z, e, commitment):
    """Mean of |z - e|^2, once pulling e and `commitment` times pulling z."""
    return _loss()(z, e, commitment)


def _pull_both(z, e, beta):
    return _Pulled.apply(z, e, *(part.detach() for part in (
        (1 + beta) * (z - e).square().sum() / len(z), 2 * (1 + beta) * (z - e) / len(z),
        2 * (1 + beta) * (e - z) / len(z))))


check_codebook_loss.misconceptions = [
    (_loss(lambda beta: beta, lambda beta: 1), "The commitment weighs the vectors' way to the points.",
     "Which of the two terms must not reach the encoder, and which one has the weight?"),
    (_pull_both, "Both terms pull both sides: nothing is held.",
     "The first term is for the vectors alone, the second for the encoder alone."),
    (_loss(for_z=lambda beta: 0), "Nothing keeps the encoder near its vectors.",
     "There are two terms. Is the second one a constant for the optimiser?"),
    (_loss(for_e=lambda beta: 0), "The vectors are not pulled anywhere.",
     "Without moving averages, the book learns from the loss alone."),
    (_loss(share=lambda z: 1 / z.numel()), "The squares are averaged over the numbers of a vector.",
     "A squared distance is a sum over the numbers, and a mean over the points only."),
    (_loss(share=lambda z: 1), "The distances are summed over the points.",
     "What happens to the gradient when the batch is twice as large?"),
]


def _usage(codes, n_codes):
    return torch.stack([(codes == k).double().mean() for k in range(n_codes)])


def _codes(seed, shape, n_codes):
    """Codes of which the first is the most frequent, and the last never occurs."""
    shares = torch.arange(n_codes - 1, 0, -1.0) ** 2
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(shares, math.prod(shape), replacement=True, generator=generator).view(shape)


def _is_a_number(given, used, kept):
    return not (isinstance(given, (float, torch.Tensor)) and math.isnan(given))


@comparison(cases=lambda: [(_codes(0, (6, 7, 7), 16), 16), (_codes(1, (40,), 5), 5), (_codes(2, (3, 2, 2), 100), 100),
                           (torch.full((2, 3, 3), 2), 4)],
            before=[(unchanged(0), "The codes that were handed over have been changed.",
                     "Count without sorting them."),
                    (_is_a_number, "The result is not a number: one of the codes never occurs.",
                     "What is p log p for p = 0, and what does the computer make of it?")])
def check_perplexity(codes, n_codes):
    """exp of the entropy of the shares of the codes: from 1 to n_codes."""
    return math.exp(entropy(_usage(codes, n_codes)))


check_perplexity.misconceptions = [
    (lambda codes, n_codes: 2 ** entropy(_usage(codes, n_codes)), "An entropy in nats became a power of 2.",
     "exp belongs to natural logarithms, a power of 2 to those with base 2."),
    (lambda codes, n_codes: math.exp(entropy(_usage(codes, n_codes), base=2)), "exp of an entropy in bits.",
     "exp belongs to natural logarithms."),
    (lambda codes, n_codes: entropy(_usage(codes, n_codes)), "This is the entropy; its exp is asked for.",
     "If all K codes are equally frequent, the answer is K."),
    (lambda codes, n_codes: math.exp(-entropy(_usage(codes, n_codes))), "A sign is wrong: this is below 1.",
     "Logarithms of shares are negative."),
    (lambda codes, n_codes: len(codes.unique()), "This counts the codes that occur, however rarely.",
     "A code with one use in a thousand should hardly count."),
    (lambda codes, n_codes: 1 / _usage(codes, n_codes).square().sum(),
     "This is another measure, the inverse of the chance that two codes agree.", "The entropy is asked for."),
    (lambda codes, n_codes: math.exp(sum(entropy(_usage(grid, n_codes)) for grid in codes) / len(codes)),
     "The entropies of single grids are averaged.", "The question is which codes are used over all grids."),
]


def _tables(codes, n_codes, added=1.0, pairs=lambda codes: (codes[:, :, :-1], codes[:, :, 1:])):
    """Distributions of the first code of a row, and of a code given its left neighbour, from counts in loops."""
    first, table = torch.full((n_codes,), added), torch.full((n_codes, n_codes), added)
    for code in codes[:, :, 0].flatten().tolist():
        first[code] += 1
    for before, code in zip(*(part.flatten().tolist() for part in pairs(codes)), strict=True):
        table[before, code] += 1
    return Categorical(first), Categorical(table)


def _nats(reduce=lambda first, rest: (first.sum((1, 2)) + rest.sum((1, 2))).mean(), unit=1.0, fitted=lambda a, b: a,
          change=lambda first, table: (first, table), turn=lambda codes: codes, **tables):
    """Return a function that prices grids by the code to the left, with the changes that make it wrong."""
    def nats(train_codes, test_codes, n_codes):
        train_codes, test_codes = turn(train_codes), turn(test_codes)
        first, table = change(*_tables(fitted(train_codes, test_codes), n_codes, **tables))
        rest = table.logits[test_codes[:, :, :-1], test_codes[:, :, 1:]]
        return -reduce(first.log_prob(test_codes[:, :, :1]), rest) / unit
    return nats


def _grids():
    for seed, n, shape, n_codes in ((0, 30, (4, 4), 5), (1, 12, (2, 6), 3), (2, 50, (3, 5), 8)):
        *parts, = (torch.randint(n_codes, (size, *shape), generator=torch.Generator().manual_seed(seed + size))
                   for size in (n, n // 2))
        for codes in parts:         # neighbours to the right are often the next code
            codes[:, :, 1::2] = (codes[:, :, 0:shape[1] // 2 * 2:2] + 1) % n_codes
        yield *parts, n_codes


@comparison(cases=_grids, before=[(unchanged(0, 1), "The codes that were handed over have been changed.",
                                   "Index them, and leave them as they are.")])
def check_markov_nats(train_codes, test_codes, n_codes):
    """Mean of -log p over test grids, where each code depends on its left neighbour."""
    return _nats()(train_codes, test_codes, n_codes)


check_markov_nats.misconceptions = [
    (_nats(fitted=lambda train, test: test), "The tables are made from the test grids.",
     "Who may look at the test set, and when?"),
    (_nats(fitted=lambda train, test: torch.cat([train, test])), "The tables have seen the test grids.",
     "Who may look at the test set, and when?"),
    (_nats(added=1e-12), "Counts without the added one: a pair that never occurred costs everything.",
     "What does the table say about a pair that is only in the test grids?"),
    (_nats(reduce=lambda first, rest: rest.sum((1, 2)).mean()), "The first code of each row costs nothing.",
     "A row begins with a code that has no left neighbour. Somebody has to pay for it."),
    (_nats(change=lambda first, table: (first, Categorical(table.probs.T))),
     "The table is read the wrong way round.",
     "Which of its indices is the neighbour, and over which one is its sum 1?"),
    (_nats(pairs=lambda codes: (codes[:, :, 1:], codes[:, :, :-1])), "The table is made for the right neighbour.",
     "Raster order: what is known when a code is drawn?"),
    (_nats(turn=lambda codes: codes.transpose(1, 2)), "Each code depends on the one above it.",
     "Grids are (N, rows, columns). Along which dimension are left and right?"),
    (_nats(unit=math.log(2)), "The result is in bits.", "The natural logarithm gives nats."),
    (_nats(reduce=lambda first, rest: torch.cat([first, rest], 2).mean()), "This is the mean price of a single code.",
     "A grid costs the sum over its places."),
    (_nats(unit=-1), "The sign is wrong: a price is positive.", "The logarithm of a probability is negative."),
]
