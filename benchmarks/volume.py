"""Benchmark of the grid volume renderer: `python -m benchmarks.volume [cuda] [--tiny]`.

It renders 4 SDF grids of 48^3 nodes with 16384 rays in total, forward and backward, with the numba and the
torch backend, for several sharpness values and sample counts. Times are the best of several runs in
milliseconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.grid_renderer import Backend, eikonal, render_grid


@dataclass(frozen=True)
class Sizes:
    """Sizes of the benchmark.

    Attributes:
        items: number of SDF grids B.
        nodes: nodes along each side of a grid, R.
        rays: rays per grid.
        samples: the sample counts per ray that are compared.
    """

    items: int = 4
    nodes: int = 48
    rays: int = 4096
    samples: tuple[int, ...] = (48, 80)


TINY = Sizes(items=1, nodes=12, rays=64, samples=(8,))


def make_sdf(sizes: Sizes, device: torch.device) -> Tensor:
    """Return the SDF of a bumpy sphere on a thin plate, repeated for each item [B, R, R, R]."""
    axis = torch.linspace(-1, 1, sizes.nodes, device=device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    x, y, z = points.unbind(-1)
    ball = points.norm(dim=-1) - 0.5 + 0.05 * (6 * x).sin() * (5 * y).cos() * (4 * z + 0.3).sin()
    plate = torch.maximum((z + 0.1).abs() - 0.05, torch.maximum(x.abs(), y.abs()) - 0.8)
    return torch.minimum(ball, plate).repeat(sizes.items, 1, 1, 1)


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


def benchmark(sizes: Sizes, device: torch.device) -> None:
    sdf = make_sdf(sizes, device).requires_grad_()
    rays, count = random_rays(sizes.items, sizes.rays, device), sizes.items * sizes.rays
    backends: tuple[Backend, ...] = ("numba", "torch") if device.type == "cpu" else ("torch",)
    print(
        f"{sizes.items} items of {sizes.nodes}^3 nodes, {count} rays"
        "       forward  backward      both  ns/sample"
    )
    for backend in backends:
        for sharpness in (15.0, 40.0, 80.0):
            for samples in sizes.samples:

                def compute_loss(
                    sharpness: float = sharpness, samples: int = samples, backend: Backend = backend
                ) -> Tensor:
                    view = render_grid(sdf, *rays, sharpness, samples, backend=backend)
                    return view.opacity.sum() + view.depth.sum() + view.normal.sum()

                forward, backward = time_loss(compute_loss, 10 if backend == "numba" else 2)
                per_sample = 1e6 * (forward + backward) / (count * samples)
                print(
                    f"{backend}, sharpness {sharpness:2.0f}, {samples} samples       "
                    f"{forward:8.1f} {backward:8.1f} {forward + backward:8.1f} {per_sample:8.1f}"
                )
    forward, backward = time_loss(lambda: eikonal(sdf).sum(), 10)
    print(
        f"eikonal                                   {forward:8.1f} {backward:8.1f} {forward + backward:8.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark of the grid volume renderer.")
    parser.add_argument("device", nargs="?", default="cpu", help="torch device")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a dry run")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    print(f"{device}, {torch.get_num_threads()} threads, ms")
    benchmark(TINY if arguments.tiny else Sizes(), device)


if __name__ == "__main__":
    main()
