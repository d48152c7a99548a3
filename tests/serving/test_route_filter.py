"""Visitors of a running page can read their own results and nothing else, whatever they send.

The endpoints are those that the page has, so that new ones are asked, too.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from tests.helpers.html_reader import NASTY, Reader  # noqa: E402
from tests.helpers.launched import launched  # noqa: E402
from tests.helpers.pace import until  # noqa: E402
from tests.helpers.quick import make_small  # noqa: E402
from tests.helpers.visitor import API, Visitor, api_client  # noqa: E402
from triplaneturbo.models.catalog import ROOT  # noqa: E402
from triplaneturbo.request import Request  # noqa: E402
from triplaneturbo.serving.admin import Admin  # noqa: E402
from triplaneturbo.serving.engine import Engine  # noqa: E402
from triplaneturbo.serving.limits import Limits, RequestLimiter  # noqa: E402
from triplaneturbo.serving.result_store import RESULT  # noqa: E402
from triplaneturbo.serving.route_filter import UPLOAD, filter_options  # noqa: E402
from triplaneturbo.serving.served_files import ServedFiles, live_folder  # noqa: E402
from triplaneturbo.serving.training_access import TrainingAccess  # noqa: E402
from triplaneturbo.serving.user_history import History, HistoryEntry  # noqa: E402
from triplaneturbo.ui.blocks import SERVING, build  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:::gradio.queueing")  # its own use of pandas

QUICK: dict[str, Any] = {"resolution": 24, "texture_size": 512, "steps": 2}
SECRET = "nobody's but its owner's"
META = {"meta": {"_type": "gradio.FileData"}}
PICTURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine("small", device="cpu", runs=tmp_path_factory.mktemp("runs")) as engine:
        yield engine


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return History(tmp_path_factory.mktemp("outputs") / "history")


@pytest.fixture(scope="module")
def entry(history: History) -> HistoryEntry:
    """A result of another visitor, whose files contain the secret."""
    shelf = history.of("ab" * 32)
    entry = shelf.add(Request("a cup"), {"secret": SECRET}, model="small", thumbnail=PICTURE)
    shelf.attach(entry.id, "usdz", SECRET.encode())
    return shelf.attach(entry.id, "glb", SECRET.encode())


@pytest.fixture(scope="module")
def page(engine: Engine, history: History) -> Iterator[Any]:
    limits = Limits(per_minute=None)  # a refusal would hide what would have been given
    with live_folder(history) as folder:
        admission = TrainingAccess(Admin("127.0.0.1"), folder)
        gate = filter_options(ServedFiles(history), limits, admission)
        with launched(
            lambda: build(engine, folder, history, RequestLimiter(limits), admission), **gate
        ) as page:
            yield page


@pytest.fixture
def visitor(page: Any) -> Visitor:
    return Visitor(page.local_url)


@pytest.fixture(scope="module")
def hostile(history: History, entry: HistoryEntry, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Paths of private files, whether or not an attacker can know them."""
    outside = tmp_path_factory.mktemp("outside") / "secret.glb"
    outside.write_text(SECRET)
    root, own = history.root, entry.folder
    (root / "secret.glb").write_text(SECRET)  # in the folder, but of no result
    copied = root / ("0" * 64) / "secret.glb"  # where Gradio puts copies, by their hash
    copied.parent.mkdir()
    copied.write_text(SECRET)
    session = root / ("live-" + "0" * 16) / ("0" * 32)
    session.mkdir(parents=True)
    (session / "link.glb").symlink_to(outside)
    (session / "hidden.json").write_text(SECRET)
    (session.parent / "1").write_text(SECRET)
    (root / ("live-" + "0" * 16) / ("1" * 32)).symlink_to(outside.parent)
    return [
        "/etc/passwd",
        "//etc/passwd",
        "/proc/self/environ",
        str(outside),
        f"file://{outside}",
        os.path.relpath(outside),
        str(ROOT / "app.py"),
        "app.py",
        str(own / RESULT),
        str(own / "pinned"),
        str(own),
        str(own.parent),
        str(root),
        str(root / ".lock"),
        str(root / "secret.glb"),
        str(copied),
        f"{own}/../../../../../../../../etc/passwd",
        f"{own}/{os.path.relpath(outside, own)}",
        f"{own}/./{entry.files['glb'].name}",
        f"{own}//{entry.files['glb'].name}",
        f"{own.parent}/x/../{own.name}/{entry.files['glb'].name}",
        f"{entry.files['glb']}\0",
        f"{entry.files['glb']}\n",
        f"{entry.files['glb']}/",
        f"{own}/.glb",
        str(session / "link.glb"),
        str(session / "hidden.json"),
        str(session.parent / "1"),
        str(session.parent / ("1" * 32) / "secret.glb"),
        str(entry.files["glb"]).upper(),
        "",
        "C:\\Windows\\win.ini",
        "http://127.0.0.1:9/secret.glb",
        "https://example.com/secret.glb",
    ]


