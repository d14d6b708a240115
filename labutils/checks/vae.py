"""Checks of the exercises on the variational autoencoder."""

import torch
from torch.distributions import Normal, kl_divergence

from . import Check, close, comparison, draws, require, unchanged


def _kl(mu_q, logvar_q, mu_p, logvar_p):
    """KL of each latent, by the library: (B, d)."""
    return kl_divergence(Normal(mu_q, (logvar_q / 2).exp()), Normal(mu_p, (logvar_p / 2).exp()))


@comparison(cases=lambda: [*(draws(seed, *[shape] * 4) for seed, shape in ((0, (1, 1)), (1, (5, 3)), (2, (3, 20)))),
                           [torch.zeros(2, 4)] * 4])
def check_gaussian_kl(*parameters):
    """KL(N(mu_q, exp(logvar_q)) || N(mu_p, exp(logvar_p))) summed over the latents: four (B, d) -> (B,)."""
    return _kl(*parameters).sum(1)


check_gaussian_kl.misconceptions = [
    (lambda *parameters: -_kl(*parameters).sum(1), "The sign of the KL is wrong: a divergence is never negative.",
     "It is the mean of log q - log p under q. Which of the two comes first in your code?"),
    (lambda mu_q, logvar_q, mu_p, logvar_p: _kl(mu_p, logvar_p, mu_q, logvar_q).sum(1),
     "This is the divergence of p from q, with the roles exchanged.",
     "The mean is taken under the first of the two: its variance is above the fraction line, not below."),
    (lambda *parameters: 2 * _kl(*parameters).sum(1),
     "The result is twice too large.", "Where has the factor of the log density gone?"),
    (lambda mu_q, logvar_q, mu_p, logvar_p: _kl(mu_q, 2 * logvar_q, mu_p, 2 * logvar_p).sum(1),
     "A variance is taken for a deviation: exp(logvar) is already a square.",
     "Compare what you square with the definition logvar = log(sigma^2)."),
    (lambda *parameters: _kl(*parameters).mean(1),
     "The mean over the latents is returned, where their sum is asked for.",
     "Independent latents: log densities add up."),
    (lambda *parameters: _kl(*parameters).sum(0),
     "The sum runs over the wrong axis: over the batch, not over the latents.",
     "One number for each image: which dimension counts the images?"),
    (lambda *parameters: _kl(*parameters).sum(),
     "Everything is summed to one number; one for each image is asked for.", "Say along which dimension to sum."),
]


class _Decoder:
    """A decoder for checks: it draws the weighted sum of a code as 28x28 equal pixels."""

    def __init__(self, latent_dim):
        self.weights = torch.arange(1.0, latent_dim + 1)

    def draw(self, z):
        return self.paint(z @ self.weights)

    def paint(self, values):
        return values[:, None, None, None].expand(-1, 1, 28, 28)


@comparison(cases=lambda: [(_Decoder(d), z, latent, values) for seed, d, latent in ((0, 3, 1), (1, 8, 0), (2, 5, 4))
                           for z, values in [draws(seed, (1, d), (6,))]],
            before=[(unchanged(1), "The code that was handed over has been changed.",
                     "Assigning to a part of a tensor changes it for everyone. Work on a copy.")])
def check_walk(vae, z, latent, values):
    """Decode a code (1, d) with one latent set to each of n values, the others kept: (n, 1, 28, 28)."""
    return vae.paint(z @ vae.weights + vae.weights[latent] * (values - z[0, latent]))


check_walk.misconceptions = [
    (lambda vae, z, latent, values: vae.draw(z).expand(len(values), -1, -1, -1),
     "All frames are equal: the unchanged code is decoded each time.",
     "Follow the changed copy: which variable goes to the decoder?"),
    (lambda vae, z, latent, values: vae.paint(z @ vae.weights + vae.weights[latent] * values),
     "The values are added to the latent; it is to be set to them.",
     "The walk is to go from the first value to the last, wherever the code was."),
    (lambda vae, z, latent, values: vae.paint(vae.weights.sum() * values),
     "All latents take the value, where one is to change.", "Index the column of this latent only."),
    (lambda vae, z, latent, values: vae.draw(z), "One frame is returned, and one for each value is asked for.",
     "A row of codes for each value, then one call of the decoder."),
]


def _baseline(estimate):
    """Return estimate(f (n, 1), score (n, d)) as a function of the arguments of the exercise."""
    return lambda f, score: estimate(f[:, None], score)


def _estimates():
    """Values of f with a mean far from zero, so that a wrong baseline shows, and scores."""
    for seed, (n, d) in enumerate(((2, 1), (5, 3), (4, 4), (9, 20))):
        f, score = draws(seed, (n,), (n, d))
        yield f + 5, score


@comparison(cases=_estimates, before=[
    (unchanged(0, 1), "The values or scores that were handed over have been changed.",
     "An assignment such as f -= ... writes into the tensor that was handed over.")])
