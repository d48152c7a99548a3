"""Request limits of a server: sizes, rates and concurrency. Imports nothing heavy.

    limits = Limits.for_host("0.0.0.0", per_minute=20)
    limiter = RequestLimiter(limits)
    limiter.admit(request, session="of the page", address="203.0.113.7")
    with limiter.alone("of the page"):
        ...

The length of prompts is checked by Request, the length of the queue by JobQueue.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Literal

from triplaneturbo.errors import UserError
from triplaneturbo.request import Request
from triplaneturbo.serving.access import is_loopback
from triplaneturbo.serving.refine_request import RefineRequest

MINUTE = 60.0
# Many visitors may share an address, but one visitor should not evade the limit with many sessions.
SESSIONS_PER_ADDRESS = 10


class RateLimitError(UserError):
    """A visitor has sent too many requests within a minute.

    Attributes:
        per_minute: the limit.
        seconds: seconds until the next request is accepted.
    """

    def __init__(self, per_minute: int, seconds: int) -> None:
        super().__init__(f"Too many requests (limit: {per_minute} per minute); try again in {seconds} s.")
        self.per_minute, self.seconds = per_minute, seconds

    def __reduce__(self) -> tuple[type[RateLimitError], tuple[int, int]]:
        return RateLimitError, (self.per_minute, self.seconds)


@dataclass(frozen=True)
class Limits:
    """Limits of a server; None means unlimited.

    Attributes:
        queue: maximum number of waiting requests of all sessions together, 1 or more.
        per_minute: maximum number of requests per session in any 60 s; an address may send ten times as many.
        alone: whether a session may have only one active request at a time.
        resolution: maximum grid resolution, in nodes per side.
        texture_size: maximum texture size, in texels per side.
        faces: maximum number of faces that may be requested.
        steps: maximum number of denoising steps.
        meshes: maximum number of meshes of one request: variants or a blend series.
        quota: bytes on disk for the history of all visitors.
        live: bytes on disk for the results of all open pages, in addition to the history.
        entries: results kept per visitor.
        body: maximum number of bytes of a request's JSON.
        refine: who may refine results: "nobody", "local" (visitors on this machine) or "everybody".
        refine_steps: maximum number of steps of a refinement.
        uploads: who may upload a mesh or a picture to refine, as in `refine`.
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
    refine: Literal["nobody", "local", "everybody"] = "nobody"
    refine_steps: int | None = 200
    uploads: Literal["nobody", "local", "everybody"] = "nobody"

    @classmethod
    def for_host(
        cls,
        host: str,
        queue: int | None = None,
        per_minute: int | None = None,
        quota: int | None = None,
        behind_proxy: bool = False,
        refine: bool = False,
        uploads: bool = False,
    ) -> Limits:
        """Return the default limits of a public server, or looser ones if only this machine can reach it.

        Args:
            host: the address on which the server listens.
            queue: maximum number of waiting requests; None: the default.
            per_minute: maximum number of requests per minute and session; None: the default.
            quota: bytes for the history; a public server reserves a quarter of them for open pages. None: the
                default.
            behind_proxy: a reverse proxy makes the server public, whatever the host.
            refine: --refine: everybody may refine results, also on a public server.
            uploads: --uploads: everybody may upload what is refined, too; they need to be allowed to refine.

        Raises:
            UserError: a number is below 1.
        """
        chosen = {"queue": queue, "per_minute": per_minute, "quota": quota}
        for name, value in chosen.items():
            if value is not None and value < 1:
                raise UserError(f"Invalid --{name.replace('_', '-')} {value}; use 1 or more.")
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
            refine="local",
            refine_steps=None,
            uploads="local",
        )
        private = is_loopback(host) and not behind_proxy
        limits = loose if private else cls()
        if quota is not None and not private:
            limits = replace(limits, live=quota // 4)
            chosen["quota"] = quota - quota // 4
        if uploads and not refine and not private:
            raise UserError("--uploads lets visitors upload what they refine; add --refine.")
        if refine:
            limits = replace(limits, refine="everybody")
        if uploads:
            limits = replace(limits, uploads="everybody")
        kept = {field.name: getattr(limits, field.name) for field in fields(cls)}
        return cls(**kept | {name: value for name, value in chosen.items() if value is not None})

    def for_remote_visitors(self) -> Limits:
        """Return these limits, tightened to those of a public server for single requests and rates.

        The queue, disk space and number of saved results concern the whole server and stay unchanged.
        """
        strict = Limits()
        names = ("per_minute", "resolution", "texture_size", "faces", "steps", "meshes", "refine_steps")
        tightened = {name: min(filter(None, (getattr(self, name), getattr(strict, name)))) for name in names}
        refine = self.refine if self.refine == "everybody" else "nobody"
        uploads = self.uploads if self.uploads == "everybody" else "nobody"
        return replace(self, alone=True, refine=refine, uploads=uploads, **tightened)

    def check(self, *requests: Request) -> None:
        """Raise UserError if the requests of a job exceed the limits.

        Raises:
            UserError: with the limit that is exceeded.
        """
        if self.meshes is not None and len(requests) > self.meshes:
            raise UserError(f"Too many meshes: this server allows at most {self.meshes} at once; use fewer.")
        for request in requests:
            if isinstance(request, RefineRequest):
                self._check_refinement(request)
            for name, value, limit in (
                ("resolution", request.resolution, self.resolution),
                ("texture size", request.texture_size, self.texture_size),
                ("number of faces", request.faces, self.faces),
                ("number of steps", request.steps, self.steps),
            ):
                # Request itself rejects values that are not numbers.
                if isinstance(value, int) and limit is not None and value > limit:
                    raise UserError(f"The {name} {value} exceeds this server's limit; use at most {limit}.")

    def _check_refinement(self, request: RefineRequest) -> None:
        if self.refine == "nobody":
            raise UserError(
                "This server does not refine results for its visitors; use your own machine, or restart the"
                " server with --refine."
            )
        if request.upload and self.uploads == "nobody":
            raise UserError(
                "This server accepts no uploads from its visitors; use your own machine, or restart the"
                " server with --uploads."
            )
        steps, most = request.refine_steps, self.refine_steps
        if isinstance(steps, int) and most is not None and steps > most:
            raise UserError(f"{steps} steps of refinement exceed this server's limit; use at most {most}.")


class RateLimit:
    """Thread-safe rate limit per key, with a sliding window of one minute.

    Args:
        per_minute: maximum number of events per minute, 1 or more; None: unlimited.
        clock: returns the time in seconds.
    """

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._times: dict[str, deque[float]] = {}
        self._swept = clock()

    def take(self, key: str) -> None:
        """Count one event for `key`; rejected events are not counted.

        Raises:
            RateLimitError: there were too many in the last 60 s.
        """
        self._check(key, count=True)

    def check(self, key: str) -> None:
        """Raise RateLimitError as `take` does, without counting an event."""
        self._check(key, count=False)

    def _check(self, key: str, count: bool) -> None:
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
        """Forget keys without a recent event, as clients can create any number of them."""
        if now - self._swept >= MINUTE:
            self._swept = now
            self._times = {k: t for k, t in self._times.items() if t and now - t[-1] < MINUTE}


class RequestLimiter:
    """Enforce the limits for every visitor. All methods are thread-safe.

    Args:
        limits: limits of visitors on this machine; those of others are `limits.for_remote_visitors()`.
        clock: returns the time in seconds.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._local = _Rates(limits, clock)
        self._remote = _Rates(limits.for_remote_visitors(), clock)
        self._lock = threading.Lock()
        self._busy: set[str] = set()

    def allows_uploads(self, local: bool) -> bool:
        """Whether a visitor, on this machine or not, may upload a file to refine."""
        return self._rates(local).limits.uploads != "nobody"

    def _rates(self, local: bool) -> _Rates:
        return self._local if local else self._remote

    def admit(
        self, *requests: Request, session: str | None, address: str | None = None, local: bool = False
    ) -> None:
        """Check and count a job: the sizes of its requests, then the visitor's rate.

        Call this first in every endpoint that generates meshes or does other expensive work.

        Args:
            requests: the requests of one job; none for other expensive work.
            session: Gradio's session hash; None: there is none, and only the address is counted.
            address: the visitor's IP address, if known.
            local: whether the visitor is on this machine; see `access.is_local`.

        Raises:
            UserError: a request exceeds the limits.
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
        """Allow only one active request per session in this context, if the limits say so.

        Without a session, the address is used.

        Raises:
            UserError: the session has an active request.
        """
        key = session or f"at {address}"
        if not self._rates(local).limits.alone:
            yield
            return
        with self._lock:
            if key in self._busy:
                raise UserError(
                    "This session already has an active request; wait until it ends, or cancel it."
                )
            self._busy.add(key)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(key)


class _Rates:
    """Limits of one kind of visitor, with their rate counters."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self.limits = limits
        per_address = None if limits.per_minute is None else limits.per_minute * SESSIONS_PER_ADDRESS
        self.sessions = RateLimit(limits.per_minute, clock)
        self.addresses = RateLimit(per_address, clock)
