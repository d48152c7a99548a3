"""The registry of representations: a new one is one file and one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers import toy
from tests.helpers.fields import mushroom
from triplaneturbo.distill.ptd import Refiner, RefineSettings
from triplaneturbo.errors import UserError
from triplaneturbo.representations.registry import REPRESENTATIONS, RepresentationSpec, find_representation
from triplaneturbo.request import Request
from triplaneturbo.teachers.settings import TeacherSettings


@pytest.fixture
def ball(monkeypatch: pytest.MonkeyPatch) -> RepresentationSpec:
    spec = RepresentationSpec("ball", "ball", "tests.helpers.dummy_representation:Ball.from_field")
    monkeypatch.setitem(REPRESENTATIONS, spec.name, spec)
    return spec


def test_names_are_keys() -> None:
    assert list(REPRESENTATIONS) == ["field", "gaussians", "texture"]
    assert all(find_representation(name).name == name for name in REPRESENTATIONS)
    with pytest.raises(UserError, match="choose one of field, gaussians, texture"):
        find_representation("voxels")


@pytest.mark.parametrize("name", list(REPRESENTATIONS))
def test_members_convert_a_generated_field(name: str) -> None:
    request = Request("", resolution=32, texture_size=512)
    asset = find_representation(name).from_field(mushroom(), 32, torch.Generator().manual_seed(0), request)
    scenes = toy.scene(torch.Generator().manual_seed(0))
    output = asset.render(scenes, torch.Generator().manual_seed(0))
    for rendering in output.renderings.values():
        assert 0.1 < float(rendering.opacity.detach().mean()) < 0.5
    groups = asset.parameters()
    assert all(group["lr"] > 0 and group["name"] for group in groups)
    sum(rendering.rgb.sum() for rendering in output.renderings.values()).backward()
    assert all(p.grad is not None for group in groups for p in group["params"])


def test_a_new_representation_is_refined_and_exported(ball: RepresentationSpec, tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    asset = find_representation("ball").from_field(mushroom(), toy.SIZE, rng, Request(""))
    settings = RefineSettings(
        steps=30, teachers={"rgb": TeacherSettings(kind="sds")}, high=(500.0, 500.0), path="none"
    )
    refiner = Refiner(asset, toy.teachers(), toy.scene, settings, tmp_path)
    while not refiner.finished:
        refiner.step()
    mesh = asset.export(Request("", unwrap="none"))
    assert mesh.colors is not None
    red, green, blue = mesh.colors.mean(0)
    assert red > 0.7 > 0.3 > max(green, blue)  # the caption is a flat red box
    assert float(mesh.vertices.norm(dim=1).mean()) > 0.4  # it began at 0.3
