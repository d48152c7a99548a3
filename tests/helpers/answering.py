"""A server that answers the clients' requests as triplaneturbo does, with any file."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def answering(file: Any, content: bytes) -> Iterator[str]:
    """Run a server in a thread; yield its address.

    Args:
        file: the description of the generated file, normally `{"path": ..., "url": ...}`.
        content: of the file, whatever its path.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._send(b'{"event_id": "1"}')

        def do_GET(self) -> None:
            result = b"event: complete\ndata: " + json.dumps([file, {}]).encode() + b"\n\n"
            self._send(content if self.path.startswith("/gradio_api/file=") else result)

        def _send(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
