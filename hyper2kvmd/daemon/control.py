"""The control socket: queries and commands of operators, as HTTP with JSON on a Unix socket (0660)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from aiohttp import web
from pydantic import ValidationError

from hyper2kvmd import spec
from hyper2kvmd.daemon.doors import CONTROL_BACKLOG, Handler
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.scheduler import Scheduler
from hyper2kvmd.daemon.spool import content_key
from hyper2kvmd.daemon.wire import (
    MAX_TEXT,
    RateAnswer,
    RefusalBody,
    SubmissionBody,
)
from hyper2kvmd.errors import BrokenInstallation, Failure, InvalidInput, TryLater
from hyper2kvmd.host.person import Person
from hyper2kvmd.jobs.submissions import Origin, Submission, Submitted, batch_name
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import NOBODY_AT_ALL, Job, JobFilter, Problem, State
from hyper2kvmd.progress import problem

MAX_NAMES = 200
"""Characters of the names in a message."""
MAX_LISTED = 1000
"""Jobs in one answer. Each may hold a migration of MAX_TEXT."""


def listen(path: Path) -> socket.socket:
    """A listening socket at `path`, for the owner and the group; the socket of a dead daemon is removed.

    Raises BrokenInstallation (`socket-in-use`, `socket-unusable`).
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        _remove_stale(path)
        mask = os.umask(0o117)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(CONTROL_BACKLOG)
        listener.setblocking(False)
    except (OSError, BrokenInstallation) as error:
        listener.close()
        if isinstance(error, BrokenInstallation):
            raise
        raise BrokenInstallation(
            "socket-unusable",
            f"the control socket {path} cannot be created: {error.strerror or error}",
            hint="Correct the owner of its directory, or set control_socket to a path of at most 107 bytes",
        ) from error
    return listener


def _remove_stale(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise BrokenInstallation(
            "socket-unusable",
            f"{path} exists and is not a socket",
            hint="Remove it, or set control_socket to another path",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise BrokenInstallation(
        "socket-in-use",
        f"another program listens on the control socket {path}",
        hint="Stop that daemon, or set control_socket to another path",
    )


class Control:
    """The handlers of `/v1`."""

    def __init__(self, scheduler: Scheduler, ledger: Ledger) -> None:
        self._scheduler, self._ledger = scheduler, ledger

    def application(self) -> web.Application:
        application = web.Application(middlewares=[_refusing], client_max_size=8 * MAX_TEXT)
        job = "/v1/jobs/{id:[0-9]{1,18}}"
        application.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/rate", self._rate),
                web.get("/v1/jobs", self._jobs),
                web.post("/v1/jobs", self._submit),
                web.post("/v1/batches", self._submit_batch),
                web.get(job, self._job),
                web.get(f"{job}/events", self._events),
                web.post(f"{job}/cancel", self._cancel),
                web.post(f"{job}/retry", self._retry),
                web.post(f"{job}/hold", self._hold),
                web.post(f"{job}/release", self._release),
                web.post("/v1/queue/pause", self._pause),
                web.post("/v1/queue/resume", self._resume),
                web.post("/v1/queue/drain", self._drain),
            ]
        )
        return application

    async def _status(self, _request: web.Request) -> web.Response:
        return _answer(await self._scheduler.status())

    async def _rate(self, _request: web.Request) -> web.Response:
        return _answer(RateAnswer(rate=await self._ledger.call(self._ledger.store.past_rate)))

    async def _jobs(self, request: web.Request) -> web.Response:
        """`?state=queued&state=held&limit=50`, the newest first, and MAX_LISTED at most."""
        try:
            states = [State(text) for text in request.query.getall("state", [])]
            limit = min(MAX_LISTED, max(1, int(request.query.get("limit", str(MAX_LISTED)))))
        except ValueError as error:
            raise InvalidInput(
                "request-invalid", f"the query is invalid: {error}", hint="Give state and limit as documented"
            ) from error
        jobs = await self._ledger.call(self._ledger.store.list, JobFilter(states=tuple(states)), limit)
        return await _list_answer(jobs)

    async def _job(self, request: web.Request) -> web.Response:
        return _answer(await self._ledger.call(self._ledger.store.get, _number(request)))

    async def _events(self, request: web.Request) -> web.Response:
        events = await self._ledger.call(self._ledger.store.events, _number(request))
        return await _list_answer(events)

    async def _submit(self, request: web.Request) -> web.Response:
        submission, machines = await _asked(request)
        if len(machines) > 1:
            names = ", ".join(one.migration.vm_name for one in machines)[:MAX_NAMES]
            hint = "Send it to /v1/batches, which answers with a list of jobs"
            raise InvalidInput("request-invalid", f"the text describes several machines: {names}", hint=hint)
        (submitted,) = await self._queue(request, submission, machines)
        return _answer(submitted.job, status=201 if submitted.new else 200)

    async def _submit_batch(self, request: web.Request) -> web.Response:
        """The same for any number of machines, all or none: the answer is a list."""
        submission, machines = await _asked(request)
        submitted = await self._queue(request, submission, machines)
        if len(submitted) < len(machines):
            job = submitted[0].job
            raise InvalidInput(
                "job-duplicate",
                f"{job.vm_name} of this text is already active as job {job.id}, so that none of it was submitted",
                hint="Wait for that job, or cancel it first",
            )
        jobs = [one.job for one in submitted]
        return await _list_answer(jobs, status=201 if submitted[0].new else 200)

    async def _queue(
        self, request: web.Request, submission: SubmissionBody, machines: tuple[spec.Parsed, ...]
    ) -> list[Submitted]:
        person, data = Person.of(_peer_uid(request)), _content(submission, machines, _peer_uid(request))
        origin = Origin(submitter=person.name, uid=person.uid)
        batch = batch_name([one.migration for one in machines], submission.name)
        asked = [
            Submission(one.migration, content_key(data, person.name, one.migration.vm_name), origin, one.notes, batch)
            for one in machines
        ]
        (submitted,) = await self._ledger.call(self._ledger.store.submit_all, [asked])
        self._scheduler.wake()
        return submitted

    async def _cancel(self, request: web.Request) -> web.Response:
        return _answer(await self._scheduler.cancel(_number(request), _peer(request)))

    async def _retry(self, request: web.Request) -> web.Response:
        return await self._order(request, self._ledger.store.retry)

    async def _hold(self, request: web.Request) -> web.Response:
        return await self._order(request, self._ledger.store.hold)

    async def _release(self, request: web.Request) -> web.Response:
        return await self._order(request, self._ledger.store.release)

    async def _order(self, request: web.Request, verb: Callable[[int, str], Job]) -> web.Response:
        job = await self._ledger.call(verb, _number(request), _peer(request))
        self._scheduler.wake()
        return _answer(job)

    async def _pause(self, request: web.Request) -> web.Response:
        await self._scheduler.pause()
        return await self._status(request)

    async def _resume(self, request: web.Request) -> web.Response:
        await self._scheduler.resume()
        return await self._status(request)

    async def _drain(self, request: web.Request) -> web.Response:
        answer = await self._status(request)
        self._scheduler.drain()
        return answer


