"""The definitions of lab 02, taken from its notebook, against second sources."""

import math

import pytest
import torch
from helpers import cell_source, check_resume, definitions
from torch import distributions

from labutils import Training, get_loaders, seed_everything
from labutils.data import InMemoryLoader

lab = definitions("02_vae")


@pytest.fixture(autouse=True)
def seeded():
    seed_everything(0)


@pytest.fixture
def small(tmp_path):
    """The lab's definitions and few pictures, as the cell of the data makes them from changed parameters."""
    lab = definitions("02_vae")
    vars(lab).update(dataset="digits", limit=64, batch_size=32, epochs=1, out_dir=str(tmp_path))
    run(lab, "data")
    return lab


def run(lab, cell_id):
    """Execute a cell of the notebook among the definitions, without its curves."""
    lab.plot_curves = lambda *arguments, **options: None
    exec(cell_source("02_vae", cell_id), vars(lab))


def gaussians(n=6, d=4):
    return torch.randn(n, d), torch.randn(n, d)


def normal(mu, logvar):
    return distributions.Normal(mu, (logvar / 2).exp())


STANDARD = distributions.Normal(0.0, 1.0)


def test_the_kl_agrees_with_torch_distributions_and_with_values_by_hand():
    mu, logvar = gaussians()
    expected = distributions.kl_divergence(normal(mu, logvar), STANDARD).sum(dim=1)
    torch.testing.assert_close(lab.kl_to_standard_normal(mu, logvar), expected)
    zero = torch.zeros(1, 3)
    for mu, logvar, value in ((zero, zero, 0.0), (zero + 2, zero, 3 * 2**2 / 2), (zero, zero - 1, 3 / math.e / 2)):
        torch.testing.assert_close(lab.kl_to_standard_normal(mu, logvar), torch.tensor([value]))


def test_the_kl_agrees_with_its_definition_by_monte_carlo():
    mu, logvar = torch.tensor([[1.0, -0.5, 0.0]]), torch.tensor([[0.5, -2.0, 0.0]])
    q = normal(mu, logvar)
    z = q.sample((400_000,))
    draws = (q.log_prob(z) - STANDARD.log_prob(z)).sum(dim=-1)
    error = 5 * draws.std() / math.sqrt(len(draws))         # five standard errors
    assert abs(draws.mean() - lab.kl_to_standard_normal(mu, logvar)) < error < 0.02


def test_the_divergence_on_the_grid_agrees_with_the_closed_form_of_two_gaussians():
    p, q = distributions.Normal(0.5, 1.2), distributions.Normal(-1.0, 0.8)
    for first, second in ((p, q), (q, p)):
        expected = distributions.kl_divergence(first, second)
        torch.testing.assert_close(lab.kl_on_grid(first, second).float(), expected, atol=1e-5, rtol=0)


def test_one_order_of_the_divergence_covers_two_bumps_and_the_other_seeks_one():
    mean, variance = 0.7 * -2 + 0.3 * 2, 0.6**2 + 4 - 0.8**2        # of the mixture, by hand
    for start in (-3.0, 0.0, 2.5):
        q = lab.best_gaussian(lambda q: lab.kl_on_grid(lab.TWO_BUMPS, q), start)
        assert (q.mean.item(), q.variance.item()) == pytest.approx((mean, variance), abs=1e-3)
    for start, centre, share in ((-1.0, -2, 0.7), (1.0, 2, 0.3)):
        q = lab.best_gaussian(lambda q: lab.kl_on_grid(q, lab.TWO_BUMPS), start)
        assert (q.mean.item(), q.stddev.item()) == pytest.approx((centre, 0.6), abs=0.02)
        assert lab.kl_on_grid(q, lab.TWO_BUMPS).item() == pytest.approx(-math.log(share), abs=0.005)


