"""Input of the geometry teachers for a rasterized mesh, against the public implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from triplaneturbo.render.cameras import Cameras
from triplaneturbo.teachers.base import Renderings, SceneBatch
from triplaneturbo.teachers.geometry import normals_and_disparity


@pytest.mark.parametrize("number", [0, 1])
def test_normals_and_disparity_of_a_raster(parity: Path, number: int) -> None:
    case = load_file(parity / "raster_shading" / f"case_{number}.safetensors")
    cameras = Cameras(case["c2w"], torch.full((8,), torch.pi / 3))
    mask = case["mask"][..., 0].unflatten(0, (2, 4))
    normal = case["gb_normal_world"].unflatten(0, (2, 4))
    # The released rasterizer uses clip-space z as the depth; ours uses the depth itself (docs/teachers.md,
    # "Recipe of the released trainer").
    depth = case["depth"][..., 0].unflatten(0, (2, 4))
    seen = Renderings(torch.empty(0), mask, normal, depth)
    actual = normals_and_disparity(seen, SceneBatch(["a", "b"], cameras, 4, torch.ones(2, 3))).flatten(0, 1)
    torch.testing.assert_close(actual[..., :3], case["comp_normal_cam_vis"], rtol=0, atol=1e-5)
    torch.testing.assert_close(actual[..., 3:], case["disparity"], rtol=0, atol=1e-5)
    apart = (case["view_depth_true"] - case["depth"])[case["mask"] > 0]
    assert 0.1994 < float(apart.min()) <= float(apart.max()) < 0.2001
