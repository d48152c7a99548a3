"""Benchmark of the Gaussian rasterizer: `python -m benchmarks.splatting [--device cuda]`.

It renders Gaussians on a sphere, one view, forward and backward. Times are the best of several runs in
milliseconds.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor

from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.splatting.rasterizer import rasterize_gaussians
from triplaneturbo.representations.gaussians import Gaussians

CASES = ((2_000, 64), (8_000, 128), (20_000, 256))  # Gaussians, pixels a side


def sphere(count: int, device: torch.device) -> Gaussians:
    """Return Gaussians that cover a sphere of radius 0.8, evenly spaced."""
    index = torch.arange(count, dtype=torch.float64) + 0.5
    z = 1 - 2 * index / count
    angle = index * torch.pi * (3 - 5**0.5)
    ring = (1 - z * z).sqrt()
    normals = torch.stack((ring * angle.cos(), ring * angle.sin(), z), dim=-1).float()
    spacing = 0.8 * (4 * torch.pi / count) ** 0.5
    return Gaussians.from_points(0.8 * normals, normals / 2 + 0.5, spacing, normals).to(device)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def time_rendering(gaussians: Gaussians, size: int, repeats: int) -> tuple[float, float]:
    """Return the shortest times of a rendering and of its backward pass, in milliseconds."""
    device = gaussians.means.device
    camera = orbit(30.0, 20.0, 2.8, 40.0, device=device)
    forward, backward = [], []
    for _ in range(repeats):
        start = _now(device)
        g = gaussians
        view = rasterize_gaussians(
            g.means, g.quaternions, g.scales, g.opacities, g.colors, camera, size, size
        )
        loss: Tensor = view.rgb.square().mean() + view.depth.mean() + view.normal.square().mean()
        middle = _now(device)
        loss.backward()
        forward.append(middle - start)
        backward.append(_now(device) - middle)
    return 1000 * min(forward), 1000 * min(backward)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", type=torch.device)
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args()
    device = arguments.device
    print(f"{device}, {torch.get_num_threads()} threads")
    for count, size in CASES:
        forward, backward = time_rendering(sphere(count, device), size, arguments.repeats)
        times = f"forward {forward:7.1f}, backward {backward:7.1f} ms"
        print(f"{count:6d} Gaussians, {size:3d} x {size}: {times}")


if __name__ == "__main__":
    main()
