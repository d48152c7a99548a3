"""LoRA critics of variational score distillation: denoisers of the student's own renderings.

ProlificDreamer (arXiv 2305.16213, section 3.2): a LoRA of the frozen teacher is trained with the diffusion
loss on the student's renderings. It shares the teacher's weights and gets the same conditioning. The critics
of multi-view teachers therefore know the cameras, while that of Stable Diffusion does not and predicts the
mean over all views of a caption; ProlificDreamer adds an embedding of the camera to its LoRA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from triplaneturbo.distill.loss_scaling import LossScaler
from triplaneturbo.distill.settings import Settings
from triplaneturbo.teachers.base import Teacher
from triplaneturbo.teachers.closed_form import alpha_sigma
from triplaneturbo.utils.distributed import DistributedContext, fill_gradients
from triplaneturbo.utils.random_streams import RandomStreams, normal, randint

_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


@runtime_checkable
class UNetTeacher(Teacher, Protocol):
    """A teacher that is a U-Net and can be copied with shared weights."""

    def twin(self) -> tuple[Teacher, UNet2DConditionModel]:
        """Return a copy of the teacher with its own plain U-Net that shares the weights, and that U-Net."""
        ...


class LoraCritic:
    """A copy of a teacher with trainable LoRA in its attention layers.

    Its gradients pass through the teacher's frozen weights: where these are float16, the loss is scaled, and
    steps whose gradients overflow are skipped.

    Args:
        teacher: the teacher to copy; weights are shared.
        rank: LoRA rank.
        learning_rate: learning rate of AdamW.

    Attributes:
        teacher: the copy.
        parameters: the LoRA's weights, in float32.
        layers: the layers with LoRA, in which its name is `adapter`.
        scaler: loss scaler of its gradients; counts skipped steps.
    """

    adapter = "critic"

    def __init__(self, teacher: UNetTeacher, rank: int = 4, learning_rate: float = 1e-4) -> None:
        self.teacher, unet = teacher.twin()
        self.scaler = LossScaler.for_dtype(unet.dtype)
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=_TARGETS)
        inject_adapter_in_model(config, unet, self.adapter)
        self.layers = [module for module in unet.modules() if isinstance(module, LoraLayer)]
        self.parameters: list[nn.Parameter] = [p for p in unet.parameters() if p.requires_grad]
        for p in self.parameters:
            p.data = p.data.float()  # float32 even if the base weights are half precision
        self.optimizer = torch.optim.AdamW(self.parameters, lr=learning_rate, weight_decay=0.0)

    @torch.no_grad()
    def predict(self, noisy: Tensor, times: Tensor, condition: Any) -> Tensor:
        """Predict the noise in noisy student renderings [B, n, ...] at timesteps [B]."""
        return self.teacher.predict(noisy, times, condition, False)[0]

    @torch.enable_grad()
    def accumulate(self, z: Tensor, condition: Any, rng: RandomStreams) -> float:
        """Accumulate the gradients of the diffusion loss on renderings z [B, n, ...]; return the loss."""
        times = randint(rng, 0, len(self.teacher.alphas), len(z)).to(z.device)
        noise = normal(rng, z.shape).to(z)
        alpha, sigma = alpha_sigma(self.teacher.alphas, times, z)
        predicted, _ = self.teacher.predict(alpha * z.detach() + sigma * noise, times, condition, False)
        loss = F.mse_loss(predicted, noise)
        self.scaler.scale(loss).backward()
        return float(loss.detach())

    def step(self, context: DistributedContext) -> None:
        """Update the LoRA with the accumulated gradients, averaged over all processes.

        Raises:
            CollectiveError: too many consecutive steps overflow.
        """
        fill_gradients(self.parameters)
        context.average_gradients(self.parameters)
        if self.scaler.unscale(self.parameters):
            self.optimizer.step()
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the weights, the optimizer and the loss scaler."""
        return {
            "weights": [p.detach() for p in self.parameters],
            "optimizer": self.optimizer.state_dict(),
            "scale": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`."""
        for p, value in zip(self.parameters, state["weights"], strict=True):
            p.data.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        if "scale" in state:  # not in checkpoints of earlier versions
            self.scaler.load_state_dict(state["scale"])


def build_critics(teachers: Sequence[Teacher], settings: Settings) -> dict[str, LoraCritic]:
    """Build a critic for each teacher whose kind of score is "vsd".

    Raises:
        ValueError: if such a teacher is not a `UNetTeacher`.
    """
    critics = {}
    for teacher in teachers:
        teacher_settings = settings.teachers.get(teacher.name)
        if teacher_settings is None or teacher_settings.kind != "vsd":
            continue
        if not isinstance(teacher, UNetTeacher):
            raise ValueError(f"vsd needs a U-Net to train a critic: {teacher.name} has none")
        critics[teacher.name] = LoraCritic(teacher, settings.critic_rank, settings.critic_rate)
    return critics
