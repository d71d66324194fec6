"""`python -m bench.intake`: how soon a YAML is a running job, and how long 10,000 take while the API is asked."""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.service import DOCUMENT
from bench.table import host
from tests.support.house import House

BEGIN, END = "<!-- intake: begin -->", "<!-- intake: end -->"
PAUSE_SECONDS = 1.3
"""Before a file is dropped: the daemon is idle."""
ASK_SECONDS = 0.05
"""Between two requests while the files become jobs."""
TEXT = "vmdk: /exports/{name}/{name}.vmdk\nvm_name: {name}\nnetwork_map:\n  default: br0\nchecksum: true\n"


@dataclass(frozen=True)
class Result:
    name: str
    seconds: float
    limit: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.intake", description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=15, help="single files")
    parser.add_argument("--markdown", action="store_true", help=f"put the table into {DOCUMENT.name}")
    asked = parser.parse_args()
    with daemon() as house:
        results = [single(house, asked.runs)]
    with daemon() as house:
        results += many(house, asked.files)
    table = render(results, asked.files, asked.runs)
    print(table)
    if asked.markdown:
        text = DOCUMENT.read_text()
        DOCUMENT.write_text(text.split(BEGIN)[0] + table + text.split(END)[1])
    return 0 if all(one.seconds < one.limit for one in results) else 1


@contextmanager
def daemon() -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="h2k-bench-", dir="/var/tmp") as name:
        house = House(Path(name))
        house.configure(max_concurrent_jobs=1)
        house.start()
        try:
            yield house
            house.stop()
        finally:
            house.close()


def single(house: House, runs: int) -> Result:
    """From `mv` to the start of the job, as the daemon records it."""
    took = []
    for number in range(runs):
        name = f"vm{number}"
        text = house.migration(name, "plan")
        time.sleep(PAUSE_SECONDS)
        began = time.time()
        house.drop(f"{name}.yaml", text)
        house.lies("done", f"{name}.yaml")
        started = house.job(number + 1).started
        assert started is not None
        took.append(started.timestamp() - began)
    return Result(f"`mv` to running, median of {runs}", median(took), 0.15)


def many(house: House, number: int) -> list[Result]:
    """Paused, so that nothing but the intake works."""
    house.ask("POST", "/v1/queue/pause")
    drafts = house.root / "drafts"
    drafts.mkdir()
    names = [f"vm{one:05}" for one in range(number)]
    for name in names:
        (drafts / f"{name}.yaml").write_text(TEXT.format(name=name))
    answers: list[float] = []
    over = threading.Event()
    asking = threading.Thread(target=ask, args=(house, over, answers))
    began = time.perf_counter()
    asking.start()
    for name in names:
        (drafts / f"{name}.yaml").rename(house.spool / "incoming" / f"{name}.yaml")
    with closing(sqlite3.connect(f"file:{house.root}/state/jobs.sqlite3?mode=ro", uri=True, timeout=60)) as database:
        query = "SELECT max(id) FROM jobs"
        while (database.execute(query).fetchone()[0] or 0) < number:
            time.sleep(0.2)
    took = time.perf_counter() - began
    over.set()
    asking.join()
    answers.sort()
    return [
        Result(f"{number:,} files to rows", took, 60),
        Result("the API meanwhile, median", median(answers), 0.1),
        Result("the API meanwhile, 95th percentile", answers[int(len(answers) * 0.95)], 0.1),
    ]


def ask(house: House, over: threading.Event, answers: list[float]) -> None:
    while not over.wait(ASK_SECONDS):
        for path in ("/v1/status", "/v1/jobs?limit=20"):
            began = time.perf_counter()
            house.ask("GET", path)
            answers.append(time.perf_counter() - began)


def render(results: list[Result], files: int, runs: int) -> str:
    lines = [BEGIN, "", f"    python -m bench.intake --files {files} --runs {runs}", "", f"{host()}.", ""]
    lines += ["| what | took, ms | at most | met |", "|---|---|---|---|"]
    for one in results:
        met = "yes" if one.seconds < one.limit else "**no**"
        lines.append(f"| {one.name} | {1000 * one.seconds:,.0f} | {1000 * one.limit:,.0f} | {met} |")
    return "\n".join([*lines, "", END])


if __name__ == "__main__":
    sys.exit(main())
