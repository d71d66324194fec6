"""The time since the host's boot, by which delays are measured: no change of the wall clock ends or prolongs them."""

from __future__ import annotations

import contextlib
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Uptime(NamedTuple):
    boot: str
    """Identifies the boot; empty if it cannot be read."""
    seconds: float
    """Since then, the time in suspend included."""


def uptime() -> Uptime:
    return Uptime(_boot(), time.clock_gettime(time.CLOCK_BOOTTIME))


@cache
def _boot() -> str:
    """No process outlives a boot, and the daemon asks several times a second."""
    with contextlib.suppress(OSError):
        return BOOT_ID.read_text().strip()
    return ""
