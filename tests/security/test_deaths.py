"""Signals at the worst moment: whatever dies or stops, and when, the kernel is left with nothing of ours."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.model.disks import Image
from tests.support.asking import ASKER, ask, mount_request
from tests.support.deaths import killed_at, lines_in
from tests.support.host import HELPER, as_service
from tests.support.kernel import Kernel, eventually, until_clean


def test_killed_before_any_of_its_lines(
    disk: Image, installed_helper: tuple[str, ...], service_user: pwd.struct_passwd
) -> None:
    log, source = os.memfd_create("lines"), HELPER.read_text().splitlines()
    with disk.disks[0].path.open("r+b") as backing:
        asked = mount_request(disk), [backing.fileno()], service_user, log
        assert killed_at(0, *asked) == 1
        lines = lines_in(log)
        assert any("LOOP_CONFIGURE" in source[line - 1] for line in lines), "children are traced as well"
        assert len(lines) > 150
        assert until_clean(), Kernel.now()
        for line in lines:
            killed_at(line, *asked)
            assert until_clean(), f"killed before line {line}, {source[line - 1].strip()!r}: {Kernel.now()}"
    os.close(log)
    assert ask(installed_helper, request=mount_request(disk), fds=[["rw", str(disk.disks[0].path)]])["mounts"] == 1


@contextmanager
def asking(helper: tuple[str, ...], **asked: Any) -> Iterator[subprocess.Popen[str]]:
    """A caller that goes on while the test does; killed at the end."""
    argv = as_service(sys.executable, ASKER, json.dumps({"helper": helper, **asked}))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def helpers_of(pid: int) -> list[int]:
    """The helper, and sudo, that the process has started and that still run."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(OSError):
            if state_of(int(child)) != "Z":
                found += [int(child), *helpers_of(int(child))]
    return found


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_caller_that_stops_itself_holds_no_helper(
    disk: Image, installed_helper: tuple[str, ...], moment: str
) -> None:
    """Before: the helper gives up. After: its answer waits in the socket, the mount in there dies with the caller."""
    asked = {"request": mount_request(disk), "fds": [["rw", str(disk.disks[0].path)]], "stopped": moment}
    with asking(installed_helper, **asked) as caller:
        assert eventually(lambda: state_of(caller.pid) == "T"), "it stopped"
        assert eventually(lambda: not helpers_of(caller.pid)), "the helper ended"
    assert until_clean(), Kernel.now()


def test_a_caller_killed_at_any_moment(disk: Image, installed_helper: tuple[str, ...]) -> None:
    asked = {"request": mount_request(disk), "fds": [["rw", str(disk.disks[0].path)]]}
    for delay in range(0, 200, 10):
        with asking(installed_helper, **asked):
            time.sleep(delay / 1000)
    assert until_clean(), Kernel.now()


SIGNALS = signal.SIGSTOP, signal.SIGKILL, signal.SIGTERM, signal.SIGALRM


@pytest.mark.parametrize("number", SIGNALS)
def test_the_caller_cannot_signal_the_helper(
    disk: Image, installed_helper: tuple[str, ...], number: signal.Signals
) -> None:
    fds = [["rw", str(disk.disks[0].path)]]
    answer = ask(installed_helper, request=mount_request(disk), fds=fds, kill=[["helper", int(number)]])
    assert answer["killed"] == ["Operation not permitted"], answer
    assert answer["mounts"] == 1
    assert until_clean(), Kernel.now()


@pytest.mark.parametrize("number", SIGNALS)
def test_what_the_caller_does_to_sudo_leaves_nothing(
    disk: Image, installed_helper: tuple[str, ...], number: signal.Signals
) -> None:
    """sudo takes its caller's signals, and passes some of them on."""
    fds = [["rw", str(disk.disks[0].path)]]
    answer = ask(installed_helper, request=mount_request(disk), fds=fds, kill=[["sudo", int(number)]])
    assert answer["killed"] == ["done"]
    assert until_clean(), Kernel.now()


def test_many_at_once_do_not_meet(disk: Image, installed_helper: tuple[str, ...], service_folder: Path) -> None:
    """All on the same bytes, all held until the last one is there: each has a device of its own."""
    answers: list[dict[str, Any]] = []
    over = service_folder / "over"
    asked: dict[str, Any] = {
        "request": mount_request(disk, read_only=True),
        "fds": [["r", str(disk.disks[0].path)]],
        "held": str(over),
    }
    threads = [threading.Thread(target=lambda: answers.append(ask(installed_helper, **asked))) for _ in range(6)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(list(service_folder.glob("over.*"))) == len(threads))
    over.touch()
    for thread in threads:
        thread.join()
    assert [answer["mounts"] for answer in answers] == [1] * 6, answers
    assert len({answer["reply"]["device"] for answer in answers}) == 6
    assert until_clean(), Kernel.now()
