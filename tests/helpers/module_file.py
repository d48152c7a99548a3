"""Loading a module from a file outside the package, as Blender and ComfyUI load the clients."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


def load_file(path: Path) -> Any:
    """Return the module in a file, which is executed again and not added to `sys.modules`."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
