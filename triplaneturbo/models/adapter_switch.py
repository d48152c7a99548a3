"""Another adapter for a model that is loaded, as if it had been loaded with it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from triplaneturbo.errors import UserError
from triplaneturbo.models.adapter import adapter_tensors, read_safetensors, set_adapter_tensors
from triplaneturbo.models.full_finetune import apart, base_parameters, check_base, is_of_base, parameters
from triplaneturbo.models.lora_ranks import check_but_for_ranks, fits_but_for_ranks, take_ranks
from triplaneturbo.models.weights import ADAPTER_NAME, Model, load_base


class AdapterSwitch:
    """Which adapter a model generates with.

    A merged weight does not give its base back exactly. So the base's weights that adapters may be merged
    into are read once more, when first another adapter is wanted, and kept: in the main memory, as they are
    in the file. The others are read likewise when first an adapter brings a base of its own; see whole.py.

    Args:
        model: with its own adapter merged, on any device, in any precision.
        base: the folder of its base.
    """

    def __init__(self, model: Model, base: Path) -> None:
        self._model = model
        self._base = base
        self._own = model.folder / ADAPTER_NAME
        self._device, self._dtype = model.generator.device, model.generator.dtype
        # None: a switch has failed in its middle, and whatever is wanted next is put in anew.
        self._current: tuple[Path, int] | None = (self._own, 0)
        self._pristine: dict[str, Tensor] = {}

    @torch.no_grad()
    def use(self, adapter: Path | None) -> None:
        """Generate with the adapter in this file, of whatever ranks, from now on; None: the model's own.

        Raises:
            UserError: the file is missing, broken, or belongs to another model; nothing is changed then.
        """
        wanted = (self._own, 0) if adapter is None else (adapter, _mark(adapter))
        if wanted == self._current:
            return
        generator = self._model.generator
        path = wanted[0]
        tensors, learned = apart(read_safetensors(path))
        check_but_for_ranks(generator, tensors, path)
        check_base(generator, learned, path)
        layers = self._layers()
        changed = learned.keys() or {f"{name}.weight" for name in layers}
        if not changed <= self._pristine.keys():
            self._pristine |= self._read_base(changed)
        # On the CPU and in float32, as when a model is loaded: the same bits come of it.
        self._current = None
        try:
            generator.to("cpu")
            generator.cast(torch.float32)
            own = base_parameters(generator)
            for name, value in self._pristine.items():
                own[name].data = learned.get(name, value).float().clone()
            for layer in layers.values():
                layer.merged_adapters.clear()
            set_adapter_tensors(generator, take_ranks(generator, tensors), path)
            generator.merge()
        finally:
            generator.to(self._device)
            generator.cast(self._dtype)
        self._current = wanted

    def _layers(self) -> dict[str, nn.Module]:
        generator = self._model.generator
        rooms = {"unet": generator.unet, "decoder": generator.vae.decoder}
        return {
            f"{room}.{name}": module
            for room, model in rooms.items()
            for name, module in model.named_modules()
            if hasattr(module, "merged_adapters")
        }

    def _read_base(self, names: Collection[str]) -> dict[str, Tensor]:
        plain = parameters(*load_base(self._base))
        return {name: plain[name].detach() for name in names}


def fits(model: Model, adapter: Path) -> bool:
    """Whether an adapter's file has the names and, but for ranks, the shapes of this model's.

    They are read from its head alone; those of a base that it may bring are not looked at.
    """
    from safetensors import SafetensorError, safe_open

    wanted = {name: list(value.shape) for name, value in adapter_tensors(model.generator).items()}
    try:
        with safe_open(adapter, "pt") as file:
            names = [name for name in file.keys() if not is_of_base(name)]  # noqa: SIM118
            found = {name: file.get_slice(name).get_shape() for name in names}
    except (SafetensorError, OSError):
        return False
    return fits_but_for_ranks(found, wanted)


def _mark(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        raise UserError(f"There is no file {path}; choose another adapter.") from None
