"""Folders for temporary files: those of killed processes go, and no others."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyper2kvmd.host import scratch

PROGRAM = """
import sys, time
from hyper2kvmd.host.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "below").mkdir()
    (folder / "below" / "disk").write_bytes(bytes(4096))
    print(folder, flush=True)
    sys.stdin.read()
"""


@contextmanager
def process(where: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with such a folder."""
    pipe, environment = subprocess.PIPE, {"TMPDIR": str(where)}
    command = [sys.executable, "-I", "-c", PROGRAM]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as running:
        try:
            assert running.stdout is not None
            yield running, Path(running.stdout.readline().strip())
        finally:
            running.kill()


def test_the_folder_of_a_killed_process_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for other in ("h2k-scratch-notes", "h2k-scratch-12345678.d"):
        (tmp_path / other).mkdir()
    with process(tmp_path) as (killed, left), process(tmp_path) as (_, used):
        killed.kill()
        killed.wait()
        assert left.exists() and scratch.remove_abandoned() == (), "too young to be without a lock"
        monkeypatch.setattr(scratch, "UNLOCKED_SECONDS", 0.0)
        with scratch.scratch_folder():
            assert not left.exists() and (used / "below" / "disk").exists()
    assert scratch.remove_abandoned() == (used.name,)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["h2k-scratch-12345678.d", "h2k-scratch-notes"]
