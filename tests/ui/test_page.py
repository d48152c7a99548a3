"""Tests of the page without a browser: imports, endpoints, served files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trimesh

gradio = pytest.importorskip("gradio")
from gradio_client import Client  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402

from tests.helpers.adapter_files import installed_adapter  # noqa: E402
from tests.helpers.launched import launched  # noqa: E402
from tests.helpers.quick import make_small  # noqa: E402
from tests.helpers.tiny import tiny_model  # noqa: E402
from tests.helpers.visitor import api_client  # noqa: E402
from triplaneturbo.errors import EmptySurfaceError  # noqa: E402
from triplaneturbo.models.catalog import ROOT  # noqa: E402
from triplaneturbo.models.config import OPEN, TOYWORLD  # noqa: E402
from triplaneturbo.serving.engine import Engine  # noqa: E402
from triplaneturbo.serving.output_files import FORMATS  # noqa: E402
from triplaneturbo.toyworld.captions.vocabulary import VOCABULARY  # noqa: E402
from triplaneturbo.ui.blocks import build  # noqa: E402
from triplaneturbo.ui.generate import controls  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:::gradio.queueing")  # its own use of pandas

QUICK: dict[str, Any] = {"resolution": 24, "texture_size": 512, "steps": 2}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine("small", device="cpu") as engine:
        yield engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def page(engine: Engine, folder: Path) -> Iterator[Any]:
    with launched(lambda: build(engine, folder)) as page:
        yield page


@pytest.fixture(scope="module")
def client(page: Any, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return api_client(page.local_url, tmp_path_factory.mktemp("got"))


SETTINGS = [
    "seed",
    "steps",
    "resolution",
    "faces",
    "texture_size",
    "unwrap",
    "normal_map",
    "floaters",
    "smoothing",
    "watertight",
    "variation",
    "variation_seed",
]
BLEND = ["blend", "blend_weight", "adapter", "variation_path"]
LOOK = ["look", "keep_shape"]
LODS = ["lods"]


def test_endpoints_and_their_types(page: Any) -> None:
    endpoints = page.get_api_info()["named_endpoints"]
    assert list(endpoints) == ["/generate", "/variants", "/blend", "/export", "/refine"]
    parameters = {
        name: {p["parameter_name"]: p["type"] for p in endpoint["parameters"]}
        for name, endpoint in endpoints.items()
    }
    assert list(parameters["/generate"]) == ["prompt", *SETTINGS, *BLEND, *LOOK, *LODS]
    assert list(parameters["/variants"]) == ["prompt", "count", *SETTINGS, *BLEND, *LOOK, *LODS]
    unblended = [*SETTINGS, "adapter", "variation_path"]
    assert list(parameters["/blend"]) == ["prompt", "other", "count", *unblended, *LOOK, *LODS]
    assert list(parameters["/export"]) == [
        "prompt",
        "format",
        "size",
        "up",
        "pivot",
        *SETTINGS,
        *BLEND,
        "unit",
        *LOOK,
        "metadata",
        *LODS,
        "texture_format",
        "max_mb",
    ]
    assert list(parameters["/refine"]) == ["prompt", "refine_steps", *unblended, *LODS]
    types = parameters["/export"]
    assert types["seed"] == {"type": "integer"}
    assert types["variation"] == {"type": "number"}
    assert types["steps"] == {"oneOf": [{"type": "null"}, {"type": "integer"}]}
    assert types["unwrap"] == {"enum": ["fast", "xatlas", "uvunwrap", "none"]}
    assert types["format"] == {"enum": list(FORMATS)}
    assert not page.get_api_info()["unnamed_endpoints"]


def test_generate_endpoint_returns_glb_and_facts(client: Client, folder: Path) -> None:
    got, facts = client.predict("a red mushroom", seed=3, api_name="/generate", **QUICK)
    assert Path(got).name.startswith("a-red-mushroom-3-")
    assert len(trimesh.load(got, force="mesh", process=False).faces) == facts["faces"]
    assert facts["seed"] == 3
    assert facts["settings"] | QUICK == facts["settings"]
    assert [file["name"] for file in facts["files"]] == [Path(got).name]
    (served,) = folder.rglob(Path(got).name)
    assert served.read_bytes() == Path(got).read_bytes()


def test_the_steps_of_a_call_are_those_of_the_adapter_unless_given(client: Client, engine: Engine) -> None:
    small = {name: value for name, value in QUICK.items() if name != "steps"}
    with installed_adapter("one-step", "1"):
        for adapter, given, steps in (("one-step", {}, 1), ("one-step", {"steps": 3}, 3), ("", {}, 2)):
            _, facts = client.predict("a cup", adapter=adapter, api_name="/generate", **given, **small)
            assert facts["settings"]["steps"] == steps
    with (
        installed_adapter("broken", "abc"),
        pytest.raises(AppError, match="Invalid number of denoising steps"),
    ):
        client.predict("a cup", adapter="broken", api_name="/generate", **small)


@pytest.mark.filterwarnings("ignore:Invalid number of denoising steps")  # gradio's, outside a request
def test_the_steps_follow_the_chosen_adapter_until_they_are_changed(engine: Engine) -> None:
    own = engine.model.config.steps
    with installed_adapter("one-step", "1"), installed_adapter("broken", "abc"):
        assert controls.follow_adapter(engine, "one-step", own, own) == 1
        assert controls.follow_adapter(engine, "", 1, 1) == own
        assert controls.follow_adapter(engine, "one-step", own + 1, own) == gradio.skip()
        assert controls.follow_adapter(engine, "broken", 1, 1) == own
        assert [controls.default_steps(engine, name) for name in ("", "one-step", "broken", "gone")] == [
            own, 1, own, own,
        ]  # fmt: skip


def test_choosing_an_adapter_updates_the_steps(page: Any) -> None:
    """The handlers of the adapter's dropdown take and update these controls, in this order."""
    labels = {part["id"]: part["props"].get("label") for part in page.config["components"]}
    handlers = [
        (event, [labels[id] for id in handler["inputs"]], [labels[id] for id in handler["outputs"]])
        for handler in page.config["dependencies"]
        for target, event in handler["targets"]
        if labels.get(target) == "Adapter"
    ]
    assert ("input", ["Adapter", "Steps", "Steps of the adapter"], ["Steps"]) in handlers
    assert ("change", ["Adapter"], ["Steps of the adapter"]) in handlers


