"""An adapter pushed to a hub on 127.0.0.1."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_api

from tests.helpers.fake_hub import Hub, Repo
from triplaneturbo.domains.open_vocabulary import OPEN_VOCABULARY
from triplaneturbo.domains.toyworld import TOY_WORLD
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.publish import card, push

TOKEN = "hf_OnlyTheHubIsToKnowThis"
ORDER = FinetuneConfig("ducks", ("a red duck", "a secret duck"), ("a blue duck",), iterations=7)
SCORES = {"before": {"learned": {"volume_iou": 0.5}}, "after": {"learned": {"volume_iou": 0.75}}}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub({}, token=TOKEN) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hf_api, "ENDPOINT", hub.endpoint, raising=False)
        yield hub


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(bytes(range(256)) * 100)
    return path


def test_push_uploads_adapter_and_card_and_never_stores_the_token(
    hub: Hub, adapter: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    readme = card(ORDER, "small", TOY_WORLD.license, SCORES)
    assert push(" you/my-ducks ", f"{TOKEN}\n", adapter, readme) == f"{hub.endpoint}/you/my-ducks"
    repo = hub.repos["you/my-ducks"]
    assert repo.private
    assert repo.files == {"README.md": readme.encode(), "adapter.safetensors": adapter.read_bytes()}
    assert {given for method, _, _, given in hub.asked if method == "POST"} == {f"Bearer {TOKEN}"}
    push("you/my-ducks", TOKEN, adapter, "# again\n")  # into the one that is there
    assert repo.files["README.md"] == b"# again\n"
    said = caplog.text + "".join(capfd.readouterr())
    assert TOKEN not in said
    assert not [path for path in adapter.parent.rglob("*") if TOKEN.encode() in path.read_bytes()]


def test_card_contains_no_prompts(hub: Hub) -> None:
    small, full = (
        card(ORDER, "small", TOY_WORLD.license, SCORES),
        card(ORDER, "full", OPEN_VOCABULARY.license),
    )
    assert "2 prompts" in small
    assert "secret" not in small
    assert "license: apache-2.0" in small
    assert "license: openrail++" in full
    assert "| iterations | 7 |" in small
    assert "| learned | volume_iou | 0.500 | 0.750 |" in small
    assert "Scores" not in full


@pytest.mark.parametrize(
    ("repository", "token", "said"),
    [
        ("ducks", TOKEN, "The repository name 'ducks' is invalid"),
        ("you/../x", TOKEN, "is invalid"),
        ("you/my--ducks", TOKEN, "is invalid"),
        ("you/ducks", "", "Give an access token"),
        ("you/ducks", "two words", "Give an access token"),
        ("you/ducks", "hf_Wrong", "rejected this token"),
        ("another/ducks", TOKEN, "no write permission for another/ducks"),
    ],
)
def test_refusals_do_not_contain_the_token(
    hub: Hub, adapter: Path, repository: str, token: str, said: str
) -> None:
    with pytest.raises(UserError, match=said) as info:
        push(repository, token, adapter, "# ducks\n")
    error: BaseException | None = info.value
    while error is not None:
        assert not token or token not in str(error)
        error = error.__cause__
    assert not hub.stored


def test_push_to_failing_or_unreachable_hub(hub: Hub, adapter: Path) -> None:
    hub.repos["you/ducks"] = Repo({})
    gone = adapter.with_name("gone.safetensors")
    with pytest.raises(UserError, match="The adapter file no longer exists"):
        push("you/ducks", TOKEN, gone, "# ducks\n")
    hub.__exit__()
    with pytest.raises(UserError, match="is unreachable"):
        push("you/ducks", TOKEN, adapter, "# ducks\n")
