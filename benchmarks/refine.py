"""Refinement of the built-in model: `python -m benchmarks.refine [--count 12] [--as field] [--steps 20,60]`.

It generates the first prompts of `toyworld score`, seen and held-out ones in turn, refines each with the
exact teachers of the toy world, and prints volume IoU, colour error and seconds before and after. The
teachers hold the truth, so that the figures show that the machinery works, not how it generalizes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from triplaneturbo.distill.ptd import Refiner
from triplaneturbo.pipeline import Pipeline
from triplaneturbo.refine.options import RefineOptions
from triplaneturbo.refine.setup import setup
from triplaneturbo.representations.base import Representation
from triplaneturbo.representations.gaussian_asset import FusedGaussians, GaussianAsset
from triplaneturbo.representations.registry import find_representation
from triplaneturbo.representations.triplane_asset import TriplaneAsset
from triplaneturbo.request import Request
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scoring import ground_truth
from triplaneturbo.toyworld.scoring.generated import Generated
from triplaneturbo.toyworld.scoring.score import compare, prompts
from triplaneturbo.utils.generators import exhaust

RESOLUTION = 96  # of the grid that a surface is extracted on


def measure(asset: Representation, spec: Spec) -> tuple[float, float]:
    """Return the volume IoU and the colour error of an asset."""
    mesh = asset.export(Request("", resolution=RESOLUTION, unwrap="none"))
    if isinstance(asset, GaussianAsset):
        query = FusedGaussians(asset.gaussians, RESOLUTION).rgb
    else:
        assert isinstance(asset, TriplaneAsset)
        query = asset.field().rgb
    entry, _ = compare(Generated(mesh, mesh, query), spec, ground_truth.occupancy(spec))
    return entry["volume_iou"], entry["color_error"]


def main() -> None:
    """Refine every prompt, and print a line for each and the means."""
    parser = argparse.ArgumentParser(description="Measure the refinement of the built-in model.")
    parser.add_argument("--count", type=int, default=12, help="number of prompts")
    parser.add_argument("--as", dest="representation", default="field", choices=("field", "gaussians"))
    parser.add_argument("--steps", default="20,60", help="numbers of steps, each from the draft")
    arguments = parser.parse_args()
    lengths = [int(steps) for steps in arguments.steps.split(",")]
    specs = prompts(2 * arguments.count)
    half = len(specs) // 2
    specs = list(chain.from_iterable(zip(specs[:half], specs[half:], strict=True)))[: arguments.count]

    pipeline = Pipeline.from_pretrained("small", device="cpu")
    options = RefineOptions(arguments.representation, path="none")
    heads = ["draft", *(f"{steps} steps" for steps in lengths)]
    print(f"{'IoU / colour error (seconds)':40}" + "".join(f"{head:>24}" for head in heads))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for spec in specs:
            request = pipeline.settle(Request(spec.caption))
            field = pipeline.field(request)
            prepared = exhaust(setup(pipeline.model, "small", spec.caption, options, Path(folder) / "views"))
            row, cells = [], []
            for steps in (0, *lengths):
                rng = torch.Generator().manual_seed(0)
                asset = find_representation(arguments.representation).from_field(
                    field, prepared.size, rng, request
                )
                start = time.perf_counter()
                if steps:
                    settings = replace(prepared.settings, steps=steps)
                    refiner = Refiner(asset, prepared.teachers, prepared.draw, settings)
                    while not refiner.finished:
                        refiner.step()
                seconds = time.perf_counter() - start
                row.append((*measure(asset, spec), seconds))
                cells.append("{:.3f} / {:.3f} ({:.0f})".format(*row[-1]))
            rows.append(row)
            print(f"{spec.caption:40.40}" + "".join(f"{cell:>24}" for cell in cells), flush=True)
    means = np.mean(rows, axis=0)
    cells = ["{:.3f} / {:.3f} ({:.1f})".format(*mean) for mean in means]
    print(f"{'mean':40}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
