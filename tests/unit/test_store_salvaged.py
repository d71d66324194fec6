"""Jobs of a lost database, entered into a new one."""

from __future__ import annotations

from hyper2kvmd.jobs.salvaged import EndedJob, has_numbers, take_over
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.model.jobs import State
from tests.support.queue_verbs import add, kinds

ALICE = Origin(submitter="alice", uid=1000, name="a.yaml", claim="c", path="done/a.yaml")


def test_numbers_continue_after_those_that_were_given(store: Store) -> None:
    assert not has_numbers(store)
    assert take_over(store, [], 0, None) == 0 and not has_numbers(store)
    assert take_over(store, [], 1000, "the-former-one") == 0
    assert has_numbers(store) and store.identity() == "the-former-one"
    assert add(store, "a").id == 1001


def test_finished_jobs_are_entered_once_with_their_numbers(store: Store) -> None:
    ended = EndedJob(7, "a", State.SUCCEEDED, ALICE, attempts=2)
    assert take_over(store, [ended, ended], 5, None) == 1
    job = store.get(7)
    assert (job.vm_name, job.state, job.submitter, job.attempt) == ("a", State.SUCCEEDED, "alice", 2)
    assert kinds(store, 7) == ["succeeded"]
    assert add(store, "b").id == 8
