"""Layers of PyTorch, the same but for rounding, where another way to compute them is faster."""

import torch
import torch.nn.functional as F
from torch import nn


class ConvTranspose2d(nn.ConvTranspose2d):
    """`nn.ConvTranspose2d`, faster in a decoder's first layers.

    Images (B, C, H, W). An input of one pixel goes through a linear layer, and on a CPU one no larger than the kernel has
    faster gradients. For others, and with padding, dilation or groups, it is PyTorch's own.
    """

    def forward(self, x):
        plain = (self.padding, self.output_padding, self.dilation, self.groups) == ((0, 0), (0, 0), (1, 1), 1) and x.ndim == 4
        if plain and x.shape[2:] == (1, 1):
            return self.as_linear_layer(x)
        if plain and x.device.type == "cpu" and all(n <= k for n, k in zip(x.shape[2:], self.kernel_size)):
            return TransposedConvolution.apply(x, self.weight, self.bias, self.stride)
        return super().forward(x)

    def as_linear_layer(self, x):
        """Codes (B, C, 1, 1): each number is multiplied with its whole kernel, and nothing overlaps."""
        n_places = self.kernel_size[0] * self.kernel_size[1]
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)
        rows = F.linear(x.flatten(1), weight, None if self.bias is None else self.bias.repeat(n_places))
        return rows.unflatten(1, (*self.kernel_size, -1)).permute(0, 3, 1, 2)


class TransposedConvolution(torch.autograd.Function):
    """A transposed convolution both of whose gradients are computed as convolutions.

    PyTorch (oneDNN) has a kernel of its own for the gradient of the weights, which takes up to twice as long.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.bfloat16)
    def forward(context, x, weight, bias, stride):
        context.save_for_backward(x, weight)
        context.stride = stride
        return F.conv_transpose2d(x, weight, bias, stride)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(context, gradient):
        x, weight = context.saved_tensors
        x_gradient = F.conv2d(gradient, weight, stride=context.stride)
        # for the weights, channels of the gradient and of x change places with the batch
        swapped = (t.transpose(0, 1).contiguous(memory_format=torch.channels_last) for t in (gradient, x))
        weight_gradient = F.conv2d(*swapped, dilation=context.stride).transpose(0, 1)
        return x_gradient, weight_gradient, gradient.sum((0, 2, 3)) if context.needs_input_grad[2] else None, None
