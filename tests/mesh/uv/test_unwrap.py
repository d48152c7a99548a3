"""Unwrapping: no overlaps, a well-used atlas, an even density; and its kernels against references."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import scipy.sparse as sparse
import torch
from _pytest.mark.structures import ParameterSet
from scipy.sparse.csgraph import connected_components

from tests.helpers import solids
from tests.helpers.fields import mushroom
from triplaneturbo.errors import EmptySurfaceError, UserError
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.clean import smooth_normals, tidy
from triplaneturbo.mesh.processing.simplify import simplify
from triplaneturbo.mesh.uv.charts import (
    components,
    cut_large,
    face_neighbours,
    group_faces,
    overlapping_pairs,
    split_overlaps,
)
from triplaneturbo.mesh.uv.packing import pack
from triplaneturbo.mesh.uv.registry import UNWRAPPERS
from triplaneturbo.mesh.uv.unwrap import check_texture_size, unwrap

SIZE = 1024


def method(name: str, *values: str) -> ParameterSet:
    """Return parameters of a test, to be skipped where the method's package is missing."""
    missing = not UNWRAPPERS[name].is_available()
    return pytest.param(*values, name, marks=pytest.mark.skipif(missing, reason=f"{name} is not installed"))


METHODS = [method(name) for name in UNWRAPPERS]


def claims(mesh: Mesh, size: int, away: float = 0.9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all texels whose centre is less than `away` texels from a face: texel, face and depth in it.

    A plain drawing of every triangle on its own: nothing hides anything. Depths are negative outside.
    """
    corners = mesh.uv.double().numpy()[mesh.faces.numpy()] * size  # [F, 3, 2]
    low = np.ceil(corners.min(1) - away - 0.5).astype(int).clip(0, size)
    high = np.floor(corners.max(1) + away - 0.5).astype(int).clip(-1, size - 1)
    wide, tall = (high - low + 1).clip(0).T
    face = np.repeat(np.arange(len(corners)), wide * tall)
    index = np.arange(len(face)) - np.repeat(np.cumsum(wide * tall) - wide * tall, wide * tall)
    column, row = low[face, 0] + index % wide[face], low[face, 1] + index // wide[face]
    edge = np.roll(corners, -1, 1) - corners
    turn = edge[:, 0, 0] * edge[:, 1, 1] - edge[:, 0, 1] * edge[:, 1, 0]
    # Inward unit normal and offset of each edge's line.
    across = np.stack((-edge[..., 1], edge[..., 0]), -1) * np.sign(turn)[:, None, None]
    across /= np.maximum(np.linalg.norm(edge, axis=-1), 1e-30)[..., None]
    offset = (across * corners).sum(-1)
    depth = np.full(len(face), np.inf)
    for k in range(3):
        x, y = across[:, k].T
        np.minimum(depth, x[face] * (column + 0.5) + y[face] * (row + 0.5) - offset[face, k], out=depth)
    near = (depth > -away) & (turn != 0)[face]
    return (row * size + column)[near], face[near], depth[near]


def distinct(values: np.ndarray) -> np.ndarray:
    """Return the distinct ones of some integers [N], N > 0; np.unique of numpy 2.4 takes 25 times as long."""
    values = np.sort(values)
    return values[np.diff(values, prepend=values[0] - 1) != 0]


def assert_nothing_overlaps(mesh: Mesh, size: int, away: float = 0.9) -> None:
    """Assert that no texel centre is in two faces, and that charts are about twice `away` texels apart."""
    texel, face, depth = claims(mesh, size, away)
    within = texel[depth > 1e-3]
    assert len(within) > 0
    assert len(distinct(within)) == len(within), "a texel's centre lies in two faces"
    pairs = distinct(texel * len(mesh.faces) + chart_of(mesh)[face])
    assert len(distinct(pairs // len(mesh.faces))) == len(pairs), "charts come too close"


def chart_of(mesh: Mesh) -> np.ndarray:
    """Return the chart of each face: vertices are split along seams, so shared vertices connect a chart."""
    faces = mesh.faces.numpy()
    ends = faces.reshape(-1), np.roll(faces, -1, 1).reshape(-1)
    graph = sparse.coo_matrix((np.ones(len(ends[0])), ends), (len(mesh.vertices),) * 2)
    return connected_components(graph, directed=False)[1][faces[:, 0]]


def areas(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Return signed areas in the atlas [F], v downward, and areas in space [F]."""
    corners, uv = mesh.vertices.double()[mesh.faces], mesh.uv.double()[mesh.faces]
    one, two = (uv[:, 1] - uv[:, 0]), (uv[:, 2] - uv[:, 0])
    flat = (one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]) / 2
    full = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1) / 2
    return flat.numpy(), full.numpy()


