"""Takes each guard away, one at a time, in a copy of the checkout, and insists that its tests fail then.

`python -m tests.security.mutations [WORD...]`: all guards, or those whose file or text has one of the words. First
the tests must pass with every guard in place. Needs root, as the tests do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.security.guards import GUARDS, Guard

CHECKOUT = Path(__file__).parents[2]
SECONDS = 600
PASSED, FAILED = 0, 1
"""What pytest ends with; anything else means that the tests did not run."""


@contextmanager
def a_copy() -> Iterator[Path]:
    """The checkout with an environment of its own, that every user can reach. No file of it is the checkout's."""
    cache = CHECKOUT / ".cache"
    cache.mkdir(exist_ok=True)
    copy = Path(tempfile.mkdtemp(prefix="mutations-", dir=cache))
    copy.chmod(0o755)
    try:
        argv = ["git", "-C", CHECKOUT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
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


def ends_with(copy: Path, tests: Sequence[str]) -> tuple[int, str]:
    """What pytest ends with, at the first failure at the latest, and its last line."""
    argv = [copy / ".venv/bin/python", "-B", "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(argv, cwd=copy, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return FAILED, "no end"
    return done.returncode, (done.stdout.strip().splitlines() or [done.stderr])[-1]


def let_go_of_loops() -> None:
    """What a helper left that was made not to let go: loop devices on files of tests that are gone."""
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            ours = "/h2k-test-" in entry.read_text()
        except OSError:
            continue
        if ours:
            subprocess.run(["losetup", "-d", f"/dev/{entry.parts[3]}"], check=False)


def kills(copy: Path, guard: Guard) -> bool:
    """Whether the guard's tests notice that it is gone."""
    path = copy / guard.file
    whole = path.read_text()
    path.write_text(whole.replace(guard.text, guard.without))
    try:
        code, said = ends_with(copy, guard.paths)
    finally:
        path.write_text(whole)
        let_go_of_loops()
    noticed = code == FAILED
    print(f"{'noticed ' if noticed else 'SURVIVED'} {guard.file}: {guard.text.strip()[:70]!r} ({said})", flush=True)
    return noticed


def main() -> int:
    words = sys.argv[1:]
    guards = [one for one in GUARDS if not words or any(word in one.file or word in one.text for word in words)]
    tests = sorted({path for guard in guards for path in guard.paths})
    with a_copy() as copy:
        code, said = ends_with(copy, tests)
        print(f"{len(guards)} guards, {len(tests)} tests, with every guard in place: {said}", flush=True)
        if code != PASSED:
            return 1
        survived = [guard for guard in guards if not kills(copy, guard)]
    print(f"{len(guards) - len(survived)} of {len(guards)} guards are noticed when they are gone")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
