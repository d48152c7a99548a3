"""repeat the PRD paper's ablations: train every row of its Tables 2 to 6 from nothing, and score it

The folder of --to receives table.md and tables.json, which have the paper's figures beside the measured
ones. Run the same command again to resume after an interruption; finished runs are kept. Several processes
with the same --to share the runs. The full model trains on --prompts or --corpus; accelerate launch trains
each run on several GPUs.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triplaneturbo.cli import BAD_INPUT, DONE
from triplaneturbo.cli.evaluate import DREAMFUSION
from triplaneturbo.cli.flags import add_model_flags
from triplaneturbo.cli.generate import decimal, integer
from triplaneturbo.cli.prompt_files import read_prompt_list
from triplaneturbo.domains.registry import find_domain
from triplaneturbo.errors import UserError
from triplaneturbo.evaluate.ablation_runs import EQUAL, FULL_BUDGET, TOYWORLD_BUDGET, make_runs
from triplaneturbo.evaluate.ablation_tables import TABLES, AblationTable, variants_of
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.models.catalog import base_or_default, find_model
from triplaneturbo.request import SEED_LIMIT, shown
from triplaneturbo.serving.preflight import check_process

if TYPE_CHECKING:
    from triplaneturbo.evaluate.ablation_folder import AblationFolder
    from triplaneturbo.evaluate.ablation_runs import AblationRun, Budget
    from triplaneturbo.evaluate.ablation_scores import Scorer
    from triplaneturbo.models.catalog import ModelFiles
    from triplaneturbo.models.config import GeneratorConfig
    from triplaneturbo.utils.distributed import DistributedContext

ALL = "all"
MOST_CLASSES = 12
_FULL_ONLY = ("prompts", "corpus", "column", "test_prompts", "clip", "memory")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add("--table", required=True, metavar="|".join((*map(str, TABLES), ALL)), help="tables of the paper")
    add("--to", required=True, metavar="FOLDER", help="folder of the runs and the tables")
    add(
        "--equal",
        default=EQUAL[0],
        choices=EQUAL,
        help="what all runs have in common; with passes (of the U-Net), K = 1 gets four times the iterations"
        " of K = 4; default iterations",
    )
    for flag, type_, metavar, what in (
        ("iterations", integer, "N", "iterations of the proposed run"),
        ("batch", integer, "N", "prompts per iteration and process"),
        ("rate", decimal, "R", "peak learning rate"),
        ("scored", integer, "N", "number of the K steps whose output the teachers score, 0: all"),
    ):
        field = {"rate": "learning_rate", "scored": "scored_steps"}.get(flag, flag)
        small, full = getattr(TOYWORLD_BUDGET, field), getattr(FULL_BUDGET, field)
        default = f"default {small:g}, {full:g} for the full model"
        add(f"--{flag}", type=type_, metavar=metavar, help=f"{what}; {default}")
    add("--seeds", metavar="A,B", help="seeds of each run; default 0,1, and 0 for the full model")
    add(
        "--classes",
        type=integer,
        metavar="N",
        help=f"train on the first N classes of the toy world's subset; default {MOST_CLASSES}",
    )
    add("--limit", type=integer, metavar="N", help="score the first N prompts only")
    add("--prompts", metavar="FILE", help="training prompts of the full model")
    add("--corpus", metavar="FILE", help="stream the full model's training prompts from a file of any length")
    add("--column", metavar="NAME", help="column of --prompts or --corpus that contains the prompts")
    add(
        "--test-prompts",
        metavar="FILE",
        help=f"prompts that the full model is scored on; default: the 415 of DreamFusion in {DREAMFUSION}",
    )
    add("--clip", metavar="CLIP", help="CLIP that scores the full model; default: that of evaluate")
    add("--memory", type=decimal, metavar="GB", help="device memory to use for the full model")
    add("--dry-run", action="store_true", help="print what each run takes, and stop")
    add_model_flags(parser)
    add("--quiet", action="store_true", help="do not show progress on standard error")


def run(arguments: argparse.Namespace) -> int:
    """Print what the runs take, do those that are not finished, and print the tables."""
    check_process()
    tables = _tables(arguments.table)
    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"Invalid --limit {arguments.limit}; use at least 1.")
    if arguments.classes is not None and not 1 <= arguments.classes <= MOST_CLASSES:
        raise UserError(f"Invalid --classes {arguments.classes}; use 1 to {MOST_CLASSES}.")
    _seeds(arguments.seeds or "0")

    from triplaneturbo.models.config import GeneratorConfig
    from triplaneturbo.models.convert import convert_if_needed
    from triplaneturbo.utils.devices import choose_device
    from triplaneturbo.utils.distributed import CollectiveError, is_launched, launched

    device = choose_device(arguments.device).device
    found = find_model(arguments.model, device.type == "cuda", base_or_default(arguments.base))
    with launched(os.environ, device.type if is_launched(os.environ) else str(device)) as context:
        if context.is_main_process:
            convert_if_needed(found)
        context.wait()
        try:
            return _ablate(arguments, tables, found, GeneratorConfig.load(found.folder), context)
        except CollectiveError:
            if context.is_main_process:
                raise
            return BAD_INPUT


def _ablate(
    arguments: argparse.Namespace,
    tables: list[AblationTable],
    found: ModelFiles,
    config: GeneratorConfig,
    context: DistributedContext,
) -> int:
    from triplaneturbo.evaluate.ablate import ablate
    from triplaneturbo.evaluate.ablation_plan import plan
    from triplaneturbo.utils.kernels import announced_on_stderr

    if find_domain(config.domain).has_ground_truth:
        shared, folder, scorer = _toyworld(arguments, found, context)
    else:
        shared, folder, scorer = _full(arguments, found, config, context)
    seeds = _seeds(arguments.seeds or ("0,1" if find_domain(config.domain).has_ground_truth else "0"))
    runs = make_runs(variants_of(tables), seeds, folder.budget, shared, config.domain)
    is_quiet = arguments.quiet or not context.is_main_process
    if context.is_main_process:
        for line in plan(runs, found, config, context.device):
            if arguments.dry_run or not is_quiet:
                print(line, file=sys.stdout if arguments.dry_run else sys.stderr, flush=True)
    if arguments.dry_run:
        return DONE
    if context.is_main_process:
        folder.claim()
    context.wait()
    with announced_on_stderr(is_quiet):
        text = ablate(folder, tables, runs, found, scorer, context, _Progress(is_quiet, len(runs)))
    print(text, end="")
    return DONE


def _toyworld(
    arguments: argparse.Namespace, found: ModelFiles, context: DistributedContext
) -> tuple[FinetuneConfig, AblationFolder, Scorer]:
    """Return the prompts of the toy world's subset, the folder, and the scorer."""
    from triplaneturbo.evaluate.ablation_folder import AblationFolder
    from triplaneturbo.evaluate.ablation_toyworld import ToyworldScorer
    from triplaneturbo.toyworld.scoring.ablation_specs import ablation_specs

    for name in _FULL_ONLY:
        if getattr(arguments, name) is not None:
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} applies to the full model; omit it, or use --model full.")
    trained, scored = ablation_specs(arguments.classes or MOST_CLASSES)
    scored = scored[: arguments.limit]
    prompts = tuple(spec.caption for spec in trained)
    folder = AblationFolder(
        Path(arguments.to).expanduser(),
        found.name,
        _budget(arguments, TOYWORLD_BUDGET),
        prompts,
        {"prompts": [spec.caption for spec in scored]},
    )
    scorer = ToyworldScorer(folder, found, scored, context.device)
    return FinetuneConfig("ablation", prompts), folder, scorer


