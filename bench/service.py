"""`python -m bench.service`: how long commands, pages and a scrape take with many jobs on record."""

from __future__ import annotations

import argparse
import http.client
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import insert

from bench.measure import ROOT
from bench.table import host
from hyper2kvmd.jobs.store import Store
from hyper2kvmd.jobs.tables import jobs
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.jobs import State
from hyper2kvmd.model.results import recorded
from tests.support.attempts import Attempts
from tests.support.house import House

BEGIN, END = "<!-- service: begin -->", "<!-- service: end -->"
DOCUMENT = ROOT / "docs" / "explanation" / "performance.md"
H2KVMCTL = Path(sys.executable).with_name("h2kvmctl")
SHARE_SECONDS = 1.1
"""Requests within a second share one answer, which would be measured instead."""
AT_ONCE = 5000
"""Rows of one statement."""


@dataclass(frozen=True)
class Row:
    name: str
    limit: float
    """Seconds."""
    run: Callable[[House], object]
    pause: float = 0.0
    """Seconds before each run."""


def command(*words: str) -> Callable[[House], object]:
    """A command of h2kvmctl as a whole process, asking the daemon unless it needs none."""

    def run(house: House) -> None:
        socket = () if "--help" in words else ("--socket", str(house.socket))
        subprocess.run([H2KVMCTL, *words, *socket], check=True, stdout=subprocess.DEVNULL)

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
    Row("worker, until its first event", 0.3, start_worker),
    Row("`h2kvmctl --help`", 0.15, command("--help")),
    Row("`h2kvmctl list`", 0.5, command("list")),
    Row("status page `/`", 0.1, request("/"), SHARE_SECONDS),
    Row("status page `/jobs?state=failed`", 0.1, request("/jobs?state=failed"), SHARE_SECONDS),
    Row("status page `/jobs/1`", 0.1, request("/jobs/1"), SHARE_SECONDS),
    Row("scrape of `/metrics`", 0.02, request("/metrics"), SHARE_SECONDS),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.service", description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000, help="finished jobs on record")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--markdown", action="store_true", help=f"put the table into {DOCUMENT.relative_to(ROOT)}")
    asked = parser.parse_args()
    with daemon(asked.jobs) as house:
        took = {row: [seconds(row, house) for _ in range(asked.runs + 1)][1:] for row in ROWS}
    table = render(took, asked.jobs, asked.runs)
    print(table)
    if asked.markdown:
        text = DOCUMENT.read_text()
        DOCUMENT.write_text(text.split(BEGIN)[0] + table + text.split(END)[1])
    return 0 if all(median(runs) < row.limit for row, runs in took.items()) else 1


@contextmanager
def daemon(number: int) -> Iterator[House]:
    """A real daemon with so many finished jobs."""
    with tempfile.TemporaryDirectory(prefix="h2k-bench-", dir="/var/tmp") as name:
        house = House(Path(name))
        house.configure()
        (house.root / "state").mkdir()
        fill(house.root / "state" / "jobs.sqlite3", number)
        house.start()
        try:
            yield house
            house.stop()
        finally:
            house.close()


def fill(database: Path, number: int) -> None:
    store = Store(f"sqlite:///{database}")
    now = datetime.now(UTC)
    rows = [row(one, now - timedelta(minutes=number - one)) for one in range(number)]
    with store.transaction(writes=True) as connection:
        for start in range(0, number, AT_ONCE):
            connection.execute(insert(jobs), rows[start : start + AT_ONCE])
    store.close()


def row(number: int, begun: datetime) -> dict[str, Any]:
    """One job in ten has failed, one in seven has a warning."""
    name = f"vm{number:06}"
    failed = number % 10 == 9
    problem = (
        f'[{{"code":"source-missing","message":"/exports/{name}.vmdk: no such file","hint":"","kind":"operator"}}]'
    )
    return {
        "state": State.FAILED if failed else State.SUCCEEDED,
        "vm_name": name,
        "priority": 5,
        "attempt": 1,
        "migration": Migration(vmdk=(Path(f"/exports/{name}.vmdk"),), vm_name=name).model_dump_json(),
        "content_key": f"{number:064}",
        "submitter": "root",
        "submitter_uid": 0,
        "problems": problem if failed else "[]",
        "warnings": int(number % 7 == 0),
        "created": begun,
        "started": begun,
        "finished": begun + timedelta(minutes=5),
    }


def seconds(row: Row, house: House) -> float:
    time.sleep(row.pause)
    began = time.perf_counter()
    row.run(house)
    return time.perf_counter() - began


def render(took: dict[Row, list[float]], number: int, runs: int) -> str:
    lines = [BEGIN, "", f"    python -m bench.service --jobs {number} --runs {runs}", ""]
    lines += [f"{host()}. {number:,} finished jobs on record; medians of {runs} runs, in milliseconds.", ""]
    lines += ["| what | took, ms | at most | met |", "|---|---|---|---|"]
    for row, each in took.items():
        met = "yes" if median(each) < row.limit else "**no**"
        lines.append(f"| {row.name} | {1000 * median(each):.0f} | {1000 * row.limit:.0f} | {met} |")
    return "\n".join([*lines, "", END])


if __name__ == "__main__":
    sys.exit(main())
