"""Benchmark of PRD training by part: python -m benchmarks.prd [--full] [--repeats 3]

Prints seconds and peak memory of the student's steps, decoding, both renderings, each teacher, the backward
pass and the optimizer, measured in the real trainer, and iterations per second. By default it runs the
built-in model with its closed-form teachers, as `finetune --preset try` does. `--full` uses the sizes of
Stable Diffusion 2.1-base and all three teachers with random weights, one prompt, four views of 512^2 and the
savings of the memory plan, and prints the planned beside the measured peak. A GPU runs both. The full size
was never run on a GPU, and on a CPU only with `--tiny`.

With `--results`, each iteration is saved as a line of JSON as soon as it is done. `benchmarks.gpu_session`
runs this after `benchmarks.gpu` within a time limit.

Memory is the allocator's peak during a part, including weights. On a CPU it is the tensors created since the
start of the iteration, counted in a separate iteration.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.generator import Sizes
from benchmarks.gpu import TINY as TINY_SUBJECT
from benchmarks.gpu import Subject
from benchmarks.results import Results, add_result_options, say
from tests.helpers.full_size import SCHEDULER
from triplaneturbo.__main__ import run_reporting_errors
from triplaneturbo.distill import losses, prd
from triplaneturbo.distill.memory import MemoryCounter, ModelSizes
from triplaneturbo.distill.memory_plan import Plan
from triplaneturbo.distill.recipe import full_recipe
from triplaneturbo.distill.settings import Settings
from triplaneturbo.distill.student import around
from triplaneturbo.domains.toyworld import TOY_WORLD
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.memory_plan import frozen_dtype, plan
from triplaneturbo.finetune.prepare import prepare
from triplaneturbo.finetune.setup import TrainingSetup
from triplaneturbo.finetune.setup_full import draw_views
from triplaneturbo.models.catalog import SMALL, find_model
from triplaneturbo.models.text_embedding_cache import TextEmbeddingCache
from triplaneturbo.models.text_encoder import TextEncoder
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.teachers import mvdream, richdreamer, stable_diffusion
from triplaneturbo.teachers.mvdream import MVDream
from triplaneturbo.teachers.offload import OffloadableTeacher, offload_sequentially
from triplaneturbo.teachers.richdreamer import RichDreamer
from triplaneturbo.teachers.stable_diffusion import StableDiffusion
from triplaneturbo.utils.devices import (
    be_deterministic,
    choose_device,
    device_name,
    free_memory,
    full_autocast_dtype,
    wait_for,
)
from triplaneturbo.utils.distributed import DistributedContext
from triplaneturbo.utils.generators import exhaust
from triplaneturbo.utils.units import GB

PROMPTS = ("a small red apple", "a blue chair", "a green cup", "a yellow table")
REST = "the rest"


@dataclass
class Parts:
    """Time and memory of each part of an iteration; nested calls count for the outermost part.

    Attributes:
        device: device to synchronize with.
        live: memory counter for devices without allocator statistics.
        seconds, bytes: measurements by part.
    """

    device: torch.device
    live: MemoryCounter | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    _inside: bool = False

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Context that measures a part; no-op inside another part."""
        if self._inside:
            yield
            return
        self._inside = True
        self._forget()
        start = time.perf_counter()
        try:
            yield
            wait_for(self.device)
        finally:
            self._inside = False
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.bytes[name] = max(self.bytes.get(name, 0), self._peak())

    def _forget(self) -> None:
        wait_for(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.live is not None:
            self.live.reset()

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return self.live.peak if self.live is not None else 0

    def of(self, name: str | Callable[..., str], function: Callable) -> Callable:
        """Wrap a function as a part; the name may depend on its first argument."""

        @wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with self.part(name if isinstance(name, str) else name(args[0])):
                return function(*args, **kwargs)

        return called


@contextmanager
def watched(trainer: prd.Trainer, parts: Parts) -> Iterator[None]:
    """Context in which the trainer's iterations are measured by part."""
    student = trainer.student
    places: list[tuple[object, str, str | Callable[..., str]]] = [
        (student.generator, "predict", "the student's steps"),
        (student.generator, "decode", "decoding"),
        (student.merged_lora, "merge", "merging the adapters"),
        (student.merged_lora, "unmerge", "merging the adapters"),
        (losses, "volume", "rendering the volume"),
        (losses, "surface", "rendering the surface"),
        (losses, "score_gradients", lambda teacher: f"teacher {teacher.name}"),
        (Tensor, "backward", "the backward pass"),
        (trainer, "_update", "the optimizer, the average"),
    ]
    with ExitStack() as stack:
        for owner, name, label in places:
            stack.enter_context(patch.object(owner, name, parts.of(label, getattr(owner, name))))
        yield


def measure(training_setup: TrainingSetup, repeats: int, device: torch.device, results: Results) -> int:
    """Print the table of a training setup; return the peak bytes of all parts."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = prd.Trainer(
            DistributedContext(device=device), training_setup.student, training_setup.teachers,
            training_setup.draw,
            replace(training_setup.settings, iterations=repeats + 2), Path(folder),
            autocast=training_setup.autocast, save_every=repeats + 3,
        )  # fmt: skip
        runs: list[Parts] = []
        for number in range(repeats + 1):  # the first is a warm-up
            parts = Parts(device)
            with watched(trainer, parts):
                start = time.perf_counter()
                trainer.step()
                wait_for(device)
            parts.seconds[REST] = time.perf_counter() - start - sum(parts.seconds.values())
            runs.append(parts)
            results.add("iteration" if number else "warm-up", seconds=parts.seconds, bytes=parts.bytes)
        sized = runs[-1]
        if device.type != "cuda":
            # Counting tensors takes time, so this iteration is not timed.
            with MemoryCounter() as live:
                sized = Parts(device, live)
                with watched(trainer, sized):
                    trainer.step()
            results.add("memory", bytes=sized.bytes)
    names = {name for run in runs[1:] for name in run.seconds}
    means = {name: sum(run.seconds.get(name, 0.0) for run in runs[1:]) / repeats for name in names}
    total = sum(means.values())
    say(f"{'':32}{'seconds':>9}{'share':>8}{'peak GB':>10}")
    for name, seconds in sorted(means.items(), key=lambda part: (part[0] == REST, -part[1])):
        size = f"{sized.bytes[name] / GB:10.2f}" if name in sized.bytes else ""
        say(f"{name:32}{seconds:9.3f}{100 * seconds / total:7.1f}%{size}")
    say(
        f"{'an iteration':32}{total:9.3f}   {1 / total:.3g} per second, batch {training_setup.settings.batch}"
    )
    return max(sized.bytes.values())


def setup_small(folder: Path, device: torch.device, tiny: bool) -> TrainingSetup:
    """Set up the built-in model with the shortest preset."""
    order = FinetuneConfig("benchmark", prompts=PROMPTS[: 1 if tiny else None], **TOY_WORLD.presets["try"])
    order = replace(order, batch=1 if tiny else order.batch)
    return exhaust(prepare(order, find_model("small", False), DistributedContext(device=device), folder))


def setup_full(subject: Subject, how: Plan, device: torch.device) -> TrainingSetup:
    """Set up the full model and its teachers with random weights and the savings of a plan."""
    torch.manual_seed(0)
    sizes, saved = subject.sizes, how.savings
    autocast = full_autocast_dtype(device)
    with device:  # random weights take a minute on a CPU
        unet, vae = UNet2DConditionModel(**sizes.unet), AutoencoderKL(**sizes.vae)
    generator = TriplaneGenerator(unet, vae, DDIMScheduler(**SCHEDULER), sizes.config)
    student = around(
        generator, random_text(subject.text), device, frozen=how.frozen, checkpointing=saved.checkpointing,
        text_on_cpu=saved.texts,
    )  # fmt: skip
    words = random_text({**richdreamer.TEXT, "hidden_size": richdreamer.UNET["cross_attention_dim"]})
    if not saved.texts:
        words.model.to(device, how.frozen if device.type == "cuda" else torch.float32)
    place = torch.device("cpu") if saved.offload_teachers else device
    with place:
        unets = [UNet2DConditionModel(**kind.UNET) for kind in (mvdream, richdreamer)]
        vae = AutoencoderKL(**mvdream.VAE)
    for network in (*unets, vae):
        network.eval().requires_grad_(False)
    for network in (*unets, vae):
        nn.Module.to(network, device=place, dtype=how.frozen)
    views = MVDream(unets[0], vae, student.embed, autocast=autocast)
    shapes = RichDreamer(unets[1], TextEmbeddingCache(words.embed, device), autocast=autocast)
    own = StableDiffusion(
        student.merged_lora.base,
        generator.vae,
        generator.scheduler,
        student.embed,
        subject.picture,
        None,
        autocast,
    )
    views.view_by_view = own.view_by_view = saved.views
    teachers: list[OffloadableTeacher] = [views, shapes, own]
    return TrainingSetup(
        student, sizes.config,
        offload_sequentially(teachers, device) if saved.offload_teachers else list(teachers),
        draw_views(PROMPTS, 0, device), full_settings(subject, device), autocast, {}, SMALL,
    )  # fmt: skip


def full_settings(subject: Subject, device: torch.device) -> Settings:
    """Return the full recipe for one prompt."""
    settings = replace(full_recipe(device=device.type), batch=1)
    return replace(settings, size=32, nodes=12) if subject is TINY_SUBJECT else settings


def random_text(config: dict[str, int]) -> TextEncoder:
    """Create a text encoder with random weights and the built-in model's tokenizer."""
    tokenizer = CLIPTokenizer.from_pretrained(SMALL / "tokenizer")
    marks = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return TextEncoder(tokenizer, CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), **marks, **config)))


