"""From words to a textured mesh in one pass.

    from triplaneturbo.models.weights import load_model
    from triplaneturbo.pipeline import Pipeline

    pipeline = Pipeline(load_model(Path("checkpoints/small")))
    mesh = pipeline("a red mushroom", seed=1)

A pipeline keeps nothing between calls: the same request on the same device and version gives the same mesh.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor

from triplaneturbo.errors import Cancelled, EmptySurfaceError, UserError
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import Dropped, drop_floaters, tidy
from triplaneturbo.mesh.processing.simplify import simplify
from triplaneturbo.mesh.processing.smooth import smooth
from triplaneturbo.mesh.processing.watertight import watertight
from triplaneturbo.mesh.texture import bake, paint
from triplaneturbo.mesh.uv.unwrap import TEXTURE_SIZES, unwrap
from triplaneturbo.models.triplane_generator import TriplaneGenerator as Denoiser
from triplaneturbo.models.weights import Model
from triplaneturbo.representations.triplane import TriplaneField
from triplaneturbo.request import Request
from triplaneturbo.toyworld.captions.caption_parser import Reading, parse
from triplaneturbo.utils.devices import wait_for

# How much of the whole each stage is taken to be, for the progress bar.
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
    """A stage begins, or one of the denoising steps has ended.

    Attributes:
        stage: one of STAGES.
        fraction: how much of the whole is done, in [0, 1).
        seconds: since the request was begun.
        step: denoising steps that have ended.
        steps: denoising steps in all.
        estimate: the clean latents [6, 4, h, h] as the step that has just ended sees them; None elsewhere.
        sketch: those as a coarse mesh with colours at its vertices, where sketches were asked for and there
            is a surface.
        glb: the sketch as a file, where it comes from an engine.
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
    """A mesh and how it came about.

    Attributes:
        mesh: on the CPU, textured or, with `unwrap` "none", with colours at its vertices.
        request: as it was carried out, no value left open.
        seconds: of each stage, in order, and "total"; a stage done for a whole batch counts whole.
        surface_faces: faces of the surface before anything was dropped or simplified.
        dropped: the loose pieces that were dropped.
        unread: the end of the prompt that was too long for the model to read; "" if it read all.
        cached: whether it was made earlier, for an equal request.
        reading: what a model of the world makes of the prompt, with the words that it does not know; None
            where the model reads any words.
        frugal: whether memory was short, so that it has a smaller texture than was asked for.
        unsimplified: whether it has more faces than were asked for, since fewer could not be made watertight.
    """

    mesh: Mesh
    request: Request
    seconds: dict[str, float] = field(hash=False)
    surface_faces: int
    dropped: Dropped
    truncated_text: str = ""
    cached: bool = False
    reading: Reading | None = None
    frugal: bool = False
    unsimplified: bool = False


# Which steps' estimates are shown as a coarse mesh; the last one's is the shape that is then made fine.
Sketches = Literal["none", "first", "last", "all"]
MOST_TOGETHER = 4  # requests in one batch: what they take of a GPU's memory grows with it
SKETCH_RESOLUTION = 48  # nodes along each side of a sketch's grid

# What a request comes to; an error only where others were asked for beside it.
Outcome = Result | UserError


