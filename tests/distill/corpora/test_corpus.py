"""Corpora of millions of prompts: streaming, cleaning, shuffling, memory; precomputed embeddings."""

from __future__ import annotations

import json
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.helpers.paths import ROOT
from triplaneturbo.distill.corpora import embeddings
from triplaneturbo.distill.corpora.corpus import Corpus, Counts, hold_out, make_corpus
from triplaneturbo.distill.corpora.embeddings import Embeddings, encoder_mark, make_embeddings
from triplaneturbo.distill.corpora.shuffle import permuted_index, sample_indices
from triplaneturbo.distill.corpora.streams import stream
from triplaneturbo.errors import UserError
from triplaneturbo.models.catalog import SMALL

LINES = ["a cup", "", "A  cup", "a hat\t", "42", "x" * 1001, "a very old hat", "x" * 200_000, "a cap"]


def make(path: Path, folder: Path, column: str | None = None, without: list[str] | None = None) -> Corpus:
    for _ in make_corpus(path, folder, column, without or ()):
        pass
    return Corpus(folder)


def test_corpus_is_cleaned_and_skipped_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeff".encode() + "\n".join(LINES).encode() + b"\na red \xff\n" + "猫".encode())
    corpus = make(path, tmp_path / "corpus")
    assert list(corpus) == ["a cup", "a hat", "a very old hat", "a cap", "猫"]
    assert corpus.counts == Counts(blanks=1, duplicates=1, wrong=2, too_long=2)
    assert corpus.summary == "5 prompts; left out: 1 blanks, 1 duplicates, 2 wrong, 2 too long"


@pytest.mark.parametrize(
    "name",
    ["a.jsonl", "b.jsonl", *(f"{stem}.json" for stem in ("a", "bom", "b", "c", "d")),
     "a.csv", "b.csv", "c.csv", "a.txt"],
)  # fmt: skip
def test_corpus_file_formats(tmp_path: Path, name: str) -> None:
    contents = {
        "a.jsonl": '{"id": 1, "text": "a \\"cup\\""}\n{"text": "a hat, red"}\nno json\n',
        "b.jsonl": '"a \\"cup\\""\n\n"a hat, red"\n',
        "a.json": json.dumps(['a "cup"', "a hat, red"], indent=1),
        "bom.json": "\ufeff" + json.dumps(['a "cup"', "a hat, red"]),
        "b.json": json.dumps({"val": ["a cap"], "train": ['a "cup"', "a hat, red"], "n": {"train": ["no"]}}),
        "c.json": json.dumps([{"id": [1, {"prompt": "no"}], "prompt": 'a "cup"'}, {"prompt": "a hat, red"}]),
        "d.json": json.dumps({"0": {"caption": 'a "cup"'}, "1": {"n": 1, "caption": "a hat, red"}}),
        "c.csv": 'sep=;\r\nn;prompt\r\n1;"a ""cup"""\r\n2;a hat, red\r\n',
        "a.txt": '# mine\na "cup"\na hat, red\n',
        "a.csv": 'n,prompt\n1,"a ""cup"""\n2,"a hat, red"\n',
        "b.csv": "prompt\na \"cup\"\na hat, red\n",
    }  # fmt: skip
    path = tmp_path / name
    path.write_text(contents[name], encoding="utf-8")
    assert list(make(path, tmp_path / "corpus")) == ['a "cup"', "a hat, red"]


