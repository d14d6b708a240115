"""Checks of the exercises of the lab vae."""

import torch
import torch.nn.functional as F
from torch.distributions import Normal, kl_divergence

from . import Check, close, compare, draws, require, require_graph


@Check
def check_gaussian_kl(answer):
    """KL(N(mu_q, exp(logvar_q)) || N(mu_p, exp(logvar_p))) summed over the latents: four (B, d) -> (B,)."""
    for seed, shape in ((0, (1, 1)), (1, (5, 3)), (2, (3, 20))):
        mu_q, logvar_q, mu_p, logvar_p = draws(seed, *[shape] * 4)

        def kl(q_mu, q_std, p_mu, p_std):
            return kl_divergence(Normal(q_mu, q_std), Normal(p_mu, p_std))
        q, p = (mu_q, (logvar_q / 2).exp()), (mu_p, (logvar_p / 2).exp())
        each = kl(*q, *p)
        compare(answer(mu_q, logvar_q, mu_p, logvar_p), each.sum(1), [
            (-each.sum(1), "The sign of the KL is wrong: a divergence is never negative.",
                    "It is the mean of log q - log p under q. Which of the two stands first in your code?"),
            (kl(*p, *q).sum(1), "This is the divergence of p from q, with the roles exchanged.",
                    "The mean is taken under the first of the two: its variance stands above, not below."),
            (2 * each.sum(1), "The result is twice too large.", "Where has the factor of the log density gone?"),
            (kl(mu_q, logvar_q.exp(), mu_p, logvar_p.exp()).sum(1),
                    "A variance is taken for a deviation: exp(logvar) is already a square.",
                    "Compare what you square with the definition logvar = log(sigma^2)."),
            (each.mean(1), "The mean over the latents is returned, where their sum is asked for.",
                    "Independent latents: log densities add up."),
            (each.sum(0), "The sum runs over the wrong axis: over the batch, not over the latents.",
                    "One figure for each image: which dimension counts the images?"),
            (each.sum(), "Everything is summed to one number; one for each image is asked for.",
                    "Say along which dimension to sum."),
        ])
    zero = torch.zeros(2, 4)
    compare(answer(zero, zero, zero, zero), torch.zeros(2))


class _Recorder:
    """A decoder for checks: draws a code as 28x28 equal pixels of its weighted sum, and keeps the codes."""

    def __init__(self, latent_dim):
        self.weights = torch.arange(1.0, latent_dim + 1)

    def draw(self, z):
        return (z @ self.weights)[:, None, None, None].expand(-1, 1, 28, 28)


@Check
def check_walk(answer):
    """Decode a code (1, d) with one latent set to each of n values, the others kept: (n, 1, 28, 28)."""
    for seed, d, latent in ((0, 3, 1), (1, 8, 0), (2, 5, 4)):
        vae, (z, values) = _Recorder(d), draws(seed, (1, d), (6,))
        kept = z.clone()
        given = answer(vae, z, latent, values)
        require(torch.equal(z, kept), "The code that was handed over has been changed.",
                "Assigning to a part of a tensor changes it for everyone. Work on a copy.")
        codes = kept.repeat(6, 1)
        codes[:, latent] = values
        added, all_latents = kept.repeat(6, 1), values[:, None].expand(-1, d)
        added[:, latent] += values
        still = vae.draw(kept).expand(6, -1, -1, -1)
        compare(given, vae.draw(codes), [
            (still, "All frames are equal: the unchanged code is decoded each time.",
                    "Follow the changed copy: which variable goes to the decoder?"),
            (vae.draw(added), "The values are added to the latent; it is to be set to them.",
                    "The walk is to go from the first value to the last, wherever the code was."),
            (vae.draw(all_latents), "All latents take the value, where one is to change.",
                    "Index the column of this latent only."),
            (still[:1], "One frame is returned, and one for each value is asked for.",
                    "A row of codes for each value, then one call of the decoder."),
        ])


