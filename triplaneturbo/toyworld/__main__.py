"""Command line of the toy world: `python -m triplaneturbo.toyworld COMMAND`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from triplaneturbo.__main__ import enter
from triplaneturbo.errors import UserError
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.utils.atomic_files import write_atomically


def _class_sheet(options: argparse.Namespace) -> None:
    from triplaneturbo.mesh.io.common import encode_image
    from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
    from triplaneturbo.toyworld.scoring.class_sheet import make_class_sheet

    unknown = [name for name in options.things if name not in OBJECT_CLASSES]
    if unknown:
        raise UserError(f"Unknown class {unknown[0]!r}: choose from {', '.join(OBJECT_CLASSES)}.")
    things = [OBJECT_CLASSES[name] for name in options.things or OBJECT_CLASSES]
    print(write_atomically(options.to, encode_image(make_class_sheet(things, options.size), "png")))


def _learning_rate(text: str) -> float:
    """Parse a learning rate in (0, 1]."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"invalid learning rate {text}: must be above 0 and at most 1")
    return value


def _all_keys() -> list:
    """Return the keys of all solids of the toy world."""
    from triplaneturbo.toyworld.captions.combinations import all_specs

    return list(dict.fromkeys((spec.thing, spec.support) for spec in all_specs()))


def _draw_views(options: argparse.Namespace) -> None:
    from triplaneturbo.toyworld.scene.view_cache import make_view_cache

    make_view_cache(
        options.folder / "pool", _all_keys(), lambda line: print(line, flush=True), options.processes
    )


def _pretrain(options: argparse.Namespace) -> None:
    from triplaneturbo.toyworld.training.pretrain import pretrain
    from triplaneturbo.utils.distributed import run

    _draw_views(options)
    arguments = (options.folder, _all_keys(), options.vae_steps, options.unet_steps, options.batch)
    run(pretrain, arguments, options.processes, options.device)


def _train(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from triplaneturbo.models.adapter import ADAPTER_NAME
    from triplaneturbo.toyworld.captions.combinations import seen
    from triplaneturbo.toyworld.training.start import copy_base
    from triplaneturbo.toyworld.training.train import FINISHING, SMALL, read_captions, train
    from triplaneturbo.utils.distributed import run

    specs = read_captions(options.captions) if options.captions else list(seen())
    settings = replace(
        FINISHING if options.start else SMALL,
        iterations=options.iterations,
        batch=options.prompts,
        variants=options.variants,
    )
    start = None
    if options.start:
        fingerprint = copy_base(options.start, options.folder)
        settings = replace(settings, start=fingerprint)
        start = options.start / ADAPTER_NAME
        _draw_views(options)
    else:
        _pretrain(options)
    if options.rate:
        settings = replace(settings, learning_rate=options.rate)
    until = time.monotonic() + 60 * options.minutes
    run(
        train, (options.folder, _all_keys(), specs, settings, until, start), options.processes, options.device
    )


def _clip(options: argparse.Namespace) -> None:
    from triplaneturbo.toyworld.training.clip import train_clip
    from triplaneturbo.utils.distributed import run

    _draw_views(options)
    arguments = (options.folder, _all_keys(), options.steps, options.batch)
    run(train_clip, arguments, options.processes, options.device)


def _export(options: argparse.Namespace) -> None:
    from triplaneturbo.toyworld.training.export import export

    size = export(options.folder, options.to)
    print(f"{options.to}: {size / 2**20:.1f} MB")


def _score(options: argparse.Namespace) -> None:
    import torch

    from triplaneturbo.evaluate.clip import Clip
    from triplaneturbo.models.weights import load_model
    from triplaneturbo.toyworld.scoring.generated import make_generate
    from triplaneturbo.toyworld.scoring.score import prompts, score
    from triplaneturbo.toyworld.scoring.score_report import ScoreSheet, table
    from triplaneturbo.toyworld.training.clip import Judge

    torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))  # one core computes the ground truth in parallel
    model = load_model(options.model, device=options.device)
    places = [options.clip] if options.clip else [options.model / "clip", options.folder / "clip"]
    place = next((place for place in places if (place / "clip.json").exists()), options.clip)
    judge = Judge(Clip.load(place)) if place else None
    if judge is None:
        print(f"No judge in {places[0]} or {places[1]}: R@1 and R@5 are skipped.", file=sys.stderr)
    sheet = ScoreSheet()
    scores = score(make_generate(model), prompts(options.prompts), judge=judge, on_result=sheet)
    if options.sheet:
        write_atomically(options.sheet, sheet.png())
    text = json.dumps(scores, indent=1) + "\n"
    if options.json not in (None, "-"):
        write_atomically(options.json, text.encode())
    print(text if options.json == "-" else table(scores), end="")


