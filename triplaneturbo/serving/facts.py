"""Description of a result for --json, manifest.jsonl and the API endpoints."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from triplaneturbo import __version__

if TYPE_CHECKING:
    from triplaneturbo.pipeline import Result
    from triplaneturbo.serving.engine import Engine


def describe(result: Result, engine: Engine) -> dict[str, Any]:
    """Return the JSON fields of a result, except for its files."""
    settings = asdict(result.request)
    entry = {
        "prompt": settings.pop("prompt"),
        "seed": settings.pop("seed"),
        "vertices": len(result.mesh.vertices),
        "faces": len(result.mesh.faces),
        "surface_faces": result.surface_faces,
        "dropped_pieces": result.dropped.components,
        "memory_was_short": result.low_memory,
        "seconds": {stage: round(seconds, 4) for stage, seconds in result.seconds.items()},
        "settings": settings,
        "model": engine.name,
        "device": str(engine.device),
        "precision": str(engine.dtype).removeprefix("torch."),
        "version": __version__,
    }
    if result.reading is not None:
        entry |= {"unknown_words": list(result.reading.unknown), "unclear": result.reading.why}
    if result.look_reading is not None:
        look = result.look_reading
        entry |= {"look_unknown_words": list(look.unknown), "look_unclear": look.why}
    return entry
