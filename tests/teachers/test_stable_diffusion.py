"""The base as a teacher: it stays what it was, merged or not, and its opinion reaches the pixels."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from tests.helpers.random_generator import bases, stir
from tests.helpers.small_stable_diffusion import SIZE, VIEWS, embed, make, scenes, seen
from triplaneturbo.distill.scores import ScoreSettings, score_gradients
from triplaneturbo.render.scenes import Renderings
from triplaneturbo.teachers.multi_view import NEGATIVE
from triplaneturbo.teachers.stable_diffusion import StableDiffusion, TextCondition
from triplaneturbo.teachers.view_words import VIEW_WORDS, view_weights
from triplaneturbo.toyworld.scene.view_renderer import shade


def seeded(seed: int = 4) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def condition_of(texts: list[str]) -> TextCondition:
    """Return the conditioning of one view per scene with these texts and the empty prompt."""
    empty = embed([""] * len(texts))[:, None]
    return TextCondition(embed(texts)[:, None], empty, empty)


@torch.no_grad()
def asked(teacher: StableDiffusion) -> Tensor:
    """Its noise with the caption and without, for fixed latents."""
    noisy = torch.randn(2, 1, 4, 8, 8, generator=seeded())
    text, free = teacher.predict(noisy, torch.tensor([30, 900]), teacher.condition(seen(), scenes()), True)
    assert free is not None
    return torch.stack((text, free))


def test_teacher_stays_the_base_during_training() -> None:
    generator, merged_lora, teacher = make()
    frozen = {name: p.clone() for name, p in generator.named_parameters() if not p.requires_grad}
    fresh = asked(teacher)
    stir(generator)
    assert torch.equal(asked(teacher), fresh)
    optimizer = torch.optim.SGD([p for p in generator.parameters() if p.requires_grad], lr=1e-2)
    latents, text = torch.randn(1, 6, 4, 8, 8), torch.randn(1, 77, 24)
    for _ in range(2):
        merged_lora.merge()
        loss = generator.decode(generator.predict(latents, 499, text)).square().mean()
        assert torch.equal(asked(teacher), fresh)
        loss.backward()
        merged_lora.unmerge()
        optimizer.step()
        optimizer.zero_grad()
        assert torch.equal(asked(teacher), fresh)
    assert all(torch.equal(p, frozen[name]) for name, p in generator.named_parameters() if name in frozen)


def test_teacher_matches_the_unet_of_diffusers() -> None:
    _, _, teacher = make()
    plain, _ = bases()
    noisy, times = torch.randn(2, 1, 4, 8, 8), torch.tensor([30, 900])
    with torch.no_grad():
        actual, free = teacher.predict(noisy, times, condition_of(["a", "bb"]), False)
        expected = plain(noisy[:, 0], times, encoder_hidden_states=embed(["a", "bb"])).sample
    assert free is None
    torch.testing.assert_close(actual[:, 0], expected)


def test_guidance_uses_one_batch() -> None:
    _, _, teacher = make()
    noisy, times = torch.randn(2, 1, 4, 8, 8), torch.tensor([30, 900])
    condition = teacher.condition(seen(), scenes())
    text, negative, empty = condition
    assert torch.equal(negative, empty)
    assert torch.equal(empty[0, 0], embed([""])[0])
    assert torch.equal(text[1, 0], embed(["two dogs"])[0])
    with torch.no_grad():
        both = teacher.predict(noisy, times, condition, True)
        for actual, alone in zip(both, (text, empty), strict=True):
            assert actual is not None
            expected, _ = teacher.predict(noisy, times, TextCondition(alone, negative, empty), False)
            torch.testing.assert_close(actual, expected)
        unconditional, _ = teacher.predict(noisy, times, teacher.unconditional(condition), False)
        torch.testing.assert_close(unconditional, both[1])


def test_refining_scores_every_view_with_its_own_words() -> None:
    """Against a plain twin: each view alone, with the sum of the three texts by its azimuth."""
    _, _, teacher = make()
    teacher.refining = True
    batch, renderings = scenes(), seen()
    condition = teacher.condition(renderings, batch)
    z = teacher.encode(renderings, batch, seeded())
    assert z.shape == (2, VIEWS, 4, 8, 8)
    times = torch.tensor([30, 900])
    with torch.no_grad():
        text, free = teacher.predict(z, times, condition, True)
        assert free is not None
        inverted, none = teacher.predict(z, times, teacher.unconditional(condition), False)
    assert none is None
    plain, _ = bases()
    for scene, caption in enumerate(batch.prompts):
        for view in range(VIEWS):
            weights = view_weights(batch.cameras.positions[scene * VIEWS + view])
            words = sum(
                float(weight) * embed([f"{caption}, {words}"])
                for weight, words in zip(weights, VIEW_WORDS, strict=True)
            )
            for actual, encoded in ((text, words), (free, embed([NEGATIVE])), (inverted, embed([""]))):
                with torch.no_grad():
                    expected = plain(z[scene, view][None], times[scene], encoder_hidden_states=encoded).sample
                torch.testing.assert_close(actual[scene, view], expected[0], rtol=1e-4, atol=1e-4)


def test_refining_sends_gradients_to_every_view() -> None:
    _, _, teacher = make()
    teacher.refining = True
    gradients = score_gradients(teacher, seen(), scenes(), ScoreSettings("ism", guidance=7.5), seeded())
    assert (gradients.by_field["rgb"].abs().amax((2, 3, 4)) > 0).all()


def test_v_predictions_are_converted_to_noise() -> None:
    """The noise that a prediction of the velocity stands for is what, with the image, gives that velocity."""
    _, _, teacher = make(kind="v_prediction")
    plain, _ = bases()
    noisy, times = torch.randn(2, 1, 4, 8, 8), torch.tensor([30, 900])
    with torch.no_grad():
        noise, _ = teacher.predict(noisy, times, condition_of(["a", "bb"]), False)
        velocity = plain(noisy[:, 0], times, encoder_hidden_states=embed(["a", "bb"])).sample[:, None]
    alpha = teacher.alphas[times].sqrt().view(2, 1, 1, 1, 1)
    sigma = (1 - alpha**2).sqrt()
    image = (noisy - sigma * noise) / alpha
    torch.testing.assert_close(alpha * noise - sigma * image, velocity, rtol=1e-4, atol=1e-4)


def test_gradients_reach_only_the_encoded_view() -> None:
    generator, _, teacher = make(shade)
    looked = set()
    for seed in range(4):
        actual = score_gradients(
            teacher, seen(), scenes(), ScoreSettings(guidance=3.0, shift=0.0), seeded(seed)
        )
        slope = actual.by_field["rgb"]
        assert torch.isfinite(slope).all()
        used = slope.flatten(2).abs().sum(2) > 0
        assert (used.sum(1) == 1).all()  # one view a scene
        looked |= set(used.nonzero().flatten().tolist())
    assert len(looked) > 1
    assert all(p.grad is None for p in generator.parameters())


def test_latents_are_sampled_from_the_posterior() -> None:
    generator, _, teacher = make()
    shown = seen()
    first, again = (teacher.encode(shown, scenes(), seeded()) for _ in range(2))
    assert first.shape == (2, 1, 4, 8, 8)
    assert torch.equal(first, again)
    draw = seeded()
    views = torch.randint(VIEWS, (2,), generator=draw)
    images = torch.stack([shown.rgb[i, view] for i, view in enumerate(views)]).permute(0, 3, 1, 2) * 2 - 1
    posterior = generator.vae.encode(images).latent_dist
    expected = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=draw)
    torch.testing.assert_close(first[:, 0], expected * generator.vae.config.scaling_factor)


def test_renderings_are_resized() -> None:
    _, _, teacher = make()
    flat = seen(side=24)
    flat.rgb[:] = 0.25
    same = seen()
    same.rgb[:] = 0.25
    torch.testing.assert_close(*(teacher.encode(one, scenes(), seeded()) for one in (flat, same)))


def test_renderings_are_shaded() -> None:
    _, _, lit = make(shade)
    _, _, plain = make()
    where, shown = scenes(), seen()
    toward = where.cameras.c2w[:, :3, 2].view(2, VIEWS, 1, 1, 3)
    unit = torch.nn.functional.normalize(shown.normal, dim=-1)
    by_hand = Renderings(shade(shown.rgb, unit, toward), shown.opacity)
    actual = lit.encode(shown, where, seeded())
    torch.testing.assert_close(actual, plain.encode(by_hand, where, seeded()))
    assert not torch.allclose(actual, plain.encode(shown, where, seeded()), atol=1e-3)
    nothing = Renderings(shown.rgb, torch.zeros_like(shown.opacity), shown.normal)
    torch.testing.assert_close(*(one.encode(nothing, where, seeded()) for one in (lit, plain)))


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_half_precision(autocast: torch.dtype | None) -> None:
    _, _, exact = make()
    expected = asked(exact)
    unet, vae = bases()
    if autocast is None:  # that of the weights
        unet, vae = unet.to(torch.bfloat16), vae.to(torch.bfloat16)
    teacher = StableDiffusion(lambda: nullcontext(unet), vae, exact.scheduler, embed, SIZE, None, autocast)
    actual = asked(teacher)
    assert actual.dtype == torch.float32
    assert float((actual - expected).norm() / expected.norm()) < 0.03
    z, near = (one.encode(seen(), scenes(), seeded()) for one in (exact, teacher))
    assert near.dtype == torch.float32
    assert near.shape == z.shape
    slope = score_gradients(teacher, seen(), scenes(), ScoreSettings(shift=0.1), seeded()).by_field["rgb"]
    assert torch.isfinite(slope).all()
    assert slope.abs().sum() > 0
