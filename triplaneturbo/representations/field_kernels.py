"""Compiled queries of triplane fields on a CPU: bilinear lookup and MLP in one pass over blocks of points.

The twin in torch, which GPUs and other activations than ReLU use, is in triplane.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from triplaneturbo.utils.kernels import kernel
from triplaneturbo.utils.threads import in_threads

# Projection of a point (x, y, z) to the xy, xz and yz plane as (width, height): axis and sign of each.
WIDTH_AXIS, WIDTH_SIGN = (1, 0, 1), (1.0, -1.0, 1.0)
HEIGHT_AXIS, HEIGHT_SIGN = (0, 2, 2), (1.0, -1.0, -1.0)

BLOCK = 128  # points per pass: the hidden layers of a block fit the caches of a core
_TOGETHER = 16  # points whose rows are transposed together: BLOCK is a multiple of it
_STEP = 4  # widths are padded to multiples of it


class PackedMLP(NamedTuple):
    """The layers of an MLP after the first one, padded with zeros to multiples of _STEP.

    Attributes:
        first_bias: bias of the first layer [width].
        hidden, hidden_bias: further hidden layers [layers, width, width], [layers, width].
        last, last_bias: the output layer [outputs, width], [outputs].
    """

    first_bias: np.ndarray
    hidden: np.ndarray
    hidden_bias: np.ndarray
    last: np.ndarray
    last_bias: np.ndarray


def supports(mlp: nn.Sequential, device: torch.device) -> bool:
    """Return whether the kernel evaluates this MLP on this device."""
    return device.type == "cpu" and all(isinstance(layer, nn.Linear | nn.ReLU) for layer in mlp)


def pack(mlp: nn.Sequential) -> PackedMLP:
    """Copy the layers of an MLP of linear layers and ReLUs for `query`."""
    layers = [layer for layer in mlp if isinstance(layer, nn.Linear)]
    width = _whole(layers[0].out_features)
    hidden = np.zeros((len(layers) - 2, width, width), np.float32)
    hidden_bias = np.zeros((len(layers) - 2, width), np.float32)
    for layer, weight, bias in zip(layers[1:-1], hidden, hidden_bias, strict=True):
        _copy(layer, weight, bias)
    outputs = _whole(layers[-1].out_features)
    last, last_bias = np.zeros((outputs, width), np.float32), np.zeros(outputs, np.float32)
    _copy(layers[-1], last, last_bias)
    first_bias = np.zeros(width, np.float32)
    if layers[0].bias is not None:
        first_bias[: layers[0].out_features] = layers[0].bias.detach().float().numpy()
    return PackedMLP(first_bias, hidden, hidden_bias, last, last_bias)


def query(points: Tensor, table: Tensor, size: tuple[int, int], mlp: PackedMLP, outputs: int) -> Tensor:
    """Evaluate an MLP at points. The result for a point does not depend on the others.

    Args:
        points: float32 [N, 3]; planes cover [-1, 1]^3 and are zero outside.
        table: the MLP's first layer at each texel, with a zero border [3 (H + 2) (W + 2), width].
        size: H, W.
        mlp: the other layers.
        outputs: number of outputs of the MLP.

    Returns:
        float32 [N, outputs].
    """
    out = np.empty((len(points), outputs), np.float32)
    at, lines = points.detach().contiguous().numpy(), table.numpy()
    in_threads(lambda first, last: _query(at[first:last], lines, *size, *mlp, out[first:last]), len(at))
    return torch.from_numpy(out)


def query_nodes(nodes: Tensor, resolution: int, table: Tensor, mlp: PackedMLP, outputs: int) -> Tensor:
    """Evaluate an MLP at nodes of a regular grid. The result for a node does not depend on the others.

    Args:
        nodes: flat node indices z + R (y + R x), int64 [M].
        resolution: nodes R along each side.
        table: contribution of each plane to the MLP's first layer, see `TriplaneField.node_table`
            [3, R, R, width].
        mlp: the other layers.
        outputs: number of outputs of the MLP.

    Returns:
        float32 [M, outputs].
    """
    out = np.empty((len(nodes), outputs), np.float32)
    at, lines = nodes.contiguous().numpy(), table.flatten(0, 2).contiguous().numpy()
    in_threads(
        lambda first, last: _query_nodes(at[first:last], lines, resolution, *mlp, out[first:last]), len(at)
    )
    return torch.from_numpy(out)


def query_grid(resolution: int, table: Tensor, mlp: PackedMLP, outputs: int) -> Tensor:
    """Evaluate an MLP at all nodes of a grid, bit-identical to `query_nodes`: float32 [R^3, outputs]."""
    out = np.empty((resolution**3, outputs), np.float32)
    columns = table[0].flatten(0, 1).contiguous().numpy()
    lines = table[1:].transpose(2, 3).contiguous().numpy()  # [2, R, width, R]: along z for the loops
    in_threads(
        lambda first, last: _query_grid(first, columns, lines, resolution, *mlp, out[first:last]), len(out)
    )
    return torch.from_numpy(out)


def _whole(count: int) -> int:
    return -(-count // _STEP) * _STEP


def _copy(layer: nn.Linear, weight: np.ndarray, bias: np.ndarray) -> None:
    weight[: layer.out_features, : layer.in_features] = layer.weight.detach().float().numpy()
    if layer.bias is not None:
        bias[: layer.out_features] = layer.bias.detach().float().numpy()


@kernel(contract=True)
def _query(points, table, height, width, first_bias, hidden, hidden_bias, last, last_bias, out):
    """Write the outputs of an MLP at points [N, 3] to out [N, outputs]; see `query`."""
    channels = len(first_bias)
    rows = np.zeros((_TOGETHER, channels), np.float32)
    block, other = np.zeros((channels, BLOCK), np.float32), np.zeros((channels, BLOCK), np.float32)
    columns, lines = np.zeros(BLOCK, np.int32), np.zeros(BLOCK, np.int32)
    right, down = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32)
    first, weights = np.zeros((3, BLOCK), np.int64), np.zeros((3, 4, BLOCK), np.float32)
    for start in range(0, len(points), BLOCK):
        count = min(BLOCK, len(points) - start)
        at = points[start : start + count]
        for plane in range(3):
            _along(at[:, WIDTH_AXIS[plane]], np.float32(WIDTH_SIGN[plane]), width, columns, right)
            _along(at[:, HEIGHT_AXIS[plane]], np.float32(HEIGHT_SIGN[plane]), height, lines, down)
            _texels(
                plane * (height + 2), width + 2, columns, lines, right, down, first[plane], weights[plane]
            )
        for point in range(0, count, _TOGETHER):  # points beyond `count` are left from earlier blocks
            for each in range(_TOGETHER):
                _blend(table, first, weights, width + 2, point + each, rows[each])
            for channel in range(channels):
                for each in range(_TOGETHER):
                    block[channel, point + each] = max(
                        rows[each, channel] + first_bias[channel], np.float32(0)
                    )
        _remaining_layers(block, other, hidden, hidden_bias, last, last_bias, out[start : start + count])


@kernel(contract=True)
def _query_nodes(nodes, table, resolution, first_bias, hidden, hidden_bias, last, last_bias, out):
    """Write the outputs of an MLP at grid nodes [M] to out [M, outputs]; see `query_nodes`."""
    channels = len(first_bias)
    block, other = np.zeros((channels, BLOCK), np.float32), np.zeros((channels, BLOCK), np.float32)
    for start in range(0, len(nodes), BLOCK):
        count = min(BLOCK, len(nodes) - start)
        for point in range(count):
            column, z = nodes[start + point] // resolution, nodes[start + point] % resolution
            x, y = column // resolution, column % resolution
            b, c = (resolution + x) * resolution + z, (2 * resolution + y) * resolution + z
            _add_rows(table[column], table[b], table[c], first_bias, point, block)
        _remaining_layers(block, other, hidden, hidden_bias, last, last_bias, out[start : start + count])


@kernel(contract=True)
def _query_grid(first, columns, lines, resolution, first_bias, hidden, hidden_bias, last, last_bias, out):
    """Write the outputs of an MLP at consecutive grid nodes from `first` on to out; see `query_grid`."""
    channels = len(first_bias)
    block, other = np.zeros((channels, BLOCK), np.float32), np.zeros((channels, BLOCK), np.float32)
    for start in range(0, len(out), BLOCK):
        count = min(BLOCK, len(out) - start)
        point = 0
        while point < count:
            column, z = (first + start + point) // resolution, (first + start + point) % resolution
            x, y = column // resolution, column % resolution
            run = min(resolution - z, count - point)
            for channel in range(columns.shape[1]):
                _add_lines(
                    columns[column, channel],
                    lines[0, x, channel, z : z + run],
                    lines[1, y, channel, z : z + run],
                    first_bias[channel],
                    block[channel, point : point + run],
                )
            point += run
        _remaining_layers(block, other, hidden, hidden_bias, last, last_bias, out[start : start + count])


# Sums in the order in which they are written, so that nodes have the same values one by one and in lines.


@kernel
def _add_rows(a, b, c, bias, point, block):
    """Write the ReLU of a + b + c + bias [width] to a point of block [width, BLOCK]."""
    for channel in range(len(a)):
        block[channel, point] = max(a[channel] + b[channel] + c[channel] + bias[channel], np.float32(0))


@kernel
def _add_lines(a, b, c, bias, out):
    """Write the ReLU of a + b + c + bias, where a and bias are numbers, to out [points]."""
    for point in range(len(out)):
        out[point] = max(a + b[point] + c[point] + bias, np.float32(0))


@kernel(contract=True)
def _remaining_layers(block, other, hidden, hidden_bias, last, last_bias, out):
    """Write the outputs for the first layer's block [width, BLOCK] to out [points, outputs]; uses `other`."""
    for layer in range(len(hidden)):
        _layer(block, hidden[layer], hidden_bias[layer], other)
        for channel in range(len(other)):
            for point in range(BLOCK):
                other[channel, point] = max(other[channel, point], np.float32(0))
        block, other = other, block
    _layer(block, last, last_bias, other)
    for point in range(out.shape[0]):
        for output in range(out.shape[1]):
            out[point, output] = other[output, point]


