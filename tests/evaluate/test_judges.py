"""Judges: how they are found, what they do to images and texts, and invalid names and folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file

from tests.helpers.evaluations import MODEL_CONFIG, PREPROCESS, tiny_clip
from tests.helpers.shapes import picture
from triplaneturbo.errors import UserError
from triplaneturbo.evaluate import judges
from triplaneturbo.evaluate.clip import Clip
from triplaneturbo.evaluate.judges import find_judge, tag_config
from triplaneturbo.evaluate.protocols import PROTOCOLS
from triplaneturbo.models.catalog import SMALL

CPU = torch.device("cpu")
IMAGES = np.stack([picture(64, 64, seed) for seed in range(3)])


def test_open_clip_folder_has_its_own_preprocessing(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "mine")
    judge = find_judge(str(folder)).load(CPU)
    model = open_clip.CLIP(**MODEL_CONFIG)
    model.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    model.eval()
    images = []
    for image in IMAGES:
        small = Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC)
        images.append((np.asarray(small) / 255 - PREPROCESS["mean"]) / PREPROCESS["std"])
    texts = ["a cup", "a hat " * 30]
    with torch.no_grad():
        views = model.encode_image(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float())
        words = model.encode_text(open_clip.SimpleTokenizer(context_length=16)(texts))
    torch.testing.assert_close(judge.embed_images(IMAGES), F.normalize(views, dim=1))
    torch.testing.assert_close(judge.embed_texts(texts), F.normalize(words, dim=1))


def test_prescribed_models_match_open_clip() -> None:
    for name in (name for protocol in PROTOCOLS.values() for name in protocol.clips):
        model, _, tag = name.partition("/")
        pretrained = open_clip.get_pretrained_cfg(model, tag)
        config = tag_config(model, pretrained)
        assert config["model_cfg"]["quick_gelu"] == (tag == "openai")
        assert config["preprocess_cfg"]["mean"] == list(pretrained["mean"])
        assert config["preprocess_cfg"]["resize_mode"] == "shortest"
        assert pretrained["hf_hub"].strip("/").count("/") == 1


def test_built_in_clip_is_a_judge(tmp_path: Path) -> None:
    files = find_judge("toyworld")
    judge, clip = files.load(CPU), Clip.load(SMALL / "clip")
    pixels = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)[:, None].float() / 255  # 64 x 64, as it needs
    torch.testing.assert_close(judge.embed_images(IMAGES), clip.embed_views(pixels))
    assert files.background is not None
    assert not files.takes_prefix


def test_random_weights_are_reported_as_untrained(tmp_path: Path) -> None:
    files = find_judge(str(tiny_clip(tmp_path / "random", seed=3, trained=False)))
    assert not files.trained
    same = find_judge(str(tiny_clip(tmp_path / "again", seed=3, trained=False)))
    other = find_judge(str(tiny_clip(tmp_path / "other", seed=4, trained=False)))
    assert files.key == same.key != other.key
    embeds = [one.load(CPU).embed_images(IMAGES) for one in (files, same, other)]
    torch.testing.assert_close(embeds[0], embeds[1])
    assert not torch.allclose(embeds[0], embeds[2])
    assert not find_judge("ViT-B-32/random").trained


def test_key_depends_on_the_weights(tmp_path: Path) -> None:
    one, other = (find_judge(str(tiny_clip(tmp_path / str(seed), seed))) for seed in range(2))
    copy = find_judge(str(tiny_clip(tmp_path / "copy", 0)))
    assert one.key == copy.key != other.key


def test_other_clip_than_the_protocols_is_reported(tmp_path: Path) -> None:
    clips = PROTOCOLS["prd"].clips
    note = find_judge(str(tiny_clip(tmp_path / "mine"))).deviation(clips)
    assert note.startswith("mine is not the CLIP of this protocol (ViT-B-32/openai)")
    folder = tiny_clip(tmp_path / "prescribed", trained=False)
    for quick_gelu in (True, False):  # OpenAI's activation, and that of other weights
        model = {**open_clip.get_model_config("ViT-B-32"), "quick_gelu": quick_gelu}
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "untrained_seed": 0}))
        assert (find_judge(str(folder)).deviation(clips) == "") == quick_gelu
    assert find_judge("ViT-B-32/random").deviation(clips)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-32", "There is no CLIP 'ViT-B-32'"),
        ("ViT-B-32/nobody", "has no weights 'nobody'"),
        ("no/such", "There is no CLIP 'no/such'"),
        ("empty", "contains no CLIP"),
        ("config only", "has no CLIP weights"),
        ("broken", "Cannot read"),
    ],
)
def test_unknown_names_and_folders_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tiny_clip(tmp_path / "config only") / "open_clip_model.safetensors").unlink()
    (tiny_clip(tmp_path / "broken") / "open_clip_config.json").write_text("{")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        find_judge(name)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    folder = tiny_clip(tmp_path / "mixed")
    config = {**MODEL_CONFIG, "embed_dim": 24}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(UserError, match="do not fit its architecture"):
        find_judge(str(folder)).load(CPU)
    config["text_cfg"] = {**MODEL_CONFIG["text_cfg"], "hf_tokenizer_name": "bert"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(UserError, match="another text encoder"):
        find_judge(str(folder)).load(CPU)
    (tiny_clip(tmp_path / "cut") / "open_clip_model.safetensors").write_bytes(b"cut off")
    with pytest.raises(UserError, match="do not fit its architecture"):
        find_judge(str(tmp_path / "cut")).load(CPU)


def test_local_folder_has_precedence_over_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judges, "CLIP_FOLDER", tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=r"HF_HUB_OFFLINE is set.*put its weights .* into .*ViT-B-32-openai"
    ) as error:
        find_judge("ViT-B-32/openai")
    assert str(error.value).count(". ") == 0  # one sentence
    tiny_clip(tmp_path / "ViT-B-32-openai")
    files = find_judge("ViT-B-32/openai")
    assert files.folder == tmp_path / "ViT-B-32-openai"
    with pytest.raises(UserError, match="do not fit"):  # the architecture is that of the name
        files.load(CPU)
