"""The CLIP tokenizer of the toy world."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from triplaneturbo.errors import UserError
from triplaneturbo.toyworld.captions.captions import captions
from triplaneturbo.toyworld.captions.combinations import all_specs
from triplaneturbo.toyworld.captions.tokenizer import train_tokenizer, world_texts

FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(path, world_texts())
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def test_every_word_of_the_grammar_is_one_token(tokenizer: CLIPTokenizer) -> None:
    words = {
        word.strip(",")
        for spec in all_specs()
        for caption in captions(spec)
        for word in caption.replace("3d", "3 d").split()
    }
    words |= {word for text in world_texts() for word in text.strip().replace("3d", "3 d").split()} - {""}
    several = [word for word in words if len(tokenizer.tokenize(word.strip(","))) != 1]
    assert not several


def test_token_ids(tokenizer: CLIPTokenizer) -> None:
    size = len(tokenizer)
    ids = tokenizer("a red Mushroom", padding="max_length", max_length=77).input_ids
    assert len(ids) == tokenizer.model_max_length == 77
    assert (ids[0], ids[4]) == (size - 2, size - 1)
    assert ids[5:] == [size - 1] * 72
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == tokenizer.unk_token_id == size - 1
    assert sorted(tokenizer.get_vocab().values()) == list(range(size))
    assert ids == tokenizer("  A RED\n mushroom", padding="max_length", max_length=77).input_ids


@pytest.mark.parametrize(
    "text",
    ["a zebra wearing spectacles", "ein grünes häuschen", "蘑菇 🍄", "<b>&amp; 100% o'clock", "\x00\x7f ÿ"],
)
def test_any_prompt_round_trips(tokenizer: CLIPTokenizer, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")


def test_every_byte_has_tokens(tokenizer: CLIPTokenizer) -> None:
    vocabulary = tokenizer.get_vocab()
    single = {token for token in vocabulary if len(token) == 1}
    assert len(single) == 256
    assert all(f"{one}</w>" in vocabulary for one in single)


def test_training_is_deterministic_across_processes(folder: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from triplaneturbo.toyworld.captions.tokenizer import train_tokenizer, world_texts\n"
        "train_tokenizer(Path(sys.argv[1]), world_texts())"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path], check=True)
    assert all((tmp_path / name).read_bytes() == (folder / name).read_bytes() for name in FILES)


def test_most_frequent_pairs_are_merged(tmp_path: Path) -> None:
    train_tokenizer(tmp_path, ["abc", "ab", "ab", "bc bc"])
    lines = (tmp_path / "merges.txt").read_text().splitlines()
    # "bc" occurs three times with its word's end, "ab" as a whole word twice; then "abc" is left.
    assert lines == ["#version: 0.2", "b c</w>", "a b</w>", "a bc</w>"]


def test_unwritable_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="Cannot write"):
        train_tokenizer(tmp_path / "file", ["a"])
