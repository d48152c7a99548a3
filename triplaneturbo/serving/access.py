"""Detection of local requests, which are trusted with training and looser limits. Imports nothing heavy.

A server at 127.0.0.1 trusts the users of that machine. A reverse proxy on the same machine also connects
from 127.0.0.1, so the address alone proves nothing and the headers are checked, too.
"""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Mapping

# Headers added by proxies, load balancers and tunnels; local browsers and scripts send none of them.
FORWARDING = frozenset(
    {
        "forwarded",
        "via",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-host",
        "x-original-url",
        "x-envoy-external-address",
        "true-client-ip",
        "cf-connecting-ip",
        "fastly-client-ip",
        "x-scheme",
    }
)
FORWARDING_PREFIXES = ("x-forwarded", "cf-", "cdn-", "tailscale-", "ngrok-")


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address with or without brackets, reaches this machine only."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.strip("[]").partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def is_local(headers: Mapping[str, str], client: str | None) -> bool:
    """Whether a request was made on this machine, as far as its headers show.

    A program that reaches the server through a proxy which adds no header (nginx with a bare `proxy_pass`)
    looks local: start such a server with --behind-proxy.

    Args:
        headers: the request's headers, names in lower case.
        client: IP address of the peer; None: unknown.

    Returns:
        False if a proxy forwarded the request, the request names another host, a page of another origin sent
        it or the peer is another machine.
    """
    if any(name in FORWARDING or name.startswith(FORWARDING_PREFIXES) for name in headers):
        return False
    if client is None or not is_loopback(client):
        return False
    # This also prevents DNS rebinding: a name that an attacker points at 127.0.0.1 is not a loopback name.
    if not is_loopback(_host_of(f"//{headers.get('host', '')}")):
        return False
    # Behind a bare proxy_pass these two still name the address that the browser opened.
    return all(is_loopback(_host_of(headers[name])) for name in ("origin", "referer") if headers.get(name))


def _host_of(url: str) -> str:
    try:
        return urllib.parse.urlsplit(url).hostname or ""
    except ValueError:
        return ""
