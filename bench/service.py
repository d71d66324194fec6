"""`python -m bench.service`: commands, pages, starts and the idle daemon with many jobs on record."""

from __future__ import annotations

import argparse
import http.client
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.figures import Figure, publish
from bench.running import cpu_seconds, daemon, database_of, house, resident_bytes, settle, start_seconds
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.submissions import Origin
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.results import recorded
from tests.support.attempts import Attempts
from tests.support.house import House

H2KVMCTL = Path(sys.executable).with_name("h2kvmctl")
SHARE_SECONDS = 1.1
"""Requests within a second share one answer, which would be measured instead."""
FEW = 100
"""Finished jobs of the database that the large one is compared with."""
CLAIMS = 100
STARTS = 3
IDLE_SECONDS = 60.0
ASK_SECONDS = 0.02
"""Between two requests while all jobs are listed."""
MIB = 1 << 20


@dataclass(frozen=True)
class Row:
    name: str
    limit_ms: float
    run: Callable[[House], object]
    pause: float = 0.0
    """Seconds before each run."""


def command(*words: str) -> Callable[[House], object]:
    """A command of h2kvmctl as a whole process, asking the daemon unless it needs none."""

    def run(house: House) -> None:
        socket = () if "--help" in words else ("--socket", str(house.socket))
        subprocess.run([H2KVMCTL, *words, *socket], check=True, capture_output=True)

    return run


def request(path: str) -> Callable[[House], object]:
    """A request with its connection, until the last byte of the answer."""

    def run(house: House) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", house.port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        if answer.status != 200:
            raise SystemExit(f"bench: {path} has status {answer.status}")

    return run


def first_page(house: House) -> None:
    """What `h2kvmctl list` asks for."""
    status, _ = house.ask("GET", "/v1/jobs?limit=50")
    if status != 200:
        raise SystemExit(f"bench: /v1/jobs has status {status}")


