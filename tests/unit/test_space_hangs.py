"""A file system that does not respond: it holds one thread, and neither the loop nor the other threads."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hyper2kvmd.daemon import threads
from hyper2kvmd.daemon.space import Demand, Space


def test_a_file_system_that_hangs_holds_one_thread_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    responds, begun, statvfs = threading.Event(), list[str](), os.statvfs

    def hanging(path: Any) -> os.statvfs_result:
        begun.append(threading.current_thread().name)
        responds.wait()
        return statvfs(path)

    monkeypatch.setattr(threads, "HANG_SECONDS", 0.05)
    monkeypatch.setattr(os, "statvfs", hanging)
    demand = Demand(tmp_path / "folder", 1, tmp_path, 1)

    async def run() -> None:
        room = Space("0")
        for _ in range(50):
            assert await room.file_systems({"output": tmp_path}) == ()
            shortage = await room.admit(1, demand)
            assert shortage is not None and "does not respond" in shortage.note
        assert sorted(begun) == ["demand", "uses"]
        assert await asyncio.to_thread(time.monotonic)
        responds.set()
        while (await room.admit(1, demand)) is not None:  # noqa: ASYNC110 - nothing else tells when it responds
            await asyncio.sleep(0.01)
        both = await asyncio.gather(*(room.file_systems({"output": tmp_path}) for _ in range(2)))
        assert all(len(found) == 1 for found in both), "two at the same time share a look"

    try:
        asyncio.run(asyncio.wait_for(run(), 60))
    finally:
        responds.set()
