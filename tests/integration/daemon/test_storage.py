"""A file system of the daemon's that is full, out of inodes or read-only is named, and work goes on when it is well."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from hyper2kvmd.daemon.service import status_line
from hyper2kvmd.model.jobs import Job, State, WaitingFor
from tests.support.ctl import ctl
from tests.support.disks import loop
from tests.support.house import House, until
from tests.support.small_daemon import HANG_SECONDS

ROLES = ("spool", "state", "conversion", "output")
INODES = 64
Fault = Callable[[Path], contextlib.AbstractContextManager[None]]


def place_of(house: House, role: str) -> Path:
    places = {"spool": house.spool, "conversion": house.conversions, "output": house.root / "images"}
    return places.get(role, house.root / "state")


@contextlib.contextmanager
def small(house: House, role: str) -> Iterator[Path]:
    """The directory on an ext4 of 16 MiB with few inodes."""
    place, disk = place_of(house, role), house.root / f"{role}.raw"
    place.mkdir(mode=0o750)
    with disk.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-N", str(INODES), "-m", "0", disk], check=True)
    with loop(disk) as device:
        subprocess.run(["mount", device, place], check=True)
        try:
            place.chmod(0o750)
            (place / "lost+found").rmdir()
            yield place
        finally:
            house.close()
            subprocess.run(["umount", "-l", place], check=True)


@contextlib.contextmanager
def full(place: Path) -> Iterator[None]:
    with (place / ".ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    ballast.write(bytes(size))
    yield
    (place / ".ballast").unlink()


@contextlib.contextmanager
def without_inodes(place: Path) -> Iterator[None]:
    (place / ".many").mkdir()
    with contextlib.suppress(OSError):
        for number in itertools.count():
            (place / ".many" / str(number)).touch()
    yield
    subprocess.run(["rm", "-r", place / ".many"], check=True)


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", place], check=True)


FAULTS: dict[str, Fault] = {
    "No space left on device": full,
    "No inodes left on device": without_inodes,
    "Read-only file system": read_only,
}


def submit(house: House, name: str, **keys: object) -> int:
    body = {"text": house.migration(name, "plan", "publish", **keys), "name": name}
    code, answer = house.ask("POST", "/v1/jobs", body)
    assert code in (200, 201), answer
    return int(json.loads(answer)["id"])


def is_named(house: House, role: str, reason: str) -> bool:
    code, text = house.browse("/healthz")
    return code == 503 and f"{role}_dir {place_of(house, role)} cannot be written to: {reason}. " in text


def shows(house: House, role: str, place: Path, reason: str) -> None:
    """Status, metrics and the command name the fault."""
    (named,) = house.status().faults
    assert (named.role, named.path, named.reason) == (role, place, reason)
    assert f"{role}_dir cannot be written to: {reason}" in status_line(house.status(), "")
    assert f'hyper2kvm_directory_writable{{directory="{role}"}} 0.0' in house.browse("/metrics")[1]
    shown = ctl("status", "--socket", house.socket, cwd=house.root)
    assert f"{role}_dir {place} cannot be written to: {reason}" in shown.stdout, shown


def waits(house: House, number: int) -> Job | None:
    job = house.job(number)
    return job if job.waiting_for is WaitingFor.STORAGE else None


@pytest.mark.parametrize("role", ROLES)
def test_a_fault_is_named_and_waited_out(house: House, role: str) -> None:
    house.configure(space_reserve="0")
    with small(house, role) as place:
        house.start()
        for reason, fault in FAULTS.items():
            if role == "state" and fault is read_only:  # its database is open for writing: see the start, below
                continue
            with fault(place):
                until(partial(is_named, house, role, reason), f"{role} {reason}: {house.log}")
                shows(house, role, place, reason)
                waiting = submit(house, "waits") if role in ("conversion", "output") else 0
                if waiting:
                    until(partial(waits, house, waiting), "the job waits")
                if role in ("spool", "output"):
                    house.reaches(submit(house, "runs", output_dir=str(house.root / "else")), State.SUCCEEDED)
            until(lambda: house.browse("/healthz")[0] == 200, "it is well")
            house.reaches(waiting or submit(house, "after"), State.SUCCEEDED)
        assert all(job.state is State.SUCCEEDED for job in house.jobs())
        assert house.process is not None and house.process.poll() is None
        assert "Traceback" not in house.log


@pytest.mark.parametrize("role", ["spool", "state"])
def test_a_running_job_outlasts_a_full_file_system_of_the_daemon(house: House, role: str) -> None:
    """Nobody has to do anything for it, and its stages are not repeated."""
    with small(house, role) as place:
        house.start()
        house.drop("a.yaml", house.migration("a", "plan", f"wait {house.root}/go", "publish"))
        until(lambda: house.jobs() and "stage-finished" in house.kinds(1), "it runs")
        with full(place):
            until(partial(is_named, house, role, "No space left on device"), f"it is named: {house.log}")
            (house.root / "go").touch()
            until(lambda: (house.root / "images" / "a.qcow2").exists(), "the worker has published")
        assert house.reaches(1, State.SUCCEEDED).attempt == 1
        house.result("a.yaml")
        assert house.kinds(1).count("succeeded") == 1 and "Traceback" not in house.log


@pytest.mark.parametrize("role", ROLES)
def test_a_fault_at_the_start_is_waited_out(house: House, role: str) -> None:
    with small(house, role) as place:
        house.start()
        waiting = submit(house, "web01", not_before="2999-01-01T00:00:00Z")
        house.stop()
        with read_only(place):
            process = house.start(ready=False)

            def named() -> bool:
                assert process.poll() is None, house.log
                with contextlib.suppress(OSError):
                    return is_named(house, role, "Read-only file system")
                return False

            until(named, f"it says why it waits: {house.log}")
            if role == "state":
                shown = ctl("status", "--socket", house.socket, cwd=house.root)
                assert shown.returncode == 75 and f"state_dir {place} cannot be written to" in shown.stderr
            house.configure(max_concurrent_jobs=7)
            process.send_signal(signal.SIGHUP)
        until(house.answers, "it answers")
        until(lambda: house.browse("/healthz")[0] == 200, "it is well")
        assert house.job(waiting).state is State.QUEUED
        until(lambda: house.status().max_concurrent_jobs == 7, f"it was reloaded: {house.log}")
        house.reaches(submit(house, "web02"), State.SUCCEEDED)
        assert "Traceback" not in house.log


def test_a_full_state_directory_at_the_start_is_waited_out(house: House) -> None:
    """The database can be read, and there is something to write before the doors open: a job that ran."""
    with small(house, "state") as place:
        house.start()
        house.drop("a.yaml", house.migration("a", "plan", f"wait {house.root}/go", "publish"))
        until(lambda: house.jobs() and "stage-finished" in house.kinds(1), "it runs")
        with full(place):
            house.stop(signal.SIGKILL)
            process = house.start(ready=False)

            def named() -> bool:
                assert process.poll() is None, house.log
                with contextlib.suppress(OSError):
                    return is_named(house, "state", "No space left on device")
                return False

            until(named, f"it says why it waits: {house.log}")
        (house.root / "go").touch()
        until(house.answers, "it answers")
        house.reaches(1, State.SUCCEEDED)


def test_a_little_space_is_not_enough(house: House) -> None:
    """SQLite needs more than a page for a transaction."""
    with small(house, "state") as place:
        house.start()
        with full(place):
            with (place / ".ballast").open("r+b") as ballast:
                ballast.truncate((place / ".ballast").stat().st_size - 8192)
            until(partial(is_named, house, "state", "No space left on device"), f"it is named: {house.log}")
        until(lambda: house.browse("/healthz")[0] == 200, "it is well")


@contextlib.contextmanager
def frozen(place: Path) -> Iterator[None]:
    """Each write hangs, as on a server that does not respond."""
    subprocess.run(["fsfreeze", "--freeze", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", place], check=True)


@pytest.mark.parametrize("role", ["output", pytest.param("conversion", marks=pytest.mark.slow)])
def test_a_file_system_that_hangs_at_the_start_is_waited_out(house: House, role: str) -> None:
    """Jobs that do not need it run meanwhile."""
    house.configure(space_reserve="0", allowed_conversion_dirs=[str(house.root / "else")])
    with small(house, role) as place:
        house.start()
        house.stop()
        with frozen(place):
            house.start({HANG_SECONDS: "1"})
            until(partial(is_named, house, role, "it does not respond"), f"it is named: {house.log}")
            key = {"conversion": "conversion_dir", "output": "output_dir"}[role]
            house.reaches(submit(house, "runs", **{key: str(house.root / "else")}), State.SUCCEEDED)
        until(lambda: house.browse("/healthz")[0] == 200, "it is well")
        house.reaches(submit(house, "after"), State.SUCCEEDED)
        assert "Traceback" not in house.log
        assert house.stop() == 0


def test_a_directory_that_hangs_holds_up_neither_its_jobs_nor_the_end(house: House) -> None:
    """More jobs end in it than the event loop has threads. The spool, other jobs and the control socket go on."""
    jobs = min(32, (os.cpu_count() or 1) + 4) + 1
    house.configure(space_reserve="0", max_concurrent_jobs=jobs, allowed_conversion_dirs=[str(house.root / "else")])
    with small(house, "conversion") as place:
        house.start({HANG_SECONDS: "1"})
        words = ("plan", "note finished.json", f"wait {house.root / 'never'}")
        stuck = [submit_words(house, f"stuck{number}", *words) for number in range(jobs)]
        until(lambda: len([*place.glob("*/finished.json")]) == jobs, "all have a folder")
        with frozen(place):
            for number in stuck[1:]:
                assert house.ask("POST", f"/v1/jobs/{number}/cancel")[0] == 200
            for number in stuck[1:]:
                house.reaches(number, State.CANCELLED)
            text = house.migration("good", "plan", "publish", conversion_dir=str(house.root / "else"))
            house.drop("good.yaml", text)
            house.lies("done", "good.yaml")
            assert house.process is not None
            house.process.terminate()
            until(partial(has_exited, house.process.pid), f"the daemon ends, but for its threads: {house.log}")
        assert house.process.wait(90) == 0
        house.start()
        assert ("requeued", "interrupted") in [(event.kind, event.message) for event in house.events(stuck[0])]
        assert "Traceback" not in house.log


def has_exited(pid: int) -> bool:
    """Whether only threads are left of the process: those that hang in a frozen file system end when it is thawed."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def submit_words(house: House, name: str, *words: str) -> int:
    code, answer = house.ask("POST", "/v1/jobs", {"text": house.migration(name, *words), "name": name})
    assert code == 201, answer
    return int(json.loads(answer)["id"])
