"""Folded adapters: the same values and gradients, and nothing left behind."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor

from tests.helpers.full_size import SCHEDULER
from tests.helpers.random_generator import CONFIG, bases, inputs, stir
from triplaneturbo.models.adapter import adapter_tensors
from triplaneturbo.models.merged_lora import MergedLora
from triplaneturbo.models.triplane_generator import TriplaneGenerator


def make(embedding: bool = False) -> TriplaneGenerator:
    generator = TriplaneGenerator(
        *bases(), DDIMScheduler(**SCHEDULER), replace(CONFIG, plane_embedding=embedding)
    ).eval()
    stir(generator)
    return generator


def made(generator: TriplaneGenerator, latents: Tensor, text: Tensor, time: int = 499) -> Tensor:
    return generator.decode(generator.predict(latents, time, text))


def near(found: Tensor, wanted: Tensor) -> None:
    """Within 1e-4 of the largest magnitude."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("embedding", [False, True])
def test_merged_values_and_gradients_match_unmerged(embedding: bool) -> None:
    generator = make(embedding)
    merged_lora = MergedLora(generator)
    learning = {name: p for name, p in generator.named_parameters() if p.requires_grad}
    latents, text = inputs()
    weights = torch.randn(2, 6, 4, 16, 16)
    outcomes, gradients = [], []
    for fold in (False, True):
        if fold:
            merged_lora.merge()
        for time in (999, 499):  # two passes share the merged weights
            outcome = made(generator, latents, text, time)
            (outcome * weights).sum().backward()
            outcomes.append(outcome.detach())
        if fold:
            merged_lora.unmerge()
        gradients.append({name: p.grad for name, p in learning.items() if p.grad is not None})
        generator.zero_grad()
    near(outcomes[2], outcomes[0])
    near(outcomes[3], outcomes[1])
    assert gradients[0].keys() == gradients[1].keys()
    # All learn but the field's, which planes do not ask.
    assert {name for name in learning if ".fields." not in name} == gradients[0].keys()
    for name, wanted in gradients[0].items():
        near(gradients[1][name], wanted)


def test_gradients_accumulate() -> None:
    generator = make()
    merged_lora = MergedLora(generator)
    latents, text = inputs(1)

    def learn() -> dict[str, Tensor]:
        merged_lora.merge()
        made(generator, latents, text).square().sum().backward()
        merged_lora.unmerge()
        return {name: p.grad.clone() for name, p in generator.named_parameters() if p.grad is not None}

    once = learn()
    for name, twice in learn().items():
        near(twice, 2 * once[name])


def test_unmerging_restores_the_base_exactly() -> None:
    generator = make()
    merged_lora = MergedLora(generator)
    latents, text = inputs(1)
    with torch.no_grad():
        before = made(generator, latents, text)
    parameters = dict(generator.named_parameters())
    learning = [name for name, p in parameters.items() if p.requires_grad]
    values = {name: p.clone() for name, p in parameters.items()}
    merged_lora.merge()
    merged_lora.unmerge()
    after = dict(generator.named_parameters())
    assert all(after[name] is p for name, p in parameters.items())
    assert all(torch.equal(after[name], value) for name, value in values.items())
    assert learning == [name for name, p in after.items() if p.requires_grad]
    assert not any(layer.merged for layer in generator.adapter_layers())
    with torch.no_grad():
        assert torch.equal(made(generator, latents, text), before)


def test_base_is_unchanged_while_merged() -> None:
    generator = make(embedding=True)
    with torch.no_grad():
        generator.heads[generator.active].embedding.normal_()
    merged_lora = MergedLora(generator)
    images, words = torch.randn(5, 4, 8, 8), torch.randn(5, 77, 24)
    latents, text = inputs(1)
    with torch.no_grad():
        with merged_lora.base() as unet:
            wanted = unet(images, 7, encoder_hidden_states=words).sample
        merged_lora.merge()
        own = made(generator, latents, text)
        with merged_lora.base() as unet:
            assert torch.equal(unet(images, 7, encoder_hidden_states=words).sample, wanted)
        assert torch.equal(made(generator, latents, text), own)
        with pytest.raises(ZeroDivisionError), merged_lora.base():
            raise ZeroDivisionError
        assert torch.equal(made(generator, latents, text), own)
        merged_lora.unmerge()


def test_second_merge_uses_new_weights() -> None:
    """Upsampling keeps kernels by their weights' place in memory, where others may come to lie."""
    generator = make()
    merged_lora = MergedLora(generator)
    latents, text = inputs(1)
    with torch.no_grad():
        for seed in range(3, 9):
            stir(generator, seed)
            wanted = made(generator, latents, text)
            merged_lora.merge()
            near(made(generator, latents, text), wanted)
            merged_lora.unmerge()


def test_frozen_parameters_get_no_gradient() -> None:
    generator = make()
    for name, p in generator.named_parameters():
        if name.startswith("vae.decoder."):
            p.requires_grad_(False)
    merged_lora = MergedLora(generator)
    latents, text = inputs(1)
    merged_lora.merge()
    made(generator, latents, text).sum().backward()
    merged_lora.unmerge()
    for name, p in generator.named_parameters():
        assert (p.grad is not None) == (p.requires_grad and ".fields." not in name), name
    assert adapter_tensors(generator)
