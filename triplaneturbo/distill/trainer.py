"""Training loop of score distillation, independent of the method and of the 3D representation.

`Trainer` owns what all methods share: the optimizer, the moving average of the weights, critics, loss
scaling, checkpoints with exact resume, and distributed training. A `Method` provides the rest: the parameters
that are trained, and a step that accumulates their gradients. Progressive Rendering Distillation is the
method in `distill/prd.py`; a method with another representation is another file beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor, nn

from triplaneturbo.distill.checkpoints import DECAY, Checkpoints, smoothed_error
from triplaneturbo.distill.critic import LoraCritic
from triplaneturbo.distill.loss_scaling import LossScaler
from triplaneturbo.distill.optimizer import make_optimizer
from triplaneturbo.distill.settings import Settings, flatten
from triplaneturbo.errors import UserError
from triplaneturbo.utils.distributed import CollectiveError, DistributedContext, fill_gradients


@dataclass(frozen=True)
class Place:
    """Position of a batch in a run and among its processes.

    Attributes:
        iteration: iterations before this one.
        rank, size: rank of the process that draws the batch, and the number of processes.
    """

    iteration: int = 0
    rank: int = 0
    size: int = 1

    def own(self, count: int) -> slice:
        """Return the slice of this process's `count` scenes among the iteration's `count * size` scenes."""
        return slice(self.rank * count, (self.rank + 1) * count)


class Method(Protocol):
    """A distillation method: what is trained, and how one iteration computes its gradients.

    Attributes:
        critics: trainable critics by teacher name; `step` accumulates their gradients, too.
        dtype: precision of the frozen weights, which decides whether the loss is scaled.
    """

    critics: Mapping[str, LoraCritic]
    dtype: torch.dtype

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters by name; always the same objects in the same order."""
        ...

    def step(self, place: Place, scaler: LossScaler) -> dict[str, float]:
        """Accumulate the gradients of one iteration, scaled by `scaler`.

        Random numbers must depend on the seed and `place` alone, so that resumed runs are exact.

        Returns:
            Losses to log, by part.
        """
        ...

    def weights_replaced(self) -> None:
        """Drop caches that depend on the weights; called after they are overwritten in place."""
        ...


