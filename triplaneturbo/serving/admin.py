"""Authorization of training and adapter management on a shared server. Imports nothing heavy."""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable

from triplaneturbo.errors import UserError
from triplaneturbo.serving.access import is_loopback
from triplaneturbo.serving.limits import RateLimit

TRIES = 10  # wrong passwords per minute and address


class Admin:
    """Decide who may train and manage adapters: local visitors, everybody, or those who know a password.

    Args:
        host: the address on which the server listens.
        everybody: --admin: allow every visitor, without a password.
        password: grants access from any address; None or "": there is no password.
        clock: returns the time in seconds.
        behind_proxy: a reverse proxy forwards the requests of others, so no request counts as local.

    Attributes:
        offered: whether anybody may train.
        asks: whether a password is required.
        local_only: whether only visitors on this machine may train.
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
        """Raise an error if the visitor may not train.

        Args:
            password: the password given by the visitor, if any.
            address: the visitor's address, limited to ten wrong passwords per minute.
            local: whether the visitor is on this machine; see `access.is_local`.

        Raises:
            UserError: the visitor may not train.
            RateLimitError: too many wrong passwords.
        """
        if not self.offered:
            raise UserError(
                "Training is disabled on this server; restart it with --admin-password or --admin."
            )
        if self.local_only and not local:
            raise UserError(
                "Training is limited to the machine on which the server runs; open the page there at"
                " http://127.0.0.1, or restart the server with --admin-password or --admin."
            )
        if self._password is None or not self.asks:
            return
        given = password if isinstance(password, str) else ""
        with self._lock:  # parallel requests must not allow more guesses
            self._tries.check(address or "")
            if hmac.compare_digest(
                given.encode("utf-8", "replace"), self._password.encode("utf-8", "replace")
            ):
                return
            self._tries.take(address or "")
        raise UserError("Wrong administrator password; try again.")
