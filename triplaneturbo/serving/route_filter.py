"""ASGI middleware that restricts Gradio's routes on public servers.

Some of the routes that this page does not use are unsafe on a public server: they fetch URLs given by the
client, accept uploads or write files. So only the routes that the page uses are open, `ServedFiles` decides
which files are served, and the JSON of a request may name no other file. Gradio's upload route is closed;
this middleware accepts prompt lists from visitors who may train, and files to refine from those who may
upload, and limits their rate.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import anyio
import anyio.to_thread
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.registry import WRITERS
from triplaneturbo.serving.access import is_local
from triplaneturbo.serving.limits import Limits, RateLimitError, RequestLimiter
from triplaneturbo.serving.mcp_access import McpAccess
from triplaneturbo.serving.public_url import PublicUrl
from triplaneturbo.serving.served_files import ServedFiles
from triplaneturbo.serving.training_access import TrainingAccess
from triplaneturbo.serving.uploads import Uploads

API = "/gradio_api"
UPLOAD = "/prompts"
MCP = re.compile(r"/mcp/?")
REFINE_UPLOAD = "/refine_upload"
_FILE = re.compile(r"/file[=/](?P<path>.*)", re.DOTALL)
_OPEN = re.compile(
    r"/(?:info|openapi\.json|app_id|user|token|login_check|startup-events|theme\.css|cancel|reset"
    r"|component_server|queue/(?:join|data|status)|heartbeat/[^/]+|(?:run|api)/[^/]+"
    r"|call/(?:v2/)?[^/]+(?:/[^/]+)?)/?"
)
# Gradio's threads in addition to those of the waiting requests, each of which occupies one.
_SPARE_THREADS = 40


def filter_options(
    served_files: ServedFiles,
    limits: Limits,
    training_access: TrainingAccess | None = None,
    root_path: str = "",
    mcp: McpAccess | None = None,
    refine_uploads: Uploads | None = None,
) -> dict[str, Any]:
    """Return the arguments of Gradio's `launch` that install the route filter.

    Args:
        served_files: the files that may be served.
        limits: the limits of the server.
        training_access: decides who may upload prompt lists; None: nobody.
        root_path: the path or URL under which a proxy serves the page; see `public_url.checked_root_path`.
        mcp: the tools for agents; None: there are none.
        refine_uploads: receives files to refine; None: nobody may upload any.
    """
    uploads = {UPLOAD: training_access, REFINE_UPLOAD: refine_uploads}
    route_filter = Middleware(
        RouteFilter,
        served_files=served_files,
        max_body=limits.body,
        uploads={route: receiver for route, receiver in uploads.items() if receiver is not None},
        guard=RequestLimiter(limits),
        public_url=PublicUrl(root_path),
        mcp=mcp,
    )
    return {
        "app_kwargs": {"middleware": [route_filter]},
        "max_threads": (limits.queue or 0) + _SPARE_THREADS,
    }


class RouteFilter:
    """Middleware that forwards allowed requests to Gradio and answers all others.

    Args:
        app: the application behind the middleware.
        served_files: the files that may be served.
        max_body: maximum number of bytes of a request's JSON.
        uploads: receivers of uploads by route.
        guard: limits the rate of uploads, which are counted apart from other requests; None: unlimited.
        public_url: the URL under which visitors reach the page; None: the address of the server.
        mcp: the tools for agents; None: there are none.
    """

    def __init__(
        self,
        app: ASGIApp,
        served_files: ServedFiles,
        max_body: int,
        uploads: Mapping[str, Uploads] | None = None,
        guard: RequestLimiter | None = None,
        public_url: PublicUrl | None = None,
        mcp: McpAccess | None = None,
    ) -> None:
        self._app = app
        self._public_url = public_url or PublicUrl()
        self._served_files = served_files
        self._max_body = max_body
        self._mcp = mcp
        self._uploads = uploads or {}
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward or answer a request."""
        if scope["type"] != "http":
            # The page needs no WebSocket, and lifespan events carry no request.
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        send = _with_header(send, (b"x-content-type-options", b"nosniff"))
        scope = self._public_url.scope(scope)
        path: str = scope["path"]
        _, inside, route = path.partition(API)
        if not inside:
            await self._app(scope, receive, send)
        elif file := _FILE.fullmatch(route):
            await self._serve_file(file["path"], scope, receive, send)
        elif route in self._uploads and scope["method"] == "POST":
            await self._receive_upload(self._uploads[route], scope, receive, send)
        elif MCP.fullmatch(route) and self._mcp is not None and self._mcp.is_open:
            if scope["method"] == "POST":
                await self._forward_json(scope, receive, send)
            else:  # clients may ask for a stream of events, which a server without sessions does not have
                await _reject(405, "Only POST is allowed here.", scope, receive, send)
        elif not _OPEN.fullmatch(route):
            await _reject(404, "Address not found.", scope, receive, send)
        elif scope["method"] == "POST":
            await self._forward_json(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve_file(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        file = await anyio.to_thread.run_sync(self._served_files.file, path)
        if file is None:
            await _reject(403, "File not found.", scope, receive, send)
            return
        lease = self._served_files.in_use(file)
        await anyio.to_thread.run_sync(lease.__enter__)
        try:
            # Anyone with the address can fetch the file, so shared caches must not store it.
            send = _with_header(send, (b"cache-control", b"private"))
            await self._app(scope, receive, _with_media_type(send, file.suffix))
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_exit, lease)

    async def _receive_upload(self, uploads: Uploads, scope: Scope, receive: Receive, send: Send) -> None:
        """Store an uploaded file."""
        headers = Headers(scope=scope)
        key, name = headers.get("x-key", ""), urllib.parse.unquote(headers.get("x-name", ""))
        address = scope["client"][0] if scope.get("client") else None
        try:
            if self._guard is not None:
                self._guard.admit(session=None, address=address, local=is_local(headers, address))
            path = await anyio.to_thread.run_sync(uploads.receive, key, name)
        except RateLimitError as error:
            await _reject(429, str(error), scope, receive, send)
            return
        except UserError as error:
            await _reject(403, str(error), scope, receive, send)
            return
        size, more = 0, True
        try:
            async with await anyio.open_file(path, "wb") as file:
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        break
                    data = message.get("body", b"")
                    more = message.get("more_body", False)
                    size += len(data)
                    if size > uploads.most or not uploads.keeps(key, path):
                        break
                    await file.write(data)
        except OSError as error:
            await _reject(
                507, f"The {uploads.what} could not be saved: {error.strerror}.", scope, receive, send
            )
            return
        if not uploads.keeps(key, path):
            await _reject(409, f"A newer upload has replaced the {uploads.what}.", scope, receive, send)
            return
        if more or size > uploads.most:
            path.unlink(missing_ok=True)
            limit = uploads.most >> 20
            await _reject(
                413,
                f"The {uploads.what} is too large; upload a file of at most {limit} MB.",
                scope,
                receive,
                send,
            )
            return
        await JSONResponse({"kept": path.name})(scope, receive, send)

    async def _forward_json(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a request's JSON, check every file that it names, and forward the request."""
        data = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            data += message.get("body", b"")
            more = message.get("more_body", False)
            if len(data) > self._max_body:
                await _reject(
                    413, f"The request is too large: at most {self._max_body} bytes.", scope, receive, send
                )
                return
        try:
            paths = _paths_in(json.loads(data)) if data else []
        except (ValueError, RecursionError):
            await _reject(400, "The request is not valid JSON.", scope, receive, send)
            return
        for path in paths:
            if path is None:
                continue
            if not await anyio.to_thread.run_sync(self._served_files.may_be_named, path):
                await _reject(
                    403, "The request names a file that does not belong to a result.", scope, receive, send
                )
                return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": bytes(data), "more_body": False}

        try:
            await self._app(scope, replay, send)
        except TypeError as error:
            if "/call/v2/" not in scope["path"]:
                raise
            # Gradio (6.31) raises TypeError for a parameter that the endpoint does not have.
            await _reject(422, f"{str(error).partition('. ')[0]}.", scope, receive, send)


def _paths_in(value: Any) -> list[Any]:
    """Return every "path" in a JSON value: Gradio passes files to its components under this key."""
    paths, pending = [], [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if "path" in value:
                paths.append(value["path"])
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return paths


def _with_header(send: Send, header: tuple[bytes, bytes]) -> Send:
    """Return a `send` that adds a header to the response."""

    async def send_with_header(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), header]}
        await send(message)

    return send_with_header


def _with_media_type(send: Send, suffix: str) -> Send:
    """Return a `send` that says what a mesh is: not all systems know these types, and Quick Look needs them.

    A USDZ is shown rather than downloaded; other files stay as they are.
    """
    media_type = next((writer.media_type for writer in WRITERS.values() if writer.suffix == suffix), None)
    if media_type is None:
        return send
    replaced = {b"content-type": media_type.encode()}
    if suffix == WRITERS["usdz"].suffix:
        replaced[b"content-disposition"] = b"inline"

    async def send_with_media_type(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] < 300:
            kept = [(name, value) for name, value in message.get("headers", []) if name not in replaced]
            message = {**message, "headers": [*kept, *replaced.items()]}
        await send(message)

    return send_with_media_type


async def _reject(status: int, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"detail": detail}, status)(scope, receive, send)


def _exit(lease: AbstractContextManager[None]) -> None:
    lease.__exit__(None, None, None)
