"""The address under which visitors reach the page, behind a reverse proxy or not.

Gradio writes whole addresses of files into what it sends, made from the request's Host. Behind a proxy these
name a host that the visitor cannot reach. Browsers get addresses relative to the page instead, which hold
under any host and any sub-path; programs get whole ones.
"""

from __future__ import annotations

import re
import urllib.parse

from starlette.datastructures import Headers
from starlette.types import Scope

from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

RawHeaders = list[tuple[bytes, bytes]]

# Gradio builds every address on this header where it is set and X-Forwarded-Host is not (6.31).
_BASE = b"x-gradio-server"
_FORWARDED_HOST = b"x-forwarded-host"
# Keeps the mark of a proxy in the request: see access.is_local.
_RENAMED = b"x-forwarded-original-host"
# Requests by a browser have at least one of these, but for the page itself, which it wants as HTML.
_BROWSER = ("origin", "referer", "sec-fetch-site")
_HOST = re.compile(r"[\w.-]+(:\d+)?|\[[\da-fA-F:.]+\](:\d+)?", re.ASCII)
_PREFIX = re.compile(r"(/[\w.~%!$&'()*+,;=:@-]+)+", re.ASCII)


def checked_root_path(root_path: str | None) -> str:
    """The value of --root-path as `PublicUrl` takes it: a path such as "/app", a whole address, or "".

    Raises:
        UserError: it is neither.
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
        f"--root-path should be a path such as /app, or an address such as https://example.com/app, not"
        f" {shown(root_path)}."
    )


class PublicUrl:
    """Rewrite requests so that Gradio makes addresses that the visitor can reach.

    Args:
        root_path: from `checked_root_path`: where the proxy serves the page.
    """

    def __init__(self, root_path: str = "") -> None:
        self._whole = root_path if "://" in root_path else ""
        self._prefix = urllib.parse.urlsplit(root_path).path if self._whole else root_path

    def scope(self, scope: Scope) -> Scope:
        """An HTTP request as Gradio is to see it."""
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
        """Some proxies remove the prefix themselves, others pass it on."""
        inside = path.removeprefix(self._prefix) or "/"
        return inside if inside.startswith("/") else path

    def _base(self, headers: Headers, scheme: str) -> str:
        if any(name in headers for name in _BROWSER) or "text/html" in headers.get("accept", ""):
            return "."
        if self._whole:
            return self._whole
        host = _first(headers.get("x-forwarded-host")) or headers.get("host", "")
        if not _HOST.fullmatch(host):
            return "."
        secure = _first(headers.get("x-forwarded-proto")) == "https" or scheme == "https"
        prefix = self._prefix or _first(headers.get("x-forwarded-prefix")).rstrip("/")
        if not _PREFIX.fullmatch(prefix):
            prefix = ""
        return f"{'https' if secure else 'http'}://{host}{prefix}"


def _first(value: str | None) -> str:
    """Each proxy of a chain adds its own value; the first is the outermost's."""
    return (value or "").partition(",")[0].strip()
