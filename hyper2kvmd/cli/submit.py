"""The command that submits migration YAMLs to the daemon."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyper2kvmd.cli.output import Output, printable, problems_of
from hyper2kvmd.cli.remote import over_socket
from hyper2kvmd.errors import AlreadyActive, InvalidInput

if TYPE_CHECKING:
    from hyper2kvmd.client import Accepted, Client
    from hyper2kvmd.model.jobs import Job


@dataclass(frozen=True)
class SubmittedFile:
    """What became of one file."""

    file: Path
    submitted: Accepted | None = None
    refusal: InvalidInput | None = None

    @property
    def jobs(self) -> tuple[Job, ...]:
        return self.submitted.jobs if self.submitted else ()

    @property
    def duplicate(self) -> bool:
        return self.submitted is not None and not self.submitted.new

    @property
    def exit_code(self) -> int:
        if self.refusal is not None:
            return self.refusal.exit_code
        return AlreadyActive.exit_code if self.duplicate else 0


@over_socket(
    "submit",
    click.argument("files", nargs=-1, required=True, metavar="FILE..."),
    click.option(
        "--wait", is_flag=True, help="Follow the jobs until they end. The exit status is that of `h2kvmctl watch`."
    ),
)
def submit(output: Output, daemon: Client, files: tuple[str, ...], wait: bool) -> None:
    """Submit migration YAMLs to the daemon. Each machine becomes a job.

    Of a file, all machines are queued or none. Relative paths in a file are resolved from the current directory, and
    `~/` is the home directory of this user in the user database. A quoted pattern such as `'*.yaml'` stands for the
    files that match it. The exit status is 4 if a file is already active: its jobs are queued, held or running.
    """
    outcomes = []
    for file in expanded(files):
        outcomes.append(_submitted(daemon, file))
        if not output.json:
            _say(output, outcomes[-1])
    codes = [outcome.exit_code for outcome in outcomes]
    numbers = [job.id for outcome in outcomes for job in outcome.jobs]
    ended: dict[int, Job] = {}
    if wait and numbers:
        from hyper2kvmd.cli.watch import exit_code, follow_jobs, say_outcome

        jobs = follow_jobs(output, daemon, numbers)
        say_outcome(output, jobs)
        ended = {job.id: job for job in jobs}
        codes = [*(one.exit_code for one in outcomes if one.refusal is not None), *map(exit_code, jobs)]
    if output.json:
        output.data([*_documents(outcomes, ended)])
    if code := max(codes, default=0):
        raise click.exceptions.Exit(code)


def expanded(words: Iterable[str]) -> Iterator[Path]:
    """Files as they are named, and those that match a pattern. A file's own name counts first."""
    for word in words:
        found = [] if Path(word).exists() or not glob.has_magic(word) else sorted(glob.glob(word))  # noqa: PTH207 - the pattern may be absolute
        yield from map(Path, found or (word,))


def _submitted(daemon: Client, file: Path) -> SubmittedFile:
    from hyper2kvmd import yaml_source

    try:
        if file.is_dir():
            raise InvalidInput(
                "file-unreadable", f"{file} is a directory", hint=f"Name its files: `h2kvmctl submit {file}/*.yaml`"
            )
        if glob.has_magic(str(file)) and not os.path.lexists(file):
            raise InvalidInput(
                "file-unreadable", f"no file matches {file}", hint="Correct the pattern, or name the files"
            )
        text = yaml_source.read_file(file)
        return SubmittedFile(file, daemon.submit(text, base=Path.cwd(), name=printable(file.stem)))
    except InvalidInput as failure:
        return SubmittedFile(file, refusal=failure)


def _say(output: Output, outcome: SubmittedFile) -> None:
    from hyper2kvmd.cli import views

    if outcome.refusal is not None:
        output.failure(outcome.refusal, source=str(outcome.file))
        return
    for job in outcome.jobs:
        if outcome.duplicate:
            output.line(f"{outcome.file}: already active as job {job.id} ({job.vm_name}, {job.state})", style="yellow")
            continue
        output.line(f"{outcome.file}: job {job.id} ({job.vm_name}) {job.state.said}")
        views.notes(output, job.notes)


def _documents(outcomes: Iterable[SubmittedFile], ended: dict[int, Job]) -> Iterator[Any]:
    """For --json: all jobs as they are now, then the problems of each refused file."""
    refused = []
    for outcome in outcomes:
        for job in outcome.jobs:
            now = ended.get(job.id, job)
            yield {**now.model_dump(mode="json"), "duplicate": True} if outcome.duplicate else now
        if outcome.refusal is not None:
            refused.append({"file": outcome.file, "problems": problems_of(outcome.refusal)})
    yield from refused


COMMANDS: list[click.Command] = [submit]
