"""3D Gaussians: initialization, covariances, learning rates, and exchanged rows with optimizer state."""

import math

import pytest
import torch

from triplaneturbo.representations.gaussians import Gaussians, LearningRates
from triplaneturbo.utils import quaternions as rotations


def random_gaussians(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((count, 3), (count, 3), (count, 4), (count,), (count, 3))
    return Gaussians(*(torch.randn(shape, generator=generator) for shape in shapes))


def stepped(gaussians, optimizer, steps=3):
    """Give the optimizer a state that differs between the Gaussians."""
    for _ in range(steps):
        optimizer.zero_grad()
        sum(parameter.square().sum() for parameter in gaussians.parameters()).backward()
        optimizer.step()


def test_discs_are_tangent_to_the_surface():
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(50, 3, generator=generator), dim=1)
    normals[0] = torch.tensor([0.0, 0.0, -1.0])
    points, colors = torch.randn(2, 50, 3, generator=generator)
    spacing = torch.rand(50, generator=generator) + 0.1
    gaussians = Gaussians.from_points(points, colors, spacing, normals, opacity=0.7, thickness=0.1)
    assert torch.equal(gaussians.means, points)
    assert torch.equal(gaussians.colors, colors)
    torch.testing.assert_close(gaussians.opacities, torch.full((50,), 0.7))
    covariances = gaussians.covariances()
    thin = torch.einsum("ni,nij,nj->n", normals, covariances, normals)
    torch.testing.assert_close(thin, (0.1 * spacing / 2) ** 2)
    across = torch.linalg.cross(normals, torch.tensor([0.3, 0.5, 0.7]).expand(50, 3))
    across = torch.nn.functional.normalize(across, dim=1)
    wide = torch.einsum("ni,nij,nj->n", across, covariances, across)
    torch.testing.assert_close(wide, (spacing / 2) ** 2)


def test_points_without_normals_give_balls():
    gaussians = Gaussians.from_points(torch.zeros(3, 3), torch.zeros(3, 3), 0.4)
    torch.testing.assert_close(gaussians.covariances(), 0.04 * torch.eye(3).expand(3, 3, 3))


def test_invalid_shapes_are_refused():
    zeros = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"quaternions must be \[2, 4\], not \[2, 3\]"):
        Gaussians(zeros, zeros, zeros, torch.zeros(2), zeros)


def test_parameter_groups_cover_all_parameters():
    gaussians = random_gaussians(2)
    groups = {group["name"]: group for group in gaussians.parameter_groups(3.0)}
    assert groups.keys() == dict(gaussians.named_parameters()).keys()
    assert groups["means"]["lr"] == pytest.approx(3 * 1.6e-4)
    assert groups["opacity_logits"]["lr"] == 0.05
    other = gaussians.parameter_groups(3.0, LearningRates(means=1.0))
    assert {group["name"]: group["lr"] for group in other}["means"] == 3


def test_constrain():
    gaussians = random_gaussians(40)
    covariances = gaussians.covariances()
    gaussians.constrain_()
    assert gaussians.colors.min() == 0
    assert gaussians.colors.max() == 1
    torch.testing.assert_close(gaussians.quaternions.norm(dim=1), torch.ones(40))
    torch.testing.assert_close(gaussians.covariances(), covariances)


def test_kept_rows_carry_their_optimizer_state():
    """After an exchange of rows, kept Gaussians continue as without it, and new ones start from zero."""
    alone, exchanged = random_gaussians(6), random_gaussians(6)
    keep = torch.tensor([4, 0, 3])
    optimizers = [torch.optim.Adam(g.parameter_groups(1.0), lr=1e-2) for g in (alone, exchanged)]
    for gaussians, optimizer in zip((alone, exchanged), optimizers, strict=True):
        stepped(gaussians, optimizer)
    block = {name: value.detach()[:2] for name, value in random_gaussians(2, seed=1).named_parameters()}
    exchanged.replace_rows(keep, [block], optimizers[1])
    assert len(exchanged) == 5
    for name, parameter in exchanged.named_parameters():
        assert torch.equal(parameter[3:], block[name])
        assert not optimizers[1].state[parameter]["exp_avg"][3:].any()
        assert optimizers[1].state[parameter]["exp_avg_sq"][:3].any()
    assert len(optimizers[1].state) == 5  # none left of the old tensors
    for gaussians, optimizer in zip((alone, exchanged), optimizers, strict=True):
        stepped(gaussians, optimizer)
    for name, parameter in exchanged.named_parameters():
        assert torch.equal(parameter[:3], dict(alone.named_parameters())[name][keep])
        assert not torch.equal(parameter[3:], block[name])  # the optimizer moves new ones too


def test_state_dict_round_trip():
    gaussians, other = random_gaussians(4), random_gaussians(4, seed=1)
    other.load_state_dict(gaussians.state_dict())
    for one, two in zip(gaussians.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_quaternions_are_rotations():
    """Matrices are orthogonal, and products of quaternions are products of matrices."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 30, 4, generator=generator, dtype=torch.float64)
    matrices = rotations.to_matrices(a)
    identity = torch.eye(3, dtype=torch.float64).expand(30, 3, 3)
    torch.testing.assert_close(matrices @ matrices.mT, identity)
    torch.testing.assert_close(torch.linalg.det(matrices), torch.ones(30, dtype=torch.float64))
    torch.testing.assert_close(
        rotations.to_matrices(rotations.multiply(a, b)), matrices @ rotations.to_matrices(b)
    )
    directions = torch.nn.functional.normalize(a[:, :3], dim=1)
    directions[:2] = torch.tensor([[0, 0, 1.0], [0, 0, -1.0]], dtype=torch.float64)
    turned = rotations.to_matrices(rotations.from_z_axis(directions))
    torch.testing.assert_close(turned[..., 2], directions)
    half = math.sqrt(0.5)  # a quarter turn about z takes x to y
    turn = rotations.to_matrices(torch.tensor([half, 0.0, 0.0, half]))
    torch.testing.assert_close(turn[:, 0], torch.tensor([0.0, 1, 0]), atol=1e-6, rtol=0)
