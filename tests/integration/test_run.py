"""The one runner: what counts as standing still."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.host import run

PATIENCE = 1.0
"""Seconds: the loop below says nothing for longer."""


def test_a_tool_that_moves_bytes_in_silence_is_left_alone() -> None:
    loop = "for turn in {1..12}; do read line < /proc/version; sleep 0.25; done"
    assert run.run(["bash", "-c", loop], stall_seconds=PATIENCE).returncode == 0


def test_a_tool_that_fails_names_the_real_path_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "disk.vmdk").write_bytes(b"no VMDK")
    with (tmp_path / "disk.vmdk").open("rb") as file:
        argv = ["qemu-img", "info", "--force-share", "-f", "vmdk", f"/proc/self/fd/{file.fileno()}"]
        with pytest.raises(MigrationFailed) as caught:
            run.run(argv, sandbox=run.Sandbox(handles=(file.fileno(),)))
    assert str(tmp_path / "disk.vmdk") in caught.value.message and "/proc/self/fd" not in caught.value.message


def test_a_tool_that_does_nothing_is_killed() -> None:
    with pytest.raises(MigrationFailed) as caught:
        run.run(["sleep", "60"], stall_seconds=PATIENCE)
    assert caught.value.code == "tool-stalled"
