"""Coarse-to-fine extraction against the dense grid, and its bounds against the values at the nodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tests.helpers.fields import mushroom, random_field, released_fields
from tests.helpers.topology import uses_of_edges, volume
from triplaneturbo.errors import EmptySurfaceError, UserError
from triplaneturbo.mesh.extraction.interval_bounds import BlockBounds
from triplaneturbo.mesh.extraction.marching_cubes import marching_cubes
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.representations.triplane import FieldDecoder, TriplaneField


def ball_field(radius: float, **config: object) -> TriplaneField:
    """A field whose MLPs return zero: a ball, or no surface if the radius is too small or too large."""
    fields = FieldDecoder(GeneratorConfig(plane_channels=2, mlp_width=4, sphere_radius=radius, **config))  # type: ignore[arg-type]
    for weight in fields.requires_grad_(False).parameters():
        weight.zero_()
    return TriplaneField(torch.zeros(6, 2, 4, 4), fields)


def smooth_field(activation: str = "relu", layers: int = 2, bias: bool = False) -> TriplaneField:
    """A random smooth field with several components, large and small."""
    fields = FieldDecoder(
        GeneratorConfig(
            plane_channels=4, mlp_width=16, mlp_activation=activation, mlp_layers=layers, mlp_bias=bias
        )
    )
    planes = F.interpolate(2 * torch.randn(6, 4, 6, 6), (32, 40), mode="bicubic")
    return TriplaneField(planes, fields.requires_grad_(False))


def test_sparse_extraction_of_the_mushroom_matches_dense() -> None:
    field = mushroom()
    dense = extract(field, 160, "dense")
    quick = extract(field, 160, "sparse")
    assert not quick.dense
    assert 8 * quick.nodes < 160**3 == dense.nodes
    assert torch.equal(quick.vertices, dense.vertices)
    assert torch.equal(quick.faces, dense.faces)
    assert (uses_of_edges(quick.faces) == 2).all()
    # All vertices are on the field's surface, up to the small deformation of the grid.
    assert field.sdf(quick.vertices).abs().max() < 0.01


def test_auto_mode_evaluates_the_dense_grid_where_that_is_faster() -> None:
    assert extract(mushroom(), 160).dense
    assert not extract(mushroom(), 200).dense
    # Without a compiled kernel the dense grid takes longer.
    assert extract(smooth_field("relu"), 160).dense
    assert not extract(smooth_field("silu"), 160).dense


def test_dense_mode_is_marching_cubes_of_the_full_grid() -> None:
    field = smooth_field()
    size = 20
    axis = torch.linspace(-1, 1, size)
    points = torch.cartesian_prod(axis, axis, axis)
    sdf, offset, _ = field.fields(field.planes[None], points[None])
    vertices, faces = marching_cubes(sdf.view(size, size, size), offset.view(size, size, size, 3))
    found = extract(field, size, "dense")
    assert found.dense
    assert torch.equal(found.faces, faces)
    torch.testing.assert_close(found.vertices, vertices, atol=2e-5, rtol=0)


@pytest.mark.parametrize("activation", ["relu", "silu", "softplus"])
@pytest.mark.parametrize(("layers", "bias"), [(1, True), (2, False), (3, True)])
@pytest.mark.parametrize("resolution", [33, 50])
def test_sparse_mesh_matches_dense(activation: str, layers: int, bias: bool, resolution: int) -> None:
    field = smooth_field(activation, layers, bias)
    dense, quick = extract(field, resolution, "dense"), extract(field, resolution, "sparse")
    assert quick.nodes < resolution**3
    assert torch.equal(quick.vertices, dense.vertices)
    assert torch.equal(quick.faces, dense.faces)


@pytest.mark.parametrize("activation", ["relu", "silu", "softplus"])
@pytest.mark.parametrize(("layers", "bias"), [(1, True), (2, False), (3, True)])
@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_bounds_hold_at_every_node(activation: str, layers: int, bias: bool, size: int) -> None:
    resolution = 30  # not a multiple of 4 or 8: the last blocks are partial
    for field in (smooth_field(activation, layers, bias), random_field((20, 20), mlp_activation=activation)):
        bounds = BlockBounds(field, resolution, size)
        count = bounds.count
        axis = torch.arange(count)
        blocks = torch.cartesian_prod(axis, axis, axis)
        centre, reach = bounds.bounds(blocks)
        grid = field.sdf_grid(resolution)
        grid = F.pad(grid[None], (0, count * size - resolution) * 3, mode="replicate")[0]
        nodes = grid.view(count, size, count, size, count, size).transpose(1, 2).transpose(3, 4)
        nodes = nodes.transpose(2, 3).reshape(count**3, size**3)
        assert (nodes.amax(1) <= centre + reach).all()
        assert (nodes.amin(1) >= centre - reach).all()
        signs = bounds.signs(blocks)
        assert (nodes[signs > 0] > 0).all()
        assert (nodes[signs < 0] < 0).all()


def test_rough_fields_fall_back_to_the_dense_grid(parity: Path) -> None:
    fields = released_fields(parity / "generator")
    path = sorted((parity / "generator").glob("case_*.safetensors"))[0]
    found = extract(TriplaneField(load_file(path)["planes"][0], fields), 160)
    assert found.dense
    assert found.nodes == 160**3
    assert (uses_of_edges(found.faces) == 2).all()


def test_surface_matches_the_public_implementation(parity: Path) -> None:
    fields = released_fields(parity / "generator")
    paths = sorted((parity / "surface").glob("end_to_end_public_*.npz"))
    assert paths
    for path in paths:
        case = np.load(path)
        planes = load_file(
            parity / "generator" / f"{path.stem.removeprefix('end_to_end_public_')}.safetensors"
        )
        for index, plane in enumerate(planes["planes"]):
            field = TriplaneField(plane, fields)
            theirs = torch.from_numpy(case[f"vertices_{index}"])
            for mode in ("auto", "dense", "sparse"):
                found = extract(field, int(case["resolution"]), mode)  # type: ignore[arg-type]
                assert found.faces.shape == case[f"faces_{index}"].shape
                torch.testing.assert_close(found.vertices, theirs, atol=5e-5, rtol=0)
            wanted = volume(theirs, torch.from_numpy(case[f"faces_{index}"]))
            assert volume(found.vertices, found.faces) == pytest.approx(wanted, rel=3e-3)
            colours = torch.from_numpy(case[f"rgb_{index}"])
            torch.testing.assert_close(field.rgb(theirs), colours, atol=1e-4, rtol=0)


def test_tiny_far_piece_is_kept() -> None:
    # A single texel of one plane pair causes a dent of a few nodes far from everything else.
    field = ball_field(0.3)
    for layer in (0, 2):
        field.fields.sdf[layer].weight.fill_diagonal_(1)
    field.fields.sdf[4].weight[0, 0] = -3
    planes = torch.zeros(6, 2, 64, 64)
    planes[0, 0, 58, 58] = planes[1, 0, 6, 6] = planes[2, 0, 6, 58] = 0.25
    field = TriplaneField(planes, field.fields)
    dense, quick = extract(field, 128, "dense"), extract(field, 128, "sparse")
    far = dense.vertices.amin(1) > 0.5
    assert 0 < far.sum() < 200
    assert not quick.dense
    assert 8 * quick.nodes < 128**3
    assert torch.equal(quick.vertices, dense.vertices)
    assert torch.equal(quick.faces, dense.faces)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_weights_and_planes(kind: torch.dtype) -> None:
    exact = smooth_field(bias=True)
    half = TriplaneField(exact.planes.to(kind), exact.fields.to(kind))
    dense, quick = extract(half, 40, "dense"), extract(half, 40, "sparse")
    assert quick.vertices.dtype == torch.float32
    assert torch.equal(quick.vertices, dense.vertices)


@pytest.mark.parametrize("radius", [-1.0, 3.0])
@pytest.mark.parametrize("mode", ["auto", "dense", "sparse"])
def test_empty_surface_is_an_error(radius: float, mode: str) -> None:
    for resolution in (20, 100):
        with pytest.raises(EmptySurfaceError):
            extract(ball_field(radius), resolution, mode)  # type: ignore[arg-type]


def test_solid_beyond_the_box_is_closed_by_caps() -> None:
    dense, quick = (extract(ball_field(1.3), 40, mode) for mode in ("dense", "sparse"))  # type: ignore[arg-type]
    assert torch.equal(quick.vertices, dense.vertices)
    assert (uses_of_edges(quick.faces) == 2).all()
    assert volume(quick.vertices, quick.faces) == pytest.approx(7.23, abs=0.4)


def test_wrong_bounds_fall_back_to_the_dense_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    # Simulates a device with sums less precise than float32: all signs count as proven, and some are wrong.
    monkeypatch.setattr(BlockBounds, "signs", lambda _, blocks: (blocks.sum(1) % 2 * 2 - 1).to(torch.int8))
    found = extract(ball_field(0.5), 40, "sparse")
    assert found.dense
    assert torch.equal(found.vertices, extract(ball_field(0.5), 40, "dense").vertices)


def test_invalid_input_is_refused() -> None:
    with pytest.raises(UserError, match="at least 2"):
        extract(ball_field(0.5), 1)
    broken = ball_field(0.5)
    broken.fields.offset[-1].weight.fill_(torch.nan)
    with pytest.raises(UserError, match="non-finite"):
        extract(broken, 20)


def test_nan_is_never_pruned() -> None:
    field = smooth_field()
    field.planes[:3, :, 10:14, 10:14] = torch.nan
    field = TriplaneField(field.planes, field.fields)
    bounds = BlockBounds(field, 32, 4)
    axis = torch.arange(8)
    blocks = torch.cartesian_prod(axis, axis, axis)
    unknown = (
        F.pad(field.sdf_grid(32), (0,) * 6).isnan().view(8, 4, 8, 4, 8, 4).any(5).any(3).any(1).flatten()
    )
    assert unknown.any()
    assert (bounds.signs(blocks)[unknown] == 0).all()
