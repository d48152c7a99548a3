"""Tools for agents, by MCP at /gradio_api/mcp: generate, variants, export, refine and words.

The docstring of a tool is what an agent reads. Files are served for ten minutes.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.request import DEFAULT_FACES, Request, shown
from triplaneturbo.serving.access import is_local
from triplaneturbo.serving.batch_jobs import BatchProgress, follow_batch, seeds
from triplaneturbo.serving.file_options import DEFAULT_FILES, FileOptions
from triplaneturbo.serving.jobs import MeshReady, Stopped, follow
from triplaneturbo.serving.output_files import FORMATS
from triplaneturbo.serving.purposes import PURPOSES
from triplaneturbo.serving.refine_request import LENGTHS, RefineRequest

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.limits import RequestLimiter
    from triplaneturbo.serving.sessions import Session, Sessions

MOST_VARIANTS = 8
_FACTS = ("prompt", "seed", "vertices", "faces", "printable", "check", "unknown_words", "unclear")


def build(engine: Engine, sessions: Sessions, guard: RequestLimiter) -> dict[str, str]:
    """Add the tools to the current Blocks; return their endpoints by the name of the tool."""

    def generate(page: gr.Request, prompt: str, seed: int = 0, faces: int = DEFAULT_FACES) -> str:
        """Generate a textured 3D mesh of one object from a text prompt; return the URL of a GLB file.

        Do not use this for scenes of several objects, for images, or to change an existing mesh. Call
        `words` first: the built-in model knows a small vocabulary and ignores other words.

        Args:
            prompt: one object with its colour and material, such as "a red mushroom".
            seed: another seed gives another object, 0 to 4294967295.
            faces: maximum number of faces, at least 100; 0 keeps all.
        """
        with _admitted(guard, page, _request(engine, prompt, seed, faces)) as requests:
            return _one(engine, sessions.of(None), requests[0], "glb", page)

    def variants(page: gr.Request, prompt: str, count: int = 4, seed: int = 0) -> str:
        """Generate several meshes of one prompt with consecutive seeds; return the URLs of GLB files.

        Do not use this for one mesh, or for several prompts: call `generate` for each of them.

        Args:
            prompt: one object with its colour and material, such as "a red mushroom".
            count: number of meshes, 1 to 8.
            seed: seed of the first mesh.
        """
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_VARIANTS:
            raise gr.Error(f"The count must be 1 to {MOST_VARIANTS}, not {shown(count)}.")
        wanted = seeds(_request(engine, prompt, seed, DEFAULT_FACES), count)
        with _admitted(guard, page, *wanted) as requests:
            batch: BatchProgress = _end(follow_batch(engine, sessions.of(None), requests, alone=False))
            meshes = [
                _described(made, "glb", page)
                if isinstance(made, MeshReady)
                else {"seed": request.seed, "error": made.sentence}
                for request, made in zip(requests, batch.made, strict=True)
            ]
            return json.dumps({"meshes": meshes})

    def export(
        page: gr.Request,
        prompt: str,
        format: Literal[tuple(FORMATS)] = "glb",  # type: ignore[valid-type]
        seed: int = 0,
        purpose: Literal["", "print", "game", "web", "ar"] = "",
    ) -> str:
        """Export the mesh of a prompt and seed as a file for a purpose; return its URL.

        Do not use this to convert files of other programs. With the prompt and seed of an earlier `generate`,
        it is the same object.

        Args:
            prompt: as for `generate`.
            format: glb, obj (a zip with material and texture), ply, stl, 3mf (in colour) or usdz.
            seed: as for `generate`.
            purpose: print (a closed solid of 100 mm), game (10,000 faces and levels of detail), web (at most
                1 MB), ar (0.5 m, on the ground), or empty.
        """
        if format not in FORMATS:
            raise gr.Error(f"Unknown format {shown(format)}; use one of {', '.join(FORMATS)}.")
        if purpose and purpose not in PURPOSES:
            raise gr.Error(f"Unknown purpose {shown(purpose)}; use one of {', '.join(PURPOSES)}.")
        request, options = _request(engine, prompt, seed, DEFAULT_FACES), DEFAULT_FILES
        if purpose:
            request, options = PURPOSES[purpose].apply(request, options)
        with _admitted(guard, page, request) as requests:
            return _one(engine, sessions.of(None), requests[0], format, page, options)

    def refine(page: gr.Request, prompt: str, seed: int = 0, refine_steps: int = LENGTHS[0]) -> str:
        """Refine the mesh of a prompt and seed by score distillation; return the URL of a GLB file.

        Do not use this first: it takes minutes, occupies the server, and shared servers forbid it. Call
        `generate` first, and refine only a result that is worth it.

        Args:
            prompt: as for `generate`.
            seed: as for `generate`.
            refine_steps: 20, 60 or 200; more are slower.
        """
        wanted = RefineRequest.of(_request(engine, prompt, seed, DEFAULT_FACES), refine_steps)
        with _admitted(guard, page, wanted) as requests:
            return _one(engine, sessions.of(None), requests[0], "glb", page)

    def words() -> str:
        """List the words that prompts may use, by kind, with example prompts.

        Do not use this to check a prompt of a model with an open vocabulary: it says that any words are fine.
        """
        vocabulary = engine.domain.vocabulary
        if vocabulary is None:
            return json.dumps({"any_words": True})
        return json.dumps({**vocabulary.words, "examples": list(vocabulary.examples)})

    tools: tuple[Callable[..., str], ...] = (generate, variants, export, refine, words)
    for tool in tools:
        # Not queued by Gradio, so that the tool gets the agent's own request; the engine has a queue.
        gr.api(tool, api_name=f"mcp_{tool.__name__}", queue=False)
    return {tool.__name__: f"/mcp_{tool.__name__}" for tool in tools}


def _request(engine: Engine, prompt: str, seed: int, faces: int) -> Request:
    """Return a request with the model's number of steps, to which the server's limit applies."""
    return Request(prompt, seed=seed, faces=faces or None, steps=engine.default_steps(""))


@contextmanager
def _admitted(guard: RequestLimiter, page: gr.Request, *requests: Request) -> Iterator[list[Request]]:
    """Check the limits of the agent, as for a visitor of its address; turn errors into those of Gradio."""
    # The request is Starlette's, as Gradio does not queue the call: it has no session.
    address = page.client.host if page.client else None
    who: dict[str, Any] = {"session": None, "address": address, "local": is_local(page.headers, address)}
    try:
        checked = [request.checked() for request in requests]
        guard.admit(*checked, **who)
        with guard.alone(**who):
            yield checked
    except UserError as error:
        raise gr.Error(str(error), print_exception=False) from None


def _one(
    engine: Engine,
    session: Session,
    request: Request,
    format: str,
    page: gr.Request,
    options: FileOptions = DEFAULT_FILES,
) -> str:
    """Generate a mesh and return its description as JSON."""
    made = _end(follow(engine, session, request, alone=False, formats=(format,), options=options))
    return json.dumps(_described(made, format, page))


def _end(events: Generator[Any, None, None]) -> Any:
    """Consume the events and return the last. Raise UserError if the request failed or was cancelled."""
    for event in events:
        if isinstance(event, Stopped):
            raise UserError(event.sentence or "The request was cancelled.")
    return event


def _described(made: MeshReady, format: str, page: gr.Request) -> dict[str, Any]:
    """Return the URL of a file and the facts that help an agent to judge the mesh."""
    base = page.headers.get("x-gradio-server", ".")  # set by the route filter
    path = urllib.parse.quote(made.files[format].as_posix())
    facts = {name: made.facts[name] for name in _FACTS if name in made.facts}
    return {"url": f"{base}/gradio_api/file={path}", "bytes": made.facts["files"][0]["bytes"], **facts}
