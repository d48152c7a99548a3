"""PETA: the low-rank adapters that turn a frozen Stable Diffusion into a generator of planes.

Parameter-Efficient Triplane Adaptation (Progressive Rendering Distillation, CVPR 2025, section 3.3): in
self-attention each of the six planes has its own low-rank pair on to_q, to_k, to_v and to_out, and the six
planes of a prompt attend to each other; everywhere else (cross-attention, convolutions, the decoder's
attention) one ordinary LoRA serves all planes. Injection, naming, switching and merging are peft's; this file
adds the layer that peft does not have and says which modules are adapted.
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
    """A projection of the U-Net's self-attention: a linear layer whose adapters differ by plane."""


class PlaneOutLinear(PlaneLinear):
    """The same for to_out, whose adapter reads the projection's OUTPUT, bias included.

    So the released weights have it: y = W o + b, result y + up(down(y)). It is ordinary LoRA with
    down' = down W and the bias up(down(b)); the form with y costs less and keeps the file's numbers.
    """


class PlaneFactors(nn.Module):
    """One low-rank factor for each plane, `weight` [6, rows, columns]."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(PLANES, rows, columns))


class PlaneLora(nn.Module, LoraLayer):
    """A peft layer with six low-rank pairs, one a plane, applied in one batched product.

    Input [6B, N, in], row b * 6 + p belonging to plane p of prompt b; output [6B, N, out]. It cannot be
    merged into the one base weight that the six planes share, so `merge` leaves it live.
    """

    def __init__(self, base_layer: nn.Module, adapter_name: str, config=None, r: int = 0, **kwargs) -> None:
        super().__init__()
        LoraLayer.__init__(self, base_layer)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, config=config, **kwargs)

    def update_layer(self, adapter_name: str, r: int, lora_alpha: int = 0, config=None, **kwargs) -> None:
        """Add the pairs of one more adapter; `up` starts at zero, so that nothing changes at first."""
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
        """Do nothing: six planes cannot be merged into one weight."""

    def unmerge(self) -> None:
        """Do nothing, as `merge` does."""

    def forward(self, x: Tensor) -> Tensor:
        """Base projection plus the active adapters' [6B, N, in] -> [6B, N, out]."""
        result = self.base_layer(x)
        if self.disable_adapters:
            return result
        source = result if isinstance(self.get_base_layer(), PlaneOutLinear) else x
        rows, tokens, width = source.shape
        # Planes first, prompts beside the tokens: one product for all six planes.
        source = source.unflatten(0, (-1, PLANES)).transpose(0, 1).reshape(PLANES, -1, width)  # [6, BN, in]
        for name in self.active_adapters:
            if name in self.lora_A:
                factors = (self.lora_A[name].weight, self.lora_B[name].weight)
                # In training they may be of float32 beside a base in half precision.
                down, up = (factor.to(source.dtype) for factor in factors)
                low = source @ down.transpose(1, 2)  # [6, BN, r]
                delta = (low @ up.transpose(1, 2)).to(result.dtype)  # [6, BN, out]
                delta = delta.unflatten(1, (-1, tokens)).transpose(0, 1).reshape(rows, tokens, -1)
                result = result + delta
        return result


def _is_adapted_conv(name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and (".resnets." in name or "samplers." in name)


def adapted_layers(unet: nn.Module, decoder: nn.Module) -> list[tuple[str, str]]:
    """The adapted modules as (kind, name), in the order in which released files number them.

    kind: "plane" (self-attention), "cross", "vae_attention" or "conv"; name: from "unet." or "decoder." on.
    An attention counts once, its four projections together. The order is the modules' own: the attentions of
    the U-Net, of the decoder, then the convolutions of the U-Net, of the decoder (facts/generator.md 1).
    """
    rooms = (("unet", unet), ("decoder", decoder))
    layers = []
    for room, model in rooms:
        for name, module in model.named_modules():
            if isinstance(module, Attention):
                kind = (
                    "vae_attention" if room == "decoder" else "cross" if name.endswith("attn2") else "plane"
                )
                layers.append((kind, f"{room}.{name}"))
    for room, model in rooms:
        for name, module in model.named_modules():
            # Once adapters are in, the convolution stands as the wrapper's base_layer beside its factors.
            if "lora_" in name:
                continue
            name = name.removesuffix(".base_layer")
            if _is_adapted_conv(name, module):
                layers.append(("conv", f"{room}.{name}"))
    return layers


def target_names(layers: list[tuple[str, str]], room: str) -> list[str]:
    """Full names, within `room` ("unet" or "decoder"), of every linear and convolution that is adapted."""
    names = []
    for kind, name in layers:
        owner, _, inner = name.partition(".")
        if owner == room:
            names += [inner] if kind == "conv" else [f"{inner}.{projection}" for projection in PROJECTIONS]
    return names


def mark_plane_linears(unet: nn.Module) -> None:
    """Turn the projections of the U-Net's self-attention into PlaneLinear, weights and names unchanged."""
    for name, module in unet.named_modules():
        if isinstance(module, Attention) and name.endswith("attn1"):
            for projection in (module.to_q, module.to_k, module.to_v):
                projection.__class__ = PlaneLinear
            module.to_out[0].__class__ = PlaneOutLinear


def inject(unet: nn.Module, decoder: nn.Module, config: GeneratorConfig, name: str) -> None:
    """Add an adapter called `name` to both models, through peft; it starts as no change at all."""
    projections = f"({'|'.join(PROJECTIONS)})".replace(".", r"\.")
    ranks = {
        "unet": {rf"attn1\.{projections}": config.plane_rank, rf"attn2\.{projections}": config.cross_rank},
        "decoder": {rf"attentions\.\d+\.{projections}": config.vae_rank},
    }
    layers = adapted_layers(unet, decoder)
    for room, model in (("unet", unet), ("decoder", decoder)):
        lora = LoraConfig(
            r=config.conv_rank,
            lora_alpha=config.conv_rank,
            rank_pattern=ranks[room],
            alpha_pattern=ranks[room],  # as the rank: nothing is scaled
            target_modules=target_names(layers, room),
        )
        lora._register_custom_module({PlaneLinear: PlaneLora})
        with warnings.catch_warnings():
            # Several adapters in one model are what we are here for; peft warns of the second.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            inject_adapter_in_model(lora, model, name)


def adapter_modules(*models: nn.Module) -> list[BaseTunerLayer]:
    """Every adapted layer of the given models."""
    return [module for model in models for module in model.modules() if isinstance(module, BaseTunerLayer)]
