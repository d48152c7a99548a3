"""3D Gaussians as a PLY in the INRIA layout, which splat viewers read.

One binary little-endian vertex element of floats: x y z, nx ny nz (zeros), f_dc_0..2 (colours as
coefficients of degree 0), opacity (logits), scale_0..2 (logarithms), rot_0..3 (w x y z). Splat files
have x right, y down and the front toward +z, as scenes that COLMAP reconstructs: viewers turn them
upright. A mesh's PLY (points.py) has other properties and y up.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from triplaneturbo.errors import UserError
from triplaneturbo.representations.gaussians import SH_0, Gaussians
from triplaneturbo.utils import quaternions as rotations

_NAMES = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
_NEEDED = tuple(name for name in _NAMES if not name.startswith("n"))
_KINDS = {
    **{"char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4"},
    **{"int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4"},
    **{"float": "<f4", "double": "<f8", "float32": "<f4", "float64": "<f8"},
}
_LONGEST_HEADER = 2**16  # bytes
# Model axes (z up, front +x) to file axes: (x, y, z) -> (-y, -z, x).
_TO_FILE = (0.5, 0.5, -0.5, 0.5)
_TO_MODEL = (0.5, -0.5, 0.5, -0.5)


def encode_splats(gaussians: Gaussians) -> bytes:
    """Return a splat PLY; the same Gaussians give the same bytes. Quaternions are normalized.

    Raises:
        UserError: there are no Gaussians, or a parameter is not finite.
    """
    if len(gaussians) == 0:
        raise UserError("There are no Gaussians to save; start from another mesh or prompt.")
    values = {name: value.detach().cpu().float() for name, value in gaussians.named_parameters()}
    if not all(torch.isfinite(value).all() for value in values.values()):
        raise UserError("The Gaussians have values that are not finite; lower the learning rates.")
    x, y, z = values["means"].unbind(1)
    turned = rotations.multiply(torch.tensor(_TO_FILE), values["quaternions"])
    columns = (
        torch.stack((-y, -z, x), dim=1),
        torch.zeros(len(gaussians), 3),
        (values["colors"] - 0.5) / SH_0,
        values["opacity_logits"][:, None],
        values["log_scales"],
        F.normalize(turned, dim=1),
    )
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment TriplaneTurbo 3D Gaussians",
        f"element vertex {len(gaussians)}",
        *(f"property float {name}" for name in _NAMES),
        "end_header",
    ]
    table = torch.cat(columns, dim=1).numpy().astype("<f4")
    return ("\n".join(header) + "\n").encode() + table.tobytes()


def decode_splats(data: bytes) -> Gaussians:
    """Return the Gaussians of a splat PLY, also of another program.

    Properties may have any order and kind; unknown ones are ignored, and so are colours that depend on
    the view (f_rest).

    Raises:
        UserError: it is no splat PLY, it is incomplete, or values are not finite.
    """
    columns, count, start = _header(data)
    missing = [name for name in _NEEDED if name not in columns.names]  # type: ignore[operator]
    if missing:
        raise UserError(
            f"This PLY has no 3D Gaussians (no {missing[0]}); a mesh PLY cannot be read as splats."
        )
    if len(data) - start < count * columns.itemsize:
        raise UserError("The splat PLY is incomplete; copy or download it again.")
    table = np.frombuffer(data, columns, count, start)

    def read(*names: str) -> Tensor:
        with np.errstate(over="ignore"):  # a double may be beyond a float; it is then found not finite
            return torch.from_numpy(np.stack([table[name].astype(np.float32) for name in names], axis=1))

    x, y, z = read("x", "y", "z").unbind(1)
    turned = F.normalize(read("rot_0", "rot_1", "rot_2", "rot_3"), dim=1)
    parts = (
        torch.stack((z, -x, -y), dim=1),
        read("scale_0", "scale_1", "scale_2"),
        rotations.multiply(torch.tensor(_TO_MODEL), turned),
        read("opacity")[:, 0],
        0.5 + SH_0 * read("f_dc_0", "f_dc_1", "f_dc_2"),
    )
    if not all(torch.isfinite(part).all() for part in parts):
        raise UserError("The splat PLY has values that are not finite numbers; use another file.")
    if not (parts[2].norm(dim=1) > 0.5).all():
        raise UserError("The splat PLY has rotations of length zero; use another file.")
    return Gaussians(*parts)


def _header(data: bytes) -> tuple[np.dtype, int, int]:
    """Return the vertex columns, the number of vertices and the offset of the data.

    Raises:
        UserError: the header is not that of a binary PLY that begins with vertices.
    """
    invalid = UserError("Not a binary little-endian PLY that begins with vertices; use another file.")
    head, mark, _ = data[:_LONGEST_HEADER].partition(b"end_header\n")
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    if not mark or lines[:1] != [["ply"]] or ["format", "binary_little_endian", "1.0"] not in lines:
        raise invalid
    elements = [index for index, line in enumerate(lines) if line[:1] == ["element"]]
    if not elements or lines[elements[0]][1:2] != ["vertex"] or len(lines[elements[0]]) != 3:
        raise invalid
    number = lines[elements[0]][2]
    last = elements[1] if len(elements) > 1 else len(lines)
    properties = [line[1:] for line in lines[elements[0] : last] if line[:1] == ["property"]]
    plain = all(len(entry) == 2 and entry[0] in _KINDS for entry in properties)
    unique = len({entry[-1] for entry in properties}) == len(properties)
    if not (plain and unique and number.isdecimal() and 0 < len(number) < 11 and int(number) > 0):
        raise invalid
    columns = np.dtype([(name, _KINDS[kind]) for kind, name in properties])
    return columns, int(number), len(head) + len(mark)
