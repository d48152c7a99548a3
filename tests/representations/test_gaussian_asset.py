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
from triplaneturbo.representations.gaussian_asset import GaussianAsset
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
