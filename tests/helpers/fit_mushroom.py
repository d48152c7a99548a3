"""Make tests/helpers/data/mushroom.safetensors: `python -m tests.helpers.fit_mushroom` (half a minute).

Planes and MLPs are fitted by plain optimisation to a mushroom: a red cap with white spots, the largest at the
front (+x), on a cream stem. It is a real field in the released form, only smaller, for tests of what comes
after the generator.
"""

from __future__ import annotations

import math

import torch
from safetensors.torch import save
from torch import Tensor

from tests.helpers.fields import MUSHROOM, MUSHROOM_FILE
from triplaneturbo.representations.triplane import FieldDecoder
from triplaneturbo.utils.atomic_files import write_atomically

SIDE = 64
STEPS = 1500
POINTS = 1 << 15
RED, WHITE, CREAM = (0.80, 0.08, 0.06), (0.97, 0.96, 0.93), (0.90, 0.80, 0.62)
# Spots as seen from the cap's middle: longitude and latitude in degrees (0, 0 is the front), angular radius.
SPOTS = ((0, 32, 15), (62, 22, 10), (55, 55, 10), (118, 38, 12), (180, 25, 11), (185, 62, 8), (240, 40, 12))
SPOTS += ((300, 22, 10), (312, 55, 10), (0, 80, 9))


def mushroom_sdf(points: Tensor) -> Tensor:
    """Signed distance (a bound of it inside) at points [N, 3]: [N]."""
    x, y, z = points.unbind(-1)
    around = (x**2 + y**2).sqrt()
    dome = (points / points.new_tensor((1.0, 1.0, 0.85))).norm(dim=-1) - 0.62
    cap = torch.maximum(dome * 0.9, 0.02 - z)
    stem = torch.maximum((around - 0.15 - 0.09 * (z - 0.05) ** 2) * 0.98, (z + 0.32).abs() - 0.38)
    return torch.minimum(cap, stem)


def mushroom_rgb(points: Tensor) -> Tensor:
    """Colour at points [N, 3]: [N, 3]."""
    direction = points / points.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    spotted = torch.zeros(len(points), dtype=torch.bool)
    for longitude, latitude, radius in SPOTS:
        a, b = math.radians(longitude), math.radians(latitude)
        toward = points.new_tensor((math.cos(a) * math.cos(b), math.sin(a) * math.cos(b), math.sin(b)))
        spotted |= direction @ toward > math.cos(math.radians(radius))
    cap = torch.where(spotted[:, None], points.new_tensor(WHITE), points.new_tensor(RED))
    return torch.where(points[:, 2:] > 0.035, cap, points.new_tensor(CREAM))


def near_surface(count: int, generator: torch.Generator) -> Tensor:
    """Points on the surface [count, 3], found by walking down the distance."""
    points = torch.rand(3 * count, 3, generator=generator) * 1.6 - 0.8
    for _ in range(6):
        points.requires_grad_()
        distance = mushroom_sdf(points)
        (slope,) = torch.autograd.grad(distance.sum(), points)
        points = (
            points - distance[:, None] * slope / slope.norm(dim=1, keepdim=True).clamp_min(0.3)
        ).detach()
    return points[mushroom_sdf(points).abs() < 0.004][:count]


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    fields = FieldDecoder(MUSHROOM)
    planes = (0.3 * torch.randn(1, 6, MUSHROOM.plane_channels, SIDE, SIDE)).requires_grad_()
    optimizer = torch.optim.Adam(
        [
            {"params": [planes], "lr": 2e-2},
            {"params": [*fields.sdf.parameters(), *fields.color.parameters()]},
        ],
        lr=5e-3,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS, eta_min=1e-5)
    bank = near_surface(1 << 19, generator)
    for step in range(STEPS):
        chosen = bank[torch.randint(len(bank), (POINTS // 2,), generator=generator)]
        close = chosen + 0.03 * torch.randn(chosen.shape, generator=generator)
        far = torch.rand(POINTS // 4, 3, generator=generator) * 2 - 1
        points = torch.cat((close, far))
        truth = mushroom_sdf(points)
        geometry, _ = fields.features(planes, points[None])
        sdf = fields.sdf(geometry)[0, :, 0] + points.norm(dim=-1) - MUSHROOM.sphere_radius
        shape = ((sdf - truth).abs() / (truth.abs() + 0.03)).mean()
        touched = chosen + 0.008 * torch.randn(chosen.shape, generator=generator)
        _, texture = fields.features(planes, touched[None])
        rgb = torch.sigmoid(fields.color(texture))[0] * 1.002 - 0.001
        paint = (rgb - mushroom_rgb(touched)).abs().mean()
        # Smooth planes where nothing says otherwise, as a decoder's are.
        rough = planes.diff(dim=-1).square().mean() + planes.diff(dim=-2).square().mean()
        optimizer.zero_grad()
        (shape + 3 * paint + 0.02 * rough).backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == STEPS - 1:
            print(f"{step:5d}  shape {shape:.4f}  paint {paint:.4f}  rough {rough:.4f}", flush=True)
    with torch.no_grad():
        _, offset, _ = fields(planes, bank[None, :4096])
        fields.offset[-1].weight *= 0.15 / offset.abs().max()  # a bend too small to be seen, but not none
    state = {name: value.half().contiguous() for name, value in fields.state_dict().items()}
    state["planes"] = planes.detach()[0].half().contiguous()
    write_atomically(MUSHROOM_FILE, save(state))


if __name__ == "__main__":
    main()
