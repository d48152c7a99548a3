"""The environment in which Gradio is imported and launched. Imports nothing heavy."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Read by this program's own flags, or passed on to Gradio as they are.
_RESPECTED = {"GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_ROOT_PATH"}
# Set here.
_OWN = {"GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"}
_folders: list[str] = []


def ignored(environment: Mapping[str, str]) -> list[str]:
    """Return the names of Gradio's variables that have no effect here.

    They would open a tunnel, reload sources, serve other files or stop the start; on invalid numbers Gradio
    cannot even be imported.
    """
    return sorted(
        name for name in environment if name.startswith("GRADIO_") and name not in _RESPECTED | _OWN
    )


def prepare() -> None:
    """Set the environment that Gradio reads when it is imported.

    Its folder for temporary files is a new one of this process: the default, /tmp/gradio, is shared by all
    users of a machine and may belong to another one.
    """
    # The host and port are passed explicitly; left here, they would be parsed once more.
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
    """Delete what `prepare` made at the end of this context: a terminated server skips its exit handlers."""
    try:
        yield
    finally:
        _remove_temporary_folder()


@contextmanager
def without_proxies() -> Iterator[None]:
    """Have no HTTP client that is made meanwhile use a proxy.

    Gradio asks the page that it launches whether it is up, which no proxy can answer; and a proxy that httpx
    does not understand, such as socks5://, stops even Gradio's import.
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
