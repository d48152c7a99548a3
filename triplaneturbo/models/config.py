"""What a model's weights do not say themselves."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from triplaneturbo.errors import UserError
from triplaneturbo.utils.atomic_files import write_whole

CONFIG_NAME = "triplaneturbo.json"


@dataclass(frozen=True)
class GeneratorConfig:
    """The sizes and choices of a model; the defaults are those of the released weights.

    Attributes:
        plane_rank, cross_rank, vae_rank, conv_rank: ranks of the adapters: the planes' own in self-attention,
            those in cross-attention, in the decoder's attention, and on convolutions.
        plane_channels: channels C of one feature plane; the adapted decoder gives 2C, the first C for the
            geometry planes and the last C for the texture planes.
        mlp_width: width of the hidden layers of the three field MLPs.
        mlp_layers: number of hidden layers of each MLP.
        mlp_bias: whether the MLPs' linear layers have biases.
        mlp_activation: "relu", "silu" or "softplus".
        sphere_radius: the SDF is the MLP's value plus that of a sphere of this radius.
        latent_size: side of one latent; a plane's side is this times the VAE's factor.
        grid_resolution: nodes along each side of the marching cubes grid.
        plane_lora: whether each plane has its own low-rank pair in self-attention (PETA), or all share one
            (basic LoRA).
        plane_embedding: whether a learned embedding of plane and position is added after the U-Net's first
            convolution: pure noise does not say where it lies.
        steps: denoising steps.
        world: whether the model knows the words of `triplaneturbo.toyworld` only.
        untrained_seed: where the folder holds no weights, they are drawn from this seed; None: it holds them.
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
    steps: int = 4
    world: bool = False
    untrained_seed: int | None = None

    def save(self, folder: Path) -> None:
        """Write `triplaneturbo.json` into `folder`."""
        write_whole(folder / CONFIG_NAME, (json.dumps(asdict(self), indent=2) + "\n").encode())

    @classmethod
    def load(cls, folder: Path) -> GeneratorConfig:
        """Read `triplaneturbo.json` from `folder`; keys of a newer version are ignored.

        Raises:
            UserError: the file is missing or is not a JSON object of the right types.
        """
        path = folder / CONFIG_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{folder} holds no model: there is no {CONFIG_NAME} in it.") from None
        except (OSError, ValueError) as error:
            raise UserError(f"Cannot read {path}: {error}; restore it from where it came.") from None
        if not isinstance(values, dict):
            raise UserError(f"Cannot read {path}: it should hold one JSON object.")
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        config = cls(**known)
        config.check(path)
        return config

    def check(self, where: object) -> None:
        """Raise UserError naming `where` if a value has a wrong type or cannot be."""
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if field.name == "untrained_seed":
                if value is not None and type(value) is not int:
                    raise UserError(
                        f"{where}: untrained_seed should be a whole number or null, not {value!r}."
                    )
                continue
            kind = type(field.default)
            if type(value) not in ((int, float) if kind is float else (kind,)):
                raise UserError(f"{where}: {field.name} should be of type {kind.__name__}, not {value!r}.")
            if kind is int and value < 1:
                raise UserError(f"{where}: {field.name} should be at least 1, not {value}.")
        if self.mlp_activation not in ("relu", "silu", "softplus"):
            raise UserError(f"{where}: mlp_activation should be relu, silu or softplus.")
