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
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import Pool

from hyper2kvmd import config
from hyper2kvmd.daemon import incoming, scheduler, service, storage
from hyper2kvmd.errors import Failure
from tests.faults.accounts import Books, unsettled
from tests.faults.conditions import Conditions
from tests.support.house import House

WORKER = Path(__file__).with_name("script_worker.sh")
TICK_SECONDS = 0.02
LOOK_SECONDS = 0.2
"""Between two looks at the file systems."""
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
    disk: Path | None = None
    """Where the service's folders are, if not in `root`."""
    worker: Sequence[str] = ("/bin/sh", str(WORKER))
    conditions: Conditions | None = None
    """The daemon is no fork then, but a new process that they apply to, but not to its workers."""
    exit_status: int | None = None
    """Of the last daemon that ended by itself."""

    @property
    def folders(self) -> Path:
        return self.disk or self.root

    @property
    def spool(self) -> Path:
        return self.folders / "spool"

    @property
    def database(self) -> Path:
        return self.folders / "state" / "jobs.sqlite3"

    def configure(self, **keys: Any) -> Path:
        places = {"state_dir": "state", "conversion_dir": "conversions", "output_dir": "images"}
        quick = {"retry": {"max_attempts": 3, "delay": 0.01, "backoff": 1}}
        return super().configure(**quick | {key: str(self.folders / name) for key, name in places.items()} | keys)

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
        if self.pid:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid, self.exit_status = 0, os.waitstatus_to_exitcode(status)
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

    def script(self, name: str, *lines: dict[str, Any] | str) -> str:
        """The YAML of a migration whose worker plays these lines."""
        path = self.root / f"{name}.script"
        path.write_text(events_of(*lines))
        return json.dumps({"vmdk": str(path), "vm_name": name})

    def come_to_rest(self, ignored: Sequence[str] = ()) -> Books:
        """Wait until nothing is left to be done; the daemon is started again if it died."""
        deadline, released = time.monotonic() + PATIENCE_SECONDS, set[int]()
        while True:
            if not self.alive():
                self.begin()
            self.order("POST", "/v1/queue/resume")
            for job in self.rows("SELECT id FROM jobs WHERE state = 'held'"):
                verb = "cancel" if job["id"] in released else "release"  # one that is held again needs a person
                self.order("POST", f"/v1/jobs/{job['id']}/{verb}")
                released.add(job["id"])
            if self.database.exists():
                books = Books.of(self.spool, self.database)
                left = unsettled(books, ignored)
                if not left:
                    return books
            assert time.monotonic() < deadline, f"never at rest: {left}\n{self.log[-6000:]}"
            time.sleep(0.03)

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Of the database, read without the daemon's code. Empty while there is none."""
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(self.database, timeout=60)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query)]

    def _responds(self) -> bool:
        with suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/v1/status")[0] == 200
        return False

    def _serve(self, fault: Fault | None) -> None:
        """The child. Never returns."""
        try:
            os.setsid()
            log = os.open(self.root / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            path = self.root / "hyper2kvmd.yaml"
            if self.conditions is not None:
                argv = [sys.executable, "-m", __name__, str(path), *self.worker]
                os.execve(sys.executable, argv, {**os.environ, **self.conditions.environment})  # noqa: S606
            sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
            if fault is not None:
                _arm(fault)
            _serve(path, self.worker)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)


def _serve(path: Path, worker: Sequence[str]) -> None:
    """The daemon with short intervals. Ends the process."""
    status = 0
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    for module in (scheduler, service):
        vars(module)["TICK_SECONDS"] = TICK_SECONDS
    incoming.STABLE_SECONDS = 0.0
    storage.HEALTHY_SECONDS = storage.FAULTY_SECONDS = LOOK_SECONDS
    try:
        service.serve(config.load(path), path, worker=worker)
    except Failure as failure:
        print(failure, file=sys.stderr)
        status = failure.exit_code
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


PLANNING = {"event": "stage-started", "stage": "plan"}
GOOD = {"event": "ended", "outcome": "succeeded"}


def failing(kind: str) -> dict[str, object]:
    problem = {"code": "told-to", "message": "told to fail", "hint": "Tell it otherwise", "kind": kind}
    return {"event": "ended", "outcome": "failed", "problems": [problem]}


def events_of(*lines: dict[str, Any] | str) -> str:
    """A script for the worker: events as JSON, and words."""
    return "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2:])
