"""Compare coarse-to-fine surface extraction with the dense grid: nodes, seconds, equality of the meshes.

    python benchmarks/surface.py [--resolution 160] [--repeats 3] [--steps 300]

The fields have the full size (planes of 32 channels, 256 x 256, MLPs 64 wide) and are fitted to simple
solids, about fifteen seconds each; one is fitted with noise in its planes, one is pure noise. The last field,
the mushroom of the tests, is smaller. Times include the whole extraction (tables, sdf, offsets, marching
cubes) on a field without cached values; the minimum of the repeats is shown.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, not only as a module

from tests.helpers.fields import mushroom
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.representations.triplane import FieldDecoder, TriplaneField

CONFIG = GeneratorConfig()
SIDE, FITTED_SIDE = 256, 96


def ball(points: Tensor, centre: tuple[float, ...], radius: float) -> Tensor:
    """Return signed distances [N] to a ball at points [N, 3]."""
    return (points - points.new_tensor(centre)).norm(dim=-1) - radius


def box(points: Tensor, centre: tuple[float, ...], half: tuple[float, ...]) -> Tensor:
    """Return signed distances [N] to a box at points [N, 3]."""
    beyond = (points - points.new_tensor(centre)).abs() - points.new_tensor(half)
    return beyond.clamp_min(0).norm(dim=-1) + beyond.amax(-1).clamp_max(0)


def chair(points: Tensor) -> Tensor:
    """Signed distance to a chair: a seat, a back and four legs, three grid cells thick."""
    parts = [box(points, (0, 0, 0), (0.35, 0.35, 0.03)), box(points, (-0.33, 0, 0.35), (0.025, 0.35, 0.33))]
    parts += [box(points, (0.31 * x, 0.31 * y, -0.32), (0.02, 0.02, 0.3)) for x in (-1, 1) for y in (-1, 1)]
    return torch.stack(parts).amin(0)


def torus(points: Tensor) -> Tensor:
    """Signed distance to a horizontal torus."""
    across = torch.stack((points[:, :2].norm(dim=-1) - 0.5, points[:, 2]), -1)
    return across.norm(dim=-1) - 0.15


def two_parts(points: Tensor) -> Tensor:
    """Signed distance to a ball and a tiny one in the far corner."""
    return torch.minimum(ball(points, (-0.2, 0, -0.1), 0.45), ball(points, (0.8, 0.8, 0.8), 0.03))


def fit(solid: Callable[[Tensor], Tensor], steps: int, noise: float) -> TriplaneField:
    """Fit a field to the sdf of `solid`; its planes start smooth, plus `noise` in each texel."""
    torch.manual_seed(0)
    fields = FieldDecoder(CONFIG)
    coarse = 0.2 * torch.randn(6, CONFIG.plane_channels, 8, 8)
    planes = F.interpolate(coarse, (FITTED_SIDE, FITTED_SIDE), mode="bicubic")[None]
    planes = (planes + noise * torch.randn(planes.shape)).requires_grad_()
    optimizer = torch.optim.Adam(
        [{"params": [planes]}, {"params": fields.sdf.parameters(), "lr": 3e-3}], lr=3e-3
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    close = torch.rand(1 << 20, 3) * 2 - 1
    close = close[solid(close).abs() < 0.05]
    for _ in range(steps):
        points = torch.cat((close[torch.randint(len(close), (12000,))], torch.rand(6000, 3) * 2 - 1))
        truth = solid(points)
        geometry, _ = fields.features(planes, points[None])
        sdf = fields.sdf(geometry)[0, :, 0] + points.norm(dim=-1) - CONFIG.sphere_radius
        rough = planes.diff(dim=-1).square().mean() + planes.diff(dim=-2).square().mean()
        loss = ((sdf - truth).abs() / (truth.abs() + 0.03)).mean() + 0.1 * rough
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    large = F.interpolate(planes.detach()[0], (SIDE, SIDE), mode="bicubic")
    return TriplaneField(large, fields.requires_grad_(False))


def noise_field() -> TriplaneField:
    """Return a field with planes of white noise: the surface is everywhere."""
    torch.manual_seed(0)
    planes = torch.randn(6, CONFIG.plane_channels, SIDE, SIDE)
    return TriplaneField(planes, FieldDecoder(CONFIG).requires_grad_(False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--resolution", type=int, default=CONFIG.grid_resolution)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="optimisation steps per field")
    asked = parser.parse_args()
    makers: dict[str, Callable[[], TriplaneField]] = {
        "ball": lambda: fit(lambda points: ball(points, (0, 0, 0), 0.6), asked.steps, 0),
        "chair": lambda: fit(chair, asked.steps, 0),
        "torus": lambda: fit(torus, asked.steps, 0),
        "two parts": lambda: fit(two_parts, asked.steps, 0),
        "noisy chair": lambda: fit(chair, asked.steps, 0.03),
        "noise": noise_field,
        "mushroom (small)": mushroom,
    }
    print(f"{asked.resolution}^3 nodes, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'field':18}{'faces':>9}{'nodes':>10}{'fewer':>8}{'blocks':>9}{'dense s':>9}{'auto s':>9}  mesh")
    for name, make in makers.items():
        field = make()
        seconds = {"dense": float("inf"), "auto": float("inf")}
        found = {}
        for _ in range(asked.repeats):
            for mode in ("dense", "auto"):
                fresh = TriplaneField(field.planes, field.fields)
                start = time.perf_counter()
                found[mode] = extract(fresh, asked.resolution, mode)
                seconds[mode] = min(seconds[mode], time.perf_counter() - start)
        dense, auto = found["dense"], found["auto"]
        same = torch.equal(dense.vertices, auto.vertices) and torch.equal(dense.faces, auto.faces)
        print(
            f"{name:18}{len(auto.faces):9d}{auto.nodes:10d}{dense.nodes / auto.nodes:8.1f}{auto.blocks:9d}"
            f"{seconds['dense']:9.2f}{seconds['auto']:9.2f}  {'the same' if same else 'DIFFERENT'}"
            f"{', by the dense grid' if auto.dense else ''}",
            flush=True,
        )


if __name__ == "__main__":
    main()
