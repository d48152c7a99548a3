"""Suggested looks of the toy world's prompts."""

from __future__ import annotations

import pytest

from triplaneturbo.toyworld.captions.caption_parser import parse
from triplaneturbo.toyworld.captions.looks import looks
from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES


@pytest.mark.parametrize(
    ("prompt", "some"),
    [
        ("a red mushroom", ("a blue mushroom", "a striped red mushroom")),
        ("a tall green cactus", ("a tall blue cactus", "a spotted green cactus")),
        ("a white house with a blue roof", ("a yellow house with a blue roof", "a striped white house")),
        ("a yellow duck on a brown box", ("a blue duck on a brown box",)),
        ("a striped orange fish", ("a blue fish", "a checkered orange fish")),
    ],
)
def test_looks_are_other_colours_and_patterns(prompt: str, some: tuple[str, ...]) -> None:
    found = looks(prompt)
    assert set(some) <= set(found)
    spec = parse(prompt).spec
    for look in found:
        other = parse(look).spec
        assert other is not None
        assert spec is not None
        assert (other.thing, other.support) == (spec.thing, spec.support)
        assert other != spec


@pytest.mark.parametrize("thing", OBJECT_CLASSES)
def test_every_thing_has_looks_that_the_model_knows(thing: str) -> None:
    found = looks(f"a {thing}")
    assert len(found) >= 6
    assert len(set(found)) == len(found)
    assert all(parse(look).spec for look in found)


def test_prompt_without_a_meaning_has_no_looks() -> None:
    assert looks("a dragon") == looks("") == looks("red") == ()
