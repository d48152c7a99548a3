"""Object classes of the toy world, collected from the modules of this package."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from triplaneturbo.toyworld.scene.object_class import ObjectClass

OBJECT_CLASSES: dict[str, ObjectClass] = {
    thing.name: thing
    for module in sorted(found.name for found in pkgutil.iter_modules(__path__))
    for thing in import_module(f"{__name__}.{module}").OBJECT_CLASSES
}
