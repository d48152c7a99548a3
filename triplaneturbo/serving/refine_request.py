"""RefineRequest: a generation whose result is refined. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from triplaneturbo.errors import UserError
from triplaneturbo.refine.options import STEP_LIMIT
from triplaneturbo.request import Request, shown
from triplaneturbo.serving.uploads import Uploads

PICTURE = "what the picture shows"
"""Prompt of an uploaded picture without one; the nearest caption replaces it."""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MESH_SUFFIXES = (".glb", ".obj", ".ply", ".stl")
UPLOAD_MOST = 32 << 20  # bytes
LENGTHS = (20, 60, 200)
"""The steps that the page offers."""


@dataclass(frozen=True)
class RefineRequest(Request):
    """A request whose field is refined by Path-Tracing Distillation before the mesh is extracted.

    Attributes:
        refine_steps: optimizer steps of the refinement.
        stopped_after: steps after which it was stopped early; 0: it was not.
        stop_reason: why, unless the user stopped it.
        upload: sha256 of an uploaded mesh, which is refined instead of a draft, or picture, toward which the
            draft is refined; "": none. See `Refinements.store_upload`.
    """

    refine_steps: int = 60
    stopped_after: int = 0
    stop_reason: str = ""
    upload: str = ""

    @classmethod
    def of(cls, draft: Request, refine_steps: int) -> RefineRequest:
        """Return the request for the refinement of a draft. A refined draft is refined from its start."""
        values = {field.name: getattr(draft, field.name) for field in fields(Request)}
        upload = draft.upload if isinstance(draft, RefineRequest) else ""
        return cls(**values, refine_steps=refine_steps, upload=upload)

    def draft(self) -> Request:
        """Return the request for the draft."""
        return Request(**{field.name: getattr(self, field.name) for field in fields(Request)})

    def checked(self) -> RefineRequest:
        """Validate all values; see `Request.checked`.

        Raises:
            UserError: a value is invalid, or the draft is a blend or has a look, which no single prompt
                describes.
        """
        steps = self.refine_steps
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= STEP_LIMIT:
            raise UserError(f"The refinement takes 1 to {STEP_LIMIT} steps, not {shown(steps)}.")
        checked = super().checked()
        assert isinstance(checked, RefineRequest)
        if checked.blend:
            raise UserError("A blend of two prompts cannot be refined; refine one of them alone.")
        if checked.look:
            raise UserError("A result with a look of its own cannot be refined; refine it without the look.")
        return checked


class RefineUploads(Uploads):
    """Meshes to refine, and pictures to refine toward.

    Args:
        folder: folder for the files; its creator deletes it.
        pictures: whether the model can be refined toward a picture alone; see `Domain.takes_pictures`.
    """

    most = UPLOAD_MOST

    def __init__(self, folder: Path, pictures: bool) -> None:
        super().__init__(folder)
        self.suffixes = MESH_SUFFIXES + (PICTURE_SUFFIXES if pictures else ())


def repeated(request: Request) -> list[Request]:
    """Return the requests that `Engine.again` may generate: none for a refinement, which is not repeated."""
    return [] if isinstance(request, RefineRequest) else [request]


def refinement_words(settings: Mapping[str, Any]) -> str:
    """Return "refined 60 steps" for the settings of a refined result; "" for those of a draft."""
    steps, stopped = settings.get("refine_steps"), settings.get("stopped_after")
    if not isinstance(steps, int):
        return ""
    if isinstance(stopped, int) and stopped:
        return f"refined {stopped} of {steps} steps"
    return f"refined {steps} steps" if steps != 1 else "refined 1 step"


def rounded(seconds: float) -> int:
    """Return an estimate rounded up to five seconds."""
    return 5 * max(1, -int(-seconds // 5))
