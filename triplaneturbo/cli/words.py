"""list the vocabulary of the built-in model by category, with example prompts

With --json, one object is printed: {"things": [...], "colours": [...], ..., "examples": [...]}.
"""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap

from triplaneturbo.cli import DONE

MOST_COLUMNS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print the vocabulary of the toy world and example prompts."""
    from triplaneturbo.toyworld.captions.advice import EXAMPLES, KINDS
    from triplaneturbo.toyworld.captions.captions import vocabulary

    known = vocabulary()
    if arguments.json:
        print(json.dumps({**known, "examples": list(EXAMPLES)}))
        return DONE
    # Some terminals report zero columns.
    columns = min(shutil.get_terminal_size().columns or MOST_COLUMNS, MOST_COLUMNS)
    for kind, words in known.items():
        print(f"{KINDS[kind]} ({len(words)})")
        # Do not break phrases such as "ice cream".
        lines = textwrap.wrap(", ".join(word.replace(" ", "\xa0") for word in words), max(columns - 2, 20))
        print("\n".join(f"  {line}" for line in lines).replace("\xa0", " "))
    print("Examples", *(f"  {example}" for example in EXAMPLES), sep="\n")
    return DONE
