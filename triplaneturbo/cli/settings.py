"""Settings of `generate`: the values of its options, of the file given with --like, and the defaults.

An option that is not given is None, so that its value comes from the file or, without one, from the defaults.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from triplaneturbo.mesh.io.generation_metadata import GenerationMetadata
from triplaneturbo.mesh.io.metadata_reader import read_metadata
from triplaneturbo.mesh.placement import Placement
from triplaneturbo.models.adapters import adapter, adapter_steps
from triplaneturbo.request import Request
from triplaneturbo.serving.file_options import FileOptions
from triplaneturbo.serving.output_files import FORMATS
from triplaneturbo.serving.purposes import find_purpose


@dataclass(frozen=True)
class Settings:
    """Settings of the meshes and of their files.

    Attributes:
        request: the settings of all meshes; its prompt is that of the command line or of --like, or "".
        options: placement of the object in the files, and what they contain.
        formats: comma-separated formats of the files; None: that of the output file, or GLB.
        like: what the file of --like says; None without one.
    """

    request: Request
    options: FileOptions
    formats: str | None
    like: GenerationMetadata | None


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Combine the options of `generate` with its purpose, the file of --like and the defaults.

    Raises:
        UserError: the file has no valid settings, or a value is invalid.
    """
    like = None if arguments.like is None else read_metadata(arguments.like)
    request = Request("") if like is None else like.request
    options = FileOptions() if like is None else FileOptions.of(like)
    formats = arguments.format
    if arguments.purpose is not None:
        purpose = find_purpose(arguments.purpose)
        request, options = purpose.apply(request, options)
        if formats is None and Path(arguments.output or "").suffix.lower() not in FORMATS.values():
            formats = ",".join(purpose.formats)
    request = replace(request, **_given(arguments, Request))
    if request.faces == 0:
        request = replace(request, faces=None)
    if arguments.adapter is not None and arguments.steps is None:
        steps = adapter_steps(adapter(arguments.adapter)) if arguments.adapter else None
        request = replace(request, steps=steps)
    files: dict[str, Any] = {"texture_format": arguments.texture_format, "max_bytes": arguments.max_bytes}
    options = replace(
        options,
        placement=replace(options.placement, **_given(arguments, Placement)),
        metadata=not arguments.no_metadata,
        **{name: value for name, value in files.items() if value is not None},
    )
    return Settings(request, options.checked(), formats, like)


def _given(arguments: argparse.Namespace, kind: type[Request] | type[Placement]) -> dict[str, Any]:
    """Return the values of the options that were given, by the name of their field."""
    values = {field.name: getattr(arguments, field.name, None) for field in fields(kind)}
    return {name: value for name, value in values.items() if value is not None}
