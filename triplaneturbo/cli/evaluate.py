"""measure meshes by CLIP as the PRD and PTD papers do

The folder of --to receives table.md, scores.json and contact sheets. Run the same command again to
resume after an interruption; only what is missing is computed. Run it with another model, adapter or
--meshes FOLDER and the same --to to place another method in the same table. Several processes share the
work if accelerate launch or torchrun starts them, or if the command runs on several machines with RANK
and WORLD_SIZE set.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triplaneturbo.cli import DONE
from triplaneturbo.cli.flags import add_model_flags
from triplaneturbo.cli.garbage_collection import collection_paused
from triplaneturbo.cli.generate import integer
from triplaneturbo.cli.prompt_files import read_prompt_list
from triplaneturbo.cli.sharding import shard_from_environment
from triplaneturbo.distill.corpora.prompt_list import how_many
from triplaneturbo.errors import UserError
from triplaneturbo.models.catalog import DATA, base_or_default, find_model
from triplaneturbo.request import SEED_LIMIT, shown
from triplaneturbo.serving.preflight import check_process

if TYPE_CHECKING:
    from triplaneturbo.evaluate.methods import Method

PROTOCOLS = ("prd", "ptd")
DREAMFUSION = DATA / "prompts" / "dreamfusion_415_prompt_library.json"
MOST_OBJECTS = 10_000
_MOST_SHOWN = 5
_OBJECTS_PER_LINE = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("--protocol", required=True, choices=PROTOCOLS, help="views, CLIP models and scores of which paper")
    add("--to", required=True, metavar="FOLDER", help="folder of the results")
    add(
        "--prompts",
        metavar="FILE",
        help="all prompts, as .txt, .csv, .json or .jsonl; R@1 ranks among them; default: the 415 prompts of"
        f" DreamFusion in {DREAMFUSION}",
    )
    add("--column", metavar="NAME", help="column of a table or key of a list that contains the prompts")
    add("--limit", type=integer, metavar="N", help="score the first N prompts only; R@1 ranks among all")
    add("--adapter", default="", metavar="NAME", help="an adapter in checkpoints/adapters")
    add("--steps", type=integer, metavar="K", help="denoising steps; default: the adapter's or the model's")
    add("--seeds", metavar="A,B", help="seeds of the meshes of each prompt; default 0")
    add(
        "--meshes",
        metavar="FOLDER",
        help="score these .glb, .obj and .ply files, named after their prompts, instead of generating",
    )
    add(
        "--clip",
        action="append",
        metavar="CLIP",
        help="toyworld, a folder, or NAME/TAG of open_clip; may be repeated; default: the protocol's",
    )
    add("--sheet", type=integer, default=12, metavar="N", help="objects on the contact sheet, default 12")
    add_model_flags(parser)
    add(
        "--precision", default="auto", metavar="NAME", help="auto, float32, float16 or bfloat16; default auto"
    )
    add("--quiet", action="store_true", help="do not show progress on standard error")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate a model or a folder of meshes; print the table once all objects are finished."""
    check_process()
    shard = shard_from_environment()
    seeds = _seeds(arguments)
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"Invalid --limit {arguments.limit}; use at least 1.")
    if arguments.sheet < 0:
        raise UserError(f"Invalid --sheet {arguments.sheet}; use 0 or more.")
    gallery = _read_prompts(arguments)
    prompts = gallery[: arguments.limit]
    if len(prompts) * len(seeds) > MOST_OBJECTS:
        raise UserError(
            f"{len(prompts) * len(seeds):,} objects (prompts times seeds) are more than {MOST_OBJECTS:,};"
            " use --limit."
        )

    with collection_paused():
        from triplaneturbo.evaluate.evaluation import evaluate
        from triplaneturbo.evaluate.folder import Evaluation
        from triplaneturbo.evaluate.judges import find_judge
        from triplaneturbo.evaluate.protocols import PROTOCOLS as protocols
        from triplaneturbo.utils.devices import choose_device
        from triplaneturbo.utils.kernels import announced_on_stderr

    protocol = protocols[arguments.protocol]
    device = shard.device(arguments.device)
    judge_device = choose_device(device).device
    evaluation = Evaluation(Path(arguments.to).expanduser(), protocol, gallery)
    evaluation.check()
    if arguments.meshes is not None:
        method: Method = _mesh_folder(arguments, prompts, gallery)
    else:
        method = _generated(arguments, evaluation.meshes, prompts, seeds, device)
    judges = [find_judge(name) for name in dict.fromkeys(arguments.clip or protocol.clips)]
    evaluation.claim()
    progress = _Progress(arguments.quiet)
    with announced_on_stderr(arguments.quiet):
        table = evaluate(
            evaluation, method, judges, judge_device, arguments.sheet, progress, shard.rank, shard.size
        )
    progress.close()
    if table is None:
        print(
            "This process has finished its objects; the process that finishes last writes the table.",
            file=sys.stderr,
        )
    else:
        print(table, end="")
    return DONE


