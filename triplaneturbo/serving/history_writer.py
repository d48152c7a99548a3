"""Save one request's result to the user's history: an entry with the first file, then the other files.

A result is saved as soon as the page shows it, so closing or reloading the page loses nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from triplaneturbo.errors import Cancelled, EngineClosedError, UserError
from triplaneturbo.serving.jobs import MeshReady
from triplaneturbo.serving.output_files import FORMATS

if TYPE_CHECKING:
    from triplaneturbo.request import Request
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.file_options import FileOptions
    from triplaneturbo.serving.history_entry import HistoryEntry
    from triplaneturbo.serving.user_history import History, UserHistory


class HistoryWriter:
    """Save the result of one request to the user's history.

    Args:
        engine: the engine that generates the mesh.
        history: the histories of all users; None: nothing is saved.
        token: the secret token that identifies the browser.
        options: placement of the object in the files, and what they contain.
        passing: the page generates while the user types: a result that the next one replaces before all of
            its files are written is deleted.

    Attributes:
        shelf: the user's history once the result is in it; None before.
        refused: the reason why the result could not be saved; "" if there was no error.
    """

    def __init__(
        self, engine: Engine, history: History | None, token: str, options: FileOptions, passing: bool
    ) -> None:
        self.shelf: UserHistory | None = None
        self.refused = ""
        self._engine, self._history, self._token = engine, history, token
        self._options, self._passing = options, passing
        self._entry: HistoryEntry | None = None
        self._request: Request | None = None
        self._complete = False

    @property
    def link(self) -> str:
        """Key of the saved result's link; "" before it is saved, or if it could not be."""
        return "" if self._entry is None or self.refused else self._entry.link

    def keep(self, made: MeshReady) -> bool:
        """Save the files of a result that are not saved yet; return whether the history has a new entry."""
        if self._history is None or self.refused:
            return False
        try:
            return self._keep(self._history, made)
        except UserError as error:
            self.refused = f"The mesh is ready, but could not be saved to the history: {error}"
            return False

    def _keep(self, history: History, made: MeshReady) -> bool:
        new = self._entry is None
        if self._entry is None:
            self.shelf, self._request = history.of(self._token), made.request
            self._entry = self.shelf.add(
                made.request,
                made.facts,
                model=self._engine.name,
                adapter=made.request.adapter,
                thumbnail=made.thumbnail,
            )
        assert self.shelf is not None
        for name, path in made.files.items():
            if name not in self._entry.files:
                self._entry = self.shelf.attach(self._entry.id, name, path, made.facts)
        self._complete = made.complete
        return new

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Wrap the loop that follows the request; afterwards write missing files in the background."""
        try:
            yield
        except GeneratorExit:  # the page is closed
            self._finish_in_background()
            raise
        if self._passing and not self._complete and self.shelf is not None and self._entry is not None:
            with contextlib.suppress(UserError):
                self.shelf.delete(self._entry.id)
        else:
            self._finish_in_background()

    def _finish_in_background(self) -> None:
        if self._entry is not None and not self._complete:
            threading.Thread(target=self._finish, daemon=True).start()

    def _finish(self) -> None:
        entry, shelf, request = self._entry, self.shelf, self._request
        assert entry is not None
        assert shelf is not None
        assert request is not None
        try:
            result = self._engine.again(request)  # from the engine's cache, as a rule
            for name in FORMATS:
                if name not in entry.files:
                    data = self._engine.encode(result, name, entry.name, self._options).data
                    shelf.attach(entry.id, name, data)
        except (UserError, Cancelled, EngineClosedError):
            pass  # the page is closed
