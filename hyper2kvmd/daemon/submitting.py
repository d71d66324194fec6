"""Submissions over the control socket: the text of a migration YAML becomes jobs, within the quota of its submitter."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from hyper2kvmd import spec
from hyper2kvmd.daemon.callers import Caller
from hyper2kvmd.daemon.dropped import content_key
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.operations import Role
from hyper2kvmd.daemon.quota import Quota
from hyper2kvmd.daemon.requests import RequestInvalid
from hyper2kvmd.daemon.threads import in_a_thread
from hyper2kvmd.daemon.wire import MAX_TEXT, SubmissionBody
from hyper2kvmd.errors import AlreadyActive
from hyper2kvmd.host.person import Person
from hyper2kvmd.jobs.submissions import Origin, Submission, Submitted, batch_name
from hyper2kvmd.model.jobs import Job

MAX_NAMES = 200
"""Characters of the names in a message."""


class Desk:
    """Accepts what callers submit."""

    def __init__(self, ledger: Ledger, quota: Quota) -> None:
        self._ledger, self._quota = ledger, quota

    async def submit(self, caller: Caller, asked: SubmissionBody) -> list[Submitted]:
        """All machines or none. Raises Rejected, AlreadyActive (`job-duplicate`), and as `submit_file` does."""
        machines = await in_a_thread("submission", _machines, caller.person.uid, asked)
        return await self._queued(caller, asked, machines)

    async def submit_one(self, caller: Caller, asked: SubmissionBody) -> Submitted:
        """Raises RequestInvalid for several machines."""
        machines = await in_a_thread("submission", _machines, caller.person.uid, asked)
        if len(machines) > 1:
            names = ", ".join(one.migration.vm_name for one in machines)[:MAX_NAMES]
            raise RequestInvalid(
                f"the text describes several machines: {names}",
                hint="Send it to /v1/batches, which answers with a list of jobs",
            )
        (submitted,) = await self._queued(caller, asked, machines)
        return submitted

    def retry(self, caller: Caller, job_id: int) -> Job:
        """Call it in the store's thread. Raises as `Operations.retry` and `Quota.admit` do."""
        self._admit(caller, 1)
        return self._ledger.store.retry(job_id, caller.person.name)

    async def _queued(
        self, caller: Caller, asked: SubmissionBody, machines: tuple[spec.Parsed, ...]
    ) -> list[Submitted]:
        batch = await in_a_thread("submission", _submissions, caller, asked, machines)
        submitted = await self._ledger.call(self._submit, caller, batch)
        if len(submitted) < len(machines):
            job = submitted[0].job
            raise AlreadyActive(
                "job-duplicate",
                f"the machine {job.vm_name} is already active as job {job.id}, so nothing of this YAML was submitted",
                hint="Wait for that job, or cancel it first",
            )
        return submitted

    def _submit(self, caller: Caller, batch: list[Submission]) -> list[Submitted]:
        self._admit(caller, len(batch))
        return self._ledger.store.submit_file(batch)

    def _admit(self, caller: Caller, jobs: int) -> None:
        if caller.role is not Role.OPERATOR:
            self._quota.admit(caller.person.uid, jobs)


def _machines(uid: int, asked: SubmissionBody) -> tuple[spec.Parsed, ...]:
    length = len(asked.text.encode())
    if length > MAX_TEXT:
        raise RequestInvalid(f"the text has {length} bytes, more than {MAX_TEXT}", hint="Shorten the text")
    return _parsed(asked, asked.base, uid)


def _parsed(asked: SubmissionBody, base: Path | None, uid: int) -> tuple[spec.Parsed, ...]:
    return spec.parse(asked.text, base=base, home=Person.of(uid).home(), default_name=asked.name)


def _submissions(caller: Caller, asked: SubmissionBody, machines: tuple[spec.Parsed, ...]) -> list[Submission]:
    person = caller.person
    data = _content(asked, machines, person.uid)
    origin = Origin(submitter=person.name, uid=person.uid, operator=caller.role is Role.OPERATOR)
    batch = batch_name([one.migration for one in machines], asked.name)
    return [
        Submission(one.migration, content_key(data, person.name, one.migration.vm_name), origin, one.notes, batch)
        for one in machines
    ]


def _content(asked: SubmissionBody, machines: tuple[spec.Parsed, ...], uid: int) -> bytes:
    """What the key of a job is made of: the text, as in the spool, and the directory if it has relative paths."""
    data = asked.text.encode()
    if asked.base is not None and not _needs_no_base(asked, machines, uid):
        data += b"\0" + os.fsencode(asked.base)
    return data


def _needs_no_base(asked: SubmissionBody, machines: tuple[spec.Parsed, ...], uid: int) -> bool:
    with contextlib.suppress(spec.Rejected):
        return _parsed(asked, None, uid) == machines
    return False
