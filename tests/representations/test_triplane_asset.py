"""A triplane field as the representation of one asset."""

from __future__ import annotations

import torch

from tests.helpers import toy
from tests.helpers.fields import mushroom
from triplaneturbo.mesh.extraction.sparse_extraction import extract
from triplaneturbo.mesh.frame import Frame
from triplaneturbo.representations.triplane_asset import TriplaneAsset, TriplaneOptions
from triplaneturbo.request import Request


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def step(asset: TriplaneAsset) -> None:
    optimizer = torch.optim.AdamW(asset.parameters())
    output = asset.render(toy.scene(rng()), rng())
    (sum(r.rgb.square().sum() for r in output.renderings.values()) + output.regularization).backward()
    optimizer.step()


def test_the_export_is_the_mesh_of_the_field() -> None:
    field = mushroom()
    mesh = TriplaneAsset.from_field(field, 128, rng(), Request("")).export(
        Request("", resolution=48, unwrap="none")
    )
    surface = extract(field, 48)
    assert len(mesh.faces) == len(surface.faces)
    torch.testing.assert_close(mesh.bounds[1], surface.vertices.amax(0))


def test_planes_and_mlps_are_optimized_but_not_the_generated_field() -> None:
    field = mushroom()
    planes, weights = field.planes.clone(), [p.clone() for p in field.fields.parameters()]
    asset = TriplaneAsset(field.planes, field.fields, TriplaneOptions(size=32, stride=1, nodes=24))
    step(asset)
    assert not torch.equal(asset.planes, planes)
    changed = [not torch.equal(p, q) for p, q in zip(asset.fields.parameters(), weights, strict=True)]
    names = [name for name, _ in asset.fields.named_parameters()]
    assert [name for name, one in zip(names, changed, strict=True) if not one] == [
        name for name in names if name.startswith("offset")
    ]
    assert torch.equal(field.planes, planes)
    assert all(torch.equal(p, q) for p, q in zip(field.fields.parameters(), weights, strict=True))


def test_state_is_restored() -> None:
    field = mushroom()
    asset = TriplaneAsset(field.planes, field.fields, TriplaneOptions(size=32, stride=1, nodes=24))
    step(asset)
    other = TriplaneAsset(field.planes, field.fields, asset.options)
    other.load_state_dict(asset.state_dict())
    points = torch.rand(50, 3, generator=rng()) * 2 - 1
    assert torch.equal(other.field().sdf(points), asset.field().sdf(points))
    assert torch.equal(other.field().rgb(points), asset.field().rgb(points))


def test_all_levels_of_detail_have_the_units_and_place_of_a_given_mesh() -> None:
    field, frame = mushroom(), Frame(torch.tensor([10.0, 0, -5]), 3.0)
    request = Request("", resolution=48, unwrap="none", faces=4000, lods=3)
    plain = TriplaneAsset(field.planes, field.fields).export(request)
    placed = TriplaneAsset(field.planes, field.fields, frame=frame).export(request)
    assert len(placed.lods) == len(plain.lods) == 2
    for level, own in zip((plain, *plain.lods), (placed, *placed.lods), strict=True):
        assert torch.equal(own.vertices, frame.restore(level.vertices))