def _full(
    arguments: argparse.Namespace, found: ModelFiles, config: GeneratorConfig, context: DistributedContext
) -> tuple[FinetuneConfig, AblationFolder, Scorer]:
    """Return the user's prompts, the folder, and the scorer."""
    from triplaneturbo.evaluate.ablation_clip import ClipScorer
    from triplaneturbo.evaluate.ablation_folder import AblationFolder
    from triplaneturbo.evaluate.folder import Evaluation
    from triplaneturbo.evaluate.generated_meshes import GenerationSettings
    from triplaneturbo.evaluate.judges import find_judge
    from triplaneturbo.evaluate.protocols import PRD

    if arguments.classes is not None:
        raise UserError("--classes applies to the toy world; omit it, or use --model small.")
    if (arguments.prompts is None) == (arguments.corpus is None):
        raise UserError("The full model trains on --prompts FILE or --corpus FILE; give one of them.")
    prompts: tuple[str, ...] = ()
    if arguments.prompts is not None:
        prompts = read_prompt_list(arguments.prompts, arguments.column, arguments.quiet)
    test_file = arguments.test_prompts or str(DREAMFUSION)
    if arguments.test_prompts is None and not DREAMFUSION.is_file():
        raise UserError(
            "The 415 prompts of DreamFusion are not included, as their list states no licence; save a prompt"
            f" library in threestudio's format as {DREAMFUSION}, or use --test-prompts FILE."
        )
    gallery = read_prompt_list(test_file, "test" if arguments.test_prompts is None else None, arguments.quiet)
    corpus, column = arguments.corpus or "", (arguments.column or "") if arguments.corpus else ""
    shared = FinetuneConfig("ablation", prompts, corpus=corpus, column=column, memory=arguments.memory or 0.0)
    judge = find_judge(arguments.clip or PRD.clips[0])
    scored: dict[str, Any] = {"gallery": gallery, "limit": arguments.limit, "clip": judge.key}
    to = Path(arguments.to).expanduser()
    corpus_id = (os.path.abspath(corpus), column) if corpus else ()
    folder = AblationFolder(to, found.name, _budget(arguments, FULL_BUDGET), (*prompts, *corpus_id), scored)
    evaluation = Evaluation(to / "evaluation", PRD, gallery)
    device = str(context.device)
    model = found.name if arguments.model == "auto" else arguments.model
    settings = GenerationSettings(model, arguments.base, device=arguments.device)
    scorer = ClipScorer(
        folder, evaluation, judge, settings, gallery[: arguments.limit], device, lambda *_: None
    )
    return shared, folder, scorer


