"""Right and wrong answers to the exercises of lab 01; `test_checks.py` hands them to the checks."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def svd(x, centred=True):
    mean = x.mean(0) if centred else torch.zeros(x.shape[1])
    _, s, vt = torch.linalg.svd(x - mean, full_matrices=False)
    return mean, vt.T, s


def compress(x_train, x_new, share, *, centred=True, power=2, more=0, off=True, on=True, transposed=False, new_mean=False):
    mean, v, s = svd(x_train, centred)
    k = int(((s**power).cumsum(0) / (s**power).sum() < share).sum()) + 1 + more
    mean = x_new.mean(0) if new_mean else mean
    v = v[:k].T if transposed else v[:, :k]
    return (x_new - off * mean) @ v @ v.T + on * mean


def compress_with(**changes):
    return lambda *arguments: compress(*arguments, **changes)


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


def size(n, k, s, p, extra):
    return (n - 1) * s - 2 * p + k + extra


def encode_into_place(model, loader):
    codes, done = None, 0
    with torch.no_grad():
        for x, _ in loader:
            z = model.encoder(x)
            if codes is None:
                codes = torch.empty(loader.n_images, z.shape[1])
            codes[done:done + len(x)] = z
            done += len(x)
    return codes


def encode(model, loader):
    return [model.encoder(x.view(x.shape[0], -1)).detach() for x, _ in loader]


def encode_without_the_last(model, loader):
    return torch.cat([z for z in encode(model, loader) if len(z) == loader.batch_size])


def encode_filled_up(model, loader):
    return torch.cat([F.pad(z, (0, 0, 0, loader.batch_size - len(z))) for z in encode(model, loader)])


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
        "right": [compress, compress_by_numpy],
        "wrong": [
            (compress_with(on=False), "never put back"),
            (compress_with(off=False), "counted twice"),
            (compress_with(centred=False), "not centred"),
            (compress_with(new_mean=True), "mean of the new images"),
            (compress_with(power=1), "no variances"),
            (compress_with(more=-1), "One component is missing"),
            (compress_with(more=1), "One component too many"),
            (compress_with(transposed=True), "wrong axis of V"),
            (lambda x_train, x_new, share: x_new, "come back as they were"),
            (lambda x_train, x_new, share: x_new @ svd(x_train)[1][:, :2], "shape"),
            (lambda x_train, x_new, share: None, "returns NoneType"),
        ]},
    "transposed_size": {
        "right": [size, by_the_layer],
        "wrong": [
            (lambda n, k, s, p, e: (n - 1) * s + 2 * p + k + e, "makes the output larger"),
            (lambda n, k, s, p, e: (n - 1) * s - p + k + e, "one side only"),
            (lambda n, k, s, p, e: (n - 1) * s + k + e, "padding is not counted"),
            (lambda n, k, s, p, e: (n - 1) * s - 2 * p + k + 2 * e, "on both sides"),
            (lambda n, k, s, p, e: (n - 1) * s - 2 * p + k, "output padding is not counted"),
            (lambda n, k, s, p, e: n * s - 2 * p + k + e, "n steps"),
            (lambda n, k, s, p, e: (n + 2 * p - k) // s + 1, "after a convolution"),
            (lambda n, k, s, p, e: (n - 1) * s - 2 * p + e, "width of the last copy"),
            (lambda n, k, s, p, e: (size(n, k, s, p, e),) * 2, "shape"),
        ]},
    "encode_all": {
        "right": [lambda model, loader: torch.cat(encode(model, loader)), encode_into_place,
                  lambda model, loader: model.encoder(loader.to_float(loader.images)).detach()],
        "wrong": [
            (encode_without_the_last, "is left out"),
            (lambda model, loader: encode(model, loader)[-1], "Only the last batch"),
            (lambda model, loader: encode(model, loader)[0], "Only the first batch"),
            (encode_filled_up, "filled up with zeros"),
            (lambda model, loader: torch.stack([z.mean(0) for z in encode(model, loader)]), "one row for each batch"),
            (lambda model, loader: torch.cat([model(x) for x, _ in loader]), "reconstructions"),
            (lambda model, loader: torch.cat([model.encoder(x) for x, _ in loader]), "carry their graph"),
            (encode, "returns list"),
        ]},
    "corrupt": {
        "right": [noise(lambda x, sigma: sigma * torch.randn_like(x)),
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
            (lambda model, x, noisy: (model(noisy) - noisy).square().sum() / len(x), "keeping the noise"),
            (lambda model, x, noisy: (model(x) - x).square().sum() / len(x), "plain autoencoder"),
            (lambda model, x, noisy: (model(x) - noisy).square().sum() / len(x), "changed places"),
            (lambda model, x, noisy: (noisy - x).square().sum() / len(x), "amount of noise"),
            (lambda model, x, noisy: F.mse_loss(model(noisy), x), "averaged over the pixels"),
            (lambda model, x, noisy: (model(noisy) - x).square().sum(), "batch is summed"),
            (lambda model, x, noisy: torch.norm(model(noisy) - x), "no mean squared error"),
            (lambda model, x, noisy: (model(noisy) - x).flatten(1).norm(dim=1).mean(), "no squared error"),
            (lambda model, x, noisy: (model(noisy) - x).abs().sum() / len(x), "absolute errors"),
            (lambda model, x, noisy: (model(noisy) - x).square().flatten(1).sum(1), "shape"),
            (lambda model, x, noisy: ((model(noisy) - x).square().sum() / len(x)).item(), "carries no graph"),
        ]},
}
