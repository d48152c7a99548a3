"""generate a mesh from a prompt, or one for each line of a file

With --json, one object is printed. For one mesh:

    {"prompt": ..., "seed": ..., "vertices": ..., "faces": ...,
     "seconds": {"text": ..., "denoise": ..., ..., "files": ..., "total": ...},
     "files": [{"path": ..., "unit": ..., "bytes": ..., "sha256": ...}],
     "surface_faces": ..., "dropped_pieces": ..., "memory_was_short": ...,
     "settings": {"steps": ..., "resolution": ..., ...},
     "placement": {"size": ..., "up": ..., "pivot": ..., "unit": ...},
     "model": ..., "device": ..., "precision": ..., "version": ...}

A model of a closed vocabulary, such as the built-in one, adds the words of the prompt that it does not
know or, if it knows them all, why it cannot interpret them:

    {..., "unknown_words": ["dragon", ...], "unclear": "It names ..."}

A look adds "look_unknown_words" and "look_unclear", levels of detail add "lod_faces", a list. A file that was
reduced to --max-bytes has a "note".

With --count or --prompts:

    {"meshes": [such objects], "skipped": N, "without_surface": [{"prompt": ..., "seed": ...}]}

The FILE of --prompts is a .txt with one prompt per line, or a .csv, .json or .jsonl with a column of prompts
and, optionally, the columns "seed" (replaces --seed; --count continues from it) and "name" or "id" (names the
line's files). See docs/batches.md.
"""

from __future__ import annotations

import argparse
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
from triplaneturbo.cli.garbage_collection import collection_paused
from triplaneturbo.cli.manifest import Manifest
from triplaneturbo.cli.settings import Settings, read_settings
from triplaneturbo.cli.sharding import Shard, shard_from_environment
from triplaneturbo.distill.corpora.prompt_list import Line, PromptList
from triplaneturbo.distill.corpora.text_files import STANDARD_INPUT
from triplaneturbo.errors import EmptySurfaceError, UserError
from triplaneturbo.mesh.io.registry import unit_of
from triplaneturbo.mesh.io.texture_formats import TEXTURE_FORMATS
from triplaneturbo.mesh.placement import AS_MODELLED, AUTO, PIVOTS, UNIT_CHOICES, UPS, Placement
from triplaneturbo.models.adapters import adapter_digest
from triplaneturbo.models.catalog import base_or_default, fingerprint
from triplaneturbo.request import DEFAULT_FACES, DEFAULT_FLOATERS, SEED_LIMIT, UNWRAPS, Request, shown
from triplaneturbo.serving.facts import describe
from triplaneturbo.serving.file_options import DEFAULT_FILES, FileOptions
from triplaneturbo.serving.output_files import (
    DEFAULT_FOLDER,
    FORMATS,
    OutputJob,
    formats_of,
    plan,
    write,
    write_levels,
)
from triplaneturbo.serving.preflight import check_process
from triplaneturbo.serving.purposes import PURPOSES

if TYPE_CHECKING:
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.job_queue import Job

