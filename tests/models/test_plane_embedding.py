"""The learned embedding of planes, and the clean estimates of both kinds of prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from tests.helpers.full_size import SCHEDULER
from tests.helpers.random_generator import CONFIG, bases, inputs, stir
from triplaneturbo.errors import UserError
from triplaneturbo.models.adapter import adapter_tensors, load_adapter, save_adapter
from triplaneturbo.models.config import CONFIG_NAME, GeneratorConfig
from triplaneturbo.models.schedule import clean_estimate, denoise_steps, shifted_timesteps
from triplaneturbo.models.triplane_generator import TriplaneGenerator

EMBEDDED = replace(CONFIG, plane_embedding=True)


def make(config: GeneratorConfig = EMBEDDED, seed: int = 2) -> TriplaneGenerator:
    generator = TriplaneGenerator(*bases(), DDIMScheduler(**SCHEDULER), config).eval()
    stir(generator, seed)
    if config.plane_embedding:
        with torch.no_grad():
            generator.heads[generator.active].embedding.normal_(generator=torch.Generator().manual_seed(seed))
    return generator


def test_embedding_is_added_after_the_first_convolution() -> None:
    generator = make()
    latents, text = inputs(2)
    shown = []
    generator.unet.conv_in.register_forward_hook(lambda _module, _inputs, rows: shown.append(rows))
    with torch.no_grad():
        generator.predict(latents, 499, text)
        conv = generator.unet.conv_in
        wanted = torch.nn.functional.conv2d(latents.flatten(0, 1), conv.weight, conv.bias, padding=1)
    embedding = generator.heads[generator.active].embedding
    torch.testing.assert_close(shown[0].unflatten(0, (2, 6)), wanted.unflatten(0, (2, 6)) + embedding)


def test_embedding_starts_at_zero_and_is_trained() -> None:
    plain = TriplaneGenerator(*bases(), DDIMScheduler(**SCHEDULER), CONFIG).eval()
    fresh = TriplaneGenerator(*bases(), DDIMScheduler(**SCHEDULER), EMBEDDED).eval()
    latents, text = inputs(1)
    torch.testing.assert_close(fresh.predict(latents, 499, text), plain.predict(latents, 499, text))
    fresh.predict(latents, 499, text).square().sum().backward()
    assert (fresh.heads[fresh.active].embedding.grad.flatten(1).abs().sum(1) > 0).all()


def test_every_adapter_has_its_own_embedding() -> None:
    generator = make()
    latents, text = inputs(1)
    with torch.no_grad():
        first = generator.predict(latents, 499, text)
        generator.add_adapter("second")
        assert not torch.allclose(generator.predict(latents, 499, text), first, atol=1e-3)
        generator.set_adapter("default")
        assert torch.equal(generator.predict(latents, 499, text), first)


def test_embedding_is_saved_in_the_adapter(tmp_path: Path) -> None:
    generator, other = make(), make(seed=7)
    save_adapter(generator, tmp_path / "a.safetensors")
    load_adapter(other, tmp_path / "a.safetensors")
    ours, theirs = adapter_tensors(generator), adapter_tensors(other)
    assert "embedding" in ours
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    latents, text = inputs(1)
    with torch.no_grad():
        assert torch.equal(generator.predict(latents, 499, text), other.predict(latents, 499, text))


def test_adapters_with_and_without_embedding_are_incompatible(tmp_path: Path) -> None:
    save_adapter(make(), tmp_path / "with.safetensors")
    save_adapter(make(CONFIG), tmp_path / "without.safetensors")
    with pytest.raises(UserError, match="embedding"):
        load_adapter(make(CONFIG), tmp_path / "with.safetensors")
    with pytest.raises(UserError, match="embedding"):
        load_adapter(make(), tmp_path / "without.safetensors")
    with pytest.raises(UserError, match="does not support"):
        save_adapter(make(), tmp_path / "released.pth")
    assert not (tmp_path / "released.pth").exists()
    with pytest.raises(UserError, match="embedding"):
        load_adapter(make(replace(EMBEDDED, latent_size=4)), tmp_path / "with.safetensors")


def test_config_selects_the_embedding(tmp_path: Path) -> None:
    EMBEDDED.save(tmp_path)
    assert GeneratorConfig.load(tmp_path) == EMBEDDED
    (tmp_path / CONFIG_NAME).write_text("{}")
    assert not GeneratorConfig.load(tmp_path).plane_embedding
    (tmp_path / CONFIG_NAME).write_text('{"plane_embedding": 1}')
    with pytest.raises(UserError, match="plane_embedding should be of type bool"):
        GeneratorConfig.load(tmp_path)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_clean_estimates_match_the_scheduler(kind: str) -> None:
    scheduler = DDIMScheduler(**SCHEDULER, prediction_type=kind)
    times = shifted_timesteps(scheduler, 4)
    shown: list[tuple[torch.Tensor, torch.Tensor, int]] = []

    def predict(noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        shown.append((noisy, torch.tanh(noisy + time / 1000), int(time)))
        return shown[-1][1]

    estimates = list(denoise_steps(scheduler, predict, torch.randn(2, 6, 4, 3, 3), 4))
    assert [time for _, _, time in shown] == times
    for (noisy, output, time), wanted in zip(shown, estimates, strict=True):
        found = clean_estimate(scheduler, output, noisy, time)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
