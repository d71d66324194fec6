"""Delays of jobs, measured by the uptime of the host, for use within one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, or_, select, update

from hyper2kvmd.jobs.tables import jobs
from hyper2kvmd.model.jobs import State
from hyper2kvmd.uptime import Uptime


def delayed(seconds: float, wall: datetime, uptime: Uptime) -> Mapping[str, Any]:
    """The columns of a job that waits for so long from now on."""
    return {
        "not_before": wall + timedelta(seconds=seconds),
        "delay_until": uptime.seconds + seconds,
        "delay_seconds": seconds,
        "delay_boot": uptime.boot,
    }


def restart_delays(connection: Connection, wall: datetime, uptime: Uptime) -> None:
    """Let delays begin anew that began before the host was restarted: how long ago that was is unknown."""
    other = or_(jobs.c.delay_boot.is_(None), jobs.c.delay_boot != uptime.boot)
    waiting = jobs.c.state == State.QUEUED, jobs.c.delay_until.is_not(None), other
    for row in connection.execute(select(jobs.c.id, jobs.c.delay_seconds).where(*waiting)).all():
        values = delayed(row.delay_seconds, wall, uptime)
        connection.execute(update(jobs).where(jobs.c.id == row.id).values(values))


def show_delays(connection: Connection, wall: datetime, uptime: Uptime) -> None:
    """Correct the ends of delays that people see, after the wall clock has jumped."""
    waiting = jobs.c.state == State.QUEUED, jobs.c.delay_until.is_not(None)
    for row in connection.execute(select(jobs.c.id, jobs.c.delay_until).where(*waiting)).all():
        ends = wall + timedelta(seconds=row.delay_until - uptime.seconds)
        connection.execute(update(jobs).where(jobs.c.id == row.id).values(not_before=ends))
