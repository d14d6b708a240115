"""Answers to the exercises on autoencoders: right ones in other forms, and wrong ones that no misconception gives."""

import numpy as np
import torch
from torch import nn


def complete_by_numpy(x, visible, mean, v, k):
    x, mean, v, visible = (tensor.numpy() for tensor in (x.double(), mean.double(), v.double(), visible))
    seen = v[visible, :k]
    filled = x.copy()
    for picture in filled:
        z = np.linalg.solve(seen.T @ seen, seen.T @ (picture[visible] - mean[visible]))
        picture[~visible] = mean[~visible] + v[~visible, :k] @ z
    return filled


def complete_in_place(x, visible, mean, v, k):
    x[:, ~visible] = torch.from_numpy(complete_by_numpy(x, visible, mean, v, k)).float()[:, ~visible]
    return x


def denoise_by_regression(noisy, mean, v, s, n, sigma):
    """Ridge regression of the clean pictures on themselves, which is what noise of this width amounts to."""
    clean = (v * s) @ v.T       # as many pictures as pixels, with the same sums of squares
    inputs = torch.cat([clean, n**0.5 * sigma * torch.eye(len(mean))])
    weights = torch.linalg.lstsq(inputs, torch.cat([clean, torch.zeros_like(clean)])).solution
    return mean + (noisy - mean) @ weights


def by_the_layer(n, kernel, stride, padding, output_padding):
    layer = nn.ConvTranspose2d(1, 1, kernel, stride, padding, output_padding)
    return layer(torch.zeros(1, 1, n, n)).shape[2]


def encode_into_tensor(model, loader):
    codes, done = None, 0
    model.eval()
    with torch.no_grad():
        for x, _ in loader:
            z = model.encoder(x)
            if codes is None:
                codes = torch.empty(loader.n_images, z.shape[1])
            codes[done:done + len(x)] = z
            done += len(x)
    return codes


def encode_and_go_on_training(model, loader):
    codes = [model.eval().encoder(x).detach() for x, _ in loader]
    model.train()
    return torch.cat(codes)


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
    "complete": {
        "right": [complete_by_numpy],
        "wrong": [
            (complete_in_place, "have been changed"),
            (lambda x, visible, mean, v, k: torch.where(visible, x, mean + (v @ (      # as many unknowns as pixels
                torch.linalg.pinv(v[visible]) @ (x - mean)[:, visible].T)).T), "the same filling"),
            (lambda x, visible, mean, v, k: torch.linalg.lstsq(v[visible, :k], (x - mean)[:, visible].T).solution.T,
             "shape"),
            (lambda x, visible, mean, v, k: None, "returns NoneType"),
        ]},
    "transposed_size": {
        "right": [by_the_layer],
        "wrong": [(lambda *a: (by_the_layer(*a),) * 2, "shape")]},
    "encode_all": {
        "right": [encode_into_tensor, encode_and_go_on_training],
        "wrong": [
            (lambda model, loader: torch.cat([model.eval().encoder(x) for x, _ in loader]), "carry their graph"),
            (lambda model, loader: [model.eval().encoder(x).detach() for x, _ in loader], "returns list"),
            (lambda model, loader: model.eval().encoder(loader.to_float(loader.images)).detach(), "at once"),
            (lambda model, loader: torch.cat([model.encoder(x).detach() for x, _ in loader]), "in training mode"),
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
            (noise(lambda x, sigma: torch.distributions.Laplace(0.0, sigma / 2**0.5).sample(x.shape)), "not normal"),
            (noise(lambda x, sigma: 0.6**0.5 * sigma * torch.distributions.StudentT(5.0).sample(x.shape)),
             "not normal"),
            (lambda x, sigma: 1 - (1 - (x + sigma * torch.randn_like(x)).abs()).abs().clamp(max=1), "not cut off"),
            (corrupt_stretched, "are stretched"),
            (lambda x, sigma: None, "shape"),
        ]},
    "denoise": {
        "right": [denoise_by_regression],
        "wrong": [
            (lambda noisy, mean, v, s, n, sigma: denoise_by_regression(noisy, mean, v, s, n, sigma / 2), "not: the"),
            (lambda noisy, mean, v, s, n, sigma: (noisy - mean) @ v, "shape"),
            (lambda noisy, mean, v, s, n, sigma: None, "returns NoneType"),
        ]},
}
