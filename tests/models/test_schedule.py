"""Noise and clean estimates of training, and the steps of generating, on the public numbers."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file

from tests.helpers.full_size import SCHEDULER
from tests.helpers.parity_files import each_file, settings_of
from triplaneturbo.models.schedule import clean_estimate, denoise_steps, noise_estimate, shifted_timesteps


@each_file("schedule/case_*.safetensors")
def test_training_schedule_matches_the_public_implementation(file: Path) -> None:
    case, timesteps = load_file(file), settings_of(file.parent)["timesteps"]
    scheduler = DDIMScheduler(**SCHEDULER)
    torch.testing.assert_close(scheduler.alphas_cumprod, case["alphas_cumprod"], rtol=0, atol=1e-6)
    times = shifted_timesteps(scheduler, len(timesteps))
    assert [int(t) for t in times] == timesteps
    clean = case["z_init"]
    for i, t in enumerate(times):
        kept = scheduler.alphas_cumprod[t]
        noisy = kept.sqrt() * clean + (1 - kept).sqrt() * case[f"noise_{i}"]
        torch.testing.assert_close(noisy, case[f"noisy_{i}"], rtol=1e-5, atol=1e-5)
        clean = clean_estimate(scheduler, case[f"eps_{i}"], noisy, t)
        torch.testing.assert_close(clean, case[f"x0_{i}"], rtol=1e-5, atol=1e-4)


@each_file("schedule/case_*.safetensors")
def test_generation_schedule_matches_the_public_implementation(file: Path) -> None:
    case, count = load_file(file), len(settings_of(file.parent)["timesteps"])
    told = iter(case[f"eps_{i}"] for i in range(count))
    steps = list(denoise_steps(DDIMScheduler(**SCHEDULER), lambda *_: next(told), case["z_init"], count))
    assert len(steps) == count
    for i, clean in enumerate(steps):
        torch.testing.assert_close(clean, case[f"ddim_x0_{i}"], rtol=1e-5, atol=1e-4)


@each_file("schedule/case_*.safetensors")
def test_estimated_noise_leads_to_the_samples_of_the_public_sampler(file: Path) -> None:
    case, scheduler = load_file(file), DDIMScheduler(**SCHEDULER)
    times = shifted_timesteps(scheduler, len(settings_of(file.parent)["timesteps"]))
    noisy = case["z_init"]
    for i, t in enumerate(times):
        clean = clean_estimate(scheduler, case[f"eps_{i}"], noisy, t)
        torch.testing.assert_close(clean, case[f"ddim_x0_{i}"], rtol=1e-5, atol=1e-4)
        noise = noise_estimate(scheduler, noisy, clean, t)
        torch.testing.assert_close(noise, case[f"eps_{i}"], rtol=1e-4, atol=1e-4)
        if i + 1 < len(times):
            kept = scheduler.alphas_cumprod[times[i + 1]]
            noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
