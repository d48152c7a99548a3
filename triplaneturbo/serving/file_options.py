"""Options of a result's files: where the object is placed, and what the files contain. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from triplaneturbo.mesh.io.texture_formats import check_max_bytes, check_texture_format
from triplaneturbo.mesh.placement import AS_MODELLED, Placement

if TYPE_CHECKING:
    from triplaneturbo.mesh.io.generation_metadata import GenerationMetadata


@dataclass(frozen=True)
class FileOptions:
    """Options of the files of one result.

    Attributes:
        placement: size, up axis, origin and unit of the object in the files.
        metadata: whether the files contain the prompt, seed, settings and model, in formats that can store
            them.
        texture_format: encoding of the textures in GLB and USDZ files, one of
            `mesh.io.texture_formats.TEXTURE_FORMATS`.
        max_bytes: largest size of a GLB, to which its images are reduced; None: any.
    """

    placement: Placement = AS_MODELLED
    metadata: bool = True
    texture_format: str = "png"
    max_bytes: int | None = None

    @classmethod
    def of(cls, metadata: GenerationMetadata) -> FileOptions:
        """Return the options of a file with this metadata."""
        return cls(metadata.placement, True, metadata.texture_format, metadata.max_bytes)

    def checked(self) -> FileOptions:
        """Return the options with validated values.

        Raises:
            UserError: a value is invalid.
        """
        check_texture_format(self.texture_format)
        check_max_bytes(self.max_bytes)
        return replace(self, placement=self.placement.checked())


DEFAULT_FILES = FileOptions()
