"""Who asked for something, and what a file's permissions let them do.

The daemon opens files with its own rights. What it opens for somebody else they must be able to open themselves, and
the kernel cannot be asked that without being them: so owner, group, others and POSIX ACLs are judged here as it would.
Groups are those of the user database, not those that somebody's session still has.

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
        """Found by the uid alone: a name may belong to somebody else by now, or to two users."""
        try:
            entry = pwd.getpwuid(uid)
        except KeyError:
            return Person("" if uid == NOBODY_AT_ALL else str(uid), uid, frozenset())
        return Person(entry.pw_name, uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)))

    @staticmethod
    def who_submitted(order: Order) -> Person | None:
        """None for whoever runs this program."""
        return None if order.submitter is None else Person.of(order.submitter_uid)

    def alone_in(self, group: int) -> bool:
        """Whether that is their own private group: called as they are, and with no other member."""
        try:
            entry = grp.getgrgid(group)
        except KeyError:
            return False
        if entry.gr_name != self.name or not set(entry.gr_mem) <= {self.name}:
            return False
        return not any(user.pw_gid == group and user.pw_uid != self.uid for user in pwd.getpwall())

    def may(self, wanted: int, target: int | Path) -> bool:
        """Whether the open file or the folder `target` grants them all of `wanted`. Raises OSError."""
        facts = os.fstat(target) if isinstance(target, int) else target.stat()
        if self.uid == 0:
            return True
        if self.uid == facts.st_uid:
            return facts.st_mode >> 6 & wanted == wanted
        masked = facts.st_mode >> 3 & 7  # with an ACL these bits of the mode are its mask
        entries = acl.entries(target) if masked else ()  # the kernel does not look at one that masks everything
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
    """Its name, or its number where it has none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def strangers_may_write(folder: int | Path, user: Person) -> bool:
    """Whether anybody may but root, its owner, and `user` by a private group. Raises OSError."""
    facts = os.fstat(folder) if isinstance(folder, int) else folder.lstat()
    if not facts.st_mode & stat.S_IWGRP:  # with an ACL: what it grants to anybody it names
        return bool(facts.st_mode & stat.S_IWOTH)
    return bool(facts.st_mode & stat.S_IWOTH) or not user.alone_in(facts.st_gid) or bool(acl.entries(folder))


def name_of(handle: int) -> Path:
    """The path that the kernel has for what is open."""
    return Path(f"/proc/self/fd/{handle}").readlink()


def lineage(handle: int) -> Iterator[int]:
    """The open directory, then every one above it up to the root, as the kernel has them; each open for its turn."""
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
