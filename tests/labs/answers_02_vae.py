"""Answers to the exercises on the VAE: right ones in other forms, and wrong ones that no misconception gives."""

import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence


def standard_kl(mu, logvar):
    return kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0)).sum(1)


def kl_by_library(mu_q, logvar_q, mu_p, logvar_p):
    q, p = Normal(mu_q, logvar_q.mul(0.5).exp()), Normal(mu_p, logvar_p.mul(0.5).exp())
    return kl_divergence(q, p).sum(-1)


def walk_in_a_row(vae, z, latent, values):
    codes = z.repeat(len(values), 1)
    codes[:, latent] = values
    return vae.draw(codes)


def walk_one_by_one(vae, z, latent, values):
    unit = F.one_hot(torch.tensor(latent), z.shape[1])
    return torch.cat([vae.draw(z * (1 - unit) + value * unit) for value in values])


def walk_in_place(vae, z, latent, values):
    frames = []
    for value in values:
        z[0, latent] = value
        frames.append(vae.draw(z))
    return torch.cat(frames)


def centred(f, score):
    weights = (f - f.mean()) / (len(f) - 1)
    return weights @ score


def others_by_a_matrix(f, score):
    n = len(f)
    others = (1 - torch.eye(n)) / (n - 1)
    return torch.einsum("n,nd->d", f - others @ f, score) / n


def centred_in_place(f, score):
    f -= f.mean()
    return f @ score / (len(f) - 1)


def codes_one_by_one(mu, logvar, n):
    index = torch.multinomial(torch.ones(len(mu)), n, replacement=True)
    return Normal(mu[index], logvar[index].mul(0.5).exp()).sample()


def codes(width=lambda logvar: (logvar / 2).exp(), choose=lambda N, n: torch.randint(N, (n,))):
    def sample(mu, logvar, n):
        i = choose(len(mu), n)
        return mu[i] + width(logvar[i]) * torch.randn(n, mu.shape[1])
    return sample


def codes_of_two_pictures(mu, logvar, n):
    i, j = torch.randint(len(mu), (2, n))
    return mu[i] + (logvar[j] / 2).exp() * torch.randn(n, mu.shape[1])


def codes_of_mixed_pictures(mu, logvar, n):
    i = torch.randint(len(mu), (n, mu.shape[1]))
    return mu.gather(0, i) + (logvar.gather(0, i) / 2).exp() * torch.randn(n, mu.shape[1])


def codes_of_one_gaussian(mu, logvar, n):
    return mu.mean(0) + (mu.var(0) + logvar.exp().mean(0)).sqrt() * torch.randn(n, mu.shape[1])


ANSWERS = {
    "gaussian_kl": {
        "right": [kl_by_library],
        "wrong": [
            (lambda *a: kl_by_library(*a)[:, None], "shape"),
            (lambda mu_q, logvar_q, mu_p, logvar_p: standard_kl(mu_q, logvar_q), "values are not"),
            (lambda *a: None, "returns NoneType"),
        ]},
    "walk": {
        "right": [walk_in_a_row, walk_one_by_one],
        "wrong": [(walk_in_place, "has been changed")]},
    "leave_one_out": {
        "right": [centred, others_by_a_matrix],
        "wrong": [(centred_in_place, "have been changed"),
                  (lambda f, score: centred(f, score)[None], "shape"),
                  (lambda f, score: centred(score[:, 0], score), "values are not")]},
    "sample_codes": {
        "right": [codes_one_by_one],
        "wrong": [
            (codes(width=lambda logvar: 0 * logvar), "no noise"),
            (codes_of_one_gaussian, "where no picture has its code"),
            (codes(width=lambda logvar: logvar.exp()), "variance is taken for a deviation"),
            (codes(choose=lambda N, n: torch.arange(n) % 100), "not chosen equally often"),
            (codes(choose=lambda N, n: torch.arange(n) % N), "taken in turn"),
            (codes(choose=lambda N, n: torch.cat([torch.randperm(N) for _ in range(n // N)])), "taken in turn"),
            (codes(width=lambda logvar: (logvar[:, :1] / 2).exp()), "latents do not each have"),
            (codes_of_two_pictures, "not that of the picture"),
            (codes_of_mixed_pictures, "different pictures"),
            (codes(width=lambda logvar: 1.5 * (logvar / 2).exp()), "width of the single Gaussians"),
            (lambda mu, logvar, n: codes()(mu, logvar, n).mean(1), "shape"),
        ]},
}
