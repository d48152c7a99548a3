"""refine a generated or a given mesh, also toward a picture, by score distillation (PTD)

    triplaneturbo refine "a red mushroom" -o mushroom.glb
    triplaneturbo refine "a red mushroom" --as gaussians -o mushroom.glb mushroom.splats.ply
    triplaneturbo refine "a blue chair" --mesh chair.glb --keep-shape -o blue.glb
    triplaneturbo refine --image mushroom.png -o mushroom.glb

Ctrl-C writes the result so far; --resume continues from there, also after a crash, with the same options.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from triplaneturbo.cli import DONE, INTERRUPTED
from triplaneturbo.cli.flags import add_model_flags, utf8
from triplaneturbo.cli.garbage_collection import collection_paused
from triplaneturbo.cli.generate import integer
from triplaneturbo.cli.interrupts import deferred_interrupt
from triplaneturbo.errors import UserError
from triplaneturbo.refine.options import OUT_OF_MEMORY, PATHS, SAVINGS, RefineOptions
from triplaneturbo.representations.registry import REPRESENTATIONS
from triplaneturbo.request import DEFAULT_FACES, UNWRAPS, Request, shown
from triplaneturbo.serving.output_files import plan
from triplaneturbo.serving.preflight import check_process
from triplaneturbo.teachers.registry import TEACHERS
from triplaneturbo.teachers.settings import KINDS

if TYPE_CHECKING:
    from triplaneturbo.distill.ptd import Refiner
    from triplaneturbo.pipeline import Pipeline
    from triplaneturbo.refine.given_image import GivenImage
    from triplaneturbo.refine.given_mesh import GivenMesh
    from triplaneturbo.refine.memory_plan import DoesNotFitError

TEXTURE = "texture"
SPLATS = ".splats.ply"
"""Suffix of 3D Gaussians; .ply is a mesh, as everywhere."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add = parser.add_argument
    add(
        "prompt",
        nargs="?",
        type=utf8,
        help="description of the object, or of what the mesh is to look like, at most 1000 characters",
    )
    add("--prompt", dest="named_prompt", type=utf8, metavar="TEXT", help="the prompt, as an option")
    add(
        "--mesh",
        metavar="FILE",
        help="refine this mesh (.glb, .obj, .ply, .stl or .off) instead of a generated one",
    )
    add(
        "--image",
        metavar="FILE",
        help="picture (.png, .jpg, .webp) that the object is to look like, with a transparent or plain"
        " background; without a prompt, the built-in model finds the nearest caption",
    )
    add(
        "--image-to-mesh",
        default="",
        metavar="COMMAND",
        help='program that makes a mesh of the picture to start from: "PROGRAM {image} {mesh}"; required for'
        " --image with the full model",
    )
    add(
        "--keep-shape",
        action="store_true",
        help="make a new texture only; geometry and UVs stay as they are (the same as --as texture)",
    )
    add(
        "-o",
        "--output",
        nargs="+",
        required=True,
        metavar="PATH",
        help=f"output files: meshes as in generate, and NAME{SPLATS} with the Gaussians of --as gaussians",
    )
    add(
        "--as",
        dest="representation",
        metavar="|".join(REPRESENTATIONS),
        help="representation that is optimized: "
        + ", ".join(f"{spec.name} ({spec.label})" for spec in REPRESENTATIONS.values())
        + "; default field, with --mesh or --image-to-mesh gaussians",
    )
    add("--steps", type=integer, metavar="N", help="steps; default 60, or 500 for the full model")
    add(
        "--teachers",
        metavar="A,B",
        help=f"teachers, of {', '.join(TEACHERS)}; default: rgb,geometry for the small model, otherwise sd",
    )
    add(
        "--path",
        default="",
        metavar="|".join(PATHS),
        help="how the teacher's network begins near the asset: a LoRA that is faded out (the default), its"
        " checkpoints, or none",
    )
    add(
        "--score",
        default="",
        metavar="|".join(KINDS),
        help="kind of score; default: ism, or sds for teachers in closed form",
    )
    add(
        "--adapter",
        default="",
        metavar="NAME",
        help="adapter that generates the draft; default: the model's own",
    )
    add(
        "--pictures",
        metavar="FOLDER",
        help="write a picture of the asset into this folder while it is refined",
    )
    add("--every", type=integer, default=10, metavar="N", help="steps between pictures, default 10")
    add("--seed", type=integer, default=0, metavar="N", help="random seed, 0 to 2^32 - 1, default 0")
    add("--resume", action="store_true", help="continue an interrupted refinement of the same output")
    add("--resolution", type=integer, metavar="R", help="resolution of the surface extraction grid")
    add(
        "--faces",
        type=integer,
        default=DEFAULT_FACES,
        metavar="N",
        help=f"maximum number of faces, default {DEFAULT_FACES}; 0: no simplification",
    )
    add("--texture-size", type=integer, default=1024, metavar="N", help="texels per side, default 1024")
    add("--unwrap", default="fast", metavar="|".join(UNWRAPS), help="UV unwrapping method, default fast")
    add(
        "--no-metadata",
        action="store_true",
        help="do not store the prompt, seed, settings and model in the files",
    )
    add_model_flags(parser)
    add(
        "--precision", default="auto", metavar="NAME", help="auto, float32, float16 or bfloat16; default auto"
    )
    add("--quiet", action="store_true", help="do not show progress on standard error")


