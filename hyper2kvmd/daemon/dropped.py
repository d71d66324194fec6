"""Checks one file that was dropped into the spool, and reads its machines. `h2kvmctl check --spool` asks it as well."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd import spec
from hyper2kvmd.daemon.names import original
from hyper2kvmd.daemon.wire import MAX_TEXT
from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.host import acl
from hyper2kvmd.host.person import READ, SEARCH, WRITE, Person
from hyper2kvmd.model.jobs import Job, Problem

MAX_ERROR = 300
"""Characters of an unexpected error that are shown."""


@dataclass(frozen=True)
class Dropped:
    """The content of a file that its owner asks for."""

    data: bytes
    machines: Sequence[spec.Parsed]

    def keys(self, owner: Person) -> tuple[str, ...]:
        """The content key of each machine."""
        return tuple(content_key(self.data, owner.name, one.migration.vm_name) for one in self.machines)


def content_key(data: bytes, submitter: str, vm_name: str) -> str:
    """The same key for the same text, submitter and VM name, which may come from the file name.

    A copy by another user is not the same submission.
    """
    return hashlib.sha256(b"\0".join((submitter.encode(), vm_name.encode(), data))).hexdigest()


def read(owner: Person, path: Path, incoming: Path, service: Person) -> Dropped:
    """The machines of a file that only `owner` can have written and dropped. Raises InvalidInput, and OSError."""
    text = _asked_by(owner, path, incoming, service)
    machines = spec.parse(text, home=owner.home(), default_name=Path(original(path.name)).stem)
    return Dropped(text.encode(), machines)


def duplicate(what: str, job: Job) -> Problem:
    return Problem(
        code="duplicate",
        message=f"{what} has the same content as job {job.id}, which {job.state.said}",
        hint="Wait for that job. To run it again, drop the file again after that job has finished",
        kind="permanent",
    )


def unexpected(name: str, error: Exception) -> Problem:
    """For a file that shows an error of this program."""
    return Problem(
        code="spool-unexpected",
        message=f"{name} cannot be processed: {type(error).__name__}: {printable(str(error))[:MAX_ERROR]}",
        hint="Write the file anew as plain text. Report this message if it comes again",
        kind="permanent",
    )


def printable(text: str) -> str:
    """The text without surrogates, which no log and no database takes."""
    return text.encode(errors="backslashreplace").decode()


def _asked_by(owner: Person, path: Path, incoming: Path, service: Person) -> str:
    """Files of the service's own user are refused, unless it is root: they may be results of a job."""
    fact = f"belongs to {owner.name}, the user that this service runs as"
    remedy = "Drop it as the user who needs the migration, or use `h2kvmctl submit`"
    _require(owner.uid != service.uid or owner.uid == 0, "spool-own-file", path, fact, remedy)
    data = _read(path, owner, service)
    theirs = owner.may(WRITE | SEARCH, incoming)
    fact = f"belongs to {owner.name}, who may not drop files here"
    _require(theirs, "spool-not-theirs", path, fact, "Drop a copy of your own (cp, not mv)")
    return _text(data)


def being_written(path: Path) -> bool:
    """Whether a process has the file open for writing.

    The kernel grants a read lease only if none has, and only on files of our own (or with CAP_LEASE). For other files
    only the rule of STABLE_SECONDS applies.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except BlockingIOError:  # a write lease
        return True
    except OSError:
        return False
    try:
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGURG)  # a broken lease's SIGIO would kill us; SIGURG is ignored
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _read(path: Path, owner: Person, service: Person) -> bytes:
    """The content of a small regular file with one name that only its owner may write. Raises InvalidInput."""
    _require(stat.S_ISREG(path.lstat().st_mode), "spool-not-a-file", path, "is not a regular file", "Drop a plain file")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (PermissionError, BlockingIOError) as error:  # no permission, or a write lease
        raise _unreadable(path) from error
    try:
        facts = os.fstat(handle)
        if service.uid != os.geteuid() and not service.may(READ, handle):  # else the kernel has judged
            raise _unreadable(path)
        _require(stat.S_ISREG(facts.st_mode), "spool-not-a-file", path, "is not a regular file", "Drop a plain file")
        _require(facts.st_nlink == 1, "spool-hard-linked", path, "has a second hard link", "Drop a copy instead")
        shared = facts.st_mode & stat.S_IWOTH or (
            facts.st_mode & stat.S_IWGRP and (acl.entries(handle) or not owner.alone_in(facts.st_gid))
        )
        _require(
            not shared,
            "spool-shared",
            path,
            "can be written by others",
            "Remove the write permission of others (chmod go-w), then drop it again",
        )
        size = f"has {facts.st_size} bytes, more than {MAX_TEXT}"
        _require(facts.st_size <= MAX_TEXT, "spool-too-large", path, size, "Drop the migration YAML only")
        data = b""
        while chunk := os.read(handle, MAX_TEXT + 1 - len(data)):
            data += chunk
        return data[:MAX_TEXT]
    finally:
        os.close(handle)


def _unreadable(path: Path) -> InvalidInput:
    return InvalidInput(
        "spool-unreadable",
        f"{original(path.name)} cannot be read by the daemon",
        hint="Drop a copy (cp, not mv), which the daemon's group can read, or make it readable (chmod o+r)",
    )


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            "spool-not-utf8",
            f"the file is not UTF-8: byte {error.start} is {data[error.start]:#04x}",
            hint="Save the file as UTF-8",
        ) from error


def _require(condition: bool, code: str, path: Path, fact: str, hint: str) -> None:
    if not condition:
        raise InvalidInput(code, f"{original(path.name)} {fact}", hint=hint)
