"""Which jobs a command is about: their numbers, ranges of them, or what they have in common."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from hyper2kvmd.cli.completion import batch_names, job_ids
from hyper2kvmd.cli.output import Output, printable
from hyper2kvmd.cli.remote import Decorator, over_socket
from hyper2kvmd.errors import Interrupted, InvalidInput, NotFound

if TYPE_CHECKING:
    from hyper2kvmd.client import Client
    from hyper2kvmd.daemon.wire import JobsQuery
    from hyper2kvmd.model.jobs import Batch, Job

STATES = ("queued", "held", "running", "succeeded", "failed", "cancelled", "rejected")
MAX_NUMBER = 2**31 - 1
LONGEST_RANGE = 10_000
AT_ONCE = 400
"""Numbers in one query."""
PAGE = 1000
"""Jobs in one answer."""
NAMED = 3
"""Jobs that a question names."""


class Numbers(NamedTuple):
    """Jobs from the first number to the last one; both are the same for a single job."""

    first: int
    last: int

    @property
    def single(self) -> bool:
        return self.first == self.last


class NumbersType(click.ParamType[Numbers]):
    """`12`, or `12-20`."""

    name = "ID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Numbers:
        if isinstance(value, Numbers):
            return value
        found = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", value, re.ASCII)
        if found is None:
            fact = f"{value!r} is not the number of a job, nor a range such as 12-20."
            self.fail(f"{fact} Select the jobs of a VM by its name: --vm {shlex.quote(value)}", param, ctx)
        first, last = int(found[1]), int(found[2] or found[1])
        if not 1 <= first <= last <= MAX_NUMBER:
            self.fail(f"{value!r}: numbers of jobs begin at 1, and a range begins with its lower number", param, ctx)
        if last - first >= LONGEST_RANGE:
            self.fail(f"{value!r}: a range has at most {LONGEST_RANGE} numbers", param, ctx)
        return Numbers(first, last)


NUMBERS = NumbersType()


@dataclass(frozen=True)
class Selection:
    """What a command line says. Without `numbers`, a job must match all the rest."""

    numbers: tuple[Numbers, ...] = ()
    states: tuple[str, ...] = ()
    batch: str | None = None
    vm: str | None = None
    mine: bool = False

    @property
    def one_job(self) -> bool:
        return len(self.numbers) == 1 and self.numbers[0].single

    @property
    def by_rule(self) -> bool:
        return bool(self.states or self.batch or self.vm or self.mine)


@dataclass(frozen=True)
class Selected:
    """Jobs in the order of their numbers."""

    jobs: tuple[Job, ...]
    unknown: tuple[int, ...] = ()
    """Numbers that were named and have no job, or none that this user may see."""
    one_job: bool = False
    """Whether the command line is the number of one job. `--json` then prints that job, otherwise a list."""

    def failure(self) -> NotFound:
        """That there are no such jobs."""
        numbers = ", ".join(map(str, self.unknown))
        fact = f"there is no job {numbers}" if len(self.unknown) == 1 else f"there are no jobs {numbers}"
        return NotFound("job-unknown", fact, hint="Run `h2kvmctl list` to see the job numbers")


# ---------------------------------------------------------------- options


def mine_option(help_text: str) -> Decorator:
    return click.option("--mine", is_flag=True, help=help_text)


def batch_option(help_text: str) -> Decorator:
    return click.option("--batch", metavar="NAME", shell_complete=batch_names, help=help_text)


def vm_option(help_text: str) -> Decorator:
    return click.option("--vm", metavar="NAME", help=help_text)


YES = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


def over_jobs(
    name: str,
    states: Sequence[str],
    *arguments: Decorator,
    changes: bool = False,
    optional: bool = False,
    only: Callable[[Job], bool] = lambda _: True,
) -> Callable[[Callable[..., None]], click.Command]:
    """A command that gets `(output, daemon, selected, ...)`.

    `states` are those of its options `--all-STATE`; other selections find jobs in these states, too. Without any
    selection the command is refused, or gets None if that is `optional`. If it `changes` jobs, it asks before more than
    one that was not named by its number. Jobs that were not named by their number are `only` those.
    """
    options = [
        click.argument("numbers", nargs=-1, type=NUMBERS, metavar="ID...", shell_complete=job_ids(*states)),
        *(click.option(f"--all-{state}", f"all_{state}", is_flag=True, help=f"All {state} jobs.") for state in states),
        batch_option("Jobs of this batch: its name or number."),
        vm_option("Jobs of this VM."),
        mine_option("Jobs that you submitted."),
        *([YES] if changes else []),
        *arguments,
    ]

    def decorate(function: Callable[..., None]) -> click.Command:
        def select_jobs(output: Output, daemon: Client, *, yes: bool = False, **given: Any) -> None:
            chosen = tuple(state for state in states if given.pop(f"all_{state}"))
            asked = Selection(given.pop("numbers"), chosen, given.pop("batch"), given.pop("vm"), given.pop("mine"))
            if optional and not asked.numbers and not asked.by_rule:
                function(output, daemon, None, **given)
                return
            selected = resolved(daemon, asked, states)
            if not asked.numbers:
                selected = replace(selected, jobs=tuple(filter(only, selected.jobs)))
            if changes and not yes and not asked.numbers:
                _confirm(output, name, selected.jobs)
            function(output, daemon, selected, **given)

        select_jobs.__doc__ = function.__doc__
        return over_socket(name, *options)(select_jobs)

    return decorate


# ---------------------------------------------------------------- the jobs


def resolved(daemon: Client, asked: Selection, default: Sequence[str]) -> Selected:
    """Raises click.UsageError if nothing is selected, or in two ways."""
    if asked.numbers and asked.by_rule:
        raise click.UsageError("Give either numbers of jobs, or options that select jobs.")
    if asked.numbers:
        return _numbered(daemon, asked)
    if not asked.by_rule:
        raise click.UsageError("Missing argument 'ID...', or an option that selects jobs such as --batch.")
    return Selected(tuple(every_job(daemon, query_of(daemon, asked, default))))


def query_of(daemon: Client, asked: Selection, default: Sequence[str]) -> JobsQuery:
    from hyper2kvmd.daemon.wire import JobsQuery
    from hyper2kvmd.model.jobs import Sort, State

    return JobsQuery(
        state=tuple(map(State, asked.states or default)),
        batch=None if asked.batch is None else find_batch(daemon, asked.batch).id,
        vm=asked.vm,
        mine=asked.mine,
        sort=Sort.OLDEST,
    )


def every_job(daemon: Client, query: JobsQuery) -> Iterator[Job]:
    """All pages of a list."""
    found = 0
    while part := daemon.jobs(query.with_changes(limit=PAGE, offset=found)).items:
        yield from part
        found += len(part)
        if len(part) < PAGE:
            return


def jobs_with_numbers(daemon: Client, numbers: Sequence[int]) -> Iterator[Job]:
    """Those of them that there are."""
    from hyper2kvmd.daemon.wire import JobsQuery

    for start in range(0, len(numbers), AT_ONCE):
        yield from daemon.jobs(JobsQuery(id=tuple(numbers[start : start + AT_ONCE])))


def _numbered(daemon: Client, asked: Selection) -> Selected:
    wanted = sorted({number for part in asked.numbers for number in range(part.first, part.last + 1)})
    found = {job.id: job for job in jobs_with_numbers(daemon, wanted)}
    jobs = tuple(found[number] for number in wanted if number in found)
    return Selected(jobs, tuple(_missing(asked.numbers, found)), asked.one_job)


def _missing(asked: Iterable[Numbers], found: dict[int, Job]) -> Iterator[int]:
    """Single numbers without a job, and the ends of ranges without any. Gaps in a range are usual."""
    for part in asked:
        if not any(number in found for number in range(part.first, part.last + 1)):
            yield from sorted({part.first, part.last})


def find_batch(daemon: Client, name: str) -> Batch:
    """The batch of that name or number: the active one, or else the newest one.

    Raises NotFound (`batch-unknown`) or InvalidInput (`batch-ambiguous`).
    """
    from hyper2kvmd.daemon.wire import BatchesQuery

    active = [batch for batch in daemon.batches(BatchesQuery(active=True)) if batch.name == name]
    if len(active) > 1:
        several = ", ".join(f"{batch.id} of {batch.submitter}" for batch in active)
        raise InvalidInput(
            "batch-ambiguous",
            f"{len(active)} active batches have the name {name}: {several}",
            hint="Give the number of one of them",
        )
    named = active or [batch for batch in daemon.batches(BatchesQuery(active=False)) if batch.name == name]
    if named:
        return named[0]
    if re.fullmatch(r"[1-9]\d{0,8}", name, re.ASCII):
        return daemon.batch(int(name))
    raise NotFound("batch-unknown", f"there is no batch {name}", hint="Run `h2kvmctl batches` to see the batches")


def _confirm(output: Output, verb: str, jobs: Sequence[Job]) -> None:
    """Raises Interrupted (`not-confirmed`) unless the person agrees. Scripts are not asked."""
    if len(jobs) < 2 or output.json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return
    if not click.confirm(printable(f"{verb} {described(jobs)}?")):
        raise Interrupted("not-confirmed", "nothing was changed", hint="Give --yes to skip the question")


def described(jobs: Sequence[Job]) -> str:
    """`2 jobs (66 web01, 67 web02)`, with `and 9 more`."""
    names = ", ".join(f"{job.id} {job.vm_name}" for job in jobs[:NAMED])
    more = f" and {len(jobs) - NAMED} more" if len(jobs) > NAMED else ""
    return f"{len(jobs)} job{'' if len(jobs) == 1 else 's'} ({names}{more})"
