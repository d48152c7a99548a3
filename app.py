"""The page: `python app.py`, then open the address that it prints."""

from __future__ import annotations

import os
import threading

from triplaneturbo.__main__ import Parser, guarded, leave
from triplaneturbo.commands import DONE
from triplaneturbo.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Build the engine, launch the page, and serve until interrupted; gives the exit code."""
    parser = Parser(description="Serve the page.")
    parser.add_argument(
        "--model", default="auto", help="auto (the default), small, full, a folder or a hub id"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps; default: the best there is")
    parser.add_argument("--precision", default="auto", help="auto (the default), float32 or bfloat16")
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1: this machine only")
    parser.add_argument("--port", type=int, default=7860, help="default 7860")
    arguments = parser.parse_args(argv)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

    from triplaneturbo.ui.blocks import build

    from triplaneturbo.engine import Engine

    with Engine(arguments.model, arguments.device, arguments.precision) as engine:
        print(engine.report(), engine.notice, sep="\n", flush=True)
        page = build(engine)
        try:
            page.launch(
                server_name=arguments.host, server_port=arguments.port, share=False, prevent_thread_lock=True
            )
        except OSError:
            raise UserError(f"Port {arguments.port} is taken; choose another with --port.") from None
        threading.Event().wait()
    return DONE


if __name__ == "__main__":
    leave(guarded(main, "Stopped."))
