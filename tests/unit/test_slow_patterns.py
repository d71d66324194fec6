"""No regular expression for a guest's files or console takes more than linear time."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from hyper2kvmd.guest.linux.boot_menu import default_entry
from hyper2kvmd.guest.linux.disk_names import multipath_serials


def _tried(*patterns: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tests.support.slow_patterns", *patterns]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_no_pattern_is_slow() -> None:
    done = _tried()
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["all are fast"]), done.stdout[-300:] + done.stderr


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\s*title\b.*$",
        r"\[[^]]*\]",
        r"^(A=)([^\n#]*?)([ \t]*(?:#.*)?)$",
        r"^(options[ \t]+[^\r\n]*?)(?=[ \t\\]*\r?$)",
    ],
)
def test_a_slow_pattern_exceeds_the_limit(pattern: str) -> None:
    assert _tried(pattern).returncode == -signal.SIGXCPU


def test_blank_lines_hide_no_menu() -> None:
    assert "root=/dev/sdb1" in default_entry("\n \ndefault 1\n\n\ntitle a\n x\n\n title b\n kernel root=/dev/sdb1\n")


def test_multipath_maps_are_limited() -> None:
    found = multipath_serials(["".join(f"m{number} 3600{number}\n" for number in range(5000))], "")
    assert len(found) == 1024
