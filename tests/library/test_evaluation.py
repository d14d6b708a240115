"""The metrics of generated pictures, and the classifier that judges them."""

import math

import numpy as np
import pytest
import torch
from helpers import needs_mnist
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from labutils import get_loaders
from labutils.evaluation import (
    class_entropy,
    class_histogram,
    evaluate_samples,
    frechet_distance,
    judge,
    load_classifier,
    nearest_images,
    precision_recall,
    share_inside,
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
    with pytest.raises(ValueError, match="more than k=3"):
        precision_recall(torch.rand(3, 2), torch.rand(10, 2))


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


def test_the_share_inside_does_not_depend_on_the_size_of_the_parts():
    points, others = cloud(2500, [0.0, 0], [1.0, 1]), cloud(1500, [1.0, 0], [1.0, 1], seed=1)
    distances = (points[:, None] - others[None]).square().sum(2).sqrt()
    radii = (others[:, None] - others[None]).square().sum(2).sqrt().sort(dim=1).values[:, 3]
    assert share_inside(points, others, 3) == pytest.approx((distances <= radii).any(1).double().mean().item())


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

@pytest.fixture(scope="module")
def digits():
    train, test = get_loaders("digits")
    return load_classifier("digits", train), train.images, test.images


def test_test_images_as_samples_reach_the_floor(digits, capsys):
    classifier, train, test = digits
    metrics = evaluate_samples(classifier, test, train, test)
    assert metrics["frechet"] == metrics["frechet_floor"] > 0
    assert metrics["n_samples"] == len(test) and metrics["class_entropy"] > 2.2
    printed = capsys.readouterr().out
    assert f"of {len(test)} pictures each" in printed and "test images" in printed


def test_copies_noise_and_a_single_digit_are_told_apart(digits):
    classifier, train, test = digits
    real = evaluate_samples(classifier, test, train, test)
    copies = evaluate_samples(classifier, train[1000:1000 + len(test)], train, test)
    noise = evaluate_samples(classifier, torch.randint(0, 256, test.shape, dtype=torch.uint8), train, test)
    single = evaluate_samples(classifier, test[:1].expand(len(test), -1, -1, -1).numpy(), train, test)
    assert copies["nearest"] < 0.01 < real["nearest"]
    assert noise["frechet"] > 3 * real["frechet"] and noise["nearest"] > 2 * real["nearest"]
    assert single["class_entropy"] < 0.1 and single["recall"] < 0.1
