"""Proven bounds of the sdf over blocks of grid nodes, so that whole blocks need not be evaluated.

A block is a cube of nodes. Over it every quantity is enclosed in a linear function of the node's place plus
or minus a slack: x(e) = centre + slopes . e +- slack, with e in [-1, 1]^3. For the first layer this form is
read off the node tables (its slack is the largest deviation over the block's own nodes); linear layers map it
as they are; each activation is enclosed between two parallel lines over the interval that its input can take.
The sphere's distance is convex: it lies above its tangent, and its greatest excess is at a corner.

What is proven: the sdf that exact arithmetic would find at each node of a block lies within the bounds, and
so does what float32 finds, as the bounds include the usual worst-case estimate of the rounding of float32
sums, here and in `TriplaneField.sdf_at`. There is no sampling and no guessed Lipschitz constant. Nothing is
said of points that are not nodes; marching cubes does not ask them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triplaneturbo.representations.triplane import TriplaneField

_CHUNK = (
    512  # blocks at a time: 64 channels of float32 for each fill 128 KiB, and some ten such stay in a cache
)
_UNIT = 2.0**-24  # the largest relative rounding of one float32 operation


@dataclass(frozen=True)
class _Line:
    """An activation f over an interval: slope x + shift - slack <= f(x) <= slope x + shift + slack."""

    slope: Tensor
    shift: Tensor
    slack: Tensor


class BlockBounds:
    """Bounds over the blocks of one size of a field's grid.

    Args:
        field: the field.
        resolution: nodes R along each side of the grid.
        size: nodes along each side of a block; block (a, b, c) holds the nodes from (a, b, c) * size on, less
            those beyond the grid. There are `count` = ceil(R / size) blocks along each side.
    """

    @torch.no_grad()
    def __init__(self, field: TriplaneField, resolution: int, size: int) -> None:
        self.mlp = field.fields.sdf
        self.radius = field.fields.config.sphere_radius
        self.resolution = resolution
        self.size = size
        self.count = -(-resolution // size)
        # Nodes of each block along one axis; a block at the end repeats the grid's last node.
        starts = torch.arange(self.count, device=field.device)[:, None] * size
        nodes = (starts + torch.arange(size, device=field.device)).clamp_max(resolution - 1)  # [n, size]
        place = 2 * (nodes - starts) / max(size - 1, 1) - 1  # [n, size] in [-1, 1]
        tables = field.node_table("sdf", resolution)
        plain, slopes = zip(*(_enclose(table, nodes, place) for table in tables), strict=True)
        self._plain = torch.cat(plain)  # [3 n n, 2 width]: centre, slack
        self._slopes = torch.cat(slopes)  # [3 * 2 n n, width]: of each plane along its first and second axis
        # The greatest sum of sizes that a first layer's output is summed from, for the rounding.
        self._largest = tables.abs().amax((1, 2)).sum(0)  # [width]

    @torch.no_grad()
    def signs(self, blocks: Tensor) -> Tensor:
        """What is certain of blocks [M, 3]: +1 all nodes outside, -1 all inside, 0 not certain. int8 [M]."""
        parts = [torch.zeros(0, dtype=torch.int8, device=blocks.device)]
        for chunk in blocks.split(_CHUNK):
            centre, reach = self.bounds(chunk)
            parts.append((centre - reach > 0).to(torch.int8) - (centre + reach < 0).to(torch.int8))
        return torch.cat(parts)

    @torch.no_grad()
    def bounds(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """The sdf over blocks [M, 3] lies within centre [M] +- reach [M] at each node."""
        a, b, c = blocks.unbind(1)
        n = self.count
        xy, xz, yz = a * n + b, (n + a) * n + c, (2 * n + b) * n + c
        plain = F.embedding_bag(torch.stack((xy, xz, yz), 1), self._plain, mode="sum")
        centre, slack = plain.chunk(2, 1)
        first, second = lambda plane: 2 * plane, lambda plane: 2 * plane + 1
        rows = torch.stack((first(xy), first(xz), second(xy), first(yz), second(xz), second(yz)))
        rows = rows.view(3, 2, -1).transpose(1, 2).reshape(-1, 2)
        slopes = F.embedding_bag(rows, self._slopes, mode="sum").view(3, len(blocks), -1)
        centre, slopes, reach = _through_mlp(self.mlp, centre, slopes, slack, self._largest)
        sphere, sphere_slopes, excess = self._sphere(blocks)
        return centre + sphere, (slopes + sphere_slopes).abs().sum(0) + reach + excess

    def _sphere(self, blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """|p| - radius over blocks [M, 3]: centre [M], slopes [3, M], slack [M]."""
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


def _enclose(table: Tensor, nodes: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Enclose one plane's table [R, R, width] over its n x n blocks.

    Args:
        table: values at nodes.
        nodes: the nodes of each block along one axis [n, size].
        place: where they stand in the block, in [-1, 1] [n, size].

    Returns:
        centre and slack side by side [n n, 2 width]; slopes along both axes [2 n n, width].
    """
    count, size = nodes.shape
    values = table.index_select(0, nodes.flatten()).index_select(1, nodes.flatten())
    values = values.view(count, size, count, size, -1)
    weight = place / (size * place.square().sum(1, keepdim=True)).clamp_min(1e-6)  # of least squares
    slope_first = torch.einsum("ai,aibw->abw", weight, values.sum(3))
    slope_second = torch.einsum("bj,abjw->abw", weight, values.sum(1))
    low = torch.full_like(slope_first, torch.inf)
    high = torch.full_like(slope_first, -torch.inf)
    for i in range(size):
        along = slope_first * place[:, None, None, i]
        for j in range(size):
            rest = values[:, i, :, j] - along
            rest = rest.addcmul_(slope_second, place[:, j, None], value=-1)
            torch.minimum(low, rest, out=low)
            torch.maximum(high, rest, out=high)
    plain = torch.cat(((low + high) / 2, (high - low) / 2), 2)
    return plain.flatten(0, 1), torch.stack((slope_first, slope_second), 2).flatten(0, 2)


