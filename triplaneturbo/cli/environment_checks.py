"""Doctor's checks of the environment: the page's address, proxies, and writable folders."""

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


def check_environment(quick: bool = False) -> Iterator[Finding]:
    """Run the checks of this module; those that import numba only if not `quick`."""
    yield address()
    if unused := ignored(os.environ):
        yield Finding("Gradio's variables", f"ignored: {', '.join(unused)}")
    yield from proxies()
    yield outputs_folder()
    if not quick:
        yield compiled_kernels()


def address() -> Finding:
    """Check that the page can listen at the address of the environment or the default."""
    host, port = os.environ.get("GRADIO_SERVER_NAME") or DEFAULT_HOST, default_port(os.environ)
    try:
        return Finding("page's address", ServingAddress.checked(host, port, os.environ).url)
    except PortTakenError:  # probably by this page itself
        return Finding("page's address", f"{host}, port {port}: in use; --port 0 selects a free one")
    except UserError as error:
        return finding_from_error("page's address", error)


def proxies() -> Iterator[Finding]:
    """Check that downloads can use the proxy of the environment, without connecting to it."""
    lower = [name.lower() for name in PROXIES]
    named = ", ".join(name for name in (*PROXIES, *lower) if os.environ.get(name))
    if not named:
        return
    try:
        from huggingface_hub import close_session, get_session

        close_session()  # an existing session may use another proxy
        get_session()
        yield Finding("proxy", named)
    except ImportError as error:
        # Raised by httpx for a SOCKS proxy, or huggingface_hub itself is missing.
        socks = "socks" in str(error).lower()
        remedy = "run: pip install socksio; or unset the variable" if socks else "run: make setup"
        yield Finding("proxy", f"{named}: downloads need a package that is not installed", remedy)
    except Exception as error:  # its type depends on the version of the HTTP library
        remedy = "correct the variable, e.g. http://HOST:PORT, or unset it"
        yield Finding("proxy", f"{named}: downloads cannot use it ({type(error).__name__})", remedy)


def outputs_folder() -> Finding:
    """Check that results can be saved in the default folder, below the working directory."""
    folder = Path.cwd() / DEFAULT_FOLDER
    try:
        check_served_folder(folder)
    except UserError as error:
        return finding_from_error("results", error)
    place = next((p for p in (folder, *folder.parents) if p.exists()), folder)
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return Finding("results", str(folder))
    why = "is not writable" if place.is_dir() else "is not a folder"
    remedy = "change to a writable folder, or use generate -o FOLDER/ and serve --outputs FOLDER"
    return Finding("results", f"{folder}: {place} {why}", remedy)


def compiled_kernels() -> Finding:
    """Check that compiled kernels can be cached, which avoids compiling them at every start."""
    try:
        from triplaneturbo.utils.kernels import cache_folder, user_cache
    except (ImportError, OSError) as error:
        return Finding("compiled kernels", f"numba cannot be imported: {error}", "run: make setup")
    folder = cache_folder()
    if folder is not None:
        return Finding("compiled kernels", str(folder))
    remedy = "set NUMBA_CACHE_DIR to a writable folder; otherwise every start compiles for about a minute"
    return Finding(
        "compiled kernels", f"cannot be cached, not even in {user_cache() or 'a home folder'}", remedy
    )