# The indices and weights of a block of points are computed before its rows are read, in loops of their own:
# LLVM vectorises neither where both are in one loop.


@kernel(contract=True)
def _along(coordinates, sign, size, index, fraction):
    """Write the index and the fraction of sign * coordinates among `size` texels of [-1, 1] with a border."""
    scale = np.float32(0.5) * np.float32(size)
    for point in range(len(coordinates)):
        texel = sign * coordinates[point] * scale + (scale + np.float32(0.5))
        texel = texel if texel > np.float32(0) else np.float32(0)  # NaN, too
        texel = min(texel, np.float32(size + 1))
        index[point] = min(np.int32(texel), np.int32(size))
        fraction[point] = texel - np.float32(index[point])


@kernel(contract=True)
def _texels(above, length, columns, lines, right, down, first, weights):
    """Write the row of the table of the first of four texels around points, and the weights of the four.

    `above` is the number of lines of other planes before this one in the table, `length` the rows of a line.
    """
    for point in range(BLOCK):
        first[point] = (above + lines[point]) * length + columns[point]
    for point in range(BLOCK):
        left, up = np.float32(1) - right[point], np.float32(1) - down[point]
        weights[0, point], weights[1, point] = up * left, up * right[point]
        weights[2, point], weights[3, point] = down[point] * left, down[point] * right[point]


