"""Adapter switching: replace the merged adapter of a loaded model without reloading the model."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from triplaneturbo.errors import UserError
from triplaneturbo.models.adapter import adapter_tensors, read_safetensors, set_adapter_tensors
from triplaneturbo.models.full_finetune import (
    base_parameters,
    check_base,
    is_base_tensor,
    named_base_parameters,
    split_base_tensors,
)
from triplaneturbo.models.lora_ranks import check_except_ranks, match_except_ranks, resize_ranks
from triplaneturbo.models.weights import ADAPTER_NAME, Model, load_base


class AdapterSwitch:
    """Select the adapter that a model generates with.

    Unmerging does not restore the base weights exactly. The base weights that adapters are merged into are
    therefore read from the file again at the first switch and kept in main memory. The remaining base weights
    are read at the first switch to an adapter that includes base weights; see full_finetune.py.

    Args:
        model: a model with its own adapter merged, on any device, in any precision.
        base: the folder of its base.
    """

    def __init__(self, model: Model, base: Path) -> None:
        self._model = model
        self._base = base
        self._own = model.folder / ADAPTER_NAME
        self._device, self._dtype = model.generator.device, model.generator.dtype
        # None after a failed switch: the next call loads its adapter again.
        self._current: tuple[Path, int] | None = (self._own, 0)
        self._base_weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def use(self, adapter: Path | None) -> None:
        """Switch to the adapter in a file (its ranks may differ), or to the model's own adapter if None.

        Raises:
            UserError: the file is missing, corrupt, or was made for another model; the model is unchanged
                then.
        """
        wanted = (self._own, 0) if adapter is None else (adapter, _modified(adapter))
        if wanted == self._current:
            return
        generator = self._model.generator
        path = wanted[0]
        tensors, learned = split_base_tensors(read_safetensors(path))
        check_except_ranks(generator, tensors, path)
        check_base(generator, learned, path)
        layers = self._layers()
        changed = learned.keys() or {f"{name}.weight" for name in layers}
        if not changed <= self._base_weights.keys():
            self._base_weights |= self._read_base(changed)
        # On the CPU in float32, as in `load_model`, for bit-identical weights.
        self._current = None
        try:
            generator.to("cpu")
            generator.cast(torch.float32)
            own = base_parameters(generator)
            for name, value in self._base_weights.items():
                own[name].data = learned.get(name, value).float().clone()
            for layer in layers.values():
                layer.merged_adapters.clear()
            set_adapter_tensors(generator, resize_ranks(generator, tensors), path)
            generator.merge()
        finally:
            generator.to(self._device)
            generator.cast(self._dtype)
        self._current = wanted

    def _layers(self) -> dict[str, nn.Module]:
        generator = self._model.generator
        models = {"unet": generator.unet, "decoder": generator.vae.decoder}
        return {
            f"{prefix}.{name}": module
            for prefix, model in models.items()
            for name, module in model.named_modules()
            if hasattr(module, "merged_adapters")
        }

    def _read_base(self, names: Collection[str]) -> dict[str, Tensor]:
        plain = named_base_parameters(*load_base(self._base))
        return {name: plain[name].detach() for name in names}


def fits(model: Model, adapter: Path) -> bool:
    """Return whether an adapter file has the tensor names and, except for ranks, the shapes of this model.

    Only the header of the file is read. Base weights in the file are ignored.
    """
    from safetensors import SafetensorError, safe_open

    wanted = {name: list(value.shape) for name, value in adapter_tensors(model.generator).items()}
    try:
        with safe_open(adapter, "pt") as file:
            names = [name for name in file.keys() if not is_base_tensor(name)]  # noqa: SIM118
            found = {name: file.get_slice(name).get_shape() for name in names}
    except (SafetensorError, OSError):
        return False
    return match_except_ranks(found, wanted)


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        raise UserError(f"File not found: {path}; choose another adapter.") from None
