"""Conversion between the page's control values and `Request` or `Placement`."""

from __future__ import annotations

from typing import Any

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.placement import Placement
from triplaneturbo.request import SEED_LIMIT, Request

# Fields of a Request, in the order of the page's controls.
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
    "look",
    "keep_shape",
)
LOOK = FIELDS.index("look")


def to_request(*values: Any) -> Request:
    """Build a Request from control values.

    Args:
        values: in the order of FIELDS; missing trailing values get the defaults of `Request`.

    Raises:
        UserError: the seed is blank. Other invalid values are reported when the request is checked.
    """
    fields = dict(zip(FIELDS, values, strict=False))
    if fields["seed"] is None:
        raise UserError(
            f"The seed is blank. Enter a whole number from 0 to {SEED_LIMIT}, or press Random seed."
        )
    for name in ("seed", "steps", "resolution", "faces", "texture_size", "smoothing", "variation_seed"):
        if name in fields:
            fields[name] = whole(fields[name])
    if "variation_seed" in fields:
        fields["variation_seed"] = fields["variation_seed"] or 0
    if "adapter" in fields:
        fields["adapter"] = fields["adapter"] or ""
    if "variation_path" in fields:
        fields["variation_path"] = fields["variation_path"] or ""
    for name in ("blend", "look"):
        if name in fields:
            fields[name] = (fields[name] or "").strip()
    fields["faces"] = fields["faces"] or None  # 0 or blank: no simplification
    fields["prompt"] = fields["prompt"] or ""
    return Request(**fields)


def to_placement(size: Any, up: Any, pivot: Any, unit: Any) -> Placement:
    """Build a Placement from control values; a size of 0 or None keeps the model's own size.

    Raises:
        UserError: a value is invalid.
    """
    return Placement(size or None, up, pivot, unit).checked()


def to_fields(request: Request) -> list[Any]:
    """Return the control values of a request, in the order of FIELDS; the inverse of `to_request`."""
    values = {name: getattr(request, name) for name in FIELDS}
    return [0 if name == "faces" and value is None else value for name, value in values.items()]


def whole(value: Any) -> Any:
    """Convert an integral float, as browsers send it, to int; return anything else unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
