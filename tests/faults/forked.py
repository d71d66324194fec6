"""The real daemon in a fork of the test: it starts in a tenth of a second, and dies at an exact point.

The fork has every module loaded, so it calls `service.serve` as `hyper2kvmd` does. Its intervals are shortened, its
workers are `script_worker.sh`.
"""

from __future__ import annotations

import errno
import http.client
import json
import os
import signal
import sqlite3
import sys
import threading
import time
import traceback
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import Pool

from hyper2kvmd import config
from hyper2kvmd.daemon import incoming, scheduler, service
from hyper2kvmd.errors import Failure
from tests.support.house import House

WORKER = Path(__file__).with_name("script_worker.sh")
TICK_SECONDS = 0.02
PATIENCE_SECONDS = 120.0
CHANGES = frozenset({"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"})
"""Audit events of calls that change a directory."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Fault:
    """What happens at the Nth change of a directory or file, or beginning or end of a commit."""

    number: int
    error: int = 0
    """The call fails with this errno, once; 0: the daemon is killed."""

    def __str__(self) -> str:
        return f"{errno.errorcode[self.error] if self.error else 'death'} at change {self.number}"


@dataclass
class Forked(House):
    """A `House` whose daemon is a fork."""

    pid: int = 0
    starts: int = 0

    def begin(self, fault: Fault | None = None) -> None:
        """Start the daemon and wait until it answers or has ended."""
        assert not self.pid
        self.starts += 1
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            self._serve(fault)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.alive() and not self._responds():
            assert time.monotonic() < deadline, self.log
            time.sleep(0.005)

    def alive(self) -> bool:
        if self.pid and os.waitpid(self.pid, os.WNOHANG) != (0, 0):
            self.pid = 0
        return bool(self.pid)

    def end(self, number: int = signal.SIGKILL) -> None:
        if self.pid:
            os.kill(self.pid, number)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def order(self, method: str, path: str, body: object = None) -> int:
        """The status of the answer; 0 if the daemon died before it answered."""
        with suppress(OSError, http.client.HTTPException):
            return self.ask(method, path, body)[0]
        return 0

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Of the database, read without the daemon's code. Empty while there is none."""
        path = self.root / "state" / "jobs.sqlite3"
        if not path.exists():
            return []
        with closing(sqlite3.connect(path, timeout=60)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query)]

    def _responds(self) -> bool:
        with suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/v1/status")[0] == 200
        return False

    def _serve(self, fault: Fault | None) -> None:
        """The child. Never returns."""
        status = 70
        try:
            os.setsid()
            log = os.open(self.root / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            for module in (scheduler, service):
                vars(module)["TICK_SECONDS"] = TICK_SECONDS
            incoming.STABLE_SECONDS = 0.0
            if fault is not None:
                _arm(fault)
            path = self.root / "hyper2kvmd.yaml"
            service.serve(config.load(path), path, worker=("/bin/sh", str(WORKER)))
            status = 0
        except Failure as failure:
            print(failure, file=sys.stderr, flush=True)
            status = failure.exit_code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)


def _arm(fault: Fault) -> None:
    left = fault.number
    own = os.getpid()
    written = threading.local()

    def pass_one() -> None:
        nonlocal left
        if os.getpid() != own:  # between fork and exec of a child
            return
        left -= 1
        if left == 0:
            if not fault.error:
                os.kill(own, signal.SIGKILL)
            raise OSError(fault.error, os.strerror(fault.error))

    def audited(name: str, arguments: tuple[Any, ...]) -> None:
        if name in CHANGES or (name == "open" and (arguments[2] or 0) & WRITES and arguments[0] != os.devnull):
            pass_one()

    def commit(connection: Connection) -> None:
        written.there = connection.get_execution_options().get("writes", False)
        if written.there:
            pass_one()

    def check_in(*_: object) -> None:
        if getattr(written, "there", False):
            written.there = False
            pass_one()

    sys.addaudithook(audited)
    if not fault.error:  # SQLite's own errors are no exceptions of these places
        event.listen(Engine, "commit", commit)
        event.listen(Pool, "checkin", check_in)


def events_of(*lines: dict[str, Any] | str) -> str:
    """A script for the worker: events as JSON, and words."""
    return "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
