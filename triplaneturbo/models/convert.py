"""Conversion of a released adapter to this package's format on first use."""

from __future__ import annotations

from triplaneturbo.errors import UserError
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import CONFIG_NAME


def convert_if_needed(files: ModelFiles) -> None:
    """Convert the model's released adapter; no-op if there is none or it is already converted.

    Raises:
        UserError: the adapter or its base is missing or corrupt, or the folder is not writable.
    """
    if not (files.released and files.base) or (files.folder / CONFIG_NAME).is_file():
        return
    from triplaneturbo.models.weights import convert_released

    try:
        convert_released(files.released, files.base, files.folder)
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise UserError(
            f"Cannot save the converted adapter in {files.folder.parent} ({error.__cause__.strerror}); set"
            " XDG_CACHE_HOME to a writable folder."
        ) from None
