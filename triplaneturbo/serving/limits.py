"""What one visitor may ask of a server that others use too.

    limits = Limits.for_host("0.0.0.0", per_minute=20)
    guard = Guard(limits)
    guard.admit(request, session="of the page", address="203.0.113.7")
    with guard.alone("of the page"):
        ...

The length of a prompt is Request's matter, the length of the queue the Line's. Imports nothing heavy.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace

from triplaneturbo.errors import UserError
from triplaneturbo.request import Request
from triplaneturbo.serving.access import is_loopback

MINUTE = 60.0
# Many people may come from one address, but no one person should get past the limit by many sessions.
SESSIONS_AN_ADDRESS = 10


class RateLimitError(UserError):
    """One visitor has asked too often within a minute.

    Attributes:
        seconds: after which the next request is let in.
    """

    def __init__(self, per_minute: int, seconds: int) -> None:
        super().__init__(f"More than {per_minute} requests in a minute; try again in {seconds} s.")
        self.per_minute, self.seconds = per_minute, seconds

    def __reduce__(self) -> tuple[type[RateLimitError], tuple[int, int]]:
        return RateLimitError, (self.per_minute, self.seconds)


@dataclass(frozen=True)
class Limits:
    """What is let in; None wherever there is no limit.

    Attributes:
        queue: requests that may wait for the one under way, of all sessions together; 1 or more.
        per_minute: requests a session may make in any 60 s; an address may make ten times as many.
        alone: whether a session may have only one request under way at a time.
        resolution: the finest grid, in nodes along a side.
        texture_size: the largest texture, in texels along a side.
        faces: the most faces, where a number is asked for.
        steps: the most denoising steps.
        meshes: the most meshes of one request: variants, or a blend's series.
        quota: bytes that the history of all visitors may take on disk.
        live: bytes that the results of all open pages may take besides.
        entries: results that are kept of each visitor.
        body: bytes of a request's JSON.
    """

    queue: int | None = 32
    per_minute: int | None = 30
    alone: bool = True
    resolution: int | None = 256
    texture_size: int | None = 2048
    faces: int | None = 200_000
    steps: int | None = 16
    meshes: int | None = 16
    quota: int | None = 15_000_000_000
    live: int | None = 5_000_000_000
    entries: int = 200
    body: int = 1_000_000

    @classmethod
    def for_host(
        cls,
        host: str,
        queue: int | None = None,
        per_minute: int | None = None,
        quota: int | None = None,
        behind_proxy: bool = False,
    ) -> Limits:
        """The limits of a server at `host`: for strangers, or loose ones where only this machine reaches it.

        Args:
            host: the address that is listened at.
            queue: requests that may wait; None: the default.
            per_minute: requests a session may make a minute; None: the default.
            quota: bytes of the history, of which on a server for strangers a quarter is for what open pages
                hold; None: the default.
            behind_proxy: a proxy makes the server reachable for others, whatever the host.

        Raises:
            UserError: a number is below 1.
        """
        chosen = {"queue": queue, "per_minute": per_minute, "quota": quota}
        for name, value in chosen.items():
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} should be 1 or more, not {value}.")
        loose = cls(
            queue=256,
            per_minute=None,
            alone=False,
            resolution=None,
            texture_size=None,
            faces=None,
            steps=None,
            meshes=64,
            quota=20_000_000_000,
            live=20_000_000_000,
            entries=2000,
        )
        private = is_loopback(host) and not behind_proxy
        limits = loose if private else cls()
        if quota is not None and not private:
            limits = replace(limits, live=quota // 4)
            chosen["quota"] = quota - quota // 4
        kept = {field.name: getattr(limits, field.name) for field in fields(cls)}
        return cls(**kept | {name: value for name, value in chosen.items() if value is not None})

    def for_strangers(self) -> Limits:
        """These limits, with what one request or one minute may ask for cut to what strangers may.

        The queue, the disk space and what is kept of each visitor belong to the whole server and stay.
        """
        strict = Limits()
        tightened = {
            name: min(filter(None, (getattr(self, name), getattr(strict, name))))
            for name in ("per_minute", "resolution", "texture_size", "faces", "steps", "meshes")
        }
        return replace(self, alone=True, **tightened)

    def check(self, *requests: Request) -> None:
        """Nothing, if requests of one ticket are within the limits.

        Raises:
            UserError: one is not; the sentence says what would be.
        """
        if self.meshes is not None and len(requests) > self.meshes:
            raise UserError(f"This server makes at most {self.meshes} meshes at once; ask for fewer.")
        for request in requests:
            for what, asked, most in (
                ("a resolution", request.resolution, self.resolution),
                ("a texture size", request.texture_size, self.texture_size),
                ("a number of faces", request.faces, self.faces),
                ("a number of steps", request.steps, self.steps),
            ):
                # What is no number is for Request to complain of.
                if isinstance(asked, int) and most is not None and asked > most:
                    raise UserError(f"This server allows {what} of at most {most}; ask for less.")


class RateLimit:
    """So many a minute for each key, in a sliding window; every method may be called from any thread.

    Args:
        per_minute: 1 or more; None: any number.
        clock: tells the seconds.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._times: dict[str, deque[float]] = {}
        self._swept = clock()

    def take(self, key: str) -> None:
        """Count one more for `key`; one that is refused is not counted.

        Raises:
            RateLimitError: there were too many in the last 60 s.
        """
        self._look(key, count=True)

    def check(self, key: str) -> None:
        """As `take`, and nothing is counted."""
        self._look(key, count=False)

    def _look(self, key: str, count: bool) -> None:
        if self._per_minute is None:
            return
        with self._lock:
            now = self._clock()
            self._sweep(now)
            times = self._times.get(key, deque())
            while times and now - times[0] >= MINUTE:
                times.popleft()
            if len(times) >= self._per_minute:
                seconds = max(1, math.ceil(times[0] + MINUTE - now))
                raise RateLimitError(self._per_minute, seconds)
            if count:
                times.append(now)
                self._times[key] = times

    def _sweep(self, now: float) -> None:
        """Forget keys that were not heard of for a minute: strangers can make as many as they like."""
        if now - self._swept >= MINUTE:
            self._swept = now
            self._times = {k: t for k, t in self._times.items() if t and now - t[-1] < MINUTE}