@contextmanager
def small_teachers(width: int) -> Iterator[None]:
    """Context in which MVDream and RichDreamer have the small sizes of the dry run."""
    blocks = {
        **TINY_SUBJECT.sizes.unet, "cross_attention_dim": width, "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 16,
    }  # fmt: skip
    with (
        patch.dict(mvdream.UNET, blocks, clear=True),
        patch.dict(richdreamer.UNET, blocks, clear=True),
        patch.dict(mvdream.VAE, TINY_SUBJECT.sizes.vae, clear=True),
        patch.object(stable_diffusion, "SIZE", TINY_SUBJECT.picture),
        patch.dict(richdreamer.TEXT, {**TINY_SUBJECT.text}, clear=True),
        patch.object(MVDream.__init__, "__defaults__", (*_shrunk(MVDream, 32),)),
        patch.object(RichDreamer.__init__, "__defaults__", (*_shrunk(RichDreamer, 8),)),
    ):
        yield


def _shrunk(kind: type, size: int) -> tuple[Any, ...]:
    text, _, *others = kind.__init__.__defaults__  # type: ignore[misc]
    return text, size, *others


def show_small(device: torch.device, repeats: int, tiny: bool, results: Results) -> None:
    """Print the measurements of the built-in model."""
    say("\nthe built-in model with the preset try")
    with tempfile.TemporaryDirectory() as folder:
        measure(setup_small(Path(folder), device, tiny), repeats, device, results)


