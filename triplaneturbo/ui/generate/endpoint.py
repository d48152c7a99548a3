"""API endpoints for `gradio_client` and HTTP clients.

from gradio_client import Client

client = Client("http://127.0.0.1:7860")
file, facts = client.predict("a red mushroom", seed=1, api_name="/generate")
files, facts = client.predict("a red mushroom", count=4, api_name="/variants")
files, facts = client.predict("a red mushroom", "a blue chair", count=5, api_name="/blend")
file, facts = client.predict("a red mushroom", seed=1, format="obj", api_name="/export")
file, facts = client.predict("a red mushroom", refine_steps=20, api_name="/refine")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.registry import WRITERS
from triplaneturbo.mesh.io.texture_formats import TEXTURE_FORMATS
from triplaneturbo.mesh.placement import AUTO, PIVOTS, UNIT_CHOICES, UPS
from triplaneturbo.request import UNWRAPS, Request, shown
from triplaneturbo.serving.batch_jobs import BatchProgress, follow_batch, seeds, series
from triplaneturbo.serving.jobs import MeshReady, Stopped, follow
from triplaneturbo.serving.output_files import FORMATS
from triplaneturbo.serving.refine_request import LENGTHS, RefineRequest
from triplaneturbo.ui.generate.form import FIELDS, to_file_options, to_request
from triplaneturbo.ui.generate.panels import file_facts
from triplaneturbo.ui.generate.updates import visitor

if TYPE_CHECKING:
    from pathlib import Path

    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.limits import RequestLimiter
    from triplaneturbo.serving.sessions import Session, Sessions

MAX_VARIANTS = 8
# Checks requests against the visitor's limits and returns them; raises UserError if a limit is exceeded.
Admit = Callable[..., list[Request]]
TYPES: dict[str, Any] = {
    "steps": int | None,
    "unwrap": Literal[UNWRAPS],
    "unit": Literal[UNIT_CHOICES],
    "texture_format": Literal[TEXTURE_FORMATS],
}


def build(engine: Engine, sessions: Sessions, guard: RequestLimiter) -> None:
    """Add the endpoints to the current Blocks."""
    config = engine.model.config
    default = Request("", resolution=config.grid_resolution)
    settings = {name: getattr(default, name) for name in FIELDS if name != "prompt"}
    # Parameters that were added later come last, since older calls pass arguments by position.
    looks = {name: settings.pop(name) for name in ("look", "keep_shape")}
    lods = {"lods": settings.pop("lods")}
    unblended = {name: value for name, value in settings.items() if not name.startswith("blend")}

    def generate(session: Session, admit: Admit, arguments: dict[str, Any]) -> tuple[Any, dict]:
        """Make a textured mesh from a prompt.

        Returns the GLB file and a dictionary of facts: vertices, faces, seconds of each stage, settings, and
        files with their sha256. Without `steps`, the number that the adapter was trained with is used, or the
        model's. `faces` 0 keeps all faces; `unwrap` "none" means vertex colours instead of a texture.
        `variation` (0 to 1) interpolates the seed's noise toward that of `variation_seed`, after the earlier
        variations of `variation_path` ("3:0.2,17:0.1"); `blend` is another prompt, `blend_weight` (0 to 1)
        its share. `look` is another prompt, for the colours; with `keep_shape` the shape is exactly that
        without a look. `lods`: levels of detail in the GLB, 1 to 4. Invalid arguments raise an error of one
        sentence.
        """
        (request,) = admit(_request(engine, arguments))
        made: MeshReady = _end(follow(engine, session, request, alone=False, formats=("glb",)))
        return _served(made.files["glb"], "glb"), file_facts(made.facts)

    def variants(session: Session, admit: Admit, arguments: dict[str, Any]) -> tuple[list, list]:
        """Make meshes of a prompt for `count` (1 to 8) consecutive seeds, starting with the given one.

        Returns the GLB files and a list of facts, one dictionary per seed, in order. A seed without a surface
        has no file and the facts {"seed": ..., "error": ...}. Settings as for /generate.
        """
        count = _whole(arguments.pop("count"), "The number of variants", 1, MAX_VARIANTS)
        return _all(engine, session, admit(*seeds(_request(engine, arguments), count)))

    def blend(session: Session, admit: Admit, arguments: dict[str, Any]) -> tuple[list, list]:
        """Make `count` (2 to 16) meshes in equal steps from one prompt to another.

        Returns the GLB files and a list of facts, in order, as /variants does.
        """
        count = arguments.pop("count")
        arguments["blend"] = arguments.pop("other")
        return _all(engine, session, admit(*series(_request(engine, arguments), count)))

    def export(session: Session, admit: Admit, arguments: dict[str, Any]) -> tuple[Any, dict]:
        """Make a mesh in another file format, reusing the last result if its settings are the same.

        `format` is glb, obj (a ZIP with material and texture), ply, stl, 3mf or usdz. `size` is the longest
        side in metres (0: as generated), `up` the up axis, y or z (GLB files always use y, 3MF files z),
        `pivot` the origin: model, centre or ground, `unit` the unit of the coordinates: m, cm, mm, in, or
        auto, which is mm for STL and 3MF and m otherwise (GLB files always use m). `metadata`: whether the
        file contains the prompt, seed, settings and model. `lods`: levels of detail in a GLB, 1 to 4.
        `texture_format`: png, jpeg, webp or webp+png. `max_mb`: largest size of a GLB in megabytes, to which
        its images are reduced; 0: any.
        """
        name = arguments.pop("format")
        options = to_file_options(
            *(
                arguments.pop(field)
                for field in ("size", "up", "pivot", "unit", "metadata", "texture_format", "max_mb")
            )
        )
        if name not in FORMATS:
            raise UserError(f"Unknown format {shown(name)}: use one of {', '.join(FORMATS)}.")
        (request,) = admit(_request(engine, arguments))
        made: MeshReady = _end(
            follow(engine, session, request, alone=False, formats=(name,), options=options)
        )
        return _served(made.files[name], name), file_facts(made.facts)

    def refine(session: Session, admit: Admit, arguments: dict[str, Any]) -> tuple[Any, dict]:
        """Make a mesh and refine it by Path-Tracing Distillation in `refine_steps` steps.

        Returns the GLB file and the facts, as /generate does. One result is refined at a time; a public
        server refines only if it was started with --refine.
        """
        steps = arguments.pop("refine_steps")
        (request,) = admit(RefineRequest.of(_request(engine, arguments), steps).checked())
        made: MeshReady = _end(follow(engine, session, request, alone=False, formats=("glb",)))
        return _served(made.files["glb"], "glb"), file_facts(made.facts)

    one, many = tuple[gr.FileData, dict], tuple[list, list]
    _add(sessions, guard, generate, {"prompt": (str, ...)}, settings | looks | lods, one)
    _add(sessions, guard, variants, {"prompt": (str, ...), "count": (int, 4)}, settings | looks | lods, many)
    _add(
        sessions,
        guard,
        blend,
        {"prompt": (str, ...), "other": (str, ...), "count": (int, 5)},
        unblended | looks | lods,
        many,
    )
    exported = {
        "format": (Literal[tuple(FORMATS)], "glb"),
        "size": (float, 0.0),
        "up": (Literal[UPS], "y"),
        "pivot": (Literal[PIVOTS], "model"),
    }
    later = {"unit": AUTO, **looks, "metadata": True, **lods, "texture_format": "png", "max_mb": 0.0}
    _add(sessions, guard, export, {"prompt": (str, ...), **exported}, settings | later, one)
    refining = {"prompt": (str, ...), "refine_steps": (int, LENGTHS[1])}
    _add(sessions, guard, refine, refining, unblended | lods, one)


def _add(
    sessions: Sessions,
    guard: RequestLimiter,
    work: Callable[[Session, Admit, dict[str, Any]], Any],
    own: dict[str, tuple[Any, Any]],
    settings: dict[str, Any],
    returns: Any,
) -> None:
    """Add an endpoint with the name and docstring of `work`.

    Args:
        work: called with the session, a check of the limits and the arguments by name.
        own: type and default (... if required) of the endpoint's own parameters, which come first.
        settings: defaults of the other parameters.
        returns: return annotation.
    """
    typed = own | {name: (TYPES.get(name, type(value)), value) for name, value in settings.items()}
    typed = {name: (int if name == "faces" else kind, value) for name, (kind, value) in typed.items()}

    def endpoint(page: gr.Request, *values: Any) -> Any:
        who = visitor(page)

        def admit(*requests: Request) -> list[Request]:
            guard.admit(*requests, **who)
            return list(requests)

        try:
            with guard.alone(**who):
                return work(sessions.of(page.session_hash), admit, dict(zip(typed, values, strict=True)))
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None

    # Gradio reads the API's names, types and defaults from the signature.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("page", kind, annotation=gr.Request)]
    for name, (annotation, value) in typed.items():
        default = inspect.Parameter.empty if value is ... else value
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=annotation))
    endpoint.__name__ = work.__name__
    endpoint.__doc__ = work.__doc__
    endpoint.__signature__ = inspect.Signature(parameters, return_annotation=returns)  # type: ignore[attr-defined]
    endpoint.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": returns}
    gr.api(endpoint, api_name=work.__name__, concurrency_limit=None)


def _request(engine: Engine, arguments: dict[str, Any]) -> Request:
    """Return the request with the number of steps filled in, so that the server's limit applies to it.

    Raises:
        UserError: the seed is blank, or without steps a value is invalid or the adapter not found.
    """
    defaults = Request("")
    request = to_request(*(arguments.get(name, getattr(defaults, name)) for name in FIELDS))
    if request.steps is None:
        request = replace(request, steps=engine.default_steps(request.checked().adapter))
    return request


def _end(events: Generator[Any, None, None]) -> Any:
    """Consume the events and return the last, a complete MeshReady or BatchProgress.

    Raises:
        UserError: the request failed or was cancelled.
    """
    for event in events:
        if isinstance(event, Stopped):
            raise UserError(event.sentence or "The request was cancelled.")
    return event


def _all(engine: Engine, session: Session, requests: list[Request]) -> tuple[list, list]:
    batch: BatchProgress = _end(follow_batch(engine, session, requests, alone=False))
    files, facts = [], []
    for request, made in zip(requests, batch.made, strict=True):
        if isinstance(made, MeshReady):
            files.append(_served(made.files["glb"], "glb").model_dump())
            facts.append(file_facts(made.facts))
        else:
            facts.append({"seed": request.seed, "error": made.sentence})
    return files, facts


def _whole(value: Any, name: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UserError(f"{name} must be a whole number from {least} to {most}, not {shown(value)}.")
    return value


def _served(path: Path, name: str) -> Any:
    return gr.FileData(path=str(path), orig_name=path.name, mime_type=WRITERS[name].media_type)