def check_leave_one_out(f, score):
    """Mean over n draws of (f - mean of the other f) * score: f (n,), score (n, d) -> (d,)."""
    others = [torch.cat([f[:i], f[i + 1:]]).mean() for i in range(len(f))]
    return sum((f[i] - others[i]) * score[i] for i in range(len(f))) / len(f)


check_leave_one_out.misconceptions = [
    (_baseline(lambda f, score: ((f - f.mean()) * score).mean(0)),
     "Each draw takes part in its own baseline, so the estimate is biased.",
     "How many draws are left when one is set aside?"),
    (_baseline(lambda f, score: (f * score).mean(0)), "No baseline is subtracted.",
     "It is a number for each draw, and it is subtracted from f before the product with the score."),
    (_baseline(lambda f, score: ((f - (f.sum() - f) / len(f)) * score).mean(0)),
     "The baseline is not the mean of the others: their sum is divided by one too many.",
     "What does the sum hold when one draw is set aside?"),
    (_baseline(lambda f, score: ((f + (f.sum() - f) / (len(f) - 1)) * score).mean(0)),
     "The baseline is added.", "It is to make the factor of the score small."),
    (_baseline(lambda f, score: ((f - (f.sum() - f) / (len(f) - 1)) * score).sum(0)),
     "The sum over the draws is returned, where their mean is asked for.",
     "An estimate from twice as many draws must not be twice as large."),
    (_baseline(lambda f, score: (f * score).mean(0) - ((f.sum() - f) / (len(f) - 1)).mean()),
     "The baseline is subtracted from the estimate, not from f.", "It belongs in the bracket before the score."),
    (_baseline(lambda f, score: (f - (f.sum() - f) / (len(f) - 1)) * score),
     "One estimate for each draw is returned, and one from all of them is asked for.",
     "Take the mean over the draws at the end."),
    (_baseline(lambda f, score: ((f - (f.sum() - f) / (len(f) - 1)) * score).mean(1)),
     "The mean is taken over the latents; it is the draws that are averaged.", "Which dimension counts the draws?"),
]


@Check
def check_sample_codes(answer):
    """Draw n codes from the aggregate posterior of codes with means and log variances (N, d): (n, d)."""
    mu, logvar = torch.tensor([[-4.0, 4.0]]).repeat(300, 1), torch.tensor([[-2.0, 0.0]]).repeat(300, 1)
    mu[200:], logvar[200:] = -mu[200:], logvar[200:].flip(1)        # two thirds of the pictures left, one third right
    torch.manual_seed(0)
    z = answer(mu, logvar, 6000)
    require(isinstance(z, torch.Tensor) and z.shape == (6000, 2), "The codes should have the shape (6000, 2), n and "
            f"the number of latents, not {tuple(getattr(z, 'shape', ()))}.",
            "Each draw takes two steps: which picture, then where in its Gaussian?")
    z = z.double()
    right_side = z[:, 0] > 0
    require(len(z.unique(dim=0)) > 5000, "Codes are repeated: they have no noise of their own.",
            "A mean is not a draw: its Gaussian has a width, too.")
    require((z[:, 0].abs() < 1).double().mean() < 0.02, "Many codes lie where no picture has its code.",
            "The mixture of Gaussians is not the Gaussian with the mean and the variance of them all.")
    require((right_side != (z[:, 1] > 0)).double().mean() > 0.99,
            "The latents of one code come from different pictures.",
            "First choose the picture, then draw all its latents.")
    require(abs(right_side.double().mean() - 1 / 3) < 0.05, "The pictures are not chosen equally often.",
            "Every picture counts 1/N. A third of these has its code on the right.")
    _check_widths(z, right_side)
    marked = torch.arange(300.0)[:, None]       # codes that name their picture
    n_different = len(answer(marked, torch.full_like(marked, -20.0), 300).round().unique())
    require(n_different < 250, "The pictures are taken in turn, each as often as every other: nothing is drawn.",
            "Of 300 draws among 300 pictures, some hit a picture again, and about a third of the pictures are missed.")


def _check_widths(z, right_side):
    """Refuse codes whose spread on either side is not that of the pictures there."""
    widths = torch.stack([z[~right_side].std(0), z[right_side].std(0)])     # a row for each side
    logvars = torch.tensor([[-2.0, 0.0], [0.0, -2.0]]).double()
    require(not close(widths, logvars.exp(), 0.05), "A variance is taken for a deviation.",
            "logvar is the logarithm of the variance.")
    require(widths[0, 0] < 0.8 * widths[0, 1], "The latents do not each have a width of their own.",
            "Draw noise for every latent of every code.")
    require(widths[1, 1] < 0.8 * widths[1, 0], "The width is not that of the picture whose mean was taken.",
            "Mean and logvar belong together: choose once.")
    require(close(widths, (logvars / 2).exp(), 0.1), "The width of the single Gaussians is wrong.",
            "Compare the spread around one mean with its logvar.")
