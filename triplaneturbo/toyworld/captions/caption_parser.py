"""Caption parser of the toy world: text -> `Spec`, unknown words, or the reason why it has no meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from triplaneturbo.errors import UserError
from triplaneturbo.toyworld.captions.words import Meaning, key, lexicon, with_article
from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
from triplaneturbo.toyworld.scene.spec import RIDERS, SUPPORTS, Spec

_BREAK = Meaning("break", ",")
_MAX_PHRASE_WORDS = 3


@dataclass(frozen=True)
class Reading:
    """Result of `parse`; exactly one of its three fields is set.

    Attributes:
        spec: the meaning of the text, or None.
        unknown: the unknown words as spelled in the text, each once, in order.
        why: one sentence that explains why a text of known words has no meaning; else "".
    """

    spec: Spec | None
    unknown: tuple[str, ...] = ()
    why: str = ""


@dataclass(eq=False)
class _Noun:
    """A noun with its adjectives."""

    thing: str  # name of the object class; "" for a part
    spelled: str  # lookup key of the noun's phrase
    link: str  # preposition or conjunction between the previous noun and this one, or ""
    colors: list[str] = field(default_factory=list)
    modifiers: list[str] = field(default_factory=list)


class _InvalidCaption(Exception):
    """The words are known, but their combination has no meaning; the message says why."""


def parse(text: str) -> Reading:
    """Parse a caption. Never raises: the result reports unknown words and errors."""
    meanings, unknown = _look_up_phrases(text)
    if unknown:
        return Reading(None, tuple(unknown))
    try:
        return Reading(_build_spec(_attach_adjectives(meanings)))
    except (_InvalidCaption, UserError) as reason:
        return Reading(None, why=str(reason))


def _look_up_phrases(text: str) -> tuple[list[Meaning], list[str]]:
    """Return the meanings of all phrases (the longest match wins) and the unknown words.

    The value of a noun's meaning is the key of its phrase, because its class depends on the other nouns.
    """
    words, known = _tokenize(text), lexicon()
    meanings: list[Meaning] = []
    unknown: dict[str, str] = {}
    at = 0
    while at < len(words):
        if words[at] in ",;:.":
            meanings.append(_BREAK)
            at += 1
            continue
        for length in range(_MAX_PHRASE_WORDS, 0, -1):
            phrase = key(" ".join(words[at : at + length]))
            if at + length <= len(words) and phrase in known:
                meaning = known[phrase]
                noun = meaning.kind in ("thing", "part")
                meanings.append(Meaning(meaning.kind, phrase) if noun else meaning)
                at += length
                break
        else:
            unknown.setdefault(words[at].lower(), words[at])
            at += 1
    return meanings, list(unknown.values())


def _tokenize(text: str) -> list[str]:
    """Split a text into words and the punctuation marks that separate clauses; drop all other marks."""
    words, word = [], ""
    for letter in text.replace("’", "'").replace("&", " and ") + " ":
        if letter.isalnum() or (letter == "'" and word):
            word += letter
            continue
        if word:
            words.append(word.rstrip("'"))
        word = ""
        if letter in ",;:.":
            words.append(letter)
    return words


def _attach_adjectives(meanings: list[Meaning]) -> list[_Noun]:
    """Return the nouns, each with the adjectives before it and those after it that no noun follows.

    Raises:
        _InvalidCaption: there is no noun, the text ends after a preposition, or a pattern has a colour.
    """
    nouns: list[_Noun] = []
    colors: list[str] = []
    modifiers: list[str] = []
    link = ""

    def settle() -> None:
        if nouns and not link:
            give(nouns[-1])

    def give(noun: _Noun) -> None:
        noun.colors += colors
        noun.modifiers += modifiers
        colors.clear()
        modifiers.clear()

    for meaning in meanings:
        if meaning.kind == "color":
            colors.append(meaning.value)
        elif meaning.kind == "modifier":
            modifiers.append(meaning.value)
        elif meaning.kind == "pattern":
            if colors and (link or not nouns):
                raise _InvalidCaption("The colour of stripes, spots and checks is fixed: leave it out.")
            settle()
            (nouns[0].modifiers if nouns else modifiers).append(meaning.value)
            link = ""
        elif meaning.kind == "break":
            settle()
        elif meaning.kind == "link":
            settle()
            link = meaning.value
        elif meaning.kind in ("thing", "part"):
            thing = lexicon()[meaning.value].value if meaning.kind == "thing" else ""
            nouns.append(_Noun(thing, meaning.value, link))
            give(nouns[-1])
            link = ""
    if not nouns:
        raise _InvalidCaption("The prompt names no thing: add one, as in 'a red mushroom'.")
    if link == "on" and len(nouns) > 1:  # "a box with a duck on it"
        nouns[-1].link, link = "under", ""
    elif link and not colors + modifiers:
        raise _InvalidCaption(f'The prompt ends after "{link}": complete it.')
    give(nouns[-1])
    return nouns


def _build_spec(nouns: list[_Noun]) -> Spec:
    """Return the spec of one thing, or of a thing on a support, with its colours and modifier.

    Raises:
        _InvalidCaption: the nouns do not go together.
        UserError: `Spec.of` rejects the combination.
    """
    things: list[_Noun] = []
    parts: list[_Noun] = []
    named = {noun.thing for noun in nouns if noun.thing}
    for noun in nouns:
        (things if noun.thing and not _is_part(noun, named) else parts).append(noun)
    for noun in nouns:
        if len(set(noun.colors)) > 1:
            raise _InvalidCaption(f"The prompt gives the {noun.spelled} two colours: choose one.")
    if not things:
        raise _InvalidCaption("The prompt names only a part of a thing: add the thing that has it.")
    if len(things) > 2 or (len(things) == 2 and things[1].link not in ("on", "under")):
        raise _InvalidCaption("The prompt names several things: name one, or one that stands on another.")
    above, below = things[0], None
    if len(things) == 2:
        above, below = things if things[1].link == "on" else things[::-1]
        if below.thing not in SUPPORTS or above.thing not in RIDERS:
            pair = f"{with_article(above.thing)} on {with_article(below.thing)}"
            raise _InvalidCaption(
                f"The model cannot make {pair}: only {_any_of(RIDERS)} can stand on something, namely on "
                f"{_any_of([with_article(one) for one in SUPPORTS])}."
            )
    accents = {id(one): _accent(one, parts) for one in things}
    for part in parts:
        if not any(_belongs_to(part, one.thing) for one in things):
            name = with_article(above.thing).capitalize()
            raise _InvalidCaption(f"{name} has no {part.spelled} with its own colour: leave it out.")
        if part.modifiers:
            raise _InvalidCaption(
                f"Only a whole thing can be {part.modifiers[0]}: put '{part.modifiers[0]}' before the "
                f"{above.thing}."
            )
    modifiers = {modifier for one in things for modifier in one.modifiers}
    if len(modifiers) > 1:
        raise _InvalidCaption(
            f"A thing cannot be {' and '.join(sorted(modifiers))} at the same time: choose one."
        )
    if below is not None and accents[id(below)] not in ("", OBJECT_CLASSES[below.thing].accent_color):
        raise _InvalidCaption(
            f"A {below.thing} below another thing has only one colour: leave out the colour of its parts."
        )
    return Spec.of(
        above.thing,
        _first_or_empty(above.colors),
        accents[id(above)],
        _first_or_empty(list(modifiers)),
        below.thing if below is not None else "",
        _first_or_empty(below.colors) if below is not None else "",
    )


def _is_part(noun: _Noun, named: set[str]) -> bool:
    """Return whether a noun that is also a class names a part here, such as the hat of a ghost."""
    if noun.link == "on":
        return False
    return any(thing != noun.thing and _belongs_to(noun, thing) for thing in named)


def _belongs_to(part: _Noun, thing: str) -> bool:
    return _part_of(thing) == part.spelled


@cache
def _part_of(thing: str) -> str | None:
    """Return the lookup key of the part of a class that has a second colour, or None."""
    accent = OBJECT_CLASSES[thing].accent
    return key(accent) if accent is not None else None


def _accent(thing: _Noun, parts: list[_Noun]) -> str:
    colors = {color for part in parts if _belongs_to(part, thing.thing) for color in part.colors}
    if len(colors) > 1:
        raise _InvalidCaption(f"The prompt gives one part of the {thing.thing} two colours: choose one.")
    return _first_or_empty(list(colors))


def _first_or_empty(values: list[str]) -> str:
    return values[0] if values else ""


def _any_of(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
