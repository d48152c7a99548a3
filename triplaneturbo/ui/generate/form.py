"""Conversion between the page's control values and `Request` or `FileOptions`."""

from __future__ import annotations

from typing import Any

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.placement import Placement
from triplaneturbo.request import SEED_LIMIT, Request, shown
from triplaneturbo.serving.file_options import FileOptions

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
    "lods",
)
LOOK = FIELDS.index("look")
# Fields of FileOptions and its Placement, in the order of the page's controls.
FILE_FIELDS = ("size", "up", "pivot", "unit", "metadata", "texture_format", "max_bytes")

_WHOLE = ("seed", "steps", "resolution", "faces", "texture_size", "smoothing", "variation_seed", "lods")


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
    for name in _WHOLE:
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


def to_file_options(
    size: Any, up: Any, pivot: Any, unit: Any, metadata: Any, texture_format: Any, max_mb: Any
) -> FileOptions:
    """Build the options of files from control values.

    A size of 0 or None keeps the model's own size; a limit of 0 or None megabytes is none.

    Raises:
        UserError: a value is invalid.
    """
    if max_mb is not None and not (isinstance(max_mb, (int, float)) and 0 <= max_mb < 1e6):
        raise UserError(f"Invalid size limit {shown(max_mb)}; use a number of megabytes, or 0 for none.")
    max_bytes = round(max_mb * 1e6) if max_mb else None
    placement = Placement(size or None, up, pivot, unit)
    return FileOptions(placement, bool(metadata), texture_format, max_bytes).checked()


def to_file_values(options: FileOptions) -> list[Any]:
    """Return the control values of file options, in the order of FILE_FIELDS.

    The inverse of `to_file_options`.
    """
    placement, max_mb = options.placement, (options.max_bytes or 0) / 1e6
    return [
        placement.size or 0,
        placement.up,
        placement.pivot,
        placement.unit,
        options.metadata,
        options.texture_format,
        max_mb,
    ]


def to_fields(request: Request) -> list[Any]:
    """Return the control values of a request, in the order of FIELDS; the inverse of `to_request`."""
    values = {name: getattr(request, name) for name in FIELDS}
    return [0 if name == "faces" and value is None else value for name, value in values.items()]


def whole(value: Any) -> Any:
    """Convert an integral float, as browsers send it, to int; return anything else unchanged."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
