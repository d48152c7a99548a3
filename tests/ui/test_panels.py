"""Tests of the page's HTML fragments: escaping, status lines, number formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.html_reader import NASTY, Reader
from triplaneturbo.domains.vocabulary import Vocabulary
from triplaneturbo.request import Request
from triplaneturbo.serving.jobs import MeshReady, Stopped, Waiting, Working
from triplaneturbo.toyworld.captions.caption_parser import parse
from triplaneturbo.ui.generate import panels


def _made(
    prompt: str = "a cup", truncated_text: str = "", cached: bool = False, short: bool = False
) -> MeshReady:
    facts = {
        "prompt": prompt,
        "seed": 7,
        "vertices": 12345,
        "faces": 40000,
        "surface_faces": 81234,
        "components": 2,
        "check": "Ready for printing.",
        "cached": cached,
        "unsimplified": False,
        "memory_was_short": short,
        "settings": {"texture_size": 512},
        "seconds": {**dict.fromkeys(panels.STAGES, 0.25), "total": 2.0},
        "files": [{"path": "/home/someone/cup.glb", "bytes": 2_345_678, "sha256": "00"}],
    }
    return MeshReady(Request(prompt), {"glb": Path("/home/someone/cup.glb")}, facts, truncated_text)


@pytest.mark.parametrize(
    "html",
    [
        panels.facts(_made(NASTY)),
        panels.status(Stopped(NASTY)),
        panels.status(_made(truncated_text=NASTY)),
        panels.notice(NASTY),
        panels.feedback(NASTY, ""),
        panels.vocabulary(Vocabulary({"things": [NASTY]}, {"things": "Things"}, ("things",), (), parse)),
        panels.report(f"model   {NASTY}"),
    ],
)
def test_external_text_is_escaped(html: str) -> None:
    assert not {"img", "script"} & set(Reader(html).tags)
    assert "alert(2)" in Reader(html).words
    assert not {"{", "$", "`"} & set(html)  # nothing for Gradio's templates


def test_panels_keep_their_layout() -> None:
    def places(html: str) -> list[str]:
        return [tag for tag in Reader(html).tags if tag != "span"]

    assert places(panels.facts()) == places(panels.facts(_made()))
    assert places(panels.ready()) == places(panels.status(_made())) == places(panels.status(Stopped("No.")))


def test_prompt_feedback_is_never_empty() -> None:
    told, hint = panels.feedback("It is unknown.", "It knows."), panels.feedback("", "It knows.")
    assert (Reader(told).words, Reader(hint).words) == ("It is unknown.", "It knows.")
    assert Reader(told).tags == Reader(hint).tags


def test_vocabulary_is_listed_under_headings() -> None:
    html = panels.vocabulary(
        Vocabulary({"things": ["cat", "cup"]}, {"things": "Things"}, ("things",), ("a cat", "a cup"), parse)
    )
    assert "<dt>Things</dt><dd>cat, cup</dd>" in html
    assert "a cat; a cup" in html


def test_facts_panel() -> None:
    words = Reader(panels.facts(_made())).words
    for part in ("“a cup”", "12,345", "40,000", "2.3 MB", "2.0 s", "0.25 s"):
        assert part in words


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (Waiting(1), "Waiting: 1 job ahead"),
        (Waiting(3), "Waiting: 3 jobs ahead"),
        (Waiting(1, True), "Waiting: 1 job ahead, a refinement"),
        (
            Waiting(2, True, 40),
            "Waiting: 2 jobs ahead, one of them a refinement that takes about 40 s more",
        ),
        (Working("refine", 0.2, 9.0, 11, 60), "Refining, step 12 of 60"),
        (Working("denoise", 0.2, 1.0, 1, 4), "step 2 of 4"),
        (Working("denoise", 0.5, 1.0, 4, 4), "step 4 of 4"),
        (Working("texture", 0.9, 1.0, 4, 4), "Baking the texture"),
        (Stopped(), "Cancelled."),
        (_made(), "Done in 2.0 s."),
        (_made(cached=True), "Reused the earlier result"),
        (_made(short=True), "the texture is only 512 × 512 pixels"),
    ],
)
def test_status_line(event: Waiting | Working | MeshReady | Stopped, said: str) -> None:
    assert said in Reader(panels.status(event)).words


def test_report_hides_folders() -> None:
    words = Reader(panels.report("device   cpu (a name): no CUDA\nfiles    /home/someone/model")).words
    assert "no CUDA" in words
    assert "someone" not in words


def test_file_facts_hide_folders() -> None:
    facts = panels.file_facts(_made().facts)
    assert facts["files"] == [{"name": "cup.glb", "bytes": 2_345_678, "sha256": "00"}]
