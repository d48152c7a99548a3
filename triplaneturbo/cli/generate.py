"""make a mesh from a prompt, or one from each line of a file

With --json one object is printed. For one mesh:

    {"prompt": ..., "seed": ..., "vertices": ..., "faces": ...,
     "seconds": {"text": ..., "denoise": ..., ..., "files": ..., "total": ...},
     "files": [{"path": ..., "unit": ..., "bytes": ..., "sha256": ...}],
     "surface_faces": ..., "dropped_pieces": ..., "memory_was_short": ...,
     "settings": {"steps": ..., "resolution": ..., ...},
     "placement": {"size": ..., "up": ..., "pivot": ..., "unit": ...},
     "model": ..., "device": ..., "precision": ..., "version": ...}

where a model of the world, such as the built-in one, adds which words of the prompt it does not know and,
where it knows them all, why they have no meaning in its world:

    {..., "unknown_words": ["dragon", ...], "unclear": "It names ..."}

and with --count or --prompts

    {"meshes": [such objects], "skipped": N, "without_surface": [{"prompt": ..., "seed": ...}]}

A FILE of --prompts is a .txt with a prompt a line, or a .csv, .json or .jsonl with a column of prompts and,
where wanted, columns "seed" (in the place of --seed; --count goes on from it) and "name" or "id" (what the
line's files are called). docs/batches.md has all of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Container
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from triplaneturbo import __version__
from triplaneturbo.cli import DONE, NO_SURFACE, batch
from triplaneturbo.cli.flags import add_model_flags, utf8
from triplaneturbo.cli.manifest import Manifest
from triplaneturbo.cli.sharding import Shard, shard_from_environment
from triplaneturbo.distill.corpora.prompt_list import Line, PromptList
from triplaneturbo.distill.corpora.text_files import STANDARD_INPUT
from triplaneturbo.errors import EmptySurfaceError, UserError
from triplaneturbo.mesh.placement import AS_MODELLED, AUTO, PIVOTS, UNIT_CHOICES, UPS, Placement
from triplaneturbo.models.adapters import adapter
from triplaneturbo.models.catalog import base_or_default, fingerprint
from triplaneturbo.request import DEFAULT_FACES, DEFAULT_FLOATERS, SEED_LIMIT, UNWRAPS, Request, shown
from triplaneturbo.serving.facts import describe
from triplaneturbo.serving.output_files import DEFAULT_FOLDER, FORMATS, OutputJob, formats_of, plan, write
from triplaneturbo.serving.preflight import check_process

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.job_queue import Job

MOST_MESHES = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments. What they may hold is checked by Request, as it is for the page."""
    add = parser.add_argument
    add("prompt", nargs="?", type=utf8, help="what to make, in at most 1000 characters")
    add(
        "-o",
        "--output",
        metavar="PATH",
        help=f"a file ending in {', '.join(FORMATS.values())}, or a folder; default {DEFAULT_FOLDER}/",
    )
    add(
        "--prompts",
        metavar="FILE",
        help="a mesh for each line of a .txt, .csv, .json or .jsonl (-: standard input) into the folder -o,"
        " with a manifest.jsonl; columns seed and name are used",
    )
    add("--column", metavar="NAME", help="of --prompts, which holds the prompts; default: the likeliest")
    add("--seed", type=whole, default=0, metavar="N", help="0 (the default) to 2^32 - 1")
    add("--count", type=whole, default=1, metavar="N", help="so many meshes, with seeds N, N + 1, ...")
    add("--steps", type=whole, metavar="K", help="denoising steps; default: the model's own")
    add("--resolution", type=whole, metavar="R", help="of the surface's grid; default: the model's own")
    add(
        "--faces",
        type=whole,
        default=DEFAULT_FACES,
        metavar="N",
        help=f"at most so many faces, default {DEFAULT_FACES}; 0: as the surface comes",
    )
    add("--texture-size", type=whole, default=1024, metavar="N", help="512 to 4096, default 1024")
    add(
        "--unwrap",
        default="fast",
        metavar="|".join(UNWRAPS),
        help="default fast; none: colours at the vertices",
    )
    add("--no-normal-map", action="store_true", help="bake no normal map")
    add(
        "--floaters",
        type=decimal,
        default=DEFAULT_FLOATERS,
        metavar="F",
        help="drop loose pieces under this share of the largest one's area;"
        f" default {DEFAULT_FLOATERS}, 0: keep all",
    )
    add(
        "--smoothing", type=whole, default=0, metavar="N", help="passes without shrinking, 0 to 50, default 0"
    )
    add("--watertight", action="store_true", help="a solid for printing: two faces at every edge")
    add(
        "--variation",
        type=decimal,
        default=0.0,
        metavar="V",
        help="how far from the seed toward --variation-seed, 0 to 1; default 0",
    )
    add("--variation-seed", type=whole, default=0, metavar="S", help="default 0")
    add(
        "--variation-path",
        default="",
        metavar="S:V,...",
        help="variations before that one, each of what the one before gives: 3:0.2,17:0.1",
    )
    add("--blend", type=utf8, default="", metavar="PROMPT", help="another prompt to mix the prompt with")
    add("--blend-weight", type=decimal, default=0.5, metavar="W", help="its share, 0 to 1; default 0.5")
    add("--adapter", default="", metavar="NAME", help="of checkpoints/adapters; default: the model's own")
    add("--size", type=decimal, metavar="M", help="metres along the longest side; default: about 2")
    add(
        "--unit",
        default=AUTO,
        metavar="|".join(UNIT_CHOICES),
        help="of the numbers in the file; default auto: mm in an STL, as slicers read it, else m; a GLB has m"
        " always",
    )
    add("--up", default="y", metavar="|".join(UPS), help="axis, default y; a GLB has y up always")
    add(
        "--pivot",
        default="model",
        metavar="|".join(PIVOTS),
        help="where the origin is; default model, about the middle; ground: under the object",
    )
    add("--format", metavar="|".join(FORMATS), help="one or more, with commas between; obj comes as a zip")
    add_model_flags(parser)
    add(
        "--precision", default="auto", metavar="NAME", help="auto, float32, float16 or bfloat16; default auto"
    )
    add("--low-vram", action="store_true", help="spare the GPU's memory, at a little time")
    add("--json", action="store_true", help="print one JSON object on standard output")
    add("--quiet", action="store_true", help="no progress on standard error")


