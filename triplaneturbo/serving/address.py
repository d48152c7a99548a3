"""Validation of the server's host and port before anything heavy is imported.

address = ServingAddress.checked("::1", 0)
page.launch(server_name=address.server_name, server_port=address.port)
print(f"Open {address.url}", *address.notes(), sep="\n")
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7860
HIGHEST_PORT = 65535
_RANGE = f"a whole number from 0 (any free port) to {HIGHEST_PORT}"
_TRIES = 20
# Reserved for documentation, so never this machine's. Connecting a UDP socket sends nothing: it only selects
# the address of this machine that packets would leave from.
_ELSEWHERE = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}
_EVERYWHERE = {"0.0.0.0": socket.AF_INET, "::": socket.AF_INET6}


def port_number(text: str) -> int:
    """Parse a port number, for argparse."""
    if text.isascii() and text.isdecimal() and int(text[:6]) <= HIGHEST_PORT:
        return int(text[:6])
    raise argparse.ArgumentTypeError(f"invalid value {shown(text)}: use {_RANGE}")


def default_port(environment: Mapping[str, str]) -> int | None:
    """Return the port of GRADIO_SERVER_PORT or the default; None if the variable is invalid."""
    try:
        return port_number(environment.get("GRADIO_SERVER_PORT") or str(DEFAULT_PORT))
    except argparse.ArgumentTypeError:
        return None


class PortTakenError(UserError):
    """Another program uses the port."""


@dataclass(frozen=True)
class ServingAddress:
    """An address that this machine can listen on.

    Attributes:
        host: a host name or an IP address, without brackets.
        port: the port, never 0.
    """

    host: str
    port: int

    @classmethod
    def checked(
        cls, host: str, port: int | None, environment: Mapping[str, str] | None = None
    ) -> ServingAddress:
        """Return the address, with a free port in place of 0.

        Args:
            host: the host as given by the user.
            port: the port as given by the user; None: GRADIO_SERVER_PORT in `environment` is invalid.
            environment: environment variables, for the error message.

        Raises:
            UserError: the page cannot listen there.
        """
        if port is None:
            value = (environment or {}).get("GRADIO_SERVER_PORT", "")
            raise UserError(f"Invalid GRADIO_SERVER_PORT {shown(value)}; use {_RANGE}, or set --port.")
        host = _plain(host)
        return cls(host, _free_port(host, port))

    @property
    def server_name(self) -> str:
        """The host as in a URL: an IPv6 address has brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def url(self) -> str:
        """The page's address on this machine."""
        local = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.server_name)
        return f"http://{local}:{self.port}/"

    def notes(self) -> list[str]:
        """Return a line with the addresses at which other machines reach the page; none if they cannot."""
        family = _EVERYWHERE.get(self.host)
        if family is None:
            return []
        kind = "IPv4" if family == socket.AF_INET else "IPv6"
        urls = [
            f"http://{f'[{address}]' if family == socket.AF_INET6 else address}:{self.port}/"
            for address in own_addresses(family)
        ]
        return [
            f"Listening on all {kind} addresses of this machine"
            + (f"; from another machine: {' or '.join(urls)}" if urls else "")
        ]


def own_addresses(family: socket.AddressFamily) -> list[str]:
    """Return this machine's addresses that other machines can reach, the default one first."""
    found = []
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((_ELSEWHERE[family], 9))
        found.append(probe.getsockname()[0])
    with contextlib.suppress(OSError):
        found += [str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None, family)]
    return [address for address in dict.fromkeys(found) if _is_reachable(address)]


def _is_reachable(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)


def _plain(host: str) -> str:
    """Return a host without its brackets. Raise UserError if it is a URL, includes a port or is invalid."""
    host = host.strip()
    if not host:
        raise UserError(f"The host is empty; use {DEFAULT_HOST}, or 0.0.0.0 for all addresses.")
    url = re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/@]*@)?(\[[^]]*\]|[^/:]*)(?::(\d*))?(?:/.*)?", host)
    if url:
        port = f" --port {url[2]}" if url[2] else ""
        name = url[1].strip("[]") or DEFAULT_HOST
        raise UserError(f"Invalid host {shown(host)}: it is a URL; use --host {name}{port}.")
    with_port = re.fullmatch(r"(\[[^]]*\]|[^:/]*):(\d*)", host)
    if with_port:
        name = with_port[1].strip("[]") or DEFAULT_HOST
        port = f" --port {with_port[2]}" if with_port[2] else ""
        raise UserError(f"Invalid host {shown(host)}: it includes a port; use --host {name}{port}.")
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if plain == "*":
        raise UserError("Invalid host '*'; use --host 0.0.0.0 for all addresses.")
    if "%" in plain:
        raise UserError(f"Invalid host {shown(host)}: URLs cannot contain a zone; use another address.")
    if ":" in plain or re.fullmatch(r"[\d.]+", plain):
        try:
            ipaddress.ip_address(plain)
        except ValueError:
            raise UserError(
                f"Invalid host {shown(host)}: not an IP address; use one such as {DEFAULT_HOST} or ::1."
            ) from None
    return plain


def _free_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0. Raise UserError if a server cannot listen there."""
    # Gradio refuses a port that is taken at 127.0.0.1, whatever the host.
    places = dict.fromkeys([*_resolved(host), (socket.AF_INET, DEFAULT_HOST)])
    for _ in range(_TRIES):
        chosen = port
        try:
            for family, address in places:
                chosen = _bound(family, address, chosen)
            return chosen
        except OSError as error:
            if port == 0 and error.errno == errno.EADDRINUSE:  # free at one of the host's addresses only
                continue
            raise _explained(host, port, error) from None
    raise UserError(f"No free port found at {shown(host)}; set one with --port.")


def _resolved(host: str) -> list[tuple[socket.AddressFamily, str]]:
    """Return the addresses that a server at `host` listens on."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UserError(
            f"Host {shown(host)} not found; use an address of this machine such as {DEFAULT_HOST}."
        ) from None
    return list(dict.fromkeys((entry[0], str(entry[4][0])) for entry in found))


def _bound(family: socket.AddressFamily, address: str, port: int) -> int:
    """Bind a socket to the port (0: any), close it again and return its port."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if hasattr(socket, "IPV6_V6ONLY") and family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))
        return int(probe.getsockname()[1])


def _explained(host: str, port: int, error: OSError) -> UserError:
    at = f"Cannot serve at {shown(host)}, port {port}"
    if error.errno == errno.EADDRINUSE:
        return PortTakenError(f"{at}: the port is in use; choose another --port, or 0 for any free one.")
    if error.errno in (errno.EACCES, errno.EPERM):
        return UserError(f"{at}: permission denied; choose a --port of 1024 or more.")
    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return UserError(f"{at}: this machine has no such address; use --host {DEFAULT_HOST} or 0.0.0.0.")
    return UserError(f"{at}: {error.strerror}; choose another --host or --port.")
