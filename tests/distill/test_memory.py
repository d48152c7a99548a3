"""The counts of memory match those of real tensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0

from tests.helpers.offloadable import SCENES, embed
from tests.helpers.small_memory import SMALL_SIZES, shrink_teachers
from triplaneturbo.distill import memory
from triplaneturbo.distill.memory import MemoryCounter
from triplaneturbo.distill.student import load_student
from triplaneturbo.models import attention
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.render.scenes import Renderings
from triplaneturbo.teachers import mvdream
from triplaneturbo.teachers.loader import MetaTeacher, TeacherLoader
from triplaneturbo.teachers.mvdream import LOADER, MVDream
from triplaneturbo.teachers.registry import TEACHERS, TeacherSpec

CPU = torch.device("cpu")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_live_tensors_are_counted(device: str) -> None:
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
def test_student_estimate_matches_real_tensors(checkpointing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_EAGER_LIMIT", 0)  # a CPU alone keeps the scores of small attentions
    student = load_student(SMALL, None, CPU, checkpointing=checkpointing)
    generator = student.generator
    generator.vae.set_attn_processor(AttnProcessor2_0())
    expected = memory.student(SMALL_SIZES, SMALL_SIZES.config, "peta", torch.float32, checkpointing)
    for p in generator.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    latents = generator.draw_latents(1, torch.Generator())
    words = student.embed(["a red mushroom"])
    with MemoryCounter() as live:
        student.merged_lora.merge()
        merged = live.now
        planes = generator.decode(generator.predict(latents, 749, words))
        held = live.now - merged
        live.reset()
        planes.backward(torch.ones_like(planes))
        peak = live.peak - 2 * merged
    assert 2 * merged == expected.merged
    assert held == pytest.approx(expected.held, rel=0.1)
    assert max(held, peak) == pytest.approx(expected.backward, rel=0.15)
    student.merged_lora.unmerge()
    assert expected.learning == sum(4 * p.numel() for p in generator.parameters() if p.requires_grad)


def test_checkpointing_reduces_memory() -> None:
    kept = [
        memory.student(SMALL_SIZES, SMALL_SIZES.config, "peta", torch.float32, on) for on in (False, True)
    ]
    assert kept[1].held < 0.3 * kept[0].held
    assert kept[1].backward < 0.5 * kept[0].backward


@pytest.fixture
def small_teachers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from shrink_teachers(monkeypatch)


@pytest.mark.parametrize("view_by_view", [False, True])
def test_teacher_estimate_matches_real_tensors(small_teachers: None, view_by_view: bool) -> None:
    expected = memory.teacher("mvdream", SMALL_SIZES, torch.float32, 64, view_by_view)
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


def test_view_by_view_encoding_reduces_memory(small_teachers: None) -> None:
    whole, views = (
        memory.teacher("mvdream", SMALL_SIZES, torch.float32, 64, on).working for on in (False, True)
    )
    assert views < 0.5 * whole


def test_dummy_teacher_is_counted_by_its_probe(small_teachers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of MVDream in all but its text encoder, which is its own, and its weights, which are shared."""

    original = LOADER.probe
    assert original is not None

    def probe(unet: dict[str, Any], vae: dict[str, Any], dtype: torch.dtype) -> MetaTeacher:
        assert (unet["in_channels"], dtype) == (4, torch.float32)
        teacher = original(unet, vae, dtype).teacher
        return MetaTeacher(teacher, shared=True, text=torch.nn.Linear(3, 4))

    monkeypatch.setattr(memory, "DUMMY", TeacherLoader(LOADER.load, probe=probe), raising=False)
    spec = TeacherSpec("dummy", "Dummy", "Dummy", "triplaneturbo.distill.memory:DUMMY")
    monkeypatch.setitem(TEACHERS, "dummy", spec)
    dummy, own, unknown = (
        memory.teacher(name, SMALL_SIZES, torch.float32, 64, False) for name in ("dummy", "mvdream", "rgb")
    )
    assert (dummy.weights, dummy.text, dummy.working) == (0, 4 * (12 + 4), own.working)
    assert own.weights > 0
    assert unknown == memory.TeacherMemory()