def run(arguments: argparse.Namespace) -> int:
    """Refine one asset and write its files; return 0, or 130 if it was interrupted."""
    check_process()
    prompt = _prompt(arguments)
    _check_start(arguments)
    options = RefineOptions(
        _representation(arguments), arguments.steps,
        tuple(name.strip() for name in (arguments.teachers or "").split(",") if name.strip()),
        arguments.path, arguments.score, arguments.seed,
    ).checked()  # fmt: skip
    request = Request(
        prompt or "a picture", seed=arguments.seed, steps=_denoising_steps(arguments.adapter),
        resolution=arguments.resolution, faces=arguments.faces or None, texture_size=arguments.texture_size,
        unwrap=arguments.unwrap, adapter=arguments.adapter,
    ).checked()  # fmt: skip
    meshes, splats = _plan_outputs(arguments.output, request, options)
    folder = _state_folder((meshes + splats)[0])
    unfinished = (folder / "checkpoints").exists()
    if unfinished and not arguments.resume:
        raise UserError(
            f"{shown(str(folder))} has an unfinished refinement; add --resume to continue it, or delete it."
        )
    if arguments.resume and not unfinished:
        raise UserError(f"There is nothing to resume in {shown(str(folder))}; omit --resume.")

    given = image = None
    if arguments.mesh is not None:
        from triplaneturbo.refine.given_mesh import read_given_mesh

        given = read_given_mesh(arguments.mesh)
    if arguments.image is not None:
        from triplaneturbo.refine.given_image import read_given_image

        image = read_given_image(arguments.image)

    model = _forecast(arguments, options, request, given, folder)

    from triplaneturbo.pipeline import Pipeline
    from triplaneturbo.refine.metadata import metadata_of
    from triplaneturbo.utils.devices import explained_out_of_memory
    from triplaneturbo.utils.kernels import announced_on_stderr

    with warnings.catch_warnings(record=True) as notices:
        pipeline = Pipeline.from_pretrained(
            model, device=arguments.device, precision=arguments.precision, base=arguments.base
        )
    for notice in notices:
        print(notice.message, file=sys.stderr)
    with explained_out_of_memory(OUT_OF_MEMORY), announced_on_stderr(arguments.quiet):
        if image is not None:
            prompt, given = _resolve(
                pipeline, prompt, image, given, arguments.image_to_mesh, folder, arguments.quiet
            )
            request = replace(request, prompt=prompt)
        if arguments.adapter:
            _use_adapter(pipeline, arguments.adapter)
        request = pipeline.settle(request)
        refiner = _start(pipeline, request, options, folder, given, image, arguments.quiet)
        pictures = None if arguments.pictures is None else Path(arguments.pictures).expanduser()
        interrupted = _optimize(refiner, pictures, arguments.every, arguments.quiet)
        refiner.save()
        metadata = metadata_of(refiner, request, pipeline.name, options, given, image)
        mesh = refiner.representation.export(request).replace(metadata=metadata)
    for path in meshes:
        mesh.save(path, metadata=not arguments.no_metadata)
    for path in splats:
        _save_splats(refiner, path)
    for path in meshes + splats:
        print(path)
    if interrupted:
        print(
            f"Stopped after step {refiner.steps} of {refiner.settings.steps}; the result so far is written."
            " Add --resume to continue.",
            file=sys.stderr,
        )
        return INTERRUPTED
    _remove_state(folder)
    return DONE


