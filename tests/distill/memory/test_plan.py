"""The memory plan: counts match real tensors, and savings are minimal."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0

from tests.helpers import toy
from tests.helpers.full_size import UNET, VAE
from tests.helpers.offloadable import BLOCKS, SCENES, embed
from triplaneturbo.distill.memory import estimate
from triplaneturbo.distill.memory.counting import MemoryCounter
from triplaneturbo.distill.memory.estimate import ModelSizes
from triplaneturbo.distill.memory.plan import LADDER, MemorySavings, Plan, _optimizer_state, _parts, plan
from triplaneturbo.distill.optimizer import OptimizerName, make_optimizer
from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.distill.settings import Settings, TeacherSettings
from triplaneturbo.distill.student import load_student
from triplaneturbo.errors import UserError
from triplaneturbo.models import attention
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.teachers import mvdream, richdreamer
from triplaneturbo.teachers.base import Renderings
from triplaneturbo.teachers.mvdream import MVDream
from triplaneturbo.utils.units import GB

CPU = torch.device("cpu")
SMALL_FACTS = ModelSizes.read(SMALL)
FULL = ModelSizes.of(
    UNET, VAE,
    {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16},
    GeneratorConfig(),
)  # fmt: skip


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_is_alive_is_counted(device: str) -> None:
    before = torch.ones(1000, device=device)
    with MemoryCounter() as live:
        kept = before * 2  # 4000 bytes
        assert (live.now, live.peak) == (4000, 4000)
        view = kept.view(10, 100)
        view += 1
        before.add_(1)
        assert live.now == 4000
        (kept + 1).sum()
        assert (live.now, live.peak) == (4000, 8004)
        live.reset()
        assert live.peak == 4000
        del kept, view
        assert live.now == 0


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_student_s_count_on_meta_is_that_of_real_tensors(
    checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_EAGER_LIMIT", 0)  # a CPU alone keeps the scores of small attentions
    student = load_student(SMALL, None, CPU, checkpointing=checkpointing)
    generator = student.generator
    generator.vae.set_attn_processor(AttnProcessor2_0())
    expected = estimate.student(SMALL_FACTS, SMALL_FACTS.config, "peta", torch.float32, checkpointing)
    for p in generator.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    latents = generator.draw_latents(1, torch.Generator())
    words = student.embed(["a red mushroom"])
    with MemoryCounter() as live:
        student.folded.fold()
        folded = live.now
        planes = generator.decode(generator.predict(latents, 749, words))
        held = live.now - folded
        live.reset()
        planes.backward(torch.ones_like(planes))
        peak = live.peak - 2 * folded
    assert 2 * folded == expected.folded
    assert held == pytest.approx(expected.held, rel=0.1)
    assert max(held, peak) == pytest.approx(expected.backward, rel=0.15)
    student.folded.unfold()
    assert expected.learning == sum(4 * p.numel() for p in generator.parameters() if p.requires_grad)


def test_checkpointing_keeps_far_less() -> None:
    kept = [
        estimate.student(SMALL_FACTS, SMALL_FACTS.config, "peta", torch.float32, on) for on in (False, True)
    ]
    assert kept[1].held < 0.3 * kept[0].held
    assert kept[1].backward < 0.5 * kept[0].backward


@pytest.fixture
def small_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {**BLOCKS, "layers_per_block": 1, "attention_head_dim": 2, "cross_attention_dim": 8,
             "class_embed_type": "projection", "projection_class_embeddings_input_dim": 16}  # fmt: skip
    monkeypatch.setattr(mvdream, "UNET", sizes)
    monkeypatch.setattr(richdreamer, "UNET", sizes)
    monkeypatch.setattr(
        mvdream, "VAE",
        {"block_out_channels": (32,) * 4, "down_block_types": ("DownEncoderBlock2D",) * 4,
         "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 1},
    )  # fmt: skip
    estimate.teacher.cache_clear()
    yield
    estimate.teacher.cache_clear()


@pytest.mark.parametrize("view_by_view", [False, True])
def test_a_teacher_s_count_on_meta_is_that_of_real_tensors(small_teachers: None, view_by_view: bool) -> None:
    expected = estimate.teacher("mvdream", SMALL_FACTS, torch.float32, 64, 64, view_by_view)
    networks = UNet2DConditionModel(**mvdream.UNET), AutoencoderKL(**mvdream.VAE)
    networks[1].set_attn_processor(AttnProcessor2_0())
    for network in networks:
        network.eval().requires_grad_(False)
    teacher = MVDream(*networks, embed)
    teacher.view_by_view = view_by_view
    rgb = torch.rand(1, 4, 64, 64, 3, requires_grad=True)
    with MemoryCounter() as live:
        z = teacher.encode(Renderings(rgb, rgb[..., 0]), SCENES, torch.Generator())
        with torch.no_grad():
            condition = teacher.condition(Renderings(rgb, rgb[..., 0]), SCENES)
            teacher.predict(z.detach(), torch.tensor([300]), condition, True)
        z.backward(torch.ones_like(z))
    assert expected.weights == sum(4 * p.numel() for network in networks for p in network.parameters())
    assert live.peak == pytest.approx(expected.working, rel=0.15)


def test_a_view_at_a_time_needs_less(small_teachers: None) -> None:
    whole, views = (
        estimate.teacher("mvdream", SMALL_FACTS, torch.float32, 64, 64, on).working for on in (False, True)
    )
    assert views < 0.5 * whole


@pytest.mark.parametrize("name", ["adamw", "adan", "soap"])
def test_the_optimiser_s_state_is_what_it_keeps(name: OptimizerName) -> None:
    parameters = [p for p in toy.student().generator.parameters() if p.requires_grad]
    optimizer = make_optimizer(name, parameters, 1e-3)
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.step()
    kept = torch.utils._pytree.tree_leaves([optimizer.state[p] for p in parameters])
    real = sum(t.numel() * t.element_size() for t in kept if isinstance(t, torch.Tensor))
    shapes = tuple(tuple(p.shape) for p in parameters)
    assert _optimizer_state(Settings(optimizer=name), shapes) == pytest.approx(real, rel=0.05)


def planned(memory: int, settings: Settings | None = None, **how) -> Plan:
    settings = settings or replace(full_recipe(), batch=1, size=64)
    return plan(SMALL_FACTS, settings, memory, frozen=torch.float32, cuda=False, picture=64, **how)


def test_no_more_is_saved_than_is_needed(small_teachers: None) -> None:
    free = planned(64 * GB)
    assert free.savings == MemorySavings()
    assert "without savings" in free.sentence
    assert free.total == sum(free.parts.values())
    memory, seen = free.total, [free.savings]
    while True:
        try:
            actual = planned(memory - 1)
        except UserError as error:
            refusal = str(error)
            break
        assert actual.total < memory
        for name in (name for name, on in vars(actual.savings).items() if on):
            with_it = actual.total
            without = replace(actual.savings, **{name: False})
            assert sum(_parts_of(without).values()) > memory - 1 >= with_it
        assert len(actual.savings.descriptions) == sum(vars(actual.savings).values())
        seen.append(actual.savings)
        memory = actual.total
    assert seen[-1].offload_teachers
    assert not seen[1].offload_teachers
    assert refusal.count(".") >= 1
    assert "it would fit without a model loaded for generation" in refusal


def _parts_of(savings: MemorySavings, serving: bool = True) -> dict[str, int]:
    return _parts(
        SMALL_FACTS, replace(full_recipe(), batch=1, size=64), savings=savings, frozen=torch.float32,
        cuda=False, serving=serving, picture=64,
    )  # fmt: skip


@pytest.mark.slow
def test_what_cannot_fit_is_refused_with_what_would(small_teachers: None) -> None:
    heavy = replace(full_recipe(), batch=8, size=64)
    least = planned(64 * GB, replace(heavy, batch=1), serving=False).total
    with pytest.raises(UserError, match="it would fit with a batch of 1") as error:
        planned(least, heavy, serving=False)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"use a device with \d"):
        planned(1000)
    one = replace(heavy, batch=1)
    least = sum(_parts_of(LADDER[-1], serving=False).values())
    with pytest.raises(UserError, match="it would fit with adapters instead of full tuning"):
        planned(least, replace(one, tuning="full"), serving=False)


def test_a_critic_keeps_its_teacher_on_the_device(small_teachers: None) -> None:
    settings = replace(full_recipe(), batch=1, size=64, teachers={"mvdream": TeacherSettings(kind="vsd")})
    with pytest.raises(UserError, match="This run needs"):
        planned(planned(64 * GB, settings).total // 4, settings)
    assert LADDER[-1].offload_teachers


def test_the_table_names_each_part(small_teachers: None) -> None:
    actual = planned(64 * GB)
    lines = actual.table().splitlines()
    assert len(lines) == sum(size > 0 for size in actual.parts.values()) + 2
    assert lines[-1] == actual.sentence
    for name in ("U-Net, frozen", "mvdream: weights", "optimizer state", "total"):
        assert any(line.startswith(name) for line in lines)


@pytest.mark.slow
def test_the_full_size_fits_24_gb_and_with_a_stated_loss_16() -> None:
    """One prompt, four views of 512^2, K = 4, all three teachers, with a model loaded for generation."""
    settings = replace(full_recipe(), batch=1)
    assert (settings.size, settings.steps, len(settings.teachers)) == (512, 4, 3)
    large, small = (plan(FULL, settings, size * GB) for size in (24, 16))
    assert large.total < 24 * GB
    assert small.total < 16 * GB
    assert large.savings == MemorySavings()
    assert small.savings == MemorySavings(checkpointing=True)
    assert "gradient checkpointing" in small.sentence
    # Known parameter counts, at two and four bytes each.
    assert large.parts["U-Net, frozen"] == pytest.approx(2 * 865_910_724, rel=1e-3)
    assert large.parts["adapters and heads"] == pytest.approx(4 * 22_684_160, rel=1e-3)
    assert large.parts["richdreamer: weights"] == 2 * 861_182_404
