"""An nginx process as a reverse proxy of a local server."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NGINX = shutil.which("nginx") or ("/usr/sbin/nginx" if Path("/usr/sbin/nginx").exists() else None)


@contextmanager
def nginx(folder: Path, port: int, locations: str) -> Iterator[None]:
    """Run nginx at 127.0.0.1:port with these `location` blocks in this context."""
    if NGINX is None:
        pytest.skip("no nginx: apt install nginx-light")
    own = folder / f"nginx-{port}"
    own.mkdir()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {own}/{kind};" for kind in kinds)
    (own / "nginx.conf").write_text(
        f"daemon off; pid {own}/pid; error_log {own}/error.log; events {{}}\n"
        f"http {{ access_log off; {temporary}\n"
        f"server {{ listen 127.0.0.1:{port}; {locations} }} }}\n"
    )
    command = [NGINX, "-p", str(own), "-c", str(own / "nginx.conf")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        while process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        else:
            assert process.stdout is not None
            pytest.fail(f"nginx ended: {process.stdout.read()}")
        yield
    finally:
        process.terminate()
        process.wait()
