"""Serves `/metrics`, `/healthz` and a status page for people on `metrics_listen`, read-only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from html import escape
from typing import Generic, TypeVar

from aiohttp import web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from hyper2kvmd.daemon.doors import Handler
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.scheduler import Scheduler
from hyper2kvmd.daemon.wire import RunningJob, Status
from hyper2kvmd.errors import Failure
from hyper2kvmd.jobs.changes import first_line
from hyper2kvmd.model.jobs import Job, State

T = TypeVar("T")

STALE_SECONDS = 30.0
"""A scheduler that has been unresponsive for this long is not healthy."""
ANSWER_SECONDS = 10.0
SHARE_SECONDS = 1.0
MAX_BODY_BYTES = 1024
"""No request to this server needs a body."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8889; --bar: #2f7d5b; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
p { margin: .2rem 0; } .soft { color: var(--soft); }
ul.counts { display: flex; flex-wrap: wrap; gap: .6rem; list-style: none; padding: 0; margin: 1.2rem 0 0; }
ul.counts li { border: 1px solid var(--line); border-radius: .5rem; padding: .4rem .9rem; min-width: 5rem; }
ul.counts b { display: block; font-size: 1.5rem; line-height: 1.2; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); } progress { width: 8rem; accent-color: var(--bar); }
"""


class Shared(Generic[T]):
    """One answer for all requests within SHARE_SECONDS, and for those that arrive while it is being made.

    So the number of requests does not change how often the database is queried.
    """

    def __init__(self, make: Callable[[], Coroutine[None, None, T]]) -> None:
        self._make = make
        self._begun = 0.0
        self._task: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """Raises the errors of `make`, and TimeoutError after ANSWER_SECONDS."""
        now = time.monotonic()
        if self._task is None or (self._task.done() and now - self._begun >= SHARE_SECONDS):
            self._begun = now
            self._task = asyncio.create_task(self._make())
            self._task.add_done_callback(_mark_retrieved)
        return await asyncio.wait_for(asyncio.shield(self._task), ANSWER_SECONDS)


def _mark_retrieved(task: asyncio.Task[T]) -> None:
    """Keep a failure out of the log that no client waited for."""
    if not task.cancelled():
        task.exception()


class Web:
    def __init__(self, scheduler: Scheduler, ledger: Ledger, metrics: Metrics) -> None:
        self._scheduler, self._ledger, self._metrics = scheduler, ledger, metrics
        self._shared_metrics = Shared(self._make_metrics)
        self._shared_page = Shared(self._make_page)
        self._shared_ping = Shared(self._ping)

    def application(self) -> web.Application:
        application = web.Application(middlewares=[_unavailable], client_max_size=MAX_BODY_BYTES)
        application.add_routes(
            [web.get("/metrics", self._render), web.get("/healthz", self._health), web.get("/", self._page)]
        )
        return application

    async def _render(self, _request: web.Request) -> web.Response:
        body = await self._shared_metrics.get()
        return web.Response(body=body, headers={**HEADERS, "Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def _make_metrics(self) -> bytes:
        return self._metrics.render(await self._scheduler.status(), self._scheduler.last_tick)

    async def _health(self, _request: web.Request) -> web.Response:
        """200 when the scheduler runs and the database responds, else 503 with the fact."""
        age = time.monotonic() - self._scheduler.last_tick
        if age > STALE_SECONDS:
            reason = f"the scheduler has been unresponsive for {age:.0f} s\n"
            return web.Response(text=reason, status=503, headers=HEADERS)
        await self._shared_ping.get()
        return web.Response(text="ok\n", headers=HEADERS)

    async def _ping(self) -> None:
        await self._ledger.call(self._ledger.store.paused)

    async def _page(self, _request: web.Request) -> web.Response:
        return web.Response(text=await self._shared_page.get(), content_type="text/html", headers=HEADERS)

    async def _make_page(self) -> str:
        status = await self._scheduler.status()
        waiting = await self._ledger.call(self._ledger.store.list, (State.QUEUED, State.HELD), 50)
        ended = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.REJECTED)
        recent = await self._ledger.call(self._ledger.store.list, ended, 20)
        return _document(status, waiting, recent)


@web.middleware
async def _unavailable(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Status 503 when the database does not respond, or not in time."""
    try:
        return await handler(request)
    except (Failure, TimeoutError) as failure:
        text = str(failure) or "the job database does not respond"
        return web.Response(text=f"{text}\n", status=503, headers=HEADERS)


def _document(status: Status, waiting: list[Job], recent: list[Job]) -> str:
    counts = "".join(f"<li><b>{number}</b>{escape(state)}</li>" for state, number in status.counts)
    gib = 1 << 30
    confined = "confined by Landlock" if status.confinement_available else "not confined: this kernel has no Landlock"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5">
<meta name="viewport" content="width=device-width"><title>hyper2kvmd: {escape(status.state)}</title>
<style>{STYLE}</style></head><body>
<h1>hyper2kvmd is {escape(status.state)}</h1>
<p class="soft">version {escape(status.version)}, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC</p>
<ul class="counts">{counts}</ul>
<h2>Running ({len(status.running)} of {status.max_concurrent_jobs})</h2>
{_table(("Job", "VM", "Stage", "Step", "Progress"), [_running_row(job) for job in status.running])}
<h2>Waiting</h2>
{_table(("Job", "VM", "State", "Priority", "Note"), [_waiting_row(job) for job in waiting])}
<h2>Ended</h2>
{_table(("Job", "VM", "State", "When", "What"), [_ended_row(job) for job in recent])}
<h2>Host</h2>
<p>{escape(str(status.conversion_dir))}: {status.conversion_free_bytes / gib:.1f} GiB free,
{status.conversion_reserved_bytes / gib:.1f} GiB of them promised to running jobs</p>
<p>Image tools are {confined}</p>
</body></html>
"""


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """`rows` are HTML already."""
    if not rows:
        return '<p class="soft">none</p>'
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _running_row(job: RunningJob) -> tuple[str, ...]:
    progress = "" if job.progress is None else f'<progress value="{job.progress:.3f}"></progress> {job.progress:.0%}'
    stage = "being cancelled" if job.cancelling else job.stage or "starting"
    return str(job.id), escape(job.vm_name), escape(stage), escape(job.step), progress


def _waiting_row(job: Job) -> tuple[str, ...]:
    return str(job.id), escape(job.vm_name), escape(job.state), str(job.priority), escape(job.note)


def _ended_row(job: Job) -> tuple[str, ...]:
    when = f"{job.finished:%Y-%m-%d %H:%M}" if job.finished else ""
    what = first_line(job.problems) or job.note
    return str(job.id), escape(job.vm_name), escape(job.state), when, escape(what)
