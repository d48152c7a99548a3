"""Prompt lists from pasted text and all file types; everything left out is counted."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.pace import patience
from tests.helpers.paths import ROOT
from tests.helpers.prompt_files import write
from triplaneturbo.distill.corpora import prompt_list as prompts_module
from triplaneturbo.distill.corpora.prompt_list import columns, read_file, read_text, split
from triplaneturbo.errors import UserError

LIBRARY = ROOT.parent / "shared" / "data" / "dreamfusion_415_prompt_library.json"


def test_skipped_lines_are_counted() -> None:
    text = "\n".join(
        [
            "a red duck",
            "",
            "  \t",
            "A RED  duck",
            "a red duck",
            "12.5",
            "---",
            "x" * 1001,
            "a\x07bell",
            "🍄",
            "猫",
        ]
    )
    actual = read_text(text)
    assert actual.prompts == ("a red duck", "🍄", "猫")
    assert (actual.blanks, actual.duplicates, actual.wrong, actual.too_long) == (2, 2, 3, 1)
    assert actual.summary == (
        "3 prompts; left out: 2 blank, 2 duplicate, 3 not text, 1 longer than 1000 characters"
    )
    assert len(text.splitlines()) == len(actual.prompts) + 2 + 2 + 3 + 1


def test_templates() -> None:
    actual = read_text(
        "{animal: cat, dog,}\na {red|blue} {animal}\na {Animal} on a {animal}\n{|very }old hat"
    )
    assert actual.prompts == (
        "a red cat", "a red dog", "a blue cat", "a blue dog", "a cat on a cat", "a dog on a dog", "old hat",
        "very old hat",
    )  # fmt: skip
    assert not actual.notes


def test_invalid_templates_are_reported() -> None:
    many = "".join("{a|b|c|d|e|f|g|h|i|j}" for _ in range(4))
    actual = read_text(f"a {{dragon}}\n{many}\na cup")
    assert actual.prompts == ("a cup",)
    assert actual.wrong == 2
    assert "'a {dragon}'" in actual.notes[0]
    assert "10,000 prompts" in actual.notes[1]


TABLES = {
    "lines.txt": ("\ufeffa cup\r\na hat\r\n", None, ["a cup", "a hat"], []),
    "bare.csv": ("a cup\na hat\n", None, ["a cup", "a hat"], []),
    "one.csv": ("prompt\na dress, red, on a hook\n\n", None, ["a dress, red, on a hook"], []),
    "many.csv": ('id;caption;note\n1;"a cup; old";x\n2;a hat;y\n', None, ["a cup; old", "a hat"],
                 ["id", "caption", "note"]),
    "chosen.csv": ("id,de,en\n1,eine Tasse,a cup\n", "en", ["a cup"], ["id", "de", "en"]),
    "headless.csv": ("1,a red cup\n2,a blue hat\n", "2", ["a red cup", "a blue hat"], ["1", "2"]),
    "list.json": (["a cup", "a hat"], None, ["a cup", "a hat"], []),
    "objects.json": ([{"id": 1, "prompt": "a cup"}, {"id": 2}], None, ["a cup"], ["id", "prompt"]),
    "ids.json": ({"x1": "a cup", "x2": "a hat"}, None, ["a cup", "a hat"], []),
    "sets.json": ({"val": ["a cap"], "train": ["a cup", "a hat"]}, None, ["a cup", "a hat"],
                  ["val", "train"]),
    "val.json": ({"val": ["a cap"], "train": ["a cup", "a hat"]}, "val", ["a cap"], ["val", "train"]),
    "deep.json": ({"train": [{"prompt": "a cup", "id": 3}]}, None, ["a cup"], ["prompt", "id"]),
    "lines.jsonl": ('{"text": "a cup"}\n\n"a hat"\n', None, ["a cup", "a hat"], []),
    "more.jsonl": ('{"n": 1, "de": "Tasse"}\n{"n": 2, "en": "a cup"}\n', "en", ["a cup"], ["n", "de", "en"]),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_prompt_files(tmp_path: Path, name: str) -> None:
    content, column, prompts, names = TABLES[name]
    path = write(tmp_path / name, content)
    assert list(read_file(path, column).prompts) == prompts
    assert columns(path) == names


def test_notes_explain_the_choices(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,caption\n1,a cup\n,\n3,\n")
    actual = read_file(path)
    assert (actual.prompts, actual.blanks) == (("a cup",), 2)
    assert "is the header: id, caption" in actual.notes[0]
    assert "taken from caption; other columns: id" in actual.notes[1]
    broken = read_file(write(tmp_path / "a.jsonl", '"a cup"\n{"a": \n[1, 2]\n'))
    assert (broken.prompts, broken.wrong) == (("a cup",), 1)
    assert broken.notes == ("1 line is not valid JSON and left out.",)


def a_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.csv", b"0" * 10_000_000)


BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "missing": ("a.txt", lambda path: None, "Cannot read"),
    "a folder": ("a.txt", lambda path: path.mkdir(), "Cannot read"),
    "another kind": ("a.docx", lambda path: path.write_text("a cup"), "should end in .txt, .csv"),
    "half of UTF-16": ("a.txt", lambda path: path.write_bytes(b"\xff\xfea\0 "), "is not UTF-16 text"),
    "UTF-16 with NULs": ("a.txt", lambda path: path.write_text("a\0", encoding="utf-16"), "NUL characters"),
    "Latin-1": ("a.csv", lambda path: path.write_text("prompt\na chaîse", encoding="latin-1"), "CSV UTF-8"),
    "UTF-16 unmarked": ("a.csv", lambda path: path.write_text("a cup", encoding="utf-16-le"), "NUL bytes"),
    "NUL bytes": ("a.json", lambda path: path.write_bytes(b'["a\0cup"]'), "NUL bytes"),
    "a zip bomb": ("a.csv", a_zip, "compressed archive"),
    "gzip": ("a.jsonl", lambda path: path.write_bytes(b"\x1f\x8b\x08 and more"), "compressed archive"),
    "a picture": ("a.txt", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe"), "is not UTF-8 text"),
    "half of a JSON": ("a.json", lambda path: path.write_text('["a cup", '), "is not valid JSON"),
    "a deep JSON": ("a.json", lambda path: path.write_text("[" * 200_000), "is not valid JSON"),
    "a JSON number": ("a.json", lambda path: path.write_text("5"), "contains no list of prompts"),
    "no JSON lines": ("a.jsonl", lambda path: path.write_text("a cup\na hat"), "no valid JSON on any line"),
    "no column": ("a.csv", lambda path: path.write_text("x1,x2\na cup,a hat\n"), "Choose the column"),
    "a broken CSV": ("a.csv", lambda path: path.write_text('prompt,n\n"' + "x" * 200_000), "not valid CSV"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_invalid_files_are_refused(tmp_path: Path, name: str) -> None:
    file, make, said = BAD[name]
    make(tmp_path / file)
    with pytest.raises(UserError, match=said) as error:
        read_file(tmp_path / file)
    assert "\n" not in str(error.value)


def test_missing_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose from id, caption"):
        read_file(write(tmp_path / "a.csv", "id,caption\n1,a cup\n"), "title")
    with pytest.raises(UserError, match="without columns"):
        read_file(write(tmp_path / "a.txt", "a cup\n"), "title")


def test_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge.csv"
    with path.open("wb") as file:
        file.write(b"prompt\n")
        file.truncate(200_000_000)
        file.seek(7)
        file.write(b"a cup\n" * 3_000_000)  # text as far as is looked at
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from triplaneturbo.distill.corpora.prompt_list import read_file\n"
        "from triplaneturbo.errors import UserError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: read_file(Path(sys.argv[1]))\nexcept UserError as error: print(error)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True,
        cwd=ROOT, timeout=patience(60),
    ).stdout.splitlines()  # fmt: skip
    assert "is larger than 16 MB" in output[0]
    assert int(output[1]) < 64


def test_too_many_prompts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts_module, "MOST_PROMPTS", 3)
    assert len(read_text("a\nb\nc").prompts) == 3
    with pytest.raises(UserError, match="more than 3 prompts"):
        read_text("a\nb\nc\nd")


@pytest.mark.skipif(not LIBRARY.is_file(), reason="the shared prompt library is not on this machine")
def test_public_prompt_library_is_read_completely() -> None:
    assert columns(LIBRARY) == ["train", "val", "test"]
    train, val = read_file(LIBRARY), read_file(LIBRARY, "val")
    assert (len(train.prompts), len(val.prompts)) == (415, 16)
    assert (train.blanks, train.duplicates, train.wrong, train.too_long) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("count", "share", "held"), [(10, 0.2, 2), (10, 0, 0), (2, 0.01, 1), (1, 0.5, 0), (9, 0.9, 8)]
)
def test_held_out_share(count: int, share: float, held: int) -> None:
    prompts = [f"a cup {letter}" for letter in "abcdefghij"[:count]]
    learned, judged = split(prompts, share, 0)
    assert len(judged) == held
    assert sorted(learned + judged) == prompts
    assert list(learned) == sorted(learned)
    assert split(prompts, share, 0) == (learned, judged)


@pytest.mark.parametrize("share", [-0.1, 1, float("nan"), "half", True])
def test_invalid_shares_are_refused(share: object) -> None:
    with pytest.raises(UserError, match=r"0 to 0\.9"):
        split(["a", "b"], share, 0)  # type: ignore[arg-type]
