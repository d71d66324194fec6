"""Many files at once: those of one machine, which are most, take few statements together."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from hyper2kvmd.errors import InvalidInput
from hyper2kvmd.jobs.changes import MAX_NUMBERS, is_active, record_all
from hyper2kvmd.jobs.dependencies import arrange
from hyper2kvmd.jobs.submissions import (
    Submission,
    Submitted,
    columns_of,
    record_duplicate,
    submit_together,
    submitted_by,
)
from hyper2kvmd.jobs.tables import job_of, jobs
from hyper2kvmd.model.jobs import Job


def submit_many(connection: Connection, files: Sequence[Sequence[Submission]]) -> list[list[Submitted] | InvalidInput]:
    """What `submit_together` gives for each file, in their order."""
    results: list[list[Submitted] | InvalidInput] = []
    for plain, some in itertools.groupby(files, _is_plain):
        if plain:
            results += [[one] for one in _submit_plain(connection, [asked for (asked,) in some])]
        else:
            results += [_together(connection, asked) for asked in some]
    return results


def _is_plain(asked: Sequence[Submission]) -> bool:
    """A single machine that needs no other one and belongs to no batch."""
    return len(asked) == 1 and asked[0].batch is None and not asked[0].migration.after


def _together(connection: Connection, asked: Sequence[Submission]) -> list[Submitted] | InvalidInput:
    try:
        return submit_together(connection, asked)
    except InvalidInput as failure:
        return failure


def _submit_plain(connection: Connection, asked: Sequence[Submission]) -> list[Submitted]:
    keys = [one.content_key for one in asked]
    numbers = _active(connection, keys)
    new: dict[str, Submission] = {}
    for one in asked:
        if one.content_key not in numbers:
            new.setdefault(one.content_key, one)
    try:
        with connection.begin_nested():
            numbers |= _insert(connection, list(new.values()))
    except IntegrityError:  # another process has submitted the same content meanwhile
        return [submit_together(connection, [one])[0] for one in asked]
    found = _jobs(connection, numbers.values())
    results: list[Submitted] = []
    for one in asked:
        job, is_new = found[numbers[one.content_key]], new.get(one.content_key) is one
        if not is_new:
            record_duplicate(connection, job, one.origin)
        results.append(Submitted(job, new=is_new))
    return results


def _active(connection: Connection, keys: Sequence[str]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for start in range(0, len(keys), MAX_NUMBERS):
        these = jobs.c.content_key.in_(keys[start : start + MAX_NUMBERS])
        rows = connection.execute(select(jobs.c.content_key, jobs.c.id).where(these, is_active())).all()
        numbers |= {row.content_key: row.id for row in rows}
    return numbers


def _insert(connection: Connection, asked: Sequence[Submission]) -> dict[str, int]:
    if not asked:
        return {}
    inserted = insert(jobs).returning(jobs.c.id, sort_by_parameter_order=True)
    numbers = connection.execute(inserted, [columns_of(one, None) for one in asked]).scalars().all()
    events = zip(numbers, asked, strict=True)
    record_all(connection, [(number, 0, "submitted", submitted_by(one)) for number, one in events])
    arrange(connection, jobs.c.id.between(min(numbers), max(numbers)))
    return {one.content_key: number for one, number in zip(asked, numbers, strict=True)}


def _jobs(connection: Connection, numbers: Collection[int]) -> dict[int, Job]:
    listed, found = list(numbers), dict[int, Job]()
    for start in range(0, len(listed), MAX_NUMBERS):
        query = select(jobs).where(jobs.c.id.in_(listed[start : start + MAX_NUMBERS]))
        found |= {row["id"]: job_of(row) for row in connection.execute(query).mappings()}
    return found
