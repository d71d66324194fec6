"""One migration in this process, without a daemon: its directories, and how it is stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from hyper2kvmd import config, progress
from hyper2kvmd.errors import BrokenInstallation, Failure, Interrupted, InvalidInput, MigrationFailed, Unsafe
from hyper2kvmd.host import run
from hyper2kvmd.host.conversion_dir import remove_killed_runs
from hyper2kvmd.host.scratch import remove_abandoned
from hyper2kvmd.model.asked import Hooks, Migration
from hyper2kvmd.model.jobs import PastRate, Problem
from hyper2kvmd.model.machine import Plan
from hyper2kvmd.model.orders import Bounds, HelperCall, Limits, Order
from hyper2kvmd.model.results import Finished
from hyper2kvmd.spec import Parsed
from hyper2kvmd.yaml_source import problem

VARIABLE = config.CONVERSION_DIR_VARIABLE
CACHE = Path(".cache/hyper2kvm/conversions")
PATIENCE_SECONDS = 5.0
"""For the daemon's answer: a plan does without it."""
NO_LIMITS = Limits()
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class NamedDirectory:
    """A directory, and what names it."""

    path: Path
    named_by: str


def conversion_directory(migration: Migration, option: Path | None) -> NamedDirectory:
    """The first one named: by command line, YAML, environment, daemon's configuration or home directory.

    The daemon's configuration counts only if the directory it names belongs to this user. On a workstation, and for
    root, it belongs to the service, and one-shot runs use the home directory.

    Raises BrokenInstallation (`config-invalid`) and InvalidInput (`home-unknown`).
    """
    if option is not None:
        return NamedDirectory(option.absolute(), "--conversion-dir")
    if migration.conversion_dir is not None:
        return NamedDirectory(migration.conversion_dir, "the YAML")
    if named := config.conversion_dir_variable():
        return NamedDirectory(named.absolute(), VARIABLE)
    if os.access(config.DEFAULT_PATH, os.R_OK):
        directory = config.load(config.DEFAULT_PATH).conversion_dir
        if _is_ours(directory):
            return NamedDirectory(directory, str(config.DEFAULT_PATH))
    try:
        return NamedDirectory(Path.home() / CACHE, "the home directory")
    except RuntimeError as error:
        hint = f"Set HOME, or name one by --conversion-dir or {VARIABLE}"
        raise InvalidInput("home-unknown", "this user has no home directory to convert in", hint=hint) from error


def output_directory(migration: Migration, option: Path | None) -> NamedDirectory:
    if option is not None:
        return NamedDirectory(option.absolute(), "--output-dir")
    if migration.output_dir is not None:
        return NamedDirectory(migration.output_dir, "the YAML")
    return NamedDirectory(Path.cwd(), "the current directory")


@dataclass(frozen=True)
class DaemonDirectories:
    """The directories of a migration that is dropped into the spool."""

    conversion_dir: Path
    output_dir: Path


def daemon_directories(migration: Migration) -> DaemonDirectories | None:
    """None if this host has no daemon, this user cannot read its configuration, or it is not valid.

    Only `conversion_directory` reports a configuration that is not valid: a one-shot run may not need one.
    """
    if config.DEFAULT_PATH.exists():
        known = os.access(config.DEFAULT_PATH, os.R_OK)
    else:
        known = config.DaemonConfig().spool_dir.exists()  # the daemon runs without a configuration as well
    if not known:
        return None
    try:
        configured = config.load(config.DEFAULT_PATH)
    except BrokenInstallation:
        return None
    return DaemonDirectories(
        migration.conversion_dir or configured.conversion_dir, migration.output_dir or configured.output_dir
    )


def drivers_missing(migration: Migration) -> Problem | None:
    """A bus for Windows' disks whose driver can come from nowhere. None also if the configuration cannot be read."""
    if migration.win_disk not in ("virtio", "scsi") or migration.virtio_win is not None or _may_name_drivers():
        return None
    message = f"win_disk is {migration.win_disk}, and virtio_win is set neither here nor in {config.DEFAULT_PATH}"
    hint = "Set virtio_win to a virtio-win ISO, or set win_disk: auto"
    return problem("value-conflict", message, hint, key="win_disk")


