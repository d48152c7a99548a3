"""The base as it was learned itself ("full" tuning), beside the adapter in one file.

Its tensors are called `base.`, the room, and diffusers' name: `base.unet.conv_in.weight`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from triplaneturbo.generator.generator import Generator
from triplaneturbo.generator.released import check_names, check_shape

_MARK = "base."


def base_parameters(generator: Generator) -> dict[str, nn.Parameter]:
    """The parameters of the U-Net, the decoder and the convolution before it, but no adapter's, by name."""
    vae = generator.vae
    rooms = {"unet": generator.unet, "decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    return {
        f"{room}.{name.replace('.base_layer', '')}": parameter
        for room, model in rooms.items()
        if model is not None
        for name, parameter in model.named_parameters()
        if "lora_" not in name
    }


def marked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A base's tensors as they are called in a file."""
    return {f"{_MARK}{name}": value for name, value in tensors.items()}


def is_of_base(name: str) -> bool:
    """Whether a file's tensor is the base's."""
    return name.startswith(_MARK)


def apart(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A file's tensors as those of the adapter and those of the base, which are none without full tuning."""
    adapter = {name: value for name, value in tensors.items() if not is_of_base(name)}
    base = {name.removeprefix(_MARK): value for name, value in tensors.items() if is_of_base(name)}
    return adapter, base


def check_base(generator: Generator, base: Mapping[str, Tensor], source: object) -> None:
    """Nothing, if tensors are a whole base for this generator, or none at all.

    Raises:
        UserError: a name is missing or unknown, or a shape differs.
    """
    if not base:
        return
    wanted = base_parameters(generator)
    check_names(set(base), set(wanted), source)
    for name, value in base.items():
        check_shape(name, value.shape, wanted[name].shape, source)
