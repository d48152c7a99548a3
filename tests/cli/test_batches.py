"""Batches: prompts, seeds and names from files of every kind, and manifests that several runs write."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from tests.helpers.prompt_files import write
from tests.helpers.quick import QUICK, load_once
from triplaneturbo.__main__ import main
from triplaneturbo.cli import manifest as manifest_module
from triplaneturbo.cli.manifest import Manifest
from triplaneturbo.distill.corpora.prompt_list import Line, read_batch, read_file, read_text
from triplaneturbo.errors import UserError
from triplaneturbo.serving import engine
from triplaneturbo.serving.file_stems import safe_stem, unique_stems
from triplaneturbo.utils.atomic_files import write_atomically

Cup, Hat = Line("a cup"), Line("a hat")

BATCHES: dict[str, tuple[object, list[Line]]] = {
    "seeds.csv": ("prompt,seed\na cup,3\na hat,\n", [Line("a cup", 3), Hat]),
    "names.csv": (
        "seed;name;prompt;note\n7.0;the cup;a cup;x\n;;a hat;y\n",
        [Line("a cup", 7, "the cup"), Hat],
    ),
    "ids.csv": ("id,caption\n01,a cup\n02,a cup\n", [Line("a cup", None, "01"), Line("a cup", None, "02")]),
    "both.csv": ("id,name,prompt\n1,one,a cup\n", [Line("a cup", None, "one")]),
    "named.csv": ("name,seed\na cup,1\na hat,2\n", [Line("a cup", 1), Line("a hat", 2)]),
    "excel.csv": ("sep=;\r\nid;prompt\r\n1;a cup, old\r\n", [Line("a cup, old", None, "1")]),
    "quoted.csv": ('"sep=;"\r\nprompt;seed\r\na cup;4\r\n', [Line("a cup", 4)]),
    "pipes.csv": ("id|prompt\n1|a cup\n", [Line("a cup", None, "1")]),
    "utf16.csv": ("prompt\tseed\na cup\t5\n".encode("utf-16"), [Line("a cup", 5)]),
    "headless.csv": ("a cup,3\na hat,4\n", [Cup, Hat]),
    "mark.csv": ("\ufeffprompt,seed\r\na cup,3\r\n", [Line("a cup", 3)]),
    "captions.json": (
        {"0": {"caption": "a cup"}, "1": {"caption": "a hat", "seed": 2}},
        [Line("a cup", None, "0"), Line("a hat", 2, "1")],
    ),
    "texts.json": ({"x1": "a cup"}, [Line("a cup", None, "x1")]),
    "list.json": (["a cup", "a hat"], [Cup, Hat]),
    "objects.json": (
        [{"prompt": "a cup", "seed": 1, "name": 5}, "a hat"],
        [Line("a cup", 1, "5"), Hat],
    ),
    "one.json": ({"prompt": "a cup", "seed": 1}, [Line("a cup", 1)]),
    "deep.json": ({"data": [{"prompt": "a cup", "seed": "8"}]}, [Line("a cup", 8)]),
    "lists.json": ({"prompt": ["a cup", "a hat"], "seed": [4]}, [Line("a cup", 4), Hat]),
    "lines.jsonl": ('{"prompt": "a cup", "seed": 2}\n"a hat"\n', [Line("a cup", 2), Hat]),
    "rows.txt": ("# mine\n01 | a cup\n\n02|a hat\n", [Line("a cup", None, "01"), Line("a hat", None, "02")]),
    "head.txt": ("id|prompt\n01|a cup\n", [Line("a cup", None, "01")]),
    "mixed.txt": ("a cup\nred|blue hat\n", [Cup, Line("red|blue hat")]),
    "templates.txt": ("a {cup|hat}\n  # not this\n", [Cup, Hat]),
    "no-suffix": ("a cup\n", [Cup]),
}


@pytest.mark.parametrize("name", BATCHES)
def test_prompt_file_formats(tmp_path: Path, name: str) -> None:
    content, lines = BATCHES[name]
    path = write(tmp_path / name, content)
    assert list(read_batch(path).lines) == lines
    # Fine-tuning takes the same prompts, each once.
    assert list(read_file(path).prompts) == list(dict.fromkeys(line.prompt for line in lines))


def test_lines_with_other_seed_or_name_are_no_duplicates(tmp_path: Path) -> None:
    text = "prompt,seed,name\na cup,1,\nA  cup,1,\na cup,2,\na cup,1,x\na cup,1,x\n"
    listed = read_batch(write(tmp_path / "a.csv", text))
    assert listed.lines == (Line("a cup", 1), Line("a cup", 2), Line("a cup", 1, "x"))
    assert listed.duplicates == 2


def test_summary_names_the_columns(tmp_path: Path) -> None:
    listed = read_batch(write(tmp_path / "a.csv", "id,caption,seed,note\n1,a cup,2,x\n"))
    assert listed.notes[-1] == "Read: prompts from caption, seeds from seed, names from id; not used: note."
    listed = read_batch(write(tmp_path / "a.json", {"0": {"caption": "a cup"}}))
    assert listed.notes == ("Read: prompts from caption, names from the keys.",)
    listed = read_text("# a comment\n1|a cup\n")
    assert (listed.prompts, listed.comments) == (("a cup",), 1)
    assert listed.notes == ("The lines have the form id|prompt.",)
    assert listed.summary == "1 prompt; left out: 1 commented out"
    assert 'has a "|" and others do not' in read_text("a cup\nred|blue hat").notes[0]


@pytest.mark.parametrize("seed", ['"x"', "1.5", "[1]", "true", "1e400"])
def test_invalid_seed_is_refused(tmp_path: Path, seed: str) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"prompt": "a cup", "seed": {seed}}}\n')
    with pytest.raises(UserError, match=r"The seed of 'a cup' in .* should be an integer, not"):
        read_batch(path)


HOSTILE = {
    "../../etc/passwd": "etc_passwd",
    "/abs/olute": "abs_olute",
    "a\0b": "a_b",
    "CON": "_CON",
    "con.txt": "_con.txt",
    "lpt9": "_lpt9",
    "...": "",
    "-rf": "rf",
    ".hidden": "hidden",
    "v1.2": "v1.2",
    "Big One!": "Big_One",
    "C:\\x": "C_x",
    "\u202egpj": "gpj",
    "猫": "猫",
    "cafe\u0301": "caf\xe9",
    "\udcff": "",
    "x" * 300: "x" * 120,
    "猫" * 300: "猫" * 40,
    "a\nb": "a_b",
    "name. ": "name",
}


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:30])
def test_names_are_sanitized(name: str) -> None:
    stem = safe_stem(name)
    assert stem == HOSTILE[name]
    assert safe_stem(stem) == stem
    assert len(f"{stem}-10000.usdz".encode()) < 255


def test_names_that_collide_on_a_file_system_are_numbered() -> None:
    assert unique_stems(["a", "A", "a-2", "a", "b", "\xe9", "E\u0301"]) == [
        *("a", "A-2", "a-2-2", "a-3", "b", "\xe9", "E\u0301-2")
    ]
    assert len(set(unique_stems(["a"] * 10_000))) == 10_000


Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `generate --prompts FILE -o out` in an empty folder: exit code, standard output, standard error."""
    monkeypatch.setattr(engine, "_load", load_once)
    monkeypatch.chdir(tmp_path)

    def run(file: str, *more: str) -> tuple[int, str, str]:
        code = main(["generate", "--prompts", file, "-o", "out", *more, *QUICK])
        return code, *capsys.readouterr()

    return run


