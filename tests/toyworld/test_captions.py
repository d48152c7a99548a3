"""Captions: every wording of a spec parses back to it; errors are explained."""

from __future__ import annotations

import numpy as np
import pytest

from triplaneturbo.errors import UserError
from triplaneturbo.toyworld.captions.captions import (
    RIDERS,
    SUPPORTS,
    Spec,
    captions,
    parse,
    trained_wording,
    vocabulary,
)
from triplaneturbo.toyworld.captions.combinations import all_specs
from triplaneturbo.toyworld.captions.words import (
    CAPTION_SYNONYMS,
    PARSER_SYNONYMS,
    key,
    lexicon,
    parts,
    phrases,
)
from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
from triplaneturbo.toyworld.scene.palette import NAMES


def test_every_wording_is_parsed() -> None:
    owners: dict[str, Spec] = {}
    for spec in all_specs():
        wordings = captions(spec)
        assert wordings[0] == spec.caption
        assert 6 <= len(wordings) <= 12
        for wording in wordings:
            assert owners.setdefault(wording, spec) == spec, wording
            assert parse(wording).spec == spec, wording


def test_pairs_with_two_unnatural_colours_are_parsed() -> None:
    for rider in RIDERS:
        for support in SUPPORTS:
            spec = Spec.of(rider, "purple", support=support, support_color="cyan")
            assert all(parse(wording).spec == spec for wording in captions(spec))


@pytest.mark.parametrize(
    ("spec", "caption"),
    [
        (Spec.of("mushroom"), "a red mushroom"),
        (Spec.of("mushroom", modifier="tall"), "a tall red mushroom"),
        (Spec.of("house", "blue", "green"), "a blue house with a green roof"),
        (Spec.of("fish", "yellow", modifier="striped"), "a striped yellow fish"),
        (Spec.of("fish", "yellow", "red"), "a yellow fish with red fins"),
        (Spec.of("apple", "orange"), "an orange apple"),
        (Spec.of("duck", support="box", support_color="brown"), "a yellow duck on a brown box"),
    ],
)
def test_canonical_caption(spec: Spec, caption: str) -> None:
    assert spec.caption == caption
    assert parse(caption).spec == spec


def test_wordings() -> None:
    assert {
        "a red mushroom", "red mushroom", "the red mushroom", "a mushroom, red", "a mushroom in red",
        "a 3d model of a red mushroom", "a mushroom", "mushroom",
    } == set(captions(Spec.of("mushroom", "red")))  # fmt: skip
    assert "a blue mushroom with spots" in captions(Spec.of("mushroom", "blue", modifier="spotted"))
    assert "a house, blue, with a green roof" in captions(Spec.of("house", "blue", "green"))
    assert "a blue house and a green roof" in captions(Spec.of("house", "blue", "green"))
    assert "a violet plane" in captions(Spec.of("airplane", "purple"))
    duck = captions(Spec.of("duck", support="barrel"))
    assert {"a duck on a barrel", "a brown barrel with a yellow duck on it"} <= set(duck)
    assert "a duck on a barrel" not in captions(Spec.of("duck", "red", support="barrel"))


def test_every_synonym_is_generated() -> None:
    said = {wording for spec in all_specs() for wording in captions(spec)}
    words = {synonym for group in CAPTION_SYNONYMS.values() for synonym in group}
    assert all(any(f" {word}" in wording for wording in said) for word in words)


HOUSE, DUCK, FISH = Spec.of("house", "blue", "green"), Spec.of("duck", support="box"), Spec.of("fish")
WAYS = {
    "a house that is blue and has a green roof": HOUSE,
    "A BLUE House; green ROOFS!!": HOUSE,
    "blue house, green roof": HOUSE,
    "a green roof on a blue house": HOUSE,
    "a house in blue with a roof in green": HOUSE,
    "a box under a duck": DUCK,
    "the duck is sitting on top of the box": DUCK,
    "a crate with a duck on top": DUCK,
    "a yellow duck with an orange beak on a box": DUCK,
    "fishes": FISH,
    "a fish with fins": FISH,
    "a fish, orange, with yellow fins": FISH,
    "an orange orange fish": FISH,
    "a stripy fish": Spec.of("fish", modifier="striped"),
    "stripes on a fish": Spec.of("fish", modifier="striped"),
    "a red, tall castle": Spec.of("castle", "red", modifier="tall"),
    "a polka-dot VIOLET sailing boat": Spec.of("sailboat", "purple", modifier="spotted"),
    "a 3-D model of an ice-cream cone": Spec.of("ice cream"),
    "a tiny gray bunny": Spec.of("rabbit", "grey", modifier="small"),
    "a big tall tree": Spec.of("tree", modifier="tall"),
    "a hat": Spec.of("hat"),
    "a cup": Spec.of("mug"),
    "a toadstool": Spec.of("mushroom"),
    "a white mushroom": Spec.of("mushroom", "white"),
}


@pytest.mark.parametrize("text", WAYS)
def test_wordings_of_captions(text: str) -> None:
    assert parse(text).spec == WAYS[text]


def test_ambiguous_nouns_are_resolved_by_context() -> None:
    ambiguous = [
        (thing, other.thing)
        for thing in OBJECT_CLASSES.values()
        for meaning in [lexicon()[key(thing.accent or "the")]]
        if meaning.kind == "thing"
        for other in [Spec.of(meaning.value)]
    ]
    assert ambiguous, "such as the hat of a ghost"
    for thing, noun in ambiguous:
        assert parse(f"a {thing.name} with a black {thing.accent}").spec == Spec.of(
            thing.name, accent="black"
        )
        assert parse(f"a black {thing.accent} on a {thing.name}").spec == Spec.of(thing.name, accent="black")
        assert parse(f"a black {thing.accent}").spec == Spec.of(noun, "black")


