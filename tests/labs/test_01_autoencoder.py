"""The definitions of lab 01, taken from the notebook, against second sources."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import cell_source, check_resume, definitions
from scipy import linalg
from scipy.stats import norm
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from torch.nn.utils import parameters_to_vector

from labutils import Training, get_loaders, seed_everything
from labutils.checkpoints import read_checkpoint, unpack
from labutils.data import InMemoryLoader

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
    train, test = get_loaders("digits", 128, limit=2000)
    flat_train, flat_test = (loader.to_float(loader.images).flatten(1) for loader in (train, test))
    mean, v, _ = lab.fit_pca(flat_train)
    model, lab.epochs = lab.LinearAutoencoder(mean, k), 60
    training = Training("linear", tmp_path, {}, model=model)
    lab.fit(training, model, train, learning_rate=1e-2)
    expected_train, expected_test = (lab.squared_error(x, lab.reconstruct_pca(x, mean, v, k))
                                     for x in (flat_train, flat_test))
    assert len(training.history["error"]) == 60
    assert training.history["error"][-1] == pytest.approx(expected_train, rel=0.05)
    found = lab.squared_errors(model, flat_test.view(-1, 1, 28, 28)).mean().item()
    assert found == pytest.approx(expected_test, rel=0.05)
    config, tensors = read_checkpoint(tmp_path / "linear.state")
    [last_rate] = unpack(config["state"], tensors)["parts"]["schedule"]["_last_lr"]
    assert last_rate == pytest.approx(0, abs=1e-9)      # the steps shrink to zero


def test_squared_errors_are_those_of_each_image_in_evaluation_mode():
    x, model = torch.rand(1003, 1, 28, 28), lab.MLPAutoencoder(4)
    model.encoder.append(torch.nn.Dropout())
    errors = lab.squared_errors(model, x)
    assert not model.training and errors.shape == (1003,)
    assert errors.mean().item() == pytest.approx(lab.squared_error(x, model(x)), rel=1e-5)
    assert errors[1000].item() == pytest.approx(lab.squared_error(x[1000:1001], model(x[1000:1001])), rel=1e-4)


@pytest.mark.parametrize("k", [3, 12])
def test_pca_as_a_linear_autoencoder(k):
    x = torch.rand(300, 784)
    lab.mean, lab.v, _ = lab.fit_pca(x)
    made = lab.pca_autoencoder(k)(x.view(-1, 1, 28, 28)).flatten(1)
    torch.testing.assert_close(made, lab.reconstruct_pca(x, lab.mean, lab.v, k), rtol=1e-3, atol=1e-4)


def test_auc_agrees_with_scikit_learn_and_with_a_closed_form():
    own, foreign = torch.randint(0, 9, (300,)).float(), torch.randint(2, 12, (170,)).float()      # many ties
    expected = roc_auc_score([0] * 300 + [1] * 170, torch.cat([own, foreign]))
    assert lab.auc(own, foreign) == pytest.approx(expected, abs=1e-9)
    assert lab.auc(torch.randn(20_000), torch.randn(20_000) + 1) == pytest.approx(norm.cdf(2**-0.5), abs=0.01)
    assert lab.auc(own, own) == 0.5 and lab.auc(own, torch.full((5,), -1.0)) == 0


def test_letters_are_white_on_black_in_a_box_of_20_pixels():
    sheets = lab.letters(("DejaVu Sans",))
    assert sheets.shape == (26, 1, 28, 28) and sheets.min() == 0 and sheets.amax(dim=(1, 2, 3)).min() > 0.6
    assert sheets[..., :4, :].max() == sheets[..., 24:, :].max() == sheets[..., :4].max() == sheets[..., 24:].max() == 0
    sides = torch.stack([(sheets > 0.2).any(dim=axis).sum(dim=(1, 2)) for axis in (2, 3)])
    assert (sides.amax(dim=0) >= 18).all() and len({sheet.sum().item() for sheet in sheets}) > 20


def test_the_gradient_of_the_root_is_that_of_the_mean_times_the_factor_of_the_box():
    shift, n = torch.rand(784, requires_grad=True), 32
    e = shift.expand(n, 784).square().sum() / n
    of_mean, of_root = (torch.autograd.grad(loss, shift, retain_graph=True)[0] for loss in (e, (n * e).sqrt()))
    torch.testing.assert_close(of_root, 0.5 * (n / e).sqrt() * of_mean)


@pytest.mark.parametrize("root", [False, True])
def test_short_trainings_take_the_loss_the_seed_and_the_number_of_steps_that_they_are_told(monkeypatch, root):
    monkeypatch.setitem(vars(lab), "batch_size", 32)
    lab.x_train, lab.train_loader = torch.rand(64, 1, 28, 28), InMemoryLoader(None, None, 32)
    seed_everything(1)
    expected = lab.shallow_autoencoder(3)
    optimizer = torch.optim.Adam(expected.parameters(), lr=3e-3, betas=(0.9, 0.99))
    for step in range(3):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 + np.cos(np.pi * step / 3)) / 2
        x = lab.x_train[torch.randint(64, (32,))]
        optimizer.zero_grad()
        loss = torch.dist(x, expected(x)) if root else F.mse_loss(expected(x), x) * 784
        loss.backward()
        optimizer.step()
    made = lab.train_briefly(3, 1, n_steps=3, root=root, beta2=0.99)
    torch.testing.assert_close(made(x), expected(x), rtol=1e-4, atol=1e-5)


def cells_of_a_small_run(out_dir):
    """Return a lab's variables with tiny parameters, and a function that executes one of its cells in them."""
    space = vars(definitions("01_autoencoder"))
    space |= {"dataset": "digits", "limit": 160, "batch_size": 32, "epochs": 1, "short_steps": 2, "out_dir": out_dir}
    return space, lambda cell: exec(cell_source("01_autoencoder", cell), space)


