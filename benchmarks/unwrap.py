"""Time unwrapping and baking: `python -m benchmarks.unwrap [faces ...] [--no-xatlas]`.

The mesh is a ball with waves in all directions (folds and overhangs), simplified to about 10,000, 20,000
and 80,000 faces unless other numbers are given. For each mesh it prints the time of each unwrap method
(best of five; one run of `xatlas`), the number of charts, the used part of the atlas in percent and the ratio
of texel densities over 95 % of the area; then the stages of baking a 1024 x 1024 texture with a normal map
from a field of negligible cost.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from triplaneturbo.mesh.extraction.marching_cubes import marching_cubes
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import tidy
from triplaneturbo.mesh.processing.simplify import simplify
from triplaneturbo.mesh.texture import bake
from triplaneturbo.mesh.uv.atlas import rasterize_atlas
from triplaneturbo.mesh.uv.charts import components, face_neighbours
from triplaneturbo.mesh.uv.dilation import nearest_covered
from triplaneturbo.mesh.uv.registry import available
from triplaneturbo.mesh.uv.tangents import vertex_tangents
from triplaneturbo.mesh.uv.unwrap import unwrap


class Waves:
    """A ball of radius 0.6 with waves in all directions, grey."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(3)
        self.waves = torch.randn(3, 12, generator=draw) * (4 + torch.arange(12))
        self.phases = 6 * torch.rand(12, generator=draw)
        self.heights = 0.12 / (1 + 0.3 * torch.arange(12))

    def sdf(self, points: Tensor) -> Tensor:
        """[..., 3] -> [...]"""
        return points.norm(dim=-1) - 0.6 + (points @ self.waves + self.phases).sin() @ self.heights

    def mesh(self, faces: int) -> Mesh:
        """Return the surface with about `faces` faces."""
        axis = torch.linspace(-1, 1, 128)
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
        return simplify(tidy(Mesh(*marching_cubes(self.sdf(grid)))), faces)[0]


class Still:
    """A field of negligible cost, so that the time of baking does not include it."""

    def sdf(self, points: Tensor) -> Tensor:
        """[N, 3] -> [N]"""
        return points[:, 0]

    def rgb(self, points: Tensor) -> Tensor:
        """[N, 3] -> [N, 3]"""
        return points


def best(work: Callable[[], Any], repeats: int = 5) -> tuple[float, Any]:
    """Return the minimum time of several runs, in seconds, and the result of the last one."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def describe(mesh: Mesh) -> str:
    """Format the charts, the used part of the atlas and the density ratio of an unwrapped mesh."""
    assert mesh.uv is not None
    neighbours = face_neighbours(mesh.faces.numpy().astype(np.int32), len(mesh.vertices))
    charts = int(components(np.zeros(len(mesh.faces), np.int8), neighbours).max()) + 1
    uv, corners = mesh.uv.double()[mesh.faces], mesh.vertices.double()[mesh.faces]  # [F, 3, 2], [F, 3, 3]
    one, two = (uv[:, 1] - uv[:, 0]), (uv[:, 2] - uv[:, 0])
    flat = ((one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]).abs() / 2).numpy()
    full = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1) / 2
    density = np.sqrt(flat / np.maximum(full.numpy(), 1e-30))
    order = density.argsort()
    share = np.cumsum(full.numpy()[order]) / float(full.sum())
    low, high = density[order][np.searchsorted(share, (0.025, 0.975))]
    return f"{charts:6d} {100 * flat.sum():6.1f} {high / low:7.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faces", nargs="*", type=int, default=[10_000, 20_000, 80_000])
    parser.add_argument("--no-xatlas", action="store_true", help="fast only")
    arguments = parser.parse_args()
    waves = Waves()
    start = time.perf_counter()
    unwrap(waves.mesh(2000))
    print(f"first call: {time.perf_counter() - start:.1f} s (compiles or loads kernels)")
    print("  faces method   seconds charts used % density")
    for count in arguments.faces:
        mesh = waves.mesh(count)
        for method in ["fast"] if arguments.no_xatlas else available():
            seconds, out = best(lambda: unwrap(mesh, method), 1 if method == "xatlas" else 5)  # noqa: B023
            print(f"{len(mesh.faces):7d} {method:8s} {seconds:7.3f} {describe(out)}", flush=True)

    mesh = unwrap(mesh)
    assert mesh.uv is not None
    assert mesh.normals is not None
    uv, normals = mesh.uv, mesh.normals
    atlas = rasterize_atlas(uv, mesh.faces, 1024)
    covered = torch.zeros(1024 * 1024, dtype=torch.bool)
    covered[atlas.texels] = True
    stages: dict[str, Callable[[], Any]] = {
        "atlas (including dilation)": lambda: rasterize_atlas(uv, mesh.faces, 1024),
        "  of which dilation": lambda: nearest_covered(covered.view(1024, 1024)),
        "tangents": lambda: vertex_tangents(mesh.vertices, mesh.faces, uv, normals),
        "total, colour only": lambda: bake(mesh, Still(), normal_map=False),
        "total, with normal map": lambda: bake(mesh, Still()),
    }
    print(f"baking 1024 x 1024, {len(mesh.faces)} faces, {len(atlas.texels)} covered texels")
    for name, work in stages.items():
        work()
        print(f"  {best(work)[0]:6.3f} s  {name}")


if __name__ == "__main__":
    main()
