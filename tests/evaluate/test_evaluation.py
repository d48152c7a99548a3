"""Evaluations: phases that resume after any kill, several processes, several methods in one table."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.evaluations import (
    GALLERY,
    PROTOCOL,
    SCORED,
    Counts,
    die_at_write,
    fake_generator,
    small_evaluation,
    tiny_clip,
)
from tests.helpers.workers import forked
from triplaneturbo.errors import UserError
from triplaneturbo.evaluate import phases
from triplaneturbo.evaluate.folder import Evaluation
from triplaneturbo.evaluate.open_clip_judge import OpenClipJudge
from triplaneturbo.evaluate.report import STAMP
from triplaneturbo.evaluate.scores import ObjectScore
from triplaneturbo.evaluate.sheet import SheetEntry, chosen_views, contact_sheet


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two CLIPs."""
    folder = tmp_path_factory.mktemp("clips")
    return [str(tiny_clip(folder / name, seed)) for seed, name in enumerate(("one", "two"))]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    """How many meshes are generated, views rendered, images and texts embedded, and CLIPs loaded."""
    counts = Counts()
    fake_generator(monkeypatch, counts)

    def counted(target: object, name: str, what: str) -> None:
        real = getattr(target, name)

        def call(*arguments: object) -> object:
            counts.count(what)
            return real(*arguments)

        monkeypatch.setattr(target, name, call)

    counted(phases, "render_views", "views")
    counted(OpenClipJudge, "embed_images", "images")
    counted(OpenClipJudge, "embed_texts", "texts")
    counted(OpenClipJudge, "__init__", "loads")
    return counts


def scores(folder: Path) -> list[dict]:
    return json.loads((folder / "scores.json").read_text())["results"]


def test_phases_are_not_repeated(tmp_path: Path, clips: list[str], counts: Counts) -> None:
    table = small_evaluation(tmp_path, clips[:1])
    assert counts == {"meshes": 3, "views": 2, "images": 3, "texts": 1, "loads": 1}
    counts.clear()
    assert small_evaluation(tmp_path, clips[:1]) == table
    assert counts == {}  # no mesh, no view, no embedding, and no CLIP is loaded
    small_evaluation(tmp_path, clips[1:])
    assert counts == {"images": 3, "texts": 1, "loads": 1}
    assert [result["clip"]["name"] for result in scores(tmp_path)] == ["one", "two"]
    counts.clear()
    small_evaluation(tmp_path, clips[:1], steps=1)
    assert counts["meshes"] == 3  # another K makes other meshes
    assert len(scores(tmp_path)) == 3


def test_table_has_every_row(tmp_path: Path, clips: list[str], counts: Counts) -> None:
    table = small_evaluation(tmp_path, clips[:1], seeds=(0, 1))
    assert table == (tmp_path / "table.md").read_text(encoding="utf-8")
    (row,) = (line for line in table.splitlines() if line.startswith("| small"))
    assert row.startswith("| small, seeds 0, 1 | one | 3 | 6 | ")
    # The first mesh of a process is not timed: seed 1 of the first prompt, seeds 0 and 1 of the second.
    assert row.split(" | ")[-2].startswith("1.75 ")
    assert "| *PRD (360K prompts) (quoted)* | ViT-B-32 | - | - | - | 68.2 | 32.3 | - | 1.23 | - |" in table
    assert "all 5 prompts (chance: 20 %)" in table
    assert "small, seeds 0, 1: 3 of 5 prompts" in table
    assert "empty, scored as blank images: 2 (nothing (seed 0); nothing (seed 1))" in table
    assert "one is not the CLIP of this protocol" in table
    assert STAMP not in table
    assert all(f"- {name}: {choice}." in table for name, choice in PROTOCOL.open_points.items())
    (result,) = scores(tmp_path)
    assert result["empty"] == ["nothing (seed 0)", "nothing (seed 1)"]
    nothing = [score for score in result["scores"] if score["empty"]]
    assert [score["prompt"] for score in nothing] == ["nothing", "nothing"]
    assert len(nothing[0]["view_ranks"]) == 4
    assert nothing[0]["cosine"] == nothing[1]["cosine"]
    means = [np.mean(score["cosine"]) for score in result["scores"]]
    assert result["figures"]["cosine"]["mean"] == pytest.approx(np.mean(means), abs=1e-6)
    assert len(list(tmp_path.glob("sheet-*.png"))) == 1


