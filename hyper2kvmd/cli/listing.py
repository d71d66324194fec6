"""The commands that list jobs and batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from hyper2kvmd.cli.completion import batch_names
from hyper2kvmd.cli.output import Output
from hyper2kvmd.cli.remote import over_socket
from hyper2kvmd.cli.selectors import PAGE, STATES, batch_option, every_job, find_batch, mine_option, vm_option
from hyper2kvmd.cli.since import MomentType

if TYPE_CHECKING:
    from hyper2kvmd.client import Client, Listed
    from hyper2kvmd.daemon.wire import JobsQuery
    from hyper2kvmd.model.jobs import Job

SHOWN = 50
"""Jobs in a list for people, unless --limit says otherwise."""
SORTS = ("newest", "oldest", "start", "name", "finished")


@over_socket(
    "list",
    click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Jobs in this state. Repeatable."),
    click.option(
        "--limit",
        type=click.IntRange(min=1),
        metavar="NUMBER",
        help="Show this many jobs at most. Without it, 50, and with --json 1000.",
    ),
    click.option(
        "--since",
        type=MomentType(),
        metavar="TIME",
        help="Jobs that are active or ended after this: `30m`, `2h`, `3d` or `1w` ago, a date, or a date and time.",
    ),
    batch_option("Jobs of this batch: its name or number."),
    mine_option("Jobs that you submitted."),
    vm_option("Jobs of this VM."),
    click.option("--warnings", "warned", is_flag=True, help="Jobs with warnings."),
    click.option(
        "--sort",
        type=click.Choice(SORTS),
        help="The order of the list. `start` shows the queued jobs as the queue would start them. Default: `newest`.",
    ),
    click.option("--queue", is_flag=True, help="The same as `--sort start`."),
)
def list_jobs(
    output: Output,
    daemon: Client,
    states: tuple[str, ...],
    limit: int | None,
    since: datetime | None,
    batch: str | None,
    mine: bool,
    vm: str | None,
    warned: bool,
    sort: str | None,
    queue: bool,
) -> None:
    """List jobs, newest first.

    A narrow terminal shows fewer columns. Elsewhere, a job is one line with all of them, and the reason at its end.
    """
    from hyper2kvmd.daemon.wire import JobsQuery
    from hyper2kvmd.model.jobs import Sort, State

    if queue and sort not in (None, "start"):
        raise click.UsageError("--queue is --sort start: give one of them")
    order = Sort.START if queue else Sort(sort or "newest")
    query = JobsQuery(
        state=tuple(map(State, states or (("queued",) if order is Sort.START else ()))),
        since=since,
        batch=None if batch is None else find_batch(daemon, batch).id,
        mine=mine,
        vm=vm,
        warned=warned,
        sort=order,
    )
    pages = _Pages(daemon, query, limit or (PAGE if output.json else SHOWN))
    if output.json:
        output.items(itertools.chain.from_iterable(pages))
        return
    from hyper2kvmd.cli import job_table

    output.rows(job_table.in_pages(pages, output.width, datetime.now(UTC)))
    if not pages.shown:
        output.aside("no job matches")
    elif pages.total > pages.shown:
        output.aside(f"{pages.shown:,} of {pages.total:,} jobs; --limit {pages.total} shows all")


class _Pages:
    """The first jobs of a list, one page after the other: there may be 100,000."""

    def __init__(self, daemon: Client, query: JobsQuery, limit: int) -> None:
        self._daemon, self._query, self._limit = daemon, query, limit
        self._first = self._page(0)
        self.total = self._first.total
        """Of the whole list."""
        self.shown = 0

    def __iter__(self) -> Iterator[tuple[Job, ...]]:
        """At least one page, which is empty if no job matches."""
        self.shown = len(self._first)
        yield self._first.items
        if self._is_followed(self._first):
            yield from self._others()

    def _others(self) -> Iterator[tuple[Job, ...]]:
        """Each page is asked for while the one before it is printed."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(max_workers=1) as ahead:
            coming = ahead.submit(self._page, self.shown)
            while True:
                page = coming.result()
                self.shown += len(page)
                followed = self._is_followed(page)
                if followed:
                    coming = ahead.submit(self._page, self.shown)
                yield page.items
                if not followed:
                    return

    def _is_followed(self, page: Listed[Job]) -> bool:
        return len(page) == PAGE and self.shown < self._limit

    def _page(self, offset: int) -> Listed[Job]:
        return self._daemon.jobs(self._query.with_changes(limit=min(PAGE, self._limit - offset), offset=offset))


@over_socket(
    "batches",
    click.option("--active", is_flag=True, help="Batches with jobs that have not ended."),
    mine_option("Batches that you submitted."),
    click.option(
        "--limit", type=click.IntRange(1, PAGE), default=SHOWN, metavar="NUMBER", help="Show this many at most: 50."
    ),
)
def list_batches(output: Output, daemon: Client, active: bool, mine: bool, limit: int) -> None:
    """List batches, newest first."""
    from hyper2kvmd.daemon.wire import BatchesQuery

    found = daemon.batches(BatchesQuery(active=True if active else None, mine=mine, limit=limit))
    if output.json:
        output.data(list(found))
        return
    from hyper2kvmd.cli import batch_views

    output.rows(batch_views.table(found.items, output.width))
    if not found:
        output.aside("no batch matches")
    elif found.total > len(found):
        output.aside(f"{len(found):,} of {found.total:,} batches; see --limit")


@over_socket(
    "batch",
    click.argument("name", metavar="NAME", shell_complete=batch_names),
    click.option(
        "--report",
        type=click.Choice(("csv", "markdown")),
        help="Print the outcome of all its jobs as a table instead.",
    ),
)
def show_batch(output: Output, daemon: Client, name: str, report: str | None) -> None:
    """Show a batch and its jobs.

    NAME is its name or number. If several batches have the name, it is the active one, or else the newest one.
    """
    from hyper2kvmd.daemon.wire import JobsQuery
    from hyper2kvmd.model.jobs import Sort

    batch = find_batch(daemon, name)
    if report is not None:
        text = daemon.batch_report(batch.id, format="csv" if report == "csv" else "markdown")
        output.data({"batch": batch, "report": text}) if output.json else click.echo(text, nl=False)
        return
    jobs = list(every_job(daemon, JobsQuery(batch=batch.id, sort=Sort.OLDEST)))
    if output.json:
        output.data({**batch.model_dump(mode="json"), "jobs": jobs})
        return
    from hyper2kvmd.cli import batch_views, job_table

    output.facts(batch_views.facts(batch, jobs))
    output.line("")
    output.rows(job_table.table(jobs, output.width, datetime.now(UTC)))


COMMANDS: list[click.Command] = [list_jobs, list_batches, show_batch]
