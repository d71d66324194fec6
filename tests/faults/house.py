"""The service in a box: its folders, the real daemon as its real user, dropped files, and the record of its jobs."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

USER, ALICE, BOB, SUBMITTERS = "hyper2kvm", "alice", "bob", "hyper2kvm-submit"
PROGRAMS = Path(sys.executable).parent
PATIENCE_SECONDS = 240.0
"""No wait measures anything: this only tells a hang from a busy machine."""
FOLDERS = ("spool", "state", "conversions", "images", "run", "sources")


@dataclass(frozen=True)
class Dropped:
    """A file that was moved into incoming/. Its text is unlike that of every other one."""

    name: str
    data: bytes
    vm_names: tuple[str, ...] = ()
    """The machines that it describes; () if it must be rejected."""


def until(question: Callable[[], object], what: Callable[[], str] | str, patience: float = PATIENCE_SECONDS) -> None:
    """Wait until the answer is true."""
    limit = time.monotonic() + patience
    while not question():
        if time.monotonic() > limit:
            raise AssertionError(f"this never happened: {what() if callable(what) else what}")
        time.sleep(0.05)


def give(path: Path, user: str = USER, mode: int = 0o755) -> Path:
    entry = pwd.getpwnam(user)
    os.chown(path, entry.pw_uid, entry.pw_gid)
    path.chmod(mode)
    return path


class House:
    """Folders and a configuration; the test starts the daemon, as often as it wants."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        root.chmod(0o755)
        self.spool, self.state, self.conversions, self.images, self.run, self.sources = (root / one for one in FOLDERS)
        for folder in FOLDERS:
            (root / folder).mkdir()
            give(root / folder)
        self.sources.chmod(0o755)
        self.conversions.chmod(0o700)
        self.incoming = self.spool / "incoming"
        self.incoming.mkdir()
        subprocess.run(["chown", f"{USER}:{SUBMITTERS}", self.incoming], check=True)
        self.incoming.chmod(0o3770)
        self.socket = self.run / "control.sock"
        self.port = 9180
        self.log = root / "log"
        self.settings: dict[str, Any] = {
            "spool_dir": str(self.spool),
            "state_dir": str(self.state),
            "conversion_dir": str(self.conversions),
            "output_dir": str(self.images),
            "control_socket": str(self.socket),
            "metrics_listen": f"127.0.0.1:{self.port}",
            "space_reserve": "0",
            "max_concurrent_jobs": 2,
            "retry": {"max_attempts": 50, "delay": 0.2, "backoff": 1},
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.drops: list[Dropped] = []
        self.starts = 0

    # ---------------------------------------------------------------- the daemon

    def start(self, *, ready: bool = True, prefix: Sequence[str] = (), **settings: Any) -> House:
        """A daemon with the settings so far; `prefix` is a command that runs its command."""
        self.settings.update(settings)
        config = self.root / "hyper2kvmd.yaml"
        config.write_text(json.dumps(self.settings))
        self.starts += 1
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*prefix, *as_user(USER), str(PROGRAMS / "hyper2kvmd"), "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
            )
        if ready:
            until(self._answers, lambda: f"the daemon answers\n{self.tail()}")
        return self

    def _answers(self) -> bool:
        if not self.alive:
            raise DaemonEnded(f"the daemon ended with {self.exit_code}\n{self.tail()}")
        with suppress(OSError, http.client.HTTPException):
            return self.ask("GET", "/v1/status")[0] == 200
        return False

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    @property
    def pid(self) -> int:
        """Of the daemon: `setpriv` replaces itself, a prefix may not."""
        assert self.process is not None
        found = [pid for pid, role in roles().items() if role == "daemon"]
        return self.process.pid if self.process.pid in found or not found else found[0]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the daemon a signal, and wait for its end."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon did not end after signal {number}\n{self.tail()}") from None

    def restart(self, number: int = signal.SIGTERM) -> House:
        self.stop(number)
        return self.start()

    def close(self) -> None:
        if self.alive and self.process is not None:
            self.process.kill()
            self.process.wait()

    def tail(self, length: int = 4000) -> str:
        return self.log.read_text(errors="replace")[-length:] if self.log.exists() else ""

    # ---------------------------------------------------------------- files and questions

    def drop(self, name: str, text: str | bytes, *, vm_names: Sequence[str] = (), owner: str = "root") -> Dropped:
        """Move a file into incoming/, as `owner` would; remembered, for the account of all files."""
        data = text if isinstance(text, bytes) else text.encode()
        draft = self.run / f"draft-{len(self.drops)}"
        draft.write_bytes(data)
        give(draft, owner, 0o644)
        draft.rename(self.incoming / name)
        dropped = Dropped(name, data, tuple(vm_names))
        self.drops.append(dropped)
        return dropped

    def drop_job(self, vm_name: str, *, owner: str = "root", **keys: Any) -> Dropped:
        """A migration YAML of one machine, as VM_NAME.yaml; `vmdk=` names its disk."""
        values = {"vm_name": vm_name, **keys}
        text = "".join(f"{key}: {json.dumps(value, default=str)}\n" for key, value in values.items())
        name = f"{vm_name}-{len(self.drops)}.yaml"
        return self.drop(name, f"# file {len(self.drops)}\n{text}", vm_names=(vm_name,), owner=owner)

    def ask(self, method: str, path: str, body: object = None, timeout: float = 60) -> tuple[int, bytes]:
        connection = _UnixConnection(self.socket, timeout)
        with closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.read()

    def get(self, path: str) -> Any:
        status, body = self.ask("GET", path)
        assert status == 200, f"{path}: {status} {body[:500]!r}"
        return json.loads(body)

    def browse(self, path: str, timeout: float = 60) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    # ---------------------------------------------------------------- the record, read by own SQL

    @property
    def database(self) -> Path:
        return self.state / "jobs.sqlite3"

    def rows(self, query: str = "SELECT * FROM jobs ORDER BY id", *values: object) -> list[dict[str, Any]]:
        try:
            return _select(self.database, query, values)
        except sqlite3.OperationalError:  # a dead daemon's journal is to be played back: in a copy
            with tempfile.TemporaryDirectory() as folder:
                for file in self.state.glob(f"{self.database.name}*"):
                    shutil.copyfile(file, Path(folder, file.name))
                return _select(Path(folder, self.database.name), query, values, mode="rw")

    def states(self) -> dict[str, list[str]]:
        """The states of all jobs, by VM name."""
        found: dict[str, list[str]] = {}
        for row in self.rows("SELECT vm_name, state FROM jobs ORDER BY id"):
            found.setdefault(row["vm_name"], []).append(row["state"])
        return found

    def waiting_files(self) -> list[str]:
        """Files that have not reached done/, failed/ or rejected/."""
        paths = [*self.spool.glob("incoming/*"), *self.spool.glob("active/*")]
        return [str(path.relative_to(self.spool)) for path in paths]

    def quiet(self) -> bool:
        """Whether all dropped files are at their end, so that nothing is queued, held or running."""
        if self.waiting_files():
            return False
        return not self.rows("SELECT id FROM jobs WHERE state IN ('queued', 'held', 'running') LIMIT 1")

    def until_quiet(self) -> None:
        """Raises DaemonEnded if the daemon ends meanwhile."""

        def over() -> bool:
            if not self.alive:
                raise DaemonEnded(f"the daemon ended with {self.exit_code}\n{self.tail()}")
            return self.quiet()

        until(over, lambda: f"all jobs are over: {self.waiting_files()} {self.states()}\n{self.tail()}")


