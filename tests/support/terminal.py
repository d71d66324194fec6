"""h2kvmctl in a pseudo terminal: what a person sees, and keys that they press."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType

from tests.support.ctl import PROJECT

HANGING_SECONDS = 90
CONTROL = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")
NOTHING: Mapping[str, str] = MappingProxyType({})


class Terminal:
    """A command in a terminal of that many columns."""

    def __init__(
        self, *arguments: str | Path, cwd: Path, columns: int = 80, environment: Mapping[str, str] = NOTHING
    ) -> None:
        self._own, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        known = {"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTHONPATH": str(PROJECT), "LC_ALL": "C.UTF-8"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hyper2kvmd.cli.ctl", *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=cwd,
            env={**known, "TERM": "xterm-256color", **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self.raw = ""
        """All that it wrote, with the codes that control a terminal."""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        os.close(self._own)

    @property
    def text(self) -> str:
        return CONTROL.sub("", self.raw).replace("\r", "")

    def shows(self, wanted: str) -> str:
        """Wait until it has written that; return all that it wrote."""
        for _ in self._reading():
            if wanted in self.text:
                return self.text
        raise AssertionError(f"{wanted!r} never appeared in {self.text!r}")

    def press(self, keys: str) -> None:
        """`\\x03` is Ctrl-C."""
        os.write(self._own, keys.encode())

    def ends(self) -> int:
        """Its exit status."""
        for _ in self._reading():
            pass
        return self._process.wait(HANGING_SECONDS)

    def _reading(self) -> Iterator[None]:
        """After each part of its output, and before the first one."""
        limit = time.monotonic() + HANGING_SECONDS
        yield
        while time.monotonic() < limit:
            if select.select([self._own], [], [], 0.1)[0]:
                try:
                    part = os.read(self._own, 65536)
                except OSError:  # it has ended
                    return
                self.raw += part.decode()
                yield
        raise AssertionError(f"it hangs after {self.text!r}")


def on_terminal(
    *arguments: str | Path, cwd: Path, columns: int = 80, environment: Mapping[str, str] = NOTHING
) -> tuple[int, str, str]:
    """Exit status, text, and the text with its control codes."""
    with Terminal(*arguments, cwd=cwd, columns=columns, environment=environment) as terminal:
        return terminal.ends(), terminal.text, terminal.raw
