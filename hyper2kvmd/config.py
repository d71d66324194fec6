"""The daemon's configuration: every key optional, defaults for a host installed from the package."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticKnownError

from hyper2kvmd import installed, yaml_source
from hyper2kvmd.errors import BrokenInstallation, InvalidInput, sentences
from hyper2kvmd.model.asked import HookName
from hyper2kvmd.model.frozen import Frozen
from hyper2kvmd.model.jobs import Problem
from hyper2kvmd.model.notifications import KINDS, OCCASIONS, Destination
from hyper2kvmd.model.orders import Bounds, HelperCall, Limits
from hyper2kvmd.model.sizes import BYTES, SIZE, Bytes
from hyper2kvmd.model.sizes import UNITS as SIZE_UNITS
from hyper2kvmd.spec import LIBVIRT_URI
from hyper2kvmd.yaml_binding import Bound, Rules, bind, in_order
from hyper2kvmd.yaml_source import Position

DEFAULT_PATH = installed.CONFIGURATION
HIGHEST_PORT = 65535
MOST_JOBS = 64
"""That can run at the same time."""
MaxPerSource: TypeAlias = int | Mapping[str, int]
"""Jobs at the same time that read from one file system, for all directories or by directory."""
REST = "default"
"""Stands for all other directories in `max_per_source`."""
CONVERSION_DIR_VARIABLE = "HYPER2KVM_CONVERSION_DIR"
"""Environment variable that takes precedence over `conversion_dir`."""


class SpoolFolder(StrEnum):
    """A folder of the spool directory."""

    INCOMING = "incoming"
    ACTIVE = "active"
    REJECTED = "rejected"
    DONE = "done"
    FAILED = "failed"


SPOOL_MODES: Mapping[SpoolFolder, int] = {
    SpoolFolder.INCOMING: 0o3770,
    SpoolFolder.ACTIVE: 0o700,
    SpoolFolder.REJECTED: 0o2750,
    SpoolFolder.DONE: 0o2750,
    SpoolFolder.FAILED: 0o2750,
}
"""The modes of packaging/tmpfiles.d: submitters drop files, cannot change those of others, and read the results."""
DEFAULT_HELPER = ("sudo", "-n", "/usr/libexec/hyper2kvm/helper")


class Retry(Frozen):
    """How often a job with a temporary failure is tried, and the time between tries (seconds)."""

    max_attempts: int = Field(default=3, ge=1, le=100)
    delay: float = Field(default=60.0, ge=0)
    backoff: float = Field(default=2.0, ge=1)


class Retention(Frozen):
    """Days that leftovers are kept before `h2kvmctl gc` removes them."""

    conversions: float = Field(default=1.0, ge=0)
    """Working folders. 0: those of failed and cancelled jobs are not kept at all."""
    spool: float = Field(default=90.0, ge=0)
    jobs: float = Field(default=365.0, ge=0)


class KeptBackups(Frozen):
    """Backups of an SQLite database."""

    keep: int = Field(default=7, ge=0, le=1000)
    """Of each kind; 0: the daemon makes none."""
    directory: Path | None = None
    """None: `backups` beside the database."""


class DaemonConfig(Frozen):
    spool_dir: Path = Path("/var/spool/hyper2kvm")
    state_dir: Path = Path("/var/lib/hyper2kvm")
    conversion_dir: Path = Path("/var/lib/hyper2kvm/conversions")
    output_dir: Path = Path("/var/lib/hyper2kvm/images")
    database_url: str = ""
    """SQLAlchemy URL; by default SQLite in `state_dir`."""
    control_socket: Path = installed.CONTROL_SOCKET
    metrics_listen: str = Field(default="127.0.0.1:9180", pattern=r"^(\[[0-9A-Fa-f:]+\]|[^:]+):\d{1,5}$")
    max_concurrent_jobs: int = Field(default=2, ge=1, le=MOST_JOBS)
    max_per_source: MaxPerSource | None = None
    """None: no limit."""
    threads: int = Field(default=0, ge=0, le=256)
    """Threads of the copy engine for each job; 0: one for each core."""
    bandwidth_limit: Bytes = Field(default=0, ge=0)
    """Bytes a second that one conversion may read; 0: no limit."""
    io_priority: Literal["normal", "idle"] = "normal"
    allowed_source_dirs: tuple[Path, ...] = ()
    allowed_output_dirs: tuple[Path, ...] = ()
    allowed_conversion_dirs: tuple[Path, ...] = ()
    """Conversion directories that a migration may name besides `conversion_dir`."""
    allowed_libvirt_uris: tuple[str, ...] = ()
    """URIs that a migration may name besides those of this host's libvirt."""
    allowed_libvirt_pools: tuple[str, ...] = ()
    """Storage pools of libvirt that a migration may name."""
    hooks: Mapping[HookName, Path] = {}
    """Programs that a migration may name in its `hooks`."""
    space_reserve: str = Field(default="5%", pattern=rf"^({SIZE}|\d+(\.\d+)?%?)$")
    retry: Retry = Retry()
    retention: Retention = Retention()
    backups: KeptBackups = KeptBackups()
    notify: tuple[Destination, ...] = Field(default=(), max_length=20)
    """Where notifications go."""
    stall_after: float = Field(default=900.0, ge=0)
    """Seconds without a moved byte after which a running job has stalled; 0: never."""
    stall_retry_after: float = Field(default=3600.0, ge=0)
    """Seconds without a moved byte after which the worker of a job is ended and the job tried again; 0: never."""
    virtio_win: Path | None = None
    """An ISO of virtio-win, or a folder with its files, for migrations that name none."""
    helper: HelperCall = DEFAULT_HELPER
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")

    @model_validator(mode="before")
    @classmethod
    def _database_in_state_dir(cls, values: dict[str, object]) -> dict[str, object]:
        if not values.get("database_url"):
            state_dir = values.get("state_dir", cls.model_fields["state_dir"].default)
            return {**values, "database_url": f"sqlite:///{state_dir}/jobs.sqlite3"}
        return values

    @field_validator("helper")
    @classmethod
    def _some_word(cls, helper: HelperCall) -> HelperCall:
        if helper == ():
            raise PydanticKnownError("too_short", {"field_type": "Tuple", "min_length": 1, "actual_length": 0})
        return helper

    @property
    def limits(self) -> Limits:
        return Limits(threads=self.threads, bandwidth_limit=self.bandwidth_limit, io_priority=self.io_priority)

    @property
    def incoming(self) -> Path:
        """Where submitters drop files."""
        return self.spool_dir / SpoolFolder.INCOMING

    @property
    def conversion_dirs(self) -> tuple[Path, ...]:
        """The directories in which jobs may have their working folders."""
        return (self.conversion_dir, *self.allowed_conversion_dirs)

    @property
    def bounds(self) -> Bounds:
        """The directories, URIs and pools that a submitter's job may name, if this process is the service."""
        return self.bounds_of(_homes())

    def bounds_of(self, homes: Iterable[Path]) -> Bounds:
        """The same for a service with these home directories."""
        # each folder of the spool too: it may also be mounted elsewhere by itself, for example for an SFTP server
        spool = (self.spool_dir, *(self.spool_dir / name for name in SpoolFolder))
        outer = tuple(directory for directory in (self.state_dir, *homes) if directory != Path("/"))
        return Bounds(
            source_dirs=self.allowed_source_dirs,
            output_dirs=(*self.allowed_output_dirs, self.output_dir) if self.allowed_output_dirs else (),
            shared_output_dir=self.output_dir,
            conversion_dirs=self.conversion_dirs,
            private_dirs=(*spool, *self.conversion_dirs, *outer),
            outer_dirs=outer,
            libvirt_uris=self.allowed_libvirt_uris,
            libvirt_pools=self.allowed_libvirt_pools,
            hooks=self.hooks,
        )