def density_ratio(mesh: Mesh) -> float:
    """Return the ratio of the extreme texel densities (length to length) over 95 % of the surface."""
    flat, full = areas(mesh)
    density = np.sqrt(np.abs(flat) / np.maximum(full, 1e-30))
    order = density.argsort()
    share = full[order].cumsum() / full.sum()
    low, high = density[order][np.searchsorted(share, (0.025, 0.975))]
    return float(high / low)


def made(name: str, resolution: int = 49) -> Mesh:
    if name == "mushroom":
        found = extract(mushroom(), 96)
        return tidy(Mesh(found.vertices, found.faces))
    if name == "simplified":
        return simplify(solids.surface(solids.blob, 64), 5000)[0]
    if name == "large":
        return solids.surface(solids.blob, 120)
    return solids.surface(getattr(solids, name), resolution)


SOLIDS = ["sphere", "torus", "box", "plate", "chair", "blob", "ramp", "mushroom", "simplified", "large"]


@pytest.mark.parametrize(
    ("name", "method"),
    [method("fast", name) for name in SOLIDS]
    + [method("xatlas", name) for name in ("torus", "chair", "blob", "simplified")]
    + [method("uvunwrap", name) for name in SOLIDS],
)
def test_atlas_is_valid(name: str, method: str) -> None:
    mesh = made(name, 29 if method == "xatlas" else 49)  # xatlas takes a second for 10,000 faces
    assert name != "large" or len(mesh.faces) > 80_000
    out = unwrap(mesh, method, SIZE)
    assert out.uv is not None
    assert out.uv.shape == (len(out.vertices), 2)
    assert out.uv.min() >= 0
    assert out.uv.max() <= 1
    # the same faces, in the same order and winding
    assert torch.equal(out.vertices[out.faces], mesh.vertices[mesh.faces])

    assert_nothing_overlaps(out, SIZE)
    flat, full = areas(out)
    assert np.abs(flat).sum() > 0.6
    assert density_ratio(out) < 3
    assert (flat[full > 1e-9] < 1e-12).mean() > 0.999  # seen from outside: nothing is mirrored


def test_rough_surface_has_a_valid_atlas() -> None:
    out = unwrap(solids.surface(solids.rough, 64), "fast", SIZE)
    assert_nothing_overlaps(out, SIZE)
    assert np.abs(areas(out)[0]).sum() > 0.55
    assert density_ratio(out) < 3


@pytest.mark.skipif(not UNWRAPPERS["uvunwrap"].is_available(), reason="uvunwrap is not installed")
def test_uvunwrap_of_a_rough_surface() -> None:
    """It makes 2,558 charts; the packing then underestimates the atlas, so that charts come closer."""
    out = unwrap(solids.surface(solids.rough, 64), "uvunwrap", SIZE)
    assert_nothing_overlaps(out, SIZE, away=0.7)
    assert np.abs(areas(out)[0]).sum() > 0.5
    assert density_ratio(out) < 3


