"""Triplane fields: query SDF, grid offset and colour at points, given six feature planes.

`FieldDecoder` holds the three MLPs and is differentiable in all inputs; training uses it. `TriplaneField`
binds the planes of one prompt to these MLPs for fast inference queries: the first layer of an MLP and
bilinear sampling are both linear, so that layer is applied once to the texels of the planes instead of at
every point.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triplaneturbo.models.chunked import chunked
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.representations import field_kernels
from triplaneturbo.representations.field_kernels import HEIGHT_AXIS, HEIGHT_SIGN, WIDTH_AXIS, WIDTH_SIGN

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "softplus": nn.Softplus}

# Points per chunk in training. On a CPU, the hidden layers of a chunk should fit the cache of one core; on a
# GPU, a chunk should keep the device busy, with 0.3 GB of hidden layers.
_TRAINING_CHUNK = {"cpu": 8192, "cuda": 2**18}
_RGB_SPAN, _RGB_MARGIN = 1.002, 0.001  # colours reach from -0.001 to 1.001
_CHUNK = 16384  # points per chunk in inference: keeps several cores busy; 64 channels take 4 MiB


class FieldDecoder(nn.Module):
    """The three MLPs that decode plane features to SDF, grid offset and colour.

    Attributes:
        sdf: C -> 1, applied to the sum of the features of the three geometry planes.
        offset: C -> 3, applied to the same sum.
        color: 3C -> 3, applied to the concatenated features of the three texture planes.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.sdf = _mlp(config, config.plane_channels, 1)
        self.offset = _mlp(config, config.plane_channels, 3)
        self.color = _mlp(config, 3 * config.plane_channels, 3)

    def forward(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query SDF, offset and colour at points; differentiable in planes, points and weights.

        Args:
            planes: feature planes [B, 6, C, H, W].
            points: positions [B, N, 3]; planes cover [-1, 1]^3 and are zero outside.

        Returns:
            sdf [B, N] (negative inside), offset [B, N, 3] in grid cells, and sRGB colour [B, N, 3] in
            [-0.001, 1.001], in float32, or in float64 if weights and planes are float64.
        """
        geometry, texture = self.features(planes, points)
        sdf = run_mlp(self.sdf, geometry)[..., 0] + sphere(points.to(geometry), self.config.sphere_radius)
        return sdf, run_mlp(self.offset, geometry), to_rgb(run_mlp(self.color, texture))

    def features(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Sample features at points [B, N, 3]: geometry [B, N, C] (sum) and texture [B, N, 3C] (concat)."""
        geometry = self._sample(planes[:, :3], points).sum(1).transpose(1, 2)  # [B, N, C]
        texture = self._sample(planes[:, 3:], points).flatten(1, 2).transpose(1, 2)  # [B, N, 3C]
        return geometry, texture

    def rgb(self, planes: Tensor, points: Tensor) -> Tensor:
        """Query only the colour at points [B, N, 3]: [B, N, 3], as in `forward`."""
        texture = self._sample(planes[:, 3:], points).flatten(1, 2).transpose(1, 2).flatten(0, 1)

        def decode(features: Tensor, *weights: Tensor) -> Tensor:
            return to_rgb(run_mlp(self.color, features, weights))

        size = _training_chunk(points.device)
        return chunked(decode, size, [texture], list(self.color.parameters())).view(points.shape)

    def displacement(self, planes: Tensor, points: Tensor) -> Tensor:
        """Query only the grid offset, in cells, at points [B, N, 3]: [B, N, 3], as in `forward`."""
        return run_mlp(self.offset, self._sample(planes[:, :3], points).sum(1).transpose(1, 2))

    def sdf_lattice(self, planes: Tensor, axis: Tensor) -> Tensor:
        """Evaluate the SDF on a regular grid; differentiable in planes and weights.

        As in `TriplaneField.sdf_grid`, each plane is sampled at R^2 points only: the first layer is linear,
        so its output at a node is the sum of one contribution per plane.

        Args:
            planes: feature planes [B, 6, C, H, W].
            axis: node coordinates along each side [R].

        Returns:
            [B, R, R, R], indexed [x, y, z].
        """
        contributions = [
            samples.permute(0, 2, 3, 1) @ self.sdf[0].weight.to(samples.dtype).t()  # [B, R, R, width]
            for samples in self._sample_lattice(planes[:, :3], axis)
        ]
        if self.sdf[0].bias is not None:
            contributions[2] = contributions[2] + self.sdf[0].bias.to(contributions[2].dtype)
        remaining = self.sdf[1:]

        def after_first(xy: Tensor, xz: Tensor, yz: Tensor, *weights: Tensor) -> Tensor:
            hidden = xy[:, :, None] + xz[:, None] + yz  # [rows, R, R, width]
            return run_mlp(remaining, hidden, weights)[..., 0]

        rows = max(1, _training_chunk(axis.device) // len(axis) ** 2)
        values = torch.stack(
            [chunked(after_first, rows, [xy, xz], [yz, *remaining.parameters()])
             for xy, xz, yz in zip(*contributions, strict=True)]
        )  # fmt: skip
        square = axis.to(values) ** 2
        distance = (square[:, None, None] + square[:, None] + square).sqrt()
        return values + (distance - self.config.sphere_radius)

    def _sample(self, planes: Tensor, points: Tensor) -> Tensor:
        """Sample three planes [B, 3, C, H, W] at points [B, N, 3]: [B, 3, C, N]."""
        batch, _, channels, height, width = planes.shape
        dtype = compute_dtype(planes.dtype, self.sdf[0].weight.dtype)
        grid = plane_coordinates(points.to(dtype)).transpose(1, 2).flatten(0, 1)[:, None]  # [3B, 1, N, 2]
        flat = planes.to(dtype).reshape(batch * 3, channels, height, width)
        sampled = F.grid_sample(flat, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return sampled.view(batch, 3, channels, -1)

    def _sample_lattice(self, planes: Tensor, axis: Tensor) -> list[Tensor]:
        """Sample three planes [B, 3, C, H, W] at the projections of grid nodes: 3 times [B, C, R, R]."""
        dtype = compute_dtype(planes.dtype, self.sdf[0].weight.dtype)
        return [
            F.grid_sample(plane.to(dtype), grid.to(dtype).expand(len(plane), -1, -1, -1), align_corners=False)
            for plane, grid in zip(planes.unbind(1), lattice_coordinates(axis), strict=True)
        ]


class TriplaneField:
    """The planes of one prompt bound to the MLPs, for mesh extraction. Not differentiable.

    Results equal those of `FieldDecoder.forward` up to float rounding. Queries run in chunks of bounded
    memory. Lookup tables are built on first use and cached, so planes and weights must not change afterwards.

    Args:
        planes: feature planes [6, C, H, W], any floating dtype.
        fields: the MLPs, on the same device.

    Attributes:
        compiled: whether queries use compiled kernels (on a CPU, with ReLU); else they use torch.
    """

    def __init__(self, planes: Tensor, fields: FieldDecoder) -> None:
        self.planes = planes.detach()
        self.fields = fields
        self.device = planes.device
        self.compiled = field_kernels.supports(fields.sdf, planes.device)
        self._size = torch.tensor(
            (planes.shape[-1], planes.shape[-2]), device=self.device, dtype=torch.float32
        )
        self._texels: dict[str, Tensor] = {}
        self._packed: dict[str, field_kernels.PackedMLP] = {}
        self._nodes: dict[tuple[str, int], Tensor] = {}

    def sdf(self, points: Tensor) -> Tensor:
        """Query the signed distance at points [N, 3], negative inside: [N]."""
        return self._query("sdf", points)[:, 0] + sphere(points.float(), self.fields.config.sphere_radius)

    def offset(self, points: Tensor) -> Tensor:
        """Query the grid offset, in cells, at points [N, 3]: [N, 3]."""
        return self._query("offset", points)

    def rgb(self, points: Tensor) -> Tensor:
        """Query the sRGB colour at points [N, 3]: [N, 3], in [-0.001, 1.001]."""
        return self._query("color", points).sigmoid_().mul_(_RGB_SPAN).sub_(_RGB_MARGIN)  # `to_rgb` in place

    @torch.no_grad()
    def sdf_grid(self, resolution: int) -> Tensor:
        """Evaluate the SDF at all nodes of a regular grid over [-1, 1]^3: [R, R, R], indexed [x, y, z]."""
        square = node_axis(resolution, self.device) ** 2
        shape = (resolution,) * 3
        if self.compiled:
            distance = (square[:, None, None] + square[:, None] + square).sqrt_()
            table, packed = self.node_table("sdf", resolution), self._packed_mlp("sdf")
            values = field_kernels.query_grid(resolution, table, packed, 1).view(shape)
            return values.add_(distance.sub_(self.fields.config.sphere_radius))
        xy, xz, yz = self.node_table("sdf", resolution)
        out = torch.empty(shape, device=self.device)
        hidden = torch.zeros(max(_CHUNK, resolution), xy.shape[-1], device=self.device)
        lines = max(1, _CHUNK // resolution)
        size_x, size_y = max(1, lines // resolution), min(lines, resolution)
        for x in (slice(start, start + size_x) for start in range(0, resolution, size_x)):
            for y in (slice(start, start + size_y) for start in range(0, resolution, size_y)):
                part = out[x, y]  # [nx, ny, R]
                block = hidden[: part.numel()].view(*part.shape, -1)
                torch.add(xy[x, y, None], xz[x, None], out=block)
                block += yz[None, y]
                values = _after_first(self.fields.sdf, hidden)[: part.numel(), 0]
                distance = (square[x, None, None] + square[y, None] + square).sqrt_()
                torch.add(values.view(part.shape), distance - self.fields.config.sphere_radius, out=part)
        return out

    def sdf_at(self, nodes: Tensor, resolution: int) -> Tensor:
        """Evaluate the SDF at selected nodes of a regular grid.

        The values are bit-identical to those of `sdf_grid`: in torch, chunks have the same size for any M.

        Args:
            nodes: flat node indices z + R (y + R x) [M].
            resolution: nodes R along each side.

        Returns:
            [M].
        """
        square = node_axis(resolution, self.device) ** 2
        x, y, z = _node_indices(nodes, resolution)
        distance = (square[x] + square[y] + square[z]).sqrt_()
        return self._query_nodes("sdf", nodes, resolution)[:, 0] + (
            distance - self.fields.config.sphere_radius
        )

    def offset_at(self, nodes: Tensor, resolution: int) -> Tensor:
        """Evaluate the offset at selected nodes of a regular grid, as in `sdf_at`: [M, 3]."""
        return self._query_nodes("offset", nodes, resolution)

    def node_table(self, name: str, resolution: int) -> Tensor:
        """Return the contribution of each geometry plane to an MLP's first layer at grid nodes.

        The output of the first layer at node (i, j, k) is A[0, i, j] + A[1, i, k] + A[2, j, k] plus the bias,
        where A is the table.

        Args:
            name: "sdf" or "offset".
            resolution: nodes R along each side.

        Returns:
            [3, R, R, width].
        """
        if (name, resolution) not in self._nodes:
            self._nodes[name, resolution] = self._make_node_table(name, resolution)
        return self._nodes[name, resolution]

    @torch.no_grad()
    def _make_node_table(self, name: str, resolution: int) -> Tensor:
        grid = lattice_coordinates(node_axis(resolution, self.device))  # [3, R, R, 2]
        sampled = F.grid_sample(self.planes[:3].float(), grid, align_corners=False)  # [3, C, R, R]
        weight = getattr(self.fields, name)[0].weight.float()
        return sampled.permute(0, 2, 3, 1) @ weight.t()

    @torch.no_grad()
    def _query(self, name: str, points: Tensor) -> Tensor:
        """Evaluate an MLP at points [N, 3]: [N, outputs]."""
        if not self.compiled:
            return self.query_in_torch(name, points)
        mlp = getattr(self.fields, name)
        height, width = self.planes.shape[-2:]
        table, packed = self._texel_table(name), self._packed_mlp(name)
        return field_kernels.query(points.float(), table, (height, width), packed, mlp[-1].out_features)

    def _packed_mlp(self, name: str) -> field_kernels.PackedMLP:
        if name not in self._packed:
            self._packed[name] = field_kernels.pack(getattr(self.fields, name))
        return self._packed[name]

    @torch.no_grad()
    def query_in_torch(self, name: str, points: Tensor) -> Tensor:
        """Evaluate the MLP "sdf" (without the sphere), "offset" or "color" at points [N, 3]: [N, outputs].

        The twin of `field_kernels.query`, on any device and with any activation.
        """
        mlp = getattr(self.fields, name)
        table = self._texel_table(name)
        out = torch.empty(len(points), mlp[-1].out_features, device=self.device)
        for start in range(0, len(points), _CHUNK):
            corners, weights = self._corners(points[start : start + _CHUNK].float())
            hidden = F.embedding_bag(corners, table, mode="sum", per_sample_weights=weights)  # [n, width]
            out[start : start + _CHUNK] = _after_first(mlp, hidden)
        return out

    @torch.no_grad()
    def _query_nodes(self, name: str, nodes: Tensor, resolution: int) -> Tensor:
        """Evaluate the MLP "sdf" (without the sphere) or "offset" at nodes [M]: [M, outputs]."""
        if not self.compiled:
            return self.query_nodes_in_torch(name, nodes, resolution)
        mlp = getattr(self.fields, name)
        table, packed = self.node_table(name, resolution), self._packed_mlp(name)
        return field_kernels.query_nodes(nodes, resolution, table, packed, mlp[-1].out_features)

    @torch.no_grad()
    def query_nodes_in_torch(self, name: str, nodes: Tensor, resolution: int) -> Tensor:
        """Evaluate the MLP "sdf" (without the sphere) or "offset" at nodes [M]: [M, outputs].

        The twin of `field_kernels.query_nodes`, on any device and with any activation.
        """
        mlp = getattr(self.fields, name)
        table = self.node_table(name, resolution).flatten(0, 2)  # [3 R R, width]
        out = torch.empty(len(nodes), mlp[-1].out_features, device=self.device)
        for start in range(0, len(nodes), _CHUNK):
            chunk = nodes[start : start + _CHUNK]
            padding = _CHUNK - len(chunk)
            chunk = F.pad(chunk, (0, padding))  # rounding in a matrix product can depend on its size
            x, y, z = _node_indices(chunk, resolution)
            rows = torch.stack(
                (
                    x * resolution + y,
                    (resolution + x) * resolution + z,
                    (2 * resolution + y) * resolution + z,
                ),
                1,
            )
            values = _after_first(mlp, F.embedding_bag(rows, table, mode="sum"))
            out[start : start + _CHUNK] = values[: _CHUNK - padding]
        return out

    @torch.no_grad()
    def _texel_table(self, name: str) -> Tensor:
        """Return an MLP's first layer at each texel, with a zero border: [3 (H + 2) (W + 2), width]."""
        if name not in self._texels:
            planes = self.planes[3:] if name == "color" else self.planes[:3]
            weight = getattr(self.fields, name)[0].weight.float()
            if name == "color":  # features are concatenated, so each plane has its own columns
                weights = weight.view(len(weight), 3, -1).permute(1, 2, 0)  # [3, C, width]
            else:
                weights = weight.t().expand(3, -1, -1)
            padded = F.pad(planes.float(), (1, 1, 1, 1))  # [3, C, H + 2, W + 2]
            table = torch.bmm(padded.flatten(2).transpose(1, 2), weights)
            self._texels[name] = table.flatten(0, 1)
        return self._texels[name]

    def _corners(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows of the texel table for bilinear sampling at points [N, 3], and their weights.

        Returns:
            row indices [N, 12], four texels on each of three planes, and bilinear weights [N, 12].
        """
        height, width = self.planes.shape[-2:]
        coordinates = plane_coordinates(points)  # [N, 3, 2]
        size = self._size
        # In texels of the padded table; points outside are clamped to its zero border.
        texel = torch.minimum((((coordinates + 1) * size - 1) / 2 + 1).clamp_min(0), size + 1)
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
    """Project points [..., 3] to the xy, xz and yz plane, as (width, height) in [-1, 1]: [..., 3, 2]."""
    # By numbers instead of constant tensors, which would be copied to a GPU in each call.
    width, height = (
        torch.stack([sign * coordinates[axis] for axis, sign in zip(axes, signs, strict=True)], -1)
        for coordinates, axes, signs in (
            (points.unbind(-1), WIDTH_AXIS, WIDTH_SIGN),
            (points.unbind(-1), HEIGHT_AXIS, HEIGHT_SIGN),
        )
    )
    return torch.stack((width, height), -1)


def lattice_coordinates(axis: Tensor) -> Tensor:
    """Project the nodes of a cubic grid with coordinates `axis` [R] to the three planes: [3, R, R, 2].

    A point of a plane depends on two coordinates of a node, which index the result in the order x, y, z.
    """
    shape = (len(axis), len(axis))
    grids = []
    for plane in range(3):
        coordinates = {min(WIDTH_AXIS[plane], HEIGHT_AXIS[plane]): axis[:, None].expand(shape)}
        coordinates[max(WIDTH_AXIS[plane], HEIGHT_AXIS[plane])] = axis[None, :].expand(shape)
        width = WIDTH_SIGN[plane] * coordinates[WIDTH_AXIS[plane]]
        height = HEIGHT_SIGN[plane] * coordinates[HEIGHT_AXIS[plane]]
        grids.append(torch.stack((width, height), -1))
    return torch.stack(grids)


def _node_indices(nodes: Tensor, resolution: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the indices x, y, z along each axis of flat node indices z + R (y + R x) [M]: each [M]."""
    column = nodes // resolution
    return column // resolution, column % resolution, nodes % resolution


def node_axis(resolution: int, device: torch.device) -> Tensor:
    """Return the node coordinates along one axis: `resolution` values from -1 to 1."""
    return torch.linspace(-1, 1, resolution, device=device)


def sphere(points: Tensor, radius: float) -> Tensor:
    """Return the signed distance of points [..., 3] to a sphere around the origin: [...]."""
    return points.norm(dim=-1) - radius


def to_rgb(raw: Tensor) -> Tensor:
    """Map the colour MLP's output to [-0.001, 1.001], so that 0 and 1 are reachable."""
    return torch.sigmoid(raw) * _RGB_SPAN - _RGB_MARGIN


def compute_dtype(*dtypes: torch.dtype) -> torch.dtype:
    """Return float64 if all of `dtypes` are, else float32: the MLPs never run in half precision."""
    return torch.float64 if all(dtype == torch.float64 for dtype in dtypes) else torch.float32


def run_mlp(mlp: nn.Sequential, x: Tensor, weights: Iterable[Tensor] | None = None) -> Tensor:
    """Apply an MLP to x [..., inputs] in the dtype of x.

    Args:
        mlp: linear layers and activations.
        x: inputs.
        weights: replacements for the parameters of `mlp`, in the same order; None: its own.
    """
    parameters = iter(mlp.parameters() if weights is None else weights)
    for layer in mlp:
        if isinstance(layer, nn.Linear):
            x = _linear(x, next(parameters), None if layer.bias is None else next(parameters))
        else:
            x = layer(x)
    return x


def _training_chunk(device: torch.device) -> int:
    return _TRAINING_CHUNK.get(device.type, _TRAINING_CHUNK["cuda"])


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
    """Apply all but the first layer of an MLP to its output without bias [N, width]; may modify `hidden`."""
    if mlp[0].bias is not None:
        hidden += mlp[0].bias
    for layer in mlp[1:]:
        if isinstance(layer, nn.ReLU):
            hidden = hidden.relu_()
        else:
            linear = isinstance(layer, nn.Linear)
            hidden = _linear(hidden, layer.weight, layer.bias) if linear else layer(hidden)
    return hidden
