"""Environment variables and temporary folder of Gradio. Imports nothing heavy."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Defaults of this program's flags, or passed on to Gradio unchanged.
_RESPECTED = {"GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_ROOT_PATH"}
# Set by `prepare`.
_OWN = {"GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"}
_folders: list[str] = []


def ignored(environment: Mapping[str, str]) -> list[str]:
    """Return the names of Gradio's variables that have no effect here.

    They would open a tunnel, reload sources, serve other files or prevent the start; an invalid number even
    prevents Gradio's import.
    """
    return sorted(
        name for name in environment if name.startswith("GRADIO_") and name not in _RESPECTED | _OWN
    )


def prepare() -> None:
    """Set the environment variables that Gradio reads on import.

    Each process gets its own folder for temporary files: the default, /tmp/gradio, is shared by all users of
    a machine and may belong to another user.
    """
    # The host and port are passed explicitly; Gradio would parse these variables again.
    for name in [*ignored(os.environ), "GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "WEB_CONCURRENCY"]:
        os.environ.pop(name, None)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # No proxy reaches this machine's own addresses, such as a mirror of the hub.
    exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    exempt = ",".join(filter(None, (exempt, "localhost", "127.0.0.1", "::1")))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = exempt
    folder = tempfile.mkdtemp(prefix="triplaneturbo-")
    os.environ["GRADIO_TEMP_DIR"] = folder
    _folders.append(folder)
    atexit.register(_remove_temporary_folder)


def _remove_temporary_folder() -> None:
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


@contextmanager
def temporary_folder_removed() -> Iterator[None]:
    """Delete the temporary folder on exit: a terminated server skips its atexit handlers."""
    try:
        yield
    finally:
        _remove_temporary_folder()


@contextmanager
def without_proxies() -> Iterator[None]:
    """Disable proxies for HTTP clients that are created in this context.

    Gradio sends a request to its own page to check that it is up, which a proxy cannot answer. A proxy that
    httpx does not support, such as socks5://, even prevents Gradio's import.
    """
    names = ("no_proxy", "NO_PROXY")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "*"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
