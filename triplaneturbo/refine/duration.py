"""Estimated duration of a refinement: that of its networks, from their operations and the device's speed.

At full size, a network takes many times as long as the renderings that it scores.
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from torch import nn

from triplaneturbo.distill.memory import ModelSizes
from triplaneturbo.distill.ptd import RefineSettings
from triplaneturbo.finetune.duration import Estimate
from triplaneturbo.refine.cost import Operations, operations
from triplaneturbo.utils.devices import wait_for
from triplaneturbo.utils.durations import format_estimate

_PROBED = 3  # timed repetitions of the probe


def estimate_refinement(
    model_sizes: ModelSizes,
    settings: RefineSettings,
    representation: str,
    size: int,
    dtype: torch.dtype,
    speed: float,
    done: int = 0,
) -> Estimate:
    """Estimate the rest of a refinement, without loading, the renderings and the export of the mesh.

    Args:
        model_sizes: sizes of the model.
        settings: settings of the refinement.
        representation: see `RefineOptions`.
        size: side of the images in pixels.
        dtype: dtype of the model's weights.
        speed: operations per second; see `measured_speed`.
        done: iterations that are done.
    """
    scored = 2 if representation == "field" else 1  # volume and surface
    path = step = 0.0
    has_path = False
    for name in settings.teachers:
        cost = operations(name, model_sizes, dtype, size, settings.path_rank)
        if cost.training:
            has_path = True
            # Without the backward pass: the encoder is frozen, so that both passes cost the same.
            path += (cost.encoding / 2 + cost.training) / speed
        step += scored * (cost.encoding + score_operations(cost, settings, name)) / speed
    iterations = settings.path_iterations if has_path and settings.path != "none" else 0
    steps = settings.steps - max(0, done - iterations)
    iterations = max(0, iterations - done)
    seconds = iterations * path + steps * step
    parts = f"{steps} steps of {format_estimate(step)}"
    if iterations:
        parts = f"{iterations} iterations of {format_estimate(path)} that form the path, and {parts}"
    return Estimate(seconds, None, f"About {format_estimate(seconds)} for the networks: {parts}.")


def score_operations(cost: Operations, settings: RefineSettings, name: str) -> float:
    """Return the mean operations of a teacher's score, without the encoding."""
    own = settings.teachers[name]
    guided = 2 if own.guidance != (1.0, 1.0) or own.kind == "csd" else 1
    if own.kind == "ism":
        return (guided + mean_inversions(settings, name)) * cost.prediction
    if own.kind == "vsd":
        return (guided + 1) * cost.prediction + cost.training
    # Without a shift, both predictions of "asd" are the same.
    return (guided + (own.kind == "asd" and own.shift != 0)) * cost.prediction


def mean_inversions(settings: RefineSettings, name: str) -> float:
    """Return the mean number of predictions that a teacher's DDIM inversion makes; see `scores.direction`."""
    total, steps = 0.0, range(0, settings.steps, max(1, settings.steps // 50))
    for step in steps:
        score = settings.score(name, step)
        times = range(score.low, score.high)
        total += sum(1 + -(-max(0, t - score.interval) // score.stride) for t in times) / len(times)
    return total / len(steps)


def measured_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the operations per second of a U-Net's convolutions and matrix products, in under a second."""
    convolution = nn.Conv2d(320, 320, 3, padding=1).to(device, dtype).requires_grad_(False)
    x = torch.ones(1, 320, 64, 64, device=device, dtype=dtype)
    matrix = torch.ones(1280, 1280, device=device, dtype=dtype)
    rows = torch.ones(2048, 1280, device=device, dtype=dtype)
    operations = 2 * 9 * 320 * 320 * 64 * 64 + 2 * 2048 * 1280 * 1280
    best = float("inf")
    for _ in range(_PROBED):
        wait_for(device)
        started = time.perf_counter()
        convolution(x)
        F.linear(rows, matrix)
        wait_for(device)
        best = min(best, time.perf_counter() - started)
    return operations / best
