"""The fast generator against its slow twin, and what adapters promise."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler
from peft import get_peft_model_state_dict

from tests.helpers.full_size import SCHEDULER
from tests.helpers.plain_generator import PlainGenerator
from tests.helpers.random_generator import CONFIG, bases, inputs, stir
from triplaneturbo.models import peta
from triplaneturbo.models.adapter import adapter_tensors
from triplaneturbo.models.released_checkpoint import released_key_map, to_released
from triplaneturbo.models.schedule import shifted_timesteps
from triplaneturbo.models.triplane_generator import TriplaneGenerator


def pair() -> tuple[TriplaneGenerator, PlainGenerator]:
    """A generator and its slow twin with the same weights."""
    unet, vae = bases()
    scheduler = DDIMScheduler(**SCHEDULER)
    plain_unet, plain_vae = bases()
    generator = TriplaneGenerator(unet, vae, scheduler, CONFIG).eval()
    stir(generator)
    places = released_key_map(peta.adapted_layers(unet, vae.decoder), CONFIG)
    tensors = {name: value.detach() for name, value in adapter_tensors(generator).items()}
    return generator, PlainGenerator(plain_unet, plain_vae, scheduler, to_released(tensors, places))


@pytest.mark.parametrize("merged", [False, True])
def test_generator_matches_its_slow_twin(merged) -> None:
    generator, plain = pair()
    latents, text = inputs()
    if merged:
        generator.merge()
    with torch.no_grad():
        *_, clean = generator.denoise(latents, text, 3)
        wanted = plain.denoise(latents, text, shifted_timesteps(DDIMScheduler(**SCHEDULER), 3))
        torch.testing.assert_close(clean, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())
        torch.testing.assert_close(generator.decode(clean), plain.decode(clean), rtol=1e-4, atol=1e-5)


def test_gradients_equal_those_of_the_slow_twin() -> None:
    generator, plain = pair()
    latents, text = inputs(1)
    ours = {name: value for name, value in generator.named_parameters() if "lora_" in name}
    theirs = {name: value.requires_grad_() for name, value in plain.state.items() if "lora" in name}
    weights = torch.randn(1, 6, 4, 16, 16)
    for model in (generator, plain):
        (model.decode(model.predict(latents, 499, text)) * weights).sum().backward()
    assert all(value.grad is not None for value in ours.values())
    name = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    for projection, short in (("to_q", "to_q"), ("to_out.0", "to_out")):
        for factor, word in (("lora_A", "down"), ("lora_B", "up")):
            found = ours[f"{name}.{projection}.{factor}.default.weight"].grad
            for plane, label in enumerate(("xy_lora_geo", "xz_lora_geo", "yz_lora_geo", "xy_lora_tex")):
                key = f"geometry.space_generator.peft_layers.layers.0.{short}_{label}.{word}.weight"
                torch.testing.assert_close(found[plane], theirs[key].grad, rtol=2e-3, atol=2e-4)


def test_new_adapter_changes_nothing() -> None:
    unet, vae = bases()
    generator = TriplaneGenerator(unet, vae, DDIMScheduler(**SCHEDULER), CONFIG).eval()
    plain_unet, _ = bases()
    images, text = torch.randn(6, 4, 8, 8), torch.randn(6, 77, 24)
    with torch.no_grad(), generator.base() as base:
        found = base(images, 7, encoder_hidden_states=text).sample
        torch.testing.assert_close(found, plain_unet(images, 7, encoder_hidden_states=text).sample)


def test_disabled_adapters_give_stable_diffusion() -> None:
    generator, _ = pair()
    plain_unet, _ = bases()
    images, text = torch.randn(5, 4, 8, 8), torch.randn(5, 77, 24)
    latents, prompt = inputs(1)
    with torch.no_grad():
        before = generator.predict(latents, 7, prompt)
        with generator.base() as base:
            found = base(images, 7, encoder_hidden_states=text).sample
        torch.testing.assert_close(found, plain_unet(images, 7, encoder_hidden_states=text).sample)
        assert torch.equal(before, generator.predict(latents, 7, prompt))


def test_unmerge_inverts_merge() -> None:
    generator, _ = pair()
    latents, text = inputs(1)
    with torch.no_grad():
        live = generator.predict(latents, 499, text), generator.decode(latents)
        generator.merge()
        with pytest.raises(RuntimeError, match="merged"), generator.base():
            pass
        generator.unmerge()
        torch.testing.assert_close(generator.predict(latents, 499, text), live[0])
        torch.testing.assert_close(generator.decode(latents), live[1])


def test_second_merge_uses_new_weights() -> None:
    generator, _ = pair()
    latents, _ = inputs(1)
    with torch.inference_mode():
        generator.merge()
        generator.decode(latents)
        generator.unmerge()
        stir(generator, seed=9)
        live = generator.decode(latents)
        generator.merge()
        torch.testing.assert_close(generator.decode(latents), live, rtol=1e-4, atol=1e-5)


def test_merged_adapter_cannot_be_switched() -> None:
    generator, _ = pair()
    generator.merge()
    with pytest.raises(RuntimeError, match="unmerge"):
        generator.set_adapter("default")
    with pytest.raises(RuntimeError, match="unmerge"):
        generator.add_adapter("second")


def test_adapter_added_in_bfloat16_decodes() -> None:
    generator, _ = pair()
    generator.cast(torch.bfloat16).add_adapter("second")
    with torch.no_grad():
        assert torch.isfinite(generator.decode(torch.randn(1, 6, 4, 8, 8))).all()


def test_base_context_keeps_trainable_parameters() -> None:
    generator, _ = pair()
    generator.add_adapter("second")
    learning = [name for name, value in generator.named_parameters() if value.requires_grad]
    assert learning
    assert all(".second" in name for name in learning)
    with generator.base():
        pass
    assert learning == [name for name, value in generator.named_parameters() if value.requires_grad]
    generator.requires_grad_(False)
    with generator.base():
        pass
    assert not any(value.requires_grad for value in generator.parameters())


def test_named_adapters_can_be_switched() -> None:
    generator, _ = pair()
    latents, text = inputs(1)

    def outcome() -> torch.Tensor:
        return generator.decode(generator.predict(latents, 499, text))

    with torch.no_grad():
        first = outcome()
        generator.add_adapter("second")
        stir(generator, seed=3)
        second = outcome()
        assert not torch.allclose(first, second, atol=1e-3)
        generator.set_adapter("default")
        assert torch.equal(outcome(), first)
        generator.set_adapter("second")
        assert torch.equal(outcome(), second)
    with pytest.raises(KeyError):
        generator.set_adapter("third")


def test_only_the_active_adapter_and_head_are_trained() -> None:
    generator, _ = pair()
    for name, value in generator.named_parameters():
        assert value.requires_grad == ("lora_" in name or name.startswith("heads.")), name


def test_prompts_of_a_batch_do_not_mix() -> None:
    generator, _ = pair()
    latents, text = inputs(2)
    with torch.no_grad():
        both = generator.predict(latents, 249, text)
        alone = generator.predict(latents[1:], 249, text[1:])
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)


def test_planes_of_a_prompt_interact() -> None:
    generator, _ = pair()
    latents, text = inputs(1)
    other = latents.clone()
    other[0, 5] += 1
    with torch.no_grad():
        change = generator.predict(other, 249, text) - generator.predict(latents, 249, text)
    assert change[0, 0].abs().max() > 1e-4


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        (4, [999, 749, 499, 249]),
        (3, [999, 666, 333]),
        (1, [999]),
        (8, [999, 874, 749, 624, 499, 374, 249, 124]),
    ],
)
def test_timesteps_start_at_the_noisiest(steps, wanted) -> None:
    assert shifted_timesteps(DDIMScheduler(**SCHEDULER), steps) == wanted


def test_latents_depend_on_the_seed() -> None:
    generator, _ = pair()
    first, again, other = (generator.draw_latents(2, torch.Generator().manual_seed(s)) for s in (5, 5, 6))
    assert first.shape == (2, 6, 4, 8, 8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("kind", "most"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_is_close_to_float32(kind: torch.dtype, most: float) -> None:
    generator, _ = pair()
    latents, text = inputs(1)
    generator.merge()
    with torch.no_grad():
        exact = generator.decode(generator.predict(latents, 499, text))
        rough = generator.cast(kind).decode(generator.predict(latents, 499, text))
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < most * exact.norm()


def test_peft_recognizes_the_adapters() -> None:
    generator, _ = pair()
    state = get_peft_model_state_dict(generator.unet, adapter_name="default")
    assert len(state) == sum("lora_" in name for name, _ in generator.unet.named_parameters())