def _is_nothing(status: int, body: bytes) -> None:
    assert status in (400, 403, 404, 405, 413, 422), (status, body)
    assert SECRET.encode() not in body
    assert b"root:" not in body


def test_result_files_are_served_by_name(visitor: Visitor, entry: HistoryEntry) -> None:
    for path in [*entry.files.values(), entry.thumbnail]:
        assert path is not None
        assert visitor.file(str(path)) == (200, path.read_bytes())
    url = f"{API}/file={urllib.parse.quote(str(entry.files['glb']))}"
    _, headers, _ = visitor.ask("GET", url)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "private"
    assert headers["content-disposition"].startswith("attachment")
    assert headers["content-type"] == "model/gltf-binary"
    _, headers, _ = visitor.ask("GET", f"{API}/file={urllib.parse.quote(str(entry.files['usdz']))}")
    assert (headers["content-type"], headers["content-disposition"]) == ("model/vnd.usdz+zip", "inline")
    status, _, part = visitor.ask("GET", url, headers={"Range": "bytes=0-5"})
    assert (status, part) == (206, SECRET.encode()[: len(part)])
    until(lambda: not list(entry.folder.glob(".lease*")))  # it is in use no longer


def test_live_results_are_served(page: Any, history: History, tmp_path: Path) -> None:
    before = set(history.root.iterdir())
    program = api_client(page.local_url, tmp_path)
    got, _ = program.predict("a cup", api_name="/generate", **QUICK)
    (served,) = history.root.glob(f"live-*/*/{Path(got).name}")
    assert served.read_bytes() == Path(got).read_bytes()
    # A copy that is called by its hash would tell who makes the same thing that somebody else has it.
    assert set(history.root.iterdir()) == before


def test_other_files_are_not_served(visitor: Visitor, hostile: list[str]) -> None:
    for path in hostile:
        once = urllib.parse.quote(path, safe="")
        dots = once.replace(".", "%2e")
        for written in (
            urllib.parse.quote(path),
            once,
            dots,
            urllib.parse.quote(dots),
            once.replace("%2F", "%5C"),
        ):
            for method in ("GET", "HEAD"):
                for route in ("/file=", "/file/"):
                    status, _, body = visitor.ask(method, f"{API}{route}{written}")
                    _is_nothing(status, body)


@pytest.mark.parametrize(
    ("method", "route"),
    [
        ("POST", "/upload"),
        ("POST", "/upload?upload_id=x"),
        ("GET", "/upload_progress?upload_id=x"),
        ("POST", "/process_recording"),
        ("GET", "/deep_link?session_hash=x"),
        ("GET", "/proxy=http://127.0.0.1:9/"),
        ("GET", "/custom_component/x/client/y/z"),
        ("GET", "/stream/x/0/0/playlist-file"),
        ("POST", "/stream/x"),
        ("POST", "/vibe-edit"),
        ("GET", "/vibe-code"),
        ("GET", "/profiling/traces"),
        ("GET", "/mcp/sse"),
        ("GET", "/runs"),
        ("GET", "/dev/reload"),
        ("GET", "/made-up"),
    ],
)
def test_unused_routes_are_closed(visitor: Visitor, method: str, route: str) -> None:
    for prefix in (API, f"{API}/queue/..", f"/x/..{API}"):
        _is_nothing(*visitor.ask(method, f"{prefix}{route}")[::2])


def test_uploads_write_nothing(visitor: Visitor, history: History) -> None:
    before = sorted(history.root.rglob("*"))
    head = b'Content-Disposition: form-data; name="files"; filename="a.html"'
    body = b"--x\r\n" + head + b"\r\n\r\n\r\n--x--\r\n"  # empty: below any limit of size
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for route in ("upload", "process_recording", "component_server", "queue/join", "run/generate"):
        _is_nothing(*visitor.ask("POST", f"{API}/{route}", body, kind)[::2])
    assert sorted(history.root.rglob("*")) == before


def test_prompt_list_upload_needs_a_key(
    page: Any, visitor: Visitor, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingAccess, "most", 1000)
    before = sorted(history.root.rglob("*"))
    route = f"{API}{UPLOAD}"
    for key in ("", "0" * 64, "../" * 20):
        _is_nothing(*visitor.ask("POST", route, b"a red duck", {"x-key": key, "x-name": "a.txt"})[::2])
    _is_nothing(*visitor.ask("GET", route)[::2])
    assert sorted(history.root.rglob("*")) == before
    key = _key(page, visitor)
    assert visitor.ask("POST", route, b"a" * 1001, {"x-key": key, "x-name": "a.txt"})[0] == 413
    assert visitor.ask("POST", route, b"a", {"x-key": key, "x-name": "../../a.html"})[0] == 403
    status, _, body = visitor.ask("POST", route, b"a red duck", {"x-key": key, "x-name": "../../../a.txt"})
    assert (status, body) == (200, b'{"kept":"a.txt"}')
    (kept,) = list(history.root.rglob("a.txt"))
    assert kept.read_bytes() == b"a red duck"
    _is_nothing(*visitor.file(str(kept)))


