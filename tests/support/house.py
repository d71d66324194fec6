"""A daemon in folders of its own, as a real process, and the ways to look at it from outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from hyper2kvmd.daemon.names import yaml_name
from hyper2kvmd.daemon.wire import Rejection, Status
from hyper2kvmd.model.jobs import Job, JobEvent, State
from hyper2kvmd.model.outcome import Outcome

HERE = Path(__file__).parent
T = TypeVar("T")
jobs_adapter: TypeAdapter[tuple[Job, ...]] = TypeAdapter(tuple[Job, ...])
events_adapter: TypeAdapter[tuple[JobEvent, ...]] = TypeAdapter(tuple[JobEvent, ...])


def until(question: Callable[[], T | None], what: str) -> T:
    """The first answer that is something; the limit only tells a hang from slowness."""
    limit = time.monotonic() + 90
    while time.monotonic() < limit:
        answer = question()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"never happened: {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


@dataclass
class House:
    root: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    # ---- before the start

    def configure(self, **keys: Any) -> Path:
        values = {
            "spool_dir": str(self.spool),
            "state_dir": str(self.root / "state"),
            "conversion_dir": str(self.conversions),
            "output_dir": str(self.root / "images"),
            "control_socket": str(self.socket),
            "metrics_listen": f"127.0.0.1:{self.port}",
            "space_reserve": "0",
            "retry": {"max_attempts": 2, "delay": 0, "backoff": 1},
            "helper": ["/bin/true"],
        } | keys
        path = self.root / "hyper2kvmd.yaml"
        path.write_text(json.dumps(values))
        return path

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def conversions(self) -> Path:
        return self.root / "conversions"

    @property
    def socket(self) -> Path:
        return self.root / "control.sock"

    @property
    def log(self) -> str:
        return (self.root / "log").read_text()

    def migration(self, name: str, *words: str, **keys: Any) -> str:
        """The YAML of a migration whose worker does `words`."""
        script = self.root / f"{name}.vmdk"
        script.write_text("\n".join(words))
        return json.dumps({"vmdk": str(script), "vm_name": name} | keys)

    def drop(self, name: str, text: str) -> Path:
        """Into incoming/ by `mv`."""
        (self.spool / "incoming").mkdir(parents=True, exist_ok=True)
        draft = self.spool / f"{name}.draft"
        draft.write_text(text)
        return draft.rename(self.spool / "incoming" / name)

    # ---- the process

    def start(
        self, environment: Mapping[str, str] | None = None, *, ready: bool = True, **options: Any
    ) -> subprocess.Popen[bytes]:
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, HERE / "small_daemon.py", self.root / "hyper2kvmd.yaml", HERE / "small_worker.py"],
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
                **options,
            )
        if ready:
            until(self.answers, f"the daemon answers: {self.log}")
        return self.process

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        with contextlib.suppress(OSError):
            return self.ask("GET", "/v1/status")[0] == 200
        return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(90)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    # ---- from outside

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        connection = _UnixConnection(self.socket)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def browse(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def jobs(self) -> tuple[Job, ...]:
        return tuple(reversed(jobs_adapter.validate_json(self.ask("GET", "/v1/jobs")[1])))

    def job(self, number: int) -> Job:
        code, body = self.ask("GET", f"/v1/jobs/{number}")
        assert code == 200, body
        return Job.model_validate_json(body)

    def status(self) -> Status:
        return Status.model_validate_json(self.ask("GET", "/v1/status")[1])

    def events(self, number: int) -> tuple[JobEvent, ...]:
        return events_adapter.validate_json(self.ask("GET", f"/v1/jobs/{number}/events")[1])

    def kinds(self, number: int) -> list[str]:
        return [event.kind for event in self.events(number)]

    def reaches(self, number: int, state: State) -> Job:
        def there() -> Job | None:
            found = [job for job in self.jobs() if job.id == number and job.state is state]
            return found[0] if found else None

        return until(there, f"job {number} is {state.value}: {self.jobs()} {self.log}")

    def files(self, folder: str) -> list[str]:
        """Without the outcomes of YAMLs, and without outcomes that are being written."""
        return [name for name in self.names(folder) if yaml_name(name) == name and not name.startswith(".")]

    def working_folders(self) -> list[str]:
        """The working folders: not the daemon's lock, which is hidden."""
        return sorted(path.name for path in self.conversions.glob("[!.]*"))

    def names(self, folder: str) -> list[str]:
        return sorted(entry.name for entry in (self.spool / folder).iterdir())

    def result(self, name: str) -> Outcome:
        return Outcome.model_validate_json(self.lies("done", f"{name}.result.json").read_text())

    def reason(self, name: str) -> Outcome:
        return Outcome.model_validate_json(self.lies("failed", f"{name}.reason.json").read_text())

    def lies(self, folder: str, name: str) -> Path:
        until(lambda: name in self.names(folder), f"{name} lies in {folder}: {self.log}")
        return self.spool / folder / name

    def rejection(self, name: str) -> Rejection:
        path = self.lies("rejected", name)
        return Rejection.model_validate_json(path.with_name(f"{name}.reason.json").read_text())


@contextlib.contextmanager
def notify_socket(path: Path) -> Iterator[Callable[[], list[str]]]:
    """systemd's end of the notification socket; each call gives the messages since the last."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))

        def heard() -> list[str]:
            messages = []
            while select.select([listener], [], [], 0)[0]:
                messages.append(listener.recv(65536).decode())
            return messages

        yield heard