class Pipeline:
    """The stairs from a prompt to a mesh, with one model.

    Args:
        model: the model.
        low_memory: decode the planes one by one, which takes a little longer and gives the same mesh.
        together: denoise several requests in one batch, and make their meshes in threads side by side. None:
            on a CUDA device; a CPU has no more to give than one request takes.
    """

    def __init__(self, model: Model, low_memory: bool = False, together: bool | None = None) -> None:
        self.model = model
        self.low_memory = low_memory
        self.together = model.generator.device.type == "cuda" if together is None else together

    def __call__(self, prompt: str, **settings: Any) -> Mesh:
        """One textured mesh; `settings` are Request's.

        Raises:
            EmptySurfaceError: the field has no surface.
            UserError: the prompt or a setting cannot be.
        """
        *_, result = self.stream(Request(prompt, **settings))
        assert isinstance(result, Result)
        return result.mesh

    def settle(self, request: Request) -> Request:
        """The request checked, with the model's own numbers where it left them open.

        With smoothing the normal map is left out: it would put back what was smoothed away.
        """
        config = self.model.config
        request = request.checked()
        return replace(
            request,
            steps=request.steps or config.steps,
            resolution=request.resolution or config.grid_resolution,
            normal_map=request.normal_map and not request.smoothing,
        )

    def read(self, prompt: str) -> Reading | None:
        """What a model of the world makes of a prompt, at once; None where the model reads any words."""
        return parse(prompt) if self.model.config.world else None

    def embed(self, prompt: str) -> Tensor:
        """The prompt's embedding [1, 77, D]."""
        return self.model.text.embed([prompt])

    def stream(
        self,
        request: Request,
        embed: Callable[[str], Tensor] | None = None,
        frugal: bool = False,
        sketches: Sketches = "none",
    ) -> Generator[Progress | Result, None, None]:
        """Make a mesh, yielding Progress as each stage begins and as each step ends, and Result at the end.

        Closing the generator stops the work at the last event.

        Args:
            request: what to make.
            embed: used in the place of `self.embed`, to keep embeddings.
            frugal: spare memory: planes decoded one by one, and a texture of half the side (512 at least).
            sketches: which of the steps' Progress have one.

        Raises:
            EmptySurfaceError: the field has no surface.
            UserError: a value of the request cannot be.
        """
        for event in self.stream_all([request], embed, frugal, sketches):
            if isinstance(event, UserError):
                raise event
            yield event

    @torch.no_grad()
    def stream_all(
        self,
        requests: Sequence[Request],
        embed: Callable[[str], Tensor] | None = None,
        frugal: bool = False,
        sketches: Sketches = "none",
        together: bool = True,
    ) -> Generator[Progress | Outcome, None, None]:
        """Make several meshes: as `stream`, with a Result for each request, in their order.

        A request whose field has no surface gets the error in that place, and the others are made. Where
        they are made together (where the pipeline does so, unless `together` is False or `frugal` is True),
        rounding may differ from that of one made alone.
        """
        requests = [self.settle(request) for request in requests]
        if frugal:
            requests = [
                replace(request, texture_size=max(TEXTURE_SIZES[0], request.texture_size // 2))
                for request in requests
            ]
        done = 0
        for group in _groups(requests, self.together and together and not frugal):
            for event in self._stream_group(group, embed or self.embed, frugal, sketches):
                if isinstance(event, Progress):
                    share = (done + event.fraction * len(group)) / len(requests)
                    event = replace(event, fraction=share)
                yield event
            done += len(group)

    def _stream_group(
        self, group: list[Request], embed: Callable[[str], Tensor], frugal: bool, sketches: Sketches
    ) -> Generator[Progress | Outcome, None, None]:
        """Requests of as many steps each, denoised in one batch. Of several there are no sketches."""
        generator = self.model.generator
        clock = _Clock(generator.device, group[0].steps or 1)

        yield clock.begin("text")
        text_embeds = torch.cat([_words(request, embed) for request in group])  # [B, 77, D]

        yield clock.begin("denoise")
        noise = torch.cat([_noise(generator, request) for request in group])  # [B, 6, 4, h, h]
        steps = group[0].steps or 1
        shown = {"none": (), "first": (1,), "last": (steps,), "all": range(1, steps + 1)}[sketches]
        if len(group) > 1:
            shown = ()
        for step, estimate in enumerate(generator.denoise(noise, text_embeds, group[0].steps), 1):
            if step in shown and step < steps:
                yield clock.step(estimate[0], self._sketch(self._field(estimate[0], frugal)))
            else:
                yield clock.step(estimate[0])

        yield clock.begin("decode")
        # One prompt's planes fill a GPU, and take the most memory of all stages.
        fields = [self._field(latents, frugal) for latents in estimate]
        if steps in shown:
            yield clock.sketched(self._sketch(fields[0]))
        works = [
            self._stream_mesh(field, request, clock.branch(), frugal)
            for field, request in zip(fields, group, strict=True)
        ]
        if len(works) == 1:
            yield from works[0]
            return
        news = clock.begin("surface")
        for number, outcome in enumerate(_side_by_side(works)):
            yield replace(news, fraction=news.fraction + (1 - news.fraction) * number / len(works))
            yield outcome

    def _field(self, latents: Tensor, frugal: bool) -> TriplaneField:
        """One prompt's field, from latents [6, 4, h, h]."""
        generator = self.model.generator
        return generator.field(generator.decode(latents[None], frugal or self.low_memory)[0])

    def _sketch(self, field: TriplaneField) -> Mesh | None:
        """A coarse mesh, None where there is no surface."""
        try:
            surface = extract(field, SKETCH_RESOLUTION)
        except EmptySurfaceError:
            return None
        mesh, _ = drop_floaters(tidy(Mesh(surface.vertices.float().cpu(), surface.faces.cpu())))
        return paint(mesh, field)

    def _stream_mesh(
        self, field: TriplaneField, request: Request, clock: _Clock, frugal: bool
    ) -> Generator[Progress | Outcome, None, None]:
        """From the field on."""
        yield clock.begin("surface")
        try:
            surface = extract(field, request.resolution)
        except EmptySurfaceError as error:
            yield error
            return

        # From here on the CPU: sums over faces are in a fixed order there, and so the mesh is the same again.
        yield clock.begin("clean")
        mesh = Mesh(surface.vertices.float().cpu(), surface.faces.cpu())
        surface_faces = len(mesh.faces)
        mesh, dropped = drop_floaters(tidy(mesh), request.floaters)
        mesh = smooth(mesh, request.smoothing)
        whole, unsimplified = mesh, False
        if request.faces is not None:
            mesh, _ = simplify(mesh, request.faces)
        if request.watertight:
            try:
                try:
                    mesh = watertight(mesh)
                except UserError:
                    if mesh is whole:
                        raise
                    mesh, unsimplified = watertight(whole), True
            except UserError as error:
                yield error
                return

        if request.unwrap == "none":
            yield clock.begin("texture")
            mesh = paint(mesh, field)
        else:
            yield clock.begin("unwrap")
            mesh = unwrap(mesh, request.unwrap, request.texture_size)

            yield clock.begin("texture")
            cell = 2 / ((request.resolution or 2) - 1)
            mesh = bake(mesh, field, request.texture_size, request.normal_map, cell)

        yield Result(
            mesh=mesh,
            request=request,
            seconds=clock.end(),
            surface_faces=surface_faces,
            dropped=dropped,
            truncated_text=self.model.text.truncated_text(request.prompt),
            reading=self.read(request.prompt),
            frugal=frugal,
            unsimplified=unsimplified,
        )


def _words(request: Request, embed: Callable[[str], Tensor]) -> Tensor:
    """The request's embedding [1, 77, D]: of its prompt, or mixed with the other's (as in ATT3D)."""
    words = embed(request.prompt)
    return torch.lerp(words, embed(request.blend), request.blend_weight) if request.blend else words


def _noise(generator: Denoiser, request: Request) -> Tensor:
    """The request's pure noise [1, 6, 4, h, h]."""

    def drawn(seed: int) -> Tensor:
        # On the CPU whatever the device, so that a seed means the same everywhere.
        return generator.draw_latents(1, torch.Generator().manual_seed(seed))

    noise = drawn(request.seed)
    for seed, strength in request.turns():
        # Along the arc between the two, on which every point is noise of variance 1, too.
        angle = strength * math.pi / 2
        noise = math.cos(angle) * noise + math.sin(angle) * drawn(seed)
    return noise


def _groups(requests: Sequence[Request], together: bool) -> list[list[Request]]:
    """What is denoised in one batch each, in order: requests of equal steps that follow each other."""
    if not together:
        return [[request] for request in requests]
    groups = [list(group) for _, group in groupby(requests, key=lambda request: request.steps)]
    return [group[at : at + MOST_TOGETHER] for group in groups for at in range(0, len(group), MOST_TOGETHER)]


def _side_by_side(works: Sequence[Generator[Progress | Outcome, None, None]]) -> Iterator[Outcome]:
    """What each of the generators ends in, in order, each in a thread of its own."""
    stopped = threading.Event()

    @torch.no_grad()  # it holds for the thread that it was said in
    def run(work: Generator[Progress | Outcome, None, None]) -> Outcome:
        for event in work:
            if not isinstance(event, Progress):
                return event
            if stopped.is_set():
                raise Cancelled
        raise RuntimeError("the work ended without a result")

    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(run, work) for work in works]
        try:
            for future in futures:
                yield future.result()
        finally:
            stopped.set()


class _Clock:
    """Times the stages of one request, or a batch's, and makes its Progress events."""

    def __init__(self, device: torch.device, steps: int) -> None:
        self._device = device
        self._steps = steps
        self._step = 0
        self._start = self._since = time.perf_counter()
        self._stage = ""
        self._seconds: dict[str, float] = {}

    def branch(self) -> _Clock:
        """A clock for one mesh of the batch, whose stages so far are the batch's."""
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
        # A GPU may still be at it: to wait here would keep it from being given the next step in time.
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
