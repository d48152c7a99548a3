"""Few-step sampling: DDIM on timesteps shifted to the noisiest one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from diffusers import DDIMScheduler
from torch import Tensor


def shifted_timesteps(scheduler: DDIMScheduler, steps: int) -> list[int]:
    """Return the scheduler's timesteps for `steps` steps, shifted so that the first is the noisiest.

    For the released weights and 4 steps: [999, 749, 499, 249].
    """
    scheduler.set_timesteps(steps)
    times = scheduler.timesteps
    return (times + (scheduler.config.num_train_timesteps - 1 - int(times.max()))).tolist()


def denoise_steps(
    scheduler: DDIMScheduler, predict: Callable[[Tensor, Tensor], Tensor], latents: Tensor, steps: int
) -> Iterator[Tensor]:
    """Run DDIM (eta 0) and yield the predicted clean sample of each step, float32, shaped as `latents`.

    Args:
        scheduler: the noise schedule of the base; not modified.
        predict: maps (noisy latents, timestep as an int64 scalar tensor) to the U-Net's output, of the
            scheduler's prediction type.
        latents: standard normal noise.
        steps: number of steps, from 1 to the scheduler's number of training timesteps.
    """
    scheduler = DDIMScheduler.from_config(scheduler.config)
    noisy = latents.float()
    times = shifted_timesteps(scheduler, steps)
    scheduler.timesteps = torch.tensor(times)
    # Moved to the device once: a copy in each step would synchronise.
    for time, timestep in zip(times, torch.tensor(times, device=latents.device), strict=True):
        step = scheduler.step(predict(noisy, timestep).float(), time, noisy)
        noisy = step.prev_sample
        yield step.pred_original_sample


def noise_estimate(scheduler: DDIMScheduler, noisy: Tensor, clean: Tensor, time: int) -> Tensor:
    """Return the noise in noisy latents at a timestep if `clean` is their clean sample; shaped as `noisy`."""
    alpha_cumprod = scheduler.alphas_cumprod[time].to(noisy)
    return (noisy - alpha_cumprod.sqrt() * clean) / (1 - alpha_cumprod).sqrt()


def clean_estimate(scheduler: DDIMScheduler, output: Tensor, noisy: Tensor, time: int) -> Tensor:
    """Convert the U-Net's output at a timestep to the predicted clean sample, shaped as `noisy`."""
    alpha_cumprod = scheduler.alphas_cumprod[time].to(noisy)
    alpha, sigma = alpha_cumprod.sqrt(), (1 - alpha_cumprod).sqrt()
    if scheduler.config.prediction_type == "v_prediction":
        return alpha * noisy - sigma * output
    return (noisy - sigma * output) / alpha
