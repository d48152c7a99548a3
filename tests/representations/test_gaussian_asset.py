"""3D Gaussians as the representation of one asset: start, density control, state and export."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from tests.helpers import toy
from tests.helpers.fields import mushroom
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.voxels import filled, overlap
from triplaneturbo.representations.density_control import DensityOptions
from triplaneturbo.representations.gaussian_asset import GaussianAsset, GaussianOptions, total_variation
from triplaneturbo.request import Request


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def asset() -> GaussianAsset:
    return GaussianAsset.from_field(mushroom(), 64, rng(), Request(""))


def test_a_mesh_survives_gaussians_and_back() -> None:
    asset = GaussianAsset.from_field(mushroom(), 128, rng(), Request(""))
    mesh = asset.export(Request("", resolution=64, unwrap="none"))
    surface = extract(mushroom(), 64)
    truth = filled(surface.vertices, surface.faces, 64)
    assert overlap(filled(mesh.vertices, mesh.faces, 64), truth) > 0.88
    assert mesh.colors is not None
    expected = mushroom().rgb(mesh.vertices).clamp(0, 1)
    assert float((mesh.colors - expected).abs().mean()) < 0.1


def test_density_is_controlled_by_gradients_and_can_be_resumed(asset: GaussianAsset) -> None:
    asset.options = replace(
        asset.options, densify_from=1, densify_every=2, density=DensityOptions(min_gradient=1e-8)
    )
    count = len(asset.gaussians)
    optimizer = torch.optim.AdamW(asset.parameters())

    def step(one: GaussianAsset, optimizer: torch.optim.Optimizer, iteration: int, progress: float) -> None:
        output = one.render(toy.scene(rng()), rng())
        output.renderings["splatting"].rgb.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        one.after_step(optimizer, iteration, progress, rng())

    step(asset, optimizer, 1, 0.1)
    assert len(asset.gaussians) == count
    step(asset, optimizer, 2, 0.2)
    grown = len(asset.gaussians)
    assert grown > count
    step(asset, optimizer, 3, 0.3)

    other = GaussianAsset.from_field(mushroom(), 64, rng(), Request(""))
    other.options = asset.options
    other.load_state_dict(deepcopy(asset.state_dict()))
    resumed = torch.optim.AdamW(other.parameters())
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    for one, its_optimizer in ((asset, optimizer), (other, resumed)):
        step(one, its_optimizer, 4, 0.4)
    assert len(other.gaussians) == len(asset.gaussians) > grown
    assert all(
        torch.equal(a, b)
        for a, b in zip(asset.gaussians.parameters(), other.gaussians.parameters(), strict=True)
    )
    step(asset, optimizer, 6, 0.9)  # past `densify_until`
    assert len(asset.gaussians) == len(other.gaussians)


def test_total_variation_is_the_mean_difference_of_neighbours() -> None:
    image = torch.rand(2, 3, 5, 3, generator=rng())
    down = [abs(image[n, y + 1, x, c] - image[n, y, x, c]) for n in range(2) for y in range(2)
            for x in range(5) for c in range(3)]  # fmt: skip
    right = [abs(image[n, y, x + 1, c] - image[n, y, x, c]) for n in range(2) for y in range(3)
             for x in range(4) for c in range(3)]  # fmt: skip
    expected = sum(down) / len(down) + sum(right) / len(right)
    torch.testing.assert_close(total_variation(image), torch.as_tensor(expected))


def test_losses_of_lucid_dreamer_are_added_to_large_images_only(asset: GaussianAsset) -> None:
    scene = toy.scene(rng())
    assert float(asset.render(scene, rng()).regularization) == 0
    assert GaussianOptions.for_size(128) == GaussianOptions(size=128)
    large = GaussianOptions.for_size(512)
    assert (large.total_variation, large.scale_loss) == (1, 1)
    asset.options = replace(large, size=64)
    output = asset.render(scene, rng())
    expected = total_variation(output.renderings["splatting"].rgb) + asset.gaussians.scales.mean()
    torch.testing.assert_close(output.regularization, expected)
    output.regularization.backward()
    assert asset.gaussians.log_scales.grad is not None
    assert asset.gaussians.colors.grad is not None
    assert float(asset.gaussians.colors.grad.abs().sum()) > 0
