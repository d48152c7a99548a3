"""HTTP client of a running page that sends the requests of a browser, or invalid ones."""

from __future__ import annotations

import http.client
import json
import secrets
import urllib.parse
from pathlib import Path
from typing import Any

from gradio_client import Client

from tests.helpers.pace import patience

API = "/gradio_api"


def api_client(url: str, folder: Path) -> Client:
    """Return a Gradio client of the page at `url` that downloads to a folder."""
    limits = {"timeout": patience(60)}
    return Client(url, verbose=False, download_files=str(folder), httpx_kwargs=limits)


class Visitor:
    """One session with the page at `url`."""

    def __init__(self, url: str) -> None:
        address = urllib.parse.urlsplit(url)
        assert address.hostname
        assert address.port
        self._address = address.hostname, address.port
        self.session = secrets.token_hex(8)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Send a request and return the status, headers and body; `path` is sent unchanged."""
        connection = http.client.HTTPConnection(*self._address, timeout=patience(120))
        try:
            connection.putrequest(method, path)
            for key, value in {**(headers or {}), "Content-Length": str(len(body or b""))}.items():
                connection.putheader(key, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def post(self, path: str, value: Any) -> tuple[int, dict[str, str], bytes]:
        """Send a POST request with JSON."""
        return self.ask("POST", path, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def file(self, path: str) -> tuple[int, bytes]:
        """Request a file by its path."""
        status, _, body = self.ask("GET", f"{API}/file={urllib.parse.quote(path)}")
        return status, body

    def join(self, fn_index: int, data: list[Any]) -> tuple[int, bytes]:
        """Start an event of the page, as its script does."""
        body = {"fn_index": fn_index, "data": data, "session_hash": self.session, "event_data": None}
        status, _, answer = self.post(f"{API}/queue/join", body)
        return status, answer

    def run(self, fn_index: int, data: list[Any]) -> list[dict[str, Any]]:
        """Start an event and wait for all of its output."""
        status, answer = self.join(fn_index, data)
        assert status == 200, answer
        _, _, stream = self.ask("GET", f"{API}/queue/data?session_hash={self.session}")
        events = [json.loads(line[5:]) for line in stream.splitlines() if line.startswith(b"data:")]
        assert events[-1]["msg"] in ("process_completed", "close_stream"), events[-1]
        return events
