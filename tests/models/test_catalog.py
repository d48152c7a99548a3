"""Which model a name means. The hub is never reached: what it would answer is put in its place."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from tests.helpers.parity_files import text_width
from tests.helpers.released_files import small_text
from triplaneturbo.errors import UserError
from triplaneturbo.models import catalog
from triplaneturbo.models.catalog import SMALL, find_model
from triplaneturbo.models.config import CONFIG_NAME
from triplaneturbo.serving.engine import Engine


def test_config_name_matches_the_loader() -> None:
    assert catalog.CONFIG_NAME == CONFIG_NAME


@pytest.mark.parametrize("name", ["auto", "small"])
def test_small_model_is_the_default_without_gpu(name: str) -> None:
    found = find_model(name, on_gpu=False)
    assert (found.name, found.folder, found.base, found.notice) == ("small", SMALL, None, "")
    assert found.small


def test_folder_of_the_full_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / CONFIG_NAME).write_text("{}")
    (tmp_path / "unet").mkdir()
    monkeypatch.setattr(catalog, "FULL", tmp_path)
    assert find_model("auto", on_gpu=True).folder == tmp_path
    assert find_model("full", on_gpu=False).folder == tmp_path


def test_released_adapter_beside_its_base_generates(
    parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "theirs"
    for part in ("unet", "vae", "scheduler"):
        shutil.copytree(parity / "generator" / "base" / part, folder / part, copy_function=shutil.copyfile)
    shutil.copyfile(parity / "generator" / "adapter.pth", folder / "released.pth")
    small_text(folder, text_width(parity / "generator"))
    for _ in range(2):  # converted at first, then kept
        with Engine(str(folder), "cpu") as engine:
            assert engine.trained
            assert len(engine.generate("a cup", steps=2, resolution=24, texture_size=512).mesh.faces) > 100
    kept = list((tmp_path / "cache" / "triplaneturbo").glob("released-*/adapter.safetensors"))
    assert len(kept) == 1
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        UserError, match=r"Cannot save .* in \S+ \(.*\); set XDG_CACHE_HOME to a writable folder"
    ):
        Engine(str(folder), "cpu")


def test_model_from_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = Path(shutil.copytree(SMALL, tmp_path / "mine"))
    found = find_model(str(copy), on_gpu=True)
    assert (found.name, found.folder) == ("mine", copy)
    assert found.small
    monkeypatch.chdir(tmp_path)
    assert find_model("mine", on_gpu=False).folder == Path("mine")


def test_model_from_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def download(hub_id: str, allow_patterns: list[str]) -> str:
        asked.append((hub_id, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UserError, match="'someone/a-model' is not a triplaneturbo model"):
        find_model("someone/a-model", on_gpu=False)
    (tmp_path / CONFIG_NAME).write_text("{}")
    assert find_model("someone/a-model", on_gpu=False).folder == tmp_path
    assert asked == [("someone/a-model", ["*.json", "*.safetensors", "*.txt"])] * 2  # nothing that can run


class Refusal(HfHubHTTPError):
    """The hub's answer, with a status code."""

    def __init__(self, code: int) -> None:
        Exception.__init__(self, "the hub's own words")
        self.response = SimpleNamespace(status_code=code)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            LocalEntryNotFoundError("no connection"),
            "There is no folder 'someone/a-model', and the hub is unreachable",
        ),
        (ConnectionError("refused"), "and the hub is unreachable"),
        (Refusal(404), "Cannot download 'someone/a-model' from the hub (HTTP 404); check the name"),
        (Refusal(401), "Cannot download 'someone/a-model' from the hub (HTTP 401); check the name"),
    ],
    ids=["offline", "refused", "unknown", "private"],
)
def test_hub_errors_are_explained(monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str) -> None:
    def download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(UserError) as caught:
        find_model("someone/a-model", on_gpu=False)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("name", ["a/b/c", "../x", "a/..b", "", " ", "\0", "nothing", "x" * 5000, "a b/c"])
def test_invalid_names_are_refused(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="use auto, small, full, a folder or a hub id"):
        find_model(name, on_gpu=False)


def test_missing_built_in_model_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(catalog, "SMALL", tmp_path)
    with pytest.raises(UserError, match="built-in model is missing; restore"):
        find_model("small", on_gpu=False)
