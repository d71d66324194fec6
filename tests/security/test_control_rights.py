"""Who may do what over the control socket: operators, submitters for their own jobs, and nobody else."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from hyper2kvmd.client import Client
from hyper2kvmd.config import SPOOL_MODES
from hyper2kvmd.daemon import callers, quota
from hyper2kvmd.daemon.callers import Caller, Callers
from hyper2kvmd.daemon.control import shown_to
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.operations import Role
from hyper2kvmd.daemon.quota import Quota
from hyper2kvmd.daemon.report_file import read_report
from hyper2kvmd.daemon.submitting import Desk
from hyper2kvmd.daemon.wire import BatchesQuery, JobsQuery, SubmissionBody
from hyper2kvmd.errors import Failure, TryLater
from hyper2kvmd.host.person import Person
from hyper2kvmd.jobs.changes import EVENTS_KEPT
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Job, State
from tests.support.callers import as_user
from tests.support.flood import flooding
from tests.support.host import USER
from tests.support.service import Service
from tests.support.submitters import service_root

ALICE, BOB = (pwd.getpwnam(name).pw_uid for name in ("nobody", "games"))
STRANGER = pwd.getpwnam("news").pw_uid
SUBMITTERS, NOGROUP = grp.getgrnam("users").gr_gid, grp.getgrnam("nogroup").gr_gid
DESCRIPTORS = 256
"""Fewer than the connections of an attack."""
RESERVE = 128
"""What the control socket leaves of them at least."""
MIGRATION = "vmdk: /nowhere/{0}.vmdk\nvm_name: {0}\n"
Ask = Callable[[Client], Any]


@pytest.fixture(scope="module")
def service(service_user: pwd.struct_passwd) -> Iterator[Service]:
    """A paused daemon below a directory as systemd makes it, with a spool as the packages make it."""
    root = service_root()
    service = Service(root, ("none",), ("prlimit", f"--nofile={DESCRIPTORS}"))
    runtime = root / "run"
    runtime.mkdir(mode=0o750)
    shutil.chown(runtime, USER, USER)
    service.socket = runtime / "control.sock"
    service.settings["control_socket"] = service.socket
    for name, mode in SPOOL_MODES.items():
        folder = service.spool / name
        folder.mkdir(exist_ok=True)
        shutil.chown(folder, USER, SUBMITTERS)
        folder.chmod(mode)
    service.start()
    Client(service.socket).pause()
    yield service
    service.end()
    shutil.rmtree(root)


def by(service: Service, uid: int, ask: Ask, group: int = SUBMITTERS) -> Any:
    return as_user(uid, group, lambda: ask(Client(service.socket)))


def asked_for(ask: Callable[[Client, Any], Any], what: object, client: Client) -> Any:
    return ask(client, what)


def refusal(service: Service, uid: int, ask: Ask, group: int = SUBMITTERS) -> str:
    with pytest.raises(Failure) as refused:
        by(service, uid, ask, group)
    return refused.value.code


def submitted(service: Service, uid: int, name: str, text: str = MIGRATION) -> Job:
    job: Job = by(service, uid, lambda client: client.submit_one(text.format(name), name=name))
    return job


def test_a_submitter_has_their_own_jobs(service: Service) -> None:
    job = submitted(service, ALICE, "own")
    assert (job.submitter, job.submitter_uid) == ("nobody", ALICE)
    for ask in (Client.job, Client.events, Client.hold, Client.release, Client.cancel, Client.retry):
        assert by(service, ALICE, partial(asked_for, ask, job.id))
    assert job.id in {one.id for one in by(service, ALICE, Client.jobs)}


VERBS: dict[str, Callable[[Client, int], object]] = {
    "job": Client.job,
    "events": Client.events,
    "report": Client.report,
    "cancel": Client.cancel,
    "retry": Client.retry,
    "hold": Client.hold,
    "release": Client.release,
    "set_priority": lambda client, number: client.set_priority(number, 0),
}


@pytest.mark.parametrize("verb", VERBS)
def test_the_job_of_another_submitter_is_unknown(service: Service, verb: str) -> None:
    job = submitted(service, ALICE, f"hidden-{verb}")
    assert refusal(service, BOB, lambda client: VERBS[verb](client, job.id)) == "job-unknown"
    assert Client(service.socket).job(job.id) == job


def test_a_list_has_the_submitters_own_jobs_only(service: Service) -> None:
    job = submitted(service, ALICE, "listed")
    for query in (JobsQuery(), JobsQuery(id=(job.id,)), JobsQuery(mine=True), JobsQuery(vm="listed")):
        found = by(service, BOB, partial(asked_for, Client.jobs, query))
        assert job.id not in {one.id for one in found}
        assert found.total == len(found)


def test_the_batch_of_another_submitter_is_unknown(service: Service) -> None:
    text = "vms:\n- {{vmdk: /nowhere/{0}1.vmdk, vm_name: {0}1}}\n- {{vmdk: /nowhere/{0}2.vmdk, vm_name: {0}2}}\n"
    pair = by(service, ALICE, lambda client: client.submit(text.format("pair"), name="pair"))
    number = pair.jobs[0].batch_id
    assert by(service, ALICE, lambda client: client.batch(number)).name == "pair"
    assert refusal(service, BOB, lambda client: client.batch(number)) == "batch-unknown"
    assert refusal(service, BOB, lambda client: client.batch_report(number)) == "batch-unknown"
    assert [one.id for one in by(service, BOB, lambda client: client.batches(BatchesQuery()))] == []


@pytest.mark.parametrize("verb", [Client.pause, Client.resume, Client.drain])
def test_the_queue_belongs_to_operators(service: Service, verb: Ask) -> None:
    assert refusal(service, ALICE, verb) == "operator-only"
    assert Client(service.socket).status().state == "paused"


def test_a_submitter_may_only_lower_a_priority(service: Service) -> None:
    job = submitted(service, ALICE, "priority")
    assert refusal(service, ALICE, lambda client: client.set_priority(job.id, job.priority + 1)) == "priority-raised"
    assert by(service, ALICE, lambda client: client.set_priority(job.id, 1)).priority == 1
    assert Client(service.socket).set_priority(job.id, 9).priority == 9


def test_a_stranger_who_connects_is_refused(service: Service) -> None:
    """As one whose right to drop files was taken away, or on a socket that was made open for all."""
    before = service.socket.stat().st_mode
    service.socket.parent.chmod(0o755)
    service.socket.chmod(0o666)
    try:
        for ask in (Client.status, Client.jobs, Client.openapi, lambda client: client.submit("a: b", name="x")):
            assert refusal(service, STRANGER, ask, NOGROUP) == "socket-forbidden"
    finally:
        service.socket.chmod(before)
        service.socket.parent.chmod(0o750)


def test_the_kernel_says_which_groups_a_caller_has(service: Service) -> None:
    """Whatever the user database says."""
    group = pwd.getpwnam(USER).pw_gid
    assert as_user(STRANGER, NOGROUP, lambda: Client(service.socket).jobs(), [group]).total
    assert refusal(service, STRANGER, Client.jobs, NOGROUP) == "socket-forbidden"


def test_the_status_for_a_submitter_names_no_machines_of_others(service: Service) -> None:
    now = datetime.now(UTC)
    facts = {"attempt": 1, "stage": None, "step": "", "progress": None, "started": now, "cancelling": False}
    running = [{"id": uid, "vm_name": "vm", "submitter_uid": uid, **facts} for uid in (ALICE, BOB)]
    ignored = [{"name": "x", "reason": "y", "since": now, "owner_uid": uid} for uid in (ALICE, BOB)]
    status = Client(service.socket).status().with_changes(running=running, ignored=ignored)
    shown = shown_to(caller(BOB), status)
    assert ([one.id for one in shown.running], [one.owner_uid for one in shown.ignored]) == ([BOB], [BOB])
    assert shown_to(caller(0, Role.OPERATOR), status) == status


def test_a_thousand_silent_connections_of_a_submitter(service: Service) -> None:
    assert service.process is not None
    with flooding(service.socket, 1000):
        assert by(service, BOB, Client.status).version
        assert Client(service.socket).status().version
        assert psutil.Process(service.process.pid).num_fds() <= DESCRIPTORS - RESERVE


# ---------------------------------------------------------------- limits


def caller(uid: int, role: Role = Role.SUBMITTER) -> Caller:
    return Caller(Person("nobody", uid, frozenset()), role)


def test_requests_of_one_submitter_at_the_same_time() -> None:
    judge = Callers(Path("/"), 0)

    def take(one: Caller, number: int) -> None:
        if number:
            with judge.turn(one):
                take(one, number - 1)

    with pytest.raises(TryLater) as refused:
        take(caller(ALICE), callers.MAX_REQUESTS + 1)
    assert refused.value.code == "requests-many"
    take(caller(ALICE), callers.MAX_REQUESTS)
    take(caller(0, Role.OPERATOR), callers.MAX_REQUESTS + 1)


def test_a_caller_who_has_left_is_nobody(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert asyncio.run(Callers(tmp_path, 0).of(None)).role is Role.NOBODY


def test_the_limits_of_the_spool_hold_over_the_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    limits = Quota(store)
    monkeypatch.setattr(quota, "MAX_IN_AN_HOUR", 3)
    limits.admit(ALICE, 2)
    with pytest.raises(TryLater):
        limits.admit(ALICE, 2)
    limits.admit(BOB, 2)
    monkeypatch.setattr(quota, "MAX_IN_AN_HOUR", 100)
    monkeypatch.setattr(quota, "MAX_WAITING", 3)
    with pytest.raises(TryLater):
        limits.admit(ALICE, 4)
    store.close()


def test_a_submitter_at_the_limit_submits_and_retries_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota, "MAX_WAITING", 1)
    ledger = Ledger(Store(f"sqlite:///{tmp_path}/jobs.sqlite3"))
    desk = Desk(ledger, Quota(ledger.store))

    def submit(one: Caller, name: str) -> Job:
        asked = SubmissionBody(text=MIGRATION.format(name), name=name)
        return asyncio.run(desk.submit_one(one, asked)).job

    cancelled = submit(caller(ALICE), "first").id
    ledger.store.cancel(cancelled, "nobody")
    submit(caller(ALICE), "second")
    with pytest.raises(TryLater):
        submit(caller(ALICE), "third")
    with pytest.raises(TryLater):
        desk.retry(caller(ALICE), cancelled)
    submit(caller(ALICE, Role.OPERATOR), "fourth")
    ledger.close()


def test_changes_of_a_waiting_job_without_end(tmp_path: Path) -> None:
    """A job that is never claimed keeps as many events as one that is tried without end."""
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    migration = Migration(vmdk=(Path("/a.vmdk"),), vm_name="a")
    job = store.submit(migration, content_key="a", origin=Origin()).job
    for _ in range(EVENTS_KEPT // 2 + 10):
        store.hold(job.id, "nobody")
        store.release(job.id, "nobody")
    held = len(store.events(job.id))
    for number in range(20):
        store.set_priority(job.id, number % 10, "nobody")
    assert len(store.events(job.id)) == held == EVENTS_KEPT + 1
    store.close()


# ---------------------------------------------------------------- reports


def finished(uid: int) -> Job:
    values: dict[str, object] = {"state": State.SUCCEEDED, "submitter_uid": uid, "created": "2026-01-01T00:00:00Z"}
    return Job.model_validate({"id": 1, "vm_name": "web01", "priority": 5, "content_key": "", **values})


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "images" / "web01.report.json"
    path.parent.mkdir()
    path.write_text("{}")
    return path


def test_a_report_that_became_a_link(report: Path, tmp_path: Path) -> None:
    assert read_report(report, finished(ALICE)) == b"{}"
    report.rename(tmp_path / "secret")
    report.symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match=r"Too many levels|Not a directory"):
        read_report(report, finished(ALICE))


def test_a_directory_of_a_report_that_became_a_link(report: Path, tmp_path: Path) -> None:
    report.parent.rename(tmp_path / "elsewhere")
    report.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"Too many levels|Not a directory"):
        read_report(report, finished(ALICE))


def test_a_report_that_the_daemon_did_not_write(report: Path) -> None:
    os.chown(report, ALICE, -1)
    with pytest.raises(OSError, match="no file of the daemon"):
        read_report(report, finished(ALICE))


def test_a_report_that_is_a_pipe(report: Path) -> None:
    report.unlink()
    os.mkfifo(report)
    with pytest.raises(OSError, match="no file of the daemon"):
        read_report(report, finished(ALICE))


def test_a_report_of_another_submitter(report: Path) -> None:
    facts = report.stat()
    state = f"web01 {BOB} {facts.st_ino} {facts.st_size} {facts.st_mtime_ns}"
    os.setxattr(report, "user.hyper2kvm.placed", state.encode())
    assert read_report(report, finished(BOB)) == b"{}"
    with pytest.raises(OSError, match="another submitter"):
        read_report(report, finished(ALICE))


def test_a_report_without_end(report: Path) -> None:
    os.truncate(report, 1 << 30)
    with pytest.raises(OSError, match="16 MiB"):
        read_report(report, finished(ALICE))