@pytest.mark.parametrize("d", [1, 5])
def test_both_gradients_have_the_mean_and_the_variance_that_are_known(d):
    n = 200_000
    score, through_draw = lab.gradient_draws(lambda z: z.square().sum(dim=1), torch.ones(d), n)
    z = through_draw / 2                                            # its gradient is 2 z
    torch.testing.assert_close(score, z.square().sum(dim=1, keepdim=True) * (z - 1), atol=1e-3, rtol=1e-4)
    variances = 30 + 22 * (d - 1) + 4 * (d - 1) ** 2, 4             # from the moments of a Gaussian
    for draws, variance in zip((score, through_draw), variances, strict=True):
        error = 5 * math.sqrt(variance / n)                         # five standard errors
        assert draws.shape == (n, d) and (draws.mean(dim=0) - 2).abs().max() < error
        torch.testing.assert_close(draws.var(dim=0), torch.full((d,), float(variance)), atol=0, rtol=0.1)


def test_the_baseline_of_the_others_leaves_the_gradient_as_it_is_and_that_of_all_draws_does_not():
    mu, n = torch.ones(1), 2
    z = mu + torch.randn(200_000, n, 1)                             # many estimates, each from two draws
    f, score = z.square().sum(dim=2), z - mu
    found = torch.vmap(lab.leave_one_out)(f, score)[:, 0]
    error = 5 * found.std().item() / math.sqrt(len(found))
    assert found.mean().item() == pytest.approx(2, abs=error) and error < 0.1
    all_draws = ((f - f.mean(dim=1, keepdim=True))[:, :, None] * score).mean(dim=1)[:, 0]
    torch.testing.assert_close(all_draws, found * (n - 1) / n, atol=1e-4, rtol=1e-4)


def test_reparameterise_draws_from_the_right_distribution():
    mu, logvar = torch.tensor([[1.0, -2.0]]), torch.tensor([[-1.0, 1.5]])
    z = lab.reparameterise(mu.expand(200_000, 2), logvar.expand(200_000, 2))
    torch.testing.assert_close(z.mean(0, keepdim=True), mu, atol=0.02, rtol=0)
    torch.testing.assert_close(z.var(0, keepdim=True), logvar.exp(), atol=0, rtol=0.02)


def test_the_gradient_through_reparameterise_is_that_of_rsample():
    mu, logvar = (t.requires_grad_() for t in gaussians())
    gradients = []
    for draw in (lab.reparameterise, lambda mu, logvar: normal(mu, logvar).rsample()):
        seed_everything(1)
        gradients.append(torch.autograd.grad(draw(mu, logvar).square().sum(), (mu, logvar)))
    torch.testing.assert_close(*gradients)
    assert gradients[0][1].abs().min() > 0


def test_the_mean_gradient_is_the_gradient_of_the_mean():
    mu, logvar = torch.tensor([[1.5]], requires_grad=True), torch.tensor([[-0.5]], requires_grad=True)
    z = lab.reparameterise(mu.expand(400_000, 1), logvar.expand(400_000, 1))
    z.square().mean().backward()        # E[z^2] = mu^2 + exp(logvar)
    assert mu.grad.item() == pytest.approx(3.0, abs=0.02)
    assert logvar.grad.item() == pytest.approx(math.exp(-0.5), abs=0.02)


def test_elbo_terms_agree_with_torch_distributions():
    logits, x = torch.randn(5, 784) * 3, torch.rand(5, 1, 28, 28).round()
    mu, logvar = gaussians(5, 20)
    reconstruction, kl = lab.elbo_terms(logits, x, mu, logvar)
    log_likelihood = distributions.Bernoulli(logits=logits).log_prob(x.flatten(1)).sum(dim=1)
    torch.testing.assert_close(reconstruction, -log_likelihood.mean())
    torch.testing.assert_close(kl, lab.kl_to_standard_normal(mu, logvar).mean())


def test_a_decoder_that_always_says_one_half_pays_log_2_per_pixel():
    zero = torch.zeros(3, 20)
    reconstruction, kl = lab.elbo_terms(torch.zeros(3, 784), torch.rand(3, 1, 28, 28), zero, zero)
    assert reconstruction.item() == pytest.approx(784 * math.log(2), rel=1e-6) and kl.item() == 0


