"""A model whose released adapter is turned into our own layout when it is first wanted."""

from __future__ import annotations

from triplaneturbo.errors import UserError
from triplaneturbo.models.catalog import ModelFiles
from triplaneturbo.models.config import CONFIG_NAME


def make_ready(found: ModelFiles) -> None:
    """Convert the model's released adapter, if it has one that is not converted yet.

    Raises:
        UserError: the adapter or its base is missing or broken, or the folder cannot be written.
    """
    if not (found.released and found.base) or (found.folder / CONFIG_NAME).is_file():
        return
    from triplaneturbo.models.weights import convert_released

    try:
        convert_released(found.released, found.base, found.folder)
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise UserError(
            f"The converted adapter cannot be kept in {found.folder.parent} ({error.__cause__.strerror}):"
            " set XDG_CACHE_HOME to a folder that can be written."
        ) from None
