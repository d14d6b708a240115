"""Data sets that come with the project's packages and need no download."""

from functools import cached_property

import cv2
import numpy as np
import torch

from .source import Source


class BundledSource(Source):
    """A data set that is made from the files of a Python package. `tensors` is made once and is what `load` returns."""

    remark = "comes with the project"

    def load(self, data_dir=None, limit=None):
        return self.tensors


class Digits(BundledSource):
    """scikit-learn's handwritten digits in MNIST's format.

    The 1,797 real digits of 8x8 pixels (E. Alpaydin and C. Kaynak, Optical Recognition of
    Handwritten Digits, UCI 1998) come with scikit-learn. The first 1,500 are the training set,
    each with three variants under small random affine maps: 6,000 images. The last 297, most of
    them by other writers, are the test set as they are.
    """

    name = "digits"
    n_train, n_variants, seed = 1500, 3, 0

    @cached_property
    def tensors(self):
        from sklearn.datasets import load_digits
        n = self.n_train
        small, labels = load_digits(return_X_y=True)
        large = [enlarge(digit) for digit in small.reshape(-1, 8, 8)]
        rng = np.random.default_rng(self.seed)
        variants = [affine_variant(digit, rng) for _ in range(self.n_variants) for digit in large[:n]]
        train = torch.from_numpy(np.stack([to_mnist_format(digit) for digit in large[:n] + variants]))
        test = torch.from_numpy(np.stack([to_mnist_format(digit) for digit in large[n:]]))
        labels = torch.from_numpy(labels).long()
        return train[:, None], labels[:n].repeat(1 + self.n_variants), test[:, None], labels[n:]


def enlarge(digit, contrast=12):
    """Enlarge an 8x8 digit (0 to 16) to 80x80 in 0..1, with the sharp edges of a pen stroke."""
    smooth = cv2.resize(digit.astype(np.float32) / 16, (80, 80), interpolation=cv2.INTER_CUBIC)
    edge = np.tanh(contrast / 4)    # a logistic curve through (0, 0) and (1, 1)
    return (0.5 + np.tanh(contrast / 2 * (smooth - 0.5)) / (2 * edge)).clip(0, 1)


def affine_variant(digit, rng):
    """Rotate, shear, scale and shift an 80x80 digit a little, as another writer might have."""
    angle, shear = rng.uniform(-0.2, 0.2, 2)                    # radians
    scale_x, scale_y = rng.uniform(0.88, 1.08, 2)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = rotation @ np.array([[scale_x, shear], [0, scale_y]])
    centre = np.array([39.5, 39.5])
    shift = centre - matrix @ centre + rng.uniform(-3, 3, 2)    # 3 pixels of 80
    return cv2.warpAffine(digit, np.column_stack([matrix, shift]), (80, 80))


def to_mnist_format(digit):
    """Average an 80x80 digit in 0..1 down to 20x20 and put a black frame around it: uint8 28x28."""
    box = cv2.resize(digit, (20, 20), interpolation=cv2.INTER_AREA)
    return np.pad((box * 255).round().astype(np.uint8), 4)


class Faces(BundledSource):
    """100 photographs of faces, grey, enlarged from 25x25 to 32x32.

    They come with scikit-image (`skimage.data.lfw_subset`), which took them from Labeled Faces in the
    Wild (G. B. Huang and others, University of Massachusetts Amherst, TR 07-49, 2007). The 80 for
    training are drawn with `seed`.
    """

    name = "faces"
    n_train, side, seed = 80, 32, 0

    @cached_property
    def tensors(self):
        from skimage.data import lfw_subset
        n = self.n_train
        faces = lfw_subset()[:100].astype(np.float32)           # the rest of the subset shows no faces
        large = [cv2.resize(face, (self.side, self.side), interpolation=cv2.INTER_CUBIC) for face in faces]
        images = torch.from_numpy((np.stack(large).clip(0, 1) * 255).round().astype(np.uint8))[:, None]
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.seed))
        labels = torch.zeros(len(images), dtype=torch.long)
        return images[order[:n]], labels[:n], images[order[n:]], labels[n:]
