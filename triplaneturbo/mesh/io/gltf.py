"""GLB writer: a single binary glTF 2.0 file with geometry, material and textures."""

from __future__ import annotations

import numpy as np
import pygltflib as gltf
import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo import __version__
from triplaneturbo.mesh.io.common import checked, encode_images, to_file_axes
from triplaneturbo.mesh.io.generation_metadata import KEY, GenerationMetadata
from triplaneturbo.mesh.io.registry import QUALITY, WriteOptions
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.placement import AS_MODELLED, Placement
from triplaneturbo.render.colors import srgb_to_linear

ROUGHNESS = 0.9
WEBP_EXTENSION = "EXT_texture_webp"
PLAIN_GREY = 0.6  # linear base colour of a mesh with neither texture nor vertex colours


class _Buffer:
    """Builder of the file's single binary buffer, with its buffer views and accessors."""

    def __init__(self) -> None:
        self.blob = bytearray()
        self.views: list[gltf.BufferView] = []
        self.accessors: list[gltf.Accessor] = []

    def view(self, data: bytes, target: int | None, name: str) -> int:
        """Append data, aligned to 4 bytes; return the index of its buffer view."""
        self.blob.extend(bytes(-len(self.blob) % 4))
        self.views.append(
            gltf.BufferView(
                buffer=0, byteOffset=len(self.blob), byteLength=len(data), target=target, name=name
            )
        )
        self.blob.extend(data)
        return len(self.views) - 1

    def accessor(self, array: np.ndarray, target: int, name: str) -> int:
        """Append an array [N, C] or [N] of float32, uint16 or uint32; return the index of its accessor."""
        component_types = {"float32": gltf.FLOAT, "uint16": gltf.UNSIGNED_SHORT, "uint32": gltf.UNSIGNED_INT}
        table = array.reshape(len(array), -1)
        self.accessors.append(
            gltf.Accessor(
                bufferView=self.view(np.ascontiguousarray(array).tobytes(), target, name),
                componentType=component_types[array.dtype.name],
                count=len(table),
                type={1: gltf.SCALAR, 2: gltf.VEC2, 3: gltf.VEC3, 4: gltf.VEC4}[table.shape[1]],
                min=table.min(0).tolist(),
                max=table.max(0).tolist(),
                name=name,
            )
        )
        return len(self.accessors) - 1

    def padded(self) -> bytes:
        self.blob.extend(bytes(-len(self.blob) % 4))
        return bytes(self.blob)


def to_glb(
    mesh: Mesh,
    image: str = "png",
    placement: Placement = AS_MODELLED,
    metadata: GenerationMetadata | None = None,
    quality: int = QUALITY,
    reference_vertices: Tensor | None = None,
) -> bytes:
    """Encode a mesh as a GLB file: y up, front +z, in metres; the same mesh gives the same bytes.

    The material has metallic 0 and roughness 0.9 and is single-sided. The texture is written unchanged (glTF
    base colour textures are sRGB); vertex colours are converted to linear light, as glTF requires, and
    written only if there is no texture. Tangents are written only with a normal map. Missing normals are
    computed. With levels of detail, the default scene has the first one, and a second scene has all.

    Args:
        mesh: in model space.
        image: "png" or "jpeg": the texture; a normal map is then a PNG. "webp": both, by EXT_texture_webp,
            which not all programs read. "webp+png": both twice, so that all programs can show the file.
        placement: size and origin. Its up axis and unit are ignored: glTF requires y up and metres.
        metadata: how the mesh was generated, written as `asset.extras`; None: not written.
        quality: of JPEG and WebP images, 0 to 100.
        reference_vertices: [W, 3], the object that the mesh is a coarser version of, which size and origin
            refer to; None: the mesh's own.

    Returns:
        The bytes of the file.

    Raises:
        UserError: the mesh is empty, positions are not finite, or the image format or placement is invalid.
        ValueError: attributes are inconsistent, or a normal map comes without tangents.
    """
    if reference_vertices is None:
        reference_vertices = mesh.vertices.detach().cpu().float()
    levels = [checked(level, placement, "glb", reference_vertices) for level in (mesh, *mesh.lods)]
    if any(level.normal_map is not None and level.tangents is None for level in levels):
        raise ValueError("a mesh with a normal_map must have tangents: viewers compute differing ones")
    buffer = _Buffer()
    names = ["object"] if len(levels) == 1 else [f"object_LOD{level}" for level in range(len(levels))]
    asset = gltf.Asset(version="2.0", generator=f"TriplaneTurbo {__version__}")
    if metadata is not None:
        asset.extras = {KEY: metadata.as_dict()}
    document = gltf.GLTF2(
        asset=asset,
        scene=0,
        scenes=[gltf.Scene(nodes=[0], name="scene")],
        nodes=[gltf.Node(mesh=index, name=name) for index, name in enumerate(names)],
        meshes=[
            gltf.Mesh(primitives=[_primitive(level, buffer)], name=name)
            for level, name in zip(levels, names, strict=True)
        ],
    )
    if len(levels) > 1:
        # Not MSFT_lod: Babylon.js, and so the page's viewer, shows nothing of a file with this extension.
        document.scenes.append(gltf.Scene(nodes=list(range(len(levels))), name="levels of detail"))
    document.materials = [_material(levels[0], document, buffer, image, quality)]
    document.bufferViews, document.accessors = buffer.views, buffer.accessors
    blob = buffer.padded()
    document.buffers = [gltf.Buffer(byteLength=len(blob))]
    document.set_binary_blob(blob)
    return b"".join(document.save_to_bytes())


