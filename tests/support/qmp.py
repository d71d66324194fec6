"""QEMU's end of a QMP connection, played by a thread."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from hyper2kvmd.proof.monitor import Monitor

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}
Answers = Callable[[str, object], bytes | None]
"""From a command and its id."""


class Emulator:
    """What it is asked is answered by `answers`, with bytes, or None to hang up."""

    def __init__(self, connection: socket.socket, answers: Answers) -> None:
        self._connection, self._answers = connection, answers
        connection.sendall(line(GREETING))

    def serve(self) -> None:
        with self._connection, suppress(OSError):
            while asked := self._connection.recv(65536):  # one at a time: each waits for its answer
                command, number = (json.loads(asked).get(key) for key in ("execute", "id"))
                answer = line({"return": {}, "id": number}) if command == "qmp_capabilities" else None
                if answer is None and (answer := self._answers(command, number)) is None:
                    return
                self._connection.sendall(answer)


def line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


@contextmanager
def asking(answers: Answers) -> Iterator[Monitor]:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=Emulator(theirs, answers).serve)
    thread.start()
    try:
        with ours, Monitor(ours) as opened:
            yield opened
    finally:
        thread.join()