def _homes() -> Iterator[Path]:
    """Home directories in which programs look for this user's settings: of the environment and the user database."""
    if home := os.environ.get("HOME"):
        yield Path(home)
    with suppress(KeyError):
        yield Path(pwd.getpwuid(os.geteuid()).pw_dir)


RULES = Rules(
    remedies={
        "metrics_listen": "Write host:port, such as 127.0.0.1:9180 or [::1]:9180",
        "space_reserve": "Write bytes, a size such as 50G, or a percentage below 100, such as 5%",
        "max_per_source": "Write a number from 1 to 64, or a mapping of absolute directories to such numbers with "
        "`default:` for all others",
        "threads": "Write a number from 1 to 256, or 0 for one thread on each core",
        "bandwidth_limit": "Write bytes a second, a size such as 200M, or 0 for no limit",
        "io_priority": "Write normal or idle",
        "allowed_libvirt_uris": "Write URIs without parameters, such as qemu+ssh://kvm02/system or qemu+tls://kvm02/system",
        "hooks.[key]": "Use letters, digits, '.', '_' and '-', at most 63, and begin with a letter or a digit",
        "notify.name": "Use letters, digits, '.', '_' and '-', at most 63, and begin with a letter or a digit",
        "notify.webhook": "Write an address such as https://chat.example.com/hooks/1",
        "notify.mail": "Write addresses such as ops@example.com, at most 20",
        "notify.from": "Write one address such as hyper2kvm@example.com",
        "log_level": "Write debug, info, warning or error",
        "helper": "Write the command as a list, such as [sudo, -n, /usr/libexec/hyper2kvm/helper], or the path of the "
        "helper's socket, such as /run/hyper2kvm-helper.sock",
    },
    absolute_because="Use an absolute path",
    one_or_more=frozenset({"notify.mail", "notify.on"}),
)


@dataclass(frozen=True)
class Loaded:
    """A configuration, and where its values come from."""

    path: Path
    exists: bool
    config: DaemonConfig
    places: Mapping[str, Position]
    """The values in the file, by dotted key."""
    from_environment: frozenset[str] = frozenset()
    """Keys with a value from the environment, which takes precedence."""


