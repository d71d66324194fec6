"""Blocking work of the daemon: whatever hangs holds a thread of its own, and nothing else."""

from __future__ import annotations

import ast
import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import hyper2kvmd
from hyper2kvmd.daemon import callers
from hyper2kvmd.daemon.callers import Callers
from hyper2kvmd.errors import TryLater
from tests.support.house import until

HOUSE = Path(hyper2kvmd.__file__).parent
OWN_THREAD = {"daemon/ledger.py"}
"""The store has an executor of its own."""


def default_executor_uses(source: str) -> Iterator[int]:
    """Lines that give work to the few threads of asyncio, for whose end the process waits."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in ("to_thread", "run_in_executor"):
            yield node.lineno
        if isinstance(node, ast.alias) and node.name == "to_thread":
            yield node.lineno


def test_no_work_is_given_to_the_threads_of_asyncio() -> None:
    found = {
        f"{name}:{line}"
        for path in HOUSE.rglob("*.py")
        if (name := str(path.relative_to(HOUSE))) not in OWN_THREAD
        for line in default_executor_uses(path.read_text())
    }
    assert found == set(), "use in_a_thread: a file system that hangs would hold a thread that all others need"


def test_the_rule_sees_each_form() -> None:
    forms = ("await asyncio.to_thread(f)", "from asyncio import to_thread", "loop.run_in_executor(None, f)")
    assert all(list(default_executor_uses(form)) for form in forms)


NOBODY = 65534
CONNECTS = "import socket, sys; one = socket.socket(socket.AF_UNIX); one.connect('\\0' + sys.argv[1]); sys.stdin.read()"
HANGS = """
import asyncio, threading
from hyper2kvmd.daemon.threads import in_a_thread
async def run():
    for _ in range(100):
        in_a_thread("hangs", threading.Event().wait)
    print(await in_a_thread("works", max, 1, 2))
asyncio.run(run())
"""


def test_work_that_hangs_stops_neither_other_work_nor_the_end_of_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


@contextmanager
def stranger() -> Iterator[socket.socket]:
    """A connection from a user who is neither root nor the daemon's."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0h2k-test-{os.getpid()}")
        listener.listen()
        command = [sys.executable, "-c", CONNECTS, listener.getsockname()[1:]]
        with subprocess.Popen(command, stdin=subprocess.PIPE, user=NOBODY, group=NOBODY, extra_groups=[]) as process:
            connection, _ = listener.accept()
            with connection:
                yield connection
            assert process.stdin is not None
            process.stdin.close()


@pytest.mark.root
def test_callers_are_told_that_the_spool_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no more threads hang than callers may be judged at the same time."""
    responds, begun, stat = threading.Event(), list[str](), os.stat

    def hanging(path: int | str, *words: object, **more: object) -> os.stat_result:
        if str(path).startswith(str(tmp_path)):
            begun.append(threading.current_thread().name)
            responds.wait()
        return stat(path, *words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", hanging)
    monkeypatch.setattr(callers, "HANG_SECONDS", 0.01)
    with stranger() as connection:

        async def run() -> None:
            door = Callers(tmp_path, group=0)
            for _ in range(2 * callers.MAX_JUDGING):
                with pytest.raises(TryLater, match=r"spool_dir .* does not respond") as refusal:
                    await door.of(connection)
                assert refusal.value.code == "storage-unwritable"

        try:
            asyncio.run(run())
            until(lambda: len(begun) >= callers.MAX_JUDGING, "each of them hangs")
            assert len(begun) == callers.MAX_JUDGING
        finally:
            responds.set()
