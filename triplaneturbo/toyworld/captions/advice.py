"""What to tell people: which words of theirs the world does not know, and what it does know."""

from __future__ import annotations

from collections.abc import Iterable

from triplaneturbo.toyworld.captions.caption_parser import Reading, parse
from triplaneturbo.toyworld.captions.captions import vocabulary

# What lists of the vocabulary call its kinds.
KINDS = {
    "things": "Things",
    "colours": "Colours",
    "modifiers": "Sizes and patterns",
    "parts": "Parts that can have a colour of their own",
    "riders": "What can stand on something",
    "supports": "What it can stand on",
}
# Of each kind of caption one, all among what training sees.
EXAMPLES = (
    "a red mushroom",
    "a tall green cactus",
    "a striped orange fish",
    "a white house with a blue roof",
    "a yellow duck on a brown box",
)
_COUNTED = ("things", "colours", "modifiers", "parts")
_MOST_WORDS, _LONGEST_WORD = 6, 24


def advice(reading: Reading, more: str) -> str:
    """One line on a caption that the world does not hold; "" for one that it holds.

    Args:
        reading: of the caption.
        more: where to see what is known; ends the line where some words were not.
    """
    if reading.unknown:
        words = [
            word if len(word) <= _LONGEST_WORD else word[:_LONGEST_WORD] + "…" for word in reading.unknown
        ]
        said = ", ".join(f"'{word}'" for word in words[:_MOST_WORDS])
        if len(words) > _MOST_WORDS:
            said += f" and {len(words) - _MOST_WORDS} more"
        return f"This model does not know: {said}. {more}"
    return f"This model may not follow the prompt. {reading.why}" if reading.why else ""


def summary() -> str:
    """How much there is of each kind: "47 things, 12 colours, ..."."""
    known = vocabulary()
    counts = [f"{len(known[kind])} {kind}" for kind in _COUNTED]
    return f"{', '.join(counts[:-1])} and {counts[-1]}"


def misfits(prompts: Iterable[str]) -> dict[str, str]:
    """The prompts that the world cannot express, and why: "it does not know 'dragon'"."""
    wrong = {}
    for prompt in prompts:
        reading = parse(prompt)
        if reading.spec is None:
            words = ", ".join(f"'{word[:_LONGEST_WORD]}'" for word in reading.unknown[:_MOST_WORDS])
            wrong[prompt] = f"it does not know {words}" if words else reading.why
    return wrong
