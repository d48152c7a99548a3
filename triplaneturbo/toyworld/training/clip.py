"""The world's judge: a small CLIP that learns from the pool's pictures which caption belongs to which.

    python -m triplaneturbo.toyworld clip --folder runs/small

It may see what is held out, for it only judges: the generator's training never meets it. What it learns is
what it is asked: objects seen from several sides, their embeddings averaged, on one plain background, to be
told from all captions of the world: each batch is made of what it mistakes most easily. Pictures are bent,
shifted, blurred and noisy, so that it reads the softer shapes of generated meshes. It goes on where it was
stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import ClipLoss
from torch import Tensor, nn
from transformers import CLIPTokenizer

from triplaneturbo.evaluate.clip import Clip, rank
from triplaneturbo.render.cameras import Cameras
from triplaneturbo.toyworld.captions.captions import captions
from triplaneturbo.toyworld.captions.combinations import BalancedSampler, all_specs, held_out, seen
from triplaneturbo.toyworld.captions.tokenizer import train_tokenizer, world_texts
from triplaneturbo.toyworld.scene.object_class import INSTANCES
from triplaneturbo.toyworld.scene.spec import Spec
from triplaneturbo.toyworld.scene.view_cache import RIGS, VIEWS, ViewCache, cache_cameras
from triplaneturbo.toyworld.scoring.generated import Generated, photograph
from triplaneturbo.toyworld.training.pictures import color_table, shade_pixels, shape_of
from triplaneturbo.toyworld.training.stage import train_stage
from triplaneturbo.utils.distributed import DistributedContext

SIZE = 64  # pixels a side
RIG = 7  # of the pool, through which the judge looks: from the corners, 21 degrees above the horizon
BACKGROUND = (0.80, 0.76, 0.94)  # the judge's background, unlike all twelve colours
_OTHER_RIGS = 0.15  # share of pictures from other rigs, that it does not learn one picture by heart
_CANONICAL = 0.5  # share of captions in the wording that is asked for, beside what chance gives it
_SHOWN = 2  # of the four views, by chance: more objects a second
_ALIKE, _NEAR = 4, 12  # a batch holds groups of so many, drawn from so many nearest captions
_MINED = 4  # captions an image that it is told apart from, beside those of the batch
_REFRESH = 25  # steps


def make_clip(tokenizer: CLIPTokenizer) -> Clip:
    """A judge that has learned nothing yet: 1.5 million weights."""
    config = {
        "embed_dim": 80,
        "vision_cfg": {"layers": [1, 1, 1, 1], "width": 16, "head_width": 128, "image_size": SIZE},
        "text_cfg": {
            "context_length": 16,
            "vocab_size": len(tokenizer),
            "width": 64,
            "heads": 4,
            "layers": 2,
            "mlp_ratio": 2.0,
        },
    }
    return Clip(config, tokenizer)


def train_clip(context: DistributedContext, folder: Path, keys: list, steps: int, batch: int) -> None:
    """Train the judge into `folder/clip`, if it is not there yet; `batch` objects a step and process."""
    if (folder / "clip" / "clip.json").exists():
        return
    if context.is_main_process and not (folder / "clip" / "tokenizer" / "vocab.json").exists():
        train_tokenizer(folder / "clip" / "tokenizer", world_texts())
    context.wait()
    torch.manual_seed(0)
    clip = make_clip(CLIPTokenizer.from_pretrained(folder / "clip" / "tokenizer"))
    model = clip.model.to(context.device, memory_format=torch.channels_last)
    view_cache = ViewCache(folder / "pool", keys)
    sampler, criterion = BalancedSampler(all_specs()), ClipLoss()
    bank = CaptionBank(clip)

    def loss(rng: np.random.Generator, noise: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        bank.refresh()
        numbers = bank.similar_batch(sampler, batch, rng)
        specs = [all_specs()[number] for number in numbers]
        rigs = np.where(rng.random(batch) < _OTHER_RIGS, rng.integers(RIGS, size=batch), RIG)
        shown = []
        for spec, rig in zip(specs, rigs.tolist(), strict=True):
            views = rng.permutation(VIEWS)[:_SHOWN].tolist()
            shown.append(judge_views(view_cache, spec, int(rng.integers(INSTANCES)), rig, views))
        pictures = augment(torch.from_numpy(np.stack(shown)), noise)  # [B, 2, 3, 64, 64]
        images = clip.merged(pictures.to(context.device)).float()
        mined = [all_specs()[number].caption for number in bank.hard_negatives(images.detach(), numbers)]
        words = clip.tokens([_random_caption(spec, rng) for spec in specs] + mined).to(context.device)
        texts = model.encode_text(words, normalize=True).float()
        with torch.autocast(context.device.type, enabled=False):
            scale = model.logit_scale.clamp(max=np.log(100)).exp()
            among = scale * images @ texts.t()  # [B, B + mined]
            right = torch.arange(batch, device=context.device)
            value = criterion(images, texts[:batch], scale) + F.cross_entropy(among, right)
        hits = (among.argmax(1) == right).float().mean()
        return value, {"loss": value.item(), "hits": hits.item(), "scale": scale.item()}

    train_stage("clip", folder, nn.ModuleDict({"clip": model}), loss, context=context, steps=steps, rate=2e-3,
                settings={"batch": batch}, average=0.998)  # fmt: skip
    if context.is_main_process:
        model.eval()
        for name, specs in (("seen", seen()), ("held out", sorted(held_out(), key=lambda s: s.caption))):
            print(
                f"clip, {name}: R@1 {ground_truth_recall(clip, view_cache, specs):.4f} on the truth",
                flush=True,
            )
        clip.save(folder / "clip")
    context.wait()


class CaptionBank:
    """All captions' embeddings, a few steps old: tells what is easily mistaken for what."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._age = 0
        self._embeds = torch.empty(0)

    def refresh(self) -> None:
        """Embed anew every few steps; stages are gone on with at multiples of that."""
        if self._age % _REFRESH == 0:
            self._embeds = all_captions(self._clip)
        self._age += 1

    def similar_batch(self, sampler: BalancedSampler, count: int, rng: np.random.Generator) -> list[int]:
        """Different specs by number, in groups: one drawn, with some of those whose captions are nearest."""
        chosen: dict[int, None] = {}
        while len(chosen) < count:
            first = _spec_indices()[sampler.draw(rng)]
            near = (self._embeds @ self._embeds[first]).topk(1 + _NEAR).indices.tolist()
            group = [first, *rng.permutation([one for one in near if one != first])[: _ALIKE - 1].tolist()]
            chosen.update(dict.fromkeys(group))
        return list(chosen)[:count]

    def hard_negatives(self, images: Tensor, right: list[int]) -> list[int]:
        """The captions, by number, nearest to any of the images [B, E] and right for none of them."""
        near = (images @ self._embeds.t()).topk(_MINED).indices
        return sorted(set(near.flatten().tolist()) - set(right))


