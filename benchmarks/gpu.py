"""Everything that is asked of a GPU, in one run of some minutes: python -m benchmarks.gpu [--repeats 20]

Prints four tables: the generator by precision, beside a plain one; a prompt to the bytes of a GLB, by stage,
with the memory that it takes; float16 against float32 on the built-in model; the rasterisers. Sizes are those
of Stable Diffusion 2.1-base with random weights, which make no shape: from the planes on, a field of the same
sizes that was fitted to a chair takes their place. Medians of `--repeats` calls.

`--tiny --device cpu` is the tests' dry run: the same code on small sizes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.generator import Sizes, plain_twin, random_generator, relative
from benchmarks.surface import chair, fit
from tests.helpers.distance import cells_apart
from tests.helpers.plain_generator import PlainGenerator
from tests.helpers.small_mesh import planes_and_mesh
from triplaneturbo.__main__ import run_reporting_errors
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.io import encode
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import tidy
from triplaneturbo.mesh.processing.simplify import simplify
from triplaneturbo.mesh.texture import bake
from triplaneturbo.mesh.uv.unwrap import unwrap
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.text_encoder import TextEncoder
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.models.weights import Model, load_model
from triplaneturbo.pipeline import Pipeline, Result
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.rasterizer import Raster, rasterize, rasterizer
from triplaneturbo.representations.triplane import TriplaneField
from triplaneturbo.request import Request
from triplaneturbo.utils.devices import (
    be_deterministic,
    choose_device,
    choose_precision,
    device_name,
    wait_for,
)

PROMPT = "a red mushroom"


@dataclass(frozen=True)
class Subject:
    """What is measured: the generator's sizes, its text encoder's, and what is asked of it."""

    sizes: Sizes = field(default_factory=Sizes)
    text: dict[str, int] = field(
        default_factory=lambda: {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 23,
            "num_attention_heads": 16,
        }
    )
    request: Request = field(
        default_factory=lambda: Request(PROMPT, resolution=160, faces=40_000, texture_size=1024)
    )
    fit_steps: int = 300
    picture: int = 512


TINY = Subject(
    sizes=Sizes(
        unet={
            "sample_size": 8,
            "block_out_channels": (32, 64),
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "layers_per_block": 1,
            "attention_head_dim": 2,
            "cross_attention_dim": 32,
            "use_linear_projection": True,
        },
        vae={
            "block_out_channels": (32, 32),
            "down_block_types": ("DownEncoderBlock2D",) * 2,
            "up_block_types": ("UpDecoderBlock2D",) * 2,
            "layers_per_block": 1,
        },
        config=GeneratorConfig(latent_size=8),
    ),
    text={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2},
    request=Request(PROMPT, resolution=32, faces=1000, texture_size=512),
    fit_steps=40,
    picture=64,
)


def timed(call: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Seconds: the median of `repeats` calls, each waited for, after two that do not count."""
    seconds = []
    for number in range(repeats + 2):
        wait_for(device)
        start = time.perf_counter()
        call()
        wait_for(device)
        if number >= 2:
            seconds.append(time.perf_counter() - start)
    return median(seconds)


def as_graph(call: Callable[[], Any]) -> tuple[Callable[[], None], float]:
    """A CUDA graph of what `call` asks of the GPU, and the seconds that it took to capture."""
    start = time.perf_counter()
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        call()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    torch.cuda.synchronize()
    return graph.replay, time.perf_counter() - start


