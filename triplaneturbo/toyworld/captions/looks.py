"""Suggested looks: the same thing in other colours and patterns."""

from __future__ import annotations

from triplaneturbo.errors import UserError
from triplaneturbo.toyworld.captions.caption_parser import parse
from triplaneturbo.toyworld.captions.words import PATTERN_NOUNS
from triplaneturbo.toyworld.scene.spec import Spec

_COLORS = ("blue", "yellow", "green", "pink", "purple", "orange", "red")
_MOST_COLORS = 6


def looks(prompt: str) -> tuple[str, ...]:
    """Return captions of the same thing in other colours and patterns; () if the prompt has no meaning.

    A size, a second colour and a support are kept. A pattern goes with none of them: it replaces a size and a
    second colour, and is not suggested with a support.
    """
    spec = parse(prompt).spec
    if spec is None:
        return ()
    size = "" if spec.modifier in PATTERN_NOUNS else spec.modifier
    colors = [color for color in _COLORS if color != spec.color][:_MOST_COLORS]
    captions = [
        _caption(spec.thing, color, spec.accent if spec.kind == "two colours" else "", size, spec.support,
                 spec.support_color)
        for color in colors
    ]  # fmt: skip
    if not spec.support:
        captions += [_caption(spec.thing, spec.color, "", pattern) for pattern in PATTERN_NOUNS]
    return tuple(dict.fromkeys(caption for caption in captions if caption and caption != spec.caption))


def _caption(*values: str) -> str:
    """Return the caption of a spec; "" if the world has no such thing."""
    try:
        return Spec.of(*values).caption
    except UserError:
        return ""
