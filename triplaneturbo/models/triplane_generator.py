"""The generator: latents of six planes denoised by an adapted U-Net and decoded by an adapted VAE."""

from __future__ import annotations

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


class Head(nn.Module):
    """What an adapter has beside its low-rank pairs: the decoder's last convolution and the field MLPs.

    `embedding`, where there is one, is added to what the U-Net's first convolution gives, plane by plane.
    `planes_out` takes the place of the VAE's own last convolution and gives 2C channels: the first C are a
    geometry plane, the last C a texture plane.
    """

    def __init__(self, decoder_channels: int, latent_channels: int, config: GeneratorConfig) -> None:
        super().__init__()
        if config.plane_embedding:
            side = config.latent_size
            self.embedding = nn.Parameter(torch.zeros(PLANES, latent_channels, side, side))
        self.planes_out = nn.Conv2d(decoder_channels, 2 * config.plane_channels, 3, padding=1)
        self.fields = FieldDecoder(config)

    def planes(self, features: Tensor) -> Tensor:
        """Decoder features [6B, F, H, W] -> planes [B, 6, C, H, W], computing only the half that is kept."""
        halves = features.unflatten(0, (-1, 2, PLANES // 2)).unbind(1)  # geometry, texture [B, 3, F, H, W]
        # In training it is of float32, whatever the features are.
        weights = self.planes_out.weight.to(features.dtype).chunk(2)
        biases = self.planes_out.bias.to(features.dtype).chunk(2)
        planes = [
            F.conv2d(half.flatten(0, 1), weight, bias, padding=1).unflatten(0, (-1, PLANES // 2))
            for half, weight, bias in zip(halves, weights, biases, strict=True)
        ]
        return torch.cat(planes, dim=1)


class TriplaneGenerator(nn.Module):
    """A frozen base (U-Net, VAE, schedule) with one or more named adapters, one of them active.

    Rows of the base's batches are b * 6 + p: plane p (xy, xz, yz of geometry, then of texture) of prompt b.
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
        self._plain = False  # whether the U-Net now serves as Stable Diffusion
        self._recomputing = False
        self.add_adapter(adapter)
        if config.plane_embedding:
            unet.conv_in.register_forward_hook(self._embed_planes)
        use_plane_attention(unet)
        use_phase_upsampling(unet)
        use_phase_upsampling(vae.decoder)

    def add_adapter(self, name: str) -> None:
        """Add an adapter that changes nothing yet (its head is random) and make it the active one."""
        self._refuse_if_merged()
        peta.inject(self.unet, self.vae.decoder, self.config, name)
        channels = self.vae.decoder.conv_out.in_channels, self.unet.conv_in.out_channels
        head = Head(*channels, self.config).to(self.device)
        head.planes_out.to(self.vae.decoder.conv_norm_out.weight.dtype)
        self.heads[name] = head
        self.set_adapter(name)

    def set_adapter(self, name: str) -> None:
        """Make the adapter called `name` the active one, whose weights alone then learn.

        Raises:
            KeyError: there is none.
            RuntimeError: the adapters are merged.
        """
        if name not in self.heads:
            raise KeyError(name)
        self._refuse_if_merged()
        for layer in self.adapter_layers():
            layer.set_adapter(name)
        for other, head in self.heads.items():
            head.requires_grad_(other == name)
        self.active = name

    def _embed_planes(self, _conv: nn.Module, _inputs: tuple, rows: Tensor) -> Tensor | None:
        if self._plain:
            return None
        embedding = self.heads[self.active].embedding.to(rows.dtype)  # [6, C, h, h]
        return rows + embedding.repeat(len(rows) // PLANES, 1, 1, 1)

    def _refuse_if_merged(self) -> None:
        if any(layer.merged for layer in self.adapter_layers()):
            raise RuntimeError("the adapters are merged into the base: unmerge() first")

    def adapter_layers(self) -> list:
        """The adapted layers of the U-Net and of the decoder (peft's BaseTunerLayer)."""
        return peta.adapter_modules(self.unet, self.vae.decoder)

    @contextmanager
    def base(self) -> Iterator[UNet2DConditionModel]:
        """The U-Net with its adapters off, which is Stable Diffusion: each row an image, no planes."""
        self._refuse_if_merged()
        layers = self.adapter_layers()
        learning = [parameter for parameter in self.parameters() if parameter.requires_grad]
        for layer in layers:
            layer.enable_adapters(False)
        self._plain = True
        try:
            yield self.unet
        finally:
            self._plain = False
            for layer in layers:
                layer.enable_adapters(True)
            # peft's switch sets what learns by its own rule.
            self.requires_grad_(False)
            for parameter in learning:
                parameter.requires_grad_(True)

    def merge(self) -> None:
        """Add every shared adapter to the weight that it adapts; the planes' own ones stay live.

        Do it in float32, before a cast to half precision.
        """
        for layer in self.adapter_layers():
            layer.merge()
        clear_phase_kernels(self)

    def unmerge(self) -> None:
        """Take the merged adapters out again, exact to rounding in the precision of the weights."""
        for layer in self.adapter_layers():
            if layer.merged:
                layer.unmerge()
        clear_phase_kernels(self)

    def cast(self, dtype: torch.dtype) -> TriplaneGenerator:
        """Set the base's and the adapters' precision; the field MLPs stay in float32. Returns itself.

        In bfloat16 the decoder's stages at the latents' own resolution stay in float32: what they round off
        grows in all that follows, and they cost a tenth of the products (benchmarks/generator.py prints the
        planes' error). The convolutions' weights are laid out channels last, as a CPU's kernels want them,
        and a GPU's for half precision.
        """
        layout = self._layout(dtype)
        for model in (self.unet, self.vae, *(head.planes_out for head in self.heads.values())):
            # diffusers' own `to` warns of modules to be kept in float32 even where there are none.
            nn.Module.to(model, dtype=dtype, memory_format=layout)
        if dtype == torch.bfloat16:
            for part in self._decoder_stages()[:4]:
                nn.Module.to(part, dtype=torch.float32)
        clear_phase_kernels(self)
        return self

    def _layout(self, dtype: torch.dtype) -> torch.memory_format:
        last = self.device.type == "cpu" or dtype != torch.float32
        return torch.channels_last if last else torch.contiguous_format

    def _decoder_stages(self) -> list[nn.Module]:
        decoder = self.vae.decoder
        return [self.vae.post_quant_conv, decoder.conv_in, decoder.mid_block, *decoder.up_blocks]

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the base's arithmetic."""
        return self.unet.conv_in.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the base lives."""
        return self.unet.conv_in.weight.device

    def recompute(self, on: bool = True) -> None:
        """Whether a backward pass computes the inside of the U-Net's and the decoder's blocks again.

        Of each block its input alone is kept then, and the decoder takes one plane at a time: the memory of
        one block of one plane instead of all, for a third more time. Gradients stay the same.
        """
        self._recomputing = on
        (self.unet.enable_gradient_checkpointing if on else self.unet.disable_gradient_checkpointing)()

    def draw_latents(self, count: int, rng: RandomStreams) -> Tensor:
        """Pure noise [count, 6, 4, h, h], float32, drawn where `chance` lives, then moved to the model."""
        side = self.config.latent_size
        shape = (count * PLANES, self.unet.config.in_channels, side, side)
        return normal(rng, shape).unflatten(0, (count, PLANES)).to(self.device)

    def predict(self, latents: Tensor, time: int | Tensor, text_embeds: Tensor) -> Tensor:
        """One pass of the U-Net: noisy latents [B, 6, 4, h, h], text [B, 77, D] -> [B, 6, 4, h, h]."""
        rows = latents.flatten(0, 1).to(self.dtype)  # [6B, 4, h, h]
        rows = rows.contiguous(memory_format=self._layout(self.dtype))
        output = self.unet(rows, time, encoder_hidden_states=text_embeds.to(self.dtype)).sample
        return output.to(latents.dtype).reshape(latents.shape)

    def denoise(self, latents: Tensor, text_embeds: Tensor, steps: int | None = None) -> Iterator[Tensor]:
        """From noise [B, 6, 4, h, h] and text [B, 77, D], yield each step's clean estimate, float32.

        The last one is what `decode` takes. `steps` defaults to the model's own number.
        """

        def predict(noisy: Tensor, time: Tensor) -> Tensor:
            return self.predict(noisy, time, text_embeds)

        return denoise_steps(self.scheduler, predict, latents, steps or self.config.steps)

    def decode(self, latents: Tensor, one_by_one: bool = False) -> Tensor:
        """Clean latents [B, 6, 4, h, h] -> feature planes [B, 6, C, H, W], of the latents' precision.

        The latents go in as they are, without the VAE's scaling factor (facts/generator.md 6). The decoder
        never mixes planes: `one_by_one` takes them so, for a sixth of the memory; on a CPU without gradients
        that is always done, as it stays in the caches.
        """
        rows = latents.flatten(0, 1)
        one_by_one |= self._recomputing if torch.is_grad_enabled() else rows.device.type == "cpu"
        rows = rows.contiguous(memory_format=self._layout(self.dtype))
        parts = rows.split(1) if one_by_one else [rows]
        features = torch.cat([self._decoder_features(part) for part in parts])
        return self.heads[self.active].planes(features).to(latents.dtype)

    def _decoder_features(self, rows: Tensor) -> Tensor:
        def through(stage: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
            if self._recomputing and torch.is_grad_enabled():
                return checkpoint(stage, x, use_reentrant=False)
            return stage(x)

        x = rows
        for stage in self._decoder_stages():
            x = through(stage, x.to(next(stage.parameters()).dtype))
        decoder = self.vae.decoder
        return through(lambda x: decoder.conv_act(decoder.conv_norm_out(x)), x)

    def fields(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """planes [B, 6, C, H, W], points [B, N, 3] -> sdf [B, N], offset [B, N, 3], rgb [B, N, 3]."""
        return self.heads[self.active].fields(planes, points)

    def field(self, planes: Tensor) -> TriplaneField:
        """One prompt's planes [6, C, H, W] with the active adapter's MLPs: what the mesh is made from."""
        return TriplaneField(planes, self.heads[self.active].fields)
