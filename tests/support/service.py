"""The whole service as an administrator has it: the daemon as its own user, the helper behind real sudo."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from hyper2kvmd.client import Client
from hyper2kvmd.errors import TryLater
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import Job, JobEvent, State
from hyper2kvmd.model.orders import HelperCall
from tests.support.disks import sh
from tests.support.host import USER, as_service

PATIENCE = 240.0
"""Seconds until a wait is called a failure; none of the waits below measures anything."""
PROGRAMS = Path(sys.executable).parent


def until(what: str, check: Callable[[], object]) -> None:
    """Wait for a condition that must come true."""
    deadline = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < deadline, f"this never happened: {what}"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Service:
    """A daemon on folders of its own. Files are handed to it as root would, by name in `incoming/`."""

    def __init__(self, root: Path, helper: HelperCall, prefix: tuple[str, ...] = ()) -> None:
        """`prefix` is a command that runs the daemon's."""
        self.root, self.prefix = root, prefix
        self.spool, self.state = root / "spool", root / "state"
        self.conversions, self.images = root / "conversions", root / "images"
        self.sources = root / "sources"
        self.socket = root / "control.sock"
        self.metrics = f"127.0.0.1:{free_port()}"
        self.config = root / "hyper2kvmd.yaml"
        self.log = root / "log"
        self.settings: dict[str, object] = {
            "spool_dir": self.spool,
            "state_dir": self.state,
            "conversion_dir": self.conversions,
            "output_dir": self.images,
            "control_socket": self.socket,
            "metrics_listen": self.metrics,
            "space_reserve": 0,
            "helper": helper if isinstance(helper, Path) else f"[{', '.join(helper)}]",
        }
        self.process: subprocess.Popen[bytes] | None = None
        for folder in (self.sources, self.spool, self.spool / "incoming"):
            folder.mkdir(exist_ok=True)
            shutil.chown(folder, USER, USER)

    def start(self) -> Self:
        self.config.write_text("".join(f"{key}: {value}\n" for key, value in self.settings.items()))
        with self.log.open("ab") as log:
            argv = [*self.prefix, *as_service(PROGRAMS / "hyper2kvmd", "--config", self.config)]
            self.process = subprocess.Popen(argv, stderr=log, stdout=log, cwd="/")
        until("the control socket answers", self._answers)
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        with suppress(TryLater):
            return bool(Client(self.socket).status())
        return False

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(60)

    def ctl(self, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = as_service(PROGRAMS / "h2kvmctl", *arguments, "--socket", self.socket)
        done = subprocess.run(argv, capture_output=True, text=True, cwd="/", timeout=60, check=False)
        assert done.returncode == 0 or not check, done.stderr
        return done

    def source(self, vmdk: Path) -> Path:
        """A copy of an exported disk, extents and all, in a folder that nothing here may change."""
        folder = self.sources / f"{vmdk.parent.name[-20:]}{len(list(self.sources.iterdir()))}"
        folder.mkdir()
        for file in vmdk.parent.iterdir():
            sh("cp", "--sparse=always", file, folder)
        return folder / vmdk.name

    def drop(self, name: str, **keys: object) -> None:
        """Write a YAML elsewhere and move it in, as root."""
        text = "".join(f"{key}: {json.dumps(value, default=str)}\n" for key, value in keys.items())
        draft = self.root / name
        draft.write_text(text)
        draft.rename(self.spool / "incoming" / name)

    def names(self, folder: str) -> set[str]:
        return {path.name for path in (self.spool / folder).iterdir()}

    def yamls(self, folder: str) -> set[str]:
        """Without the files that say what became of them."""
        return {name for name in self.names(folder) if name.endswith(".yaml")}

    def jobs(self) -> list[Job]:
        """All jobs, newest first: what `h2kvmctl list` asks, without a program of its own for each look."""
        return list(Client(self.socket).jobs())

    def job(self, vm_name: str) -> Job | None:
        return next((job for job in self.jobs() if job.vm_name == vm_name), None)

    def events(self, job: Job) -> list[JobEvent]:
        store = Store(f"sqlite:///{self.state}/jobs.sqlite3")
        try:
            return list(store.events(job.id))
        finally:
            store.close()

    def finished(self, vm_name: str) -> Job:
        """The job, once it is over or held because of a failure."""

        def over() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            job = self.job(vm_name)
            return job is not None and job.unattended

        until(f"{vm_name} is over", over)
        job = self.job(vm_name)
        assert job is not None
        return job

    def succeeded(self, vm_name: str) -> Job:
        job = self.finished(vm_name)
        assert job.state == State.SUCCEEDED, f"{job.problems}\n{self.log.read_text()[-3000:]}"
        return job

    def failed(self, vm_name: str, code: str, state: State = State.FAILED) -> Job:
        job = self.finished(vm_name)
        assert job.state == state
        assert [one.code for one in job.problems] == [code], job.problems
        return job

    def report(self, vm_name: str) -> Any:
        return json.loads((self.images / f"{vm_name}.report.json").read_text())

    def working_folders(self) -> set[str]:
        return {path.name for path in self.conversions.glob("[!.]*")}


@contextmanager
def running(root: Path, helper: HelperCall, *, prefix: tuple[str, ...] = (), **settings: object) -> Iterator[Service]:
    service = Service(root, helper, prefix)
    service.settings.update(settings)
    service.start()
    try:
        yield service
    finally:
        if service.process is not None and service.process.poll() is None:
            service.end()


def fingerprint(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """What must not change in a source."""
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_size, path.read_bytes()) for path in folder.iterdir()}
