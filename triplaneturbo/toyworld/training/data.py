"""Data of the closed-form teachers: views of the instances, read from the view cache."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from triplaneturbo.errors import UserError
from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.toyworld.captions.caption_parser import parse
from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scene.view_cache import NOTHING_CODE, VIEWS, ViewCache
from triplaneturbo.toyworld.training.pictures import color_table, shape_of


class ViewCacheData:
    """Views of the instances of captions from the rigs of a view cache (`teachers.closed_form.Data`)."""

    def __init__(self, view_cache: ViewCache) -> None:
        self.view_cache = view_cache

    def __call__(
        self, captions: Sequence[str], scenes: SceneBatch, seen: Renderings, reads: tuple[str, ...]
    ) -> list[Renderings]:
        """Return renderings of all six instances of each caption, at the pixels of `seen`.

        If the scenes have variants, only one is returned, of the instance that a variant stands for: score
        distillation alone lets all variants seek the same instance.

        Args:
            captions: B captions.
            scenes: the batch; its `rig`, `background` and `variants` are used.
            seen: the student's renderings, which give the stride, the first pixel and the device.
            reads: fields to return: "rgb", "normal", "depth".

        Raises:
            UserError: the toy world cannot express a caption.
        """
        assert scenes.rig is not None
        row, column = seen.first
        views = slice(scenes.rig * VIEWS, (scenes.rig + 1) * VIEWS)
        specs = [meaning(text) for text in captions]
        pixels = np.stack(
            [
                self.view_cache.pixels(spec.thing, shape_of(spec), spec.support, views)[
                    :, :, row :: seen.stride, column :: seen.stride
                ]
                for spec in specs
            ],
            axis=1,
        )  # [6, B, V, H, W]
        fields = {}
        codes = pixels["code"]
        covered = (codes & 15) != NOTHING_CODE
        if "rgb" in reads:
            background = scenes.background.cpu().numpy()
            rgb = np.empty((*codes.shape, 3), dtype=np.float32)
            for i, spec in enumerate(specs):
                table = color_table(spec)
                table[np.arange(256) & 15 == NOTHING_CODE] = background[i]
                rgb[:, i] = table[codes[:, i]]
            fields["rgb"] = rgb
        if "normal" in reads:
            fields["normal"] = pixels["normal"].astype(np.float32) / 127
        if "depth" in reads:
            fields["depth"] = pixels["depth"].astype(np.float32)
        fields["opacity"] = covered.astype(np.float32)
        tensors = {name: torch.from_numpy(value).to(seen.opacity.device) for name, value in fields.items()}
        tensors.setdefault("rgb", tensors["opacity"])
        if scenes.variants is not None:
            rows = torch.arange(len(specs), device=scenes.variants.device)
            table = torch.tensor([OBJECT_CLASSES[spec.thing].variants for spec in specs], device=rows.device)
            numbers = table[rows, scenes.variants]
            tensors = {name: value[numbers, rows][None] for name, value in tensors.items()}
        count = len(tensors["opacity"])
        return [Renderings(**{name: value[i] for name, value in tensors.items()}) for i in range(count)]


@lru_cache(maxsize=100_000)
def meaning(caption: str) -> Spec:
    """Return the spec of a caption.

    Raises:
        UserError: the toy world cannot express the caption.
    """
    parsed = parse(caption)
    if parsed.spec is None:
        words = ", ".join(repr(word) for word in parsed.unknown)
        why = f"it does not know {words}" if words else parsed.why.rstrip(".")
        raise UserError(
            f"The built-in model cannot express {caption!r}: {why}. "
            "For its vocabulary, run `python -m triplaneturbo words`."
        )
    return parsed.spec
