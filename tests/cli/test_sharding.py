"""A batch shared by several processes: each prompt generated once, one manifest, resumable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.tiny import tiny_model
from triplaneturbo.__main__ import main
from triplaneturbo.cli.sharding import Shard, shard_from_environment
from triplaneturbo.errors import UserError

PROMPTS = ["a red cup", "a blue box", "a green hat", "a white duck", "a black cat"]


def test_shards_cover_all_prompts() -> None:
    items = [(prompt, seed) for prompt in "abcde" for seed in range(2)]
    parts = [Shard(rank, 2).select(items, lambda item: item[0]) for rank in range(2)]
    assert sorted(parts[0] + parts[1]) == items
    assert {prompt for prompt, _ in parts[0]} == {"a", "c", "e"}
    assert Shard().select(items, lambda item: item[0]) == items


def test_shard_from_launcher_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shard_from_environment() == Shard(0, 1, 0)
    for name, value in (("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert shard_from_environment() == Shard(5, 8, 1)
    assert shard_from_environment().device("cpu") == "cpu"
    for wrong in ("8", "-1", "x"):
        monkeypatch.setenv("RANK", wrong)
        with pytest.raises(UserError, match="use accelerate launch"):
            shard_from_environment()


def test_two_processes_share_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_model(tmp_path / "model")
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    what = ["generate", "--prompts", str(tmp_path / "prompts.txt"), "-o", str(tmp_path / "meshes")]
    what += ["--model", str(tmp_path / "model"), "--device", "cpu", "--quiet"]
    what += ["--steps", "1", "--resolution", "16", "--unwrap", "none"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def manifest() -> list[dict]:
        lines = (tmp_path / "meshes" / "manifest.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    done = subprocess.run(
        [*launch, "-m", "triplaneturbo", *what], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    entries = manifest()
    assert sorted(entry["prompt"] for entry in entries) == sorted(PROMPTS)
    paths = [tmp_path / "meshes" / entry["files"][0]["path"] for entry in entries]
    times = {path: path.stat().st_mtime_ns for path in paths}
    paths[1].unlink()
    with monkeypatch.context() as patch:  # as the launcher tells them; one after the other will do here
        patch.setenv("WORLD_SIZE", "2")
        for rank in "01":
            patch.setenv("RANK", rank)
            assert main(what) == 0
    assert sorted(entry["prompt"] for entry in manifest()) == sorted(PROMPTS)
    assert {path: path.stat().st_mtime_ns for path in paths if path != paths[1]} == {
        path: time for path, time in times.items() if path != paths[1]
    }
    assert paths[1].is_file()
    assert main(what) == 0  # one process goes on with what two began
    assert paths[1].is_file()
