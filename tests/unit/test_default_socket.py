"""The control socket that a client uses without --socket."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd import config, socket_connection


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "/run/hyper2kvm/control.sock"),
        ("threads: 2\n", "/run/hyper2kvm/control.sock"),
        ("#control_socket: /x.sock\n", "/run/hyper2kvm/control.sock"),
        ("threads: 2\ncontrol_socket: /x.sock\n", "/x.sock"),
        ("control-socket: /x.sock\n", "/x.sock"),
        ('{"threads": 2, "control_socket": "/x.sock"}', "/x.sock"),
        ('{"control\\x5fsocket": "/x.sock"}', "/x.sock"),
    ],
)
def test_it_is_that_of_the_configuration(
    text: str | None, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hyper2kvmd.yaml"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(socket_connection, "CONFIGURATION", path)
    monkeypatch.setattr(config, "DEFAULT_PATH", path)
    assert socket_connection.default_socket() == Path(expected)
