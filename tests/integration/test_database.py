"""The database among processes and accidents: claims that race, writers that are killed, files that are not ours."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from hyper2kvmd.errors import BrokenInstallation, TryLater
from hyper2kvmd.jobs import sqlite
from hyper2kvmd.jobs.candidates import sources_of
from hyper2kvmd.jobs.schema import MIGRATIONS, newest_step
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.jobs.tables import metadata
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import FileIdentity, Image, Layout, LocalFile, SourceDisk
from hyper2kvmd.model.guest import Change, Guest
from hyper2kvmd.model.jobs import NOBODY_AT_ALL, Counts, State, WaitingFor
from hyper2kvmd.model.machine import Plan
from hyper2kvmd.model.results import Finished, Registration, Verdict
from tests.support.benches import plan_for

CLAIM_ALL = """
import sys
from datetime import UTC, datetime
from hyper2kvmd.errors import TryLater
from hyper2kvmd.jobs.store import Store
def patiently(verb, *words):
    while True:
        try:
            return verb(*words)
        except TryLater:  # the host is slow
            pass
store = Store(sys.argv[1])
sys.stdin.readline()
while job := patiently(store.claim, datetime.now(UTC)):
    patiently(store.cancel, job.id, "root")  # reads before it writes
    print(job.id, job.attempt)
"""
WRITE_FOREVER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.model.asked import Migration
store = Store(sys.argv[1])
number = 0
while True:
    number += 1
    name = f"{sys.argv[2]}-{number}"
    migration = Migration(vmdk=Path("/x.vmdk"), vm_name=name)
    job = store.submit(migration, content_key=name, origin=Origin()).job
    print(job.id, flush=True)
    claimed = store.claim(datetime.now(UTC))
    store.succeed(claimed.id, claimed.attempt, "done")
"""


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def address(path: Path) -> str:
    return f"sqlite:///{path}"


def filled(path: Path, jobs: int) -> None:
    store = Store(address(path))
    for number in range(jobs):
        migration = Migration(vmdk=(Path("/x.vmdk"),), vm_name=f"vm{number}")
        store.submit(migration, content_key=str(number), origin=Origin())
    store.close()


def test_eight_processes_claim_every_job_exactly_once(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    filled(path, 500)
    claimers = [start(CLAIM_ALL, address(path)) for _ in range(8)]
    for claimer in claimers:
        assert claimer.stdin is not None
        claimer.stdin.write("go\n")
        claimer.stdin.flush()
    claimed = [line for claimer in claimers for line in claimer.communicate()[0].splitlines()]
    assert all(claimer.returncode == 0 for claimer in claimers)
    assert sorted(claimed) == sorted(f"{number} 1" for number in range(1, 501))


def test_a_writer_killed_at_any_moment_leaves_a_sound_database_and_loses_no_commit(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    filled(path, 0)
    promised: list[int] = []
    for turn in range(12):
        writer = start(WRITE_FOREVER, address(path), str(turn))
        assert writer.stdout is not None
        for _ in range(turn + 3):
            promised.append(int(writer.stdout.readline()))
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        promised += [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
    store = Store(address(path))  # checks integrity
    known = {job.id: job for job in store.list(limit=100_000)}
    assert set(promised) <= set(known)
    for job in known.values():
        kinds = [event.kind for event in store.events(job.id)]
        assert ("succeeded" in kinds) == (job.state is State.SUCCEEDED), (job, kinds)
        assert ("claimed" in kinds) == (job.attempt > 0)
    store.close()


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 8192)


def not_a_database(path: Path) -> None:
    path.write_bytes(b"these are not the pages you are looking for" * 200)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def made_newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()


def made_foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()


def made_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (overwritten, "database-corrupt"),
        (not_a_database, "database-corrupt"),
        (emptied, "database-corrupt"),
        (made_newer, "database-newer"),
        (made_foreign, "database-foreign"),
        (made_a_directory, "database-unreadable"),
    ],
)
def test_a_database_that_cannot_be_trusted_is_refused_and_left_as_it_is(
    tmp_path: Path, damage: Callable[[Path], None], code: str
) -> None:
    path = tmp_path / "jobs.sqlite3"
    filled(path, 40)
    damage(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(BrokenInstallation) as refusal:
        Store(address(path))
    assert refusal.value.code == code
    assert refusal.value.exit_code == 78
    assert "\n" not in refusal.value.message
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_journal_without_its_database_is_not_given_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    (tmp_path / "jobs.sqlite3-journal").write_bytes(b"pages to be rolled back")
    with pytest.raises(BrokenInstallation) as refusal:
        Store(address(path))
    assert refusal.value.code == "database-incomplete"
    assert not path.exists()


def test_a_creation_that_was_killed_half_way_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite3.creating").write_bytes(b"half")
    Store(address(tmp_path / "jobs.sqlite3")).close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["jobs.sqlite3"]
    assert (tmp_path / "jobs.sqlite3").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["sqlite://", "sqlite:///:memory:", "no address at all"])
