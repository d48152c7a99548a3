"""Gradio app: run `python app.py` and open the address that it prints."""

from __future__ import annotations

from triplaneturbo.__main__ import Parser, enter, limit_openmp_spinning, run_reporting_errors
from triplaneturbo.cli import serve


def options() -> Parser:
    """Return the parser of the flags."""
    parser = Parser(prog="python app.py", description="Start the web page and serve it until Ctrl-C.")
    serve.add_arguments(parser)
    return parser


def main() -> int:
    """Serve the page and return the exit code."""
    arguments = options().parse_args()
    limit_openmp_spinning()
    return run_reporting_errors(lambda: serve.run(arguments), "Stopped.")


if __name__ == "__main__":
    enter(main)
