"""Requests are checked before any work starts."""

from __future__ import annotations

import pytest

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.processing import clean
from triplaneturbo.mesh.uv import unwrap
from triplaneturbo.mesh.uv.registry import UNWRAPPERS
from triplaneturbo.request import PROMPT_LIMIT, TEXTURE_SIZES, UNWRAPS, Request, tidy_prompt

CHANGES = [
    ({"seed": -1}, "seed should be 0 to 4294967295, not -1"),
    ({"seed": 2**32}, "seed should be 0 to 4294967295, not 4294967296"),
    ({"seed": 10**9999}, "seed should be 0 to 4294967295, not a number of more than 20 digits"),
    ({"seed": "7"}, "seed should be a whole number, 0 to 4294967295, not '7'"),
    ({"seed": 1.5}, "seed should be a whole number"),
    ({"seed": True}, "seed should be a whole number"),
    ({"seed": None}, "seed should be a whole number"),
    ({"steps": 0}, "steps should be 1 to 50, not 0"),
    ({"steps": 51}, "steps should be 1 to 50, not 51"),
    ({"resolution": 15}, "resolution should be 16 to 512, not 15"),
    ({"resolution": 100_000}, "resolution should be 16 to 512, not 100000"),
    ({"faces": 99}, "faces should be 100 or more, not 99"),
    ({"texture_size": 511}, "texture size should be 512 to 4096, not 511"),
    ({"texture_size": 8192}, "texture size should be 512 to 4096, not 8192"),
    ({"texture_size": float("nan")}, "texture size should be a whole number"),
    ({"unwrap": "smart"}, "unwrap should be fast, xatlas, uvunwrap or none, not 'smart'"),
    ({"floaters": -0.1}, "floaters should be a fraction, 0 to 1, not -0.1"),
    ({"floaters": 1.01}, "floaters should be a fraction"),
    ({"floaters": float("nan")}, "floaters should be a fraction, 0 to 1, not nan"),
    ({"floaters": "0.1"}, "floaters should be a fraction"),
    ({"floaters": True}, "floaters should be a fraction"),
    ({"smoothing": -1}, "smoothing should be 0 to 50, not -1"),
    ({"smoothing": 51}, "smoothing should be 0 to 50, not 51"),
    ({"smoothing": 0.5}, "smoothing should be a whole number"),
    ({"prompt": ""}, "prompt is blank"),
    ({"prompt": " \t\n\r\0 \u200b\u2060"}, "prompt is blank"),
    ({"prompt": "x" * (PROMPT_LIMIT + 1)}, "prompt has 1001 characters; shorten it to at most 1000"),
    ({"prompt": "x" * 100_000}, "prompt has 100000 characters; shorten it to at most 1000"),
    ({"prompt": "\udcff"}, "not valid UTF-8"),
    ({"prompt": 5}, "prompt should be text"),
    ({"prompt": None}, "prompt should be text"),
    ({"variation": 1.1}, "variation should be a fraction, 0 to 1, not 1.1"),
    ({"variation": float("nan")}, "variation should be a fraction, 0 to 1, not nan"),
    ({"variation": "much"}, "variation should be a fraction, 0 to 1, not 'much'"),
    ({"variation_seed": -1}, "variation's seed should be 0 to 4294967295"),
    ({"variation_path": "3"}, "path should be seed:strength, as in 3:0.2,17:0.1, not '3'"),
    ({"variation_path": "3:0.2,,"}, "path should be seed:strength"),
    ({"variation_path": "x:0.2"}, "path should be seed:strength"),
    ({"variation_path": "3:1.5"}, "strength of a variation should be a fraction, 0 to 1, not 1.5"),
    ({"variation_path": "3:nan"}, "strength of a variation should be a fraction, 0 to 1, not nan"),
    ({"variation_path": "-1:0.5"}, "seed of a variation should be 0 to 4294967295"),
    ({"variation_path": ",".join(["3:0.2"] * 33)}, "at most 32 variations; start from another"),
    ({"variation_path": 5}, "path should be text, not 5"),
    ({"blend": "x" * (PROMPT_LIMIT + 1)}, "prompt has 1001 characters"),
    ({"blend": 5}, "prompt should be text"),
    ({"blend_weight": -0.1}, "blend's weight should be a fraction, 0 to 1"),
    ({"look": 5}, "The look should be text, not 5"),
    ({"look": "a" * 1001}, "The look has 1001 characters; shorten it"),
    ({"look": "\u200b"}, "The look is blank"),
]