def _forecast(
    arguments: argparse.Namespace,
    options: RefineOptions,
    request: Request,
    given: GivenMesh | None,
    folder: Path,
) -> str:
    """Print the memory and the remaining duration that are expected; return the name of the model to load.

    It is the chosen one; for "auto", the small model if a refinement of the full one does not fit.

    Raises:
        UserError: the refinement does not fit into memory, or the model is unavailable.
    """
    with collection_paused():
        from triplaneturbo.distill.checkpoints import Checkpoints
        from triplaneturbo.models.catalog import ModelFiles, base_or_default, find_model
        from triplaneturbo.refine.forecast import Forecast, forecast
        from triplaneturbo.refine.memory_plan import DoesNotFitError, texel_count
        from triplaneturbo.utils.devices import choose_device, explained_out_of_memory

    model: str = arguments.model
    device = choose_device(arguments.device).device
    found = find_model(model, device.type == "cuda", base_or_default(arguments.base))
    done = max(Checkpoints(folder, {}).iterations(), default=0)

    def expect(found: ModelFiles) -> Forecast:
        with explained_out_of_memory(OUT_OF_MEMORY):
            return forecast(
                found, options, device, arguments.precision,
                generates=given is None and not arguments.image_to_mesh,
                texels=texel_count(None if given is None else given.mesh, request),
                image=arguments.image is not None, done=done, timed=not arguments.quiet,
            )  # fmt: skip

    try:
        expected = expect(found)
    except DoesNotFitError as error:
        if model != "auto":
            raise UserError(_shortage(error)) from None
        model = "small"
        try:
            expected = expect(find_model(model, False))
        except UserError:  # it cannot be refined with these options
            raise UserError(_shortage(error)) from None
        print(f"{_shortage(error)} The small model is used.", file=sys.stderr)
    if not arguments.quiet:
        if expected.plan is not None:
            print(expected.plan.table(), file=sys.stderr)
        print(expected.estimate.sentence, file=sys.stderr)
    return model


def _shortage(error: DoesNotFitError) -> str:
    """Return what does not fit into memory, and the options with which it would."""
    change = error.change
    if change is None:
        return f"{error.shortage}: {error.device}, or --model small."
    options = [
        f"--{flag} {value}"
        for flag, value in (
            ("as", change.representation), ("path", change.path), ("teachers", ",".join(change.teachers)),
        )
        if value
    ]  # fmt: skip
    return f"{error.shortage}: it would fit with {' '.join(options)}."


def _plan_outputs(
    outputs: list[str], request: Request, options: RefineOptions
) -> tuple[list[Path], list[Path]]:
    """Return the paths of meshes and of splats.

    Raises:
        UserError: a suffix is unknown, splats are not available, or a file cannot be written.
    """
    meshes: list[Path] = []
    splats: list[Path] = []
    for output in outputs:
        if output.lower().endswith(SPLATS):
            if options.representation != "gaussians":
                raise UserError(f"{shown(output)} needs 3D Gaussians; add --as gaussians.")
            plan([request], "", output, "ply")  # checks that the file can be written
            splats.append(Path(os.path.expanduser(output)))
            continue
        if output.endswith(("/", os.sep)) or os.path.isdir(os.path.expanduser(output)):
            raise UserError(f"{shown(output)} is a folder; use a file such as {output.rstrip('/')}/mesh.glb.")
        (job,) = plan([request], "", output, None)
        meshes += job.paths.values()
    return meshes, splats


def _state_folder(output: Path) -> Path:
    """Return the folder of an unfinished refinement, beside its first output."""
    return output.with_name(f"{output.name}.refine")


def _remove_state(folder: Path) -> None:
    """Delete what the refinement kept, and its folder if nothing else is in it."""
    for part in ("checkpoints", "views", "image"):
        shutil.rmtree(folder / part, ignore_errors=True)
    (folder / SAVINGS).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _prompt(arguments: argparse.Namespace) -> str:
    """Return the prompt, which may be given in two ways; "" if a picture takes its place.

    Raises:
        UserError: it is given in none or in both.
    """
    prompts = [one for one in (arguments.prompt, arguments.named_prompt) if one is not None]
    if not prompts and arguments.image is not None:
        return ""
    if len(prompts) != 1:
        raise UserError("Give one prompt that says what the object is, such as 'a red mushroom'.")
    return str(prompts[0])


def _check_start(arguments: argparse.Namespace) -> None:
    """Check the options that say what the refinement starts from.

    Raises:
        UserError: they contradict each other, or the command is malformed.
    """
    if arguments.image_to_mesh:
        from triplaneturbo.refine.image_program import parsed_command

        if arguments.image is None:
            raise UserError("--image-to-mesh needs a picture; add --image FILE.")
        if arguments.mesh is not None:
            raise UserError("--mesh and --image-to-mesh both give a mesh; omit one of them.")
        parsed_command(arguments.image_to_mesh)
    if arguments.adapter and (arguments.mesh is not None or arguments.image_to_mesh):
        raise UserError("--adapter generates a draft, but a mesh is given; omit one of them.")
    if arguments.every < 1:
        raise UserError(f"Invalid --every {arguments.every}; use 1 or more.")


def _denoising_steps(name: str) -> int | None:
    """Return the denoising steps of an adapter; None for the model's.

    Raises:
        UserError: no adapter has this name, or its file is invalid.
    """
    if not name:
        return None
    from triplaneturbo.models.adapters import adapter, adapter_steps

    return adapter_steps(adapter(name))


