"""The CLIP judge of the toy world: a small CLIP trained on cached views and their captions.

    python -m triplaneturbo.toyworld clip --folder runs/small

It is trained on all specs, held-out ones included, because it is used for scoring only and never for training
the generator. Training matches its use: the embeddings of several views of an object on one plain background
are averaged and compared with the captions of all specs. Batches consist of captions that are easily
confused. Images are warped, shifted, blurred and noisy, so that the judge also recognises the softer shapes
of generated meshes. Interrupted training is resumed.
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

SIZE = 64  # pixels per side
RIG = 7  # rig of the view cache that the judge uses: from the corners, at an elevation of 21 degrees
BACKGROUND = (0.80, 0.76, 0.94)  # background of the judge's images, unlike all twelve colours
_OTHER_RIGS = 0.15  # fraction of images from other rigs, against overfitting
_CANONICAL = 0.5  # fraction of captions that are canonical, in addition to those drawn at random
_VIEWS_PER_OBJECT = 2  # random views of the rig's four; fewer views allow more objects per second
_GROUP_SIZE, _NEIGHBOURS = 4, 12  # a batch consists of groups of this size, from this many nearest captions
_HARD_NEGATIVES = 4  # captions per image that are added to those of the batch
_REFRESH = 25  # steps between updates of the caption embeddings


def make_clip(tokenizer: CLIPTokenizer) -> Clip:
    """Create an untrained judge with 1.5 million weights."""
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
    """Train the judge and save it to `folder/clip`; no-op if it exists.

    Args:
        folder: run folder, which holds the view cache in `pool/`.
        keys: keys of the view cache.
        steps: training steps.
        batch: objects per step and process.
    """
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
        indices = bank.similar_batch(sampler, batch, rng)
        specs = [all_specs()[number] for number in indices]
        rigs = np.where(rng.random(batch) < _OTHER_RIGS, rng.integers(RIGS, size=batch), RIG)
        shown = []
        for spec, rig in zip(specs, rigs.tolist(), strict=True):
            views = rng.permutation(VIEWS)[:_VIEWS_PER_OBJECT].tolist()
            shown.append(judge_views(view_cache, spec, int(rng.integers(INSTANCES)), rig, views))
        pictures = augment(torch.from_numpy(np.stack(shown)), noise)  # [B, 2, 3, 64, 64]
        images = clip.merged(pictures.to(context.device)).float()
        mined = [all_specs()[number].caption for number in bank.hard_negatives(images.detach(), indices)]
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
            recall = ground_truth_recall(clip, view_cache, specs)
            print(f"clip, {name}: R@1 {recall:.4f} on the ground truth", flush=True)
        clip.save(folder / "clip")
    context.wait()


class CaptionBank:
    """Embeddings of all captions, updated every few steps, for mining hard negatives."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._age = 0
        self._embeds = torch.empty(0)

    def refresh(self) -> None:
        """Recompute the embeddings every 25 calls; stages save their state at multiples of that."""
        if self._age % _REFRESH == 0:
            self._embeds = all_captions(self._clip)
        self._age += 1

    def similar_batch(self, sampler: BalancedSampler, count: int, rng: np.random.Generator) -> list[int]:
        """Draw `count` different specs, by index, in groups of one random spec and some of its neighbours."""
        chosen: dict[int, None] = {}
        while len(chosen) < count:
            first = _spec_indices()[sampler.draw(rng)]
            near = (self._embeds @ self._embeds[first]).topk(1 + _NEIGHBOURS).indices.tolist()
            group = [
                first,
                *rng.permutation([one for one in near if one != first])[: _GROUP_SIZE - 1].tolist(),
            ]
            chosen.update(dict.fromkeys(group))
        return list(chosen)[:count]

    def hard_negatives(self, images: Tensor, right: list[int]) -> list[int]:
        """Return the captions, by index, nearest to any of the images [B, E] and right for none of them."""
        near = (images @ self._embeds.t()).topk(_HARD_NEGATIVES).indices
        return sorted(set(near.flatten().tolist()) - set(right))


