"""The parts of the status pages: addresses, answers that are shared, the timeline of a job, the chart, escaping."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hyper2kvmd.daemon.pages import address, chart, render, views
from hyper2kvmd.daemon.pages.address import BadAddress, Wanted, read
from hyper2kvmd.daemon.pages.shared import MAX_QUEUED, PAGES_KEPT, Overloaded, SharedPages
from hyper2kvmd.model.jobs import Job, JobEvent, Stage, State, Work
from hyper2kvmd.model.results import Finished

NOW = datetime(2026, 11, 30, 12, 30, tzinfo=UTC)


# ---------------------------------------------------------------- addresses


def test_an_address_is_read_and_written() -> None:
    wanted = Wanted(states=(State.FAILED, State.HELD), since="7d", warned=True, vm="web 01", page=3)
    text = wanted.address("/jobs")
    assert text == "/jobs?since=7d&warned=1&vm=web+01&page=3&state=failed&state=held"
    query = {"since": "7d", "warned": "1", "vm": "web 01", "page": "3", "state": "failed"}
    assert read(query, ["failed", "held"]) == wanted


def test_empty_fields_of_the_form_mean_nothing() -> None:
    fields = dict.fromkeys(("state", "since", "vm", "submitter", "batch", "sort", "page", "refresh"), "")
    assert read(fields, [""]) == Wanted()
    assert Wanted().address("/") == "/"


@pytest.mark.parametrize(
    ("query", "fact"),
    [
        ({"since": "yesterday"}, "since is not"),
        ({"since": "99999w" * 20}, "since is not"),
        ({"sort": "id; drop table jobs"}, "sort must be"),
        ({"page": "0"}, "page must be"),
        ({"page": "401"}, "page must be"),
        ({"page": "٣"}, "page must be"),
        ({"batch": "-1"}, "batch must be"),
        ({"refresh": "1"}, "refresh must be"),
        ({"vm": "x" * 256}, "vm is not"),
        ({"vm": "\x1b[2J"}, "vm is not"),
        ({"limit": "100000"}, "limit is no filter"),
        ({"states": "failed"}, "states is no filter"),
    ],
)
def test_an_invalid_address_is_refused(query: dict[str, str], fact: str) -> None:
    with pytest.raises(BadAddress, match=fact):
        read(query, [])


def test_an_unknown_state_is_refused() -> None:
    with pytest.raises(BadAddress, match="state must be one of queued, held"):
        read({"state": "lost"}, ["lost"])


def test_since_is_a_duration_or_a_date() -> None:
    assert address.moment("2026-01-31T10:00+01:00") == datetime(2026, 1, 31, 9, tzinfo=UTC)
    ago = address.moment("2d")
    assert ago is not None and abs(datetime.now(UTC) - ago - timedelta(days=2)) < timedelta(minutes=5)
    assert address.moment("") is None


def test_a_submitter_is_a_name_or_a_number() -> None:
    assert [address.written_uid(text) for text in ("4711", "root", "", "٣", "1" * 11)] == [4711, *[None] * 4]


# ---------------------------------------------------------------- answers that are shared


def test_different_pages_are_made_one_at_a_time_and_not_without_end() -> None:
    together: list[int] = []
    going = 0

    async def make() -> str:
        nonlocal going
        going += 1
        together.append(going)
        await asyncio.sleep(0)
        going -= 1
        return "page"

    async def run() -> int:
        pages = SharedPages()
        wanted = [pages.get(f"/jobs?page={number}", make) for number in range(MAX_QUEUED * 2)]
        answers = await asyncio.gather(*wanted, return_exceptions=True)
        return sum(isinstance(answer, Overloaded) for answer in answers)

    assert asyncio.run(run()) == MAX_QUEUED
    assert together == [1] * MAX_QUEUED


def test_the_same_page_is_made_once_for_all() -> None:
    made: list[str] = []

    async def make() -> str:
        made.append("page")
        return "page"

    async def run() -> None:
        pages = SharedPages()
        await asyncio.gather(*(pages.get("/", make) for _ in range(100)))

    asyncio.run(run())
    assert made == ["page"]


def test_few_pages_are_kept() -> None:
    async def make() -> str:
        return "page"

    async def run() -> int:
        pages = SharedPages()
        for number in range(PAGES_KEPT * 2):
            await pages.get(f"/jobs?page={number}", make)
        return len(pages)

    assert asyncio.run(run()) <= PAGES_KEPT + 1


# ---------------------------------------------------------------- one job


def job(**values: Any) -> Job:
    return Job.model_validate(
        {"id": 7, "state": State.RUNNING, "vm_name": "web01", "priority": 5, "content_key": "k", "created": NOW}
        | values
    )


def event(number: int, kind: str, message: str = "", *, minutes: int = 0) -> JobEvent:
    return JobEvent(id=number, job_id=7, at=NOW + timedelta(minutes=minutes), attempt=1, kind=kind, message=message)


def test_the_timeline_of_a_job() -> None:
    events = (
        event(1, "submitted"),
        event(2, "stage-started", "plan"),
        event(3, "stage-finished", "plan in 4.2 s", minutes=1),
        event(4, "stage-started", "convert", minutes=2),
    )
    view = views.of_job(job(state=State.FAILED, stage=Stage.CONVERT), events, Finished())
    rows = [(row.name.value, row.state, row.seconds) for row in view.stages[:3]]
    assert rows == [("plan", "finished", 60.0), ("convert", "failed", None), ("repair", "not started", None)]


def test_a_stage_that_began_again_is_not_finished() -> None:
    events = (
        event(1, "stage-started", "plan"),
        event(2, "stage-finished", "plan in 1 s"),
        event(3, "stage-started", "plan"),
    )
    assert views.of_job(job(stage=Stage.PLAN), events, Finished()).stages[0].state == "running"


def test_the_log_has_all_events_but_the_identities_of_the_machine() -> None:
    kinds = ("submitted", "machine", "warned", "noted", "space-reserved", "priority-changed", "succeeded")
    events = tuple(event(number, kind, f"{kind} /images") for number, kind in enumerate(kinds))
    view = views.of_job(job(), events, Finished())
    assert [one.kind for one in reversed(view.events)] == [kind for kind in kinds if kind != "machine"]
    assert view.events[0].message == "", "it is the path of an image"
    assert view.warnings == ("warned /images",)


def test_the_newest_events_are_shown() -> None:
    events = tuple(event(number, "requeued") for number in range(views.EVENTS_SHOWN + 5))
    view = views.of_job(job(), events, Finished())
    assert (view.earlier, view.events[0].id) == (5, views.EVENTS_SHOWN + 4)


# ---------------------------------------------------------------- the chart


def test_the_chart_has_an_hour_for_each_bar_and_says_what_it_shows() -> None:
    worked = (
        Work(hour=datetime(2026, 11, 30, 12, tzinfo=UTC), bytes_read=1 << 30),
        Work(hour=datetime(2026, 11, 30, 10, tzinfo=UTC), bytes_read=4 << 30),
        Work(hour=datetime(2026, 11, 28, 10, tzinfo=UTC), bytes_read=9 << 30),
    )
    drawn = chart.draw(worked, NOW)
    assert drawn is not None
    assert [bar.height for bar in drawn.bars][-3:] == [100.0, 0.0, 25.0]
    assert len(drawn.bars) == chart.HOURS
    assert drawn.words.startswith("5.0 GiB were read in the last 24 hours; the most within an hour was 4.0 GiB")


def test_there_is_no_chart_of_nothing() -> None:
    assert chart.draw((), NOW) is None


# ---------------------------------------------------------------- escaping


def test_the_catalogues_commands_are_marked_and_its_text_escaped() -> None:
    assert render.commands("run `a <b>` & <i>") == "run <code>a &lt;b&gt;</code> &amp; &lt;i&gt;"


def test_a_value_is_escaped_and_printable() -> None:
    page = render.page(
        "refused", host="<h>", now=NOW, version="1", here="", reason="<b>", text="a\x1b[2J\u202e\n<script>"
    )
    assert "&lt;b&gt;" in page and "a\ufffd[2J\ufffd &lt;script&gt;" in page and "on &lt;h&gt;</title>" in page
