"""The registry of unwrap methods: a new method, and a method whose package is not installed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers import solids
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.uv import registry
from triplaneturbo.mesh.uv.registry import UNWRAPPERS, Unwrapper, available
from triplaneturbo.mesh.uv.unwrap import unwrap


def each_face_apart(faces, corners, neighbours, slack):
    """Charts of one face each."""
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    width = np.linalg.norm(one, axis=1)
    along = (one * two).sum(1) / width
    across = np.linalg.norm(np.cross(one, two), axis=1) / width
    nothing = np.zeros(len(faces))
    rows = [nothing, nothing, width, nothing, along, -across]
    return np.stack(rows, 1).reshape(-1, 3, 2), np.arange(len(faces), dtype=np.int32)


def test_dummy_method_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UNWRAPPERS, "apart", Unwrapper("apart", each_face_apart))
    mesh = solids.surface(solids.sphere, 8)
    out = unwrap(mesh, "apart")
    assert "apart" in available()
    assert len(out.vertices) == 3 * len(mesh.faces)
    assert torch.equal(out.vertices[out.faces], mesh.vertices[mesh.faces])


def test_method_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = replace(UNWRAPPERS["uvunwrap"], package="no_such_package")
    monkeypatch.setitem(UNWRAPPERS, "uvunwrap", missing)
    assert available() == ["fast", "xatlas"]
    with pytest.raises(UserError, match=r"uvunwrap needs .*no_such_package.*; choose fast or xatlas,"):
        unwrap(solids.surface(solids.sphere, 8), "uvunwrap")


def test_methods_match_their_keys_and_functions_exist() -> None:
    triangle = np.eye(3)[None]
    alone = np.full((1, 3), -1, np.int32)
    for name, method in registry.UNWRAPPERS.items():
        assert name == method.name
        if method.is_available():
            uv, chart = method.charts(np.arange(3, dtype=np.int32)[None], triangle, alone, 1e-6)
            assert uv.shape == (1, 3, 2)
            assert chart.tolist() == [0]
