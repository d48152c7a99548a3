"""Captions of the toy world: all wordings of a `Spec`; `parse` maps each of them back to it."""

from __future__ import annotations

import zlib

from triplaneturbo.toyworld.captions.caption_parser import Reading, parse
from triplaneturbo.toyworld.captions.words import (
    CAPTION_SYNONYMS,
    MODIFIERS,
    PATTERN_NOUNS,
    parts,
    with_article,
)
from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
from triplaneturbo.toyworld.scene.palette import NAMES
from triplaneturbo.toyworld.scene.spec import RIDERS, SUPPORTS, Spec, join_words, part_phrase

__all__ = ["RIDERS", "SUPPORTS", "Reading", "Spec", "captions", "parse", "trained_wording", "vocabulary"]


def captions(spec: Spec) -> list[str]:
    """Return all wordings of a spec, the canonical one first; `parse` maps each back to the spec."""
    object_class = OBJECT_CLASSES[spec.thing]
    bare = join_words(spec.modifier, spec.color, spec.thing)
    natural = spec.color == object_class.color
    if spec.kind == "pair":
        wordings = _of_pair(spec)
    elif spec.kind == "two colours":
        wordings = _of_two_colours(spec)
    else:
        wordings = [
            spec.caption,
            bare,
            f"the {bare}",
            f"{with_article(join_words(spec.modifier, spec.thing))} in {spec.color}",
        ]
        if spec.modifier:
            wordings.append(f"{with_article(join_words(spec.color, spec.thing))}, {spec.modifier}")
        else:
            wordings.append(f"{with_article(spec.thing)}, {spec.color}")
        if spec.modifier in PATTERN_NOUNS:
            wordings.append(
                f"{with_article(join_words(spec.color, spec.thing))} with {PATTERN_NOUNS[spec.modifier]}"
            )
            wordings.append(with_article(join_words(spec.color, spec.modifier, spec.thing)))
        if natural:
            wordings.append(with_article(join_words(spec.modifier, spec.thing)))
            wordings.append(join_words(spec.modifier, spec.thing))
    wordings.append(f"a 3d model of {spec.caption}")
    return list(dict.fromkeys([*wordings, _with_synonyms(spec)]))


def trained_wording(prompt: str) -> str:
    """Return a prompt in words that the model was trained on.

    A prompt that is none of the `captions` of its meaning, such as one with synonyms that only `parse` knows,
    becomes the canonical one. A prompt without a meaning is returned unchanged.
    """
    spec = parse(prompt).spec
    if spec is None or " ".join(prompt.lower().split()) in captions(spec):
        return prompt
    return spec.caption


def _of_two_colours(spec: Spec) -> list[str]:
    bare, part = f"{spec.color} {spec.thing}", part_phrase(spec, spec.accent)
    noun = OBJECT_CLASSES[spec.thing].accent
    wordings = [
        spec.caption,
        f"{bare} with {spec.accent} {noun}",
        f"the {bare} with the {spec.accent} {noun}",
        f"{with_article(spec.thing)}, {spec.color}, with {part}",
        f"{with_article(spec.thing)} in {spec.color} with {part}",
        f"{with_article(bare)} and {part}",
    ]
    if spec.color == OBJECT_CLASSES[spec.thing].color:
        wordings.append(f"{with_article(spec.thing)} with {part}")
    return wordings


def _of_pair(spec: Spec) -> list[str]:
    rider, support = f"{spec.color} {spec.thing}", f"{spec.support_color} {spec.support}"
    wordings = [
        spec.caption,
        f"{rider} on {support}",
        f"the {rider} on the {support}",
        f"{with_article(rider)} on top of {with_article(support)}",
        f"{with_article(support)} with {with_article(rider)} on it",
    ]
    riders, supports = [rider], [support]
    if spec.color == OBJECT_CLASSES[spec.thing].color:
        riders.append(spec.thing)
    if spec.support_color == OBJECT_CLASSES[spec.support].color:
        supports.append(spec.support)
    return wordings + [
        f"{with_article(one)} on {with_article(other)}" for one in riders for other in supports
    ]


def _with_synonyms(spec: Spec) -> str:
    """Return the canonical caption with every word that has synonyms replaced by one of them."""
    text = spec.caption
    number = zlib.crc32(text.encode())

    def other(word: str) -> str:
        choice = CAPTION_SYNONYMS.get(word, (word,))
        return choice[number % len(choice)] if word else ""

    if spec.support:
        rider = f"{other(spec.color)} {other(spec.thing)}"
        return (
            f"{with_article(rider)} on {with_article(f'{other(spec.support_color)} {other(spec.support)}')}"
        )
    text = with_article(join_words(other(spec.modifier), other(spec.color), other(spec.thing)))
    return f"{text} with {part_phrase(spec, other(spec.accent))}" if spec.kind == "two colours" else text


def vocabulary() -> dict[str, list[str]]:
    """Return the canonical words that a model of the toy world knows, by kind."""
    return {
        "things": list(OBJECT_CLASSES),
        "colours": list(NAMES),
        "modifiers": list(MODIFIERS),
        "parts": list(parts()),
        "riders": list(RIDERS),
        "supports": list(SUPPORTS),
    }
