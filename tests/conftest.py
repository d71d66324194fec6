"""What holds for every test run."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from hypothesis import settings

LONGEST = (
    "tests/integration/test_migration.py",
    "tests/guests/test_matrix.py",
    "tests/integration/test_packages.py",
    "tests/guests/test_first_boot.py",
    "tests/guests/test_machine.py",
    "tests/guests/test_uefi.py",
    "tests/guests/test_network.py",
    "tests/guests/test_disk_names.py",
    "tests/integration/daemon/test_jobs.py",
    "tests/integration/daemon/test_restarts.py",
    "tests/integration/daemon/test_space.py",
    "tests/security/test_strangers.py",
    "tests/integration/test_foreign.py",
    "tests/integration/test_boot.py",
    "tests/integration/test_copy_resume.py",
    "tests/security/test_destinations.py",
    "tests/integration/daemon/test_service.py",
)
"""Run first: if a process began one of them last, the others would wait for it. A missing file costs time only."""

CHANGING = re.compile(r" at 0x|\d\d:\d\d:\d\d\.\d{3}")
"""Addresses and times of day in the name of a test."""

pytest.register_assert_rewrite("tests.support")

settings.register_profile("untimed", deadline=None)  # a machine that is busy is no fault
settings.load_profile("untimed")


def pytest_sessionstart() -> None:
    """SIGTERM ends a run as Ctrl-C does: fixtures take back what they have put on the host."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _begins(item: pytest.Item) -> int:
    """The place of a test's file in the order of the run."""
    file = item.nodeid.split("::")[0]
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`make unit` is for everybody: it runs as root of a user namespace, where nobody else exists."""
    items.sort(key=_begins)
    if changing := [item.nodeid for item in items if CHANGING.search(item.nodeid)]:
        raise pytest.UsageError(f"a process of its own would give these tests other names: {changing}")
    if os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]:
        return
    left_out = [item for item in items if item.get_closest_marker("root")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
