"""USDZ writer: an uncompressed zip of a USD scene and its textures, for Apple devices and USD programs.

The file is written by Pixar's library (usd-core), which is imported on first use.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.common import checked, encode_images, to_file_axes
from triplaneturbo.mesh.io.generation_metadata import KEY, GenerationMetadata
from triplaneturbo.mesh.io.gltf import PLAIN_GREY, ROUGHNESS
from triplaneturbo.mesh.io.registry import WriteOptions, unit_of
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.placement import AS_MODELLED, UNITS, Placement
from triplaneturbo.render.colors import srgb_to_linear


def to_usdz(
    mesh: Mesh,
    image: str = "png",
    placement: Placement = AS_MODELLED,
    metadata: GenerationMetadata | None = None,
) -> bytes:
    """Encode a mesh as a USDZ file: one mesh with a UsdPreviewSurface; the same mesh gives the same bytes.

    The file declares its unit and its up axis: y up (front +z) or z up (front -y); Apple requires y up.
    Metallic 0 and roughness 0.9, as in a GLB. Vertex colours are written in linear light, as USD requires,
    and only if there is no texture. USD does not store tangents: viewers compute them from the texture
    coordinates.

    Args:
        mesh: in model space.
        image: "png" or "jpeg", for the texture; a normal map is always a PNG.
        placement: size, unit, up axis and origin.
        metadata: how the mesh was generated, written as customLayerData; None: not written.

    Returns:
        The bytes of the file.

    Raises:
        UserError: the mesh is empty, positions are not finite, or the image format or placement is invalid.
        ValueError: attributes are inconsistent.
    """
    if image not in ("png", "jpeg"):
        raise UserError(f'Invalid texture format {image!r} of a USDZ; choose "png" or "jpeg".')
    mesh = checked(mesh, placement, "usdz")
    pictures: dict[str, tuple[np.ndarray, str]] = {}
    if mesh.texture is not None:
        pictures[f"texture.{'jpg' if image == 'jpeg' else image}"] = mesh.texture, image
    if mesh.normal_map is not None:
        pictures["normal.png"] = mesh.normal_map, "png"
    textures = encode_images(pictures)
    from pxr import Sdf

    # The library can only write to disk. The scene must be the first file of the package.
    with tempfile.TemporaryDirectory(prefix="triplaneturbo-") as folder:
        scene, package = Path(folder, "mesh.usdc"), Path(folder, "mesh.usdz")
        stage = _stage(mesh, placement, list(textures))
        if metadata is not None:
            stage.GetRootLayer().customLayerData = {KEY: metadata.as_text()}
        stage.Export(str(scene))
        for name, data in textures.items():
            Path(folder, name).write_bytes(data)
        # The package records the files' local times; its bytes must not depend on the clock or the zone.
        first = time.mktime((1980, 1, 1, 0, 0, 0, 0, 0, 0))
        writer = Sdf.ZipFileWriter.CreateNew(str(package))
        for name in (scene.name, *textures):
            os.utime(Path(folder, name), (first, first))
            writer.AddFile(str(Path(folder, name)), name)
        writer.Save()
        return package.read_bytes()


def _stage(mesh: Mesh, placement: Placement, textures: list[str]) -> Any:
    """Return the USD stage: /object, /object/mesh and /object/surface."""
    from pxr import Gf, Kind, Sdf, Usd, UsdGeom, UsdShade, Vt

    up = placement.up
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y if up == "y" else UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, UNITS[unit_of("usdz", placement)])
    root = UsdGeom.Xform.Define(stage, "/object")
    Usd.ModelAPI(root).SetKind(Kind.Tokens.component)
    stage.SetDefaultPrim(root.GetPrim())

    shape = UsdGeom.Mesh.Define(stage, "/object/mesh")
    points = to_file_axes(mesh.vertices, up).numpy()
    shape.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(points))
    shape.CreateExtentAttr([Gf.Vec3f(*corner.tolist()) for corner in (points.min(0), points.max(0))])
    shape.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(mesh.faces), 3, np.int32)))
    shape.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.faces.numpy().astype(np.int32).reshape(-1)))
    shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    shape.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(to_file_axes(mesh.normals, up).numpy()))
    shape.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    primvars = UsdGeom.PrimvarsAPI(shape)
    if mesh.uv is not None and textures:
        uv = mesh.uv.numpy().copy()
        uv[:, 1] = 1 - uv[:, 1]  # USD's v grows upward
        where = primvars.CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex)
        where.Set(Vt.Vec2fArray.FromNumpy(uv))
    colored = mesh.colors is not None and mesh.texture is None
    if mesh.colors is not None and colored:
        light = srgb_to_linear(mesh.colors.clamp(0, 1).nan_to_num()).numpy()
        shape.CreateDisplayColorPrimvar(UsdGeom.Tokens.vertex).Set(Vt.Vec3fArray.FromNumpy(light))

    material = UsdShade.Material.Define(stage, "/object/surface")
    _material(stage, material, colored, textures)
    UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(material)
    return stage


def _material(stage: Any, material: Any, colored: bool, textures: list[str]) -> None:
    """Define a UsdPreviewSurface and the shaders that feed it."""
    from pxr import Sdf, UsdShade

    kinds = Sdf.ValueTypeNames
    path = material.GetPath()

    def node(name: str, kind: str) -> Any:
        shader = UsdShade.Shader.Define(stage, path.AppendChild(name))
        shader.CreateIdAttr(kind)
        return shader

    def read(name: str, kind: str, of: str, result: Any) -> Any:
        """Return the output of a shader that reads a vertex attribute."""
        reader = node(name, kind)
        reader.CreateInput("varname", kinds.String).Set(of)
        return reader.CreateOutput("result", result)

    def texture(name: str, file: str, space: str, place: Any) -> Any:
        image = node(name, "UsdUVTexture")
        image.CreateInput("file", kinds.Asset).Set(Sdf.AssetPath(file))
        image.CreateInput("sourceColorSpace", kinds.Token).Set(space)
        image.CreateInput("wrapS", kinds.Token).Set("clamp")
        image.CreateInput("wrapT", kinds.Token).Set("clamp")
        image.CreateInput("st", kinds.Float2).ConnectToSource(place)
        image.CreateOutput("rgb", kinds.Float3)
        return image

    surface = node("preview", "UsdPreviewSurface")
    surface.CreateInput("roughness", kinds.Float).Set(ROUGHNESS)
    surface.CreateInput("metallic", kinds.Float).Set(0.0)
    color = surface.CreateInput("diffuseColor", kinds.Color3f)
    place = read("uv", "UsdPrimvarReader_float2", "st", kinds.Float2) if textures else None
    base = next((name for name in textures if name.startswith("texture.")), None)
    if base is not None:
        color.ConnectToSource(texture("baseColor", base, "sRGB", place).GetOutput("rgb"))
    elif colored:
        color.ConnectToSource(read("colors", "UsdPrimvarReader_float3", "displayColor", kinds.Float3))
    else:
        color.Set((PLAIN_GREY, PLAIN_GREY, PLAIN_GREY))
    if "normal.png" in textures:
        bumps = texture("bumps", "normal.png", "raw", place)
        bumps.CreateInput("scale", kinds.Float4).Set((2, 2, 2, 1))  # from [0, 1] to [-1, 1]
        bumps.CreateInput("bias", kinds.Float4).Set((-1, -1, -1, 0))
        surface.CreateInput("normal", kinds.Normal3f).ConnectToSource(bumps.GetOutput("rgb"))
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", kinds.Token))


def write(mesh: Mesh, options: WriteOptions) -> bytes:
    """Return a USDZ for the registry."""
    image = "jpeg" if options.texture_format == "jpeg" else "png"
    return to_usdz(mesh, image, options.placement, options.metadata)
