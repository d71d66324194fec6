"""Submissions become jobs, or are rejected."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, IntegrityError

from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.jobs.many_submissions import submit_many
from hyper2kvmd.jobs.moves import forget_moves
from hyper2kvmd.jobs.submissions import Origin, Refusal, Submission, Submitted, refuse, submit_together
from hyper2kvmd.jobs.transactions import Transactions
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Job

Judge = Callable[[Sequence[Submission], list[Submitted] | InvalidInput], Refusal | None]
"""Whether a file is rejected because of what its submission gave."""


@dataclass(frozen=True)
class RejectedFile:
    refusal: Refusal
    job: Job


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
            return submit_many(connection, files)

    def reject_all(self, refusals: Sequence[Refusal]) -> list[Job]:
        """Record submissions that could not become jobs, in one transaction."""
        if not refusals:
            return []
        with self.transaction(writes=True) as connection:
            return [refuse(connection, refusal) for refusal in refusals]

    def enter(
        self, files: Sequence[Sequence[Submission] | Refusal], judge: Judge, finished: Collection[int] = ()
    ) -> list[list[Submitted] | RejectedFile | ValueError]:
        """Put files on record, in their order and in one transaction: as jobs, or as rejected.

        `finished` are the moves that brought these files. A file that cannot be put on record affects no other one: its
        error is returned.
        """
        if not files and not finished:
            return []
        try:
            with self.transaction(writes=True) as connection:
                forget_moves(connection, finished)
                return [*_entered(connection, files, judge)]
        except (ValueError, DataError, IntegrityError) as error:
            if len(files) == 1:
                self.enter([], judge, finished)
                return [ValueError(str(error))]
        entered: list[list[Submitted] | RejectedFile | ValueError] = []
        for one in files:
            entered += self.enter([one], judge)
        self.enter([], judge, finished)
        return entered


def _entered(
    connection: Connection, files: Sequence[Sequence[Submission] | Refusal], judge: Judge
) -> list[list[Submitted] | RejectedFile | ValueError]:
    asked = [one for one in files if not isinstance(one, Refusal)]
    submitted = iter(submit_many(connection, asked))
    entered: list[list[Submitted] | RejectedFile | ValueError] = []
    for one in files:
        if isinstance(one, Refusal):
            entered.append(RejectedFile(one, refuse(connection, one)))
            continue
        result = next(submitted)
        refusal = judge(one, result)
        if refusal is not None:
            entered.append(RejectedFile(refusal, refuse(connection, refusal)))
        elif not isinstance(result, InvalidInput):
            entered.append(result)
    return entered
