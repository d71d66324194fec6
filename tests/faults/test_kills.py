"""SIGKILL and SIGSTOP of every kind of process at random instants."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

from tests.faults.box import in_box
from tests.faults.campaign import Campaign
from tests.faults.house import House, commands, roles, until

SEED = int(os.environ.get("H2K_SEED", "20"))
COUNT = 8
"""How many signals `make test` sends."""
LONGEST_WAIT_SECONDS = 2.5
LONGEST_STOP_SECONDS = 3.0


@in_box
def test_kills_at_random_instants(house: House) -> None:
    kills(house, SEED, COUNT)


def kills(house: House, seed: int, count: int) -> None:
    """Signals of one seed: which kind of process, which signal and how long after the last one. Not their order in
    time to the calls of the processes, so a replay may need several runs."""
    chance = random.Random(seed)  # noqa: S311 - a choice that can be repeated
    campaign = Campaign(house)
    house.start()
    campaign.drop_guest()
    house.until_quiet()
    campaign.learn_clean_guest()
    sent: list[str] = []
    with campaign.watch:
        while len(sent) < count:
            if not house.alive and not campaign.start():
                continue
            if campaign.asleep():
                campaign.drop_guest()
                campaign.drop_small()
            time.sleep(chance.uniform(0, LONGEST_WAIT_SECONDS))
            sent += _signal(chance, house)
        told = f"seed {seed}: {', '.join(sent)}\npython -m tests.faults {__name__}:kills seed={seed} count={count}"
        print(told)
        campaign.judge(told)


def _signal(chance: random.Random, house: House) -> list[str]:
    """Kill or stop a process of a kind that runs just now; a stopped one goes on, or is killed, after some time."""
    running = roles()
    if not running:
        return []
    kind = chance.choice(sorted(set(running.values())))
    pid = chance.choice([pid for pid, role in running.items() if role == kind])
    command = commands().get(pid)
    with suppress(ProcessLookupError):
        if chance.random() < 0.6:
            os.kill(pid, signal.SIGKILL)
            _gone(house, pid, command)
            return [f"SIGKILL {kind}"]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(chance.uniform(0.1, LONGEST_STOP_SECONDS))
        last = chance.choice([signal.SIGCONT, signal.SIGKILL])
        os.kill(pid, last)
        if last is signal.SIGKILL:
            _gone(house, pid, command)
        return [f"SIGSTOP {kind}, then {last.name}"]
    return []


def _gone(house: House, pid: int, command: list[str] | None) -> None:
    """A killed process ends at once, unless the kernel holds it in a call."""
    until(lambda: commands().get(pid) != command, lambda: f"{pid} {command} ends\n{house.tail()}")
    if house.process is not None and house.process.pid == pid:
        house.process.wait()
