"""The public implementation's small models and numbers, found by name pattern."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.released_checkpoint import infer_config, read_released
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.models.weights import load_generator
from triplaneturbo.representations.triplane import sphere


def case_files(parity: Path) -> list[Path]:
    """Every `case_*.safetensors` of every folder below parity/generator that holds a base and an adapter."""
    return sorted(
        file
        for adapter in (parity / "generator").rglob("adapter.pth")
        for file in adapter.parent.glob("case_*.safetensors")
    )


@lru_cache(maxsize=2)
def _generator(folder: Path, steps: int) -> TriplaneGenerator:
    released = folder / "adapter.pth"
    sizes = infer_config(read_released(released))
    config = GeneratorConfig(**{**vars(sizes), "steps": steps})
    generator, _ = load_generator(folder, config, base=folder / "base", adapter=released)
    return generator.eval()


def load_case(file: Path) -> tuple[TriplaneGenerator, dict[str, Tensor]]:
    """A case's generator (float32, adapters live) and its tensors, latents as [B, 6, 4, h, h]."""
    case = load_file(file)
    generator = _generator(file.parent, len(case["timesteps"]))
    generator.unmerge()
    return generator, case


def by_prompt(rows: Tensor) -> Tensor:
    """[6B, ...] -> [B, 6, ...]."""
    return rows.unflatten(0, (-1, 6))


def relative(found: Tensor, wanted: Tensor) -> float:
    """Largest difference as a fraction of the largest wanted magnitude."""
    return ((found.double() - wanted.double()).abs().max() / wanted.double().abs().max()).item()


@torch.no_grad()
def differences(file: Path, merged: bool) -> dict[str, float]:
    """Each tensor of a case against ours: name -> largest difference relative to the largest magnitude."""
    generator, case = load_case(file)
    if merged:
        generator.merge()
    text, latents = case["text_embed"], by_prompt(case["initial_latents"])
    found: dict[str, Tensor] = {}
    steps = []

    def watch(module, args, kwargs, output) -> None:
        steps.append((args[0].clone(), int(args[1]), output.sample.clone()))

    hook = generator.unet.register_forward_hook(watch, with_kwargs=True)
    estimates = list(generator.denoise(latents, text))
    hook.remove()
    for i, ((noisy, time, prediction), estimate) in enumerate(zip(steps, estimates, strict=True)):
        found["timesteps"] = torch.tensor([t for _, t, _ in steps])
        assert time == int(case["timesteps"][i])
        found[f"unet_pred_{i}"] = prediction
        found[f"pred_original_sample_{i}"] = estimate.flatten(0, 1)
        if i:
            found[f"latents_after_{i - 1}"] = noisy
    # The step after the last estimate, which generating has no use for: back to the least noisy level.
    least = generator.scheduler.alphas_cumprod[0]
    last = least.sqrt() * estimates[-1].flatten(0, 1) + (1 - least).sqrt() * steps[-1][2]
    found[f"latents_after_{len(steps) - 1}"] = last
    found["pred_original_sample"] = estimates[-1].flatten(0, 1)
    planes = found["planes"] = generator.decode(estimates[-1])
    sdf, offset, rgb = generator.fields(planes, case["points"])
    found["sdf"], found["deformation"], found["rgb"] = sdf[..., None], offset, rgb
    fields = generator.heads[generator.active].fields
    found["sdf_before_bias"] = found["sdf"] - sphere(case["points"], fields.config.sphere_radius)[..., None]
    found["enc_geo"], found["enc_tex"] = fields.features(planes, case["points"])
    found["features"] = fields.color(found["enc_tex"])
    for key in [key for key in case if key.startswith("grid") and key.endswith("_sdf")]:
        axis = torch.linspace(-1, 1, int(key[4:-4]))
        grid = torch.cartesian_prod(axis, axis, axis)[None]
        sdf, offset, _ = generator.fields(planes, grid.expand(len(planes), -1, -1))
        found[key], found[key.replace("sdf", "deformation")] = sdf[..., None], offset
    assert set(found) == set(case) - {"initial_latents", "points", "text_embed"}
    return {name: relative(value.reshape(case[name].shape), case[name]) for name, value in found.items()}
