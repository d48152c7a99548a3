"""The two volume renderers on this machine: `python -m benchmarks.volume [cuda]`.

The quick one (an sdf on a lattice): 4 items of 48^3 nodes, 16384 rays in all, forward and backward, by its
compiled loops and by plain torch, for several sharpnesses and steps. The full one: planes of the released
sizes (random), 2000 rays of 193 samples. Times are the best of several, in milliseconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.grid_renderer import Backend, eikonal, render_grid
from triplaneturbo.render.volume import render_volume
from triplaneturbo.representations.triplane import FieldDecoder

ITEMS, SIZE, RAYS = 4, 48, 4096


def solids(device: torch.device) -> Tensor:
    """A bumpy ball on a thin plate, ITEMS times [B, R, R, R]."""
    axis = torch.linspace(-1, 1, SIZE, device=device)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    x, y, z = points.unbind(-1)
    ball = points.norm(dim=-1) - 0.5 + 0.05 * (6 * x).sin() * (5 * y).cos() * (4 * z + 0.3).sin()
    plate = torch.maximum((z + 0.1).abs() - 0.05, torch.maximum(x.abs(), y.abs()) - 0.8)
    return torch.minimum(ball, plate).repeat(ITEMS, 1, 1, 1)


def some_rays(items: int, rays: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rays of four views, other ones for each item: origins and directions [items, rays, 3]."""
    origins, directions = orbit([0, 90, 180, 270], 20.0, 2.8, 40.0, device=device).rays(64, 64)
    drawn = torch.Generator().manual_seed(0)
    chosen = torch.randint(0, 4 * 64 * 64, (items, rays), generator=drawn).to(device)
    return origins.reshape(-1, 3)[chosen], directions.reshape(-1, 3)[chosen]


def best(work: Callable[[], Tensor], repeats: int) -> tuple[float, float]:
    """The shortest time of making a loss and of its backward pass, in milliseconds."""
    forward, backward = [], []
    for _ in range(repeats):
        start = _now()
        loss = work()
        middle = _now()
        loss.backward()
        forward.append(middle - start)
        backward.append(_now() - middle)
    return 1000 * min(forward), 1000 * min(backward)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def quick(device: torch.device) -> None:
    sdf = solids(device).requires_grad_()
    rays = some_rays(ITEMS, RAYS, device)
    backends: tuple[Backend, ...] = ("numba", "torch") if device.type == "cpu" else ("torch",)
    print(
        f"{ITEMS} items of {SIZE}^3 nodes, {ITEMS * RAYS} rays       forward  backward      both  ns a sample"
    )
    for backend in backends:
        for sharpness in (15.0, 40.0, 80.0):
            for samples in (48, 80):

                def work(
                    sharpness: float = sharpness, samples: int = samples, backend: Backend = backend
                ) -> Tensor:
                    view = render_grid(sdf, *rays, sharpness, samples, backend=backend)
                    return view.opacity.sum() + view.depth.sum() + view.normal.sum()

                there, back = best(work, 10 if backend == "numba" else 2)
                each = 1e6 * (there + back) / (ITEMS * RAYS * samples)
                print(
                    f"{backend}, sharpness {sharpness:2.0f}, {samples} samples       "
                    f"{there:8.1f} {back:8.1f} {there + back:8.1f} {each:8.1f}"
                )
    there, back = best(lambda: eikonal(sdf).sum(), 10)
    print(f"eikonal                                   {there:8.1f} {back:8.1f} {there + back:8.1f}")


def full(device: torch.device) -> None:
    fields = FieldDecoder(GeneratorConfig()).to(device)
    planes = (0.1 * torch.randn(1, 6, 32, 256, 256, device=device)).requires_grad_()
    rays = some_rays(1, 2000, device)

    def ask(points: Tensor) -> tuple[Tensor, Tensor]:
        sdf, _, rgb = fields(planes, points)
        return sdf, rgb

    for difference in (None, 0.01):

        def work(difference: float | None = difference) -> Tensor:
            view = render_volume(ask, *rays, difference=difference)
            return view.opacity.sum() + view.rgb.sum() + view.normal.sum() + view.eikonal()

        there, back = best(work, 2)
        name = "exact gradient" if difference is None else "differences   "
        print(f"full renderer, 2000 rays, {name}  {there:8.1f} {back:8.1f} {there + back:8.1f}")


def main() -> None:
    device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cpu")
    print(f"{device}, {torch.get_num_threads()} threads, ms")
    quick(device)
    full(device)


if __name__ == "__main__":
    main()
