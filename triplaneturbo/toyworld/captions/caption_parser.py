"""Reads captions: what a sentence means, which of its words are unknown, or why it means nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from triplaneturbo.errors import UserError
from triplaneturbo.toyworld.captions.words import Meaning, article, key, lexicon
from triplaneturbo.toyworld.scene.classes import THINGS
from triplaneturbo.toyworld.scene.spec import RIDERS, SUPPORTS, Spec

_BREAK = Meaning("break", ",")
_LONGEST = 3  # words of a phrase


@dataclass(frozen=True)
class Reading:
    """What `parse` made of a text.

    Attributes:
        spec: its meaning, or None.
        unknown: the words that the world does not know, as they were spelled, each once, in order.
        why: one sentence that says why there is no meaning although all words are known; else "".
    """

    spec: Spec | None
    unknown: tuple[str, ...] = ()
    why: str = ""


@dataclass(eq=False)
class _Noun:
    """A noun with what is said of it; `spelled` is its key, `link` the word that joins it to the last one."""

    thing: str  # "" for a part
    spelled: str
    link: str
    colors: list[str] = field(default_factory=list)
    modifiers: list[str] = field(default_factory=list)


class _Unclear(Exception):
    """Known words that do not make a meaning; says why."""


def parse(text: str) -> Reading:
    """Read a caption. Never fails: what cannot be understood is told in the reading."""
    meanings, unknown = _look_up(text)
    if unknown:
        return Reading(None, tuple(unknown))
    try:
        return Reading(_understand(_attach(meanings)))
    except (_Unclear, UserError) as reason:
        return Reading(None, why=str(reason))


def _look_up(text: str) -> tuple[list[Meaning], list[str]]:
    """The meanings of all phrases, the longest known ones first, and the words that have none.

    A noun's meaning has the key of its phrase for its value: that of its class depends on what is around it.
    """
    words, known = _split(text), lexicon()
    meanings: list[Meaning] = []
    unknown: dict[str, str] = {}
    at = 0
    while at < len(words):
        if words[at] in ",;:.":
            meanings.append(_BREAK)
            at += 1
            continue
        for length in range(_LONGEST, 0, -1):
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


def _split(text: str) -> list[str]:
    """Words, and marks that part a sentence; all other marks part words."""
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


def _attach(meanings: list[Meaning]) -> list[_Noun]:
    """The nouns with their adjectives: those before each, and those after it where no noun follows."""
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
                raise _Unclear("The colour of stripes, spots and checks cannot be chosen: leave it out.")
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
        raise _Unclear("It names no thing: say what to make.")
    if link == "on" and len(nouns) > 1:  # "a box with a duck on it"
        nouns[-1].link, link = "under", ""
    elif link and not colors + modifiers:
        raise _Unclear(f'It breaks off after "{link}": say what follows.')
    give(nouns[-1])
    return nouns


def _understand(nouns: list[_Noun]) -> Spec:
    things: list[_Noun] = []
    parts: list[_Noun] = []
    named = {noun.thing for noun in nouns if noun.thing}
    for noun in nouns:
        (things if noun.thing and not _is_part(noun, named) else parts).append(noun)
    for noun in nouns:
        if len(set(noun.colors)) > 1:
            raise _Unclear(f"It gives two colours to the {noun.spelled}: choose one.")
    if not things:
        raise _Unclear("It names only a part of a thing: say of what.")
    if len(things) > 2 or (len(things) == 2 and things[1].link not in ("on", "under")):
        raise _Unclear("It names several things: ask for one, or for one on another.")
    above, below = things[0], None
    if len(things) == 2:
        above, below = things if things[1].link == "on" else things[::-1]
        if below.thing not in SUPPORTS or above.thing not in RIDERS:
            raise _Unclear(
                f"{article(above.thing).capitalize()} on {article(below.thing)} is not in the world: "
                f"{_choice(RIDERS)} can stand on {_choice([article(one) for one in SUPPORTS])}."
            )
    accents = {id(one): _accent(one, parts) for one in things}
    for part in parts:
        if not any(_belongs(part, one.thing) for one in things):
            raise _Unclear(f"{article(above.thing).capitalize()} has no {part.spelled} that can be coloured.")
        if part.modifiers:
            raise _Unclear(f"Only a whole thing can be {part.modifiers[0]}: say it of the {above.thing}.")
    modifiers = {modifier for one in things for modifier in one.modifiers}
    if len(modifiers) > 1:
        raise _Unclear(f"A thing cannot be {' and '.join(sorted(modifiers))} at once: choose one.")
    if below is not None and accents[id(below)] not in ("", THINGS[below.thing].accent_color):
        raise _Unclear(f"In a pair the {below.thing} has one colour: leave out that of its parts.")
    return Spec.of(
        above.thing,
        _one(above.colors),
        accents[id(above)],
        _one(list(modifiers)),
        below.thing if below is not None else "",
        _one(below.colors) if below is not None else "",
    )


def _is_part(noun: _Noun, named: set[str]) -> bool:
    """Whether a noun that can be a class is a part here, as the hat of a ghost is."""
    if noun.link == "on":
        return False
    return any(thing != noun.thing and _belongs(noun, thing) for thing in named)


def _belongs(part: _Noun, thing: str) -> bool:
    return _part_of(thing) == part.spelled


@cache
def _part_of(thing: str) -> str | None:
    """The key of the part of a class that has a second colour, or None."""
    accent = THINGS[thing].accent
    return key(accent) if accent is not None else None


def _accent(thing: _Noun, parts: list[_Noun]) -> str:
    colors = {color for part in parts if _belongs(part, thing.thing) for color in part.colors}
    if len(colors) > 1:
        raise _Unclear(f"It gives two colours to one part of the {thing.thing}: choose one.")
    return _one(list(colors))


def _one(values: list[str]) -> str:
    return values[0] if values else ""


def _choice(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}"