def test_unknown_words_are_listed_once_in_order() -> None:
    parsed = parse("A Dragon riding a blue BICYCLE, dragon's dragon café")
    assert parsed.unknown == ("Dragon", "riding", "BICYCLE", "dragon's", "café")
    assert parsed.spec is None
    assert parsed.why == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no thing"),
        ("?!", "no thing"),
        ("a tall red", "no thing"),
        ("a red roof", "part of a thing"),
        ("a cat and a duck", "several things"),
        ("a snowman on a table on a box", "several things"),
        ("a red and white mushroom", "two colours"),
        ("a house with a red green roof", "two colours"),
        ("a tall striped car", "striped and tall"),
        ("a tall duck on a box", "tall"),
        ("a house with a tall roof", "Only a whole thing"),
        ("a flat house with a green roof", "its own colour"),
        ("a duck with a green roof", "no roof"),
        ("a yellow house with a yellow roof", "must differ"),
        ("a fish on a box", "a fish on a box"),
        ("a duck on a car", "a duck on a car"),
        ("a duck under a table", "a table on a duck"),
        ("a duck on a box with a purple lid", "one colour"),
        ("a duck on", 'ends after "on"'),
        ("a fish with red stripes", "stripes"),
        ("red stripes on a fish", "stripes"),
    ],
)
def test_meaningless_combinations_are_explained(text: str, why: str) -> None:
    parsed = parse(text)
    assert (parsed.spec, parsed.unknown) == (None, ())
    assert why in parsed.why
    assert parsed.why.endswith(".")


def test_parse_never_raises() -> None:
    rng = np.random.default_rng(0)
    pieces = [*phrases(), ",", ".", "'", "’s", "&", "-", "\n", "\0", "🍄", "ß", "²", "zzz"]
    for _ in range(4000):
        text = " ".join(pieces[i] for i in rng.integers(len(pieces), size=rng.integers(9)))
        parsed = parse(text)
        outcomes = (parsed.spec is not None, bool(parsed.unknown), bool(parsed.why))
        assert sum(outcomes) == 1, text
        if parsed.spec is not None:
            assert parse(parsed.spec.caption).spec == parsed.spec, text


@pytest.mark.parametrize(
    ("wanted", "wrong"),
    [
        ({"thing": "dragon"}, "class 'dragon'"),
        ({"thing": "duck", "color": "gold"}, "colour 'gold'"),
        ({"thing": "duck", "accent": "gold"}, "colour 'gold'"),
        ({"thing": "duck", "modifier": "furry"}, "modifier 'furry'"),
        ({"thing": "duck", "support": "car"}, "support 'car'"),
        ({"thing": "duck", "support": "box", "support_color": "gold"}, "colour 'gold'"),
        ({"thing": "duck", "support_color": "red"}, "without a support"),
        ({"thing": "fish", "support": "box"}, "cannot stand"),
        ({"thing": "duck", "support": "box", "modifier": "tall"}, "cannot be tall"),
        ({"thing": "duck", "accent": "red", "modifier": "tall"}, "its own colour"),
        ({"thing": "duck", "accent": "red", "support": "box"}, "its own colour"),
        ({"thing": "duck", "color": "red", "accent": "red"}, "must differ"),
    ],
)
def test_invalid_specs_are_refused(wanted: dict[str, str], wrong: str) -> None:
    with pytest.raises(UserError, match=wrong):
        Spec.of(**wanted)


def test_vocabulary_by_kind() -> None:
    known = vocabulary()
    assert known["things"] == list(OBJECT_CLASSES)
    assert known["colours"] == list(NAMES)
    assert known["supports"] == list(SUPPORTS)
    assert known["parts"] == list(parts())
    assert all(key(word) in lexicon() for words in known.values() for word in words)
    canonical = {*OBJECT_CLASSES, *NAMES, *known["modifiers"]}
    assert set(CAPTION_SYNONYMS) | set(PARSER_SYNONYMS) <= canonical
    # No two meanings fight for a phrase; only parts give way, to classes.
    for word in canonical:
        for synonym in (word, *CAPTION_SYNONYMS.get(word, ()), *PARSER_SYNONYMS.get(word, ())):
            assert lexicon()[key(synonym)].value == word


def test_prompts_of_known_meaning_are_embedded_in_trained_words() -> None:
    for spec in all_specs()[::97]:
        for wording in captions(spec):
            assert trained_wording(wording) == wording
    assert trained_wording("A  Red Mushroom") == "A  Red Mushroom"  # the tokenizer ignores case and spaces
    assert trained_wording("a crimson toadstool") == "a red mushroom"
    assert (
        trained_wording("a checkered emerald coffee cup, please") == "a checkered emerald coffee cup, please"
    )
    assert trained_wording("a checkered emerald coffee cup") == "a checkered green mug"
    assert trained_wording("a duckling on a wooden crate") == "a yellow duck on a brown box"
    for word, synonyms in PARSER_SYNONYMS.items():
        thing = word if word in OBJECT_CLASSES else f"{word} mushroom"
        for synonym in synonyms:
            other = thing.replace(word, synonym, 1)
            assert trained_wording(f"a {other}") == parse(f"a {thing}").spec.caption
    for prompt in ("", "a dragon", "red", "a mushroom and a duck and a cat"):
        assert trained_wording(prompt) == prompt