@torch.inference_mode()
def by_precision(subject: Subject, device: torch.device, repeats: int) -> tuple[float, float]:
    """The first table; returns the seconds of the plain generator's step and decoding."""
    config = subject.sizes.config
    side = config.latent_size
    generator = random_generator(subject.sizes)
    noise = generator.draw_latents(1, torch.Generator().manual_seed(0)).to(device)
    words = torch.randn(1, 77, subject.text["hidden_size"], device=device)
    rows: list[tuple[str, float, float, str]] = []

    plain = plain_twin(generator, subject.sizes).to(device)
    plain.state = {name: value.to(device) for name, value in plain.state.items()}
    slow = _both(plain, noise, words, min(repeats, 5))
    rows.append(("plain, float32", *slow, ""))
    del plain

    generator.to(device).merge()
    full: Tensor | None = None
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        if generator.dtype == torch.float16:  # what was rounded does not come back
            generator = random_generator(subject.sizes).to(device)
            generator.merge()
        generator.cast(dtype)
        name = f"ours, {str(dtype)[6:]}"
        seconds = _both(generator, noise, words, repeats)
        *_, clean = generator.denoise(noise, words)
        planes = generator.decode(clean)
        full = planes if full is None else full
        rows.append((name, *seconds, f"planes {100 * relative(planes, full):.2f} %"))
        if device.type == "cuda" and dtype == torch.float16:
            rows.append(_graphed(generator, noise, words, repeats))
    print(f"\n{'six latents of ' + str(side) + '^2':28}{'step ms':>9}{'decode ms':>11}{'4 + 1 ms':>10}")
    for name, step, decode, word in rows:
        print(f"{name:28}{1e3 * step:9.2f}{1e3 * decode:11.2f}{1e3 * (4 * step + decode):10.2f}  {word}")
    return slow


def _both(
    generator: TriplaneGenerator | PlainGenerator, noise: Tensor, words: Tensor, repeats: int
) -> tuple[float, float]:
    """Seconds of a step and of a decoding."""
    step = timed(partial(generator.predict, noise, 999, words), repeats, noise.device)
    return step, timed(partial(generator.decode, noise), repeats, noise.device)


def _graphed(
    generator: TriplaneGenerator, noise: Tensor, words: Tensor, repeats: int
) -> tuple[str, float, float, str]:
    """The row of a step and a decoding as CUDA graphs."""
    # Made in the graph it would be copied from the host.
    time_of_step = torch.tensor(999, device=noise.device)
    step, took = as_graph(lambda: generator.predict(noise, time_of_step, words))
    decode, more = as_graph(lambda: generator.decode(noise))
    seconds = timed(step, repeats, noise.device), timed(decode, repeats, noise.device)
    return "the same as CUDA graphs", *seconds, f"captured in {took + more:.1f} s"