@kernel(contract=True)
def _blend(table, first, weights, below, point, row):
    """Write the weighted sum of a point's four rows of the table in each plane to row [width]."""
    a, b, c = first[0, point], first[1, point], first[2, point]
    a0, a1, a2, a3 = _weights(weights[0], point)
    b0, b1, b2, b3 = _weights(weights[1], point)
    c0, c1, c2, c3 = _weights(weights[2], point)
    for channel in range(table.shape[1]):
        row[channel] = (
            a0 * table[a, channel] + a1 * table[a + 1, channel]
            + a2 * table[a + below, channel] + a3 * table[a + below + 1, channel]
            + b0 * table[b, channel] + b1 * table[b + 1, channel]
            + b2 * table[b + below, channel] + b3 * table[b + below + 1, channel]
            + c0 * table[c, channel] + c1 * table[c + 1, channel]
            + c2 * table[c + below, channel] + c3 * table[c + below + 1, channel]
        )  # fmt: skip


@kernel(contract=True)
def _weights(weights, point):
    return weights[0, point], weights[1, point], weights[2, point], weights[3, point]


@kernel(contract=True)
def _layer(block, weight, bias, out):
    """Write weight [outputs, width] @ block [width, BLOCK] + bias [outputs] to the first rows of out."""
    for row in range(0, len(weight), _STEP):
        for point in range(BLOCK):
            out[row, point], out[row + 1, point] = bias[row], bias[row + 1]
            out[row + 2, point], out[row + 3, point] = bias[row + 2], bias[row + 3]
        for column in range(0, weight.shape[1], _STEP):
            # Products of four rows and four columns, so that values that are loaded once are used four times.
            a0, a1, a2, a3 = _four(weight[row], column)
            b0, b1, b2, b3 = _four(weight[row + 1], column)
            c0, c1, c2, c3 = _four(weight[row + 2], column)
            d0, d1, d2, d3 = _four(weight[row + 3], column)
            for point in range(BLOCK):
                x0, x1 = block[column, point], block[column + 1, point]
                x2, x3 = block[column + 2, point], block[column + 3, point]
                out[row, point] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                out[row + 1, point] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                out[row + 2, point] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                out[row + 3, point] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@kernel(contract=True)
def _four(values, first):
    return values[first], values[first + 1], values[first + 2], values[first + 3]
