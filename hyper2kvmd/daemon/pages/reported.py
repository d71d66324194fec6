"""The part of a report that the page of a job shows: no content of the guest's files, no paths, no identities.

Identities are addresses of network cards and networks, UUIDs of the machine, and its serial number.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ValidationError

from hyper2kvmd.machine_overview import CARD_HEADINGS, DISK_HEADINGS, overview
from hyper2kvmd.markdown import Row
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.guest import Change, Guest, WindowsFacts
from hyper2kvmd.model.results import Verdict
from hyper2kvmd.report import NO_CHECKSUM, Report
from hyper2kvmd.units import duration, size

REPAIRS_SHOWN = 200
VOLUMES_SHOWN = 100
FACTS_SHOWN = ("CPUs", "memory", "machine type", "firmware", "Secure Boot", "TPM", "CD-ROM drives")
"""Of the new machine."""
MAC = CARD_HEADINGS.index("MAC address")
IMAGE_HEADINGS = ("image", "format", "size", "on disk", "SHA-256", "space")
VOLUME_HEADINGS = ("volume", "content", "size")
DRIVER_HEADINGS = ("driver", "version", "signer", "note")


class ReportTable(Frozen):
    title: str
    headings: Row
    rows: tuple[Row, ...]


class Reported(Frozen):
    facts: tuple[tuple[str, str], ...]
    """Of the new machine and the guest."""
    tables: tuple[ReportTable, ...]
    """Each has a row at least."""
    repairs: tuple[Change, ...]
    """Without their differences, which are content of the guest."""
    more: int
    """Repairs that are not shown."""
    evidence: tuple[str, ...]
    by_hand: int
    """Steps that a person has to do. Their texts have addresses."""
    written_bytes: int | None
    """Of all images; None if unknown."""


class _Parts(BaseModel):
    guest: Guest
    verdict: Verdict


def of_report(text: bytes) -> Reported | None:
    """None for a report of another version that this one cannot read."""
    try:
        parts = _Parts.model_validate_json(text)
    except ValidationError:
        return None
    try:
        report = Report.model_validate_json(text)
    except ValidationError:
        report = None
    changes, windows = parts.guest.changes, parts.guest.windows
    tables = (*(_machine(report) if report else ()), *(_drivers(windows) if windows else ()))
    return Reported(
        facts=(*(_facts(report) if report else ()), *_guest(parts.guest)),
        tables=tuple(table for table in tables if table.rows),
        repairs=tuple(Change(fix=one.fix, path=one.path, summary=one.summary) for one in changes[:REPAIRS_SHOWN]),
        more=max(0, len(changes) - REPAIRS_SHOWN),
        evidence=(*parts.verdict.evidence, *_boot(parts.verdict)),
        by_hand=len(windows.by_hand) if windows else 0,
        written_bytes=sum(disk.file_bytes for disk in report.published) if report else None,
    )


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    machine = overview(report.order.migration, report.plan, report.hardware, report.guest)
    return ((name, value) for name, value in machine.facts if name in FACTS_SHOWN)


def _machine(report: Report) -> Iterator[ReportTable]:
    machine = overview(report.order.migration, report.plan, report.hardware, report.guest)
    yield ReportTable(title="Disks", headings=DISK_HEADINGS, rows=machine.disks)
    cards = tuple(_without(MAC, row) for row in machine.cards)
    yield ReportTable(title="Network cards", headings=_without(MAC, CARD_HEADINGS), rows=cards)
    yield ReportTable(title="Images", headings=IMAGE_HEADINGS, rows=tuple(_images(report)))
    yield ReportTable(title="Volumes", headings=VOLUME_HEADINGS, rows=tuple(_volumes(report.plan.layout)))


def _images(report: Report) -> Iterator[Row]:
    for disk, made in zip(report.plan.disks, report.published, strict=False):
        space = f"{'reserved' if disk.preallocate else 'sparse'}: {disk.preallocate_reason}"
        sizes = size(made.virtual_size or disk.virtual_size), size(made.file_bytes)
        yield (made.path.name, report.image.format, *sizes, made.sha256 or NO_CHECKSUM.replace("`", ""), space)


def _volumes(layout: Layout) -> Iterator[Row]:
    for volume in layout.volumes[:VOLUMES_SHOWN]:
        yield volume.name, volume.content, size(volume.length)


def _guest(guest: Guest) -> Iterator[tuple[str, str]]:
    facts = (
        ("guest", guest.os_name),
        ("host name", guest.hostname),
        ("kernels", ", ".join(guest.kernels)),
        ("boot loader", guest.boot_loader),
        ("root", guest.root),
    )
    return ((name, value) for name, value in facts if value)


def _drivers(windows: WindowsFacts) -> Iterator[ReportTable]:
    rows = tuple((one.name, one.version, one.signer or "not signed", one.note) for one in windows.drivers)
    yield ReportTable(title="Drivers", headings=DRIVER_HEADINGS, rows=rows)


def _boot(verdict: Verdict) -> Iterator[str]:
    if verdict.boot_seconds is not None:
        yield f"the guest booted in {duration(verdict.boot_seconds)}"


def _without(index: int, row: Row) -> Row:
    return (*row[:index], *row[index + 1 :])
