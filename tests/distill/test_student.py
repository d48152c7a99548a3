"""Preparation of students: trained parameters are float32, and memory savings preserve gradients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.helpers.students import stirred
from tests.helpers.tiny import tiny_model
from triplaneturbo.distill.prd import Student
from triplaneturbo.distill.settings import Tuning
from triplaneturbo.distill.student import load_student
from triplaneturbo.errors import UserError
from triplaneturbo.models.adapter import ADAPTER_NAME, adapter_tensors, save_adapter
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.config import OPEN, GeneratorConfig
from triplaneturbo.models.text_embedding_cache import TextEmbeddingCache

CPU = torch.device("cpu")


def gradients(student: Student, count: int = 2) -> tuple[Tensor, dict[str, Tensor]]:
    """Return planes of two prompts and the gradients of a fixed loss."""
    generator = student.generator
    draw = torch.Generator().manual_seed(1)
    latents = generator.draw_latents(count, draw)
    words = student.embed(["a flat red box", "a tall blue stick"][:count])
    student.merged_lora.merge()
    planes = generator.decode(generator.predict(latents, 749, words))
    weights = torch.randn(planes.shape, generator=draw)
    (planes * weights).sum().backward()
    student.merged_lora.unmerge()
    return planes.detach(), {n: p.grad for n, p in generator.named_parameters() if p.grad is not None}


def apart(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Return the largest relative error between gradients of the same parameter."""
    assert actual.keys() == expected.keys()
    return max(float((actual[name] - value).norm() / value.norm()) for name, value in expected.items())


def test_checkpointing_does_not_change_gradients() -> None:
    planes, expected = gradients(stirred())
    other, actual = gradients(stirred(checkpointing=True))
    torch.testing.assert_close(other, planes, rtol=0, atol=1e-5)
    assert apart(actual, expected) < 1e-4
    assert any("lora_A" in name for name in actual)
    assert any("embedding" in name for name in actual)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("frozen", "near"), [(torch.float16, 0.02), (torch.bfloat16, 0.15)])
def test_half_precision_base_has_close_gradients(
    frozen: torch.dtype, near: float, checkpointing: bool
) -> None:
    _, expected = gradients(stirred())
    student = stirred(frozen, checkpointing)
    _, actual = gradients(student)
    assert apart(actual, expected) < near
    for name, parameter in student.generator.named_parameters():
        if parameter.requires_grad:
            assert parameter.dtype == torch.float32, name
    assert {value.dtype for value in actual.values()} == {torch.float32}
    assert student.generator.dtype == frozen


def test_small_adapter_changes_survive_half_precision() -> None:
    """Merging into half-precision weights would lose the change."""
    students = [stirred(torch.bfloat16) for _ in range(2)]
    with torch.no_grad():
        for name, parameter in students[1].generator.named_parameters():
            if "lora_B" in name:
                parameter += 1e-4
    planes = [gradients(student)[0] for student in students]
    assert not torch.equal(*planes)
    assert (planes[1] - planes[0]).norm() < 0.05 * planes[0].norm()


def test_trained_parameters_are_not_rounded() -> None:
    exact, rounded = stirred().generator, stirred(torch.float16).generator
    others = dict(rounded.named_parameters())
    for name, parameter in exact.named_parameters():
        if parameter.requires_grad:
            assert torch.equal(others[name], parameter), name


@pytest.mark.parametrize("frozen", [torch.float32, torch.bfloat16])
def test_built_in_model_starts_from_its_own_adapter(frozen: torch.dtype) -> None:
    student = load_student(SMALL, None, CPU, frozen=frozen, checkpointing=True)
    expected = {name: value.float() for name, value in load_file(SMALL / ADAPTER_NAME).items()}
    actual = adapter_tensors(student.generator)
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name].float(), value) for name, value in expected.items())
    _, learned = gradients(student, 1)
    assert all(value.isfinite().all() for value in learned.values())
    learning = {name for name, p in student.generator.named_parameters() if p.requires_grad}
    assert not any(".offset." in name for name in learning)
    assert {name for name in learning if ".fields." not in name} == learned.keys()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny", OPEN)


