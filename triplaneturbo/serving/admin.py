"""Who may train and manage adapters on a server that others use too. Imports nothing heavy."""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable

from triplaneturbo.errors import UserError
from triplaneturbo.serving.access import is_loopback
from triplaneturbo.serving.limits import RateLimit

TRIES = 10  # wrong passwords a minute, of each address


class Admin:
    """Who may train and manage adapters: whoever is at this machine, everybody, or who knows a password.

    Args:
        host: the address that is listened at.
        everybody: --admin: nobody is asked for anything.
        password: who knows it may, from anywhere; None or "": there is none.
        clock: tells the seconds.
        behind_proxy: a proxy passes others' requests on, so that no request counts as one from this machine.

    Attributes:
        offered: whether there is anybody who may.
        asks: whether a password is asked for.
        local_only: whether only visitors at this machine may.
    """

    def __init__(
        self,
        host: str,
        everybody: bool = False,
        password: str | None = None,
        clock: Callable[[], float] = time.monotonic,
        behind_proxy: bool = False,
    ) -> None:
        self._password = password or None
        self.asks = self._password is not None and not everybody
        self.local_only = not everybody and not self.asks and is_loopback(host) and not behind_proxy
        self.offered = everybody or self.asks or self.local_only
        self._lock = threading.Lock()
        self._tries = RateLimit(TRIES, clock)

    def check(self, password: str | None = None, address: str | None = None, local: bool = False) -> None:
        """Raise an error if whoever asks may not.

        Args:
            password: what was typed, if anything.
            address: where it comes from; ten wrong passwords a minute are looked at of each.
            local: whether the visitor is at this machine; see `access.is_local`.

        Raises:
            UserError: whoever asks may not.
            RateLimitError: passwords are being guessed.
        """
        if not self.offered:
            raise UserError(
                "Training is off on this server: start it with --admin-password, or with --admin."
            )
        if self.local_only and not local:
            raise UserError(
                "Only visitors at the server's own machine may train here: open the page there, at"
                " http://127.0.0.1, or restart the server with --admin-password, or with --admin."
            )
        if self._password is None or not self.asks:
            return
        given = password if isinstance(password, str) else ""
        with self._lock:  # many at once are not more guesses
            self._tries.check(address or "")
            if hmac.compare_digest(
                given.encode("utf-8", "replace"), self._password.encode("utf-8", "replace")
            ):
                return
            self._tries.take(address or "")
        raise UserError("That is not the administrator's password; type it again.")