def _primitive(mesh: Mesh, buffer: _Buffer) -> gltf.Primitive:
    """Return the geometry of a mesh whose values are those of the file, except for its axes."""
    attributes = gltf.Attributes(
        POSITION=buffer.accessor(to_file_axes(mesh.vertices).numpy(), gltf.ARRAY_BUFFER, "positions"),
        NORMAL=buffer.accessor(to_file_axes(mesh.normals).numpy(), gltf.ARRAY_BUFFER, "normals"),
    )
    if mesh.uv is not None and (mesh.texture is not None or mesh.normal_map is not None):
        attributes.TEXCOORD_0 = buffer.accessor(mesh.uv.numpy(), gltf.ARRAY_BUFFER, "uv")
    if mesh.normal_map is not None and mesh.tangents is not None:
        tangents = _unit_tangents(mesh.tangents)
        attributes.TANGENT = buffer.accessor(tangents.numpy(), gltf.ARRAY_BUFFER, "tangents")
    if mesh.colors is not None and mesh.texture is None:
        linear_colors = srgb_to_linear(mesh.colors.clamp(0, 1).nan_to_num())
        attributes.COLOR_0 = buffer.accessor(linear_colors.numpy(), gltf.ARRAY_BUFFER, "colors")
    # The largest 16-bit index is reserved (primitive restart).
    index_type = np.uint16 if len(mesh.vertices) <= 65535 else np.uint32
    indices = mesh.faces.numpy().astype(index_type).reshape(-1)
    return gltf.Primitive(
        attributes=attributes,
        indices=buffer.accessor(indices, gltf.ELEMENT_ARRAY_BUFFER, "indices"),
        material=0,
        mode=gltf.TRIANGLES,
    )


def _material(mesh: Mesh, document: gltf.GLTF2, buffer: _Buffer, image: str, quality: int) -> gltf.Material:
    """Return the material, and add its images, textures and sampler to the document."""

    pictures: dict[str, tuple[np.ndarray, str]] = {}
    if mesh.texture is not None:
        pictures["base color"] = mesh.texture, image
    if mesh.normal_map is not None:
        pictures["normal map"] = mesh.normal_map, image if image.startswith("webp") else "png"
    files = encode_images(
        {
            (name, kind): (pixels, kind)
            for name, (pixels, kinds) in pictures.items()
            for kind in kinds.split("+")
        },
        quality,
    )

    def source(name: str, kind: str) -> int:
        view = buffer.view(files[name, kind], None, name)
        document.images.append(gltf.Image(bufferView=view, mimeType=f"image/{kind}", name=name))
        return len(document.images) - 1

    def texture(name: str) -> int:
        first, _, fallback = pictures[name][1].partition("+")
        if first != "webp":
            found = gltf.Texture(sampler=0, source=source(name, first), name=name)
        else:
            found = gltf.Texture(sampler=0, name=name)
            if fallback:
                found.source = source(name, fallback)
            found.extensions = {WEBP_EXTENSION: {"source": source(name, first)}}
        document.textures.append(found)
        return len(document.textures) - 1

    shading = gltf.PbrMetallicRoughness(metallicFactor=0.0, roughnessFactor=ROUGHNESS)
    material = gltf.Material(
        pbrMetallicRoughness=shading,
        doubleSided=False,
        alphaMode=gltf.OPAQUE,
        alphaCutoff=None,
        name="surface",
    )
    if mesh.texture is not None:
        shading.baseColorTexture = gltf.TextureInfo(index=texture("base color"))
    elif mesh.colors is None:
        shading.baseColorFactor = [PLAIN_GREY, PLAIN_GREY, PLAIN_GREY, 1.0]
    if mesh.normal_map is not None:
        material.normalTexture = gltf.NormalMaterialTexture(index=texture("normal map"), scale=1.0)
    if document.textures:
        if image.startswith("webp"):
            document.extensionsUsed.append(WEBP_EXTENSION)
            if "+" not in image:
                document.extensionsRequired.append(WEBP_EXTENSION)
        # An atlas is not tiled: repeating would blend texels of opposite borders.
        document.samplers = [
            gltf.Sampler(
                magFilter=gltf.LINEAR,
                minFilter=gltf.LINEAR_MIPMAP_LINEAR,
                wrapS=gltf.CLAMP_TO_EDGE,
                wrapT=gltf.CLAMP_TO_EDGE,
            )
        ]
    return material


def _unit_tangents(tangents: Tensor) -> Tensor:
    """Return tangents [V, 4] in the file's axes, with unit length and handedness +-1."""
    direction = tangents[:, :3].nan_to_num()
    nonzero = direction.norm(dim=1, keepdim=True) > 1e-12
    direction = torch.where(nonzero, direction, direction.new_tensor([1.0, 0.0, 0.0]))
    sign = torch.where(tangents[:, 3:] < 0, -1.0, 1.0)
    return torch.cat((to_file_axes(F.normalize(direction, dim=1)), sign), dim=1)


def write(mesh: Mesh, options: WriteOptions) -> bytes:
    """Return a GLB for the registry."""
    return to_glb(
        mesh,
        options.texture_format,
        options.placement,
        options.metadata,
        options.quality,
        options.reference_vertices,
    )
