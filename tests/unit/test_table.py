"""A table fits into a terminal, one line a row, and is whole where there is none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from rich.cells import cell_len

from hyper2kvmd.cli import job_table
from hyper2kvmd.cli.table import Cell, Column, Line, in_parts, laid_out
from hyper2kvmd.model.jobs import Job, Problem, Stage, State, WaitingFor

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
COLUMNS = (Column("id", 9), Column("name", 8, narrowest=6), Column("extra", 1), Column("reason", 5, narrowest=8))
ROWS = [
    (Cell("1"), Cell("a-long-name-of-a-vm"), Cell("x"), Cell("the disk is full and nothing can be done")),
    (Cell("2"), Cell("web"), Cell(""), Cell("")),
]


def text(lines: Iterable[Line]) -> list[str]:
    return ["".join(cell.text for cell in line) for line in lines]


@pytest.mark.parametrize("width", [10, 20, 24, 40, 80, 200])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    lines = text(laid_out(COLUMNS, ROWS, width))
    assert len(lines) == 3
    assert max(map(cell_len, lines)) <= width


def test_a_narrow_terminal_drops_the_least_important_columns_and_cuts_the_last_ones_first() -> None:
    assert text(laid_out(COLUMNS, ROWS, 90))[0].split() == ["id", "name", "extra", "reason"]
    assert text(laid_out(COLUMNS, ROWS, 40)) == [
        "id  name                 extra  reason",
        "1   a-long-name-of-a-vm  x      the dis…",
        "2   web                         ",
    ]
    assert text(laid_out(COLUMNS, ROWS, 20)) == [
        "id  name    reason",
        "1   a-lon…  the disk…"[:19] + "…",
        "2   web     ",
    ]
    assert text(laid_out(COLUMNS, ROWS, 10))[0].split() == ["id", "name"]


def test_a_file_gets_all_columns_whole_without_empty_cells() -> None:
    header, first, second = text(laid_out(COLUMNS, ROWS, None))
    assert header.split() == ["id", "name", "extra", "reason"]
    assert first.endswith("  x      the disk is full and nothing can be done")
    assert second.split() == ["2", "web", "-", "-"]


def test_a_column_without_values_is_not_shown_on_a_terminal() -> None:
    assert text(laid_out(COLUMNS, ROWS[1:], 80)) == ["id  name", "2   web"]


def test_wide_characters_count_twice() -> None:
    lines = text(laid_out(COLUMNS, [(Cell("1"), Cell("仮想マシン仮想マシン"), Cell(""), Cell("x" * 50))], 24))
    assert all(cell_len(line) <= 24 for line in lines)


def job(**keys: object) -> Job:
    given = {"id": 7, "state": State.QUEUED, "vm_name": "web01", "priority": 5, "content_key": "k", "created": NOW}
    return Job.model_validate(given | keys)


def shown(one: Job) -> dict[str, str]:
    header, row = job_table.table([one], None, NOW)
    return {key.text.strip(): cell.text.strip() for key, cell in zip(header, row, strict=True)}


def test_the_columns_of_a_waiting_job() -> None:
    waiting = job(waiting_for=WaitingFor.SPACE, note="needs\n2 GiB", submitter="alice", started=NOW - timedelta(days=1))
    assert shown(waiting) == {
        "id": "7",
        "vm": "web01",
        "state": "queued",
        "stage": "-",
        "progress": "-",
        "priority": "5",
        "submitted by": "alice",
        "waiting for": "space",
        "duration": "-",
        "reason": "needs 2 GiB",
    }


def test_the_columns_of_a_running_job() -> None:
    cells = shown(
        job(state=State.RUNNING, stage=Stage.CONVERT, progress=0.4, started=NOW - timedelta(seconds=190), warnings=2)
    )
    assert (cells["state"], cells["stage"], cells["progress"]) == ("running with 2 warnings", "convert", "40%")
    assert cells["duration"] == "3 min 10 s"
    assert shown(job(state=State.RUNNING, cancelling=True))["state"] == "cancelling"


def test_a_job_that_ended_shows_its_duration_and_its_error() -> None:
    fault = Problem(code="disk-full", message="no space\nleft", hint="Free some", kind="operator")
    ended = {"started": NOW - timedelta(hours=3), "finished": NOW - timedelta(hours=1), "stage": Stage.PLAN}
    cells = shown(job(state=State.FAILED, problems=(fault,), **ended))
    assert (cells["duration"], cells["reason"]) == ("2 h 0 min", "no space left [disk-full]")
    assert shown(job(state=State.SUCCEEDED, note="/images/web01.qcow2", **ended))["reason"] == "-"


@pytest.mark.parametrize(
    ("state", "warnings", "style"),
    [
        (State.SUCCEEDED, 0, "green"),
        (State.SUCCEEDED, 1, "yellow"),
        (State.FAILED, 1, "red"),
        (State.RUNNING, 0, "cyan"),
        (State.QUEUED, 0, ""),
    ],
)
def test_the_colour_of_a_state(state: State, warnings: int, style: str) -> None:
    assert job_table.state_style(job(state=state, warnings=warnings)) == style


def test_a_warning_is_part_of_the_state() -> None:
    assert job_table.state(job(state=State.SUCCEEDED, warnings=1)) == "succeeded with 1 warning"
    assert job_table.state(job(state=State.SUCCEEDED, warnings=2)) == "succeeded with 2 warnings"
    assert job_table.state(job(state=State.SUCCEEDED)) == "succeeded"


def test_a_file_gets_each_part_of_a_table_before_the_next_one_is_asked_for() -> None:
    asked: list[int] = []

    def parts() -> Iterator[list[Line]]:
        for number, row in enumerate(ROWS):
            asked.append(number)
            yield [row]

    lines = in_parts(COLUMNS, parts())
    text([next(lines)])
    assert asked == [0]
    assert len(text(lines)) == len(ROWS)
    assert asked == list(range(len(ROWS)))


def test_a_column_gets_wider_with_the_part_that_needs_it_and_stays_so() -> None:
    names = ["a", "longer", "b"]
    parts = ([(Cell(name), Cell("x"))] for name in names)
    lines = text(in_parts((Column("n", 2), Column("x", 1)), parts))
    assert lines == ["n  x", "a  x", "longer  x", "b       x"]


def test_a_table_without_rows_has_headings() -> None:
    assert text(in_parts((Column("n", 2), Column("x", 1)), [[]])) == ["n  x"]
