"""Authorization of training."""

from __future__ import annotations

import pytest

from tests.helpers.clients import LOCAL, STRANGERS, Clock
from triplaneturbo.errors import UserError
from triplaneturbo.serving.admin import TRIES, Admin
from triplaneturbo.serving.limits import MINUTE, RateLimitError


@pytest.mark.parametrize(
    ("host", "everybody", "password", "offered", "asks"),
    [
        (LOCAL, False, None, True, False),
        (STRANGERS, False, None, False, False),
        (STRANGERS, False, "", False, False),
        (STRANGERS, True, None, True, False),
        (STRANGERS, False, "secret", True, True),
        (LOCAL, False, "secret", True, True),
        (STRANGERS, True, "secret", True, False),
    ],
)
def test_training_permission(
    host: str, everybody: bool, password: str | None, offered: bool, asks: bool
) -> None:
    admin = Admin(host, everybody, password)
    assert (admin.offered, admin.asks) == (offered, asks)
    for given in (None, "", "wrong", "sécret", "\ud800", ["secret"]):
        if offered and not asks:
            admin.check(given, local=host == LOCAL)  # type: ignore[arg-type]
        else:
            with pytest.raises(UserError):
                admin.check(given)  # type: ignore[arg-type]
    if asks:
        admin.check("secret")


def test_remote_visitors_of_a_local_server_may_not_train() -> None:
    admin = Admin(LOCAL)
    assert admin.local_only
    admin.check(local=True)
    with pytest.raises(UserError, match="Training is limited to the machine"):
        admin.check("guess", "127.0.0.1")
    Admin(LOCAL, everybody=True).check()
    Admin(LOCAL, password="secret").check("secret")
    behind = Admin(LOCAL, behind_proxy=True)
    assert not behind.offered
    with pytest.raises(UserError, match="Training is disabled"):
        behind.check(local=True)


def test_password_attempts_are_limited() -> None:
    clock = Clock()
    admin = Admin(STRANGERS, password="secret", clock=clock)
    for _ in range(2 * TRIES):
        admin.check("secret", "203.0.113.8")  # who knows it is not counted
    for _ in range(TRIES):
        with pytest.raises(UserError, match="Wrong administrator password"):
            admin.check("guess", "203.0.113.7")
    with pytest.raises(RateLimitError):
        admin.check("secret", "203.0.113.7")
    admin.check("secret", "203.0.113.8")
    clock.now += MINUTE
    admin.check("secret", "203.0.113.7")
