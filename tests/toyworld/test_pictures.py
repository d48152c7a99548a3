"""Training images and teachers' data from the view cache, against plain torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from triplaneturbo.errors import UserError
from triplaneturbo.render.cameras import orbit
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.toyworld.scene import view_cache as view_cache_module
from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
from triplaneturbo.toyworld.scene.object_class import INSTANCES
from triplaneturbo.toyworld.scene.palette import COLORS
from triplaneturbo.toyworld.scene.solids import SHAPES
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scene.view_cache import AXES, NOTHING_CODE, PIXEL, RIGS, VIEWS, Key, ViewCache
from triplaneturbo.toyworld.scene.view_renderer import colors, shade
from triplaneturbo.toyworld.training.data import ViewCacheData, meaning
from triplaneturbo.toyworld.training.pictures import SIZE, PictureSampler, color_table, shade_pixels, shape_of

CAMERAS = RIGS * VIEWS + AXES


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random pixels with any paint, pattern and normal; a third of them are background."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros(shape, dtype=PIXEL)
    paints, patterns = rng.integers(0, 14, shape), rng.integers(0, 8, shape)
    nothing = rng.random(shape) < 1 / 3
    pixels["code"] = np.where(nothing, NOTHING_CODE, paints | patterns << 4)
    normal = rng.normal(size=(*shape, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    pixels["normal"] = np.where(nothing[..., None], 0, np.round(normal * 127))
    pixels["depth"] = np.where(nothing, 0, rng.uniform(1.7, 3.2, shape))
    return pixels


def stored(folder: Path, keys: Iterable[Key], side: int) -> ViewCache:
    """A view cache of random pixels."""
    keys = list(keys)
    for number, key in enumerate(keys):
        shape = (1 if key[1] else len(SHAPES), INSTANCES, 5, side, side)
        every = np.tile(noise(shape, number), (1, 1, CAMERAS // 5, 1, 1))  # drawing random numbers is slow
        np.save(view_cache_module._path(folder, key), every)
    return ViewCache(folder, keys)


@pytest.mark.parametrize("modifier", ["", "spotted"])
def test_images_match_shading_and_downsampling_in_torch(modifier: str) -> None:
    pixels = noise((24, 16))
    spec = Spec.of("mushroom", "blue", "" if modifier else "yellow", modifier)
    toward = np.array([0.6, 0.48, 0.64], dtype=np.float32)
    background = np.array([0.2, 0.5, 0.9], dtype=np.float32)
    found = shade_pixels(
        np.ascontiguousarray(pixels["code"]),
        np.ascontiguousarray(pixels["normal"]),
        color_table(spec),
        toward,
        background,
    )
    code = torch.from_numpy(pixels["code"].astype(np.int64))
    nothing = (code & 15) == NOTHING_CODE
    look_up = torch.from_numpy(colors(spec.color, spec.accent, modifier))
    rgb = look_up[code >> 4 & 7, code & 15]
    lit = shade(rgb, torch.from_numpy(pixels["normal"]).float() / 127, torch.from_numpy(toward))
    lit[nothing] = torch.from_numpy(background)
    both = torch.cat((lit, (~nothing).float()[..., None]), -1)
    wanted = torch.nn.functional.avg_pool2d(both.permute(2, 0, 1), 2).permute(1, 2, 0)
    torch.testing.assert_close(torch.from_numpy(found), wanted, atol=1e-5, rtol=1e-5)


def test_sampled_images(tmp_path: Path) -> None:
    specs = [Spec.of("duck"), Spec.of("duck", "red", modifier="tall"), Spec.of("duck", support="box")]
    view_cache = stored(tmp_path, [("duck", ""), ("duck", "box")], 2 * SIZE)
    sampler = PictureSampler(view_cache, specs)
    pictures = sampler.draw(12, np.random.default_rng(3))
    assert pictures.images.shape == (12, 3, SIZE, SIZE)
    assert pictures.object.shape == (12, 1, SIZE, SIZE)
    assert -1 <= float(pictures.images.min()) < float(pictures.images.max()) <= 1
    assert set(pictures.object.unique().tolist()) == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert [meaning(caption) for caption in pictures.captions] == pictures.specs
    assert set(pictures.specs) == set(specs)
    again = sampler.draw(12, np.random.default_rng(3))
    assert torch.equal(again.images, pictures.images)
    assert again.captions == pictures.captions
    assert not torch.equal(sampler.draw(12, np.random.default_rng(4)).images, pictures.images)
    # Backgrounds are plain and different.
    backgrounds = [
        image[:, covered[0] == 0] for image, covered in zip(pictures.images, pictures.object, strict=True)
    ]
    assert all(float((background - background[:, :1]).abs().max()) < 1e-6 for background in backgrounds)
    assert len({tuple(background[:, 0].tolist()) for background in backgrounds}) == 12


def test_shape_of_pattern_modifiers_is_plain() -> None:
    assert shape_of(Spec.of("duck", modifier="tall")) == "tall"
    assert shape_of(Spec.of("duck", modifier="striped")) == ""
    assert shape_of(Spec.of("duck")) == ""


def scenes(captions: list[str], rig: int) -> SceneBatch:
    cameras = orbit(torch.zeros(len(captions) * VIEWS), 0.0, 2.5)
    return SceneBatch(captions, cameras, VIEWS, torch.rand(len(captions), 3), rig)


def test_teachers_see_cached_pixels_of_the_students_views(tmp_path: Path) -> None:
    view_cache = stored(tmp_path, [("duck", ""), ("duck", "box")], 12)
    where = scenes(["a tall red duck", "a duck on a blue box"], 5)
    student = Renderings(torch.zeros(2, VIEWS, 4, 4, 3), torch.zeros(2, VIEWS, 4, 4), stride=3, first=(1, 2))
    instances = ViewCacheData(view_cache)(
        where.prompts, where, student, ("rgb", "normal", "depth", "opacity")
    )
    assert len(instances) == INSTANCES
    shapes = [(meaning(text), key) for text, key in zip(where.prompts, ((0, ""), (1, "box")), strict=True)]
    for i, one in enumerate(instances):
        for b, (spec, (_, support)) in enumerate(shapes):
            raw = np.load(view_cache_module._path(tmp_path, ("duck", support)))
            row = list(SHAPES).index("tall") if not support else 0
            for v in range(VIEWS):
                for r in range(4):
                    for c in range(4):
                        pixel = raw[row, i, 5 * VIEWS + v, 1 + 3 * r, 2 + 3 * c]
                        at = (b, v, r, c)
                        seen = (pixel["code"] & 15) != NOTHING_CODE
                        assert one.opacity[at] == seen
                        wanted = (
                            torch.from_numpy(color_table(spec)[pixel["code"]])
                            if seen
                            else where.background[b]
                        )
                        assert torch.equal(one.rgb[at], wanted)
                        assert one.normal is not None
                        assert one.depth is not None
                        np.testing.assert_allclose(one.normal[at], pixel["normal"] / 127, atol=1e-6)
                        assert float(one.depth[at]) == float(pixel["depth"])
    only = ViewCacheData(view_cache)(where.prompts, where, student, ("rgb",))
    assert all(one.normal is None and one.depth is None for one in only)
    assert all(torch.equal(one.rgb, other.rgb) for one, other in zip(only, instances, strict=True))
    varied = replace(where, variants=torch.tensor([1, 0]))
    (alone,) = ViewCacheData(view_cache)(where.prompts, varied, student, ("rgb", "normal", "depth"))
    for b, number in enumerate((OBJECT_CLASSES["duck"].variants[1], OBJECT_CLASSES["duck"].variants[0])):
        for field in ("rgb", "opacity", "normal", "depth"):
            assert torch.equal(getattr(alone, field)[b], getattr(instances[number], field)[b])


def test_colours_match_the_caption() -> None:
    table = color_table(meaning("a red duck on a blue box")) * 255
    np.testing.assert_allclose(table[12], COLORS["red"], atol=1e-3)
    np.testing.assert_allclose(table[13], COLORS["blue"], atol=1e-3)


def test_unknown_caption_is_refused() -> None:
    with pytest.raises(UserError, match="dragon"):
        meaning("a red dragon")
