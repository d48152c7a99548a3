"""list the vocabulary of the model by category, with example prompts

With --json, one object is printed: {"things": [...], "colours": [...], ..., "examples": [...]}.
"""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap

from triplaneturbo.cli import DONE
from triplaneturbo.domains.registry import find_domain
from triplaneturbo.errors import UserError
from triplaneturbo.models.catalog import find_model
from triplaneturbo.models.config import GeneratorConfig

MOST_COLUMNS = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--model", default="small", metavar="NAME", help="small (default), full, a folder or a hub id"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print the vocabulary of a model and example prompts.

    Raises:
        UserError: the model is not found, or takes any words.
    """
    found = find_model(arguments.model, on_gpu=False)
    vocabulary = find_domain(GeneratorConfig.load(found.folder).domain).vocabulary
    if vocabulary is None:
        raise UserError(f"The model {found.name} has no list of words: it takes any prompt.")
    if arguments.json:
        print(json.dumps({**vocabulary.words, "examples": list(vocabulary.examples)}))
        return DONE
    # Some terminals report zero columns.
    columns = min(shutil.get_terminal_size().columns or MOST_COLUMNS, MOST_COLUMNS)
    for kind, words in vocabulary.words.items():
        print(f"{vocabulary.headings[kind]} ({len(words)})")
        # Do not break phrases such as "ice cream".
        lines = textwrap.wrap(", ".join(word.replace(" ", "\xa0") for word in words), max(columns - 2, 20))
        print("\n".join(f"  {line}" for line in lines).replace("\xa0", " "))
    print("Examples", *(f"  {example}" for example in vocabulary.examples), sep="\n")
    return DONE
