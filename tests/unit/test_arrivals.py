"""Renames into a folder are learned from the kernel; nothing else is."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from hyper2kvmd.daemon.arrivals import Arrivals


def test_renames_are_reported_and_writes_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "incoming"
    folder.mkdir()
    (tmp_path / "draft").write_text("x")

    async def watched() -> tuple[list[str], list[str]]:
        arrivals = Arrivals(folder)
        try:
            (folder / "written.yaml").write_text("x")
            (folder / "written.yaml").rename(folder / "within.yaml")
            first = await arrivals.wait(60)
            odd = os.fsdecode(b"\xff\n.yaml")
            (tmp_path / "draft").rename(folder / odd)
            return first, await arrivals.wait(60)
        finally:
            arrivals.close()

    assert asyncio.run(watched()) == (["within.yaml"], [os.fsdecode(b"\xff\n.yaml")])


def test_a_folder_that_is_replaced_is_watched_again(tmp_path: Path) -> None:
    folder = tmp_path / "incoming"
    folder.mkdir()

    async def watched() -> list[str]:
        arrivals = Arrivals(folder)
        try:
            folder.rename(tmp_path / "old")
            assert await arrivals.wait(0.05) == []
            folder.mkdir()
            assert await arrivals.wait(0.05) == []
            (tmp_path / "a.yaml").write_text("x")
            (tmp_path / "a.yaml").rename(folder / "a.yaml")
            return await arrivals.wait(60)
        finally:
            arrivals.close()

    assert asyncio.run(watched()) == ["a.yaml"]
