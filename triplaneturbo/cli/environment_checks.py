"""What doctor looks at around the program: the address of the page, proxies, and folders to write to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from triplaneturbo.cli.finding import Finding, finding_from_error
from triplaneturbo.errors import UserError
from triplaneturbo.serving.address import DEFAULT_HOST, PortTakenError, ServingAddress, default_port
from triplaneturbo.serving.gradio_environment import ignored
from triplaneturbo.serving.output_files import DEFAULT_FOLDER
from triplaneturbo.serving.preflight import check_served_folder

PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


def check_environment() -> Iterator[Finding]:
    """Look at everything of this file."""
    yield address()
    if unused := ignored(os.environ):
        yield Finding("Gradio's variables", f"ignored: {', '.join(unused)}")
    yield from proxies()
    yield outputs_folder()
    yield compiled_kernels()


def address() -> Finding:
    """Whether the page can listen where the environment or the default says."""
    host, port = os.environ.get("GRADIO_SERVER_NAME") or DEFAULT_HOST, default_port(os.environ)
    try:
        return Finding("page's address", ServingAddress.checked(host, port, os.environ).url)
    except PortTakenError:  # by a page that is open already, most likely
        return Finding("page's address", f"{host}, port {port}: taken now; --port 0 chooses a free one")
    except UserError as error:
        return finding_from_error("page's address", error)


def proxies() -> Iterator[Finding]:
    """Whether downloads can use the proxy that the environment names; nothing is sent to it."""
    lower = [name.lower() for name in PROXIES]
    named = ", ".join(name for name in (*PROXIES, *lower) if os.environ.get(name))
    if not named:
        return
    try:
        from huggingface_hub import close_session, get_session

        close_session()  # what was made before may know of another proxy
        get_session()
        yield Finding("proxy", named)
    except ImportError as error:
        # Of httpx for a SOCKS proxy, or huggingface_hub itself is missing.
        socks = "socks" in str(error).lower()
        remedy = "run: pip install socksio; or unset it" if socks else "run: make setup"
        yield Finding("proxy", f"{named}: downloads need a package that is missing", remedy)
    except Exception as error:  # of kinds that differ between versions of the transport
        remedy = "correct or unset it: http://HOST:PORT is understood"
        yield Finding("proxy", f"{named}: downloads cannot use it ({type(error).__name__})", remedy)


def outputs_folder() -> Finding:
    """Whether results can be kept in the default folder, which is below the working folder."""
    folder = Path.cwd() / DEFAULT_FOLDER
    try:
        check_served_folder(folder)
    except UserError as error:
        return finding_from_error("results", error)
    place = next((p for p in (folder, *folder.parents) if p.exists()), folder)
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return Finding("results", str(folder))
    why = "cannot be written" if place.is_dir() else "is not a folder"
    remedy = "change to a folder of yours, or give generate -o FOLDER/ and the page --outputs FOLDER"
    return Finding("results", f"{folder}: {place} {why}", remedy)


def compiled_kernels() -> Finding:
    """Whether compiled loops can be kept, so that they are not compiled at every start."""
    try:
        from triplaneturbo.utils.kernels import cache_folder, user_cache
    except (ImportError, OSError) as error:
        return Finding("compiled kernels", f"numba does not load: {error}", "run: make setup")
    folder = cache_folder()
    if folder is not None:
        return Finding("compiled kernels", str(folder))
    remedy = "set NUMBA_CACHE_DIR to a writable folder; until then each start compiles for a minute"
    return Finding(
        "compiled kernels", f"cannot be kept, not even in {user_cache() or 'a home folder'}", remedy
    )
