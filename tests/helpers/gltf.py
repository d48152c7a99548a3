"""Arrays of a GLB exactly as they are in the file."""

from __future__ import annotations

import numpy as np
import pygltflib

_TYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


def accessor(glb: bytes, name: str) -> np.ndarray:
    """Return an attribute of the first primitive, or "indices", [N, width], read through the accessors."""
    document = pygltflib.GLTF2.load_from_bytes(glb)
    primitive = document.meshes[0].primitives[0]
    index = primitive.indices if name == "indices" else getattr(primitive.attributes, name)
    entry = document.accessors[index]
    view = document.bufferViews[entry.bufferView]
    first = (view.byteOffset or 0) + (entry.byteOffset or 0)
    kind, width = np.dtype(_TYPES[entry.componentType]), _WIDTHS[entry.type]
    values = np.frombuffer(document.binary_blob(), kind, entry.count * width, first)
    return values.reshape(entry.count, width)
