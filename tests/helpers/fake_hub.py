"""Fake model hub on 127.0.0.1 that behaves as the real one does, or fails on demand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40


@dataclass
class Repo:
    """A repository: its files, its revisions and its simulated errors.

    Attributes:
        cut: how many of a file's bytes are sent before the connection is cut, once a file.
        short: send so many bytes as if they were all of them.
        status, code: an answer to everything, and the hub's X-Error-Code with it.
        private: whether it was made so.
    """

    files: dict[str, bytes]
    revisions: set[str] = field(default_factory=lambda: {"main"})
    cut: int | None = None
    short: int | None = None
    status: int = 200
    code: str = ""
    private: bool = False


class Hub:
    """The server; use as a context. `asked` holds (method, path, Range header, Authorization header).

    Args:
        repos: by their names.
        token: whose owner may make repositories and commit to them.
    """

    def __init__(self, repos: dict[str, Repo], token: str = "") -> None:
        self.repos = repos
        self.token = token
        self.stored: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str, str]] = []
        self.was_cut: set[str] = set()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self, False)

            def do_GET(self) -> None:
                hub.answer(self, True)

            def do_POST(self) -> None:
                hub.take(self)

            def do_PUT(self) -> None:
                hub.take(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def gets(self) -> list[str]:
        """The paths of the requested files."""
        return [path for method, path, _, _ in self.asked if method == "GET"]

    def answer(self, request: BaseHTTPRequestHandler, body: bool) -> None:
        """Answer one request for /owner/name/resolve/revision/file."""
        wanted = request.headers.get("Range", "")
        self.asked.append((request.command, request.path, wanted, request.headers.get("Authorization", "")))
        request.close_connection = True  # so that a stopped hub stops answering at once
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", request.path.partition("?")[0])
        repo = self.repos.get(match[1]) if match else None
        if match is None or repo is None:
            return self._fail(request, 401, "RepoNotFound")
        commit = match[2] if len(match[2]) == 40 else COMMIT
        if repo.status != 200:
            return self._fail(request, repo.status, repo.code, commit)
        if match[2] not in repo.revisions:
            return self._fail(request, 404, "RevisionNotFound")
        content = repo.files.get(match[3])
        if content is None:
            return self._fail(request, 404, "EntryNotFound", commit)
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        part = content[start:]
        request.send_response(206 if wanted else 200)
        request.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        request.send_header("X-Repo-Commit", commit)
        request.send_header("Connection", "close")
        request.send_header("X-Linked-Size", str(len(content)))
        request.send_header("Accept-Ranges", "bytes")
        if wanted:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if body and repo.short is not None and len(part) > repo.short:
            part = part[: repo.short]
        request.send_header("Content-Length", str(len(part)))
        request.end_headers()
        if not body:
            return None
        if repo.cut is not None and match[3] not in self.was_cut and len(part) > repo.cut:
            self.was_cut.add(match[3])
            request.wfile.write(part[: repo.cut])
            request.wfile.flush()
            request.connection.close()
            return None
        request.wfile.write(part)
        return None

    def take(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request that creates a repository, uploads a file or commits uploads."""
        body = self._body(request)
        given, path = request.headers.get("Authorization", ""), request.path.partition("?")[0]
        self.asked.append((request.command, request.path, "", given))
        request.close_connection = True
        if request.command == "PUT":
            self.stored[path.rpartition("/")[2]] = body
            return self._say(request, 200, {})
        if given != f"Bearer {self.token}":
            return self._fail(request, 401, "")
        told = json.loads(body.splitlines()[0]) if body else {}
        if path == "/api/repos/create":
            name = f"{told['organization']}/{told['name']}"
            if name.startswith("another/"):
                return self._fail(request, 403, "")
            known = name in self.repos
            self.repos.setdefault(name, Repo({}, private=told.get("visibility") == "private"))
            return self._say(request, 409 if known else 200, {"url": f"{self.endpoint}/{name}"})
        if path == "/api/validate-yaml":
            return self._say(request, 200, {"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in told["files"]
            ]
            return self._say(request, 200, {"files": modes})
        if re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.endpoint}/store/{one['oid']}"}}}
                for one in told["objects"]
            ]
            return self._say(request, 200, {"transfer": "basic", "objects": objects})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.repos[match[1]].files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.repos[match[1]].files[value["path"]] = self.stored[value["oid"]]
            address = f"{self.endpoint}/{match[1]}/commit/{COMMIT}"
            return self._say(request, 200, {"commitUrl": address, "commitOid": COMMIT})
        return self._fail(request, 404, "")

    @staticmethod
    def _body(request: BaseHTTPRequestHandler) -> bytes:
        if request.headers.get("Transfer-Encoding") != "chunked":
            return request.rfile.read(int(request.headers.get("Content-Length", 0)))
        body = b""
        while size := int(request.rfile.readline(), 16):
            body += request.rfile.read(size)
            request.rfile.readline()
        return body

    @staticmethod
    def _say(request: BaseHTTPRequestHandler, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.send_header("Connection", "close")
        request.end_headers()
        request.wfile.write(data)

    @staticmethod
    def _fail(request: BaseHTTPRequestHandler, status: int, code: str, commit: str = COMMIT) -> None:
        request.send_response(status)
        if code:
            request.send_header("X-Error-Code", code)
        request.send_header("X-Repo-Commit", commit)
        request.send_header("Connection", "close")
        request.send_header("Content-Length", "0")
        request.end_headers()
