"""The words of the captions: what they stand for, and which mean the same."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from triplaneturbo.toyworld.scene.classes import THINGS
from triplaneturbo.toyworld.scene.palette import NAMES

MODIFIERS = ("tall", "flat", "small", "striped", "spotted", "checkered")
PATTERN_NOUNS = {"striped": "stripes", "spotted": "spots", "checkered": "checks"}

# Other words for classes, colours and modifiers: those that captions also use, and those only understood.
SPOKEN: dict[str, tuple[str, ...]] = {
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
UNDERSTOOD: dict[str, tuple[str, ...]] = {
    "cyan": ("aqua", "teal"),
    "purple": ("lilac",),
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
    "rocket": ("rocket ship",),
    "car": ("automobile",),
    "truck": ("lorry",),
    "airplane": ("aeroplane", "air plane"),
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
_IDLE = """a an the one single some this that it its which who there is are here in of colored coloured
color colour 3d model models picture image photo photograph drawing painting illustration render rendering
mesh object sitting standing stands sits placed resting perched"""
IDLE = tuple(_IDLE.split())
IDLE_PHRASES = (("3", "d"), ("three", "dimensional"))
_IRREGULAR = {"leaves": "leaf", "scarves": "scarf", "wolves": "wolf", "teeth": "tooth", "feet": "foot"}


@dataclass(frozen=True)
class Meaning:
    """What a phrase stands for.

    Attributes:
        kind: "thing", "part", "color", "modifier", "pattern" (stripes), "link" (with) or "idle" (the).
        value: the canonical word; of a part, its `key` as one string.
    """

    kind: str
    value: str


def key(phrase: str) -> str:
    """A phrase by which to look it up: lower case, every word singular, joined by spaces."""
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
    """Every phrase that captions may use, by its `key`; where a word is a class and a part, the class."""
    words: dict[str, Meaning] = {}

    def add(kind: str, value: str, *phrases: str) -> None:
        for phrase in phrases:
            words.setdefault(key(phrase), Meaning(kind, value))

    for kind, values in (("thing", tuple(THINGS)), ("color", NAMES), ("modifier", MODIFIERS)):
        for value in values:
            add(kind, value, value, *SPOKEN.get(value, ()), *UNDERSTOOD.get(value, ()))
    for modifier, phrases in PATTERN_SYNONYMS.items():
        add("pattern", modifier, *phrases)
    for link, phrases in LINKS.items():
        add("link", link, *phrases)
    for part in parts():
        add("part", key(part), part)
    for idle in (*IDLE, *(" ".join(phrase) for phrase in IDLE_PHRASES)):
        add("idle", "", idle)
    return words


@cache
def parts() -> tuple[str, ...]:
    """The nouns of the parts that have a second colour, sorted."""
    return tuple(sorted({thing.accent for thing in THINGS.values() if thing.accent}))


def phrases() -> list[str]:
    """All that the lexicon was made from, as it is spelled, each once, in a fixed order."""
    spelled = [*NAMES, *MODIFIERS, *THINGS, *parts(), *IDLE, *(" ".join(two) for two in IDLE_PHRASES)]
    for table in (SPOKEN, UNDERSTOOD, PATTERN_SYNONYMS, LINKS):
        spelled += [phrase for group in table.values() for phrase in group]
    return list(dict.fromkeys(spelled))


def article(phrase: str) -> str:
    """The phrase with "a" or "an" before it."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase
