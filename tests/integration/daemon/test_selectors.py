"""Which jobs and batches a command means, asked of a real daemon whose queue is paused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import click
import pytest

from hyper2kvmd.cli.selectors import Numbers, Selection, find_batch, jobs_with_numbers, resolved
from hyper2kvmd.client import Client
from hyper2kvmd.errors import InvalidInput, NotFound
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin, Submission
from hyper2kvmd.model.asked import Migration
from tests.support.house import House

BOB, ALICE = Origin(submitter="bob", uid=1), Origin(submitter="alice", uid=2)


@contextmanager
def records(house: House) -> Iterator[Store]:
    """The job database of a daemon that is not running, with a paused queue."""
    (house.root / "state").mkdir(exist_ok=True)
    with closing(Store(f"sqlite:///{house.root}/state/jobs.sqlite3")) as store:
        store.set_paused(True)
        yield store


def submit(store: Store, names: Sequence[str], *, batch: str | None = None, origin: Origin = BOB) -> list[int]:
    made = [
        Submission(Migration(vmdk=(Path(f"/{name}.vmdk"),), vm_name=name), name, origin, batch=batch) for name in names
    ]
    return [submitted.job.id for submitted in store.submit_file(made)]


@pytest.fixture
def three(house: House) -> Client:
    """Jobs 3, 5 and 12: the others are forgotten. Job 5 is held, job 12 cancelled."""
    with records(house) as store:
        numbers = submit(store, [f"vm{number}" for number in range(1, 13)])
        for number in set(numbers) - {3, 5}:
            store.cancel(number, "bob")
        store.hold(5, "bob")
        store.forget_jobs([*{*numbers} - {3, 5, 12}])
    house.start()
    return Client(house.socket)


def test_named_jobs_come_once_in_order_and_missing_ones_are_unknown(three: Client) -> None:
    asked = Selection(numbers=(Numbers(12, 12), Numbers(1, 5), Numbers(77, 77), Numbers(90, 95)))
    found = resolved(three, asked, ("queued",))
    assert ([one.id for one in found.jobs], found.unknown) == ([3, 5, 12], (77, 90, 95))
    assert found.failure().message == "there are no jobs 77, 90, 95"
    assert found.failure().exit_code == 1
    assert not found.one_job
    assert resolved(three, Selection(numbers=(Numbers(3, 3),)), ()).one_job
    assert not resolved(three, Selection(numbers=(Numbers(3, 4),)), ()).one_job


def test_rules_find_the_states_of_the_command_unless_they_name_some(three: Client) -> None:
    def found(asked: Selection, *states: str) -> list[int]:
        return sorted(job.id for job in resolved(three, asked, states).jobs)

    assert found(Selection(vm="vm5"), "queued", "held") == [5]
    assert found(Selection(vm="vm12"), "queued", "held") == []
    assert found(Selection(states=("cancelled",)), "failed", "cancelled") == [12]
    assert found(Selection(mine=True), "queued", "held") == []


@pytest.mark.parametrize("asked", [Selection(), Selection(numbers=(Numbers(3, 3),), mine=True)])
def test_nothing_and_both_are_refused(three: Client, asked: Selection) -> None:
    with pytest.raises(click.UsageError):
        resolved(three, asked, ())


def test_all_pages_are_read(house: House) -> None:
    with records(house) as store:
        submit(store, [f"vm{number}" for number in range(2500)])
    house.start()
    daemon = Client(house.socket)
    assert len(resolved(daemon, Selection(states=("queued",)), ("queued",)).jobs) == 2500
    assert len(list(jobs_with_numbers(daemon, range(1, 1001)))) == 1000


def test_a_batch_is_the_active_one_of_its_name_or_the_newest(house: House) -> None:
    with records(house) as store:
        submit(store, ["first"], batch="a")
        for name, batch, origin in (("later", "a", ALICE), ("old", "b", BOB), ("new", "b", BOB)):
            (number,) = submit(store, [name], batch=batch, origin=origin)
            store.cancel(number, origin.submitter)
        submit(store, ["other"], batch="c")
        submit(store, ["another"], batch="c", origin=ALICE)
    house.start()
    daemon = Client(house.socket)
    assert [find_batch(daemon, name).id for name in ("a", "b", "2")] == [1, 4, 2]
    with pytest.raises(NotFound, match="there is no batch none"):
        find_batch(daemon, "none")
    with pytest.raises(InvalidInput, match="6 of alice, 5 of bob"):
        find_batch(daemon, "c")
