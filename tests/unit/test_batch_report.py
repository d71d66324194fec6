"""The report of a batch, for spreadsheets and as Markdown. Names and errors may come from strangers."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hyper2kvmd.daemon.batch_report import HEADINGS, TITLES, csv_report, markdown_heading, markdown_lines
from hyper2kvmd.model.jobs import Batch, Counts, Job, Problem, State
from hyper2kvmd.model.results import Artifact, PublishedDisk

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PROBLEM = Problem(code="source-missing", message="/a.vmdk: not found", hint="Correct the path", kind="operator")


def job(number: int, state: State, name: str = "web01", **values: object) -> Job:
    times = {"created": NOON, "started": NOON, "finished": NOON + timedelta(seconds=90)}
    return Job.model_validate(
        {"id": number, "state": state, "vm_name": name, "priority": 5, "content_key": "", **times, **values}
    )


def artifact(path: str) -> Artifact:
    disk, report = PublishedDisk(path=Path(path), file_bytes=3 << 20), Path("/images/report")
    return Artifact(disks=(disk, disk), format="qcow2", report_json=report, report_markdown=report)


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def batch(**values: object) -> Batch:
    counts = Counts(succeeded=1, failed=1)
    facts = {"id": 7, "name": "wave1", "submitter": "alice", "submitter_uid": 1000, "created": NOON, "counts": counts}
    return Batch.model_validate({**facts, **values})


def test_one_line_for_each_job() -> None:
    jobs = (job(1, State.SUCCEEDED, warnings=2), job(2, State.FAILED, problems=(PROBLEM,)))
    made = {1: artifact("/images/web01.qcow2")}
    heads, first, second = rows(csv_report(jobs, made))
    assert tuple(heads) == HEADINGS
    images = "/images/web01.qcow2; /images/web01.qcow2"
    assert first == ["1", "web01", "succeeded", "90.0", str(6 << 20), "2", "", "", "", images]
    assert second[6:] == ["source-missing", "/a.vmdk: not found", "Correct the path", ""]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_no_cell_is_a_formula(start: str) -> None:
    evil = f"{start}cmd|' /C calc'!A0"
    said = PROBLEM.with_changes(message=evil, hint=evil)
    (_, row) = rows(csv_report((job(1, State.FAILED, evil, problems=(said,)),), {}))
    assert [cell for cell in row if cell.startswith(start)] == []
    assert row[1] == f"'{evil}"


def test_a_job_that_waits() -> None:
    waiting = job(3, State.QUEUED, started=None, finished=None)
    assert rows(csv_report((waiting,), {}))[1] == ["3", "web01", "queued", "", "", "0", "", "", "", ""]


def test_markdown_shows_texts_of_strangers_as_text() -> None:
    name = "a|b<script>[x](http://h)`*~\u202e\x1b"
    said = PROBLEM.with_changes(message="one\ntwo | three")
    text = markdown_heading(batch(name=name)) + markdown_lines((job(1, State.FAILED, name, problems=(said,)),), {})
    assert "<script>" not in text and "://" not in text.replace("\\://", "")
    assert all(letter.isprintable() for line in text.splitlines() for letter in line)
    *_, last = text.splitlines()
    assert last.count(" | ") == len(TITLES) - 1, "a bar in a text is escaped"
    assert "one two \\| three. Correct the path. (source-missing)" in last
    assert "1 succeeded, 1 failed." in text
    assert "1 min 30 s" in last