def prompt_to_glb(
    subject: Subject, device: torch.device, repeats: int, plain: tuple[float, float]
) -> TriplaneField:
    """The second table; returns the field."""
    shape = fit(chair, subject.fit_steps, 0)
    shape = TriplaneField(shape.planes.to(device), shape.fields.to(device))
    dtype = choose_precision("auto", device, small=False).dtype
    generator = random_generator(subject.sizes)
    generator.merge()
    generator.to(device).cast(dtype)
    tokenizer = CLIPTokenizer.from_pretrained(SMALL / "tokenizer")
    marks = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPTextConfig(vocab_size=len(tokenizer), **marks, **subject.text)
    text = CLIPTextModel(config).to(device, dtype)
    model = Model(generator, TextEncoder(tokenizer, text), subject.sizes.config, SMALL, False)

    def glb(pipeline: Pipeline) -> dict[str, float]:
        *_, result = pipeline.stream(subject.request)
        assert isinstance(result, Result)
        start = time.perf_counter()
        encode(result.mesh, "glb", "mesh")
        return {**result.seconds, "glb": time.perf_counter() - start}

    def glbs(pipeline: Pipeline, count: int) -> None:
        requests = [replace(subject.request, seed=seed) for seed in range(count)]
        for event in pipeline.stream_all(requests):
            if isinstance(event, Result):
                encode(event.mesh, "glb", "mesh")

    print(f"\n{PROMPT!r} to a GLB in {str(dtype)[6:]}: {subject.request.resolution}^3 grid, at most", end=" ")
    print(f"{subject.request.faces} faces, {subject.request.texture_size}^2 texture")
    with patch.object(generator, "field", lambda planes: TriplaneField(shape.planes, shape.fields)):
        pipeline = Pipeline(model)
        runs = [glb(pipeline) for _ in range(repeats + 2)][2:]
        for stage in runs[0]:
            if stage != "total":
                print(f"  {stage:12}{1e3 * median(run[stage] for run in runs):9.1f} ms")
        total = median(run["total"] + run["glb"] for run in runs)
        print(f"  {'in all':12}{1e3 * total:9.1f} ms")
        for word, together in (("one after the other", False), ("in one batch", True)):
            several = Pipeline(model, together=together)
            four = timed(partial(glbs, several, 4), max(1, repeats // 4), device)
            print(f"  {'four seeds':12}{1e3 * four:9.1f} ms, {word}: {four / total:.2f} times one")
        if device.type == "cuda":
            for low in (False, True):
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
                glb(Pipeline(model, low_memory=low))
                peak = torch.cuda.max_memory_allocated(device) / 2**30
                print(f"  peak memory{', --low-vram' if low else ''}: {peak:.2f} GB")
    steps = subject.sizes.config.steps * plain[0] + plain[1] + _plain_mesh(subject, shape, device)
    print(f"  a plain pipeline's own steps: {1e3 * steps:.0f} ms, {steps / total:.1f} times as long")
    return shape


def _plain_mesh(subject: Subject, shape: TriplaneField, device: torch.device) -> float:
    """Seconds from planes to a textured mesh with the dense grid and xatlas."""
    request = subject.request
    assert request.resolution is not None
    assert request.faces is not None
    start = time.perf_counter()
    fresh = TriplaneField(shape.planes, shape.fields)
    surface = extract(fresh, request.resolution, "dense")
    mesh, _ = simplify(tidy(Mesh(surface.vertices.cpu(), surface.faces.cpu())), request.faces)
    bake(unwrap(mesh, "xatlas", request.texture_size), fresh, request.texture_size, normal_map=False)
    wait_for(device)
    return time.perf_counter() - start


def half_against_full(device: torch.device) -> None:
    """The third table."""
    print("\nthe built-in model, float16 against float32")
    models = [load_model(SMALL, device=device, dtype=dtype) for dtype in (torch.float32, torch.float16)]
    for prompt in (PROMPT, "a blue chair"):
        (exact, mesh), (rough, other) = (planes_and_mesh(model, prompt) for model in models)
        cells = cells_apart(mesh, other, models[0].config.grid_resolution)
        print(f"  {prompt:20}planes {100 * relative(rough, exact):.2f} %, meshes {cells:.2f} cells apart")


def rasterisers(subject: Subject, shape: TriplaneField, device: torch.device, repeats: int) -> None:
    """The last table: the device's rasteriser beside the CPU's."""
    assert subject.request.resolution is not None
    surface = extract(shape, subject.request.resolution)
    size = subject.picture
    print(f"\nfour views of {len(surface.faces)} faces, {size}^2")
    drawn: list[Raster] = []
    for place in (torch.device("cpu"), device):
        vertices, faces = surface.vertices.to(place), surface.faces.to(place)
        cameras = orbit([0.0, 90.0, 180.0, 270.0], 20, 2).to(place)
        seconds = timed(partial(rasterize, vertices, faces, cameras, size, size), repeats, place)
        print(f"  {rasterizer(place) + ', ' + place.type:20}{1e3 * seconds:9.1f} ms")
        drawn.append(rasterize(vertices, faces, cameras, size, size))
    same = drawn[0].triangle == drawn[1].triangle.cpu()
    apart = (drawn[0].bary - drawn[1].bary.cpu()).abs()[same].max().item()
    print(
        f"  the same triangle at {100 * same.float().mean():.3f} % of pixels, barycentrics {apart:.1e} apart"
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure what is asked of a GPU.")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--tiny", action="store_true", help="small sizes, to see that it runs")
    arguments = parser.parse_args()
    device = choose_device(arguments.device).device
    if device.type == "cuda":
        torch.cuda.set_device(device)
        be_deterministic()
        torch.backends.cudnn.allow_tf32 = False  # float32 is what the others are held against
    subject = TINY if arguments.tiny else Subject()
    print(f"torch {torch.__version__}, {device_name(device)}")
    plain = by_precision(subject, device, arguments.repeats)
    shape = prompt_to_glb(subject, device, arguments.repeats, plain)
    half_against_full(device)
    rasterisers(subject, shape, device, arguments.repeats)
    return 0


if __name__ == "__main__":
    sys.exit(run_reporting_errors(main, "Stopped."))