class Guard:
    """Holds visitors to the limits; every method may be called from any thread.

    Args:
        limits: what a visitor at this machine may ask for; others are held to `limits.for_strangers()`.
        clock: tells the seconds.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._local = _Rates(limits, clock)
        self._strangers = _Rates(limits.for_strangers(), clock)
        self._lock = threading.Lock()
        self._busy: set[str] = set()

    def _rates(self, local: bool) -> _Rates:
        return self._local if local else self._strangers

    def admit(
        self, *requests: Request, session: str | None, address: str | None = None, local: bool = False
    ) -> None:
        """To be called at the top of whatever makes meshes: the sizes, then how often.

        Args:
            requests: of one ticket; none, where something else is asked for that costs much.
            session: Gradio's name for the page or client; None: it has none, and only its address counts.
            address: where it comes from, if that is known.
            local: whether the visitor is at this machine; see `access.is_local`.

        Raises:
            UserError: a request is beyond the limits.
            RateLimitError: there were too many requests in the last minute.
        """
        rates = self._rates(local)
        rates.limits.check(*requests)
        if session is not None:
            rates.sessions.take(session)
        if address is not None:
            (rates.sessions if session is None else rates.addresses).take(address)

    @contextmanager
    def alone(self, session: str | None, address: str | None = None, local: bool = False) -> Iterator[None]:
        """While it is entered, the session cannot enter it again, where only one request may be under way.

        Without a session its address cannot.

        Raises:
            UserError: it is entered already.
        """
        key = session or f"at {address}"
        if not self._rates(local).limits.alone:
            yield
            return
        with self._lock:
            if key in self._busy:
                raise UserError("This session has a request under way; wait for its end, or cancel it.")
            self._busy.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(key)


class _Rates:
    """Limits, and how often they were used."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self.limits = limits
        per_address = None if limits.per_minute is None else limits.per_minute * SESSIONS_AN_ADDRESS
        self.sessions = RateLimit(limits.per_minute, clock)
        self.addresses = RateLimit(per_address, clock)
