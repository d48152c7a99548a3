"""Request limits: sizes, rates, concurrency."""

from __future__ import annotations

import pickle
import threading
from dataclasses import replace

import pytest

from tests.helpers.clients import LOCAL, STRANGERS, Clock
from triplaneturbo.errors import QueueFullError, UserError
from triplaneturbo.request import Request
from triplaneturbo.serving.limits import (
    MINUTE,
    SESSIONS_PER_ADDRESS,
    Limits,
    RateLimit,
    RateLimitError,
    RequestLimiter,
    is_loopback,
)
from triplaneturbo.serving.refine_request import RefineRequest


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1.2.3",
        "::1",
        "[::1]",
        "localhost",
        "LOCALHOST",
        "toys.localhost",
        "::ffff:127.0.0.1",
    ],
)
def test_loopback_hosts(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.0.2", "localhost.evil.example", "127.evil"])
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request("a cup", resolution=257), "resolution 257 exceeds this server's limit; use at most 256"),
        (
            Request("a cup", texture_size=4096),
            "texture size 4096 exceeds this server's limit; use at most 2048",
        ),
        (
            Request("a cup", faces=200_001),
            "number of faces 200001 exceeds this server's limit; use at most 200000",
        ),
        (Request("a cup", steps=17), "number of steps 17 exceeds this server's limit; use at most 16"),
    ],
)
def test_remote_visitors_are_limited(request_: Request, said: str) -> None:
    with pytest.raises(UserError, match=f"The {said}"):
        Limits.for_host(STRANGERS).check(Request("a hat"), request_)
    Limits.for_host(LOCAL).check(request_)


def test_defaults_are_within_the_limits() -> None:
    limits = Limits.for_host(STRANGERS)
    limits.check(Request("a cup", resolution=160, texture_size=2048))
    limits.check(*[Request("a cup", seed=seed) for seed in range(16)])
    with pytest.raises(UserError, match="at most 16 at once"):
        limits.check(*[Request("a cup", seed=seed) for seed in range(17)])


def test_limits_ignore_values_that_are_no_numbers() -> None:
    broken = Request("a cup", steps="many")  # type: ignore[arg-type]
    Limits.for_host(STRANGERS).check(broken)
    with pytest.raises(UserError, match="whole number"):
        broken.checked()


def test_flags_override_the_defaults_of_the_host() -> None:
    limits = Limits.for_host(LOCAL, queue=3, per_minute=7, quota=11)
    assert (limits.queue, limits.per_minute, limits.quota) == (3, 7, 11)
    assert limits.resolution is None
    shared = Limits.for_host(STRANGERS, quota=1000)
    assert (shared.quota, shared.live) == (750, 250)
    assert Limits.for_host(LOCAL).per_minute is None
    assert Limits.for_host(STRANGERS).per_minute is not None
    assert Limits.for_host(LOCAL, behind_proxy=True) == Limits.for_host(STRANGERS)


def test_remote_visitors_of_a_local_server_are_limited() -> None:
    loose, strict = Limits.for_host(LOCAL), Limits()
    guard = RequestLimiter(loose)
    large = Request("a hat", resolution=300)
    guard.admit(large, session="one", address="127.0.0.1", local=True)
    with pytest.raises(UserError, match=f"limit; use at most {strict.resolution}"):
        guard.admit(large, session="one", address="127.0.0.1")
    for _ in range(strict.per_minute or 0):
        guard.admit(Request("a hat"), session="one", address="127.0.0.1")
    with pytest.raises(RateLimitError):
        guard.admit(Request("a hat"), session="one", address="127.0.0.1")
    with guard.alone("one"), pytest.raises(UserError, match="active request"), guard.alone("one"):
        pass


def test_stricter_limits_apply_to_remote_visitors() -> None:
    own = Limits.for_host(LOCAL, queue=3, per_minute=7)
    assert (own.for_remote_visitors().per_minute, own.for_remote_visitors().queue) == (7, 3)
    assert Limits().for_remote_visitors() == Limits()


@pytest.mark.parametrize("flag", ["queue", "per_minute", "quota"])
def test_limit_below_one_is_refused(flag: str) -> None:
    with pytest.raises(UserError, match=f"Invalid --{flag.replace('_', '-')} 0; use 1 or more"):
        Limits.for_host(LOCAL, **{flag: 0})


