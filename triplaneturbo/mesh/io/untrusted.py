"""Meshes of unknown senders: nothing but the file itself is read, and its claims are checked first."""

from __future__ import annotations

import io
import json
import struct
import warnings
from pathlib import Path
from typing import Any

import trimesh
from PIL import Image, UnidentifiedImageError

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.reader import mesh_from
from triplaneturbo.mesh.mesh import Mesh

SUFFIXES = (".glb", ".obj", ".ply", ".stl")
MOST_TEXELS = 4096  # per side of a texture
_TEXTURES = 4  # of that size, together, with one for each part that has a texture
_IMAGES = ("PNG", "JPEG", "WEBP")
_MOST_NODES = 2000
_JSON, _MAGIC = 0x4E4F534A, b"glTF"
_PARTS = ("buffers", "images", "materials", "nodes", "accessors", "meshes")
# trimesh decodes the data of these while it loads a scene, whether they are required or not.
_DECODED = ("KHR_draco_mesh_compression", "KHR_materials_pbrSpecularGlossiness")


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
        _check_textures(scene)
        return scene

    return mesh_from(Path(path.name), load)


def _check_textures(scene: Any) -> None:
    """Raise ValueError if the textures of all parts, each with its own copy, are too large together."""
    widths, heights = [0], [0]
    for node in scene.graph.nodes_geometry:
        _, name = scene.graph[node]
        material = getattr(getattr(scene.geometry[name], "visual", None), "material", None)
        image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
        if image is not None:  # not decoded yet
            widths.append(image.size[0])
            heights.append(image.size[1])
    if max(widths) * sum(heights) > _TEXTURES * MOST_TEXELS**2:
        raise ValueError("the parts have too many large textures")


def _check_images(tree: dict[str, Any], data: bytes, name: str) -> None:
    """Check the headers of the images in a GLB, none of which is decoded.

    Args:
        tree: the JSON.
        data: the bytes of the first buffer.
        name: the file.

    Raises:
        UserError: an image is too large, or is neither a PNG, a JPEG nor a WebP.
        ValueError: an image is outside of the first buffer.
    """
    for image in tree.get("images") or []:
        view = tree["bufferViews"][image["bufferView"]]
        start = int(view.get("byteOffset", 0))
        if view.get("buffer", 0) != 0 or start < 0:
            raise ValueError
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                encoded = io.BytesIO(data[start : start + int(view["byteLength"])])
                side = max(Image.open(encoded, formats=_IMAGES).size)
        except Image.DecompressionBombError:
            side = MOST_TEXELS + 1
        except UnidentifiedImageError:
            raise UserError(
                f"{name} has a texture that is neither PNG, JPEG nor WebP; export it with PNG textures."
            ) from None
        if side > MOST_TEXELS:
            raise UserError(
                f"Cannot read {name}: a texture has more than {MOST_TEXELS} texels a side; reduce it."
            )


def _check_glb(data: bytes, name: str, most_faces: int) -> None:
    """Check the JSON of a GLB and the headers of its images.

    Raises:
        UserError: it is malformed, refers to other files, needs extensions that are decoded at once, has
            images that are too large, or claims more than `most_faces` faces.
    """
    try:
        magic, _, _, size, kind = struct.unpack_from("<4sIIII", data)
        if magic != _MAGIC or kind != _JSON:
            raise ValueError
        tree = json.loads(data[20 : 20 + size])
        parts = {key: tree.get(key) or [] for key in _PARTS}
        external = any("uri" in one for one in (*parts["buffers"], *parts["images"]))
        counts = [int(one["count"]) for one in parts["accessors"]]
        if any(not 0 <= count <= 3 * most_faces for count in counts):
            raise OverflowError
        faces = [
            sum(_faces(primitive, counts) for primitive in mesh["primitives"]) for mesh in parts["meshes"]
        ]
        placed = sum(faces[node["mesh"]] for node in parts["nodes"] if "mesh" in node)
        primitives = [one for mesh in parts["meshes"] for one in mesh["primitives"]]
        decoded = any(
            extension in (one.get("extensions") or {})
            for one in (*primitives, *parts["materials"])
            for extension in _DECODED
        )
        if not external:
            _check_images(tree, data[20 + size + 8 :], name)
    except OverflowError:
        raise UserError(f"{name} is too large; reduce it to at most {most_faces:,} faces.") from None
    except (AttributeError, IndexError, KeyError, RecursionError, struct.error, TypeError, ValueError):
        raise UserError(f"{name} is not a valid GLB file; export the mesh again.") from None
    if external:
        raise UserError(f"{name} refers to other files; export it with its textures embedded.")
    if tree.get("extensionsRequired") or decoded:
        raise UserError(
            f"{name} needs extensions of glTF; export it without compression, and with"
            " metallic-roughness materials."
        )
    if max(sum(counts) / 16, placed) > most_faces or len(parts["nodes"]) > _MOST_NODES:
        raise UserError(f"{name} is too large; reduce it to at most {most_faces:,} faces in few parts.")


def _faces(primitive: dict[str, Any], counts: list[int]) -> int:
    """Return the number of triangles of a primitive, at least."""
    accessor = primitive.get("indices", primitive["attributes"]["POSITION"])
    return counts[accessor] // 3
