"""start the web page and serve it until Ctrl-C (same as python app.py)"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from triplaneturbo.cli import DONE, Terminated
from triplaneturbo.cli.flags import add_model_flags
from triplaneturbo.cli.garbage_collection import collection_paused
from triplaneturbo.cli.standard_streams import tolerate_lost_output
from triplaneturbo.errors import UserError
from triplaneturbo.models.adapters import misplaced_adapters
from triplaneturbo.request import shown
from triplaneturbo.serving.address import DEFAULT_HOST, ServingAddress, default_port, port_number
from triplaneturbo.serving.gradio_environment import ignored, temporary_folder_removed, without_proxies
from triplaneturbo.serving.preflight import check_process, check_served_folder
from triplaneturbo.serving.zero_gpu import prepare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_model_flags(parser)
    parser.add_argument(
        "--precision", default="auto", metavar="NAME", help="auto, float32, float16 or bfloat16; default auto"
    )
    parser.add_argument("--low-vram", action="store_true", help="reduce GPU memory at a small cost in time")
    # Gradio's variables are the defaults, as they are set on a Space.
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME") or DEFAULT_HOST,
        help="address on which to listen, default 127.0.0.1 (this machine only); 0.0.0.0 or :: for all IPv4"
        " or IPv6 addresses",
    )
    parser.add_argument(
        "--port",
        type=port_number,
        default=default_port(os.environ),
        help="port on which to listen, default 7860; 0: any free port, which is printed",
    )
    parser.add_argument(
        "--behind-proxy",
        action="store_true",
        help="apply the limits of a public server to all visitors; required behind a reverse proxy (see"
        " docs/serving.md)",
    )
    parser.add_argument(
        "--root-path",
        default=os.environ.get("GRADIO_ROOT_PATH", ""),
        metavar="PATH",
        help="path or URL under which a reverse proxy serves the page, such as /app or"
        " https://example.com/app",
    )
    parser.add_argument(
        "--outputs",
        default="outputs/history",
        metavar="FOLDER",
        help="folder for results; default outputs/history",
    )
    parser.add_argument(
        "--runs", metavar="FOLDER", help="folder for fine-tuning runs; default: runs next to the results"
    )
    parser.add_argument(
        "--admin",
        action="store_true",
        help="allow all visitors to fine-tune and manage adapters",
    )
    parser.add_argument(
        "--admin-password",
        metavar="PASSWORD",
        help="allow visitors with this password to fine-tune and manage adapters; prefer the variable"
        " TRIPLANETURBO_ADMIN_PASSWORD, as other users can see command lines",
    )
    parser.add_argument(
        "--refine",
        action="store_true",
        help="allow all visitors to refine results, for minutes each; by default only on this machine",
    )
    parser.add_argument(
        "--mcp",
        action="store_true",
        help="offer tools to agents by MCP at /gradio_api/mcp, with the limits of the page; needs"
        ' pip install "gradio[mcp]"',
    )
    parser.add_argument(
        "--uploads",
        action="store_true",
        help="with --refine: all visitors may upload a mesh or a picture to refine; by default only on this"
        " machine",
    )
    parser.add_argument("--queue", type=int, metavar="N", help="maximum number of waiting requests")
    parser.add_argument(
        "--per-minute", type=int, metavar="N", help="maximum number of requests per minute and session"
    )
    parser.add_argument(
        "--quota", type=gigabytes, metavar="GB", help="maximum disk space for all results; default 20"
    )


def gigabytes(text: str) -> int:
    """Parse gigabytes as bytes, for argparse. Raise ValueError if the number is not finite."""
    size = float(text) * 1e9
    if not math.isfinite(size):
        raise ValueError
    return int(size)


def _terminate(*_: object) -> NoReturn:
    raise Terminated(DONE)


def run(arguments: argparse.Namespace) -> int:
    """Load the model, launch the page, and wait for an interrupt.

    Raises:
        UserError: the model is unavailable, the port is in use, or results cannot be saved.
    """
    from triplaneturbo.serving.admin import Admin
    from triplaneturbo.serving.limits import Limits, RequestLimiter
    from triplaneturbo.serving.mcp_access import McpAccess, check_installed
    from triplaneturbo.serving.public_url import checked_root_path

    tolerate_lost_output()
    check_process()
    password = arguments.admin_password or os.environ.get("TRIPLANETURBO_ADMIN_PASSWORD")
    behind_proxy = arguments.behind_proxy
    admin = Admin(arguments.host, arguments.admin, password, behind_proxy=behind_proxy)
    limits = Limits.for_host(
        arguments.host, arguments.queue, arguments.per_minute, arguments.quota,
        behind_proxy=behind_proxy, refine=arguments.refine, uploads=arguments.uploads,
    )  # fmt: skip
    root_path = checked_root_path(arguments.root_path)
    os.environ.pop("GRADIO_ROOT_PATH", None)  # the route filter handles it; Gradio would add it again
    ServingAddress.checked(arguments.host, arguments.port, os.environ)
    check_served_folder(Path(arguments.outputs))
    mcp = McpAccess() if arguments.mcp else None
    if mcp is not None:
        check_installed()
    # Docker stops containers with SIGTERM; exit cleanly so that temporary folders are deleted.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    prepare()
    if unused := ignored(os.environ):
        print(f"Ignored variables: {', '.join(unused)}; use this program's flags instead.", file=sys.stderr)

    with collection_paused():
        from triplaneturbo.serving.engine import Engine
        from triplaneturbo.serving.refine_request import RefineUploads
        from triplaneturbo.serving.route_filter import filter_options
        from triplaneturbo.serving.served_files import ServedFiles, live_folder
        from triplaneturbo.serving.training_access import TrainingAccess
        from triplaneturbo.serving.user_history import History
        from triplaneturbo.ui.blocks import SERVING, build, theme_options
        from triplaneturbo.utils.kernels import announced

    outputs = Path(arguments.outputs)
    runs = Path(arguments.runs) if arguments.runs else outputs.parent / "runs"
    history = History(outputs, quota=limits.quota, kept=limits.entries)
    model = (arguments.model, arguments.device, arguments.precision, arguments.base, arguments.low_vram)
    # The engine is closed first, so that nothing is written into the folder while it is deleted.
    with (
        temporary_folder_removed(),
        live_folder(history) as folder,
        Engine(*model, queue=limits.queue, runs=runs) as engine,
    ):
        print("\n".join(filter(None, (engine.report(), engine.notice, *misplaced_adapters()))), flush=True)
        training_access = TrainingAccess(admin, folder)
        uploads = RefineUploads(folder, engine.domain.takes_pictures)
        page = build(engine, folder, history, RequestLimiter(limits), training_access, mcp, uploads)
        # Check again: another program may have taken the port while the model was loaded.
        address = ServingAddress.checked(arguments.host, arguments.port)
        listen = {"server_name": address.server_name, "server_port": address.port}
        try:
            served = ServedFiles(history)
            filtering = filter_options(served, limits, training_access, root_path, mcp, uploads)
            with without_proxies():
                serving = SERVING | {"mcp_server": mcp is not None}
                page.launch(**listen, **serving, **theme_options(), **filtering, prevent_thread_lock=True)
        except OSError:
            raise UserError(
                f"Cannot serve at {shown(arguments.host)}, port {address.port}: the port is in use; choose"
                " another --port."
            ) from None
        state = engine.run_state()
        if admin.offered and state is not None and state.resumable:
            print(
                f"The run {state.config.name} is at step {state.iteration} of {state.iterations}; resume it"
                " on the Advanced tab.",
                flush=True,
            )
        print(f"Open {address.url}", *address.notes(), sep="\n", flush=True)
        if mcp is not None:
            mcp.open(page)
            print(f"Agents connect to {address.url}gradio_api/mcp", flush=True)
        # Compile kernels in the background for the first visitor; no-op after `make setup`.
        try:
            with announced(lambda line: print(line, flush=True)):
                threading.Thread(target=engine.warmup, daemon=True).start()
                while True:
                    time.sleep(1)  # on Windows Ctrl+C would not end a wait without a timeout
        finally:
            state = engine.run_state()
            if state is not None and state.active:
                print(f"Saving the run {state.config.name} ...", file=sys.stderr, flush=True)
