"""Checks of the exercises on the VAE-GAN."""

import math

import torch
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from . import comparison, draws


def _features():
    cases = []
    for seed, shape, scale in ((0, (3, 5), 1.0), (1, (4, 2, 3, 3), 0.1), (2, (1, 7), 4.0)):
        cases.append((*draws(seed, shape, shape), scale))
    return cases


def _squared(h, h_rec):
    return (h - h_rec).square().flatten(1).sum(dim=1)


@comparison(cases=_features)
def check_feature_nll(h, h_rec, scale):
    """-log N(h; h_rec, 1/scale) of features (B, ...): summed over the features, mean over the batch."""
    return -Normal(h_rec, scale**-0.5).log_prob(h).flatten(1).sum(dim=1).mean()


check_feature_nll.misconceptions = [
    (lambda h, h_rec, scale: scale / 2 * _squared(h, h_rec).mean(),
     "The constant is missing: this is the distance of the text, not the whole density.",
     "What does the logarithm of a normal density have besides the square?"),
    (lambda h, h_rec, scale: -Normal(h_rec, scale**-0.5).log_prob(h).mean(),
     "This is a mean over the features as well.", "Only the batch is averaged; features are summed."),
    (lambda h, h_rec, scale: -Normal(h_rec, scale**-0.5).log_prob(h).sum(),
     "This is the sum over the batch.", "A loss of a batch twice as large would be twice as large."),
    (lambda h, h_rec, scale: -Normal(h_rec, scale**0.5).log_prob(h).flatten(1).sum(dim=1).mean(),
     "The variance is s here, and should be 1/s.", "Does a large scale make a difference of features dear or cheap?"),
    (lambda h, h_rec, scale: -Normal(h_rec, 1 / scale).log_prob(h).flatten(1).sum(dim=1).mean(),
     "1/s is taken for the standard deviation.", "Which power of the deviation is the variance?"),
    (lambda h, h_rec, scale: (scale * _squared(h, h_rec).mean() + math.log(2 * math.pi / scale)) / 2,
     "The constant is counted once for a picture.", "Each feature has a density of its own."),
    (lambda h, h_rec, scale: Normal(h_rec, scale**-0.5).log_prob(h).flatten(1).sum(dim=1).mean(),
     "This is the log density itself.", "A loss is small where the density is large."),
]


