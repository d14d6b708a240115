"""Answers to the exercises on autoregressive models: right ones in other forms, and wrong ones that no misconception
gives."""

import torch
import torch.nn.functional as F


def mask_by_blocks(kind, n_out, n_in, kernel_size):
    """The middle as a small triangular matrix of the three groups, blown up to the channels."""
    mask = torch.zeros(n_out, n_in, kernel_size**2, dtype=torch.int)
    groups = torch.ones(3, 3, dtype=torch.int).tril(0 if kind == "B" else -1)
    mask[:, :, :kernel_size**2 // 2] = 1
    mask[:, :, kernel_size**2 // 2] = groups.repeat_interleave(n_out // 3, 0).repeat_interleave(n_in // 3, 1)
    return mask.view(n_out, n_in, kernel_size, kernel_size)


def visible_by_dilation(n_layers, size, i, j):
    """Grow the set of places by the turned kernel, layer by layer."""
    seen = torch.zeros(1, 1, size, size)
    seen[0, 0, i, j] = 1
    kernel = torch.tensor([[[[0, 0, 0], [0, 1, 1], [1, 1, 1]]]]).float()
    for layer in range(n_layers + 1):
        if layer == n_layers:
            kernel[0, 0, 1, 1] = 0
        seen = (F.conv2d(seen, kernel, padding=1) > 0).float()
    return seen[0, 0].numpy()


def complete_by_index(model, b, known, u):
    b = b.clone().double()
    for k in range(known.numel()):
        if not known.flatten()[k]:
            p = torch.sigmoid(model(b.float())).flatten(1)[:, k]
            b.flatten(1)[:, k] = torch.bernoulli(torch.zeros(len(b))) + (p > u.flatten(1)[:, k])
    return b


def complete_in_place(model, b, known, u):
    with torch.no_grad():
        for i, j in (~known).nonzero():
            b[:, 0, i, j] = (u[:, 0, i, j] < torch.sigmoid(model(b))[:, 0, i, j]).float()
    return b


ANSWERS = {
    "colour_mask": {
        "right": [mask_by_blocks, lambda *arguments: mask_by_blocks(*arguments).bool().tolist()],
        "wrong": [
            (lambda kind, n_out, n_in, k: mask_by_blocks(kind, n_out, n_in, k)[:1, :1], "shape"),
            (lambda kind, n_out, n_in, k: None, "returns NoneType"),
            (lambda kind, n_out, n_in, k: torch.ones(n_out, n_in, k, k), "values are not"),
        ]},
    "visible": {
        "right": [visible_by_dilation, lambda *arguments: visible_by_dilation(*arguments).tolist()],
        "wrong": [
            (lambda n_layers, size, i, j: torch.zeros(size), "shape"),
            (lambda n_layers, size, i, j: torch.ones(size, size), "values are not"),
        ]},
    "complete_picture": {
        "right": [complete_by_index],
        "wrong": [
            (complete_in_place, "have been changed"),
            (lambda model, b, known, u: None, "returns NoneType"),
            (lambda model, b, known, u: u, "values are not"),
        ]},
}