@pytest.mark.parametrize(("change", "sentence"), CHANGES, ids=[sentence[:40] for _, sentence in CHANGES])
def test_invalid_values_are_refused(change: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        Request(**{"prompt": "a cup", **change}).checked()
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 160


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 0, "steps": 1, "resolution": 16, "faces": 100, "texture_size": 512},
        {"seed": 2**32 - 1, "steps": 50, "resolution": 512, "faces": None, "texture_size": 4096},
        {"unwrap": "xatlas", "normal_map": False, "prompt": "x" * PROMPT_LIMIT},
        {"floaters": 0, "smoothing": 50, "watertight": True},
        {"floaters": 1.0},
    ],
)
def test_range_limits_are_accepted(changes: dict) -> None:
    request = Request(**{"prompt": "a cup", **changes})
    assert request.checked() == request


def test_ineffective_values_are_normalized() -> None:
    plain = Request("a cup").checked()
    assert Request("a cup", variation_seed=7, blend_weight=0.1).checked() == plain
    assert Request("a cup", variation=0.1, variation_seed=7).checked().variation_seed == 7
    path = Request("a cup", variation_path=" 7:.1 , 9:0, 8:1e-5", variation=0.2, variation_seed=3).checked()
    assert path.variation_path == "7:0.1,8:1e-05"
    assert path.turns() == [(7, 0.1), (8, 1e-5), (3, 0.2)]
    assert path.checked() == path
    last = Request("a cup", variation_path="7:0.1,8:0.2", variation_seed=5).checked()
    assert last == Request("a cup", variation_path="7:0.1", variation=0.2, variation_seed=8).checked()
    assert Request("a cup", blend=" a  hat ", blend_weight=1).checked().blend == "a hat"
    assert Request("a cup", keep_shape=True).checked() == plain
    assert Request("a cup", look=" a  cup", keep_shape=True).checked() == plain
    looked = Request("a cup", look=" a\tblue cup", keep_shape=True).checked()
    assert (looked.look, looked.keep_shape) == ("a blue cup", True)
    assert Request("a cup", blend="a hat", look="a cup").checked().look == "a cup"


@pytest.mark.parametrize(
    ("prompt", "tidy"),
    [
        ("  a  red\tmushroom\n", "a red mushroom"),
        ("a\0red\x1bmushroom\x7f", "a red mushroom"),
        ("a\u2028b", "a b"),
        ("🍄 grün 蘑菇", "🍄 grün 蘑菇"),
        ("👩\u200d🚀 astronaut", "👩\u200d🚀 astronaut"),
        ("\u202eفطر أحمر", "\u202eفطر أحمر"),
        ("../../etc/passwd", "../../etc/passwd"),
        ("\"a' `b` $(c); d|e\\f", "\"a' `b` $(c); d|e\\f"),
    ],
)
def test_prompts_are_tidied(prompt: str, tidy: str) -> None:
    assert tidy_prompt(prompt) == tidy
    assert tidy_prompt(tidy) == tidy


def test_choices_match_the_implementation() -> None:
    assert Request("a cup").floaters == clean.FLOATER_FRACTION
    assert (*UNWRAPPERS, "none") == UNWRAPS
    assert TEXTURE_SIZES == unwrap.TEXTURE_SIZES
