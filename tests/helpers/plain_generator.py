"""The generator written slowly: a loop over planes, attention matrices in full, text repeated, no merging.

It follows docs/released-weights.md alone and shares only the schedule's numbers with the package: the twin of
the fast path in the tests, and the baseline of benchmarks/generator.py.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

PLANES = ("xy_lora_geo", "xz_lora_geo", "yz_lora_geo", "xy_lora_tex", "xz_lora_tex", "yz_lora_tex")
LAYERS = "geometry.space_generator.peft_layers.layers"


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """[B, N, C], [B, M, C], [B, M, C] -> [B, N, C], the attention matrix of each head made in full."""
    q, k, v = (x.unflatten(2, (heads, -1)).permute(0, 2, 1, 3) for x in (q, k, v))
    scores = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5
    return (scores.softmax(-1) @ v).permute(0, 2, 1, 3).flatten(2)


class PlainGenerator(nn.Module):
    """Base models (copied) and a released state dict, applied as the facts page says and no faster."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler: DDIMScheduler,
        state: dict[str, Tensor],
    ) -> None:
        super().__init__()
        self.unet, self.decoder = copy.deepcopy(unet), copy.deepcopy(vae.decoder)
        self.post_quant_conv = copy.deepcopy(vae.post_quant_conv)
        self.scheduler = scheduler
        self.state = state
        number = 0
        for model in (self.unet, self.decoder):
            for name, module in model.named_modules():
                if isinstance(module, Attention):
                    module.set_processor(self._processor(number, name, model is self.decoder))
                    number += 1
        for model in (self.unet, self.decoder):
            for name, module in model.named_modules():
                if isinstance(module, nn.Conv2d) and (".resnets." in name or "samplers." in name):
                    module.register_forward_hook(self._conv_hook(number))
                    number += 1
        self.last = number

    def _low_rank(self, number: int, name: str, x: Tensor) -> Tensor:
        key = f"{LAYERS}.{number}.{name}"
        return F.linear(F.linear(x, self.state[f"{key}.down.weight"]), self.state[f"{key}.up.weight"])

    def _conv_hook(self, number: int):
        def hook(conv: nn.Conv2d, args: tuple[Tensor], output: Tensor) -> Tensor:
            key = f"{LAYERS}.{number}"
            low = F.conv2d(
                args[0], self.state[f"{key}.down.weight"], stride=conv.stride, padding=conv.padding
            )
            return output + F.conv2d(low, self.state[f"{key}.up.weight"])

        return hook

    def _processor(self, number: int, name: str, in_vae: bool):
        def plane_attention(attn: Attention, x: Tensor, **_: object) -> Tensor:
            rows = []
            for projection in ("to_q", "to_k", "to_v"):
                layer = getattr(attn, projection)
                rows.append(
                    torch.stack(
                        [
                            layer(row) + self._low_rank(number, f"{projection}_{PLANES[i % 6]}", row)
                            for i, row in enumerate(x)
                        ]
                    )
                )
            q, k, v = (r.reshape(len(x) // 6, -1, r.shape[-1]) for r in rows)
            mixed = _attend(q, k, v, attn.heads).reshape(x.shape[0], x.shape[1], -1)
            result = []
            for i, row in enumerate(mixed):
                out = attn.to_out[0](row)
                result.append(out + self._low_rank(number, f"to_out_{PLANES[i % 6]}", out))
            return torch.stack(result)

        def shared_attention(
            attn: Attention,
            x: Tensor,
            encoder_hidden_states: Tensor | None = None,
            temb: None = None,
            **_: object,
        ) -> Tensor:
            residual = x
            if in_vae:
                x = attn.group_norm(x.flatten(2)).transpose(1, 2)
            other = x if encoder_hidden_states is None else encoder_hidden_states
            q, k, v = (
                getattr(attn, p)(y) + self._low_rank(number, f"{p}_lora", y)
                for p, y in (("to_q", x), ("to_k", other), ("to_v", other))
            )
            mixed = _attend(q, k, v, attn.heads)
            out = attn.to_out[0](mixed) + self._low_rank(number, "to_out_lora", mixed)
            if in_vae:
                out = out.transpose(1, 2).reshape(residual.shape) + residual
            return out

        return plane_attention if name.endswith("attn1") else shared_attention

    def predict(self, latents: Tensor, time: int, text: Tensor) -> Tensor:
        """[B, 6, 4, h, h], [B, 77, D] -> [B, 6, 4, h, h]."""
        rows = latents.flatten(0, 1)
        output = self.unet(rows, time, encoder_hidden_states=text.repeat_interleave(6, 0)).sample
        return output.view_as(latents)

    def denoise(self, latents: Tensor, text: Tensor, times: list[int]) -> Tensor:
        """The last clean estimate, by the formulas of docs/released-weights.md for epsilon prediction."""
        alphas = self.scheduler.alphas_cumprod
        clean = latents
        for time in times:
            a = alphas[time]
            before = time - 1000 // len(times)
            b = alphas[before] if before >= 0 else alphas[0]
            eps = self.predict(latents, time, text)
            clean = (latents - (1 - a).sqrt() * eps) / a.sqrt()
            latents = b.sqrt() * clean + (1 - b).sqrt() * eps
        return clean

    def decode(self, latents: Tensor) -> Tensor:
        """[B, 6, 4, h, h] -> [B, 6, C, H, W]: all channels computed, half of them dropped."""
        x = self.post_quant_conv(latents.flatten(0, 1))
        x = self.decoder.mid_block(self.decoder.conv_in(x), None)
        for block in self.decoder.up_blocks:
            x = block(x, None)
        x = self.decoder.conv_act(self.decoder.conv_norm_out(x))
        key = f"{LAYERS}.{self.last}"
        x = F.conv2d(x, self.state[f"{key}.weight"], self.state[f"{key}.bias"], padding=1)
        x = x.unflatten(0, (-1, 6))
        half = x.shape[2] // 2
        return torch.cat((x[:, :3, :half], x[:, 3:, half:]), 1)
