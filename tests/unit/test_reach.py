"""Which receivers this host forbids: by the errors of the sockets, as a filter and a missing route give them."""

from __future__ import annotations

import errno
import socket

import pytest

from hyper2kvmd.daemon.notify import reach

V4, V6 = ("192.0.2.1", reach.DISCARD), ("2001:db8::1", reach.DISCARD, 0, 0)
KIND = socket.SOCK_DGRAM, socket.IPPROTO_UDP, ""
BOTH = [(socket.AF_INET6, *KIND, V6), (socket.AF_INET, *KIND, V4)]


@pytest.mark.parametrize(
    ("v4", "v6", "found"),
    [
        (errno.EPERM, errno.ENETUNREACH, "chat.example"),
        (errno.EPERM, errno.EPERM, "chat.example"),
        (errno.EPERM, 0, ""),
        (errno.ENETUNREACH, errno.ENETUNREACH, ""),
        (0, errno.EPERM, ""),
    ],
)
def test_a_name_is_forbidden_if_nothing_of_it_can_be_sent_to(
    v4: int, v6: int, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many hosts have no route for IPv6, which is no way around a filter."""

    class Answers(socket.socket):
        def connect(self, _place: object) -> None:
            if number := v6 if self.family == socket.AF_INET6 else v4:
                raise OSError(number, "")

        def send(self, *_data: object) -> int:
            return 0

    monkeypatch.setattr(socket, "getaddrinfo", lambda *_asked, **_kind: BOTH)
    monkeypatch.setattr(socket, "socket", Answers)
    assert reach.forbidden("chat.example") == found