@pytest.mark.parametrize("tuning", ["peta", "lora", "full"])
def test_every_tuning_has_gradients(model: Path, tuning: Tuning) -> None:
    student = load_student(model, None, CPU, tuning=tuning, frozen=torch.bfloat16, checkpointing=True)
    generator = student.generator
    _, learned = gradients(student, 1)
    learning = {name: p for name, p in generator.named_parameters() if p.requires_grad}
    assert {p.dtype for p in learning.values()} == {torch.float32}
    pairs = [name for name in learned if "lora_" in name]
    if tuning == "full":
        assert not pairs
        assert any("attn1.to_q.base_layer" in name for name in learned)
        assert next(generator.vae.encoder.parameters()).dtype == torch.bfloat16
    else:
        assert all("lora_" in name or name.startswith("heads.") for name in learned)
        six = learning["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.default.weight"]
        assert six.ndim == (3 if tuning == "peta" else 2)


def test_other_ranks_start_a_new_adapter(model: Path) -> None:
    config = replace(GeneratorConfig.load(model), plane_rank=8, cross_rank=8, vae_rank=8, conv_rank=8)
    student = load_student(model, None, CPU, config=config)
    for layer in student.generator.adapter_layers():
        assert set(layer.r.values()) == {8}
    assert gradients(student, 1)[1]
    offset = student.generator.heads["default"].fields.offset
    assert float(offset[-1].weight.abs().max()) == 0


def test_offsets_are_trained_if_enabled(model: Path) -> None:
    for trained in (False, True):
        generator = load_student(model, None, CPU, train_offsets=trained).generator
        assert {p.requires_grad for p in generator.heads["default"].fields.offset.parameters()} == {trained}


def test_new_adapter_with_the_models_rank() -> None:
    own = load_file(SMALL / ADAPTER_NAME)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = adapter_tensors(load_student(SMALL, None, CPU, new=True).generator)
    assert drawn.keys() == own.keys()
    up = [name for name in own if "lora_B" in name]
    assert up
    assert not any(drawn[name].any() for name in up)
    assert all(own[name].any() for name in up)


def test_training_starts_from_another_adapter(tmp_path: Path) -> None:
    generator = load_student(SMALL, None, CPU).generator
    with torch.no_grad():
        generator.heads["default"].planes_out.bias.add_(1)
    save_adapter(generator, tmp_path / "other.safetensors")
    student = load_student(SMALL, None, CPU, adapter=tmp_path / "other.safetensors")
    assert torch.equal(
        student.generator.heads["default"].planes_out.bias, generator.heads["default"].planes_out.bias
    )


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"adapter": Path("nowhere.safetensors")}, "File not found: nowhere"),
        (
            {"adapter": Path("nowhere.safetensors"), "tuning": "full"},
            "Full tuning cannot start from an adapter",
        ),
    ],
)
def test_invalid_starting_points_are_refused(how: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_student(SMALL, None, CPU, **how)


def test_shared_adapter_is_refused_for_peta_tuning(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", OPEN)
    replace(GeneratorConfig.load(model), plane_lora=False).save(model)
    with pytest.raises(UserError, match="use lora tuning"):
        load_student(model, None, CPU)
    assert load_student(model, None, CPU, tuning="lora").generator.adapter_layers()


def test_text_embeddings_are_cached() -> None:
    asked: list[list[str]] = []

    def embed(texts: list[str]) -> Tensor:
        asked.append(texts)
        return torch.stack([torch.full((3, 2), float(len(text))) for text in texts])

    remembered = TextEmbeddingCache(embed, CPU, max_size=2)
    assert remembered(["a", "bb", "a"])[:, 0, 0].tolist() == [1, 2, 1]
    assert remembered(["bb"]).shape == (1, 3, 2)
    assert asked == [["a"], ["bb"]]
    assert remembered(["a", "bb", "ccc", "dddd"])[:, 0, 0].tolist() == [1, 2, 3, 4]
    remembered(["a"])
    assert asked == [["a"], ["bb"], ["ccc"], ["dddd"], ["a"]]
