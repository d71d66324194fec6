"""A running QEMU: its process, its monitor, its own messages and the console of its machine."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hyper2kvmd.proof.machine import GOES_ON

ANSWER_SECONDS = 120.0
"""For an answer of the monitor, which does not wait for the machine."""
LAST_LINES = 40
PERIOD = 1.0
"""Seconds between two looks."""


class Stopped(AssertionError):
    """QEMU has ended, or has stopped the machine for good."""


class Emulator:
    def __init__(self, process: subprocess.Popen[bytes], monitor: Path, folder: Path) -> None:
        self.process, self._monitor = process, monitor
        self.console, self._messages = folder / "console", folder / "messages"

    def has_ended(self) -> bool:
        """Raises Stopped when it never will, since its machine is stopped."""
        self._require_no_stop()
        return self.process.poll() is not None

    def wait(self, seconds: float) -> None:
        """Until it has ended by itself, without an error. Raises Stopped, and AssertionError when it takes longer."""
        deadline = time.monotonic() + seconds
        while not self.has_ended():
            assert time.monotonic() < deadline, f"QEMU does not end within {seconds:.0f} s; {self.last_lines()}"
            time.sleep(PERIOD)
        if self.process.returncode != 0:
            raise self._ended()

    def require_running(self) -> None:
        """Raises Stopped, with QEMU's words, unless the machine runs."""
        self._require_no_stop()
        if self.process.poll() is not None:
            raise self._ended()

    def _require_no_stop(self) -> None:
        try:
            state = self.order("query-status")["status"]
        except (OSError, EOFError):
            return  # it ends, or its monitor is not there yet
        if state not in GOES_ON:
            raise self._stopped(f"QEMU has stopped the machine ({state})")

    def _ended(self) -> Stopped:
        return self._stopped(f"QEMU has ended ({self.process.returncode})")

    def _stopped(self, fact: str) -> Stopped:
        return Stopped(f"{fact}:\n{_end_of(self._messages)}\n{self.last_lines()}")

    def last_lines(self) -> str:
        """The end of the console: a kernel that panicked or hangs says so there."""
        return f"the console ended with:\n{_end_of(self.console)}"

    def order(self, command: str) -> dict[str, object]:
        """What the monitor returns. Raises OSError or EOFError when there is none."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(ANSWER_SECONDS)
            monitor.connect(str(self._monitor))
            answers = monitor.makefile()
            returned: dict[str, object] = {}
            for each in ("qmp_capabilities", command):
                monitor.sendall(json.dumps({"execute": each}).encode() + b"\n")
                answer: dict[str, dict[str, object]] = {}
                while "return" not in answer:
                    assert "error" not in answer, answer
                    read = answers.readline()
                    if not read:
                        raise EOFError
                    answer = json.loads(read)
                returned = answer["return"]
        return returned


def _end_of(file: Path) -> str:
    return "\n".join(file.read_text(errors="replace").splitlines()[-LAST_LINES:]) if file.exists() else ""


@contextmanager
def emulating(argv: Sequence[str | Path], monitor: Path, folder: Path) -> Iterator[Emulator]:
    """QEMU with that command line, which gets a console and messages in `folder` and a monitor. It is killed at the end
    of the block.
    """
    ends = ("-monitor", "none", "-serial", f"file:{folder / 'console'}", "-qmp", f"unix:{monitor},server=on,wait=off")
    with (folder / "messages").open("wb") as messages, subprocess.Popen([*argv, *ends], stderr=messages) as process:
        try:
            yield Emulator(process, monitor, folder)
        finally:
            process.kill()
