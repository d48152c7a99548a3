"""GPU benchmarks, in one run of some minutes: python -m benchmarks.gpu [--repeats 20] [--results FILE]

Prints a self-test and four tables: the generator by precision, compared with a reference implementation;
prompt to GLB by stage, with peak memory; float16 compared with float32 on the built-in model; rasterizers.
The sizes are those of Stable Diffusion 2.1-base. Its weights are random and generate no shape, so after
decoding a field of the same sizes that was fitted to a chair is used. Times are medians of `--repeats` calls.

Each figure is printed, and with `--results` saved as a line of JSON, as soon as it is measured; a table that
fails does not stop the others. `benchmarks.gpu_session` runs this and `benchmarks.prd` within a time limit.

`--tiny --device cpu` runs the same code on small sizes, as a dry run (`make bench-dry`).
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

from benchmarks.generator import TINY as TINY_SIZES
from benchmarks.generator import Sizes, plain_twin, random_generator, relative
from benchmarks.results import Results, add_result_options, say
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
from triplaneturbo.models.text_encoder import TextEncoder
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.models.weights import Model, load_model
from triplaneturbo.pipeline import Pipeline, Result
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.rasterizer import rasterize, rasterizer
from triplaneturbo.render.rasterizers import nvdiffrast_cuda
from triplaneturbo.render.rasterizers.base import Fragments
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
    """Model sizes, text encoder sizes and request of a benchmark."""

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
    sizes=TINY_SIZES,
    text={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2},
    request=Request(PROMPT, resolution=32, faces=1000, texture_size=512),
    fit_steps=40,
    picture=64,
)


def timed(call: Callable[[], Any], repeats: int, device: torch.device) -> float:
    """Return the median time of `repeats` synchronized calls in seconds, after two warm-up calls."""
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
    """Capture `call` as a CUDA graph; returns its replay function and the capture time in seconds."""
    start = time.perf_counter()
    side_stream = torch.cuda.Stream()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        call()
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    torch.cuda.synchronize()
    return graph.replay, time.perf_counter() - start


def self_test(device: torch.device, results: Results) -> None:
    """Print what runs where, and generate a small mesh with the built-in model."""
    dtype = choose_precision("auto", device, small=False).dtype
    say(f"\nself-test: precision of the full model {str(dtype)[6:]}, rasterizer {rasterizer(device)}, "
        f"nvdiffrast {'installed' if nvdiffrast_cuda.supports(device) else 'not in use'}")  # fmt: skip
    start = time.perf_counter()
    pipeline = Pipeline(load_model(SMALL, device=device))
    *_, result = pipeline.stream(Request(PROMPT, resolution=32, faces=1000, texture_size=512))
    assert isinstance(result, Result)
    size, seconds = len(encode(result.mesh, "glb", "mesh")), time.perf_counter() - start
    faces = len(result.mesh.faces)
    say(f"  {PROMPT!r}, built-in model: {faces} faces, {size} B, {seconds:.1f} s with loading")
    where = {"device": device_name(device), "torch": torch.__version__, "rasterizer": rasterizer(device)}
    results.add("mesh", faces=faces, bytes=size, seconds=seconds, dtype=str(dtype), **where)


@torch.inference_mode()
def by_precision(
    subject: Subject, device: torch.device, repeats: int, results: Results
) -> tuple[float, float]:
    """Print the first table; returns the seconds of a step and of decoding of the reference generator."""
    config = subject.sizes.config
    side = config.latent_size
    generator = random_generator(subject.sizes, device)
    noise = generator.draw_latents(1, torch.Generator().manual_seed(0)).to(device)
    words = torch.randn(1, 77, subject.text["hidden_size"], device=device)
    say(f"\n{'six latents of ' + str(side) + '^2':28}{'step ms':>9}{'decode ms':>11}{'4 + 1 ms':>10}")

    def show(name: str, step: float, decode: float, remark: str = "") -> None:
        say(f"{name:28}{1e3 * step:9.2f}{1e3 * decode:11.2f}{1e3 * (4 * step + decode):10.2f}  {remark}")
        results.add(name.strip(), step=step, decode=decode, remark=remark)

    plain = plain_twin(generator, subject.sizes).to(device)
    plain.state = {name: value.to(device) for name, value in plain.state.items()}
    reference_seconds = _time_step_and_decode(plain, noise, words, min(repeats, 5))
    show("reference, float32", *reference_seconds)
    del plain

    generator.merge()
    full: Tensor | None = None
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        if generator.dtype == torch.float16:  # rounded weights cannot be restored
            generator = random_generator(subject.sizes, device)
            generator.merge()
        generator.cast(dtype)
        name = f"ours, {str(dtype)[6:]}"
        seconds = _time_step_and_decode(generator, noise, words, repeats)
        *_, clean = generator.denoise(noise, words)
        planes = generator.decode(clean)
        full = planes if full is None else full
        show(name, *seconds, f"planes {100 * relative(planes, full):.2f} %")
        if device.type == "cuda" and dtype == torch.float16:
            show(*_graphed(generator, noise, words, repeats))
    return reference_seconds


def _time_step_and_decode(
    generator: TriplaneGenerator | PlainGenerator, noise: Tensor, words: Tensor, repeats: int
) -> tuple[float, float]:
    """Return the seconds of one denoising step and of decoding."""
    step = timed(partial(generator.predict, noise, 999, words), repeats, noise.device)
    return step, timed(partial(generator.decode, noise), repeats, noise.device)


def _graphed(
    generator: TriplaneGenerator, noise: Tensor, words: Tensor, repeats: int
) -> tuple[str, float, float, str]:
    """Return the table row of a step and of decoding as CUDA graphs."""
    # Created outside the graph: inside, it would be a copy from the host.
    timestep = torch.tensor(999, device=noise.device)
    step, step_capture = as_graph(lambda: generator.predict(noise, timestep, words))
    decode, decode_capture = as_graph(lambda: generator.decode(noise))
    seconds = timed(step, repeats, noise.device), timed(decode, repeats, noise.device)
    return "  with CUDA graphs", *seconds, f"captured in {step_capture + decode_capture:.1f} s"


def fitted_field(subject: Subject, device: torch.device) -> TriplaneField:
    """Return a field of the full size that was fitted to a chair."""
    shape = fit(chair, subject.fit_steps, 0)
    return TriplaneField(shape.planes.to(device), shape.fields.to(device))


def prompt_to_glb(
    subject: Subject, shape: TriplaneField, device: torch.device, repeats: int,
    plain: tuple[float, float] | None, results: Results,
) -> None:  # fmt: skip
    """Print the second table.

    Args:
        plain: seconds of a step and of decoding of the reference generator; None if they are unknown.
    """
    dtype = choose_precision("auto", device, small=False).dtype
    generator = random_generator(subject.sizes, device)
    generator.merge()
    generator.cast(dtype)
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

    def show(name: str, seconds: float, remark: str = "") -> None:
        say(f"  {name:12}{1e3 * seconds:9.1f} ms{remark}")
        results.add(name, seconds=seconds, remark=remark)

    say(
        f"\n{PROMPT!r} to a GLB in {str(dtype)[6:]}: {subject.request.resolution}^3 grid, at most "
        f"{subject.request.faces} faces, {subject.request.texture_size}^2 texture"
    )
    with patch.object(generator, "field", lambda planes: TriplaneField(shape.planes, shape.fields)):
        pipeline = Pipeline(model)
        runs = [glb(pipeline) for _ in range(repeats + 2)][2:]
        for stage in runs[0]:
            if stage != "total":
                show(stage, median(run[stage] for run in runs))
        total = median(run["total"] + run["glb"] for run in runs)
        show("total", total)
        if device.type == "cuda":
            for low in (False, True):
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
                glb(Pipeline(model, low_memory=low))
                peak = torch.cuda.max_memory_allocated(device) / 2**30
                name = f"peak memory{', --low-vram' if low else ''}"
                say(f"  {name}: {peak:.2f} GB")
                results.add(name, gigabytes=peak)
        for mode, together in (("sequential", False), ("batched", True)):
            batch_pipeline = Pipeline(model, together=together)
            four = timed(partial(glbs, batch_pipeline, 4), max(1, repeats // 4), device)
            show("four seeds", four, f", {mode}: {four / total:.2f} x one seed")
    if plain is not None:
        reference = subject.sizes.config.steps * plain[0] + plain[1]
        reference += _time_reference_mesh(subject, shape, device)
        show("reference", reference, f", {reference / total:.1f} x as long")


def _time_reference_mesh(subject: Subject, shape: TriplaneField, device: torch.device) -> float:
    """Return the seconds from planes to a textured mesh with the dense grid and xatlas."""
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


def compare_precisions(device: torch.device, results: Results) -> None:
    """Print the third table."""
    say("\nbuilt-in model, float16 compared with float32")
    models = [load_model(SMALL, device=device, dtype=dtype) for dtype in (torch.float32, torch.float16)]
    for prompt in (PROMPT, "a blue chair"):
        (exact, mesh), (rough, other) = (planes_and_mesh(model, prompt) for model in models)
        cells = cells_apart(mesh, other, models[0].config.grid_resolution)
        say(f"  {prompt:20}planes {100 * relative(rough, exact):.2f} %, meshes {cells:.2f} cells apart")
        results.add(prompt, planes=relative(rough, exact), cells=cells)


def benchmark_rasterizers(
    subject: Subject, shape: TriplaneField, device: torch.device, repeats: int, results: Results
) -> None:
    """Print the last table: the device's rasterizer compared with the CPU's."""
    assert subject.request.resolution is not None
    surface = extract(shape, subject.request.resolution)
    size = subject.picture
    say(f"\nfour views of {len(surface.faces)} faces, {size}^2")
    drawn: list[Fragments] = []
    for place in (torch.device("cpu"), device):
        vertices, faces = surface.vertices.to(place), surface.faces.to(place)
        cameras = orbit([0.0, 90.0, 180.0, 270.0], 20, 2).to(place)
        seconds = timed(partial(rasterize, vertices, faces, cameras, size, size), repeats, place)
        name = f"{rasterizer(place)}, {place.type}"
        say(f"  {name:20}{1e3 * seconds:9.1f} ms")
        results.add(name, seconds=seconds)
        drawn.append(rasterize(vertices, faces, cameras, size, size))
    same = drawn[0].triangle == drawn[1].triangle.cpu()
    difference = (drawn[0].bary - drawn[1].bary.cpu()).abs()[same].max().item()
    share = same.float().mean().item()
    say(
        f"  same triangle in {100 * share:.3f} % of pixels, "
        f"barycentric coordinates differ by at most {difference:.1e}"
    )
    results.add("agreement", same=share, difference=difference)


def main() -> int:
    """Run the benchmarks and print the tables."""
    parser = argparse.ArgumentParser(description="Run the GPU benchmarks.")
    parser.add_argument("--device", default="cuda", help="torch device")
    parser.add_argument("--repeats", type=int, default=20, help="timed calls per measurement")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a dry run")
    add_result_options(parser)
    arguments = parser.parse_args()
    device = choose_device(arguments.device).device
    if device.type == "cuda":
        torch.cuda.set_device(device)
        be_deterministic()
        torch.backends.cudnn.allow_tf32 = False  # float32 is the reference of the comparisons
    subject, repeats = TINY if arguments.tiny else Subject(), arguments.repeats
    results = Results(arguments.results, arguments.seconds)
    say(f"torch {torch.__version__}, {device_name(device)}")
    results.section("self-test", lambda: self_test(device, results))
    plain = results.section("precisions", lambda: by_precision(subject, device, repeats, results))
    shape = results.section("field", lambda: fitted_field(subject, device))
    if shape is not None:
        results.section("prompt", lambda: prompt_to_glb(subject, shape, device, repeats, plain, results))
    results.section("float16", lambda: compare_precisions(device, results))
    if shape is not None:
        results.section(
            "rasterizers", lambda: benchmark_rasterizers(subject, shape, device, repeats, results)
        )
    return int(results.failed)


if __name__ == "__main__":
    sys.exit(run_reporting_errors(main, "Stopped."))