def _select(database: Path, query: str, values: Sequence[object], mode: str = "ro") -> list[dict[str, Any]]:
    connection = sqlite3.connect(f"file:{database}?mode={mode}", uri=True, timeout=60)
    connection.row_factory = sqlite3.Row
    with closing(connection):
        return [dict(row) for row in connection.execute(query, values)]


class DaemonEnded(AssertionError):
    """The daemon ended while it was needed."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def as_user(user: str) -> list[str]:
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env", "--"]


# -------------------------------------------------------------------- processes

TOOLS = ("qemu-img", "qemu-storage-daemon", "nbdfuse", "qemu-system-x86_64", "virsh", "fusermount3", "sudo")
WORDS = {"hyper2kvmd.worker": "worker", "/bin/hyper2kvmd": "daemon", "/usr/libexec/hyper2kvm/helper": "helper"}


def role(command: Sequence[str]) -> str:
    """What a process of the service is, by its command line: `daemon`, `worker`, `helper`, or a tool's name; or ''."""
    if not command:
        return ""
    program = Path(command[0]).name
    if program in TOOLS:
        return program
    text = " ".join(command)
    if not program.startswith("python") or "confine.py" in text:
        return ""
    return next((name for word, name in WORDS.items() if word in text), "")


def commands() -> Mapping[int, list[str]]:
    """The command lines of all processes of the box that have not ended."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")[:-1]
                if words:
                    found[int(entry.name)] = [word.decode(errors="replace") for word in words]
    return found


def roles() -> dict[int, str]:
    """The processes of the service, by pid."""
    return {pid: name for pid, command in commands().items() if (name := role(command))}
