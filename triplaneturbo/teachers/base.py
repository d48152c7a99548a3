"""The teacher protocol: a frozen diffusion model that denoises the student's renderings.

A teacher encodes the renderings (`Renderings`) of a batch of scenes (`SceneBatch`) into the space that it
diffuses (`encode`), collects its conditioning (`condition`) and predicts noise (`predict`). Diffusion
networks and closed-form denoisers implement the same three methods.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from triplaneturbo.render.scenes import Renderings, SceneBatch
from triplaneturbo.utils.random_streams import RandomStreams


class Teacher(Protocol):
    """A frozen denoiser of renderings.

    Attributes:
        name: key in logs and settings.
        alphas: cumulative products of its noise schedule (alpha bar) [T].
        reads: names of the `Renderings` fields that it reads and that receive its gradients.
    """

    name: str
    alphas: Tensor
    reads: tuple[str, ...]

    def encode(self, renderings: Renderings, scenes: SceneBatch, rng: RandomStreams) -> Tensor:
        """Encode renderings into the teacher's diffusion space; differentiable.

        Args:
            rng: random streams for sampled quantities, such as the VAE posterior.

        Returns:
            [B, n, ...]: n images per scene.
        """
        ...

    def condition(self, renderings: Renderings, scenes: SceneBatch) -> Any:
        """Return the conditioning (captions, cameras, background) that `predict` takes."""
        ...

    def unconditional(self, condition: Any) -> Any:
        """Return a conditioning whose conditional prediction is the unconditional one of `condition`."""
        ...

    def predict(
        self, noisy: Tensor, times: Tensor, condition: Any, guided: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Predict the noise in `noisy` [B, n, ...] at timesteps `times` [B].

        Returns:
            The conditional prediction and, if `guided`, the unconditional one (else None).
        """
        ...
