"""`make test-faults LONG=1`: a fault at every call of a clean run, and 1,000 signals at random instants.

Every call meets one of the actions that suit it; another H2K_SEED gives it another one. What has passed is kept in
.cache/faults: a run that was ended goes on where it was.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("H2K_SEED", "20"))
PASSED = REPOSITORY / ".cache/faults"
POINTS_TOGETHER = 32
"""How many faults come one after the other in a box."""
SIGNALS, SIGNALS_TOGETHER = 1000, 25
MODULES = "tests.faults.test_points", "tests.faults.test_kills"


def main() -> None:
    PASSED.mkdir(parents=True, exist_ok=True)
    record = PASSED / f"points-{SEED}"
    if not record.exists():
        record.write_text("\n".join(_recorded()))
    cases = [*_points(record.read_text().splitlines()), *_signals()]
    passed = PASSED / f"passed-{SEED}"
    known = set(passed.read_text().splitlines()) if passed.exists() else set()
    left = [case for case in cases if json.dumps(case) not in known]
    print(f"H2K_SEED={SEED}: {len(cases)} boxes, {len(cases) - len(left)} have passed before", flush=True)
    failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool, passed.open("a") as file:
        running = {pool.submit(_run, case): case for case in left}
        for number, ended in enumerate(as_completed(running), 1):
            said = ended.result()
            if said:
                failed += 1
                print(said, flush=True)
            else:
                print(json.dumps(running[ended]), file=file, flush=True)
            print(f"{number} of {len(left)} boxes, {failed} failed", flush=True)
    sys.exit(failed > 0)


def _recorded() -> Iterator[str]:
    done = _process([f"{MODULES[0]}:record"])
    assert done.returncode == 0, done.stdout
    yield from (line.removeprefix("point ") for line in done.stdout.splitlines() if line.startswith("point "))


def _points(texts: list[str]) -> Iterator[list[str]]:
    """Boxes of points; daemons and workers have their own ones in each."""
    chance = random.Random(SEED)  # noqa: S311 - a choice that can be repeated
    chance.shuffle(texts)
    for begin in range(0, len(texts), POINTS_TOGETHER):
        yield [f"{MODULES[0]}:points", f"points={json.dumps(texts[begin : begin + POINTS_TOGETHER])}"]


def _signals() -> Iterator[list[str]]:
    for number in range(SIGNALS // SIGNALS_TOGETHER):
        yield [f"{MODULES[1]}:kills", f"seed={SEED * 1000 + number}", f"count={SIGNALS_TOGETHER}"]


def _run(case: list[str]) -> str:
    """What a box said, if it failed."""
    done = _process(case)
    return done.stdout[-6000:] if done.returncode else ""


def _process(case: list[str]) -> subprocess.CompletedProcess[str]:
    """A process of its own for each box: it takes its own number, and so its own user."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("H2K_TEST_SLOT")}
    return subprocess.run(
        [sys.executable, "-B", "-m", "tests.faults", *case],
        cwd=REPOSITORY,
        env={**environment, "H2K_FAULTS_KEEP": ""},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


if __name__ == "__main__":
    main()