def show_full(subject: Subject, device: torch.device, repeats: int, memory: float, results: Results) -> None:
    """Print the full model's plan, its measurements, and how they agree."""
    sizes: Sizes = subject.sizes
    facts = ModelSizes.of(sizes.unet, sizes.vae, subject.text, sizes.config)
    free = int(memory * GB) if memory else free_memory(device) or 0
    with small_teachers(sizes.unet["cross_attention_dim"]) if subject is TINY_SUBJECT else nullcontext():
        how = plan(facts, full_settings(subject, device), free, device, frozen_dtype(device))
        say(f"\nfull size, random weights, as planned\n{how.table()}\n")
        most = measure(setup_full(subject, how, device), repeats, device, results)
    results.add("peak", planned=how.total, allocated=most, savings=how.savings.descriptions)
    if device.type == "cuda":
        say(f"planned {how.total / GB:.2f} GB, allocator peak {most / GB:.2f} GB")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time an iteration of fine-tuning by part.")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--repeats", type=int, default=3, help="number of timed iterations; their mean is printed"
    )
    parser.add_argument("--full", action="store_true", help="run the full size, also on a CPU")
    parser.add_argument("--tiny", action="store_true", help="run both at tiny sizes, as a smoke test")
    parser.add_argument(
        "--memory", type=float, default=0.0, help="memory in GB for the plan of the full size"
    )
    add_result_options(parser)
    arguments = parser.parse_args()
    device = choose_device(arguments.device).device
    say(f"torch {torch.__version__}, {device_name(device)}")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        be_deterministic()
    results, repeats = Results(arguments.results, arguments.seconds), arguments.repeats
    if not arguments.full:
        results.section("built-in model", lambda: show_small(device, repeats, arguments.tiny, results))
    if arguments.full or arguments.tiny or device.type == "cuda":
        subject = TINY_SUBJECT if arguments.tiny else Subject()
        results.section("full size", lambda: show_full(subject, device, repeats, arguments.memory, results))
    return int(results.failed)


if __name__ == "__main__":
    sys.exit(run_reporting_errors(main, "Stopped."))
