"""Benchmark of the rasterizer: `python -m benchmarks.raster [faces] [size]`.

It prints the time of the numba kernel's first call (with compilation or loading from the cache), its best
time for one view and for eight, the time of Embree for the same image if embreex is installed, and that of a
thumbnail.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.preview import thumbnail
from triplaneturbo.render.cameras import Cameras, orbit
from triplaneturbo.render.rasterizer import rasterize


def torus(faces: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Create a torus with about `faces` faces: vertices [N, 3] and faces [F, 3]."""
    n = max(3, round((faces / 2) ** 0.5))
    angle = torch.arange(n) * (2 * torch.pi / n)
    u, v = torch.meshgrid(angle, angle, indexing="ij")
    ring = 0.6 + 0.3 * v.cos()
    vertices = torch.stack((ring * u.cos(), ring * u.sin(), 0.3 * v.sin()), dim=-1).reshape(-1, 3)
    a = torch.arange(n * n).reshape(n, n)
    b, d = a.roll(-1, 0), a.roll(-1, 1)
    c = b.roll(-1, 1)
    return vertices, torch.stack((a, b, c, a, c, d), dim=-1).reshape(-1, 3)


def embree(
    vertices: torch.Tensor, faces: torch.Tensor, camera: Cameras, size: int
) -> Callable[[], torch.Tensor]:
    """Return a function that casts precomputed rays and returns the triangle index of each pixel [H, W]."""
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    origins, directions = camera.rays(size, size)
    rays = origins.reshape(-1, 3).contiguous().numpy(), directions.reshape(-1, 3).contiguous().numpy()

    def cast() -> torch.Tensor:
        scene = EmbreeScene()
        TriangleMesh(scene, vertices.numpy(), faces.int().numpy())
        hits = scene.run(*rays, output=True, query="INTERSECT")
        return torch.from_numpy(hits["primID"]).reshape(size, size)

    return cast


def best(work: Callable[[], object], repeats: int = 10) -> float:
    """Return the shortest time of several runs, in milliseconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 80_000
    size = int(sys.argv[2]) if len(sys.argv) > 2 else 512
    vertices, faces = torus(count)
    one, eight = orbit(20, 30, 2.6), orbit([45.0 * k for k in range(8)], 30, 2.6)
    print(f"{len(faces)} faces, {size} x {size} pixels, {torch.get_num_threads()} threads")
    start = time.perf_counter()
    ours = rasterize(vertices, faces, one, size, size)
    print(f"numba, first call       {1000 * (time.perf_counter() - start):8.1f} ms")
    print(f"numba, 1 view           {best(lambda: rasterize(vertices, faces, one, size, size)):8.1f} ms")
    print(f"numba, 8 views          {best(lambda: rasterize(vertices, faces, eight, size, size), 4):8.1f} ms")
    try:
        cast = embree(vertices, faces, one, size)
        print(f"embree, 1 view          {best(cast, 5):8.1f} ms")
        print(f"pixels that differ      {int((cast() != ours.triangle[0]).sum()):8d}")
    except ImportError:
        print("embree: embreex is not installed")
    mesh = Mesh(vertices, faces, colors=torch.rand_like(vertices))
    print(f"thumbnail of 256 x 256  {best(lambda: thumbnail(mesh, 256)):8.1f} ms")


if __name__ == "__main__":
    main()
