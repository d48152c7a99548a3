"""Does PTD's path help? `python -m benchmarks.ptd_study [--prompts 2] [--plot FILE]`.

Every asset starts corrupted: its draft with noise added to the colours. It is then refined by the small
Stable Diffusion alone, which is the only teacher of the built-in model with a network, without a path
(vanilla), along the interpolated path with several exponents C, and along the stored checkpoints. The table
has the means over the prompts: matching loss of the final renderings under the plain network, volume IoU,
colour error and CPU seconds of both stages. The plot is the paper's Figure 8: the matching loss during a run,
for PTD of the current network of the path and its own samples.

All runs of an asset start from the same path: its LoRA is trained once, and its seconds count for each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.refine import measure
from triplaneturbo.distill.ptd import Refiner, RefineSettings
from triplaneturbo.evaluate.matching import matching_loss, sample
from triplaneturbo.pipeline import Pipeline
from triplaneturbo.refine.options import RefineOptions
from triplaneturbo.refine.setup import RefineSetup, setup
from triplaneturbo.render.grid_renderer import trilinear
from triplaneturbo.representations.base import Representation
from triplaneturbo.representations.gaussian_asset import GaussianAsset
from triplaneturbo.representations.registry import find_representation
from triplaneturbo.representations.triplane_asset import TriplaneAsset
from triplaneturbo.request import Request
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.stable_diffusion import TextCondition
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scoring.score import prompts
from triplaneturbo.utils.generators import exhaust

TEACHER = "sd"
REPRESENTATIONS = ("field", "gaussians")
VARIANTS: dict[str, dict[str, Any]] = {
    "vanilla": {"path": "none"},
    "C = 0.1": {"path": "interpolate", "path_exponent": 0.1},
    "C = 0.3": {"path": "interpolate", "path_exponent": 0.3},
    "C = 1": {"path": "interpolate", "path_exponent": 1.0},
    "checkpoints": {"path": "checkpoints"},
}
PLOTTED = ("vanilla", "C = 0.3")
_NOISE, _NODES = 0.3, 12  # standard deviation of the noise of Gaussians; nodes of its grid along each side


@dataclass(frozen=True)
class Row:
    """What one run gave: matching loss, volume IoU, colour error and CPU seconds."""

    matching: float
    iou: float
    color_error: float
    seconds: float


@dataclass(frozen=True)
class Scale:
    """Size of the study.

    Attributes:
        steps, path_iterations: of each run.
        views: renderings per matching loss.
        draws: timesteps per rendering and third.
        references: samples of a network per matching loss.
        sampling: DDIM steps of a sample.
    """

    steps: int
    path_iterations: int
    views: int
    draws: int
    references: int
    sampling: int


@torch.no_grad()
def corrupt(asset: Representation, rng: torch.Generator) -> None:
    """Add smooth noise to the colours of an asset, in place."""
    if isinstance(asset, GaussianAsset):
        grid = torch.randn(3, _NODES, _NODES, _NODES, generator=rng)
        means = asset.gaussians.means.clamp(-1, 1)
        noise = trilinear(grid, means[None].expand(3, -1, -1)).t()  # [N, 3]
        asset.gaussians.colors.add_(_NOISE * noise).clamp_(0, 1)
        return
    assert isinstance(asset, TriplaneAsset)
    texture = asset.planes[3:]
    coarse = torch.randn(*texture.shape[:2], _NODES, _NODES, generator=rng)
    noise = F.interpolate(coarse, texture.shape[-2:], mode="bicubic", align_corners=False)
    texture.add_(2 * texture.std() * noise)


class Matching:
    """The matching loss of an asset under a network, from the same cameras and noise at every call.

    Args:
        prepared: draws the cameras.
        scale: views, draws and references.
    """

    def __init__(self, prepared: RefineSetup, scale: Scale) -> None:
        self._prepared, self._scale = prepared, scale

    @torch.no_grad()
    def references(self, teacher: Teacher, asset: Representation) -> Tensor:
        """Sample a network for the asset's prompt: [R, 1, 4, h, h]."""
        rng = torch.Generator().manual_seed(1)
        z, condition = self._encoded(teacher, asset, rng)
        count = self._scale.references
        many = TextCondition(*(part[:1].expand(count, *part.shape[1:]) for part in condition))
        return sample(teacher, z[:1].expand(count, *z.shape[1:]), many, rng, self._scale.sampling)

    @torch.no_grad()
    def of_samples(self, teacher: Teacher, asset: Representation, references: Tensor) -> float:
        """Return the loss of another sample of the network, which is in its distribution."""
        rng = torch.Generator().manual_seed(3)
        z, condition = self._encoded(teacher, asset, rng)
        drawn = sample(teacher, z, condition, rng, self._scale.sampling)
        return matching_loss(teacher, drawn, condition, references, rng, 4 * self._scale.draws).mean

    @torch.no_grad()
    def __call__(self, teacher: Teacher, asset: Representation, references: Tensor) -> float:
        """Return the mean loss."""
        rng = torch.Generator().manual_seed(2)
        losses = []
        for _ in range(self._scale.views):
            z, condition = self._encoded(teacher, asset, rng)
            losses.append(matching_loss(teacher, z, condition, references, rng, self._scale.draws).mean)
        return fmean(losses)

    def _encoded(self, teacher: Teacher, asset: Representation, rng: torch.Generator) -> tuple[Tensor, Any]:
        scenes = self._prepared.draw(rng)
        rendering = list(asset.render(scenes, rng).renderings.values())[-1]
        return teacher.encode(rendering, scenes, rng), teacher.condition(rendering, scenes)


