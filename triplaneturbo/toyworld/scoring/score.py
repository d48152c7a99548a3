"""Scores of a model on the toy world, compared with the ground truth and with a baseline sphere.

    python -m triplaneturbo.toyworld score --model checkpoints/small --json score.json --sheet score.png

The prompts are in `score_prompts.txt`: 64 from the training set and 64 held out, each with three seeds.
Results are compared without any alignment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from triplaneturbo.errors import EmptySurfaceError
from triplaneturbo.mesh.voxels import filled, overlap
from triplaneturbo.toyworld.captions.caption_parser import parse
from triplaneturbo.toyworld.captions.combinations import BalancedSampler, held_out, seen
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scoring import ground_truth
from triplaneturbo.toyworld.scoring.details import detail_recall, find_details, normal_error
from triplaneturbo.toyworld.scoring.generated import Generated, render_surface, sphere
from triplaneturbo.toyworld.training.clip import Judge
from triplaneturbo.utils.atomic_files import write_atomically

PROMPTS = Path(__file__).with_name("score_prompts.txt")
SEEDS = (0, 1, 2)
GROUPS = ("seen", "held out")
_PROMPTS_PER_GROUP = 64
# Called with each result: the spec, the seed, the result (None: empty surface), the nearest instance.
OnResult = Callable[[Spec, int, Generated | None, int], None]


def score(
    generate: Callable[[str, int], Generated],
    specs: Sequence[Spec],
    seeds: Sequence[int] = SEEDS,
    judge: Judge | None = None,
    on_result: OnResult | None = None,
) -> dict[str, Any]:
    """Score the results of `generate(caption, seed)`, which may raise EmptySurfaceError.

    Args:
        generate: maps a caption and a seed to a result.
        specs: specs to score.
        seeds: seeds per spec.
        judge: computes the rank of the right caption; None: "r_at_1" and "r_at_5" are None.
        on_result: called with each result.

    Returns:
        "model" and "sphere": `summary` of each of GROUPS. "kinds", "classes": `summary` of the model's
        results by kind and by class. "diversity": for each group the mean of 1 - volume IoU over pairs of
        results of a prompt ("model") and over pairs of its instances ("world"), and the number of different
        instances that are nearest to a prompt's results ("instances_hit"). "results": one entry of `compare`
        per result. "seeds": as given.
    """
    results: list[dict[str, Any]] = []
    sphere_results: list[dict[str, Any]] = []
    diversity: list[dict[str, Any]] = []
    baseline = sphere()
    for spec, instances in _with_occupancy(specs):
        shapes, nearest = [], set()
        for seed in seeds:
            try:
                generated = generate(spec.caption, seed)
            except EmptySurfaceError:
                generated = None
            entry, shape = compare(generated, spec, instances, judge)
            results.append({**entry, "seed": seed})
            if generated is not None:
                shapes.append(shape)
                nearest.add(entry["nearest"])
            if on_result is not None:
                on_result(spec, seed, generated, entry["nearest"])
        sphere_results.append(compare(baseline, spec, instances, judge)[0])
        diversity.append(
            {
                "group": group_of(spec),
                "model": _mean_distance(shapes),
                "world": _mean_distance(instances),
                "instances_hit": len(nearest),
            }
        )
    return {
        "seeds": list(seeds),
        "model": _summaries_by("group", results),
        "sphere": _summaries_by("group", sphere_results),
        "diversity": {
            group: {
                key: _mean(e[key] for e in diversity if e["group"] == group) for key in list(diversity[0])[1:]
            }
            for group in dict.fromkeys(e["group"] for e in diversity)
        },
        "kinds": _summaries_by("kind", results),
        "classes": _summaries_by("class", results),
        "results": results,
    }


def _with_occupancy(specs: Sequence[Spec]) -> Iterator[tuple[Spec, np.ndarray]]:
    """Yield each spec with the occupancy of its instances, which a thread computes one spec ahead."""
    with ThreadPoolExecutor(1) as ahead:
        coming = [ahead.submit(ground_truth.occupancy, spec) for spec in specs[:1]]
        for at, spec in enumerate(specs):
            instances = coming.pop().result()
            coming += [ahead.submit(ground_truth.occupancy, after) for after in specs[at + 1 : at + 2]]
            yield spec, instances


def compare(
    generated: Generated | None, spec: Spec, instances: np.ndarray, judge: Judge | None = None
) -> tuple[dict[str, Any], np.ndarray]:
    """Compare one result with the ground truth.

    Args:
        generated: the result; None if the surface was empty.
        spec: the spec of the prompt.
        instances: `ground_truth.occupancy` of the spec.
        judge: computes "rank"; None: it is None.

    Returns:
        An entry and the occupancy of the result [size, size, size]. The entry holds "volume_iou" with the
        "nearest" instance (the one with the highest volume IoU), "silhouette_iou" with that instance over all
        eight views, "color_error" (mean absolute error; None if the two have no pixel in common),
        "normal_error" (mean angle in degrees), the number of "details" of the instance and of "details_found"
        in the result (`details.detail_recall`), "rank" of the right caption (0 is best), "floaters" of the
        raw surface, "floaters_left" in the final mesh, and "empty".
    """
    labels = {"prompt": spec.caption, "group": group_of(spec), "kind": spec.kind, "class": spec.thing}
    if generated is None:
        nothing: dict[str, Any] = {
            "volume_iou": 0.0,
            "nearest": 0,
            "silhouette_iou": 0.0,
            "color_error": None,
            "normal_error": None,
            "details": _detail_count(spec, 0),
            "details_found": 0,
        }
        nothing |= {"rank": None if judge is None else judge.last}
        nothing |= {"floaters": 0, "floaters_left": 0, "empty": True}
        return {**labels, **nothing}, np.zeros_like(instances[0])
    shape, nearest, iou = find_nearest(generated, instances)
    true_mask, true_rgb = ground_truth.score_views(spec, nearest)
    mask, rgb, normal = render_surface(generated, ground_truth.score_cameras(), ground_truth.SIZE)
    both = mask & true_mask
    error = (rgb[both] - true_rgb[both]).abs().mean().item() if both.any() else None
    found, details = detail_recall(mask.numpy(), rgb.numpy(), true_mask.numpy(), true_rgb.numpy())
    entry = {
        "volume_iou": iou,
        "nearest": nearest,
        "silhouette_iou": overlap(mask.numpy(), true_mask.numpy()),
        "color_error": error,
        "normal_error": normal_error(normal.numpy(), ground_truth.score_normals(spec, nearest), both.numpy()),
        "details": details,
        "details_found": found,
        "rank": None if judge is None else judge.rank(generated, spec),
        "floaters": generated.floaters,
        "floaters_left": generated.floaters_left,
        "empty": False,
    }
    return {**labels, **entry}, shape


def find_nearest(generated: Generated, instances: np.ndarray) -> tuple[np.ndarray, int, float]:
    """Return the occupancy of a result, the instance with the highest volume IoU, and that IoU."""
    shape = filled(generated.mesh.vertices, generated.mesh.faces, len(instances[0]))
    ious = [overlap(shape, one) for one in instances]
    nearest = int(np.argmax(ious))
    return shape, nearest, ious[nearest]


def summary(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the means over entries of `compare` and their "count"; floaters and "empty" are summed.

    "detail_recall" is the share of all details that were found; None if there are none.
    """
    ranks = [entry["rank"] for entry in entries]
    judged = None not in ranks
    return {
        "count": len(entries),
        "volume_iou": _mean(entry["volume_iou"] for entry in entries),
        "silhouette_iou": _mean(entry["silhouette_iou"] for entry in entries),
        "color_error": _mean(entry["color_error"] for entry in entries),
        "normal_error": _mean(entry["normal_error"] for entry in entries),
        "detail_recall": _detail_recall(entries),
        "r_at_1": _mean(float(place < 1) for place in ranks) if judged else None,
        "r_at_5": _mean(float(place < 5) for place in ranks) if judged else None,
        "floaters": sum(entry["floaters"] for entry in entries),
        "floaters_left": sum(entry["floaters_left"] for entry in entries),
        "empty": sum(entry["empty"] for entry in entries),
    }


