"""The report next to the images: findings, changes, evidence and durations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hyper2kvmd.machine_overview import CARD_HEADINGS, DISK_HEADINGS, overview
from hyper2kvmd.markdown import code, columns, fenced, plain, plain_part, table
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.disks import Image
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.guest import Change, Guest, WindowsAdapter, WindowsFacts
from hyper2kvmd.model.jobs import Stage
from hyper2kvmd.model.machine import Hardware, Plan
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.outcome import warnings_said
from hyper2kvmd.model.results import PublishedDisk, Verdict
from hyper2kvmd.units import duration, size

BY_HAND = "To do by hand"
NO_CHECKSUM = "not computed (`checksum: true`)"
NOT_INSPECTED = "not inspected (guest: none)"
NOTHING_LEFT = "Nothing is left to do: the guest gets no service for it."


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
    """The report for people: GitHub-flavoured Markdown, with what they have to do first."""
    lines = [f"# Migration of {report.order.migration.vm_name}", ""]
    warnings = _warnings(report)
    lines += [f"Migrated{warnings_said(len(warnings)) or ' without warnings'}.", ""]
    lines += [
        *_concerns(report, warnings),
        *_to_do(report.guest),
        *_machine(report),
        "",
        *_disks(report),
        *_guest(report),
    ]
    lines += [*_changes(report), *_evidence(report.verdict), "", "## Time", "", "| stage | seconds |", "|---|---|"]
    lines += [f"| {stage.value} | {seconds:.2f} |" for stage, seconds in report.seconds.items()]
    if report.order.attempt > 1:
        lines += ["", f"This is attempt {report.order.attempt}; stages that an earlier one finished are not listed."]
    return "\n".join([*lines, ""])


def _warnings(report: Report) -> tuple[str, ...]:
    """Each text once."""
    serious = (str(concern) for concern in _all_concerns(report) if concern.level == "warning")
    return tuple(dict.fromkeys((*serious, *report.guest.warnings, *report.verdict.warnings)))


def _concerns(report: Report, warnings: tuple[str, ...]) -> Iterator[str]:
    yield from ("## Warnings", "", *(f"- {plain(warning)}" for warning in warnings or ("none",)), "")
    notes = [str(concern) for concern in _all_concerns(report) if concern.level == "information"]
    if notes:
        yield from ("## Notes", "", *(f"- {plain(note)}" for note in notes), "")


def _all_concerns(report: Report) -> Iterable[Concern]:
    return dict.fromkeys((*report.order.notes, *report.plan.concerns, *report.guest.concerns))


def _to_do(guest: Guest) -> Iterator[str]:
    """What is left for the first boot, and for a person after it."""
    if guest.windows is None:
        return
    if guest.windows.by_hand:
        yield from (f"## {BY_HAND}", "", "After the first boot:", "")
        yield from (*(f"{number}. {_commands(step)}" for number, step in enumerate(guest.windows.by_hand, start=1)), "")
    nothing = f'Nothing: what is left is listed under "{BY_HAND}".' if guest.windows.by_hand else NOTHING_LEFT
    steps = [f"- {plain(step)}" for step in guest.windows.first_boot]
    yield from ("## First boot", "", *(steps or [nothing]), "")


def _commands(step: str) -> str:
    """A step with its commands as code: no text in it can contain a backtick."""
    parts = step.split("`")
    return "".join(code(part) if number % 2 else plain_part(part) for number, part in enumerate(parts))


def _disks(report: Report) -> Iterator[str]:
    yield from ("## Disks", "")
    for disk, made in zip(report.plan.disks, report.published, strict=True):
        space = f"{'reserved' if disk.preallocate else 'sparse'}: {disk.preallocate_reason}"
        source = f"{disk.format} {plain(disk.subformat)}, {size(disk.virtual_size)}"
        rows = [
            ("Source", f"{code(str(disk.at))} ({source})"),
            ("Image", f"{code(made.path.name)}, {report.image.format}, {size(made.file_bytes)} on disk"),
            *([("Size", f"grown to {size(made.virtual_size)}")] if made.virtual_size > disk.virtual_size else []),
            ("SHA-256", made.sha256 or NO_CHECKSUM),
            ("Space", plain(space)),
        ]
        yield from (*table(rows), "")


def _guest(report: Report) -> Iterator[str]:
    guest = report.guest
    of_linux = [("Kernels", plain(", ".join(guest.kernels) or "none found"))]
    yield from ("## Guest", "")
    yield from table(
        [
            ("System", plain(guest.os_name or _without_name(report))),
            ("Host name", plain(guest.hostname or "unknown")),
            *([("Windows", plain(_release(guest.windows)))] if guest.windows else of_linux),
            ("Boot loader", plain(guest.boot_loader or "none found")),
            ("Volume of Windows" if guest.windows else "Root", plain(guest.root or "none")),
        ]
    )
    volumes = [(one.name, one.content, one.uuid or "", size(one.length)) for one in report.plan.layout.volumes]
    yield from ("", "## Volumes", "", *columns(("volume", "content", "UUID", "size"), volumes))
    yield from _windows(guest.windows) if guest.windows else ()


def _changes(report: Report) -> Iterator[str]:
    """The files that are replaced as a whole in one table, and one section for each other file."""
    guest = report.guest
    yield from ("", "## Changes in the guest", "")
    if not guest.changes:
        yield from ("None.", "")
    whole = [change for change in guest.changes if change.sha256]
    if whole:
        rows = [(one.path, size(one.size or 0), one.sha256, one.summary) for one in whole]
        yield from (*columns(("file", "size", "SHA-256", "what it is"), rows), "")
    others: dict[str, list[Change]] = {}
    for change in guest.changes:
        if not change.sha256:
            others.setdefault(change.path, []).append(change)
    for path, changes in others.items():
        yield from (f"### {plain(path)}", "")
        for change in changes:
            yield from (f"{plain(change.summary)} ({change.fix})", "")
            yield from (*fenced(change.diff, "diff"), "") if change.diff else ()
    if report.order.migration.print_fstab:
        yield from ("## /etc/fstab before", "", *fenced(guest.fstab_before), "")
        yield from ("## /etc/fstab after", "", *fenced(guest.fstab_after), "")


def _evidence(verdict: Verdict) -> Iterator[str]:
    yield from (f"## Evidence (verify: {verdict.level})", "", *(f"- {plain(item)}" for item in verdict.evidence))
    if verdict.boot_seconds is not None:
        yield from ("", f"Time to boot: {duration(verdict.boot_seconds)}.")
    if verdict.console_tail:
        yield from ("", "Last lines of the console:", "", *fenced("\n".join(verdict.console_tail)))


def _without_name(report: Report) -> str:
    return NOT_INSPECTED if report.order.migration.guest == "none" else report.guest.family


def _release(facts: WindowsFacts) -> str:
    words = [f"build {facts.build}", facts.version, facts.edition, f"{facts.system_root}, {facts.control_set}"]
    return ", ".join(filter(None, words))


def _windows(facts: WindowsFacts) -> Iterator[str]:
    """The drivers, and the adapters that the registry knows."""
    drivers = [(one.name, one.version, one.signer or "not signed", one.note) for one in facts.drivers]
    files = [(file.name, one.name, file.sha256) for one in facts.drivers for file in one.files]
    files += [(facts.agent.name, "QEMU's guest agent", facts.agent.sha256)] if facts.agent else []
    adapters = [(one.name, one.mac or "unknown", _settings(one), one.device) for one in facts.adapters]
    yield from ("", "## Drivers", "")
    yield from columns(("driver", "version", "signer", "note"), drivers) if drivers else ("None were added.",)
    if files:
        yield from ("", *columns(("file", "driver", "SHA-256"), files))
    yield from ("", "## Network adapters in the registry", "")
    yield from columns(("name", "MAC address", "settings", "device"), adapters) if adapters else ("None.",)


def _settings(adapter: WindowsAdapter) -> str:
    parts = [("", adapter.addresses), ("gateway ", adapter.gateways), ("DNS ", adapter.name_servers)]
    said = [f"{what}{', '.join(found)}" for what, found in parts if found]
    return "; ".join([*(["DHCP"] if adapter.dhcp else []), *said])


def _machine(report: Report) -> Iterator[str]:
    shown = overview(report.order.migration, report.plan, report.hardware, report.guest)
    yield from ("## Machine", "")
    yield from table([(name, plain(value)) for name, value in shown.facts])
    yield from ("", *columns(DISK_HEADINGS, shown.disks), "", *columns(CARD_HEADINGS, shown.cards))
