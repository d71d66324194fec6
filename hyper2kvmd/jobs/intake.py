"""Submissions become jobs, or are rejected."""

from __future__ import annotations

from collections.abc import Sequence

from hyper2kvmd.jobs.submissions import Origin, Refusal, Submission, Submitted, refuse, submit_together
from hyper2kvmd.jobs.transactions import Transactions
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Job


class Intake(Transactions):
    def submit(self, migration: Migration, *, content_key: str, origin: Origin) -> Submitted:
        """Queue a migration, unless the same content is queued, held or running."""
        return self.submit_all([[Submission(migration, content_key, origin)]])[0][0]

    def submit_all(self, files: Sequence[Sequence[Submission]]) -> list[list[Submitted]]:
        """The same for the machines of many files, in one transaction.

        Of a file, all machines are queued; if some are active already, only these are returned.
        """
        if not files:
            return []
        with self.transaction(writes=True) as connection:
            return [submit_together(connection, machines) for machines in files]

    def reject_all(self, refusals: Sequence[Refusal]) -> list[Job]:
        """Record submissions that could not become jobs, in one transaction."""
        if not refusals:
            return []
        with self.transaction(writes=True) as connection:
            return [refuse(connection, refusal) for refusal in refusals]
