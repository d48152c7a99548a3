"""Detection of local requests."""

from __future__ import annotations

import pytest

from triplaneturbo.serving.access import is_local


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:7860"},
        {"host": "localhost:7860", "origin": "http://localhost:7860"},
        {"host": "[::1]:7860", "referer": "http://[::1]:7860/?__theme=dark"},
        {"host": "127.0.0.1:7860", "origin": "", "user-agent": "python"},
    ],
)
def test_requests_of_this_machine_are_local(headers: dict[str, str]) -> None:
    assert is_local(headers, "127.0.0.1")
    assert is_local(headers, "::1")
    assert not is_local(headers, "192.168.0.7")
    assert not is_local(headers, None)


@pytest.mark.parametrize(
    "header",
    [
        {"x-forwarded-for": "127.0.0.1"},
        {"x-forwarded-host": "localhost"},
        {"x-forwarded-proto": "http"},
        {"x-real-ip": "127.0.0.1"},
        {"forwarded": "for=127.0.0.1"},
        {"via": "1.1 proxy"},
        {"cf-connecting-ip": "127.0.0.1"},
        {"host": "toys.example.com"},
        {"host": "toys.example.com:127"},
        {"host": "127.0.0.1.example.com"},
        {"host": "localhost@example.com"},
        {"host": "localhost.example.com"},
        {"host": "192.168.0.7:7860"},
        {"host": ""},
        {"host": "["},
        {"origin": "https://toys.example.com"},
        {"origin": "null"},
        {"referer": "http://toys.example.com/app/"},
    ],
)
def test_proxy_headers_or_foreign_hosts_are_not_local(header: dict[str, str]) -> None:
    assert not is_local({"host": "127.0.0.1:7860", **header}, "127.0.0.1")


def test_request_without_host_is_not_local() -> None:
    assert not is_local({}, "127.0.0.1")
