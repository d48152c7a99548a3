"""Prompts to meshes with the built-in model on CUDA, several together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
import torch

from tests.helpers.fake_cuda import CUDA, FakeCuda, Synchronization, fake_cuda
from tests.helpers.shapes import textured
from triplaneturbo import pipeline as pipeline_module
from triplaneturbo.mesh.extraction.sparse_extraction import Surface, extract
from triplaneturbo.models import weights
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.weights import Model
from triplaneturbo.pipeline import Pipeline, Result
from triplaneturbo.representations.triplane import TriplaneField
from triplaneturbo.request import Request

# The places at which generation waits for the GPU, none of them in a denoising step or in the decoder.
ALLOWED = {
    Synchronization("upload", "models/text_encoder.py:embed"),  # token numbers
    Synchronization("upload", "models/triplane_generator.py:draw_latents"),  # noise, drawn on the CPU
    Synchronization("upload", "models/schedule.py:denoise_steps"),  # all timesteps, once
    Synchronization("upload", "representations/triplane.py:__init__"),
    # The number of cells, vertices and faces of the surface.
    Synchronization("mask", "mesh/extraction/sparse_extraction.py:_unique_nodes"),
    Synchronization("nonzero", "mesh/extraction/sparse_extraction.py:_unique_nodes"),
    Synchronization("item", "mesh/extraction/sparse_extraction.py:extract"),  # whether all is finite
    Synchronization("item", "mesh/extraction/marching_cubes.py:extract_topology"),
    Synchronization("nonzero", "mesh/extraction/marching_cubes.py:extract_topology"),
    Synchronization("repeat_interleave", "mesh/extraction/marching_cubes.py:extract_topology"),
    Synchronization("upload", "mesh/extraction/marching_cubes.py:extract_topology"),
    Synchronization("upload", "mesh/extraction/marching_cubes_tables.py:packed"),
    Synchronization("download", "mesh/extraction/sparse_extraction.py:mesh"),  # the mesh, once
    # The unwrapped mesh, the number of texels of its charts, and the images.
    Synchronization("upload", "mesh/texture.py:bake"),
    Synchronization("upload", "mesh/texture.py:_bake_normals"),
    Synchronization("upload", "mesh/texture.py:<genexpr>"),
    Synchronization("upload", "mesh/texture.py:sdf_gradient"),
    Synchronization("item", "mesh/uv/texel_ownership.py:texel_owners"),
    Synchronization("nonzero", "mesh/uv/texel_ownership.py:texel_owners"),
    Synchronization("item", "mesh/uv/atlas.py:rasterize_atlas"),
    Synchronization("nonzero", "mesh/uv/atlas.py:rasterize_atlas"),
    Synchronization("download", "mesh/texture.py:_fill_image"),
}


class _InThisThread:
    """Takes the place of the threads of a batch, in which there would be no fake CUDA."""

    def __init__(self, _workers: int) -> None:
        pass

    def __enter__(self) -> _InThisThread:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future:
        future: Future = Future()
        future.set_result(function(*arguments))
        return future


@pytest.fixture(scope="module")
def cuda() -> Iterator[FakeCuda]:
    """Fake CUDA, and the parts of the pipeline that need data or a driver."""
    config = GeneratorConfig.load(SMALL)
    # Before: files are read with meta tensors.
    generator, text = weights.load_generator(SMALL, config), weights.load_text(SMALL)
    with ExitStack() as stack:
        mode = stack.enter_context(fake_cuda())
        shape = textured()
        vertices, faces = shape.vertices.to(CUDA), shape.faces.to(CUDA)

        def surface(field: TriplaneField, resolution: int) -> Surface:
            """Extract a surface of made-up size; return one that the CPU can process."""
            return replace(extract(field, resolution), vertices=vertices, faces=faces)

        for owner, name, value in (
            (weights, "load_generator", lambda *_, **__: generator),
            (weights, "load_text", lambda *_, **__: text),
            (pipeline_module, "extract", surface),
            (pipeline_module, "ThreadPoolExecutor", _InThisThread),
            (torch.cuda, "synchronize", lambda _device: None),
        ):
            stack.enter_context(patch.object(owner, name, value))
        yield mode


@pytest.fixture(scope="module")
def model(cuda: FakeCuda) -> Model:
    return weights.load_model(SMALL, device=CUDA, dtype=torch.float16)


def _check(result: object) -> None:
    assert isinstance(result, Result)
    mesh = result.mesh
    assert mesh.texture is not None
    assert mesh.normal_map is not None
    assert all(part.device.type == "cpu" for part in (mesh.vertices, mesh.faces, mesh.uv) if part is not None)


def test_a_model_is_loaded_to_cuda(model: Model) -> None:
    for part in (model.generator, model.text.model):
        assert all(value.device == CUDA for value in (*part.parameters(), *part.buffers()))
    assert model.generator.dtype == next(model.text.model.parameters()).dtype == torch.float16


def test_prompts_are_generated_together(model: Model) -> None:
    pipeline = Pipeline(model)
    assert pipeline.together
    requests = [
        Request("a red mushroom", texture_size=512),
        Request("a blue chair", seed=2, texture_size=512),
    ]
    outcomes = [event for event in pipeline.stream_all(requests) if isinstance(event, Result)]
    assert len(outcomes) == 2
    for outcome in outcomes:
        _check(outcome)


def test_one_prompt_with_low_memory_and_sketches(model: Model) -> None:
    events = list(Pipeline(model).stream(Request("a cup"), low_memory=True, sketches="all"))
    _check(events[-1])


def test_generation_waits_for_the_gpu_only_where_it_must(cuda: FakeCuda, model: Model) -> None:
    cuda.synchronizations.clear()
    *_, result = Pipeline(model).stream(Request("a cup", texture_size=512))
    _check(result)
    found = set(cuda.synchronizations)
    assert sorted(found - ALLOWED) == []
    assert sorted(ALLOWED - found) == []