def _seeds(arguments: argparse.Namespace) -> list[int]:
    """Parse --seeds; check that no option of generation is given for the meshes of another program."""
    if arguments.meshes is not None:
        for name in ("adapter", "steps", "seeds"):
            if getattr(arguments, name) not in ("", None):
                raise UserError(f"--{name} applies to generated meshes; omit it, or omit --meshes.")
    text = arguments.seeds if arguments.seeds is not None else "0"
    try:
        seeds = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise UserError(f"Invalid --seeds {shown(text)}; use whole numbers, such as 0,1,2.") from None
    if not all(0 <= seed <= SEED_LIMIT for seed in seeds):
        raise UserError(f"Invalid --seeds {shown(text)}; use 0 to {SEED_LIMIT}.")
    return seeds


def _read_prompts(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Read the gallery, and print what was left out of its file."""
    file, column = arguments.prompts, arguments.column
    if file is None:
        if not DREAMFUSION.is_file():
            raise UserError(
                "The 415 prompts of DreamFusion are not included, as their list states no licence;"
                f" save a prompt library in threestudio's format as {DREAMFUSION}, or use --prompts FILE."
            )
        file, column = str(DREAMFUSION), column or "test"
    return read_prompt_list(file, column, arguments.quiet)


def _mesh_folder(arguments: argparse.Namespace, prompts: Sequence[str], gallery: Sequence[str]) -> Method:
    """Match a folder of meshes with the prompts, and print what does not match."""
    from triplaneturbo.evaluate.methods import MeshFolder

    folder = MeshFolder(Path(arguments.meshes).expanduser(), prompts, gallery)
    if not folder.items:
        raise UserError(
            f"{shown(arguments.meshes)} has no mesh of the {how_many(len(prompts))} to score; raise --limit."
        )
    if not arguments.quiet and folder.unmatched:
        names = ", ".join(path.name for path in folder.unmatched[:_MOST_SHOWN])
        more = ", ..." if len(folder.unmatched) > _MOST_SHOWN else ""
        print(
            f"Ignored {len(folder.unmatched):,} meshes that are not named after a prompt: {names}{more}",
            file=sys.stderr,
        )
    if not arguments.quiet and folder.missing:
        print(f"There is no mesh of {how_many(len(folder.missing))}; not scored.", file=sys.stderr)
    return folder


def _generated(
    arguments: argparse.Namespace,
    folder: Path,
    prompts: Sequence[str],
    seeds: Sequence[int],
    device: str | None,
) -> Method:
    """Return the model's meshes; "auto" is resolved, so that the table names the model."""
    from triplaneturbo.evaluate.generated_meshes import GeneratedMeshes, GenerationSettings
    from triplaneturbo.evaluate.methods import Item
    from triplaneturbo.utils.devices import choose_device

    model = arguments.model
    if model == "auto":
        found = find_model(
            model, choose_device(device).device.type == "cuda", base_or_default(arguments.base)
        )
        model = found.name
        if found.notice:
            print(found.notice, file=sys.stderr)
    settings = GenerationSettings(
        model, arguments.base, arguments.adapter, arguments.steps, arguments.device, arguments.precision
    )
    items = [Item(prompt, index, seed) for index, prompt in enumerate(prompts) for seed in seeds]
    return GeneratedMeshes(settings, items, folder, device)


class _Progress:
    """A progress bar per phase on standard error; if that is no terminal, a line now and then."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._phase = ""
        self._bar: Any = None

    def __call__(self, phase: str, done: int, total: int) -> None:
        if self._quiet:
            return
        if not sys.stderr.isatty():
            if done % _OBJECTS_PER_LINE == 0 or done == total:
                print(f"{phase}: {done:,} of {total:,}", file=sys.stderr, flush=True)
            return
        from tqdm import tqdm

        if phase != self._phase:
            self.close()
            self._phase, self._bar = phase, tqdm(total=total, desc=phase, unit="object")
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """End the bar of the last phase."""
        if self._bar is not None:
            self._bar.close()
