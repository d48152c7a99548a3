"""The released model generates on CUDA: devices and precisions of every stage from a prompt to a texture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import pytest
import torch

from tests.helpers.fake_cuda import CUDA, FakeCuda
from tests.helpers.fake_models import full_generator, full_text
from tests.helpers.shapes import textured
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.texture import bake, paint
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.representations.triplane import TriplaneField

PROMPTS = ["a red mushroom", "a blue chair"]
HALF = [torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def generator(cuda: FakeCuda) -> TriplaneGenerator:
    return full_generator()


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def _embeddings(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(len(PROMPTS), 77, 1024, device=CUDA, dtype=dtype)


@pytest.mark.parametrize("dtype", HALF)
def test_the_text_encoder(cuda: FakeCuda, dtype: torch.dtype) -> None:
    embeddings = full_text(dtype).embed(PROMPTS)
    assert (embeddings.device, embeddings.dtype, embeddings.shape) == (CUDA, dtype, (2, 77, 1024))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("merged", [False, True], ids=["live", "merged"])
def test_the_generator_with_live_and_merged_adapters(
    generator: TriplaneGenerator, dtype: torch.dtype, merged: bool
) -> None:
    """All four steps with merged adapters, as in generation; one with live ones."""
    generator.float()
    if merged:
        generator.merge()
    generator.cast(dtype)
    try:
        noise = generator.draw_latents(len(PROMPTS), torch.Generator().manual_seed(0))
        steps = generator.config.steps if merged else 1
        estimates = list(generator.denoise(noise, _embeddings(dtype), steps))
        assert len(estimates) == steps
        for estimate in estimates:
            assert (estimate.device, estimate.dtype) == (CUDA, torch.float32)
            assert estimate.shape == (len(PROMPTS), 6, 4, 32, 32)
        for latents, one_by_one in ((estimates[-1], False), (estimates[-1][:1], True)):
            planes = generator.decode(latents, one_by_one)
            assert (planes.device, planes.dtype) == (CUDA, torch.float32)
            assert planes.shape == (len(latents), 6, 32, 256, 256)
    finally:
        generator.unmerge()


@pytest.fixture
def field(generator: TriplaneGenerator) -> TriplaneField:
    return generator.field(torch.randn(6, 32, 256, 256, device=CUDA))


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_queries_of_the_field(generator: TriplaneGenerator, dtype: torch.dtype) -> None:
    field = generator.field(torch.randn(6, 32, 256, 256, device=CUDA, dtype=dtype))
    points = torch.rand(50_000, 3, device=CUDA)
    nodes = torch.arange(1000, device=CUDA)
    for values, shape in (
        (field.sdf(points), (50_000,)),
        (field.offset(points), (50_000, 3)),
        (field.rgb(points), (50_000, 3)),
        (field.sdf_at(nodes, 160), (1000,)),
        (field.offset_at(nodes, 160), (1000, 3)),
    ):
        assert (values.device, values.dtype, values.shape) == (CUDA, torch.float32, shape)


@pytest.mark.parametrize(("mode", "resolution"), [("dense", 48), ("sparse", 160), ("auto", 160)])
def test_the_surface(field: TriplaneField, mode: Literal["dense", "sparse", "auto"], resolution: int) -> None:
    surface = extract(field, resolution, mode)
    assert (surface.vertices.device, surface.vertices.dtype) == (CUDA, torch.float32)
    assert (surface.faces.device, surface.faces.dtype) == (CUDA, torch.int64)


def test_the_texture_of_a_mesh_on_the_cpu(field: TriplaneField) -> None:
    """The texels are found and coloured on the GPU; images and vertices are on the CPU."""
    mesh = bake(textured(), field, 1024)
    assert mesh.texture is not None
    assert mesh.normal_map is not None
    assert (mesh.texture.shape, mesh.normal_map.shape) == ((1024, 1024, 3), (512, 512, 3))
    assert mesh.vertices.device.type == "cpu"
    painted = paint(textured(), field)
    assert painted.colors is not None
    assert painted.colors.device.type == "cpu"
