"""Delivers notifications to the programs in a directory of the administrator."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.host import run
from hyper2kvmd.host.hooks import EXECUTABLE, program_fault
from hyper2kvmd.host.person import Person
from hyper2kvmd.model.notifications import Destination, Notification

SECONDS = 60.0
"""For each program."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""No hidden files, and none that an editor left with `~` or `#`."""


def deliver(destination: Destination, notification: Notification) -> None:
    """Run the programs in the order of their names, until one fails. Raises MigrationFailed (`notify-program`)."""
    given = notification.model_dump_json(exclude_none=True).encode(errors="replace") + b"\n"
    for program in programs(destination, Person.of(os.geteuid())):
        try:
            fault = run.run_within(SECONDS, [str(program)], given, _environment(notification))
        except OSError as error:
            fault = error.strerror or str(error)
        if fault:
            raise _failed(f"{program} failed: {fault}")


def programs(destination: Destination, user: Person) -> tuple[Path, ...]:
    """The executable files, none of which others than root and `user` can change or replace.

    Raises MigrationFailed (`notify-program`).
    """
    folder = destination.hook_dir
    assert folder is not None  # noqa: S101 - narrows the type
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if NAME.fullmatch(entry.name))
        found = tuple(folder / name for name in names if _is_program(folder / name))
    except OSError as error:
        raise _failed(f"hook_dir {folder}: {error.strerror}") from error
    if not found:
        raise _failed(f"hook_dir {folder} has no executable file")
    for program in found:
        if fault := program_fault(program, user):
            raise _failed(fault)
    return found


def _is_program(path: Path) -> bool:
    """Also a link without a target, so that it is reported."""
    if not path.exists():
        return path.is_symlink()
    facts = path.stat()
    return stat.S_ISREG(facts.st_mode) and bool(facts.st_mode & EXECUTABLE)


def _environment(notification: Notification) -> Mapping[str, str]:
    """Only what has a fixed form. The rest is in the JSON."""
    job = {} if notification.job is None else {"HYPER2KVM_JOB": str(notification.job.id)}
    batch = {} if notification.batch is None else {"HYPER2KVM_BATCH": str(notification.batch.id)}
    return {"HYPER2KVM_EVENT": notification.event, "HYPER2KVM_NOTIFICATION": notification.id, **job, **batch}


def _failed(fact: str) -> MigrationFailed:
    return MigrationFailed(
        "notify-program",
        fact,
        hint="Correct what this message names. Programs in hook_dir belong to root, with mode 0755",
        kind=Kind.OPERATOR,
    )
