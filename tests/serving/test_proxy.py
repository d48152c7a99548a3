"""The page behind nginx: training access, and URLs of files."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")
from gradio_client import Client

from tests.helpers.browsing import free_port
from tests.helpers.launched import launched
from tests.helpers.nginx import nginx
from tests.helpers.visitor import API, Visitor
from triplaneturbo.models.catalog import ROOT
from triplaneturbo.serving.admin import Admin
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.limits import Limits, RequestLimiter
from triplaneturbo.serving.route_filter import filter_options
from triplaneturbo.serving.served_files import ServedFiles, live_folder
from triplaneturbo.serving.training_access import TrainingAccess
from triplaneturbo.serving.user_history import History
from triplaneturbo.ui.blocks import build

pytestmark = pytest.mark.filterwarnings("ignore:::gradio.queueing")  # its own use of pandas

QUICK: dict[str, Any] = {"resolution": 24, "texture_size": 512, "steps": 2}
HEADERS = (
    "proxy_set_header Host $host:$server_port; proxy_set_header X-Forwarded-For $remote_addr;"
    " proxy_set_header X-Forwarded-Proto $scheme;"
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with Engine("small", device="cpu", runs=tmp_path_factory.mktemp("runs")) as engine:
        yield engine


@contextmanager
def _page(engine: Engine, folder: Path, root_path: str = "", behind_proxy: bool = False) -> Iterator[Any]:
    """Serve the page at 127.0.0.1 as `serve` does."""
    history, limits = History(folder / "history"), Limits.for_host("127.0.0.1", behind_proxy=behind_proxy)
    with live_folder(history) as live:
        admission = TrainingAccess(Admin("127.0.0.1", behind_proxy=behind_proxy), live)
        gate = filter_options(ServedFiles(history), limits, admission, root_path)
        with launched(
            lambda: build(engine, live, history, RequestLimiter(limits), admission), **gate
        ) as page:
            yield page


@pytest.fixture(scope="module")
def servers(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Running pages by name, and the address of the nginx in front of them."""
    folder, port = tmp_path_factory.mktemp("proxy"), free_port()
    with ExitStack() as stack:
        own = stack.enter_context(_page(engine, folder / "own"))
        rooted = stack.enter_context(_page(engine, folder / "rooted", root_path="/rooted"))
        shared = stack.enter_context(_page(engine, folder / "shared", behind_proxy=True))
        locations = f"""
            location / {{ proxy_pass {own.local_url.rstrip("/")}; }}
            location /app/ {{ proxy_pass {own.local_url}; }}
            location /told/ {{ proxy_pass {own.local_url}; {HEADERS}
                proxy_set_header X-Forwarded-Prefix /told; }}
            location /rooted/ {{ proxy_pass {rooted.local_url.rstrip("/")}; {HEADERS} }}
        """
        stack.enter_context(nginx(folder, port, locations))
        yield {"own": own, "rooted": rooted, "shared": shared, "nginx": f"http://127.0.0.1:{port}"}


def _enter(page: Any, visitor: Visitor, headers: dict[str, str] | None = None, prefix: str = "") -> str:
    """Load a page and return the answer to its request for a training key."""
    hidden = next(p["id"] for p in page.config["components"] if p["props"].get("elem_id") == "train-key")
    load = next(d for d in page.config["dependencies"] if d["outputs"][:1] == [hidden])
    body = {"fn_index": load["id"], "data": [""], "session_hash": visitor.session, "event_data": None}
    kind = {"Content-Type": "application/json", **(headers or {})}
    status, _, answer = visitor.ask("POST", f"{prefix}{API}/queue/join", json.dumps(body).encode(), kind)
    assert status == 200, answer
    _, _, stream = visitor.ask("GET", f"{prefix}{API}/queue/data?session_hash={visitor.session}")
    return stream.decode()


REFUSED = "limited to the machine on which the server runs"
KEY = re.compile(r'"[0-9a-f]{64}"')


