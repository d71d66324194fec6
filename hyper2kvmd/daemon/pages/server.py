"""The routes on `metrics_listen`: `/metrics`, `/healthz`, and pages for people. All of them only read."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

import hyper2kvmd
from hyper2kvmd import catalogue
from hyper2kvmd.catalogue import KINDS, Explanation
from hyper2kvmd.daemon.batch_report import Artifacts, csv_heading, csv_lines, markdown_heading, markdown_lines
from hyper2kvmd.daemon.doors import Handler
from hyper2kvmd.daemon.http import web
from hyper2kvmd.daemon.ledger import PATIENCE_SECONDS, Ledger
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.pages import chart, host, render, views
from hyper2kvmd.daemon.pages.address import PAGE_JOBS, BadAddress, Wanted, read, written_uid
from hyper2kvmd.daemon.pages.reported import Reported, of_report
from hyper2kvmd.daemon.pages.shared import Overloaded, Shared, SharedPages
from hyper2kvmd.daemon.report_file import ReportFiles
from hyper2kvmd.daemon.scheduler import Scheduler
from hyper2kvmd.daemon.storage import unwritable
from hyper2kvmd.daemon.threads import in_a_thread
from hyper2kvmd.errors import Failure, TryLater
from hyper2kvmd.model.jobs import Job, JobFilter, Sort, State
from hyper2kvmd.model.results import Finished

STALE_SECONDS = 30.0
"""A scheduler that has been unresponsive for this long is not healthy."""
MAX_BODY_BYTES = 1024
"""No request to this server needs a body."""
MAX_ADDRESS = 1000
"""Characters of a query."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STYLE_HEADERS = {**HEADERS, "Cache-Control": "max-age=3600"}
WAITING = (State.QUEUED, State.HELD)
ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.REJECTED)
RECENT = 20
FORMS = {"csv": "text/csv", "md": "text/markdown"}
"""Of the report of a batch."""
MAX_REPORTS = 4
"""Reports of batches that are written at the same time."""
AT_ONCE = 200
"""Jobs of one part of a report: others may ask the database in between."""
Lines = Callable[[Sequence[Job], Artifacts], str]
Make = Callable[[web.Request, Wanted], Coroutine[None, None, str]]


