"""Splat PLY: layout, axes, round trip, and files of other programs or with faults."""

import numpy as np
import pytest
import torch
import trimesh

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.points import to_ply
from triplaneturbo.mesh.io.splat_ply import decode_splats, encode_splats
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.representations.gaussians import Gaussians

LAYOUT = [
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
]


def random_gaussians(count=30, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((count, 3), (count, 3), (count, 4), (count,), (count, 3))
    return Gaussians(*(torch.randn(shape, generator=generator) for shape in shapes))


def table(data):
    """The file read by trimesh, as another program would."""
    loaded = trimesh.load(trimesh.util.wrap_as_stream(data), file_type="ply", process=False)
    return loaded.metadata["_ply_raw"]["vertex"]["data"]


def test_round_trip():
    gaussians = random_gaussians()
    again = decode_splats(encode_splats(gaussians))
    for name in ("means", "log_scales", "opacity_logits", "colors"):
        torch.testing.assert_close(getattr(again, name), getattr(gaussians, name), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(again.covariances(), gaussians.covariances(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(again.quaternions.norm(dim=1), torch.ones(30))


def test_layout():
    gaussians = random_gaussians(7)
    data = encode_splats(gaussians)
    assert data == encode_splats(gaussians)
    assert data.startswith(b"ply\nformat binary_little_endian 1.0\n")
    header, _, body = data.partition(b"end_header\n")
    properties = [line.split() for line in header.decode().splitlines() if line.startswith("property")]
    assert properties == [["property", "float", name] for name in LAYOUT]
    assert b"element vertex 7\n" in header
    assert len(body) == 7 * 17 * 4
    raw = np.frombuffer(body, "<f4").reshape(7, 17)
    assert not raw[:, 3:6].any()
    colors = 0.5 + 0.28209479177387814 * raw[:, 6:9]
    np.testing.assert_allclose(colors, gaussians.colors.detach(), atol=1e-6)
    np.testing.assert_array_equal(raw[:, 9], gaussians.opacity_logits.detach())
    np.testing.assert_array_equal(raw[:, 10:13], gaussians.log_scales.detach())
    np.testing.assert_allclose(np.linalg.norm(raw[:, 13:], axis=1), 1, atol=1e-6)


def test_axes():
    """x right, y down, front toward +z, for positions and rotations alike."""
    # Long along the object's up (+z), at its front (+x), upper (+z) and right-hand (-y) side.
    gaussians = Gaussians(
        torch.tensor([[3.0, -1.0, 2.0]]),
        torch.tensor([[0.1, 0.2, 5.0]]).log(),
        torch.tensor([[1.0, 0, 0, 0]]),
        torch.zeros(1),
        torch.ones(1, 3),
    )
    vertex = table(encode_splats(gaussians))
    assert [float(vertex[name][0]) for name in "xyz"] == [1.0, -2.0, 3.0]
    w, x, y, z = (float(vertex[f"rot_{k}"][0]) for k in range(4))
    rotation = trimesh.transformations.quaternion_matrix([w, x, y, z])[:3, :3]
    np.testing.assert_allclose(np.abs(rotation[:, 2]), [0, 1, 0], atol=1e-6)  # long along the file's y
    np.testing.assert_allclose(np.abs(rotation[:, 0]), [0, 0, 1], atol=1e-6)


def test_columns_of_other_programs():
    """Properties in another order and kind, further properties and further elements."""
    gaussians = random_gaussians(5)
    source = table(encode_splats(gaussians))
    order = [*reversed(LAYOUT), "f_rest_0"]
    columns = np.dtype([(name, "<f8" if name == "x" else "<f4") for name in order])
    other = np.zeros(5, columns)
    for name in LAYOUT:
        other[name] = np.asarray(source[name]).reshape(-1)
    properties = "".join(
        f"property {'double' if name == 'x' else 'float'} {name}\n" for name in columns.names
    )
    header = (
        f"ply\nformat binary_little_endian 1.0\ncomment x\nelement vertex 5\n{properties}"
        "element extra 1\nproperty uchar none\nend_header\n"
    )
    again = decode_splats(header.encode() + other.tobytes() + b"\0")
    torch.testing.assert_close(again.means, gaussians.means)
    torch.testing.assert_close(again.colors, gaussians.colors)


def faults():
    good = encode_splats(random_gaussians(3))
    triangle = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    wrong = np.full(3 * 17, np.nan, "<f4").tobytes()
    header = good.partition(b"end_header\n")[0] + b"end_header\n"
    body = np.frombuffer(good[len(header) :], "<f4").reshape(3, 17).copy()
    body[1, 13:] = 0
    yield "incomplete", good[:-1]
    yield "no 3D Gaussians", to_ply(triangle)
    yield "not finite", header + wrong
    yield "length zero", header + body.tobytes()
    for data in (
        b"",
        b"<html>",
        b"end_header\n",
        good[:100],
        good.replace(b"binary_little_endian", b"ascii"),
        good.replace(b"vertex 3", b"vertex 0"),
        good.replace(b"vertex 3", b"vertex -3"),
        good.replace(b"vertex 3", b"vertex 99999999999999999999"),
        good.replace(b"float x", b"list uchar int x"),
        good.replace(b"float y", b"float x"),
        good.replace(b"float y", b"object y"),
    ):
        yield "Not a binary little-endian PLY", data


@pytest.mark.parametrize(("message", "data"), list(faults()))
def test_invalid_files_are_refused(message, data):
    with pytest.raises(UserError, match=message):
        decode_splats(data)


def test_invalid_gaussians_are_refused():
    with pytest.raises(UserError, match="no Gaussians"):
        encode_splats(random_gaussians(0))
    broken = random_gaussians(2)
    with torch.no_grad():
        broken.means[0, 0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        encode_splats(broken)
