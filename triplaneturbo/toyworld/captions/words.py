"""Lexicon of the toy world: the words of captions, their synonyms and their meanings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
from triplaneturbo.toyworld.scene.palette import NAMES

MODIFIERS = ("tall", "flat", "small", "striped", "spotted", "checkered")
PATTERN_NOUNS = {"striped": "stripes", "spotted": "spots", "checkered": "checks"}

# Synonyms of classes, colours and modifiers: those in training captions, and those that only `parse` knows.
CAPTION_SYNONYMS: dict[str, tuple[str, ...]] = {
    "grey": ("gray",),
    "cyan": ("turquoise",),
    "purple": ("violet",),
    "tall": ("high",),
    "flat": ("low", "squat"),
    "small": ("little", "tiny"),
    "striped": ("stripy",),
    "spotted": ("dotted", "polka dot"),
    "checkered": ("checked",),
    "airplane": ("plane",),
    "sailboat": ("boat", "sailing boat"),
    "train": ("locomotive", "steam engine"),
    "sofa": ("couch",),
    "mug": ("cup",),
    "box": ("crate",),
    "rabbit": ("bunny",),
    "tree": ("pine tree", "fir tree"),
}
PARSER_SYNONYMS: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet", "ruby"),
    "orange": ("amber",),
    "yellow": ("golden", "gold", "lemon"),
    "green": ("emerald", "lime", "olive"),
    "cyan": ("aqua", "teal"),
    "blue": ("navy", "azure", "sapphire"),
    "purple": ("lilac", "lavender"),
    "pink": ("rose", "magenta"),
    "brown": ("wooden", "chocolate", "tan"),
    "black": ("ebony",),
    "grey": ("silver",),
    "white": ("ivory", "snowy"),
    "tall": ("big tall", "elongated"),
    "flat": ("flattened", "squashed"),
    "small": ("mini", "miniature"),
    "striped": ("stripey",),
    "spotted": ("spotty", "dotty", "polka dotted"),
    "checkered": ("chequered",),
    "mushroom": ("toadstool",),
    "tree": ("pine", "fir", "christmas tree"),
    "cactus": ("cacti",),
    "cupcake": ("cup cake", "muffin"),
    "donut": ("doughnut",),
    "ice cream": ("icecream", "ice cream cone"),
    "cat": ("kitten", "kitty"),
    "rabbit": ("hare", "bunny rabbit"),
    "turtle": ("tortoise",),
    "snowman": ("snow man", "snowmen"),
    "rocket": ("rocket ship", "spaceship", "spacecraft"),
    "car": ("automobile", "auto"),
    "house": ("cottage", "home"),
    "castle": ("fortress", "palace"),
    "duck": ("duckling", "rubber duck"),
    "chair": ("armchair",),
    "truck": ("lorry", "pickup"),
    "airplane": ("aeroplane", "air plane", "aircraft"),
    "sailboat": ("sail boat", "sailing ship"),
    "train": ("steam train", "steam locomotive"),
    "lighthouse": ("light house",),
    "windmill": ("wind mill",),
    "lamp": ("table lamp", "desk lamp"),
    "barrel": ("keg",),
    "teapot": ("tea pot",),
    "mug": ("coffee mug", "coffee cup", "teacup", "tea cup"),
    "umbrella": ("parasol",),
}
PATTERN_SYNONYMS = {
    "striped": ("stripes",),
    "spotted": ("spots", "dots", "polka dots"),
    "checkered": ("checks", "checkers", "squares"),
}
LINKS = {
    "with": ("with", "has", "having", "wearing", "plus"),
    "and": ("and",),
    "on": ("on", "on top", "on top of", "atop", "upon"),
    "under": ("under", "underneath", "beneath", "below"),
}
_STOP_WORDS = """a an the one single some this that it its which who there is are here in of colored coloured
color colour 3d model models picture image photo photograph drawing painting illustration render rendering
mesh object sitting standing stands sits placed resting perched"""
STOP_WORDS = tuple(_STOP_WORDS.split())
STOP_PHRASES = (("3", "d"), ("three", "dimensional"))
_IRREGULAR = {"leaves": "leaf", "scarves": "scarf", "wolves": "wolf", "teeth": "tooth", "feet": "foot"}


@dataclass(frozen=True)
class Meaning:
    """Meaning of a phrase.

    Attributes:
        kind: "thing", "part", "color", "modifier", "pattern" ("stripes"), "link" ("with") or "stop" ("the").
        value: the canonical word; the `key` of a part.
    """

    kind: str
    value: str


def key(phrase: str) -> str:
    """Return the lookup key of a phrase: its words in lower case and singular, joined by spaces."""
    return " ".join(_singular(word) for word in phrase.lower().split())


def _singular(word: str) -> str:
    word = word.removesuffix("'s")
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) <= 3 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("xes", "ches", "shes", "sses")) else word[:-1]


@cache
def lexicon() -> dict[str, Meaning]:
    """Return the meaning of every known phrase by its `key`; a class takes precedence over a part."""
    words: dict[str, Meaning] = {}

    def add(kind: str, value: str, *phrases: str) -> None:
        for phrase in phrases:
            words.setdefault(key(phrase), Meaning(kind, value))

    for kind, values in (("thing", tuple(OBJECT_CLASSES)), ("color", NAMES), ("modifier", MODIFIERS)):
        for value in values:
            add(kind, value, value, *CAPTION_SYNONYMS.get(value, ()), *PARSER_SYNONYMS.get(value, ()))
    for modifier, phrases in PATTERN_SYNONYMS.items():
        add("pattern", modifier, *phrases)
    for link, phrases in LINKS.items():
        add("link", link, *phrases)
    for part in parts():
        add("part", key(part), part)
    for stop in (*STOP_WORDS, *(" ".join(phrase) for phrase in STOP_PHRASES)):
        add("stop", "", stop)
    return words


@cache
def parts() -> tuple[str, ...]:
    """Return the nouns of the parts that have a second colour, sorted."""
    return tuple(sorted({thing.accent for thing in OBJECT_CLASSES.values() if thing.accent}))


def phrases() -> list[str]:
    """Return every phrase of the lexicon as spelled, each once, in a fixed order."""
    spelled = [
        *NAMES,
        *MODIFIERS,
        *OBJECT_CLASSES,
        *parts(),
        *STOP_WORDS,
        *(" ".join(two) for two in STOP_PHRASES),
    ]
    for table in (CAPTION_SYNONYMS, PARSER_SYNONYMS, PATTERN_SYNONYMS, LINKS):
        spelled += [phrase for group in table.values() for phrase in group]
    return list(dict.fromkeys(spelled))


def with_article(phrase: str) -> str:
    """Return the phrase preceded by "a" or "an"."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase
