"""The Purpose menu: what it sets, what it keeps, and what another choice takes back."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("gradio")

from triplaneturbo.request import Request
from triplaneturbo.serving.file_options import DEFAULT_FILES
from triplaneturbo.serving.purposes import PURPOSES
from triplaneturbo.ui.generate.form import (
    FIELDS,
    FILE_FIELDS,
    to_fields,
    to_file_options,
    to_file_values,
    to_request,
)
from triplaneturbo.ui.generate.purpose_menu import changes, control_values, fields_of_purposes

NAMES = (*FIELDS, *FILE_FIELDS)
DEFAULTS = dict(zip(NAMES, (*to_fields(Request("a cup")), *to_file_values(DEFAULT_FILES)), strict=True))


def chosen(*names: str, **own: Any) -> dict[str, Any]:
    """All control values after the user sets some and then chooses these purposes in turn."""
    values, previous = DEFAULTS | own, ""
    for name in names:
        values |= changes(name, previous, {field: values[field] for field in fields_of_purposes()})
        previous = name
    return values


@pytest.mark.parametrize("name", PURPOSES)
def test_purpose_sets_the_options_of_the_command_line(name: str) -> None:
    values = chosen(name)
    request = to_request(*(values[field] for field in FIELDS))
    options = to_file_options(*(values[field] for field in FILE_FIELDS))
    assert (request, options) == PURPOSES[name].apply(Request("a cup"), DEFAULT_FILES)


def test_options_of_the_user_are_kept() -> None:
    own = {"metadata": False, "size": 0.3, "unit": "cm", "max_bytes": 5.0, "texture_format": "jpeg"}
    values = chosen("game", **own)
    assert {name: values[name] for name in own} == own
    assert (values["faces"], values["lods"], values["pivot"]) == (10_000, 4, "ground")


@pytest.mark.parametrize("name", PURPOSES)
def test_no_purpose_takes_back_what_the_last_one_has_set(name: str) -> None:
    assert chosen("print", name, "") == DEFAULTS
    assert chosen(name, "", metadata=False) == DEFAULTS | {"metadata": False}


def test_values_changed_after_the_choice_are_kept() -> None:
    values = chosen("print") | {"size": 0.2}
    values |= changes("", "print", values)
    assert values == DEFAULTS | {"size": 0.2}


def test_purpose_replaces_what_contradicts_it() -> None:
    assert chosen("ar", up="z")["up"] == "y"
    assert control_values("") == {}
