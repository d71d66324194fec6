"""Thousands of submissions at once, with duplicates and bad files among them, and a death in the middle."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

from tests.faults.accounts import Books, illegal_paths, lost_files
from tests.faults.forked import GOOD, PATIENCE_SECONDS, Forked

LONG = bool(os.environ.get("LONG"))
FILES = 10_000 if LONG else 300
BAD = ("", "vmdk: relative\n", "a: [", "\0", "- 1\n", "vm_name: only\n")


def content(house: Forked, number: int) -> tuple[str, str]:
    """The text of a file, and what must become of it."""
    if number % 25 == 7:
        return f"{BAD[number // 25 % len(BAD)]}# {number}\n", "rejected"
    if number % 25 == 8:
        return content(house, number - 2)[0], "rejected"
    return house.script(f"vm{number}", GOOD), "queued"


def test_each_of_many_files_has_its_row(tmp_path: Path) -> None:
    house = Forked(tmp_path)
    house.configure()
    dropped: dict[str, bytes] = {}
    expected: Counter[str] = Counter()
    try:
        house.begin()
        house.order("POST", "/v1/queue/pause")
        for number in range(FILES):
            text, state = content(house, number)
            house.drop(f"{number:05}.yaml", text)
            dropped[f"{number:05}.yaml"] = text.encode()
            expected[state] += 1
        until_taken(house, FILES // 2)
        house.end(signal.SIGKILL)
        house.begin()
        until_taken(house, FILES)
        books = Books.of(house.spool, house.database)
        house.end(signal.SIGTERM)
    finally:
        house.end()
    assert Counter(job["state"] for job in books.jobs) == expected
    assert lost_files(books, dropped, house.spool) == []
    assert illegal_paths(books) == []


def until_taken(house: Forked, number: int) -> None:
    """Wait for as many rows, and for the rejected files to be put away."""
    deadline = time.monotonic() + PATIENCE_SECONDS * (10 if LONG else 1)
    while True:
        found = house.rows("SELECT count(*) AS rows FROM jobs")[0]["rows"]
        left = house.rows("SELECT id FROM jobs WHERE state = 'rejected' AND spool_path LIKE 'active/%'")
        if found >= number and (number < FILES or not left):
            return
        assert house.alive() and time.monotonic() < deadline, f"{found} rows\n{house.log[-3000:]}"
        time.sleep(0.2)
