"""The report next to the images: findings, changes, evidence and durations."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator

from hyper2kvmd.machine_overview import CARD_HEADINGS, DISK_HEADINGS, Row, overview
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.guest import Guest, WindowsAdapter, WindowsFacts
from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.model.machine import Hardware, Plan
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import PublishedDisk, Verdict
from hyper2kvmd.units import duration, size


class Report(Frozen):
    """The JSON report, and the source of the Markdown one. Seconds count this attempt only."""

    version: str
    order: Order
    plan: Plan
    hardware: Hardware
    """Of the new machine; that of the source machine is in `plan`."""
    image: Image
    guest: Guest
    verdict: Verdict
    seconds: dict[Stage, float]
    published: tuple[PublishedDisk, ...]


def names(migration: Migration) -> tuple[str, str]:
    """File names of the JSON report and of the Markdown one."""
    return f"{migration.vm_name}.report.json", f"{migration.vm_name}.report.md"


def markdown(report: Report) -> str:
    """The report for people: GitHub-flavoured Markdown."""
    migration, guest = report.order.migration, report.guest
    lines = [f"# Migration of {migration.vm_name}", "", *_machine(report), "", "## Disks", ""]
    for disk, made in zip(report.plan.disks, report.published, strict=True):
        space = f"{'reserved' if disk.preallocate else 'sparse'}: {disk.preallocate_reason}"
        lines += _table(
            [
                (
                    "Source",
                    f"{_code(str(disk.at))} ({disk.format} {_plain(disk.subformat)}, {size(disk.virtual_size)})",
                ),
                ("Image", f"{_code(made.path.name)}, {report.image.format}, {size(made.file_bytes)} on disk"),
                *([("Size", f"grown to {size(made.virtual_size)}")] if made.virtual_size > disk.virtual_size else []),
                ("SHA-256", made.sha256 or "not asked for"),
                ("Space", _plain(space)),
            ]
        )
        lines += [""]
    lines += ["## Guest", ""]
    lines += _table(
        [
            ("System", _plain(guest.os_name or _without_name(report))),
            ("Host name", _plain(guest.hostname or "unknown")),
            *([("Windows", _plain(_release(guest.windows)))] if guest.windows else []),
            ("Kernels", _plain(", ".join(guest.kernels) or "none found")),
            ("Boot loader", _plain(guest.boot_loader or "none found")),
            ("Root", _plain(guest.root or "none")),
        ]
    )
    volumes = [(one.name, one.content, one.uuid or "", str(one.length)) for one in report.plan.layout.volumes]
    lines += ["", "## Volumes", "", *_columns(("volume", "content", "UUID", "bytes"), volumes)]
    lines += _windows(guest.windows) if guest.windows else []
    lines += ["", "## Changes in the guest", ""]
    lines += ["None.", ""] if not guest.changes else []
    for change in guest.changes:
        lines += [f"### {_plain(change.path)}", "", f"{_plain(change.summary)} ({change.fix})", ""]
        lines += [*_fenced(change.diff, "diff"), ""] if change.diff else []
    if migration.print_fstab:
        lines += ["## /etc/fstab before", "", *_fenced(guest.fstab_before), ""]
        lines += ["## /etc/fstab after", "", *_fenced(guest.fstab_after), ""]
    concerns = (*report.order.notes, *report.plan.concerns, *guest.concerns)
    serious = (str(concern) for concern in concerns if concern.level == "warning")
    warnings = (*serious, *guest.warnings, *report.verdict.warnings)
    lines += ["## Warnings", "", *(f"- {_plain(warning)}" for warning in warnings or ("none",))]
    notes = [str(concern) for concern in concerns if concern.level == "information"]
    lines += ["", "## Notes", "", *(f"- {_plain(note)}" for note in notes)] if notes else []
    lines += ["", f"## Evidence (verify: {report.verdict.level})", ""]
    lines += [f"- {_plain(item)}" for item in report.verdict.evidence]
    if report.verdict.boot_seconds is not None:
        lines += ["", f"Time to boot: {duration(report.verdict.boot_seconds)}."]
    if report.verdict.console_tail:
        lines += ["", "Last lines of the console:", "", *_fenced("\n".join(report.verdict.console_tail))]
    lines += ["", "## Time", "", "| stage | seconds |", "|---|---|"]
    lines += [f"| {stage.value} | {seconds:.2f} |" for stage, seconds in report.seconds.items()]
    if report.order.attempt > 1:
        lines += ["", f"This is attempt {report.order.attempt}; stages that an earlier one finished are not listed."]
    return "\n".join([*lines, ""])


def _without_name(report: Report) -> str:
    return "not looked for (guest: none)" if report.order.migration.guest == "none" else report.guest.family


def _release(facts: WindowsFacts) -> str:
    words = [f"build {facts.build}", facts.version, facts.edition, f"{facts.system_root}, {facts.control_set}"]
    return ", ".join(filter(None, words))


def _windows(facts: WindowsFacts) -> list[str]:
    """The drivers, the adapters that the registry knows, and what is left for the first boot."""
    drivers = [(one.name, one.version, one.signer or "not signed", one.note) for one in facts.drivers]
    files = [(file.name, one.name, file.sha256) for one in facts.drivers for file in one.files]
    adapters = [(one.name, one.mac or "unknown", _settings(one), one.device) for one in facts.adapters]
    lines = ["", "## Drivers", ""]
    lines += _columns(("driver", "version", "signer", "note"), drivers) if drivers else ["None were added."]
    lines += ["", *_columns(("file", "driver", "SHA-256"), files)] if files else []
    lines += ["", "## Network adapters in the registry", ""]
    lines += _columns(("name", "MAC address", "settings", "device"), adapters) if adapters else ["None."]
    lines += ["", "## First boot", ""]
    steps = [f"- {_plain(step)}" for step in facts.first_boot]
    return [*lines, *(steps or ["Nothing is left to do: the guest gets no service for it."])]


def _settings(adapter: WindowsAdapter) -> str:
    parts = [("", adapter.addresses), ("gateway ", adapter.gateways), ("DNS ", adapter.name_servers)]
    said = [f"{what}{', '.join(found)}" for what, found in parts if found]
    return "; ".join([*(["DHCP"] if adapter.dhcp else []), *said])


def _machine(report: Report) -> Iterator[str]:
    shown = overview(report.order.migration, report.plan, report.hardware, report.guest)
    yield from ("## Machine", "")
    yield from _table([(name, _plain(value)) for name, value in shown.facts])
    yield from ("", *_columns(DISK_HEADINGS, shown.disks), "", *_columns(CARD_HEADINGS, shown.cards))


def _columns(headings: Row, rows: Iterable[Row]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join(_plain(cell) for cell in row)} |"


def _table(rows: list[tuple[str, str]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]


def _plain(text: str) -> str:
    """Text from a guest on one line, without effect in Markdown or HTML."""
    return re.sub(r"[\\`*\[\]|!#]", r"\\\g<0>", html.escape(" ".join(text.split()), quote=False))


def _code(text: str) -> str:
    """Our own text or a path, as code in a table; backticks in it do not end the code."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", "\\|")


def _fenced(text: str, language: str = "") -> list[str]:
    """A code block that the text in it cannot end."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    return [f"{fence}{language}", text.rstrip("\n"), fence]
