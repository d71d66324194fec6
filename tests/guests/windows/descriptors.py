"""Security descriptors as an installed Windows has them.

Source: MS-DTYP 2.4.2 (SID), 2.4.4 (ACE), 2.4.5 (ACL), 2.4.6 (security descriptor).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

FULL, READ = 0x1F01FF, 0x1200A9
ADMINISTRATORS, USERS, LOCAL_SYSTEM = "S-1-5-32-544", "S-1-5-32-545", "S-1-5-18"
TRUSTED_INSTALLER = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
INHERITED_BY_ALL = 0x3
SELF_RELATIVE, HAS_DACL = 0x8000, 0x4


@dataclass(frozen=True)
class Protection:
    owner: str
    allowed: tuple[tuple[str, int], ...]
    """Who, and which rights, as a mask."""

    def descriptor(self, flags: int = 0) -> bytes:
        """`flags` are for each entry."""
        entries = b""
        for who, mask in self.allowed:
            body = struct.pack("<I", mask) + sid(who)
            entries += struct.pack("<BBH", 0, flags, 4 + len(body)) + body
        acl = struct.pack("<BBHHH", 2, 0, 8 + len(entries), len(self.allowed), 0) + entries
        name = sid(self.owner)
        head = struct.pack("<BBHIIII", 1, 0, SELF_RELATIVE | HAS_DACL, 20, 20 + len(name), 0, 20 + 2 * len(name))
        return head + name + name + acl


def sid(text: str) -> bytes:
    _s, revision, authority, *parts = text.split("-")
    head = struct.pack(">BBHI", int(revision), len(parts), 0, int(authority))
    return head + struct.pack(f"<{len(parts)}I", *(int(part) for part in parts))


OF_SYSTEM_FILES = Protection(
    TRUSTED_INSTALLER, ((TRUSTED_INSTALLER, FULL), (ADMINISTRATORS, READ), (LOCAL_SYSTEM, READ), (USERS, READ))
)
OF_SYSTEM_FOLDERS = Protection(
    TRUSTED_INSTALLER, ((TRUSTED_INSTALLER, FULL), (ADMINISTRATORS, FULL), (LOCAL_SYSTEM, FULL), (USERS, READ))
)
OF_HIVES = Protection(ADMINISTRATORS, ((LOCAL_SYSTEM, FULL), (ADMINISTRATORS, FULL)))
