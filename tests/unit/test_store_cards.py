"""MAC addresses of machines of several jobs, on a real SQLite file."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from hyper2kvmd.jobs.cards import MAX_CONCERNS, NEWEST
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.jobs.tables import cards
from hyper2kvmd.model.asked import Migration
from tests.support.queue_verbs import CRASH, content_key, now

MAC, OTHER_MAC = "00:50:56:00:00:01", "00:50:56:00:00:02"


def with_card(store: Store, name: str, *macs: str, **keys: object) -> list[str]:
    """A running job for a machine with these addresses; the machines that have one of them."""
    asked = {"vmdk": f"/images/{name}.vmdk", "vm_name": name, **keys}
    key = content_key(name, keys, macs)
    job = store.submit(Migration.model_validate(asked), content_key=key, origin=Origin()).job
    running = store.claim(now())
    assert running is not None and running.id == job.id
    concerns = store.record_macs(job.id, 1, macs)
    warned = [event.message for event in store.events(job.id) if event.kind == "warned"]
    assert sorted(warned) == sorted(map(str, concerns))
    return [one.message.split("so has ")[1].split(" ")[0] for one in concerns]


def test_a_mac_address_of_another_jobs_machine_is_a_concern(store: Store) -> None:
    assert with_card(store, "first", MAC, MAC) == []
    assert with_card(store, "second", OTHER_MAC, MAC) == ["first"]
    assert with_card(store, "third", MAC) == ["second", "first"]
    assert store.record_macs(1, 1, [OTHER_MAC])[0].code == "mac-in-other-job"
    assert with_card(store, "fourth", MAC) == ["third", "second"]


@pytest.mark.parametrize("keys", [{"target": "proxmox"}, {"libvirt_uri": "qemu+ssh://other/system"}])
def test_another_target_may_have_the_same_mac_address(store: Store, keys: dict[str, object]) -> None:
    with_card(store, "first", MAC)
    assert with_card(store, "second", MAC, **keys) == []
    assert with_card(store, "third", MAC, **keys) == ["second"]


def test_the_same_machine_may_be_migrated_again(store: Store) -> None:
    with_card(store, "web01", MAC)
    assert with_card(store, "web01", MAC, memory=512) == []


def test_a_dry_run_and_a_failed_job_have_no_machine(store: Store) -> None:
    assert with_card(store, "dry", MAC, dry_run=True) == []
    assert with_card(store, "failed", MAC) == []
    store.fail(2, 1, [CRASH], keep_stages=False)
    assert with_card(store, "third", MAC) == []
    store.succeed(3, 1, "")
    assert with_card(store, "fourth", MAC, dry_run=True) == ["third"]


def recorded_cards(store: Store) -> list[tuple[int, str]]:
    with store.transaction() as connection:
        rows = connection.execute(select(cards.c.job_id, cards.c.mac).order_by(cards.c.job_id))
        return [(row.job_id, row.mac) for row in rows]


def test_the_cards_of_a_job_that_ended_without_a_machine_are_deleted(store: Store) -> None:
    for name in ("succeeded", "failed", "cancelled", "waiting", "dead"):
        with_card(store, name, MAC)
    assert len(recorded_cards(store)) == 5
    store.succeed(1, 1, "")
    store.fail(2, 1, [CRASH], keep_stages=True)
    store.finish_cancelled(3, 1, keep_stages=True)
    store.requeue(4, 1, "later", keep_stages=True)
    store.cancel(4, "test")
    store.cancel(5, "test")
    store.recover()
    assert recorded_cards(store) == [(1, MAC)]


def test_a_dry_run_forgets_the_cards_of_an_earlier_attempt(store: Store) -> None:
    with_card(store, "dry", MAC, dry_run=True)
    assert recorded_cards(store) == []


def test_the_search_for_an_address_reads_a_bounded_number_of_jobs(store: Store) -> None:
    """The newest ones only: all other writers wait for this transaction."""
    with_card(store, "oldest", MAC)
    with_card(store, "other", OTHER_MAC)
    for number in range(NEWEST):
        with_card(store, "same", MAC, memory=512 + number)
    assert with_card(store, "same", MAC) == []
    assert with_card(store, "many", OTHER_MAC, MAC) == ["same"] * MAX_CONCERNS


def test_an_address_is_found_by_an_index(tmp_path: Path) -> None:
    Store(f"sqlite:///{tmp_path}/jobs.sqlite3").close()
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as connection:
        query = "SELECT mac, job_id FROM cards WHERE mac = ? AND place = ? AND job_id != 1 ORDER BY job_id DESC LIMIT 1"
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", (MAC, "qemu")))
    assert "ix_cards_mac_place_job_id" in plan and "TEMP B-TREE" not in plan


def test_a_forgotten_job_has_no_machine_and_an_older_attempt_says_nothing(store: Store) -> None:
    with_card(store, "first", MAC)
    store.succeed(1, 1, "")
    assert store.forget(now() + timedelta(days=1)) == 1
    assert with_card(store, "second", MAC) == []
    assert store.record_macs(2, 0, [OTHER_MAC]) == ()
    assert with_card(store, "third", OTHER_MAC) == []