def test_the_elbo_is_a_lower_bound_where_the_likelihood_is_known():
    # z ~ N(0, 1), one pixel with logit 2 z: p(x=1) = 1/2 by symmetry, so log p(x) = -log 2
    mu, logvar = (torch.full((200_000, 1), value) for value in (0.7, -0.3))
    z = lab.reparameterise(mu, logvar)
    reconstruction, kl = lab.elbo_terms(2 * z, torch.ones(200_000, 1), mu, logvar)
    gap = -math.log(2) + (reconstruction + kl).item()
    log_posterior = STANDARD.log_prob(z) + torch.nn.functional.logsigmoid(2 * z) + math.log(2)
    difference = normal(mu, logvar).log_prob(z) - log_posterior
    assert gap > 0 and gap == pytest.approx(difference.mean().item(), abs=0.01)     # KL(q || p(z|x))


@pytest.mark.parametrize("name, latent_dim, n_parameters", [
    # weights and biases, counted by hand: 784*400+400 + 2*(400*20+20) + 20*400+400 + 400*784+784
    ("784-400-20", 20, 652_824),
    ("784-256-20", 20, 784 * 256 + 256 + 2 * (256 * 20 + 20) + 20 * 256 + 256 + 256 * 784 + 784),
    ("784-512-256-128-32", 32, 2 * (784 * 512 + 512 * 256 + 256 * 128) + 3 * 128 * 32 + 4 * 896 + 2 * 32 + 784),
])
def test_architectures(name, latent_dim, n_parameters):
    vae = lab.VAE(*lab.ARCHITECTURES[name])
    logits, mu, logvar = vae(torch.rand(7, 1, 28, 28))
    assert logits.shape == (7, 784) and mu.shape == logvar.shape == (7, latent_dim)
    assert vae.draw(mu).shape == (7, 1, 28, 28) and vae.draw(mu).min() >= 0 and vae.draw(mu).max() <= 1
    assert sum(p.numel() for p in vae.parameters()) == n_parameters
    assert not isinstance(list(vae.decoder)[-1], (torch.nn.Sigmoid, torch.nn.ReLU))


def test_mu_and_logvar_take_both_signs():
    vae = lab.VAE(*lab.ARCHITECTURES["784-400-20"])
    mu, logvar = vae.encode(torch.rand(50, 1, 28, 28))
    assert mu.min() < 0 < mu.max() and logvar.min() < 0 < logvar.max()


def test_the_classifier_has_the_shape_that_its_name_says():
    classifier = lab.DigitClassifier().eval()
    widths = [layer.out_features for layer in classifier if isinstance(layer, torch.nn.Linear)]
    assert widths == [16, 32, 64, 10] and classifier(torch.rand(3, 1, 28, 28)).shape == (3, 10)


def test_a_step_lowers_the_loss_and_beta_weighs_the_kl():
    x = torch.rand(64, 1, 28, 28).round()
    ends = {}
    for beta in (1.0, 50.0):
        seed_everything(0)
        vae = lab.VAE((784, 64, 8))
        optimizer = torch.optim.Adam(vae.parameters(), lr=3e-3)
        first, *_, last = [lab.train_step(vae, optimizer, x, beta) for _ in range(60)]
        assert last[0] + beta * last[1] < first[0] + beta * first[1]
        assert not any(term.requires_grad for term in last)
        ends[beta] = last[1].item()
    assert ends[50.0] < ends[1.0] / 5       # an expensive code carries less


def test_a_step_starts_from_gradients_of_zero():
    x = torch.rand(16, 1, 28, 28)
    vae = lab.VAE((784, 16, 4))
    optimizer = torch.optim.SGD(vae.parameters(), lr=0.0)
    norms = []
    for _ in range(2):
        seed_everything(5)
        lab.train_step(vae, optimizer, x, 1.0)
        norms.append(vae.to_mu.weight.grad.norm().item())
    assert norms[0] == norms[1] > 0


