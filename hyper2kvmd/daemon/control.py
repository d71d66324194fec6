"""The handlers of the control socket's operations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from hyper2kvmd import spec
from hyper2kvmd.daemon import operations
from hyper2kvmd.daemon.batch_report import csv_heading, csv_lines, markdown_heading, markdown_lines
from hyper2kvmd.daemon.callers import Caller, Callers
from hyper2kvmd.daemon.doors import Handler
from hyper2kvmd.daemon.http import web
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.notify.notifier import Notifier
from hyper2kvmd.daemon.operations import Body, Operation, Query
from hyper2kvmd.daemon.report_file import ReportFiles
from hyper2kvmd.daemon.requests import Call, RequestInvalid, answer, list_answer, read_call, refusal
from hyper2kvmd.daemon.scheduler import Scheduler
from hyper2kvmd.daemon.submitting import Desk
from hyper2kvmd.daemon.threads import in_a_thread
from hyper2kvmd.daemon.wire import (
    MAX_LISTED,
    MAX_TEXT,
    BatchesQuery,
    BatchReportQuery,
    EventsQuery,
    JobsQuery,
    NoBody,
    NoQuery,
    PriorityBody,
    RateAnswer,
    ReportQuery,
    Status,
    SubmissionBody,
    TestBody,
)
from hyper2kvmd.errors import AlreadyActive, Failure, InvalidInput, NotFound, TryLater
from hyper2kvmd.jobs.changes import unknown_job
from hyper2kvmd.jobs.lists import unknown_batch
from hyper2kvmd.model.jobs import Batch, Job, JobFilter, Problem, Sort
from hyper2kvmd.model.results import Artifact
from hyper2kvmd.progress import problem

STATUSES = {
    "report-missing": 404,
    "report-unreadable": 404,
    "notify-unknown": 404,
    "socket-forbidden": 403,
    "operator-only": 403,
    "priority-raised": 403,
}
KINDS = {NotFound: 404, InvalidInput: 409, AlreadyActive: 409, TryLater: 503}

Verb = Callable[[int, str], Job]
MAX_PART = 500
"""Jobs of a batch that are read at a time."""


class Control:
    """Checks who asks for what, and answers."""

    def __init__(self, scheduler: Scheduler, ledger: Ledger, desk: Desk, callers: Callers, notifier: Notifier) -> None:
        self._scheduler, self._ledger, self._desk, self._callers = scheduler, ledger, desk, callers
        self._notifier = notifier
        self._reports = ReportFiles()

    def application(self) -> web.Application:
        application = web.Application(middlewares=[_refusing], client_max_size=8 * MAX_TEXT)
        application.add_routes(self._routes())
        return application

    def _routes(self) -> Iterator[web.RouteDef]:
        store = self._ledger.store
        yield self._route(operations.GET_STATUS, self._status)
        yield self._route(operations.GET_RATE, self._rate)
        yield self._route(operations.LIST_JOBS, self._jobs)
        yield self._route(operations.SUBMIT_JOB, self._submit_one)
        yield self._route(operations.SUBMIT_BATCH, self._submit)
        yield self._route(operations.GET_JOB, self._job)
        yield self._route(operations.LIST_EVENTS, self._events)
        yield self._route(operations.GET_REPORT, self._report)
        yield self._route(operations.CANCEL_JOB, self._cancel)
        yield self._route(operations.RETRY_JOB, self._retry)
        yield self._route(operations.HOLD_JOB, self._order(store.hold))
        yield self._route(operations.RELEASE_JOB, self._order(store.release))
        yield self._route(operations.SET_PRIORITY, self._set_priority)
        yield self._route(operations.LIST_BATCHES, self._batches)
        yield self._route(operations.GET_BATCH, self._batch)
        yield self._route(operations.GET_BATCH_REPORT, self._batch_report)
        yield self._route(operations.PAUSE_QUEUE, self._pause)
        yield self._route(operations.RESUME_QUEUE, self._resume)
        yield self._route(operations.DRAIN_QUEUE, self._drain)
        yield self._route(operations.TEST_NOTIFICATIONS, self._test_notifications)
        yield self._route(operations.GET_OPENAPI, self._openapi)

    def _route(
        self,
        operation: Operation[Query, Body, Any],
        handler: Callable[[Call[Query, Body]], Awaitable[web.StreamResponse]],
    ) -> web.RouteDef:
        async def handle(request: web.Request) -> web.StreamResponse:
            connection = None if request.transport is None else request.transport.get_extra_info("socket")
            caller = await self._callers.of(connection)
            self._callers.require(caller, operation)
            with self._callers.turn(caller):
                return await handler(await read_call(operation, request, caller))

        path = operation.path.replace("{id}", "{id:[0-9]{1,18}}")
        return web.route(operation.method, path, handle)

    # ------------------------------------------------------------ the daemon

    async def _status(self, call: Call[NoQuery, NoBody]) -> web.Response:
        return answer(shown_to(call.caller, await self._scheduler.status(call.caller.only_uid)))

    async def _rate(self, _call: Call[NoQuery, NoBody]) -> web.Response:
        return answer(RateAnswer(rate=await self._ledger.call(self._ledger.store.past_rate)))

    async def _pause(self, call: Call[NoQuery, NoBody]) -> web.Response:
        await self._scheduler.pause()
        return await self._status(call)

    async def _resume(self, call: Call[NoQuery, NoBody]) -> web.Response:
        await self._scheduler.resume()
        return await self._status(call)

    async def _drain(self, call: Call[NoQuery, NoBody]) -> web.Response:
        before = await self._status(call)
        self._scheduler.drain()
        return before

    async def _test_notifications(self, call: Call[NoQuery, TestBody]) -> web.Response:
        return await list_answer(await self._notifier.test(call.body.destination))

    async def _openapi(self, _call: Call[NoQuery, NoBody]) -> web.Response:
        from hyper2kvmd.daemon.openapi import document

        return web.json_response(await in_a_thread("openapi", document))

    # ------------------------------------------------------------ jobs

    async def _jobs(self, call: Call[JobsQuery, NoBody]) -> web.Response:
        asked, store = call.query, self._ledger.store
        chosen = JobFilter(
            states=asked.state,
            since=asked.since,
            batch_id=asked.batch,
            submitter_uid=call.caller.person.uid if asked.mine else call.caller.only_uid,
            warned=asked.warned,
            ids=asked.id,
            vm_name=asked.vm,
        )
        limit = min(MAX_LISTED, asked.limit)
        jobs = await self._ledger.call(store.list, chosen, limit, asked.offset, asked.sort)
        return await list_answer(jobs, total=await self._ledger.call(store.count, chosen))

    async def _job(self, call: Call[NoQuery, NoBody]) -> web.Response:
        return answer(await self._visible(call))

    async def _visible(self, call: Call[Query, Body]) -> Job:
        """Raises NotFound (`job-unknown`), also for a job that the caller may not know of."""
        job = await self._ledger.call(self._ledger.store.get, call.number)
        if not call.caller.sees(job.submitter_uid):
            raise unknown_job(call.number)
        return job

    async def _events(self, call: Call[EventsQuery, NoBody]) -> web.Response:
        job = await self._visible(call)
        return await list_answer(await self._ledger.call(self._ledger.store.events, job.id, call.query.after))

    async def _report(self, call: Call[ReportQuery, NoBody]) -> web.Response:
        job = await self._visible(call)
        artifact = (await self._ledger.call(self._ledger.store.artifacts, [job.id])).get(job.id)
        if artifact is None:
            raise InvalidInput(
                "report-missing", f"job {job.id} has no report", hint="Only a job that has succeeded has one"
            )
        as_json = call.query.format == "json"
        text = await self._reports.read(job, artifact.report_json if as_json else artifact.report_markdown)
        return web.Response(body=text, content_type="application/json" if as_json else "text/markdown")

    async def _submit_one(self, call: Call[NoQuery, SubmissionBody]) -> web.Response:
        submitted = await self._desk.submit_one(call.caller, call.body)
        self._scheduler.wake()
        return answer(submitted.job, status=201 if submitted.new else 200)

    async def _submit(self, call: Call[NoQuery, SubmissionBody]) -> web.Response:
        """All machines or none."""
        submitted = await self._desk.submit(call.caller, call.body)
        self._scheduler.wake()
        return await list_answer([one.job for one in submitted], status=201 if submitted[0].new else 200)

    async def _cancel(self, call: Call[NoQuery, NoBody]) -> web.Response:
        job = await self._visible(call)
        return answer(await self._scheduler.cancel(job.id, call.caller.person.name))

    async def _retry(self, call: Call[NoQuery, NoBody]) -> web.Response:
        job = await self._visible(call)
        job = await self._ledger.call(self._desk.retry, call.caller, job.id)
        self._scheduler.wake()
        return answer(job)

    def _order(self, verb: Verb) -> Callable[[Call[NoQuery, NoBody]], Awaitable[web.Response]]:
        async def change(call: Call[NoQuery, NoBody]) -> web.Response:
            job = await self._visible(call)
            job = await self._ledger.call(verb, job.id, call.caller.person.name)
            self._scheduler.wake()
            return answer(job)

        return change

    async def _set_priority(self, call: Call[NoQuery, PriorityBody]) -> web.Response:
        job, wanted, caller = await self._visible(call), call.body.priority, call.caller
        if wanted > job.priority and caller.role is not operations.Role.OPERATOR:
            raise InvalidInput(
                "priority-raised",
                f"job {job.id} has priority {job.priority}, and only an operator may raise it",
                hint="Ask a member of the group hyper2kvm",
            )
        job = await self._ledger.call(self._ledger.store.set_priority, job.id, wanted, caller.person.name)
        self._scheduler.wake()
        return answer(job)

    # ------------------------------------------------------------ batches

    async def _batches(self, call: Call[BatchesQuery, NoBody]) -> web.Response:
        asked, store = call.query, self._ledger.store
        uid = call.caller.person.uid if asked.mine else call.caller.only_uid
        limit = min(MAX_LISTED, asked.limit)
        found = await self._ledger.call(
            store.batches, submitter_uid=uid, active=asked.active, limit=limit, offset=asked.offset
        )
        total = await self._ledger.call(store.count_batches, submitter_uid=uid, active=asked.active)
        return await list_answer(found, total=total)

    async def _batch(self, call: Call[NoQuery, NoBody]) -> web.Response:
        return answer(await self._visible_batch(call))

    async def _visible_batch(self, call: Call[Query, Body]) -> Batch:
        batch = await self._ledger.call(self._ledger.store.batch, call.number)
        if not call.caller.sees(batch.submitter_uid):
            raise unknown_batch(call.number)
        return batch

    async def _batch_report(self, call: Call[BatchReportQuery, NoBody]) -> web.StreamResponse:
        """Written in parts: a batch may have 100,000 jobs."""
        batch = await self._visible_batch(call)
        as_csv = call.query.format == "csv"
        response = await call.stream("text/csv" if as_csv else "text/markdown")
        await response.write((csv_heading() if as_csv else markdown_heading(batch)).encode())
        lines = csv_lines if as_csv else markdown_lines
        async for jobs, artifacts in self._outcome(batch):
            await response.write((await in_a_thread("report", lines, jobs, artifacts)).encode())
        await response.write_eof()
        return response

    async def _outcome(self, batch: Batch) -> AsyncIterator[tuple[Sequence[Job], Mapping[int, Artifact]]]:
        """The jobs of a batch and what they published, in parts: others ask in between."""
        store, chosen, offset = self._ledger.store, JobFilter(batch_id=batch.id), 0
        while part := await self._ledger.ensure(store.list, chosen, MAX_PART, offset, Sort.OLDEST):
            yield part, await self._ledger.ensure(store.artifacts, [job.id for job in part])
            offset += len(part)


@web.middleware
async def _refusing(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Failures as JSON, with the HTTP status for their code or class."""
    try:
        return await handler(request)
    except spec.Rejected as failure:
        return refusal(failure.problems, 422)
    except RequestInvalid as failure:
        return refusal(failure.problems, 400)
    except Failure as failure:
        return refusal((problem(failure),), STATUSES.get(failure.code) or KINDS.get(type(failure), 500))
    except web.HTTPException as failure:
        if failure.status < 400:
            raise
        text = f"{request.method} {request.path}: {failure.reason}"
        fact = Problem(code="request-invalid", message=text, hint="Use h2kvmctl of the same version", kind="permanent")
        response = refusal((fact,), failure.status)
        if "Allow" in failure.headers:
            response.headers["Allow"] = failure.headers["Allow"]
        return response


def shown_to(caller: Caller, status: Status) -> Status:
    """Without the machines and files of others."""
    return status.with_changes(
        running=tuple(one for one in status.running if caller.sees(one.submitter_uid)),
        notifications=status.notifications if caller.role is operations.Role.OPERATOR else (),
        ignored=tuple(one for one in status.ignored if caller.sees(one.owner_uid)),
    )
