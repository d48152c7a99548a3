"""Templates in prompt lists: lines that expand to several prompts.

a {red|blue} duck            alternatives: a red duck, a blue duck
{animal: cat, dog}           definition on a line of its own: the values of {animal}
a {animal} on a {animal}     a repeated name has the same value: a cat on a cat, a dog on a dog
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from math import prod

from triplaneturbo.request import shown

MOST_EACH = 1000  # maximum number of prompts per line
_DEFINITION = re.compile(r"\s*\{\s*(\w[\w -]*?)\s*:([^{}]*)\}\s*")
_SLOT = re.compile(r"\{([^{}]*)\}")


class Templates:
    """Lines of a text and the template definitions among them.

    Attributes:
        lines: the lines that are not definitions.
        notes: messages about lines that `expand` could not expand.
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
        """Expand a line to all its prompts: [line] if it is not a template, [] if it is invalid."""
        slots: dict[str, list[str]] = {}
        for number, found in enumerate(_SLOT.finditer(line)):
            name = found[1].strip().casefold()
            if "|" in found[1]:
                slots[f"{number}|"] = found[1].split("|")
            elif name in self._words:
                slots[name] = self._words[name]
            else:
                self.notes.append(
                    f"{shown(line.strip())} is left out because {shown(found[0])} is not defined:"
                    " add a line such as {animal: cat, dog}."
                )
                return []
        count = prod(len(words) for words in slots.values())
        if count > MOST_EACH:
            self.notes.append(
                f"{shown(line.strip())} is left out because it expands to {count:,} prompts; the limit is"
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
