"""The definitions of lab 01, taken from the notebook, against second sources."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import check_resume, definitions
from scipy import linalg
from sklearn.decomposition import PCA

from labutils import Training, get_loaders, seed_everything
from labutils.checkpoints import read_checkpoint, unpack

lab = definitions("01_autoencoder")


@pytest.fixture(autouse=True)
def seeded(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)       # float32 on every machine
    seed_everything(0)


def data(n=300, d=20):
    return torch.randn(n, d) @ torch.randn(d, d) + 3


@pytest.mark.parametrize("k", [1, 4, 20])
def test_pca_agrees_with_scikit_learn(k):
    x = data()
    mean, v, s = lab.fit_pca(x)
    theirs = PCA(k, svd_solver="full").fit(x.numpy())
    expected = torch.from_numpy(theirs.inverse_transform(theirs.transform(x.numpy())))
    torch.testing.assert_close(lab.reconstruct_pca(x, mean, v, k), expected.float(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(s[:k], theirs.singular_values_, rtol=1e-4)


def test_the_error_is_what_the_dropped_singular_values_carry():
    x = data()
    mean, v, s = lab.fit_pca(x)
    error = lab.squared_error(x, lab.reconstruct_pca(x, mean, v, 5))
    assert error == pytest.approx(s[5:].square().sum().item() / len(x), rel=1e-4)


def test_squared_error_is_a_sum_over_pixels_and_a_mean_over_images():
    x = torch.zeros(4, 1, 2, 3)
    assert lab.squared_error(x, x + 2) == 6 * 4
    assert lab.squared_error(x, torch.cat([x[:3], x[3:] + 2])) == 6 * 4 / 4


def test_principal_angles_agree_with_scipy():
    a, b = torch.randn(30, 4), torch.randn(30, 4)
    expected = np.rad2deg(linalg.subspace_angles(a.double().numpy(), b.double().numpy()))
    np.testing.assert_allclose(lab.principal_angles(a.double(), b.double()), expected, rtol=1e-6)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_transposed_convolution_agrees_with_torch(stride, k):
    x, kernel = torch.randn(4, 6), torch.randn(k, k)
    expected = F.conv_transpose2d(x[None, None], kernel[None, None], stride=stride)[0, 0]
    torch.testing.assert_close(lab.transposed_conv2d(x, kernel, stride), expected, rtol=1e-4, atol=1e-5)


def test_transposed_convolution_by_hand():
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    assert lab.transposed_conv2d(x, x).tolist() == [[0, 0, 1], [0, 4, 6], [4, 12, 9]]


@pytest.mark.parametrize("network", [lambda: lab.LinearAutoencoder(torch.rand(784), 3), lambda: lab.MLPAutoencoder(3),
                                     lambda: lab.ConvAutoencoder(3)], ids=["linear", "mlp", "conv"])
def test_networks(network):
    model, x = network(), torch.rand(5, 1, 28, 28)
    assert model(x).shape == x.shape and model(x).dtype == torch.float32
    code = model.encoder(x.flatten(1) if isinstance(model, lab.LinearAutoencoder) else x)
    assert code.shape == (5, 3)


def test_the_linear_autoencoder_leaves_the_mean_where_it_is():
    mean = torch.rand(784)
    torch.testing.assert_close(lab.LinearAutoencoder(mean, 3)(mean.view(1, 1, 28, 28)), mean.view(1, 1, 28, 28))


@pytest.mark.parametrize("k", [2, 8])
def test_the_linear_autoencoder_reaches_pca(k, tmp_path):
    train, lab.test_loader = get_loaders("digits", 128, limit=2000)
    flat_train, flat_test = (loader.to_float(loader.images).flatten(1) for loader in (train, lab.test_loader))
    mean, v, _ = lab.fit_pca(flat_train)
    model, lab.epochs = lab.LinearAutoencoder(mean, k), 60
    training = Training("linear", tmp_path, {}, model=model)
    lab.fit(training, model, train, learning_rate=1e-2)
    expected_train, expected_test = (lab.squared_error(x, lab.reconstruct_pca(x, mean, v, k))
                                     for x in (flat_train, flat_test))
    assert len(training.history["error"]) == 60
    assert training.history["error"][-1] == pytest.approx(expected_train, rel=0.05)
    assert lab.test_error(model) == pytest.approx(expected_test, rel=0.05)
    config, tensors = read_checkpoint(tmp_path / "linear.state")
    [last_rate] = unpack(config["state"], tensors)["parts"]["schedule"]["_last_lr"]
    assert last_rate == pytest.approx(0, abs=1e-9)      # the steps shrink to zero


def test_the_error_of_the_test_set_weighs_a_shorter_last_batch():
    lab.test_loader = get_loaders("digits", 16, limit=36)[1]
    x = lab.test_loader.to_float(lab.test_loader.images)
    model = lab.MLPAutoencoder(4)
    assert len(x) % 16 and lab.test_error(model) == pytest.approx(lab.squared_error(x, model(x)), rel=1e-5)
    assert not model.training


@pytest.mark.slow
def test_kill_9_and_resume_end_bit_identical(tmp_path):
    check_resume("01_autoencoder", "model=lab.ConvAutoencoder(4)", "lab.fit(training, model, train, 1e-3)", tmp_path)


def test_interpolation_starts_and_ends_at_the_codes():
    model, x = lab.MLPAutoencoder(4), torch.rand(2, 1, 28, 28)
    frames = lab.interpolate(model, x[:1], x[1:], n=5)
    torch.testing.assert_close(frames[[0, -1]], model(x))
