"""A daemon that cannot begin yet, because its state or its spool cannot be written to: it says so and tries again."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial

from sdnotify import SystemdNotifier

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon.doors import BoundedServer, Handler
from hyper2kvmd.daemon.gauges import WRITABLE
from hyper2kvmd.daemon.http import web
from hyper2kvmd.daemon.listening import ended, listen, listen_on_port
from hyper2kvmd.daemon.locks import Locks
from hyper2kvmd.daemon.opening import directory_of, open_queue
from hyper2kvmd.daemon.storage import FAULTY_SECONDS, fault_of, unwritable
from hyper2kvmd.daemon.threads import in_a_thread
from hyper2kvmd.daemon.wire import FileSystemRole, RefusalBody
from hyper2kvmd.errors import BrokenInstallation, Failure, TryLater
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.progress import problem

log = logging.getLogger(__name__)

NEEDED: tuple[FileSystemRole, ...] = ("state", "spool")


def open_writable_queue(config: DaemonConfig, locks: Locks) -> Store:
    """As `open_queue`. Raises also TryLater (`storage-unwritable`): on a full file system, only writing fails.

    A spool that is full is waited for while the daemon runs.
    """
    store = open_queue(config, locks)
    try:
        if reason := fault_of("state", config, locks):
            raise unwritable("state", config.state_dir, reason)
    except BaseException:
        store.close()
        raise
    return store


async def wait_for_queue(
    config: DaemonConfig, locks: Locks, failure: Failure, when_ready: Callable[[], object]
) -> Store | None:
    """The database of the queue, once the file systems allow it; None if the daemon is stopped before.

    Raises `failure`, or what comes after it, if no file system is the cause.
    """
    return await _Waiting(config, locks, failure, when_ready).run()


class _Waiting:
    def __init__(self, config: DaemonConfig, locks: Locks, failure: Failure, when_ready: Callable[[], object]) -> None:
        self._config, self._locks, self._failure, self._when_ready = config, locks, failure, when_ready
        self._notifier = SystemdNotifier()
        self._stopping = asyncio.Event()
        self._cause: TryLater | None = None
        self._role: FileSystemRole | None = None

    async def run(self) -> Store | None:
        await self._examine(self._failure)
        async with AsyncExitStack() as stack:
            self._open_doors(stack)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
            self._notifier.notify("READY=1")
            self._when_ready()
            while not await self._stopped():
                try:
                    return await in_a_thread("open-queue", partial(open_writable_queue, self._config, self._locks))
                except (BrokenInstallation, TryLater) as failure:
                    await self._examine(failure)
        return None

    async def _examine(self, failure: Failure) -> None:
        """Find the file system that is the cause. Raises `failure` if none is, or if another daemon is."""
        for role in NEEDED if failure.code != "already-running" else ():
            reason = await in_a_thread("write", partial(fault_of, role, self._config, self._locks))
            if reason:
                self._role, cause = role, unwritable(role, directory_of(role, self._config), reason)
                break
        else:
            raise failure
        if str(cause) != str(self._cause):
            log.error("%s", cause)
        self._cause = cause
        self._notifier.notify(f"STATUS=waiting: {cause}\nWATCHDOG=1")

    async def _stopped(self) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), FAULTY_SECONDS)
        return self._stopping.is_set()

    def _open_doors(self, stack: AsyncExitStack) -> None:
        """Answer each request with the cause, as far as sockets can be made."""
        config = self._config
        with suppress(BrokenInstallation):
            listener = listen(config.control_socket)
            stack.callback(config.control_socket.unlink, missing_ok=True)
            self._serve(stack, BoundedServer(_answering(self._refuse), listener, "control_socket"))
        with suppress(BrokenInstallation):
            listener = listen_on_port(config.metrics_listen)
            self._serve(stack, BoundedServer(_answering(self._explain), listener, "metrics_listen"))

    def _serve(self, stack: AsyncExitStack, server: BoundedServer) -> None:
        stack.push_async_callback(ended, asyncio.create_task(server.serve()))

    async def _refuse(self, _request: web.Request) -> web.Response:
        assert self._cause is not None  # noqa: S101 - narrows the type
        body = RefusalBody(problems=(problem(self._cause),))
        return web.Response(text=body.model_dump_json(), status=503, content_type="application/json")

    async def _explain(self, request: web.Request) -> web.Response:
        """The metric of the fault, and the fault to everybody else."""
        if request.path == "/metrics" and self._role is not None:
            return web.Response(text=f'{WRITABLE}{{directory="{self._role}"}} 0\n')
        return web.Response(text=f"{self._cause}\n", status=503)


def _answering(answer: Handler) -> web.Application:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    return application
