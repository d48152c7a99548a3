"""Text to UV-textured meshes in one pass.

    from triplaneturbo import Pipeline

    mesh = Pipeline.from_pretrained("small")("a red mushroom", seed=1)
    mesh.save("mushroom.glb")

The public names are imported when they are first used, so that `import triplaneturbo` takes no time.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # type checkers take it for True; importing `typing` would take most of the time here
if TYPE_CHECKING:
    from triplaneturbo.errors import UserError
    from triplaneturbo.mesh.mesh import Mesh
    from triplaneturbo.mesh.placement import Placement
    from triplaneturbo.pipeline import Pipeline
    from triplaneturbo.request import Request

__version__ = "0.1.0"

__all__ = ["Mesh", "Pipeline", "Placement", "Request", "UserError", "__version__"]

_MODULES = {
    "Mesh": "triplaneturbo.mesh.mesh",
    "Pipeline": "triplaneturbo.pipeline",
    "Placement": "triplaneturbo.mesh.placement",
    "Request": "triplaneturbo.request",
    "UserError": "triplaneturbo.errors",
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value  # so that it is looked up once
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