def vae_with_noise(logvar):
    """A small VAE in evaluation mode whose encoder gives this log variance for every latent and picture."""
    vae = lab.VAE((784, 16, 4)).eval()
    vae.to_logvar.weight.data.zero_()
    vae.to_logvar.bias.data.fill_(logvar)
    return vae


@torch.no_grad()
def test_evaluate_weighs_the_shorter_last_batch():
    vae, x = vae_with_noise(-60.0), torch.rand(10, 1, 28, 28)       # without noise the sum is exact
    found = lab.evaluate(vae, [(x[:8], None), (x[8:], None)])
    expected = lab.elbo_terms(vae(x)[0], x, *vae.encode(x))
    assert found == pytest.approx([term.item() for term in expected], rel=1e-5)


def test_evaluate_draws_the_code_and_does_not_take_its_mean():
    vae, loader = vae_with_noise(2.0), [(torch.rand(32, 1, 28, 28), None)]
    assert lab.evaluate(vae, loader)[0] != lab.evaluate(vae, loader)[0]


def test_fit_trains_in_training_mode_evaluates_in_evaluation_mode_and_notes_both_losses(tmp_path):
    lab = definitions("02_vae")
    lab.epochs, lab.beta = 2, 3.0
    vae, modes, step = lab.VAE(*lab.ARCHITECTURES["784-512-256-128-32"]), [], lab.train_step
    lab.train_step = lambda vae, *arguments: (modes.append(vae.training), step(vae, *arguments))[1]
    loader, _ = get_loaders("digits", 32, limit=64)
    training = Training("a", tmp_path, {}, vae=vae)
    lab.fit(training, vae, loader, loader, torch.randn(4, 32))
    assert modes == [True] * 4 and not vae.training
    lab.evaluate(vae.train(), loader)
    assert not vae.training         # so the statistics of batch normalisation stay as they are
    for part in ("train", "test"):
        terms = zip(*(training.history[f"{part}_{name}"] for name in ("loss", "reconstruction", "kl")), strict=True)
        assert [loss == pytest.approx(reconstruction + 3 * kl) for loss, reconstruction, kl in terms] == [True, True]
    assert len(training.pictures) == 2 and (tmp_path / "samples_epoch_002.png").is_file()


@pytest.mark.slow
def test_kill_9_and_resume_end_bit_identical(tmp_path):
    check_resume("02_vae", "vae=lab.VAE((784, 20, 4), True)",
                 "lab.fit(training, vae, train, test, torch.randn(4, 4))", tmp_path)


def test_the_cell_of_the_training_may_run_again_and_takes_the_parameters_as_they_are_then(small):
    histories = []
    for beta in (1.0, 1.0, 20.0):
        small.beta = beta
        run(small, "train")
        histories.append(small.training.history)
        assert small.training.settings["beta"] == beta
    assert histories[0] == histories[1] and histories[1]["test_kl"] != histories[2]["test_kl"]
    small.architecture = "784-256-20"
    run(small, "train")
    assert small.vae.to_mu.in_features == 256 and "784-256-20" in small.training.name


def test_another_batch_size_is_named_by_the_cells_that_train_with_the_loader_of_the_old_one(small):
    small.batch_size = 16
    for cell_id in ("train", "classifier", "plane"):
        with pytest.raises(ValueError, match="batch_size=16.*32"):
            run(small, cell_id)


def test_an_unknown_architecture_is_named(small):
    small.architecture = "784-20"
    for cell_id in ("model", "train", "collapse-run", "plane"):
        with pytest.raises(ValueError, match="architecture='784-20': take one of 784-400-20, "):
            run(small, cell_id)


@pytest.mark.parametrize("n", range(1, 9))
def test_the_sheets_that_are_stored_with_the_weights_are_shown_alike_after_loading(n):
    shown = lab.first_middle_last(list(range(n)))
    assert shown[0] == 0 and shown[-1] == n - 1 and shown == lab.first_middle_last(shown)


