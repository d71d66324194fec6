"""The program `hyper2kvmd`: foreground by default, for systemd and containers; `--daemonize` for everything else."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from hyper2kvmd import __version__
from hyper2kvmd.errors import BrokenInstallation, Failure, InvalidInput
from hyper2kvmd.file_lock import keep_private
from hyper2kvmd.installed import CONFIGURATION, SERVICE_USER

if TYPE_CHECKING:
    from hyper2kvmd.config import DaemonConfig

LOG_NAME = "hyper2kvmd.log"
READY = b"ready"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=CONFIGURATION,
    show_default=True,
    help="Read the configuration from this file. Only the default file may be missing: every key has a default.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Check the configuration and exit. If it is valid, print all settings as a configuration file, each with "
    "its origin: a line of the file, the environment, or the default. Warnings name destinations of notifications that "
    "cannot be used on this host. Otherwise print every error with its line and remedy; the exit status is 78. Nothing "
    "else is examined: `h2kvmctl doctor` examines the host.",
)
@click.option(
    "--daemonize",
    is_flag=True,
    help="Go to the background when the daemon is ready. The log goes to `hyper2kvmd.log` in the state directory. "
    "Needs `--pidfile`.",
)
@click.option(
    "--pidfile",
    type=click.Path(path_type=Path),
    help="Write the process ID to this file and keep the file locked. Only with `--daemonize`.",
)
@click.version_option(__version__, prog_name="hyper2kvmd")
def main(config_path: Path, check: bool, daemonize: bool, pidfile: Path | None) -> None:
    """Migrate virtual machines from VMware to KVM, from a spool directory and a queue."""
    try:
        if daemonize != (pidfile is not None):
            raise InvalidInput(
                "usage", "--daemonize and --pidfile belong together", hint="Give both of them, or neither"
            )
        config_path = config_path.absolute()
        if check:
            _check(config_path)
        else:
            _serve(config_path, pidfile)
    except Failure as failure:
        _die(failure)


def _check(config_path: Path) -> None:
    from hyper2kvmd import config, effective

    loaded = config.load_with_origins(config_path)
    for line in effective.lines(loaded):
        click.echo(line)
    _warn_of_destinations(loaded.config)


def _warn_of_destinations(config: DaemonConfig) -> None:
    """The daemon starts in spite of them, and keeps its notifications until they can be delivered."""
    if not config.notify:
        return
    from hyper2kvmd.daemon.notify.delivery import faults
    from hyper2kvmd.host.person import Person

    user = Person.named(SERVICE_USER) or Person.of(os.geteuid())
    for destination in config.notify:
        for failure in faults(destination, user):
            click.echo(f"hyper2kvmd: warning: notify, destination {destination.label}: {failure}", err=True)


def _serve(config_path: Path, pidfile: Path | None) -> None:
    from hyper2kvmd import config as configuration

    config = configuration.load(config_path)
    if pidfile is None:
        from hyper2kvmd.daemon import service

        service.serve(config, config_path)
    else:
        _into_background(config, config_path, pidfile.absolute())


def _die(failure: Failure) -> None:
    click.echo(f"hyper2kvmd: {failure}", err=True)
    sys.exit(failure.exit_code)


def _into_background(config: DaemonConfig, config_path: Path, pidfile: Path) -> None:
    """Return when the daemon is ready; exit with its code and message if it fails to start."""
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(inlet)
        with os.fdopen(outlet, "wb", buffering=0) as teller:
            _be_daemon(config, config_path, pidfile, teller)
        sys.exit(0)
    os.close(outlet)
    with os.fdopen(inlet, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    if said != READY:
        code, _, message = said.decode().partition(" ")
        log = config.state_dir / LOG_NAME
        click.echo(message or f"hyper2kvmd: the daemon died while it started; see {log}", err=True)
        sys.exit(int(code or 1))


def _be_daemon(config: DaemonConfig, config_path: Path, pidfile: Path, teller: FileIO) -> None:
    import daemon

    from hyper2kvmd.daemon import service

    def ready() -> None:
        teller.write(READY)
        teller.close()

    try:
        with (
            _opened_log(config.state_dir) as log,
            daemon.DaemonContext(
                working_directory="/",
                umask=service.UMASK,
                detach_process=True,
                files_preserve=[teller],
                pidfile=_locked_pidfile(pidfile),
                stdin=None,  # becomes /dev/null
                stdout=log,
                stderr=log,
            ),
        ):
            service.serve(config, config_path, when_ready=ready)
    except Failure as failure:
        if not teller.closed:
            teller.write(f"{failure.exit_code} hyper2kvmd: {failure}".encode())
        _die(failure)


@contextmanager
def _opened_log(state_dir: Path) -> Iterator[TextIO]:
    path = state_dir / LOG_NAME
    try:
        state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise BrokenInstallation(
            "log-unusable",
            f"the log {path} cannot be written: {error.strerror}",
            hint="Set state_dir to a directory of the daemon's user",
        ) from error
    with os.fdopen(handle, "w", buffering=1) as log:
        yield log


@contextmanager
def _locked_pidfile(path: Path) -> Iterator[None]:
    """Our pid in `path`, under a lock that ends with this process: a stale pidfile is simply taken over."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        keep_private(handle)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BrokenInstallation(
            "already-running",
            f"the process that wrote {path} is still running",
            hint="Stop that daemon, or give this one a pidfile and directories of its own",
        ) from error
    except OSError as error:
        raise BrokenInstallation(
            "pidfile-unusable",
            f"the pidfile {path} cannot be written: {error.strerror}",
            hint="Use a path in a directory that the daemon's user can write to",
        ) from error
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)