def test_training_key_is_for_local_visitors(servers: dict[str, Any]) -> None:
    own = servers["own"]
    assert KEY.search(_enter(own, Visitor(own.local_url)))
    through = servers["nginx"]
    for prefix, headers in (
        ("/told", {}),
        ("", {"Origin": "http://toys.example.com"}),  # as a browser sends it through a bare proxy_pass
        ("", {"X-Forwarded-For": "203.0.113.7"}),
        ("/app", {"Referer": "http://toys.example.com/app/"}),
    ):
        told = _enter(own, Visitor(through), headers, prefix)
        assert REFUSED in told, (prefix, headers)
        assert not KEY.search(told)
    rebound = Visitor(own.local_url)  # a name that an attacker points at 127.0.0.1
    assert REFUSED in _enter(own, rebound, {"Origin": "http://rebound.example"})


def test_visitors_behind_a_proxy_are_not_local(servers: dict[str, Any]) -> None:
    shared = servers["shared"]
    assert not any(part["props"].get("elem_id") == "train-key" for part in shared.config["components"])
    body = {"prompt": "a cup", "resolution": 300}
    visitor = Visitor(shared.local_url)
    _, _, answer = visitor.post(f"{API}/call/v2/generate", body)
    _, _, stream = visitor.ask("GET", f"{API}/call/v2/generate/{json.loads(answer)['event_id']}")
    assert b"limit; use at most 256" in stream


@pytest.mark.parametrize("prefix", ["", "/app", "/told", "/rooted"])
def test_client_downloads_through_nginx(servers: dict[str, Any], prefix: str, tmp_path: Path) -> None:
    client = Client(f"{servers['nginx']}{prefix}/", verbose=False, download_files=str(tmp_path))
    file, facts = client.predict("a cup", api_name="/generate", **QUICK)
    assert Path(file).stat().st_size == facts["files"][0]["bytes"]


@pytest.mark.parametrize(
    ("prefix", "headers", "begins"),
    [
        ("", {"Origin": "http://toys.example.com"}, "./gradio_api/file="),
        ("/app", {"Origin": "http://toys.example.com"}, "./gradio_api/file="),
        ("/told", {}, "NGINX/told/gradio_api/file="),
        ("/rooted", {}, "NGINX/rooted/gradio_api/file="),
    ],
)
def test_file_urls_lead_through_nginx(
    servers: dict[str, Any], prefix: str, headers: dict[str, str], begins: str
) -> None:
    visitor = Visitor(servers["nginx"])
    body = json.dumps({"prompt": "a cup", **QUICK}).encode()
    kind = {"Content-Type": "application/json", **headers}
    _, _, answer = visitor.ask("POST", f"{prefix}{API}/call/v2/generate", body, kind)
    event = json.loads(answer)["event_id"]
    _, _, stream = visitor.ask("GET", f"{prefix}{API}/call/v2/generate/{event}", headers=headers)
    (url,) = re.findall(r'"url": "([^"]+)"', stream.decode())
    assert url.startswith(begins.replace("NGINX", servers["nginx"])), url
    path = urllib.parse.urlsplit(url.replace("./", f"{prefix}/", 1) if url[0] == "." else url).path
    assert visitor.ask("GET", path)[2].startswith(b"glTF")


def test_unknown_parameter_is_refused(servers: dict[str, Any]) -> None:
    status, _, answer = Visitor(servers["own"].local_url).post(f"{API}/call/v2/generate", {"promt": "a cup"})
    assert status == 422
    assert json.loads(answer)["detail"] == "Parameter `promt` is not a valid key-word argument."


def test_curl_example_of_the_docs_works(servers: dict[str, Any], tmp_path: Path) -> None:
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```bash\n(server=http.*?)```", text, flags=re.DOTALL)
    assert "server=http://127.0.0.1:7860\n" in block
    script = block.replace("http://127.0.0.1:7860", servers["own"].local_url.rstrip("/"))
    command = ["bash", "-e", "-c", script]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "mushroom.glb").read_bytes().startswith(b"glTF")