def test_there_are_128_test_images_to_show_and_no_black_ones_even_where_the_set_is_smaller(small):
    small.limit = small.batch_size = 5
    run(small, "data")
    assert small.x.shape == (128, 1, 28, 28) and (small.x.amax(dim=(1, 2, 3)) > 0.5).all()
    torch.testing.assert_close(small.x[5:10], small.x[:5])


def test_traverse_changes_one_latent_only():
    vae = lab.VAE((784, 16, 4)).eval()
    z, values = torch.randn(1, 4), torch.linspace(-3, 3, 5)
    frames = lab.traverse(vae, z, 2, values)
    for frame, value in zip(frames, values, strict=True):
        code = z.clone()
        code[0, 2] = value
        torch.testing.assert_close(frame[None], vae.draw(code))
    with pytest.raises(AssertionError, match="equal"):
        lab.traverse(vae, z, 2, torch.ones(5))


def test_an_interpolation_starts_and_ends_at_the_codes():
    vae = lab.VAE((784, 16, 4)).eval()
    x = torch.rand(2, 1, 28, 28)
    frames = lab.interpolate(vae, x[:1], x[1:], n=5)
    torch.testing.assert_close(frames[[0, -1]], vae.draw(vae.encode(x)[0]))


def test_rows_of_reconstructions_follow_their_originals():
    vae = lab.VAE((784, 16, 4)).eval()
    x = torch.rand(6, 1, 28, 28)
    rows = lab.in_pairs(vae.train(), x, n_cols=3)
    assert not vae.training         # a training that was interrupted leaves it in training mode
    torch.testing.assert_close(rows[[0, 1, 2, 6, 7, 8]], x)
    torch.testing.assert_close(rows[[3, 4, 5, 9, 10, 11]], vae.draw(vae.encode(x)[0]))


# ------------------------------------------------------------------------------- bounds on the likelihood

def tiny_vae(latent_dim=1):
    """A VAE of few weights in which the code matters; pictures stay 28 by 28."""
    vae = lab.VAE((784, 8, latent_dim)).eval()
    vae.decoder[-1].weight.data.mul_(6)
    return vae


def coins(n=1):
    return torch.bernoulli(torch.full((n, 1, 28, 28), 0.5))


def exact_log_likelihood(vae, b):
    """log p(b) of one binary image (1, 1, 28, 28), by integration over its single latent."""
    z = torch.linspace(-9, 9, 20_001)[:, None]
    log_joint = distributions.Bernoulli(logits=vae.decoder(z)).log_prob(b.flatten(1)).sum(1)
    log_joint = log_joint + STANDARD.log_prob(z)[:, 0]
    return (log_joint.logsumexp(0) + math.log(18 / 20_000)).item()


@torch.no_grad()
def test_the_weights_average_to_the_likelihood():
    vae, b = tiny_vae(), coins()
    log_w = lab.log_weights(vae, b, *vae.encode(b), k=40_000)
    assert log_w.shape == (40_000, 1)
    found = lab.importance_weighted_bound(log_w, 40_000).item()
    assert found == pytest.approx(exact_log_likelihood(vae, b), abs=0.1)


@torch.no_grad()
def test_the_bounds_are_monotone_and_below_the_likelihood():
    vae, b = tiny_vae(), coins(4)
    log_w = lab.log_weights(vae, b, *vae.encode(b), k=20_000)
    bounds = [lab.importance_weighted_bound(log_w, k) for k in (1, 10, 100, 1000)]
    for tighter, looser in zip(bounds[1:], bounds):
        assert (tighter >= looser).all() and (tighter > looser).any()
    exact = torch.tensor([exact_log_likelihood(vae, b[i:i + 1]) for i in range(4)])
    parts = torch.stack([lab.importance_weighted_bound(part, 10) for part in log_w.split(1000)])
    error = 4 * parts.std(dim=0) / math.sqrt(len(parts))        # four standard errors
    assert (parts.mean(dim=0) < exact + error).all() and (error < 1).all()