def _use_adapter(pipeline: Pipeline, name: str) -> None:
    from triplaneturbo.models.adapter_switch import AdapterSwitch
    from triplaneturbo.models.adapters import adapter

    model = pipeline.model
    AdapterSwitch(model, model.base or model.folder).use(adapter(name))


def _representation(arguments: argparse.Namespace) -> str:
    """Return the name of the representation.

    Raises:
        UserError: --keep-shape contradicts --as.
    """
    chosen: str | None = arguments.representation
    if arguments.keep_shape:
        if chosen not in (None, TEXTURE):
            raise UserError(f"--keep-shape changes the texture only; omit it, or --as {chosen}.")
        return TEXTURE
    return chosen or ("field" if arguments.mesh is None and not arguments.image_to_mesh else "gaussians")


def _resolve(
    pipeline: Pipeline,
    prompt: str,
    image: GivenImage,
    given: GivenMesh | None,
    command: str,
    folder: Path,
    quiet: bool,
) -> tuple[str, GivenMesh | None]:
    """Return the prompt and the mesh that the refinement toward a picture starts from; see `resolve`.

    Raises:
        UserError: see `resolve`; with what to do here about a picture without a shape.
    """
    from triplaneturbo.refine.image_source import NoShapeError, resolve

    def announce(message: str) -> None:
        if not quiet:
            print(f"{message} --prompt replaces this caption.", file=sys.stderr)

    try:
        return resolve(pipeline.model, pipeline.name, prompt, image, given, command, folder, announce)
    except NoShapeError as error:
        advice = 'Use --mesh FILE, or --image-to-mesh "PROGRAM {image} {mesh}".'
        raise UserError(f"{error} {advice}") from None


def _start(
    pipeline: Pipeline,
    request: Request,
    options: RefineOptions,
    folder: Path,
    given: GivenMesh | None,
    image: GivenImage | None,
    quiet: bool,
) -> Refiner:
    """Prepare the refinement of the given mesh or, if there is none, of a draft that is generated.

    Raises:
        UserError: see `start`; with what to do here about a mesh that encloses no volume.
    """
    from triplaneturbo.mesh.signed_distance import NoVolumeError
    from triplaneturbo.refine.memory_plan import DoesNotFitError
    from triplaneturbo.refine.start import start

    source = given or pipeline.field(request)
    stages = start(pipeline.model, pipeline.name, source, request, options, folder, image)
    while True:
        try:
            doing = next(stages)
        except StopIteration as end:
            refiner: Refiner = end.value
            break
        except NoVolumeError as error:
            raise UserError(f"{error} Or use --as gaussians.") from None
        except DoesNotFitError as error:
            raise UserError(_shortage(error)) from None
        if not quiet and sys.stderr.isatty():
            print(f"\r{doing:60.60}", end="\r", file=sys.stderr, flush=True)
    if not quiet:
        for note in refiner.notes:
            print(note, file=sys.stderr)
    return refiner


def _optimize(refiner: Refiner, pictures: Path | None, every: int, quiet: bool) -> bool:
    """Do all steps with a progress bar; return whether they were interrupted.

    Args:
        pictures: folder of a picture of the start and of one after every `every` steps; None for none.
    """
    from tqdm import tqdm

    hidden = quiet or not sys.stderr.isatty()
    with (
        deferred_interrupt() as interrupted,
        tqdm(total=refiner.iterations, initial=refiner.iteration, unit="step", disable=hidden) as bar,
    ):
        # The start, or the picture that is missing if the process was killed after a checkpoint.
        if pictures is not None and _due(refiner, every):
            _write_picture(refiner, pictures)
        while not refiner.finished:
            forming = refiner.iteration < refiner.path_iterations
            bar.set_description_str("forming the path" if forming else "refining", refresh=False)
            losses = refiner.step()
            bar.set_postfix({name: f"{value:.3g}" for name, value in losses.items()}, refresh=False)
            bar.update()
            if pictures is not None and refiner.steps and _due(refiner, every):
                _write_picture(refiner, pictures)
            if interrupted() and not refiner.finished:
                return True
    return False


def _due(refiner: Refiner, every: int) -> bool:
    return refiner.steps % every == 0 or refiner.finished


def _write_picture(refiner: Refiner, folder: Path) -> None:
    from triplaneturbo.refine.pictures import picture
    from triplaneturbo.utils.atomic_files import write_atomically

    write_atomically(folder / f"step-{refiner.steps:05}.png", picture(refiner.representation))


def _save_splats(refiner: Refiner, path: Path) -> None:
    from triplaneturbo.mesh.io.splat_ply import encode_splats
    from triplaneturbo.representations.gaussian_asset import GaussianAsset
    from triplaneturbo.utils.atomic_files import write_atomically

    asset = refiner.representation
    assert isinstance(asset, GaussianAsset)
    write_atomically(path, encode_splats(asset.gaussians))
