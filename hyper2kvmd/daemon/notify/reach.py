"""Finds out whether this host allows the service to send to a receiver: IPAddressDeny= of the unit can forbid it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

RESOLVER = Path("/etc/resolv.conf")
DISCARD = 9
"""The port of RFC 863, at which nothing is answered."""
HOPS = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TTL),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
}


def forbidden(host: str) -> str:
    """The destination that this host forbids: `host`, the DNS servers, or "" if it forbids neither.

    A filter of a control group makes a TCP connection time out, as a receiver that is switched off does. A datagram
    fails at once. No router passes it on.
    """
    try:
        addresses = socket.getaddrinfo(host, DISCARD, type=socket.SOCK_DGRAM)
    except OSError:
        servers = list(_name_servers())
        return _named(servers) if _are_forbidden(servers) else ""
    return host if _are_forbidden(addresses) else ""


def _name_servers() -> Iterator[tuple[Any, ...]]:
    with suppress(OSError):
        for line in RESOLVER.read_text(errors="replace").splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                with suppress(OSError):
                    numeric = socket.AI_NUMERICHOST
                    yield from socket.getaddrinfo(words[1], DISCARD, type=socket.SOCK_DGRAM, flags=numeric)


def _are_forbidden(addresses: list[tuple[Any, ...]]) -> bool:
    """Whether at least one is forbidden and no other one accepts a datagram: many hosts have no route for IPv6."""
    errors = [_error_of(address) for address in addresses]
    return None not in errors and any(isinstance(error, PermissionError) for error in errors)


def _error_of(address: tuple[Any, ...]) -> OSError | None:
    family, kind, protocol, _, place = address
    try:
        with socket.socket(family, kind, protocol) as sender:
            sender.setsockopt(*HOPS[family], 1)
            sender.connect(place)
            sender.send(b"")
    except OSError as error:
        return error
    return None


def _named(servers: list[tuple[Any, ...]]) -> str:
    return f"the DNS server {', '.join(place[0] for *_, place in servers)}"
