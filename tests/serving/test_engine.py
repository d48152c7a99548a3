"""The engine with the built-in model: queue, caches, choices, report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.helpers.pace import patience
from triplaneturbo.errors import Cancelled, UserError
from triplaneturbo.mesh.io.gltf import to_glb
from triplaneturbo.models import catalog, weights
from triplaneturbo.models.catalog import SMALL
from triplaneturbo.request import Request
from triplaneturbo.serving import engine as engine_module
from triplaneturbo.serving.engine import KEPT_RESULTS, Engine
from triplaneturbo.utils import devices
from triplaneturbo.utils.cpu_load import STAT
from triplaneturbo.utils.devices import choose_device, choose_precision

QUICK: dict[str, Any] = {"resolution": 24, "texture_size": 512, "steps": 2}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine("small", device="cpu") as engine:
        yield engine


def test_job_result_equals_the_pipelines(engine: Engine) -> None:
    job = engine.submit(Request("a red mushroom", seed=5, **QUICK))
    stages = [event.stage for event in job.events()]
    assert stages[0] == "text"
    assert stages[-1] == "texture"
    result = job.result(patience(60))
    assert not result.cached
    assert to_glb(result.mesh) == to_glb(engine.pipeline("a red mushroom", seed=5, **QUICK))


def test_equal_requests_are_cached(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    embed = engine.model.text.embed
    monkeypatch.setattr(engine.model.text, "embed", lambda prompts: asked.append(prompts) or embed(prompts))
    first = engine.generate("a tall cactus", **QUICK)
    again = engine.generate(" a tall  cactus ", **QUICK)
    assert (first.cached, again.cached) == (False, True)
    assert again.mesh is first.mesh
    other = engine.generate("a tall cactus", seed=1, **QUICK)
    assert not other.cached
    assert asked == [["a tall cactus"]]  # the words were embedded once


def test_result_cache_is_bounded(engine: Engine) -> None:
    for seed in range(KEPT_RESULTS + 1):
        engine.generate("a hat", seed=seed, **QUICK)
    assert engine.generate("a hat", seed=1, **QUICK).cached
    assert not engine.generate("a hat", seed=0, **QUICK).cached


def test_cancelled_job_stops_at_the_next_step(engine: Engine) -> None:
    job = engine.submit(Request("a boat", **{**QUICK, "steps": 50}))
    seen = 0
    for event in job.events():
        if event.step == 2:
            job.cancel()
        seen = max(seen, event.step)
    with pytest.raises(Cancelled):
        job.result(patience(60))
    assert seen < 10
    assert len(engine.generate("a boat", **QUICK).mesh.faces) > 0


def test_invalid_requests_are_not_queued(engine: Engine) -> None:
    with pytest.raises(UserError, match="prompt is blank"):
        engine.submit(Request(" "))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["python", "cuda", "cpu", "cublas"],
)
def test_out_of_memory_error_suggests_a_remedy(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked: list[bool] = []

    def decode(_: torch.Tensor, one_by_one: bool) -> torch.Tensor:
        asked.append(one_by_one)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(engine.model.generator, "decode", decode)
        with pytest.raises(
            UserError, match=r"Out of memory on cpu at resolution 24, .*; close other programs"
        ):
            engine.generate(f"a tree {error}", **QUICK)
    assert asked == [False, True]  # one retry
    assert not engine.generate(f"a tree {error}", **QUICK).cached


def test_low_memory_reduces_the_texture(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = engine.model.generator.decode

    def short(latents: torch.Tensor, one_by_one: bool) -> torch.Tensor:
        if not one_by_one:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(latents, one_by_one)

    large = {**QUICK, "texture_size": 1024}
    with monkeypatch.context() as patch:
        patch.setattr(engine.model.generator, "decode", short)
        made = engine.generate("a small tree", **large)
    assert made.low_memory
    assert made.mesh.texture is not None
    assert made.mesh.texture.shape[0] == made.request.texture_size == 512
    whole = engine.generate("a small tree", **large)  # it was not kept for what was asked for
    assert not whole.cached
    assert not whole.low_memory


def test_batch_results_are_in_order_with_cached_ones(engine: Engine) -> None:
    engine.generate("a robot", seed=1, **QUICK)
    requests = [Request("a robot", seed=seed, **QUICK) for seed in (0, 1, 0, 2)]
    made = engine.submit(*requests).results(patience(60))
    assert [one.request.seed for one in made] == [0, 1, 0, 2]
    assert [one.cached for one in made] == [False, True, False, False]
    assert made[2].mesh is made[0].mesh
    with pytest.raises(UserError, match="seed"):
        engine.submit(requests[0], Request("a robot", seed=-1))


def test_out_of_memory_in_a_batch_loses_no_result(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = engine.model.generator.decode
    calls: list[bool] = []

    def short(latents: torch.Tensor, one_by_one: bool) -> torch.Tensor:
        calls.append(one_by_one)
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(latents, one_by_one)

    requests = [Request("a bench", seed=seed, **{**QUICK, "texture_size": 1024}) for seed in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(engine.model.generator, "decode", short)
        made = engine.submit(*requests).results(patience(60))
    assert calls == [False, False, True, True]
    assert [one.request.texture_size for one in made] == [1024, 512, 512]
    assert [one.request.seed for one in made] == [0, 1, 2]


def test_batch_that_does_not_fit_is_split(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    predict = engine.model.generator.predict
    batches: list[int] = []

    def short(noisy: torch.Tensor, *rest: Any) -> torch.Tensor:
        batches.append(len(noisy))
        if len(noisy) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(noisy, *rest)

    monkeypatch.setattr(engine.pipeline, "together", True)
    monkeypatch.setattr(engine.model.generator, "predict", short)
    requests = [Request("a tall tower", seed=seed, **{**QUICK, "texture_size": 1024}) for seed in range(2)]
    made = engine.submit(*requests).results(patience(60))
    assert batches == [2, 1, 1, 1, 1]
    assert [one.request.texture_size for one in made] == [1024, 1024]
    assert not any(one.low_memory for one in made)


def test_batch_results_are_not_cached(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.pipeline, "together", True)
    requests = [Request("a small castle", seed=seed, **QUICK) for seed in range(2)]
    engine.submit(*requests).results(patience(60))
    assert not engine.generate("a small castle", seed=1, **QUICK).cached
    assert engine.generate("a small castle", seed=1, **QUICK).cached


def test_two_devices_share_one_queue() -> None:
    """Two workers on the CPU stand for two GPUs: both generate the same meshes."""
    with Engine("small", "cpu,cpu") as two, Engine("small", "cpu") as one:
        jobs = [two.submit(Request("a cup", seed=seed, **QUICK)) for seed in range(4)]
        made = [job.result(patience(60)).mesh for job in jobs]
        assert two.report().count("threads") == 2
        for seed, mesh in enumerate(made):
            plain = one.generate("a cup", seed=seed, **QUICK).mesh
            assert torch.equal(mesh.vertices, plain.vertices)
            assert torch.equal(mesh.faces, plain.faces)


@pytest.mark.parametrize("device", ["all", "cpu,cuda:7", "cpu,", ","])
def test_engine_refuses_missing_cuda_devices(device: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA devices")
    with pytest.raises(UserError, match=r"no device|no CUDA device"):
        Engine("small", device)


def test_small_model_replaces_a_full_model_that_does_not_load(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    find = engine_module.find_model
    broken = catalog.ModelFiles("full", tmp_path, "in the hub's cache")
    monkeypatch.setattr(
        engine_module, "find_model", lambda name, *rest: broken if name == "auto" else find(name, *rest)
    )
    with Engine("auto", "cpu") as opened:
        assert opened.name == "small"
        assert opened.notice.startswith(str(tmp_path))
        assert opened.notice.endswith("The small model is used.")
    monkeypatch.setattr(engine_module, "find_model", lambda *_: broken)
    with pytest.raises(UserError, match="contains no model"):
        Engine("full", "cpu")


def test_other_load_errors_are_raised(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(engine.model.generator, "decode", decode)
    with pytest.raises(RuntimeError, match="mat1"):
        engine.generate("a lamp", **QUICK)


def test_report_explains_the_choices(engine: Engine) -> None:
    report = engine.report()
    rows = dict(line.split(maxsplit=1) for line in report.splitlines())
    if STAT.is_file():
        assert rows.pop("load").startswith("other programs use ")
    assert list(rows) == [
        "triplaneturbo",
        "device",
        "precision",
        "attention",
        "rasteriser",
        "model",
        "files",
        "sizes",
        "words",
    ]
    assert rows["device"].startswith("cpu")
    assert rows["precision"].startswith("float32: lower precision does not speed up a small model")
    assert rows["model"].startswith("small")
    assert rows["files"] == str(SMALL)
    assert ("untrained" in rows["model"]) == (not engine.trained) == ("untrained" in engine.notice)


def test_precision_option() -> None:
    with Engine("small", device="cpu", precision="bfloat16") as engine:
        assert engine.dtype == engine.model.generator.dtype == torch.bfloat16
        assert "bfloat16: asked for" in engine.report()
        assert len(engine.generate("a cup", **QUICK).mesh.faces) > 0


@pytest.mark.parametrize(
    ("unit", "small", "dtype"),
    [
        ("AMX", False, torch.bfloat16),
        ("AVX-512", False, torch.bfloat16),
        (None, False, torch.float32),
        ("AMX", True, torch.float32),
    ],
)
def test_automatic_precision_depends_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, unit: str | None, small: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(devices, "bfloat16_unit", lambda: unit)
    choice = choose_precision("auto", torch.device("cpu"), small)
    assert choice.dtype == dtype
    assert unit is None or small or unit in choice.why


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "cpu:1", "", "gpu", "cuda:x", "meta"])
def test_unavailable_devices_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"device .*; (use|available)"):
        choose_device(name)


@pytest.mark.parametrize(
    ("capability", "built", "fits"),
    [
        ((9, 0), ["sm_80", "sm_90a"], True),
        ((8, 9), ["sm_80", "sm_90"], True),
        ((12, 1), ["sm_90", "compute_120"], True),
        ((6, 1), ["sm_75", "sm_80", "compute_120"], False),
        ((12, 0), ["sm_75", "sm_90"], False),
        ((9, 0), ["gfx90a", "gfx1100"], True),
    ],
)
def test_unsupported_gpu_is_explained(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], built: list[str], fits: bool
) -> None:
    cuda = devices.torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "device_count", lambda: 1)
    monkeypatch.setattr(cuda, "current_device", lambda: 0)
    monkeypatch.setattr(cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(cuda, "get_arch_list", lambda: built)
    monkeypatch.setattr(cuda, "get_device_properties", lambda _: SimpleNamespace(name="GeForce"))
    device, why = choose_device()
    assert device.type == ("cuda" if fits else "cpu")
    if fits:
        assert choose_device("cuda:0").device == torch.device("cuda:0")
        return
    assert why.startswith(f"the GeForce (compute capability {capability[0]}.{capability[1]}) is")
    for asked in ("cuda", "all"):
        with pytest.raises(UserError, match=r"this torch, built for 7\.5 and later; use --device cpu\.$"):
            devices.choose_devices(asked)


def test_old_driver_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 1)
    device, why = choose_device()
    assert device.type == "cpu"
    assert "driver is too old" in why
    for asked in ("cuda", "all"):
        with pytest.raises(UserError, match=r"driver is too old .*; update it; use --device cpu\.$"):
            devices.choose_devices(asked)


def test_unknown_precisions_are_refused() -> None:
    with pytest.raises(UserError, match="auto, float32, float16 or bfloat16"):
        choose_precision("int4", torch.device("cpu"), False)


def test_released_adapter_is_converted_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done: list[tuple] = []
    monkeypatch.setattr(
        weights,
        "convert_released",
        lambda *paths: done.append(paths) or (tmp_path / "triplaneturbo.json").write_text("{}"),
    )
    monkeypatch.setattr(engine_module, "load_model", lambda *args, **more: (args, more))
    found = catalog.ModelFiles("full", tmp_path, "", base=Path("base"), released=Path("adapter.pth"))
    for _ in range(2):
        engine_module._load(found, torch.device("cpu"), torch.float32)
    assert done == [(Path("adapter.pth"), Path("base"), tmp_path)]
