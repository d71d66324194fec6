"""What the commands say about jobs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hyper2kvmd.cli import batch_views, job_table, job_views, live, verbs, watch
from hyper2kvmd.cli.output import Output
from hyper2kvmd.daemon.wire import RunningJob
from hyper2kvmd.model.jobs import Batch, Counts, Job, JobEvent, Problem, Stage, State, WaitingFor

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def job(number: int = 7, state: State = State.QUEUED, **keys: object) -> Job:
    given = {"id": number, "state": state, "vm_name": "web01", "priority": 5, "content_key": "k", "created": NOW}
    return Job.model_validate(given | keys)


def running(**keys: object) -> RunningJob:
    given = {"id": 7, "vm_name": "web01", "attempt": 1, "stage": Stage.CONVERT, "step": "Copying", "progress": 0.4}
    return RunningJob.model_validate(given | {"started": NOW, "cancelling": False} | keys)


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (running(), "convert: Copying 40%"),
        (running(stage=None, step="", progress=None), "starting"),
        (
            running(bytes_done=1 << 30, bytes_total=3 << 30, bytes_per_second=float(120 << 20), eta_seconds=200.0),
            "convert: Copying 40% (1.0 GiB of 3.0 GiB), 120.0 MiB/s, about 4 min left",
        ),
        (running(progress=None, eta_seconds=0.0), "convert: Copying, less than a minute left"),
    ],
)
def test_a_running_job_is_one_line(one: RunningJob, text: str) -> None:
    assert job_views.running(one) == text


def test_every_reason_to_wait_has_a_text() -> None:
    assert {reason.value for reason in WaitingFor} == set(job_views.WAITS)


@pytest.mark.parametrize("stage", [None, *Stage])
def test_every_stage_has_a_word_for_a_job_that_is_cancelled(stage: Stage | None) -> None:
    before = job(state=State.RUNNING, stage=stage)
    said = verbs.cancelled(before, before.with_changes(cancelling=True))
    kept = stage in (Stage.CONVERT, Stage.REPAIR, Stage.VERIFY)
    assert said.startswith("cancelling job 7 (web01), which is ")
    assert said.endswith("; its working folder is kept for a retry") == kept
    assert ("starting" in said) == (stage is None)


def test_a_waiting_job_is_cancelled_at_once() -> None:
    assert verbs.cancelled(job(), job(state=State.CANCELLED)) == "cancelled job 7 (web01)"


@pytest.mark.parametrize(
    ("state", "code"), [(State.SUCCEEDED, 0), (State.FAILED, 1), (State.CANCELLED, 1), (State.REJECTED, 2)]
)
def test_the_exit_status_of_a_job(state: State, code: int) -> None:
    assert watch.exit_code(job(state=state)) == code


def test_the_outcome_of_several_jobs_names_all_that_did_not_succeed() -> None:
    jobs = [job(1, State.SUCCEEDED), job(2, State.FAILED), job(3, State.SUCCEEDED), job(4, State.FAILED)]
    assert watch.outcome(jobs) == "4 jobs: 2 succeeded, 2 failed (2 web01, 4 web01)"


def test_a_waiting_job_says_why() -> None:
    assert live.waiting(job(waiting_for=WaitingFor.SPACE)) == "7 web01 is queued: waits for space"
    assert live.waiting(job()) == "7 web01 is queued"


def test_a_batch_shows_how_many_of_its_jobs_have_ended() -> None:
    batch = Batch(
        id=3, name="wave", submitter="bob", submitter_uid=1, created=NOW, counts=Counts(queued=1, failed=2, succeeded=1)
    )
    jobs = [job(1), job(2, State.FAILED), job(3, State.FAILED), job(4, State.SUCCEEDED)]
    facts = dict(batch_views.facts(batch, jobs))
    assert (facts["jobs"], facts["progress"]) == ("1 queued, 1 succeeded, 2 failed", "75%")
    row = "".join(cell.text for cell in batch_views.table([batch], None)[1])
    assert row.split()[:5] == ["3", "wave", "3", "of", "4"]


def test_show_names_who_cancelled_a_job_and_the_attempt_of_each_stage(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = (("stage-started", "convert"), ("cancel-requested", "bob"), ("cancelled", ""))
    events = [
        JobEvent(id=number, job_id=7, at=NOW, attempt=1, kind=kind, message=message)
        for number, (kind, message) in enumerate(kinds, 1)
    ]
    job_views.job(Output(), job(state=State.CANCELLED), events)
    shown = capsys.readouterr().out
    assert "cancelled    by bob\n" in shown
    assert "convert  1 " in shown
    job_views.job(Output(), job(state=State.FAILED), events)
    assert "by bob" not in capsys.readouterr().out


def test_a_rejected_job_has_no_priority_and_names_the_place_of_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    problem = Problem(
        code="key-unknown", message="the key banana is not known", hint="Remove it", kind="permanent", line=2, column=1
    )
    rejected = job(state=State.REJECTED, spool_name="bad.yaml", problems=(problem,))
    job_views.job(Output(), rejected, ())
    shown = capsys.readouterr().out
    assert "  bad.yaml:2:1: the key banana is not known [key-unknown]\n  Remove it.\n" in shown
    assert "priority" not in shown
    assert "5" not in "".join(cell.text for cell in job_table.table([rejected], None, NOW)[1])
