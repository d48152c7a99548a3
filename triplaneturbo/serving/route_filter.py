"""What reaches Gradio at all: a middleware in front of its routes.

Gradio has many routes that this page does not use, and some do more than is wanted of a server that strangers
reach: they fetch addresses that a stranger names, take uploads, write files. So only the routes that the page
uses are open; `ServedFiles` says which files are given out; and a request's JSON may name no other file.
Gradio's uploads are closed: lists of prompts of those who may train are taken here.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from contextlib import AbstractContextManager
from typing import Any

import anyio
import anyio.to_thread
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from triplaneturbo.errors import UserError
from triplaneturbo.serving.limits import Limits
from triplaneturbo.serving.public_url import PublicUrl
from triplaneturbo.serving.served_files import ServedFiles
from triplaneturbo.serving.training_access import TrainingAccess

API = "/gradio_api"
UPLOAD = "/prompts"
_FILE = re.compile(r"/file[=/](?P<path>.*)", re.DOTALL)
_OPEN = re.compile(
    r"/(?:info|openapi\.json|app_id|user|token|login_check|startup-events|theme\.css|cancel|reset"
    r"|component_server|queue/(?:join|data|status)|heartbeat/[^/]+|(?:run|api)/[^/]+"
    r"|call/(?:v2/)?[^/]+(?:/[^/]+)?)/?"
)
# Threads of Gradio besides those of the requests that wait in line, each of which holds one.
_SPARE_THREADS = 40


def filter_options(
    served: ServedFiles, limits: Limits, admission: TrainingAccess | None = None, root_path: str = ""
) -> dict[str, Any]:
    """What `launch` needs to know besides for the gate to stand before its routes.

    Args:
        served: the files that are given out.
        limits: of a request.
        admission: who may upload lists of prompts; None: nobody.
        root_path: where a proxy serves the page; see `public_url.checked_root_path`.
    """
    public = PublicUrl(root_path)
    gate = Middleware(RouteFilter, served=served, body=limits.body, admission=admission, public=public)
    return {
        "app_kwargs": {"middleware": [gate]},
        "max_threads": (limits.queue or 0) + _SPARE_THREADS,
    }


class RouteFilter:
    """The middleware.

    Args:
        app: what is behind it.
        served: the files that are given out.
        body: the most bytes of a request's JSON.
        admission: who may upload lists of prompts; None: nobody.
        public: where visitors reach the page; None: where the server listens.
    """

    def __init__(
        self,
        app: ASGIApp,
        served: ServedFiles,
        body: int,
        admission: TrainingAccess | None = None,
        public: PublicUrl | None = None,
    ) -> None:
        self._app = app
        self._public = public or PublicUrl()
        self._served = served
        self._body = body
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] != "http":
            # The page needs no WebSocket, and lifespan events carry no request.
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        send = _with(send, (b"x-content-type-options", b"nosniff"))
        scope = self._public.scope(scope)
        path: str = scope["path"]
        _, inside, route = path.partition(API)
        if not inside:
            await self._app(scope, receive, send)
        elif asked := _FILE.fullmatch(route):
            await self._give(asked["path"], scope, receive, send)
        elif route == UPLOAD and scope["method"] == "POST" and self._admission is not None:
            await self._receive(self._admission, scope, receive, send)
        elif not _OPEN.fullmatch(route):
            await _refuse(404, "There is no such address.", scope, receive, send)
        elif scope["method"] == "POST":
            await self._take(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _give(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        file = await anyio.to_thread.run_sync(self._served.file, path)
        if file is None:
            await _refuse(403, "There is no such file.", scope, receive, send)
            return
        lease = self._served.in_use(file)
        await anyio.to_thread.run_sync(lease.__enter__)
        try:
            # Who has the address has the file: no proxy should keep it for others.
            await self._app(scope, receive, _with(send, (b"cache-control", b"private")))
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_leave, lease)

    async def _receive(self, admission: TrainingAccess, scope: Scope, receive: Receive, send: Send) -> None:
        """Write a list of prompts to where the admission says."""
        headers = Headers(scope=scope)
        name = urllib.parse.unquote(headers.get("x-name", ""))
        try:
            path = await anyio.to_thread.run_sync(admission.receive, headers.get("x-key", ""), name)
        except UserError as error:
            await _refuse(403, str(error), scope, receive, send)
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
                    if size > admission.most:
                        break
                    await file.write(data)
        except OSError as error:
            await _refuse(507, f"The list cannot be kept: {error.strerror}.", scope, receive, send)
            return
        if more or size > admission.most:
            path.unlink(missing_ok=True)
            most = admission.most >> 20
            await _refuse(413, f"A list of prompts has at most {most} MB here.", scope, receive, send)
            return
        await JSONResponse({"kept": path.name})(scope, receive, send)

    async def _take(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a request's JSON, look at every file that it names, and pass it on."""
        data = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            data += message.get("body", b"")
            more = message.get("more_body", False)
            if len(data) > self._body:
                await _refuse(413, f"A request has at most {self._body} bytes.", scope, receive, send)
                return
        try:
            named = _files(json.loads(data)) if data else []
        except (ValueError, RecursionError):
            await _refuse(400, "The request is not JSON.", scope, receive, send)
            return
        for path in named:
            if path is not None and not await anyio.to_thread.run_sync(self._served.may_be_named, path):
                await _refuse(403, "The request names a file that is not a result's.", scope, receive, send)
                return
        told = False

        async def again() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": bytes(data), "more_body": False}

        try:
            await self._app(scope, again, send)
        except TypeError as error:
            if "/call/v2/" not in scope["path"]:
                raise
            # Gradio (6.31) raises this for a parameter that the endpoint does not have.
            await _refuse(422, f"{str(error).partition('. ')[0]}.", scope, receive, send)


def _files(value: Any) -> list[Any]:
    """Every "path" in some JSON: that is how Gradio's components are told of files."""
    found, left = [], [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "path" in value:
                found.append(value["path"])
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return found


def _with(send: Send, header: tuple[bytes, bytes]) -> Send:
    """Adds a header to the response."""

    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), header]}
        await send(message)

    return adding


async def _refuse(status: int, why: str, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"detail": why}, status)(scope, receive, send)


def _leave(lease: AbstractContextManager[None]) -> None:
    lease.__exit__(None, None, None)
