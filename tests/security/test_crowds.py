"""Submitters who drop files without end: what they take is bounded, and everybody else is served meanwhile."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd import spec
from hyper2kvmd.daemon import ignored, incoming, quota, spool
from hyper2kvmd.daemon.dropped import being_written
from hyper2kvmd.daemon.folders import prepare
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.spool import Spool
from hyper2kvmd.host import acl
from hyper2kvmd.host.person import SEARCH, WRITE
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.model.jobs import Job, JobFilter, State
from tests.support.house import House, until

FLOODER, OTHER = "nobody", "games"
LEASE = """
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
for line in sys.stdin:
    handle = os.open(line.rstrip(), os.O_RDONLY)
    fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    print("held", flush=True)
"""


@dataclass
class Shared:
    """A spool where anybody may drop files."""

    folder: Path
    store: Store
    spool: Spool
    count: Iterator[int] = field(default_factory=itertools.count)

    def drop(self, owner: str, number: int = 1, text: str = "vmdk: /a.vmdk\nmemory: {}\n") -> None:
        for _ in range(number):
            count = next(self.count)
            path = self.folder / "incoming" / f"{owner}{count:04}.yaml"
            path.write_text(text.format(64 + count))
            shutil.chown(path, owner)

    def scan(self, times: int = 2) -> None:
        for _ in range(times):
            self.spool.scan()

    def left(self, owner: str) -> int:
        return sum(path.name.startswith(owner) for path in (self.folder / "incoming").iterdir())

    def jobs(self, owner: str, *states: State) -> list[Job]:
        listed = self.store.list(JobFilter(states=states), 10_000)
        return [job for job in reversed(listed) if job.submitter == owner]


@pytest.fixture
def shared(tmp_path: Path, settles_at_once: None) -> Iterator[Shared]:
    prepare(tmp_path)
    (tmp_path / "incoming").chmod(0o777)
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    yield Shared(tmp_path, store, Spool(tmp_path, store, Metrics()))
    store.close()


def let_drop(incoming: Path, *users: str) -> None:
    """By ACL: the daemon leaves it alone when it starts."""
    handle = os.open(incoming, os.O_RDONLY)
    for user in users:
        acl.grant(handle, acl.AclEntry(acl.USER, WRITE | SEARCH, pwd.getpwnam(user).pw_uid))
    os.close(handle)


def test_one_file_beside_five_hundred(house: House) -> None:
    """It is the last that was dropped, and among the first jobs."""
    prepare(house.spool)
    let_drop(house.spool / "incoming", FLOODER, OTHER)
    for number in range(501):
        owner = OTHER if number == 500 else FLOODER
        path = house.drop(f"vm{number:03}.yaml", house.migration(f"vm{number:03}", "plan"))
        shutil.chown(path, owner)
    house.start()
    house.ask("POST", "/v1/queue/pause")

    def job() -> Job | None:
        return next((job for job in house.jobs() if job.submitter == OTHER), None)

    assert until(job, "the one file is a job").id <= 2
    until(lambda: len(house.jobs()) == 501, "the others are taken too")


def test_files_of_one_submitter_in_their_order(shared: Shared) -> None:
    shared.drop(FLOODER, 20)
    for number, path in enumerate(sorted((shared.folder / "incoming").iterdir(), reverse=True)):
        os.utime(path, (number // 2, number // 2))
    shared.scan()
    numbers = [int((job.spool_name or "")[len(FLOODER) :][:4]) for job in shared.jobs(FLOODER)]
    assert numbers == [number for pair in range(18, -1, -2) for number in (pair, pair + 1)]


def test_a_file_that_comes_after_five_hundred(shared: Shared) -> None:
    shared.drop(FLOODER, 500)
    shared.scan()
    shared.drop(OTHER)
    shared.scan()
    (job,) = shared.jobs(OTHER)
    assert job.id <= 202, "two scans of the flooder's come first at most"
    shared.scan(times=5)
    assert len(shared.jobs(FLOODER)) == 500


def test_too_many_jobs_of_one_submitter_wait(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What is over the limit stays where it is, is mentioned once, and becomes a job when there is room."""
    monkeypatch.setattr(quota, "MAX_WAITING", 10)
    shared.drop(FLOODER, 30)
    shared.scan(times=5)
    shared.drop(OTHER)
    shared.scan()
    assert (len(shared.jobs(FLOODER)), shared.left(FLOODER)) == (10, 20)
    assert len(shared.jobs(OTHER)) == 1
    assert caplog.text.count(f"{FLOODER} is at the limit of 10 waiting jobs") == 1
    for job in shared.jobs(FLOODER)[:4]:
        shared.store.cancel(job.id, "root")
    shared.scan()
    assert (len(shared.jobs(FLOODER, State.QUEUED)), shared.left(FLOODER)) == (10, 16)