MOST_MESHES = 10_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments. Request checks their values, as it does for the page."""
    add = parser.add_argument
    add("prompt", nargs="?", type=utf8, help="description of the object, at most 1000 characters")
    add(
        "-o",
        "--output",
        metavar="PATH",
        help=f"output file ending in {', '.join(FORMATS.values())}, or a folder; default {DEFAULT_FOLDER}/",
    )
    add(
        "--prompts",
        metavar="FILE",
        help="generate a mesh for each line of a .txt, .csv, .json or .jsonl (-: standard input) into the"
        " folder given with -o, with a manifest.jsonl; the columns seed and name are used",
    )
    add(
        "--column",
        metavar="NAME",
        help="column of --prompts that contains the prompts; default: detected automatically",
    )
    add(
        "--like",
        metavar="FILE",
        help="take the prompt, the seed and all settings from a file that this program saved; options given"
        " here replace them",
    )
    add(
        "--for",
        dest="purpose",
        metavar="|".join(PURPOSES),
        help="set the options for a purpose; options given here replace them",
    )
    add("--seed", type=integer, metavar="N", help="random seed, 0 to 2^32 - 1, default 0")
    add("--count", type=integer, default=1, metavar="N", help="number of meshes, with consecutive seeds")
    add("--steps", type=integer, metavar="K", help="denoising steps; default: the adapter's or the model's")
    add(
        "--resolution",
        type=integer,
        metavar="R",
        help="resolution of the surface extraction grid; default: the model's",
    )
    add(
        "--faces",
        type=integer,
        metavar="N",
        help=f"maximum number of faces, default {DEFAULT_FACES}; 0: no simplification",
    )
    add(
        "--texture-size",
        type=integer,
        metavar="N",
        help="texels per side, 512 to 4096, default 1024",
    )
    add(
        "--unwrap",
        metavar="|".join(UNWRAPS),
        help="UV unwrapping method, default fast; none: vertex colours instead of a texture",
    )
    add(
        "--normal-map",
        action=argparse.BooleanOptionalAction,
        help="bake a normal map (the default), or do not",
    )
    add(
        "--floaters",
        type=decimal,
        metavar="F",
        help="remove loose pieces whose area is less than this fraction of the largest piece's;"
        f" default {DEFAULT_FLOATERS}, 0: keep all",
    )
    add(
        "--smoothing",
        type=integer,
        metavar="N",
        help="passes of smoothing without shrinkage, 0 to 50, default 0",
    )
    add(
        "--watertight",
        action=argparse.BooleanOptionalAction,
        help="make a closed solid for 3D printing, with two faces at every edge; default: do not",
    )
    add(
        "--lods",
        type=integer,
        metavar="N",
        help="levels of detail in a GLB, 1 to 4, each with half the faces of the previous one; default 1",
    )
    add("--lod-files", action="store_true", help="also write each level as a GLB of its own, NAME-LOD0.glb")
    add(
        "--variation",
        type=decimal,
        metavar="V",
        help="strength of the variation: 0 (the seed's noise) to 1 (that of --variation-seed); default 0",
    )
    add("--variation-seed", type=integer, metavar="S", help="seed of the variation, default 0")
    add(
        "--variation-path",
        metavar="S:V,...",
        help="earlier variations (seed:strength), applied in order before --variation, e.g. 3:0.2,17:0.1",
    )
    add("--blend", type=utf8, metavar="PROMPT", help="second prompt to blend with")
    add(
        "--blend-weight",
        type=decimal,
        metavar="W",
        help="weight of the second prompt, 0 to 1; default 0.5",
    )
    add(
        "--look",
        type=utf8,
        metavar="PROMPT",
        help="another prompt for colours and materials: 'a red mushroom' --look 'a blue mushroom'",
    )
    add(
        "--keep-shape",
        action=argparse.BooleanOptionalAction,
        help="with --look: exactly the shape of the prompt alone; otherwise the look changes it slightly",
    )
    add(
        "--adapter",
        metavar="NAME",
        help="an adapter in checkpoints/adapters; default: the model's own",
    )
    add("--size", type=decimal, metavar="M", help="length of the longest side in metres; default: about 2")
    add(
        "--unit",
        metavar="|".join(UNIT_CHOICES),
        help="unit of coordinates in the file; default auto: mm for STL and 3MF, as slicers expect, otherwise"
        " m; GLB always uses m",
    )
    add("--up", metavar="|".join(UPS), help="up axis, default y; GLB always uses y, 3MF z")
    add(
        "--pivot",
        metavar="|".join(PIVOTS),
        help="origin of the object; default model: about its centre; ground: below it",
    )
    add(
        "--format",
        metavar="|".join(FORMATS),
        help="one or more file formats, separated by commas; obj is written as a zip",
    )
    add(
        "--texture-format",
        metavar="|".join(TEXTURE_FORMATS),
        help="encoding of textures in GLB and USDZ, default png; webp+png: WebP with PNG for older programs",
    )
    add(
        "--max-bytes",
        type=integer,
        metavar="N",
        help="largest size of a GLB, to which its images are reduced; default: any",
    )
    add(
        "--no-metadata",
        action="store_true",
        help="do not store the prompt, seed, settings and model in the files",
    )
    add_model_flags(parser)
    add(
        "--precision", default="auto", metavar="NAME", help="auto, float32, float16 or bfloat16; default auto"
    )
    add("--low-vram", action="store_true", help="reduce GPU memory at a small cost in time")
    add("--json", action="store_true", help="print one JSON object to standard output")
    add("--quiet", action="store_true", help="do not show progress on standard error")


def integer(text: str) -> int:
    """Parse an integer, for argparse."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid value {shown(text)}: use a whole number") from None