def _through_mlp(
    mlp: nn.Sequential, centre: Tensor, slopes: Tensor, slack: Tensor, largest: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Enclose an MLP's one output, given its first layer's output without the bias.

    Args:
        mlp: linear layers and activations by turns.
        centre: [M, width]; slopes: [3, M, width]; slack: [M, width]: the enclosure.
        largest: of all blocks, the greatest sum of sizes that such an output was summed from [width].

    Returns:
        centre [M], slopes [3, M], slack [M], rounding included.
    """
    linear = [layer for layer in mlp if isinstance(layer, nn.Linear)]
    weights = [layer.weight.to(centre) for layer in linear]
    biases = [None if layer.bias is None else layer.bias.to(centre) for layer in linear]
    if biases[0] is not None:
        centre, largest = centre + biases[0], largest + biases[0].abs()
    start = (centre, slopes, slack)
    # Forward: over which interval does each activation work?
    lines: list[_Line] = []
    for index, activation in enumerate(mlp[1::2]):
        rounding = 4 * (index + 1) * linear[index].in_features * _UNIT * largest  # of all sums so far
        x, y, z = slopes
        line = _line(activation, centre, x.abs() + y.abs() + z.abs() + (slack + rounding))
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
    # Backward: what weight does each activation's slack have in the end, signs and all?
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


def _line(activation: nn.Module, centre: Tensor, reach: Tensor) -> _Line:
    """Enclose an activation over centre +- reach."""
    if isinstance(activation, nn.ReLU):
        above, below = (centre + reach).clamp_min(0), (reach - centre).clamp_min(0)
        slope = above / (above + below).clamp_min(1e-30)  # the chord; exact where the sign is certain
        half = slope * below / 2
        return _Line(slope, half, half)
    slope = _activation_slope(activation, centre)
    tangent = activation(centre) - slope * centre
    if isinstance(activation, nn.Softplus):  # convex: least at the tangent's point, greatest at an end
        ends = [activation(end) - slope * end for end in (centre - reach, centre + reach)]
        highest = torch.maximum(*ends).clamp_min(tangent)
        return _Line(slope, (tangent + highest) / 2, (highest - tangent) / 2)
    # SiLU: |f'| <= 1.1, and |f''| <= min(0.5, (2 + |x|) exp(-|x|)), which falls as |x| grows.
    nearest = (centre.abs() - reach).clamp_min(0)
    bend = ((2 + nearest) * torch.exp(-nearest)).clamp_max(0.5)
    return _Line(slope, tangent, torch.minimum(bend / 2 * reach**2, (1.1 + slope.abs()) * reach))


def _activation_slope(activation: nn.Module, x: Tensor) -> Tensor:
    """The derivative of one of the three activations at x, of the shape of x."""
    if isinstance(activation, nn.ReLU):
        return (x > 0).to(x.dtype)
    gate = torch.sigmoid(x)
    if isinstance(activation, nn.Softplus):
        return gate
    return gate * (1 + x * (1 - gate))
