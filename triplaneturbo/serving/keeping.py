"""Put a result into the history with its first file, and attach the others as they are written.

What the page shows as done is kept at that moment: a page that is closed or reloaded then loses nothing.
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
    from triplaneturbo.mesh.placement import Placement
    from triplaneturbo.request import Request
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.history_entry import HistoryEntry
    from triplaneturbo.serving.user_history import History, UserHistory


class HistoryWriter:
    """One request's result on its way into the history.

    Args:
        engine: made the mesh.
        history: None: nothing is kept.
        token: what the browser is known by.
        placement: how the object stands in the files.
        passing: the page follows a person who types: a result that the next one replaces before all of its
            files are written is not kept.

    Attributes:
        shelf: where the result is; None before it is there.
        refused: why it is not there, as a sentence; "" if nothing is wrong.
    """

    def __init__(
        self, engine: Engine, history: History | None, token: str, placement: Placement, passing: bool
    ) -> None:
        self.shelf: UserHistory | None = None
        self.refused = ""
        self._engine, self._history, self._token = engine, history, token
        self._placement, self._passing = placement, passing
        self._entry: HistoryEntry | None = None
        self._request: Request | None = None
        self._complete = False

    def keep(self, made: MeshReady) -> bool:
        """Keep what is there of a result, once per file; True if the history has a new entry."""
        if self._history is None or self.refused:
            return False
        try:
            return self._keep(self._history, made)
        except UserError as error:
            self.refused = f"The mesh is ready but is not in the history: {error}"
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
        """While it is entered, the page follows the request; what is missing then is written later."""
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
            mesh = self._engine.submit(request).result().mesh  # remembered, unless many others came after it
            for name in FORMATS:
                if name not in entry.files:
                    data = self._engine.encode(mesh, name, entry.name, self._placement)
                    shelf.attach(entry.id, name, data)
        except (UserError, Cancelled, EngineClosedError):
            pass  # nobody is there to be told
