"""How good are generated pictures? Metrics from the features of a classifier and from the pixels.

Pictures here are uint8, (N, 1, 28, 28), as the loaders keep them and `to_uint8` returns them. Each
metric of samples is printed next to the same metric of test images, which a perfect generator would reach.
"""

import statistics

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import entropy
from torch import nn

from .checkpoints import find_pretrained, load_checkpoint, save_checkpoint
from .data import InMemoryLoader, get_loaders
from .device import get_device
from .errors import BadValue
from .speed import autocast
from .training import progress

SHIPPED = "classifier_cnn_mnist"
DIGITS = ("mnist", "digits")        # the data sets that the shipped classifier can read


class ImageClassifier(nn.Module):
    """CNN for pictures (B, 1, 28, 28) in 0..1: returns logits (B, n_classes), and `features` returns (B, 64)."""

    def __init__(self, n_classes=10):
        super().__init__()
        layers = []
        for n_in, n_out in ((1, 32), (32, 64), (64, 128)):      # 28x28 -> 14x14 -> 7x7 -> 3x3
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU(),
                       nn.MaxPool2d(2)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(128 * 9, 64))
        self.to_logits = nn.Linear(64, n_classes)
        self.to(memory_format=torch.channels_last)      # twice as fast on a CPU

    def features(self, x):
        with autocast(x.device):
            h = self.body(x)
        return h.float()

    def forward(self, x):
        return self.to_logits(self.features(x).relu())


# ----------------------------------------------------------------------------------- the classifier

def load_classifier(dataset, train_loader):
    """Return an `ImageClassifier` for the pictures of `dataset`, in evaluation mode.

    The one for digits comes with the course: trained on MNIST, it classifies 99.6 % of the test images
    correctly. For another data set with classes, it is trained on the loader's images for two epochs, up to
    a minute on a CPU. Raises `ValueError` for pictures of another shape or without classes.
    """
    images, labels = train_loader.images, train_loader.labels
    if images.shape[1:] != (1, 28, 28) or labels.ndim != 1:
        raise BadValue(f"dataset={dataset!r}: pictures of shape {tuple(images.shape[1:])}, labels of shape "
                       f"{tuple(labels.shape)}; the classifier needs pictures of shape (1, 28, 28), one class each")
    path = find_pretrained(SHIPPED) if dataset in DIGITS else None
    if path is None:
        return train_classifier(images, labels, n_epochs=2)
    classifier = ImageClassifier().to(images.device)
    load_checkpoint(path, device=images.device, classifier=classifier)
    return classifier.eval()


def train_classifier(images, labels, *, n_epochs, batch_size=128, seed=0):
    """Train an `ImageClassifier` on uint8 images (N, 1, 28, 28) and labels (N,); return it in evaluation mode.

    Each batch is shifted by up to two pixels. The learning rate goes through one cycle in the whole
    training (L. N. Smith, N. Topin: Super-Convergence, 2018, arXiv:1708.07120). torch's global random
    generator keeps its state, so that a lab draws the same numbers whether it trained a classifier or not.
    """
    loader = InMemoryLoader(images, labels, batch_size, shuffle=True, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[images.device] if images.device.type == "cuda" else []):
        torch.manual_seed(seed)
        classifier = ImageClassifier(int(labels.max()) + 1).to(images.device)
        optimizer = torch.optim.AdamW(classifier.parameters(), fused=True)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=n_epochs * len(loader))
        for _ in progress(range(n_epochs), "classifier"):
            for x, y in loader:
                shift = torch.randint(-2, 3, (2,), generator=generator).tolist()
                optimizer.zero_grad()
                F.cross_entropy(classifier(x.roll(shift, dims=(2, 3))), y).backward()
                optimizer.step()
                cycle.step()
    return classifier.eval()


@torch.no_grad()
def judge(classifier, images, batch_size=250):
    """Return the features (N, 64) and the class probabilities (N, n_classes) of uint8 images, float32."""
    features, probabilities = [], []
    for batch in images.split(batch_size):
        h = classifier.features(batch.float() / 255)
        features.append(h)
        probabilities.append(classifier.to_logits(h.relu()).softmax(dim=1))
    return torch.cat(features), torch.cat(probabilities)


# ------------------------------------------------------------------------------------------ metrics

def class_histogram(classes, n_classes=10):
    """Return the share of each class among `classes` (N,), whole numbers from 0: `n_classes` floats that sum to 1."""
    return (np.bincount(np.asarray(classes), minlength=n_classes) / len(classes)).tolist()


def class_entropy(classes, n_classes=10):
    """Return the entropy of the histogram of classes (N,), in nats: log(n_classes) if all are equally frequent."""
    return float(entropy(class_histogram(classes, n_classes)))


