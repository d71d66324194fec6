"""What guards root where the helper is behind a socket: its unit, and the helper itself."""

from __future__ import annotations

from functools import partial

from tests.security.guards.cut import ALWAYS, GONE, Cut, TextCut
from tests.security.guards.guard import Guard, each

helper = partial(Cut, "hyper2kvmd/helper/helper.py")
listener = partial(TextCut, "systemd/hyper2kvm-helper.socket")
unit = partial(TextCut, "systemd/hyper2kvm-helper@.service")

SERVED = helper("identify", "argument served", ALWAYS)

GUARDS: tuple[Guard, ...] = (
    *each(
        "test_socket.py::test_the_service_user_is_served",
        helper("served", "item getpwnam", GONE),
    ),
    *each("test_socket.py::test_nobody_else_is_served", SERVED),
    *each("test_socket.py::test_a_stranger_does_not_even_connect", listener("SocketMode=0660", "SocketMode=0666")),
    *each("test_socket.py::test_a_word_of_sudos_that_is_not_the_callers", helper("identify", "value str", ALWAYS)),
    *each(
        "test_socket.py::test_no_environment_of_systemds_lets_others_in",
        SERVED,
        unit("Environment=SUDO_UID ", "Environment="),
    ),
    *each(
        "test_socket.py::test_who_connects_and_says_nothing_is_dropped",
        helper("receive", "call settimeout", GONE),
    ),
)
