"""`Vocabulary`: the words that a model of a closed vocabulary knows, and messages about other words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

_MAX_WORDS, _MAX_WORD_LENGTH = 6, 24


class Reading(Protocol):
    """Interpretation of a prompt; a prompt that the model can express has neither unknown words nor a reason.

    Attributes:
        unknown: the unknown words as spelled in the prompt, each once, in order.
        why: one sentence that explains why known words have no meaning together; else "".
    """

    @property
    def unknown(self) -> tuple[str, ...]: ...

    @property
    def why(self) -> str: ...


@dataclass(frozen=True)
class Vocabulary:
    """The words that a model knows.

    Attributes:
        words: canonical words by kind.
        headings: heading of each kind in printed lists.
        counted: the kinds that `summary` counts.
        examples: example prompts.
        read: interpret a prompt; never raises.
        looks: prompts of the same thing in other colours or materials; () for one without a meaning.
    """

    words: Mapping[str, Sequence[str]]
    headings: Mapping[str, str]
    counted: tuple[str, ...]
    examples: tuple[str, ...]
    read: Callable[[str], Reading]
    looks: Callable[[str], tuple[str, ...]] = lambda prompt: ()

    def summary(self) -> str:
        """Return the size of the vocabulary by kind: "47 things, 12 colours, ..."."""
        counts = [f"{len(self.words[kind])} {kind}" for kind in self.counted]
        return " and ".join(filter(None, (", ".join(counts[:-1]), counts[-1])))

    def misfits(self, prompts: Iterable[str]) -> dict[str, str]:
        """Return the prompts that the model cannot express, with the reason: "it does not know 'dragon'"."""
        reasons = {}
        for prompt in prompts:
            reading = self.read(prompt)
            if reading.unknown:
                words = ", ".join(f"'{word[:_MAX_WORD_LENGTH]}'" for word in reading.unknown[:_MAX_WORDS])
                reasons[prompt] = f"it does not know {words}"
            elif reading.why:
                reasons[prompt] = reading.why
        return reasons


def advice(reading: Reading, more: str) -> str:
    """Return one line that explains why a prompt cannot be expressed; "" if it can.

    Args:
        reading: the interpretation of the prompt.
        more: sentence that tells where to find the known words; appended if some words are unknown.
    """
    if reading.unknown:
        words = [
            word if len(word) <= _MAX_WORD_LENGTH else word[:_MAX_WORD_LENGTH] + "…"
            for word in reading.unknown
        ]
        listed = ", ".join(f"'{word}'" for word in words[:_MAX_WORDS])
        if len(words) > _MAX_WORDS:
            listed += f" and {len(words) - _MAX_WORDS} more"
        return f"This model does not know: {listed}. {more}"
    return f"This model may not follow the prompt. {reading.why}" if reading.why else ""
