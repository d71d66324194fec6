"""The commands about the daemon as a whole: its state, pausing, resuming and draining."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from hyper2kvmd.cli.output import Output
from hyper2kvmd.cli.remote import over_socket
from hyper2kvmd.errors import TryLater

if TYPE_CHECKING:
    from hyper2kvmd.client import Client
    from hyper2kvmd.daemon.wire import Status

POLL_SECONDS = 0.5


@over_socket("status")
def status(output: Output, daemon: Client) -> None:
    """Show the state of the daemon: its jobs, slots and free space."""
    now = daemon.status()
    if output.json:
        output.data(now)
    else:
        from hyper2kvmd.cli import job_views

        job_views.status(output, now)


@over_socket("pause")
def pause(output: Output, daemon: Client) -> None:
    """Start no more jobs; running jobs continue. The pause stays in effect after a restart of the daemon."""
    now = daemon.pause()
    running, queued = now.counts.running, now.counts.queued
    _answer(
        output,
        now,
        "the queue is paused",
        _jobs(running, "running job continues", "running jobs continue"),
        _jobs(queued, "queued job waits for `h2kvmctl resume`", "queued jobs wait for `h2kvmctl resume`"),
    )


@over_socket("resume")
def resume(output: Output, daemon: Client) -> None:
    """Start jobs again."""
    now = daemon.resume()
    _answer(
        output,
        now,
        "the queue is running",
        _jobs(now.counts.queued, "job is queued", "jobs are queued"),
        f"{len(now.running)} of {now.max_concurrent_jobs} slots are in use",
    )


@over_socket("drain", click.option("--wait", is_flag=True, help="Return when the daemon has stopped."))
def drain(output: Output, daemon: Client, wait: bool) -> None:
    """Finish running jobs, then stop the daemon. Queued jobs stay in the queue for its next start."""
    now = daemon.drain()
    running = _jobs(now.counts.running, "running job ends", "running jobs end")
    _answer(
        output,
        None if wait else now,
        "the queue is draining",
        f"the daemon stops when its {running}" if running else "the daemon stops",
        _jobs(now.counts.queued, "queued job stays in the queue", "queued jobs stay in the queue"),
    )
    if wait:
        _answer(output, _last_status(daemon, now), "the daemon has stopped")


def _last_status(daemon: Client, now: Status) -> Status:
    """Its state before its socket was gone."""
    with suppress(TryLater):
        while True:
            time.sleep(POLL_SECONDS)
            now = daemon.status()
    return now


def _answer(output: Output, document: Status | None, fact: str, *consequences: str) -> None:
    """`document` is that for --json; None: it follows later."""
    if not output.json:
        said = "; ".join(filter(None, consequences))
        output.line(f"{fact}: {said}" if said else fact)
    elif document is not None:
        output.data(document)


def _jobs(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}" if count else ""


COMMANDS: list[click.Command] = [status, pause, resume, drain]
