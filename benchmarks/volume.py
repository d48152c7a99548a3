"""Benchmark of the grid volume renderer: `python -m benchmarks.volume [cuda]`.

It renders 4 SDF grids of 48^3 nodes with 16384 rays in total, forward and backward, with the numba and the
torch backend, for several sharpness values and sample counts. Times are the best of several runs in
milliseconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.grid_renderer import Backend, eikonal, render_grid

ITEMS, SIZE, RAYS = 4, 48, 4096


def make_sdf(device: torch.device) -> Tensor:
    """Return the SDF of a bumpy sphere on a thin plate, repeated ITEMS times [B, R, R, R]."""
    axis = torch.linspace(-1, 1, SIZE, device=device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    x, y, z = points.unbind(-1)
    ball = points.norm(dim=-1) - 0.5 + 0.05 * (6 * x).sin() * (5 * y).cos() * (4 * z + 0.3).sin()
    plate = torch.maximum((z + 0.1).abs() - 0.05, torch.maximum(x.abs(), y.abs()) - 0.8)
    return torch.minimum(ball, plate).repeat(ITEMS, 1, 1, 1)


def random_rays(items: int, rays: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Draw rays of four views for each item: origins and directions [items, rays, 3]."""
    origins, directions = orbit([0, 90, 180, 270], 20.0, 2.8, 40.0, device=device).rays(64, 64)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(0, 4 * 64 * 64, (items, rays), generator=generator).to(device)
    return origins.reshape(-1, 3)[chosen], directions.reshape(-1, 3)[chosen]


def time_loss(compute_loss: Callable[[], Tensor], repeats: int) -> tuple[float, float]:
    """Return the shortest times of a loss and of its backward pass, in milliseconds."""
    forward, backward = [], []
    for _ in range(repeats):
        start = _now()
        loss = compute_loss()
        middle = _now()
        loss.backward()
        forward.append(middle - start)
        backward.append(_now() - middle)
    return 1000 * min(forward), 1000 * min(backward)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def benchmark(device: torch.device) -> None:
    sdf = make_sdf(device).requires_grad_()
    rays = random_rays(ITEMS, RAYS, device)
    backends: tuple[Backend, ...] = ("numba", "torch") if device.type == "cpu" else ("torch",)
    print(
        f"{ITEMS} items of {SIZE}^3 nodes, {ITEMS * RAYS} rays       forward  backward      both  ns/sample"
    )
    for backend in backends:
        for sharpness in (15.0, 40.0, 80.0):
            for samples in (48, 80):

                def compute_loss(
                    sharpness: float = sharpness, samples: int = samples, backend: Backend = backend
                ) -> Tensor:
                    view = render_grid(sdf, *rays, sharpness, samples, backend=backend)
                    return view.opacity.sum() + view.depth.sum() + view.normal.sum()

                forward, backward = time_loss(compute_loss, 10 if backend == "numba" else 2)
                per_sample = 1e6 * (forward + backward) / (ITEMS * RAYS * samples)
                print(
                    f"{backend}, sharpness {sharpness:2.0f}, {samples} samples       "
                    f"{forward:8.1f} {backward:8.1f} {forward + backward:8.1f} {per_sample:8.1f}"
                )
    forward, backward = time_loss(lambda: eikonal(sdf).sum(), 10)
    print(
        f"eikonal                                   {forward:8.1f} {backward:8.1f} {forward + backward:8.1f}"
    )


def main() -> None:
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cpu")
    print(f"{device}, {torch.get_num_threads()} threads, ms")
    benchmark(device)


if __name__ == "__main__":
    main()
