"""Scores of known results: the ground truth, a sphere, an empty surface; the fixed prompts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from triplaneturbo.errors import EmptySurfaceError
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.mesh.voxels import centres, overlap
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.models.weights import load_model
from triplaneturbo.pipeline import Pipeline
from triplaneturbo.render.cameras import Cameras
from triplaneturbo.toyworld.captions.combinations import SHARES, BalancedSampler, all_specs, held_out
from triplaneturbo.toyworld.captions.tokenizer import train_tokenizer
from triplaneturbo.toyworld.scene.solids import solid_of
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scene.view_cache import NOTHING_CODE, PIXEL, cache_cameras
from triplaneturbo.toyworld.scene.view_renderer import NOTHING, see
from triplaneturbo.toyworld.scoring import ground_truth
from triplaneturbo.toyworld.scoring.closeups import CAPTIONS, make_closeups
from triplaneturbo.toyworld.scoring.generated import (
    Generated,
    make_generate,
    photograph,
    piece_areas,
    render_colors,
    sphere,
)
from triplaneturbo.toyworld.scoring.score import PROMPTS, compare, group_of, prompts, score, write_prompts
from triplaneturbo.toyworld.scoring.score_report import ScoreSheet, table
from triplaneturbo.toyworld.training.clip import (
    BACKGROUND,
    RIG,
    CaptionBank,
    Judge,
    all_captions,
    augment,
    judge_views,
    make_clip,
)

SPECS = [Spec.of("mushroom", "red"), Spec.of("duck", modifier="small", color="blue")]


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """An untrained judge."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder, [spec.caption for spec in all_specs()[::50]])
    torch.manual_seed(0)
    clip = make_clip(CLIPTokenizer.from_pretrained(folder))
    clip.model.eval().requires_grad_(False)
    return Judge(clip)


def perfect(caption: str, seed: int) -> Generated:
    spec = next(spec for spec in SPECS if spec.caption == caption)
    return ground_truth.generated(spec, seed)


def test_score_prompts_are_seen_and_held_out(tmp_path: Path) -> None:
    specs = prompts()
    assert len(set(specs)) == 128
    assert all(spec not in held_out() for spec in specs[:64])
    assert all(spec in held_out() for spec in specs[64:])
    for half in (specs[:64], specs[64:]):
        kinds = Counter(spec.kind for spec in half)
        assert all(abs(kinds[kind] / 64 - share) < 0.15 for kind, share in SHARES.items())
    write_prompts(tmp_path / "again.txt")
    assert (tmp_path / "again.txt").read_bytes() == PROMPTS.read_bytes()
    assert [group_of(spec) for spec in prompts(4)] == ["seen", "seen", "held out", "held out"]


