"""The page: `python app.py`, then open the address that it prints."""

from __future__ import annotations

from triplaneturbo.__main__ import Parser, enter, limit_openmp_spinning, run_reporting_errors
from triplaneturbo.cli import serve


def options() -> Parser:
    """The flags."""
    parser = Parser(prog="python app.py", description="Serve the page until it is interrupted.")
    serve.add_arguments(parser)
    return parser


def main() -> int:
    """Serve the page and return the exit code."""
    chosen = options().parse_args()
    limit_openmp_spinning()
    return run_reporting_errors(lambda: serve.run(chosen), "Stopped.")


if __name__ == "__main__":
    enter(main)
