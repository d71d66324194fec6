"""A database that is damaged, cut off or lost: the daemon goes on with all that can be read, or refuses by name.

H2K_FAULTS_SEED repeats a run of LONG=1.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.accounts import FOLDERS, OUTCOMES
from tests.faults.forked import GOOD, PLANNING, Forked, failing
from tests.support.house import until

LONG = bool(os.environ.get("LONG"))
SEED = int(os.environ.get("H2K_FAULTS_SEED", time.time_ns() % 1_000_000 if LONG else 0))
DAMAGES = 150 if LONG else 8
NAMES = ("waiting", "good", "bad")
BROKEN_INSTALLATION = 78
POISON = {
    "no JSON": "migration = '{'",
    "no migration": "migration = NULL",
    "key of a newer version": "migration = json_set(migration, '$.invented_later', 1)",
    "unknown state": "state = 'levitating'",
    "problems": "problems = 'x'",
    "time": "created = 'yesterday'",
    "bytes": "vm_name = CAST(x'fffe00' AS TEXT)",
    "huge attempt": "attempt = 'many'",
    "unknown reason to wait": "waiting_for = 'godot'",
}
HEALTHY = "SELECT state FROM jobs WHERE vm_name = '%s'"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped service with a job that has succeeded, one that has failed, and one that waits."""
    root = tmp_path_factory.mktemp("original")
    house = Forked(root)
    house.configure()
    try:
        house.begin()
        house.drop("good.yaml", house.script("good", PLANNING, GOOD))
        house.drop("bad.yaml", house.script("bad", PLANNING, failing("permanent")))
        house.come_to_rest()
        house.order("POST", "/v1/queue/pause")
        house.drop("waiting.yaml", house.script("waiting", PLANNING, GOOD))
        until(lambda: len(house.rows("SELECT id FROM jobs")) == len(NAMES), house.log)
        house.end(signal.SIGTERM)
    finally:
        house.end()
    return root


@pytest.fixture
def house(original: Path, tmp_path: Path) -> Iterator[Forked]:
    for folder in ("spool", "state"):
        shutil.copytree(original / folder, tmp_path / folder, copy_function=shutil.copy2)
    for script in original.glob("*.script"):
        shutil.copy2(script, tmp_path)
    house = Forked(tmp_path)
    house.configure()
    yield house
    house.end()


def files(house: Forked) -> dict[str, bytes]:
    """The submissions in the spool, by the name they were dropped under."""
    found = {}
    for folder in FOLDERS:
        for path in (house.spool / folder).iterdir():
            if not path.name.endswith(OUTCOMES):
                found[path.name.rpartition(".yaml")[0].rpartition(".")[2]] = path.read_bytes()
    return found


def execute(house: Forked, statement: str) -> None:
    with closing(sqlite3.connect(house.database)) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize("name", ["waiting", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[1:])])
@pytest.mark.parametrize("poison", POISON)
def test_unreadable_row_stops_nothing_else(house: Forked, poison: str, name: str) -> None:
    execute(house, f"UPDATE jobs SET {POISON[poison]} WHERE vm_name = '{name}'")  # noqa: S608
    before = files(house)
    house.begin()
    assert house.alive(), house.log
    assert house.order("GET", "/v1/jobs") == 200
    assert house.browse("/")[0] == 200
    house.order("POST", "/v1/queue/resume")
    house.drop("new.yaml", house.script("new", PLANNING, GOOD))
    until(lambda: house.rows(HEALTHY % "new") == [{"state": "succeeded"}], f"a new job runs: {house.log[-3000:]}")
    others = {"waiting": "succeeded", "good": "succeeded", "bad": "failed"}
    others.pop(name)
    until(lambda: all(house.rows(HEALTHY % one) == [{"state": end}] for one, end in others.items()), house.log[-3000:])
    assert house.alive(), house.log
    house.end(signal.SIGTERM)
    assert before.items() <= files(house).items()


def damages() -> Iterator[Callable[[bytearray, random.Random], None]]:
    def cut(data: bytearray, chance: random.Random) -> None:
        del data[chance.randrange(len(data)) :]

    def zeroed_page(data: bytearray, chance: random.Random) -> None:
        at = chance.randrange(len(data) // 4096) * 4096
        data[at : at + 4096] = bytes(4096)

    def noise(data: bytearray, chance: random.Random) -> None:
        at = chance.randrange(len(data) - 64)
        data[at : at + 64] = chance.randbytes(64)

    def swapped_pages(data: bytearray, chance: random.Random) -> None:
        one, two = (chance.randrange(1, len(data) // 4096) * 4096 for _ in range(2))
        data[one : one + 4096], data[two : two + 4096] = data[two : two + 4096], data[one : one + 4096]

    while True:
        yield from (cut, zeroed_page, noise, swapped_pages)


@pytest.mark.parametrize("number", range(DAMAGES))
def test_damaged_database_is_refused_or_harmless(house: Forked, number: int) -> None:
    """Refused: by its code, unchanged, with the spool untouched. Else all goes on."""
    chance = random.Random(f"{SEED}.{number}")  # noqa: S311 - damage, no secret
    print(f"H2K_FAULTS_SEED={SEED}, damage {number}")
    kinds = damages()
    damage = [next(kinds) for _ in range(number + 1)][-1]
    data = bytearray(house.database.read_bytes())
    damage(data, chance)
    house.database.write_bytes(data)
    before = files(house)
    house.begin()
    if house.alive():
        assert house.order("GET", "/v1/jobs") == 200
        house.drop("new.yaml", house.script("new", PLANNING, GOOD))
        house.order("POST", "/v1/queue/resume")
        until(
            lambda: not house.alive() or house.rows(HEALTHY % "new") == [{"state": "succeeded"}],
            f"a new job runs: {house.log[-3000:]}",
        )
    if not house.alive():
        assert house.exit_status == BROKEN_INSTALLATION, house.log
        assert "[database-" in house.log, house.log
        assert "Traceback" not in house.log
    house.end(signal.SIGTERM)
    assert before.items() <= files(house).items()


def test_lost_database_is_made_again_from_the_spool(house: Forked) -> None:
    for path in house.database.parent.glob("jobs.sqlite3*"):
        path.unlink()
    before = files(house)
    house.begin()
    until(lambda: house.rows(HEALTHY % "waiting") == [{"state": "succeeded"}], house.log)
    house.end(signal.SIGTERM)
    assert before.items() <= files(house).items()
