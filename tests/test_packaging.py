"""The wheel, installed into a clean environment that borrows this one's dependencies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.helpers.pace import patience
from tests.helpers.paths import ROOT

SOURCES = ("triplaneturbo", "checkpoints/small", "assets", "pyproject.toml", "setup.py", "MANIFEST.in",
           "requirements.txt", "README.md", "LICENSE")  # fmt: skip


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, without this checkout on its path."""
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=own | environment,
        capture_output=True,
        text=True,
        timeout=patience(300),
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing is left in the checkout."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation")
    run(*pip, "--disable-pip-version-check", "--wheel-dir", target, source, cwd=source)
    (built,) = target.glob("triplaneturbo-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel and, by a path, this one's packages."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    own = run(
        programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder
    ).stdout.strip()
    shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(own, "shared.pth").write_text("\n".join(sorted(shared)))
    pip = (programs / "python", "-m", "pip", "install", "--no-deps", "--no-index")
    run(*pip, "--disable-pip-version-check", wheel, cwd=folder)
    return programs


def test_wheel_contains_model_and_data_files(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    model = {
        f"triplaneturbo/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / "checkpoints" / "small").rglob("*")
        if path.is_file()
    }
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "triplaneturbo").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert model | package <= inside
    assets = ("favicon.svg", "examples.txt", "first_visit.webp")
    assert {f"triplaneturbo/assets/{name}" for name in assets} <= inside
    assert not [name for name in inside if not name.startswith(("triplaneturbo/", "triplaneturbo-"))]


def test_dependencies_match_requirements_txt(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    wanted = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1].isalpha()]
    found = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    extras = [line for line in found if "extra ==" in line]
    assert sorted(set(found) - set(extras)) == sorted(wanted)
    assert [line.partition(";")[0] for line in extras] == ["gradio[mcp]>=6.24"]


def test_installed_command_generates_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    before = sorted(path for path in installed.parent.rglob("*") if path.suffix != ".pyc")
    run(
        installed / "triplaneturbo", "generate", "a red mushroom", "-o", "m.glb",
        "--resolution", "32", "--texture-size", "512", cwd=folder, XDG_CACHE_HOME=str(tmp_path / "cache"),
    )  # fmt: skip
    assert [path.name for path in folder.iterdir()] == ["m.glb"]
    assert list((tmp_path / "cache" / "triplaneturbo" / "kernels").rglob("*.nbi"))
    data = (folder / "m.glb").read_bytes()
    assert data[:4] == b"glTF"
    content = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    (primitive,) = content["meshes"][0]["primitives"]
    assert "TEXCOORD_0" in primitive["attributes"]
    assert len(content["images"]) == 2  # base colour and normals
    after = sorted(path for path in installed.parent.rglob("*") if path.suffix != ".pyc")
    assert after == before, "something was written beside the package"


def test_installed_package_keeps_user_data_elsewhere(installed: Path, tmp_path: Path) -> None:
    program = (
        "import json; from triplaneturbo.cli import doctor; from triplaneturbo.finetune.run import RUNS\n"
        "from triplaneturbo.models import adapters, catalog\n"
        "from triplaneturbo.serving.output_files import DEFAULT_FOLDER\n"
        "print(json.dumps([str(catalog.SMALL), str(catalog.FULL), str(adapters.ADAPTERS), str(RUNS),\n"
        "                  str(DEFAULT_FOLDER), doctor.requirements()]))\n"
    )
    home = tmp_path / "home"
    done = run(
        installed / "python", "-c", program, cwd=tmp_path, XDG_DATA_HOME=str(home), LOCALAPPDATA=str(home),
        HOME=str(home), TRIPLANETURBO_ADAPTERS="",
    )  # fmt: skip
    small, full, adapters, runs, outputs, requirements = json.loads(done.stdout)
    assert Path(small).is_relative_to(installed.parent)
    assert Path(full).is_relative_to(home)
    assert Path(adapters).is_relative_to(home)
    assert (Path(runs), Path(outputs)) == (Path("outputs", "runs"), Path("outputs"))
    assert "torch" in dict(requirements)


def test_installed_command_prints_its_name(installed: Path, tmp_path: Path) -> None:
    assert "usage: triplaneturbo " in run(installed / "triplaneturbo", "--help", cwd=tmp_path).stdout
    module = run(installed / "python", "-m", "triplaneturbo", "--help", cwd=tmp_path).stdout
    assert "usage: python -m triplaneturbo " in module