class Trainer:
    """A training run that is advanced one iteration at a time; in between, the model may serve requests.

    Resumes from the newest intact checkpoint in the folder. Random numbers depend on the seed and the
    iteration alone, so an interrupted and resumed run equals an uninterrupted one bit for bit (on the same
    device and number of processes). Of all settings, only the learning rate may change on resume, to a lower
    one.

    Args:
        context: processes of the run; all must see the same folder, in which the main process writes.
        method: what is trained and how; all processes start from the main process's parameters.
        settings: optimizer, learning rate, averaging and schedules.
        folder: folder of the run; see distill/checkpoints.py.
        save_every: iterations between checkpoints.
        fingerprint: further values by name that must match on resume, such as a hash of the prompts.

    Attributes:
        iteration: optimizer steps done.
        saved: iteration of the newest checkpoint; -1 if there is none.
        average: moving average of the trained parameters by name.
        log: moving averages of the losses that `step` returns.
        scaler: loss scaler; counts skipped steps.
        notes: messages for the user, such as warnings about broken checkpoints.

    Raises:
        UserError: if the checkpoints belong to another run, are all broken, or cannot be written.
    """

    def __init__(
        self,
        context: DistributedContext,
        method: Method,
        settings: Settings,
        folder: Path,
        *,
        save_every: int = 50,
        fingerprint: Mapping[str, Any] | None = None,
    ) -> None:
        self.context, self.method, self.settings, self.save_every = context, method, settings, save_every
        self.critics = method.critics
        self._named_parameters = method.parameters()
        self._parameters = list(self._named_parameters.values())
        # Adapters of critics, and possibly the student's, are drawn from torch's global generator.
        context.broadcast_from_main(self._parameters)
        for critic in self.critics.values():
            context.broadcast_from_main(critic.parameters)
        self.optimizer = make_optimizer(settings.optimizer, self._parameters, settings.learning_rate)
        self.average = {name: p.detach().clone() for name, p in self._named_parameters.items()}
        self.scaler = LossScaler.for_dtype(method.dtype)
        self.iteration, self.saved = 0, -1
        self.log: dict[str, float] = {}
        self._updating = False  # True if an update of the weights was interrupted
        # The number of scenes per iteration must match on resume, not the number of processes.
        values = {**flatten(asdict(settings)), "batch": settings.batch * context.size, **(fingerprint or {})}
        self.checkpoints = Checkpoints(folder, values)
        self.notes = self._resume()
        if self.saved < 0:
            self.save()

    @property
    def finished(self) -> bool:
        """Whether all iterations are done."""
        return self.iteration >= self.settings.iterations

    def step(self) -> dict[str, float]:
        """Do one iteration.

        Returns:
            Losses by part, averaged over all scenes of all processes.

        Raises:
            UserError: if a loss or the gradient is not finite, after the weights were restored from the last
                intact checkpoint; or if a checkpoint cannot be written, in which case training may continue.
            ValueError: if the run is finished.
        """
        if self.finished:
            raise ValueError(f"all {self.settings.iterations} iterations are done")
        place = Place(self.iteration, self.context.rank, self.context.size)
        try:
            losses = self.method.step(place, self.scaler)
            fill_gradients(self._parameters)
            self.context.average_gradients(self._parameters)
            update = self.scaler.unscale(self._parameters)
            log = self.context.means(losses)
            if update:
                log["gradient"] = float(nn.utils.clip_grad_norm_(self._parameters, self.settings.clip))
            not_finite = [part for part, value in log.items() if not math.isfinite(value)]
            if not_finite:
                self._restore(f"The {not_finite[0]} is", self.iteration + 1)
            self._update(update)
        finally:
            # Free the gradients on errors, too: a server keeps running and needs the memory.
            self.optimizer.zero_grad()
            for critic in self.critics.values():
                critic.optimizer.zero_grad()
        for key, value in log.items():
            self.log[key] = self.log.get(key, value) * DECAY + value * (1 - DECAY)
        if self.iteration % self.save_every == 0 or self.finished:
            self.save()
        return log

    def _update(self, update: bool) -> None:
        """Advance by one iteration; the optimizer steps if `update`, that is, unless gradients overflowed."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate_at(self.iteration)
        decay = min(self.settings.average, (self.iteration + 1) / (self.iteration + 10))
        self._updating = True
        if update:
            self.optimizer.step()
        for critic in self.critics.values():
            critic.step(self.context)
        with torch.no_grad():
            for name, p in self._named_parameters.items():
                self.average[name].lerp_(p, 1 - decay)
        self.iteration += 1
        self._updating = False

    def save(self) -> None:
        """Write a checkpoint; no-op if this iteration has one or an update was interrupted.

        Raises:
            UserError: if it cannot be written (older checkpoints stay), or weights are not finite, as in
                `step`.
        """
        if self._updating or self.saved == self.iteration:
            return
        weights = [*self._parameters, *self.average.values()]
        if not all(bool(torch.isfinite(value).all()) for value in weights):
            self._restore("What was learned is", self.iteration)
        state = {
            "weights": {name: p.detach() for name, p in self._named_parameters.items()},
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "critics": {name: critic.state_dict() for name, critic in self.critics.items()},
            "scale": self.scaler.state_dict(),
            "log": self.log,
        }
        failed: UserError | None = None
        if self.context.is_main_process:
            try:
                self.checkpoints.save(self.iteration, state, smoothed_error(self.log, self.settings.teachers))
            except UserError as error:
                failed = error
        if self.context.any(failed is not None):  # all processes stop together
            raise failed or CollectiveError("The main process could not write a checkpoint.")
        self.saved = self.iteration

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Context in which the model has the averaged weights."""
        current = {name: p.detach().clone() for name, p in self._named_parameters.items()}
        self._load_weights(self.average)
        try:
            yield
        finally:
            self._load_weights(current)

    @torch.no_grad()
    def _load_weights(self, weights: Mapping[str, Tensor]) -> None:
        for name, p in self._named_parameters.items():
            p.copy_(weights[name])
        self.method.weights_replaced()

    def _resume(self) -> list[str]:
        """Load the newest checkpoint; return messages for the user."""
        state, notes = self.checkpoints.newest()
        if state is not None:
            self._load_weights(state["weights"])
            for name, value in self.average.items():
                value.copy_(state["average"][name])
            self.optimizer.load_state_dict(state["optimizer"])
            for name, critic in self.critics.items():
                critic.load_state_dict(state["critics"][name])
            self.iteration = self.saved = state["iteration"]
            self.scaler.load_state_dict(state["scale"])
            self.log, self._updating = dict(state["log"]), False
        same = float(self.context.mean(torch.tensor(float(self.saved)))) == self.saved
        if self.context.any(not same):
            raise CollectiveError(
                f"The processes do not find the same checkpoints in {self.checkpoints.folder}: use a folder "
                f"that all machines share."
            )
        return notes

    def _restore(self, what: str, iteration: int) -> NoReturn:
        """Return to the last intact checkpoint and raise that `what` was not finite at an iteration."""
        if self.saved == self.iteration:
            # Training from this checkpoint leads to non-finite values: fall back to the one before.
            if self.context.is_main_process:
                self.checkpoints.drop(self.saved)
            self.context.wait()
        self._resume()
        raise CollectiveError(
            f"{what} not finite at iteration {iteration}: lower the learning rate below "
            f"{self.settings.learning_rate:g}. The run resumes from iteration {self.iteration}, the last"
            " good one."
        )
