"""Validation of the server's host and port, and the printed addresses."""

from __future__ import annotations

import errno
import ipaddress
import socket

import pytest

from triplaneturbo.errors import UserError
from triplaneturbo.serving import address as serving_address
from triplaneturbo.serving.address import PortTakenError, ServingAddress, default_port, own_addresses


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6_loopback(), reason="this machine has no address ::1")


@pytest.mark.parametrize("typed", ["::1", "[::1]", " ::1 "])
@needs_ipv6
def test_ipv6_addresses_have_brackets(typed: str) -> None:
    address = ServingAddress.checked(typed, 0)
    assert address.host == "::1"
    assert address.server_name == "[::1]"
    assert address.url == f"http://[::1]:{address.port}/"
    assert address.notes() == []


def test_port_0_is_replaced_by_a_free_port() -> None:
    address = ServingAddress.checked("127.0.0.1", 0)
    assert 0 < address.port <= 65535
    with socket.create_server(("127.0.0.1", address.port)):
        pass


def test_port_in_use_is_refused_before_loading() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for host in ("127.0.0.1", "0.0.0.0", "localhost"):
            with pytest.raises(
                PortTakenError, match=f"port {port}: the port is in use; choose another --port"
            ):
                ServingAddress.checked(host, port)


def test_forbidden_port_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> int:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(serving_address, "_bound", forbidden)
    with pytest.raises(UserError, match="permission denied; choose a --port of 1024 or more"):
        ServingAddress.checked("127.0.0.1", 80)


def test_free_port_is_chosen_again_if_taken_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([OSError(errno.EADDRINUSE, "in use"), 4001, 4001])

    def bound(*_: object) -> int:
        answer = next(answers, 4001)
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(serving_address, "_bound", bound)
    assert ServingAddress.checked("127.0.0.1", 0).port == 4001


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("http://127.0.0.1:8000/", "it is a URL; use --host 127.0.0.1 --port 8000."),
        ("https://[::1]", "it is a URL; use --host ::1."),
        ("http://me:secret@example.org/page", "it is a URL; use --host example.org."),
        ("http://", "it is a URL; use --host 127.0.0.1."),
        ("127.0.0.1:8000", "it includes a port; use --host 127.0.0.1 --port 8000."),
        ("[::1]:8000", "it includes a port; use --host ::1 --port 8000."),
        ("localhost:", "it includes a port; use --host localhost."),
        (":8000", "it includes a port; use --host 127.0.0.1 --port 8000."),
        ("", "is empty"),
        ("  ", "is empty"),
        ("*", "use --host 0.0.0.0 for all addresses"),
        ("::g", "not an IP address"),
        ("127.0.0", "not an IP address"),
        ("256.0.0.1", "not an IP address"),
        ("fe80::1%eth0", "cannot contain a zone"),
        ("192.0.2.77", "this machine has no such address; use --host 127.0.0.1"),
        ("x" * 300, "not found"),
        ("\udcff", "not found"),
    ],
)
def test_invalid_addresses_are_explained(typed: str, sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        ServingAddress.checked(typed, 0)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_names_are_resolved_in_every_family(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = (socket.SOCK_STREAM, 6, "")
    found = [(socket.AF_INET6, *kind, ("::1", 0, 0, 0)), (socket.AF_INET, *kind, ("127.0.0.1", 0))]
    tried = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(
        serving_address, "_bound", lambda family, address, port: tried.append((address, port)) or 4001
    )
    address = ServingAddress.checked("six.example", 0)
    assert (address.server_name, address.url) == ("six.example", "http://six.example:4001/")
    assert tried == [("::1", 0), ("127.0.0.1", 4001)]


@pytest.mark.parametrize(
    ("host", "family", "first"),
    [("0.0.0.0", socket.AF_INET, "127.0.0.1"), ("::", socket.AF_INET6, "[::1]")],
)
def test_urls_for_other_machines_are_printed(
    monkeypatch: pytest.MonkeyPatch, host: str, family: int, first: str
) -> None:
    shown = {socket.AF_INET: ["192.0.2.5", "192.0.2.6"], socket.AF_INET6: ["2001:db8::5"]}
    monkeypatch.setattr(serving_address, "own_addresses", shown.get)
    address = ServingAddress(host, 4001)
    assert address.url == f"http://{first}:4001/"
    (note,) = address.notes()
    assert note.startswith("Listening on all IPv")
    for other in shown[family]:
        assert f"http://{f'[{other}]' if ':' in other else other}:4001/" in note


def test_own_addresses_are_reachable_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    named = ["127.0.1.1", "169.254.3.4", "0.0.0.0", "192.0.2.9", "192.0.2.9"]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(2, 1, 6, "", (name, 0)) for name in named])
    addresses = own_addresses(socket.AF_INET)
    assert addresses[-1] == "192.0.2.9"
    assert len(addresses) == len(set(addresses))
    assert not any(ipaddress.ip_address(address).is_loopback for address in addresses)
    assert "169.254.3.4" not in addresses

    def nothing(*_: object) -> None:
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    monkeypatch.setattr(socket, "socket", nothing)
    assert own_addresses(socket.AF_INET6) == []


@pytest.mark.parametrize(
    ("value", "port"),
    [(None, 7860), ("", 7860), ("0", 0), ("7861", 7861), ("abc", None), ("70000", None), ("-1", None)],
)
def test_port_from_environment(value: str | None, port: int | None) -> None:
    assert default_port({} if value is None else {"GRADIO_SERVER_PORT": value}) == port


def test_invalid_port_in_environment_is_refused() -> None:
    with pytest.raises(UserError, match=r"Invalid GRADIO_SERVER_PORT 'abc'; use .*, or set --port"):
        ServingAddress.checked("127.0.0.1", None, {"GRADIO_SERVER_PORT": "abc"})
