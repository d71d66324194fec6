"""Submissions become jobs, or are rejected."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.jobs.submissions import Origin, Refusal, Submission, Submitted, refuse, submit_together
from hyper2kvmd.jobs.transactions import Transactions
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Job


class Intake(Transactions):
    def submit(self, migration: Migration, *, content_key: str, origin: Origin) -> Submitted:
        """Queue a migration, unless the same content is queued, held or running. Raises as `submit_file` does."""
        return self.submit_file([Submission(migration, content_key, origin)])[0]

    def submit_file(self, machines: Sequence[Submission]) -> list[Submitted]:
        """The same for all machines of a file; if some are active already, only these are returned.

        Raises InvalidInput: `after-unknown`, `after-ambiguous`, `after-many`.
        """
        with self.transaction(writes=True) as connection:
            return submit_together(connection, machines)

    def submit_all(self, files: Sequence[Sequence[Submission]]) -> list[list[Submitted] | InvalidInput]:
        """The same for many files, in one transaction, with the error of each file that is refused."""
        if not files:
            return []
        with self.transaction(writes=True) as connection:
            return [_entered(connection, machines) for machines in files]

    def reject_all(self, refusals: Sequence[Refusal]) -> list[Job]:
        """Record submissions that could not become jobs, in one transaction."""
        if not refusals:
            return []
        with self.transaction(writes=True) as connection:
            return [refuse(connection, refusal) for refusal in refusals]


def _entered(connection: Connection, machines: Sequence[Submission]) -> list[Submitted] | InvalidInput:
    try:
        return submit_together(connection, machines)
    except InvalidInput as failure:
        return failure
