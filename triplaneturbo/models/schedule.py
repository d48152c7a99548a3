"""The few steps from noise to latents: DDIM on shifted timesteps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from diffusers import DDIMScheduler
from torch import Tensor


def shifted_timesteps(scheduler: DDIMScheduler, steps: int) -> list[int]:
    """The scheduler's own timesteps for `steps` steps, moved up so that the first is the noisiest.

    For the released weights and 4 steps: [999, 749, 499, 249] (facts/generator.md 5).
    """
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps
    return (times + (scheduler.config.num_train_timesteps - 1 - int(times.max()))).tolist()


def denoise_steps(
    scheduler: DDIMScheduler, predict: Callable[[Tensor, Tensor], Tensor], latents: Tensor, steps: int
) -> Iterator[Tensor]:
    """Run DDIM (eta 0) and yield each step's clean estimate, float32 and shaped as `latents`.

    Args:
        scheduler: the base's schedule; it is not changed.
        predict: (noisy latents, timestep as int64 []) -> what the U-Net predicts, of the scheduler's
            prediction type.
        latents: pure noise, unit variance.
        steps: how many, 1 to the scheduler's training timesteps.
    """
    scheduler = DDIMScheduler.from_config(scheduler.config)
    noisy = latents.float()
    times = shifted_timesteps(scheduler, steps)
    scheduler.timesteps = torch.tensor(times)
    # On the device all at once: a copy in each step would wait for the step before.
    for time, there in zip(times, torch.tensor(times, device=latents.device), strict=True):
        step = scheduler.step(predict(noisy, there).float(), time, noisy)
        noisy = step.prev_sample
        yield step.pred_original_sample


def clean_estimate(scheduler: DDIMScheduler, output: Tensor, noisy: Tensor, time: int) -> Tensor:
    """The clean latents that the U-Net's output at one timestep stands for; of noisy's shape."""
    kept = scheduler.alphas_cumprod[time].to(noisy)
    alpha, sigma = kept.sqrt(), (1 - kept).sqrt()
    if scheduler.config.prediction_type == "v_prediction":
        return alpha * noisy - sigma * output
    return (noisy - sigma * output) / alpha
