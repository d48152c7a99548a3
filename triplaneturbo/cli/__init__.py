"""The commands of `python -m triplaneturbo`, one a file: a docstring, add_arguments and run."""

DONE, PROBLEMS_FOUND, BAD_INPUT, NO_SURFACE, INTERRUPTED = 0, 1, 2, 3, 130
OUTPUT_LOST = 1  # standard output could not be written


class Terminated(SystemExit):
    """A server is to end, as Docker ends one (SIGTERM)."""
