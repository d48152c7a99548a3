"""precompute the text embeddings of a list of prompts, for finetune --embeddings

The full model needs 158 KB per prompt: 66 MB for 415 prompts, 270 GB for 1.7 million. Run the same command
again to resume after an interruption.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from triplaneturbo.cli import DONE
from triplaneturbo.cli.flags import add_model_flags
from triplaneturbo.cli.garbage_collection import collection_paused
from triplaneturbo.cli.generate import integer
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
        help="prompts as .txt, .csv, .json, .jsonl or .parquet, of any length",
    )
    add("--to", required=True, metavar="FOLDER", help="folder for the embeddings")
    add("--column", metavar="NAME", help="column of a table or key of JSON objects that contains the prompts")
    add_model_flags(parser)
    add("--batch", type=integer, default=32, metavar="N", help="prompts per batch, default 32")


def run(arguments: argparse.Namespace) -> int:
    """Clean the prompts, then compute the missing embeddings."""
    check_process()

    from triplaneturbo.distill.corpora.corpus import Corpus, make_corpus

    if not 1 <= arguments.batch <= MOST_BATCH:
        raise UserError(f"Invalid --batch {arguments.batch}; use 1 to {MOST_BATCH}.")
    source, folder = Path(arguments.prompts), Path(arguments.to)
    for count in make_corpus(source, folder, arguments.column):
        print(f"{count:,} read", file=sys.stderr)
    corpus = Corpus(folder)
    print(corpus.summary, file=sys.stderr)

    with collection_paused():
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
    print(f"Embedded {len(corpus):,} prompts; use them with finetune --embeddings {folder}")
    return DONE
