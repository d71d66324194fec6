"""Moves of spool files that are on record before they are made, so that a later start completes or undoes them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, delete, insert, select

from hyper2kvmd.jobs.changes import MAX_NUMBERS, change, forget_empty_batches, is_active
from hyper2kvmd.jobs.dependencies import needed_by_others
from hyper2kvmd.jobs.endings import is_in_use, take_file_back
from hyper2kvmd.jobs.tables import jobs, moves
from hyper2kvmd.jobs.transactions import Transactions


class MoveKind(StrEnum):
    CLAIM = "claim"
    """From incoming/ to active/. It is on record until the jobs of the file are."""
    PUT_AWAY = "put-away"
    """To the folder of how the jobs of the file ended."""
    REMOVE = "remove"
    """The file of a job that is no longer on record."""


@dataclass(frozen=True)
class Intent:
    kind: MoveKind
    source: str
    """Relative to the spool directory. It may have surrogates for bytes that are no UTF-8."""
    target: str | None = None
    job_id: int | None = None
    ending: str = ""
    """Identifies the end of the jobs because of which the file is moved."""


@dataclass(frozen=True)
class Move(Intent):
    number: int = 0


class Moves(Transactions):
    def plan_moves(self, intents: Sequence[Intent]) -> list[Move]:
        """Record moves that are made next."""
        if not intents:
            return []
        with self.transaction(writes=True) as connection:
            return _planned(connection, intents)

    def open_moves(self, kind: MoveKind) -> list[Move]:
        """Moves on record, the earliest first."""
        return self.remember(f"open_moves {kind.value}", lambda: self._open_moves(kind))

    def _open_moves(self, kind: MoveKind) -> list[Move]:
        query = select(moves).where(moves.c.kind == kind).order_by(moves.c.id)
        with self.transaction() as connection:
            return [
                Move(
                    kind=MoveKind(row.kind),
                    source=os.fsdecode(row.source),
                    target=None if row.target is None else os.fsdecode(row.target),
                    job_id=row.job_id,
                    ending=row.ending,
                    number=row.id,
                )
                for row in connection.execute(query)
            ]

    def finish_moves(self, numbers: Collection[int]) -> None:
        """Remove moves from the record that were completed or undone."""
        if numbers:
            with self.transaction(writes=True) as connection:
                forget_moves(connection, numbers)

    def move_spool_files(self, paths: Mapping[int, str | None], finished: Collection[int] = ()) -> None:
        """Record the new paths of spool files, by job: relative to the spool directory, or None if the file is gone.

        A job may have been retried while its file was moved. `finished` are the numbers of the moves.
        """
        if not paths and not finished:
            return
        with self.transaction(writes=True) as connection:
            for job_id, path in paths.items():
                change(connection, (jobs.c.id == job_id,), spool_path=path)
            for job_id in paths:
                if is_in_use(connection, job_id):
                    take_file_back(connection, job_id)
            forget_moves(connection, finished)

    def forget_jobs(self, job_ids: Sequence[int]) -> list[Move]:
        """Delete the finished ones of these jobs, with their history; return the removals of their spool files."""
        with self.transaction(writes=True) as connection:
            these = delete(jobs).where(jobs.c.id.in_(job_ids), ~is_active(), ~needed_by_others())
            paths = connection.execute(these.returning(jobs.c.spool_path)).scalars().all()
            forget_empty_batches(connection)
            return _planned(connection, [Intent(MoveKind.REMOVE, path) for path in paths if path is not None])


def forget_moves(connection: Connection, numbers: Collection[int]) -> None:
    listed = list(numbers)
    for start in range(0, len(listed), MAX_NUMBERS):
        connection.execute(delete(moves).where(moves.c.id.in_(listed[start : start + MAX_NUMBERS])))


def _planned(connection: Connection, intents: Sequence[Intent]) -> list[Move]:
    if not intents:
        return []
    rows = [
        {
            "kind": one.kind.value,
            "source": os.fsencode(one.source),
            "target": None if one.target is None else os.fsencode(one.target),
            "job_id": one.job_id,
            "ending": one.ending,
        }
        for one in intents
    ]
    inserted = insert(moves).returning(moves.c.id, sort_by_parameter_order=True)
    numbers = connection.execute(inserted, rows).scalars().all()
    return [
        Move(one.kind, one.source, one.target, one.job_id, one.ending, number)
        for one, number in zip(intents, numbers, strict=True)
    ]