def _triples():
    cases = []
    for seed, width in ((0, 3), (1, 5)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = {"first": nn.Linear(width, width), "second": nn.Sequential(nn.Linear(width, 2), nn.Tanh()),
                        "third": nn.Linear(2, 1, bias=False)}
        [x] = draws(seed + 10, (4, width))
        cases.append((networks, x))
    return cases


def _losses(networks, x):
    """Three losses with one graph, each of which depends on all the networks before it."""
    a = networks["first"](x)
    b = networks["second"](a)
    c = networks["third"](b)
    return {"first": a.square().mean() + b.square().mean() + c.square().mean(),
            "second": b.sum() + 2 * c.square().mean(), "third": (c - 1).square().mean()}


def _flat(gradients):
    return torch.cat([g.flatten() for name in ("first", "second", "third") for g in gradients[name]])


def _call(function, networks, x):
    for i, p in enumerate(_weights(networks)):
        p.grad = torch.full_like(p, float(i))       # what an answer may not touch
    return _flat(function(_losses(networks, x), networks))


def _weights(networks):
    return [p for network in networks.values() for p in network.parameters()]


def _untouched(given, used, kept):
    return all(p.grad is not None and torch.equal(p.grad, torch.full_like(p, float(i)))
               for i, p in enumerate(_weights(used[0])))


@comparison(cases=_triples, call=_call, errors=(
    (AttributeError, TypeError, KeyError), "A gradient is missing, or has another place: {}.",
    "A dictionary with the names of the networks; under each a list of tensors, one for each weight."),
    before=[(_untouched, "A .grad has changed.",
             "backward() writes into .grad. Which function of torch.autograd returns gradients instead?")])
def check_own_gradients(losses, networks):
    """{name: gradients of losses[name] by the weights of networks[name]}."""
    return {name: [_numeric(losses[name], p) for p in module.parameters()] for name, module in networks.items()}


def _numeric(loss, p):
    """The gradient of a loss by one weight, from the graph itself."""
    return torch.autograd.grad(loss, p, retain_graph=True)[0]


def _all_in_one(losses, networks):
    return {name: [_numeric(sum(losses.values()), p) for p in module.parameters()]
            for name, module in networks.items()}


def _of_one_loss(which):
    def gradients(losses, networks):
        return {name: [torch.autograd.grad(losses[which], p, retain_graph=True, allow_unused=True,
                                           materialize_grads=True)[0] for p in module.parameters()]
                for name, module in networks.items()}
    return gradients


check_own_gradients.misconceptions = [
    (_all_in_one, "Each network gets the gradient of the sum of all losses.",
     "Whose loss is each of them? Take one loss for one network."),
    (_of_one_loss("first"), "All networks get the gradient of the first loss.", "Each name has a loss of its own."),
    (lambda losses, networks: {name: [-_numeric(losses[name], p) for p in module.parameters()]
                               for name, module in networks.items()},
     "The gradients have the wrong sign.", "The optimiser itself goes downhill; a gradient points uphill."),
]


def _moments():
    cases = []
    for seed, n, d in ((0, 6, 2), (1, 40, 3), (2, 2, 1)):
        mu, logvar = draws(seed, (n, d), (n, d))
        cases.append((2 * mu + 1, logvar))
    return cases


def _mean_and_covariance(function, mu, logvar):
    mean, covariance = function(mu, logvar)
    return torch.cat([torch.as_tensor(mean)[None], torch.as_tensor(covariance)])


def _centred(mu):
    return mu - mu.mean(dim=0)


def _between(mu, less=0):
    return _centred(mu).T @ _centred(mu) / (len(mu) - less)


@comparison(cases=_moments, call=_mean_and_covariance, errors=(
    (TypeError, ValueError, IndexError), "The answer cannot be read: {}.",
    "Two tensors: the mean (d,), the covariance (d, d)."))
def check_aggregate_moments(mu, logvar):
    """Mean (d,) and covariance (d, d) of the mixture of N normals."""
    mixture = MixtureSameFamily(Categorical(torch.ones(len(mu))), Independent(Normal(mu, (logvar / 2).exp()), 1))
    second = torch.einsum("ni,nj->nij", mu, mu).mean(dim=0)
    covariance = second - torch.outer(mixture.mean, mixture.mean)
    return mixture.mean, covariance - covariance.diag().diag() + mixture.variance.diag()


check_aggregate_moments.misconceptions = [
    (lambda mu, logvar: (mu.mean(dim=0), _between(mu)),
     "Only the means are counted, as if each code were a point.",
     "A mixture of wide bells is wider than their centres."),
    (lambda mu, logvar: (mu.mean(dim=0), logvar.exp().mean(dim=0).diag()),
     "The bells' own variance is there, but their centres differ, too.", "Total variance: within and between."),
    (lambda mu, logvar: (mu.mean(dim=0), _between(mu) + (logvar / 2).exp().mean(dim=0).diag()),
     "A deviation is added where a variance belongs.", "logvar is the logarithm of a variance."),
    (lambda mu, logvar: (mu.mean(dim=0), _between(mu) + logvar.mean(dim=0).exp().diag()),
     "The logarithms are averaged, and not the variances.", "Which comes first, the mean or the exponential?"),
    (lambda mu, logvar: (mu.mean(dim=0), _between(mu, 1) + logvar.exp().mean(dim=0).diag()),
     "The spread of the means is divided by N - 1.",
     "The mixture is of exactly these N bells, not a sample from more: each weighs 1/N."),
    (lambda mu, logvar: (mu.mean(dim=0), mu.T @ mu / len(mu) + logvar.exp().mean(dim=0).diag()),
     "The mean has not been subtracted.", "A covariance does not change when all codes move together."),
]