def whole(text: str) -> int:
    """A whole number, for argparse."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"it should be a whole number, not {shown(text)}") from None


def decimal(text: str) -> float:
    """A number, for argparse."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"it should be a number, not {shown(text)}") from None


def run(arguments: argparse.Namespace) -> int:
    """Make the meshes; 0, or 3 if the model found no surface for some of several."""
    check_process()
    own = shard_from_environment()
    placement = Placement(arguments.size, arguments.up, arguments.pivot, arguments.unit).checked()
    if arguments.prompts == STANDARD_INPUT and own.size > 1:
        raise UserError("Several processes cannot share standard input; give --prompts a file.")
    jobs, manifest = _jobs(arguments, placement)
    _tell_placement(placement, jobs[0].paths)
    several = manifest is not None or len(jobs) > 1
    jobs = own.of(jobs, lambda job: job.request.prompt)
    todo = [job for job in jobs if manifest is None or not manifest.has(job)]
    made: list[dict[str, Any]] = []
    without: list[Request] = []
    told: set[str] = set()
    if todo:
        from triplaneturbo.utils.kernels import announced_on_stderr

        with _engine(arguments, own) as engine, announced_on_stderr(arguments.quiet):
            for number, job in enumerate(todo, 1):
                if job.request.prompt not in told:
                    _tell(engine, job.request.prompt, arguments.prompts is not None)
                    told.add(job.request.prompt)
                try:
                    label = f"{number}/{len(todo)} " if several else ""
                    entry = _make(engine, job, placement, label, arguments.quiet)
                except EmptySurfaceError as error:
                    if not several:
                        raise
                    without.append(job.request)
                    print(f"Seed {job.request.seed}, {shown(job.request.prompt)}: {error}", file=sys.stderr)
                    continue
                if manifest is not None:
                    manifest.add(entry)
                made.append(entry)
                if not arguments.json:
                    print(_line(entry), flush=True)
    if arguments.json:
        missing = [{"prompt": request.prompt, "seed": request.seed} for request in without]
        summary = {"meshes": made, "skipped": len(jobs) - len(todo), "without_surface": missing}
        if several or made:
            print(json.dumps(summary if several else made[0]))
    elif len(todo) < len(jobs):
        print(f"{len(jobs) - len(todo)} of {len(jobs)} were done before.")
    # Of a batch that is shared, the launcher would take it for a failure and stop the other processes.
    return NO_SURFACE if without and own.size == 1 else DONE


