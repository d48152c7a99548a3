"""PETA: per-plane LoRA adapters that turn a frozen Stable Diffusion into a triplane generator.

Parameter-Efficient Triplane Adaptation (Progressive Rendering Distillation, arXiv 2503.21694, section 3.3):
in self-attention, each of the six planes has its own low-rank factors on to_q, to_k, to_v and to_out, and the
six planes of a prompt attend to each other. Elsewhere (cross-attention, convolutions, the decoder's
attention) all planes share one LoRA. peft injects, names, switches and merges adapters; this module adds the
per-plane layer and selects the adapted modules.
"""

from __future__ import annotations

import warnings

import torch
from diffusers.models.attention_processor import Attention
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from triplaneturbo.models.config import GeneratorConfig

PLANES = 6
PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")


class PlaneLinear(nn.Linear):
    """A query, key or value projection of the U-Net's self-attention, marked for per-plane adapters."""


class PlaneOutLinear(PlaneLinear):
    """The output projection to_out, whose adapter is applied to the projection's output, bias included.

    This follows the released weights: with y = W x + b, the result is y + up(down(y)). It equals ordinary
    LoRA with down' = down W and an extra bias up(down(b)), but is cheaper and keeps the released factors.
    """


class PlaneFactors(nn.Module):
    """One low-rank factor per plane, `weight` [6, rows, columns]."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(PLANES, rows, columns))


class PlaneLora(nn.Module, LoraLayer):
    """A peft layer with one pair of low-rank factors per plane, applied in one batched matrix product.

    Input [6B, N, in], where row b * 6 + p is plane p of prompt b; output [6B, N, out]. The six planes share
    one base weight, so the layer cannot be merged and `merge` is a no-op.
    """

    def __init__(self, base_layer: nn.Module, adapter_name: str, config=None, r: int = 0, **kwargs) -> None:
        super().__init__()
        LoraLayer.__init__(self, base_layer)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, config=config, **kwargs)

    def update_layer(self, adapter_name: str, r: int, lora_alpha: int = 0, config=None, **kwargs) -> None:
        """Add the factors of an adapter; `up` is initialised to zero, so the output is unchanged at first."""
        base = self.get_base_layer()
        width = self.out_features if isinstance(base, PlaneOutLinear) else self.in_features
        self.r[adapter_name] = r
        self.lora_alpha[adapter_name] = r
        self.scaling[adapter_name] = 1.0
        self.lora_A[adapter_name] = PlaneFactors(r, width)
        self.lora_B[adapter_name] = PlaneFactors(self.out_features, r)
        for plane in self.lora_A[adapter_name].weight.data:
            nn.init.kaiming_uniform_(plane, a=5**0.5)
        nn.init.zeros_(self.lora_B[adapter_name].weight)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        inference = bool(getattr(config, "inference_mode", False))
        self.set_adapter(self.active_adapters, inference_mode=inference)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """No-op: per-plane factors cannot be merged into one shared weight."""

    def unmerge(self) -> None:
        """No-op, as `merge`."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply the base projection and the active adapters: [6B, N, in] -> [6B, N, out]."""
        result = self.base_layer(x)
        if self.disable_adapters:
            return result
        source = result if isinstance(self.get_base_layer(), PlaneOutLinear) else x
        rows, tokens, width = source.shape
        # Planes first, prompts and tokens flattened: one batched product for all six planes.
        source = source.unflatten(0, (-1, PLANES)).transpose(0, 1).reshape(PLANES, -1, width)  # [6, BN, in]
        for name in self.active_adapters:
            if name in self.lora_A:
                factors = (self.lora_A[name].weight, self.lora_B[name].weight)
                # In training, factors may be float32 on a base in half precision.
                down, up = (factor.to(source.dtype) for factor in factors)
                low = source @ down.transpose(1, 2)  # [6, BN, r]
                delta = (low @ up.transpose(1, 2)).to(result.dtype)  # [6, BN, out]
                delta = delta.unflatten(1, (-1, tokens)).transpose(0, 1).reshape(rows, tokens, -1)
                result = result + delta
        return result


def _is_adapted_conv(name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and (".resnets." in name or "samplers." in name)


def adapted_layers(unet: nn.Module, decoder: nn.Module) -> list[tuple[str, str]]:
    """List the adapted modules in the order in which released checkpoints number them.

    The order is: attention layers of the U-Net, of the decoder, convolutions of the U-Net, of the decoder,
    each in the order of `named_modules`. An attention layer counts once, with its four projections.

    Returns:
        (kind, name) pairs. kind is "plane" (self-attention), "cross", "vae_attention" or "conv"; name starts
        with "unet." or "decoder.".
    """
    models = (("unet", unet), ("decoder", decoder))
    layers = []
    for prefix, model in models:
        for name, module in model.named_modules():
            if isinstance(module, Attention):
                kind = (
                    "vae_attention" if prefix == "decoder" else "cross" if name.endswith("attn2") else "plane"
                )
                layers.append((kind, f"{prefix}.{name}"))
    for prefix, model in models:
        for name, module in model.named_modules():
            # After injection, the convolution is the base_layer of a peft wrapper.
            if "lora_" in name:
                continue
            name = name.removesuffix(".base_layer")
            if _is_adapted_conv(name, module):
                layers.append(("conv", f"{prefix}.{name}"))
    return layers


def target_names(layers: list[tuple[str, str]], prefix: str) -> list[str]:
    """Return the names, within the model `prefix` ("unet" or "decoder"), of all adapted linears and convs."""
    names = []
    for kind, name in layers:
        model, _, inner = name.partition(".")
        if model == prefix:
            names += [inner] if kind == "conv" else [f"{inner}.{projection}" for projection in PROJECTIONS]
    return names


def mark_plane_linears(unet: nn.Module) -> None:
    """Convert the self-attention projections of the U-Net to PlaneLinear, keeping weights and names."""
    for name, module in unet.named_modules():
        if isinstance(module, Attention) and name.endswith("attn1"):
            for projection in (module.to_q, module.to_k, module.to_v):
                projection.__class__ = PlaneLinear
            module.to_out[0].__class__ = PlaneOutLinear


def inject(unet: nn.Module, decoder: nn.Module, config: GeneratorConfig, name: str) -> None:
    """Inject an adapter called `name` into both models through peft; initially it changes nothing."""
    projections = f"({'|'.join(PROJECTIONS)})".replace(".", r"\.")
    ranks = {
        "unet": {rf"attn1\.{projections}": config.plane_rank, rf"attn2\.{projections}": config.cross_rank},
        "decoder": {rf"attentions\.\d+\.{projections}": config.vae_rank},
    }
    layers = adapted_layers(unet, decoder)
    for prefix, model in (("unet", unet), ("decoder", decoder)):
        lora = LoraConfig(
            r=config.conv_rank,
            lora_alpha=config.conv_rank,
            rank_pattern=ranks[prefix],
            alpha_pattern=ranks[prefix],  # alpha = rank: a scaling of 1
            target_modules=target_names(layers, prefix),
        )
        lora._register_custom_module({PlaneLinear: PlaneLora})
        with warnings.catch_warnings():
            # peft warns about a second adapter, which is intended here.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            inject_adapter_in_model(lora, model, name)


def adapter_modules(*models: nn.Module) -> list[BaseTunerLayer]:
    """Return all adapted layers of the given models."""
    return [module for model in models for module in model.modules() if isinstance(module, BaseTunerLayer)]
