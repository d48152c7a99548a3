"""Templates in lists of prompts: one line that stands for several prompts.

a {red|blue} duck            alternatives: a red duck, a blue duck
{animal: cat, dog}           a line of its own: what {animal} stands for, on any other line
a {animal} on a {animal}     the same name is the same word: a cat on a cat, a dog on a dog
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from math import prod

from triplaneturbo.request import shown

MOST_EACH = 1000  # prompts that one line may stand for
_DEFINITION = re.compile(r"\s*\{\s*(\w[\w -]*?)\s*:([^{}]*)\}\s*")
_SLOT = re.compile(r"\{([^{}]*)\}")


class Templates:
    """The lines of a text, with their templates.

    Attributes:
        lines: those that are no definitions.
        notes: a sentence on each line that stands for nothing, as `expand` comes to it.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []
        self._words: dict[str, list[str]] = {}
        for line in lines:
            found = _DEFINITION.fullmatch(line)
            words = [word.strip() for word in found[2].split(",") if word.strip()] if found else []
            if found and words:
                self._words[found[1].casefold()] = list(dict.fromkeys(words))
            else:
                self.lines.append(line)

    def expand(self, line: str) -> list[str]:
        """All prompts that a line stands for: itself where it is no template, none where it means nothing."""
        slots: dict[str, list[str]] = {}
        for number, found in enumerate(_SLOT.finditer(line)):
            name = found[1].strip().casefold()
            if "|" in found[1]:
                slots[f"{number}|"] = found[1].split("|")
            elif name in self._words:
                slots[name] = self._words[name]
            else:
                self.notes.append(
                    f"{shown(line.strip())} is left out, since no line says what {shown(found[0])} is:"
                    " add one such as {animal: cat, dog}."
                )
                return []
        count = prod(len(words) for words in slots.values())
        if count > MOST_EACH:
            self.notes.append(
                f"{shown(line.strip())} is left out, since it stands for {count:,} prompts, more than"
                f" {MOST_EACH:,}."
            )
            return []
        return [
            self._filled(line, dict(zip(slots, words, strict=True))) for words in product(*slots.values())
        ]

    @staticmethod
    def _filled(line: str, words: dict[str, str]) -> str:
        numbers = iter(range(len(line)))

        def word(found: re.Match[str]) -> str:
            number = next(numbers)
            return words[f"{number}|" if "|" in found[1] else found[1].strip().casefold()]

        return _SLOT.sub(word, line)
