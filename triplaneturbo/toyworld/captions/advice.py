"""Messages about prompts that the toy world cannot express, and a summary of its vocabulary."""

from __future__ import annotations

from collections.abc import Iterable

from triplaneturbo.toyworld.captions.caption_parser import Reading, parse
from triplaneturbo.toyworld.captions.captions import vocabulary

# Headings of the vocabulary's kinds in printed lists.
KINDS = {
    "things": "Things",
    "colours": "Colours",
    "modifiers": "Sizes and patterns",
    "parts": "Parts that can have their own colour",
    "riders": "Things that can stand on another thing",
    "supports": "Things that another thing can stand on",
}
# One example per kind of caption; all of them are in the training set.
EXAMPLES = (
    "a red mushroom",
    "a tall green cactus",
    "a striped orange fish",
    "a white house with a blue roof",
    "a yellow duck on a brown box",
)
_COUNTED = ("things", "colours", "modifiers", "parts")
_MAX_WORDS, _MAX_WORD_LENGTH = 6, 24


def advice(parsed: Reading, more: str) -> str:
    """Return one line that explains why a prompt cannot be expressed; "" if it can.

    Args:
        parsed: the parsed prompt.
        more: sentence that tells where to find the known words; appended if some words are unknown.
    """
    if parsed.unknown:
        words = [
            word if len(word) <= _MAX_WORD_LENGTH else word[:_MAX_WORD_LENGTH] + "…"
            for word in parsed.unknown
        ]
        listed = ", ".join(f"'{word}'" for word in words[:_MAX_WORDS])
        if len(words) > _MAX_WORDS:
            listed += f" and {len(words) - _MAX_WORDS} more"
        return f"This model does not know: {listed}. {more}"
    return f"This model may not follow the prompt. {parsed.why}" if parsed.why else ""


def summary() -> str:
    """Return the size of the vocabulary by kind: "47 things, 12 colours, ..."."""
    known = vocabulary()
    counts = [f"{len(known[kind])} {kind}" for kind in _COUNTED]
    return f"{', '.join(counts[:-1])} and {counts[-1]}"


def misfits(prompts: Iterable[str]) -> dict[str, str]:
    """Return the prompts that the toy world cannot express, with the reason: "it does not know 'dragon'"."""
    reasons = {}
    for prompt in prompts:
        parsed = parse(prompt)
        if parsed.spec is None:
            words = ", ".join(f"'{word[:_MAX_WORD_LENGTH]}'" for word in parsed.unknown[:_MAX_WORDS])
            reasons[prompt] = f"it does not know {words}" if words else parsed.why
    return reasons
