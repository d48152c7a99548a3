"""The page's work for programs.

from gradio_client import Client

file, facts = Client("http://127.0.0.1:7860").predict("a red mushroom", seed=1, api_name="/generate")
"""

# No "from __future__ import annotations" here: Gradio reads the endpoint's types from its annotations.
from typing import TYPE_CHECKING, Any, Literal

import gradio as gr

from triplaneturbo.errors import UserError
from triplaneturbo.request import DEFAULT_FACES
from triplaneturbo.ui.form import to_request
from triplaneturbo.ui.jobs import Made, Stopped, follow
from triplaneturbo.ui.panels import file_facts

if TYPE_CHECKING:
    from triplaneturbo.engine import Engine
    from triplaneturbo.limits import Guard
    from triplaneturbo.ui.sessions import Sessions


def build(engine: "Engine", sessions: "Sessions", guard: "Guard") -> None:
    """Add the endpoint /generate to the Blocks that is being built."""
    config = engine.model.config

    def generate(
        page: gr.Request,
        prompt: str,
        seed: int = 0,
        steps: int = config.steps,
        resolution: int = config.grid_resolution,
        faces: int = DEFAULT_FACES,
        texture_size: int = 1024,
        unwrap: Literal["fast", "xatlas", "none"] = "fast",
        normal_map: bool = True,
    ) -> tuple[gr.FileData, dict]:
        """Make a textured mesh from a prompt.

        Gives the GLB file and a dictionary of facts: vertices, faces, seconds of each stage, settings, files
        with their sha256. `faces` 0 keeps all faces; `unwrap` "none" gives colours at the vertices and no
        texture. What cannot be is an error of one sentence.
        """
        visitor = {"session": page.session_hash, "address": page.client.host if page.client else None}
        made: Made | None = None
        try:
            request = to_request(prompt, seed, steps, resolution, faces, texture_size, unwrap, normal_map)
            guard.admit(request, **visitor)
            with guard.alone(**visitor):
                for event in follow(engine, sessions.of(page.session_hash), request, alone=False):
                    if isinstance(event, Stopped):
                        raise UserError(event.sentence or "The request was cancelled.")
                    if isinstance(event, Made):
                        made = event
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        assert made is not None
        return _served(made), file_facts(made.facts)

    gr.api(generate, api_name="generate", concurrency_limit=None)


def _served(made: Made) -> Any:
    path = made.files["glb"]
    return gr.FileData(path=str(path), orig_name=path.name, mime_type="model/gltf-binary")
