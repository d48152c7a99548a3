"""The registry of inference backends: a new one generates a mesh, and an unknown one is refused."""

from __future__ import annotations

import pytest
import torch

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io import encode
from triplaneturbo.models.backends import registry
from triplaneturbo.models.backends.torch_backend import TorchBackend
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.weights import load_model
from triplaneturbo.pipeline import Pipeline

QUICK = {"seed": 1, "resolution": 32, "texture_size": 512}


class Recording(TorchBackend):
    """Count the calls of each method; predict with other words than those of the prompt."""

    def __init__(self, model):
        super().__init__(model)
        self.calls = []
        self.words = TorchBackend.embed(self, ["a blue chair"])

    def embed(self, prompts):
        self.calls.append("embed")
        return super().embed(prompts)

    def predict(self, latents, time, text_embeds):
        self.calls.append("predict")
        return super().predict(latents, time, self.words)

    def decode(self, latents, one_by_one=False):
        self.calls.append("decode")
        return super().decode(latents, one_by_one)


def test_dummy_backend_generates_a_mesh(monkeypatch):
    monkeypatch.setitem(registry.BACKENDS, "recording", Recording)
    pipeline = Pipeline.from_pretrained(SMALL, device="cpu", backend="recording")
    mesh = pipeline("a red mushroom", steps=2, **QUICK)
    assert pipeline.backend.calls == ["embed", "predict", "predict", "decode"]
    # The mesh is what the backend's predictions say.
    expected = Pipeline(load_model(SMALL))("a blue chair", steps=2, **QUICK)
    torch.testing.assert_close(mesh.vertices, expected.vertices, rtol=0, atol=0)
    assert encode(mesh, "glb") == encode(expected, "glb")


def test_unknown_backend_is_refused_before_loading():
    with pytest.raises(UserError, match="Unknown backend 'tape'; use one of torch"):
        Pipeline.from_pretrained(SMALL, backend="tape")
    with pytest.raises(UserError, match="Unknown backend"):
        Pipeline(load_model(SMALL), backend="tape")
