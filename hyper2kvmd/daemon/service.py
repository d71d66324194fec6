"""The life cycle of the daemon: its sockets, notifications to systemd, signals, and an orderly shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from types import FrameType

from sdnotify import SystemdNotifier

import hyper2kvmd
from hyper2kvmd import config as configuration
from hyper2kvmd import units
from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon import journal, memory, spool
from hyper2kvmd.daemon.arrivals import Arrivals
from hyper2kvmd.daemon.callers import Callers
from hyper2kvmd.daemon.care import DatabaseCare
from hyper2kvmd.daemon.clearing import Clearing
from hyper2kvmd.daemon.control import Control
from hyper2kvmd.daemon.doors import BoundedServer
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.listening import admit_submitters, ended, listen, listen_on_port
from hyper2kvmd.daemon.locks import Locks
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.notify.notifier import Notifier
from hyper2kvmd.daemon.opening import hold_places
from hyper2kvmd.daemon.pages.server import Web
from hyper2kvmd.daemon.scheduler import TICK_SECONDS, Headline, Scheduler
from hyper2kvmd.daemon.sources import limits_line
from hyper2kvmd.daemon.storage import Storage, in_time
from hyper2kvmd.daemon.submitting import Desk
from hyper2kvmd.daemon.threads import in_a_thread
from hyper2kvmd.daemon.waiting import open_writable_queue, wait_for_queue
from hyper2kvmd.daemon.wire import Status
from hyper2kvmd.errors import BrokenInstallation, Failure, TryLater
from hyper2kvmd.host import run
from hyper2kvmd.jobs.store import Store

log = logging.getLogger(__name__)

WORKER = (sys.executable, "-I", "-m", "hyper2kvmd.worker")
SCAN_END_SECONDS = 5.0
"""For the last scan of the spool to end, before the process does."""
UMASK = 0o027
"""The group may read the files in the spool and the output directory; others may not."""
SWITCH_SECONDS = 0.001
"""Until a thread that reads the spool lets the event loop go on, which needs several turns for an answer."""
RELOADABLE = frozenset(
    {
        "max_concurrent_jobs",
        "max_per_source",
        "threads",
        "bandwidth_limit",
        "io_priority",
        "retry",
        "retention",
        "log_level",
        "space_reserve",
        "allowed_source_dirs",
        "allowed_output_dirs",
        "allowed_conversion_dirs",
        "allowed_libvirt_uris",
        "allowed_libvirt_pools",
        "hooks",
        "output_dir",
        "conversion_dir",
        "helper",
        "virtio_win",
        "notify",
        "stall_after",
        "stall_retry_after",
        "backups",
    }
)


def do_nothing() -> None:
    """For a caller that does not wait for the daemon."""


def serve(
    config: DaemonConfig,
    config_path: Path,
    *,
    worker: Sequence[str] = WORKER,
    when_ready: Callable[[], object] = do_nothing,
) -> None:
    """Run the daemon until SIGTERM, SIGINT or the end of a drain.

    `config_path` is read again on SIGHUP. Raises BrokenInstallation: `config-invalid`,
    `metrics-unusable`, and those of `open_writable_queue`, `hold_places` and the control socket.
    """
    os.umask(UMASK)
    sys.setswitchinterval(SWITCH_SECONDS)
    memory.share_one_heap()
    hangups = _Hangups()
    signal.signal(signal.SIGHUP, hangups.note)
    journal.set_up(config.log_level)
    with closing(Locks(config)) as locks:
        store: Store | None
        try:
            store = open_writable_queue(config, locks)
        except (BrokenInstallation, TryLater) as failure:
            store = asyncio.run(wait_for_queue(config, locks, failure, when_ready))
            when_ready = do_nothing
        if store is not None:
            asyncio.run(_Service(config, config_path, store, locks, hangups, worker, when_ready).run())


def status_line(status: Headline | Status, last_end: str) -> str:
    """The line in `systemctl status`.

    For example `2 running: web01 convert 43 %, db02 repair; 5 queued; last: web02 succeeded with 1 warning`.
    """
    jobs = []
    for job in status.running:
        percent = "" if job.progress is None else f" {100 * job.progress:.0f} %"
        jobs.append(f"{job.vm_name} {job.stage or 'starting'}{percent}")
    parts = [f"{len(jobs)} running: {', '.join(jobs)}" if jobs else "idle", f"{status.counts.queued} queued"]
    parts += (f"{fault.role}_dir cannot be written to: {fault.reason}" for fault in status.faults)
    if status.waiting_for_space:
        parts.append(f"{status.waiting_for_space} waiting for space")
    if status.counts.held:
        parts.append(f"{status.counts.held} held")
    if last_end:
        parts.append(f"last: {last_end}")
    return "; ".join(parts if status.state == "running" else [status.state, *parts])


def startup_lines(config: DaemonConfig) -> Iterator[str]:
    """Addresses, folders and limits, for the log."""
    yield f"control socket: {config.control_socket}; status page: http://{config.metrics_listen}/"
    yield (
        f"folders: spool {config.spool_dir}, state {config.state_dir}, conversions {config.conversion_dir}, "
        f"images {config.output_dir}"
    )
    bandwidth = f"{units.size(config.bandwidth_limit)}/s" if config.bandwidth_limit else "any bandwidth"
    threads = config.threads or "one for each core"
    yield (
        f"limits: {config.max_concurrent_jobs} jobs at the same time; for each, threads: {threads}, {bandwidth}, I/O "
        f"priority {config.io_priority}; {config.space_reserve} of each file system is kept free"
    )
    if config.max_per_source is not None:
        yield f"limits of sources: {limits_line(config.max_per_source)}"


class _Hangups:
    """Notes a SIGHUP that comes before the daemon can reload.

    By default the signal would end the daemon, and systemd would not restart it.
    """

    any = False

    def note(self, _number: int, _frame: FrameType | None) -> None:
        self.any = True


class _Service:
    def __init__(
        self,
        config: DaemonConfig,
        config_path: Path,
        store: Store,
        locks: Locks,
        hangups: _Hangups,
        worker: Sequence[str],
        when_ready: Callable[[], object],
    ) -> None:
        self._config, self._config_path, self._when_ready = config, config_path, when_ready
        self._locks, self._hangups = locks, hangups
        self._ledger = Ledger(store)
        self._metrics = Metrics()
        self._spool = spool.Spool(config.spool_dir, store, self._metrics)
        self._storage = Storage(config, locks)
        self._scheduler = Scheduler(
            config, self._ledger, self._metrics, worker, self._storage, lambda: self._spool.ignored
        )
        self._clearing = Clearing(config, self._ledger, self._metrics)
        self._notices = Notifier(self._ledger, self._metrics)
        self._care = DatabaseCare(config, checked=store.checked)
        self._notifier = SystemdNotifier()
        self._stopping, self._hangup = asyncio.Event(), asyncio.Event()
        self._said = ""
        self._serving: list[asyncio.Task[None]] = []
        self._scan: asyncio.Future[spool.Scan] | None = None

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            stack.callback(self._ledger.close)
            await self._hold_places(self._config)
            await self._storage.look()
            await self._notices.configure(self._config)
            await self._scheduler.recover()
            await self._clearing.at_start({fault.path for fault in self._storage.faults})
            await self._open_doors(stack)
            self._catch_signals()
            log.info("hyper2kvmd %s is ready", hyper2kvmd.__version__)
            for line in startup_lines(self._config):
                log.info("%s", line)
            if not run.confinement_available():
                log.warning("this kernel has no Landlock: tools that parse images have the same access as the service")
            self._notify("READY=1")
            self._when_ready()
            await self._work()

    async def _hold_places(self, config: DaemonConfig) -> None:
        """A directory that hangs is named by `Storage`, which takes its lock when it responds."""
        with contextlib.suppress(TimeoutError):
            await in_time("hold-places", partial(hold_places, config, self._locks))

    async def _open_doors(self, stack: AsyncExitStack) -> None:
        config = self._config
        listener = listen(config.control_socket)
        await in_a_thread("socket", admit_submitters, config.control_socket, config.incoming)
        callers = Callers(config.incoming, config.control_socket.stat().st_gid)
        doors = (
            (
                Control(
                    self._scheduler, self._ledger, Desk(self._ledger, self._spool.quota), callers, self._notices
                ).application(),
                listener,
                f"control_socket {config.control_socket}",
            ),
            (
                Web(self._scheduler, self._ledger, self._metrics).application(),
                listen_on_port(config.metrics_listen),
                f"metrics_listen {config.metrics_listen}",
            ),
        )
        for application, listener, name in doors:
            serving = asyncio.create_task(BoundedServer(application, listener, name).serve())
            stack.push_async_callback(ended, serving)
            self._serving.append(serving)
        stack.callback(partial(config.control_socket.unlink, missing_ok=True))

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._hangup.set)
        if self._hangups.any:
            self._hangup.set()

    async def _work(self) -> None:
        """Run until a stop is requested, or until a task fails; its error is raised then."""
        scheduling = asyncio.create_task(self._scheduler.follow(self._feed_watchdog))
        others = [
            asyncio.create_task(self._watch_spool()),
            asyncio.create_task(self._notices.follow()),
            asyncio.create_task(self._clearing.follow()),
            asyncio.create_task(self._storage.follow(self._scheduler.storage_changed)),
            asyncio.create_task(self._care.follow()),
            asyncio.create_task(self._report_status()),
            asyncio.create_task(self._reload_when_asked()),
            asyncio.create_task(self._until_stopped()),
        ]
        await asyncio.wait([scheduling, *others, *self._serving], return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        self._notify("STOPPING=1\nSTATUS=stopping")
        self._scheduler.quit()
        for task in others:
            task.cancel()
        outcomes = await asyncio.gather(scheduling, *others, return_exceptions=True)
        await self._scheduler.stop()
        if self._scan is not None:  # one that hangs with its file system ends with the process
            await asyncio.wait([self._scan], timeout=SCAN_END_SECONDS)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        for serving in self._serving:
            if serving.done():
                serving.result()

    async def _until_stopped(self) -> None:
        ends = [asyncio.create_task(self._stopping.wait()), asyncio.create_task(self._scheduler.drained.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in ends:
                task.cancel()

    async def _watch_spool(self) -> None:
        """Scan about once a second, and at once when a file is renamed into incoming/ or files are left to be taken."""
        arrivals = Arrivals(self._config.incoming)
        try:
            arrived: list[str] = []
            while True:
                more = False
                try:
                    self._scan = in_a_thread("spool", partial(self._spool.scan, arrived))
                    scan = await asyncio.shield(self._scan)
                    more = scan.more
                    if scan.jobs:
                        self._scheduler.wake()
                except TryLater as failure:
                    self._ledger.report(failure)
                arrived = await arrivals.wait(0 if more else TICK_SECONDS)
        finally:
            arrivals.close()

    async def _report_status(self) -> None:
        while True:
            journal.report_omitted()
            with contextlib.suppress(TryLater):
                line = status_line(await self._scheduler.headline(), self._scheduler.last_end)
                if line != self._said:
                    self._said = line
                    self._notify(f"STATUS={line}")
            await asyncio.sleep(TICK_SECONDS)

    def _feed_watchdog(self) -> None:
        self._notify("WATCHDOG=1")

    def _notify(self, text: str) -> None:
        self._notifier.notify(text)

    async def _reload_when_asked(self) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
            try:
                new = self._reloadable(await in_a_thread("configuration", configuration.load, self._config_path))
                await self._hold_places(new)
                self._take_over(new)
                await self._notices.configure(new)
            except Failure as failure:
                for line in f"the configuration is unchanged: {failure}".splitlines():
                    log.error("%s", line)  # each error and the remedy are entries of their own
            self._notify("READY=1")

    def _reloadable(self, new: DaemonConfig) -> DaemonConfig:
        """`new`, except for settings that only a restart can change: they keep their values."""
        fixed = {name: value for name, value in self._config if name not in RELOADABLE}
        for name, value in fixed.items():
            if getattr(new, name) != value:
                log.warning("%s takes effect after a restart of the daemon", name)
        return new.with_changes(**fixed)

    def _take_over(self, new: DaemonConfig) -> None:
        self._config = new
        journal.set_up(self._config.log_level)
        self._storage.configure(self._config)
        self._scheduler.configure(self._config)
        self._clearing.config = self._config
        self._care.configure(self._config)
        log.info("configuration reloaded")
