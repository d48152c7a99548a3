"""The memory plan: savings are minimal, and a refusal says what would fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from tests.helpers import toy
from tests.helpers.full_size import UNET, VAE
from tests.helpers.small_memory import SMALL_SIZES, shrink_teachers
from triplaneturbo.distill import memory
from triplaneturbo.distill.lora_memory import lora_memory
from triplaneturbo.distill.memory import ModelSizes
from triplaneturbo.distill.memory_plan import LADDER, MemorySavings, Plan
from triplaneturbo.distill.optimizer import OptimizerName, make_optimizer
from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.distill.settings import Settings
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.memory_plan import _optimizer_state, memory_parts, plan
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.teachers.settings import TeacherSettings
from triplaneturbo.utils.units import GB

# A device with memory of its own that needs no CUDA context.
DEVICE = torch.device("mps")
FULL = ModelSizes.of(
    UNET, VAE,
    {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16},
    GeneratorConfig(),
)  # fmt: skip


@pytest.mark.parametrize("name", ["adamw", "adan", "soap"])
def test_optimizer_state_bytes_match_the_optimizer(name: OptimizerName) -> None:
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


@pytest.fixture
def small_teachers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from shrink_teachers(monkeypatch)


def planned(available: int, settings: Settings | None = None) -> Plan:
    settings = settings or replace(full_recipe(), batch=1, size=64)
    return plan(SMALL_SIZES, settings, available, DEVICE, torch.float32)


def test_plan_uses_only_the_savings_it_needs(small_teachers: None) -> None:
    free = planned(64 * GB)
    assert free.savings == MemorySavings()
    assert "without savings" in free.sentence
    assert free.total == sum(free.parts.values())
    available, seen = free.total, [free.savings]
    while True:
        try:
            actual = planned(available - 1)
        except UserError as error:
            refusal = str(error)
            break
        assert actual.total < available
        for name in (name for name, on in vars(actual.savings).items() if on):
            with_it = actual.total
            without = replace(actual.savings, **{name: False})
            assert sum(_parts_of(without).values()) > available - 1 >= with_it
        assert len(actual.savings.descriptions) == sum(vars(actual.savings).values())
        seen.append(actual.savings)
        available = actual.total
    assert seen[-1].offload_teachers
    assert not seen[1].offload_teachers
    assert "it would fit without mvdream" in refusal


def _parts_of(savings: MemorySavings) -> dict[str, int]:
    settings = replace(full_recipe(), batch=1, size=64)
    return memory_parts(SMALL_SIZES, settings, savings, DEVICE, torch.float32)


def test_plan_that_does_not_fit_is_refused(small_teachers: None) -> None:
    heavy = replace(full_recipe(), batch=8, size=64)
    least = planned(64 * GB, replace(heavy, batch=1)).total
    with pytest.raises(UserError, match="it would fit with a batch of 1") as error:
        planned(least, heavy)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"use a device with \d"):
        planned(1000)
    one = replace(heavy, batch=1)
    least = sum(_parts_of(LADDER[-1]).values())
    with pytest.raises(UserError, match="it would fit with adapters instead of full tuning"):
        planned(least, replace(one, tuning="full"))
    with pytest.raises(UserError, match="it would fit with a batch of 1 and adapters"):
        planned(least, replace(heavy, tuning="full"))


def test_critics_exclude_teacher_offloading(small_teachers: None) -> None:
    settings = replace(full_recipe(), batch=1, size=64, teachers={"mvdream": TeacherSettings(kind="vsd")})
    with pytest.raises(UserError, match="This run needs"):
        planned(planned(64 * GB, settings).total // 4, settings)
    assert LADDER[-1].offload_teachers


def test_critics_are_counted(small_teachers: None) -> None:
    settings = replace(full_recipe(), batch=2, size=64, teachers={"mvdream": TeacherSettings()})
    varied = replace(settings, teachers={"mvdream": TeacherSettings(kind="vsd")}, critic_rank=8)
    parts = [planned(64 * GB, one).parts for one in (settings, varied)]
    critic = lora_memory("mvdream", SMALL_SIZES, torch.float32, 64 // settings.surface_stride, 8)
    assert parts[1]["critics with optimizer"] == 4 * critic.weights > 0 == parts[0]["critics with optimizer"]
    held = memory.teacher("mvdream", SMALL_SIZES, torch.float32, 64 // settings.surface_stride, False).held
    assert parts[1]["teacher activations"] >= 2 * (held + critic.training) > parts[0]["teacher activations"]


def test_table_lists_every_part(small_teachers: None) -> None:
    actual = planned(64 * GB)
    lines = actual.table().splitlines()
    assert len(lines) == sum(size > 0 for size in actual.parts.values()) + 3
    label, _, count = lines[0].rpartition(" ")
    assert label.strip() == "trainable parameters"
    assert 4 * int(count.replace(",", "")) == actual.parts["adapters and heads"]
    assert lines[-1] == actual.sentence
    for name in ("U-Net, frozen", "mvdream: weights", "optimizer state", "total"):
        assert any(line.startswith(name) for line in lines)


def test_full_model_fits_24_gb_and_16_gb_with_savings() -> None:
    """One prompt, four views of 512^2, K = 4, all three teachers, beside a model loaded for generation."""
    settings = replace(full_recipe(), batch=1)
    loaded = memory.student(FULL, FULL.config, settings.tuning, torch.float16, False)
    loaded_bytes = loaded.unet + loaded.vae + loaded.text
    assert (settings.size, settings.steps, len(settings.teachers)) == (512, 4, 3)
    large, small = (
        plan(FULL, settings, size * GB - loaded_bytes, torch.device("cuda"), torch.float16)
        for size in (24, 16)
    )
    assert large.savings == MemorySavings()
    assert small.savings == MemorySavings(checkpointing=True)
    assert "gradient checkpointing" in small.sentence
    # Known parameter counts, at two and four bytes each.
    assert large.parts["U-Net, frozen"] == pytest.approx(2 * 865_910_724, rel=1e-3)
    assert large.parts["adapters and heads"] == pytest.approx(4 * 22_684_160, rel=1e-3)
    assert large.parts["richdreamer: weights"] == 2 * 861_182_404
