"""Serve the page until it is interrupted: the same as python app.py."""

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
from triplaneturbo.cli.standard_streams import tolerate_lost_output
from triplaneturbo.errors import UserError
from triplaneturbo.models.adapters import misplaced_adapters
from triplaneturbo.request import shown
from triplaneturbo.serving.address import DEFAULT_HOST, ServingAddress, default_port, port_number
from triplaneturbo.serving.gradio_environment import ignored, temporary_folder_removed, without_proxies
from triplaneturbo.serving.preflight import check_process, check_served_folder
from triplaneturbo.serving.zero_gpu import prepare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument(
        "--model", default="auto", help="auto (the default), small, full, a folder or a hub id"
    )
    parser.add_argument(
        "--base", help="a folder of Stable Diffusion 2.1-base for the full model; default: the hub's"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps; default: the best there is")
    parser.add_argument(
        "--precision", default="auto", help="auto (the default), float32, float16 or bfloat16"
    )
    parser.add_argument("--low-vram", action="store_true", help="spare the GPU's memory, at a little time")
    # Where Gradio is told where to serve, as on a Space, that holds.
    parser.add_argument(
        "--host",
        default=os.environ.get("GRADIO_SERVER_NAME") or DEFAULT_HOST,
        help="default 127.0.0.1: this machine only; 0.0.0.0 or ::, all of its IPv4 or IPv6 addresses",
    )
    parser.add_argument(
        "--port",
        type=port_number,
        default=default_port(os.environ),
        help="default 7860; 0: any free one, which is printed",
    )
    parser.add_argument(
        "--behind-proxy",
        action="store_true",
        help="a reverse proxy passes others' requests on to this server: hold everybody to the limits of a"
        " shared server (docs/serving.md)",
    )
    parser.add_argument(
        "--root-path",
        default=os.environ.get("GRADIO_ROOT_PATH", ""),
        metavar="PATH",
        help="where a reverse proxy serves the page, such as /app or https://example.com/app",
    )
    parser.add_argument(
        "--outputs",
        default="outputs/history",
        metavar="FOLDER",
        help="keeps results; default outputs/history",
    )
    parser.add_argument(
        "--runs", metavar="FOLDER", help="keeps fine-tuning runs; default: runs beside the results"
    )
    parser.add_argument(
        "--admin",
        action="store_true",
        help="let everybody who reaches the page fine-tune and manage adapters",
    )
    parser.add_argument(
        "--admin-password",
        metavar="PASSWORD",
        help="let those who know it; better given as TRIPLANETURBO_ADMIN_PASSWORD, as others see commands",
    )
    parser.add_argument("--queue", type=int, metavar="N", help="the most requests that may wait")
    parser.add_argument("--per-minute", type=int, metavar="N", help="the most requests a minute and session")
    parser.add_argument(
        "--quota", type=gigabytes, metavar="GB", help="the most that all results take on disk; default 20"
    )


def gigabytes(text: str) -> int:
    """Bytes, for argparse. ValueError if it is no finite number."""
    size = float(text) * 1e9
    if not math.isfinite(size):
        raise ValueError
    return int(size)


def _terminate(*_: object) -> NoReturn:
    raise Terminated(DONE)


def run(arguments: argparse.Namespace) -> int:
    """Build the engine, launch the page, and wait for the interrupt.

    Raises:
        UserError: the model is not to be had, the address is taken, or results cannot be kept.
    """
    from triplaneturbo.serving.admin import Admin
    from triplaneturbo.serving.limits import Guard, Limits
    from triplaneturbo.serving.public_url import checked_root_path

    tolerate_lost_output()
    check_process()
    password = arguments.admin_password or os.environ.get("TRIPLANETURBO_ADMIN_PASSWORD")
    shared = arguments.behind_proxy
    admin = Admin(arguments.host, arguments.admin, password, behind_proxy=shared)
    limits = Limits.for_host(
        arguments.host, arguments.queue, arguments.per_minute, arguments.quota, behind_proxy=shared
    )
    root_path = checked_root_path(arguments.root_path)
    os.environ.pop("GRADIO_ROOT_PATH", None)  # the gate makes the addresses, and Gradio would add it again
    ServingAddress.checked(arguments.host, arguments.port, os.environ)
    check_served_folder(Path(arguments.outputs))
    # As Docker stops it: not at once, so that the folder for results goes.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    prepare()
    if unused := ignored(os.environ):
        print(f"Ignored: {', '.join(unused)}; the flags of this program apply.", file=sys.stderr)

    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.route_filter import filter_options
    from triplaneturbo.serving.served_files import ServedFiles, live_folder
    from triplaneturbo.serving.training_access import TrainingAccess
    from triplaneturbo.serving.user_history import History
    from triplaneturbo.ui.blocks import SERVING, build, look
    from triplaneturbo.utils.kernels import announced

    outputs = Path(arguments.outputs)
    runs = Path(arguments.runs) if arguments.runs else outputs.parent / "runs"
    history = History(outputs, quota=limits.quota, kept=limits.entries)
    model = (arguments.model, arguments.device, arguments.precision, arguments.base, arguments.low_vram)
    # The engine ends first: nothing is to be written into the folder while it is deleted.
    with (
        temporary_folder_removed(),
        live_folder(history) as folder,
        Engine(*model, queue=limits.queue, runs=runs) as engine,
    ):
        print("\n".join(filter(None, (engine.report(), engine.notice, *misplaced_adapters()))), flush=True)
        admission = TrainingAccess(admin, folder)
        page = build(engine, folder, history, Guard(limits), admission)
        # Once more: what was free before the model was loaded may be taken by now.
        address = ServingAddress.checked(arguments.host, arguments.port)
        listen = {"server_name": address.server_name, "server_port": address.port}
        try:
            gate = filter_options(ServedFiles(history), limits, admission, root_path)
            with without_proxies():
                page.launch(**listen, **SERVING, **look(), **gate, prevent_thread_lock=True)
        except OSError:
            raise UserError(
                f"Cannot serve at {shown(arguments.host)}, port {address.port}: it was taken just now; choose"
                " another --port."
            ) from None
        state = engine.run_state()
        if admin.offered and state is not None and state.resumable:
            at = f"{state.iteration} of {state.iterations}"
            print(
                f"The run {state.order.name} stands at {at}: go on with it on the Advanced tab.", flush=True
            )
        print(f"Open {address.url}", *address.notes(), sep="\n", flush=True)
        # Where `make setup` has done it before, this takes no time; elsewhere the first visitor waits less.
        try:
            with announced(lambda line: print(line, flush=True)):
                threading.Thread(target=engine.warmup, daemon=True).start()
                while True:
                    time.sleep(1)  # on Windows Ctrl+C would not end a wait without a timeout
        finally:
            state = engine.run_state()
            if state is not None and state.active:
                print(f"Saving the run {state.order.name} ...", file=sys.stderr, flush=True)
