"""The worker process at its border: what it tells the daemon of exceptions that nobody expected."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hyper2kvmd import progress, worker
from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.progress import MAX_TRACEBACK, Ended, read_event


def test_a_fault_of_our_own_is_an_event_with_its_traceback() -> None:
    command = [sys.executable, "-I", "-m", "hyper2kvmd.worker"]
    done = subprocess.run(command, input="{}\n", capture_output=True, text=True, timeout=60, check=True)
    event = read_event(done.stdout)
    assert isinstance(event, Ended)
    assert (event.outcome, event.problems[0].code) == ("failed", "internal-error")
    assert "worker.py" in event.traceback and "ValidationError" in event.traceback
    assert done.stderr == ""


def test_a_worker_whose_daemon_is_gone_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-I", "-m", "hyper2kvmd.worker"]
    done = subprocess.run(command, input=b"{}\n", stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_traceback_is_bounded_and_can_be_written_as_json() -> None:
    event = worker.failed_unexpectedly(ValueError("\udcff" + "x" * 50_000))
    assert len(event.traceback) == MAX_TRACEBACK
    assert read_event(event.model_dump_json()) == event
    assert "\\udcff" in worker.failed_unexpectedly(ValueError("\udcff")).traceback


def test_what_is_wrong_with_the_host_has_no_traceback() -> None:
    event = worker.failed_unexpectedly(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/srv"))
    assert (event.problems[0].code, event.traceback) == ("disk-full", "")


@pytest.mark.root
def test_the_full_directory_is_named_if_the_error_names_none(tmp_path: Path) -> None:
    roomy, full = tmp_path / "roomy", tmp_path / "full"
    for place, size in ((roomy, "4m"), (full, "64k")):
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], check=True)
    try:
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        (named,) = worker.failed_unexpectedly(error, (roomy, full)).problems
        assert (named.code, named.message) == ("disk-full", f"the file system that holds {full} is full")
    finally:
        for place in (roomy, full):
            subprocess.run(["umount", place], check=True)


def test_half_a_character_can_be_reported() -> None:
    """As a guest's registry may have one."""
    assert progress.problem(MigrationFailed("x", "a\ud800\udcff", hint="B")).message == "a��"


def test_a_worker_starts_with_little() -> None:
    """What a stage needs is imported when the stage runs."""
    script = "import sys, hyper2kvmd.worker; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    heavy = {"yaml", "cryptography", "lxml", "qemu", "aiohttp", "sqlalchemy", "hyper2kvmd.stages.plan"}
    rooms = {f"hyper2kvmd.{room}" for room in ("guest", "machines", "targets", "volumes", "disk.qemu", "proof")}
    assert not loaded & (heavy | rooms)
