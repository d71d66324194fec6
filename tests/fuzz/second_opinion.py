"""What QEMU reads of a VMDK that we read as well. Where that differs, a rule has to say why.

- *another size*: QEMU passes over extent lines that we read, ZERO extents for one, and ends a text at a NUL; it
  takes the size of a sparse extent from the header, where VirtualBox rounds up, and we from the descriptor;
- *redundant tables*: we take them where the others are damaged, QEMU does not look at them.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Literal

from hyper2kvmd.errors import Failure
from tests.support.vmdk_images import content

LARGEST = 64 << 20
"""Bytes of a disk that is worth comparing."""
SECONDS = 5
"""For one process; one that needs more is as good as refusing."""
FLAGS, REDUNDANT = 8, 2
"""Where a sparse header has its flags, and the bit that promises a second set of tables."""


def second_opinion(disk: Path) -> str:
    """How what QEMU reads of `disk` compares with what we read. Raises AssertionError when no rule explains it."""
    ours = content(disk)
    told, answer = _qemu_img("info", "--output=json", "-f", "vmdk", disk)
    if told != 0:
        return "qemu: refused"
    if json.loads(answer)["virtual-size"] != len(ours):
        return "qemu: another size"
    found = _compared(ours, disk)
    if found == "another disk":
        try:
            for part in disk.parent.iterdir():
                _without_redundant_tables(part)
            found = _compared(content(disk), disk)
        except Failure:
            found = "same"
        assert found == "same", "QEMU reads something else"
        return "qemu: redundant tables"
    return f"qemu: {found}"


def _compared(ours: bytes, disk: Path) -> Literal["same", "another disk", "refused"]:
    raw = disk.with_name("ours.raw")
    raw.write_bytes(ours)
    told, _ = _qemu_img("compare", "-f", "raw", "-F", "vmdk", raw, disk)
    raw.unlink()
    return "same" if told == 0 else "another disk" if told == 1 else "refused"


def _qemu_img(*arguments: str | Path) -> tuple[int, str]:
    """Exit status and stdout, with all the memory that the host has."""
    argv = ["prlimit", "--as=unlimited", "timeout", str(SECONDS), "qemu-img", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def _without_redundant_tables(part: Path) -> None:
    data = bytearray(part.read_bytes())
    if data.startswith(b"KDMV"):
        data[FLAGS] &= ~REDUNDANT
        part.write_bytes(data)
