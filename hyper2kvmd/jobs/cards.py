"""The MAC addresses of the machines of jobs, which are compared within one target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sqlalchemy import Connection, Subquery, delete, insert, select, union_all

from hyper2kvmd.jobs.tables import cards, jobs
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern

MAX_CARDS = 100
"""Addresses of one machine on record."""
MAX_CONCERNS = 10
NEWEST = 100
"""Jobs on record with one address that are compared. It limits the time of a transaction that blocks all others."""


def replace_cards(connection: Connection, job_id: int, migration: Migration, macs: Iterable[str]) -> Iterator[Concern]:
    """Record the addresses of a job, unless it is a dry run; concerns about those that machines of others have.

    Others are jobs that are active or have succeeded, for the same target: the newest ones with each address. One for a
    machine of the same name does not count: it is a migration of the same machine. The name of another submitter's
    machine is not given: the submitter of this job reads the concern.
    """
    place, wanted = _place(migration), tuple(dict.fromkeys(macs))[:MAX_CARDS]
    forget_cards(connection, job_id)
    if not wanted:
        return
    if not migration.dry_run:
        rows = [{"job_id": job_id, "mac": mac, "place": place} for mac in wanted]
        connection.execute(insert(cards), rows)
    found = union_all(*(select(_newest(mac, place, job_id)) for mac in wanted)).subquery()
    same = (
        select(found.c.mac, jobs.c.id, jobs.c.vm_name, jobs.c.submitter_uid)
        .join(jobs, jobs.c.id == found.c.job_id)
        .where(jobs.c.vm_name != migration.vm_name)
        .order_by(jobs.c.id.desc(), found.c.mac)
        .limit(MAX_CONCERNS)
    )
    own = connection.execute(select(jobs.c.submitter_uid).where(jobs.c.id == job_id)).scalar_one()
    for mac, other, vm_name, uid in connection.execute(same).all():
        machine = vm_name if uid == own else "the machine"
        yield Concern(
            code="mac-in-other-job",
            message=f"{migration.vm_name} has the MAC address {mac}, and so has {machine} of job {other}",
            hint="Never run both on one network, or give one of them another address",
        )


def forget_cards(connection: Connection, job_id: int) -> None:
    """For a job that ended without a machine."""
    connection.execute(delete(cards).where(cards.c.job_id == job_id))


def _newest(mac: str, place: str, job_id: int) -> Subquery:
    of_others = cards.c.mac == mac, cards.c.place == place, cards.c.job_id != job_id
    return (
        select(cards.c.mac, cards.c.job_id).where(*of_others).order_by(cards.c.job_id.desc()).limit(NEWEST).subquery()
    )


def _place(migration: Migration) -> str:
    return migration.libvirt_uri if migration.target == "libvirt" else migration.target
