"""The sudoers file, judged by visudo."""

from __future__ import annotations

import subprocess
from pathlib import Path

SUDOERS = Path(__file__).parents[2] / "sudoers.d" / "hyper2kvm"


def test_visudo_accepts_it_without_a_word() -> None:
    result = subprocess.run(["visudo", "-c", "-s", "-f", SUDOERS], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
