"""GLB: one binary glTF 2.0 file with everything in it."""

from __future__ import annotations

import numpy as np
import pygltflib as gltf
import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo import __version__
from triplaneturbo.mesh.io.common import checked, encode_image, to_file_axes
from triplaneturbo.mesh.io.registry import WriteOptions
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.placement import AS_MODELLED, Placement
from triplaneturbo.render.colors import srgb_to_linear

ROUGHNESS = 0.9
PLAIN_GREY = 0.6  # linear base colour of a mesh without texture and vertex colours


class _Buffer:
    """The one binary buffer, filled piece by piece, with its views and accessors."""

    def __init__(self) -> None:
        self.blob = bytearray()
        self.views: list[gltf.BufferView] = []
        self.accessors: list[gltf.Accessor] = []

    def view(self, data: bytes, target: int | None, name: str) -> int:
        """Append a piece, aligned to 4 bytes; returns the index of its view."""
        self.blob.extend(bytes(-len(self.blob) % 4))
        self.views.append(
            gltf.BufferView(
                buffer=0, byteOffset=len(self.blob), byteLength=len(data), target=target, name=name
            )
        )
        self.blob.extend(data)
        return len(self.views) - 1

    def accessor(self, array: np.ndarray, target: int, name: str) -> int:
        """Append an array [N, C] (or indices [N]) of float32, uint16 or uint32; returns its accessor."""
        kinds = {"float32": gltf.FLOAT, "uint16": gltf.UNSIGNED_SHORT, "uint32": gltf.UNSIGNED_INT}
        table = array.reshape(len(array), -1)
        self.accessors.append(
            gltf.Accessor(
                bufferView=self.view(np.ascontiguousarray(array).tobytes(), target, name),
                componentType=kinds[array.dtype.name],
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


def to_glb(mesh: Mesh, image: str = "png", placement: Placement = AS_MODELLED) -> bytes:
    """The mesh as a GLB file: y up, front +z, metres; the same mesh gives the same bytes.

    Metallic 0, roughness 0.9, single-sided. The texture is written as it is (glTF reads base colours as
    sRGB); vertex colours, which glTF has in linear light, are converted and written only without a texture.
    Tangents are written only beside a normal map, which needs them. Missing normals are computed.

    Args:
        mesh: in model space.
        image: "png" or "jpeg", of the texture; a normal map is always a PNG.
        placement: size and origin; y is up and the unit is the metre whatever it says, as glTF demands.

    Raises:
        UserError: an empty mesh, positions that are not finite, an unknown image kind, an impossible
            placement.
        ValueError: attributes that do not belong together, or a normal map without tangents.
    """
    mesh = checked(mesh, placement, "glb")
    if mesh.normal_map is not None and mesh.tangents is None:
        raise ValueError("a normal map needs tangents: viewers would each make up their own")
    buffer = _Buffer()
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
        light = srgb_to_linear(mesh.colors.clamp(0, 1).nan_to_num())
        attributes.COLOR_0 = buffer.accessor(light.numpy(), gltf.ARRAY_BUFFER, "colors")
    # The largest 16-bit index is reserved (it restarts a strip).
    index_type = np.uint16 if len(mesh.vertices) <= 65535 else np.uint32
    indices = mesh.faces.numpy().astype(index_type).reshape(-1)
    primitive = gltf.Primitive(
        attributes=attributes,
        indices=buffer.accessor(indices, gltf.ELEMENT_ARRAY_BUFFER, "indices"),
        material=0,
        mode=gltf.TRIANGLES,
    )
    document = gltf.GLTF2(
        asset=gltf.Asset(version="2.0", generator=f"TriplaneTurbo {__version__}"),
        scene=0,
        scenes=[gltf.Scene(nodes=[0], name="scene")],
        nodes=[gltf.Node(mesh=0, name="object")],
        meshes=[gltf.Mesh(primitives=[primitive], name="object")],
    )
    document.materials = [_material(mesh, document, buffer, image)]
    document.bufferViews, document.accessors = buffer.views, buffer.accessors
    blob = buffer.padded()
    document.buffers = [gltf.Buffer(byteLength=len(blob))]
    document.set_binary_blob(blob)
    return b"".join(document.save_to_bytes())


def _material(mesh: Mesh, document: gltf.GLTF2, buffer: _Buffer, image: str) -> gltf.Material:
    """The material; adds its images, textures and sampler to the document."""

    def texture(pixels: np.ndarray, kind: str, name: str) -> int:
        view = buffer.view(encode_image(pixels, kind), None, name)
        document.images.append(gltf.Image(bufferView=view, mimeType=f"image/{kind}", name=name))
        document.textures.append(gltf.Texture(sampler=0, source=len(document.images) - 1, name=name))
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
        shading.baseColorTexture = gltf.TextureInfo(index=texture(mesh.texture, image, "base color"))
    elif mesh.colors is None:
        shading.baseColorFactor = [PLAIN_GREY, PLAIN_GREY, PLAIN_GREY, 1.0]
    if mesh.normal_map is not None:
        index = texture(mesh.normal_map, "png", "normal map")
        material.normalTexture = gltf.NormalMaterialTexture(index=index, scale=1.0)
    if document.textures:
        # An atlas is never tiled, and repeating would blend its opposite borders.
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
    """Tangents [V, 4] in the file's axes, of unit length and handedness +-1."""
    direction = tangents[:, :3].nan_to_num()
    proper = direction.norm(dim=1, keepdim=True) > 1e-12
    direction = torch.where(proper, direction, direction.new_tensor([1.0, 0.0, 0.0]))
    sign = torch.where(tangents[:, 3:] < 0, -1.0, 1.0)
    return torch.cat((to_file_axes(F.normalize(direction, dim=1)), sign), dim=1)


def write(mesh: Mesh, options: WriteOptions) -> bytes:
    """Return a GLB for the registry."""
    return to_glb(mesh, options.image, options.placement)
