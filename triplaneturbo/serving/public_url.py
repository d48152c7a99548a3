"""Public URLs of the page and its files, with or without a reverse proxy.

Gradio puts absolute file URLs, made from the request's Host header, into its responses. Behind a proxy they
name a host that visitors cannot reach. Browsers get URLs relative to the page instead, which are valid under
any host and sub-path; API clients get absolute ones.
"""

from __future__ import annotations

import re
import urllib.parse

from starlette.datastructures import Headers
from starlette.types import Scope

from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

RawHeaders = list[tuple[bytes, bytes]]

# Gradio (6.31) builds every URL from this header if it is set and X-Forwarded-Host is not.
_BASE = b"x-gradio-server"
_FORWARDED_HOST = b"x-forwarded-host"
# Keeps the trace of a proxy in the request; see access.is_local.
_RENAMED = b"x-forwarded-original-host"
# Browser requests have at least one of these headers, except the one for the page itself, which accepts HTML.
_BROWSER = ("origin", "referer", "sec-fetch-site")
_HOST = re.compile(r"[\w.-]+(:\d+)?|\[[\da-fA-F:.]+\](:\d+)?", re.ASCII)
_PREFIX = re.compile(r"(/[\w.~%!$&'()*+,;=:@-]+)+", re.ASCII)


def checked_root_path(root_path: str | None) -> str:
    """Validate --root-path: return a path such as "/app", an absolute URL, or "".

    Raises:
        UserError: the value is neither.
    """
    given = (root_path or "").strip()
    text = given.rstrip("/")
    if not text:
        return ""
    if given.startswith(("http://", "https://")):
        parts = urllib.parse.urlsplit(text)
        if _HOST.fullmatch(parts.netloc) and not parts.query and not parts.fragment:
            return text
    else:
        text = text if text.startswith("/") else f"/{text}"
        if _PREFIX.fullmatch(text):
            return text
    raise UserError(
        f"Invalid --root-path {shown(root_path)}; use a path such as /app, or a URL such as"
        " https://example.com/app."
    )


class PublicUrl:
    """Rewrite requests so that Gradio generates URLs that the visitor can reach.

    Args:
        root_path: the path or URL under which a proxy serves the page, from `checked_root_path`.
    """

    def __init__(self, root_path: str = "") -> None:
        self._absolute = root_path if "://" in root_path else ""
        self._prefix = urllib.parse.urlsplit(root_path).path if self._absolute else root_path

    def scope(self, scope: Scope) -> Scope:
        """Return the ASGI scope of an HTTP request for Gradio."""
        raw: RawHeaders = scope["headers"]
        base = self._base(Headers(raw=raw), scope.get("scheme", "http")).encode("latin-1")
        kept = [
            (_RENAMED if name == _FORWARDED_HOST else name, value) for name, value in raw if name != _BASE
        ]
        seen = {**scope, "headers": [*kept, (_BASE, base)]}
        inside = self._without_prefix(scope["path"])
        if inside != scope["path"]:
            seen |= {"path": inside, "raw_path": urllib.parse.quote(inside).encode()}
        return seen

    def _without_prefix(self, path: str) -> str:
        """Return the path inside the page: some proxies remove the prefix, others pass it on."""
        inside = path.removeprefix(self._prefix) or "/"
        return inside if inside.startswith("/") else path

    def _base(self, headers: Headers, scheme: str) -> str:
        if any(name in headers for name in _BROWSER) or "text/html" in headers.get("accept", ""):
            return "."
        if self._absolute:
            return self._absolute
        host = _first(headers.get("x-forwarded-host")) or headers.get("host", "")
        if not _HOST.fullmatch(host):
            return "."
        secure = _first(headers.get("x-forwarded-proto")) == "https" or scheme == "https"
        prefix = self._prefix or _first(headers.get("x-forwarded-prefix")).rstrip("/")
        if not _PREFIX.fullmatch(prefix):
            prefix = ""
        return f"{'https' if secure else 'http'}://{host}{prefix}"


def _first(value: str | None) -> str:
    """Return the outermost proxy's value: each proxy of a chain appends its own."""
    return (value or "").partition(",")[0].strip()
