"""Uploads of meshes and pictures to refine, without a browser: who may, what is refused, what is refined."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("gradio")

import trimesh
from PIL import Image

from tests.helpers.launched import launched
from tests.helpers.tiny import tiny_model
from tests.helpers.visitor import API, Visitor
from triplaneturbo.errors import UserError
from triplaneturbo.representations import field_fit
from triplaneturbo.representations.field_fit import FitOptions
from triplaneturbo.request import Request
from triplaneturbo.serving import sessions
from triplaneturbo.serving.admin import Admin
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.limits import Limits, RequestLimiter
from triplaneturbo.serving.refine_request import PICTURE, RefineRequest, RefineUploads
from triplaneturbo.serving.refinements import KEPT_UPLOADS
from triplaneturbo.serving.route_filter import REFINE_UPLOAD, filter_options
from triplaneturbo.serving.served_files import ServedFiles, live_folder
from triplaneturbo.serving.sessions import GRACE, Session, Sessions
from triplaneturbo.serving.training_access import TrainingAccess
from triplaneturbo.serving.uploads import Uploads
from triplaneturbo.serving.user_history import History
from triplaneturbo.ui.blocks import build
from triplaneturbo.ui.generate.upload_button import stored_upload, uploaded_request

DRAFT = Request("a cup", resolution=24, texture_size=512, steps=1)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("engine")
    with Engine(str(tiny_model(folder / "tiny")), device="cpu", runs=folder / "runs") as engine:
        yield engine


def upload(uploads: Uploads, name: str, data: bytes) -> str:
    """Store an upload of a new page; return its key."""
    key = uploads.issue()
    uploads.receive(key, name).write_bytes(data)
    return key


def glb() -> bytes:
    return trimesh.Scene(trimesh.creation.box((1, 2, 3))).export(file_type="glb")


def png(side: int = 64) -> bytes:
    image, buffer = Image.new("RGB", (side, side), "white"), io.BytesIO()
    image.paste("red", (10, 20, 50, 50))
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _click(page: Any, visitor: Visitor, key: str, told: str, prompt: str) -> str:
    config = page.get_config_file()
    ids = {one["props"].get("elem_id"): one["id"] for one in config["components"]}
    own = [ids["refine-key"], ids["refine-uploaded"]]
    (event,) = [one for one in config["dependencies"] if one["inputs"][:2] == own and len(one["inputs"]) > 3]
    values = {one["id"]: one["props"].get("value") for one in config["components"]}
    inputs = [key, told, prompt, *(values[number] for number in event["inputs"][3:])]
    return json.dumps(visitor.run(event["id"], inputs), ensure_ascii=False)


def test_the_upload_of_a_page_is_refused_with_one_sentence(engine: Engine, tmp_path: Path) -> None:
    history = History(tmp_path / "history")
    limits = Limits.for_host("localhost")
    with live_folder(history) as folder:
        uploads = RefineUploads(folder, pictures=True)
        access = TrainingAccess(Admin("127.0.0.1"), folder)
        gate = filter_options(ServedFiles(history), limits, access, refine_uploads=uploads)
        page_of = lambda: build(  # noqa: E731
            engine, folder, history, RequestLimiter(limits), access, uploads=uploads
        )
        with launched(page_of, **gate) as page:
            visitor, key, route = Visitor(page.local_url), uploads.issue(), f"{API}{REFINE_UPLOAD}"

            def post(data: bytes, **headers: str) -> tuple[int, str]:
                status, _, body = visitor.ask("POST", route, data, {f"x-{k}": v for k, v in headers.items()})
                return status, json.loads(body).get("detail", "")

            assert post(b"x", key="0" * 64, name="a.glb") == (
                403,
                "This page may not upload files; reload it.",
            )
            assert post(b"x", key=key, name="a.pkl")[1].startswith("Unknown file type; use .glb, .obj, .ply")
            uploads.most = 1000
            assert post(b"x" * 1001, key=key, name="a.glb")[0] == 413
            uploads.most = 10**6
            assert post(b"<html>", key=key, name="a.png") == (200, "")
            told = _click(page, visitor, key, "uploaded", "")
            assert "is not a PNG, JPEG or WEBP picture." in told
            assert "upload it again" in _click(page, visitor, key, "uploaded", "")  # it was deleted
            assert "The file is too large" in _click(page, visitor, key, "The file is too large.", "")
            assert not list(folder.rglob("a.*"))


def test_an_upload_is_admitted_before_it_is_parsed(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(path: Path) -> str:
        raise AssertionError("parsed")

    monkeypatch.setattr(engine.refinements, "store_upload", never)
    guard = RequestLimiter(replace(Limits.for_host("localhost"), refine_steps=10))
    history = History(tmp_path / "history")
    with live_folder(history) as folder:
        uploads = RefineUploads(folder, pictures=True)
        page_of = lambda: build(engine, folder, history, guard, uploads=uploads)  # noqa: E731
        with launched(page_of, **filter_options(ServedFiles(history), guard.limits)) as page:
            key = upload(uploads, "a.glb", glb())
            told = _click(page, Visitor(page.local_url), key, "uploaded", "a cup")
        assert "60 steps of refinement exceed this server" in told
        assert not list(folder.rglob("a.*"))


def test_the_file_becomes_a_request(engine: Engine, tmp_path: Path) -> None:
    uploads = RefineUploads(tmp_path, pictures=True)
    key = upload(uploads, "a.glb", glb())
    made = uploaded_request(uploads, key, DRAFT, 20.0)
    assert made.upload == engine.refinements.store_upload(uploads.uploaded(key))
    assert (made.prompt, made.refine_steps, len(made.upload)) == ("a cup", 20, 64)
    assert RefineRequest.of(made, 60).upload == made.upload
    blank = Request(" ", resolution=24)
    assert uploaded_request(uploads, upload(uploads, "a.png", png()), blank, 20).prompt == PICTURE
    with pytest.raises(UserError, match="Say in the prompt what the mesh is"):
        uploaded_request(uploads, upload(uploads, "a.glb", glb()), blank, 20)
    with pytest.raises(UserError, match="This page may not upload files"):
        uploaded_request(uploads, "", DRAFT, 20)


def test_uploads_are_closed_on_a_shared_server(engine: Engine, tmp_path: Path) -> None:
    request = RefineRequest("a cup", upload="0" * 64)
    for limits, local, remote in (
        (Limits.for_host("localhost"), True, False),
        (Limits.for_host("0.0.0.0", refine=True), False, False),
        (Limits.for_host("0.0.0.0", refine=True, uploads=True), True, True),
    ):
        guard = RequestLimiter(limits)
        assert (guard.allows_uploads(True), guard.allows_uploads(False)) == (local, remote)
        for allowed, is_local in ((local, True), (remote, False)):
            if allowed:
                guard.admit(request, session=f"{is_local}", local=is_local)
                continue
            with pytest.raises(UserError, match="restart the server with --"):
                guard.admit(request, session=f"{is_local}", local=is_local)
    with pytest.raises(UserError, match="--uploads lets visitors upload what they refine"):
        Limits.for_host("0.0.0.0", uploads=True)
    page = build(engine, tmp_path, None, RequestLimiter(Limits(refine="everybody")))
    (button,) = [
        one["props"]
        for one in page.get_config_file()["components"]
        if one["props"].get("elem_id") == "refine-upload"
    ]
    assert not button["visible"]


@pytest.mark.parametrize("came_back", [False, True])
def test_uploads_go_away_with_their_session(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, came_back: bool
) -> None:
    uploads = RefineUploads(tmp_path, pictures=True)
    page = build(engine, tmp_path, None, RequestLimiter(Limits.for_host("localhost")), uploads=uploads)
    config = page.get_config_file()
    ids = {one["props"].get("elem_id"): one["id"] for one in config["components"]}
    entered = [ids["refine-key"], ids["refine-upload"]]
    (enter,) = [one for one in config["dependencies"] if one["outputs"] == entered]
    (leave,) = [one for one in page.fns.values() if ("unload" in {kind for _, kind in one.targets})]
    visit = SimpleNamespace(
        session_hash="a", client=SimpleNamespace(host="127.0.0.1"), headers={"host": "localhost"}
    )
    updates = page.fns[enter["id"]].fn(visit)
    key = next(value for value in updates.values() if isinstance(value, str))
    other = upload(uploads, "b.glb", glb())
    uploads.receive(key, "a.glb").write_bytes(glb())
    if not came_back:
        monkeypatch.setattr(sessions, "GRACE", 0.0)
    leave.fn(visit)
    if came_back:
        assert uploads.uploaded(key).is_file()
        return
    with pytest.raises(UserError, match="upload it again"):
        uploads.uploaded(key)
    assert uploads.uploaded(other).is_file()


def test_parsed_uploads_are_forgotten_once_no_session_owns_them(engine: Engine, tmp_path: Path) -> None:
    now = 0.0

    def forget(session: Session, digests: set[str]) -> None:
        for digest in digests:
            engine.refinements.drop_upload(digest, session.folder.name)

    uploads = RefineUploads(tmp_path, pictures=True)
    pages = Sessions(tmp_path, lambda: now, on_removed=forget)

    def store(page: str, data: bytes) -> str:
        with stored_upload(engine, pages.of(page), uploads, upload(uploads, "a.png", data)):
            pass
        return hashlib.sha256(data).hexdigest()

    same, earlier = store("a", png(64)), store("a", png(65))
    store("b", png(64))
    pages.leave("a")
    for seconds in (GRACE - 1, GRACE):
        now = seconds
        pages.of("c")
        assert engine.refinements.uploaded(same)
        if seconds < GRACE:
            assert engine.refinements.uploaded(earlier)
    with pytest.raises(UserError, match="no longer in memory"):
        engine.refinements.uploaded(earlier)  # the one before its last
    pages.leave("b")
    now += GRACE
    pages.of("c")
    with pytest.raises(UserError, match="no longer in memory"):
        engine.refinements.uploaded(same)


def test_an_upload_that_outlives_its_session_is_forgotten(engine: Engine, tmp_path: Path) -> None:
    uploads = RefineUploads(tmp_path, pictures=True)
    session = Session(tmp_path / "page")
    with stored_upload(engine, session, uploads, upload(uploads, "a.png", png(66))):
        session.remove()
    with pytest.raises(UserError, match="no longer in memory"):
        engine.refinements.uploaded(hashlib.sha256(png(66)).hexdigest())


def test_a_dropped_upload_is_forgotten_also_after_its_refinement(engine: Engine, tmp_path: Path) -> None:
    uploads = RefineUploads(tmp_path, pictures=True)
    digest = engine.refinements.store_upload(uploads.uploaded(upload(uploads, "a.glb", glb())))
    assert engine.refinements.uploaded_mesh(digest) is not None
    engine.refinements.drop_upload(digest)
    with pytest.raises(UserError, match="no longer in memory"):
        engine.refinements.uploaded_mesh(digest)
    engine.refinements.store_upload(uploads.uploaded(upload(uploads, "a.glb", glb())))
    job = engine.submit(replace(RefineRequest.of(replace(DRAFT, prompt="a dragon"), 1), upload=digest))
    engine.refinements.drop_upload(digest)
    with pytest.raises(UserError):
        job.result()
    with pytest.raises(UserError, match="no longer in memory"):
        engine.refinements.uploaded(digest)


def test_an_uploaded_mesh_is_refined(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field_fit, "FitOptions", lambda: FitOptions(60, 48, 24, 20_000, 2048))
    uploads = RefineUploads(tmp_path, pictures=True)
    key = upload(uploads, "a.glb", glb())
    request = uploaded_request(uploads, key, DRAFT, 1)
    engine.refinements.store_upload(uploads.uploaded(key))
    job = engine.submit(request)
    _store_others(engine, uploads)  # the job keeps its own
    result = job.result()
    extent = (result.mesh.vertices.amax(0) - result.mesh.vertices.amin(0)).sort().values
    assert extent.tolist() == pytest.approx([0.6, 1.2, 1.8], abs=0.15)  # the largest side fits model space
    given = engine.refinements.uploaded_mesh(request.upload)
    assert given is not None
    assert len(given.faces) == 12
    assert float((given.vertices.amax(0) - given.vertices.amin(0)).max()) == pytest.approx(1.8)
    gone = RefineRequest.of(request, 2)
    _store_others(engine, uploads)  # only the last few files are kept
    with pytest.raises(UserError, match="no longer in memory; upload it again"):
        engine.submit(gone).result()


def _store_others(engine: Engine, uploads: Uploads) -> None:
    for number in range(KEPT_UPLOADS):
        box = trimesh.creation.box((1, 1, 2 + number)).export(file_type="ply")
        engine.refinements.store_upload(_written(uploads, box))


def _written(uploads: Uploads, data: bytes) -> Path:
    path = uploads.receive(uploads.issue(), "c.ply")
    path.write_bytes(data)
    return path
