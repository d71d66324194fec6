"""Deaths and errors at exact calls of the daemon and of its workers."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from tests.faults import shim
from tests.faults.box import in_box
from tests.faults.campaign import Campaign
from tests.faults.house import House, until
from tests.faults.shim import ROLES, Point, Shim

TRIES = 3
"""How many processes may take a point without making its call: see shim.c."""
SEED = int(os.environ.get("H2K_SEED", "20"))
COUNTS = {"daemon": 11, "worker": 9}
"""How many points `make test` chooses: a few are not met, since no two runs make the same calls."""

FOUND = (
    "daemon:truncate:1:5:*/state/daemon.lock",
    "worker:mkdir:1:5:*/conversions/*.*/*/fuse",
    "worker:unlink:1:5:*/conversions/*.*/purpose",
    "worker:unlink:1:before:*/images/.*.xml.*.partial",
    "worker:write:1:torn:/boot/grub/.grub.cfg.*",
)
"""Points that broke a promise once: they are always tried."""


@in_box
def test_points_of_a_clean_run(house: House) -> None:
    """The calls of a run without faults are recorded; faults come at some of them, as many kinds as there are."""
    campaign = Campaign(house)
    calls = _clean_run(campaign)
    points = [Point.of(text) for text in FOUND]
    points += [point for role, count in COUNTS.items() for point in shim.choose(calls, count, SEED, role)]
    print(f"H2K_SEED={SEED}: {len(points)} of {len(shim.all_points(calls))} points at {len(calls)} calls")
    under_fire(campaign, points, share=0.8)


def _clean_run(campaign: Campaign) -> list[shim.Call]:
    """Its calls. The folders and the database exist already: each later daemon finds them so."""
    house = campaign.house
    house.start().stop()
    recording = Shim(record=True)
    house.start()
    campaign.drop_bad()
    campaign.drop_guest()
    house.until_quiet()
    house.stop()
    recording.lift()
    campaign.learn_clean_guest()
    return shim.recorded()


@in_box
def record(house: House) -> None:
    """One point for every call of a clean run, with an action that depends on the seed: for the long run."""
    for point in shim.one_point_each(_clean_run(Campaign(house)), SEED):
        print(f"point {point}")


@in_box
def points(house: House, points: list[str]) -> None:
    """These faults, one after the other: for a replay, and for the long run."""
    campaign = Campaign(house)
    house.start()
    campaign.drop_guest()
    house.until_quiet()
    house.stop()
    campaign.learn_clean_guest()
    under_fire(campaign, [Point.of(text) for text in points])


def under_fire(campaign: Campaign, points: Sequence[Point], share: float = 0.5) -> None:
    """Each process takes the next point of its role; daemons are started until all points are taken.

    At least this share of them must be met: a late call of many is not made by each process.
    """
    house = campaign.house
    attack = Shim(sorted(points, key=lambda point: -point.number))
    with campaign.watch:
        for _ in range(TRIES * len(points)):
            if not any(map(attack.untaken, ROLES)):
                break
            if campaign.start():
                _round(campaign, attack)
            house.close()
        attack.lift()
        met = attack.met()
        lines = [f"{point} at {met.get(str(point), 'no call')}" for point in points]
        again = f"{__name__}:points points='{json.dumps(list(map(str, points)))}'"
        told = "\n".join([*lines, f"{len(met)} of {len(points)} points were met", f"python -m tests.faults {again}"])
        print(told)
        campaign.judge(told)
    assert len(met) >= share * len(points), "the calls of a clean run no longer tell those of another one"


def _round(campaign: Campaign, attack: Shim) -> None:
    """One life of a daemon with some jobs."""
    house = campaign.house
    if campaign.asleep():
        campaign.drop_bad()
        if attack.untaken("worker"):
            campaign.drop_guest()
        else:
            campaign.drop_small()
    until(
        lambda: not house.alive or campaign.asleep(),
        lambda: f"the jobs go on: {house.waiting_files()} {house.states()} {attack.met()}\n{house.tail()}",
    )
    if house.alive:
        house.stop()
