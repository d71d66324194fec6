"""The QMP monitor of the boot proof against emulators that behave, that die, and that a guest has taken over."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.proof import monitor
from hyper2kvmd.proof.monitor import Monitor

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}
SHUTDOWN = {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}, "timestamp": {}}


class Emulator:
    """QEMU's end: what it is asked is answered by `answers`, with bytes, or None to hang up."""

    def __init__(self, connection: socket.socket, answers: Callable[[str, object], bytes | None]) -> None:
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
def asking(answers: Callable[[str, object], bytes | None]) -> Iterator[Monitor]:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=Emulator(theirs, answers).serve)
    thread.start()
    try:
        with ours, Monitor(ours) as opened:
            yield opened
    finally:
        thread.join()


def test_an_answer_comes_past_events_and_the_ending_is_noted() -> None:
    def answers(command: str, number: object) -> bytes | None:
        event = {"event": "NIC_RX_FILTER_CHANGED", "timestamp": {}}
        return line(event) * 1000 + line({"return": [command], "id": number}) + line(SHUTDOWN)

    with asking(answers) as opened:
        assert opened.ask("query-blockstats") == ["query-blockstats"]
        assert opened.ask("query-status") == ["query-status"]
        assert opened.ending == "guest-shutdown"


def test_a_machine_that_has_ended_answers_nothing() -> None:
    with asking(lambda _command, _number: None) as opened:
        assert opened.ask("query-blockstats") is None
        assert opened.ask("query-blockstats") is None
        opened.follow()
        assert opened.ending is None


@pytest.mark.parametrize(
    "answer",
    [
        b"no JSON\n",
        b"[]\n",
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
        line({"error": {"class": "GenericError", "desc": "no"}}),
        b'{"error": 1, "id": ID}\n',
        b'{"id": ID}\n',
        line({"event": "SHUTDOWN", "data": 7}) + b"{\n",
        b"x" * (20 << 20),
    ],
)
def test_what_is_no_qmp(answer: bytes) -> None:
    with asking(lambda _command, number: answer.replace(b"ID", json.dumps(number).encode())) as opened:
        with pytest.raises(MigrationFailed) as caught:
            opened.ask("query-blockstats")
        assert caught.value.code == "emulator-failed"


def test_silence_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "ANSWER_SECONDS", 0.1)
    with asking(lambda _command, _number: b"") as opened, pytest.raises(MigrationFailed) as caught:
        opened.ask("query-blockstats")
    assert caught.value.code == "emulator-stalled"