@dataclass(frozen=True)
class Start:
    """A corrupted asset and its path.

    Attributes:
        asset: never modified.
        path: state of the LoRA that is fitted to it.
        path_seconds: CPU seconds of its training.
    """

    asset: Representation
    prepared: RefineSetup
    settings: RefineSettings
    path: dict[str, Any]
    path_seconds: float

    def refiner(self, variant: str) -> Refiner:
        """Return a refinement of a copy of the asset, at the beginning of stage 2."""
        settings = replace(self.settings, **VARIANTS[variant])
        refiner = Refiner(deepcopy(self.asset), self.prepared.teachers, self.prepared.draw, settings)
        for path in refiner.paths.values():
            path.load_state_dict(self.path)
        refiner.iteration = refiner.path_iterations
        return refiner


def begin(pipeline: Pipeline, spec: Spec, representation: str, scale: Scale, folder: Path) -> Start:
    """Generate a draft, corrupt it and form its path."""
    options = RefineOptions(representation, teachers=(TEACHER,))
    request = pipeline.settle(Request(spec.caption))
    prepared = exhaust(setup(pipeline.model, "small", spec.caption, options, folder))
    asset = find_representation(representation).from_field(
        pipeline.field(request), prepared.size, torch.Generator().manual_seed(0), request
    )
    corrupt(asset, torch.Generator().manual_seed(0))
    settings = replace(prepared.settings, steps=scale.steps, path_iterations=scale.path_iterations)
    kept = deepcopy(asset)
    began = time.process_time()
    forming = Refiner(asset, prepared.teachers, prepared.draw, replace(settings, path="checkpoints"))
    while forming.iteration < forming.path_iterations:
        forming.step()
    seconds = time.process_time() - began
    return Start(kept, prepared, settings, deepcopy(forming.paths[TEACHER].state_dict()), seconds)


def run(start: Start, variant: str, each: Callable[[Refiner], None]) -> tuple[Representation, float]:
    """Refine a corrupted asset; return it and the CPU seconds of both stages.

    Args:
        each: called before every step and at the end.
    """
    refiner = start.refiner(variant)
    seconds = start.path_seconds if refiner.paths else 0.0
    while not refiner.finished:
        each(refiner)
        began = time.process_time()
        refiner.step()
        seconds += time.process_time() - began
    each(refiner)
    return refiner.representation, seconds


def curve(matching: Matching, references: Tensor, every: int) -> tuple[Callable[[Refiner], None], list]:
    """Return a callback of `run`, and its list of (step, matching loss of the current network)."""
    points: list[tuple[int, float]] = []

    def each(refiner: Refiner) -> None:
        if refiner.steps % every and not refiner.finished:
            return
        teacher, own = refiner.network(TEACHER), references
        if refiner.paths:
            own = matching.references(teacher, refiner.representation)
        points.append((refiner.steps, matching(teacher, refiner.representation, own)))

    return each, points


