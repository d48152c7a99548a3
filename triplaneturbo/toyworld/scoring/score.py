"""How good a model is on the small world: its results beside the truth and beside a plain sphere.

    python -m triplaneturbo.toyworld score --model checkpoints/small --json score.json --sheet score.png

The prompts stand in `score_prompts.txt`: 64 that training saw and 64 of those held out, each asked with three
seeds. Results are taken as they come, in the frame they come in: nothing is aligned.
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
from triplaneturbo.evaluate.voxels import filled, overlap
from triplaneturbo.toyworld.captions.caption_parser import parse
from triplaneturbo.toyworld.captions.combinations import BalancedSampler, held_out, seen
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scoring import ground_truth
from triplaneturbo.toyworld.scoring.generated import Generated, render_colors, sphere
from triplaneturbo.toyworld.training.clip import Judge
from triplaneturbo.utils.atomic_files import write_whole

PROMPTS = Path(__file__).with_name("score_prompts.txt")
SEEDS = (0, 1, 2)
GROUPS = ("seen", "held out")
_PROMPTS_PER_GROUP = 64  # prompts of a group
# Called with each result: what was asked, the seed, what came of it (None: nothing), the nearest instance.
OnResult = Callable[[Spec, int, Generated | None, int], None]


def score(
    generate: Callable[[str, int], Generated],
    specs: Sequence[Spec],
    seeds: Sequence[int] = SEEDS,
    judge: Judge | None = None,
    on_result: OnResult | None = None,
) -> dict[str, Any]:
    """Score what `generate(caption, seed)` makes; it may raise EmptySurfaceError.

    Args:
        judge: tells captions from pictures; None: "r_at_1" and "r_at_5" are None.

    Returns:
        "model" and "sphere": `summary` of each of GROUPS. "kinds", "classes": `summary` of the model's
        results by kind and by class. "diversity": for each group the mean of 1 - volume IoU of two results of
        a prompt ("model") and of two of its instances ("world"), and how many different ones are nearest
        to a prompt's results ("instances_hit"). "results": an entry each. "seeds": as given.
    """
    results: list[dict[str, Any]] = []
    plain: list[dict[str, Any]] = []
    spread: list[dict[str, Any]] = []
    ball = sphere()
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
        plain.append(compare(ball, spec, instances, judge)[0])
        spread.append(
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
        "sphere": _summaries_by("group", plain),
        "diversity": {
            group: {key: _mean(e[key] for e in spread if e["group"] == group) for key in list(spread[0])[1:]}
            for group in dict.fromkeys(e["group"] for e in spread)
        },
        "kinds": _summaries_by("kind", results),
        "classes": _summaries_by("class", results),
        "results": results,
    }


def _with_occupancy(specs: Sequence[Spec]) -> Iterator[tuple[Spec, np.ndarray]]:
    """Each spec with what its instances fill, which another thread works out one spec ahead."""
    with ThreadPoolExecutor(1) as ahead:
        coming = [ahead.submit(ground_truth.occupancy, spec) for spec in specs[:1]]
        for at, spec in enumerate(specs):
            instances = coming.pop().result()
            coming += [ahead.submit(ground_truth.occupancy, after) for after in specs[at + 1 : at + 2]]
            yield spec, instances


def compare(
    generated: Generated | None, spec: Spec, instances: np.ndarray, judge: Judge | None = None
) -> tuple[dict[str, Any], np.ndarray]:
    """One result beside the truth.

    Args:
        made: the result; None: there is none.
        instances: `truth.occupancy` of the spec.

    Returns:
        An entry, and which voxels the result fills. The entry: "volume_iou" with the "nearest" instance by
        that very measure, "silhouette_iou" with that one over all eight views, "color_error" (None where the
        two have no pixel in common), "rank" of the right caption (None without a judge), "floaters" of the
        raw surface, "floaters_left" in what the user gets, "empty".
    """
    about = {"prompt": spec.caption, "group": group_of(spec), "kind": spec.kind, "class": spec.thing}
    if generated is None:
        nothing: dict[str, Any] = {
            "volume_iou": 0.0,
            "nearest": 0,
            "silhouette_iou": 0.0,
            "color_error": None,
        }
        nothing |= {"rank": None if judge is None else judge.last}
        nothing |= {"floaters": 0, "floaters_left": 0, "empty": True}
        return {**about, **nothing}, np.zeros_like(instances[0])
    shape = filled(generated.mesh.vertices, generated.mesh.faces, len(instances[0]))
    shares = [overlap(shape, one) for one in instances]
    nearest = int(np.argmax(shares))
    true_mask, true_rgb = ground_truth.score_views(spec, nearest)
    mask, rgb = render_colors(generated, ground_truth.score_cameras(), ground_truth.SIZE)
    both = mask & true_mask
    error = (rgb[both] - true_rgb[both]).abs().mean().item() if both.any() else None
    entry = {
        "volume_iou": shares[nearest],
        "nearest": nearest,
        "silhouette_iou": overlap(mask.numpy(), true_mask.numpy()),
        "color_error": error,
        "rank": None if judge is None else judge.rank(generated, spec),
        "floaters": generated.floaters,
        "floaters_left": generated.floaters_left,
        "empty": False,
    }
    return {**about, **entry}, shape


def summary(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over entries of `compare`, with their "count"; of floaters and "empty", how many there are."""
    ranks = [entry["rank"] for entry in entries]
    judged = None not in ranks
    return {
        "count": len(entries),
        "volume_iou": _mean(entry["volume_iou"] for entry in entries),
        "silhouette_iou": _mean(entry["silhouette_iou"] for entry in entries),
        "color_error": _mean(entry["color_error"] for entry in entries),
        "r_at_1": _mean(float(place < 1) for place in ranks) if judged else None,
        "r_at_5": _mean(float(place < 5) for place in ranks) if judged else None,
        "floaters": sum(entry["floaters"] for entry in entries),
        "floaters_left": sum(entry["floaters_left"] for entry in entries),
        "empty": sum(entry["empty"] for entry in entries),
    }


def group_of(spec: Spec) -> str:
    """ "seen" or "held out"."""
    return GROUPS[spec in held_out()]


def _summaries_by(what: str, entries: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    names = dict.fromkeys(entry[what] for entry in entries)
    return {name: summary([entry for entry in entries if entry[what] == name]) for name in names}


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are there, if any are."""
    there = [value for value in values if value is not None]
    return fmean(there) if there else None


def _mean_distance(shapes: Sequence[np.ndarray] | np.ndarray) -> float | None:
    """Mean of 1 - IoU over all pairs; None for fewer than two."""
    return _mean(1 - overlap(one, other) for one, other in combinations(shapes, 2))


def prompts(count: int = 2 * _PROMPTS_PER_GROUP) -> list[Spec]:
    """The first `count` / 2 of the fixed prompts of each group, seen ones first; at least one of each."""
    specs = [parse(line).spec for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    each = min(max(1, count // 2), _PROMPTS_PER_GROUP)
    return [
        spec for start in (0, _PROMPTS_PER_GROUP) for spec in specs[start : start + each] if spec is not None
    ]


def write_prompts(path: Path = PROMPTS) -> None:
    """Draw the prompts, kinds in their shares and no spec twice, and list them, one a line, seen ones first.

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
    write_whole(path, "".join(f"{spec.caption}\n" for spec in chosen).encode())
