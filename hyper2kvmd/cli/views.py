"""Shows results and problems to people; `--json` prints the types themselves instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from hyper2kvmd.cli.output import Output, located, more_about
from hyper2kvmd.units import size

if TYPE_CHECKING:
    from hyper2kvmd.cli.cleanup import Removed
    from hyper2kvmd.model.asked import Migration
    from hyper2kvmd.model.concerns import Concern
    from hyper2kvmd.model.jobs import Problem
    from hyper2kvmd.model.results import Finished


def finished(output: Output, asked: Migration, result: Finished) -> None:
    """The results and their paths. Warnings were shown when they occurred."""
    if asked.print_fstab and result.guest is not None:
        for title, text in (("before", result.guest.fstab_before), ("after", result.guest.fstab_after)):
            output.line(f"/etc/fstab {title}:", style="bold")
            for line in text.splitlines():
                output.line(f"  {line}")
    rows = []
    if result.artifact is not None:
        rows += [("image", f"{disk.path} ({size(disk.file_bytes)})") for disk in result.artifact.disks]
        rows += [("report", str(result.artifact.report_markdown)), ("", str(result.artifact.report_json))]
        rows += [("sha256", disk.sha256) for disk in result.artifact.disks if disk.sha256]
    if (registration := result.registration) is not None:
        rows += [("definition", str(file)) for file in registration.files]
        if registration.defined:
            names = ", ".join(filter(None, (registration.name, registration.identity)))
            rows += [("defined in", f"{registration.uri}: {names}")]
    if result.verdict is not None:
        rows += [("proof", one) for one in result.verdict.evidence]
    output.facts(rows)


def notes(output: Output, listed: Iterable[Concern]) -> None:
    for one in listed:
        warned = one.level == "warning"
        output.line(f"{'warning' if warned else 'note'}: {one}", style="yellow" if warned else "")


def removed(output: Output, result: Removed, *, dry_run: bool) -> None:
    verb = "would remove" if dry_run else "removed"
    for path in (*result.folders, *result.spool_files):
        output.line(f"{verb} {path}")
    for path in result.quarantined:
        output.line(f"no job knows {path}: it stays for a day")
    for path in result.mounts:
        output.line(f"{'would detach' if dry_run else 'detached'} the mount of a killed worker on {path}")
    for path in result.output_files:
        output.line(f"{'would clean' if dry_run else 'cleaned'} up {path}, which a killed job had left")
    if result.jobs:
        output.line(f"{verb} {result.jobs} finished jobs from the database")
    if not any(value for _, value in result):
        output.line("nothing to remove")
    problems(output, result.problems)


def problems(output: Output, listed: Sequence[Problem]) -> None:
    for one in listed:
        output.line(located(one, ""), style="red")
    if listed and output.console.is_terminal:
        output.line(more_about(listed[0].code), style="dim")
