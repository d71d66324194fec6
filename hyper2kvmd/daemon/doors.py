"""Accepts connections to the control socket and to metrics_listen, and limits their number and their duration.

However many clients connect, the descriptors and the memory that they take stay within the constants below.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import cast

from hyper2kvmd.daemon.http import web

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MAX_CONNECTIONS = 64
"""Open at the same time, for each listening socket. One more may be accepted and wait for its turn."""
MIN_AGE_SECONDS = 0.25
"""A connection is not closed for this long, so that an honest client can send its request.

So a flood of silent clients is accepted at 256 connections a second at most. With 1 s, an honest client among them
often timed out.
"""
REQUEST_SECONDS = 10.0
"""From the start of a connection, or its last response, until the next request's header is complete."""
BODY_SECONDS = 10.0
RESPONSE_SECONDS = 30.0
"""For the client to read a response that does not fit into the kernel's buffers."""
LINGER_SECONDS = 1.0
"""How long the rest of a refused body is read, so that the client receives the refusal."""
MAX_FIELD_BYTES = 4096
"""Of the request line, and of the name and the value of each header field."""
MAX_FIELDS = 32
"""Header fields of a request: 256 KiB at most in one request. Browsers send about 15."""
BACKLOG = 128
"""Connections that the kernel queues for the metrics port. A client that finds no room tries again by itself."""
CONTROL_BACKLOG = 1024
"""The same for the control socket, where a client that finds no room fails."""
SWEEP_SECONDS = 1.0
PAUSE_SECONDS = 0.1
"""Time until the next attempt when there is no descriptor, or no connection that may be closed."""


class BoundedServer:
    """Serves one application on one listening socket.

    When all connections are in use, the connection that has been idle longest is closed for a new one. A request that
    is being handled is never interrupted; its connection then ends with the response.
    """

    def __init__(self, application: web.Application, listener: socket.socket, name: str) -> None:
        application.middlewares.insert(0, self._mark_busy)
        self._listener, self._name = listener, name
        self._connections: dict[web.RequestHandler, _Accepted] = {}
        self._changed = asyncio.Event()
        self._runner = web.AppRunner(
            application,
            access_log=None,
            shutdown_timeout=2.0,
            keepalive_timeout=REQUEST_SECONDS,
            lingering_time=LINGER_SECONDS,
            max_line_size=MAX_FIELD_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            max_headers=MAX_FIELDS,
            auto_decompress=False,
        )

    async def serve(self) -> None:
        """Accept connections until cancelled."""
        await self._runner.setup()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._accept())
                tasks.create_task(self._close_overdue())
        finally:
            self._listener.close()
            await self._runner.cleanup()

    # ------------------------------------------------------------ accepting

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, _ = await loop.sock_accept(self._listener)
            except OSError as error:  # no descriptor is left, or the client is gone already
                log.error("%s: cannot accept a connection: %s", self._name, error.strerror)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            try:
                await self._make_room()
                await self._connect(client)
            except asyncio.CancelledError:
                client.close()
                raise

    async def _connect(self, client: socket.socket) -> None:
        server = self._runner.server
        assert server is not None  # noqa: S101 - `serve` has set it up
        connection = _Accepted(server(), self._release)
        self._connections[connection.http] = connection
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, client)
        except OSError:  # the client is gone already
            client.close()
            connection.lost = True
            self._release(connection)

    async def _make_room(self) -> None:
        while self._full:
            self._changed.clear()
            self._close_longest_idle()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), PAUSE_SECONDS)

    @property
    def _full(self) -> bool:
        return len(self._connections) >= MAX_CONNECTIONS

    def _close_longest_idle(self) -> None:
        grown = time.monotonic() - MIN_AGE_SECONDS
        idle = [one for one in self._connections.values() if not one.busy and one.opened <= grown]
        if idle:
            min(idle, key=lambda one: one.idle_since).abort()

    def _release(self, connection: _Accepted) -> None:
        """Free the connection once the client is gone and its request is no longer handled."""
        if connection.lost and not connection.busy:
            self._connections.pop(connection.http, None)
            self._changed.set()

    # ------------------------------------------------------------ time limits

    async def _close_overdue(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for connection in list(self._connections.values()):
                if connection.overdue(now):
                    connection.abort()

    @web.middleware
    async def _mark_busy(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = self._connections.get(request.protocol)
        if connection is None:  # it was lost before its request was handled
            return web.Response(status=503)
        connection.reading = True
        try:
            await _read_body(request)  # not busy yet: a slow sender is closed for a new client
            connection.reading, connection.busy = False, True
            response = await handler(request)
            self._end_if_full(response)
            return response
        except web.HTTPException as refusal:
            self._end_if_full(refusal)
            raise
        finally:
            connection.reading = connection.busy = False
            connection.idle_since = time.monotonic()
            self._release(connection)

    def _end_if_full(self, response: web.StreamResponse) -> None:
        """Close the connection when all connections are in use: clients that never pause could keep them for ever."""
        if self._full:
            response.force_close()


async def _read_body(request: web.Request) -> None:
    """Read the whole body, within BODY_SECONDS, before a handler is started; `request.read()` returns it again."""
    try:
        await asyncio.wait_for(request.read(), BODY_SECONDS)
    except TimeoutError as error:
        raise web.HTTPRequestTimeout from error
    except (web.RequestPayloadError, ConnectionError) as error:
        raise web.HTTPBadRequest from error


class _Accepted(asyncio.Protocol):
    """Passes everything on to aiohttp's protocol, and keeps the state that the limits depend on."""

    def __init__(self, http: web.RequestHandler, release: Callable[[_Accepted], None]) -> None:
        self.http = http
        self.busy = self.reading = self.lost = False
        self.opened = self.idle_since = time.monotonic()
        self._release = release
        self._transport: asyncio.Transport | None = None

    def overdue(self, now: float) -> bool:
        if self.busy or self.reading or self._transport is None:
            return False
        unread = self._transport.get_write_buffer_size() > 0
        return now - self.idle_since > (RESPONSE_SECONDS if unread else REQUEST_SECONDS)

    def abort(self) -> None:
        """Close at once: an orderly close would wait until the client has read everything."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.http.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost, self._transport = True, None
        self.http.connection_lost(exc)
        self._release(self)

    def data_received(self, data: bytes) -> None:
        self.http.data_received(data)

    def eof_received(self) -> None:
        self.http.eof_received()

    def pause_writing(self) -> None:
        self.http.pause_writing()

    def resume_writing(self) -> None:
        self.http.resume_writing()