def made(out: str) -> list[tuple[str, int, str]]:
    return [(mesh["prompt"], mesh["seed"], mesh["files"][0]["path"]) for mesh in json.loads(out)["meshes"]]


def test_table_with_seeds_and_names(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text(
        "prompt,seed,name\na red cup,3,../../up\na hat,,Con\na hat,,con\n,,\na hat,9,\na hat,9,\n"
    )
    code, out, err = cli("p.csv", "--seed", "1", "--json")
    assert code == 0, err
    *named, (prompt, seed, path) = made(out)
    assert named == [
        ("a red cup", 3, "out/up.glb"),
        ("a hat", 1, "out/_Con.glb"),
        ("a hat", 1, "out/_con-2.glb"),
    ]
    assert (prompt, seed) == ("a hat", 9)
    assert re.fullmatch(r"out/a-hat-9-[0-9a-f]{8}\.glb", path)
    assert "p.csv: 4 prompts; left out: 1 blank, 1 duplicate\n" in err
    assert "Names changed to safe, unique ones: '../../up': up; 'Con': _Con; 'con': _con-2." in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "p.csv"]

    assert json.loads(cli("p.csv", "--seed", "1", "--json")[1])["skipped"] == 4
    # Under the same name another prompt is another mesh.
    file.write_text("prompt,seed,name\na blue cup,3,up\n")
    assert made(cli("p.csv", "--json")[1]) == [("a blue cup", 3, "out/up.glb")]
    assert json.loads(cli("p.csv", "--json")[1])["skipped"] == 1


