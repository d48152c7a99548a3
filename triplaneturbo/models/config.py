"""GeneratorConfig: the hyperparameters of a model, stored in triplaneturbo.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from triplaneturbo.errors import UserError
from triplaneturbo.utils.atomic_files import write_atomically

CONFIG_NAME = "triplaneturbo.json"
OPEN, TOYWORLD = "open", "toyworld"  # domains


@dataclass(frozen=True)
class GeneratorConfig:
    """Hyperparameters of a model; the defaults are those of the released weights.

    Attributes:
        plane_rank: rank of the per-plane adapters in the U-Net's self-attention.
        cross_rank: rank of the adapters in the U-Net's cross-attention.
        vae_rank: rank of the adapters in the decoder's attention.
        conv_rank: rank of the adapters on convolutions.
        plane_channels: channels C of one feature plane. The adapted decoder outputs 2C channels: the first C
            for geometry planes, the last C for texture planes.
        mlp_width: width of the hidden layers of the three field MLPs.
        mlp_layers: number of hidden layers of each MLP.
        mlp_bias: whether the linear layers of the MLPs have biases.
        mlp_activation: "relu", "silu" or "softplus".
        sphere_radius: radius of the sphere whose SDF is added to the output of the SDF MLP.
        latent_size: height and width of a latent; a plane is larger by the VAE's scale factor.
        grid_resolution: nodes along each side of the marching cubes grid.
        plane_lora: whether each plane has its own low-rank factors in self-attention (PETA), or all planes
            share them (plain LoRA).
        plane_embedding: whether a learned embedding per plane and position is added after the U-Net's first
            convolution.
        variants: number of variants of each object. If above 1, the initial noise chooses a variant, whose
            learned embedding is added to the text embeddings.
        steps: number of denoising steps.
        domain: kind of prompts that the model was trained on: a key of `domains.registry.DOMAINS`.
        untrained_seed: seed for random weights if the folder has none; None: the folder has weights.
    """

    plane_rank: int = 16
    cross_rank: int = 16
    vae_rank: int = 16
    conv_rank: int = 16
    plane_channels: int = 32
    mlp_width: int = 64
    mlp_layers: int = 2
    mlp_bias: bool = False
    mlp_activation: str = "relu"
    sphere_radius: float = 0.5
    latent_size: int = 32
    grid_resolution: int = 160
    plane_lora: bool = True
    plane_embedding: bool = False
    variants: int = 1
    steps: int = 4
    domain: str = OPEN
    untrained_seed: int | None = None

    def plane_size(self, vae_blocks: int) -> int:
        """Return the height and width of a plane, decoded by a VAE with this number of blocks."""
        return self.latent_size * 2 ** (vae_blocks - 1)

    def save(self, folder: Path) -> None:
        """Write `triplaneturbo.json` into `folder`."""
        # `world` is for versions that do not know `domain`.
        values = {**asdict(self), "world": self.domain == TOYWORLD}
        write_atomically(folder / CONFIG_NAME, (json.dumps(values, indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> GeneratorConfig:
        """Read `triplaneturbo.json` from `folder`; unknown keys are ignored.

        A file without `domain` may have `world`, which says whether the domain is the toy world.

        Raises:
            UserError: the file is missing or invalid.
        """
        path = folder / CONFIG_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{folder} contains no model: {CONFIG_NAME} not found.") from None
        except (OSError, ValueError) as error:
            raise UserError(f"Cannot read {path}: {error}; restore or download it again.") from None
        if not isinstance(values, dict):
            raise UserError(f"Cannot read {path}: it should contain one JSON object.")
        world = values.get("world", False)
        if type(world) is not bool:
            raise UserError(f"{path}: world should be of type bool, not {world!r}.")
        values = {"domain": TOYWORLD if world else OPEN, **values}
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        config = cls(**known)
        config.check(path)
        return config

    def check(self, where: object) -> None:
        """Raise UserError, with `where` in its message, if a value has the wrong type or is out of range."""
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if field.name == "untrained_seed":
                if value is not None and type(value) is not int:
                    raise UserError(f"{where}: untrained_seed should be an integer or null, not {value!r}.")
                continue
            kind = type(field.default)
            if type(value) not in ((int, float) if kind is float else (kind,)):
                raise UserError(f"{where}: {field.name} should be of type {kind.__name__}, not {value!r}.")
            if kind is int and value < 1:
                raise UserError(f"{where}: {field.name} should be at least 1, not {value}.")
        if self.mlp_activation not in ("relu", "silu", "softplus"):
            raise UserError(f"{where}: mlp_activation should be relu, silu or softplus.")
