"""What all targets share: an attempt for each seed, bounded in time and memory, and one finding of each kind."""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 10
"""Longest time for one attempt; none takes a tenth of a second."""
MEMORY = 256 << 20
"""Bytes that may be added to what the process has at its start."""
NUMBERS = (0, 1, 2, 3, 7, 8, 20, 127, 128, 129, 511, 512, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)

Attempt = Callable[[int, Path], str]
"""Damages something as the seed says, in a folder of its own if need be, and reads it. Returns how that ended; raises
whatever must not happen."""
Outcome = tuple[Counter[str], list[str]]
"""How the attempts ended, and what should not have happened: one of each kind, with its seed."""


@contextmanager
def bounded() -> Iterator[None]:
    """Too much memory is a MemoryError, too much time a TimeoutError."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def fuzz(attempt: Attempt, seed: int, count: int) -> Outcome:
    ends: Counter[str] = Counter()
    wrong: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder, bounded():
        for number in range(seed, seed + count):
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            try:
                ends[attempt(number, Path(folder))] += 1
            except Exception:
                ends["wrong"] += 1
                wrong.setdefault(traceback.format_exc(limit=-4), f"--seed {number} --count 1")
    return ends, [f"{again}\n{trace}" for trace, again in wrong.items()]


def main(about: str, target: Callable[[int, int], Outcome], count: int) -> int:
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    ends, wrong = target(options.seed, options.count)
    for end, times in ends.most_common():
        print(f"{times:8} {end}")
    for finding in wrong:
        print(finding, file=sys.stderr)
    return 1 if wrong else 0
