"""The examples in the empty viewer."""

from __future__ import annotations

import re

import pytest
from PIL import Image

pytest.importorskip("gradio")

from triplaneturbo.toyworld.captions.vocabulary import VOCABULARY
from triplaneturbo.ui.generate.first_visit import PROMPTS, SPRITE, gallery


def test_each_example_has_a_picture_and_is_known_to_the_model() -> None:
    assert VOCABULARY.misfits(PROMPTS) == {}
    with Image.open(SPRITE) as sprite:
        width, height = sprite.size
        assert width == len(PROMPTS) * height
        alpha = sprite.convert("RGBA").getchannel("A")
        for number in range(len(PROMPTS)):
            tile = alpha.crop((number * height, 0, (number + 1) * height, height))
            assert tile.getextrema() == (0, 255)  # an object on transparent ground


def test_only_the_built_in_model_shows_its_examples() -> None:
    shown = gallery("small")
    assert re.findall('data-prompt="([^"]+)"', shown) == list(PROMPTS)
    assert shown.count("background-position") == len(PROMPTS)
    assert gallery("full") == gallery("my-model") == ""
