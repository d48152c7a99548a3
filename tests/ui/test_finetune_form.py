"""The form of a fine-tuning run without a browser: its values, and which options are shown."""

from __future__ import annotations

from typing import Any

import pytest

gradio = pytest.importorskip("gradio")

from triplaneturbo.domains.toyworld import TOY_WORLD  # noqa: E402
from triplaneturbo.errors import UserError  # noqa: E402
from triplaneturbo.finetune.config import FinetuneConfig  # noqa: E402
from triplaneturbo.teachers.settings import KINDS, SHIFT_LEVELS  # noqa: E402
from triplaneturbo.ui.training import score_options  # noqa: E402
from triplaneturbo.ui.training.finetune_form import FIELDS, to_config  # noqa: E402
from triplaneturbo.ui.training.prompt_list import PromptSplit, from_text  # noqa: E402

PROMPTS = PromptSplit(("a red cup",), ("a blue cup",), {}, from_text("a red cup\na blue cup"))
DEFAULTS = {**FinetuneConfig("x").__dict__, **TOY_WORLD.presets["try"], "teachers": ["sd"]}
# Other values than the defaults, as browsers send them.
OPTIONS = {
    "asd_shift_level": "own", "weighting": "level", "ism_stride": 100.0, "ism_interval": 20.0,
    "critic_rank": 8, "critic_rate": 1e-3,
}  # fmt: skip


def config(**changes: Any) -> FinetuneConfig:
    values = DEFAULTS | changes
    return to_config(PROMPTS, "cups", "", *(values[name] for name in FIELDS))


@pytest.mark.parametrize(
    ("score", "used"),
    [
        ("", {"asd_shift_level"}),
        ("asd", {"asd_shift_level", "weighting"}),
        ("sds", {"weighting"}),
        ("csd", {"weighting"}),
        ("vsd", {"weighting", "critic_rank", "critic_rate"}),
        ("ism", {"weighting", "ism_stride", "ism_interval"}),
    ],
)
def test_options_are_shown_and_used_with_their_score(score: str, used: set[str]) -> None:
    updates = dict(zip(score_options.USED_BY, score_options.visibility(score), strict=True))
    assert {name for name, update in updates.items() if update["visible"] is True} == used
    assert {update["visible"] for update in updates.values()} == {True, "hidden"}

    chosen = config(score=score, **OPTIONS)
    chosen.check_values()
    assert chosen.score == score
    for name, value in OPTIONS.items():
        assert getattr(chosen, name) == (value if name in used else DEFAULTS[name])
        # A blank field matters where it is shown.
        if name in used:
            with pytest.raises(UserError, match=f"The field '{name.replace('_', ' ')}' is blank"):
                config(score=score, **OPTIONS | {name: None})
        else:
            assert config(score=score, **OPTIONS | {name: None}) == chosen


def test_every_score_and_every_level_can_be_chosen() -> None:
    with gradio.Blocks():
        controls = score_options.build()
    assert list(controls) == ["score", *score_options.USED_BY]
    values = {name: [value for _, value in controls[name].choices] for name in ("score", "asd_shift_level")}
    assert values == {"score": ["", *KINDS], "asd_shift_level": list(SHIFT_LEVELS)}
    assert {name: control.value for name, control in controls.items()} == {
        name: DEFAULTS[name] for name in controls
    }
    shown = [name for name in score_options.USED_BY if controls[name].visible is True]
    assert shown == ["asd_shift_level"]


def test_the_dropdown_of_scores_shows_their_options() -> None:
    with gradio.Blocks() as page:
        controls = score_options.build()
    (handler,) = page.fns.values()
    assert handler.targets == [(controls["score"]._id, "change")]
    assert handler.outputs == [controls[name] for name in score_options.USED_BY]


def test_numbers_that_are_not_whole_are_refused() -> None:
    with pytest.raises(UserError, match="The stride of ISM should be a whole number"):
        config(score="ism", ism_stride=1.5).check_values()