@web.middleware
async def _refusing(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Failures as JSON, with the HTTP status for their code or class."""
    try:
        return await handler(request)
    except spec.Rejected as failure:
        return _answer(RefusalBody(problems=failure.problems), status=422)
    except Failure as failure:
        own = {"job-unknown": 404, "request-invalid": 400}
        kinds = {InvalidInput: 409, TryLater: 503}
        return _refusal(problem(failure), own.get(failure.code) or kinds.get(type(failure), 500))
    except web.HTTPException as failure:
        if failure.status < 400:
            raise
        text = f"{request.method} {request.path}: {failure.reason}"
        return _refusal(
            Problem(code="request-invalid", message=text, hint="Use h2kvmctl of the same version", kind="permanent"),
            failure.status,
        )


async def _asked(request: web.Request) -> tuple[SubmissionBody, tuple[spec.Parsed, ...]]:
    try:
        submission = SubmissionBody.model_validate_json(await request.read())
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            "request-invalid",
            f"the request is invalid: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint='Send {"text": YAML, "base": absolute directory or null, "name": default VM name}',
        ) from error
    data = submission.text.encode()
    if len(data) > MAX_TEXT:
        raise InvalidInput(
            "request-invalid", f"the text has {len(data)} bytes, more than {MAX_TEXT}", hint="Shorten the text"
        )
    return submission, _parsed(submission, submission.base, _peer_uid(request))


def _parsed(submission: SubmissionBody, base: Path | None, uid: int) -> tuple[spec.Parsed, ...]:
    return spec.parse(submission.text, base=base, home=Person.of(uid).home(), default_name=submission.name)


def _content(submission: SubmissionBody, machines: tuple[spec.Parsed, ...], uid: int) -> bytes:
    """What the key of a job is made of: the text, as in the spool, and the directory if it has relative paths."""
    data = submission.text.encode()
    if submission.base is not None and not _needs_no_base(submission, machines, uid):
        data += b"\0" + os.fsencode(submission.base)
    return data


def _needs_no_base(submission: SubmissionBody, machines: tuple[spec.Parsed, ...], uid: int) -> bool:
    with contextlib.suppress(spec.Rejected):
        return _parsed(submission, None, uid) == machines
    return False


def _answer(body: Frozen, *, status: int = 200) -> web.Response:
    return web.Response(text=body.model_dump_json(), status=status, content_type="application/json")


async def _list_answer(items: Sequence[Frozen], *, status: int = 200) -> web.Response:
    """Dumped in a thread, item by item: one dump of them all would block the event loop even from a thread."""

    def dump() -> bytes:
        return b"[" + b",".join(item.model_dump_json().encode() for item in items) + b"]"

    return web.Response(body=await asyncio.to_thread(dump), status=status, content_type="application/json")


def _refusal(fact: Problem, status: int) -> web.Response:
    return _answer(RefusalBody(problems=(fact,)), status=status)


def _number(request: web.Request) -> int:
    return int(request.match_info["id"])


def _peer(request: web.Request) -> str:
    """The name of the connected user, or the uid if it has no name."""
    return Person.of(_peer_uid(request)).name


def _peer_uid(request: web.Request) -> int:
    """The uid as reported by the kernel; NOBODY_AT_ALL once the connection is gone."""
    connection = None if request.transport is None else request.transport.get_extra_info("socket")
    if connection is None:
        return NOBODY_AT_ALL
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)
