"""Input of the geometry teachers for a rasterized mesh, against the public implementation."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.helpers.parity_files import each_file
from triplaneturbo.render.cameras import Cameras
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.teachers.geometry import normals_and_disparity
from triplaneturbo.teachers.multi_view import VIEWS


@each_file("raster_shading/case_*.safetensors")
def test_normals_and_disparity_of_rasterized_surface(file: Path) -> None:
    case = load_file(file)
    count = len(case["c2w"]) // VIEWS
    cameras = Cameras(case["c2w"], torch.full((len(case["c2w"]),), torch.pi / 3))
    mask = case["mask"][..., 0].unflatten(0, (count, VIEWS))
    normal = case["gb_normal_world"].unflatten(0, (count, VIEWS))
    # The released rasterizer uses clip-space z as the depth; ours uses the depth itself (docs/teachers.md,
    # "Recipe of the released trainer").
    depth = case["depth"][..., 0].unflatten(0, (count, VIEWS))
    seen = Renderings(torch.empty(0), mask, normal, depth)
    scenes = SceneBatch(["a"] * count, cameras, VIEWS, torch.ones(count, 3))
    actual = normals_and_disparity(seen, scenes).flatten(0, 1)
    torch.testing.assert_close(actual[..., :3], case["comp_normal_cam_vis"], rtol=0, atol=1e-5)
    torch.testing.assert_close(actual[..., 3:], case["disparity"], rtol=0, atol=1e-5)
    apart = (case["view_depth_true"] - case["depth"])[case["mask"] > 0]
    assert 0.1994 < float(apart.min()) <= float(apart.max()) < 0.2001
