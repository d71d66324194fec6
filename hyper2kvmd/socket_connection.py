"""HTTP over the control socket, and where that is. Loads fast: a shell waits for it at TAB."""

from __future__ import annotations

import http.client
import re
import socket
from pathlib import Path

from hyper2kvmd.installed import CONFIGURATION, CONTROL_SOCKET

NAMES_SOCKET = re.compile(r"^[^#\n]*control[-_]socket", re.MULTILINE)


def default_socket() -> Path:
    """The configured path if this user may read it, else the default. Raises BrokenInstallation (`config-invalid`)."""
    try:
        text = CONFIGURATION.read_text(errors="replace")
    except OSError:
        return CONTROL_SOCKET
    if "\\" not in text and not NAMES_SOCKET.search(text):  # an escape could spell the key
        return CONTROL_SOCKET
    from hyper2kvmd import config  # half of the time that a command takes to start

    return config.load(CONFIGURATION).control_socket


class SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("hyper2kvmd", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