def test_rate_limit_window_slides() -> None:
    clock = Clock()
    limit = RateLimit(2, clock)
    limit.take("one")
    clock.now += 20
    limit.take("one")
    clock.now += 10.5
    with pytest.raises(
        RateLimitError, match=r"Too many requests \(limit: 2 per minute\); try again in 30 s\."
    ) as info:
        limit.take("one")
    limit.take("another")
    clock.now += info.value.seconds
    limit.take("one")  # what was refused did not count
    with pytest.raises(RateLimitError, match="in 20 s"):
        limit.take("one")


def test_idle_keys_are_dropped() -> None:
    clock = Clock()
    limit = RateLimit(2, clock)
    for number in range(1000):
        limit.take(str(number))
    clock.now += MINUTE
    limit.take("last")
    assert len(limit._times) == 1


def test_rate_limit_is_thread_safe() -> None:
    limit, let_in = RateLimit(50), []

    def ask() -> None:
        for _ in range(50):
            try:
                limit.take("one")
            except RateLimitError:
                continue
            let_in.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(let_in) == 50


def test_many_sessions_share_the_limit_of_an_address() -> None:
    guard = RequestLimiter(Limits(per_minute=2), Clock())
    for number in range(2 * SESSIONS_PER_ADDRESS):
        guard.admit(Request("a cup"), session=f"new {number}", address="203.0.113.7")
    with pytest.raises(RateLimitError):
        guard.admit(Request("a cup"), session="one more", address="203.0.113.7")
    guard.admit(Request("a cup"), session="another", address="203.0.113.8")


def test_requests_without_session_count_for_the_address() -> None:
    guard = RequestLimiter(Limits(per_minute=2), Clock())
    for _ in range(2):
        guard.admit(Request("a cup"), session=None, address="203.0.113.7")
    with pytest.raises(RateLimitError):
        guard.admit(Request("a cup"), session=None, address="203.0.113.7")


def test_refused_requests_are_not_counted() -> None:
    guard = RequestLimiter(Limits(per_minute=1), Clock())
    with pytest.raises(UserError, match="resolution"):
        guard.admit(Request("a cup", resolution=512), session="one")
    guard.admit(Request("a cup"), session="one")


def test_sessions_run_one_job_at_a_time() -> None:
    guard = RequestLimiter(Limits())
    with guard.alone("one"), guard.alone("another"), guard.alone(None, "203.0.113.7"):
        with pytest.raises(UserError, match="active request"), guard.alone("one"):
            pass
        with pytest.raises(UserError, match="active request"), guard.alone(None, "203.0.113.7"):
            pass
        with guard.alone(None, "203.0.113.8"):
            pass
    with pytest.raises(ZeroDivisionError), guard.alone("one"):
        raise ZeroDivisionError
    with guard.alone("one"):
        pass


def test_local_users_run_several_jobs() -> None:
    guard = RequestLimiter(Limits.for_host(LOCAL))
    with guard.alone("one", local=True), guard.alone("one", local=True):
        pass


@pytest.mark.parametrize("error", [QueueFullError(3), RateLimitError(2, 5)])
def test_errors_can_be_pickled(error: UserError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.seconds) == (type(error), str(error), error.seconds)


def test_refinements_are_for_local_visitors_unless_the_server_allows_all() -> None:
    request = RefineRequest("a cup", refine_steps=200)
    local = RequestLimiter(Limits.for_host("127.0.0.1"))
    local.admit(replace(request, refine_steps=1000), session="a", local=True)
    shared = RequestLimiter(Limits.for_host("0.0.0.0"))
    for limiter in (local, shared):
        with pytest.raises(UserError, match="restart the server with --refine"):
            limiter.admit(request, session="a")
    with pytest.raises(UserError, match="restart the server with --refine"):
        shared.admit(request, session="a", local=True)
    for host in ("127.0.0.1", "0.0.0.0"):
        allowed = RequestLimiter(Limits.for_host(host, refine=True))
        allowed.admit(request, session="a")
        with pytest.raises(UserError, match=r"201 steps of refinement exceed .* use at most 200"):
            allowed.admit(replace(request, refine_steps=201), session="a")
        with pytest.raises(UserError, match="resolution 300 exceeds"):
            allowed.admit(replace(request, resolution=300), session="a")