def frechet_distance(a, b):
    """Return the Fréchet distance, 0 or more, of two sets of features, (N, d) and (M, d).

    |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) is the squared Wasserstein-2 distance of the two
    Gaussians with the means and covariances of the sets (M. Heusel and others, 2017, arXiv:1706.08500,
    equation 6). It depends on the classifier and falls as N grows: compare distances only if they have the
    same classifier and the same N. Raises `ValueError` for fewer than two rows.
    """
    a, b = (np.asarray(torch.as_tensor(features).cpu(), dtype=np.float64) for features in (a, b))
    if min(len(a), len(b)) < 2:
        raise BadValue(f"{len(a)} and {len(b)} pictures: a covariance needs at least two on each side")
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # the trace of the root is the sum of the roots of the eigenvalues; rounding can make these slightly complex
    trace_of_root = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).astype(complex)).real.sum()
    return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + np.trace(cov_a + cov_b) - 2 * trace_of_root)


def kid(a, b, within_b=None):
    """Return the kernel distance of two sets of features, (N, d) and (M, d): 0 on average if they have one source.

    The squared maximum mean discrepancy (MMD) with the kernel (x.y / d + 1)^3, estimated without bias: it may
    be slightly negative, and its mean does not depend on N and M. M. Bińkowski and others, 2018,
    arXiv:1801.01401, call it KID and estimate it in the same way (section 4 and appendix D). It depends on the
    classifier. `within_b` is `mean_kernel(b)` if that is known. Raises `ValueError` for fewer than two rows.
    """
    if min(len(a), len(b)) < 2:
        raise BadValue(f"{len(a)} and {len(b)} pictures: pairs need at least two on each side")
    within_b = mean_kernel(b) if within_b is None else within_b
    return mean_kernel(a) + within_b - 2 * mean_kernel(a, b)


def mean_kernel(a, b=None):
    """Return the mean of (x.y / d + 1)^3 over the rows x of a and y of b; without b, over all pairs of rows of a."""
    others, dim = a if b is None else b, a.shape[1]
    rows = [(part @ others.T).div_(dim).add_(1).pow_(3).sum(dim=1) for part in a.split(250)]     # fits the cache
    total, n_pairs = torch.cat(rows).cpu().double().sum(), len(a) * len(others)
    if b is None:       # no row makes a pair with itself, which would bias the mean
        total -= (a.square().sum(dim=1) / dim + 1).pow(3).cpu().double().sum()
        n_pairs -= len(a)
    return (total / n_pairs).item()


def precision_recall(real, samples, k=3, real_radii=None):
    """Return precision and recall of the features of samples (M, d) and real images (N, d), each from 0 to 1.

    The region of a set is the union of balls around its points; each ball reaches the k-th neighbour of
    its point. Precision is the share of samples inside the region of the real images, recall the share of
    real images inside the region of the samples (T. Kynkäänniemi and others, 2019, arXiv:1904.06991,
    equations 1 and 2). `real_radii` is `ball_radii(real, k)` if that is known. Raises `ValueError` for k
    points or fewer.
    """
    if min(len(real), len(samples)) <= k:
        raise BadValue(f"{len(real)} real and {len(samples)} sampled pictures: more than k={k} are needed")
    real_radii = ball_radii(real, k) if real_radii is None else real_radii
    inside, covered = [], torch.zeros(len(real), dtype=torch.bool, device=real.device)
    for part, radii in zip(samples.split(1000), ball_radii(samples, k).split(1000)):
        distances = torch.cdist(part, real)
        inside.append((distances <= real_radii).any(dim=1))
        covered |= (distances <= radii[:, None]).any(dim=0)
    return torch.cat(inside).float().mean().item(), covered.float().mean().item()


def ball_radii(points, k=3):
    """Return the distance (N,) from each of the points (N, d) to its k-th neighbour; raises `ValueError` for N <= k."""
    if len(points) <= k:
        raise BadValue(f"{len(points)} pictures: neighbour number {k} needs more than {k}; take a larger limit and a "
                       "larger n_samples")
    radii = [torch.cdist(part, points).topk(k + 1, largest=False).values[:, k] for part in points.split(1000)]
    return torch.cat(radii)                 # k + 1, because a point is its own first neighbour


def nearest_images(images, training_images):
    """Return the distance (N,) from each image to the nearest training image, and the index (N,) of that image.

    Both sets are uint8. The distance is the root mean square difference of the pixels, in grey values of 0..1.
    """
    images = torch.as_tensor(images, device=training_images.device)
    flat = training_images.flatten(1).float() / 255
    nearest = [torch.cdist(part.flatten(1).float() / 255, flat).min(dim=1) for part in images.split(250)]
    distances = torch.cat([part.values for part in nearest])
    return distances / images[0].numel() ** 0.5, torch.cat([part.indices for part in nearest])


