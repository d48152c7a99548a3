"""Teachers that come in turn, and encode a view at a time, say what they always say."""

from __future__ import annotations

import weakref

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from tests.helpers.offloadable import BLOCKS, SCENES, embed
from triplaneturbo.distill.scores import ScoreSettings, score_gradients
from triplaneturbo.render.scenes import Renderings
from triplaneturbo.teachers.mvdream import MVDream
from triplaneturbo.teachers.offload import SequentialOffload, offload_sequentially, on_device
from triplaneturbo.teachers.richdreamer import RichDreamer

CPU = torch.device("cpu")


def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    network = UNet2DConditionModel(
        **BLOCKS, layers_per_block=1, attention_head_dim=2, cross_attention_dim=8,
        class_embed_type="projection", projection_class_embeddings_input_dim=16,
    )  # fmt: skip
    return network.eval().requires_grad_(False)


def mvdream() -> MVDream:
    torch.manual_seed(1)
    vae = AutoencoderKL(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    return MVDream(unet(), vae.eval().requires_grad_(False), embed, size=16)


def richdreamer() -> RichDreamer:
    return RichDreamer(unet(), embed, size=8)


def seen() -> Renderings:
    draw = torch.Generator().manual_seed(0)
    return Renderings(
        rgb=torch.rand(1, 4, 16, 16, 3, generator=draw),
        opacity=torch.rand(1, 4, 16, 16, generator=draw),
        normal=torch.randn(1, 4, 16, 16, 3, generator=draw),
        depth=1 + torch.rand(1, 4, 16, 16, generator=draw),
    )


def opinion(teacher) -> tuple[dict[str, Tensor], float]:
    draw = torch.Generator().manual_seed(3)
    with on_device(teacher):
        actual = score_gradients(teacher, seen(), SCENES, ScoreSettings(guidance=5.0), draw)
    return actual.by_field, actual.error


@pytest.mark.parametrize("make", [mvdream, richdreamer])
def test_offloaded_teachers_predict_the_same(make) -> None:
    expected, error = opinion(make())
    (teacher,) = offload_sequentially([make()], CPU)
    actual, also = opinion(teacher)
    assert also == error
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_offload_frees_device_copies_and_keeps_host_weights() -> None:
    teacher = SequentialOffload(mvdream(), CPU)
    network = teacher.teacher.networks[0]
    weight = network.conv_in.weight
    home = weight.data_ptr()
    with on_device(teacher):
        there = weight.data_ptr()
        assert there != home
        with teacher.on_device():  # once more: nothing moves
            assert weight.data_ptr() == there
        assert weight.data_ptr() == there
        gone = weakref.ref(weight.data.untyped_storage())
    assert weight.data_ptr() == home
    assert gone() is None
    with pytest.raises(ZeroDivisionError), teacher.on_device():
        raise ZeroDivisionError
    assert weight.data_ptr() == home


def test_single_calls_load_the_teacher() -> None:
    whole, teacher = mvdream(), SequentialOffload(mvdream(), CPU)
    answers = []
    for one in (whole, teacher):
        with torch.no_grad():
            z = one.encode(seen(), SCENES, torch.Generator().manual_seed(0))
            condition = one.condition(seen(), SCENES)
            answers.append(one.predict(z, torch.tensor([300]), condition, True))
    assert all(torch.equal(a, b) for a, b in zip(*answers, strict=True))
    assert (teacher.name, teacher.reads) == (whole.name, whole.reads)


def test_trainable_teacher_is_refused() -> None:
    teacher = mvdream()
    teacher.unet.requires_grad_(True)
    with pytest.raises(ValueError, match="trainable parameters"):
        SequentialOffload(teacher, CPU)


def test_view_by_view_encoding_matches_values_and_gradients() -> None:
    teachers = [mvdream(), mvdream()]
    teachers[1].view_by_view = True
    latents, gradients = [], []
    for teacher in teachers:
        rgb = seen().rgb.requires_grad_()
        z = teacher.encode(Renderings(rgb, rgb[..., 0]), SCENES, torch.Generator().manual_seed(0))
        (z * torch.linspace(-1, 1, z.numel()).view_as(z)).sum().backward()
        latents.append(z.detach())
        gradients.append(rgb.grad)
    torch.testing.assert_close(latents[1], latents[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)
    assert float(gradients[0].abs().max()) > 0
