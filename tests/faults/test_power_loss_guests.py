"""The power fails while guests are converted, repaired and published: each image becomes what a clean run makes of it.

What was flushed is on the disk, of later writes any half. H2K_FAULTS_SEED repeats the choice of the cuts.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass, field

import pytest

from tests.faults.box import in_box
from tests.faults.campaign import Campaign
from tests.faults.house import Dropped, House, until
from tests.faults.recorded_disk import GIB, Entry, RecordedDisk

LONG = bool(os.environ.get("LONG"))
SEED = int(os.environ.get("H2K_FAULTS_SEED", time.time_ns() % 1_000_000 if LONG else 0))
RECORDINGS, CUTS = (5, 10) if LONG else (1, 2)
FINISHED = "SELECT vm_name, attempt FROM jobs WHERE state = 'succeeded' ORDER BY id"


@dataclass
class Recording:
    disk: RecordedDisk
    campaign: Campaign
    begin: int = 0
    """The number of writes after the clean run."""
    entries: list[Entry] = field(default_factory=list)
    durable: list[int] = field(default_factory=list)
    """For each dropped file, the number of writes after which it was durable."""
    finished: dict[tuple[str, int], int] = field(default_factory=dict)
    """Machines and their attempts, each with the number of writes after which the queue had it as succeeded."""

    @property
    def house(self) -> House:
        return self.campaign.house

    def sync(self) -> None:
        """As an administrator does after `mv`."""
        subprocess.run(["sync", "--file-system", self.house.incoming], check=True)
        written = len(self.disk.entries())
        self.durable += [written] * (len(self.house.drops) - len(self.durable))

    def is_over(self) -> bool:
        """Whether the service is at rest. Notes which jobs have succeeded."""
        over, rows = self.house.quiet(), self.house.rows(FINISHED)
        written = len(self.disk.entries())
        for row in rows:
            self.finished.setdefault((row["vm_name"], row["attempt"]), written)
        return over


@pytest.mark.parametrize("number", range(RECORDINGS))
@in_box
def test_guests_survive_power_cuts(house: House, number: int) -> None:
    cuts(house, SEED + number, CUTS)


def cuts(house: House, seed: int, count: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - points, no secret
    disk = RecordedDisk(house.root, size=3 * GIB)
    with disk.recorded():
        recording = record(disk, chance)
    numbers = sorted(chance.randrange(recording.begin, len(recording.entries) + 1) for _ in range(count))
    drops = list(recording.house.drops)
    for number in numbers:
        told = f"H2K_FAULTS_SEED={seed}: cut before write {number} of {len(recording.entries)}"
        print(told)
        disk.cut(recording.entries, number, chance)
        with disk.repaired():
            judge(recording, drops, number, told)


def record(disk: RecordedDisk, chance: random.Random) -> Recording:
    """A clean run, then some work with a death of the daemon."""
    house = House(disk.mount / "house")
    recording = Recording(disk, Campaign(house))
    campaign = recording.campaign
    house.start()
    campaign.drop_guest()
    house.until_quiet()
    campaign.learn_clean_guest()
    recording.sync()
    recording.begin = len(disk.entries())
    for drop in (campaign.drop_guest, campaign.drop_small, campaign.drop_bad, campaign.drop_guest):
        drop()
        recording.sync()
    time.sleep(chance.uniform(0.5, 2.5))
    house.stop(signal.SIGKILL)
    house.start()
    campaign.drop_small()
    recording.sync()
    until(recording.is_over, house.tail)
    assert house.stop() == 0, house.tail()
    recording.entries = disk.entries()
    return recording


def judge(recording: Recording, drops: list[Dropped], number: int, told: str) -> None:
    """The host has booted: what was durable is done in the end, and nothing is done twice."""
    house, campaign = recording.house, recording.campaign
    files = {hashlib.sha256(path.read_bytes()).digest() for path in house.spool.glob("*/*") if path.is_file()}
    house.drops = [
        one
        for one, durable in zip(drops, recording.durable, strict=True)
        if durable <= number or hashlib.sha256(one.data).digest() in files
    ]
    campaign.ask_only_for({name for one in house.drops for name in one.vm_names})
    campaign.judge(told)
    after = {(row["vm_name"], row["attempt"]) for row in house.rows(FINISHED)}
    again = [key for key, written in recording.finished.items() if written <= number and key not in after]
    assert not again, f"{told}: they had succeeded: {again}"