def test_column_option(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"train": ["a cup"], "val": ["a hat"]}))
    assert list(stream(path, "val")) == ["a hat"]
    with pytest.raises(UserError, match="no list of prompts under 'test'"):
        list(stream(path, "test"))


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.csv", b"0" * 10_000_000)


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("a.txt", lambda path: None, "Cannot read"),
    "another kind": ("a.pdf", lambda path: path.write_bytes(b"%PDF"), "should end in .txt, .jsonl, .csv"),
    "a zip bomb": ("a.csv", bomb, "compressed archive"),
    "UTF-16": ("a.txt", lambda path: path.write_text("a cup", encoding="utf-16"), "UTF-16"),
    "NUL bytes": ("a.txt", lambda path: path.write_bytes(b"a\0cup"), "NUL bytes"),
    "no prompt": ("a.txt", lambda path: path.write_text("\n12\n"), "contains no usable prompt"),
    "half a JSON": ("a.json", lambda path: path.write_text('{"train": ["a cup", "a'), "not valid JSON"),
    "a JSON's end": ("a.json", lambda path: path.write_text('{"train": ["a cup"}'), "not valid JSON"),
    "no comma": ("a.json", lambda path: path.write_text('["a cup" "a hat"]'), "not valid JSON"),
    "more after JSON": ("a.json", lambda path: path.write_text('["a cup"]\n["a hat"]'), "not valid JSON"),
    "Latin-1 JSON": ("a.json", lambda path: path.write_bytes(b'["a caf\xe9"]'), "is not UTF-8"),
    "a tab in JSON": ("a.json", lambda path: path.write_text('["a\tcup"]'), "not valid JSON"),
    "other JSON": ("a.json", lambda path: path.write_text('{"a": 1}'), "no list of prompts"),
    "columns": ("a.jsonl", lambda path: path.write_text('{"x": "a cup", "y": "a hat"}'), "Choose the column"),
    "no parquet": ("a.parquet", lambda path: path.write_text("a cup"), "is not a parquet file"),
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_files_are_refused_and_leave_nothing(tmp_path: Path, name: str) -> None:
    file, write, said = BAD[name]
    write(tmp_path / file)
    with pytest.raises(UserError, match=said) as error:
        make(tmp_path / file, tmp_path / "corpus")
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "corpus").glob("corpus.[nj]*"))
    assert not list((tmp_path / "corpus").glob("*.part"))


def test_parquet_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(UserError, match="pip install pyarrow"):
        list(stream(tmp_path / "a.parquet"))


def test_parquet_is_read_in_batches(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install pyarrow)")
    from pyarrow import parquet

    table = pyarrow.table(
        {"id": list(range(9000)), "caption": [f"a cup {'abc'[i % 3]}{i}" for i in range(9000)]}
    )
    parquet.write_table(table, tmp_path / "a.parquet")
    corpus = make(tmp_path / "a.parquet", tmp_path / "corpus")
    assert (len(corpus), corpus[8999]) == (9000, "a cup c8999")


def test_corpus_is_rebuilt_only_if_the_file_changes(tmp_path: Path) -> None:
    path, folder = tmp_path / "a.txt", tmp_path / "corpus"
    path.write_text("a cup\n")
    make(path, folder)
    before = (folder / "corpus.npy").stat().st_mtime_ns
    assert list(make_corpus(path, folder)) == []
    assert (folder / "corpus.npy").stat().st_mtime_ns == before
    path.write_text("a cup\na hat\n")
    assert list(make(path, folder)) == ["a cup", "a hat"]


@pytest.mark.parametrize("count", [1, 2, 5, 16, 17, 1000])
def test_every_epoch_is_another_permutation(count: int) -> None:
    epochs = [sample_indices(count, 3, epoch * count, count) for epoch in range(3)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    if count > 4:
        assert epochs[0] != epochs[1] != epochs[2]
        assert sample_indices(count, 4, 0, count) != epochs[0]
        assert epochs[0] != sorted(epochs[0])


def test_positions_depend_only_on_the_iteration() -> None:
    whole = sample_indices(1_700_000, 0, 0, 48)
    assert [number for start in range(0, 48, 8) for number in sample_indices(1_700_000, 0, start, 8)] == whole
    assert len(set(whole)) == 48


def test_neighbouring_prompts_are_spread() -> None:
    numbers = torch.tensor([permuted_index(i, 10_000, 1) for i in range(2000)], dtype=torch.float64)
    assert abs(float(torch.corrcoef(torch.stack((numbers[1:], numbers[:-1])))[0, 1])) < 0.1
    assert float(numbers.mean()) == pytest.approx(5000, rel=0.06)


def test_held_out_prompts_are_not_trained_on(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"a cup {letter}\n" for letter in "abcdAefghij"))
    held, others = hold_out(path, None, 3)
    assert (held, others) == (["a cup a", "a cup b", "a cup c"], ["a cup d", "a cup e", "a cup f"])
    corpus = make(path, tmp_path / "corpus", without=held)
    assert corpus[:] == [f"a cup {letter}" for letter in "defghij"]
    assert corpus.counts.held_out == 4
    assert make(path, tmp_path / "corpus")[:2] == ["a cup a", "a cup b"]  # created again: the options changed