def _detail_recall(entries: Sequence[dict[str, Any]]) -> float | None:
    details = sum(entry["details"] for entry in entries)
    return sum(entry["details_found"] for entry in entries) / details if details else None


def _detail_count(spec: Spec, index: int) -> int:
    mask, rgb = ground_truth.score_views(spec, index)
    return len(list(find_details(mask.numpy(), rgb.numpy())))


def group_of(spec: Spec) -> str:
    """Return the group of a spec: "seen" or "held out"."""
    return GROUPS[spec in held_out()]


def _summaries_by(what: str, entries: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the `summary` of the entries for each value of the key `what`."""
    names = dict.fromkeys(entry[what] for entry in entries)
    return {name: summary([entry for entry in entries if entry[what] == name]) for name in names}


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are not None; None if there are none."""
    present = [value for value in values if value is not None]
    return fmean(present) if present else None


def _mean_distance(shapes: Sequence[np.ndarray] | np.ndarray) -> float | None:
    """Return the mean of 1 - IoU over all pairs; None for fewer than two shapes."""
    return _mean(1 - overlap(one, other) for one, other in combinations(shapes, 2))


def prompts(count: int = 2 * _PROMPTS_PER_GROUP) -> list[Spec]:
    """Return the first `count` / 2 fixed prompts of each group, at least one of each; seen ones first."""
    specs = [parse(line).spec for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    each = min(max(1, count // 2), _PROMPTS_PER_GROUP)
    return [
        spec for start in (0, _PROMPTS_PER_GROUP) for spec in specs[start : start + each] if spec is not None
    ]


def write_prompts(path: Path = PROMPTS) -> None:
    """Draw the fixed prompts with `BalancedSampler` without repetition and write them, seen ones first.

    Raises:
        UserError: the file cannot be written.
    """
    rng = np.random.default_rng(64)
    chosen: list[Spec] = []
    for specs in (seen(), sorted(held_out(), key=lambda spec: spec.caption)):
        sampler = BalancedSampler(specs)
        group: dict[Spec, None] = {}
        while len(group) < _PROMPTS_PER_GROUP:
            group[sampler.draw(rng)] = None
        chosen += group
    write_atomically(path, "".join(f"{spec.caption}\n" for spec in chosen).encode())
