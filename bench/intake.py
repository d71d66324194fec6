"""`python -m bench.intake`: how soon a YAML is a running job, and how long 10,000 take while the API is asked."""

from __future__ import annotations

import argparse
import sqlite3
import sys
import threading
import time
from contextlib import closing
from statistics import median

from bench.figures import Figure, publish
from bench.running import daemon
from tests.support.house import House

PAUSE_SECONDS = 1.3
"""Before a file is dropped: the daemon is idle."""
ASK_SECONDS = 0.05
"""Between two requests while the files become jobs."""
TEXT = "vmdk: /exports/{name}/{name}.vmdk\nvm_name: {name}\nnetwork_map:\n  default: br0\nchecksum: true\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.intake", description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=15, help="single files")
    parser.add_argument("--markdown", action="store_true", help="put the table into performance.md")
    asked = parser.parse_args()
    with daemon(max_concurrent_jobs=1) as house:
        figures = [single(house, asked.runs)]
    with daemon(max_concurrent_jobs=1) as house:
        figures += many(house, asked.files)
    used = f"python -m bench.intake --files {asked.files} --runs {asked.runs}"
    return publish(figures, "intake", used, "", markdown=asked.markdown)


def single(house: House, runs: int) -> Figure:
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
    return Figure(f"`mv` to running, median of {runs}", 1000 * median(took), 150, "ms")


def many(house: House, number: int) -> list[Figure]:
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
        Figure(f"{number:,} files to rows", 1000 * took, 60_000, "ms"),
        Figure("the API meanwhile, median", 1000 * median(answers), 100, "ms"),
        Figure("the API meanwhile, 95th percentile", 1000 * answers[int(len(answers) * 0.95)], 100, "ms"),
    ]


def ask(house: House, over: threading.Event, answers: list[float]) -> None:
    while not over.wait(ASK_SECONDS):
        for path in ("/v1/status", "/v1/jobs?limit=20"):
            began = time.perf_counter()
            house.ask("GET", path)
            answers.append(time.perf_counter() - began)


if __name__ == "__main__":
    sys.exit(main())
