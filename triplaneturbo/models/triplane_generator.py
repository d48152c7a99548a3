"""TriplaneGenerator: an adapted U-Net denoises latents of six planes, an adapted VAE decoder decodes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from triplaneturbo.models import peta
from triplaneturbo.models.attention import use_plane_attention
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.models.peta import PLANES
from triplaneturbo.models.schedule import denoise_steps
from triplaneturbo.models.upsample import clear_phase_kernels, use_phase_upsampling
from triplaneturbo.representations.triplane import FieldDecoder, TriplaneField
from triplaneturbo.utils.random_streams import RandomStreams, normal

# Text embeddings are of magnitude 1, so variants have to learn faster than the other weights of an adapter.
_VARIANT_SCALE = 10.0


class Head(nn.Module):
    """The parts of an adapter besides its low-rank factors: output convolution, field MLPs, embeddings.

    Attributes:
        embedding: optional plane embedding [6, F, h, h], added to the output of the U-Net's first
            convolution.
        variants: optional variant embeddings [M, D]; see `TriplaneGenerator.with_variants`.
        planes_out: replaces the VAE decoder's last convolution and outputs 2C channels: the first C are used
            for geometry planes, the last C for texture planes.
        fields: the field MLPs.
    """

    def __init__(
        self, decoder_channels: int, latent_channels: int, text_channels: int, config: GeneratorConfig
    ) -> None:
        super().__init__()
        if config.plane_embedding:
            side = config.latent_size
            self.embedding = nn.Parameter(torch.zeros(PLANES, latent_channels, side, side))
        if config.variants > 1:
            self.variants = nn.Parameter(torch.zeros(config.variants, text_channels))
        self.planes_out = nn.Conv2d(decoder_channels, 2 * config.plane_channels, 3, padding=1)
        self.fields = FieldDecoder(config)

    def planes(self, features: Tensor) -> Tensor:
        """Map decoder features [6B, F, H, W] to planes [B, 6, C, H, W], computing only the used channels."""
        halves = features.unflatten(0, (-1, 2, PLANES // 2)).unbind(1)  # geometry, texture [B, 3, F, H, W]
        # In training, planes_out may be float32 with features in half precision.
        weights = self.planes_out.weight.to(features.dtype).chunk(2)
        biases = self.planes_out.bias.to(features.dtype).chunk(2)
        planes = [
            F.conv2d(half.flatten(0, 1), weight, bias, padding=1).unflatten(0, (-1, PLANES // 2))
            for half, weight, bias in zip(halves, weights, biases, strict=True)
        ]
        return torch.cat(planes, dim=1)


class TriplaneGenerator(nn.Module):
    """A frozen base (U-Net, VAE, scheduler) with named adapters, one of which is active.

    Row b * 6 + p of a batch of the base is plane p of prompt b; planes are xy, xz, yz of geometry, then of
    texture.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler: DDIMScheduler,
        config: GeneratorConfig,
        adapter: str = "default",
    ) -> None:
        super().__init__()
        self.unet = unet.requires_grad_(False)
        self.vae = vae.requires_grad_(False)
        self.scheduler = scheduler
        self.config = config
        if config.plane_lora:
            peta.mark_plane_linears(unet)
        self.heads = nn.ModuleDict()
        self.active = adapter
        self._adapters_off = False  # whether the U-Net currently runs as plain Stable Diffusion
        self._recomputing = False
        self.add_adapter(adapter)
        if config.plane_embedding:
            unet.conv_in.register_forward_hook(self._embed_planes)
        use_plane_attention(unet)
        use_phase_upsampling(unet)
        use_phase_upsampling(vae.decoder)

    def add_adapter(self, name: str) -> None:
        """Add an adapter with zero low-rank updates and a random head, and activate it."""
        self._check_not_merged()
        peta.inject(self.unet, self.vae.decoder, self.config, name)
        head = Head(
            self.vae.decoder.conv_out.in_channels,
            self.unet.conv_in.out_channels,
            self.unet.config.cross_attention_dim,
            self.config,
        ).to(self.device)
        head.planes_out.to(self.vae.decoder.conv_norm_out.weight.dtype)
        self.heads[name] = head
        self.set_adapter(name)

    def set_adapter(self, name: str) -> None:
        """Activate the adapter `name` and make it the only trainable one.

        Raises:
            KeyError: there is no adapter of this name.
            RuntimeError: the adapters are merged.
        """
        if name not in self.heads:
            raise KeyError(name)
        self._check_not_merged()
        for layer in self.adapter_layers():
            layer.set_adapter(name)
        for other, head in self.heads.items():
            head.requires_grad_(other == name)
        self.active = name

    def _embed_planes(self, _conv: nn.Module, _inputs: tuple, rows: Tensor) -> Tensor | None:
        if self._adapters_off:
            return None
        embedding = self.heads[self.active].embedding.to(rows.dtype)  # [6, C, h, h]
        return rows + embedding.repeat(len(rows) // PLANES, 1, 1, 1)

    def _check_not_merged(self) -> None:
        if any(layer.merged for layer in self.adapter_layers()):
            raise RuntimeError("the adapters are merged into the base; call unmerge() first")

    def adapter_layers(self) -> list:
        """Return the adapted layers of the U-Net and the decoder (peft's BaseTunerLayer)."""
        return peta.adapter_modules(self.unet, self.vae.decoder)

    @contextmanager
    def base(self) -> Iterator[UNet2DConditionModel]:
        """Yield the U-Net with adapters disabled: plain Stable Diffusion, where each row is an image."""
        self._check_not_merged()
        layers = self.adapter_layers()
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        for layer in layers:
            layer.enable_adapters(False)
        self._adapters_off = True
        try:
            yield self.unet
        finally:
            self._adapters_off = False
            for layer in layers:
                layer.enable_adapters(True)
            # enable_adapters changes requires_grad.
            self.requires_grad_(False)
            for parameter in trainable:
                parameter.requires_grad_(True)

    def merge(self) -> None:
        """Merge all shared adapters into the base weights; per-plane adapters remain separate.

        Call it in float32, before a cast to half precision.
        """
        for layer in self.adapter_layers():
            layer.merge()
        clear_phase_kernels(self)

    def unmerge(self) -> None:
        """Subtract the merged adapters from the base weights, exact up to rounding in their precision."""
        for layer in self.adapter_layers():
            if layer.merged:
                layer.unmerge()
        clear_phase_kernels(self)

    def cast(self, dtype: torch.dtype) -> TriplaneGenerator:
        """Cast the base and the adapters, except for the field MLPs, which stay in float32. Returns self.

        In bfloat16, the decoder stages at latent resolution stay in float32: their rounding errors are
        amplified by later stages, and they take a tenth of the compute (benchmarks/generator.py prints the
        errors of the planes). Convolutions use channels-last weights on a CPU and, in half precision, on a
        GPU.
        """
        layout = self._layout(dtype)
        for model in (self.unet, self.vae, *(head.planes_out for head in self.heads.values())):
            # The `to` of diffusers warns about modules to keep in float32 even if there are none.
            nn.Module.to(model, dtype=dtype, memory_format=layout)
        if dtype == torch.bfloat16:
            for part in self._decoder_stages()[:4]:
                nn.Module.to(part, dtype=torch.float32)
        clear_phase_kernels(self)
        return self

    def _layout(self, dtype: torch.dtype) -> torch.memory_format:
        channels_last = self.device.type == "cpu" or dtype != torch.float32
        return torch.channels_last if channels_last else torch.contiguous_format

    def _decoder_stages(self) -> list[nn.Module]:
        decoder = self.vae.decoder
        return [self.vae.post_quant_conv, decoder.conv_in, decoder.mid_block, *decoder.up_blocks]

    @property
    def dtype(self) -> torch.dtype:
        """Compute dtype of the base."""
        return self.unet.conv_in.weight.dtype

    @property
    def device(self) -> torch.device:
        """Device of the base."""
        return self.unet.conv_in.weight.device

    def recompute(self, on: bool = True) -> None:
        """Enable or disable gradient checkpointing of the U-Net's and the decoder's blocks.

        It keeps only the input of each block, and decodes one plane at a time: activation memory of one block
        of one plane instead of all, for a third more time. Gradients are unchanged.
        """
        self._recomputing = on
        (self.unet.enable_gradient_checkpointing if on else self.unet.disable_gradient_checkpointing)()

    def draw_latents(self, count: int, rng: RandomStreams) -> Tensor:
        """Draw standard normal latents [count, 6, 4, h, h] in float32; the device of `rng` draws them."""
        side = self.config.latent_size
        shape = (count * PLANES, self.unet.config.in_channels, side, side)
        return normal(rng, shape).unflatten(0, (count, PLANES)).to(self.device)

    def choose_variants(self, noise: Tensor) -> Tensor:
        """Return the variant that standard normal noise [B, 6, 4, h, h] chooses: int64 [B], below `variants`.

        All are equally likely. The choice depends on the sum of the noise, so that noise that is interpolated
        between two seeds changes from one's variant to the other's rather than through random ones.
        """
        count = self.config.variants
        values = noise.flatten(1).double()  # sums must not depend on their order
        share = torch.special.ndtr(values.sum(1) / math.sqrt(values.shape[1]))  # uniform in [0, 1]
        return (share * count).long().clamp(max=count - 1)

    def with_variants(self, text_embeds: Tensor, noise: Tensor) -> Tensor:
        """Add the embedding of the variant that initial noise chooses, if the model has variants.

        Args:
            text_embeds: text embeddings [B, 77, D].
            noise: standard normal noise [B, 6, 4, h, h] at which denoising begins.

        Returns:
            [B, 77, D].
        """
        if self.config.variants == 1:
            return text_embeds
        chosen = self.heads[self.active].variants[self.choose_variants(noise)]  # [B, D]
        return text_embeds + _VARIANT_SCALE * chosen[:, None].to(text_embeds)

    def predict(self, latents: Tensor, time: int | Tensor, text_embeds: Tensor) -> Tensor:
        """Run the U-Net once.

        Args:
            latents: noisy latents [B, 6, 4, h, h].
            time: timestep.
            text_embeds: text embeddings of `with_variants` [B, 77, D], or [2B, 77, D] of `look.interleave`.

        Returns:
            [B, 6, 4, h, h] in the dtype of `latents`.
        """
        rows = latents.flatten(0, 1).to(self.dtype)  # [6B, 4, h, h]
        rows = rows.contiguous(memory_format=self._layout(self.dtype))
        output = self.unet(rows, time, encoder_hidden_states=text_embeds.to(self.dtype)).sample
        return output.to(latents.dtype).reshape(latents.shape)

    def denoise(self, latents: Tensor, text_embeds: Tensor, steps: int | None = None) -> Iterator[Tensor]:
        """Denoise latents and yield the predicted clean sample of each step [B, 6, 4, h, h] in float32.

        Args:
            latents: standard normal noise [B, 6, 4, h, h].
            text_embeds: text embeddings [B, 77, D].
            steps: number of steps; None: `config.steps`.
        """
        text_embeds = self.with_variants(text_embeds, latents)

        def predict(noisy: Tensor, time: Tensor) -> Tensor:
            return self.predict(noisy, time, text_embeds)

        return denoise_steps(self.scheduler, predict, latents, steps or self.config.steps)

    def decode(self, latents: Tensor, one_by_one: bool = False) -> Tensor:
        """Decode clean latents [B, 6, 4, h, h] to feature planes [B, 6, C, H, W] in the dtype of the latents.

        As in the released model, latents are not divided by the VAE's scaling factor.

        Args:
            latents: clean latents.
            one_by_one: decode planes one at a time, for a sixth of the memory. It is always used on a CPU
                without gradients, where it is more cache friendly.
        """
        rows = latents.flatten(0, 1)
        one_by_one |= self._recomputing if torch.is_grad_enabled() else rows.device.type == "cpu"
        rows = rows.contiguous(memory_format=self._layout(self.dtype))
        parts = rows.split(1) if one_by_one else [rows]
        features = torch.cat([self._decoder_features(part) for part in parts])
        return self.heads[self.active].planes(features).to(latents.dtype)

    def _decoder_features(self, rows: Tensor) -> Tensor:
        def run(stage: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
            if self._recomputing and torch.is_grad_enabled():
                return checkpoint(stage, x, use_reentrant=False)
            return stage(x)

        x = rows
        for stage in self._decoder_stages():
            x = run(stage, x.to(next(stage.parameters()).dtype))
        decoder = self.vae.decoder
        return run(lambda x: decoder.conv_act(decoder.conv_norm_out(x)), x)

    def fields(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query the field of planes [B, 6, C, H, W] at points [B, N, 3]; see `FieldDecoder.forward`."""
        return self.heads[self.active].fields(planes, points)

    def field(self, planes: Tensor) -> TriplaneField:
        """Bind one prompt's planes [6, C, H, W] to the active adapter's MLPs, for mesh extraction."""
        return TriplaneField(planes, self.heads[self.active].fields)
