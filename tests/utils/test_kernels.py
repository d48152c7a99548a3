"""Where compiled kernels are kept, and what is said while they are compiled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numba
import pytest
from numba.core.caching import UserProvidedCacheLocator

from tests.helpers.paths import ROOT
from triplaneturbo.cli import environment_checks
from triplaneturbo.utils import kernels


@pytest.fixture
def unwritable(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that cannot be written, whoever runs the tests; what is beside the source is one of them."""
    folders = [kernels.SOURCE / "__pycache__"]
    really = kernels._is_writable
    monkeypatch.setattr(kernels, "_is_writable", lambda folder: folder not in folders and really(folder))
    return folders


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    return tmp_path / "cache" / "triplaneturbo" / "kernels"


def test_cache_is_beside_a_writable_source(home: Path) -> None:
    assert kernels.cache_folder() == kernels.SOURCE / "__pycache__"
    kernels._cache_enabled.__wrapped__()
    assert numba.config.CACHE_DIR == ""
    assert not home.exists()


def test_cache_of_a_read_only_source_is_the_users(
    home: Path, tmp_path: Path, unwritable: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what was compiled beside the source, whichever part of the package it belongs to."""
    monkeypatch.setattr(kernels, "SOURCE", tmp_path / "package")
    beside = tmp_path / "package" / "mesh" / "__pycache__"
    beside.mkdir(parents=True)
    (tmp_path / "package" / "mesh" / "atlas.py").touch()
    for name in ("atlas.fill-3.py311.nbi", "atlas.fill-3.py311.1.nbc", "atlas.cpython-311.pyc"):
        (beside / name).write_text(name)
    kernels._cache_enabled.__wrapped__()
    assert numba.config.CACHE_DIR == str(home) == str(kernels.cache_folder())
    (folder,) = home.iterdir()
    assert folder.name == UserProvidedCacheLocator.get_suitable_cache_subpath(str(beside.parent / "atlas.py"))
    assert sorted(path.name for path in folder.iterdir()) == [
        "atlas.fill-3.py311.1.nbc",
        "atlas.fill-3.py311.nbi",
    ]
    (folder / "atlas.fill-3.py311.nbi").write_text("newer")
    kernels._cache_enabled.__wrapped__()
    assert (folder / "atlas.fill-3.py311.nbi").read_text() == "newer"


def test_numba_cache_dir_has_precedence(
    home: Path, tmp_path: Path, unwritable: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "given"))
    assert kernels.cache_folder() == tmp_path / "given"
    unwritable.append(tmp_path / "given")
    kernels._cache_enabled.__wrapped__()
    assert str(home) == numba.config.CACHE_DIR


def test_unwritable_cache_is_reported(home: Path, unwritable: list[Path]) -> None:
    assert environment_checks.compiled_kernels().remedy == ""
    unwritable.append(home)
    kernels._cache_enabled.__wrapped__()
    assert numba.config.CACHE_DIR == ""
    assert kernels.cache_folder() is None
    assert "NUMBA_CACHE_DIR" in environment_checks.compiled_kernels().remedy
    assert _said_while_compiling() == [kernels.COMPILING_EACH_TIME]


def _said_while_compiling() -> list[str]:
    said: list[str] = []
    twice = numba.njit(lambda x: 2 * x)
    with kernels.announced(said.append):
        assert (twice(1), twice(1.5)) == (2, 3)  # compiled for integers, then for others
    assert twice(1j) == 2j
    return said


def test_compilation_is_announced_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _said_while_compiling() == [kernels.COMPILING_ONCE]
    for quiet, said in ((True, ""), (False, f"{kernels.COMPILING_ONCE}\n")):
        with kernels.announced_on_stderr(quiet):
            numba.njit(lambda x: 3 * x)(1)
        assert capsys.readouterr() == ("", said)


def test_cached_kernels_are_not_announced(tmp_path: Path) -> None:
    (tmp_path / "loops.py").write_text(
        "import sys\n"
        "from triplaneturbo.utils.kernels import announced, kernel\n"
        "@kernel\n"
        "def twice(x):\n"
        "    return 2 * x\n"
        "with announced(print):\n"
        "    print(twice(4))\n"
    )
    root = ROOT
    program = f"import sys; sys.path.insert(0, {str(root)!r}); import loops"
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
        for _ in range(2)
    ]
    assert [run.stdout for run in runs] == [f"{kernels.COMPILING_ONCE}\n8\n", "8\n"], runs[0].stderr


def test_no_cache_without_home_folder(monkeypatch: pytest.MonkeyPatch, unwritable: list[Path]) -> None:
    """Not one in a folder called ~ either."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(kernels.os.path, "expanduser", lambda path: path)
    assert kernels.user_cache() is None
    assert kernels.cache_folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert kernels.user_cache() is None
    assert "a home folder" in environment_checks.compiled_kernels().found


def test_kernels_without_cache_use_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a home, its own folder would be one called ~ in the working folder."""
    for kept in (True, False):
        monkeypatch.setattr(kernels, "_cache_enabled", lambda kept=kept: kept)
        assert (kernels.kernel(_half).stats.cache_path is not None) == kept


def _half(x: float) -> float:
    return x / 2
