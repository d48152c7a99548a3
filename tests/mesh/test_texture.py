"""Texture baking: colours of texels, dilation, and the normal map in a viewer's shading."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.helpers.fields import mushroom
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.extraction.marching_cubes import marching_cubes
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.processing.simplify import simplify
from triplaneturbo.mesh.texture import bake, local_normals, paint, sdf_gradient
from triplaneturbo.mesh.uv import texel_ownership as claiming
from triplaneturbo.mesh.uv.atlas import GUTTER, rasterize_atlas
from triplaneturbo.mesh.uv.dilation import jump_flood, nearest_covered
from triplaneturbo.mesh.uv.tangents import split_frames, to_tangent_space, vertex_tangents
from triplaneturbo.mesh.uv.unwrap import unwrap
from triplaneturbo.representations.triplane import TriplaneField, sphere, to_rgb

SIZE = 512


class Ball:
    """A sphere of radius 0.7 with waves, coloured by position: smooth colours without a period."""

    def __init__(self, waves: float = 0.0) -> None:
        self.waves = waves

    def sdf(self, points: Tensor) -> Tensor:
        return points.norm(dim=-1) - 0.7 + self.waves * (20 * points).sin().prod(-1)

    def rgb(self, points: Tensor) -> Tensor:
        return 0.5 + 0.45 * torch.sin(3 * points + torch.tensor([0.0, 1.0, 2.0]))


def ball(resolution: int = 32) -> Mesh:
    axis = torch.linspace(-1, 1, resolution)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    return Mesh(*marching_cubes(Ball().sdf(grid)))


def looked_up(image: np.ndarray, uv: Tensor, level: int = 0) -> Tensor:
    """Sample an image bilinearly at uv [N, 2] and mip level `level`: [N, 3] in [0, 1]."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    for _ in range(level):
        pixels = F.avg_pool2d(pixels, 2)
    at = (2 * uv - 1)[None, None].float()
    return F.grid_sample(pixels, at, padding_mode="border", align_corners=False)[0, :, 0].T


def inside_points(mesh: Mesh, count: int = 4000) -> tuple[Tensor, Tensor]:
    """Random faces [N] and barycentrics [N, 3]."""
    draw = torch.Generator().manual_seed(0)
    face = torch.randint(len(mesh.faces), (count,), generator=draw)
    return face, torch.distributions.Dirichlet(torch.ones(3)).sample((count,))


@pytest.fixture(scope="module", params=["fast", "xatlas"])
def baked(request) -> Mesh:
    return bake(unwrap(ball(), request.param, SIZE), Ball(), SIZE, normal_map=False)


def test_texture_matches_the_field(baked: Mesh) -> None:
    face, bary = inside_points(baked)
    corners = baked.faces[face]
    points = (baked.vertices[corners] * bary[..., None]).sum(1)
    uv = (baked.uv[corners] * bary[..., None]).sum(1)
    assert (looked_up(baked.texture, uv) - Ball().rgb(points)).abs().max() < 0.03


def test_vertex_colours_match_the_field() -> None:
    mesh = paint(ball(), Ball())
    assert torch.equal(mesh.colors, Ball().rgb(mesh.vertices).clamp(0, 1))
    assert (mesh.normals - F.normalize(mesh.vertices, dim=1)).abs().max() < 0.1
    assert mesh.uv is mesh.texture is None


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_seams_are_invisible_at_any_mip_level(baked: Mesh, level: int) -> None:
    # Both sides of a seam: vertices at the same position with different uv.
    colors = looked_up(baked.texture, baked.uv, level)
    wanted = Ball().rgb(baked.vertices)
    error = (colors - wanted).abs().max(1).values
    # A texel of level 3 is 8 texels wide: colours change by as much over that distance themselves, and at
    # the tip of a narrow chart it reaches beyond the space between charts.
    assert (error.max() if level == 0 else error.quantile(0.98)) < 0.04 + 0.03 * level
    _, place, count = np.unique(baked.vertices.numpy(), axis=0, return_inverse=True, return_counts=True)
    assert (count[place] > 1).sum() > 100  # there are seams


def test_texture_is_filled_completely(baked: Mesh) -> None:
    assert baked.texture.shape == (SIZE, SIZE, 3)
    assert baked.texture.dtype == np.uint8
    assert baked.texture.reshape(-1, 3).max(1).min() > 10  # the ball's colours are nowhere black


