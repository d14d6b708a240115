"""Answers to the exercises on autoencoders: right ones in other forms, and wrong ones that no misconception gives."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def compress_by_numpy(x_train, x_new, share):
    x_train, x_new = x_train.double().numpy(), x_new.double().numpy()
    mean = x_train.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(x_train.T))
    values, vectors = values[::-1], vectors[:, ::-1]
    k = 1
    while values[:k].sum() < share * values.sum():
        k += 1
    return np.stack([mean + vectors[:, :k] @ (vectors[:, :k].T @ (x - mean)) for x in x_new])


def by_the_layer(n, kernel, stride, padding, output_padding):
    layer = nn.ConvTranspose2d(1, 1, kernel, stride, padding, output_padding)
    return layer(torch.zeros(1, 1, n, n)).shape[2]


def encode_into_tensor(model, loader):
    codes, done = None, 0
    with torch.no_grad():
        for x, _ in loader:
            z = model.encoder(x)
            if codes is None:
                codes = torch.empty(loader.n_images, z.shape[1])
            codes[done:done + len(x)] = z
            done += len(x)
    return codes


def corrupt_in_place(x, sigma):
    x += sigma * torch.randn_like(x)
    return x.clamp_(0, 1)


def corrupt_always_alike(x, sigma):
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    return (x + sigma * noise).clamp(0, 1)


def corrupt_stretched(x, sigma):
    noisy = x + sigma * torch.randn_like(x)
    return (noisy - noisy.min()) / (noisy.max() - noisy.min())


def noise(draw):
    return lambda x, sigma: (x + draw(x, sigma)).clamp(0, 1)


ANSWERS = {
    "compress": {
        "right": [compress_by_numpy],
        "wrong": [
            (lambda x_train, x_new, share: compress_by_numpy(x_train, x_new, share)[:, :2], "shape"),
            (lambda x_train, x_new, share: None, "returns NoneType"),
        ]},
    "transposed_size": {
        "right": [by_the_layer],
        "wrong": [(lambda *a: (by_the_layer(*a),) * 2, "shape")]},
    "encode_all": {
        "right": [encode_into_tensor, lambda model, loader: model.encoder(loader.to_float(loader.images)).detach()],
        "wrong": [
            (lambda model, loader: torch.cat([model.encoder(x) for x, _ in loader]), "carry their graph"),
            (lambda model, loader: [model.encoder(x).detach() for x, _ in loader], "returns list"),
        ]},
    "corrupt": {
        "right": [
            lambda x, sigma: torch.minimum(torch.maximum(torch.normal(x, sigma), torch.tensor(0.0)), torch.tensor(1.0)),
            lambda x, sigma: (x + torch.distributions.Normal(0.0, sigma).sample(x.shape)).clamp(0, 1)],
        "wrong": [
            (corrupt_in_place, "have been changed"),
            (lambda x, sigma: x + sigma * torch.randn_like(x), "outside of 0..1"),
            (lambda x, sigma: (x + sigma * torch.randn_like(x)).sigmoid(), "sigma is next to 0"),
            (corrupt_always_alike, "same at each call"),
            (noise(lambda x, sigma: sigma * torch.rand_like(x)), "On average"),
            (noise(lambda x, sigma: sigma * torch.randn(x.shape[1:])), "Every image of the batch"),
            (noise(lambda x, sigma: sigma * torch.randn(len(x), 1, 1, 1)), "Every pixel of an image"),
            (noise(lambda x, sigma: sigma**2 * torch.randn_like(x)), "sigma squared"),
            (noise(lambda x, sigma: sigma**0.5 * torch.randn_like(x)), "root of sigma"),
            (noise(lambda x, sigma: (sigma > 0.01) * torch.randn_like(x)), "same width for every sigma"),
            (noise(lambda x, sigma: sigma * 3**0.5 * (2 * torch.rand_like(x) - 1)), "tails are missing"),
            (noise(lambda x, sigma: 0.8 * sigma * torch.randn_like(x)), "where sigma is 0.1"),
            (lambda x, sigma: 1 - (1 - (x + sigma * torch.randn_like(x)).abs()).abs().clamp(max=1), "not cut off"),
            (corrupt_stretched, "are stretched"),
            (lambda x, sigma: None, "shape"),
        ]},
    "denoising_loss": {
        "right": [lambda model, x, noisy: (model(noisy) - x).flatten(1).square().sum(1).mean(),
                  lambda model, x, noisy: F.mse_loss(model(noisy), x) * x[0].numel(),
                  lambda model, x, noisy: torch.dist(model(noisy), x) ** 2 / len(x)],
        "wrong": [
            (lambda model, x, noisy: (model(noisy) - x.sub_(1)).square().sum() / len(x), "have been changed"),
            (lambda model, x, noisy: (model(noisy) - x).square().flatten(1).sum(1), "shape"),
            (lambda model, x, noisy: ((model(noisy) - x).square().sum() / len(x)).item(), "carries no graph"),
        ]},
}
