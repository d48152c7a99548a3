"""Guaranteed bounds of the sdf over blocks of grid nodes, by affine interval arithmetic.

A block is a cube of nodes. Over a block, every quantity is enclosed by a linear function of the node's
position plus or minus a slack: x(e) = centre + slopes . e +- slack, with e in [-1, 1]^3. For the first layer
this form is computed from the node tables (its slack is the largest deviation over the block's nodes); linear
layers map it exactly; each activation is enclosed between two parallel lines over the interval of its input.
The distance to the sphere is convex: it lies above its tangent, and its largest excess is at a corner.

The bounds hold at each node of a block, for the sdf in exact arithmetic and for the sdf in float32: they
include the usual worst-case estimate of the rounding of float32 sums, here and in `TriplaneField.sdf_at`.
They rest neither on sampling nor on an assumed Lipschitz constant. They do not hold between the nodes, where
marching cubes does not evaluate the sdf.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triplaneturbo.representations.triplane import TriplaneField

# Blocks per chunk: 64 channels in float32 take 128 KiB, so that about ten such arrays fit into a CPU cache.
_CHUNK = 512
_UNIT = 2.0**-24  # unit roundoff of float32: the largest relative error of one operation


@dataclass(frozen=True)
class _ParallelLines:
    """An activation f over an interval: slope x + shift - slack <= f(x) <= slope x + shift + slack."""

    slope: Tensor
    shift: Tensor
    slack: Tensor


class BlockBounds:
    """Bounds of a field's sdf over grid blocks of one size.

    Args:
        field: the field.
        resolution: nodes R along each side of the grid.
        size: nodes along each side of a block; block (a, b, c) holds the nodes from (a, b, c) * size on that
            are within the grid. There are `count` = ceil(R / size) blocks along each side.
    """

    @torch.no_grad()
    def __init__(self, field: TriplaneField, resolution: int, size: int) -> None:
        self.mlp = field.fields.sdf
        self.radius = field.fields.config.sphere_radius
        self.resolution = resolution
        self.size = size
        self.count = -(-resolution // size)
        # Nodes of each block along one axis; the last block repeats the grid's last node.
        starts = torch.arange(self.count, device=field.device)[:, None] * size
        nodes = (starts + torch.arange(size, device=field.device)).clamp_max(resolution - 1)  # [n, size]
        position = 2 * (nodes - starts) / max(size - 1, 1) - 1  # [n, size] in [-1, 1]
        tables = field.node_table("sdf", resolution)
        plain, slopes = zip(*(_enclose_plane(table, nodes, position) for table in tables), strict=True)
        self._plain = torch.cat(plain)  # [3 n n, 2 width]: centre, slack
        self._slopes = torch.cat(slopes)  # [3 * 2 n n, width]: per plane, along its first and second axis
        # The largest sum of magnitudes that a first layer's output is summed from, for the rounding error.
        self._largest = tables.abs().amax((1, 2)).sum(0)  # [width]

    @torch.no_grad()
    def signs(self, blocks: Tensor) -> Tensor:
        """Classify blocks [M, 3], int8 [M]: +1 all nodes outside, -1 all nodes inside, 0 undecided."""
        parts = [torch.zeros(0, dtype=torch.int8, device=blocks.device)]
        for chunk in blocks.split(_CHUNK):
            centre, reach = self.bounds(chunk)
            parts.append((centre - reach > 0).to(torch.int8) - (centre + reach < 0).to(torch.int8))
        return torch.cat(parts)

    @torch.no_grad()
    def bounds(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Return centre [M] and reach [M]; the sdf at each node of blocks [M, 3] is in centre +- reach."""
        a, b, c = blocks.unbind(1)
        n = self.count
        xy, xz, yz = a * n + b, (n + a) * n + c, (2 * n + b) * n + c
        plain = F.embedding_bag(torch.stack((xy, xz, yz), 1), self._plain, mode="sum")
        centre, slack = plain.chunk(2, 1)
        first, second = lambda plane: 2 * plane, lambda plane: 2 * plane + 1
        rows = torch.stack((first(xy), first(xz), second(xy), first(yz), second(xz), second(yz)))
        rows = rows.view(3, 2, -1).transpose(1, 2).reshape(-1, 2)
        slopes = F.embedding_bag(rows, self._slopes, mode="sum").view(3, len(blocks), -1)
        centre, slopes, reach = _enclose_mlp(self.mlp, centre, slopes, slack, self._largest)
        sphere, sphere_slopes, excess = self._sphere(blocks)
        return centre + sphere, (slopes + sphere_slopes).abs().sum(0) + reach + excess

    def _sphere(self, blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Enclose |p| - radius over blocks [M, 3]: centre [M], slopes [3, M], slack [M]."""
        cell = 2 / (self.resolution - 1)
        half = (self.size - 1) / 2 * cell
        middle = blocks * (self.size * cell) + (half - 1)  # [M, 3]
        distance = middle.norm(dim=1)
        slope = middle / distance.clamp_min(1e-6)[:, None] * half
        signs = torch.tensor([-1.0, 1.0], device=blocks.device)
        corners = torch.cartesian_prod(signs, signs, signs)  # [8, 3]
        at = (middle[:, None] + half * corners).norm(dim=2)  # [M, 8]
        excess = (at - distance[:, None] - slope @ corners.T).amax(1).clamp_min(0)
        return distance - self.radius + excess / 2, slope.T, excess / 2 + 32 * _UNIT


def _enclose_plane(table: Tensor, nodes: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """Enclose one plane's table over its n x n blocks.

    Args:
        table: values at nodes [R, R, width].
        nodes: the nodes of each block along one axis [n, size].
        place: their positions in the block, in [-1, 1] [n, size].

    Returns:
        centre and slack, concatenated [n n, 2 width]; slopes along both axes [2 n n, width].
    """
    count, size = nodes.shape
    values = table.index_select(0, nodes.flatten()).index_select(1, nodes.flatten())
    values = values.view(count, size, count, size, -1)
    weight = position / (size * position.square().sum(1, keepdim=True)).clamp_min(1e-6)  # of least squares
    slope_first = torch.einsum("ai,aibw->abw", weight, values.sum(3))
    slope_second = torch.einsum("bj,abjw->abw", weight, values.sum(1))
    low = torch.full_like(slope_first, torch.inf)
    high = torch.full_like(slope_first, -torch.inf)
    for i in range(size):
        along = slope_first * position[:, None, None, i]
        for j in range(size):
            rest = values[:, i, :, j] - along
            rest = rest.addcmul_(slope_second, position[:, j, None], value=-1)
            torch.minimum(low, rest, out=low)
            torch.maximum(high, rest, out=high)
    plain = torch.cat(((low + high) / 2, (high - low) / 2), 2)
    return plain.flatten(0, 1), torch.stack((slope_first, slope_second), 2).flatten(0, 2)


def _enclose_mlp(
    mlp: nn.Sequential, centre: Tensor, slopes: Tensor, slack: Tensor, largest: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Enclose the single output of an MLP, given the enclosure of its first layer's output without bias.

    Args:
        mlp: alternating linear layers and activations.
        centre: [M, width].
        slopes: [3, M, width].
        slack: [M, width].
        largest: over all blocks, the largest sum of magnitudes that such an output is summed from [width].

    Returns:
        centre [M], slopes [3, M], slack [M], including rounding errors.
    """
    linear = [layer for layer in mlp if isinstance(layer, nn.Linear)]
    weights = [layer.weight.to(centre) for layer in linear]
    biases = [None if layer.bias is None else layer.bias.to(centre) for layer in linear]
    if biases[0] is not None:
        centre, largest = centre + biases[0], largest + biases[0].abs()
    start = (centre, slopes, slack)
    # Forward pass: the input interval of each activation.
    lines: list[_ParallelLines] = []
    for index, activation in enumerate(mlp[1::2]):
        rounding = 4 * (index + 1) * linear[index].in_features * _UNIT * largest  # of all sums so far
        x, y, z = slopes
        line = _enclose_activation(activation, centre, x.abs() + y.abs() + z.abs() + (slack + rounding))
        lines.append(line)
        weight, bias = weights[index + 1], biases[index + 1]
        largest = (largest + 0.7) @ weight.abs().T  # softplus(0) is 0.69; else |f(x)| <= |x|
        if index + 2 == len(weights):
            break
        middle = torch.addcmul(line.shift, line.slope, centre)[None]
        both = torch.cat((middle, line.slope * slopes)) @ weight.T  # [4, M, width]
        centre, slopes = both[0], both[1:]
        slack = torch.addcmul(line.slack, line.slope.abs(), slack) @ weight.abs().T
        if bias is not None:
            centre, largest = centre + bias, largest + bias.abs()
    # Backward pass: the signed weight of each activation's slack in the output.
    total = centre.new_zeros(len(centre)) if biases[-1] is None else biases[-1].expand(len(centre))
    error = (4 * len(linear) * linear[-1].in_features * _UNIT * largest).expand(len(centre))
    back = weights[-1]
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index]
        total = total + (back * line.shift).sum(1)
        error = error + (back.abs() * line.slack).sum(1)
        back = back * line.slope
        if index:
            bias = biases[index]
            total = total if bias is None else total + back @ bias
            back = back @ weights[index]
    centre, slopes, slack = start
    return total + (back * centre).sum(1), (slopes * back).sum(2), error + (back.abs() * slack).sum(1)


