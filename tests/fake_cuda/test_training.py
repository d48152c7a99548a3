"""An iteration of the full recipe trains on CUDA: renderings, all teachers, backward pass and optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from tests.helpers.fake_cuda import CUDA, FakeCuda, Synchronization
from tests.helpers.fake_models import full_student, full_teachers
from triplaneturbo.distill.checkpoints import Checkpoints
from triplaneturbo.distill.prd import Trainer
from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.domains.registry import find_domain
from triplaneturbo.finetune.setup_full import draw_views
from triplaneturbo.utils.distributed import DistributedContext

# The places at which an iteration waits for the GPU.
ALLOWED = {
    # Texts, once each; cameras, and what is drawn on the CPU, so that seeds mean the same everywhere.
    Synchronization("upload", "render/cameras.py:to"),
    Synchronization("upload", "finetune/setup_full.py:draw"),
    Synchronization("upload", "models/text_encoder.py:embed"),
    Synchronization("download", "models/text_embedding_cache.py:__call__"),
    Synchronization("upload", "models/text_embedding_cache.py:__call__"),
    Synchronization("upload", "models/triplane_generator.py:draw_latents"),
    Synchronization("upload", "render/grid_renderer.py:render_grid"),
    Synchronization("upload", "teachers/latents.py:sample_latents"),
    Synchronization("upload", "distill/scores.py:draw"),
    Synchronization("upload", "distill/scores.py:shift_timesteps"),
    Synchronization("upload", "teachers/stable_diffusion.py:encode"),
    # Tables and constants.
    Synchronization("upload", "models/triplane_generator.py:predict"),
    Synchronization("upload", "models/schedule.py:clean_estimate"),
    Synchronization("upload", "mesh/extraction/marching_cubes_tables.py:packed"),
    Synchronization("upload", "mesh/extraction/marching_cubes.py:extract_topology"),
    Synchronization("upload", "teachers/multi_view.py:normalized_c2w"),
    Synchronization("upload", "teachers/closed_form.py:alpha_sigma"),
    Synchronization("upload", "render/volume.py:camera_normals"),
    Synchronization("upload", "distill/scores.py:score_gradients"),
    # Numbers of cells, vertices, faces and pixels of the surface.
    Synchronization("mask", "representations/triplane_rendering.py:query_colors"),
    Synchronization("item", "representations/triplane_rendering.py:enforce_surface"),
    Synchronization("item", "mesh/extraction/marching_cubes.py:extract_topology"),
    Synchronization("nonzero", "mesh/extraction/marching_cubes.py:extract_topology"),
    Synchronization("repeat_interleave", "mesh/extraction/marching_cubes.py:extract_topology"),
    Synchronization("_unique2", "representations/triplane_rendering.py:deformed_surface"),
    Synchronization("nonzero", "render/rasterizer.py:barycentrics"),
    Synchronization("nonzero", "render/rasterizer.py:interpolate"),
    Synchronization("item", "render/rasterizers/torch_zbuffer.py:_draw"),
    Synchronization("nonzero", "render/rasterizers/torch_zbuffer.py:_draw"),
    # Losses to log, and whether gradients are finite.
    Synchronization("item", "distill/losses.py:rendering_loss"),
    Synchronization("item", "distill/scores.py:direction"),
    Synchronization("item", "distill/loss_scaling.py:unscale"),
    Synchronization("item", "distill/trainer.py:step"),
}

PROMPTS = ["a red mushroom", "a blue chair"]


@pytest.fixture(autouse=True)
def _without_checkpoints() -> Iterator[None]:
    """Fake weights have no data to save."""
    with patch.object(Checkpoints, "save", lambda *_: None):
        yield


def _trainer(frozen: torch.dtype, folder: Path, *, savings: bool = False, **changes: Any) -> Trainer:
    """A trainer of the full recipe with one denoising step, since all are alike (see test_generation.py)."""
    student = full_student(frozen, checkpointing=savings)
    teachers = full_teachers(student)
    for teacher in teachers:
        if hasattr(teacher, "view_by_view"):
            teacher.view_by_view = savings
    settings = replace(full_recipe(), steps=1, iterations=2, **changes)
    draw = draw_views(PROMPTS, 0, CUDA)
    return Trainer(DistributedContext(device=CUDA), student, teachers, draw, settings, folder)


def _check_step(trainer: Trainer, frozen: torch.dtype) -> None:
    generator = trainer.student.generator
    parameters = list(trainer.method.parameters().values())
    gradients: list[torch.Tensor | None] = []
    trainer.optimizer.register_step_pre_hook(lambda *_: gradients.extend(p.grad for p in parameters))
    log = trainer.step()
    assert trainer.iteration == 1
    names = find_domain("open").teachers
    scores = {key for key in log if key.split()[0] in names}
    assert scores == {f"{name} {kind}" for name in names for kind in ("volume", "surface")}
    assert len(gradients) > 400
    for p, gradient in zip(parameters, gradients, strict=True):
        assert gradient is not None
        assert (gradient.device, gradient.dtype, gradient.shape) == (CUDA, torch.float32, p.shape)
    for p in generator.parameters():
        assert p.device == CUDA
        assert p.dtype == torch.float32 or (p.dtype == frozen and not p.requires_grad)
    for state in trainer.optimizer.state.values():
        assert all(
            value.device == CUDA for value in state.values() if isinstance(value, torch.Tensor) and value.ndim
        )
    assert all(value.device == CUDA for value in trainer.average.values())


def test_two_prompts_in_float16(cuda: FakeCuda, tmp_path: Path) -> None:
    """Without savings of memory, with loss scaling."""
    trainer = _trainer(torch.float16, tmp_path)
    assert trainer.scaler.enabled
    cuda.synchronizations.clear()
    _check_step(trainer, torch.float16)
    found = set(cuda.synchronizations)
    assert sorted(found - ALLOWED) == []
    assert sorted(ALLOWED - found) == []


def test_one_prompt_in_bfloat16_with_savings(cuda: FakeCuda, tmp_path: Path) -> None:
    """With gradient checkpointing, and teachers that encode view by view."""
    trainer = _trainer(torch.bfloat16, tmp_path, savings=True, batch=1, optimizer="adamw")
    assert not trainer.scaler.enabled
    _check_step(trainer, torch.bfloat16)