def aspects(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Return how much longer each face's map into the atlas makes one direction than the other; areas [F]."""
    corners, uv = mesh.vertices.double()[mesh.faces], mesh.uv.double()[mesh.faces]
    edges, flat = corners[:, 1:] - corners[:, :1], uv[:, 1:] - uv[:, :1]  # [F, 2, 3], [F, 2, 2]
    _, full = areas(mesh)
    sound = torch.from_numpy(full > 1e-8)
    upper = torch.linalg.qr(edges[sound].mT).R  # [F, 2, 2]
    stretch = torch.linalg.svdvals(torch.linalg.solve(upper.mT, flat[sound]))
    return (stretch[:, 0] / stretch[:, 1].clamp_min(1e-12)).numpy(), full[sound.numpy()]


@pytest.mark.skipif(not UNWRAPPERS["uvunwrap"].is_available(), reason="uvunwrap is not installed")
@pytest.mark.parametrize("name", ["torus", "blob", "simplified", "mushroom"])
def test_uvunwrap_distorts_less_than_fast(name: str) -> None:
    mesh = made(name)
    worst, density = {}, {}
    for method in ("fast", "uvunwrap"):
        out = unwrap(mesh, method, SIZE)
        aspect, area = aspects(out)
        order = aspect.argsort()
        worst[method] = aspect[order][np.searchsorted(area[order].cumsum() / area.sum(), 0.95)]
        density[method] = density_ratio(out)
    assert worst["uvunwrap"] < 1.3 < worst["fast"]
    assert density["uvunwrap"] < 1.2 < density["fast"]


@pytest.mark.parametrize("size", [512, 700, 1500])
def test_chart_gap_depends_on_the_texture_size(size: int) -> None:
    assert_nothing_overlaps(unwrap(solids.surface(solids.chair, 30), "fast", size), size)


@pytest.mark.parametrize("method", METHODS)
def test_attributes_are_kept(method: str) -> None:
    mesh = solids.surface(solids.torus, 24)
    mesh = mesh.replace(colors=torch.rand(len(mesh.vertices), 3), tangents=torch.rand(len(mesh.vertices), 4))
    out = unwrap(mesh, method, 512)
    assert torch.equal(out.colors[out.faces], mesh.colors[mesh.faces])
    smooth = smooth_normals(mesh.vertices, mesh.faces)
    assert torch.equal(out.normals[out.faces], smooth[mesh.faces])  # seams are invisible in the shading
    assert out.tangents is None
    assert len(out.vertices) < 2 * len(mesh.vertices)
    assert len(torch.unique(out.faces)) == len(out.vertices)


@pytest.mark.parametrize("method", METHODS)
def test_same_mesh_gives_the_same_bytes(method: str) -> None:
    mesh = solids.surface(solids.blob, 32)
    one, two = unwrap(mesh, method, SIZE), unwrap(mesh, method, SIZE)
    assert one.uv.numpy().tobytes() == two.uv.numpy().tobytes()
    assert torch.equal(one.faces, two.faces)


@pytest.mark.parametrize("method", METHODS)
def test_box_of_twelve_faces(method: str) -> None:
    corners = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = torch.tensor([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    out = unwrap(Mesh(corners, faces), method, SIZE)
    assert_nothing_overlaps(out, SIZE)
    assert np.abs(areas(out)[0]).sum() > 0.6


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", METHODS)
def test_degenerate_faces_are_tolerated(method: str) -> None:
    mesh = solids.surface(solids.sphere, 16)
    count = len(mesh.vertices)
    extra = torch.tensor([[float("nan"), 0, 0], [0.0, float("inf"), 0], [9.0, 9.0, 9.0]])
    bad = torch.tensor([[count, 0, 1], [2, count + 1, 3], [4, 4, 4], [5, 6, 5], [7, 8, count]])
    mixed = Mesh(torch.cat((mesh.vertices, extra)), torch.cat((bad, mesh.faces)))
    out = unwrap(mixed, method, 512)
    assert len(out.faces) == len(mixed.faces)
    assert out.uv.isfinite().all()
    assert not (out.vertices == 9.0).any()  # no face used it
    good = torch.arange(len(bad), len(mixed.faces))
    assert torch.equal(out.vertices[out.faces[good]], mixed.vertices[mixed.faces[good]])
    assert_nothing_overlaps(out, 512)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "corners", [[[0.0, 0, 0]] * 3, [[0.0, 0, 0], [1, 1, 1], [2, 2, 2]], [[float("nan")] * 3] * 3]
)
def test_mesh_without_area(method: str, corners: list[list[float]]) -> None:
    out = unwrap(Mesh(torch.tensor(corners), torch.tensor([[0, 1, 2]])), method, 512)
    assert out.uv.isfinite().all()
    assert out.uv.shape == (3, 2)


def test_invalid_meshes_are_refused() -> None:
    mesh = solids.surface(solids.sphere, 8)
    with pytest.raises(EmptySurfaceError):
        unwrap(mesh.replace(faces=mesh.faces[:0]))
    with pytest.raises(UserError, match="fast, xatlas, uvunwrap"):
        unwrap(mesh, "smart")
    for size in (511, 4097, 0, -1, 1024.0, True, "1024", float("nan")):
        with pytest.raises(UserError, match="512 to 4096"):
            check_texture_size(size)
    assert check_texture_size(1000) == 1000


def _by_dictionary(faces: np.ndarray) -> np.ndarray:
    """Reference: neighbours across edges, for a mesh with at most one face per half-edge."""
    owner = {(f[k], f[(k + 1) % 3]): i for i, f in enumerate(faces.tolist()) for k in range(3)}
    return np.array([[owner.get((f[(k + 1) % 3], f[k]), -1) for k in range(3)] for f in faces.tolist()])


def test_neighbours_and_components_match_their_twins() -> None:
    mesh = solids.surface(solids.blob, 24)
    faces = mesh.faces.numpy().astype(np.int32)[: 2 * len(mesh.faces) // 3]  # so that there are open edges
    found = face_neighbours(faces, len(mesh.vertices))
    assert np.array_equal(found, _by_dictionary(faces))
    assert (found < 0).any()
    key = np.random.default_rng(0).integers(0, 2, len(faces))
    chart = components(key, found)
    i, k = np.nonzero(found >= 0)
    same = key[i] == key[found[i, k]]
    graph = sparse.coo_matrix((np.ones(same.sum()), (i[same], found[i, k][same])), (len(faces),) * 2)
    wanted = connected_components(graph, directed=False)[1]
    assert len(set(zip(chart, wanted, strict=True))) == chart.max() + 1 == wanted.max() + 1
    start, order = group_faces(chart, chart.max() + 1)
    for c in range(chart.max() + 1):
        assert order[start[c] : start[c + 1]].tolist() == np.flatnonzero(chart == c).tolist()


def test_non_manifold_edge_is_paired_once() -> None:
    faces = np.array([[0, 1, 2], [1, 0, 3], [1, 0, 4]], np.int32)
    found = face_neighbours(faces, 5)
    assert found[0].tolist() == [1, -1, -1]
    assert found[1].tolist() == [0, -1, -1]
    assert found[2].tolist() == [-1, -1, -1]


def _clipped_area(one: np.ndarray, two: np.ndarray) -> float:
    """Reference: intersection area of two triangles [3, 2], by clipping one at the edges of the other."""
    if np.linalg.det([two[1] - two[0], two[2] - two[0]]) < 0:
        two = two[::-1]
    rest = list(one)
    for k in range(3):
        a, b = two[k], two[(k + 1) % 3]
        side = [np.linalg.det([b - a, p - a]) for p in rest]
        kept = []
        for i, p in enumerate(rest):
            j = (i + 1) % len(rest)
            if side[i] >= 0:
                kept.append(p)
            if (side[i] >= 0) != (side[j] >= 0):
                kept.append(p + side[i] / (side[i] - side[j]) * (rest[j] - p))
        rest = kept
        if len(rest) < 3:
            return 0.0
    x, y = np.array(rest).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def test_overlapping_pairs_match_a_full_search() -> None:
    draw = np.random.default_rng(1)
    uv = draw.random((120, 1, 2)) + 0.15 * draw.standard_normal((120, 3, 2))
    uv[0] = uv[1, [1, 0, 0]] + [[0, 0], [0, 0], [1e-9, 0]]  # a sliver
    chart = draw.integers(0, 2, 120).astype(np.int32)
    start, order = group_faces(chart, 2)
    found = overlapping_pairs(uv, start, order, np.ones(120, bool), 1e-6)
    pairs = [tuple(sorted(pair)) for pair in found.tolist()]
    assert len(pairs) == len(set(pairs))
    for i in range(120):
        for j in range(i + 1, 120):
            if chart[i] == chart[j]:
                area = _clipped_area(uv[i], uv[j])
                # between the two bounds either answer is valid
                assert area > 0 if (i, j) in pairs else area < 1e-5
            else:
                assert (i, j) not in pairs


def test_overlapping_ramp_is_split() -> None:
    """Two turns of a flat spiral, one above the other, as one strip of triangles."""
    angle = np.linspace(0, 4 * np.pi, 81)
    inner, outer = (
        0.5 * np.stack((np.cos(angle), np.sin(angle)), 1),
        np.stack((np.cos(angle), np.sin(angle)), 1),
    )
    points = np.concatenate((inner, outer))
    i = np.arange(80)
    faces = np.concatenate((np.stack((i, i + 81, i + 82), 1), np.stack((i, i + 82, i + 1), 1))).astype(
        np.int32
    )
    height = np.concatenate((i, i)).astype(float)
    neighbours = face_neighbours(faces, 162)
    chart = np.zeros(len(faces), np.int32)
    split = split_overlaps(points[faces], chart, neighbours, height, 1e-6)
    start, order = group_faces(split, split.max() + 1)
    assert split.max() >= 1
    everyone = np.ones(len(faces), bool)
    assert len(overlapping_pairs(points[faces], start, order, everyone, 1e-6)) == 0
    # a single turn does not change
    one = split_overlaps(points[faces[:40]], chart[:40], face_neighbours(faces[:40], 162), height[:40], 1e-6)
    assert (one == 0).all()


def test_long_charts_are_cut() -> None:
    mesh = solids.surface(solids.plate, 49)
    faces = mesh.faces.numpy().astype(np.int32)
    neighbours = face_neighbours(faces, len(mesh.vertices))
    uv = mesh.vertices.double().numpy()[faces][..., :2]
    top = components((mesh.vertices[mesh.faces][..., 2].mean(1) > 0.019).numpy().astype(np.int8), neighbours)
    cut = cut_large(uv, top, neighbours, 0.5)
    for c in range(cut.max() + 1):
        assert len(np.unique(top[cut == c])) == 1
        extent = np.ptp(uv[cut == c].reshape(-1, 2), axis=0)
        assert (extent < 0.5 + 4 * 2 / 48).all()
    assert np.array_equal(cut_large(uv, top, neighbours, 10.0), top)


def test_packing_is_rigid() -> None:
    """Shapes are preserved: each chart has a rotation, one scale along u and one along v."""
    mesh = solids.surface(solids.torus, 32)
    faces = mesh.faces.numpy().astype(np.int32)
    corners = mesh.vertices.double().numpy()[faces]
    neighbours = face_neighbours(faces, len(mesh.vertices))
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    chart = components((normal[:, 2] > 0).astype(np.int8), neighbours)
    uv = corners[..., :2] * np.where(normal[:, 2] > 0, 1, -1)[:, None, None] * [1, -1]
    packed, pieces = pack(uv, chart, neighbours, np.linalg.norm(normal, axis=1) / 2, SIZE)
    by_piece = defaultdict(list)
    for face, piece in enumerate(pieces):
        by_piece[piece].append(face)
    stretches = []
    for members in by_piece.values():
        before, after = uv[members].reshape(-1, 2), packed[members].reshape(-1, 2)
        matrix, residue, _, _ = np.linalg.lstsq(np.c_[before, np.ones(len(before))], after, rcond=None)
        assert residue.sum() < 1e-12
        assert np.linalg.det(matrix[:2]) > 0  # not mirrored
        stretches.append(np.linalg.norm(matrix[:2], axis=0))  # along u and along v
    ratio = np.array(stretches)[:, 0] / np.array(stretches)[:, 1]
    assert np.ptp(ratio) < 1e-6  # one stretch for the whole atlas
    assert 0.75 < ratio[0] < 1.34