@torch.no_grad()
def test_the_bound_with_one_draw_is_the_elbo():
    vae, b = tiny_vae(latent_dim=3), coins()
    log_w = lab.log_weights(vae, b, *vae.encode(b), k=20_000)
    many = b.repeat(20_000, 1, 1, 1)
    mu, logvar = vae.encode(many)
    terms = lab.elbo_terms(vae.decoder(lab.reparameterise(mu, logvar)), many, mu, logvar)
    error = 5 * math.sqrt(2 / 20_000) * log_w.std().item()      # five standard errors of the difference
    assert lab.importance_weighted_bound(log_w, 1).item() == pytest.approx(-sum(terms).item(), abs=error)
    assert error < 10


def test_a_bound_with_two_draws_by_hand():
    log_w = torch.tensor([1.0, 2.0, 3.0, 5.0]).log()[:, None]
    expected = (math.log((1 + 2) / 2) + math.log((3 + 5) / 2)) / 2
    torch.testing.assert_close(lab.importance_weighted_bound(log_w, 2), torch.tensor([expected]))


def test_the_grey_loss_is_the_mean_of_the_binary_ones():
    x, logits, (mu, logvar) = torch.rand(1, 6), torch.randn(1, 6) * 2, gaussians(1, 3)
    pictures = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6)        # all 64 binary pictures of six pixels
    chances = distributions.Bernoulli(x).log_prob(pictures).sum(dim=1).exp()
    binary = torch.stack([sum(lab.elbo_terms(logits, b[None], mu, logvar)) for b in pictures])
    torch.testing.assert_close((chances * binary).sum(), sum(lab.elbo_terms(logits, x, mu, logvar)))


@torch.no_grad()
def test_any_proposal_gives_a_bound_and_in_the_limit_the_likelihood():
    vae, b = tiny_vae(), coins()
    log_w = lab.log_weights(vae, b, torch.tensor([[0.3]]), torch.tensor([[0.2]]), k=40_000)
    exact = exact_log_likelihood(vae, b)
    assert lab.importance_weighted_bound(log_w, 40_000).item() == pytest.approx(exact, abs=0.1)
    assert lab.importance_weighted_bound(log_w, 1).item() < exact


def test_improved_codes_close_a_part_of_the_gap_and_leave_the_networks_alone():
    vae, b = tiny_vae(), coins(5)
    with torch.no_grad():
        mu, logvar = vae.encode(b)
    encoded = mu, logvar - 4        # wide Gaussians take many steps to narrow
    improved = lab.fit_codes(vae, b, *encoded, n_steps=150)
    assert all(weights.grad is None for weights in vae.parameters())
    with torch.no_grad():
        before, after = (lab.log_weights(vae, b, *codes, 4000).mean(dim=0) for codes in (encoded, improved))
        exact = torch.tensor([exact_log_likelihood(vae, b[i:i + 1]) for i in range(5)])
    assert (after > before).all() and (after < exact + 0.05).all() and (exact - after < 0.2).all()
    mu, logvar = improved
    elbo = []
    for shift, widen in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):         # the best Gaussian has no better neighbour
        seed_everything(1)
        with torch.no_grad():
            codes = mu + shift * (logvar / 2).exp(), logvar + widen
            elbo.append(lab.log_weights(vae, b, *codes, 4000).mean().item())
    assert elbo[0] > max(elbo[1:])


# ---------------------------------------------------------------------------- probabilistic PCA, linear VAE

