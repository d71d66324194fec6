"""The MAC addresses of the machines of jobs, which are compared within one target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, delete, insert, or_, select

from hyper2kvmd.jobs.changes import is_active
from hyper2kvmd.jobs.tables import cards, jobs
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.jobs import State

MAX_CARDS = 100
"""Addresses of one machine on record."""
MAX_CONCERNS = 10


def replace_cards(connection: Connection, job_id: int, migration: Migration, macs: Iterable[str]) -> Iterator[Concern]:
    """Record the addresses of a job, unless it is a dry run; concerns about those that machines of others have.

    Others are jobs that are active or have succeeded, for the same target. One for a machine of the same name does not
    count: it is a migration of the same machine.
    """
    place, wanted = _place(migration), tuple(dict.fromkeys(macs))[:MAX_CARDS]
    connection.execute(delete(cards).where(cards.c.job_id == job_id))
    if wanted and not migration.dry_run:
        rows = [{"job_id": job_id, "mac": mac, "place": place} for mac in wanted]
        connection.execute(insert(cards), rows)
    same = (
        select(cards.c.mac, jobs.c.id, jobs.c.vm_name)
        .join(jobs, jobs.c.id == cards.c.job_id)
        .where(
            cards.c.mac.in_(wanted),
            cards.c.place == place,
            jobs.c.id != job_id,
            jobs.c.vm_name != migration.vm_name,
            or_(is_active(), jobs.c.state == State.SUCCEEDED),
        )
        .order_by(jobs.c.id.desc(), cards.c.mac)
        .limit(MAX_CONCERNS)
    )
    for mac, other, vm_name in connection.execute(same).all():
        yield Concern(
            code="mac-in-other-job",
            message=f"{migration.vm_name} has the MAC address {mac}, and so has {vm_name} of job {other}",
            hint="Never run both on one network, or give one of them another address",
        )


def _place(migration: Migration) -> str:
    return migration.libvirt_uri if migration.target == "libvirt" else migration.target
