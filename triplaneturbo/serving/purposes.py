"""Purposes of a mesh: presets of its settings and of its files. Imports no torch.

A preset changes only what the purpose needs. Options that are given explicitly replace its values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from triplaneturbo.errors import UserError
from triplaneturbo.request import LOD_LIMIT, Request, shown
from triplaneturbo.serving.file_options import FileOptions


@dataclass(frozen=True)
class Purpose:
    """A preset.

    Attributes:
        name: as users write it.
        label: on the page.
        summary: what it sets, in words.
        formats: formats that are written unless others are requested.
        request: values of fields of `Request`.
        placement: values of fields of `Placement`.
        files: values of other fields of `FileOptions`.
    """

    name: str
    label: str
    summary: str
    formats: tuple[str, ...]
    request: Mapping[str, Any] = field(default_factory=dict)
    placement: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, request: Request, options: FileOptions) -> tuple[Request, FileOptions]:
        """Return the settings with the values of this purpose."""
        placement = replace(options.placement, **self.placement)
        return replace(request, **self.request), replace(options, placement=placement, **self.files)


# A new purpose is one entry.
PURPOSES: dict[str, Purpose] = {
    purpose.name: purpose
    for purpose in (
        Purpose(
            "print",
            "3D printing",
            "Watertight, 100 mm along the longest side, z up, standing on the ground; use the STL or the 3MF,"
            " which is in colour.",
            ("stl", "3mf"),
            {"watertight": True},
            {"size": 0.1, "unit": "mm", "up": "z", "pivot": "ground"},
        ),
        Purpose(
            "game",
            "Game engine",
            f"At most 10,000 faces, {LOD_LIMIT} levels of detail in one atlas, the origin on the ground; use"
            " the GLB.",
            ("glb",),
            {"faces": 10_000, "lods": LOD_LIMIT},
            {"pivot": "ground"},
        ),
        Purpose(
            "web",
            "Web page",
            "At most 8,000 faces and 1 MB, WebP textures; use the GLB. Choose webp+png for programs without"
            " WebP.",
            ("glb",),
            {"faces": 8_000},
            {},
            {"texture_format": "webp", "max_bytes": 1_000_000},
        ),
        Purpose(
            "ar",
            "Augmented reality",
            "50 cm along the longest side, in metres, standing on the ground; use the USDZ on Apple devices"
            " and the GLB elsewhere.",
            ("glb", "usdz"),
            {},
            {"size": 0.5, "unit": "m", "up": "y", "pivot": "ground"},
        ),
    )
}


def find_purpose(name: str) -> Purpose:
    """Return the purpose of that name.

    Raises:
        UserError: there is none.
    """
    if name not in PURPOSES:
        raise UserError(f"Unknown purpose {shown(name)}; use one of {', '.join(PURPOSES)}.")
    return PURPOSES[name]
