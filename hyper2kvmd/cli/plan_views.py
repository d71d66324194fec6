"""Shows plans and migrations to people; `--json` prints the types themselves instead."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hyper2kvmd.cli.output import Output
from hyper2kvmd.cli.views import notes
from hyper2kvmd.units import about, local_time, size

if TYPE_CHECKING:
    from hyper2kvmd.cli.oneshot import DaemonDirectories, NamedDirectory
    from hyper2kvmd.model.asked import Migration
    from hyper2kvmd.model.concerns import Concern
    from hyper2kvmd.model.disks import Volume
    from hyper2kvmd.model.guest import FamilyName, Guest
    from hyper2kvmd.model.jobs import PastRate
    from hyper2kvmd.model.machine import Plan
    from hyper2kvmd.model.orders import Order
    from hyper2kvmd.spec import Parsed

UNNAMED: Mapping[FamilyName, str] = {"linux": "Linux", "windows": "Windows", "none": "no operating system"}
"""Guests whose system does not give its name."""
IDENTITY = "UUID or label"


def plan(output: Output, order: Order, planned: Plan, daemon: DaemonDirectories | None, rate: PastRate | None) -> None:
    _machine(output, order.migration, planned)
    _source(output, planned)
    names = order.migration.output_names(len(planned.disks))
    _space(output, order, planned, names, [*_by_daemon(order, names, daemon), *_estimate(planned, rate)])
    concerns = concerns_of(planned)
    if concerns:
        output.line("")
        notes(output, concerns)
    if planned.guest is not None:
        _expected(output, order.migration, planned.guest)
    output.line("nothing was written")


def concerns_of(planned: Plan) -> tuple[Concern, ...]:
    return (*planned.concerns, *(planned.guest.concerns if planned.guest else ()))


def _machine(output: Output, asked: Migration, planned: Plan) -> None:
    from hyper2kvmd.machine_overview import CARD_HEADINGS, DISK_HEADINGS, planned_overview

    shown = planned_overview(asked, planned)
    output.line(f"machine {asked.vm_name}", style="bold")
    output.facts(list(shown.facts))
    output.line("")
    output.table(DISK_HEADINGS, shown.disks)
    output.line("")
    output.table(CARD_HEADINGS, shown.cards)


def _source(output: Output, planned: Plan) -> None:
    for number, (table, disk) in enumerate(zip(planned.layout.tables, planned.disks, strict=True), start=1):
        space = "reserved in full" if disk.preallocate else "sparse"
        output.line("")
        output.line(f"disk {number}: {disk.at}", style="bold")
        output.facts(
            [
                ("format", f"{disk.format} {disk.subformat}"),
                ("size", f"{size(disk.virtual_size)}, with about {size(disk.data_bytes)} of data"),
                ("partitions", table),
                ("space", f"{space}: {disk.preallocate_reason}"),
            ]
        )
    rows = [(one.name, size(one.length), one.content, _identity(one)) for one in planned.layout.volumes]
    output.line("")
    output.table(("volume", "size", "content", IDENTITY), rows, unbroken=IDENTITY)


def _space(
    output: Output, order: Order, planned: Plan, names: Iterable[str], by_daemon: Iterable[tuple[str, str]]
) -> None:
    output.line("")
    output.facts(
        [
            ("space needed", f"{size(planned.needed_bytes)} in {order.conversion_dir}"),
            *([("", f"{size(planned.unpacked_bytes)} there to unpack it")] if planned.unpacked_bytes else []),
            *([("", f"{size(planned.publish_bytes)} in {order.output_dir}")] if planned.publish_bytes else []),
            *(("result", f"{order.output_dir / name}") for name in names),
            *by_daemon,
        ]
    )


def _by_daemon(order: Order, names: Iterable[str], daemon: DaemonDirectories | None) -> Iterator[tuple[str, str]]:
    """Where a job of the daemon differs from a one-shot run."""
    if daemon is None:
        return
    if daemon.conversion_dir != order.conversion_dir:
        yield "by the daemon", f"converted in {daemon.conversion_dir}"
    for name in names if daemon.output_dir != order.output_dir else ():
        result = daemon.output_dir / name
        note = ", which already exists: the daemon will refuse this migration" if os.path.lexists(result) else ""
        yield "by the daemon", f"{result}{note}"


def _estimate(planned: Plan, rate: PastRate | None) -> Iterator[tuple[str, str]]:
    data = sum(disk.data_bytes for disk in planned.disks)
    if rate is None or not data:
        return
    seconds, speed = data / rate.bytes_per_second, size(round(rate.bytes_per_second))
    basis = "its only one so far" if rate.conversions == 1 else f"the median of its last {rate.conversions}"
    yield "by the daemon", f"the conversion takes {about(seconds)}, at {speed}/s: {basis}"


def _expected(output: Output, migration: Migration, guest: Guest) -> None:
    """The guest on the source, and its repairs."""
    from hyper2kvmd.report import NOT_INSPECTED

    rows = [
        ("guest", guest.os_name or (NOT_INSPECTED if migration.guest == "none" else UNNAMED[guest.family])),
        ("host name", guest.hostname),
        ("volume of Windows" if guest.windows else "root", guest.root),
        ("boot loader", guest.boot_loader),
        ("kernels", ", ".join(guest.kernels)),
        *_of_windows(guest),
    ]
    output.line("")
    output.facts([(name, value) for name, value in rows if value])
    if guest.changes:
        output.line("")
        changes = [(change.fix, f"{change.path}: {change.summary}") for change in guest.changes]
        output.table(("expected repair", "file and change"), changes)
    elif guest.family in ("linux", "windows"):
        output.line("the guest needs no repair")


def differences(output: Output, guest: Guest) -> None:
    """Each edit of a text file or of the registry; other files are written as a whole."""
    for change in guest.changes:
        if change.diff and not change.sha256:
            output.line("")
            output.line(f"{change.path} ({change.fix})", style="bold")
            for line in change.diff.splitlines():
                output.line(line)


def _of_windows(guest: Guest) -> Iterator[tuple[str, str]]:
    """Devices, drivers, and what is left for the first boot."""
    if guest.windows is None:
        return
    yield "disks, cards", f"{guest.capabilities.disk_bus}, {guest.capabilities.nic_model}"
    for driver in guest.windows.drivers:
        yield "driver", f"{driver.name} {driver.version}, signed by {driver.signer or 'nobody'}"
    for step in guest.windows.first_boot:
        yield "first boot", step
    for step in guest.windows.by_hand:
        yield "by hand", step


def _identity(volume: Volume) -> str:
    if volume.obstacle:
        return volume.obstacle
    others = (("LABEL", volume.label), ("PARTUUID", None if volume.uuid else volume.partuuid))
    return " ".join(filter(None, (volume.uuid, *(f"{name}={value}" for name, value in others if value))))


def migration(
    output: Output,
    name: str,
    machine: Parsed,
    conversion: NamedDirectory,
    published: NamedDirectory,
    daemon: DaemonDirectories | None,
) -> None:
    """Every key with its effective value, and whether the file sets it. `name` is that of the file or machine."""
    asked = machine.migration
    output.line(f"{name}: valid", style="green")
    for key in type(asked).model_fields:
        value, origin = getattr(asked, key), "" if key in asked.model_fields_set else "default"
        match key:
            case "conversion_dir":
                value, origin = conversion.path, f"from {conversion.named_by}"
            case "output_dir":
                value, origin = published.path, f"from {published.named_by}"
                if daemon is not None and daemon.output_dir != published.path:
                    origin += f"; by the daemon: {daemon.output_dir}"
            case "to_output":
                value = ", ".join(asked.output_names(asked.known_disks))
            case "memory" | "vcpus" if value is None:
                value = "as the source machine"
        output.line(f"  {key}: {_said(value)}{f'  ({origin})' if origin else ''}")
    from hyper2kvmd.start_times import earliest_start

    start, reason = earliest_start(asked, datetime.now(UTC))
    if reason is not None:
        output.line(f"If it is submitted now, its job starts at {local_time(start)} at the earliest")
    notes(output, machine.notes)


def _said(value: object) -> str:
    """A value of a key, as a person writes it in a YAML."""
    from hyper2kvmd.model.frozen import Frozen

    match value:
        case bool():
            return str(value).lower()
        case None | ():
            return "not set"
        case tuple() | list():
            return ", ".join(map(_said, value))
        case Frozen():
            return _said({name: one for name, one in value.model_dump().items() if one})
        case Mapping():
            return ", ".join(f"{key}: {_said(one)}" for key, one in value.items()) or "not set"
        case _:
            return str(value)
