"""Memory plan and duration of a refinement: counts match real tensors, and a refusal says what would fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.helpers import toy
from tests.helpers.fields import mushroom
from tests.helpers.offloadable import SCENES, embed
from tests.helpers.small_memory import SMALL_SIZES, shrink_teachers
from triplaneturbo.distill import memory
from triplaneturbo.distill.critic import LoraCritic
from triplaneturbo.distill.lora_memory import LoraMemory, lora_memory
from triplaneturbo.distill.memory import MemoryCounter, size_of
from triplaneturbo.distill.memory_plan import CONTEXT, MemorySavings, Plan, device_overhead
from triplaneturbo.distill.ptd import ISM, RefineSettings
from triplaneturbo.distill.scores import Draws, ScoreSettings, direction
from triplaneturbo.refine.cost import Operations, operations
from triplaneturbo.refine.duration import (
    estimate_refinement,
    mean_inversions,
    measured_speed,
    score_operations,
)
from triplaneturbo.refine.memory_plan import (
    Change,
    DoesNotFitError,
    PlannedRefinement,
    plan_refinement,
    refinement_parts,
    texel_count,
)
from triplaneturbo.refine.setup import OPEN_SETTINGS
from triplaneturbo.render.scenes import Renderings
from triplaneturbo.representations.gaussian_asset import GaussianAsset, GaussianOptions
from triplaneturbo.representations.gaussians import Gaussians
from triplaneturbo.representations.registry import REPRESENTATIONS
from triplaneturbo.request import Request
from triplaneturbo.teachers import mvdream
from triplaneturbo.teachers.multi_view import MultiView
from triplaneturbo.teachers.mvdream import MVDream
from triplaneturbo.utils.units import GB

# A device with memory of its own that needs no CUDA context.
DEVICE = torch.device("mps")
ALL = OPEN_SETTINGS  # with all three teachers
ONE = replace(OPEN_SETTINGS, teachers={"sd": ISM})
NOT_ADJACENT = replace(ALL, path="none", teachers=dict.fromkeys(("mvdream", "sd", "richdreamer"), ISM))


@pytest.fixture(scope="module")
def small_teachers() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        operations.cache_clear()
        yield from shrink_teachers(patch)
        operations.cache_clear()


def planned(available: int, settings: RefineSettings = ALL, form: str = "field", **how: Any) -> Plan:
    return plan_refinement(
        PlannedRefinement(SMALL_SIZES, settings, form, 64, DEVICE, torch.float32, **how), available
    )


def least(settings: RefineSettings, form: str) -> int:
    savings = MemorySavings(texts=True, views=True)
    parts = refinement_parts(
        PlannedRefinement(SMALL_SIZES, settings, form, 64, DEVICE, torch.float32), savings
    )
    return sum(parts.values())


def test_path_estimate_matches_real_tensors(small_teachers: None) -> None:
    expected = lora_memory("mvdream", SMALL_SIZES, torch.float32, 64, 4)
    counted = operations("mvdream", SMALL_SIZES, torch.float32, 64, 4)
    networks = UNet2DConditionModel(**mvdream.UNET), AutoencoderKL(**mvdream.VAE)
    networks[1].set_attn_processor(AttnProcessor2_0())
    for network in networks:
        network.eval().requires_grad_(False)
    teacher = MVDream(*networks, embed)
    critic = LoraCritic(teacher, 4)
    for p in critic.parameters:
        p.grad = torch.zeros_like(p)
    rgb = torch.rand(1, 4, 64, 64, 3)
    shown = Renderings(rgb, rgb[..., 0])
    with torch.no_grad():
        z, condition = teacher.encode(shown, SCENES, torch.Generator()), teacher.condition(shown, SCENES)
    with MemoryCounter() as live:
        critic.accumulate(z, condition, torch.Generator())
    with FlopCounterMode(display=False) as predicting, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        teacher.predict(z, torch.tensor([3]), condition, False)
    with FlopCounterMode(display=False) as encoding, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        teacher.encode(shown, SCENES, torch.Generator())
    assert expected.weights == size_of(*critic.layers, learning=True)
    assert expected.training == pytest.approx(live.peak, rel=0.15)
    assert counted.prediction == pytest.approx(predicting.get_total_flops(), rel=0.02)
    assert counted.encoding / 2 == pytest.approx(encoding.get_total_flops(), rel=0.1)
    assert 2 < counted.training / counted.prediction < 3


def test_teacher_without_unet_has_no_lora(small_teachers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    lora_memory.cache_clear()
    operations.cache_clear()
    monkeypatch.delattr(MultiView, "twin")
    assert lora_memory("mvdream", SMALL_SIZES, torch.float32, 64, 4) == LoraMemory()
    counted = operations("mvdream", SMALL_SIZES, torch.float32, 64, 4)
    assert counted.prediction > counted.training == 0
    lora_memory.cache_clear()
    operations.cache_clear()


def test_critic_is_trained_beside_the_activations_of_the_encoder(small_teachers: None) -> None:
    own = replace(ISM, kind="vsd")
    settings = replace(ALL, path="none", teachers={"mvdream": own})
    encoder = memory.teacher("mvdream", SMALL_SIZES, torch.float32, 64, False, refining=True)
    training = lora_memory("mvdream", SMALL_SIZES, torch.float32, 64, 4).training
    assert 0 < encoder.held < encoder.working
    refinement = PlannedRefinement(
        SMALL_SIZES, settings, "texture", 64, DEVICE, torch.float32, generates=False
    )
    parts = refinement_parts(refinement, MemorySavings())
    assert parts["a step of the asset"] >= encoder.held + training > encoder.working


def test_text_encoders_of_teachers_are_float32_except_on_cuda(small_teachers: None) -> None:
    def texts(device: str) -> int:
        refinement = PlannedRefinement(
            SMALL_SIZES, ALL, "texture", 64, torch.device(device), torch.float16,
            loaded=True, generates=False,
        )  # fmt: skip
        return refinement_parts(refinement, MemorySavings())["text encoders of teachers"]

    assert texts("mps") == 2 * texts("cuda") > 0


def test_cuda_context_is_counted_once(small_teachers: None) -> None:
    assert device_overhead(torch.device("cuda"), 1000) == {"CUDA context and fragmentation": CONTEXT + 100}
    refinement = PlannedRefinement(
        SMALL_SIZES, ALL, "texture", 64, torch.device("cuda"), torch.float16, loaded=True, generates=False
    )
    parts = refinement_parts(refinement, MemorySavings())
    assert 0 < parts["fragmentation"] < CONTEXT
    assert "CUDA context and fragmentation" not in parts


@pytest.mark.parametrize("name", ["gaussians", "texture"])
def test_step_takes_no_more_than_planned(name: str) -> None:
    size, spec = 128, REPRESENTATIONS[name]
    asset = spec.from_field(mushroom(), size, torch.Generator().manual_seed(0), Request("", texture_size=512))
    if isinstance(asset, GaussianAsset):  # as many as density control may add
        count = GaussianOptions.for_size(256).density.max_count
        assert count is not None
        parameters = dict(asset.gaussians.named_parameters())
        times = count // 4 // len(asset.gaussians)
        asset.gaussians = Gaussians(
            **{key: p.detach().repeat(times, *[1] * (p.ndim - 1)) for key, p in parameters.items()}
        )
        assert len(asset.gaussians) == 2 * size**2
    held = sum(p.nbytes for group in asset.parameters() for p in group["params"])
    optimizer = torch.optim.AdamW(asset.parameters())
    with MemoryCounter() as live:
        for _ in range(2):  # the moments exist in the second step
            output = asset.render(toy.scene(torch.Generator().manual_seed(0)), torch.Generator())
            loss = sum(shown.rgb.sum() for shown in output.renderings.values())
            loss.backward()  # type: ignore[union-attr]
            optimizer.step()
            optimizer.zero_grad()
            del output, loss
    assert spec.step_bytes is not None
    assert 0.5 * spec.step_bytes * size**2 < live.peak + held < spec.step_bytes * size**2


def test_planes_texels_and_pictures_are_counted(small_teachers: None) -> None:
    def parts(form: str, **how: Any) -> dict[str, int]:
        refinement = PlannedRefinement(
            SMALL_SIZES, replace(ALL, teachers={}), form, 64, DEVICE, torch.float32,
            loaded=True, generates=False, **how,
        )  # fmt: skip
        return refinement_parts(refinement, MemorySavings())

    step = "a step of the asset"
    assert parts("field")["asset with optimizer"] == 4 * 4 * 6 * 16 * 64 * 64  # 4 copies in float32
    assert parts("texture", texels=1000)["asset with optimizer"] == 24_000
    assert texel_count(None, Request("", texture_size=512)) == 512**2
    for form in ("gaussians", "texture"):
        assert parts(form, image=True)[step] == parts(form)[step] * 5 // 4
    assert parts("field")[step] < parts("field", image=True)[step] < 2 * parts("field")[step]


def test_plan_uses_savings_only_if_it_has_to(small_teachers: None) -> None:
    free = planned(64 * GB)
    assert free.savings == MemorySavings()
    assert free.sentence.startswith("The refinement takes ")
    assert free.table().splitlines()[-1] == free.sentence
    assert free.parts["LoRA with optimizer"] > 0
    saved = planned(free.total - 1)
    assert saved.savings != MemorySavings()
    assert saved.total < free.total


def test_loaded_model_and_given_mesh_are_not_counted(small_teachers: None) -> None:
    whole = planned(64 * GB)
    loaded = planned(64 * GB, loaded=True)
    assert whole.total - loaded.total == whole.parts["model"] + whole.parts["text encoder"]
    nothing = replace(ALL, teachers={})
    generated, given = (planned(64 * GB, nothing, "texture", generates=how) for how in (True, False))
    assert "generating the draft" in generated.parts
    assert "generating the draft" not in given.parts
    assert given.total < generated.total


@pytest.mark.parametrize(
    ("settings", "form", "change"),
    [
        (ALL, "field", Change("gaussians")),
        (ALL, "gaussians", Change(path="none")),
        (ALL, "field", Change("gaussians", "none")),
        (NOT_ADJACENT, "gaussians", Change(teachers=("mvdream", "richdreamer"))),
        (ALL, "field", Change("gaussians", "none", ("mvdream", "richdreamer"))),
    ],
)
def test_refusal_names_the_least_change_that_fits(
    small_teachers: None, settings: RefineSettings, form: str, change: Change
) -> None:
    teachers = {name: settings.teachers[name] for name in change.teachers or settings.teachers}
    lighter = replace(settings, teachers=teachers, path=change.path or settings.path)
    need, enough = least(settings, form), least(lighter, change.representation or form)
    assert enough < need
    with pytest.raises(DoesNotFitError) as raised:
        planned(enough, settings, form)
    assert raised.value.change == change
    sentence = f"needs {need / GB:.1f} GB, and the device has {enough / GB:.1f} GB free"
    assert raised.value.shortage.endswith(sentence)
    name, value = next((name, value) for name, value in asdict(change).items() if value)
    assert f"{sentence}: it would fit with {name}={value!r}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_refusal_without_anything_that_fits_names_a_device(small_teachers: None) -> None:
    with pytest.raises(DoesNotFitError, match=r"use a device with \d+\.\d GB, or the small model") as raised:
        planned(1000)
    assert raised.value.change is None


@pytest.mark.parametrize("time", [20, 50, 51, 250, 251, 979])
def test_inversions_are_those_of_the_score(time: int) -> None:
    settings = replace(OPEN_SETTINGS, steps=1, low=time, high=(time + 1.0, time + 1.0), interval=(50.0, 50.0))
    calls = 0

    class Counting:
        alphas = toy.make_scheduler().alphas_cumprod

        def predict(self, noisy: Tensor, times: Tensor, condition: Any, guided: bool) -> Any:
            nonlocal calls
            calls += not guided
            return torch.zeros_like(noisy), torch.zeros_like(noisy) if guided else None

        def unconditional(self, condition: Any) -> Any:
            return condition

    z = torch.zeros(1, 1, 3, 4, 4)
    draws = Draws(torch.tensor([time]), z, torch.tensor([time]))
    direction(Counting(), z, None, ScoreSettings("ism", guidance=7.5, interval=50), draws)  # type: ignore[arg-type]
    assert mean_inversions(settings, "sd") == calls


def test_operations_of_a_score_follow_its_kind() -> None:
    cost = Operations(encoding=0, prediction=10, training=25)

    def of(kind: str, guidance: float) -> float:
        own = replace(ISM, kind=kind, guidance=(guidance, guidance))  # type: ignore[arg-type]
        return score_operations(cost, replace(OPEN_SETTINGS, teachers={"sd": own}), "sd")

    still = replace(ISM, kind="asd", shift=0.0, guidance=(1.0, 1.0))
    assert score_operations(cost, replace(OPEN_SETTINGS, teachers={"sd": still}), "sd") == 10
    assert [of("sds", 1), of("sds", 7), of("csd", 1), of("asd", 7), of("vsd", 7)] == [10, 20, 20, 30, 55]
    assert 20 + 20 < of("ism", 7.5) < 20 + 60


def test_duration_is_proportional_to_steps_and_speed(small_teachers: None) -> None:
    def seconds(settings: RefineSettings, speed: float) -> float:
        estimate = estimate_refinement(SMALL_SIZES, settings, "texture", 64, torch.float32, speed)
        assert estimate.seconds is not None
        return estimate.seconds

    plain = replace(ONE, path="none")
    whole = seconds(ONE, 1e9)
    assert seconds(ONE, 2e9) == pytest.approx(whole / 2)
    assert seconds(plain, 1e9) == pytest.approx(seconds(replace(plain, steps=250), 1e9) * 2, rel=0.02)
    assert whole > seconds(plain, 1e9)
    assert measured_speed(torch.device("cpu"), torch.float32) > 1e8
