"""3MF writer: a zip of XML for slicers, with colours at the corners of the triangles."""

from __future__ import annotations

from xml.sax.saxutils import escape

import numpy as np
import torch

from triplaneturbo.mesh.io.common import (
    checked,
    format_rows,
    nondegenerate,
    to_file_axes,
    vertex_colors,
    zip_files,
)
from triplaneturbo.mesh.io.generation_metadata import (
    THREEMF_METADATA,
    THREEMF_MODEL,
    GenerationMetadata,
)
from triplaneturbo.mesh.io.registry import WriteOptions, unit_of
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.placement import AS_MODELLED, Placement
from triplaneturbo.mesh.processing.clean import weld

_UNITS = {"m": "meter", "cm": "centimeter", "mm": "millimeter", "in": "inch"}
_CONTENT_TYPES = """<?xml version="1.0" encoding="UTF-8"?>
<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">
<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>
<Default Extension="model" ContentType="application/vnd.ms-package.3dmanufacturing-3dmodel+xml"/>
</Types>
"""
_RELATIONSHIPS = f"""<?xml version="1.0" encoding="UTF-8"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
<Relationship Target="/{THREEMF_MODEL}" Id="rel0" \
Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/>
</Relationships>
"""


def to_3mf(
    mesh: Mesh,
    placement: Placement = AS_MODELLED,
    metadata: GenerationMetadata | None = None,
) -> bytes:
    """Encode a mesh as a 3MF file: z up, as the format prescribes; the same mesh gives the same bytes.

    Colours are an `m:colorgroup` of sRGB colours, one at each corner of a triangle; a texture is sampled at
    the corners. Vertices on UV seams are welded, so that slicers see a closed surface.

    Args:
        mesh: in model space.
        placement: size, unit (millimetres by default; the file states it) and origin. Its up axis is ignored.
        metadata: how the mesh was generated, written as metadata of the model; None: not written.

    Returns:
        The bytes of the file.

    Raises:
        UserError: the mesh is empty, positions are not finite, or the placement is invalid.
    """
    mesh = checked(mesh, placement, "3mf")
    welded = weld(mesh.vertices)
    corners = mesh.faces
    faces = welded.index[corners]
    kept = nondegenerate(faces)
    corners, faces = corners[kept], faces[kept]
    positions = to_file_axes(mesh.vertices[welded.first], "z").double().numpy()
    colors = vertex_colors(mesh)
    palette, index = None, None
    if colors is not None:
        palette, index = torch.unique(colors.to(torch.uint8), dim=0, return_inverse=True)
        index = index[corners]  # [F, 3]
    parts = [
        '<?xml version="1.0" encoding="UTF-8"?>\n',
        f'<model unit="{_UNITS[unit_of("3mf", placement)]}" xml:lang="en-US"',
        ' xmlns="http://schemas.microsoft.com/3dmanufacturing/core/2015/02"',
        ' xmlns:m="http://schemas.microsoft.com/3dmanufacturing/material/2015/02"',
        ' xmlns:tt="urn:triplaneturbo:generation">\n',
        '<metadata name="Application">TriplaneTurbo</metadata>\n',
    ]
    if metadata is not None:
        text = escape(metadata.as_text())
        parts.append(f'<metadata name="{THREEMF_METADATA}" type="xs:string">{text}</metadata>\n')
    parts.append("<resources>\n")
    if palette is not None:
        parts.append('<m:colorgroup id="1">\n')
        parts.append(format_rows('<m:color color="#%02X%02X%02X"/>', palette.numpy()))
        parts.append("</m:colorgroup>\n")
    default = "" if palette is None else ' pid="1" pindex="0"'
    parts.append(f'<object id="2" type="model" name="object"{default}><mesh><vertices>\n')
    parts.append(format_rows('<vertex x="%.8g" y="%.8g" z="%.8g"/>', positions))
    parts.append("</vertices><triangles>\n")
    pattern, rows = '<triangle v1="%d" v2="%d" v3="%d"', faces.numpy()
    if index is not None:
        pattern += ' pid="1" p1="%d" p2="%d" p3="%d"'
        rows = np.concatenate((rows, index.numpy()), axis=1)
    parts.append(format_rows(f"{pattern}/>", rows))
    parts.append("</triangles></mesh></object>\n</resources>\n")
    parts.append('<build><item objectid="2"/></build>\n</model>\n')
    files = {
        "[Content_Types].xml": _CONTENT_TYPES,
        "_rels/.rels": _RELATIONSHIPS,
        THREEMF_MODEL: "".join(parts),
    }
    return zip_files({path: text.encode() for path, text in files.items()})


def write(mesh: Mesh, options: WriteOptions) -> bytes:
    """Return a 3MF for the registry."""
    return to_3mf(mesh, options.placement, options.metadata)
