"""Words for views: their weights by azimuth, and the interpolated embeddings."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from triplaneturbo.render.cameras import orbit
from triplaneturbo.teachers.view_words import VIEW_WORDS, embed_views, view_weights


@pytest.mark.parametrize(
    ("azimuth", "expected"),
    [
        (0, (1, 0, 0)),
        (90, (0, 1, 0)),
        (-90, (0, 1, 0)),
        (180, (0, 0, 1)),
        (45, (0.5, 0.5, 0)),
        (315, (0.5, 0.5, 0)),
        (120, (0, 2 / 3, 1 / 3)),
        (260, (0, 8 / 9, 1 / 9)),
    ],
)
def test_words_are_weighted_by_azimuth_at_any_elevation(azimuth: float, expected: tuple) -> None:
    cameras = orbit(azimuth, [-40.0, 0.0, 70.0], 2.0)
    weights = view_weights(cameras.positions)
    torch.testing.assert_close(weights, torch.tensor([expected] * 3).float(), rtol=0, atol=1e-5)


def test_embeddings_are_those_of_the_words_between_which_a_camera_is() -> None:
    def embed(texts: list[str]) -> Tensor:
        return torch.stack([torch.full((77, 2), float(sum(map(ord, text)))) for text in texts])

    positions = orbit([0.0, 90.0, 180.0, 45.0], 20.0, 2.0).positions.expand(2, -1, -1)
    found = embed_views(embed, ["a cat", "a dog"], positions)
    assert found.shape == (2, 4, 77, 2)
    for scene, caption in enumerate(("a cat", "a dog")):
        front, side, back = (embed([f"{caption}, {words}"])[0] for words in VIEW_WORDS)
        for view, expected in enumerate((front, side, back, (front + side) / 2)):
            torch.testing.assert_close(found[scene, view], expected)
