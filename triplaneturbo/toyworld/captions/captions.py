"""How a caption's meaning can be worded; with `parse`, which reads it back."""

from __future__ import annotations

import zlib

from triplaneturbo.toyworld.captions.caption_parser import Reading, parse
from triplaneturbo.toyworld.captions.words import MODIFIERS, PATTERN_NOUNS, SPOKEN, article, parts
from triplaneturbo.toyworld.scene.classes import THINGS
from triplaneturbo.toyworld.scene.palette import NAMES
from triplaneturbo.toyworld.scene.spec import RIDERS, SUPPORTS, Spec, joined, part_phrase

__all__ = ["RIDERS", "SUPPORTS", "Reading", "Spec", "captions", "parse", "vocabulary"]


def captions(spec: Spec) -> list[str]:
    """All wordings of a spec, each of which `parse` reads back; the first is the canonical one."""
    about = THINGS[spec.thing]
    bare = joined(spec.modifier, spec.color, spec.thing)
    natural = spec.color == about.color
    if spec.kind == "pair":
        wordings = _of_pair(spec)
    elif spec.kind == "two colours":
        wordings = _of_two_colours(spec)
    else:
        wordings = [
            spec.caption,
            bare,
            f"the {bare}",
            f"{article(joined(spec.modifier, spec.thing))} in {spec.color}",
        ]
        if spec.modifier:
            wordings.append(f"{article(joined(spec.color, spec.thing))}, {spec.modifier}")
        else:
            wordings.append(f"{article(spec.thing)}, {spec.color}")
        if spec.modifier in PATTERN_NOUNS:
            wordings.append(f"{article(joined(spec.color, spec.thing))} with {PATTERN_NOUNS[spec.modifier]}")
            wordings.append(article(joined(spec.color, spec.modifier, spec.thing)))
        if natural:
            wordings.append(article(joined(spec.modifier, spec.thing)))
            wordings.append(joined(spec.modifier, spec.thing))
    wordings.append(f"a 3d model of {spec.caption}")
    return list(dict.fromkeys([*wordings, _in_otherjoined(spec)]))


def _of_two_colours(spec: Spec) -> list[str]:
    bare, part = f"{spec.color} {spec.thing}", part_phrase(spec, spec.accent)
    noun = THINGS[spec.thing].accent
    wordings = [
        spec.caption,
        f"{bare} with {spec.accent} {noun}",
        f"the {bare} with the {spec.accent} {noun}",
        f"{article(spec.thing)}, {spec.color}, with {part}",
        f"{article(spec.thing)} in {spec.color} with {part}",
        f"{article(bare)} and {part}",
    ]
    if spec.color == THINGS[spec.thing].color:
        wordings.append(f"{article(spec.thing)} with {part}")
    return wordings


def _of_pair(spec: Spec) -> list[str]:
    rider, support = f"{spec.color} {spec.thing}", f"{spec.support_color} {spec.support}"
    wordings = [
        spec.caption,
        f"{rider} on {support}",
        f"the {rider} on the {support}",
        f"{article(rider)} on top of {article(support)}",
        f"{article(support)} with {article(rider)} on it",
    ]
    riders, supports = [rider], [support]
    if spec.color == THINGS[spec.thing].color:
        riders.append(spec.thing)
    if spec.support_color == THINGS[spec.support].color:
        supports.append(spec.support)
    return wordings + [f"{article(one)} on {article(other)}" for one in riders for other in supports]


def _in_otherjoined(spec: Spec) -> str:
    """The canonical caption with every word that has synonyms replaced by one of them."""
    text = spec.caption
    pick = zlib.crc32(text.encode())

    def other(word: str) -> str:
        choice = SPOKEN.get(word, (word,))
        return choice[pick % len(choice)] if word else ""

    if spec.support:
        rider = f"{other(spec.color)} {other(spec.thing)}"
        return f"{article(rider)} on {article(f'{other(spec.support_color)} {other(spec.support)}')}"
    text = article(joined(other(spec.modifier), other(spec.color), other(spec.thing)))
    return f"{text} with {part_phrase(spec, other(spec.accent))}" if spec.kind == "two colours" else text


def vocabulary() -> dict[str, list[str]]:
    """The words that the model knows, by kind, each in its canonical form."""
    return {
        "things": list(THINGS),
        "colours": list(NAMES),
        "modifiers": list(MODIFIERS),
        "parts": list(parts()),
        "riders": list(RIDERS),
        "supports": list(SUPPORTS),
    }