def plot(path: Path, curves: dict[str, list[tuple[int, float]]], title: str) -> None:
    """Draw the matching losses over the steps as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        label = "PTD, C = 0.3: the path's network" if name != "vanilla" else "vanilla: the plain network"
        axes.plot(*zip(*points, strict=True), marker="o", label=label)
    axes.set(xlabel="step", ylabel="matching loss", title=title)
    axes.set_ylim(0, 1.4 * max(loss for points in curves.values() for _, loss in points))
    axes.legend()
    figure.savefig(path, dpi=100)


def studied(
    pipeline: Pipeline,
    specs: list[Spec],
    representations: Sequence[str],
    variants: Sequence[str],
    scale: Scale,
    every: int,
    folder: Path,
) -> Iterator[tuple[str, str, Row] | tuple[str, dict[str, list[tuple[int, float]]]]]:
    """Run the study; yield (representation, variant, row) for each run, and (prompt, curves) once."""
    for number, spec in enumerate(specs):
        for representation in representations:
            start = begin(pipeline, spec, representation, scale, folder)
            plain = start.prepared.teachers[0]
            matching = Matching(start.prepared, scale)
            references = matching.references(plain, start.asset)
            loss = matching.of_samples(plain, start.asset, references)
            print(f"{representation:10} a sample of the network itself has the matching loss {loss:.3f}")
            row = Row(matching(plain, start.asset, references), *measure(start.asset, spec), 0.0)
            yield representation, "start", row
            curves: dict[str, list[tuple[int, float]]] = {}
            for variant in variants:
                each, points = curve(matching, references, every)
                plotted = number == 0 and representation == representations[0] and variant in PLOTTED
                asset, seconds = run(start, variant, each if plotted else lambda refiner: None)
                curves |= {variant: points} if plotted else {}
                loss = matching(plain, asset, references)
                yield representation, variant, Row(loss, *measure(asset, spec), seconds)
            if curves:
                yield spec.caption, curves


def main() -> None:
    """Run the study, and print a line for each run and the table."""
    parser = argparse.ArgumentParser(description="Compare PTD with plain distillation from corrupted assets.")
    parser.add_argument("--prompts", type=int, default=2, help="number of prompts")
    parser.add_argument("--as", dest="representations", default=",".join(REPRESENTATIONS), metavar="A,B")
    parser.add_argument("--variants", default=",".join(VARIANTS), metavar="A,B", help="variants of the path")
    parser.add_argument("--steps", type=int, default=60, help="steps of each run")
    parser.add_argument("--path-iterations", type=int, default=150, help="iterations that form a path")
    parser.add_argument("--every", type=int, default=6, help="steps between points of the plot")
    parser.add_argument("--views", type=int, default=4, help="renderings per matching loss")
    parser.add_argument("--draws", type=int, default=4, help="timesteps per rendering and third")
    parser.add_argument("--references", type=int, default=32, help="samples of a network per matching loss")
    parser.add_argument("--sampling", type=int, default=20, help="DDIM steps of a sample")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="PNG of the matching losses during a run")
    own = parser.parse_args()
    scale = Scale(own.steps, own.path_iterations, own.views, own.draws, own.references, own.sampling)
    pipeline = Pipeline.from_pretrained("small", device="cpu")
    rows: dict[tuple[str, str], list[Row]] = {}
    with tempfile.TemporaryDirectory() as folder:
        specs = prompts(own.prompts)[: own.prompts]
        representations, variants = own.representations.split(","), own.variants.split(",")
        for found in studied(pipeline, specs, representations, variants, scale, own.every, Path(folder)):
            if len(found) == 2:
                prompt, curves = found
                for name, points in curves.items():
                    print(f"{name}, by steps: " + ", ".join(f"{at}: {loss:.3f}" for at, loss in points))
                if own.plot is not None:
                    plot(own.plot, curves, prompt)
                continue
            representation, variant, row = found
            rows.setdefault((representation, variant), []).append(row)
            print(f"{representation:10} {variant:12} {row}", flush=True)
    print("\n| representation | variant | matching loss | IoU | colour error | CPU seconds |")
    print("|---|---|---|---|---|---|")
    for (representation, variant), own_rows in rows.items():
        means = [fmean(getattr(row, name) for row in own_rows) for name in Row.__dataclass_fields__]
        print("| {} | {} | {:.3f} | {:.3f} | {:.3f} | {:.0f} |".format(representation, variant, *means))


if __name__ == "__main__":
    main()