def _enclose_activation(activation: nn.Module, centre: Tensor, reach: Tensor) -> _ParallelLines:
    """Enclose an activation over centre +- reach."""
    if isinstance(activation, nn.ReLU):
        above, below = (centre + reach).clamp_min(0), (reach - centre).clamp_min(0)
        slope = above / (above + below).clamp_min(1e-30)  # the chord; exact where the sign is certain
        half = slope * below / 2
        return _ParallelLines(slope, half, half)
    slope = _activation_slope(activation, centre)
    tangent = activation(centre) - slope * centre
    if isinstance(activation, nn.Softplus):  # convex: minimal at the point of tangency, maximal at an end
        ends = [activation(end) - slope * end for end in (centre - reach, centre + reach)]
        highest = torch.maximum(*ends).clamp_min(tangent)
        return _ParallelLines(slope, (tangent + highest) / 2, (highest - tangent) / 2)
    # SiLU: |f'| <= 1.1, and |f''| <= min(0.5, (2 + |x|) exp(-|x|)), which falls as |x| grows.
    nearest = (centre.abs() - reach).clamp_min(0)
    bend = ((2 + nearest) * torch.exp(-nearest)).clamp_max(0.5)
    return _ParallelLines(slope, tangent, torch.minimum(bend / 2 * reach**2, (1.1 + slope.abs()) * reach))


def _activation_slope(activation: nn.Module, x: Tensor) -> Tensor:
    """Return the derivative of an activation (ReLU, softplus or SiLU) at x, in the shape of x."""
    if isinstance(activation, nn.ReLU):
        return (x > 0).to(x.dtype)
    gate = torch.sigmoid(x)
    if isinstance(activation, nn.Softplus):
        return gate
    return gate * (1 + x * (1 - gate))