def test_solid_voxels_match_single_queries() -> None:
    axis = centres(32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    for spec in (*SPECS, Spec.of("cat", support="table"), Spec.of("chair", modifier="flat")):
        solid = ground_truth.instance(spec, 1)
        plain = (solid.distance(points) <= 0).reshape(32, 32, 32)
        assert np.array_equal(ground_truth.voxelize(solid, 32), plain)


def test_score_views_differ_from_training_views() -> None:
    def toward(cameras) -> torch.Tensor:
        return torch.nn.functional.normalize(cameras.positions.double(), dim=1)

    nearest = (toward(ground_truth.score_cameras()) @ toward(cache_cameras()).t()).max()
    assert nearest < np.cos(np.radians(2))


def test_ground_truth_has_perfect_scores() -> None:
    scores = score(perfect, SPECS, seeds=(0, 4))
    for group in ("seen", "held out"):
        if group in scores["model"]:
            found, plain = scores["model"][group], scores["sphere"][group]
            assert found["volume_iou"] > 0.97
            assert found["silhouette_iou"] == pytest.approx(1, abs=1e-6)
            assert found["color_error"] < 0.002
            assert (found["floaters"], found["empty"]) == (0, 0)
            assert (found["r_at_1"], found["r_at_5"]) == (None, None)
            assert plain["volume_iou"] < 0.6
            assert plain["color_error"] > 0.1
    assert [entry["nearest"] for entry in scores["results"]] == [0, 4, 0, 4]
    apart = scores["diversity"][group_of(SPECS[0])]
    assert 0 < apart["model"] < 1
    assert apart["instances_hit"] == 2
    assert set(scores["classes"]) == {"mushroom", "duck"}
    assert "a sphere" in table(scores)


def test_world_diversity_matches_the_instances() -> None:
    spec = SPECS[0]
    scores = score(lambda caption, seed: ground_truth.generated(spec, 2), [spec], seeds=(0, 1))
    fills = ground_truth.occupancy(spec)
    apart = [1 - overlap(fills[i], fills[j]) for i in range(6) for j in range(i)]
    figures = scores["diversity"][group_of(spec)]
    assert figures["world"] == pytest.approx(np.mean(apart))
    assert figures["model"] == 0
    assert figures["instances_hit"] == 1


def test_colour_error_has_the_size_of_the_difference() -> None:
    spec = SPECS[0]
    generated = ground_truth.generated(spec, 0)
    darker = replace(generated, rgb=lambda points: generated.rgb(points) * 0.5)
    entry, _ = compare(darker, spec, ground_truth.occupancy(spec))
    mask, rgb = ground_truth.score_views(spec, 0)
    assert entry["color_error"] == pytest.approx(0.5 * rgb[mask].mean().item(), abs=0.002)
    assert entry["silhouette_iou"] == pytest.approx(1, abs=1e-6)


def test_empty_results_score_zero(judge: Judge) -> None:
    def nothing(caption: str, seed: int) -> Generated:
        raise EmptySurfaceError

    sheet = ScoreSheet()
    scores = score(nothing, SPECS[:1], seeds=(0, 1), judge=judge, on_result=sheet)
    (found,) = scores["model"].values()
    assert (found["empty"], found["volume_iou"], found["silhouette_iou"]) == (2, 0, 0)
    assert (found["r_at_1"], found["r_at_5"], found["color_error"]) == (0, 0, None)
    assert sheet.png().startswith(b"\x89PNG")


def test_closeups_show_results_beside_the_nearest_instance() -> None:
    def make(caption: str, seed: int) -> Generated:
        if caption == SPECS[1].caption:
            raise EmptySurfaceError
        return ground_truth.generated(SPECS[0], 3)

    captions = [spec.caption for spec in SPECS]
    shown = make_closeups(make, captions, 32)
    assert shown.shape == (48, 2 * 64 + 6, 3)
    result, truth, empty, other = shown[:32, :32], shown[:32, 32:64], shown[:32, 70:102], shown[:32, 102:]
    assert np.array_equal(result, truth)
    assert empty.min() == 255 > other.min()
    assert len({spec.caption for spec in all_specs()} & set(CAPTIONS)) == 12


def test_floaters_are_counted_above_a_minimum_size() -> None:
    ball = sphere().mesh

    def beside(scale: float) -> Generated:
        vertices = torch.cat((ball.vertices, ball.vertices * scale + 0.9))
        both = Mesh(vertices, torch.cat((ball.faces, ball.faces + len(ball.vertices))))
        return replace(sphere(), raw=both)

    assert sphere().floaters == 0
    assert beside(0.05).floaters == 1  # 0.25 % of the area
    assert beside(0.05).floaters_left == 0  # of the mesh
    assert replace(sphere(), mesh=beside(0.05).raw).floaters_left == 1
    assert beside(0.02).floaters == 0  # 0.04 %
    large, small = piece_areas(beside(0.5).raw)
    assert large == pytest.approx(np.pi, rel=0.01)
    assert small == pytest.approx(large / 4)


def test_colours_and_images_lie_on_the_surface() -> None:
    generated = ground_truth.generated(SPECS[0], 3)
    cameras = ground_truth.score_cameras()
    mask, rgb = render_colors(generated, cameras, 64)
    assert rgb[~mask].eq(0).all()
    pictures = photograph(generated, cameras, 32, (0.0, 0.0, 1.0))
    assert pictures.shape == (8, 3, 32, 32)
    inside = mask.view(8, 32, 2, 32, 2).float().mean((2, 4))
    assert torch.allclose(pictures[:, 2][inside == 0], torch.tensor(1.0))
    unlit = rgb.view(8, 32, 2, 32, 2, 3).mean((2, 4)).permute(0, 3, 1, 2)
    whole = (inside == 1)[:, None].expand_as(pictures)
    assert (pictures[whole] <= unlit[whole] + 1e-5).all()  # shading only darkens
    assert (pictures[whole] >= 0.6 * unlit[whole]).all()


def test_judge_ranks_the_right_caption(judge: Judge) -> None:
    """The rank equals the number of captions whose similarity is at least that of the right one, less one."""
    generated = ground_truth.generated(SPECS[0], 0)
    place = judge.rank(generated, SPECS[0])
    assert 0 <= place <= judge.last == len(all_specs()) - 1
    embed = judge.clip.embed_views(photograph(generated, judge._cameras, 64, BACKGROUND)[None])
    nearness = (all_captions(judge.clip) @ embed[0]).numpy()
    own = list(all_specs()).index(SPECS[0])
    assert place == int((nearness >= nearness[own]).sum()) - 1


class DrawnNow:
    """Stands for a `ViewCache` in `judge_views`; renders on demand."""

    cameras = cache_cameras()

    def pixels(self, thing: str, shape: str, support: str, views: slice) -> np.ndarray:
        cameras = Cameras(self.cameras.c2w[views], self.cameras.fovy[views])
        seen = see(solid_of(thing, shape, support, 0), cameras, 128)
        out = np.zeros((1, *seen.paint.shape), dtype=PIXEL)
        out["code"] = np.where(seen.paint == NOTHING, NOTHING_CODE, seen.paint | seen.pattern << 4)
        out["normal"] = seen.normal
        return out


def test_judge_renders_meshes_like_the_view_cache() -> None:
    spec = Spec.of("mushroom", "blue", modifier="checkered")
    learned = torch.from_numpy(judge_views(DrawnNow(), spec, 0))
    cameras, rig = cache_cameras(), slice(RIG * 4, RIG * 4 + 4)
    cameras = Cameras(cameras.c2w[rig], cameras.fovy[rig])
    asked = photograph(ground_truth.generated(spec, 0), cameras, 64, BACKGROUND)
    assert asked.shape == learned.shape
    assert (asked - learned).abs().mean() < 0.003
    assert (asked - learned).abs().quantile(0.99) < 0.1  # normals differ a little at creases


def test_surface_matches_the_pipeline() -> None:
    model = load_model(SMALL)
    model = replace(model, config=replace(model.config, grid_resolution=48))  # quicker
    prompt = "a red mushroom"
    generated = make_generate(model)(prompt, 5)
    whole = Pipeline(model)(prompt, seed=5, texture_size=512, normal_map=False)
    ours, theirs = (
        np.unique(vertices.numpy(), axis=0) for vertices in (generated.mesh.vertices, whole.vertices)
    )
    assert np.array_equal(ours, theirs)
    assert len(generated.mesh.faces) == len(whole.faces)
    assert generated.rgb(generated.mesh.vertices).shape == generated.mesh.vertices.shape


def test_batches_contain_similar_captions(judge: Judge) -> None:
    bank = CaptionBank(judge.clip)
    bank.refresh()
    embeds, rng = all_captions(judge.clip), np.random.default_rng(0)
    batch = bank.similar_batch(BalancedSampler(all_specs()), 32, rng)
    assert len(set(batch)) == 32
    nearness = embeds[batch[::4]] @ embeds.t()
    for group, near in zip(np.reshape(batch, (8, 4)), nearness, strict=True):
        nearest = near.argsort(descending=True)[:14].tolist()
        assert set(group[1:].tolist()) <= set(nearest)
    images = embeds[batch[:2]]
    hard_negatives = bank.hard_negatives(images, batch[:2])
    assert not set(hard_negatives) & set(batch[:2])
    others = [i for i in range(len(embeds)) if i not in batch[:2]]
    best = max(others, key=lambda i: float(images[0] @ embeds[i]))
    assert float(images[0] @ embeds[best]) <= max(float(images[0] @ embeds[i]) for i in hard_negatives) + 1e-6


def test_augmented_images_keep_their_content() -> None:
    pictures = torch.rand(2, 4, 3, 8, 8).repeat_interleave(8, 3).repeat_interleave(8, 4)
    first = augment(pictures, torch.Generator().manual_seed(1))
    assert torch.equal(first, augment(pictures, torch.Generator().manual_seed(1)))
    assert first.shape == pictures.shape
    assert first.min() >= 0
    assert first.max() <= 1
    assert 0 < (first - pictures).abs().mean() < 0.15