def _random_caption(spec: Spec, rng: np.random.Generator) -> str:
    """Return a random wording of a spec; the canonical one more often than the others."""
    if rng.random() < _CANONICAL:
        return spec.caption
    wordings = captions(spec)
    return wordings[int(rng.integers(len(wordings)))]


def judge_views(
    view_cache: ViewCache, spec: Spec, index: int, rig: int = RIG, views: Sequence[int] = range(VIEWS)
) -> np.ndarray:
    """Return cached views of an instance as the judge sees them: shaded, float32 [V, 3, 64, 64] in [0, 1].

    Args:
        index: number of the instance.
        rig: rig of the view cache.
        views: indices of the rig's views.
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
    """Augment images [B, V, 3, H, W] in [0, 1]: random warp, scale, shift by up to two pixels, brightness and
    noise; half of them are blurred.
    """
    flat = pictures.flatten(0, 1)
    count, size = len(flat), flat.shape[-1]

    def random(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    axis = (torch.arange(size) + 0.5) * 2 / size - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)  # [H, W, 2] of (x, y)
    coarse = random(count, 2, 5, 5) - 0.5
    warp = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=True)
    warp = warp.permute(0, 2, 3, 1) * (6 / size) * random(count, 1, 1, 1)
    scale = 1 + 0.06 * (random(count, 1, 1, 1) * 2 - 1)
    shift = (random(count, 1, 1, 2) * 2 - 1) * (4 / size)
    warped = F.grid_sample(flat, grid * scale + shift + warp, padding_mode="border", align_corners=False)
    amount = (random(count, 1, 1, 1) * 2 - 1).clamp_min(0)  # half of the images stay sharp
    warped = torch.lerp(warped, _blurred(warped), amount) * (1 + 0.08 * (random(count, 1, 1, 1) - 0.5))
    grain = torch.randn((count, 1, size, size), generator=generator) * 0.03 * random(count, 1, 1, 1)
    return (warped + grain).clamp(0, 1).view(pictures.shape)


def _blurred(pictures: Tensor) -> Tensor:
    """Blur images [B, 3, H, W] with the separable kernel (1, 2, 1) / 4."""
    wide = F.pad(pictures, (1, 1, 1, 1), mode="replicate")
    rows = wide[..., :-2] + 2 * wide[..., 1:-1] + wide[..., 2:]
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16


class Judge:
    """Ranks the captions of all specs by their CLIP similarity to a result.

    Attributes:
        clip: the trained CLIP.
        last: the worst rank, used for empty results.
    """

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self._captions = all_captions(clip)
        self._indices = _spec_indices()
        cameras, rig = cache_cameras(), slice(RIG * VIEWS, (RIG + 1) * VIEWS)
        self._cameras = Cameras(cameras.c2w[rig], cameras.fovy[rig])
        self.last = len(self._captions) - 1

    def rank(self, generated: Generated, spec: Spec) -> int:
        """Return the number of captions that are closer to four views of a result than that of `spec`."""
        pictures = photograph(generated, self._cameras, SIZE, BACKGROUND)[None]
        return int(rank(self.clip.embed_views(pictures), self._captions, torch.tensor([self._indices[spec]])))


@cache
def _spec_indices() -> dict[Spec, int]:
    return {spec: i for i, spec in enumerate(all_specs())}


def all_captions(clip: Clip) -> Tensor:
    """Return the embeddings of the canonical captions, in the order of `all_specs`: [M, E]."""
    return clip.embed_texts([spec.caption for spec in all_specs()])


def ground_truth_recall(clip: Clip, view_cache: ViewCache, specs: Iterable[Spec], count: int = 512) -> float:
    """Return R@1 of the judge on the ground truth: instances of random specs, among all captions."""
    rng, sampler = np.random.default_rng(3), BalancedSampler(specs)
    drawn = [sampler.draw(rng) for _ in range(count)]
    pictures = np.stack([judge_views(view_cache, spec, int(rng.integers(INSTANCES))) for spec in drawn])
    right = torch.tensor([_spec_indices()[spec] for spec in drawn])
    places = rank(clip.embed_views(torch.from_numpy(pictures)), all_captions(clip), right)
    return (places == 0).float().mean().item()
