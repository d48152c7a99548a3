"""The full model from a hub on 127.0.0.1: downloaded by name or command, or reported as missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from tests.helpers.fake_hub import Hub, Repo
from tests.helpers.parity_files import text_width
from tests.helpers.released_files import small_text
from triplaneturbo.__main__ import main
from triplaneturbo.errors import UserError
from triplaneturbo.models import catalog, remote_file
from triplaneturbo.models.catalog import RELEASED, SMALL, find_model
from triplaneturbo.models.hub import ADAPTER, BASE
from triplaneturbo.models.remote_file import RemoteFile, fetch_url
from triplaneturbo.serving.engine import Engine

ND = bytes(range(256)) * 3000


def released(folder: Path, parity: Path) -> dict[str, Repo]:
    """A small base and adapter of the public implementation, with the files of their repositories."""
    for part in ("unet", "vae", "scheduler"):
        shutil.copytree(parity / "generator" / "base" / part, folder / part, copy_function=shutil.copyfile)
    small_text(folder, text_width(parity / "generator"))
    (folder / "tokenizer" / "special_tokens_map.json").write_text("{}")
    for path in folder.rglob("*.safetensors"):  # at half precision, as they are offered
        halves = {name: value.half() for name, value in load_file(path).items()}
        save_file(halves, path.with_suffix(".fp16.safetensors"))
        path.unlink()
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    base = Repo({**files, "v2-1_512.ckpt": b"large"}, {BASE.sources[1].revision})
    adapter = (parity / "generator" / "adapter.pth").read_bytes()
    return {BASE.sources[1].repo: base, ADAPTER.sources[0].repo: Repo({RELEASED: adapter})}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, and an empty cache; no full model in the checkpoints' folder."""
    with Hub({}) as empty:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "ENDPOINT", empty.endpoint)
        template = empty.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
        monkeypatch.setattr(catalog, "FULL", tmp_path / "nowhere")
        there = RemoteFile("RichDreamer's normal-depth model", f"{empty.endpoint}/nd/mv/resolve/main/nd.ckpt")
        monkeypatch.setattr(remote_file, "RICHDREAMER", there)
        monkeypatch.setattr("triplaneturbo.cli.download.RICHDREAMER", there)
        monkeypatch.setattr(catalog, "RICHDREAMER", there)
        yield empty


def test_download_full_model_and_generate(hub: Hub, parity: Path, tmp_path: Path) -> None:
    hub.repos |= released(tmp_path / "base", parity)
    for _ in range(2):
        with Engine("full", "cpu") as engine:
            assert engine.trained
            assert len(engine.generate("a cup", steps=2, resolution=24, texture_size=512).mesh.faces) > 100
        asked = len(hub.asked)
    assert len(hub.asked) == asked
    assert not any("ckpt" in path for path in hub.gets())