def test_an_address_that_names_no_lasting_database_is_refused(text: str) -> None:
    with pytest.raises(BrokenInstallation) as refusal:
        Store(text)
    assert refusal.value.code == "database-url-invalid"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BrokenInstallation, match=r"file/jobs\.sqlite3") as refusal:
        Store(address(tmp_path / "file" / "jobs.sqlite3"))
    assert refusal.value.code == "database-unreadable"


def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    filled(path, 0)
    with sqlite3.connect(path) as connection:
        for table in metadata.sorted_tables:
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table.name})")}
            assert columns == {column.name for column in table.columns}
    connection.close()


JOB = {
    "state": "queued",
    "priority": 5,
    "attempt": 0,
    "failures": 0,
    "cancelling": False,
    "submitter": "",
    "progress": 0.0,
    "note": "",
    "problems": "[]",
    "reserved_bytes": 0,
    "created": "2026-01-02 03:04:05.000000",
}
SOME_PROBLEM = '[{"code": "worker-crashed", "message": "it died", "hint": "", "kind": "retry"}]'


def of_version(path: Path, version: str, *jobs: Mapping[str, object]) -> sqlite3.Connection:
    """A database as that version of the schema had it, with jobs that have these columns, or with one plain job."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    engine = create_engine(address(path))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)
    engine.dispose()
    raw = sqlite3.connect(path)
    for number, job in enumerate(jobs or ({},), 1):
        values = {**JOB, "vm_name": f"vm{number}", "content_key": str(number), **job}
        marks = ", ".join("?" * len(values))
        raw.execute(f"INSERT INTO jobs ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))  # noqa: S608
    return raw


def upgraded(raw: sqlite3.Connection, path: Path) -> Store:
    raw.commit()
    raw.close()
    return Store(address(path))


def test_a_database_of_the_first_schema_keeps_its_jobs(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    store = upgraded(of_version(path, "0001", {}, {}, {}), path)
    assert len(store.list()) == 3
    store.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(newest_step(),)]
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    assert {"jobs_misplaced", "jobs_of_submitter"} <= names


def test_submitters_of_earlier_jobs_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    names = ("root", "987654", "no-such-user", "")
    store = upgraded(of_version(path, "0002", *[{"submitter": name} for name in names]), path)
    uids = {job.submitter: job.submitter_uid for job in store.list()}
    store.close()
    assert uids == {"root": 0, "987654": 987654, "no-such-user": NOBODY_AT_ALL, "": NOBODY_AT_ALL}


FILES = ("a.vmdk", "a-f001.vmdk")
DISK = SourceDisk(
    at=LocalFile(path=Path("/srv/a.vmdk")),
    subformat="twoGbMaxExtentFlat",
    virtual_size=1,
    data_bytes=1,
    files=tuple(
        FileIdentity(path=Path("/srv", name), device=1, inode=1, size=1, mtime_ns=1, ctime_ns=1) for name in FILES
    ),
)


def with_disks_at_a_path(plan: Plan) -> dict[str, Any]:
    """A plan as the versions before 0005 recorded it."""
    old = plan.model_dump(mode="json")
    for disk in old["disks"]:
        disk["path"] = disk.pop("at")["path"]
        for file, name in zip(disk["files"], FILES, strict=True):
            file["path"] = name
    return old


def test_a_plan_that_an_older_version_recorded(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    planned = plan_for((DISK,), Layout(tables=("none",)))
    published = planned.with_changes(disks=())
    raw = of_version(path, "0004", {}, {})
    for job, plan in ((1, planned), (2, published)):
        product = json.dumps(with_disks_at_a_path(plan))
        raw.execute("INSERT INTO stages VALUES (?, 'plan', 1, 0.5, ?)", (job, product))
    store = upgraded(raw, path)
    assert [store.finished_stages(job).plan for job in (1, 2)] == [planned, published]
    store.close()


def test_concerns_that_an_older_version_recorded_as_texts(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    planned = plan_for((DISK,), Layout(tables=("none",)))
    old = planned.model_dump(mode="json")
    for subject in (old, old["machine"], *old["disks"]):
        subject["concerns"] = ["web01.vmx cannot be read"]
    raw = of_version(path, "0006")
    raw.execute("INSERT INTO stages VALUES (1, 'plan', 1, 0.5, ?)", (json.dumps(old),))
    store = upgraded(raw, path)
    found = store.finished_stages(1).plan
    store.close()
    assert found is not None
    known = (Concern(code="concern-without-code", message="web01.vmx cannot be read"),)
    assert (found.concerns, found.machine.concerns, found.disks[0].concerns) == (known, known, known)


def test_a_registration_that_an_older_version_recorded(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    known = {"name": "web01", "macs": ["00:50:56:01:02:03"], "defined": True, "uri": "qemu:///system"}
    raw = of_version(path, "0005")
    product = json.dumps({**known, "xml": "/srv/web01.xml"})
    raw.execute("INSERT INTO stages VALUES (1, 'register', 1, 0.5, ?)", (product,))
    upgraded(raw, path).close()
    with sqlite3.connect(path) as connection:
        ((product,),) = connection.execute("SELECT product FROM stages").fetchall()
    connection.close()
    converted = Registration.model_validate_json(product)
    assert converted == Registration.model_validate({**known, "files": [Path("/srv/web01.xml")]})


def test_the_sources_of_earlier_jobs(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    migrations = [
        Migration(vm_name="a", vmdk=(Path("/b/a.vmdk"), Path("/a/b.vmdk"), Path("/a/c.vmdk"))),
        Migration(vm_name="b", ova=Path("/c/b.ova")),
    ]
    jobs = [{"migration": migration.model_dump_json()} for migration in migrations]
    upgraded(of_version(path, "0016", *jobs, {"state": "rejected"}), path).close()
    with sqlite3.connect(path) as connection:
        found = [row[0] for row in connection.execute("SELECT sources FROM jobs ORDER BY id")]
    connection.close()
    assert found == [*map(sources_of, migrations), "[]"] == ['["/a", "/b"]', '["/c"]', "[]"]


def test_products_of_earlier_jobs_that_succeeded_are_reduced(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    concern = Concern(code="image-shrunk", message="an old kernel")
    planned = plan_for((DISK,), Layout(tables=("gpt",))).with_changes(concerns=(concern,))
    image = Image(disks=(), format="raw", layout=planned.layout, evidence=("compared",))
    guest = Guest(
        hostname="web01", concerns=(concern,), changes=(Change(fix="fstab", path="/etc/fstab", summary="by UUID"),)
    )
    verdict = Verdict(level="boot", evidence=("login:",), console_tail=("a line",) * 50)
    products = {"plan": planned, "convert": image, "repair": guest, "verify": verdict}
    raw = of_version(path, "0017", {"state": "succeeded"}, {"state": "failed"})
    for job in (1, 2):
        for stage, product in products.items():
            raw.execute("INSERT INTO stages VALUES (?, ?, 1, 0.5, ?)", (job, stage, product.model_dump_json()))
    store = upgraded(raw, path)
    whole = Finished(plan=planned, image=image, guest=guest, verdict=verdict)
    assert [store.finished_stages(job) for job in (1, 2)] == [whole.for_outcome(), whole]
    store.close()


def test_space_of_dropped_products_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    raw = of_version(path, "0017", {"state": "succeeded"})
    raw.execute("INSERT INTO stages VALUES (1, 'plan', 1, 0.5, zeroblob(80000000))")
    upgraded(raw, path).close()
    assert path.stat().st_size < 1 << 20


def test_jobs_of_every_state_of_version_0017(tmp_path: Path) -> None:
    """Each of them goes on as it would have, and every verb leads out of its state."""
    path, now = tmp_path / "jobs.sqlite3", datetime.now(UTC)
    migration = Migration(vmdk=(Path("/a.vmdk"),), vm_name="a").model_dump_json()
    past, future = "2026-01-02 03:04:05.000000", "2999-01-02 03:04:05.000000"
    rows: Mapping[str, Mapping[str, object]] = {
        "due": {"waiting_for": "retry", "not_before": past, "failures": 1, "attempt": 1},
        "later": {"waiting_for": "retry", "not_before": future, "failures": 1, "attempt": 1},
        "space": {"waiting_for": "space", "not_before": past, "attempt": 1},
        "held": {"state": "held", "waiting_for": "operator"},
        "running": {"state": "running", "attempt": 1, "stage": "convert"},
        "cancelling": {"state": "running", "attempt": 1, "cancelling": True},
        "failed": {"state": "failed", "finished": past, "problems": SOME_PROBLEM, "spool_path": "failed/a.yaml"},
        "succeeded": {"state": "succeeded", "finished": past, "spool_path": "active/b.yaml"},
        "plain": {},
    }
    raw = of_version(path, "0017", *[{"migration": migration, "vm_name": name, **row} for name, row in rows.items()])
    store = upgraded(raw, path)
    assert [(job.vm_name, job.state) for job in store.recover()] == [
        ("running", State.QUEUED),
        ("cancelling", State.CANCELLED),
    ]
    store.clock_jumped(now)

    def claimed() -> list[str]:
        return [job.vm_name for _ in rows if (job := store.claim(now)) is not None]

    numbers = {job.vm_name: job.id for job in store.list()}
    assert [(one.job.vm_name, one.path) for one in store.misplaced()] == [("succeeded", "active/b.yaml")]
    assert claimed() == ["due", "space", "running", "plain"]
    store.release(numbers["held"], "root")
    for name in ("failed", "cancelling"):
        assert store.retry(numbers[name], "root").state is State.QUEUED
    store.set_priority(numbers["later"], 9, "root")
    assert claimed() == ["held", "cancelling", "failed"]
    assert store.cancel(numbers["later"], "root").state is State.CANCELLED
    assert store.identity() and store.clock_record() is None
    store.close()


def test_batches_warnings_and_reasons_of_earlier_jobs(tmp_path: Path) -> None:
    path, group = tmp_path / "jobs.sqlite3", "0123456789ab.rack.yaml"
    rack = {"batch": group, "submitter": "alice", "submitter_uid": 1000, "spool_name": "rack.yaml"}
    later = {"not_before": "2999-01-01 00:00:00.000000"}
    jobs: list[Mapping[str, object]] = [
        {**rack, "state": "held"},
        {**rack, **later},
        {**later, "problems": SOME_PROBLEM},
        {"state": "failed"},
    ]
    raw = of_version(path, "0011", *jobs)
    for message in ("no drivers", "no drivers", "an old kernel"):
        values = 4, "2026-01-02 03:04:05.000000", message
        raw.execute("INSERT INTO events (job_id, at, attempt, kind, message) VALUES (?, ?, 1, 'warned', ?)", values)
    store = upgraded(raw, path)
    found = {job.id: (job.batch, job.waiting_for, job.warnings) for job in store.list()}
    assert found == {
        1: ("rack", WaitingFor.OPERATOR, 0),
        2: ("rack", WaitingFor.SPACE, 0),
        3: (None, WaitingFor.RETRY, 0),
        4: (None, None, 2),
    }
    (batch,) = store.batches()
    assert (batch.name, batch.submitter, batch.submitter_uid) == ("rack", "alice", 1000)
    assert (batch.created, batch.counts) == (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), Counts(queued=1, held=1))
    assert [job.id for job in store.spool_groups([group])[group]] == [1, 2]
    store.close()


def test_stages_that_an_older_version_finished_count(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    planned = plan_for((DISK,), Layout(tables=("none",)))
    nic = {"mac": "00:50:56:01:02:03", "slot": 192}
    image = Image(disks=(), format="raw", layout=planned.layout)
    old = with_disks_at_a_path(planned)
    del old["machine"]
    products = {
        "plan": {"source": {**old, "nics": [nic]}, "image": None},
        "convert": {"image": json.loads(image.model_dump_json())},
    }
    raw = of_version(path, "0003")
    for stage, product in products.items():
        raw.execute("INSERT INTO stages VALUES (1, ?, 1, 0.5, ?)", (stage, json.dumps(product)))
    store = upgraded(raw, path)
    found = store.finished_stages(1)
    store.close()
    machine = planned.machine.with_changes(nics=(nic,))
    assert found == Finished(plan=planned.with_changes(machine=machine), image=image)


def test_the_journal_is_truncated_after_each_transaction(tmp_path: Path) -> None:
    filled(tmp_path / "jobs.sqlite3", 3)
    assert (tmp_path / "jobs.sqlite3-journal").stat().st_size == 0
    assert not (tmp_path / "jobs.sqlite3-wal").exists()


def test_a_lock_of_another_program_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's exit status decides whether systemd starts it again: 75 yes, 78 never."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.2)
    path = tmp_path / "jobs.sqlite3"
    Store(f"sqlite:///{path}").close()
    thief = sqlite3.connect(path, isolation_level=None)
    for lock in ("EXCLUSIVE", "IMMEDIATE"):
        thief.execute(f"BEGIN {lock}")
        with pytest.raises(TryLater) as caught:
            Store(f"sqlite:///{path}").set_paused(True)
        assert (caught.value.code, caught.value.exit_code) == ("database-busy", 75)
        thief.execute("ROLLBACK")
    Store(f"sqlite:///{path}").close()


def test_a_long_transaction_does_not_stay_in_memory(tmp_path: Path) -> None:
    """SQLite takes some numbers for "never write before the end"."""
    store = Store(address(tmp_path / "jobs.sqlite3"))
    with store.transaction() as connection:
        assert connection.execute(text("PRAGMA cache_spill")).scalar_one() == 2000
    store.close()
