"""The page's work for programs.

from gradio_client import Client

client = Client("http://127.0.0.1:7860")
file, facts = client.predict("a red mushroom", seed=1, api_name="/generate")
files, facts = client.predict("a red mushroom", count=4, api_name="/variants")
files, facts = client.predict("a red mushroom", "a blue chair", count=5, api_name="/blend")
file, facts = client.predict("a red mushroom", seed=1, format="obj", api_name="/export")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Literal

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.registry import WRITERS
from triplaneturbo.mesh.placement import AUTO, PIVOTS, UNIT_CHOICES, UPS
from triplaneturbo.request import Request, shown
from triplaneturbo.serving.batch_jobs import BatchProgress, follow_batch, seeds, series
from triplaneturbo.serving.jobs import MeshReady, Stopped, follow
from triplaneturbo.serving.output_files import FORMATS
from triplaneturbo.ui.generate.form import FIELDS, to_placement, to_request
from triplaneturbo.ui.generate.panels import file_facts
from triplaneturbo.ui.generate.updates import visitor

if TYPE_CHECKING:
    from pathlib import Path

    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.limits import Guard
    from triplaneturbo.serving.sessions import Session, Sessions

MOST_VARIANTS = 8
# Lets a visitor's requests in and gives them back, or raises the UserError that says why not.
Admit = Callable[..., list[Request]]
TYPES: dict[str, Any] = {"unwrap": Literal["fast", "xatlas", "none"], "unit": Literal[UNIT_CHOICES]}


def build(engine: Engine, sessions: Sessions, guard: Guard) -> None:
    """Add the endpoints to the Blocks that is being built."""
    config = engine.model.config
    default = Request("", steps=config.steps, resolution=config.grid_resolution)
    settings = {name: getattr(default, name) for name in FIELDS if name != "prompt"}
    unblended = {name: value for name, value in settings.items() if not name.startswith("blend")}

    def generate(session: Session, admit: Admit, asked: dict[str, Any]) -> tuple[Any, dict]:
        """Make a textured mesh from a prompt.

        Gives the GLB file and a dictionary of facts: vertices, faces, seconds of each stage, settings, files
        with their sha256. `faces` 0 keeps all faces; `unwrap` "none" gives colours at the vertices and no
        texture. `variation` (0 to 1) turns the seed's noise toward that of `variation_seed`, after those of
        `variation_path` (as in "3:0.2,17:0.1"); `blend` is another prompt, `blend_weight` (0 to 1) its share.
        What cannot be is an error of one sentence.
        """
        (request,) = admit(_request(asked))
        made: MeshReady = _end(follow(engine, session, request, alone=False, formats=("glb",)))
        return _served(made.files["glb"], "glb"), file_facts(made.facts)

    def variants(session: Session, admit: Admit, asked: dict[str, Any]) -> tuple[list, list]:
        """Make a prompt's meshes for `count` (1 to 8) seeds, the given one first.

        Gives the GLB files and as many dictionaries of facts, in order; for a seed without a surface no file,
        and {"seed": ..., "error": ...} among the facts. Settings as for /generate.
        """
        count = _whole(asked.pop("count"), "The count of variants", 1, MOST_VARIANTS)
        return _all(engine, session, admit(*seeds(_request(asked), count)))

    def blend(session: Session, admit: Admit, asked: dict[str, Any]) -> tuple[list, list]:
        """Make `count` (2 to 16) meshes in equal steps from a prompt to another one.

        Gives the GLB files and as many dictionaries of facts, in order, as /variants does.
        """
        count = asked.pop("count")
        asked["blend"] = asked.pop("other")
        return _all(engine, session, admit(*series(_request(asked), count)))

    def export(session: Session, admit: Admit, asked: dict[str, Any]) -> tuple[Any, dict]:
        """Make a mesh, or take the one that was just made with these settings, as a file of another format.

        `format` is glb, obj (a zip with material and texture), ply, stl or usdz; `size` the longest side in
        metres (0: the model's own), `up` the axis y or z (a GLB has y always), `pivot` where the origin is:
        model, centre or ground, `unit` that of the file's numbers: m, cm, mm, in or auto, which is mm for an
        STL and m for the others (a GLB has m always).
        """
        name = asked.pop("format")
        placement = to_placement(*(asked.pop(field) for field in ("size", "up", "pivot", "unit")))
        if name not in FORMATS:
            raise UserError(f"There is no format {shown(name)}; use {', '.join(FORMATS)}.")
        (request,) = admit(_request(asked))
        made: MeshReady = _end(
            follow(engine, session, request, alone=False, formats=(name,), placement=placement)
        )
        return _served(made.files[name], name), file_facts(made.facts)

    one, several = tuple[gr.FileData, dict], tuple[list, list]
    _add(sessions, guard, generate, {"prompt": (str, ...)}, settings, one)
    _add(sessions, guard, variants, {"prompt": (str, ...), "count": (int, 4)}, settings, several)
    _add(
        sessions,
        guard,
        blend,
        {"prompt": (str, ...), "other": (str, ...), "count": (int, 5)},
        unblended,
        several,
    )
    exported = {
        "format": (Literal[tuple(FORMATS)], "glb"),
        "size": (float, 0.0),
        "up": (Literal[UPS], "y"),
        "pivot": (Literal[PIVOTS], "model"),
    }
    # The unit is the last, so that calls by position from before there was one are still right.
    _add(sessions, guard, export, {"prompt": (str, ...), **exported}, settings | {"unit": AUTO}, one)


def _add(
    sessions: Sessions,
    guard: Guard,
    work: Callable[[Session, Admit, dict[str, Any]], Any],
    own: dict[str, tuple[Any, Any]],
    settings: dict[str, Any],
    gives: Any,
) -> None:
    """Add an endpoint called as `work` is, with parameters of its own (type, default) and the settings."""
    typed = own | {name: (TYPES.get(name, type(value)), value) for name, value in settings.items()}
    typed = {name: (int if name == "faces" else kind, value) for name, (kind, value) in typed.items()}

    def endpoint(page: gr.Request, *values: Any) -> Any:
        asker = visitor(page)

        def admit(*requests: Request) -> list[Request]:
            guard.admit(*requests, **asker)
            return list(requests)

        try:
            with guard.alone(**asker):
                return work(sessions.of(page.session_hash), admit, dict(zip(typed, values, strict=True)))
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None

    # Gradio reads names, types and defaults from these.
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("page", kind, annotation=gr.Request)]
    for name, (annotation, value) in typed.items():
        given = inspect.Parameter.empty if value is ... else value
        parameters.append(inspect.Parameter(name, kind, default=given, annotation=annotation))
    endpoint.__name__ = work.__name__
    endpoint.__doc__ = work.__doc__
    endpoint.__signature__ = inspect.Signature(parameters, return_annotation=gives)  # type: ignore[attr-defined]
    endpoint.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": gives}
    gr.api(endpoint, api_name=work.__name__, concurrency_limit=None)


def _request(asked: dict[str, Any]) -> Request:
    defaults = Request("")
    return to_request(*(asked.get(name, getattr(defaults, name)) for name in FIELDS))


def _end(events: Generator[Any, None, None]) -> Any:
    """The last of the events, a complete Made or Several."""
    for event in events:
        if isinstance(event, Stopped):
            raise UserError(event.sentence or "The request was cancelled.")
    return event


def _all(engine: Engine, session: Session, requests: list[Request]) -> tuple[list, list]:
    several: BatchProgress = _end(follow_batch(engine, session, requests, alone=False))
    files, facts = [], []
    for request, made in zip(requests, several.made, strict=True):
        if isinstance(made, MeshReady):
            files.append(_served(made.files["glb"], "glb").model_dump())
            facts.append(file_facts(made.facts))
        else:
            facts.append({"seed": request.seed, "error": made.sentence})
    return files, facts


def _whole(value: Any, name: str, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise UserError(f"{name} should be a whole number, {least} to {most}, not {shown(value)}.")
    return value


def _served(path: Path, name: str) -> Any:
    return gr.FileData(path=str(path), orig_name=path.name, mime_type=WRITERS[name].media_type)
