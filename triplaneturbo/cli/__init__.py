"""Commands of `python -m triplaneturbo`, one per module.

Each module has a docstring, whose first line is the command's help, and the functions add_arguments and run.
"""

DONE, PROBLEMS_FOUND, BAD_INPUT, NO_SURFACE, INTERRUPTED = 0, 1, 2, 3, 130
OUTPUT_LOST = 1  # standard output could not be written


class Terminated(SystemExit):
    """Raised on SIGTERM, with which Docker stops a server."""
