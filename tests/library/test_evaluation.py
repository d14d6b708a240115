"""The metrics of generated pictures, and the classifier that judges them."""

import math

import numpy as np
import pytest
import torch
from helpers import needs_mnist
from torch import nn
from torch_fidelity.metric_prc import calculate_precision_recall_full
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from labutils import get_loaders
from labutils.evaluation import (
    ball_radii,
    class_entropy,
    class_histogram,
    evaluate_samples,
    frechet_distance,
    judge,
    kid,
    load_classifier,
    mean_kernel,
    nearest_images,
    precision_recall,
    train_classifier,
)


def cloud(n, mean, scale, seed=0):
    """n points of a Gaussian with independent axes: (n, d)."""
    mean, scale = torch.tensor(mean, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    return mean + scale * torch.randn(n, len(mean), dtype=torch.float64, generator=generator)


# --------------------------------------------------------------------------------- Fréchet distance

def test_frechet_distance_of_gaussians_with_independent_axes():
    a, b = cloud(200_000, [0.0, 1, 0], [1.0, 2, 0.5]), cloud(200_000, [3.0, 1, 0], [1.0, 1, 2], seed=1)
    exact = 3**2 + (1 - 1) ** 2 + (2 - 1) ** 2 + (0.5 - 2) ** 2       # |mu|^2 and, for each axis, (s_a - s_b)^2
    assert frechet_distance(a, b) == pytest.approx(exact, rel=0.01)


def test_frechet_distance_of_a_cloud_to_itself_is_zero_and_it_is_symmetric():
    a = cloud(500, [0.0, 0], [1.0, 1]) @ torch.tensor([[1.0, 0.7], [0.0, 0.3]]).double()
    b = cloud(400, [1.0, 2], [1.0, 3])
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


class TwoFeatures(nn.Module):
    num_features = 2

    def forward(self, images):
        return images.flatten(1)[:, :2]


def test_frechet_distance_agrees_with_torchmetrics():
    metric = FrechetInceptionDistance(feature=TwoFeatures(), normalize=True, input_img_size=(3, 4, 4)).double()
    a, b = (torch.rand(300, 3, 4, 4, generator=torch.Generator().manual_seed(i)).double() ** (1 + i) for i in (0, 1))
    metric.update(a, real=False)
    metric.update(b, real=True)
    a, b = (pictures.flatten(1)[:, :2] for pictures in (a, b))
    assert frechet_distance(a, b) == pytest.approx(metric.compute().item(), rel=1e-3)


def test_too_few_pictures_are_refused():
    with pytest.raises(ValueError, match="1 and 5 pictures"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="1 and 5 pictures"):
        kid(torch.zeros(1, 3), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="more than k=3"):
        precision_recall(torch.rand(3, 2), torch.rand(10, 2))
    with pytest.raises(ValueError, match="3 pictures: neighbour number 3 .* a larger limit and a larger n_samples"):
        ball_radii(torch.rand(3, 2))
    assert len(ball_radii(torch.rand(4, 2))) == 4


# ---------------------------------------------------------------------------------- kernel distance

def test_kernel_distance_of_points_by_hand():
    a, b = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0], [3.0]])
    # pairs within a: (1 * 2 + 1)^3 = 27; within b: 1, 1 and 4^3 = 64, mean 22;
    # across: 1, 2^3, 4^3 for the first row of a, and 1, 3^3, 7^3 for the second, mean 444 / 6 = 74
    assert kid(a, b) == pytest.approx(27 + 22 - 2 * 74)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_kernel_distance_agrees_with_torchmetrics(kind):
    a, b = cloud(700, [0.0, 1, 3], [1.0, 2, 4]).to(kind), cloud(700, [1.0, 1, 0], [1.0, 1, 2], seed=1).to(kind)
    assert kid(a, b) == pytest.approx(poly_mmd(a.double(), b.double()).item(), rel=1e-5)     # parts of 250
    assert kid(a, b, mean_kernel(b)) == kid(a, b) == pytest.approx(kid(b, a), rel=1e-5)


def test_the_kernel_distance_does_not_depend_on_the_number_of_pictures():
    a, b = cloud(900, [0.0, 0], [1.0, 1]), cloud(900, [0.5, 0], [1.0, 1.5], seed=1)
    pairs = [[0, 1], [0, 2], [1, 2]]        # over all pairs out of three, the mean of the estimates is exact
    assert np.mean([kid(a[i], b[j]) for i in pairs for j in pairs]) == pytest.approx(kid(a[:3], b[:3]))
    small = [kid(x, y) for x, y in zip(a.split(30), b.split(30))]
    error = np.std(small) / len(small) ** 0.5
    assert abs(np.mean(small) - kid(a, b)) < 4 * error < kid(a, b)
    same = [kid(x, y) for x, y in zip(a.split(30), cloud(900, [0.0, 0], [1.0, 1], seed=2).split(30))]
    assert min(same) < 0 and abs(np.mean(same)) < 4 * np.std(same) / len(same) ** 0.5
    small = np.mean([frechet_distance(x, y) for x, y in zip(a.split(30), b.split(30))])
    assert small > 1.15 * frechet_distance(a, b), "the Fréchet distance depends on it"


