"""The lock on a working folder: a look at unused folders holds it for a moment, another worker for long."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyper2kvmd.errors import TryLater
from hyper2kvmd.host import workspace


@pytest.fixture
def held(tmp_path: Path) -> Iterator[int]:
    """The folder of a job, with its lock."""
    tmp_path.chmod(0o700)
    (tmp_path / "web01.1").mkdir(mode=0o700)
    handle = os.open(tmp_path / "web01.1", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield handle
    os.close(handle)


def test_a_look_at_a_folder_does_not_turn_its_job_away(
    tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace, "LOOK_SECONDS", 60)
    threading.Timer(0.05, fcntl.flock, (held, fcntl.LOCK_UN)).start()
    with workspace.working_folder(tmp_path, "web01", "1") as folder:
        assert folder.is_dir()


def test_another_worker_turns_it_away(tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace, "LOOK_SECONDS", 0.05)
    with (
        pytest.raises(TryLater, match=r"another process is using .*web01\.1"),
        workspace.working_folder(tmp_path, "web01", "1"),
    ):
        raise AssertionError
    assert held