def test_download_with_own_base(
    hub: Hub, parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repos = released(tmp_path / "base", parity)
    hub.repos[ADAPTER.sources[0].repo] = repos[ADAPTER.sources[0].repo]
    assert find_model("full", True, str(tmp_path / "base")).base == tmp_path / "base"
    monkeypatch.setenv("TRIPLANETURBO_BASE", str(tmp_path / "base"))
    with Engine("full", "cpu") as engine:
        assert engine.trained
    with pytest.raises(UserError, match="is not a base folder: it has no folder unet"):
        find_model("full", True, str(tmp_path))


def test_full_model_without_files_and_network(hub: Hub) -> None:
    hub.__exit__()
    with pytest.raises(UserError) as caught:
        find_model("full", True)
    text = str(caught.value)
    assert "is unreachable" in text
    assert "run `python -m triplaneturbo download`" in text
    assert str(catalog.FULL) in text
    assert constants.HF_HUB_CACHE in text
    assert text.count(". ") == 0  # one sentence
    found = find_model("auto", True)  # the page opens nevertheless
    assert found.folder == SMALL
    assert found.notice.startswith("The released adapter is unavailable")
    assert found.notice.endswith("The small model is used.")
    assert find_model("auto", False).notice == ""


def test_download_prints_sizes_first(hub: Hub, parity: Path, tmp_path: Path, capsys) -> None:
    hub.repos |= released(tmp_path / "base", parity)
    assert main(["download"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "the released adapter, from ZhiyuanthePony/TriplaneTurbo at main" in lines[0]
    size = (parity / "generator" / "adapter.pth").stat().st_size
    assert (f"{size / 1e6:.2f} MB" if size < 1e7 else f"{size / 1e9:.2f} GB") in lines[0]
    assert "Stable Diffusion 2.1-base, from Manojb/" in lines[1]
    assert "in total, to" in lines[2]
    assert lines[-1] == "Done."
    assert main(["download", "--what", "full"]) == 0
    assert "Already downloaded to" in capsys.readouterr().out
    assert catalog.find_full() is not None


def test_download_teachers(hub: Hub, tmp_path: Path, capsys) -> None:
    hub.repos |= {
        "MVDream/MVDream": Repo(
            {"sd-v2.1-base-4view.pt": b"mv", "other.pt": b"no"}, {"d14ac9d78c48c266005729f2d5633f6c265da467"}
        ),
        "sd-legacy/stable-diffusion-v1-5": Repo(
            dict.fromkeys(
                (
                    "text_encoder/config.json",
                    "text_encoder/model.fp16.safetensors",
                    "tokenizer/vocab.json",
                    "tokenizer/merges.txt",
                    "tokenizer/tokenizer_config.json",
                    "tokenizer/special_tokens_map.json",
                ),
                b"{}",
            ),
            {"451f4fe16113bff5a5d2269ed5ad43b0592e9a14"},
        ),
        "nd/mv": Repo({"nd.ckpt": ND}),
    }
    assert main(["download", "--what", "teachers"]) == 0
    out = capsys.readouterr().out
    assert "RichDreamer's normal-depth model, from http" in out
    assert remote_file.url_file(remote_file.RICHDREAMER).read_bytes() == ND
    assert main(["download", "--what", "teachers"]) == 0
    assert "Already" in capsys.readouterr().out
    hub.__exit__()  # what is here is found without a network
    assert catalog.get_mvdream().read_bytes() == b"mv"
    checkpoint, text = catalog.get_richdreamer()
    assert checkpoint.read_bytes() == ND
    assert (text / "tokenizer" / "vocab.json").is_file()


def test_teachers_without_files_and_network(hub: Hub) -> None:
    hub.__exit__()
    for get in (catalog.get_mvdream, catalog.get_richdreamer):
        with pytest.raises(UserError, match="run `python -m triplaneturbo download --what teachers`"):
            get()


def test_url_download_is_resumed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    there = remote_file.RICHDREAMER
    with pytest.raises(UserError, match=r"no longer available at .* \(HTTP 401\)"):
        fetch_url(there)
    hub.repos["nd/mv"] = Repo({"nd.ckpt": ND})
    part = remote_file.url_file(there).with_name("nd.ckpt.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(ND[:1000])
    assert fetch_url(there).read_bytes() == ND
    assert not part.exists()
    assert "bytes=1000-" in [wanted for _, _, wanted, _ in hub.asked]
    hub.__exit__()
    assert fetch_url(there).read_bytes() == ND


def test_concurrent_url_downloads(hub: Hub) -> None:
    hub.repos["nd/mv"] = Repo({"nd.ckpt": ND})
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(fetch_url, [remote_file.RICHDREAMER] * 2))
    assert made[0] == made[1]
    assert made[0].read_bytes() == ND
    assert len([path for path in hub.gets() if path.endswith("nd.ckpt")]) == 1


def test_interrupted_url_download_keeps_its_part(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.repos["nd/mv"] = Repo({"nd.ckpt": ND}, short=5000)
    with pytest.raises(UserError, match="run the command again to resume"):
        fetch_url(remote_file.RICHDREAMER)
    assert not remote_file.url_file(remote_file.RICHDREAMER).exists()
    hub.repos["nd/mv"].short = None
    assert fetch_url(remote_file.RICHDREAMER).read_bytes() == ND