def _closeups(options: argparse.Namespace) -> None:
    from triplaneturbo.mesh.io.common import encode_image
    from triplaneturbo.models.weights import load_model
    from triplaneturbo.toyworld.scoring.closeups import make_closeups
    from triplaneturbo.toyworld.scoring.generated import make_generate

    kinds = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
    kind = kinds.get(options.to.suffix.lower())
    if kind is None:
        raise UserError(f"Cannot write {options.to}: name a .png, .jpg or .webp file.")
    model = load_model(options.model, device=options.device)
    sheet = make_closeups(make_generate(model))
    print(write_atomically(options.to, encode_image(sheet, kind)))


def _add_run(sub: argparse.ArgumentParser) -> None:
    """Add the arguments that all long commands share."""
    sub.add_argument(
        "--folder", type=Path, default=Path("runs/small"), help="run folder; an interrupted run is resumed"
    )
    sub.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="number of processes")
    sub.add_argument("--device", choices=("cpu", "cuda"), default="cpu")


def _add_pretrain(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of pretraining."""
    sub.add_argument("--vae-steps", type=int, default=1300, help="training steps of the VAE")
    sub.add_argument("--unet-steps", type=int, default=3000, help="training steps of the U-Net")
    sub.add_argument("--batch", type=int, default=32, help="images per step and process")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m triplaneturbo.toyworld", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("look", help="render a contact sheet of object classes")
    sub.add_argument("things", nargs="*", metavar="CLASS", help="names of classes (default: all)")
    sub.add_argument("--to", type=Path, default=Path("world.png"), help="PNG file to write")
    sub.add_argument("--size", type=int, default=96, help="pixels per side of each image")
    sub.set_defaults(run=_class_sheet)
    sub = commands.add_parser("pool", help="render every solid from every camera into the view cache")
    _add_run(sub)
    sub.set_defaults(run=_draw_views)
    sub = commands.add_parser(
        "pretrain", help="pretrain the small Stable Diffusion on images of the toy world"
    )
    _add_run(sub)
    _add_pretrain(sub)
    sub.set_defaults(run=_pretrain)
    sub = commands.add_parser("train", help="train the built-in model")
    _add_run(sub)
    _add_pretrain(sub)
    sub.add_argument("--iterations", type=int, default=8000, help="training iterations")
    sub.add_argument("--prompts", type=int, default=4, help="prompts per iteration and process")
    sub.add_argument(
        "--rate",
        type=_learning_rate,
        help="peak learning rate (default: 0.002, or 0.001 with --from, where more degrades it at first)",
    )
    sub.add_argument(
        "--from", dest="start", type=Path, metavar="MODEL", help="start from a finished model's folder"
    )
    sub.add_argument(
        "--variants",
        type=int,
        choices=(1, 2),
        help="number of variants of each object, of which the seed chooses one (default: that of the model"
        " given with --from, or 1)",
    )
    sub.add_argument(
        "--captions",
        type=Path,
        help="file with one caption per line (default: all captions that are not held out)",
    )
    sub.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help="stop after this time; the same command resumes the run",
    )
    sub.set_defaults(run=_train)
    sub = commands.add_parser("clip", help="train the CLIP judge of `score`")
    _add_run(sub)
    sub.add_argument("--steps", type=int, default=3000, help="training steps")
    sub.add_argument("--batch", type=int, default=96, help="objects per step and process")
    sub.set_defaults(run=_clip)
    sub = commands.add_parser("export", help="export the trained model in float16")
    sub.add_argument("--folder", type=Path, default=Path("runs/small"), help="run folder")
    sub.add_argument("--to", type=Path, default=Path("checkpoints/small"), help="folder to write")
    sub.set_defaults(run=_export)
    sub = commands.add_parser(
        "score", help="score a model on fixed prompts against the ground truth and a sphere"
    )
    sub.add_argument("--model", type=Path, default=SMALL, help="folder of the model")
    sub.add_argument(
        "--clip", type=Path, help="folder of the judge (default: `clip` in the model's or the run's folder)"
    )
    sub.add_argument("--folder", type=Path, default=Path("runs/small"), help="run folder")
    sub.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    sub.add_argument(
        "--prompts", type=int, default=128, metavar="N", help="number of prompts; half are held out"
    )
    sub.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write all scores as JSON; print them without FILE",
    )
    sub.add_argument("--sheet", type=Path, metavar="PNG", help="write 64 results beside the ground truth")
    sub.set_defaults(run=_score)
    sub = commands.add_parser("closeups", help="picture faces, windows and patterns beside the ground truth")
    sub.add_argument("--model", type=Path, default=SMALL, help="folder of the model")
    sub.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    sub.add_argument(
        "--to", type=Path, required=True, metavar="FILE", help="picture to write, such as a.webp"
    )
    sub.set_defaults(run=_closeups)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    enter(main)
