"""What the page's controls hold, as a Request and a Placement; what cannot be is for these to say."""

from __future__ import annotations

from typing import Any

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.placement import Placement
from triplaneturbo.request import SEED_LIMIT, Request

# The order of the page's controls.
FIELDS = (
    "prompt",
    "seed",
    "steps",
    "resolution",
    "faces",
    "texture_size",
    "unwrap",
    "normal_map",
    "floaters",
    "smoothing",
    "watertight",
    "variation",
    "variation_seed",
    "blend",
    "blend_weight",
    "adapter",
    "variation_path",
)


def to_request(*values: Any) -> Request:
    """A Request from the controls' values, in the order of FIELDS; what is left out at the end is Request's.

    Raises:
        UserError: a field is blank; what else cannot be is found when the request is checked.
    """
    fields = dict(zip(FIELDS, values, strict=False))
    if fields["seed"] is None:
        raise UserError(f"The seed is blank; give a whole number from 0 to {SEED_LIMIT}, or roll the dice.")
    for name in ("seed", "steps", "resolution", "faces", "texture_size", "smoothing", "variation_seed"):
        if name in fields:
            fields[name] = whole(fields[name])
    if "variation_seed" in fields:
        fields["variation_seed"] = fields["variation_seed"] or 0
    if "adapter" in fields:
        fields["adapter"] = fields["adapter"] or ""
    if "variation_path" in fields:
        fields["variation_path"] = fields["variation_path"] or ""
    if "blend" in fields:
        fields["blend"] = (fields["blend"] or "").strip()
    fields["faces"] = fields["faces"] or None  # 0 or blank: as the surface comes
    fields["prompt"] = fields["prompt"] or ""
    return Request(**fields)


def to_placement(size: Any, up: Any, pivot: Any, unit: Any) -> Placement:
    """A Placement from its controls' values; a size of 0 or blank is the model's own.

    Raises:
        UserError: a value cannot be.
    """
    return Placement(size or None, up, pivot, unit).checked()


def to_fields(request: Request) -> list[Any]:
    """The controls' values that make this request, in the order of FIELDS; the reverse of `to_request`."""
    values = {name: getattr(request, name) for name in FIELDS}
    return [0 if name == "faces" and value is None else value for name, value in values.items()]


def whole(value: Any) -> Any:
    """A browser's number as an int where it is whole; anything else as it is, for Request to complain of."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
