"""What the kernel holds of this test process: nothing may stay of what a test started."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.own_host import FOLDER_PREFIX, SERVICE_ID

LOOP_GET_STATUS64 = 0x4C05
LOOP_INFO64 = 232
"""Bytes of a struct loop_info64 (linux/loop.h)."""
SERVED = "/nbd"
"""What the kernel calls the file of a detached FUSE mount, whoever's it is."""
INIT = 1
"""Its process ID."""


@dataclass(frozen=True)
class Kernel:
    """Block devices and mounts."""

    devices: tuple[str, ...]
    mounts: tuple[str, ...]

    @staticmethod
    def now() -> Kernel:
        return _held().without(BEFORE)

    def without(self, other: Kernel) -> Kernel:
        return Kernel(
            tuple(one for one in self.devices if one not in other.devices),
            tuple(one for one in self.mounts if one not in other.mounts),
        )

    @property
    def clean(self) -> bool:
        return not self.devices and not self.mounts


def eventually(question: Callable[[], bool]) -> bool:
    for _ in range(300):
        if question():
            return True
        time.sleep(0.1)
    return False


def until_clean() -> bool:
    """After a kill the kernel takes things down in its own time; a leak never goes away."""
    return eventually(lambda: Kernel.now().clean)


def _held() -> Kernel:
    found = []
    for place in ("loop*/loop/backing_file", "nbd*/backend", "dm-*/dm/name"):
        for entry in Path("/sys/block").glob(place):
            with suppress(OSError):
                text = entry.read_text().strip()
                served = text == SERVED and not _of_another_run(entry.parts[3])
                if served or text.startswith("h2k-") or f"/{FOLDER_PREFIX}" in text:
                    found.append(f"{entry}: {text}")
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return Kernel(tuple(found), tuple(line for line in lines if FOLDER_PREFIX in line))


def _of_another_run(loop: str) -> bool:
    """Whether the file behind a loop device is served by a process that neither this one nor a dead one has started.

    FUSE answers those who mounted and nobody else: root's processes, or those of the service user, who is ours alone.
    """
    with open(f"/dev/{loop}", "rb") as device:  # noqa: PTH123
        try:
            status = fcntl.ioctl(device, LOOP_GET_STATUS64, bytes(LOOP_INFO64))
        except PermissionError:
            ask = f"import fcntl; fcntl.ioctl({device.fileno()}, {LOOP_GET_STATUS64}, bytes({LOOP_INFO64}))"
            asked = subprocess.run(
                [sys.executable, "-c", ask],
                user=SERVICE_ID,
                group=SERVICE_ID,
                extra_groups=(),
                pass_fds=(device.fileno(),),
                stderr=subprocess.DEVNULL,
                check=False,
            )
            return asked.returncode != 0
    connection = os.minor(struct.unpack_from("=Q", status)[0])  # the file's device
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.name() == "nbdfuse" and connection in _connections(process.pid):
                return _has_other_parents(process)
    return False


def _connections(pid: int) -> set[int]:
    """The FUSE file systems that a process serves, by their numbers (Linux 6.14 and later say so)."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/fdinfo").iterdir()]
    return {int(number) for text in texts for number in re.findall(r"^fuse_connection:\s*(\d+)$", text, re.MULTILINE)}


def _has_other_parents(process: psutil.Process) -> bool:
    """A process that is left over has init for its parent, whoever started it: that counts as ours."""
    above = {parent.pid for parent in process.parents()} - {INIT}
    return bool(above) and os.getpid() not in above


BEFORE = _held()
"""What a run that was killed has left: none of this run's business."""
