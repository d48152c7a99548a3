"""Keys of pages that may train, and the prompt lists that these pages upload."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from triplaneturbo.distill.corpora.prompt_list import MOST_BYTES, SUFFIXES
from triplaneturbo.errors import UserError
from triplaneturbo.serving.uploads import Uploads

if TYPE_CHECKING:
    from triplaneturbo.serving.admin import Admin


class TrainingAccess(Uploads):
    """Keys of pages that may train, and their prompt lists. All methods are thread-safe.

    Args:
        admin: decides who may train.
        folder: folder for uploads; its creator deletes it.
    """

    suffixes, most, what = SUFFIXES, MOST_BYTES, "list"

    def __init__(self, admin: Admin, folder: Path) -> None:
        super().__init__(folder)
        self.admin = admin

    def enter(self, password: str | None = None, address: str | None = None, local: bool = False) -> str:
        """Return a new key for a page; see `issue`.

        Raises:
            UserError: the visitor may not train.
            RateLimitError: too many wrong passwords.
        """
        self.admin.check(password, address, local)
        return self.issue()

    def check(self, key: object) -> str:
        """Return the key if it is valid. Call this first in every endpoint that requires training access.

        Raises:
            UserError: the key is invalid.
        """
        if not self.knows(key):
            if self.admin.offered:
                raise UserError(
                    "This page has no training access; reload it and enter the password if one is required."
                )
            self.admin.check()
        assert isinstance(key, str)
        return key
