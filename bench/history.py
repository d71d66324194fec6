"""Fills a database with finished jobs, each with the rows that a job leaves: events, stages and network cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, delete

from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.jobs.tables import Instant, cards, conversions, events, jobs, stages
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import DiskImage, Image, Layout
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.jobs import Problem, Stage
from hyper2kvmd.model.machine import Machine, Plan
from hyper2kvmd.model.results import Artifact, Product, PublishedDisk, Registration, Verdict

GIB = 1 << 30
AT_ONCE = 2000
"""Jobs of one statement."""
APART = timedelta(minutes=1)
TABLES = (jobs, events, stages, conversions, cards)

# In the texts of the examples, replaced in the copies
NAME, CLAIM, MAC, KEY = "vm-example", "0123456789ab", "52:54:00:00:00:00", "content-of-the-example"
BEGAN, ENDED = "the time of its start", "the time of its end"

Values = tuple[Any, ...]


def fill(database: Path, number: int) -> None:
    """Record `number` finished jobs. Of seven, one has a warning and one has failed.

    One job of each kind goes through the verbs of the store. The others are copies of its rows.
    """
    store = Store(f"sqlite:///{database}")
    rows = {kind: _taken(store, _example(store, kind)) for kind in ("succeeded", "warned", "failed")}
    now = datetime.now(UTC)
    with store.transaction(writes=True) as connection:
        connection.exec_driver_sql("PRAGMA cache_size=-400000")  # KiB
        for start in range(1, number + 1, AT_ONCE):
            numbers = range(start, min(number + 1, start + AT_ONCE))
            for table in TABLES:
                _insert(connection, table, _copies(table, rows, numbers, now - APART * number))
    store.close()


# ---------------------------------------------------------------- the jobs that are copied


def _example(store: Store, kind: str) -> int:
    path = f"{'failed' if kind == 'failed' else 'done'}/{CLAIM}.{NAME}.yaml"
    origin = Origin(submitter="root", uid=0, name=f"{NAME}.yaml", claim=f"{CLAIM}.{NAME}.yaml", path=path)
    migration = Migration(vmdk=(Path(f"/exports/{NAME}/{NAME}.vmdk"),), vm_name=NAME, checksum=True)
    store.submit(migration, content_key=KEY, origin=origin)
    job = store.claim(datetime.now(UTC))
    assert job is not None
    if kind == "failed":
        fact = f"/exports/{NAME}/{NAME}.vmdk: no such file"
        missing = Problem(
            code="source-missing", message=fact, hint="Correct vmdk, or restore the file", kind="permanent"
        )
        store.start_stage(job.id, job.attempt, Stage.PLAN)
        store.fail(job.id, job.attempt, [missing], keep_stages=False)
        return job.id
    for stage, product in _products():
        _do_stage(store, job.id, job.attempt, stage, product)
    if kind == "warned":
        store.record_warning(job.id, job.attempt, f"{NAME}: the snapshot of the source is 400 days old")
    store.succeed(job.id, job.attempt, f"/var/lib/hyper2kvm/images/{NAME}.qcow2")
    return job.id


def _do_stage(store: Store, job_id: int, attempt: int, stage: Stage, product: Product) -> None:
    """With the events that the daemon records in it."""
    store.start_stage(job_id, attempt, stage)
    if stage is Stage.VERIFY:
        overview = (
            f"name: {NAME}; CPUs: 2; memory: 2.0 GiB; machine type: q35; firmware: BIOS; Secure Boot: off; TPM: none",
            f"disk 1: boots, virtio, 40.0 GiB, {NAME}.qcow2",
            f"network card 1: MAC address {MAC} (kept), virtio, default",
        )
        store.record_machine(job_id, attempt, overview)
        store.record_macs(job_id, attempt, [MAC])
    if stage is Stage.REPAIR:
        store.record_note(job_id, attempt, str(_CONCERN))
    store.finish_stage(job_id, attempt, stage, 12.3, product)
    if stage is Stage.PLAN:
        store.reserve(job_id, attempt, 12 * GIB)
    if stage is Stage.CONVERT:
        store.record_conversion(job_id, attempt, 8 * GIB, 12.3)


_CONCERN = Concern(
    code="vmware-tools-left",
    message="open-vm-tools stays in the guest: nothing starts it on KVM",
    hint="Remove the package in the guest, or set remove_vmware_tools",
    level="information",
)


def _products() -> Iterator[tuple[Stage, Product]]:
    """Only what is on record after success is written out."""
    images, nothing = Path("/var/lib/hyper2kvm/images"), Layout(tables=("none",))
    disk = DiskImage(path=Path("disk.qcow2"), virtual_size=40 * GIB, file_bytes=8 * GIB)
    yield Stage.PLAN, Plan(machine=Machine(disks=()), disks=(), layout=nothing, firmware="bios", needed_bytes=12 * GIB)
    yield Stage.CONVERT, Image(disks=(disk,), format="qcow2", layout=nothing)
    yield Stage.REPAIR, Guest(family="linux", concerns=(_CONCERN,))
    evidence = (
        "virtual size 40.0 GiB, as the source's",
        "1026 samples of 65536 bytes spread over the disk read the same, the source read by QEMU",
        "partition tables and 3 volumes read back as in the source",
        "the source files did not change meanwhile",
        "qemu-img check: no corruption, no leaked cluster",
        "7 repairs written and flushed to the guest's file systems",
    )
    yield Stage.VERIFY, Verdict(level="content", evidence=evidence)
    published = PublishedDisk(
        path=images / f"{NAME}.qcow2",
        file_bytes=8 * GIB,
        virtual_size=40 * GIB,
        sha256="0123456789abcdef" * 4,
        inode=15476569,
        mtime_ns=1796060825905418376,
    )
    reports = images / f"{NAME}.report.json", images / f"{NAME}.report.md"
    yield (
        Stage.PUBLISH,
        Artifact(disks=(published,), format="qcow2", report_json=reports[0], report_markdown=reports[1]),
    )
    identity = "dbaca944-d497-5420-bb4c-1009446000cc"
    files = (images / f"{NAME}.xml",)
    yield Stage.REGISTER, Registration(name=NAME, identity=identity, files=files, macs=(MAC,), defined=False)


# ---------------------------------------------------------------- their copies


def _taken(store: Store, job_id: int) -> Mapping[Table, Sequence[Values]]:
    """The rows of the job as the database stores them, with marks for the times. The job itself is removed."""
    with store.transaction(writes=True) as connection:
        rows = {table: [_marked(table, row) for row in _stored(connection, table, job_id)] for table in TABLES}
        connection.execute(delete(jobs).where(jobs.c.id == job_id))
        return rows


def _stored(connection: Connection, table: Table, job_id: int) -> Sequence[Sequence[Any]]:
    key = "id" if table is jobs else "job_id"
    query = f"SELECT {_columns(table)} FROM {table.name} WHERE {key} = ?"  # noqa: S608
    return connection.exec_driver_sql(query, (job_id,)).all()


def _columns(table: Table) -> str:
    return ", ".join(column.name for column in table.columns)


def _marked(table: Table, row: Sequence[Any]) -> Values:
    return tuple(
        (ENDED if column.name == "finished" else BEGAN) if isinstance(column.type, Instant) and value else value
        for column, value in zip(table.columns, row, strict=True)
    )


def _kind(number: int) -> str:
    return {5: "warned", 6: "failed"}.get(number % 7, "succeeded")


def _copies(
    table: Table, rows: Mapping[str, Mapping[Table, Sequence[Values]]], numbers: range, first: datetime
) -> Iterator[Values]:
    names = [column.name for column in table.columns]
    key = names.index("id" if table is jobs else "job_id")
    own = names.index("id") if table is events else None
    for number in numbers:
        words = _words(number, first)
        for row in rows[_kind(number)][table]:
            values = [_replaced(value, words) if isinstance(value, str) else value for value in row]
            values[key] = number
            if own is not None:
                values[own] = None  # the next one
            yield tuple(values)


def _words(number: int, first: datetime) -> Mapping[str, str]:
    began = first + number * APART
    digits = f"{number:08x}"
    return {
        NAME: f"vm{number:06}",
        CLAIM: f"{number:012x}",
        MAC: f"52:54:{digits[:2]}:{digits[2:4]}:{digits[4:6]}:{digits[6:]}",
        KEY: f"{number:064x}",
        BEGAN: _stored_time(began),
        ENDED: _stored_time(began + 5 * APART),
    }


def _stored_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")


def _replaced(text: str, words: Mapping[str, str]) -> str:
    if text in words:
        return words[text]
    for mark in (NAME, CLAIM, MAC):
        if mark in text:
            text = text.replace(mark, words[mark])
    return text


def _insert(connection: Connection, table: Table, rows: Iterator[Values]) -> None:
    marks = ", ".join("?" for _ in table.columns)
    connection.exec_driver_sql(f"INSERT INTO {table.name} ({_columns(table)}) VALUES ({marks})", list(rows))  # noqa: S608