class Web:
    def __init__(self, scheduler: Scheduler, ledger: Ledger, metrics: Metrics) -> None:
        self._scheduler, self._ledger, self._metrics = scheduler, ledger, metrics
        self._shared_metrics = Shared(self._make_metrics)
        self._shared_ping = Shared(self._ping)
        self._pages = SharedPages()
        self._reports = ReportFiles()
        self._reports_in_work = 0
        self._host = socket.gethostname()

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._refusing], client_max_size=MAX_BODY_BYTES)
        application.add_routes(
            [
                web.get("/metrics", self._render),
                web.get("/healthz", self._health),
                web.get("/style.css", self._style),
                web.get("/", self._page(self._overview)),
                web.get("/jobs", self._page(self._jobs)),
                web.get("/jobs/{id:[0-9]{1,9}}", self._page(self._job)),
                web.get("/batches", self._page(self._batches)),
                web.get("/batches/{id:[0-9]{1,9}}", self._page(self._batch)),
                web.get("/batches/{id:[0-9]{1,9}}.{form:csv|md}", self._report),
                web.get("/host", self._page(self._host_page)),
                web.get("/errors/{code:[a-z0-9-]{1,64}}", self._page(self._error)),
            ]
        )
        return application

    # ------------------------------------------------------------ for programs

    async def _render(self, _request: web.Request) -> web.Response:
        body = await self._shared_metrics.get()
        return web.Response(body=body, headers={**HEADERS, "Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    async def _make_metrics(self) -> bytes:
        return self._metrics.render(await self._scheduler.status(), self._scheduler.last_tick)

    async def _health(self, _request: web.Request) -> web.Response:
        """200 when the scheduler runs, directories can be written to and the database responds, else 503."""
        age = time.monotonic() - self._scheduler.last_tick
        if age > STALE_SECONDS:
            reason = f"the scheduler has been unresponsive for {age:.0f} s\n"
            return web.Response(text=reason, status=503, headers=HEADERS)
        if faults := self._scheduler.storage.faults:
            text = "".join(f"{unwritable(one.role, one.path, one.reason)}\n" for one in faults)
            return web.Response(text=text, status=503, headers=HEADERS)
        await self._shared_ping.get()
        if fault := self._ledger.fault:  # on a full disk, reading succeeds meanwhile
            return web.Response(text=f"{fault}\n", status=503, headers=HEADERS)
        return web.Response(text="ok\n", headers=HEADERS)

    async def _ping(self) -> None:
        await self._ledger.call(self._ledger.store.paused)

    # ------------------------------------------------------------ for people

    async def _style(self, _request: web.Request) -> web.Response:
        return web.Response(text=render.STYLE, content_type="text/css", headers=STYLE_HEADERS)

    def _page(self, make: Make) -> Handler:
        async def answer(request: web.Request) -> web.Response:
            if len(request.query_string) > MAX_ADDRESS:
                raise BadAddress("the address is too long")
            wanted = read(request.query, request.query.getall("state", []))
            text = await self._pages.get(wanted.address(request.path), lambda: make(request, wanted))
            refresh = {"Refresh": str(wanted.refresh)} if wanted.refresh else {}
            return web.Response(text=text, content_type="text/html", headers={**HEADERS, **refresh})

        return answer

    async def _show(self, name: str, here: str, **values: Any) -> str:
        """Rendered in a thread: a long page must not stop the event loop."""
        common = {"host": self._host, "now": datetime.now(UTC), "version": hyper2kvmd.__version__, "here": here}
        return await in_a_thread("page", render.page, name, **common, **values)

    async def _overview(self, _request: web.Request, wanted: Wanted) -> str:
        status = await self._scheduler.status()
        store, now = self._ledger.store, datetime.now(UTC)
        queue = JobFilter(states=WAITING)
        waiting = await self._ledger.call(store.list, queue, PAGE_JOBS, wanted.offset, Sort.START)
        recent = await self._ledger.call(store.list, JobFilter(states=ENDED), RECENT, 0, Sort.FINISHED)
        work = await self._ledger.call(store.work_since, now - timedelta(hours=chart.HOURS))
        return await self._show(
            "overview",
            "/",
            status=status,
            wanted=wanted,
            waiting=waiting,
            waiting_total=status.counts.queued + status.counts.held,
            recent=recent,
            chart=chart.draw(work, now),
        )

    async def _jobs(self, _request: web.Request, wanted: Wanted) -> str:
        jobs, total = await self._found(wanted)
        return await self._show("jobs", "/jobs", jobs=jobs, total=total, wanted=wanted)

    async def _found(self, wanted: Wanted) -> tuple[list[Job], int]:
        """The jobs of one page, and the number of all."""
        store, chosen = self._ledger.store, wanted.chosen(await self._uid_of(wanted.submitter))
        jobs = await self._ledger.call(store.list, chosen, PAGE_JOBS, wanted.offset, wanted.sort)
        return jobs, await self._ledger.call(store.count, chosen)

    async def _uid_of(self, submitter: str) -> int | None:
        """By the submitters on record: the accounts of the host are nobody's business. Raises BadAddress."""
        if not submitter:
            return None
        if (uid := written_uid(submitter)) is not None:
            return uid
        found = await self._ledger.call(self._ledger.store.uid_of, submitter)
        if found is None:
            raise BadAddress("submitter has no job on record")
        return found

    async def _job(self, request: web.Request, wanted: Wanted) -> str:
        number, store = int(request.match_info["id"]), self._ledger.store
        job = await self._ledger.call(store.get, number)
        events = await self._ledger.call(store.events, number)
        finished = await self._ledger.call(store.finished_stages, number)
        reported = await self._reported(job, finished)
        view = await in_a_thread("page", views.of_job, job, events, finished, reported)
        running = next((one for one in (await self._scheduler.status()).running if one.id == number), None)
        return await self._show(
            "job",
            "/jobs",
            **dict(view),
            running=running,
            reported=reported,
            kinds=KINDS,
            wanted=wanted,
            address=request.path,
        )

    async def _reported(self, job: Job, finished: Finished) -> Reported | None:
        """None for a job without a report, or if that cannot be read: its directory may be the submitter's."""
        if finished.artifact is None:
            return None
        with suppress(Failure):
            text = await self._reports.read(job, finished.artifact.report_json)
            return await in_a_thread("report", of_report, text)
        return None

    async def _batches(self, _request: web.Request, wanted: Wanted) -> str:
        store = self._ledger.store
        batches = await self._ledger.call(store.batches, limit=PAGE_JOBS, offset=wanted.offset)
        total = await self._ledger.call(store.count_batches)
        return await self._show("batches", "/batches", batches=batches, total=total, wanted=wanted)

    async def _batch(self, request: web.Request, wanted: Wanted) -> str:
        number = int(request.match_info["id"])
        batch = await self._ledger.call(self._ledger.store.batch, number)
        jobs, total = await self._found(wanted.with_changes(batch=number))
        return await self._show(
            "batch", "/batches", batch=batch, jobs=jobs, total=total, wanted=wanted, address=request.path
        )

    async def _report(self, request: web.Request) -> web.StreamResponse:
        """Without the paths of images, which a report from the control socket has. It is written in parts."""
        number, form = int(request.match_info["id"]), request.match_info["form"]
        batch = await self._ledger.call(self._ledger.store.batch, number)
        if self._reports_in_work >= MAX_REPORTS:
            raise Overloaded
        headers = {**HEADERS, "Content-Disposition": f'attachment; filename="batch-{number}.{form}"'}
        response = web.StreamResponse(headers={**headers, "Content-Type": f"{FORMS[form]}; charset=utf-8"})
        self._reports_in_work += 1
        try:
            await response.prepare(request)
            await response.write((csv_heading() if form == "csv" else markdown_heading(batch)).encode())
            async for text in self._report_parts(number, csv_lines if form == "csv" else markdown_lines):
                await response.write(text.encode())
            await response.write_eof()
        finally:
            self._reports_in_work -= 1
        return response

    async def _report_parts(self, number: int, lines: Lines) -> AsyncIterator[str]:
        """Each part in its turn, as a page: reports take no more of the database's time than these.

        While the database does not respond, the turn passes to pages, which show the error.
        """
        offset = 0

        async def part() -> tuple[str, int]:
            chosen = JobFilter(batch_id=number)
            jobs = await self._ledger.call(self._ledger.store.list, chosen, AT_ONCE, offset, Sort.OLDEST)
            return await in_a_thread("report", lines, jobs, {}), len(jobs)

        length = AT_ONCE
        while length == AT_ONCE:
            try:
                text, length = await self._pages.in_turn(part)
            except TryLater as failure:
                self._ledger.report(failure)
                await asyncio.sleep(PATIENCE_SECONDS)
                continue
            offset += length
            yield text

    async def _host_page(self, _request: web.Request, _wanted: Wanted) -> str:
        status = await self._scheduler.status()
        tools = await in_a_thread("tools", host.tools)
        return await self._show(
            "host", "/host", status=status, facts=host.facts(status), tools=tools, file_systems=status.file_systems
        )

    async def _error(self, request: web.Request, _wanted: Wanted) -> str:
        entry = self._catalogue.get(request.match_info["code"])
        if entry is None:
            raise web.HTTPNotFound(text="The catalogue has no such error code.")
        return await self._show("error", "", entry=entry, kind=KINDS[entry.kind])

    @cached_property
    def _catalogue(self) -> dict[str, Explanation]:
        return catalogue.entries()

    # ------------------------------------------------------------ refusals

    @web.middleware
    async def _refusing(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every answer has HEADERS; status 503 when the database does not respond, or not in time."""
        try:
            return await handler(request)
        except BadAddress as failure:
            return await self._refusal(400, "Invalid address", f"{failure}.")
        except Overloaded:
            return await self._refusal(503, "Too many pages at once", "Load the page again.")
        except Failure as failure:
            if failure.code in ("job-unknown", "batch-unknown"):
                return await self._refusal(404, "Not Found", f"{failure.message}.")
            return web.Response(text=f"{failure}\n", status=503, headers=HEADERS)
        except TimeoutError as failure:
            text = str(failure) or "the job database does not respond"
            return web.Response(text=f"{text}\n", status=503, headers=HEADERS)
        except web.HTTPException as failure:
            return await self._refusal(failure.status, failure.reason, failure.text or "")

    async def _refusal(self, status: int, reason: str, text: str) -> web.Response:
        page = await self._show("refused", "", reason=reason, text=text)
        return web.Response(text=page, status=status, content_type="text/html", headers=HEADERS)