def start_worker(house: House) -> None:
    """A worker process, from its start to its first event."""
    job = Attempts(Path(tempfile.mkdtemp(dir=house.root)))
    argv = [sys.executable, "-I", "-m", "hyper2kvmd.worker"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/") as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(recorded(job.order).encode() + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        process.kill()


ROWS = (
    Row("worker, until its first event", 300, start_worker),
    Row("`h2kvmctl --help`", 150, command("--help")),
    Row("`h2kvmctl list`", 500, command("list")),
    Row("status page `/`", 100, request("/"), SHARE_SECONDS),
    Row("status page `/jobs?state=failed`", 100, request("/jobs?state=failed"), SHARE_SECONDS),
    Row("status page `/jobs/1`", 100, request("/jobs/1"), SHARE_SECONDS),
    Row("scrape of `/metrics`", 20, request("/metrics"), SHARE_SECONDS),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.service", description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000, help="finished jobs on record")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS, metavar="SECONDS", help="how long it is idle")
    parser.add_argument("--markdown", action="store_true", help="put the table into performance.md")
    asked = parser.parse_args()
    figures = list(measured(asked.jobs, asked.runs, asked.idle))
    used = f"python -m bench.service --jobs {asked.jobs} --runs {asked.runs}"
    said = f"{asked.jobs:,} finished jobs on record; medians of {asked.runs} runs"
    return publish(
        figures, "service", used, f"{said}, of {STARTS} starts and of {CLAIMS} claims.", markdown=asked.markdown
    )


def measured(number: int, runs: int, idle: float) -> Iterator[Figure]:
    with house(number) as made:
        yield Figure("database, for each job", database_of(made).stat().st_size / number / 1024, 8, "KiB")
        yield claims(made, number)
        yield from starts(made)
        made.start()
        settle(made)
        yield from idling(made, idle)
        for row in ROWS:
            yield Figure(row.name, 1000 * median(seconds(row, made) for _ in range(runs)), row.limit_ms, "ms")
        with daemon(FEW) as small:
            yield from flat(made, small, number, runs)
        yield from listing(made, number)
        made.stop()


def seconds(row: Row, house: House) -> float:
    time.sleep(row.pause)
    began = time.perf_counter()
    row.run(house)
    return time.perf_counter() - began


# ---------------------------------------------------------------- few jobs and many


def flat(large: House, small: House, number: int, runs: int) -> Iterator[Figure]:
    """Alternately, so that other load meets both."""
    for name, run in (("first page of `/v1/jobs`", first_page), ("`h2kvmctl list`", command("list"))):
        row = Row(name, 0, run)
        pairs = [(seconds(row, small), seconds(row, large)) for _ in range(2 * runs)]
        yield ratio(name, number, pairs)


def claims(large: House, number: int) -> Figure:
    """A job is claimed from the queue: by the store alone, with its commit."""
    with house(FEW) as small:
        copy = small.root / "large.sqlite3"
        shutil.copyfile(database_of(large), copy)
        stores = [queued(database_of(small)), queued(copy)]
        pairs = [(claim_seconds(stores[0]), claim_seconds(stores[1])) for _ in range(CLAIMS)]
        for store in stores:
            store.close()
    return ratio("claim of a job", number, pairs)


def queued(database: Path) -> Store:
    """The store with enough queued jobs."""
    store = Store(f"sqlite:///{database}")
    for one in range(CLAIMS):
        migration = Migration(vmdk=(Path(f"/exports/queued{one}.vmdk"),), vm_name=f"queued{one}")
        store.submit(migration, content_key=f"queued{one}", origin=Origin(submitter="root", uid=0))
    return store


def claim_seconds(store: Store) -> float:
    began = time.perf_counter()
    assert store.claim(datetime.now(UTC)) is not None
    return time.perf_counter() - began


def ratio(name: str, number: int, pairs: list[tuple[float, float]]) -> Figure:
    times = median(large for _, large in pairs) / median(small for small, _ in pairs)
    return Figure(f"{name}: {number:,} jobs against {FEW}", times, 2, "times")


# ---------------------------------------------------------------- the daemon by itself


def starts(large: House) -> Iterator[Figure]:
    for kind in ("cold", "warm"):
        took = []
        for _ in range(STARTS):
            took.append(start_seconds(large, cold=kind == "cold"))
            large.stop()
        yield Figure(f"start, {kind} page cache of the database", 1000 * median(took), 2000, "ms")


def idling(large: House, duration: float) -> Iterator[Figure]:
    assert large.process is not None
    pid = large.process.pid
    time.sleep(5)
    before, began = cpu_seconds(pid), time.perf_counter()
    time.sleep(duration)
    share = (cpu_seconds(pid) - before) / (time.perf_counter() - began)
    yield Figure(f"idle for {duration:.0f} s, of one core", 100 * share, 0.5, "%")
    yield Figure("idle, resident memory", resident_bytes(pid) / MIB, 70, "MiB")


# ---------------------------------------------------------------- a list of all jobs


def listing(large: House, number: int) -> Iterator[Figure]:
    name = f"`h2kvmctl list --limit {number}`"
    argv = [str(H2KVMCTL), "list", "--limit", str(number), "--socket", str(large.socket)]
    answers: list[float] = []
    peak = 0
    began = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            answers.append(seconds(Row("/healthz", 0, request("/healthz"), ASK_SECONDS), large))
            peak = max(peak, peak_bytes(process.pid))
    took = time.perf_counter() - began
    if process.returncode != 0:
        raise SystemExit(f"bench: {name} has exit status {process.returncode}")
    yield Figure(name, 1000 * took, 8000, "ms")
    yield Figure(f"{name}, memory", peak / MIB, 150, "MiB")
    yield Figure("`/healthz` meanwhile, the slowest answer", 1000 * max(answers), 100, "ms")


def peak_bytes(pid: int) -> int:
    """0 if the process has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:")), 0)


if __name__ == "__main__":
    sys.exit(main())
