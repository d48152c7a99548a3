"""URLs of files for browsers and API clients, with and without a reverse proxy."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("gradio")
from starlette.datastructures import Headers

from triplaneturbo.errors import UserError
from triplaneturbo.serving.access import is_local
from triplaneturbo.serving.public_url import PublicUrl, checked_root_path


def _seen(root_path: str = "", path: str = "/", **headers: str) -> tuple[str, str, Headers]:
    """Return the path, the base URL and all headers as Gradio sees them."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"type": "http", "scheme": "http", "path": path, "headers": raw}
    seen = PublicUrl(checked_root_path(root_path)).scope(scope)
    found = Headers(raw=seen["headers"])
    return seen["path"], found["x-gradio-server"], found


@pytest.mark.parametrize("root_path", ["", "/app", "https://toys.example.com/app"])
@pytest.mark.parametrize(
    "browser",
    [{"origin": "http://toys"}, {"referer": "http://toys/"}, {"sec_fetch_site": "same-origin"},
     {"accept": "text/html,application/xhtml+xml"}],
)  # fmt: skip
def test_browsers_receive_relative_urls(root_path: str, browser: dict[str, str]) -> None:
    assert _seen(root_path, host="127.0.0.1:7860", **browser)[1] == "."


def test_programs_receive_absolute_urls() -> None:
    assert _seen(host="127.0.0.1:7860")[1] == "http://127.0.0.1:7860"
    assert _seen("/app/", host="toys.example.com")[1] == "http://toys.example.com/app"
    assert _seen("app", host="[::1]:7860")[1] == "http://[::1]:7860/app"
    assert _seen("https://toys.example.com/app", host="127.0.0.1")[1] == "https://toys.example.com/app"
    forwarded = {
        "host": "127.0.0.1:7860",
        "x_forwarded_host": "toys.example.com, inner",
        "x_forwarded_proto": "https",
        "x_forwarded_prefix": "/a/b/",
    }
    assert _seen(**forwarded)[1] == "https://toys.example.com/a/b"


def test_forged_headers_are_ignored() -> None:
    _, base, seen = _seen(host="127.0.0.1", x_gradio_server="https://evil.example")
    assert base == "http://127.0.0.1"
    assert seen.getlist("x-gradio-server") == [base]
    assert _seen(host="evil.example/path?query")[1] == "."
    assert _seen(host="toys", x_forwarded_prefix="//evil.example")[1] == "http://toys"
    assert _seen(host="toys", x_forwarded_prefix="/a?b")[1] == "http://toys"


def test_forwarded_host_is_removed_and_proxy_stays_visible() -> None:
    _, _, seen = _seen(host="127.0.0.1:7860", x_forwarded_host="127.0.0.1")
    assert "x-forwarded-host" not in seen
    assert not is_local(seen, "127.0.0.1")


@pytest.mark.parametrize(
    ("path", "inside"),
    [("/app/gradio_api/info", "/gradio_api/info"), ("/gradio_api/info", "/gradio_api/info"),
     ("/app/", "/"), ("/app", "/"), ("/application", "/application"), ("/", "/")],
)  # fmt: skip
def test_root_path_prefix_is_removed(path: str, inside: str) -> None:
    for root_path in ("/app", "https://toys.example.com/app"):
        assert _seen(root_path, path, host="toys")[0] == inside
    assert _seen("", path, host="toys")[0] == path


@pytest.mark.parametrize(
    "wrong",
    ["/a b", "/a?b", "ftp://toys/app", "http://", "https://toys/#x", "http://a b/", "//toys", "/a//b"],
)
def test_invalid_root_path_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match=r"Invalid --root-path .*; use a path such as /app"):
        checked_root_path(wrong)