@Check
def check_beta_loss(answer):
    """Bernoulli NLL summed over pixels plus beta times the KL summed over latents, mean over the batch: a scalar."""
    for seed, (b, d), beta in ((0, (4, 2), 1.0), (1, (7, 20), 4.0), (2, (1, 5), 0.5)):
        logits, mu, logvar, noise = draws(seed, (b, 784), (b, d), (b, d), (b, 1, 28, 28))
        x = noise.sigmoid()
        nll = -(x.flatten(1) * F.logsigmoid(logits) + (1 - x.flatten(1)) * F.logsigmoid(-logits))
        kl = kl_divergence(Normal(mu, (logvar / 2).exp()), Normal(0.0, 1.0))
        total, kl_total = nll.sum() / b, kl.sum() / b
        twice = F.binary_cross_entropy_with_logits(logits.sigmoid(), x.flatten(1), reduction="sum") / b
        given = answer(logits.clone().requires_grad_(), x, mu.clone().requires_grad_(), logvar.clone().requires_grad_(), beta)
        compare(given, total + beta * kl_total, [
            (nll.mean() + beta * kl_total, "The cross entropy is averaged over the pixels: a hidden beta of 784.",
                    "What does reduction='mean' divide by?"),
            (total + beta * kl.mean(), "The KL is averaged over the latents, where their sum is asked for.",
                    "Sum over the latents, then take the mean over the images."),
            (nll.mean() + beta * kl.mean(), "Both terms are averaged over all their elements, and these are not equally many.",
                    "Sums over pixels and latents, means over images."),
            (nll.sum() + beta * kl.sum(), "The batch is summed: the loss would grow with the size of the batch.",
                    "Divide by the number of images."),
            (total + kl_total, "beta is not used.", "It weighs one of the two terms."),
            (beta * total + kl_total, "beta weighs the wrong term.", "A larger beta makes the code dearer, not the pixels."),
            (total - beta * kl_total, "The sign of the KL is wrong: the code would be free to run away.",
                    "The loss is minus the ELBO. Which sign has the KL in the ELBO?"),
            (twice + beta * kl_total, "A sigmoid too many: the loss takes logits as they are.",
                    "What does '_with_logits' do first?"),
        ], tolerance=1e-3)
        require_graph(given)


@Check
def check_sample_codes(answer):
    """Draw n codes from the aggregate posterior of codes with means and log variances (N, d): (n, d)."""
    mu = torch.tensor([[-4.0, 4.0]]).repeat(300, 1)
    logvar = torch.tensor([[-2.0, 0.0]]).repeat(300, 1)
    mu[200:], logvar[200:] = -mu[200:], logvar[200:].flip(1)        # two thirds of the pictures left, one third right
    torch.manual_seed(0)
    z = answer(mu, logvar, 6000)
    require(isinstance(z, torch.Tensor) and z.shape == (6000, 2),
            f"The codes should have the shape (6000, 2), n and the number of latents, not {tuple(getattr(z, 'shape', ()))}.",
            "Each draw takes two steps: which picture, then where in its Gaussian?")
    z = z.double()
    right_side = z[:, 0] > 0
    require(len(z.unique(dim=0)) > 5000, "Codes are repeated: they have no noise of their own.",
            "A mean is not a draw: its Gaussian has a width, too.")
    require((z[:, 0].abs() < 1).double().mean() < 0.02, "Many codes lie where no picture has its code.",
            "The mixture of Gaussians is not the Gaussian with the mean and the variance of them all.")
    require(((z[:, 0] > 0) != (z[:, 1] > 0)).double().mean() > 0.99, "The latents of one code come from different pictures.",
            "First choose the picture, then draw all its latents.")
    require(abs(right_side.double().mean() - 1 / 3) < 0.05, "The pictures are not chosen equally often.",
            "Every picture counts 1/N. A third of these has its code on the right.")
    widths = torch.stack([z[~right_side].std(0), z[right_side].std(0)])     # a row for each side
    variances, deviations = torch.tensor([[-2.0, 0.0], [0.0, -2.0]]).exp(), torch.tensor([[-1.0, 0.0], [0.0, -1.0]]).exp()
    require(not close(widths, variances.double(), 0.05), "A variance is taken for a deviation.",
            "logvar is the logarithm of the variance.")
    require(widths[0, 0] < 0.8 * widths[0, 1], "The latents do not have each a width of their own.",
            "Draw noise for every latent of every code.")
    require(widths[1, 1] < 0.8 * widths[1, 0], "The width is not that of the picture whose mean was taken.",
            "Mean and logvar belong together: choose once.")
    require(close(widths, deviations.double(), 0.1), "The width of the single Gaussians is wrong.",
            "Compare the spread around one mean with its logvar.")
