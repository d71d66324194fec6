"""Numbers, ranges, rules and times, as a person writes them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import click
import pytest

from hyper2kvmd.cli.listing import SORTS
from hyper2kvmd.cli.selectors import (
    NUMBERS,
    STATES,
    Numbers,
    Selection,
    described,
    find_batch,
    jobs_with_numbers,
    resolved,
)
from hyper2kvmd.cli.since import MomentType, moment
from hyper2kvmd.cli.submit import expanded
from hyper2kvmd.client import Client, Listed
from hyper2kvmd.daemon.wire import MAX_LISTED, BatchesQuery, JobsQuery
from hyper2kvmd.errors import InvalidInput, NotFound
from hyper2kvmd.model.jobs import Batch, Counts, Job, Sort, State

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_the_words_of_the_command_line_are_those_of_the_model() -> None:
    assert tuple(state.value for state in State) == STATES
    assert tuple(sort.value for sort in Sort) == SORTS


@pytest.mark.parametrize(("word", "numbers"), [("12", Numbers(12, 12)), ("12-20", Numbers(12, 20)), ("1-1", (1, 1))])
def test_numbers_and_ranges(word: str, numbers: Numbers) -> None:
    assert NUMBERS.convert(word, None, None) == numbers


@pytest.mark.parametrize("word", ["", "0", "web01", "-3", "3-", "20-12", "0-2", "1-20001", "9999999999", "٣", "1-2-3"])
def test_what_is_no_number(word: str) -> None:
    with pytest.raises(click.BadParameter):
        NUMBERS.convert(word, None, None)


def job(number: int) -> Job:
    return Job(id=number, state=State.QUEUED, vm_name=f"vm{number}", priority=5, content_key="k", created=NOW)


class Records:
    """The answers of a daemon with the jobs 3, 5 and 12, and some batches."""

    def __init__(self, *batches: Batch, jobs: Sequence[int] = (3, 5, 12)) -> None:
        self._batches, self._jobs = batches, jobs
        self.asked: list[JobsQuery] = []

    def jobs(self, query: JobsQuery) -> Listed[Job]:
        self.asked.append(query)
        found = [job(number) for number in self._jobs if not query.id or number in query.id]
        return Listed(tuple(found[query.offset : query.offset + min(query.limit, MAX_LISTED)]), len(found))

    def batches(self, query: BatchesQuery) -> Listed[Batch]:
        found = tuple(one for one in self._batches if (one.finished is None) == query.active)
        return Listed(found, len(found))

    def batch(self, number: int) -> Batch:
        return next(one for one in self._batches if one.id == number)


def of(records: Records) -> Client:
    return cast(Client, records)


def test_named_jobs_come_once_in_order_and_missing_ones_are_unknown() -> None:
    asked = Selection(numbers=(Numbers(12, 12), Numbers(1, 5), Numbers(77, 77), Numbers(90, 95)))
    found = resolved(of(Records()), asked, ("queued",))
    assert ([one.id for one in found.jobs], found.unknown) == ([3, 5, 12], (77, 90, 95))
    assert found.failure().message == "there are no jobs 77, 90, 95"
    assert found.failure().exit_code == 1
    assert not found.one_job


def test_one_number_is_one_job() -> None:
    assert resolved(of(Records()), Selection(numbers=(Numbers(3, 3),)), ()).one_job
    assert not resolved(of(Records()), Selection(numbers=(Numbers(3, 4),)), ()).one_job


def test_rules_ask_for_the_states_of_the_command_unless_they_name_some() -> None:
    records = Records()
    resolved(of(records), Selection(mine=True), ("queued", "held"))
    resolved(of(records), Selection(states=("failed",)), ("failed", "cancelled"))
    assert [query.state for query in records.asked] == [(State.QUEUED, State.HELD), (State.FAILED,)]
    assert [query.mine for query in records.asked] == [True, False]


def test_all_pages_are_read() -> None:
    records = Records(jobs=range(1, 2501))
    assert len(resolved(of(records), Selection(mine=True), ()).jobs) == 2500
    assert len(list(jobs_with_numbers(of(records), range(1, 1001)))) == 1000


@pytest.mark.parametrize("asked", [Selection(), Selection(numbers=(Numbers(1, 1),), mine=True)])
def test_nothing_and_both_are_refused(asked: Selection) -> None:
    with pytest.raises(click.UsageError):
        resolved(of(Records()), asked, ())


def batch(number: int, name: str, *, active: bool) -> Batch:
    finished = None if active else NOW
    return Batch(
        id=number, name=name, submitter="bob", submitter_uid=1, created=NOW, finished=finished, counts=Counts()
    )


def test_a_batch_is_the_active_one_of_its_name_or_the_newest() -> None:
    records = of(Records(batch(9, "a", active=False), batch(7, "a", active=True), batch(5, "b", active=False)))
    assert find_batch(records, "a").id == 7
    assert find_batch(records, "b").id == 5
    assert find_batch(records, "9").id == 9
    with pytest.raises(NotFound, match="there is no batch c"):
        find_batch(records, "c")


def test_a_name_of_two_active_batches_is_ambiguous() -> None:
    with pytest.raises(InvalidInput, match="7 of bob, 6 of bob"):
        find_batch(of(Records(batch(7, "a", active=True), batch(6, "a", active=True))), "a")


def test_a_question_names_some_jobs() -> None:
    assert described([job(3)]) == "1 job (3 vm3)"
    assert described([job(number) for number in range(1, 6)]) == "5 jobs (1 vm1, 2 vm2, 3 vm3 and 2 more)"


@pytest.mark.parametrize(
    ("text", "past"),
    [
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("3d", timedelta(days=3)),
        ("1w", timedelta(weeks=1)),
        ("2026-01-30T12:00:00+00:00", timedelta(days=1)),
        ("2026-01-31T13:00:00+02:00", timedelta(hours=1)),
    ],
)
def test_a_time_in_the_past(text: str, past: timedelta) -> None:
    assert moment(text, NOW) == NOW - past


def test_a_date_is_its_beginning_on_this_host() -> None:
    assert moment("2026-01-30", NOW) == datetime(2026, 1, 30).astimezone()


@pytest.mark.parametrize("text", ["", "2", "h", "2x", "-2h", "yesterday", "2026-13-01", "999999w"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time such as"):
        MomentType().convert(text, None, None)


def test_a_pattern_stands_for_files_unless_a_file_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.yaml", "a.yaml", "web[1].yaml", "web1.yaml"):
        Path(name).touch()
    assert list(map(str, expanded(["?.yaml"]))) == ["a.yaml", "b.yaml"]
    assert list(map(str, expanded(["web[1].yaml", "none*", "-x"]))) == ["web[1].yaml", "none*", "-x"]
    assert list(map(str, expanded([f"{tmp_path}/a*"]))) == [f"{tmp_path}/a.yaml"]
