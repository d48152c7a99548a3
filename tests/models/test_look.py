"""A look of its own: texture planes read another text, and the geometry of a draft is kept."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from tests.helpers.random_generator import CONFIG, UNET, bases, stir
from triplaneturbo.models.look import denoise_keeping_shape, interleave
from triplaneturbo.models.schedule import clean_estimate, denoise_steps, shifted_timesteps
from triplaneturbo.models.triplane_generator import TriplaneGenerator

STEPS = 3


@pytest.fixture(scope="module")
def generator() -> TriplaneGenerator:
    unet, vae = bases()
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    generator = TriplaneGenerator(unet, vae, scheduler, CONFIG)
    stir(generator)
    return generator.eval()


def _texts(seed: int, prompts: int) -> Tensor:
    return torch.randn(
        prompts, 77, UNET["cross_attention_dim"], generator=torch.Generator().manual_seed(seed)
    )


def _latents(prompts: int) -> Tensor:
    return torch.randn(prompts, 6, 4, 8, 8, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
@pytest.mark.parametrize("prompts", [1, 2])
def test_each_half_of_the_planes_reads_its_text(generator: TriplaneGenerator, prompts: int) -> None:
    """Reference: a text for every plane, written out."""
    shape, look, latents = _texts(1, prompts), _texts(2, prompts), _latents(prompts)
    rows = torch.stack([text[b] for b in range(prompts) for text in (shape, look) for _ in range(3)])
    assert rows.shape[0] == 6 * prompts
    time = torch.tensor(500)
    found = generator.predict(latents, time, interleave(shape, look))
    torch.testing.assert_close(found, generator.predict(latents, time, rows), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found, generator.predict(latents, time, shape), atol=1e-3)
    same = generator.predict(latents, time, interleave(shape, shape))
    torch.testing.assert_close(same, generator.predict(latents, time, shape), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_kept_shape_equals_the_draft_bit_for_bit(generator: TriplaneGenerator) -> None:
    """Reference: the draft's latents, recorded, written over the geometry planes before each step."""
    shape, look, latents = _texts(1, 1), _texts(2, 1), _latents(1)
    scheduler, texts = generator.scheduler, interleave(shape, look)

    def draft(noisy: Tensor, time: Tensor) -> Tensor:
        return generator.predict(noisy, time, shape)

    def predict(noisy: Tensor, time: Tensor) -> Tensor:
        return generator.predict(noisy, time, texts)

    found = list(denoise_keeping_shape(scheduler, draft, predict, latents, STEPS))
    drafts = list(denoise_steps(scheduler, draft, latents, STEPS))
    assert len(found) == STEPS
    for estimate, plain in zip(found, drafts, strict=True):
        assert torch.equal(estimate[:, :3], plain[:, :3])
        assert not torch.allclose(estimate[:, 3:], plain[:, 3:], atol=1e-3)

    noisy_drafts: list[Tensor] = []

    def record(noisy: Tensor, time: Tensor) -> Tensor:
        noisy_drafts.append(noisy)
        return draft(noisy, time)

    list(denoise_steps(scheduler, record, latents, STEPS))
    noisy = latents
    times = shifted_timesteps(scheduler, STEPS)
    for number, time in enumerate(times):
        noisy = torch.cat([noisy_drafts[number][:, :3], noisy[:, 3:]], dim=1)
        output = predict(noisy, torch.tensor(time))
        estimate = clean_estimate(scheduler, output, noisy, time)
        torch.testing.assert_close(found[number][:, 3:], estimate[:, 3:], rtol=1e-4, atol=1e-4)
        if number + 1 < STEPS:
            # DDIM: the same noise, at the level of the next timestep.
            now = scheduler.alphas_cumprod[time]
            then = scheduler.alphas_cumprod[time - scheduler.config.num_train_timesteps // STEPS]
            noise = (noisy - now.sqrt() * estimate) / (1 - now).sqrt()
            noisy = then.sqrt() * estimate + (1 - then).sqrt() * noise
