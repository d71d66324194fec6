"""The report next to the images: findings, changes, evidence and durations."""

from __future__ import annotations

import html
import re

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.guest import Guest, WindowsAdapter, WindowsFacts
from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.model.machine import Plan
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import PublishedDisk, Verdict
from hyper2kvmd.units import duration, size


class Report(Frozen):
    """The JSON report, and the source of the Markdown one. Seconds count this attempt only."""

    version: str
    order: Order
    plan: Plan
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
    lines = [f"# Migration of {migration.vm_name}", ""]
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
    lines += _table(
        [
            ("Firmware", report.plan.firmware),
            ("Guest", _plain(guest.os_name or guest.family)),
            ("Host name", _plain(guest.hostname or "unknown")),
            *([("Windows", _plain(_release(guest.windows)))] if guest.windows else []),
            ("Kernels", _plain(", ".join(guest.kernels) or "none found")),
            ("Boot loader", _plain(guest.boot_loader or "none found")),
            ("Root", _plain(guest.root or "none")),
            ("Network", _plain(", ".join(f"{nic.name or 'unnamed'} ({nic.mac})" for nic in guest.nics) or "no card")),
        ]
    )
    lines += ["", "## Volumes", "", "| volume | content | UUID | bytes |", "|---|---|---|---|"]
    lines += [
        f"| {_plain(volume.name)} | {volume.content} | {_plain(volume.uuid or '')} | {volume.length} |"
        for volume in report.plan.layout.volumes
    ]
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


def _release(facts: WindowsFacts) -> str:
    words = [f"build {facts.build}", facts.version, facts.edition, f"{facts.system_root}, {facts.control_set}"]
    return ", ".join(filter(None, words))


def _windows(facts: WindowsFacts) -> list[str]:
    """The drivers, the adapters that the registry knows, and what is left for the first boot."""
    lines = ["", "## Drivers", ""]
    lines += ["| driver | version | signer | note |", "|---|---|---|---|"] if facts.drivers else ["None were added."]
    lines += [
        f"| {_plain(one.name)} | {_plain(one.version)} | {_plain(one.signer or 'not signed')} | {_plain(one.note)} |"
        for one in facts.drivers
    ]
    if facts.drivers:
        lines += ["", "| file | driver | SHA-256 |", "|---|---|---|"]
        lines += [f"| {_plain(f.name)} | {_plain(one.name)} | {f.sha256} |" for one in facts.drivers for f in one.files]
    lines += ["", "## Network adapters in the registry", ""]
    lines += ["| name | MAC address | settings | device |", "|---|---|---|---|"] if facts.adapters else ["None."]
    lines += [
        f"| {_plain(one.name)} | {one.mac or 'unknown'} | {_plain(_settings(one))} | {_plain(one.device)} |"
        for one in facts.adapters
    ]
    lines += ["", "## First boot", ""]
    steps = [f"- {_plain(step)}" for step in facts.first_boot]
    return [*lines, *(steps or ["Nothing is left to do: the guest gets no service for it."])]


def _settings(adapter: WindowsAdapter) -> str:
    parts = [("", adapter.addresses), ("gateway ", adapter.gateways), ("DNS ", adapter.name_servers)]
    said = [f"{what}{', '.join(found)}" for what, found in parts if found]
    return "; ".join([*(["DHCP"] if adapter.dhcp else []), *said])


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
