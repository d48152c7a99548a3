"""The vocabulary of the toy world, and messages about captions that it cannot express."""

from __future__ import annotations

import pytest

from triplaneturbo.domains.vocabulary import advice
from triplaneturbo.toyworld.captions.caption_parser import _MAX_PHRASE_WORDS, Reading
from triplaneturbo.toyworld.captions.captions import captions, parse, vocabulary
from triplaneturbo.toyworld.captions.combinations import all_specs
from triplaneturbo.toyworld.captions.vocabulary import VOCABULARY
from triplaneturbo.toyworld.captions.words import PATTERN_NOUNS

MORE = "See the list."


def test_unknown_words_are_named() -> None:
    assert advice(parse("a Dragon and a glittering dragon"), MORE) == (
        f"This model does not know: 'Dragon', 'glittering'. {MORE}"
    )


def test_reason_for_known_words() -> None:
    assert advice(parse("red"), MORE) == f"This model may not follow the prompt. {parse('red').why}"


def test_no_advice_for_known_captions() -> None:
    assert all(advice(parse(wording), MORE) == "" for spec in all_specs()[::97] for wording in captions(spec))


def test_advice_is_short() -> None:
    line = advice(parse(" ".join(f"{letter * 400}" for letter in "bcdfghjk")), MORE)
    assert line.count("b") == 24
    assert " and 2 more." in line
    assert len(line) < 260


def test_examples_cover_every_kind() -> None:
    specs = [parse(example).spec for example in VOCABULARY.examples]
    assert {spec.kind for spec in specs if spec} == {spec.kind for spec in all_specs()}
    assert {bool(PATTERN_NOUNS.get(spec.modifier)) for spec in specs if spec and spec.modifier} == {
        False,
        True,
    }
    assert tuple(spec.caption for spec in specs if spec) == VOCABULARY.examples


def test_every_kind_has_a_heading() -> None:
    assert list(VOCABULARY.headings) == list(vocabulary())
    assert VOCABULARY.summary().split(", ")[:2] == [
        f"{len(vocabulary()['things'])} things",
        f"{len(vocabulary()['colours'])} colours",
    ]


def test_misfits_name_the_reason() -> None:
    misfits = VOCABULARY.misfits(["a red cup", "a dragon", "red"])
    assert misfits == {"a dragon": "it does not know 'dragon'", "red": parse("red").why}


@pytest.mark.parametrize("words", ["hat", "cat box", "house roof", "hat duck", "red", "a"])
def test_lookups_are_linear_in_prompt_length(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from triplaneturbo.toyworld.captions import caption_parser

    count, key = [0], caption_parser.key
    monkeypatch.setattr(
        caption_parser, "key", lambda phrase: count.__setitem__(0, count[0] + 1) or key(phrase)
    )
    text = (words + " ") * (1000 // (len(words) + 1))
    assert isinstance(parse(text), Reading)
    assert count[0] <= _MAX_PHRASE_WORDS * len(text.split()) + len(vocabulary()["things"])
