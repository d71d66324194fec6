"""Why a database cannot be used, as errors with their remedies."""

from __future__ import annotations

import os
import pwd
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from hyper2kvmd.errors import BrokenInstallation, TryLater

BUSY_SECONDS = 30.0
"""How long a transaction waits for that of another process."""
CORRECT_IT = "Correct its owner, mode and file system, or set database_url to another database"


def corrupt(path: Path, fact: str) -> BrokenInstallation:
    """For a file that is damaged on the disk."""
    command = as_owner(path, "h2kvmctl database")
    return BrokenInstallation(
        "database-corrupt",
        f"the database {path} is damaged: {fact}",
        hint=f"Run `systemctl stop hyper2kvmd`, then `{command} restore` (without any backup: `{command} rebuild`), "
        "then `systemctl start hyper2kvmd`",
    )


def missing(path: Path) -> BrokenInstallation:
    """For a file that was there, or that no daemon has made yet."""
    command = as_owner(path.parent, "h2kvmctl database")
    return unreadable(
        path,
        "it does not exist",
        hint=f"The daemon makes it when it starts. If it was lost, run `{command} restore` before (without any backup: "
        f"`{command} rebuild`)",
    )


def server_corrupt(name: str, fact: str) -> BrokenInstallation:
    return BrokenInstallation(
        "database-corrupt",
        f"the database {name} is damaged: {fact}",
        hint="Restore it from a backup of the database server",
    )


def unavailable(path: Path | str, fact: str) -> TryLater:
    return TryLater(
        "database-unavailable",
        f"the database {path} cannot be read or written now: {fact}",
        hint="Check the space, the mode and the disk of its file system; work goes on when they are in order",
    )


def server_unavailable(name: str, fact: str) -> TryLater:
    return TryLater(
        "database-unavailable",
        f"the database {name} does not respond: {fact}",
        hint="Start its server, or correct database_url; work goes on when it responds",
    )


def not_on_disk(path: Path, fact: str) -> TryLater:
    """For damage that was read, but is not in the file."""
    return TryLater(
        "database-unavailable",
        f"the database {path} was read with errors ({fact}), but the file on the disk is whole",
        hint="Check the memory, the disk and the file system of this host (`journalctl -k`); it is tried again",
    )


def busy(name: str) -> TryLater:
    return TryLater(
        "database-busy",
        f"another program has held a lock on the database {name} for {BUSY_SECONDS:.0f} s",
        hint="Let it finish, or end it (`fuser` names it), then try again",
    )


def unreadable(name: Path | str, fact: str, hint: str = CORRECT_IT) -> BrokenInstallation:
    return BrokenInstallation("database-unreadable", f"the database {name} cannot be used: {fact}", hint=hint)


def denied(path: Path, fact: str) -> BrokenInstallation:
    """This user has no permission: either another user has to run the command, or the permissions are wrong."""
    command = " ".join(map(shlex.quote, [Path(sys.argv[0]).name, *sys.argv[1:]]))
    owner = _other_owner(path)
    if owner is None:
        return unreadable(path, fact)
    return unreadable(path, fact, f"It belongs to {owner}. Run `sudo -u {owner} {command}`")


def as_owner(path: Path, command: str) -> str:
    """The command, as the owner of the file has to run it."""
    owner = _owner_name(path)
    return f"sudo -u {owner} {command}" if owner not in (None, "root") else command


def _other_owner(path: Path) -> str | None:
    """The name of the owner, unless that is root or this user."""
    owner = _owner(path)
    return None if owner in (None, 0, os.geteuid()) else _owner_name(path)


def _owner_name(path: Path) -> str | None:
    owner = _owner(path)
    with suppress(KeyError):
        return None if owner is None else pwd.getpwuid(owner).pw_name
    return None


def _owner(path: Path) -> int | None:
    """Of the database, or of its directory if this user may not look into it."""
    for place in (path, path.parent):
        with suppress(OSError):
            return place.stat().st_uid
    return None