def _tell_placement(placement: Placement, formats: Container[str]) -> None:
    """Say what a file will not be as asked for, or not as a reader of its format expects."""
    if placement.up != "y" and "glb" in formats:
        print("A GLB has y up always, as glTF demands; --up is for the other formats.", file=sys.stderr)
    if placement.unit not in (AUTO, "m") and "glb" in formats:
        print("A GLB is in metres always, as glTF demands; --unit is for the other formats.", file=sys.stderr)
    if placement.size is None and "stl" in formats:
        print(
            "An STL for a printer needs a --size: the object is about 2 m long without one.", file=sys.stderr
        )


def _jobs(arguments: argparse.Namespace, placement: Placement) -> tuple[list[OutputJob], Manifest | None]:
    """Everything that can be said before a model is loaded."""
    if (arguments.prompt is None) == (arguments.prompts is None):
        raise UserError('Give either a prompt, such as "a red mushroom", or --prompts FILE.')
    first = Request(
        "",
        seed=arguments.seed,
        steps=arguments.steps,
        resolution=arguments.resolution,
        faces=arguments.faces if arguments.faces != 0 else None,
        texture_size=arguments.texture_size,
        unwrap=arguments.unwrap,
        normal_map=not arguments.no_normal_map,
        floaters=arguments.floaters,
        smoothing=arguments.smoothing,
        watertight=arguments.watertight,
        variation=arguments.variation,
        variation_seed=arguments.variation_seed,
        blend=arguments.blend,
        blend_weight=arguments.blend_weight,
        adapter=arguments.adapter,
        variation_path=arguments.variation_path,
    )
    file = arguments.prompts
    if file is None and arguments.column is not None:
        raise UserError("--column names a column of --prompts; give it a file, or leave it out.")
    listed = PromptList((Line(arguments.prompt),)) if file is None else batch.read(file, arguments.column)
    if not 1 <= arguments.count * len(listed.lines) <= MOST_MESHES:
        raise UserError(f"The count should be at least 1 and make at most {MOST_MESHES} meshes in all.")
    if arguments.seed + arguments.count - 1 > SEED_LIMIT >= arguments.seed:
        raise UserError(f"The seeds would go beyond {SEED_LIMIT}; start from a lower one.")
    wanted = batch.requests(listed, first, arguments.count, file or "")
    requests, names = [one.request for one in wanted], [one.name for one in wanted]
    model = _identity(arguments, placement)
    if file is None:
        return plan(requests, model, arguments.output, arguments.format), None
    if not (arguments.output or "").strip():
        raise UserError("Give the folder for the meshes of --prompts, such as -o meshes.")
    jobs = plan(requests, model, f"{arguments.output}/", arguments.format, names)
    manifest = Manifest(next(iter(jobs[0].paths.values())).parent)
    if not arguments.quiet:
        batch.tell(file, listed, wanted, jobs)
    return jobs, manifest


