"""Meshes of unknown senders: nothing but the file itself is read, and its claims are checked first."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import trimesh

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.reader import mesh_from
from triplaneturbo.mesh.mesh import Mesh

SUFFIXES = (".glb", ".obj", ".ply", ".stl")
MOST_TEXELS = 4096  # per side of a texture
_MOST_NODES = 2000
_JSON, _MAGIC = 0x4E4F534A, b"glTF"


def load_untrusted(path: Path, most_faces: int) -> Mesh | None:
    """Read a GLB, OBJ, PLY or STL file without anything that it refers to; see `load_mesh`.

    The file is parsed from memory, where trimesh finds no material or texture files. None of the four
    formats contains code or pickles. A GLB may claim more data than it has, so its claims are checked
    before any memory is reserved.

    Args:
        path: the file, whose size the caller has limited.
        most_faces: maximum number of faces of a GLB with all its instances.

    Raises:
        UserError: the file is of another format, broken, refers to other files, or claims too much.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"Cannot read {path.name}; use a file that ends in {', '.join(SUFFIXES)}.")
    data = path.read_bytes()
    if suffix == ".glb":
        _check_glb(data, path.name, most_faces)

    def load() -> Any:
        scene = trimesh.load_scene(io.BytesIO(data), file_type=suffix[1:], process=False)
        for geometry in scene.geometry.values():
            material = getattr(geometry.visual, "material", None)
            for image in (getattr(material, "baseColorTexture", None), getattr(material, "image", None)):
                if image is not None and max(image.size) > MOST_TEXELS:  # not decoded yet
                    raise ValueError(f"a texture has more than {MOST_TEXELS} texels a side")
        return scene

    return mesh_from(Path(path.name), load)


def _check_glb(data: bytes, name: str, most_faces: int) -> None:
    """Check the JSON of a GLB.

    Raises:
        UserError: it is malformed, refers to other files, or claims more than `most_faces` faces.
    """
    try:
        magic, _, _, size, kind = struct.unpack_from("<4sIIII", data)
        if magic != _MAGIC or kind != _JSON:
            raise ValueError
        tree = json.loads(data[20 : 20 + size])
        parts = {key: tree.get(key) or [] for key in ("buffers", "images", "nodes", "accessors", "meshes")}
        external = any("uri" in one for one in (*parts["buffers"], *parts["images"]))
        counts = [int(one["count"]) for one in parts["accessors"]]
        if any(not 0 <= count <= 3 * most_faces for count in counts):
            raise OverflowError
        faces = [
            sum(_faces(primitive, counts) for primitive in mesh["primitives"]) for mesh in parts["meshes"]
        ]
        placed = sum(faces[node["mesh"]] for node in parts["nodes"] if "mesh" in node)
    except OverflowError:
        raise UserError(f"{name} is too large; reduce it to at most {most_faces:,} faces.") from None
    except (AttributeError, IndexError, KeyError, RecursionError, struct.error, TypeError, ValueError):
        raise UserError(f"{name} is not a valid GLB file; export the mesh again.") from None
    if external:
        raise UserError(f"{name} refers to other files; export it with its textures embedded.")
    if tree.get("extensionsRequired"):
        raise UserError(f"{name} needs extensions of glTF; export it without compression.")
    if max(sum(counts) / 16, placed) > most_faces or len(parts["nodes"]) > _MOST_NODES:
        raise UserError(f"{name} is too large; reduce it to at most {most_faces:,} faces in few parts.")


def _faces(primitive: dict[str, Any], counts: list[int]) -> int:
    """Return the number of triangles of a primitive, at least."""
    accessor = primitive.get("indices", primitive["attributes"]["POSITION"])
    return counts[accessor] // 3
