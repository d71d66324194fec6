"""A host for this test process alone: in a mount namespace of its own, with a service user of its own.

What tests install below /etc and /usr/libexec lies in a tmpfs over it and ends with the process, however that ends: so
test processes do not meet, and the developer's host stays as it was. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import os
import subprocess
from pathlib import Path

import pytest

USER = "hyper2kvm"
SLOTS = Path("/run/lock")
MAX_SLOTS = 90


def _take_slot() -> int:
    """A number that no other test process of this host has while this one lives. Its children have the same."""
    known = f"H2K_TEST_SLOT_{os.environ.get('PYTEST_XDIST_WORKER', '')}"
    if known in os.environ:
        return int(os.environ[known])
    for slot in range(MAX_SLOTS):
        with contextlib.suppress(OSError):
            handle = os.open(SLOTS / f"hyper2kvmd-test-{slot}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(handle)
                continue
            os.environ[known] = str(slot)
            return slot
    return MAX_SLOTS  # a child without this environment and without root: it starts no tests


SLOT = _take_slot()
FOLDER_PREFIX = f"h2k-test-{SLOT}-"
"""Of every folder that tests make outside pytest's own: what the kernel holds of this process is known by it."""
SERVICE_ID = 64900 + SLOT
"""Uid and gid of the service user."""
COVERED = ("/etc", "/usr/libexec")
LAYERS = Path("/mnt")
"""Covered by a tmpfs inside the namespace."""
CLONE_NEWNS = 0x00020000
"""linux/sched.h"""


@pytest.fixture(scope="session", autouse=True)
def own_host() -> None:
    """Whatever the process starts afterwards sees it too."""
    _leave_the_others()


@functools.cache  # several conftest files ask for it
def _leave_the_others() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "these tests need root, and the right to make mount namespaces")
    _mount("--make-rprivate", "/")
    _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", LAYERS)
    for covered in COVERED:
        upper, work = (LAYERS / f"{kind}{covered.replace('/', '-')}" for kind in ("upper", "work"))
        upper.mkdir()
        work.mkdir()
        _mount("-t", "overlay", "-o", f"lowerdir={covered},upperdir={upper},workdir={work}", "overlay", covered)
    _make_user()


def _make_user() -> None:
    """In place of one that the host may have."""
    entries = {
        "passwd": f"{USER}:x:{SERVICE_ID}:{SERVICE_ID}::{LAYERS}/home:/usr/sbin/nologin",
        "group": f"{USER}:x:{SERVICE_ID}:",
        "shadow": f"{USER}:*:19000:0:99999:7:::",
    }
    for name, entry in entries.items():
        path = Path("/etc", name)
        kept = [line for line in path.read_text().splitlines() if not line.startswith(f"{USER}:")]
        path.write_text("\n".join([*kept, entry, ""]))


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *map(str, words)], check=True)
