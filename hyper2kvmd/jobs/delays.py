"""Delays of jobs, measured by the uptime of the host, for use within one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, update

from hyper2kvmd.jobs.rows import seconds_of
from hyper2kvmd.jobs.tables import jobs
from hyper2kvmd.model.jobs import State
from hyper2kvmd.uptime import Uptime

MAX_SECONDS = 2 * 86400.0
"""The daemon sets no longer delay."""


def delayed(seconds: float, wall: datetime, uptime: Uptime) -> Mapping[str, Any]:
    """The columns of a job that waits for so long from now on."""
    return {
        "not_before": wall + timedelta(seconds=seconds),
        "delay_until": uptime.seconds + seconds,
        "delay_seconds": seconds,
        "delay_boot": uptime.boot,
    }


def restart_delays(connection: Connection, wall: datetime, uptime: Uptime) -> None:
    """Let delays begin anew that began before the host was restarted: how long ago that was is unknown.

    So do those whose record is damaged, and which would not end.
    """
    columns = jobs.c.id, jobs.c.delay_until, jobs.c.delay_seconds, jobs.c.delay_boot
    waiting = jobs.c.state == State.QUEUED, jobs.c.delay_until.is_not(None)
    for row in connection.execute(select(*columns).where(*waiting)).all():
        until, seconds = seconds_of(row.delay_until), seconds_of(row.delay_seconds)
        seconds = seconds if seconds is not None and 0 <= seconds <= MAX_SECONDS else 0.0
        same_boot = row.delay_boot == uptime.boot != ""
        if not same_boot or until is None or until > uptime.seconds + seconds:
            values = delayed(seconds, wall, uptime)
            connection.execute(update(jobs).where(jobs.c.id == row.id).values(values))


def show_delays(connection: Connection, wall: datetime, uptime: Uptime) -> None:
    """Correct the ends of delays that people see, after the wall clock has jumped."""
    waiting = jobs.c.state == State.QUEUED, jobs.c.delay_until.is_not(None)
    for row in connection.execute(select(jobs.c.id, jobs.c.delay_until).where(*waiting)).all():
        left = (seconds_of(row.delay_until) or 0.0) - uptime.seconds
        ends = wall + timedelta(seconds=min(left, MAX_SECONDS))
        connection.execute(update(jobs).where(jobs.c.id == row.id).values(not_before=ends))