def test_count_starts_at_the_seed_of_the_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a cup", "seed": 5, "name": "cup"}\n"a hat"\n')
    code, out, _ = cli("p.jsonl", "--count", "2", "--json")
    assert code == 0
    assert [seed for _, seed, _ in made(out)] == [5, 6, 0, 1]
    assert [path for _, _, path in made(out)][:2] == ["out/cup-1.glb", "out/cup-2.glb"]


def test_standard_input(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("a cup\n# no\n".encode("utf-16"))))
    code, out, err = cli("-", "--json")
    assert (code, [prompt for prompt, _, _ in made(out)]) == (0, ["a cup"]), err
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert cli("-")[0] == 2


@pytest.mark.parametrize(
    ("content", "more", "sentence"),
    [
        ("prompt,seed\na cup,-1\n", [], "'a cup' in 'p.csv': The seed should be 0 to 4294967295, not -1"),
        ("prompt,seed\na cup,4294967295\n", ["--count", "2"], "'a cup' in 'p.csv': The seed should be"),
        ("prompt,seed\na cup,x\n", [], "The seed of 'a cup' in 'p.csv' should be an integer, not 'x'"),
        ("x1,x2\na cup,a hat\n", [], "Choose the column of 'p.csv'"),
        ("x1,x2\na cup,a hat\n", ["--column", "x3"], "'p.csv' has no column 'x3'"),
        ("prompt,seed\n", [], "'p.csv' contains no prompt; write one per line"),
        ("prompt\na cup\n" * 6000, ["--count", "10001"], "at most 10000 meshes"),
    ],
)
def test_invalid_prompt_files_are_refused(
    cli: Cli, tmp_path: Path, content: str, more: list[str], sentence: str
) -> None:
    (tmp_path / "p.csv").write_text(content)
    code, out, err = cli("p.csv", *more)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert sentence in err
    assert not (tmp_path / "out").exists()


def test_column_option(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("de,en\neine Tasse,a cup\n")
    assert [prompt for prompt, _, _ in made(cli("p.csv", "--column", "en", "--json")[1])] == ["a cup"]


def entry(folder: Path, name: str) -> dict:
    path = write_atomically(folder / name, name.encode())
    digest = hashlib.sha256(name.encode()).hexdigest()
    return {"prompt": name, "files": [{"path": str(path), "sha256": digest}]}


def recorded(folder: Path) -> list[str]:
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    return sorted(json.loads(line)["prompt"] for line in lines)


def test_concurrent_manifest_writes_lose_no_entry(tmp_path: Path) -> None:
    names = [[f"{run}-{number}" for number in range(15)] for run in "abc"]
    manifests = [Manifest(tmp_path) for _ in names]  # all read it while it is empty
    start = threading.Barrier(len(names))

    def work(manifest: Manifest, own: list[str]) -> None:
        start.wait()
        for name in own:
            manifest.add(entry(tmp_path, name))

    threads = [threading.Thread(target=work, args=pair) for pair in zip(manifests, names, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorded(tmp_path) == sorted(name for own in names for name in own)


def test_concurrent_runs_write_complete_files(cli: Cli, tmp_path: Path) -> None:
    """The second process starts while the first runs: both generate the mesh, the manifest lists it once."""
    (tmp_path / "p.txt").write_text("a cup\n")
    late = Manifest(tmp_path / "out")
    (mesh,) = json.loads(cli("p.txt", "--json")[1])["meshes"]
    late.add(mesh)
    assert recorded(tmp_path / "out") == ["a cup"]
    assert json.loads(cli("p.txt", "--json")[1])["skipped"] == 1


def test_missing_file_locks_warn_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", refuse)
    first, second = Manifest(tmp_path), Manifest(tmp_path)
    for manifest, name in ((first, "a"), (second, "b"), (first, "c")):
        manifest.add(entry(tmp_path, name))
    assert recorded(tmp_path) == ["a", "b", "c"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2  # one for each run
    assert all("Cannot lock files in" in line and "only one process" in line for line in said)


def test_lock_timeout_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_module, "LONGEST_WAIT", 0.05)
    with (
        FileLock(tmp_path / ".manifest.jsonl.lock"),
        pytest.raises(UserError, match=r"has locked .*manifest"),
    ):
        Manifest(tmp_path).add(entry(tmp_path, "a"))
