"""Traces that a system writes to its own disk only when it comes up: proof of a boot without console output.

They are counted before and after, so that earlier boots do not count. In wtmp they are gettys and runlevels 2 to 5
(emergency mode and a rescue shell write neither); in the journal, messages that a target at the end of the boot was
reached. A journal keeps equal messages once and counts their entries.

Sources: utmp(5), systemd's JOURNAL_FILE_FORMAT.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from hyper2kvmd.guest.files.tree import GuestTree, printable

VOLUMES = ("/var", "/var/log")
"""Mount points below which the traces may be."""
WTMP = "/var/log/wtmp"
RECORD = struct.Struct("<hxxi32s")
"""Type, process (or runlevel), terminal: the head of each record."""
RECORD_SIZE = 384
RUNLEVEL, LOGIN_PROCESS = 1, 6
WTMP_READ = 4 << 20
"""Bytes: no boot adds more."""
JOURNALS = "/var/log/journal/*/system.journal"
JOURNAL_READ = 128 << 20
"""Bytes: journald begins a new file before that."""
JOURNAL_HEADER = struct.Struct("<8s4xI8x16s")
"""Signature, incompatible flags, the file's own id."""
COMPACT = 1 << 4
REACHED = re.compile(
    rb"MESSAGE=Reached target (?:(?:multi-user|graphical)\.target - )?(Multi-User System|Graphical Interface)\.?"
)


@dataclass(frozen=True)
class Journal:
    identity: bytes
    """journald gives each file its own; at boot it puts an unclean one aside and starts a new one."""
    reached: int
    """Entries that show that the boot's last target was reached."""


@dataclass(frozen=True)
class Traces:
    wtmp_size: int
    journals: dict[str, Journal]


def traces(tree: GuestTree) -> Traces:
    """The current traces, for a later comparison. Raises OSError, MigrationFailed."""
    journals = {path: _journal(tree, path) for path in tree.glob(JOURNALS) if tree.is_file(path)}
    return Traces(tree.size(WTMP) if tree.is_file(WTMP) else 0, journals)


def new_since(before: Traces, tree: GuestTree) -> tuple[str, ...]:
    """The traces that a boot has left since then, in words. Raises as `traces` does."""
    found = _logins(tree, before.wtmp_size) if tree.is_file(WTMP) else []
    for path, journal in traces(tree).journals.items():
        earlier = before.journals.get(path)
        known = earlier.reached if earlier and earlier.identity == journal.identity else 0
        if journal.reached > known:
            found.append("its journal shows that it reached its multi-user or graphical target")
    return tuple(found)


def _logins(tree: GuestTree, known: int) -> list[str]:
    with tree.open(WTMP) as stream:
        stream.seek(known if known <= tree.size(WTMP) else 0)  # a smaller one was begun anew
        data = stream.read(WTMP_READ)
    terminals, levels = set(), set()
    for at in range(0, len(data) - RECORD_SIZE + 1, RECORD_SIZE):
        kind, number, line = RECORD.unpack_from(data, at)
        if kind == LOGIN_PROCESS:
            terminals.add(printable(line.partition(b"\0")[0].decode("ascii", errors="replace")))
        elif kind == RUNLEVEL and chr(number & 0xFF) in "2345":
            levels.add(chr(number & 0xFF))
    found = [f"its wtmp shows that it entered runlevel {level}" for level in sorted(levels)]
    return [
        *found,
        *([f"its wtmp shows that logins were offered on {', '.join(sorted(terminals))}"] if terminals else []),
    ]


def _journal(tree: GuestTree, path: str) -> Journal:
    with tree.open(path) as stream:
        data = stream.read(JOURNAL_READ)
    if len(data) < JOURNAL_HEADER.size:
        return Journal(b"", 0)
    _, flags, identity = JOURNAL_HEADER.unpack_from(data)
    # n_entries is the last number before the payload, or the last but one where offsets have 32 bits
    back = 16 if flags & COMPACT else 8
    matches = REACHED.finditer(data, JOURNAL_HEADER.size)
    return Journal(identity, sum(struct.unpack_from("<Q", data, match.start() - back)[0] for match in matches))