def _identity(arguments: argparse.Namespace, placement: Placement) -> str:
    """What else than the request decides on a file: a batch that is run again with another makes it anew."""
    weights = fingerprint(arguments.model)
    base = base_or_default(arguments.base)
    if arguments.adapter:
        weights += hashlib.sha256(adapter(arguments.adapter).read_bytes()).hexdigest()
    same = replace(placement, unit=AUTO) == AS_MODELLED
    place = "" if same else f" {placement.size} {placement.up} {placement.pivot}"
    for name in formats_of(arguments.format or "glb"):
        unit = placement.unit_in(name)
        place += "" if unit == "m" else f" {name} in {unit}"
    return f"{__version__} {arguments.model} {weights} {base} {arguments.device} {arguments.precision}{place}"


def _engine(arguments: argparse.Namespace, own: Shard) -> Engine:
    from triplaneturbo.serving.engine import Engine

    device = own.device(arguments.device)
    engine = Engine(arguments.model, device, arguments.precision, arguments.base, arguments.low_vram)
    if not arguments.quiet:
        print(engine.report(), file=sys.stderr)
    if engine.notice:
        print(engine.notice, file=sys.stderr)
    return engine


def _tell(engine: Engine, prompt: str, name_it: bool) -> None:
    """Say which words of a prompt the model does not know, or why it may not follow them."""
    from triplaneturbo.toyworld.captions.advice import advice, summary

    reading = engine.read(prompt)
    more = f"It knows {summary()}: python -m triplaneturbo words"
    sentence = advice(reading, more) if reading is not None else ""
    if sentence:
        print(f"{shown(prompt)}: {sentence}" if name_it else sentence, file=sys.stderr)


def _make(engine: Engine, job: OutputJob, placement: Placement, label: str, quiet: bool) -> dict[str, Any]:
    ticket = engine.submit(job.request)
    if not quiet and sys.stderr.isatty():
        _show(ticket, label)
    result = ticket.result()
    if result.frugal:
        print(
            f"Memory was short: the texture has {result.request.texture_size} texels a side.", file=sys.stderr
        )
    if result.unsimplified:
        print("Fewer faces could not be made watertight: the surface has all of its faces.", file=sys.stderr)
    if result.truncated_text:
        print(
            f"The model does not read the end of this prompt: {shown(result.truncated_text)}.",
            file=sys.stderr,
        )
    entry = describe(result, engine)
    since = time.perf_counter()
    entry["files"] = write(engine, result.mesh, job.paths, placement)
    entry["placement"] = asdict(placement)
    if job.key:
        entry["key"] = job.key
    taken = round(time.perf_counter() - since, 4)
    total = entry["seconds"].pop("total")
    entry["seconds"] |= {"files": taken, "total": round(total + taken, 4)}
    return entry


def _line(entry: dict[str, Any]) -> str:
    paths = " ".join(_printable(file["path"]) for file in entry["files"])
    return f"{paths}  {entry['vertices']} vertices, {entry['faces']} faces, {entry['seconds']['total']:.1f} s"


def _printable(path: str) -> str:
    """A path in one line: what is no text, or is not in the terminal's encoding, is escaped."""
    coding = sys.stdout.encoding or "utf-8"
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in path)
    return plain.encode(coding, "backslashreplace").decode(coding)


def _show(ticket: Job, label: str) -> None:
    """A progress bar on the terminal until the ticket's request ends."""
    from tqdm import tqdm

    layout = "{desc:18}|{bar}| {percentage:3.0f} % {elapsed}"
    # Some terminals say that they have no columns and no lines, and tqdm would then show nothing.
    columns, lines = shutil.get_terminal_size()
    with tqdm(total=1.0, bar_format=layout, ncols=columns, nrows=lines, leave=False) as bar:
        for event in ticket.events():
            step = f" {event.step}/{event.steps}" if event.stage == "denoise" else ""
            bar.set_description_str(f"{label}{event.stage}{step}", refresh=False)
            bar.n = event.fraction
            bar.refresh()