def centred_data():
    x = torch.randn(300, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    return x - x.mean(dim=0)


def test_the_likelihood_of_probabilistic_pca_is_that_of_tipping_and_bishop():
    x, d = centred_data(), 3
    eigenvalues = torch.linalg.eigvalsh(x.T @ x / len(x)).flip(0)
    for variance in (eigenvalues[3:].mean(), eigenvalues[1:3].mean(), 2 * eigenvalues[0]):
        used = eigenvalues[:d][eigenvalues[:d] > variance]
        rest = eigenvalues[len(used):]
        expected = -(6 * math.log(2 * math.pi) + used.log().sum() + len(rest) * variance.log() + len(used)
                     + rest.sum() / variance) / 2
        found, spectrum = lab.ppca(x, d, variance)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(spectrum, eigenvalues)


def test_the_elbo_of_a_linear_vae_agrees_with_monte_carlo():
    x = centred_data().float()[:4]
    W, V, logvar = torch.randn(6, 2), torch.randn(2, 6), torch.tensor([-0.5, 0.7])
    q = normal(x @ V.T, logvar.expand(4, 2))
    z = q.sample((100_000,))
    log_w = distributions.Normal(z @ W.T, math.sqrt(0.4)).log_prob(x).sum(-1) + STANDARD.log_prob(z).sum(-1)
    draws = (log_w - q.log_prob(z).sum(-1)).mean(dim=1)
    error = 5 * draws.std().item() / math.sqrt(len(draws))
    assert lab.linear_elbo(x, W, V, logvar, 0.4).item() == pytest.approx(draws.mean().item(), abs=error)


def test_a_linear_vae_reaches_probabilistic_pca_and_its_dead_latents_are_the_ones_foretold():
    x = centred_data()
    eigenvalues = lab.ppca(x, 4, 1.0)[1]
    variance = eigenvalues[1:3].mean().item()                       # two of the eigenvalues are above it
    W, V, logvar = lab.fit_linear_vae(x, 4, variance)
    best, _ = lab.ppca(x, 4, variance)
    elbo = lab.linear_elbo(x, W, V, logvar, variance)
    assert best - 1e-3 < elbo < best + 1e-9
    mu = x @ V.T
    nats = ((mu**2 + logvar.exp() - logvar - 1).mean(dim=0) / 2).sort(descending=True).values
    expected = (eigenvalues[:4] / variance).log().clamp(min=0) / 2
    torch.testing.assert_close(nats, expected, atol=0.02, rtol=0)


# -------------------------------------------------------------------- collapse, plane, aggregate posterior

@torch.no_grad()
def test_active_units_counts_the_latents_whose_mean_has_a_variance_above_a_hundredth():
    vae, x = lab.VAE((784, 16, 4)).eval(), torch.rand(64, 1, 28, 28)
    vae.to_mu.weight.data *= torch.tensor([0.0, 0.05, 0.09, 0.11])[:, None] / vae.encode(x)[0].std(dim=0)[:, None]
    assert lab.active_units(vae, x) == 1        # a deviation of 0.11, a variance of 0.0121


def test_the_schedules_start_and_end_as_they_say():
    values = {name: (schedule(0.0), schedule(0.99)) for name, schedule in lab.SCHEDULES.items()}
    assert values == {"beta 1": (1, 1), "beta 30": (30, 30), "beta 30, then 1": (30, 1), "beta 12": (12, 12),
                      "beta 12, warm-up": (0, 12)}


def test_a_short_training_ends_alike_whatever_ran_before():
    loader, _ = get_loaders("digits", 32, limit=64)
    ends = []
    for _ in range(2):
        vae = lab.train_new((784, 16, 4), False, loader, n_epochs=1)
        ends.append(torch.cat([weights.flatten() for weights in vae.parameters()]))
    assert torch.equal(*ends) and not vae.training


def test_the_kl_per_latent_sums_to_the_kl():
    vae = lab.VAE((784, 16, 4)).eval()
    images = torch.randint(0, 256, (32, 1, 28, 28), dtype=torch.uint8)
    loader = InMemoryLoader(images, torch.zeros(32).long(), 8)
    expected = lab.kl_to_standard_normal(*vae.encode(loader.to_float(images))).mean()
    torch.testing.assert_close(lab.kl_per_latent(vae, loader).sum(), expected.detach())


def test_the_codes_of_the_latent_plane_are_evenly_spaced_in_the_prior():
    codes = []
    stub = type("Stub", (), {"draw": staticmethod(lambda z: codes.append(z) or torch.zeros(len(z), 1, 28, 28))})
    assert lab.latent_plane(stub, n=4).shape == (16, 1, 28, 28)
    u = STANDARD.cdf(codes[0])
    torch.testing.assert_close(u[:4, 0], torch.tensor([0.125, 0.375, 0.625, 0.875]))    # first latent: to the right
    torch.testing.assert_close(u[::4, 1], torch.tensor([0.875, 0.625, 0.375, 0.125]))   # second: upwards


def test_log_aggregate_is_the_density_of_a_mixture_of_gaussians():
    mu, logvar, z = torch.randn(7, 3) * 2, torch.randn(7, 3) - 2, torch.randn(450, 3) * 2      # more than two parts
    parts = distributions.Independent(normal(mu, logvar), 1)
    mixture = distributions.MixtureSameFamily(distributions.Categorical(torch.ones(7)), parts)
    torch.testing.assert_close(lab.log_aggregate(z, mu, logvar), mixture.log_prob(z), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("mu, logvar", [
    ([-1.0, -0.8, 0.2, 1.5, 4.0], [-2.0, -3.0, -1.0, -2.5, -4.0]), ([0.5] * 4, [-1.0] * 4), ([-3.0, 0, 3], [-4.0] * 3)])
def test_split_kl_agrees_with_the_integrals_over_a_handful_of_gaussians(mu, logvar):
    mu, logvar = torch.tensor(mu).double()[:, None], torch.tensor(logvar).double()[:, None]
    z = torch.linspace(-16, 16, 200_001, dtype=torch.float64)
    parts = normal(mu, logvar).log_prob(z)                          # (N, number of points)
    log_q, width = parts.exp().mean(dim=0).log().clamp(min=-700), z[1] - z[0]
    expected = ((parts.exp() * (parts - log_q)).sum(dim=1).mean() * width,
                (log_q.exp() * (log_q - STANDARD.log_prob(z))).sum() * width)
    torch.testing.assert_close(sum(expected), lab.kl_to_standard_normal(mu, logvar).mean(), rtol=1e-6, atol=1e-6)
    terms = lab.split_kl(mu.float(), logvar.float(), 40_000)
    for term, value in zip(terms, expected, strict=True):
        error = 4 * term.std() / 200 + 1e-3        # four standard errors, and the rounding
        assert abs(term.mean() - value) < error < 0.1
    assert terms[0].max() < math.log(len(mu)) + 1e-4                # the ceiling of the information, term by term


def test_split_kl_draws_from_the_pictures_in_turn_and_in_random_order(monkeypatch):
    taken = []
    monkeypatch.setattr(lab, "reparameterise", lambda mu, logvar: taken.append(mu[:, 0].tolist()) or mu)
    for n_pictures, n_codes in ((30, 60), (60, 30)):
        lab.split_kl(torch.arange(float(n_pictures))[:, None], torch.zeros(n_pictures, 1), n_codes)
    often, seldom = taken
    assert sorted(often) == sorted([*range(30)] * 2) and len(set(seldom)) == 30
    assert often != sorted(often) and seldom != sorted(seldom) and max(seldom) >= 30


def test_the_information_reaches_its_ceiling_if_no_two_codes_touch():
    information, mismatch = lab.split_kl(torch.arange(-5.0, 6)[:, None] * 10, torch.zeros(11, 1), 1000)
    torch.testing.assert_close(information, torch.full((1000,), math.log(11)), rtol=0, atol=2e-3)


def test_coverage_counts_the_real_images_with_a_sample_among_their_three_neighbours():
    real, samples = torch.randn(1200, 2), torch.randn(90, 2) * 0.3
    expected = 0
    for i, centre in enumerate(real):       # by hand: no more than two other real images are nearer than a sample
        others = (torch.cat([real[:i], real[i + 1:]]) - centre).norm(dim=1)
        expected += int((others < (samples - centre).norm(dim=1).min()).sum()) <= 2
    assert lab.coverage(real, samples) == pytest.approx(expected / 1200, abs=1e-6) and 50 < expected < 1100
    assert lab.coverage(real, real) == 1 and lab.coverage(real, real + 100) == 0