# ----------------------------------------------------------------------------- precision and recall

def test_precision_and_recall_of_a_hand_made_case():
    real = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
    samples = torch.tensor([[0.5], [1.5], [1.7], [50.0]])
    # k = 1: every real ball has radius 1, so 0.5, 1.5 and 1.7 are inside one and 50 is not;
    # the balls of the samples have radii 1.0, 0.2, 0.2 and 48.3: the last one covers 2, 10, 11 and 12
    # (|50 - 2| = 48 <= 48.3), the first one 0 and 1
    assert precision_recall(real, samples, k=1) == pytest.approx((0.75, 1.0))
    assert precision_recall(real, samples[:3], k=1) == pytest.approx((1.0, 2 / 6))


def test_missing_variety_costs_recall_and_noise_costs_precision():
    real = cloud(1000, [0.0, 0], [1.0, 1])
    precision, recall = precision_recall(real, cloud(1000, [0.0, 0], [0.1, 0.1], seed=1))
    assert precision > 0.95 and recall < 0.2
    precision, recall = precision_recall(real, cloud(1000, [0.0, 0], [8.0, 8], seed=1))
    assert precision < 0.3 and recall > 0.9


@pytest.fixture(scope="module")
def digits():
    train, test = get_loaders("digits")
    return load_classifier("digits", train), train.images, test.images


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall_agree_with_torch_fidelity(digits, k):
    classifier, train, test = digits
    generator = torch.Generator().manual_seed(0)
    noisy = (test.float() + 25 * torch.randn(test.shape, generator=generator)).clamp(0, 255).to(torch.uint8)
    pictures = judge(classifier, train[:1300])[0], judge(classifier, noisy)[0]
    points = torch.randn(1300, 16, generator=generator), 0.2 + 0.9 * torch.randn(1100, 16, generator=generator)
    for real, samples in (pictures, points):        # more than the parts of 1000, and no multiple of them
        shares = precision_recall(real, samples, k)
        assert shares == pytest.approx(calculate_precision_recall_full(samples, real, neighborhood=k), abs=1e-3)
        assert precision_recall(real, samples, k, ball_radii(real, k)) == shares
        assert all(0.05 < share < 0.95 for share in shares)


# --------------------------------------------------------------------------- classes and neighbours

def test_class_histogram_counts_classes_that_never_occur():
    assert class_histogram(torch.tensor([0, 2, 2, 2]), 4) == [0.25, 0, 0.75, 0]


def test_class_entropy_of_known_histograms():
    assert class_entropy(torch.arange(10).repeat(7)) == pytest.approx(math.log(10))
    assert class_entropy(np.zeros(50, int)) == 0
    assert class_entropy([0, 1]) == pytest.approx(math.log(2))


