"""Benchmark of the full-size generator against a plain implementation and the machine's peak rate.

    python -m benchmarks.generator [--repeats 2] [--skip-plain] [--tiny]

It uses random weights of the real sizes (Stable Diffusion 2.1-base, rank 16) and one prompt. "plain" is the
reference implementation of the tests (tests/helpers/plain_generator.py), with unmerged adapters, a loop over
planes and explicit attention matrices, as in the public implementation. "floor" is the time of the required
floating-point operations at the rate that one large convolution reaches on this machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from tests.helpers.full_size import SCHEDULER, UNET, VAE
from tests.helpers.plain_generator import PlainGenerator
from triplaneturbo.models import peta
from triplaneturbo.models.adapter import adapter_tensors
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.released_checkpoint import released_key_map, to_released
from triplaneturbo.models.triplane_generator import TriplaneGenerator
from triplaneturbo.teachers.twin import base_weights
from triplaneturbo.utils.devices import bfloat16_unit

STEP_TFLOP, DECODE_TFLOP = 1.31, 3.73


@dataclass(frozen=True)
class Sizes:
    """Sizes of a random generator: arguments of the diffusers classes, and the generator's config."""

    unet: dict[str, Any] = field(default_factory=lambda: dict(UNET))
    vae: dict[str, Any] = field(default_factory=lambda: dict(VAE))
    config: GeneratorConfig = field(default_factory=GeneratorConfig)


TINY = Sizes(
    unet={
        "sample_size": 8,
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": 32,
        "use_linear_projection": True,
    },
    vae={
        "block_out_channels": (32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "layers_per_block": 1,
    },
    config=GeneratorConfig(latent_size=8),
)


def random_generator(sizes: Sizes, device: torch.device | None = None) -> TriplaneGenerator:
    """Create a generator with random weights, including nonzero adapters, on a device (default: the CPU)."""
    torch.manual_seed(0)
    with device or torch.device("cpu"):
        unet, vae = UNet2DConditionModel(**sizes.unet), AutoencoderKL(**sizes.vae)
    vae.encoder = None
    vae.quant_conv = None
    generator = TriplaneGenerator(unet, vae, DDIMScheduler(**SCHEDULER), sizes.config).eval()
    for name, value in generator.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.02)
    return generator


def best(call: Callable[[], object], repeats: int) -> float:
    """Return the seconds of the fastest of `repeats` calls, after one warm-up call."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def machine_rate(dtype: torch.dtype) -> float:
    """Return the TFLOP/s of one large convolution (256 channels, 128 x 128, 3 x 3)."""
    conv = torch.nn.Conv2d(256, 256, 3, padding=1).to(dtype=dtype, memory_format=torch.channels_last)
    x = torch.randn(1, 256, 128, 128).to(dtype=dtype, memory_format=torch.channels_last)
    return 2 * 9 * 256 * 256 * 128 * 128 / best(lambda: conv(x), 5) / 1e12


def relative(found: Tensor, wanted: Tensor) -> float:
    """Return the relative L2 error of `found`."""
    return ((found.float() - wanted).norm() / wanted.norm()).item()


@torch.inference_mode()
def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description="Benchmark of the full-size generator.")
    parser.add_argument("--repeats", type=int, default=2, help="timed calls; the fastest one is reported")
    parser.add_argument("--skip-plain", action="store_true", help="skip the plain implementation")
    parser.add_argument("--tiny", action="store_true", help="small sizes, for a dry run")
    arguments = parser.parse_args()

    sizes, size = (TINY, "tiny") if arguments.tiny else (Sizes(), "full")
    generator = random_generator(sizes)
    side = sizes.config.latent_size
    noise, text = torch.randn(1, 6, 4, side, side), torch.randn(1, 77, sizes.unet["cross_attention_dim"])
    rows: list[tuple[str, float, float, float | None]] = []
    if not arguments.skip_plain:
        plain = plain_twin(generator, sizes)
        step = best(lambda: plain.predict(noise, 999, text), arguments.repeats)
        rows.append(("plain, float32", step, best(lambda: plain.decode(noise), arguments.repeats), None))
        del plain

    generator.merge()
    reference: Tensor | None = None
    kinds = [torch.float32] + ([torch.bfloat16] if bfloat16_unit() else [])
    for dtype in kinds:
        generator.cast(dtype)
        step = best(lambda: generator.predict(noise, 999, text), arguments.repeats)
        decode = best(lambda: generator.decode(noise), arguments.repeats)
        *_, clean = generator.denoise(noise, text, 4)
        planes = generator.decode(clean)
        reference = planes if reference is None else reference
        rows.append((f"ours, {str(dtype)[6:]}", step, decode, relative(planes, reference)))

    print(f"\ntorch {torch.__version__}, {torch.get_num_threads()} threads, one prompt, {size} size")
    print(f"{'':24}{'step s':>9}{'decode s':>10}{'x step':>8}{'x decode':>10}{'planes':>9}")
    first = rows[0]
    for name, step, decode, error in rows:
        gains = f"{first[1] / step:8.2f}{first[2] / decode:10.2f}"
        print(
            f"{name:24}{step:9.2f}{decode:10.2f}{gains}" + ("" if error is None else f"{100 * error:8.2f}%")
        )
    for dtype in [] if arguments.tiny else kinds:  # the floor is that of the full size
        rate = machine_rate(dtype)
        print(
            f"{'floor, ' + str(dtype)[6:]:24}{STEP_TFLOP / rate:9.2f}{DECODE_TFLOP / rate:10.2f}"
            f"   at {rate:.2f} TFLOP/s"
        )


def plain_twin(generator: TriplaneGenerator, sizes: Sizes) -> PlainGenerator:
    """Create the plain generator with the weights of `generator`, whose adapters must not be merged yet."""
    key_map = released_key_map(peta.adapted_layers(generator.unet, generator.vae.decoder), generator.config)
    tensors = {name: value.detach() for name, value in adapter_tensors(generator).items()}
    unet, vae = UNet2DConditionModel(**sizes.unet), AutoencoderKL(**sizes.vae)
    for model, source in ((unet, generator.unet), (vae.decoder, generator.vae.decoder)):
        model.load_state_dict(base_weights(source))
    vae.post_quant_conv.load_state_dict(generator.vae.post_quant_conv.state_dict())
    return PlainGenerator(unet, vae, DDIMScheduler(**SCHEDULER), to_released(tensors, key_map)).eval()


if __name__ == "__main__":
    main()
