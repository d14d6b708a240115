import copy

import pytest
import torch
from torch import nn

from labutils import ConvTranspose2d
from labutils.layers import TransposedConvolution

# channels in and out, kernel, stride, side of the input, further options
SHAPES = [(6, 4, 5, 1, 1, {}), (6, 4, (3, 2), 2, 1, {"bias": False}), (6, 4, 5, 1, 5, {"bias": False}), (3, 4, 4, 1, 3, {}),
          (3, 2, 5, 2, 4, {}), (3, 2, 4, 3, 2, {"bias": False}), (3, 2, (3, 4), (2, 1), 3, {}),         # as convolutions
          (3, 2, 3, 2, 4, {}), (3, 4, 4, 2, 2, {"padding": 1}), (4, 4, 4, 1, 3, {"groups": 2}),         # PyTorch's own
          (3, 2, 3, 2, 3, {"output_padding": 1}), (3, 2, 3, 1, 3, {"dilation": 2})]


def both_layers(n_in, n_out, kernel, stride, options):
    """Return PyTorch's layer and ours with the same weights, in float64."""
    torch.manual_seed(0)
    theirs = nn.ConvTranspose2d(n_in, n_out, kernel, stride, dtype=torch.float64, **options)
    ours = ConvTranspose2d(n_in, n_out, kernel, stride, dtype=torch.float64, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("n_in, n_out, kernel, stride, side, options", SHAPES)
def test_results_and_gradients_are_those_of_pytorch(n_in, n_out, kernel, stride, side, options, memory_format):
    results = []
    for layer in both_layers(n_in, n_out, kernel, stride, options):
        layer.to(memory_format=memory_format)
        x = torch.arange(2.0 * n_in * side**2, dtype=torch.float64).sin().view(2, n_in, side, side).requires_grad_()
        y = layer(x)
        (y * torch.arange(y.numel()).cos().view_as(y)).sum().backward()
        results.append([y, x.grad, *(p.grad for p in layer.parameters())])
    torch.testing.assert_close(*results)
    alone, = torch.autograd.grad(layer(x[0]).square().sum(), x)        # one image without a batch
    together, = torch.autograd.grad(layer(x)[0].square().sum(), x)
    torch.testing.assert_close(alone, together)


@pytest.mark.parametrize("stride", [1, 2, (1, 3)])
def test_gradients_of_both_orders_match_finite_differences(stride):
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 2, 3), (3, 2, 3, 3), (2,)))
    stride = (stride, stride) if isinstance(stride, int) else stride
    assert torch.autograd.gradcheck(lambda *tensors: TransposedConvolution.apply(*tensors, stride), (x, weight, bias))
    assert torch.autograd.gradgradcheck(lambda *tensors: TransposedConvolution.apply(*tensors, stride), (x, weight, bias))


@pytest.mark.parametrize("side", [1, 3])
def test_autocast_takes_bfloat16_and_leaves_gradients_of_float32(side):
    torch.manual_seed(0)
    theirs = nn.ConvTranspose2d(16, 8, 3)
    ours = ConvTranspose2d(16, 8, 3)
    ours.load_state_dict(theirs.state_dict())
    results = []
    for layer, fast in ((theirs, False), (ours, True)):
        x = torch.linspace(-1, 1, 4 * 16 * side**2).view(4, 16, side, side).sin().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            y = layer(x)
        assert y.dtype == (torch.bfloat16 if fast else torch.float32)
        y.float().square().sum().backward()
        results.append([y.float(), x.grad, *(p.grad for p in layer.parameters())])
    for exact, rounded in zip(*results):
        assert rounded.dtype == torch.float32 and (exact - rounded).norm() < 0.01 * exact.norm()


def test_only_what_is_asked_for_has_a_gradient():
    layer = ConvTranspose2d(3, 2, 3)
    layer.weight.requires_grad_(False)
    x = torch.ones(2, 3, 3, 3, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is not None and x.grad is not None
    layer.requires_grad_(True)
    layer(x.detach()).sum().backward(inputs=[layer.weight])
    assert layer.weight.grad.shape == layer.weight.shape


def test_small_inputs_take_the_faster_way(monkeypatch):
    taken = []
    monkeypatch.setattr(nn.ConvTranspose2d, "forward", lambda self, x: taken.append("PyTorch's"))
    monkeypatch.setattr(TransposedConvolution, "apply", lambda *_: taken.append("ours"))
    layer = ConvTranspose2d(2, 2, (4, 3))
    for side in ((4, 3), (1, 2), (4, 4), (5, 3)):
        layer(torch.ones(1, 2, *side))
    layer(torch.ones(1, 2, 2, 2, device="meta"))
    assert taken == ["ours", "ours", "PyTorch's", "PyTorch's", "PyTorch's"]
    for device in ("cpu", "meta"):      # a linear layer wherever
        assert layer.to(device)(torch.ones(1, 2, 1, 1, device=device)).shape == (1, 2, 4, 3)
    assert len(taken) == 5


def test_a_copy_is_pytorchs_layer_with_the_same_weights():
    layer = copy.deepcopy(ConvTranspose2d(2, 3, 3))
    assert isinstance(layer, nn.ConvTranspose2d) and layer.state_dict().keys() == nn.ConvTranspose2d(2, 3, 3).state_dict().keys()
