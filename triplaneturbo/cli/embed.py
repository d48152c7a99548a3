"""compute the text embeddings of a list of prompts once, for finetune --embeddings

They take 158 KB a prompt at full size: 66 MB for 415 prompts, 270 GB for 1.7 million. What was stopped or
killed is gone on with by the same command.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from triplaneturbo.cli import DONE
from triplaneturbo.cli.flags import add_model_flags
from triplaneturbo.cli.generate import whole
from triplaneturbo.errors import UserError
from triplaneturbo.models.catalog import base_or_default
from triplaneturbo.serving.preflight import check_process

MOST_BATCH = 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add(
        "--prompts",
        required=True,
        metavar="FILE",
        help=".txt, .csv, .json, .jsonl or .parquet, of any length",
    )
    add("--to", required=True, metavar="FOLDER", help="where the embeddings go")
    add("--column", metavar="NAME", help="of a table, or the key of a list")
    add_model_flags(parser)
    add("--batch", type=whole, default=32, metavar="N", help="prompts at a time, default 32")


def run(arguments: argparse.Namespace) -> int:
    """Clean the prompts, then embed what is not embedded yet."""
    check_process()

    from triplaneturbo.distill.corpora.corpus import Corpus, make_corpus

    if not 1 <= arguments.batch <= MOST_BATCH:
        raise UserError(f"The batch should be 1 to {MOST_BATCH}, not {arguments.batch}.")
    source, folder = Path(arguments.prompts), Path(arguments.to)
    for count in make_corpus(source, folder, arguments.column):
        print(f"{count:,} read", file=sys.stderr)
    corpus = Corpus(folder)
    print(corpus.summary, file=sys.stderr)

    from tqdm import tqdm

    from triplaneturbo.distill.corpora.embeddings import encoder_mark, make_embeddings
    from triplaneturbo.models.catalog import find_model
    from triplaneturbo.models.weights import load_text
    from triplaneturbo.utils.devices import choose_device

    device = choose_device(arguments.device).device
    found = find_model(arguments.model, device.type == "cuda", base_or_default(arguments.base))
    base = found.base or found.folder
    text = load_text(base)
    text.model.to(device)
    made = make_embeddings(corpus, text.embed, encoder_mark(base), folder, arguments.batch)
    with tqdm(total=len(corpus), unit="prompt", disable=not sys.stderr.isatty()) as bar:
        for done in made:
            bar.update(done - bar.n)
    print(f"{len(corpus):,} prompts are embedded: give finetune --embeddings {folder}")
    return DONE
