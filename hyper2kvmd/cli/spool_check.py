"""`h2kvmctl check --spool`: judges files as the daemon will when they are dropped, as far as this user can tell."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hyper2kvmd import config as configuration
from hyper2kvmd.client import Client
from hyper2kvmd.config import DaemonConfig, SpoolFolder
from hyper2kvmd.daemon import dropped
from hyper2kvmd.daemon.names import reason_to_ignore
from hyper2kvmd.daemon.wire import JobsQuery
from hyper2kvmd.disk.files import open_file
from hyper2kvmd.errors import BrokenInstallation, Failure, InvalidInput
from hyper2kvmd.host.destination import nearest_output
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.host.person import READ, SEARCH, Person, lineage
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Job, Problem, State
from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import problem, problems
from hyper2kvmd.spec import Parsed, Rejected

ACTIVE = tuple(state for state in State if state.active)


@dataclass(frozen=True)
class Judgement:
    """What the daemon will say about one file."""

    machines: tuple[Parsed, ...] = ()
    problems: tuple[Problem, ...] = ()
    unknown: tuple[str, ...] = ()
    """What this user cannot tell."""


@dataclass(frozen=True)
class _Host:
    """The daemon of this host, as far as this user can see it."""

    config: DaemonConfig
    service: Person
    active: Mapping[str, Job]
    """Active jobs by their content keys."""
    daemon: Client | None
    """None if it does not answer."""
    unknown: tuple[str, ...]


@dataclass
class SpoolCheck:
    """Judges files one after the other: a later one may be a duplicate of an earlier one."""

    host: _Host
    seen: dict[str, Path] = field(default_factory=dict)

    @staticmethod
    def of(file: Path) -> SpoolCheck:
        """`file` is the configuration of the daemon. Raises BrokenInstallation (`config-invalid`, `spool-unusable`)."""
        unknown = []
        if file.exists() and not os.access(file, os.R_OK):
            unknown.append(f"what {file} allows: this user cannot read it")
            config = DaemonConfig()
        else:
            config = configuration.load(file)
        active: dict[str, Job] = {}
        daemon: Client | None = None
        try:
            client = Client(config.control_socket)
            active = {job.content_key: job for job in client.jobs(JobsQuery(state=ACTIVE))}
            daemon = client
        except Failure as failure:
            unknown.append(f"whether the same content is active already: {failure.message}")
        return SpoolCheck(_Host(config, _service(config), active, daemon, tuple(unknown)))

    def judge(self, path: Path) -> Judgement:
        try:
            owner = Person.of(path.lstat().st_uid)
            _require_name(path)
            content = dropped.read(owner, path, self.host.config.spool_dir / SpoolFolder.INCOMING, self.host.service)
        except Rejected as failure:
            return Judgement(problems=failure.problems)
        except Failure as failure:
            return Judgement(problems=(problem(failure),))
        except OSError as error:
            return Judgement(problems=(_unusable(path, error),))
        found = [*self._duplicates(path, owner, content)]
        unknown = [*self.host.unknown]
        of_machines = (self._machine(machine.migration, owner) for machine in content.machines)
        for outcome in itertools.chain(self._needs(content, owner), *of_machines):
            if isinstance(outcome, str):
                unknown.append(outcome)
            else:
                found.append(outcome)
        return Judgement(tuple(content.machines), tuple(found), tuple(dict.fromkeys(unknown)))

    def _duplicates(self, path: Path, owner: Person, content: dropped.Dropped) -> Iterator[Problem]:
        for machine, key in zip(content.machines, content.keys(owner), strict=True):
            if key in self.host.active:
                yield dropped.duplicate(machine.migration.vm_name, self.host.active[key])
            elif self.seen.setdefault(key, path) != path:
                yield Problem(
                    code="duplicate",
                    message=f"{machine.migration.vm_name} has the same content as in {self.seen[key]}",
                    hint="Drop one of the two files",
                    kind="permanent",
                )

    def _needs(self, content: dropped.Dropped, owner: Person) -> Iterator[Problem | str]:
        """Problems, and what cannot be told, of the names in `after` that are no machines of the file."""
        asked = [machine.migration for machine in content.machines]
        names = {name for one in asked for name in one.after} - {one.vm_name for one in asked}
        if self.host.daemon is None:
            return
        for name in sorted(names):
            if _on_record(self.host.daemon, name, None if owner.uid in (0, self.host.service.uid) else owner.uid):
                continue
            if os.geteuid() not in (0, owner.uid):
                yield f"whether {name} in after is on record: {owner.name} may see other jobs than this user"
                continue
            yield Problem(
                code="after-unknown",
                message=f"after names {name}, which is no machine of the file, no batch and no machine on record",
                hint="Submit that machine or batch first, or correct the name. `h2kvmctl list` shows the names",
                kind="permanent",
                key="after",
            )

    def _machine(self, migration: Migration, owner: Person) -> Iterator[Problem | str]:
        """Problems, and what cannot be told."""
        mandate = Mandate(owner, self.host.config.allowed_source_dirs)
        for source in migration.sources:
            if not source.is_dir():  # an unpacked OVA: its files are found when it is read
                yield from self._source(source, mandate)
        order = Order(
            job_id="check",
            migration=migration,
            submitter=owner.name,
            submitter_uid=owner.uid,
            conversion_dir=self.host.config.conversion_dir,
            output_dir=migration.output_dir or self.host.config.output_dir,
            helper=(),
            bounds=self.host.config.bounds_of([home] if (home := self.host.service.home()) else []),
        )
        try:
            with nearest_output(order):
                pass
        except Failure as failure:
            yield from problems(failure)
        except OSError as error:
            yield f"whether {order.output_dir} can be used: {error.strerror}"

    def _source(self, source: Path, mandate: Mandate) -> Iterator[Problem | str]:
        try:
            opened = open_file(source, mandate)
        except Failure as failure:
            if failure.code == "source-unreadable" and self.host.service.uid != os.geteuid():
                yield f"whether the daemon can read {source}: this user cannot"
            else:
                yield from problems(failure)
            return
        try:
            if not self._service_reads(opened.fd, source):
                yield Problem(
                    code="source-unreadable",
                    message=f"{source} cannot be read by the daemon's user {self.host.service.name}",
                    hint="Copy the source to a directory that this user can read",
                    kind="permanent",
                )
        finally:
            os.close(opened.fd)

    def _service_reads(self, handle: int, source: Path) -> bool:
        service = self.host.service
        parent = os.open(source.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return service.may(READ, handle) and all(service.may(SEARCH, folder) for folder in lineage(parent))
        finally:
            os.close(parent)


def _on_record(daemon: Client, name: str, uid: int | None) -> bool:
    """Whether this user sees a batch of that name, or an accepted job of that VM, of `uid` or of anybody."""
    of_vm = [job.submitter_uid for job in daemon.jobs(JobsQuery(vm=name)) if job.state != State.REJECTED]
    of_batches = [batch.submitter_uid for batch in daemon.batches() if batch.name == name]
    return any(uid in (None, submitter) for submitter in (*of_vm, *of_batches))


def _service(config: DaemonConfig) -> Person:
    """The user that the daemon runs as: the owner of `incoming`."""
    try:
        return Person.of((config.spool_dir / SpoolFolder.INCOMING).stat().st_uid)
    except PermissionError:  # closed to this user: the daemon will say why
        return Person.of(config.spool_dir.stat().st_uid)
    except OSError as error:
        raise BrokenInstallation(
            "spool-unusable",
            f"the spool {config.spool_dir} cannot be examined: {error.strerror}",
            hint="Start the daemon once, or name its configuration with --config",
        ) from error


def _require_name(path: Path) -> None:
    reason = reason_to_ignore(path.name, path.lstat().st_mode)
    if reason is not None:
        raise InvalidInput(
            "spool-ignored",
            f"{path.name}: the daemon ignores this file: {reason}",
            hint="Give it a name such as web01.yaml",
        )


def _unusable(path: Path, error: OSError) -> Problem:
    if isinstance(error, PermissionError):
        return Problem(
            code="spool-not-theirs",
            message=f"{path} cannot be dropped: permission denied at {error.filename or path}",
            hint="Ask an operator to add you to the group of the submitters",
            kind="permanent",
        )
    return Problem(
        code="file-unreadable",
        message=f"{path} cannot be read: {error.strerror}",
        hint="Name a file that exists",
        kind="permanent",
    )