def _by_loops(uv: np.ndarray, faces: np.ndarray, size: int) -> np.ndarray:
    """Reference: the first face that contains each texel's centre, or -1, one texel and face at a time."""
    found = np.full((size, size), -1)
    for row in range(size):
        for column in range(size):
            at = np.array([column + 0.5, row + 0.5])
            for index, face in enumerate(faces):
                a, b, c = uv[face] * size
                sides = [np.linalg.det([q - p, at - p]) for p, q in ((a, b), (b, c), (c, a))]
                if min(sides) >= 0 or max(sides) <= 0:
                    found[row, column] = index
                    break
    return found


def test_atlas_matches_the_slow_twin() -> None:
    uv = torch.tensor([[0.1, 0.1], [0.6, 0.15], [0.2, 0.7], [0.7, 0.8], [0.9, 0.2], [0.95, 0.2], [0.9, 0.24]])
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [4, 5, 6]])
    wanted = _by_loops(uv.double().numpy(), faces.numpy(), 20)
    atlas = rasterize_atlas(uv, faces, 20)
    texels = atlas.texels.numpy()
    face, bary = atlas.face, atlas.bary
    found = np.full(400, -1)
    found[texels] = face.numpy()
    covered = wanted.reshape(-1) >= 0
    assert (found[covered] == wanted.reshape(-1)[covered]).all()
    # The gutter: exactly the texels within two texels of a face, each at the nearest point of its face.
    at = (uv[faces[face]] * bary[..., None]).sum(1) * 20
    centre = torch.from_numpy(np.stack((texels % 20, texels // 20), 1)) + 0.5
    distance = (at - centre).norm(dim=1)
    along = torch.linspace(0, 1, 400)[:, None, None]
    corners = uv[faces] * 20
    sides = (corners + along[..., None] * (corners.roll(1, 1) - corners)).reshape(
        -1, 2
    )  # points on all sides
    every = torch.from_numpy(np.stack((np.arange(400) % 20, np.arange(400) // 20), 1)) + 0.5
    least = torch.cdist(every.float(), sides).amin(1)
    least[torch.from_numpy(covered)] = 0
    torch.testing.assert_close(distance, least[texels], atol=0.02, rtol=0)
    assert set(texels) >= set(np.flatnonzero(least < 1.98))
    assert set(texels) <= set(np.flatnonzero(least < 2.02))
    assert (bary >= 0).all()
    torch.testing.assert_close(bary.sum(1), torch.ones(len(bary)))
    assert set(texels) == set(atlas.nearest.flatten().tolist())


@pytest.mark.parametrize("pairs", [1 << 21, 5000])
def test_torch_texel_ownership_matches_the_loops(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "PAIRS_PER_CHUNK", pairs)
    mesh = unwrap(ball(), "fast", SIZE)
    far = torch.tensor([[-9.0, -9.0], [-8.0, -9.0], [-9.0, -8.0]])  # a face outside the image
    flat = torch.tensor([[0.7, 0.7], [0.71, 0.71], [0.72, 0.72]])  # ... and one without area
    uv = torch.cat((mesh.uv, far, flat))
    faces = torch.cat((mesh.faces, len(mesh.uv) + torch.arange(6).view(2, 3)))
    atlas = rasterize_atlas(uv, faces, SIZE)
    owner, bary = claiming.texel_owners(uv.double() * SIZE, faces, SIZE, GUTTER)
    assert torch.equal((owner >= 0).nonzero()[:, 0], atlas.texels)
    # Where two faces share the nearest point, rounding decides which is first.
    same = owner[atlas.texels] == atlas.face
    assert same.double().mean() > 0.999
    torch.testing.assert_close(bary[atlas.texels][same], atlas.bary[same], atol=1e-6, rtol=0)
    at, wanted = (
        (uv[faces[face]] * weights[..., None]).sum(1) * SIZE
        for face, weights in ((owner[atlas.texels], bary[atlas.texels]), (atlas.face, atlas.bary))
    )
    torch.testing.assert_close(at, wanted, atol=1e-3, rtol=0)


def test_faces_smaller_than_a_texel_own_one() -> None:
    uv = torch.tensor([[0.1, 0.1], [0.3, 0.1], [0.1, 0.3], [0.805, 0.805], [0.806, 0.805], [0.805, 0.806]])
    _, face, _, _ = rasterize_atlas(uv, torch.tensor([[0, 1, 2], [3, 4, 5]]), 64)
    assert set(face.tolist()) == {0, 1}


def _flooded(covered: Tensor) -> Tensor:
    own = torch.arange(covered.numel(), dtype=torch.int32).view(covered.shape)
    return jump_flood(torch.where(covered, own, -1))


@pytest.mark.parametrize("spread", [nearest_covered, _flooded])
def test_dilation_matches_a_search_through_all_texels(spread: Callable[[Tensor], Tensor]) -> None:
    covered = (torch.rand(40, 56) < 0.02).numpy()
    found = spread(torch.from_numpy(covered)).numpy()
    places = np.argwhere(covered)
    rows, columns = np.indices(covered.shape)
    every = np.hypot(rows[..., None] - places[:, 0], columns[..., None] - places[:, 1])
    distance = np.hypot(rows - found // 56, columns - found % 56)
    assert covered.reshape(-1)[found].all()
    assert (distance - every.min(-1)).max() < 0.5  # the known, rare error of both
    assert (distance - every.min(-1) > 1e-9).mean() < 0.01


def test_gradient_matches_the_sdf() -> None:
    points = torch.randn(100, 3, dtype=torch.float64) * 0.3
    points.requires_grad_()
    (exact,) = torch.autograd.grad(Ball(0.01).sdf(points).sum(), points)
    found = sdf_gradient(Ball(0.01), points.detach(), 1e-4)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-3)


def seen_by_a_viewer(mesh: Mesh, face: Tensor, bary: Tensor) -> Tensor:
    """Decode normals [N, 3] from a normal map by the formula of glTF."""
    corners = mesh.faces[face]

    def at(attribute: Tensor) -> Tensor:
        return (attribute[corners] * bary[..., None]).sum(1)

    x, y, z = (2 * looked_up(mesh.normal_map, at(mesh.uv)) - 1).T[..., None]
    n, tangent = F.normalize(at(mesh.normals), dim=1), at(mesh.tangents)
    t = F.normalize(tangent[:, :3], dim=1)
    b = torch.linalg.cross(n, t) * tangent[:, 3:].sign()
    return F.normalize(x * t + y * b + z * n, dim=1)


def test_normal_map_reproduces_the_normals_of_the_field() -> None:
    field = Ball(waves=0.004)
    mesh = bake(unwrap(ball(24), "fast", SIZE), field, 2 * SIZE, cell=1e-3)
    assert mesh.normal_map.shape == (SIZE, SIZE, 3)
    face, bary = inside_points(mesh)
    points = (mesh.vertices[mesh.faces[face]] * bary[..., None]).sum(1)
    wanted = F.normalize(sdf_gradient(field, points, 1e-3), dim=1)
    with_map = (seen_by_a_viewer(mesh, face, bary) * wanted).sum(1)
    smooth = (mesh.normals[mesh.faces[face]] * bary[..., None]).sum(1)
    without = (F.normalize(smooth, dim=1) * wanted).sum(1)
    assert with_map.mean() > 0.999
    assert with_map.quantile(0.02) > 0.997 > without.quantile(0.02)


def test_compiled_local_normals_match_torch() -> None:
    outward, normals = torch.randn(10_001, 3), F.normalize(torch.randn(10_001, 3), dim=1)
    across = F.normalize(torch.randn(10_001, 3), dim=1)
    across = F.normalize(across - 0.9 * (across * normals).sum(1, keepdim=True) * normals, dim=1)
    tangents = 0.7 * torch.cat((across, torch.randn(10_001, 1).sign()), 1)
    outward[:50] = 0
    outward[50:60] *= 1e-7
    normals[60:70] *= 0.3
    tangents[70:80] = 0
    steep = outward.norm(dim=1, keepdim=True) > 1e-6
    wanted = to_tangent_space(F.normalize(torch.where(steep, outward, normals), dim=1), normals, tangents)
    torch.testing.assert_close(local_normals(outward, normals, tangents), wanted, atol=2e-5, rtol=1e-4)


def test_tangents_follow_the_image() -> None:
    # A square seen from +z, its image upright: u grows along +x, v (downward) along -y.
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    uv = torch.tensor([[0.0, 1], [1, 1], [1, 0], [0, 0]])
    faces, normals = torch.tensor([[0, 1, 2], [0, 2, 3]]), torch.tensor([[0.0, 0, 1]]).expand(4, 3)
    tangents = vertex_tangents(vertices, faces, uv, normals)
    torch.testing.assert_close(tangents, torch.tensor([[1.0, 0, 0, 1]]).expand(4, 4))
    # The same image mirrored: the handedness changes sign.
    mirrored = vertex_tangents(vertices, faces, uv * torch.tensor([-1.0, 1]), normals)
    torch.testing.assert_close(mirrored, torch.tensor([[-1.0, 0, 0, -1]]).expand(4, 4))
    up = to_tangent_space(F.normalize(torch.tensor([[0.0, 1, 1]]), dim=1), normals[:1], tangents[:1])
    torch.testing.assert_close(up, F.normalize(torch.tensor([[0.0, 1, 1]]), dim=1))


def test_tangents_match_the_slow_twin() -> None:
    mesh = unwrap(ball(12), "fast", SIZE)
    normals = F.normalize(mesh.vertices, dim=1)
    found = vertex_tangents(mesh.vertices, mesh.faces, mesh.uv, normals).double().numpy()
    places, uv, normals = (part.double().numpy() for part in (mesh.vertices, mesh.uv, normals))

    def laid(vector: np.ndarray, normal: np.ndarray) -> np.ndarray:
        vector = vector - normal * (vector @ normal)
        return vector / np.linalg.norm(vector)

    wanted = np.zeros((len(places), 3))
    for face in mesh.faces.tolist():
        a, b, c = face
        edges = np.stack((places[b] - places[a], places[c] - places[a]))
        across = np.cross(*edges)
        # Gradients of u and v, which are linear over the face; along the tangent u grows and v is constant.
        dv = np.linalg.solve(np.vstack((edges, across)), [*(uv[[b, c], 1] - uv[a, 1]), 0])
        du = np.linalg.solve(np.vstack((edges, across)), [*(uv[[b, c], 0] - uv[a, 0]), 0])
        along = np.cross(dv, across)
        along *= np.sign(along @ du)
        for corner in range(3):
            here, ahead, behind = (face[(corner + step) % 3] for step in range(3))
            normal = normals[here]
            sides = [laid(places[other] - places[here], normal) for other in (ahead, behind)]
            wanted[here] += laid(along, normal) * np.arccos(sides[0] @ sides[1])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, :3], wanted, atol=1e-4)


def fan(centre: int, first: int, angle: float) -> tuple[Tensor, Tensor]:
    """Two faces around the origin: vertices first to first + 2 [3, 2], and faces [2, 3]."""
    turn = torch.tensor([angle, angle + 0.5, angle + 1.0])
    around = torch.stack((turn.cos(), turn.sin()), 1)
    return around, torch.tensor([[centre, first, first + 1], [centre, first + 1, first + 2]])


def test_vertices_between_tangent_frames_are_split() -> None:
    one, two = fan(0, 1, 0.0), fan(0, 4, 2.0)
    flat = torch.cat((torch.zeros(1, 2), one[0], two[0]))
    mesh = Mesh(
        F.pad(flat, (0, 1)), torch.cat((one[1], two[1])), uv=flat, normals=torch.eye(3)[[2]].expand(7, 3)
    )
    split = split_frames(mesh)
    assert len(split.vertices) == 8
    for name in ("vertices", "uv", "normals"):
        assert torch.equal(getattr(split, name)[split.faces], getattr(mesh, name)[mesh.faces])
    assert len(split.faces[:2].unique()) == len(split.faces[2:].unique()) == 4
    assert split_frames(split) is split

    # Joined by an edge, but mirrored in the atlas.
    square = torch.tensor([[0.0, 0], [1, 0], [0, 1], [1, 1]])
    folded = square.clone()
    folded[3] = 0
    mesh = Mesh(F.pad(square, (0, 1)), torch.tensor([[0, 1, 2], [1, 3, 2]]), uv=folded)
    split = split_frames(mesh)
    assert len(split.vertices) == 6
    normals = torch.eye(3)[[2]].expand(6, 3)
    signs = vertex_tangents(split.vertices, split.faces, split.uv, normals)[:, 3]
    assert (signs[split.faces[0]] == -1).all()
    assert (signs[split.faces[1]] == 1).all()
    whole = mesh.replace(uv=square)
    assert split_frames(whole) is whole


def test_faces_without_uv_area_have_tangents() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    normals = torch.tensor([[0.0, 0, 1]]).expand(3, 3)
    tangents = vertex_tangents(vertices, torch.tensor([[0, 1, 2]]), torch.zeros(3, 2), normals)
    torch.testing.assert_close(tangents[:, :3].norm(dim=1), torch.ones(3))
    assert (tangents[:, 2].abs() < 1e-6).all()


def test_baking_is_deterministic() -> None:
    field = mushroom()
    surface = extract(field, 48)
    meshes = [
        bake(unwrap(Mesh(surface.vertices, surface.faces), "fast", SIZE), field, SIZE) for _ in range(2)
    ]
    assert meshes[0].texture.tobytes() == meshes[1].texture.tobytes()
    assert meshes[0].normal_map.tobytes() == meshes[1].normal_map.tobytes()
    red, green, _ = meshes[0].texture.reshape(-1, 3).T.astype(int)
    assert ((red > 180) & (green < 60)).mean() > 0.2  # the cap
    assert ((red > 220) & (green > 220)).mean() > 0.02  # its spots


def test_invalid_input_is_refused() -> None:
    mesh = ball(8)
    with pytest.raises(ValueError, match="has no uv"):
        bake(mesh, Ball())
    with pytest.raises(UserError, match="4096"):
        bake(unwrap(mesh, "fast", SIZE), Ball(), 5000)


class TorchField:
    """A triplane field whose queries use no compiled kernel."""

    def __init__(self, field: TriplaneField) -> None:
        self.field = field

    def sdf(self, points: Tensor) -> Tensor:
        radius = self.field.fields.config.sphere_radius
        return self.field.query_in_torch("sdf", points)[:, 0] + sphere(points, radius)

    def rgb(self, points: Tensor) -> Tensor:
        return to_rgb(self.field.query_in_torch("color", points))


def plain_texture(mesh: Mesh, values: Callable[..., Tensor], size: int, *attributes: Tensor) -> np.ndarray:
    """Bake `values` of interpolated attributes in torch alone: float [size, size, 3], NaN in the gaps."""
    owner, bary = claiming.texel_owners(mesh.uv.double() * size, mesh.faces, size, GUTTER)
    texels = (owner >= 0).nonzero()[:, 0]
    corners, weights = mesh.faces[owner[texels]], bary[texels][..., None]
    image = torch.full((size * size, 3), torch.nan)
    image[texels] = values(*((attribute[corners] * weights).sum(1) for attribute in attributes)).clamp(0, 1)
    return image.view(size, size, 3).numpy()


def assert_alike(found: np.ndarray, wanted: np.ndarray) -> None:
    covered = ~np.isnan(wanted[..., 0])
    difference = np.abs(found[covered].astype(int) - np.rint(wanted[covered] * 255)).max(-1)
    assert covered.mean() > 0.4
    assert (difference <= 1).mean() >= 0.999


@pytest.mark.parametrize("faces", [2000, None])
def test_images_of_a_triplane_field_match_plain_torch(faces: int | None) -> None:
    field, step = mushroom(), 2 / 63
    mesh = extract(field, 64).mesh()
    mesh = mesh if faces is None else simplify(mesh, faces)[0]
    baked = bake(unwrap(mesh, "fast", SIZE), field, SIZE, cell=step)
    plain = TorchField(field)
    assert_alike(baked.texture, plain_texture(baked, plain.rgb, SIZE, baked.vertices))

    def local(points: Tensor, normals: Tensor, tangents: Tensor) -> Tensor:
        outward = F.normalize(sdf_gradient(plain, points, step), dim=1)
        return 0.5 + 0.5 * to_tangent_space(outward, normals, tangents)

    attributes = baked.vertices, baked.normals, baked.tangents
    assert_alike(baked.normal_map, plain_texture(baked, local, SIZE // 2, *attributes))
