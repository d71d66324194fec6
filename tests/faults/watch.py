"""Looks at a running service all the time: no job may run twice at once, and no published file may change."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from tests.faults.house import House, roles

PERIOD_SECONDS = 0.1


class Watch(threading.Thread):
    """Started by `with`; `wrong` has what it has seen."""

    def __init__(self, house: House) -> None:
        super().__init__(daemon=True)
        self._house = house
        self._over = threading.Event()
        self._published: dict[str, tuple[int, int, int]] = {}
        self.wrong: list[str] = []

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(PERIOD_SECONDS):
            self._look_at_workers()
            self._look_at_outputs()

    def _look_at_workers(self) -> None:
        users: dict[str, set[int]] = {}
        for pid, role in roles().items():
            if role == "worker":
                for folder in self._working_folders(pid):
                    users.setdefault(folder, set()).add(pid)
        for folder, pids in users.items():
            if len(pids) > 1:  # the second one may only be asking whether the folder is free
                self._over.wait(0.5)
                still = {pid for pid in pids if folder in self._working_folders(pid)}
                if len(still) > 1:
                    self.wrong.append(f"workers {sorted(still)} are in {folder} at once")

    def _working_folders(self, pid: int) -> set[str]:
        found = set()
        with suppress(OSError):
            for handle in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    place = handle.readlink()
                    if place.parent == self._house.conversions:
                        found.add(str(place))
        return found

    def _look_at_outputs(self) -> None:
        with suppress(OSError):
            for entry in os.scandir(self._house.images):
                if entry.name.startswith("."):
                    continue
                with suppress(OSError):
                    facts = entry.stat()
                    seen = (facts.st_ino, facts.st_size, facts.st_mtime_ns)
                    before = self._published.setdefault(entry.name, seen)
                    if before != seen:
                        self._published[entry.name] = seen
                        self.wrong.append(f"{entry.name} changed after it was published: {before} to {seen}")
