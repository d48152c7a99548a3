"""The critic of variational score distillation: a teacher's network that learns what the student renders.

ProlificDreamer (arXiv 2305.16213, section 3.2): beside the frozen teacher a low-rank adaptation of it is
trained, with the usual loss of diffusion, on the student's own renderings. It shares the teacher's weights,
and is told what the teacher is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from triplaneturbo.distill.settings import Settings
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.closed_form import alpha_sigma
from triplaneturbo.utils.distributed import DistributedContext, fill_gradients
from triplaneturbo.utils.random_streams import RandomStreams, normal, whole

_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


@runtime_checkable
class UNetTeacher(Teacher, Protocol):
    """A teacher that is a network, and can be had twice on the same weights."""

    def twin(self) -> tuple[Teacher, UNet2DConditionModel]:
        """The same teacher with a plain U-Net of its own, which shares the weights, and that U-Net."""
        ...


class LoraCritic:
    """A teacher's twin with low-rank pairs in its attentions.

    Args:
        teacher: whose twin it is.
        rank: of the pairs.
        rate: learning rate of its AdamW.
    """

    def __init__(self, teacher: UNetTeacher, rank: int = 4, rate: float = 1e-4) -> None:
        self.teacher, unet = teacher.twin()
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=_TARGETS), unet, "critic")
        self.parameters: list[nn.Parameter] = [p for p in unet.parameters() if p.requires_grad]
        for p in self.parameters:
            p.data = p.data.float()  # also beside weights of half precision
        self.optimizer = torch.optim.AdamW(self.parameters, lr=rate, weight_decay=0.0)

    @torch.no_grad()
    def predict(self, noisy: Tensor, times: Tensor, condition: Any) -> Tensor:
        """The noise in [B, n, ...] at timesteps [B], as in a rendering of the student's."""
        return self.teacher.predict(noisy, times, condition, False)[0]

    @torch.enable_grad()
    def accumulate(self, z: Tensor, condition: Any, rng: RandomStreams) -> float:
        """Add the gradients of its loss on what was rendered, z [B, n, ...]; returns the loss."""
        times = whole(rng, 0, len(self.teacher.alphas), len(z)).to(z.device)
        noise = normal(rng, z.shape).to(z)
        alpha, sigma = alpha_sigma(self.teacher.alphas, times, z)
        found, _ = self.teacher.predict(alpha * z.detach() + sigma * noise, times, condition, False)
        loss = F.mse_loss(found, noise)
        loss.backward()
        return float(loss.detach())

    def step(self, team: DistributedContext) -> None:
        """Learn from what was accumulated, in the mean over the processes."""
        fill_gradients(self.parameters)
        team.average_gradients(self.parameters)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, Any]:
        """All that is needed to go on; see `load`."""
        return {"weights": [p.detach() for p in self.parameters], "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        for p, value in zip(self.parameters, state["weights"], strict=True):
            p.data.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])


def build_critics(teachers: Sequence[Teacher], settings: Settings) -> dict[str, LoraCritic]:
    """A critic for each teacher that is to be listened to by "vsd".

    Raises:
        ValueError: it is no network, and so cannot have one.
    """
    critics = {}
    for teacher in teachers:
        how = settings.teachers.get(teacher.name)
        if how is None or how.kind != "vsd":
            continue
        if not isinstance(teacher, UNetTeacher):
            raise ValueError(f"{teacher.name} is no network, so vsd cannot train a critic beside it")
        critics[teacher.name] = LoraCritic(teacher, settings.critic_rank, settings.critic_rate)
    return critics
