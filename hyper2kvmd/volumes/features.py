"""Features of a file system that a kernel does not know, by the flags in its superblock.

A kernel refuses to mount such a file system, and says no more than "invalid argument".
Sources: ext4.h, xfs_format.h, btrfs_tree.h and the version in which each of their flags first appeared; the names are
those of e2fsprogs, xfsprogs and btrfs-progs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from hyper2kvmd.volumes.superblock import BlockReader

Version = tuple[int, int]
ALWAYS: Version = (5, 12)
"""The oldest kernel that can repair a guest at all: each feature that it has is known."""
NEVER: Version = (1 << 16, 0)
"""Of no kernel."""


@dataclass(frozen=True)
class Flags:
    """A number of the superblock, at byte `at`: by bit, the names of its flags and the kernels that introduced them."""

    at: int
    width: int
    order: str
    unknown: str
    """The name of a flag without one, before its bit."""
    names: Mapping[int, tuple[str, Version]]


def _known(*bits: int) -> dict[int, tuple[str, Version]]:
    return dict.fromkeys(bits, ("", ALWAYS))


EXT4 = (
    Flags(
        1024 + 96,
        4,
        "little",
        "FEATURE_I",
        _known(1, 2, 3, 4, 6, 7, 8, 9, 10, 13, 14, 15, 16, 17) | {12: ("dirdata", NEVER)},
    ),
    Flags(
        1024 + 100,
        4,
        "little",
        "FEATURE_R",
        _known(0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 13, 15)
        | {
            7: ("snapshot", NEVER),
            11: ("replica", NEVER),
            14: ("shared_blocks", NEVER),
            16: ("orphan_present", (5, 15)),
        },
    ),
)
XFS = (
    Flags(
        216,
        4,
        "big",
        "incompat bit ",
        _known(0, 1, 2, 3, 4)
        | {
            5: ("nrext64", (5, 19)),
            6: ("exchange", (6, 10)),
            7: ("parent", (6, 10)),
            8: ("metadir", (6, 13)),
            9: ("zoned", (6, 15)),
            10: ("zone_gaps", (6, 15)),
        },
    ),
    Flags(212, 4, "big", "read-only compatible bit ", _known(0, 1, 2, 3)),
)
BTRFS = (
    Flags(
        0x10000 + 0xBC,
        8,
        "little",
        "incompat bit ",
        _known(*range(13)) | {13: ("extent-tree-v2", NEVER), 14: ("raid-stripe-tree", (6, 7)), 16: ("squota", (6, 7))},
    ),
    Flags(
        0x10000 + 0xB4,
        8,
        "little",
        "read-only compatible bit ",
        _known(0, 1) | {2: ("verity", (5, 15)), 3: ("block-group-tree", (6, 1))},
    ),
)
OF: Mapping[str, tuple[Flags, ...]] = {"ext2": EXT4, "ext3": EXT4, "ext4": EXT4, "xfs": XFS, "btrfs": BTRFS}
XFS_VERSION_AT, XFS_WITH_FEATURES = 100, 5
"""The lower four bits of the version; before version 5 the feature numbers have other meanings."""


def kernel_version() -> Version:
    """Of this host."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else ALWAYS


def unknown_features(content: str, reader: BlockReader, kernel: Version) -> tuple[str, ...]:
    """Names of the features that a kernel of that version does not have; `content` is what `identify` found."""
    if content == "xfs" and int.from_bytes(reader.read(XFS_VERSION_AT, 2), "big") & 0xF != XFS_WITH_FEATURES:
        return ()
    return tuple(name for flags in OF.get(content, ()) for name in _unknown(flags, reader, kernel))


def _unknown(flags: Flags, reader: BlockReader, kernel: Version) -> list[str]:
    value = int.from_bytes(reader.read(flags.at, flags.width), "big" if flags.order == "big" else "little")
    found = []
    for bit in range(flags.width * 8):
        name, since = flags.names.get(bit, (f"{flags.unknown}{bit}", NEVER))
        if value >> bit & 1 and since > kernel:
            found.append(name)
    return found
