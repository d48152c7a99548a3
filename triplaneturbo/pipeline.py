"""Text-to-mesh pipeline: from a prompt to a textured mesh in one pass.

    from triplaneturbo import Pipeline

    pipeline = Pipeline.from_pretrained("small")
    mesh = pipeline("a red mushroom", seed=1)
    mesh.save("mushroom.glb")

A pipeline has no state between calls: the same request on the same device and version gives the same mesh.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from triplaneturbo.domains.registry import find_domain
from triplaneturbo.domains.vocabulary import Reading
from triplaneturbo.errors import Cancelled, EmptySurfaceError, UserError
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.finish import finish
from triplaneturbo.mesh.io.generation_metadata import GenerationMetadata
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import Dropped, drop_floaters, tidy
from triplaneturbo.mesh.texture import paint
from triplaneturbo.mesh.uv.registry import find_unwrapper
from triplaneturbo.mesh.uv.unwrap import TEXTURE_SIZES
from triplaneturbo.models.backends.registry import find_backend
from triplaneturbo.models.catalog import ModelFiles, base_or_default, find_model
from triplaneturbo.models.convert import convert_if_needed
from triplaneturbo.models.look import Predict, denoise_keeping_shape, interleave
from triplaneturbo.models.schedule import denoise_steps
from triplaneturbo.models.triplane_generator import TriplaneGenerator as Denoiser
from triplaneturbo.models.weights import Model, load_model, save_model
from triplaneturbo.refine.options import OUT_OF_MEMORY, RefineOptions
from triplaneturbo.representations.triplane import TriplaneField
from triplaneturbo.request import Request
from triplaneturbo.utils.devices import (
    be_deterministic,
    choose_device,
    choose_precision,
    explained_out_of_memory,
    wait_for,
)
from triplaneturbo.utils.generators import exhaust

# Assumed share of the total time of each stage, for the progress bar.
STAGES = {
    "text": 0.02,
    "denoise": 0.50,
    "decode": 0.18,
    "surface": 0.10,
    "clean": 0.05,
    "unwrap": 0.05,
    "texture": 0.10,
}


@dataclass(frozen=True)
class Progress:
    """Progress event: a stage begins, or a denoising step has ended.

    Attributes:
        stage: one of STAGES; of a refinement also "prepare", "path" and "refine".
        fraction: fraction of the total work that is done, in [0, 1).
        seconds: time since the start of the request.
        step: number of finished denoising steps.
        steps: total number of denoising steps.
        estimate: estimate of the clean latents [6, 4, h, h] by the step that has just ended, else None.
        sketch: this estimate as a coarse mesh with vertex colours, if sketches were requested and it has a
            surface.
        glb: the sketch as a GLB file; set by the engine.
    """

    stage: str
    fraction: float
    seconds: float
    step: int
    steps: int
    estimate: Tensor | None = None
    sketch: Mesh | None = None
    glb: bytes | None = None


@dataclass(frozen=True)
class Result:
    """A generated mesh and information about its generation.

    Attributes:
        mesh: on the CPU, with a texture or, with `unwrap` "none", with vertex colours.
        request: the request with all defaults filled in.
        seconds: time of each stage, in order, and "total"; a stage that ran for a whole batch counts in full.
        surface_faces: number of faces of the extracted surface, before cleaning and simplification.
        dropped: the floaters that were removed.
        truncated_text: the end of the prompt, and of the look, that exceeds the model's context length; "" if
            there is none.
        cached: whether the result comes from a cache of earlier requests.
        reading: the interpretation of the prompt by the vocabulary of the model's domain, with the words that
            it does not know; None for a model with an open vocabulary.
        look_reading: the same of the look; None without one.
        low_memory: whether memory was low, so that the texture is smaller than requested.
        unsimplified: whether the mesh has more faces than requested, because the simplified mesh could not
            be made watertight.
    """

    mesh: Mesh
    request: Request
    seconds: dict[str, float] = field(hash=False)
    surface_faces: int
    dropped: Dropped
    truncated_text: str = ""
    cached: bool = False
    reading: Reading | None = None
    look_reading: Reading | None = None
    low_memory: bool = False
    unsimplified: bool = False


# The denoising steps whose estimate is shown as a coarse mesh; that of the last step is the final shape.
Sketches = Literal["none", "first", "last", "all"]
MOST_TOGETHER = 4  # maximum requests per batch: GPU memory grows with it
SKETCH_RESOLUTION = 48  # nodes along each side of a sketch's grid

# The outcome of one request of several: a failed request does not stop the others.
Outcome = Result | UserError


class Pipeline:
    """Text-to-mesh pipeline with one model.

    Args:
        model: the model.
        low_memory: decode the planes one by one, which is slightly slower and gives the same mesh.
        together: denoise several requests in one batch and create their meshes in parallel threads. None: on
            CUDA devices only, since a single request saturates a CPU.
        backend: name of the inference backend that runs the networks: a key of `backends.registry.BACKENDS`.
        name: the model's name in the metadata of meshes; "": that of its folder.

    Raises:
        UserError: the backend or the domain of the model is unknown.
    """

    def __init__(
        self,
        model: Model,
        low_memory: bool = False,
        together: bool | None = None,
        backend: str = "torch",
        name: str = "",
    ) -> None:
        self.model = model
        self.name = name or model.folder.resolve().name
        self.domain = find_domain(model.config.domain)
        self.backend = find_backend(backend)(model)
        self.low_memory = low_memory
        self.together = model.generator.device.type == "cuda" if together is None else together

    def __call__(self, prompt: str, **settings: Any) -> Mesh:
        """Generate one textured mesh.

        Args:
            prompt: description of the object.
            settings: other fields of `Request`.

        Raises:
            EmptySurfaceError: the field has no surface.
            UserError: the prompt or a setting is invalid.
        """
        *_, result = self.stream(Request(prompt, **settings))
        assert isinstance(result, Result)
        return result.mesh

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] = "auto",
        *,
        device: str | None = None,
        precision: str = "auto",
        base: str | os.PathLike[str] | None = None,
        low_memory: bool = False,
        backend: str = "torch",
    ) -> Pipeline:
        """Load a model by name and return its pipeline.

        Args:
            name: "small" (the built-in model), "full", "auto" (the full model on a CUDA device, otherwise
                the small one), a model's folder, or a hub id such as "someone/a-model".
            device: "cpu", "cuda", "cuda:1" or "mps"; None: the best one available.
            precision: "auto", "float32", "float16" or "bfloat16".
            base: folder of Stable Diffusion 2.1-base, for a model without its own; None: the one that
                TRIPLANETURBO_BASE names, or the hub's.
            low_memory, backend: see `Pipeline`.

        Warns:
            UserWarning: for "auto", the full model is unavailable and the small one is used.

        Raises:
            UserError: the model, device, precision or backend is unavailable, or memory is too short.
        """
        find_backend(backend)  # before the model is loaded
        name, base = os.fspath(name), None if base is None else os.fspath(base)
        place = choose_device(device).device
        if place.type == "cuda":
            be_deterministic()
        found = find_model(name, place.type == "cuda", base_or_default(base))
        try:
            model = _load(found, place, precision)
        except UserError as error:
            if name != "auto" or found.name == "small":
                raise
            found = replace(find_model("small", False), notice=f"{error} The small model is used.")
            model = _load(found, place, precision)
        if found.notice:
            warnings.warn(found.notice, stacklevel=2)
        return cls(model, low_memory, backend=backend, name=found.name)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write the model as a folder that `from_pretrained` reads, with its base; returns the folder.

        The files that the model was loaded from are copied as they are: see
        `triplaneturbo.models.weights.save_model`.

        Raises:
            UserError: a file of the model is gone, or the folder cannot be written.
        """
        return save_model(self.model, Path(folder).expanduser())

    def settle(self, request: Request) -> Request:
        """Validate a request and fill in the defaults of the model.

        With smoothing, the normal map is disabled: it would restore the detail that smoothing removes.

        Raises:
            UserError: a value is invalid, or the unwrap method is not installed.
        """
        config = self.model.config
        request = request.checked()
        if request.unwrap != "none":
            find_unwrapper(request.unwrap)
        return replace(
            request,
            steps=request.steps or config.steps,
            resolution=request.resolution or config.grid_resolution,
            normal_map=request.normal_map and not request.smoothing,
        )

    def read(self, prompt: str) -> Reading | None:
        """Return the vocabulary's interpretation of a prompt; None for an open-vocabulary model."""
        vocabulary = self.domain.vocabulary
        return None if vocabulary is None else vocabulary.read(prompt)

    def embed(self, prompt: str) -> Tensor:
        """Return the text embedding of a prompt [1, 77, D], in the words that its model was trained on."""
        vocabulary = self.domain.vocabulary
        return self.backend.embed([prompt if vocabulary is None else vocabulary.wording(prompt)])

    @torch.no_grad()
    def field(self, request: Request) -> TriplaneField:
        """Generate the field of a request, without extracting a mesh.

        Raises:
            UserError: a value of the request is invalid.
        """
        request = self.settle(request)
        *_, latents = self._denoise([request], _Texts.of([request], self.embed))
        return self._field(latents[0], False)

    def refine(
        self,
        prompt: str = "",
        *,
        seed: int = 0,
        mesh: str | os.PathLike[str] | None = None,
        image: str | os.PathLike[str] | None = None,
        image_to_mesh: str = "",
        progress: Callable[[int, int, dict[str, float]], None] | None = None,
        folder: str | os.PathLike[str] | None = None,
        options: RefineOptions = RefineOptions(),  # noqa: B008  frozen
        **settings: Any,
    ) -> Mesh:
        """Refine a generated asset, or a given mesh, by Path-Tracing Distillation (`distill/ptd.py`).

        Args:
            prompt: description of the object; "", with an image and a toy-world model: the nearest caption.
            seed: seed of the generation.
            mesh: file of a mesh that is refined instead of a generated one, as "field", "gaussians" or, to
                keep its shape and UVs, "texture"; see `options`.
            image: file of a picture that the asset is to look like, as an additional view.
            image_to_mesh: command that makes a mesh of the picture; see `refine.image_program.mesh_of`.
            progress: called after each iteration with the iterations done and in total, and the losses.
            folder: keeps checkpoints, from which the same call resumes; None: a temporary folder.
            options: representation, steps, teachers, path, score and seed of the refinement.
            settings: other fields of `Request`.

        Raises:
            EmptySurfaceError: there is no surface.
            UserError: the prompt or a setting is invalid, a teacher is missing, memory is too short, or the
                folder belongs to another refinement.
        """
        from triplaneturbo.refine.given_image import read_given_image
        from triplaneturbo.refine.given_mesh import read_given_mesh
        from triplaneturbo.refine.image_source import resolve
        from triplaneturbo.refine.metadata import metadata_of
        from triplaneturbo.refine.start import start

        given = None if mesh is None else read_given_mesh(mesh)
        picture = None if image is None else read_given_image(image)
        with tempfile.TemporaryDirectory() as temporary:
            place = Path(temporary if folder is None else folder)
            if picture is not None:
                prompt, given = resolve(self.model, self.name, prompt, picture, given, image_to_mesh, place)
            request = self.settle(Request(prompt, seed=seed, **settings))
            with explained_out_of_memory(OUT_OF_MEMORY):
                source = given or self.field(request)
                refiner = exhaust(start(self.model, self.name, source, request, options, place, picture))
                while not refiner.finished:
                    losses = refiner.step()
                    if progress is not None:
                        progress(refiner.iteration, refiner.iterations, losses)
            metadata = metadata_of(refiner, request, self.name, options, given, picture)
            return refiner.representation.export(request).replace(metadata=metadata)

    def stream(
        self,
        request: Request,
        embed: Callable[[str], Tensor] | None = None,
        low_memory: bool = False,
        sketches: Sketches = "none",
    ) -> Generator[Progress | Result, None, None]:
        """Generate a mesh; yield Progress when a stage begins or a step ends, and Result at the end.

        Closing the generator cancels the work at the current event.

        Args:
            request: the request.
            embed: replaces `self.embed`, for example to cache embeddings.
            low_memory: decode planes one by one and halve the side of the texture (512 at least).
            sketches: the steps whose Progress has a sketch.

        Raises:
            EmptySurfaceError: the field has no surface.
            UserError: a value of the request is invalid.
        """
        for event in self.stream_all([request], embed, low_memory, sketches):
            if isinstance(event, UserError):
                raise event
            yield event

    @torch.no_grad()
    def stream_all(
        self,
        requests: Sequence[Request],
        embed: Callable[[str], Tensor] | None = None,
        low_memory: bool = False,
        sketches: Sketches = "none",
        together: bool = True,
    ) -> Generator[Progress | Outcome, None, None]:
        """Generate several meshes: like `stream`, with one outcome per request, in order.

        The outcome of a failed request is its error; the other requests continue. Requests are batched if the
        pipeline batches them, `together` is True and `low_memory` is False; rounding may then differ from
        that of a single request.
        """
        requests = [self.settle(request) for request in requests]
        if low_memory:
            requests = [
                replace(request, texture_size=max(TEXTURE_SIZES[0], request.texture_size // 2))
                for request in requests
            ]
        done = 0
        for group in _groups(requests, self.together and together and not low_memory):
            for event in self._stream_group(group, embed or self.embed, low_memory, sketches):
                if isinstance(event, Progress):
                    share = (done + event.fraction * len(group)) / len(requests)
                    event = replace(event, fraction=share)
                yield event
            done += len(group)

    def _stream_group(
        self, group: list[Request], embed: Callable[[str], Tensor], low_memory: bool, sketches: Sketches
    ) -> Generator[Progress | Outcome, None, None]:
        """Generate requests of equally many steps in one batch; sketches only for a single request."""
        clock = _Clock(self.model.generator.device, group[0].steps or 1)

        yield clock.begin("text")
        texts = _Texts.of(group, embed)

        yield clock.begin("denoise")
        steps = group[0].steps or 1
        shown = {"none": (), "first": (1,), "last": (steps,), "all": range(1, steps + 1)}[sketches]
        if len(group) > 1:
            shown = ()

        for step, estimate in enumerate(self._denoise(group, texts), 1):
            if step in shown and step < steps:
                yield clock.step(estimate[0], self._sketch(self._field(estimate[0], low_memory)))
            else:
                yield clock.step(estimate[0])

        yield clock.begin("decode")
        # One by one: the planes of one prompt saturate a GPU, and decoding needs the most memory.
        fields = [self._field(latents, low_memory) for latents in estimate]
        if steps in shown:
            yield clock.sketched(self._sketch(fields[0]))
        works = [
            self._stream_mesh(field, request, clock.branch(), low_memory)
            for field, request in zip(fields, group, strict=True)
        ]
        if len(works) == 1:
            yield from works[0]
            return
        news = clock.begin("surface")
        for number, outcome in enumerate(_side_by_side(works)):
            yield replace(news, fraction=news.fraction + (1 - news.fraction) * number / len(works))
            yield outcome

    @torch.no_grad()
    def stream_mesh(
        self, field: TriplaneField, request: Request
    ) -> Generator[Progress | Outcome, None, None]:
        """Extract and finish the mesh of a field; yield Progress when a stage begins, and the outcome.

        Args:
            request: the request of the field, with all defaults filled in.
        """
        clock = _Clock(self.model.generator.device, request.steps or 1)
        yield from self._stream_mesh(field, request, clock, low_memory=False)

    def _denoise(self, group: Sequence[Request], texts: _Texts) -> Iterator[Tensor]:
        """Yield the clean estimates [B, 6, 4, h, h] of each step of requests of equally many steps."""
        generator = self.model.generator
        noise = torch.cat([_noise(generator, request) for request in group])
        steps = group[0].steps or 1
        shape = generator.with_variants(texts.shape, noise)
        look = None if texts.look is None else generator.with_variants(texts.look, noise)

        def predictor(text_embeds: Tensor) -> Predict:
            return lambda noisy, time: self.backend.predict(noisy, time, text_embeds)

        predict = predictor(shape if look is None else interleave(shape, look))
        if group[0].keep_shape:  # a group of its own
            draft = predictor(shape)
            return denoise_keeping_shape(generator.scheduler, draft, predict, noise, steps)
        return denoise_steps(generator.scheduler, predict, noise, steps)

    def _field(self, latents: Tensor, low_memory: bool) -> TriplaneField:
        """Decode the latents of one prompt [6, 4, h, h] to a field."""
        planes = self.backend.decode(latents[None], low_memory or self.low_memory)  # [1, 6, C, H, W]
        return self.model.generator.field(planes[0])

    def _sketch(self, field: TriplaneField) -> Mesh | None:
        """Extract a coarse mesh with vertex colours; None if there is no surface."""
        try:
            surface = extract(field, SKETCH_RESOLUTION)
        except EmptySurfaceError:
            return None
        mesh, _ = drop_floaters(tidy(surface.mesh()))
        return paint(mesh, field)

    def _stream_mesh(
        self, field: TriplaneField, request: Request, clock: _Clock, low_memory: bool
    ) -> Generator[Progress | Outcome, None, None]:
        """Generate the mesh of one request from its field."""
        yield clock.begin("surface")
        try:
            surface = extract(field, request.resolution)
        except EmptySurfaceError as error:
            yield error
            return

        mesh = surface.mesh()
        surface_faces = len(mesh.faces)
        stages = finish(mesh, field, request, request.resolution or 2)
        finished = None
        while finished is None:
            try:
                yield clock.begin(next(stages))
            except StopIteration as end:
                finished = end.value
            except UserError as error:
                yield error
                return

        prompts = [request.prompt, *([request.look] if request.look else [])]
        yield Result(
            mesh=finished.mesh.replace(metadata=GenerationMetadata(request, self.name)),
            request=request,
            seconds=clock.end(),
            surface_faces=surface_faces,
            dropped=finished.dropped,
            truncated_text=" … ".join(filter(None, map(self.model.text.truncated_text, prompts))),
            reading=self.read(request.prompt),
            look_reading=self.read(request.look) if request.look else None,
            low_memory=low_memory,
            unsimplified=finished.unsimplified,
        )


def _load(found: ModelFiles, device: torch.device, precision: str) -> Model:
    """Load a model's files; raise UserError if they are broken or memory is too short."""
    sentence = (
        f"Out of memory while loading {found.name} on {device}; close other programs or use the small model."
    )
    with explained_out_of_memory(sentence):
        convert_if_needed(found)
        dtype = choose_precision(precision, device, found.small).dtype
        return load_model(found.folder, base=found.base, device=device, dtype=dtype)


@dataclass(frozen=True)
class _Texts:
    """Text embeddings of requests [B, 77, D].

    Attributes:
        shape: for the geometry planes.
        look: for the texture planes; None: the same.
    """

    shape: Tensor
    look: Tensor | None

    @classmethod
    def of(cls, group: Sequence[Request], embed: Callable[[str], Tensor]) -> _Texts:
        """Embed prompts, each interpolated with the one that it blends with (as in ATT3D), and looks."""
        shapes = [
            torch.lerp(embed(request.prompt), embed(request.blend), request.blend_weight)
            if request.blend
            else embed(request.prompt)
            for request in group
        ]
        looks = None
        if any(request.look for request in group):
            looks = torch.cat(
                [
                    embed(request.look) if request.look else shape
                    for request, shape in zip(group, shapes, strict=True)
                ]
            )
        return cls(torch.cat(shapes), looks)


def _noise(generator: Denoiser, request: Request) -> Tensor:
    """Draw the initial noise of a request [1, 6, 4, h, h]."""

    def drawn(seed: int) -> Tensor:
        # On the CPU for every device, so that a seed gives the same noise everywhere.
        return generator.draw_latents(1, torch.Generator().manual_seed(seed))

    noise = drawn(request.seed)
    for seed, strength in request.turns():
        # Spherical interpolation: every point on the arc is noise of variance 1, too.
        angle = strength * math.pi / 2
        noise = math.cos(angle) * noise + math.sin(angle) * drawn(seed)
    return noise


def _groups(requests: Sequence[Request], together: bool) -> list[list[Request]]:
    """Split requests into batches: consecutive requests with the same number of steps, in order.

    A request that keeps a shape is alone: the shape of a batch may differ in rounding.
    """
    if not together:
        return [[request] for request in requests]

    def key(item: tuple[int, Request]) -> tuple[int | None, int]:
        number, request = item
        return request.steps, number if request.keep_shape else -1

    groups = [[request for _, request in group] for _, group in groupby(enumerate(requests), key=key)]
    return [group[at : at + MOST_TOGETHER] for group in groups for at in range(0, len(group), MOST_TOGETHER)]


def _side_by_side(works: Sequence[Generator[Progress | Outcome, None, None]]) -> Iterator[Outcome]:
    """Run each generator in its own thread; yield their outcomes in order."""
    stopped = threading.Event()

    @torch.no_grad()  # the gradient mode is local to a thread
    def run(work: Generator[Progress | Outcome, None, None]) -> Outcome:
        for event in work:
            if not isinstance(event, Progress):
                return event
            if stopped.is_set():
                raise Cancelled
        raise RuntimeError("generator ended without a result")

    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(run, work) for work in works]
        try:
            for future in futures:
                yield future.result()
        finally:
            stopped.set()


class _Clock:
    """Measure the stages of one request or batch and create its Progress events."""

    def __init__(self, device: torch.device, steps: int) -> None:
        self._device = device
        self._steps = steps
        self._step = 0
        self._start = self._since = time.perf_counter()
        self._stage = ""
        self._seconds: dict[str, float] = {}

    def branch(self) -> _Clock:
        """Return a clock for one mesh of the batch that includes the stages of the batch so far."""
        self._finish_stage()
        self._stage = ""
        other = copy(self)
        other._seconds = dict(self._seconds)
        return other

    def begin(self, stage: str) -> Progress:
        self._finish_stage()
        self._stage = stage
        return self._progress()

    def step(self, estimate: Tensor, sketch: Mesh | None = None) -> Progress:
        # A GPU may still be busy: synchronising here would delay the launch of the next step.
        self._step += 1
        return replace(self._progress(), estimate=estimate, sketch=sketch)

    def sketched(self, sketch: Mesh | None) -> Progress:
        return replace(self._progress(), sketch=sketch)

    def end(self) -> dict[str, float]:
        self._finish_stage()
        return {**self._seconds, "total": self._since - self._start}

    def _finish_stage(self) -> None:
        wait_for(self._device)
        now = time.perf_counter()
        if self._stage:
            self._seconds[self._stage] = now - self._since
        self._since = now

    def _progress(self) -> Progress:
        done = sum(STAGES[stage] for stage in self._seconds)
        if self._stage == "denoise":
            done += STAGES["denoise"] * self._step / self._steps
        seconds = time.perf_counter() - self._start
        return Progress(self._stage, done, seconds, self._step, self._steps)