def test_a_changed_parameter_reaches_the_training_whose_cell_runs_next(tmp_path):
    space, run = cells_of_a_small_run(tmp_path)
    for cell in ("data", "pca-plot", "linear-train", "deep-train", "sweep"):
        run(cell)
    once = space["linear"][8].decoder.weight
    run("linear-train")
    assert torch.equal(space["linear"][8].decoder.weight, once)     # the same start and the same order of the images

    space |= {"epochs": 2, "code_dim": 5, "learning_rate": 1e-2, "seed": 1, "short_steps": 3}
    run("linear-train")
    assert space["training"].settings["epochs"] == len(space["training"].history["error"]) == 2
    run("deep-train")
    training, expected = space["trainings"]["mlp"], {"epochs": 2, "code_dim": 5, "learning_rate": 1e-2, "seed": 1}
    assert {name: training.settings[name] for name in expected} == expected and training.n_epochs == 2
    assert space["models"]["mlp"].encoder[-1].out_features == 5
    run("sweep")
    found, again = (parameters_to_vector(network.parameters())
                    for network in (space["short"][8][0], space["train_briefly"](8, 1, 3)))
    assert torch.equal(found, again)


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_after_an_interrupt_nothing_is_left_of_an_older_training(tmp_path):
    space, run = cells_of_a_small_run(tmp_path)
    for cell in ("data", "pca-plot", "deep-train", "sweep"):
        run(cell)
    space["fit"] = space["train_briefly"] = interrupted
    for cell in ("deep-train", "sweep"):
        with pytest.raises(KeyboardInterrupt):
            run(cell)
    assert [(name, training.history) for name, training in space["trainings"].items()] == [("mlp", {})]
    assert list(space["models"]) == ["mlp"] and not space["short"]


def test_data_that_were_loaded_with_other_parameters_are_refused(tmp_path):
    space, run = cells_of_a_small_run(tmp_path)
    for cell in ("data", "pca-plot"):
        run(cell)
    space["limit"] = 150
    for cell in ("linear-train", "deep-train", "sweep", "bug-root"):
        with pytest.raises(ValueError, match="limit=150"):
            run(cell)
    space["limit"] = 100        # fewer images than the longest code has numbers
    with pytest.raises(ValueError, match="limit=100"):
        run("data")


def test_the_best_linear_denoiser_has_the_error_of_its_formula():
    variance, n, sigma = torch.linspace(0.1, 4, 20), 100_000, 0.7
    axes = torch.linalg.qr(torch.randn(20, 20))[0]
    clean = torch.randn(n, 20) * variance.sqrt() @ axes.T + 3
    made = lab.denoise(clean + sigma * torch.randn_like(clean), torch.full((20,), 3.0), axes, (n * variance).sqrt(), n,
                       sigma)
    expected = (variance * sigma**2 / (variance + sigma**2)).sum().item()
    assert lab.squared_error(clean, made) == pytest.approx(expected, rel=0.01)


def test_a_picture_of_the_subspace_is_completed_exactly():
    x = torch.randn(50, 4) @ torch.randn(4, 30) + 2
    mean, v, _ = lab.fit_pca(x)
    visible = torch.arange(30) % 3 > 0
    torch.testing.assert_close(lab.complete(x * visible, visible, mean, v, 4), x, rtol=1e-3, atol=1e-3)


def test_few_labels_do_not_depend_on_the_unit_or_the_origin_of_the_features():
    train, test = get_loaders("digits", 64, limit=400)
    lab.train_loader, lab.test_loader, lab.n_labels = train, test, 60
    flat = [loader.to_float(loader.images).flatten(1) for loader in (train, test)]
    plain, moved = (lab.accuracy_with_few_labels(*(scale * x + shift for x in flat), 30, n_draws=3)
                    for scale, shift in ((1, 0), (50, 7)))
    torch.testing.assert_close(plain, moved, rtol=0, atol=0.02)
    assert plain.min() > 0.4 and len(set(plain.tolist())) > 1


@pytest.mark.slow
def test_kill_9_and_resume_end_bit_identical(tmp_path):
    check_resume("01_autoencoder", "model=lab.ConvAutoencoder(4)", "lab.fit(training, model, train, 1e-3)", tmp_path)


def test_interpolation_starts_and_ends_at_the_codes():
    model, x = lab.MLPAutoencoder(4), torch.rand(2, 1, 28, 28)
    frames = lab.interpolate(model, x[:1], x[1:], n=5)
    torch.testing.assert_close(frames[[0, -1]], model(x))
