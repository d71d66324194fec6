"""The power fails while the service works: it starts again, and no submission, job or outcome is lost.

What was flushed is on the disk, of later writes any half. H2K_FAULTS_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.accounts import illegal_paths, lost_files, wrong_outcomes
from tests.faults.forked import GOOD, PLANNING, Forked, failing
from tests.faults.recorded_disk import Entry, RecordedDisk

pytestmark = pytest.mark.root
LONG = bool(os.environ.get("LONG"))
SEED = int(os.environ.get("H2K_FAULTS_SEED", time.time_ns() % 1_000_000 if LONG else 0))
CUTS = 50 if LONG else 3


@dataclass
class Recording:
    disk: RecordedDisk
    house: Forked
    entries: list[Entry]
    dropped: list[tuple[int, str, bytes]] = field(default_factory=list)
    """Files, each with the number of writes after which it was durable."""
    succeeded: list[tuple[int, str]] = field(default_factory=list)
    """Machines, each with the number of writes after which the daemon had said so."""


def drop(recording: Recording, name: str, text: str) -> None:
    """As `sync`, `mv` and `sync` do it."""
    house = recording.house
    draft, incoming = house.folders / f"{name}.draft", house.spool / "incoming"
    draft.write_text(text)
    sync_file_system(incoming)  # else a cut after the renaming may leave an empty file
    draft.rename(incoming / name)
    sync_file_system(incoming)
    recording.dropped.append((len(recording.disk.entries()), name, text.encode()))


def sync_file_system(path: Path) -> None:
    subprocess.run(["sync", "--file-system", path], check=True)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
    """A service that was busy on a recorded disk: submissions of all kinds, a death, and an orderly end."""
    root = tmp_path_factory.mktemp("power")
    disk = RecordedDisk(root)
    house = Forked(root, disk=disk.mount)
    house.configure(retention={"conversions": 0})
    made = Recording(disk, house, [])
    try:
        with disk.recorded():
            house.begin()
            for number in range(4):
                drop(made, f"good{number}.yaml", house.script(f"good{number}", PLANNING, "!rest 0.1", GOOD))
                drop(made, f"bad{number}.yaml", f"no migration {number}")
            drop(made, "failing.yaml", house.script("failing", PLANNING, failing("permanent")))
            house.come_to_rest()
            note_success(made)
            batch = [house.script(f"member{number}", PLANNING, GOOD) for number in range(3)]
            drop(made, "batch.yaml", "\n---\n".join(batch))
            time.sleep(0.2)
            house.end(signal.SIGKILL)
            house.begin()
            newest = house.rows("SELECT max(id) AS id FROM jobs")[0]["id"]
            house.order("POST", f"/v1/jobs/{newest}/cancel")
            house.come_to_rest()
            note_success(made)
            house.end(signal.SIGTERM)
            made.entries = disk.entries()
        yield made
    finally:
        house.end()


def note_success(recording: Recording) -> None:
    rows = recording.house.rows("SELECT vm_name FROM jobs WHERE state = 'succeeded'")
    recording.succeeded += [(len(recording.disk.entries()), row["vm_name"]) for row in rows]


@pytest.mark.parametrize("cut", range(CUTS))
def test_service_survives_a_power_cut(recording: Recording, cut: int) -> None:
    chance = random.Random(f"{SEED}.{cut}")  # noqa: S311 - a point, no secret
    number = chance.randrange(len(recording.entries) + 1)
    print(f"H2K_FAULTS_SEED={SEED}, cut {cut}: before write {number} of {len(recording.entries)}")
    recording.disk.cut(recording.entries, number, chance)
    house = recording.house
    ran = {name: runs(house, name) for _, name in recording.succeeded}
    with recording.disk.repaired():
        try:
            judge(recording, number)
        finally:
            house.end()
    repeated = [name for at, name in recording.succeeded if at <= number and runs(house, name) > ran[name]]
    assert not repeated, f"done before the cut, and run again: {repeated}"


def judge(recording: Recording, number: int) -> None:
    house = recording.house
    house.begin()
    assert house.alive(), house.log[-4000:]
    books = house.come_to_rest()
    house.end(signal.SIGTERM)
    durable = {name: data for at, name, data in recording.dropped if at <= number}
    known = {job["spool_name"] for job in books.jobs}
    seen = {name: data for _, name, data in recording.dropped if name in known}
    said = lost_files(books, durable | seen, house.spool)
    said += [*wrong_outcomes(books, house.spool), *illegal_paths(books)]
    states = {job["vm_name"]: job["state"] for job in books.jobs}
    said += [
        f"{name} had succeeded" for at, name in recording.succeeded if at <= number and states[name] != "succeeded"
    ]
    assert not said, "\n".join([*said, house.log[-6000:]])


def runs(house: Forked, name: str) -> int:
    path: Path = house.root / f"{name}.script.ran"
    return len(path.read_text().split()) if path.exists() else 0
