"""Clients without end or manners: what they take is bounded, and everybody else is served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import select
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from hyper2kvmd.config import DaemonConfig
from hyper2kvmd.daemon import control, doors
from hyper2kvmd.daemon.callers import Callers
from hyper2kvmd.daemon.doors import BoundedServer
from hyper2kvmd.daemon.ledger import Ledger
from hyper2kvmd.daemon.listening import listen
from hyper2kvmd.daemon.locks import Locks
from hyper2kvmd.daemon.metrics import Metrics
from hyper2kvmd.daemon.notify.notifier import Notifier
from hyper2kvmd.daemon.pages import shared
from hyper2kvmd.daemon.pages.server import Web
from hyper2kvmd.daemon.quota import Quota
from hyper2kvmd.daemon.scheduler import Scheduler
from hyper2kvmd.daemon.storage import Storage
from hyper2kvmd.daemon.submitting import Desk
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import Counts, Job, State
from tests.support.flood import Address, connect, flooding
from tests.support.house import House, jobs_adapter, until

DESCRIPTORS = 256
"""Fewer than the connections of an attack."""
RESERVE = 128
"""What one door leaves of them at least."""
FLOOD = 600
DOORS = ("metrics", "control")
PAGE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def address(house: House, door: str) -> Address:
    return house.port if door == "metrics" else house.socket


def limit_descriptors(house: House, number: int) -> None:
    assert house.process is not None
    resource.prlimit(house.process.pid, resource.RLIMIT_NOFILE, (number, DESCRIPTORS))


def descriptors(house: House) -> int:
    assert house.process is not None
    return psutil.Process(house.process.pid).num_fds()


def closed_by_daemon(connection: socket.socket) -> bool:
    """Whether the other side has closed. What it sent is read."""
    connection.setblocking(False)
    try:
        while connection.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


# ---------------------------------------------------------------- connections to the daemon


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("text", ["", "GET /", PAGE.decode()], ids=["silent", "half a request", "requests"])
def test_more_connections_than_descriptors(house: House, door: str, text: str) -> None:
    """A job is taken and runs, and both doors answer."""
    house.start()
    limit_descriptors(house, DESCRIPTORS)
    with flooding(address(house, door), FLOOD, text):
        assert descriptors(house) <= DESCRIPTORS - RESERVE
        house.drop("web01.yaml", house.migration("web01", "plan", "convert", "publish"))
        house.lies("done", "web01.yaml")
        assert house.status().state == "running"
        assert house.browse("/healthz") == (200, "ok\n")
        assert descriptors(house) <= DESCRIPTORS - RESERVE
    assert house.job(1).state is State.SUCCEEDED
    assert len(house.log.splitlines()) < 30


def test_no_descriptor_for_a_connection(house: House) -> None:
    """The daemon neither stops nor fills its log, and accepts again when it can."""
    house.start()
    with connect(house.socket) as early:
        early.sendall(PAGE)
        assert b"404" in early.recv(1000)
        limit_descriptors(house, descriptors(house))
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(connect(house.port))
            until(lambda: "cannot accept" in house.log, "a connection is not accepted")
            early.sendall(PAGE)
            assert b"404" in early.recv(1000)
    limit_descriptors(house, DESCRIPTORS)
    assert house.browse("/healthz") == (200, "ok\n")
    assert house.log.count("cannot accept") <= 10


@pytest.mark.parametrize(
    ("door", "drip", "first"),
    [("metrics", b"", b""), ("metrics", b"x", b""), ("control", b"", PAGE), ("control", b"x", PAGE)],
    ids=["new and silent", "new and dripping", "kept alive and silent", "kept alive and dripping"],
)
def test_a_request_that_never_comes(house: House, door: str, drip: bytes, first: bytes) -> None:
    house.start()
    with connect(address(house, door)) as slow:
        slow.sendall(first + b"GET / HTTP/1.1\r\nX: " if drip else first)

        def closed() -> bool:
            with contextlib.suppress(ConnectionError):
                slow.sendall(drip)
            return closed_by_daemon(slow)

        until(closed, "the connection is closed")


@pytest.mark.parametrize("door", DOORS)
def test_a_body_that_never_comes(house: House, door: str) -> None:
    house.start()
    with connect(address(house, door)) as slow:
        slow.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(3):
            slow.sendall(b"x")
        assert slow.recv(1000).split()[1] == b"408"
        until(lambda: closed_by_daemon(slow), "the connection is closed")


@pytest.mark.parametrize("door", DOORS)
def test_a_response_that_is_never_read(house: House, door: str) -> None:
    house.start()
    with connect(address(house, door)) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                deaf.sendall(PAGE * 100)
        ends = select.poll()
        ends.register(deaf, 0)
        until(lambda: ends.poll(0), "the connection is closed")


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 5000 + b"\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: x\r\n" * 100, b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n" + b"x" * 2000, b"413"),
    ],
    ids=["line", "field", "fields without end", "body"],
)
def test_a_request_that_is_too_large(house: House, request_text: bytes, status: bytes) -> None:
    house.start()
    with connect(house.port) as large:
        large.sendall(request_text)
        assert large.recv(1000).split()[1] == status


def test_bad_requests_in_the_log(house: House) -> None:
    """They are counted, and appear without what they consist of."""
    bad = (
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nX\x1b[31m: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\x1b[2J\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZ\x1b[2J\r\n",
    )
    house.start()
    for text in bad * 20:
        with connect(house.port) as client:
            client.sendall(text)
            assert client.recv(1000).split()[1] in (b"400", b"404")
    lines = house.log.splitlines()
    assert 1 <= sum("Error handling request from 127.0.0.1: " in line for line in lines) <= 10
    assert len(lines) < 20
    assert "\x1b" not in house.log and "[31m" not in house.log and "Traceback" not in house.log


# ---------------------------------------------------------------- who makes room, and who does not


class Hall:
    """A BoundedServer in this process, whose requests are answered when a test says so."""

    def __init__(self) -> None:
        self.gate = asyncio.Semaphore(0)
        self.inside = self.most = 0

    async def handle(self, _request: web.Request) -> web.Response:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await self.gate.acquire()
        self.inside -= 1
        return web.Response(text="answer")

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        application = web.Application()
        application.add_routes([web.get("/", self.handle)])
        async with served(application) as port:
            yield port


@contextlib.asynccontextmanager
async def served(application: web.Application) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    port = listener.getsockname()[1]
    task = asyncio.create_task(BoundedServer(application, listener, "test").serve())
    try:
        yield port
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def comes(what: str, check: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not check():
        assert time.monotonic() < limit, f"never happened: {what}"
        await asyncio.sleep(0.01)


async def call(port: int, text: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    await writer.drain()
    return reader, writer


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The head of a response, whose body is read; empty when the connection is closed instead."""
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        assert await reader.readexactly(6) == b"answer"
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    return head