def test_nearest_images_finds_the_copy_and_measures_in_grey_values():
    training = torch.randint(0, 256, (600, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shifted = (training[[7, 400]].float() * 0.9).to(torch.uint8)
    distances, indices = nearest_images(torch.cat([shifted, training[[3]]]), training)
    assert indices.tolist() == [7, 400, 3]
    by_hand = (shifted.double() / 255 - training[[7, 400]].double() / 255).square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(distances[:2].double(), by_hand, rtol=1e-3, atol=1e-4)
    assert distances[2] < 1e-3


# ------------------------------------------------------------------------------------ the classifier

def test_the_shipped_classifier_reads_the_bundled_digits():
    train, test = get_loaders("digits")
    _, probabilities = judge(load_classifier("digits", train), test.images)
    assert (probabilities.argmax(1) == test.labels).double().mean() > 0.92
    torch.testing.assert_close(probabilities.sum(1), torch.ones(len(test.images)))


@needs_mnist
def test_the_shipped_classifier_reads_mnist():
    train, test = get_loaders("mnist")
    _, probabilities = judge(load_classifier("mnist", train), test.images)
    assert (probabilities.argmax(1) == test.labels).double().mean() >= 0.992


def test_judging_does_not_depend_on_the_batch():
    train, test = get_loaders("digits")
    classifier = load_classifier("digits", train)
    for one, other in zip(judge(classifier, test.images[:50], 50), judge(classifier, test.images[:50], 7)):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.2)        # bfloat16, where the machine has it


@pytest.mark.slow
def test_a_classifier_is_trained_for_another_data_set():
    train, test = get_loaders("digits")
    before = torch.random.get_rng_state()
    _, probabilities = judge(load_classifier("kmnist", train), test.images)
    assert (probabilities.argmax(1) == test.labels).double().mean() > 0.5
    assert torch.equal(torch.random.get_rng_state(), before), "the random numbers of a lab must not change"


def test_training_is_reproducible():
    train, _ = get_loaders("digits", limit=300)
    one, other = (train_classifier(train.images, train.labels, n_epochs=1).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_pictures_that_it_cannot_judge_are_refused():
    train, _ = get_loaders("faces")
    with pytest.raises(ValueError, match=r"dataset='faces'.*\(1, 32, 32\).*\(1, 28, 28\)"):
        load_classifier("faces", train)


# ------------------------------------------------------------------------------------- all metrics

def draws_of(images):
    """A generator that draws from images, without a repetition in one draw."""
    generator = torch.Generator().manual_seed(0)
    return lambda n: images[torch.randperm(len(images), generator=generator)[:n]]


def test_test_images_as_samples_reach_the_floor(digits, capsys):
    classifier, train, test = digits
    metrics = evaluate_samples(classifier, lambda n: test[:n], train, test, n_draws=3)
    assert metrics["frechet"] == pytest.approx(metrics["frechet_floor"]) and metrics["frechet"] > 0
    assert metrics["kid"] == pytest.approx(metrics["kid_floor"])
    assert metrics["frechet_sd"] == metrics["recall_sd"] == 0
    assert metrics["n_samples"] == len(test) and metrics["class_entropy"] > 2.2
    title, columns, *rows = capsys.readouterr().out.splitlines()
    assert title == f"of {len(test)} pictures each, mean and standard deviation of 3 draws"
    assert columns.split() == ["samples", "test", "images"] and len(rows) == 7
    assert rows[2].split() == ["frechet", f"{metrics['frechet']:.1f}", "±", "0.0", f"{metrics['frechet_floor']:.1f}"]


def test_copies_noise_and_a_single_digit_are_told_apart(digits):
    classifier, train, test = digits
    noise = torch.randint(0, 256, test.shape, dtype=torch.uint8)

    def metrics_of(draw):
        return evaluate_samples(classifier, draw, train, test, n_samples=150, n_draws=2)

    real, copies, noise = (metrics_of(draws_of(images)) for images in (test, train[1000:], noise))
    single = metrics_of(lambda n: test[:1].expand(n, -1, -1, -1).numpy())
    assert copies["nearest"] < 0.01 < real["nearest"]
    assert noise["frechet"] > 3 * real["frechet"] and noise["nearest"] > 2 * real["nearest"]
    assert noise["kid"] > 3 * abs(real["kid"])
    assert single["class_entropy"] < 0.1 and single["recall"] < 0.1


def test_the_metrics_are_means_over_the_draws_and_their_spread(digits):
    classifier, train, test = digits
    train, test = train[:200], test[:150]
    sets = [images[:100] for images in (train.flip(3), test, train.roll(3, 3))]
    reference = judge(classifier, train[:100])[0]
    metrics = evaluate_samples(classifier, lambda n, left=iter(sets): next(left), train, test, n_samples=100, n_draws=3,
                               n_nearest=60)
    features = [judge(classifier, images)[0] for images in sets]
    for name, values in (("frechet", [frechet_distance(h, reference) for h in features]),
                         ("kid", [kid(h, reference) for h in features]),
                         ("precision", [precision_recall(reference, h)[0] for h in features]),
                         ("recall", [precision_recall(reference, h)[1] for h in features])):
        assert metrics[name] == pytest.approx(np.mean(values), rel=1e-3)
        assert metrics[f"{name}_sd"] == pytest.approx(np.std(values, ddof=1), rel=1e-3)
    nearest = [nearest_images(images[:20], train)[0].median().item() for images in sets]
    assert metrics["n_samples"] == 100 and metrics["nearest"] == pytest.approx(np.mean(nearest))
    floor = judge(classifier, test[:100])[0]
    assert metrics["frechet_floor"] == pytest.approx(frechet_distance(floor, reference))
    assert metrics["kid_floor"] == pytest.approx(kid(floor, reference), rel=1e-3)


@pytest.mark.parametrize("draw, message", [
    (lambda n: torch.zeros(n - 1, 1, 28, 28, dtype=torch.uint8), r"draw\(20\) returned 19 pictures"),
    (lambda n: torch.rand(n, 1, 28, 28), "float32, not 20 of torch.uint8")])
def test_what_is_no_draw_is_refused(digits, draw, message):
    classifier, train, test = digits
    with pytest.raises(ValueError, match=message):
        evaluate_samples(classifier, draw, train, test, n_samples=20)
    with pytest.raises(ValueError, match="n_draws=1"):
        evaluate_samples(classifier, draw, train, test, n_draws=1)