def load(path: Path) -> DaemonConfig:
    """The configuration in `path`, or the defaults if DEFAULT_PATH is missing, with the environment applied.

    Raises BrokenInstallation (`config-invalid`), whose message has one line for each error.
    """
    return load_with_origins(path).config


def load_with_origins(path: Path) -> Loaded:
    """As `load`, with the origins of the values."""
    if path == DEFAULT_PATH and not path.exists():
        return _with_environment(Loaded(path, False, DaemonConfig(), {}))
    try:
        text = yaml_source.read_file(path)
    except InvalidInput as error:
        raise BrokenInstallation("config-invalid", error.message, hint=error.hint) from error
    bound = bind(yaml_source.read(text), DaemonConfig, RULES)
    problems = in_order([*bound.problems, *_conflicts(bound)])
    if problems or bound.value is None:
        lines = [f"{path}:{one.line}:{one.column}: {sentences(one.message, one.hint)}" for one in problems]
        message = "\n  ".join([f"the configuration {path} cannot be used:", *lines])
        raise BrokenInstallation("config-invalid", message, hint="Correct these lines, then start or reload the daemon")
    return _with_environment(Loaded(path, True, bound.value, bound.places))


def _with_environment(loaded: Loaded) -> Loaded:
    named = conversion_dir_variable()
    if named is None:
        return loaded
    config = loaded.config.with_changes(conversion_dir=named)
    return replace(loaded, config=config, from_environment=frozenset({"conversion_dir"}))


def conversion_dir_variable() -> Path | None:
    """The conversion directory that the environment names."""
    named = os.environ.get(CONVERSION_DIR_VARIABLE)
    return Path(named) if named else None


def _conflicts(bound: Bound[DaemonConfig]) -> Iterator[Problem]:
    def conflict(key: str, message: str) -> Problem:
        return yaml_source.problem("value-invalid", message, RULES.remedies[key], place=bound.places.get(key), key=key)

    uris = bound.valid.get("allowed_libvirt_uris")
    for uri in uris if isinstance(uris, tuple) else ():
        if fault := _uri_fault(uri):
            yield conflict("allowed_libvirt_uris", f"allowed_libvirt_uris has {yaml_source.shown(uri)}, {fault}")
    destinations = bound.value.notify if bound.value else ()
    for number, message, remedy in _faults_of_destinations(destinations):
        place = bound.places.get(f"notify.{number}")
        yield yaml_source.problem("value-conflict", message, remedy, place=place, key="notify")
    for fault in _source_faults(bound.valid.get("max_per_source")):
        yield conflict("max_per_source", fault)
    listen, reserve = bound.valid.get("metrics_listen"), bound.valid.get("space_reserve")
    if isinstance(listen, str) and not 0 <= int(listen.rpartition(":")[2]) <= HIGHEST_PORT:
        yield conflict("metrics_listen", f"metrics_listen is {listen}, whose port is invalid")
    if isinstance(reserve, str) and reserve[-1] in SIZE_UNITS and BYTES.read(reserve) is None:
        yield conflict("space_reserve", f"space_reserve is {reserve}, too large a size")
    if isinstance(reserve, str) and reserve.endswith("%") and float(reserve[:-1]) >= 100:
        yield conflict("space_reserve", f"space_reserve is {reserve}, the whole file system")


def _faults_of_destinations(destinations: Sequence[Destination]) -> Iterator[tuple[int, str, str]]:
    """The number of each destination with a fault, the fact and the remedy."""
    labels: set[str] = set()
    for number, one in enumerate(destinations):
        if len(one.kinds) != 1:
            fact = "several kinds" if one.kinds else "no kind"
            yield number, f"this destination of notify has {fact}", f"Give it exactly one of {', '.join(KINDS)}"
        elif one.secret_file and not one.webhook:
            yield number, f"the destination {one.label} has a secret_file", "Remove it: only a webhook is signed"
        elif one.from_ and not one.mail:
            yield number, f"the destination {one.label} has a sender", "Remove `from`: only mail has one"
        elif not one.on:
            yield number, f"the destination {one.label} has no events in `on`", f"Choose from {', '.join(OCCASIONS)}"
        elif one.label in labels:
            remedy = "Give each a `name` of its own"
            yield number, f"two destinations of notify have the name {one.label}", remedy
        labels.add(one.label)


def _source_faults(limits: object) -> Iterator[str]:
    named = limits if isinstance(limits, Mapping) else {}
    for name in named:
        if name != REST and not (name.startswith("/") and os.path.normpath(name) == name):
            yield f"max_per_source names {yaml_source.shown(name)}, which is no plain absolute directory"
    for number in (*named.values(), limits):
        if isinstance(number, int) and not 1 <= number <= MOST_JOBS:
            yield f"max_per_source has {number}, which is not from 1 to {MOST_JOBS}"


def _uri_fault(uri: str) -> str | None:
    if not LIBVIRT_URI.fullmatch(uri):
        return "which is not the address of a QEMU/KVM host"
    if uri.startswith(("qemu+libssh:", "qemu+libssh2:")):
        return "whose SSH library reads the service user's configuration: use qemu+ssh"
    return None
