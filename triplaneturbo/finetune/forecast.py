"""Background estimates of the memory of full-model runs, which take about 30 seconds each.

forecast = Forecast(model_files, device)
forecast.of(config)  # COUNTING at first, the estimate once it is computed
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
COUNTING = Estimate(None, None, "The memory is being estimated.", "estimating")


class Forecast:
    """Cache of memory estimates, computed in a background thread; see `full_plan`.

    Args:
        model_files: files of the model.
        device: device of the training.
    """

    def __init__(self, model_files: ModelFiles, device: torch.device) -> None:
        self._model_files, self._device = model_files, device
        self._known: LRUCache[Estimate] = LRUCache(REMEMBERED)
        self._wanted: dict[FinetuneConfig, None] = {}
        self._counting = False
        self._lock = threading.Lock()

    def of(self, config: FinetuneConfig) -> Estimate:
        """Return the estimate of a run, or COUNTING if it is still to be computed; does not block."""
        # Normalize the fields that do not change the memory, so that cache keys match.
        key = replace(config, name="x", prompts=("a",), held_out=(), iterations=1, preview_every=0, seed=0)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                return known
            self._wanted.setdefault(key)
            if not self._counting:
                self._counting = True
                threading.Thread(target=self._count, daemon=True, name="forecast").start()
        return COUNTING

    def _count(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._counting = False
                    return
                # The latest request is the one on screen.
                config, _ = self._wanted.popitem()
            estimate = UNKNOWN
            try:
                estimate = self._estimate(config)
            finally:
                self._known.put(config, estimate)

    def _estimate(self, config: FinetuneConfig) -> Estimate:
        from triplaneturbo.finetune.memory_plan import full_plan

        try:
            config.check_values()
            plan = full_plan(
                config, self._model_files, GeneratorConfig.load(self._model_files.folder), self._device
            )
        except UserError as error:
            return Estimate(None, None, str(error), "does not fit")
        return Estimate(None, plan.total, plan.sentence)
