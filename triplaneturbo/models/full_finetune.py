"""The base as it was learned itself ("full" tuning), beside the adapter in one file.

Its tensors are called `base.`, the room, and diffusers' name: `base.unet.conv_in.weight`.
"""

from __future__ import annotations

from collections.abc import Mapping

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from triplaneturbo.models.adapters import OF_BASE
from triplaneturbo.models.released_checkpoint import check_tensors
from triplaneturbo.models.triplane_generator import TriplaneGenerator


def parameters(unet: UNet2DConditionModel, vae: AutoencoderKL) -> dict[str, nn.Parameter]:
    """The parameters of the U-Net, the decoder and the convolution before it, but no adapter's, by name."""
    rooms = {"unet": unet, "decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    return {
        f"{room}.{name.replace('.base_layer', '')}": parameter
        for room, model in rooms.items()
        if model is not None
        for name, parameter in model.named_parameters()
        if "lora_" not in name
    }


def base_parameters(generator: TriplaneGenerator) -> dict[str, nn.Parameter]:
    """A generator's, as `parameters` has them."""
    return parameters(generator.unet, generator.vae)


def marked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A base's tensors as they are called in a file."""
    return {f"{OF_BASE}{name}": value for name, value in tensors.items()}


def is_of_base(name: str) -> bool:
    """Whether a file's tensor is the base's."""
    return name.startswith(OF_BASE)


def apart(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A file's tensors as those of the adapter and those of the base, which are none without full tuning."""
    adapter = {name: value for name, value in tensors.items() if not is_of_base(name)}
    base = {name.removeprefix(OF_BASE): value for name, value in tensors.items() if is_of_base(name)}
    return adapter, base


def check_base(generator: TriplaneGenerator, base: Mapping[str, Tensor], source: object) -> None:
    """Nothing, if tensors are a whole base for this generator, or none at all.

    Raises:
        UserError: a name is missing or unknown, or a shape differs.
    """
    if base:
        check_tensors(base, base_parameters(generator), source)
