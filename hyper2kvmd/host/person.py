"""The person who submitted something, and a file's permissions for them.

The daemon opens files with its own rights, but only those that the person could open. Only a process of that person
could ask the kernel, so owner, group, others and POSIX ACLs are evaluated here, with groups from the user database, not
from a running session.

Source: acl(5), section "Access check algorithm".
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd.host import acl
from hyper2kvmd.model.jobs import NOBODY_AT_ALL
from hyper2kvmd.model.orders import Order

READ, WRITE, SEARCH = 4, 2, 1


@dataclass(frozen=True)
class Person:
    name: str
    uid: int
    groups: frozenset[int]

    @staticmethod
    def of(uid: int) -> Person:
        """Found by the uid alone: the name may by now belong to another user, or to two users."""
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            return Person("" if uid == NOBODY_AT_ALL else str(uid), uid, frozenset())
        return Person(entry.pw_name, uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)))

    @staticmethod
    def named(name: str) -> Person | None:
        """The user with this name; None if there is none."""
        try:
            return Person.of(pwd.getpwnam(name).pw_uid)
        except KeyError:
            return None

    @staticmethod
    def who_submitted(order: Order) -> Person | None:
        """None for the user of this process."""
        return None if order.submitter is None else Person.of(order.submitter_uid)

    def home(self) -> Path | None:
        """Their home directory from the user database, not from an environment; None if it is unknown."""
        try:
            home = Path(pwd.getpwuid(self.uid).pw_dir)
        except KeyError:
            return None
        return home if home.is_absolute() else None

    def alone_in(self, group: int) -> bool:
        """Whether this is their private group: it has their name and no other member."""
        try:
            entry = grp.getgrgid(group)
        except KeyError:
            return False
        if entry.gr_name != self.name or not set(entry.gr_mem) <= {self.name}:
            return False
        return not any(user.pw_gid == group and user.pw_uid != self.uid for user in pwd.getpwall())

    def may(self, wanted: int, file: int | Path) -> bool:
        """Whether the open file or folder `file` grants them all rights in `wanted`. Raises OSError."""
        facts = os.fstat(file) if isinstance(file, int) else file.stat()
        if self.uid == 0:
            return True
        if self.uid == facts.st_uid:
            return facts.st_mode >> 6 & wanted == wanted
        masked = facts.st_mode >> 3 & 7  # with an ACL, these mode bits are its mask
        entries = acl.entries(file) if masked else ()  # the kernel ignores an ACL that masks everything
        for entry in entries:
            if (entry.tag, entry.number) == (acl.USER, self.uid):
                return entry.granted & masked & wanted == wanted
        own = [entry.granted for entry in entries if entry.tag == acl.GROUP and entry.number in self.groups]
        if facts.st_gid in self.groups:
            own += [entry.granted for entry in entries if entry.tag == acl.OWNING_GROUP] or [masked]
        if own:
            return any(granted & masked & wanted == wanted for granted in own)
        return facts.st_mode & wanted == wanted


def group_name(number: int) -> str:
    """Its name, or its number if it has none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def strangers_may_write(folder: int | Path, user: Person) -> bool:
    """Whether others may than root, its owner, and `user` by a private group. Raises OSError."""
    facts = os.fstat(folder) if isinstance(folder, int) else folder.lstat()
    if not facts.st_mode & stat.S_IWGRP:  # with an ACL, the limit of its named entries
        return bool(facts.st_mode & stat.S_IWOTH)
    return bool(facts.st_mode & stat.S_IWOTH) or not user.alone_in(facts.st_gid) or bool(acl.entries(folder))


def name_of(handle: int) -> Path:
    """The kernel's path of an open file or directory."""
    return Path(f"/proc/self/fd/{handle}").readlink()


def lineage(handle: int) -> Iterator[int]:
    """The open directory, then every one above it up to the root, from the kernel; each is open during its turn."""
    folder = os.dup(handle)
    try:
        while True:
            yield folder
            parent = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
            here, there = os.fstat(folder), os.fstat(parent)
            top = (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
            os.close(folder)
            folder = parent
            if top:
                return
    finally:
        os.close(folder)