def _key(page: Any, visitor: Visitor) -> str:
    """Return the training key of a local page, the only value with 64 digits."""
    hidden = next(p["id"] for p in page.config["components"] if p["props"].get("elem_id") == "train-key")
    load = next(d for d in page.config["dependencies"] if d["outputs"][:1] == [hidden])
    told = visitor.run(load["id"], [""])[-2]["output"]["data"]
    return str(told[0])


def test_training_needs_a_key(page: Any, visitor: Visitor, engine: Engine) -> None:
    hidden = next(p["id"] for p in page.config["components"] if p["props"].get("elem_id") == "train-key")
    asked = 0
    for dependency in page.config["dependencies"]:
        if hidden in dependency["inputs"] and dependency["backend_fn"]:
            parts = {part["id"]: part for part in page.config["components"]}
            inputs = [parts[id] for id in dependency["inputs"]]
            for key in ("0" * 64, "../" * 20):
                data = [key, *_defaults(inputs, "a red duck")[1:]]
                told = str(visitor.run(dependency["id"], data))
                assert "has no training access" in told, (dependency, told)
                asked += 1
    assert asked >= 16
    assert engine.run_state() is None


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"[" * 200_000, 400), (b"{", 400), (b"\xff", 400), (b'"' + b"a" * 1_000_000 + b'"', 413)],
    ids=["deep", "cut", "no text", "long"],
)
def test_invalid_bodies_are_refused(visitor: Visitor, body: bytes, status: int) -> None:
    assert visitor.ask("POST", f"{API}/queue/join", body, {"Content-Type": "application/json"})[0] == status


def _payloads(path: str) -> list[Any]:
    """A file as in the input of Gradio's components."""
    file = {"path": path, "orig_name": "mesh.glb", **META}
    return [
        file,
        {**file, "url": path, "is_stream": True},
        {"path": path},
        [file],
        [{"image": file, "caption": "x"}],
        {"text": "", "files": [file]},
        {"value": file},
        {"__type__": "update", "value": file},
    ]


def _inputs(page: Any) -> list[tuple[int, list[dict[str, Any]]]]:
    """Every function of the page that visitors can call, with its input components."""
    parts = {part["id"]: part for part in page.config["components"]}
    return [
        (dependency["id"], [parts[id] for id in dependency["inputs"]])
        for dependency in page.config["dependencies"]
        if dependency["backend_fn"]
    ]


def _called(page: Any) -> list[str]:
    """The public name of every function."""
    info = page.get_api_info(all_endpoints=True)
    return [name for kind in info.values() for name in kind]


def test_endpoints_refuse_foreign_files(page: Any, visitor: Visitor, hostile: list[str]) -> None:
    asked = 0
    for path in hostile:
        file = _payloads(path)[0]
        for fn_index, inputs in _inputs(page):
            data = [file] * max(1, len(inputs))
            _is_nothing(*visitor.join(fn_index, data))
            asked += 1
        for name in _called(page):
            for body, route in (
                ({"data": [file]}, f"/call{name}"),
                ({"data": [file]}, f"/run{name}"),
                ({"data": [file]}, f"/api{name}"),
                ({"prompt": file}, f"/call/v2{name}"),
            ):
                _is_nothing(*visitor.post(f"{API}{route}", body)[::2])
    assert asked >= len(hostile)


def test_endpoints_do_not_read_file_names_as_files(
    page: Any, history: History, hostile: list[str], tmp_path: Path
) -> None:
    program = api_client(page.local_url, tmp_path)
    path, own = hostile[3], {"prompt": "a cup", "other": "a hat", "count": 2, **QUICK}
    for name, endpoint in page.get_api_info()["named_endpoints"].items():
        kinds = {parameter["parameter_name"]: parameter["type"] for parameter in endpoint["parameters"]}
        given = {key: value for key, value in own.items() if key in kinds}
        texts = [key for key, kind in kinds.items() if kind.get("type") == "string"]
        others = {key: path for key in kinds if key not in texts}
        assert texts
        for asked in [*({key: path} for key in texts), {"prompt": f"../../../../..{path}"}, others]:
            try:
                got = program.predict(api_name=name, **(given | asked))
            except Exception as error:
                got = str(error)
            assert SECRET not in str(got)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes()


