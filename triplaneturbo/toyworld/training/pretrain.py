"""Pretraining of a small Stable Diffusion from scratch on images of the toy world.

    python -m triplaneturbo.toyworld pretrain --folder runs/small

The stages are the tokenizer, the VAE, and the U-Net together with the text encoder. Interrupted training is
resumed. The folder then holds `base/` in the diffusers layout, and sheets of reconstructions and samples.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTokenizer

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.common import encode_image
from triplaneturbo.mesh.preview import sheet
from triplaneturbo.models.groupnorm_layout import use_contiguous_groupnorm
from triplaneturbo.models.schedule import denoise_steps
from triplaneturbo.models.text_encoder import TextEncoder
from triplaneturbo.toyworld.captions.combinations import held_out, seen
from triplaneturbo.toyworld.captions.tokenizer import train_tokenizer, world_texts
from triplaneturbo.toyworld.scene.view_cache import ViewCache
from triplaneturbo.toyworld.training.pictures import PictureSampler
from triplaneturbo.toyworld.training.sizes import make_scheduler, make_text_model, make_unet, make_vae
from triplaneturbo.toyworld.training.stage import train_stage
from triplaneturbo.utils.atomic_files import write_atomically
from triplaneturbo.utils.distributed import DistributedContext

OBJECT_WEIGHT = 5.0  # loss weight of object pixels; with 1, the VAE does not learn colours
NO_TEXT = 0.1  # fraction of images without a caption, for classifier-free guidance
SHOWN = 24  # seen captions in the sheet of samples, and as many held-out ones


def pretrain(
    context: DistributedContext, folder: Path, keys: list, vae_steps: int, unet_steps: int, batch: int
) -> None:
    """Train all parts that are not yet in `folder/base`.

    Args:
        folder: run folder, which holds the view cache in `pool/`.
        keys: keys of the view cache.
        vae_steps, unet_steps: steps of the two stages.
        batch: images per step and process.
    """
    base = folder / "base"
    torch.manual_seed(0)
    sampler = PictureSampler(ViewCache(folder / "pool", keys), seen())
    if context.is_main_process and not (base / "tokenizer" / "vocab.json").exists():
        train_tokenizer(base / "tokenizer", world_texts())
    context.wait()
    if not (base / "vae" / "config.json").exists():
        _train_vae(context, folder, sampler, vae_steps, batch)
    if not (base / "unet" / "config.json").exists():
        _train_unet(context, folder, sampler, unet_steps, batch)


def _train_vae(
    context: DistributedContext, folder: Path, sampler: PictureSampler, steps: int, batch: int
) -> None:
    vae = make_vae().to(context.device)
    use_contiguous_groupnorm(vae)
    modules = nn.ModuleDict({"vae": vae})

    def loss(rng: np.random.Generator, noise: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        pictures = sampler.draw(batch, rng)
        images = pictures.images.to(context.device)
        posterior = vae.encode(images).latent_dist
        # A little noise keeps the latents smooth; more would wash out colours.
        jitter = torch.randn(posterior.mean.shape, generator=noise).to(context.device)
        output = vae.decode(posterior.mean + 0.1 * jitter).sample.float()
        weight = 1 + (OBJECT_WEIGHT - 1) * pictures.object.to(context.device)
        error = output - images
        picture = ((error.abs() + error.square()) * weight).mean() / weight.mean()
        spread = posterior.mean.float().square().mean()
        return picture + 1e-3 * spread, {"picture": picture.item(), "spread": spread.item()}

    def preview(step: int) -> None:
        with torch.no_grad():
            pictures = sampler.draw(24, np.random.default_rng(0)).images.to(context.device)
            again = vae.decode(vae.encode(pictures).latent_dist.mean).sample
        save_sheet(folder / "vae.png", torch.cat((pictures, again)), 24)

    train_stage("vae", folder, modules, loss, context=context, steps=steps, rate=2e-3,
                settings={"batch": batch}, average=0.995, progress=preview)  # fmt: skip
    with torch.no_grad():
        images = sampler.draw(256, np.random.default_rng(1)).images.to(context.device)
        spread = vae.encode(images).latent_dist.mean.std().item()
    vae.register_to_config(scaling_factor=1 / spread)
    if context.is_main_process:
        preview(steps)
        save_part(vae, folder / "base" / "vae")
    context.wait()


def _train_unet(
    context: DistributedContext, folder: Path, sampler: PictureSampler, steps: int, batch: int
) -> None:
    base = folder / "base"
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
    vae = AutoencoderKL.from_pretrained(base / "vae").to(context.device)
    vae.requires_grad_(False)
    unet = make_unet().to(context.device)
    text = make_text_model(tokenizer).to(context.device)
    use_contiguous_groupnorm(unet)
    unet.set_attn_processor(AttnProcessor())  # several times as fast as the fused one backwards on a CPU
    modules = nn.ModuleDict({"unet": unet, "text": text})
    scheduler = make_scheduler()
    alphas = scheduler.alphas_cumprod.to(context.device)
    ids: dict[str, Tensor] = {}

    def loss(rng: np.random.Generator, noise: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        pictures = sampler.draw(batch, rng)
        texts = [caption if rng.random() >= NO_TEXT else "" for caption in pictures.captions]
        for one in texts:
            if one not in ids:
                ids[one] = tokenizer(one, padding="max_length", max_length=77, return_tensors="pt").input_ids
        embeds = text(torch.cat([ids[one] for one in texts]).to(context.device)).last_hidden_state
        with torch.no_grad():
            latents = vae.encode(pictures.images.to(context.device)).latent_dist.mean.float()
            latents *= vae.config.scaling_factor
        times = torch.randint(0, 1000, (batch,), generator=noise).to(context.device)
        random = torch.randn(latents.shape, generator=noise).to(context.device)
        alpha = alphas[times].sqrt()[:, None, None, None]
        sigma = (1 - alpha**2).sqrt()
        velocity = alpha * random - sigma * latents
        output = unet(alpha * latents + sigma * random, times, encoder_hidden_states=embeds).sample
        error = F.mse_loss(output.float(), velocity)
        return error, {"velocity": error.item()}

    def preview(step: int) -> None:
        if step % 1000 == 0 and step < steps:
            save_text_sheet(folder, unet, vae, TextEncoder(tokenizer, text), scheduler)
            text.requires_grad_(True).train()

    train_stage("unet", folder, modules, loss, context=context, steps=steps, rate=1e-3,
                settings={"batch": batch}, average=0.999, progress=preview)  # fmt: skip
    if context.is_main_process:
        save_text_sheet(folder, unet, vae, TextEncoder(tokenizer, text), scheduler)
        save_part(text, base / "text_encoder")
        save_part(scheduler, base / "scheduler")
        save_part(unet, base / "unet")  # written last: if it exists, the base is complete
    context.wait()


def save_part(part, folder: Path) -> None:
    """Call `part.save_pretrained(folder)` atomically; raises UserError if it cannot be written."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
            part.save_pretrained(Path(place) / "new")
            (Path(place) / "new").rename(folder)
    except OSError as error:
        raise UserError(
            f"Cannot write {folder}: {error.strerror}; free disk space or choose another folder."
        ) from error


