"""Numbers, ranges, rules and times, as a person writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from hyper2kvmd.cli.listing import SORTS
from hyper2kvmd.cli.selectors import (
    NUMBERS,
    STATES,
    Numbers,
    described,
)
from hyper2kvmd.cli.since import MomentType, moment
from hyper2kvmd.cli.submit import expanded
from hyper2kvmd.model.jobs import Job, Sort, State

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