@pytest.mark.parametrize(
    ("lists", "column", "held", "others"),
    [
        ({"train": ["a", "b"], "val": ["c", "a"], "test": ["d"]}, None, ["c", "a"], ["b"]),
        ({"train": ["a", "b"], "test": ["d", "e", "f"]}, None, ["d", "e"], ["a", "b"]),
        ({"train": ["a", "b"], "val": ["c", "d"]}, "val", ["c"], ["d"]),  # training prompts are not held out
        ({"train": ["a", "b", "c"]}, None, ["a"], ["b", "c"]),
        ({"train": ["a"]}, None, [], ["a"]),
    ],
)
def test_library_splits_define_the_held_out_prompts(
    tmp_path: Path, lists: dict[str, list[str]], column: str | None, held: list[str], others: list[str]
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(lists))
    assert hold_out(path, column, 2) == (held, others)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process")
def test_1_700_000_prompts_take_less_than_200_mb(tmp_path: Path) -> None:
    """In a subprocess: a file is created, indexed, and read in random order."""
    code = """
import sys
from pathlib import Path
from triplaneturbo.distill.corpora.corpus import Corpus, make_corpus
from triplaneturbo.distill.corpora.shuffle import sample_indices
path, folder = Path(sys.argv[1]) / "a.txt", Path(sys.argv[1]) / "corpus"
with path.open("w") as file:
    for i in range(1_700_000):
        file.write(f"a toy of kind {i % 997} with a hat of colour {i % 89}, seen from above, number {i}\\n")
for _ in make_corpus(path, folder):
    pass
corpus = Corpus(folder)
assert len(corpus) == 1_700_000
for iteration in range(100):
    prompts = [corpus[i] for i in sample_indices(len(corpus), 0, iteration * 8, 8)]
assert all(prompt.startswith("a toy of kind") for prompt in prompts)
(peak,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(int(peak.split()[1]) // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 200


def embed(prompts: list[str]) -> torch.Tensor:
    """Return a fixed embedding of each prompt, exactly representable in float16."""
    rows = [torch.randn(4, 3, generator=torch.Generator().manual_seed(sum(map(ord, p)))) for p in prompts]
    return torch.stack(rows).half().float()


def test_embeddings_are_saved_found_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "PER_SHARD", 3)
    path, folder = tmp_path / "a.txt", tmp_path / "to"
    path.write_text("".join(f"a cup {letter}\n" for letter in "abcdefgh"))
    corpus = make(path, folder)
    work = make_embeddings(corpus, embed, "mark", folder, batch=2)
    assert [next(work) for _ in range(2)] == [0, 3]
    work.close()  # stopped
    assert list(make_embeddings(corpus, embed, "mark", folder, batch=2)) == [3, 6, 8]
    asked: list[str] = []

    def on_the_fly(prompts: list[str]) -> torch.Tensor:
        asked.extend(prompts)
        return embed(prompts)

    kept = Embeddings(folder, on_the_fly, "mark", torch.device("cpu"))
    prompts = ["a cup h", "a hat", "a cup a", "a cap"]
    assert torch.equal(kept(prompts), embed(prompts))
    assert asked == ["a hat", "a cap"]
    with pytest.raises(UserError, match="those of another model"):
        Embeddings(folder, embed, "other", torch.device("cpu"))
    with pytest.raises(UserError, match="another model or file"):
        list(make_embeddings(corpus, embed, "other", folder))
    with pytest.raises(UserError, match="no embeddings in"):
        Embeddings(tmp_path, embed, "mark", torch.device("cpu"))


def test_embeddings_that_exceed_the_disk_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("a cup\n")
    corpus = make(tmp_path / "a.txt", tmp_path)
    monkeypatch.setattr(embeddings.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=3))
    with pytest.raises(UserError, match="1 prompts take"):
        list(make_embeddings(corpus, embed, "mark", tmp_path))
    assert not list(tmp_path.glob("embeds*"))


def test_encoder_mark_depends_on_its_files(tmp_path: Path) -> None:
    mark = encoder_mark(SMALL)
    assert mark == encoder_mark(SMALL)
    (tmp_path / "text_encoder").mkdir()
    (tmp_path / "text_encoder" / "config.json").write_bytes(
        (SMALL / "text_encoder" / "config.json").read_bytes()
    )
    assert encoder_mark(tmp_path) != mark
