"""Variants: which one the noise chooses, and their learned embeddings in adapters."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler
from scipy.stats import norm

from tests.helpers.full_size import SCHEDULER
from tests.helpers.random_generator import CONFIG, bases, inputs, stir
from triplaneturbo.errors import UserError
from triplaneturbo.models.adapter import adapter_tensors, load_adapter, save_adapter
from triplaneturbo.models.lora_ranks import check_except_ranks, match_except_ranks
from triplaneturbo.models.triplane_generator import TriplaneGenerator

THREE = replace(CONFIG, variants=3)


def make(seed: int = 2, variants: int = 3) -> TriplaneGenerator:
    config = replace(CONFIG, variants=variants)
    generator = TriplaneGenerator(*bases(), DDIMScheduler(**SCHEDULER), config).eval()
    stir(generator, seed)
    if variants > 1:
        with torch.no_grad():
            generator.heads[generator.active].variants.normal_(generator=torch.Generator().manual_seed(seed))
    return generator


def shapes(generator: TriplaneGenerator) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in adapter_tensors(generator).items()}


def test_choice_matches_its_definition() -> None:
    generator = make()
    noise = torch.randn(300, 6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    chosen = generator.choose_variants(noise)
    for one, variant in zip(noise, chosen.tolist(), strict=True):
        total = math.fsum(one.flatten().tolist())
        assert variant == int(3 * norm.cdf(total / math.sqrt(one.numel())))
    assert chosen.bincount(minlength=3).min() > 70
    assert torch.equal(torch.cat([generator.choose_variants(one[None]) for one in noise]), chosen)


def test_extreme_noise_chooses_the_first_and_the_last_variant() -> None:
    noise = torch.stack((torch.full((6, 4, 8, 8), -9.0), torch.full((6, 4, 8, 8), 9.0)))
    assert make().choose_variants(noise).tolist() == [0, 2]


def test_interpolated_noise_changes_from_one_variant_to_the_other() -> None:
    generator = make()
    draws = torch.randn(60, 6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    low, high = (next(one for one in draws if generator.choose_variants(one[None]) == k) for k in (0, 2))
    arc = torch.linspace(0, math.pi / 2, 40).tolist()
    path = torch.stack([math.cos(angle) * low + math.sin(angle) * high for angle in arc])
    found = generator.choose_variants(path).tolist()
    assert found[0] == 0
    assert found[-1] == 2
    assert found == sorted(found)


def test_embedding_of_the_chosen_variant_is_added_to_the_text() -> None:
    generator = make()
    noise, text = inputs(4)
    chosen = generator.choose_variants(noise)
    table = generator.heads[generator.active].variants
    with torch.no_grad():
        found = generator.with_variants(text, noise)
        for row in range(4):
            torch.testing.assert_close(found[row], text[row] + 10 * table[chosen[row]])
        *_, clean = generator.denoise(noise, text, 2)
        one = make(variants=1)
        one.load_state_dict(
            {name: value for name, value in generator.state_dict().items() if "variants" not in name}
        )
        *_, wanted = one.denoise(noise, found, 2)
    torch.testing.assert_close(clean, wanted)


def test_a_model_without_variants_leaves_the_text_alone() -> None:
    noise, text = inputs(1)
    assert make(variants=1).with_variants(text, noise) is text


def test_variants_start_alike_and_are_trained() -> None:
    generator = TriplaneGenerator(*bases(), DDIMScheduler(**SCHEDULER), THREE).eval()
    noise, text = inputs(1)
    assert torch.equal(generator.with_variants(text, noise), text)
    generator.predict(noise, 499, generator.with_variants(text, noise)).square().sum().backward()
    gradient = generator.heads[generator.active].variants.grad.abs().sum(1)
    chosen = int(generator.choose_variants(noise))
    assert [bool(row > 0) for row in gradient] == [row == chosen for row in range(3)]


def test_variants_are_saved_in_the_adapter(tmp_path: Path) -> None:
    generator, other = make(), make(seed=7)
    save_adapter(generator, tmp_path / "a.safetensors")
    load_adapter(other, tmp_path / "a.safetensors")
    assert torch.equal(adapter_tensors(generator)["variants"], adapter_tensors(other)["variants"])
    with pytest.raises(UserError, match="variant"):
        save_adapter(generator, tmp_path / "released.pth")
    with pytest.raises(UserError, match="variants"):
        load_adapter(make(variants=1), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="variants"):
        load_adapter(make(variants=2), tmp_path / "a.safetensors")


def test_an_adapter_from_before_the_model_had_variants_keeps_its_results(tmp_path: Path) -> None:
    before, now = make(variants=1), make(seed=7)
    save_adapter(before, tmp_path / "a.safetensors")
    assert match_except_ranks(shapes(before), shapes(now))
    assert not match_except_ranks(shapes(now), shapes(before))
    check_except_ranks(now, adapter_tensors(before), "a.safetensors")
    load_adapter(now, tmp_path / "a.safetensors")
    noise, text = inputs(3)
    with torch.no_grad():
        for found, wanted in zip(now.denoise(noise, text, 2), before.denoise(noise, text, 2), strict=True):
            assert torch.equal(found, wanted)