def _may_name_drivers() -> bool:
    if not config.DEFAULT_PATH.exists():
        return False
    try:
        return not os.access(config.DEFAULT_PATH, os.R_OK) or config.load(config.DEFAULT_PATH).virtio_win is not None
    except BrokenInstallation:
        return True


def past_rate() -> PastRate | None:
    """How fast the daemon's last conversions were. None if there is none, or this user cannot ask the daemon."""
    from hyper2kvmd.client import Client

    with contextlib.suppress(Failure):
        return Client(timeout_seconds=PATIENCE_SECONDS).rate()
    return None


def helper() -> HelperCall:
    """The call of the root helper: through sudo, or directly as root.

    If the daemon's configuration names a socket, the socket is used instead where sudo may not work:
    - setuid programs have no effect, as in a container
    - sudo is not installed
    - this is the service's own user, whose line in the sudo rules may be gone

    Raises BrokenInstallation (`config-invalid`).
    """
    from hyper2kvmd.guest.mounts.access import default_helper

    without_effect = run.no_new_privileges()
    if (without_effect or os.geteuid() != 0) and os.access(config.DEFAULT_PATH, os.R_OK):
        configured = config.load(config.DEFAULT_PATH)
        without_sudo = without_effect or shutil.which("sudo", path=run.SEARCH_PATH) is None
        if isinstance(configured.helper, Path) and (without_sudo or _is_ours(configured.state_dir)):
            return configured.helper
    return default_helper()


def _hooks(asked: Hooks) -> Mapping[str, Path]:
    """For a migration with hooks: those in the daemon's configuration, if this user can read it.

    Raises BrokenInstallation (`config-invalid`).
    """
    if asked == Hooks() or not os.access(config.DEFAULT_PATH, os.R_OK):
        return {}
    return config.load(config.DEFAULT_PATH).hooks


def _is_ours(directory: Path) -> bool:
    try:
        return directory.stat().st_uid == os.geteuid()
    except OSError:
        return False


def order(machine: Parsed, conversion_dir: Path, output_dir: Path, limits: Limits = NO_LIMITS) -> Order:
    return Order(
        job_id=f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}",
        migration=machine.migration,
        notes=machine.notes,
        conversion_dir=conversion_dir,
        output_dir=output_dir,
        helper=helper(),
        bounds=Bounds(hooks=_hooks(machine.migration.hooks)),
        limits=limits,
    )


def migrate(asked: Order, emit: Callable[[progress.Event], None]) -> Finished:
    """Run the whole migration. Raises Explained; the working folder is removed in any case."""
    from hyper2kvmd import worker

    with interruptible(), _explained():
        _clear_up(asked.conversion_dir, emit)
        return worker.migrate(asked, progress.Context(emit, worker.admit_here(asked)))


def _clear_up(conversion_dir: Path, emit: Callable[[progress.Event], None]) -> None:
    """Free the space of earlier runs that were killed. The run itself judges the directory."""
    remove_abandoned()
    try:
        for folder in remove_killed_runs(conversion_dir):
            emit(progress.Warned(message=f"removed {folder}: its run was killed"))
    except MigrationFailed as failure:
        if failure.code == "leftover-not-removed":
            emit(progress.Warned(message=failure.message))
    except Unsafe:
        return


def plan(asked: Order, emit: Callable[[progress.Event], None]) -> Plan:
    """Run the plan stage only. Raises Explained."""
    from hyper2kvmd import worker

    with interruptible(), _explained():
        return worker.plan_only(asked, progress.Context(emit, worker.admit_here(asked)))


@contextmanager
def _explained() -> Iterator[None]:
    """Turn an unexpected exception into a failure of one line; before it, print the traceback if it is our fault."""
    from hyper2kvmd import worker

    try:
        yield
    except Failure:
        raise
    except Exception as error:
        if not isinstance(error, OSError):
            traceback.print_exc()
        raise worker.internal_error(error) from error


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into `Interrupted`; later ones must not disturb the cleanup."""

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in STOPPING:
            signal.signal(each, signal.SIG_IGN)
        name = signal.Signals(number).name
        hint = "Run the command again: the source is as it was, and nothing is left behind"
        raise Interrupted("interrupted", f"the migration was stopped by {name}", hint=hint)

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
