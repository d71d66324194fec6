"""The files beside a YAML in `done/`, `failed/` and `rejected/` that show its submitter what became of it.

Only the daemon writes in these folders. The name of such a file is that of its YAML with a suffix that no YAML has, so
it never takes the place of another file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from hyper2kvmd.daemon.names import OUTCOME_SUFFIXES, REASON, RESULT, RESULT_TEXT
from hyper2kvmd.daemon.wire import Rejection
from hyper2kvmd.host import acl
from hyper2kvmd.host.files import write_durably
from hyper2kvmd.host.person import READ
from hyper2kvmd.markdown import code, columns, plain, table
from hyper2kvmd.model.jobs import NOBODY_AT_ALL, State
from hyper2kvmd.model.outcome import MachineOutcome, Outcome, Remark, warnings_said
from hyper2kvmd.report import NO_CHECKSUM
from hyper2kvmd.units import duration, local_time, size


def write(yaml: Path, outcome: Outcome | Rejection, reader: int) -> None:
    """Write the outcome beside the place of the YAML, readable by the uid `reader`. Raises OSError.

    A file of it that exists is kept: it was written before the daemon died, and its reader may have seen it.
    """
    text = outcome.model_dump_json(indent=2) + "\n"
    if isinstance(outcome, Rejection) or outcome.state is not State.SUCCEEDED:
        _write(_beside(yaml, REASON), text, reader)
        return
    _write(_beside(yaml, RESULT_TEXT), markdown(outcome), reader)
    _write(_beside(yaml, RESULT), text, reader)


def exist(yaml: Path) -> bool:
    """Whether there is an outcome beside this place."""
    return any(os.path.lexists(_beside(yaml, suffix)) for suffix in OUTCOME_SUFFIXES)


def remove(yaml: Path) -> None:
    """Remove the outcome beside this place. Raises OSError."""
    for suffix in OUTCOME_SUFFIXES:
        _beside(yaml, suffix).unlink(missing_ok=True)


def belongs_to(yaml: Path, job_id: int) -> bool:
    """Whether the outcome beside this place is that of the job: then its YAML was moved there. Raises OSError."""
    kinds: tuple[tuple[str, type[Outcome] | type[Rejection]], ...]
    kinds = (RESULT, Outcome), (REASON, Outcome), (REASON, Rejection)
    return any(_job_id(_beside(yaml, suffix), kind) == job_id for suffix, kind in kinds)


def _beside(yaml: Path, suffix: str) -> Path:
    return yaml.with_name(yaml.name + suffix)


def _job_id(path: Path, kind: type[Outcome] | type[Rejection]) -> int | None:
    try:
        return kind.model_validate_json(path.read_bytes()).job_id
    except (FileNotFoundError, ValidationError):  # from another version
        return None


def _write(path: Path, text: str, reader: int) -> None:
    if path.exists():
        return
    write_durably(path, text, prepare=lambda handle: _let_read(handle, reader))


def _let_read(handle: int, reader: int) -> None:
    """Give one user the right to read, besides the service.

    Without ACLs the group of the folder gets it, which all submitters are in: else nobody would learn the outcome.
    """
    try:
        os.fchmod(handle, 0o600)
        if reader != NOBODY_AT_ALL:
            acl.grant(handle, acl.AclEntry(acl.USER, READ, reader))
    except OSError as error:
        if error.errno not in acl.NO_LIST:
            raise
        os.fchmod(handle, 0o640)


# ------------------------------------------------------------ for people


def markdown(outcome: Outcome) -> str:
    """The outcome of a file whose machines have all succeeded: GitHub-flavoured Markdown."""
    lines = [f"# {plain(outcome.file)}", ""]
    lines += [f"Submitted by {plain(outcome.submitter or 'unknown')} at {local_time(outcome.submitted)}.", ""]
    for machine in outcome.machines:
        lines += [*_machine(machine), ""]
    return "\n".join(lines)


def _machine(machine: MachineOutcome) -> Iterator[str]:
    yield f"## {plain(machine.vm_name)}: {machine.state}{warnings_said(len(machine.warnings))}"
    yield ""
    yield from table([(name, value) for name, value in _facts(machine) if value])
    for image in machine.images:
        yield ""
        yield from table(
            [
                ("Image", code(str(image.path))),
                ("Size", f"{size(image.virtual_size)}, {size(image.file_bytes)} on disk"),
                ("SHA-256", image.sha256 or NO_CHECKSUM),
            ]
        )
    yield from _remarks("Warnings", machine.warnings)
    yield from _remarks("Notes", machine.notes)
    yield from ("", "### Time", "")
    yield from columns(("stage", "time"), ((stage.value, duration(each)) for stage, each in machine.seconds.items()))


def _facts(machine: MachineOutcome) -> Iterator[tuple[str, str]]:
    yield "Job", f"{machine.job_id}, attempt {machine.attempts}"
    if machine.started and machine.finished:
        yield "Time", f"{local_time(machine.started)} to {local_time(machine.finished)}"
    yield "Reports", ", ".join(code(str(path)) for path in machine.reports)
    registration = machine.registration
    if registration is not None:
        yield "Definition", ", ".join(code(str(path)) for path in registration.files)
        where = f" at {plain(registration.uri)}" if registration.uri else ""
        yield "Defined", f"{plain(registration.name)}{where}" if registration.defined else "no"


def _remarks(title: str, remarks: tuple[Remark, ...]) -> Iterator[str]:
    if remarks:
        yield from ("", f"### {title}", "", *(f"- {plain(str(remark))}" for remark in remarks))
