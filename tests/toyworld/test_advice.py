"""Messages about captions that the toy world cannot express."""

from __future__ import annotations

import pytest

from triplaneturbo.toyworld.captions.advice import EXAMPLES, KINDS, advice, summary
from triplaneturbo.toyworld.captions.caption_parser import _MAX_PHRASE_WORDS, Reading
from triplaneturbo.toyworld.captions.captions import captions, parse, vocabulary
from triplaneturbo.toyworld.captions.combinations import all_specs
from triplaneturbo.toyworld.captions.words import PATTERN_NOUNS

MORE = "See the list."


def test_unknown_words_are_named() -> None:
    assert advice(parse("a Dragon and a golden dragon"), MORE) == (
        f"This model does not know: 'Dragon', 'golden'. {MORE}"
    )


def test_why_known_words_mean_nothing() -> None:
    assert advice(parse("red"), MORE) == f"This model may not follow the prompt. {parse('red').why}"


def test_nothing_is_said_of_what_the_world_holds() -> None:
    assert all(advice(parse(wording), MORE) == "" for spec in all_specs()[::97] for wording in captions(spec))


def test_the_line_stays_short() -> None:
    line = advice(parse(" ".join(f"{letter * 400}" for letter in "bcdfghjk")), MORE)
    assert line.count("b") == 24
    assert " and 2 more." in line
    assert len(line) < 260


def test_there_is_an_example_of_each_kind() -> None:
    specs = [parse(example).spec for example in EXAMPLES]
    assert {spec.kind for spec in specs if spec} == {spec.kind for spec in all_specs()}
    assert {bool(PATTERN_NOUNS.get(spec.modifier)) for spec in specs if spec and spec.modifier} == {
        False,
        True,
    }
    assert tuple(spec.caption for spec in specs if spec) == EXAMPLES


def test_every_kind_of_the_vocabulary_has_a_name() -> None:
    assert list(KINDS) == list(vocabulary())
    assert summary().split(", ")[:2] == [
        f"{len(vocabulary()['things'])} things",
        f"{len(vocabulary()['colours'])} colours",
    ]


@pytest.mark.parametrize("words", ["hat", "cat box", "house roof", "hat duck", "red", "a"])
def test_a_long_prompt_is_looked_up_in_few_steps(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from triplaneturbo.toyworld.captions import caption_parser

    count, key = [0], caption_parser.key
    monkeypatch.setattr(
        caption_parser, "key", lambda phrase: count.__setitem__(0, count[0] + 1) or key(phrase)
    )
    text = (words + " ") * (1000 // (len(words) + 1))
    assert isinstance(parse(text), Reading)
    assert count[0] <= _MAX_PHRASE_WORDS * len(text.split()) + len(vocabulary()["things"])