def test_too_many_files_of_one_submitter_within_an_hour(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that are rejected count too: they end on record and in the log."""
    monkeypatch.setattr(quota, "MAX_IN_AN_HOUR", 10)
    shared.drop(FLOODER, 30, "banana: {}\n")
    shared.scan(times=5)
    shared.drop(OTHER)
    shared.scan()
    assert (len(shared.jobs(FLOODER, State.REJECTED)), shared.left(FLOODER)) == (10, 20)
    assert len(shared.jobs(OTHER)) == 1
    assert caplog.text.count(f"{FLOODER} is at the limit of 10 machines within an hour") == 1
    monkeypatch.setattr(quota, "HOUR_SECONDS", 0)
    shared.scan(times=3)
    assert (len(shared.jobs(FLOODER, State.REJECTED)), shared.left(FLOODER)) == (30, 0)


FOUR_MACHINES = "guest: none\nvms:\n" + "".join(f"- {{{{vmdk: /{name}.vmdk}}}}\n" for name in "abcd") + "# {}\n"


def test_files_of_several_machines_do_not_pass_the_limit(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file that was taken waits for room for all of its machines, and no later file overtakes it."""
    monkeypatch.setattr(quota, "MAX_WAITING", 10)
    monkeypatch.setattr(quota, "MAX_IN_A_SCAN", 4)
    shared.drop(FLOODER, 3, FOUR_MACHINES)
    shared.drop(FLOODER, 9)
    shared.drop(OTHER, 2, FOUR_MACHINES)
    shared.scan(times=6)
    assert (len(shared.jobs(FLOODER)), len(shared.jobs(OTHER))) == (8, 8)
    assert shared.left(FLOODER) == 8, "none are taken while others wait in active/"
    assert caplog.text.count(f"{FLOODER} is at the limit of 10 waiting jobs") == 1
    first, second, *_ = shared.jobs(FLOODER)
    shared.store.cancel(first.id, "root")
    shared.scan()
    assert len(shared.jobs(FLOODER)) == 8
    shared.store.cancel(second.id, "root")
    shared.scan()
    assert len(shared.jobs(FLOODER, State.QUEUED)) == 10


def test_machines_count_for_the_limit_of_an_hour(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MAX_IN_AN_HOUR", 10)
    shared.drop(FLOODER, 6, FOUR_MACHINES)
    shared.scan(times=4)
    assert len(shared.jobs(FLOODER)) == 4, "6 files were taken, and 3 further machines of one of them"
    monkeypatch.setattr(quota, "HOUR_SECONDS", 0)
    shared.scan(times=6)
    assert (len(shared.jobs(FLOODER)), shared.left(FLOODER)) == (24, 0)


def test_a_file_that_waits_for_room_is_read_once(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MAX_WAITING", 3)
    reads: list[object] = []
    parse = spec.parse

    def counted(text: str, **around: Any) -> Any:
        reads.append(text)
        return parse(text, **around)

    monkeypatch.setattr(spec, "parse", counted)
    shared.drop(FLOODER, text=FOUR_MACHINES)
    shared.scan(times=5)
    assert len(reads) == 1
    assert shared.jobs(FLOODER) == []


def test_a_file_with_thousands_of_errors(shared: Shared) -> None:
    """What is kept of them is small, in the database and beside the file."""
    shared.drop(FLOODER, text="".join(f"k{n}: &a{n} !t x\n" for n in range(499)))
    shared.scan()
    (job,) = shared.jobs(FLOODER, State.REJECTED)
    assert (len(job.problems), job.problems[-1].message) == (21, "and 1478 more errors")
    (reason,) = (shared.folder / "rejected").glob("*.reason.json")
    assert reason.stat().st_size < 16384


def test_many_copies_of_one_file(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the last of them as few names are tried as for the second."""
    tried: list[int] = []
    lexists = os.path.lexists

    def counted(path: Path) -> bool:
        tried[-1] += 1
        return lexists(path)

    monkeypatch.setattr(os.path, "lexists", counted)
    text = "vmdk: /a.vmdk\nvm_name: web01\n"
    for _ in range(30):
        tried.append(0)
        path = shared.folder / "incoming" / "web01.yaml"
        path.write_text(text)
        shared.scan()
    assert len(list((shared.folder / "rejected").glob("*.yaml"))) == 29
    assert max(tried) <= 8


def test_more_files_than_a_scan_reads(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No scan looks at all of them, whoever drops them is told once, and others wait for some scans at most."""
    monkeypatch.setattr(incoming, "MAX_READ", 50)
    monkeypatch.setattr(incoming, "MAX_WATCHED", 20)
    monkeypatch.setattr(quota, "MAX_WAITING", 30)
    looks: list[int] = []
    look = quota.FileState.at

    def counted(path: Path) -> quota.FileState:
        looks[-1] += 1
        return look(path)

    monkeypatch.setattr(quota.FileState, "at", staticmethod(counted))
    shared.drop(FLOODER, 400)
    shared.drop(OTHER, 20)
    for _ in range(12):
        looks.append(0)
        shared.scan(times=1)
    assert len(shared.jobs(OTHER)) == 20
    assert max(looks) <= 50 + 2 * 20 + 3 * 40, "what is read, what is watched, and what is taken"
    assert caplog.text.count(f"{FLOODER} has more than 20 files in incoming/") == 1


def test_a_directory_is_left_where_it_is(
    shared: Shared, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is mentioned once, and nothing is tried with it."""
    monkeypatch.setattr(ignored, "PATIENCE_SECONDS", 0)
    (shared.folder / "incoming/folder.yaml").mkdir()
    shared.drop(FLOODER)
    shared.scan(times=5)
    assert [path.name for path in (shared.folder / "incoming").iterdir()] == ["folder.yaml"]
    assert [job.submitter for job in shared.store.list()] == [FLOODER]
    assert caplog.text.count("incoming/folder.yaml of root is ignored: it is a directory") == 1


def test_a_directory_that_takes_the_place_of_a_file(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Just before it is claimed. The service could remove nothing in it, wherever it would be put."""
    shared.drop(FLOODER)
    (file,) = (shared.folder / "incoming").iterdir()

    def exchanged(path: Path) -> bool:
        answer = being_written(path)
        if path.parent.name == "incoming":
            path.unlink()
            path.mkdir(mode=0o777)
        return answer

    monkeypatch.setattr(spool, "being_written", exchanged)
    shared.scan(times=4)
    assert file.is_dir()
    assert list((shared.folder / "active").iterdir()) == list((shared.folder / "rejected").iterdir()) == []


@pytest.fixture
def leased(shared: Shared) -> Iterator[Callable[[Path], None]]:
    """Gives write leases of files to another process: until it ends, nobody can open them."""
    with subprocess.Popen([sys.executable, "-c", LEASE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None

        def lease(path: Path) -> None:
            assert holder.stdin is not None
            assert holder.stdout is not None
            holder.stdin.write(bytes(path) + b"\n")
            holder.stdin.flush()
            assert holder.stdout.readline() == b"held\n"

        yield lease
        holder.stdin.close()


def test_files_under_leases_are_not_taken(shared: Shared, leased: Callable[[Path], None]) -> None:
    """They would count as neither waiting nor rejected, and be looked at in every scan."""
    shared.drop(FLOODER, 2)
    for path in sorted((shared.folder / "incoming").iterdir())[:1]:
        leased(path)
    shared.scan(times=4)
    assert shared.left(FLOODER) == 1
    assert len(shared.jobs(FLOODER, State.QUEUED)) == 1
    assert list((shared.folder / "rejected").iterdir()) == []


@pytest.mark.parametrize("held", ["lease", "open for writing"])
def test_a_claimed_file_is_not_held_for_ever(
    shared: Shared, leased: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    """Its owner can open it again through a descriptor, even where only the service can reach it by name."""
    shared.drop(FLOODER)
    shared.scan(times=1)
    (file,) = (shared.folder / "incoming").iterdir()
    claim = shared.folder / "active" / f"{'0' * 12}.{file.name}"
    file.rename(claim)
    with ExitStack() as stack:
        if held == "lease":
            leased(claim)
        else:
            stack.enter_context(claim.open("a"))
        shared.scan(times=4)
        assert claim.exists()
        assert shared.store.list() == []
        monkeypatch.setattr(spool, "ACTIVE_SECONDS", -1.0)
        shared.scan(times=2)
        (job,) = shared.store.list()
    assert job.state is (State.REJECTED if held == "lease" else State.QUEUED)
    assert [problem.code for problem in job.problems] == (["spool-unreadable"] if held == "lease" else [])


def test_scans_in_quick_succession_take_no_file_before_its_time(
    shared: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "STABLE_SECONDS", 3600)
    shared.drop(FLOODER)
    shared.scan(times=10)
    assert shared.left(FLOODER) == 1


def test_what_is_left_is_taken_at_once_when_it_may_be(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the scans would go on without a pause as long as too much is there."""
    monkeypatch.setattr(quota, "MAX_IN_A_SCAN", 10)
    monkeypatch.setattr(quota, "MAX_WAITING", 25)
    shared.drop(FLOODER, 30)
    scans = [shared.spool.scan() for _ in range(5)]
    assert [scan.jobs for scan in scans] == [0, 10, 10, 5, 0]
    assert [scan.more for scan in scans] == [False, True, True, False, False]
    monkeypatch.setattr(quota, "MAX_WAITING", 1000)
    (shared.folder / "active").rename(shared.folder / "gone")
    shared.drop(FLOODER, 10)
    assert [shared.spool.scan().more for _ in range(3)] == [False] * 3, "nothing can be taken"


@pytest.mark.parametrize("text", ["banana: {}\n", "vmdk: /a.vmdk\nvm_name: web01\n"], ids=["bad", "duplicates"])
def test_rejected_files_without_end(shared: Shared, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The newest of each submitter stay, with their rows; and a job has no endless history of duplicates."""
    monkeypatch.setitem(quota.KEPT, State.REJECTED, 5)
    shared.drop(OTHER, 3, "apple: {}\n")
    for _ in range(3):
        shared.drop(FLOODER, 8, text)
        shared.scan()
    rejected = shared.jobs(FLOODER, State.REJECTED)
    names = {str(job.spool_name) for job in rejected}
    assert names == {f"{FLOODER}{number:04}.yaml" for number in range(22, 27)}
    files = {path.name for path in (shared.folder / "rejected").glob(f"{FLOODER}*")}
    assert files == names | {f"{name}.reason.json" for name in names}
    assert len(shared.jobs(OTHER, State.REJECTED)) == 3
    assert len(list((shared.folder / "rejected").glob(f"{OTHER}*"))) == 6
    for job in shared.jobs(FLOODER, State.QUEUED):
        assert [event.kind for event in shared.store.events(job.id)] == ["submitted", "duplicate"]


def test_failed_jobs_without_end(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(quota.KEPT, State.FAILED, 5)
    shared.drop(FLOODER, 8)
    shared.scan()
    while job := shared.store.claim(datetime.now(UTC)):
        shared.store.fail(job.id, job.attempt, job.problems, keep_stages=False)
    shared.scan()
    assert [job.id for job in shared.jobs(FLOODER)] == [4, 5, 6, 7, 8]
    names = {str(job.spool_name) for job in shared.jobs(FLOODER)}
    assert {path.name for path in (shared.folder / "failed").iterdir()} == names | {
        f"{name}.reason.json" for name in names
    }
