"""Tools for agents: called by the MCP client over HTTP, within the limits of a shared server."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")
pytest.importorskip("mcp", reason='mcp is not installed (pip install "gradio[mcp]")')

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

from tests.helpers.launched import launched
from tests.helpers.quick import make_small
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.metadata_reader import read_metadata
from triplaneturbo.serving import mcp_access
from triplaneturbo.serving.engine import Engine
from triplaneturbo.serving.limits import Limits, RequestLimiter
from triplaneturbo.serving.mcp_access import McpAccess, check_installed
from triplaneturbo.serving.route_filter import filter_options
from triplaneturbo.serving.served_files import ServedFiles, live_folder
from triplaneturbo.serving.user_history import History
from triplaneturbo.ui.blocks import build

pytestmark = pytest.mark.filterwarnings("ignore:::gradio.queueing", "ignore::DeprecationWarning")

TOOLS = ["generate", "variants", "export", "refine", "words"]
AWAY = {"X-Forwarded-For": "203.0.113.9"}  # of an agent that is not on this machine
Call = Callable[..., tuple[bool, str]]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine("small", device="cpu") as engine, pytest.MonkeyPatch.context() as patch:
        make_small(patch, engine)
        yield engine


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return History(tmp_path_factory.mktemp("history"))


@pytest.fixture
def url(engine: Engine, history: History) -> Iterator[str]:
    """The address of a server for everybody, with 4 requests per minute."""
    mcp, limits = McpAccess(), Limits.for_host("0.0.0.0", per_minute=4)
    with live_folder(history) as folder:
        served = filter_options(ServedFiles(history), limits, mcp=mcp)
        page = lambda: build(engine, folder, history, RequestLimiter(limits), mcp=mcp)  # noqa: E731
        with launched(page, mcp_server=True, **served) as running:
            address = running.local_url.rstrip("/")
            mcp.open(running)
            yield address


def session(url: str, work: Callable[[ClientSession], Any], **headers: str) -> Any:
    """Run `work` with a connected client."""

    async def run() -> Any:
        async with (
            streamablehttp_client(f"{url}/gradio_api/mcp", headers=headers) as (reading, writing, _),
            ClientSession(reading, writing) as client,
        ):
            await client.initialize()
            return await work(client)

    return asyncio.run(run())


def call(url: str, name: str, headers: dict[str, str] | None = None, **arguments: Any) -> tuple[bool, Any]:
    """Call a tool: whether it failed, and its JSON, or the sentence of its error."""
    found = session(url, lambda client: client.call_tool(name, arguments), **(headers or {}))
    text = found.content[0].text
    return found.isError, text if found.isError else json.loads(text)


def test_tools_say_what_they_do_and_when_not_to_use_them(url: str) -> None:
    tools = session(url, lambda client: client.list_tools()).tools
    assert [tool.name for tool in tools] == TOOLS
    for tool in tools:
        assert tool.description.split()[0] in {"Generate", "Export", "Refine", "List"}
        assert "Do not use this" in tool.description
        described = [name for name, p in tool.inputSchema["properties"].items() if "description" not in p]
        assert described == []
    (export,) = [tool for tool in tools if tool.name == "export"]
    assert export.inputSchema["required"] == ["prompt"]
    assert export.inputSchema["properties"]["format"]["enum"][:2] == ["glb", "obj"]


def test_generated_file_can_be_downloaded_and_exported_again(url: str, tmp_path: Path) -> None:
    failed, made = call(url, "generate", prompt="a red mushroom", seed=3)
    assert not failed, made
    path = tmp_path / "a.glb"
    with urllib.request.urlopen(made["url"]) as answer:
        path.write_bytes(answer.read())
    assert path.stat().st_size == made["bytes"]
    assert read_metadata(path).request.prompt == "a red mushroom"
    assert (made["seed"], made["unknown_words"]) == (3, [])
    failed, solid = call(url, "export", prompt="a red mushroom", seed=3, format="3mf", purpose="print")
    assert not failed, solid
    assert solid["url"].endswith(".3mf")
    assert solid["printable"]


def test_variants_and_words(url: str) -> None:
    failed, made = call(url, "variants", prompt="a cup", count=2, seed=5)
    assert not failed, made
    assert [mesh["seed"] for mesh in made["meshes"]] == [5, 6]
    failed, words = call(url, "words")
    assert not failed
    assert "a red mushroom" in words["examples"]


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "blank": ("generate", {"prompt": "  "}, "The prompt is blank"),
    "seed": ("generate", {"prompt": "a cup", "seed": -1}, "The seed should be"),
    "format": ("export", {"prompt": "a cup", "format": "fbx"}, "fbx"),
    "purpose": ("export", {"prompt": "a cup", "purpose": "fun"}, "fun"),
    "count": ("variants", {"prompt": "a cup", "count": 9}, "The count must be 1 to 8"),
    "tool": ("mcp_generate", {"prompt": "a cup"}, "Unknown tool"),
    "queued endpoint": ("blend", {"prompt": "a cup", "other": "a boat"}, "Unknown tool"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_are_one_sentence(url: str, name: str) -> None:
    tool, arguments, sentence = WRONG[name]
    failed, text = call(url, tool, **arguments)
    assert failed
    assert sentence in text
    assert "Traceback" not in text


def test_flood_is_limited_by_the_address_of_the_agent(url: str) -> None:
    answers = [call(url, "generate", AWAY, prompt="a cup", seed=1) for _ in range(6)]
    assert [failed for failed, _ in answers] == [False] * 4 + [True] * 2
    assert "Too many requests (limit: 4 per minute)" in answers[-1][1]


def test_sizes_and_refinement_are_limited_for_agents(url: str) -> None:
    failed, text = call(url, "generate", AWAY, prompt="a cup", faces=10**9)
    assert failed
    assert "exceeds this server's limit" in text
    failed, text = call(url, "refine", AWAY, prompt="a cup")
    assert failed
    assert "does not refine results for its visitors" in text


def test_nothing_is_offered_until_the_tools_are_limited(engine: Engine, history: History) -> None:
    limits = Limits.for_host("0.0.0.0")
    for mcp in (McpAccess(), None):
        with live_folder(history) as folder:
            served = filter_options(ServedFiles(history), limits, mcp=mcp)
            page = lambda: build(engine, folder, history, RequestLimiter(limits), mcp=mcp)  # noqa: B023, E731
            with launched(page, mcp_server=True, **served) as running:
                request = urllib.request.Request(f"{running.local_url}gradio_api/mcp", b"{}")
                request.add_header("Content-Type", "application/json")
                with pytest.raises(urllib.error.HTTPError) as caught:
                    urllib.request.urlopen(request)
                assert caught.value.code == 404


def test_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install"):
        check_installed()
    assert "gradio[mcp]" in mcp_access.MISSING
