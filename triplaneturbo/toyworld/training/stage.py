"""Training loop of one stage, with checkpoints from which it resumes bit-exactly."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from triplaneturbo.toyworld.training.curves import log_line
from triplaneturbo.utils.devices import autocast_dtype
from triplaneturbo.utils.distributed import DistributedContext
from triplaneturbo.utils.training_state import load_state, save_state

# (NumPy generator, torch generator) -> (loss, values to log)
Loss = Callable[[np.random.Generator, torch.Generator], tuple[Tensor, dict[str, float]]]


def train_stage(
    name: str,
    folder: Path,
    modules: nn.ModuleDict,
    loss: Loss,
    *,
    context: DistributedContext,
    steps: int,
    rate: float,
    settings: dict[str, Any],
    average: float = 0.0,
    save_every: int = 200,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Minimize `loss` over the trainable parameters of `modules`, in place.

    AdamW with 100 steps of warm-up and a cosine to zero, gradients clipped at norm 1, bfloat16 autocast
    where the device is fast in it.
    Random numbers depend on the step and the process only.

    Args:
        name: name of the stage; its state is `folder/name.pt`, its log `folder/name.jsonl`, plotted in
            `folder/name-curves.png`.
        modules: the modules to train.
        loss: computes the loss of one step.
        steps: number of steps.
        rate: peak learning rate.
        settings: values that must match those of a saved state on resume.
        average: decay of an exponential moving average of the weights, which becomes the result; 0: none.
        save_every: steps between saved states.
        progress: called by the main process with each step that is saved.

    Raises:
        UserError: the state belongs to other settings, or cannot be written.
    """
    state_path = folder / f"{name}.pt"
    settings = {**settings, "steps": steps, "rate": rate, "processes": context.size}
    parameters = [p for p in modules.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    smooth = {key: value.detach().clone() for key, value in modules.state_dict().items()} if average else {}
    done = 0
    state = load_state(state_path, settings)
    if state is not None:
        modules.load_state_dict(state["modules"])
        optimizer.load_state_dict(state["optimizer"])
        smooth = {key: value.to(context.device) for key, value in state["smooth"].items()}
        done = state["step"]
    precision = autocast_dtype(context.device)
    logged: dict[str, float] = {}
    started = time.perf_counter()
    for step in range(done, steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        seed = (step * context.size + context.rank) * 2 + 1
        with torch.autocast(context.device.type, precision or torch.float32, enabled=precision is not None):
            value, parts = loss(np.random.default_rng(seed), torch.Generator().manual_seed(seed))
        optimizer.zero_grad(set_to_none=False)
        value.backward()
        context.average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if average:
            keep = min(average, (step + 1) / (step + 10))
            for key, new in modules.state_dict().items():
                if new.is_floating_point():
                    smooth[key].lerp_(new, 1 - keep)
        for key, part in parts.items():
            logged[key] = logged.get(key, part) * 0.98 + part * 0.02
        last = step + 1 == steps
        if context.is_main_process and ((step + 1) % save_every == 0 or last):
            save_state(
                state_path,
                {
                    "settings": settings,
                    "step": step + 1,
                    "modules": modules.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "smooth": smooth,
                },
            )
            speed = (step + 1 - done) / (time.perf_counter() - started)
            line = {
                "step": step + 1,
                "per_second": round(speed, 3),
                **{k: round(v, 5) for k, v in logged.items()},
            }
            log_line(folder / f"{name}.jsonl", line)
            shown = "  ".join(f"{k} {v}" for k, v in line.items() if k != "step")
            print(f"{name} {step + 1}/{steps}  {shown}", flush=True)
            if progress is not None:
                progress(step + 1)
    if average:
        modules.load_state_dict(smooth)
    context.wait()