def attack(places: int, min_age: float, run: Callable[[Hall], Awaitable[None]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doors, "MAX_CONNECTIONS", places)
        patch.setattr(doors, "MIN_AGE_SECONDS", min_age)

        async def within() -> None:
            await run(Hall())

        asyncio.run(within())


def test_a_request_in_progress_is_not_interrupted() -> None:
    async def run(hall: Hall) -> None:
        async with hall.open() as port:
            first, _ = await call(port, PAGE)
            await comes("the first is handled", lambda: hall.inside == 1)
            second, _ = await call(port, PAGE)
            await asyncio.sleep(0.3)
            hall.gate.release()
            assert b"200" in await answer(first)
            hall.gate.release()
            assert b"200" in await answer(second)

    attack(places=1, min_age=0, run=run)


def test_a_client_that_has_just_come_is_not_turned_out() -> None:
    async def run(hall: Hall) -> None:
        async with hall.open() as port:
            first, writer = await call(port)
            second, _ = await call(port, PAGE)
            await asyncio.sleep(0.3)
            writer.write(PAGE)
            hall.gate.release()
            hall.gate.release()
            assert b"200" in await answer(first)
            assert b"200" in await answer(second)

    attack(places=1, min_age=3600, run=run)


def test_clients_that_never_pause() -> None:
    """When somebody waits for a place, a connection ends with its response, whatever it has asked for besides."""

    async def run(hall: Hall) -> None:
        async with hall.open() as port:
            greedy, _ = await call(port, PAGE * 3)
            await comes("the first is handled", lambda: hall.inside == 1)
            honest, _ = await call(port, PAGE)
            await asyncio.sleep(0.3)
            hall.gate.release()
            assert b"connection: close" in (await answer(greedy)).lower()
            hall.gate.release()
            assert b"200" in await answer(honest)

    attack(places=1, min_age=0, run=run)


def test_clients_that_ask_and_leave() -> None:
    """Their requests are still being handled, and keep their places so long."""

    async def run(hall: Hall) -> None:
        async with hall.open() as port:
            for _ in range(20):
                _, writer = await call(port, PAGE)
                await asyncio.sleep(0.05)
                writer.close()
            await comes("one is handled", lambda: hall.inside > 0)
            for _ in range(20):
                hall.gate.release()
            reader, _ = await call(port, PAGE)
            hall.gate.release()
            assert b"200" in await answer(reader)
            assert hall.most <= 2

    attack(places=2, min_age=0, run=run)


def test_page_requests_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is asked once for all of them."""
    monkeypatch.setattr(shared, "SHARE_SECONDS", 3600)
    asked: list[str] = []

    class Counted(Store):
        def overview(self) -> tuple[Counts, datetime | None]:
            asked.append("overview")
            return super().overview()

        def paused(self) -> bool:
            asked.append("paused")
            return super().paused()

    async def run() -> None:
        ledger, metrics = Ledger(Counted(f"sqlite:///{tmp_path}/jobs.sqlite3")), Metrics()
        config = DaemonConfig(state_dir=tmp_path, conversion_dir=tmp_path)
        site = Web(Scheduler(config, ledger, metrics, (), Storage(config, Locks(config))), ledger, metrics)
        async with served(site.application()) as port:
            for path in (b"/", b"/host", b"/metrics", b"/healthz"):
                readers = [(await call(port, PAGE.replace(b"/ ", path + b" ")))[0] for _ in range(50)]
                heads = [await asyncio.wait_for(reader.readuntil(b"\r\n"), 60) for reader in readers]
                assert all(b" 200 " in head for head in heads)
        ledger.close()

    asyncio.run(run())
    assert asked == [*["overview"] * 3, "paused"], "each page and the metrics have one"


def test_a_list_of_jobs_that_are_all_as_large_as_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number is bounded, and the event loop does not wait for their JSON."""
    monkeypatch.setattr(control, "MAX_LISTED", 20)
    threads: set[threading.Thread] = set()
    dump = Job.model_dump_json

    def watched(job: Job) -> str:
        threads.add(threading.current_thread())
        return dump(job)

    monkeypatch.setattr(Job, "model_dump_json", watched)
    store = Store(f"sqlite:///{tmp_path}/jobs.sqlite3")
    for number in range(30):
        migration = Migration(vmdk=(Path("/" + "x" * 4000),) * 15, vm_name=f"vm{number}")
        store.submit(migration, content_key=str(number), origin=Origin())

    async def run() -> None:
        ledger = Ledger(store)
        config = DaemonConfig(state_dir=tmp_path, conversion_dir=tmp_path)
        scheduler, callers = (
            Scheduler(config, ledger, Metrics(), (), Storage(config, Locks(config))),
            Callers(tmp_path, 0),
        )
        desk, notifier = Desk(ledger, Quota(store)), Notifier(ledger, Metrics())
        application = control.Control(scheduler, ledger, desk, callers, notifier).application()
        door = BoundedServer(application, listen(tmp_path / "socket"), "test")
        task = asyncio.create_task(door.serve())
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        writer.write(b"GET /v1/jobs?limit=100000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        body = (await asyncio.wait_for(reader.read(), 60)).partition(b"\r\n\r\n")[2]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert [job.id for job in jobs_adapter.validate_json(body)] == list(range(30, 10, -1))
        ledger.close()

    asyncio.run(run())
    assert threads and threading.main_thread() not in threads
