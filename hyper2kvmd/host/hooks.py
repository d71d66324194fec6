"""Hooks: programs of the administrator that a job starts before its conversion and after its last stage."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from hyper2kvmd.errors import Kind, MigrationFailed
from hyper2kvmd.findings import Findings
from hyper2kvmd.host import run
from hyper2kvmd.host.person import Person, strangers_may_write
from hyper2kvmd.model.asked import Hooks
from hyper2kvmd.model.frozen import Frozen

Moment: TypeAlias = Literal["before", "after"]
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
EXECUTABLE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
MAX_LINKS = 40
"""The kernel's limit."""


class HookInput(Frozen):
    """What a hook reads as one JSON object on its stdin."""

    moment: Moment
    job_id: str
    attempt: int
    vm_name: str
    submitter: str | None
    sources: tuple[Path, ...]
    target: str
    images: tuple[Path, ...] = ()
    """The published images; none before the conversion."""
    report: Path | None = None
    """The report as JSON; None before the conversion."""


def check_hooks(hooks: Hooks, allowed: Mapping[str, Path]) -> None:
    """Raise MigrationFailed (`hook-not-allowed`, `hook-unusable`; several as `several-problems`)."""
    findings = Findings()
    for name in dict.fromkeys((*hooks.before, *hooks.after)):
        with findings.noted():
            _usable(name, allowed)
    findings.require_none()


def run_hook(name: str, allowed: Mapping[str, Path], told: HookInput) -> None:
    """Run the hook to its end, as this process's user, with `told` on its stdin. What it leaves running is killed.

    Raises MigrationFailed: as `check_hooks` does, and `hook-failed` if it fails, or stalls as `run.run` describes.
    """
    program = _usable(name, allowed)
    with os.fdopen(os.memfd_create("hook-input", os.MFD_CLOEXEC), "w+b") as given:
        given.write(told.model_dump_json().encode(errors="replace") + b"\n")
        given.seek(0)
        try:
            done = run.run([str(program)], check=False, stdin=given.fileno(), kept=True)
        except MigrationFailed as failure:
            raise _failed(name, program, failure.message) from failure
    if done.returncode:
        said = " / ".join((done.stderr.strip() or done.stdout.strip())[-run.OUTPUT_TAIL :].splitlines())
        raise _failed(name, program, f"exit status {done.returncode}{': ' + said if said else ''}")


def _usable(name: str, allowed: Mapping[str, Path]) -> Path:
    """The program, which nobody but root and this process's user can change or replace."""
    program = allowed.get(name)
    if program is None:
        listed = f" ({', '.join(allowed)})" if allowed else ""
        raise MigrationFailed(
            "hook-not-allowed",
            f"the hook {name} is not among those of the configuration{listed}",
            hint="Remove it, or ask the administrator to add it to hooks in /etc/hyper2kvm/hyper2kvmd.yaml",
        )
    if fault := program_fault(program, Person.of(os.geteuid())):
        raise _unusable(name, fault)
    return program


def program_fault(program: Path, user: Person) -> str | None:
    """Why `user` cannot run the program, or why others than root and that user could change or replace it."""
    try:
        found = program.stat()
    except OSError as error:
        return f"{program}: {error.strerror}"
    if not stat.S_ISREG(found.st_mode) or not user.may(os.X_OK, program) or not found.st_mode & EXECUTABLE:
        return f"{program} is not an executable file"
    if found.st_uid not in (0, user.uid) or found.st_mode & OTHERS_WRITE:
        return f"{program} can be changed by other users"
    for directory in _directories(program):
        if _can_be_changed(directory, user):
            return f"{program} can be replaced by other users, who can write to {directory}"
    return None


def _directories(program: Path) -> Iterator[Path]:
    """Every directory in which a part of the path is looked up, those of links included."""
    real, left, links = Path("/"), list(reversed(program.parts[1:])), 0
    while left:
        name = left.pop()
        if name == "..":
            real = real.parent
            continue
        yield real
        real /= name
        if real.is_symlink() and links < MAX_LINKS:  # of more, `stat` has failed before
            links += 1
            left += reversed(real.readlink().parts)
            real = real.parent


def _can_be_changed(directory: Path, own: Person) -> bool:
    """Whether others can give its names to other files; in a sticky directory, only their own names."""
    facts = directory.lstat()
    if facts.st_uid not in (0, own.uid):
        return True
    return not facts.st_mode & stat.S_ISVTX and strangers_may_write(directory, own)


def _unusable(name: str, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "hook-unusable",
        f"the hook {name} cannot be started: {fact}",
        hint="Install it as root with mode 0755, or correct its path in hooks in /etc/hyper2kvm/hyper2kvmd.yaml",
        kind=Kind.OPERATOR,
    )


def _failed(name: str, program: Path, fact: str) -> MigrationFailed:
    return MigrationFailed(
        "hook-failed",
        f"the hook {name} ({program}) failed: {fact}",
        hint="Correct what the hook reports, then retry the job",
        kind=Kind.OPERATOR,
    )