def evaluate_samples(classifier, draw, train_images, test_images, n_samples=10_000, n_draws=5, n_nearest=500):
    """Judge samples and as many test images; print their metrics side by side and return those of the samples.

    `draw(n)` returns n new samples, uint8 (n, 1, 28, 28), as a tensor or as the array that `to_uint8` makes. It
    is called `n_draws` times, for `n_samples` each, fewer if there are fewer training or test images. The metrics are
    means over the draws. The standard deviations say how far one draw may be from another with the *same*
    weights; another training may differ by far more. The test images are one set, and have no spread.

    Fréchet distance, KID, precision and recall compare with the first training images, as many as samples.

    n_samples           pictures in each set
    confidence          mean probability of the most probable class, from 0 to 1
    class_entropy       entropy of the histogram of these classes, in nats; log 10 = 2.303 at best
    frechet, kid        distances to the training images; `frechet_floor` and `kid_floor` are those of the test images
    precision, recall   from 0 to 1
    nearest             median distance to the nearest training image, for the first `n_nearest / n_draws` samples of
                        each draw; far below the value of the test images, the samples are copies
    *_sd                standard deviation over the draws: `frechet_sd`, `kid_sd`, `precision_sd`, `recall_sd`

    Raises `ValueError` for fewer than two draws, for three images or fewer, and if `draw` returns anything else than n
    uint8 pictures.
    """
    if n_draws < 2:
        raise BadValue(f"n_draws={n_draws}: a standard deviation needs at least two")
    n = min(n_samples, len(train_images), len(test_images))
    yardstick, draws = Yardstick(classifier, train_images, n), []
    for _ in range(n_draws):
        samples = torch.as_tensor(draw(n), device=train_images.device)
        if len(samples) != n or samples.dtype != torch.uint8:
            raise BadValue(f"draw({n}) returned {len(samples)} pictures of {samples.dtype}, not {n} of torch.uint8")
        draws.append(yardstick.measure(samples, max(n_nearest // n_draws, 1)))
    test = yardstick.measure(test_images[:n], n_nearest)

    mean, spread = mean_and_spread(draws)
    print(f"of {n} pictures each, mean and standard deviation of {n_draws} draws")
    print(f"{'':<16}{'samples':>20}{'test images':>15}")
    for name in test:
        digits = 1 if name in ("frechet", "kid") else 3
        print(f"{name.replace('_', ' '):<16}{mean[name]:>10.{digits}f} ± {spread[name]:<7.{digits}f}"
              f"{test[name]:>15.{digits}f}")
    spreads = {f"{name}_sd": spread[name] for name in ("frechet", "kid", "precision", "recall")}
    return {"n_samples": n, **mean, **spreads, "frechet_floor": test["frechet"], "kid_floor": test["kid"]}


class Yardstick:
    """The first `n` training images as a classifier sees them: pictures are measured against these.

    Raises `ValueError` for three images or fewer.
    """

    def __init__(self, classifier, train_images, n):
        self.classifier, self.train_images = classifier, train_images
        self.features, _ = judge(classifier, train_images[:n])
        self.radii, self.within = ball_radii(self.features), mean_kernel(self.features)

    def measure(self, pictures, n_nearest=500):
        """Return the metrics of uint8 pictures that `evaluate_samples` names; `nearest` is that of the first ones."""
        features, probabilities = judge(self.classifier, pictures)
        confidence, classes = probabilities.max(dim=1)
        precision, recall = precision_recall(self.features, features, real_radii=self.radii)
        return {"confidence": confidence.mean().item(),
                "class_entropy": class_entropy(classes.cpu(), probabilities.shape[1]),
                "frechet": frechet_distance(features, self.features), "kid": kid(features, self.features, self.within),
                "precision": precision, "recall": recall,
                "nearest": nearest_images(pictures[:n_nearest], self.train_images)[0].median().item()}


def mean_and_spread(draws):
    """Return the means and the standard deviations of metrics, {name: number} of each of two draws or more."""
    return tuple({name: of([metrics[name] for metrics in draws]) for name in draws[0]}
                 for of in (statistics.fmean, statistics.stdev))


def train_shipped():
    """Train the classifier that comes with the course; return the path of its checkpoint, in runs/classifier/."""
    n_epochs, device = 8, get_device("auto")
    train, test = get_loaders("mnist", device=device)
    classifier = train_classifier(train.images, train.labels, n_epochs=n_epochs)
    _, probabilities = judge(classifier, test.images)
    accuracy = (probabilities.argmax(dim=1) == test.labels).float().mean().item()
    config = {"dataset": "mnist", "epochs": n_epochs, "seed": 0, "metrics": {"test_accuracy": accuracy}}
    path = save_checkpoint(f"runs/classifier/{SHIPPED}.safetensors", config=config, classifier=classifier)
    print(f"{accuracy:.2%} of the test images classified correctly; {path}")
    return path
