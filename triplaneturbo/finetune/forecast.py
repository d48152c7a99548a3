"""What runs of a full model will take of memory, counted in the background: that takes half a minute.

forecast = Forecast(found, device)
forecast.of(order)  # COUNTING, and half a minute later what is known
"""

from __future__ import annotations

import threading
from dataclasses import replace

import torch

from triplaneturbo.errors import UserError
from triplaneturbo.finetune.config import FinetuneConfig
from triplaneturbo.finetune.duration import UNKNOWN, Estimate
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import GeneratorConfig
from triplaneturbo.utils.lru_cache import LRUCache

REMEMBERED = 64
COUNTING = Estimate(None, None, "It is being counted.", "counting")


class Forecast:
    """Plans of runs, by what of them changes the memory that they take; see `full_plan`.

    Args:
        found: the model's files.
        device: where it would learn.
    """

    def __init__(self, found: ModelFiles, device: torch.device) -> None:
        self._found, self._device = found, device
        self._known: LRUCache[Estimate] = LRUCache(REMEMBERED)
        self._wanted: dict[FinetuneConfig, None] = {}
        self._counts = False
        self._lock = threading.Lock()

    def of(self, order: FinetuneConfig) -> Estimate:
        """What is known of such a run, at once; what is not will be known later."""
        # One name, one prompt: neither these nor the schedules' length change what it takes.
        asked = replace(order, name="x", prompts=("a",), held_out=(), iterations=1, preview_every=0, seed=0)
        with self._lock:
            known = self._known.get(asked)
            if known is not None:
                return known
            self._wanted.setdefault(asked)
            if not self._counts:
                self._counts = True
                threading.Thread(target=self._count, daemon=True, name="forecast").start()
        return COUNTING

    def _count(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._counts = False
                    return
                # What was asked for last is what is looked at now.
                order, _ = self._wanted.popitem()
            found = UNKNOWN
            try:
                found = self._planned(order)
            finally:
                self._known.put(order, found)

    def _planned(self, order: FinetuneConfig) -> Estimate:
        from triplaneturbo.finetune.memory_plan import full_plan

        try:
            order.check_values()
            plan = full_plan(order, self._found, GeneratorConfig.load(self._found.folder), self._device)
        except UserError as error:
            return Estimate(None, None, str(error), "not here")
        return Estimate(None, plan.total, plan.sentence)