def decimal(text: str) -> float:
    """Parse a number, for argparse."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid value {shown(text)}: use a number") from None


def run(arguments: argparse.Namespace) -> int:
    """Generate the meshes; return 0, or 3 if the model found no surface for some of several."""
    check_process()
    shard = shard_from_environment()
    settings = read_settings(arguments)
    placement = settings.options.placement
    if arguments.prompts == STANDARD_INPUT and shard.size > 1:
        raise UserError("Several processes cannot share standard input; use --prompts FILE.")
    jobs, manifest = _plan_jobs(arguments, settings)
    _print_placement_notes(placement, jobs[0].paths)
    is_batch = manifest is not None or len(jobs) > 1
    jobs = shard.select(jobs, lambda job: job.request.prompt)
    pending = [job for job in jobs if manifest is None or not manifest.has(job)]
    entries: list[dict[str, Any]] = []
    without_surface: list[Request] = []
    advised: set[str] = set()
    if pending:
        from triplaneturbo.utils.kernels import announced_on_stderr

        with _engine(arguments, shard) as engine, announced_on_stderr(arguments.quiet):
            _print_like_notes(engine, settings)
            for number, job in enumerate(pending, 1):
                for text in filter(None, (job.request.prompt, job.request.look)):
                    if text not in advised:
                        _print_advice(engine, text, text == job.request.look or arguments.prompts is not None)
                        advised.add(text)
                try:
                    label = f"{number}/{len(pending)} " if is_batch else ""
                    entry = _generate(
                        engine, job, settings.options, label, arguments.quiet, arguments.lod_files
                    )
                except EmptySurfaceError as error:
                    if not is_batch:
                        raise
                    without_surface.append(job.request)
                    print(f"Seed {job.request.seed}, {shown(job.request.prompt)}: {error}", file=sys.stderr)
                    continue
                if manifest is not None:
                    manifest.add(entry)
                entries.append(entry)
                if not arguments.json:
                    print(_summary_line(entry), flush=True)
    if arguments.json:
        missing = [{"prompt": request.prompt, "seed": request.seed} for request in without_surface]
        summary = {"meshes": entries, "skipped": len(jobs) - len(pending), "without_surface": missing}
        if is_batch or entries:
            print(json.dumps(summary if is_batch else entries[0]))
    elif len(pending) < len(jobs):
        print(f"Skipped {len(jobs) - len(pending)} of {len(jobs)} meshes, which exist already.")
    # With several processes, the launcher would treat the code as a failure and stop the other ones.
    return NO_SURFACE if without_surface and shard.size == 1 else DONE


def _print_placement_notes(placement: Placement, formats: Container[str]) -> None:
    """Warn about options that a format ignores, and about sizes that its users do not expect."""
    if placement.up != "y" and "glb" in formats:
        print("GLB files are always y-up, as glTF requires; --up applies to other formats.", file=sys.stderr)
    if placement.unit not in (AUTO, "m") and "glb" in formats:
        print(
            "GLB files are always in metres, as glTF requires; --unit applies to other formats.",
            file=sys.stderr,
        )
    if placement.size is None and ("stl" in formats or "3mf" in formats):
        print("The object is about 2 m long; set --size to print it.", file=sys.stderr)


def _print_like_notes(engine: Engine, settings: Settings) -> None:
    """Say if the file of --like was made with another model, or if its mesh was refined."""
    if settings.like is None:
        return
    if settings.like.refinement is not None:
        print(settings.like.refinement.note, file=sys.stderr)
    if settings.like.model != engine.name:
        print(
            f"The file was made with the model {shown(settings.like.model)}, this is {shown(engine.name)}:"
            " the mesh will be another one; choose a model with --model.",
            file=sys.stderr,
        )


def _plan_jobs(arguments: argparse.Namespace, settings: Settings) -> tuple[list[OutputJob], Manifest | None]:
    """Check the arguments and plan the output files, before a model is loaded."""
    template = settings.request
    if arguments.prompts is not None and arguments.prompt is None:
        template = replace(template, prompt="")
    if bool(template.prompt or arguments.prompt is not None) == (arguments.prompts is not None):
        raise UserError('Give either a prompt, such as "a red mushroom", or --prompts FILE.')
    file = arguments.prompts
    if file is None and arguments.column is not None:
        raise UserError("--column requires --prompts; add --prompts FILE, or omit --column.")
    if file is None:
        prompts = PromptList((Line(template.prompt),))
    else:
        prompts = batch.read_prompts(file, arguments.column)
    if not 1 <= arguments.count * len(prompts.lines) <= MOST_MESHES:
        raise UserError(f"Invalid --count; use at least 1 and at most {MOST_MESHES} meshes in total.")
    if template.seed + arguments.count - 1 > SEED_LIMIT >= template.seed:
        raise UserError(f"The seeds would exceed {SEED_LIMIT}; use a lower --seed.")
    named = batch.expand_requests(prompts, template, arguments.count, file or "")
    requests, names = [item.request for item in named], [item.name for item in named]
    model = _cache_key(arguments, settings)
    if file is None:
        return plan(requests, model, arguments.output, settings.formats), None
    if not (arguments.output or "").strip():
        raise UserError("--prompts requires an output folder; add, for example, -o meshes.")
    jobs = plan(requests, model, f"{arguments.output}/", settings.formats, names)
    manifest = Manifest(next(iter(jobs[0].paths.values())).parent)
    if not arguments.quiet:
        batch.print_summary(file, prompts, named, jobs)
    return jobs, manifest


def _cache_key(arguments: argparse.Namespace, settings: Settings) -> str:
    """Everything besides the request that determines a file; if it changes, a batch is generated again."""
    placement = settings.options.placement
    weights = fingerprint(arguments.model)
    base = base_or_default(arguments.base)
    if settings.request.adapter:
        weights += adapter_digest(settings.request.adapter)
    same = replace(placement, unit=AUTO) == AS_MODELLED
    place = "" if same else f" {placement.size} {placement.up} {placement.pivot}"
    for name in formats_of(settings.formats or "glb"):
        unit = unit_of(name, placement)
        place += "" if unit == "m" else f" {name} in {unit}"
    written = replace(settings.options, placement=AS_MODELLED)
    place += "" if written == DEFAULT_FILES else f" {written}"
    place += " with files of each level" if arguments.lod_files else ""
    return f"{__version__} {arguments.model} {weights} {base} {arguments.device} {arguments.precision}{place}"


def _engine(arguments: argparse.Namespace, shard: Shard) -> Engine:
    with collection_paused():
        from triplaneturbo.serving.engine import Engine

        device = shard.device(arguments.device)
        engine = Engine(arguments.model, device, arguments.precision, arguments.base, arguments.low_vram)
    if not arguments.quiet:
        print(engine.report(), file=sys.stderr)
    if engine.notice:
        print(engine.notice, file=sys.stderr)
    return engine


def _print_advice(engine: Engine, prompt: str, with_prompt: bool) -> None:
    """Print which words of a prompt the model does not know, or why it may not follow them."""
    from triplaneturbo.domains.vocabulary import advice

    vocabulary = engine.domain.vocabulary
    if vocabulary is None:
        return
    more = f"It knows {vocabulary.summary()}: python -m triplaneturbo words"
    sentence = advice(vocabulary.read(prompt), more)
    if sentence:
        print(f"{shown(prompt)}: {sentence}" if with_prompt else sentence, file=sys.stderr)


def _generate(
    engine: Engine, output: OutputJob, options: FileOptions, label: str, quiet: bool, lod_files: bool = False
) -> dict[str, Any]:
    """Generate a mesh, write its files and return its manifest entry."""
    job = engine.submit(output.request)
    if not quiet and sys.stderr.isatty():
        _show_progress(job, label)
    result = job.result()
    if result.low_memory:
        print(
            "Memory was insufficient: the texture was reduced to"
            f" {result.request.texture_size} x {result.request.texture_size}.",
            file=sys.stderr,
        )
    if result.unsimplified:
        print(
            "The simplified mesh could not be made watertight: the mesh was not simplified.", file=sys.stderr
        )
    if result.truncated_text:
        print(
            f"The prompt is too long for the model, which ignores its end: {shown(result.truncated_text)}.",
            file=sys.stderr,
        )
    if 1 + len(result.mesh.lods) < result.request.lods:
        print(
            f"The mesh has too few faces for {result.request.lods} levels of detail: it has"
            f" {1 + len(result.mesh.lods)}.",
            file=sys.stderr,
        )
    entry = describe(result, engine)
    started = time.perf_counter()
    entry["files"] = write(engine, result, output.paths, options)
    if lod_files:
        first = next(iter(output.paths.values()))
        entry["files"] += write_levels(engine, result, first, options)
    for file in entry["files"]:
        if "note" in file:
            print(file["note"], file=sys.stderr)
    entry["placement"] = asdict(options.placement)
    if output.key:
        entry["key"] = output.key
    taken = round(time.perf_counter() - started, 4)
    total = entry["seconds"].pop("total")
    entry["seconds"] |= {"files": taken, "total": round(total + taken, 4)}
    return entry


def _summary_line(entry: dict[str, Any]) -> str:
    paths = " ".join(_printable(file["path"]) for file in entry["files"])
    return f"{paths}  {entry['vertices']} vertices, {entry['faces']} faces, {entry['seconds']['total']:.1f} s"


def _printable(path: str) -> str:
    """Return a path in one line, with unprintable characters escaped."""
    coding = sys.stdout.encoding or "utf-8"
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in path)
    return plain.encode(coding, "backslashreplace").decode(coding)


def _show_progress(job: Job, label: str) -> None:
    """Show a progress bar on the terminal until the job ends."""
    from tqdm import tqdm

    layout = "{desc:18}|{bar}| {percentage:3.0f} % {elapsed}"
    # Some terminals report zero columns and lines, with which tqdm shows nothing.
    columns, lines = shutil.get_terminal_size()
    with tqdm(total=1.0, bar_format=layout, ncols=columns, nrows=lines, leave=False) as bar:
        for event in job.events():
            step = f" {event.step}/{event.steps}" if event.stage == "denoise" else ""
            bar.set_description_str(f"{label}{event.stage}{step}", refresh=False)
            bar.n = event.fraction
            bar.refresh()