def _defaults(inputs: list[dict[str, Any]], prompt: str) -> list[Any]:
    text = ("textbox", "multimodaltextbox")
    numbers = "variation-path"  # of which nothing is made if it is words
    return [
        prompt
        if part["type"] in text and part["props"].get("elem_id") != numbers
        else part["props"].get("value")
        for part in inputs
    ]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def test_prompts_are_escaped_on_the_page(page: Any, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch, engine)
    parts = {part["id"]: part["type"] for part in page.config["components"]}
    outputs = {dependency["id"]: dependency["outputs"] for dependency in page.config["dependencies"]}
    told = 0
    for fn_index, inputs in _inputs(page):
        if not any(part["type"] == "textbox" for part in inputs):
            continue
        for event in Visitor(page.local_url).run(fn_index, _defaults(inputs, NASTY)):
            data = event.get("output", {}).get("data", [])
            for id, value in zip(outputs[fn_index], data, strict=False):
                if parts[id] not in ("html", "markdown"):
                    continue
                for html in _texts(value):
                    reader = Attributes(html)
                    assert "script" not in reader.tags, html
                    assert not [value for name, value in reader.attributes if name.startswith("on")], html
                    assert ("src", "x") not in reader.attributes, html
                    told += "alert(2)" in reader.words
    assert told  # the page does show prompts


class Attributes(Reader):
    """Also in the attributes of HTML components."""

    def __init__(self, html: str) -> None:
        self.attributes: list[tuple[str, str | None]] = []
        super().__init__(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        self.attributes += attrs


@pytest.fixture
def all_sorts(history: History, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An insecure page behind the route filter: all inputs that accept files, whose text is returned."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(history.root))
    monkeypatch.setenv("GRADIO_EXAMPLES_CACHE", str(history.root))

    def tell(*values: Any) -> str:
        said = ""
        for text in _texts(list(values)):
            if len(text) < 4000 and os.path.isfile(text):
                said += Path(text).read_text(errors="replace")
        return said

    def tell_api(file: gr.FileData, files: list[gr.FileData], anything: dict) -> str:
        return tell(file, files, anything)

    with gr.Blocks() as page:
        inputs = [
            gr.Model3D(),
            gr.DownloadButton(),
            gr.File(),
            gr.Files(),
            gr.Image(type="filepath"),
            gr.JSON(),
        ]
        inputs += [gr.Gallery(type="filepath"), gr.Audio(type="filepath"), gr.Video(), gr.UploadButton()]
        for part in inputs:
            gr.Button().click(tell, part, gr.Textbox())
        gr.api(tell_api, api_name="tell_api")
    limits = Limits()
    page.launch(
        server_name="127.0.0.1",
        prevent_thread_lock=True,
        **SERVING,
        **filter_options(ServedFiles(history), limits),
    )
    yield page
    page.close()


def test_inputs_give_no_access_to_files_of_others(
    all_sorts: Any, hostile: list[str], entry: HistoryEntry
) -> None:
    visitor = Visitor(all_sorts.local_url)
    for fn_index, inputs in _inputs(all_sorts):
        for path in hostile:
            for payload in _payloads(path):
                _is_nothing(*visitor.join(fn_index, [payload] * max(1, len(inputs))))
    # What may be asked for does arrive: the test above would find what comes of it.
    model = next(n for n, inputs in _inputs(all_sorts) if inputs and inputs[0]["type"] == "model3d")
    events = visitor.run(model, [{"path": str(entry.files["glb"]), **META}])
    assert SECRET in str(events[-2:])


def test_live_folder_is_deleted_with_its_server(history: History) -> None:
    with live_folder(history) as other:
        (other / "mesh.glb").write_text("live")
        with live_folder(history) as folder:
            assert folder.parent == other.parent == history.root
            assert other.exists()
        assert not folder.exists()
    killed = history.root / f"live-{'a' * 16}"
    killed.mkdir()
    killed.with_suffix(".lock").touch()
    with live_folder(history):
        assert not killed.exists()
        assert not killed.with_suffix(".lock").exists()


def test_files_written_during_deletion_are_deleted_next(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as late, live_folder(history) as folder:
        late.setattr("triplaneturbo.serving.served_files.shutil.rmtree", lambda *_, **__: None)
    assert folder.exists()
    with live_folder(history):
        assert not folder.exists()
        assert not folder.with_suffix(".lock").exists()


def test_files_being_sent_are_in_use(history: History, entry: HistoryEntry) -> None:
    served = ServedFiles(history)
    assert history.store.is_removable(entry.folder)
    with served.in_use(entry.files["glb"]):
        assert not history.store.is_removable(entry.folder)
    assert history.store.is_removable(entry.folder)
