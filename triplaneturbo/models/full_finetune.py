"""Full fine-tuning: weights of the base that are stored with the adapter in one file.

Base tensors are named `base.`, the model (`unet`, `decoder` or `post_quant_conv`), and diffusers' name, for
example `base.unet.conv_in.weight`.
"""

from __future__ import annotations

from collections.abc import Mapping

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from triplaneturbo.models.adapters import BASE_PREFIX
from triplaneturbo.models.released_checkpoint import check_tensors
from triplaneturbo.models.triplane_generator import TriplaneGenerator


def named_base_parameters(unet: UNet2DConditionModel, vae: AutoencoderKL) -> dict[str, nn.Parameter]:
    """Return the parameters of U-Net, decoder and post_quant_conv by name, without adapters."""
    models = {"unet": unet, "decoder": vae.decoder, "post_quant_conv": vae.post_quant_conv}
    return {
        f"{prefix}.{name.replace('.base_layer', '')}": parameter
        for prefix, model in models.items()
        if model is not None
        for name, parameter in model.named_parameters()
        if "lora_" not in name
    }


def base_parameters(generator: TriplaneGenerator) -> dict[str, nn.Parameter]:
    """Return the base parameters of a generator, named as in `named_base_parameters`."""
    return named_base_parameters(generator.unet, generator.vae)


def add_base_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return base tensors under their names in a file."""
    return {f"{BASE_PREFIX}{name}": value for name, value in tensors.items()}


def is_base_tensor(name: str) -> bool:
    """Return whether a tensor of a file belongs to the base."""
    return name.startswith(BASE_PREFIX)


def split_base_tensors(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split the tensors of a file into adapter and base tensors, the latter without their prefix.

    The second dict is empty for an adapter without full fine-tuning.
    """
    adapter = {name: value for name, value in tensors.items() if not is_base_tensor(name)}
    base = {name.removeprefix(BASE_PREFIX): value for name, value in tensors.items() if is_base_tensor(name)}
    return adapter, base


def check_base(generator: TriplaneGenerator, base: Mapping[str, Tensor], source: object) -> None:
    """Check that base tensors are complete and match this generator; no-op if there are none.

    Raises:
        UserError: a name is missing or unknown, or a shape differs.
    """
    if base:
        check_tensors(base, base_parameters(generator), source)