def _random_caption(spec: Spec, rng: np.random.Generator) -> str:
    if rng.random() < _CANONICAL:
        return spec.caption
    wordings = captions(spec)
    return wordings[int(rng.integers(len(wordings)))]


def judge_views(
    view_cache: ViewCache, spec: Spec, index: int, rig: int = RIG, views: Sequence[int] = range(VIEWS)
) -> np.ndarray:
    """An instance of the pool as the judge sees it: float32 [V, 3, 64, 64] in [0, 1], lightly shaded.

    `views`: which of the rig's.
    """
    four = slice(rig * VIEWS, (rig + 1) * VIEWS)
    pixels = view_cache.pixels(spec.thing, shape_of(spec), spec.support, four)[index]
    toward = view_cache.cameras.c2w[four, :3, 2].float().numpy()
    codes, normals = pixels["code"], pixels["normal"]
    table, background = color_table(spec), np.array(BACKGROUND, dtype=np.float32)
    drawn = [
        shade_pixels(
            np.ascontiguousarray(codes[i]), np.ascontiguousarray(normals[i]), table, toward[i], background
        )
        for i in views
    ]
    return np.stack(drawn)[..., :3].transpose(0, 3, 1, 2)


def augment(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures [B, V, 3, H, W] in [0, 1] bent, scaled, shifted by up to two pixels, some of them blurred, all
    with a little noise and another brightness.
    """
    flat = pictures.flatten(0, 1)
    count, size = len(flat), flat.shape[-1]

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    axis = (torch.arange(size) + 0.5) * 2 / size - 1
    place = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)  # [H, W, 2] of (x, y)
    coarse = random(count, 2, 5, 5) - 0.5
    bends = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=True)
    bends = bends.permute(0, 2, 3, 1) * (6 / size) * random(count, 1, 1, 1)
    scale = 1 + 0.06 * (random(count, 1, 1, 1) * 2 - 1)
    shift = (random(count, 1, 1, 2) * 2 - 1) * (4 / size)
    bent = F.grid_sample(flat, place * scale + shift + bends, padding_mode="border", align_corners=False)
    much = (random(count, 1, 1, 1) * 2 - 1).clamp_min(0)  # half of them stay sharp
    bent = torch.lerp(bent, _blurred(bent), much) * (1 + 0.08 * (random(count, 1, 1, 1) - 0.5))
    grain = torch.randn((count, 1, size, size), generator=generator) * 0.03 * random(count, 1, 1, 1)
    return (bent + grain).clamp(0, 1).view(pictures.shape)


def _blurred(pictures: Tensor) -> Tensor:
    """Each pixel of [B, 3, H, W] averaged with its neighbours, weighted 1, 2, 1 both ways."""
    wide = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    rows = wide[..., :-2] + 2 * wide[..., 1:-1] + wide[..., 2:]
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16


class Judge:
    """A trained CLIP that says which caption of the world is nearest to what a prompt became."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self._captions = all_captions(clip)
        self._number = _spec_indices()
        cameras, rig = cache_cameras(), slice(RIG * VIEWS, (RIG + 1) * VIEWS)
        self._cameras = Cameras(cameras.c2w[rig], cameras.fovy[rig])
        self.last = len(self._captions) - 1  # the rank of what is not there

    def rank(self, generated: Generated, spec: Spec) -> int:
        """How many captions of the world are nearer to four pictures of `made` than that of `spec`."""
        pictures = photograph(generated, self._cameras, SIZE, BACKGROUND)[None]
        return int(rank(self.clip.embed_views(pictures), self._captions, torch.tensor([self._number[spec]])))


@cache
def _spec_indices() -> dict[Spec, int]:
    return {spec: i for i, spec in enumerate(all_specs())}


def all_captions(clip: Clip) -> Tensor:
    """Embeddings of the canonical caption of every spec of the world, in the order of `all_specs`: [M, E]."""
    return clip.embed_texts([spec.caption for spec in all_specs()])


def ground_truth_recall(clip: Clip, view_cache: ViewCache, specs: Iterable[Spec], count: int = 512) -> float:
    """R@1 of the judge on the truth itself: instances of specs drawn in balance, among all captions."""
    rng, sampler = np.random.default_rng(3), BalancedSampler(specs)
    drawn = [sampler.draw(rng) for _ in range(count)]
    pictures = np.stack([judge_views(view_cache, spec, int(rng.integers(INSTANCES))) for spec in drawn])
    right = torch.tensor([_spec_indices()[spec] for spec in drawn])
    places = rank(clip.embed_views(torch.from_numpy(pictures)), all_captions(clip), right)
    return (places == 0).float().mean().item()