def test_untrained_judge_is_marked_everywhere(tmp_path: Path, counts: Counts) -> None:
    random = tiny_clip(tmp_path / "clip", trained=False)
    table = small_evaluation(tmp_path / "to", [str(random)])
    assert f"**{STAMP}**" in table
    (row,) = (line for line in table.splitlines() if line.startswith("| small"))
    assert STAMP in row
    assert json.loads((tmp_path / "to" / "scores.json").read_text())["stamp"] == STAMP


class Killed(BaseException):
    """Stands for the end of the process."""


def test_evaluation_resumes_after_any_write(
    tmp_path: Path, clips: list[str], counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = os.fsync, 0

    def fsync(descriptor: int) -> None:
        nonlocal written
        real(descriptor)
        written += 1
        if written == last:
            raise Killed

    last = -1
    monkeypatch.setattr(os, "fsync", fsync)
    small_evaluation(tmp_path / "whole", clips[:1], sheet=0)
    writes, whole = written, _without_times(tmp_path / "whole")
    once = dict(counts)
    assert writes >= 12
    for number in range(1, writes + 1):
        folder = tmp_path / str(number)
        counts.clear()
        written, last = 0, number
        with pytest.raises(Killed):
            small_evaluation(folder, clips[:1], sheet=0)
        last = -1
        small_evaluation(folder, clips[:1], sheet=0)
        assert _without_times(folder) == whole
        # At most the item in progress is made a second time.
        assert sum(counts[what] - once[what] for what in ("meshes", "views", "images", "texts")) <= 1


def test_killed_evaluation_resumes(tmp_path: Path, clips: list[str], counts: Counts) -> None:
    small_evaluation(tmp_path / "whole", clips[:1])
    process = forked(die_at_write, tmp_path / "killed", clips[0], 4)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list((tmp_path / "killed" / "meshes").glob("*.glb"))) == 1  # the second is incomplete
    small_evaluation(tmp_path / "killed", clips[:1])
    assert _without_times(tmp_path / "killed") == _without_times(tmp_path / "whole")


def _without_times(folder: Path) -> list[dict]:
    """The results without latencies: which mesh is the first of a process differs."""
    return [{key: value for key, value in result.items() if key != "latency"} for result in scores(folder)]


def test_processes_share_the_work(tmp_path: Path, clips: list[str], counts: Counts) -> None:
    whole = small_evaluation(tmp_path / "whole", clips)
    counts.clear()
    assert small_evaluation(tmp_path / "shared", clips, rank=1, size=2) is None
    assert counts["meshes"] == 1
    assert not (tmp_path / "shared" / "scores.json").exists()
    shared = small_evaluation(tmp_path / "shared", clips, rank=0, size=2)
    assert counts["meshes"] == 3
    assert counts["images"] == 6
    assert shared is not None
    assert _without_times(tmp_path / "shared") == _without_times(tmp_path / "whole")
    assert whole is not None


def test_folder_of_another_evaluation_is_refused(tmp_path: Path) -> None:
    Evaluation(tmp_path, PROTOCOL, GALLERY).claim()
    Evaluation(tmp_path, PROTOCOL, GALLERY).claim()
    with pytest.raises(UserError, match="another list of prompts"):
        Evaluation(tmp_path, PROTOCOL, SCORED).claim()


def test_sheet_shows_four_sides_and_hits() -> None:
    settings = PROTOCOL.views
    assert chosen_views(settings) == [0, 1, 2, 3]
    views = (
        np.zeros((4, 32, 32, 3), dtype=np.uint8) + np.arange(0, 200, 50, dtype=np.uint8)[:, None, None, None]
    )
    entry = SheetEntry("a cup " * 60, views, ObjectScore((0.1,) * 4, (0, 1, 2, 3), 0))
    data = contact_sheet([entry] * 5, settings, "title")
    path = np.asarray(Image.open(io.BytesIO(data)))
    first = path[10 + 16 + 72, 10 + 72 : 10 + 4 * 144 : 144, 0]  # the middle of each view
    assert first.tolist() == [0, 50, 100, 150]
    green = (path[..., 1].astype(int) - path[..., 0] > 60).any(axis=0)
    assert green[10 : 10 + 144].any()  # the rank of the first view, a hit
