"""Memory plan of a refinement: whether it fits a device, and with which savings.

    refinement = PlannedRefinement(model_sizes, settings, "field", 512, device, dtype)
    print(plan_refinement(refinement, available).table())

It is made before anything is loaded. The parts are those at the peak: generating the draft, training the LoRA
of the path, or a step of the asset, whichever takes the most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product

import torch

from triplaneturbo.distill import memory
from triplaneturbo.distill.lora_memory import TRAINED, lora_memory
from triplaneturbo.distill.memory import ModelSizes
from triplaneturbo.distill.memory_plan import MemorySavings, Plan, cheapest_plan, device_overhead
from triplaneturbo.distill.ptd import RefineSettings
from triplaneturbo.distill.settings import Settings
from triplaneturbo.errors import UserError
from triplaneturbo.mesh.mesh import Mesh
from triplaneturbo.models.peta import PLANES
from triplaneturbo.refine.cost import model_memory
from triplaneturbo.representations.registry import find_representation
from triplaneturbo.representations.triplane_asset import TriplaneOptions
from triplaneturbo.request import Request
from triplaneturbo.teachers.multi_view import VIEWS
from triplaneturbo.utils.units import GB


@dataclass(frozen=True)
class Change:
    """Options that make a refinement take less memory.

    Attributes:
        representation: another representation; "": the same.
        path: another path; "": the same.
        teachers: fewer teachers; none: the same.
    """

    representation: str = ""
    path: str = ""
    teachers: tuple[str, ...] = ()


class DoesNotFitError(UserError):
    """A refinement does not fit into memory. The message is for users of the Python API.

    Attributes:
        shortage: how much it needs and how much there is, as the beginning of a sentence.
        device: what would be large enough, as the end of that sentence.
        change: the options with which it would fit; None if there are none.
    """

    def __init__(self, shortage: str, device: str, change: Change | None) -> None:
        advice = f"{device}, or the small model"
        if change is not None:
            options = ", ".join(f"{name}={value!r}" for name, value in asdict(change).items() if value)
            advice = f"it would fit with {options}"
        super().__init__(f"{shortage}: {advice}.")
        self.shortage, self.device, self.change = shortage, device, change


@dataclass(frozen=True)
class PlannedRefinement:
    """A refinement, as far as its memory depends on it.

    Attributes:
        model_sizes: sizes of the model.
        settings: settings of the refinement.
        representation: see `RefineOptions`.
        size: side of the images in pixels.
        device: device of the refinement; CUDA needs memory for its context and kernels.
        dtype: dtype of the model's weights.
        loaded: whether the model is loaded and its memory no longer available.
        generates: whether the model generates a draft.
        texels: see `texel_count`.
        image: whether the asset is refined toward a picture.
    """

    model_sizes: ModelSizes
    settings: RefineSettings
    representation: str
    size: int
    device: torch.device
    dtype: torch.dtype
    loaded: bool = False
    generates: bool = True
    texels: int = 0
    image: bool = False

    def changed(self, change: Change) -> PlannedRefinement:
        """Return the refinement with a change."""
        settings = self.settings
        names = change.teachers or tuple(settings.teachers)
        settings = replace(
            settings,
            teachers={name: settings.teachers[name] for name in names},
            path=change.path or settings.path,  # type: ignore[arg-type]
        )
        return replace(self, settings=settings, representation=change.representation or self.representation)


def plan_refinement(refinement: PlannedRefinement, available: int) -> Plan:
    """Plan a refinement with as few savings as possible.

    Args:
        refinement: what is planned.
        available: available bytes of the device.

    Raises:
        DoesNotFitError: it does not fit.
    """
    ladder = _ladder(refinement.device)
    plan = cheapest_plan(
        ladder, lambda savings: refinement_parts(refinement, savings), available, refinement.dtype
    )
    if plan is not None:
        return replace(plan, subject="refinement")

    def least(refinement: PlannedRefinement) -> int:
        return sum(refinement_parts(refinement, ladder[-1]).values())

    needed = least(refinement)
    fitting = (
        change
        for change in _changes(refinement.settings, refinement.representation)
        if least(refinement.changed(change)) <= available
    )
    raise DoesNotFitError(
        f"This refinement needs {needed / GB:.1f} GB{' more' if refinement.loaded else ''}, and the device"
        f" has {available / GB:.1f} GB free",
        f"use a device with {needed / GB + 0.05:.1f} GB",
        next(fitting, None),
    )


def refinement_parts(refinement: PlannedRefinement, savings: MemorySavings) -> dict[str, int]:
    """Return the bytes by part at the peak of a refinement with these savings."""
    model_sizes, settings = refinement.model_sizes, refinement.settings
    device, dtype, loaded = refinement.device, refinement.dtype, refinement.loaded
    # Text encoders stay in float32 on other devices, the model's (`load_model`) and a teacher's own.
    text_dtype = dtype if device.type == "cuda" else torch.float32
    model = model_memory(model_sizes, dtype, text_dtype)
    second = model.weights + model.encoder if "sd" in settings.teachers else 0
    asset, rendered, side = _asset(refinement)
    teachers = {
        name: memory.teacher(name, model_sizes, dtype, side, savings.views, refining=True)
        for name in settings.teachers
    }
    loras = {
        name: lora_memory(name, model_sizes, dtype, side, settings.path_rank) for name in settings.teachers
    }
    weights = {f"{name}: weights": teacher.weights for name, teacher in teachers.items()}
    texts = sum(teacher.text for teacher in teachers.values()) * text_dtype.itemsize // dtype.itemsize
    lora = sum(loras[name].weights * _copies(settings, name) for name in loras)
    path = max((one.training for one in loras.values()), default=0) if settings.path != "none" else 0
    # A critic is trained while the encoder's activations wait for the backward pass.
    critics = [
        teachers[name].held + loras[name].training
        for name, own in settings.teachers.items()
        if own.kind == "vsd"
    ]
    working = max([teacher.working for teacher in teachers.values()] + critics, default=0)
    # Both teachers and renderings are used in a step; then its backward pass frees the renderings.
    step = max(rendered.held + working, rendered.backward)
    peak = max(path, step)
    held = {
        "model": 0 if loaded else model.weights,
        "text encoder": 0 if loaded else model.text,
    }
    refining = {
        "sd: a second copy of the base": second,
        **weights,
        "text encoders of teachers": 0 if savings.texts else texts,
        "LoRA with optimizer": lora,
        "asset with optimizer": asset,
        "training the path" if path >= step else "a step of the asset": peak,
    }
    if second and dtype != torch.float32:
        # The model's generator in float32 on the device, before it is cast and anything of the step exists.
        loading = second * 4 // dtype.itemsize
        refining["loading in float32"] = max(0, loading - sum(refining.values()))
    generating = {"generating the draft": model.working} if refinement.generates else {}
    largest = max((generating, refining), key=lambda stage: sum(stage.values()))
    return held | largest | device_overhead(device, max(peak, sum(generating.values())), loaded)


def texel_count(mesh: Mesh | None, request: Request) -> int:
    """Return the number of texels that the texture of a given or, for None, of a generated mesh has."""
    if mesh is not None and mesh.texture is not None:
        return int(mesh.texture.shape[0] * mesh.texture.shape[1])
    return request.texture_size**2


def _asset(refinement: PlannedRefinement) -> tuple[int, memory.RenderingMemory, int]:
    """Return the memory of the asset, that of the renderings of one step, and the side of the largest one.

    With a picture, each step renders one more view.
    """
    model_sizes, size = refinement.model_sizes, refinement.size
    spec = find_representation(refinement.representation)
    if spec.step_bytes is not None:
        # Includes the asset, except for texels.
        step = spec.step_bytes * size**2 * (VIEWS + refinement.image) // VIEWS
        return spec.texel_bytes * refinement.texels, memory.RenderingMemory(step, step), size
    options = TriplaneOptions.for_size(size)
    settings = Settings(
        size=size, stride=options.stride, surface_stride=options.surface_stride, nodes=options.nodes
    )
    rendered = memory.rendering(model_sizes, settings)
    if refinement.image:
        reference = memory.rendering(model_sizes, settings, views=1)
        rendered = memory.RenderingMemory(
            rendered.held + reference.held, reference.held + max(rendered.backward, reference.backward)
        )
    planes = 4 * PLANES * model_sizes.config.plane_channels * model_sizes.plane_size**2  # float32
    # The draft, the asset and the two moments of Adam; gradients are part of the renderings' backward pass.
    return 4 * planes, rendered, size // min(options.stride, options.surface_stride)


def _copies(settings: RefineSettings, name: str) -> int:
    """Return how many tensors of a LoRA's size a teacher needs."""
    copies = 0 if settings.path == "none" else TRAINED
    if settings.path == "checkpoints":
        copies += settings.path_checkpoints
    # The rank of critics has the same default as that of the path.
    return copies + (TRAINED if settings.teachers[name].kind == "vsd" else 0)


def _ladder(device: torch.device) -> tuple[MemorySavings, ...]:
    """Return the savings of a refinement; the others would change the path, which shares the weights."""
    texts = device.type != "cpu"
    return tuple(
        dict.fromkeys((MemorySavings(), MemorySavings(texts=texts), MemorySavings(texts=texts, views=True)))
    )


def _changes(settings: RefineSettings, representation: str) -> Iterator[Change]:
    """Yield changes that may save memory, and all of them together, from the least to the most noticeable."""
    names = tuple(settings.teachers)
    fewer = [kept for count in range(len(names) - 1, 0, -1) for kept in combinations(names, count)]
    paths = [""] if settings.path == "none" else ["", "none"]
    forms = ["", "gaussians"] if representation == "field" else [""]
    for teachers, path, form in product([(), *fewer], paths, forms):
        if teachers or path or form:
            yield Change(form, path, teachers)
