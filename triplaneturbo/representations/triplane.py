"""The field: what can be asked at a point of space, given the six feature planes of a prompt.

`FieldDecoder` holds the three MLPs and is differentiable in everything; training uses it. `TriplaneField` is
one prompt's planes bound to those MLPs for queries only, and is fast on a CPU: the first layer of an MLP is
linear, and so is bilinear sampling, so that layer is applied once to the planes' texels instead of at every
point.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triplaneturbo.models.chunked import chunked
from triplaneturbo.models.config import GeneratorConfig

# Where a point (x, y, z) falls on the xy, xz and yz plane, as (width, height) in [-1, 1]: an axis and a sign.
_WIDTH_AXIS, _WIDTH_SIGN = (1, 0, 1), (1.0, -1.0, 1.0)
_HEIGHT_AXIS, _HEIGHT_SIGN = (0, 2, 2), (1.0, -1.0, -1.0)

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "softplus": nn.Softplus}

# Points at a time in training: few on a CPU, where one core's cache should hold all hidden layers;
# on a GPU enough to keep it busy, and 0.3 GB of hidden layers.
_SLAB = {"cpu": 8192, "cuda": 2**18}
_CHUNK = 16384  # points at a time: enough to keep several cores busy, and 64 channels of each fill 4 MiB


class FieldDecoder(nn.Module):
    """The three MLPs that read sdf, offset and colour from plane features.

    Attributes:
        sdf: C -> 1, on the sum of the three geometry plane samples.
        offset: C -> 3, on the same sum.
        color: 3C -> 3, on the samples of the three texture planes side by side.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.sdf = _mlp(config, config.plane_channels, 1)
        self.offset = _mlp(config, config.plane_channels, 3)
        self.color = _mlp(config, 3 * config.plane_channels, 3)

    def forward(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ask everything at some points; differentiable in planes, points and weights.

        Args:
            planes: feature planes [B, 6, C, H, W].
            points: positions [B, N, 3]; the object lies in [-1, 1]^3, outside of which planes count as zero.

        Returns:
            sdf [B, N] (negative inside), offset [B, N, 3] in grid cells, rgb [B, N, 3] in [-0.001, 1.001]
            (sRGB), all in float32, or float64 where weights and planes are.
        """
        geometry, texture = self.features(planes, points)
        sdf = run_mlp(self.sdf, geometry)[..., 0] + sphere(points.to(geometry), self.config.sphere_radius)
        return sdf, run_mlp(self.offset, geometry), to_rgb(run_mlp(self.color, texture))

    def features(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Features at points [B, N, 3]: geometry [B, N, C] (a sum) and texture [B, N, 3C] (side by side)."""
        geometry = self._sample(planes[:, :3], points).sum(1).transpose(1, 2)  # [B, N, C]
        texture = self._sample(planes[:, 3:], points).flatten(1, 2).transpose(1, 2)  # [B, N, 3C]
        return geometry, texture

    def rgb(self, planes: Tensor, points: Tensor) -> Tensor:
        """The colour alone at points [B, N, 3]: [B, N, 3], as `forward` has it."""
        texture = self._sample(planes[:, 3:], points).flatten(1, 2).transpose(1, 2).flatten(0, 1)

        def ask(features: Tensor, *weights: Tensor) -> Tensor:
            return to_rgb(run_mlp(self.color, features, weights))

        return chunked(ask, _slab(points.device), [texture], list(self.color.parameters())).view(points.shape)

    def sdf_lattice(self, planes: Tensor, axis: Tensor) -> Tensor:
        """The sdf at the nodes of a cubic lattice with coordinates `axis` [R] along each side: [B, R, R, R].

        Differentiable in planes and weights. As in `TriplaneField.sdf_grid`, a plane is sampled at R^2 places
        only: the first layer is linear, so its output at a node is the sum of three planes' shares.
        """
        shares = [
            lattice.permute(0, 2, 3, 1) @ self.sdf[0].weight.to(lattice.dtype).t()  # [B, R, R, width]
            for lattice in self._sample_lattice(planes[:, :3], axis)
        ]
        if self.sdf[0].bias is not None:
            shares[2] = shares[2] + self.sdf[0].bias.to(shares[2].dtype)
        rest = self.sdf[1:]

        def after_first(xy: Tensor, xz: Tensor, yz: Tensor, *weights: Tensor) -> Tensor:
            hidden = xy[:, :, None] + xz[:, None] + yz  # [rows, R, R, width]
            return run_mlp(rest, hidden, weights)[..., 0]

        rows = max(1, _slab(axis.device) // len(axis) ** 2)
        values = torch.stack(
            [chunked(after_first, rows, [xy, xz], [yz, *rest.parameters()])
             for xy, xz, yz in zip(*shares, strict=True)]
        )  # fmt: skip
        square = axis.to(values) ** 2
        away = (square[:, None, None] + square[:, None] + square).sqrt()
        return values + (away - self.config.sphere_radius)

    def _sample(self, planes: Tensor, points: Tensor) -> Tensor:
        """Three planes [B, 3, C, H, W] sampled at points [B, N, 3]: [B, 3, C, N]."""
        batch, _, channels, height, width = planes.shape
        kind = compute_dtype(planes.dtype, self.sdf[0].weight.dtype)
        at = plane_coordinates(points.to(kind)).transpose(1, 2).flatten(0, 1)[:, None]  # [3B, 1, N, 2]
        flat = planes.to(kind).reshape(batch * 3, channels, height, width)
        sampled = F.grid_sample(flat, at, mode="bilinear", padding_mode="zeros", align_corners=False)
        return sampled.view(batch, 3, channels, -1)

    def _sample_lattice(self, planes: Tensor, axis: Tensor) -> list[Tensor]:
        """Three planes [B, 3, C, H, W] where a lattice's nodes fall on them: 3 times [B, C, R, R]."""
        kind = compute_dtype(planes.dtype, self.sdf[0].weight.dtype)
        return [
            F.grid_sample(plane.to(kind), at.to(kind).expand(len(plane), -1, -1, -1), align_corners=False)
            for plane, at in zip(planes.unbind(1), lattice_coordinates(axis), strict=True)
        ]


class TriplaneField:
    """One prompt's planes bound to the MLPs: what the mesh's floor asks. Nothing here is differentiable.

    The answers are those of `FieldDecoder.forward` to float rounding. Memory is bounded: points go through in
    chunks. Tables are made when first needed and kept, so planes and weights must not change afterwards.

    Args:
        planes: feature planes [6, C, H, W], any float type.
        fields: the MLPs, on the same device.
    """

    def __init__(self, planes: Tensor, fields: FieldDecoder) -> None:
        self.planes = planes.detach()
        self.fields = fields
        self.device = planes.device
        self._texels: dict[str, Tensor] = {}
        self._nodes: dict[tuple[str, int], Tensor] = {}

    def sdf(self, points: Tensor) -> Tensor:
        """Signed distance at points [N, 3], negative inside: [N]."""
        return self._ask("sdf", points)[:, 0] + sphere(points.float(), self.fields.config.sphere_radius)

    def offset(self, points: Tensor) -> Tensor:
        """Offset of the grid, in cells, at points [N, 3]: [N, 3]."""
        return self._ask("offset", points)

    def rgb(self, points: Tensor) -> Tensor:
        """sRGB colour at points [N, 3], in [-0.001, 1.001]: [N, 3]."""
        return to_rgb(self._ask("color", points))

    @torch.no_grad()
    def sdf_grid(self, resolution: int) -> Tensor:
        """The sdf at all nodes of a regular grid over [-1, 1]^3: [R, R, R], indexed [x, y, z]."""
        xy, xz, yz = self.node_table("sdf", resolution)
        square = node_axis(resolution, self.device) ** 2
        out = torch.empty(resolution, resolution, resolution, device=self.device)
        hidden = torch.zeros(max(_CHUNK, resolution), xy.shape[-1], device=self.device)
        lines = max(1, _CHUNK // resolution)
        many_x, many_y = max(1, lines // resolution), min(lines, resolution)
        for x in (slice(start, start + many_x) for start in range(0, resolution, many_x)):
            for y in (slice(start, start + many_y) for start in range(0, resolution, many_y)):
                part = out[x, y]  # [nx, ny, R]
                block = hidden[: part.numel()].view(*part.shape, -1)
                torch.add(xy[x, y, None], xz[x, None], out=block)
                block += yz[None, y]
                answer = _after_first(self.fields.sdf, hidden)[: part.numel(), 0]
                away = (square[x, None, None] + square[y, None] + square).sqrt_()
                torch.add(answer.view(part.shape), away - self.fields.config.sphere_radius, out=part)
        return out

    def sdf_at(self, nodes: Tensor, resolution: int) -> Tensor:
        """The sdf at chosen nodes of that grid; nodes [M] are flat indices z + R (y + R x). Returns [M].

        Bit for bit what `sdf_grid` has there: the same sums in chunks of the same size, whatever M is.
        """
        return self._ask_nodes("sdf", nodes, resolution)[:, 0]

    def offset_at(self, nodes: Tensor, resolution: int) -> Tensor:
        """The offset at chosen nodes of that grid, as in `sdf_at`: [M, 3]."""
        return self._ask_nodes("offset", nodes, resolution)

    def node_table(self, name: str, resolution: int) -> Tensor:
        """The first layer's share of each geometry plane at the nodes of a regular grid: [3, R, R, width].

        With A = table: the first layer's output at node (i, j, k) is A[0, i, j] + A[1, i, k] + A[2, j, k],
        plus the layer's bias. `name` is "sdf" or "offset".
        """
        if (name, resolution) not in self._nodes:
            self._nodes[name, resolution] = self._make_node_table(name, resolution)
        return self._nodes[name, resolution]

    @torch.no_grad()
    def _make_node_table(self, name: str, resolution: int) -> Tensor:
        at = lattice_coordinates(node_axis(resolution, self.device))  # [3, R, R, 2]
        sampled = F.grid_sample(self.planes[:3].float(), at, align_corners=False)  # [3, C, R, R]
        weight = getattr(self.fields, name)[0].weight.float()
        return sampled.permute(0, 2, 3, 1) @ weight.t()

    @torch.no_grad()
    def _ask(self, name: str, points: Tensor) -> Tensor:
        """One MLP's answers at points [N, 3]: [N, outputs]."""
        mlp = getattr(self.fields, name)
        table = self._texel_table(name)
        out = torch.empty(len(points), mlp[-1].out_features, device=self.device)
        for start in range(0, len(points), _CHUNK):
            corners, weights = self._corners(points[start : start + _CHUNK].float())
            hidden = F.embedding_bag(corners, table, mode="sum", per_sample_weights=weights)  # [n, width]
            out[start : start + _CHUNK] = _after_first(mlp, hidden)
        return out

    @torch.no_grad()
    def _ask_nodes(self, name: str, nodes: Tensor, resolution: int) -> Tensor:
        """One geometry MLP's answers at nodes [M], the sphere added where it is the sdf: [M, outputs]."""
        mlp = getattr(self.fields, name)
        table = self.node_table(name, resolution).flatten(0, 2)  # [3 R R, width]
        square = node_axis(resolution, self.device) ** 2
        out = torch.empty(len(nodes), mlp[-1].out_features, device=self.device)
        for start in range(0, len(nodes), _CHUNK):
            chunk = nodes[start : start + _CHUNK]
            missing = _CHUNK - len(chunk)
            chunk = F.pad(chunk, (0, missing))  # rounding in a matrix product can depend on its size
            column, z = chunk // resolution, chunk % resolution
            x, y = column // resolution, column % resolution
            rows = torch.stack(
                (column, (resolution + x) * resolution + z, (2 * resolution + y) * resolution + z), 1
            )
            answer = _after_first(mlp, F.embedding_bag(rows, table, mode="sum"))
            if name == "sdf":
                away = (square[x] + square[y] + square[z]).sqrt_()
                answer = answer + (away - self.fields.config.sphere_radius)[:, None]
            out[start : start + _CHUNK] = answer[: _CHUNK - missing]
        return out

    @torch.no_grad()
    def _texel_table(self, name: str) -> Tensor:
        """The first layer of an MLP at each texel, with a border of zeros: [3 (H + 2) (W + 2), width]."""
        if name not in self._texels:
            planes = self.planes[3:] if name == "color" else self.planes[:3]
            weight = getattr(self.fields, name)[0].weight.float()
            if name == "color":  # the planes' features stand side by side: each plane has its own columns
                weights = weight.view(len(weight), 3, -1).permute(1, 2, 0)  # [3, C, width]
            else:
                weights = weight.t().expand(3, -1, -1)
            padded = F.pad(planes.float(), (1, 1, 1, 1))  # [3, C, H + 2, W + 2]
            table = torch.bmm(padded.flatten(2).transpose(1, 2), weights)
            self._texels[name] = table.flatten(0, 1)
        return self._texels[name]

    def _corners(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of the texel table around points [N, 3], four texels on each of three planes [N, 12], and
        their bilinear weights [N, 12].
        """
        height, width = self.planes.shape[-2:]
        at = plane_coordinates(points)  # [N, 3, 2]
        size = torch.tensor((width, height), device=self.device, dtype=at.dtype)
        # In texels of the table with its border: outside of it everything is zero, as its border is.
        texel = torch.minimum((((at + 1) * size - 1) / 2 + 1).clamp_min(0), size + 1)
        low = torch.minimum(texel.floor(), size)
        high_x, high_y = (texel - low).unbind(-1)  # [N, 3]
        low_x, low_y = 1 - high_x, 1 - high_y
        column, line = low.long().unbind(-1)
        plane = torch.arange(3, device=self.device) * ((height + 2) * (width + 2))
        first = plane + line * (width + 2) + column
        rows = torch.stack((first, first + 1, first + width + 2, first + width + 3), -1).flatten(1)
        weights = torch.stack((low_y * low_x, low_y * high_x, high_y * low_x, high_y * high_x), -1).flatten(1)
        return rows, weights


def plane_coordinates(points: Tensor) -> Tensor:
    """Where points [..., 3] fall on the xy, xz and yz plane, as (width, height) in [-1, 1]: [..., 3, 2]."""
    width = points[..., _WIDTH_AXIS] * points.new_tensor(_WIDTH_SIGN)
    height = points[..., _HEIGHT_AXIS] * points.new_tensor(_HEIGHT_SIGN)
    return torch.stack((width, height), -1)


def lattice_coordinates(axis: Tensor) -> Tensor:
    """Where the nodes of a cubic lattice fall on the xy, xz and yz plane: [3, R, R, 2] for R coordinates.

    A point of a plane needs but two of a node's coordinates; they index it in the order x, y, z.
    """
    shape = (len(axis), len(axis))
    lattices = []
    for plane in range(3):
        along = {min(_WIDTH_AXIS[plane], _HEIGHT_AXIS[plane]): axis[:, None].expand(shape)}
        along[max(_WIDTH_AXIS[plane], _HEIGHT_AXIS[plane])] = axis[None, :].expand(shape)
        width = _WIDTH_SIGN[plane] * along[_WIDTH_AXIS[plane]]
        height = _HEIGHT_SIGN[plane] * along[_HEIGHT_AXIS[plane]]
        lattices.append(torch.stack((width, height), -1))
    return torch.stack(lattices)


def node_axis(resolution: int, device: torch.device) -> Tensor:
    """The nodes' coordinates along one axis: `resolution` values from -1 to 1."""
    return torch.linspace(-1, 1, resolution, device=device)


def sphere(points: Tensor, radius: float) -> Tensor:
    """Signed distance to a sphere about the origin, at points [..., 3]: [...]."""
    return points.norm(dim=-1) - radius


def to_rgb(raw: Tensor) -> Tensor:
    """Colour from the colour MLP's output: in [-0.001, 1.001], so that 0 and 1 can be reached."""
    return torch.sigmoid(raw) * 1.002 - 0.001


def compute_dtype(*kinds: torch.dtype) -> torch.dtype:
    """float64 if all of `kinds` are, else float32: the MLPs never work in half precision."""
    return torch.float64 if all(kind == torch.float64 for kind in kinds) else torch.float32


def run_mlp(mlp: nn.Sequential, x: Tensor, weights: Iterable[Tensor] | None = None) -> Tensor:
    """Apply an MLP in the type of x [..., inputs], whatever the type of its weights.

    `weights` take the place of its own, in the order of its parameters.
    """
    given = iter(mlp.parameters() if weights is None else weights)
    for layer in mlp:
        if isinstance(layer, nn.Linear):
            x = _linear(x, next(given), None if layer.bias is None else next(given))
        else:
            x = layer(x)
    return x


def _slab(device: torch.device) -> int:
    return _SLAB.get(device.type, _SLAB["cuda"])


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def _mlp(config: GeneratorConfig, inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(config.mlp_layers):
        layers += [
            nn.Linear(inputs, config.mlp_width, bias=config.mlp_bias),
            _ACTIVATIONS[config.mlp_activation](),
        ]
        inputs = config.mlp_width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs, bias=config.mlp_bias))


def _after_first(mlp: nn.Sequential, hidden: Tensor) -> Tensor:
    """The rest of an MLP, given its first layer's output without the bias [N, width]; may overwrite it."""
    if mlp[0].bias is not None:
        hidden += mlp[0].bias
    for layer in mlp[1:]:
        if isinstance(layer, nn.ReLU):
            hidden = hidden.relu_()
        else:
            linear = isinstance(layer, nn.Linear)
            hidden = _linear(hidden, layer.weight, layer.bias) if linear else layer(hidden)
    return hidden
