"""The QMP monitor of the boot proof against emulators that behave, that die, and that a guest has taken over."""

from __future__ import annotations

import json

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.proof import monitor
from tests.support.qmp import asking, line

SHUTDOWN = {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-shutdown"}, "timestamp": {}}


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
