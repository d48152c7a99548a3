"""CLIP evaluation: ranks, averaged views, saving and loading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPTokenizer

from triplaneturbo.errors import UserError
from triplaneturbo.evaluate.clip import Clip, rank
from triplaneturbo.toyworld.captions.tokenizer import train_tokenizer

TEXTS = ["a red mushroom", "a blue mushroom", "a tall green chair on a box"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(folder, TEXTS)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    vision = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 128, "image_size": 32}
    text = {"context_length": 12, "vocab_size": len(tokenizer), "width": 16, "heads": 2, "layers": 1}
    clip = Clip({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}, tokenizer)
    clip.model.eval()
    return clip


def plain_rank(embeds: torch.Tensor, captions: torch.Tensor, right: torch.Tensor) -> list[int]:
    """Slow reference: captions sorted by similarity, the right one last among equals."""
    ranks = []
    for embed, one in zip(embeds, right.tolist(), strict=True):
        near = [(-float(embed @ caption), i == one) for i, caption in enumerate(captions)]
        ranks.append(sorted(near).index((-float(embed @ captions[one]), True)))
    return ranks


def test_rank_counts_nearer_captions() -> None:
    captions = F.normalize(torch.randn(40, 8), dim=1)
    embeds = F.normalize(captions[:10] + 0.5 * torch.randn(10, 8), dim=1)
    right = torch.arange(10)
    assert rank(embeds, captions, right).tolist() == plain_rank(embeds, captions, right)
    assert rank(captions, captions, torch.arange(40)).eq(0).all()


def test_constant_embeddings_have_the_worst_rank() -> None:
    captions = torch.ones(5, 4) / 2
    assert rank(captions[:1], captions, torch.tensor([2])).tolist() == [4]


def test_views_are_averaged_as_unit_embeddings(clip: Clip) -> None:
    pictures = torch.rand(3, 4, 3, 32, 32)
    found = clip.embed_views(pictures)
    with torch.no_grad():
        each = [[clip.model.encode_image(view[None] * 2 - 1)[0] for view in four] for four in pictures]
    by_hand = torch.stack([F.normalize(sum(F.normalize(v, dim=0) for v in four), dim=0) for four in each])
    assert torch.allclose(found, by_hand, atol=1e-5)
    assert torch.allclose(found.norm(dim=1), torch.ones(3), atol=1e-5)


def test_texts_of_any_length_are_embedded(clip: Clip) -> None:
    ids = clip.tokens(["", "a red mushroom " * 30, "snow ☃"])
    assert ids.shape == (3, 12)
    embeds = clip.embed_texts([*TEXTS, ""])
    assert embeds.shape == (4, 24)
    assert not torch.allclose(embeds[0], embeds[1])  # one word differs
    assert torch.allclose(embeds[:1], clip.embed_texts(TEXTS[:1]), atol=1e-5)


def test_saved_clip_gives_the_same_embeddings(clip: Clip, tmp_path: Path) -> None:
    clip.save(tmp_path / "clip")
    again = Clip.load(tmp_path / "clip")
    pictures = torch.rand(2, 4, 3, 32, 32)
    assert torch.allclose(again.embed_views(pictures), clip.embed_views(pictures), atol=0.02)  # float16
    assert torch.allclose(again.embed_texts(TEXTS), clip.embed_texts(TEXTS), atol=0.02)
    weights = sum(weight.numel() for weight in clip.model.parameters())
    assert (tmp_path / "clip" / "clip.safetensors").stat().st_size < 2.2 * weights + 20_000
    again.save(tmp_path / "again")  # from its own folder's tokenizer
    for name in ("clip.json", "clip.safetensors", "tokenizer/vocab.json", "tokenizer/merges.txt"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "clip" / name).read_bytes()


def test_missing_or_broken_folder_is_reported(clip: Clip, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No CLIP model found in"):
        Clip.load(tmp_path / "nowhere")
    clip.save(tmp_path)
    config = tmp_path / "clip.json"
    other = json.loads(config.read_text())
    other["embed_dim"] = 30
    config.write_text(json.dumps(other))
    with pytest.raises(UserError, match="is invalid"):
        Clip.load(tmp_path)
    config.write_text("{")
    with pytest.raises(UserError, match="is invalid"):
        Clip.load(tmp_path)
