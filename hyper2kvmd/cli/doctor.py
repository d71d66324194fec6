"""`h2kvmctl doctor`: examines the host and says what to do about each defect."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from hyper2kvmd import config
from hyper2kvmd.cli.checks import boundary, directories, kernel, notifications, people, programs, services
from hyper2kvmd.cli.checks.check import Check, CheckedSubject, Host, Level, Line, error, examine, not_checked, ok
from hyper2kvmd.cli.options import FILE
from hyper2kvmd.cli.output import Output, json_option, printable
from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.errors import BrokenInstallation
from hyper2kvmd.host.person import Person

COLOURS: dict[Level, str] = {"ok": "green", "warning": "yellow", "error": "red", "not checked": "blue"}
WIDTH = max(map(len, COLOURS))


@click.command()
@click.option(
    "--config", "file", type=FILE, default=config.DEFAULT_PATH, show_default=True, help="The daemon's configuration."
)
@json_option
@click.pass_obj
def doctor(output: Output, file: Path) -> None:
    """Examine this host: programs, rights, kernel, directories, daemon.

    Each line is ok, warning, error or not checked, and says what to do. Everything is done with the rights of the user
    who calls it: run it as root for the whole report. A mount or a service that does not answer is reported after 15
    seconds. The exit status is 1 if there are errors.
    """
    settings, line = _configuration(file)
    found = examine(tuple(_checks(settings)), Host(settings, Person.of(os.geteuid())))
    sections = (CheckedSubject(title="Configuration", lines=(line,)), *found)
    counts = _counts(sections)
    if output.json:
        output.data({"sections": sections, "counts": counts})
    else:
        _show(sections, counts)
    if counts["error"]:
        raise click.exceptions.Exit(1)


def _checks(settings: DaemonConfig) -> Iterator[Check]:
    yield from programs.checks()
    yield from people.checks()
    yield from boundary.checks()
    yield from kernel.checks()
    yield from services.checks()
    yield from directories.checks(settings)
    yield from notifications.checks(settings)


def _configuration(file: Path) -> tuple[DaemonConfig, Line]:
    """The daemon's configuration, or the defaults if it cannot be used, and what is said about it."""
    thing = f"configuration {file}"
    if not _may_read(file):
        fact = "this user cannot read it: defaults are used"
        return DaemonConfig(), not_checked(thing, fact, "Run `sudo h2kvmctl doctor`")
    try:
        loaded = config.load_with_origins(file)
    except BrokenInstallation as failure:
        return DaemonConfig(), error(thing, failure.message, failure.hint)
    return loaded.config, ok(thing, "valid" if loaded.exists else "does not exist: every key has its default")


def _may_read(file: Path) -> bool:
    """Whether this user can read it, or see that it does not exist."""
    try:
        return not file.exists() or os.access(file, os.R_OK)
    except PermissionError:
        return False


def _counts(sections: Sequence[CheckedSubject]) -> dict[Level, int]:
    levels = [line.level for section in sections for line in section.lines]
    return {level: levels.count(level) for level in COLOURS}


def _show(sections: Sequence[CheckedSubject], counts: dict[Level, int]) -> None:
    for section in sections:
        click.secho(section.title, bold=True)
        for line in section.lines:
            _show_line(line)
    click.echo(", ".join(f"{number} {level}" for level, number in counts.items()))


def _show_line(line: Line) -> None:
    first, *others = (printable(part) for part in line.fact.splitlines())
    word = click.style(f"{line.level:<{WIDTH}}", fg=COLOURS[line.level])
    click.echo(f"  {word}  {printable(line.object)}: {first}")
    for text in (*others, *([f"{line.remedy}."] if line.remedy else [])):
        click.echo(f"  {'':<{WIDTH}}    {printable(text)}")


COMMANDS: list[click.Command] = [doctor]