def _tables(text: str) -> list[AblationTable]:
    if text == ALL:
        return list(TABLES.values())
    if text not in map(str, TABLES):
        raise UserError(f"There is no table {shown(text)}; use {', '.join(map(str, TABLES))} or {ALL}.")
    return [TABLES[int(text)]]


def _seeds(text: str) -> list[int]:
    try:
        seeds = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise UserError(f"Invalid --seeds {shown(text)}; use whole numbers, such as 0,1,2.") from None
    if not all(0 <= seed <= SEED_LIMIT for seed in seeds):
        raise UserError(f"Invalid --seeds {shown(text)}; use 0 to {SEED_LIMIT}.")
    return seeds


def _budget(arguments: argparse.Namespace, default: Budget) -> Budget:
    given = {
        "iterations": arguments.iterations,
        "batch": arguments.batch,
        "learning_rate": arguments.rate,
        "scored_steps": arguments.scored,
    }
    return replace(default, equal=arguments.equal, **{k: v for k, v in given.items() if v is not None})


class _Progress:
    """Prints a line on standard error for each kind of work of a run, and each tenth of its training."""

    def __init__(self, is_quiet: bool, count: int) -> None:
        self._is_quiet, self._count = is_quiet, count
        self._runs: dict[str, None] = {}
        self._last = ("", "", 0)

    def __call__(self, run: AblationRun, doing: str, done: int, total: int) -> None:
        self._runs.setdefault(run.name)
        now = (run.name, doing, 10 * done // total)
        if self._is_quiet or now == self._last:
            return
        self._last = now
        print(
            f"{run.name} ({len(self._runs)} of {self._count}): {doing}, {done:,} of {total:,} iterations",
            file=sys.stderr,
            flush=True,
        )