def test_variants_endpoint_returns_a_file_per_seed(client: Client) -> None:
    files, facts = client.predict("a red mushroom", seed=3, count=3, api_name="/variants", **QUICK)
    assert [one["seed"] for one in facts] == [3, 4, 5]
    alone, _ = client.predict("a red mushroom", seed=4, api_name="/generate", **QUICK)
    assert Path(files[1]).read_bytes() == Path(alone).read_bytes()
    assert len({Path(file).read_bytes() for file in files}) == 3


def test_empty_variant_is_reported_in_the_facts(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from triplaneturbo import pipeline

    extract, calls = pipeline.extract, []

    def no_first(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == 1:
            raise EmptySurfaceError
        return extract(*arguments)

    monkeypatch.setattr(pipeline, "extract", no_first)
    files, facts = client.predict("a tall chair", seed=8, count=2, api_name="/variants", **QUICK)
    assert len(files) == 1
    assert facts[0] == {"seed": 8, "error": str(EmptySurfaceError())}
    assert facts[1]["seed"] == 9


def test_blend_endpoint_uses_equal_steps(client: Client) -> None:
    files, facts = client.predict("a red mushroom", "a blue chair", count=3, api_name="/blend", **QUICK)
    assert [one["settings"]["blend_weight"] for one in facts] == [0, 0.5, 1]
    chair, _ = client.predict("a blue chair", api_name="/generate", **QUICK)
    ends = [trimesh.load(file, force="mesh", process=False) for file in (files[2], chair)]
    assert len(ends[0].faces) == len(ends[1].faces)
    assert abs(ends[0].vertices - ends[1].vertices).max() < 1e-3


@pytest.mark.parametrize(("name", "suffix"), FORMATS.items())
def test_export_endpoint_returns_every_format(client: Client, name: str, suffix: str) -> None:
    got, facts = client.predict("a red mushroom", seed=3, format=name, api_name="/export", **QUICK)
    assert Path(got).suffix == suffix
    assert facts["files"][0]["bytes"] == Path(got).stat().st_size


def test_export_endpoint_applies_the_placement(client: Client) -> None:
    where = {"size": 0.25, "up": "z", "pivot": "ground"}
    got, facts = client.predict("a red mushroom", seed=3, format="stl", **where, api_name="/export", **QUICK)
    low, high = trimesh.load(got, force="mesh").bounds
    assert max(high - low) == pytest.approx(250, rel=1e-5)  # millimetres
    assert low[2] == pytest.approx(0, abs=1e-3)
    assert facts["placement"] == where | {"unit": "auto"}
    assert facts["files"][0]["unit"] == "mm"
    got, facts = client.predict(
        "a red mushroom", seed=3, format="stl", unit="cm", **where, api_name="/export", **QUICK
    )
    assert max(trimesh.load(got, force="mesh").extents) == pytest.approx(25, rel=1e-5)
    assert facts["placement"] == where | {"unit": "cm"}


@pytest.mark.parametrize(
    ("endpoint", "arguments", "said"),
    [
        (
            "/variants",
            {"prompt": "a cup", "count": 9},
            "number of variants must be a whole number from 1 to 8",
        ),
        ("/variants", {"prompt": " "}, "The prompt is blank"),
        ("/blend", {"prompt": "a cup", "other": " "}, "second prompt is missing"),
        ("/blend", {"prompt": "a cup", "other": "a hat", "count": 99}, "use 2 to 16"),
        ("/export", {"prompt": "a cup", "format": "fbx"}, "Unknown format 'fbx'"),
        ("/export", {"prompt": "a cup", "format": "../x"}, "Unknown format"),
        ("/export", {"prompt": "a cup", "size": 1e9}, "Invalid size"),
        ("/export", {"prompt": "a cup", "unit": "km"}, "Invalid unit"),
        ("/generate", {"prompt": "a cup", "adapter": "../../etc"}, "There is no adapter"),
    ],
)
def test_other_endpoints_refuse_invalid_input(
    client: Client, endpoint: str, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(Exception, match=said) as info:
        client.predict(api_name=endpoint, **arguments)
    assert "Traceback" not in str(info.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"prompt": " "}, "The prompt is blank"),
        ({"prompt": "a cup", "seed": -1}, "The seed should be"),
        ({"prompt": "a cup", "seed": "seven"}, "The seed should be a whole number"),
        ({"prompt": "a cup", "resolution": 10**9}, "The resolution should be"),
        ({"prompt": "a cup", "unwrap": "../x"}, "The unwrap should be"),
        ({"prompt": ["a", "cup"]}, "The prompt should be text"),
    ],
)
def test_generate_endpoint_refuses_invalid_input(
    client: Client, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(Exception, match=said) as info:
        client.predict(api_name="/generate", **arguments)
    assert "Traceback" not in str(info.value)


def test_only_results_are_served(page: Any, client: Client, folder: Path, tmp_path: Path) -> None:
    got, _ = client.predict("a red mushroom", seed=3, api_name="/generate", **QUICK)
    (served,) = folder.rglob(Path(got).name)
    assert _fetch(page, str(served)) == 200
    outside = tmp_path / "outside.txt"
    outside.write_text("not for you")
    for path in (
        "/etc/passwd",
        str(outside),
        str(ROOT / "app.py"),
        "app.py",
        os.path.relpath(outside),
        f"{served.parent}/{os.path.relpath(outside, served.parent)}",
        f"{folder}/../../../../../../etc/passwd",
        str(served.parent),
        str(folder),
    ):
        assert _fetch(page, path) in (403, 404), path


def _fetch(page: Any, path: str) -> int:
    try:
        url = f"{page.local_url}gradio_api/file={urllib.parse.quote(path)}"
        with urllib.request.urlopen(url) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_nothing_can_be_uploaded(page: Any) -> None:
    head = b'Content-Disposition: form-data; name="files"; filename="a.html"'
    body = b"--x\r\n" + head + b"\r\n\r\nmore than a byte\r\n--x--\r\n"
    request = urllib.request.Request(
        f"{page.local_url}gradio_api/upload",
        data=body,
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    with pytest.raises(urllib.error.HTTPError) as info:
        urllib.request.urlopen(request)
    assert info.value.code == 413


def test_page_loads_nothing_from_other_hosts(page: Any) -> None:
    assert page.config["analytics_enabled"] is False
    assert page.share is False
    assert page.stylesheets == []
    for text in (page.theme_css, page.css):
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("notice", ["", "This model is untrained."])
def test_model_notice_is_on_the_page(
    engine: Engine, tmp_path: Path, notice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "notice", notice)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("GRADIO_EXAMPLES_CACHE", "")
    shown = str(build(engine, tmp_path).get_config_file())
    assert ("tt-notice" in shown) is bool(notice)
    assert notice in shown


def test_only_an_untrained_model_has_a_notice(engine: Engine, tmp_path: Path) -> None:
    assert engine.notice == ""
    with Engine(str(tiny_model(tmp_path / "model")), "cpu") as other:
        assert "untrained" in other.notice


@pytest.mark.parametrize("world", [True, False])
def test_page_shows_the_vocabulary_of_toy_world_models(
    tmp_path: Path, world: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("GRADIO_EXAMPLES_CACHE", "")
    with Engine(str(tiny_model(tmp_path / "model", TOYWORLD if world else OPEN)), device="cpu") as engine:
        page = build(engine, tmp_path / "served")
        parts = {part["props"].get("elem_id"): part["props"] for part in page.get_config_file()["components"]}
    samples = [sample[0] for sample in parts["examples"]["samples"]]
    assert ("reading" in parts) is world
    assert parts["vocabulary"]["label"] == ("What it can make" if world else "Known weaknesses")
    assert (samples == list(VOCABULARY.examples)) is world


def test_only_adapters_that_fit_can_be_chosen(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not controls.adapter_choices(engine)["visible"]
    monkeypatch.setattr(engine, "adapters", lambda: ["mine", "yours"])
    shown = controls.adapter_choices(engine)
    assert shown["visible"]
    assert [value for _, value in shown["choices"]] == ["", "mine", "yours"]


def test_script_of_the_docs_runs(
    page: Any, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch, engine)
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```python\n(from gradio_client.*?)```", text, re.DOTALL)
    assert "http://127.0.0.1:7860" in script
    script = script.replace("http://127.0.0.1:7860", page.local_url)
    told = "print(json.dumps([file, files, facts]))"
    done = subprocess.run(
        [sys.executable, "-c", f"import json\n{script}\n{told}"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "GRADIO_TEMP_DIR": str(tmp_path)},
    )
    file, files, facts = json.loads(done.stdout.splitlines()[-1])
    assert (Path(file).suffix, len(files)) == (".stl", 5)
    assert facts["placement"] == {"size": 0.08, "up": "z", "pivot": "model", "unit": "auto"}
