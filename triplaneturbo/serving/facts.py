"""The facts of a result, as --json, the manifest and the page's endpoints report them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from triplaneturbo import __version__

if TYPE_CHECKING:
    from triplaneturbo.pipeline import Result
    from triplaneturbo.serving.engine import Engine


def describe(result: Result, engine: Engine) -> dict[str, Any]:
    """A result as --json and the manifest tell it, but for its files."""
    settings = asdict(result.request)
    entry = {
        "prompt": settings.pop("prompt"),
        "seed": settings.pop("seed"),
        "vertices": len(result.mesh.vertices),
        "faces": len(result.mesh.faces),
        "surface_faces": result.surface_faces,
        "dropped_pieces": result.dropped.components,
        "memory_was_short": result.frugal,
        "seconds": {stage: round(seconds, 4) for stage, seconds in result.seconds.items()},
        "settings": settings,
        "model": engine.name,
        "device": str(engine.device),
        "precision": str(engine.dtype).removeprefix("torch."),
        "version": __version__,
    }
    if result.reading is not None:
        entry |= {"unknown_words": list(result.reading.unknown), "unclear": result.reading.why}
    return entry
