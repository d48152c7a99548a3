"""Tests of the Advanced tab's texts about a run and a prompt list, without a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.html_reader import Reader
from triplaneturbo.domains.toyworld import TOY_WORLD
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.run import Report
from triplaneturbo.serving.training_service import RunState, _append_losses
from triplaneturbo.ui.training import prompt_list, running

NASTY = "<img src=x onerror=alert(2)>"
STATE = RunState(
    FinetuneConfig("ducks", ("a red duck",)), Path("runs/ducks"), "running", iteration=30, iterations=90
)
WORLD: Any = SimpleNamespace(domain=TOY_WORLD)


def words(html: str) -> str:
    return Reader(html).words


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "ducks: training."),
        ({"doing": "drawing a red duck"}, "ducks: drawing a red duck."),
        ({"state": "pausing"}, "ducks: saving."),
        ({"state": "ending", "doing": "judging a red duck"}, "ducks: finishing, judging a red duck."),
        ({"state": "paused"}, "Press Resume to continue"),
        ({"state": "stopped"}, "was interrupted when the server stopped"),
        ({"state": "failed", "sentence": NASTY}, f"ducks failed. {NASTY}"),
        ({"state": "finished", "kept": True}, "ducks is saved. Choose it"),
        ({"state": "ending", "kept": True}, "ducks: finishing."),
    ],
)
def test_every_state_is_an_escaped_sentence(change: dict[str, Any], said: str) -> None:
    html = running.panel(replace(STATE, **change))
    assert said in words(html)
    assert "<img" not in html
    assert "30 of 90" in words(html)
    assert ('role="alert"' in html) == ("sentence" in change)


def test_speed_and_time_left_are_shown_during_training_only() -> None:
    learning = replace(STATE, seconds=2.0, left=120.0)
    assert "2 min 00 s" in words(running.panel(learning))
    assert "0.5" in words(running.panel(learning))
    assert "2 min 00 s" not in words(running.panel(replace(learning, state="paused")))


def test_long_curves_are_averaged() -> None:
    count = 5 * running.MAX_POINTS
    log = [{"iteration": i + 1, "sd volume": float(i), "eikonal": 1.0} for i in range(count)]
    table = running.table(log, "Stable Diffusion")
    assert len(table) == running.MAX_POINTS
    assert table["loss"].mean() == pytest.approx((count - 1) / 2)
    assert (table["iteration"].iloc[0], table["iteration"].iloc[-1]) == (5, count)
    assert set(table["part"]) == {"volume"}
    assert set(running.table(log, running.OTHERS)["part"]) == {"eikonal"}
    assert len(running.table(log, running.GRADIENT)) == 0


def test_score_table_skips_missing_scores() -> None:
    one: dict[str, Any] = {"volume_iou": 0.5, "r_at_1": 0.25, "empty": 0}
    two: dict[str, Any] = {"volume_iou": 0.75, "r_at_1": None, "empty": 0}
    html = running.score_table(
        {"before": {"learned": one, "held out": None}, "after": {"learned": two, "held out": None}}
    )
    assert "Volume, training" in words(html)
    assert "0.500" in words(html)
    assert "0.750" in words(html)
    for absent in ("held out", "CLIP", "Empty"):
        assert absent not in words(html)
    assert running.score_table(None) == ""


def test_repeated_iteration_replaces_log_entries() -> None:
    log: tuple[dict[str, Any], ...] = ()
    for iteration, loss in ((1, 0.1), (2, 0.2), (3, 0.3), (2, 0.4)):
        log = _append_losses(log, Report(iteration, 9, {"sd": loss}))
    assert log == ({"iteration": 1, "sd": 0.1}, {"iteration": 2, "sd": 0.4})
    assert _append_losses(log, Report(2, 9, doing="drawing")) == log


def test_prompt_summary_counts_every_skipped_line() -> None:
    listed = prompt_list.from_text(f"a red cup\n\na red cup\n{NASTY}\n12\na {{blue|green}} cup\n")
    html = prompt_list.panel(prompt_list.split_list(WORLD, listed, 0.3))
    said = words(html)
    for part in ("2 prompts for training", "1 held out", "1 blank", "1 duplicated", "1 not text", NASTY):
        assert part in said
    assert "<img" not in html


def test_too_long_list_suggests_the_command() -> None:
    with pytest.raises(UserError, match="triplaneturbo finetune --prompts"):
        prompt_list.from_text("a" * (prompt_list.MAX_CHARACTERS + 1))
    many = replace(STATE, config=FinetuneConfig("x", tuple(f"a cup {i}" for i in range(30_000))))
    assert prompt_list.of_run(many) == ""
    assert prompt_list.of_run(STATE) == "a red duck"
    assert prompt_list.of_run(None) == ""


def test_upload_errors_hide_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("id,words,tint\n1,a red cup,dark red\n")
    with pytest.raises(UserError, match=r"'mine\.csv'") as told:
        prompt_list.from_file(path, None)
    assert str(tmp_path) not in str(told.value)
    assert prompt_list.column_choices(path) == ["id", "words", "tint"]
    assert prompt_list.from_file(path, "words")[1] == "a red cup"


def test_uploaded_text_is_shown_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes("# mine\r\n1|a red cup\r\n2|a hat\r\n".encode("utf-16"))
    listed, text = prompt_list.from_file(path, None)
    assert text.splitlines() == ["# mine", "1|a red cup", "2|a hat"]
    assert listed.prompts == prompt_list.from_text(text).prompts == ("a red cup", "a hat")
    assert "1 commented out" in prompt_list.panel(prompt_list.PromptSplit(listed.prompts, (), {}, listed))
