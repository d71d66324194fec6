"""Takes each guard away, one at a time, in a copy of the checkout, and insists that its tests fail then.

`python -m tests.security.mutations [WORD...]`: all guards, or those with one of the words in their name or a test.
First the tests must pass with every guard in place. Of a test whose guards were all tried each case must have failed
once: one that nothing makes fail attacks nothing. Needs root, as the tests do.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.security.guards import GUARDS, OTHERS, Guard
from tests.support.own_host import FOLDER_PREFIX

CHECKOUT = Path(__file__).parents[2]
SECONDS, ALL_SECONDS = 600, 3600
"""For the tests of one guard, and for all tests."""


@dataclass(frozen=True)
class Run:
    """Cases by the names that pytest gives them; those that could not begin are in neither."""

    passed: frozenset[str]
    failed: frozenset[str]
    said: str


@contextmanager
def a_copy() -> Iterator[Path]:
    """The checkout with an environment of its own, that every user can reach. No file of it is the checkout's."""
    cache = CHECKOUT / ".cache"
    cache.mkdir(exist_ok=True)
    copy = Path(tempfile.mkdtemp(prefix="mutations-", dir=cache))
    copy.chmod(0o755)
    try:
        argv = ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split("\0")
        for name in filter(None, names):
            if os.path.lexists(CHECKOUT / name):
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, copy / name, follow_symlinks=False)
        _copy_environment(copy)
        yield copy
    finally:
        shutil.rmtree(copy)


def _copy_environment(copy: Path) -> None:
    """Hard links, but for the files that say where the checkout is."""
    environment = copy / ".venv"
    shutil.copytree(Path(sys.prefix), environment, symlinks=True, copy_function=os.link)
    named = [*environment.glob("bin/*"), *environment.glob("lib/python*/site-packages/*.pth")]
    for path in (path for path in named if path.is_file() and not path.is_symlink()):
        data, mode = path.read_bytes(), path.stat().st_mode
        path.unlink()
        path.write_bytes(data.replace(bytes(CHECKOUT), bytes(copy)))
        path.chmod(mode)


def run(copy: Path, tests: Iterable[str], seconds: int = SECONDS) -> Run:
    result = copy / "result.xml"
    result.unlink(missing_ok=True)
    argv = [str(copy / ".venv/bin/python"), "-B", "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
    argv += [f"--junitxml={result}", "-o", "junit_family=xunit1", *sorted(set(tests))]
    said = _ended(argv, copy, seconds)
    passed, failed = set(), set()
    for case in ET.parse(result).iter("testcase") if result.exists() else ():
        name = f"{case.get('file')}::{case.get('name')}"
        if case.find("failure") is not None:
            failed.add(name)
        elif case.find("error") is None and case.find("skipped") is None:
            passed.add(name)
    return Run(frozenset(passed), frozenset(failed), said)


def _ended(argv: list[str], folder: Path, seconds: int) -> str:
    """The last line of a program that is started in `folder`; what it started and could not end ends with it."""
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=folder, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return f"no end within {seconds} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return (stdout.strip().splitlines() or [stderr])[-1].strip("= ")


def let_go_of_loops() -> None:
    """What a helper left that was made not to let go: loop devices on files of tests that are gone."""
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            ours = f"/{FOLDER_PREFIX}" in entry.read_text()
        except OSError:
            continue
        if ours:
            subprocess.run(["losetup", "-d", f"/dev/{entry.parts[3]}"], check=False)


def without(copy: Path, guard: Guard) -> Run:
    """The guard's tests, with it gone."""
    whole = {file: (copy / file).read_text() for file in guard.files}
    for file, text in whole.items():
        (copy / file).write_text(guard.without(file, text))
    try:
        return run(copy, guard.tests)
    finally:
        for file, text in whole.items():
            (copy / file).write_text(text)
        let_go_of_loops()


def function(test: str) -> str:
    return test.partition("[")[0]


def meets(word: str, guard: Guard) -> bool:
    return any(word in text for text in (*guard.tests, guard.name))


def main() -> int:
    words = sys.argv[1:]
    guards = [guard for guard in GUARDS if not words or any(meets(word, guard) for word in words)]
    left = {function(test) for guard in GUARDS if guard not in guards for test in guard.tests}
    survived, noticed = 0, set[str]()
    with a_copy() as copy:
        sound = run(copy, {function(test) for guard in guards for test in guard.tests}, ALL_SECONDS)
        print(f"{len(guards)} guards; with all of them in place: {sound.said}", flush=True)
        if sound.failed or not sound.passed:
            print("\n".join(sorted(sound.failed)))
            return 1
        for guard in guards:
            found = without(copy, guard)
            alive = [test for test in guard.tests if not any(test in (case, function(case)) for case in found.failed)]
            survived += bool(alive)
            noticed |= found.failed
            print(f"{'SURVIVED' if alive else 'noticed '} {guard.name} ({found.said})", *alive, sep="\n  ", flush=True)
    idle = {case for case in sound.passed - noticed if not {case, function(case)} & OTHERS.keys()}
    idle = {case for case in idle if case.startswith("tests/security/") and function(case) not in left}
    for case in sorted(idle):
        print(f"NEVER FAILS {case}")
    print(f"{len(guards) - survived} of {len(guards)} guards are noticed when gone, by {len(noticed)} cases")
    return 1 if survived or idle else 0


if __name__ == "__main__":
    sys.exit(main())
