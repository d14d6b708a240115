"""The definitions of lab 07, taken from the notebook, against second sources."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers import cell_source, check_resume, definitions
from scipy.spatial import KDTree
from scipy.stats import chisquare, entropy
from sklearn.cluster import KMeans
from torch import nn
from torch.distributions import Bernoulli, Categorical

from labutils import BadValue, get_loaders, seed_everything

lab = definitions("07_vqvae")


@pytest.fixture(autouse=True)
def seeded():
    seed_everything(0)


def tiny_prior(n_codes=3, size=2, n_layers=3):
    """A prior in evaluation mode whose logits depend much on places and codes, as after a training."""
    prior = lab.CodePrior(n_codes, size, 8, n_layers, first_kernel=5, embed_dim=4).eval()
    nn.init.normal_(prior.place)
    for p in prior.parameters():
        p.data.mul_(1.7)
    return prior.requires_grad_(False)


def all_grids(n_codes, size):
    return torch.tensor(list(itertools.product(range(n_codes), repeat=size * size))).view(-1, size, size)


# ---------------------------------------------------------------------------------- the nearest code

@pytest.mark.parametrize("n, k, dim", [(500, 64, 32), (100, 2, 1), (7, 200, 5)])
def test_the_nearest_vector_agrees_with_a_search_and_with_all_distances(n, k, dim):
    z, vectors = torch.randn(n, dim) + 3, torch.randn(k, dim) + 3
    codes = lab.nearest(z, vectors)
    assert np.array_equal(codes, KDTree(vectors.numpy()).query(z.numpy())[1])
    assert torch.equal(codes, torch.cdist(z, vectors).argmin(1))


def test_straight_through_has_the_value_of_e_and_the_gradient_of_z():
    z, e = torch.randn(2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(lab.straight_through(z, e), e)
    by_z, by_e = torch.autograd.functional.jacobian(lab.straight_through, (z, e))
    assert torch.equal(by_z.reshape(12, 12), torch.eye(12, dtype=torch.float64)) and not by_e.any()


def gradients_of_a_step(straight_through):
    """Whether encoder and decoder get a gradient in a step that weighs the commitment with 0."""
    space = definitions("07_vqvae")
    space.straight_through, space.commitment = straight_through, 0.0
    vqvae = space.VQVAE(8, 4)
    space.train_step(vqvae, torch.optim.SGD(vqvae.parameters(), lr=0.1), torch.rand(4, 1, 28, 28))
    return [any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
            for part in (vqvae.encoder, vqvae.decoder)]


def test_with_straight_through_both_networks_learn_and_without_it_only_the_decoder():
    assert gradients_of_a_step(lab.straight_through) == [True, True]
    assert gradients_of_a_step(lambda z, e: e + 0 * z) == [False, True]


# ------------------------------------------------------------------------------------------ the book

def test_a_step_of_the_book_is_two_averages_and_their_ratio():
    book = lab.Codebook(3, 2, decay=0.9)
    z, codes = torch.randn(10, 2), torch.tensor([0, 0, 0, 1, 1, 0, 1, 0, 0, 1])
    book.start(torch.randn(5, 2))
    counts, sums = book.counts.clone(), book.sums.clone()
    torch.testing.assert_close(sums, counts[:, None] * book.vectors)
    before = book.vectors.clone()
    book.update(z, codes)
    for k in range(3):
        mine = z[codes == k]
        count = 0.9 * counts[k] + 0.1 * len(mine)
        torch.testing.assert_close(book.vectors[k], (0.9 * sums[k] + 0.1 * mine.sum(0)) / count)
    torch.testing.assert_close(book.vectors[2], before[2])      # nobody's nearest: it stays


def test_the_book_starts_on_points_and_dead_vectors_come_back_to_points():
    z = torch.randn(50, 2)
    book = lab.Codebook(4, 2)
    book.start(z)
    assert all((z == vector).all(1).any() for vector in book.vectors) and len(book.vectors.unique(dim=0)) == 4
    book.counts.copy_(torch.tensor([12.5, 0.5, 1.0, 0.0]))          # a fair share is 12.5, a twentieth 0.625
    book.sums.copy_(book.counts[:, None] * 100)
    book.revive(z)
    assert (book.vectors[:, 0] > 50).tolist() == [True, False, True, False]
    torch.testing.assert_close(book.sums, book.counts[:, None] * book.vectors)


@pytest.mark.parametrize("seed", range(3))
def test_without_memory_the_book_is_lloyds_algorithm_and_with_it_within_two_per_cent(seed):
    seed_everything(seed)
    points = 4 * torch.randn(8, 2).repeat_interleave(150, 0) + torch.randn(1200, 2) / 2
    start = points[torch.randperm(1200)[:8]]
    means = KMeans(8, init=start.numpy(), n_init=1, max_iter=100, tol=0).fit(points.numpy())
    expected = means.inertia_ / len(points)
    lloyd = lab.average_over_batches(points, start, 0, len(points), 100)
    assert lab.inertia(points, lloyd) == pytest.approx(expected, rel=1e-4)
    moving = lab.average_over_batches(points, start, 0.99, 100, 60)
    assert lab.inertia(points, moving) == pytest.approx(expected, rel=0.02)


def test_an_average_without_its_count_depends_on_the_size_of_the_batch():
    z = torch.tensor([[3.0, 1.0]])
    for n in (1, 10):
        vectors = z.clone()
        for _ in range(2000):
            vectors = lab.update_without_count(vectors, z.expand(n, 2), torch.zeros(n, dtype=torch.long))
        torch.testing.assert_close(vectors, n * z, rtol=1e-4, atol=0)


def test_a_book_far_away_collapses_to_one_code_and_is_revived():
    train, test = get_loaders("digits", 16, limit=100)
    perplexities = []
    for revive in (False, True):
        seed_everything(0)
        vqvae = lab.VQVAE(16, 8)
        lab.far_book(vqvae)
        perplexities.append(lab.evaluate(lab.short_training(vqvae, train, 2, revive=revive), test)[1])
    assert perplexities[0] == 1 < perplexities[1]


# ------------------------------------------------------------------------- the networks and their loss

@pytest.mark.parametrize("grid", [7, 14])
def test_networks(grid):
    vqvae, x = lab.VQVAE(8, 5, grid), torch.rand(3, 1, 28, 28)
    codes = lab.codes_of(vqvae, x)
    assert codes.shape == (3, grid, grid) and lab.logits_of(vqvae, codes).shape == x.shape
    z = vqvae.encode(x)
    assert z.shape == (3, grid, grid, 5)
    torch.testing.assert_close(z[1, 2, 3], vqvae.encoder(x)[1, :, 2, 3], rtol=0.05, atol=0.02)  # bfloat16, or not
    assert codes[1, 2, 3] == (z[1, 2, 3] - vqvae.book.vectors).norm(dim=1).argmin()


def test_a_step_returns_both_terms_and_moves_the_book():
    vqvae, x = lab.VQVAE(8, 4), torch.rand(6, 1, 28, 28)
    vqvae.book.start(vqvae.encode(x).detach().flatten(0, 2))
    z, before = vqvae.encode(x).detach().flatten(0, 2), vqvae.book.vectors.clone()
    e = before[torch.cdist(z, before).argmin(1)].view(6, 7, 7, 4)
    expected = lab.reconstruction_loss(vqvae.decode(e).detach(), x), torch.cdist(z, before).amin(1).square().sum() / 6
    losses = lab.train_step(vqvae, torch.optim.SGD(vqvae.parameters(), lr=0.1), x, dropout=0)
    torch.testing.assert_close(losses, expected, rtol=1e-3, atol=1e-3)
    assert not torch.equal(vqvae.book.vectors, before) and not any(loss.requires_grad for loss in losses)


def test_the_reconstruction_is_the_bernoulli_likelihood_of_an_image():
    logits, b = torch.randn(5, 1, 28, 28), torch.bernoulli(torch.rand(5, 1, 28, 28))
    expected = -Bernoulli(logits=logits).log_prob(b).sum((1, 2, 3)).mean()
    torch.testing.assert_close(lab.reconstruction_loss(logits, b), expected)


def test_evaluation_counts_every_image_and_every_code():
    _, loader = get_loaders("digits", 16, limit=40)     # the last batch is shorter
    vqvae = lab.VQVAE(8, 4)
    lab.start_book(vqvae, loader)
    nats, used = lab.evaluate(vqvae, loader)
    x = loader.to_float(loader.images)
    codes = lab.codes_of(vqvae, x)
    assert nats == pytest.approx(lab.reconstruction_loss(lab.logits_of(vqvae, codes), x).item(), rel=1e-3)
    assert used == pytest.approx(math.exp(entropy(np.bincount(codes.flatten(), minlength=8))), rel=0.02)


def test_codes_that_are_left_out_reach_the_decoder_as_zeros():
    space, seen = definitions("07_vqvae"), []
    vqvae = space.VQVAE(8, 4)
    vqvae.decode = lambda e: seen.append(e) or torch.zeros(50, 1, 28, 28, requires_grad=True)
    space.train_step(vqvae, torch.optim.SGD(vqvae.parameters(), lr=0.1), torch.rand(50, 1, 28, 28), dropout=0.25)
    dropped = (seen[0] == 0).all(dim=-1)
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.05) and (seen[0][~dropped] != 0).any(dim=-1).all()


def test_codes_after_their_neighbours_cost_what_loops_over_counts_say():
    lab.n_codes, (train, test) = 3, torch.randint(3, (2, 20, 2, 3))
    pairs, triples = np.zeros((4, 3)), np.zeros((4, 4, 3))
    at = [(i, j) for i in range(2) for j in range(3)]

    def around(codes, i, j):
        return (codes[i, j - 1].item() if j else 3, codes[i - 1, j].item() if i else 3, codes[i, j].item())
    for left, above, code in (around(codes, i, j) for codes in train for i, j in at):
        pairs[left, code] += 1
        triples[left, above, code] += 1
    total = 0
    for left, above, code in (around(codes, i, j) for codes in test for i, j in at):
        by_left = (pairs[left, code] + 0.5) / (pairs[left].sum() + 1.5)
        total -= math.log((triples[left, above, code] + 8 * by_left) / (triples[left, above].sum() + 8))
    assert lab.context_nats(train, test) == pytest.approx(total / 20, rel=1e-4)


def test_a_second_level_starts_from_the_pictures_of_the_first():
    second, first = lab.SecondLevel(8, 4), torch.randn(2, 1, 28, 28)
    z = second.encode(torch.rand(2, 1, 28, 28), first)
    assert z.shape == (2, 14, 14, 4) and second.quantise(z).shape == (2, 14, 14)
    for p in second.decoder.parameters():
        nn.init.zeros_(p)
    assert torch.equal(second.decode(z, first), first)


# ------------------------------------------------------------------------------------------ the priors

def test_independent_codes_are_priced_as_torch_distributions_does():
    train, test = torch.randint(5, (40, 3, 3)), torch.randint(5, (10, 3, 3))
    log_p = lab.independent_prior(train, 5)
    shares = torch.stack([(train == k).sum(0) + 1 for k in range(5)], dim=-1) / 45
    torch.testing.assert_close(log_p.exp(), shares)
    expected = -Categorical(shares).log_prob(test).sum((1, 2)).mean().item()
    assert lab.nats_of(log_p, test) == pytest.approx(expected)


def test_no_logit_depends_on_its_own_code_or_on_a_later_one():
    prior = tiny_prior(4, 5, n_layers=4)
    codes = torch.randint(4, (6, 5, 5))
    for place in itertools.product(range(5), range(5)):
        changed = lab.changed_logits(prior, codes, place).flatten()
        before = place[0] * 5 + place[1]
        assert not changed[:before + 1].any() and (before == 24 or changed[before + 1])


def test_the_probabilities_of_all_grids_add_up_to_one():
    prior, grids = tiny_prior(), all_grids(3, 2)
    log_p = torch.stack([-lab.prior_loss(prior, grid[None]) for grid in grids])
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-2 if lab.autocast(lab.DEVICE) else 1e-5)
    expected = -Categorical(logits=prior(grids).movedim(1, -1)).log_prob(grids).sum((1, 2)).mean()
    torch.testing.assert_close(lab.prior_loss(prior, grids), expected)


def test_samples_have_the_probabilities_of_the_prior():
    prior, grids = tiny_prior(2, 2), all_grids(2, 2)
    p = torch.stack([-lab.prior_loss(prior, grid[None]) for grid in grids]).double().exp()
    codes = torch.cat([lab.sample_codes(prior, 5000) for _ in range(4)])
    counts = np.bincount(codes.flatten(1) @ torch.tensor([8, 4, 2, 1]), minlength=16)
    assert chisquare(counts, 20_000 * (p / p.sum()).numpy()).pvalue > 1e-4


def test_a_prior_with_a_condition_depends_on_it():
    prior, codes = tiny_prior(), torch.zeros(3, 2, 2, dtype=torch.long)
    condition = torch.randn(3, 16, 2, 2)
    logits = prior(codes, condition)
    assert not torch.allclose(logits[0], logits[1])
    torch.testing.assert_close(logits[1:2], prior(codes[1:2], condition[1:2]))
    torch.testing.assert_close(prior(codes, 0 * condition), prior(codes))


def test_the_bound_of_hard_codes_is_the_sum_of_both_parts_and_soft_codes_get_their_entropy_back():
    vqvae, prior = lab.VQVAE(6, 4), tiny_prior(6, 7)
    vqvae.book.vectors.copy_(torch.randn(6, 4) / 10)
    lab.vqvae, lab.prior = vqvae.requires_grad_(False), prior
    x = torch.rand(5, 1, 28, 28)
    codes = lab.codes_of(vqvae, x)
    reconstruction, code, given_back = lab.soft_terms(x, 1e-9)
    expected = lab.reconstruction_loss(lab.logits_of(vqvae, codes), x), lab.prior_loss(prior, codes)
    torch.testing.assert_close((reconstruction.mean(), code.mean()), expected, rtol=1e-3, atol=0)
    assert given_back.abs().max() < 1e-3
    _, _, given_back = lab.soft_terms(x, 1e9)           # every code alike
    assert given_back.mean().item() == pytest.approx(49 * math.log(6), rel=1e-3)


# --------------------------------------------------------------------------------------- what is refused

@pytest.mark.parametrize("settings, words", [
    ({"grid": 6}, "grid=6, levels=2: 28 rows"), ({"grid": 28}, "grid=28"), ({"n_codes": 1}, "n_codes=1: must be"),
    ({"levels": 0}, "levels=0: must be"), ({"levels": 3}, "levels=3: 28 rows"),
    ({"code_dropout": 1.0}, "code_dropout=1.0: must be"),
    ({"levels": 2, "grid": 14}, "grid=14, levels=2: 28 rows"), ({"prior_epochs": 0}, "prior_epochs=0")])
def test_a_bad_value_is_named_before_any_training(settings, words, tmp_path):
    space = vars(definitions("07_vqvae")) | {"out_dir": str(tmp_path), "device": "cpu", **settings}
    with pytest.raises(BadValue, match=words.replace("(", r"\(")):
        exec(cell_source("07_vqvae", "set-up"), space)


# ------------------------------------------------------------------------------------------------ resume

@pytest.mark.slow
def test_a_killed_training_of_the_vqvae_is_resumed(tmp_path):
    check_resume("07_vqvae", "vqvae=lab.VQVAE(8, 4)", "lab.fit(training, vqvae, train, test, epochs)", tmp_path)


@pytest.mark.slow
def test_a_killed_training_of_the_prior_is_resumed(tmp_path):
    check_resume("07_vqvae", "vqvae=lab.VQVAE(8, 4), prior=lab.CodePrior(8, 7, 8)",
                 "lab.fit_prior(training, prior, lambda p, x: lab.prior_loss(p, lab.codes_of(vqvae, x)), "
                 "train, test, epochs)", tmp_path)
