"""Options of a result's files: where the object is placed, and what the files contain. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.registry import IMAGES
from triplaneturbo.mesh.placement import AS_MODELLED, Placement
from triplaneturbo.request import shown


@dataclass(frozen=True)
class FileOptions:
    """Options of the files of one result.

    Attributes:
        placement: size, up axis, origin and unit of the object in the files.
        metadata: whether the files contain the prompt, seed, settings and model, in formats that can store
            them.
        image: encoding of the textures in GLB and USDZ files, one of `mesh.io.registry.IMAGES`.
        max_bytes: largest size of a GLB, to which its images are reduced; None: any.
    """

    placement: Placement = AS_MODELLED
    metadata: bool = True
    image: str = "png"
    max_bytes: int | None = None

    def checked(self) -> FileOptions:
        """Return the options with a validated placement.

        Raises:
            UserError: a value is invalid.
        """
        if self.image not in IMAGES:
            raise UserError(f"Invalid texture format {shown(self.image)}; choose one of {', '.join(IMAGES)}.")
        most = self.max_bytes
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise UserError(f"Invalid size limit {shown(most)}; use a number of bytes.")
        return replace(self, placement=self.placement.checked())


DEFAULT_FILES = FileOptions()
