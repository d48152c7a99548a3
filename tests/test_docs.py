"""The documentation: its links and paths exist, and its commands have the options that they name."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from app import options as app_options
from tests.helpers.paths import ROOT
from triplaneturbo.__main__ import parser
from triplaneturbo.toyworld import __main__ as toyworld

README_LINES = 150
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
PACKAGE = ROOT / "triplaneturbo"
# Paths in prose begin with a folder of the checkout or of the package.
FOLDERS = sorted(
    path.name
    for parent in (ROOT, PACKAGE)
    for path in parent.iterdir()
    if path.is_dir() and path.name.strip("_.") and path.name not in {"outputs", "runs", ".venv", ".git"}
)
PATH = re.compile(rf"(?<![\w/.~:-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*\w[/\w]*")
# Folders that users create; a fresh clone lacks them.
USER_FOLDERS = ("checkpoints/full", "checkpoints/adapters", "checkpoints/clip")
LINK = re.compile(r"\]\((?!https?://)([^)\s]+)\)")


def documents() -> Iterator[tuple[Path, str]]:
    for path in DOCUMENTS:
        yield path, path.read_text(encoding="utf-8")


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[str]:
    """The commands of a document's bash blocks, each on one line and without its comment."""
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield line.strip()


def arguments(line: str) -> list[str]:
    """A command's arguments, as a shell splits them."""
    return shlex.split(line, comments=True)


def test_links_have_targets() -> None:
    broken = []
    for path, text in documents():
        for target in LINK.findall(text):
            name, _, anchor = target.partition("#")
            place = (path.parent / name).resolve() if name else path
            if not place.exists() or (anchor and anchor not in anchors(place)):
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert not broken


def test_named_files_exist() -> None:
    missing = []
    for path, text in documents():
        text = LINK.sub("]", text)
        named = [name for name in PATH.findall(text) if not name.startswith(USER_FOLDERS)]
        missing += [
            f"{path.relative_to(ROOT)}: {name}"
            for name in named
            if not (ROOT / name).exists() and not (PACKAGE / name).exists()
        ]
    assert not missing


def test_named_modules_exist() -> None:
    missing = []
    for path, text in documents():
        for name in re.findall(r"(?<![\w/.])(?:triplaneturbo|benchmarks)(?:\.[a-z]\w*)+", text):
            place = ROOT / name.replace(".", "/")
            if not name.endswith((".json", ".md")) and not (
                place.is_dir() or place.with_suffix(".py").is_file()
            ):
                missing.append(f"{path.relative_to(ROOT)}: {name}")
    assert not missing


def test_named_tests_exist() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    tests = set(re.findall(r"def (test_\w+)\(", sources))
    named = {name for _, text in documents() for name in re.findall(r"`(test_[a-z0-9_]+)`", text)}
    assert not named - tests


def test_python_blocks_compile() -> None:
    blocks = [
        (path.name, block)
        for path, text in documents()
        for block in re.findall(r"```python\n(.*?)```", text, re.S)
    ]
    assert blocks
    for name, block in blocks:
        compile(block, name, "exec")


def test_readme_is_short_and_starts_with_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= README_LINES
    first, second, *_ = commands(text)
    assert (arguments(first), arguments(second)) == (["make", "app"], ["make", "test"])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_parse(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command names an existing subcommand and existing options with possible values."""
    wrong = []
    for line in commands(path.read_text(encoding="utf-8")):
        words = arguments(line)
        if words[0] == "triplaneturbo":
            parse, words = parser(), words[1:]
        elif "-m triplaneturbo " in line:  # also after `accelerate launch`
            parse, words = parser(), words[words.index("triplaneturbo") + 1 :]
        elif words[:2] == ["python", "app.py"]:
            parse, words = app_options(), words[2:]
        else:
            continue
        try:
            parse.parse_args(words)
        except SystemExit as end:
            if end.code:
                wrong.append(f"{line}: {capsys.readouterr().err}")
    assert not wrong


def test_documented_toy_world_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = []
    for path, text in documents():
        for line in commands(text):
            words = arguments(line)
            if words[1:3] != ["-m", "triplaneturbo.toyworld"]:
                continue
            with pytest.raises(SystemExit) as end:
                toyworld.main([words[3], "--help"])
            told = capsys.readouterr().out
            options = [word for word in words[4:] if word.startswith("-")]
            if end.value.code or any(not re.search(rf"{option}\b", told) for option in options):
                wrong.append(f"{path.relative_to(ROOT)}: {line}")
    assert not wrong


def test_every_option_is_documented() -> None:
    """docs/options.md lists all commands and all of their options."""
    text = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    (subparsers,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    missing = []
    for name, command in subparsers.choices.items():
        assert f"### {name}\n" in text
        missing += [
            f"{name} {option}"
            for action in command._actions
            for option in action.option_strings
            if option not in ("-h", "--help") and f"`{option}" not in text
        ]
    assert not missing