@torch.no_grad()
def sample(
    unet, vae, embeds: Tensor, empty: Tensor, scheduler, seed: int = 0, guidance: float = 3.0
) -> Tensor:
    """Sample images [B, 3, 64, 64] with 25 DDIM steps and classifier-free guidance.

    Args:
        embeds: text embeddings [B, 77, D].
        empty: embeddings of the empty prompt [B, 77, D].
    """

    def predict(noisy: Tensor, time: Tensor) -> Tensor:
        both = unet(noisy.repeat(2, 1, 1, 1), time, encoder_hidden_states=torch.cat((empty, embeds))).sample
        without, with_text = both.chunk(2)
        return without + guidance * (with_text - without)

    side = unet.config.sample_size
    noise = torch.randn(len(embeds), 4, side, side, generator=torch.Generator().manual_seed(seed))
    for latents in denoise_steps(scheduler, predict, noise.to(embeds.device), 25):
        clean = latents
    return vae.decode(clean / vae.config.scaling_factor).sample


def save_text_sheet(folder: Path, unet, vae, text: TextEncoder, scheduler) -> None:
    """Sample SHOWN seen and as many held-out captions into `pictures.png`; list them in `pictures.txt`."""
    rng = np.random.default_rng(5)
    unseen = sorted(held_out(), key=lambda spec: spec.caption)
    captions = [seen()[i].caption for i in rng.choice(len(seen()), SHOWN)]
    captions += [unseen[i].caption for i in rng.choice(len(unseen), SHOWN)]
    embeds = text.embed(captions)
    pictures = sample(unet, vae, embeds, text.embed([""]).expand_as(embeds), scheduler)
    save_sheet(folder / "pictures.png", pictures, 12)
    write_atomically(folder / "pictures.txt", "".join(f"{caption}\n" for caption in captions).encode())


def save_sheet(path: Path, images: Tensor, columns: int) -> None:
    """Write images [B, 3, H, W] in [-1, 1] as one PNG."""
    pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    write_atomically(path, encode_image(sheet(list(pixels), columns=columns, gap=1), "png"))
