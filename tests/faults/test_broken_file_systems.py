"""A file system of the running service fails, each alone: it is named, and work goes on by itself afterwards."""

from __future__ import annotations

import errno
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.accounts import illegal_paths, lost_files, wrong_outcomes
from tests.faults.conditions import Conditions
from tests.faults.forked import GOOD, PLANNING, Forked
from tests.support.house import until

ROLES = ("spool", "state", "conversions", "images")
ERRORS = {
    "dead": (errno.EIO, False),
    "no-writes": (errno.EIO, True),
    "read-only": (errno.EROFS, True),
    "quota": (errno.EDQUOT, True),
    "too-large": (errno.EFBIG, True),
}
"""The errno of calls, and whether only those that write fail. A file system becomes read-only with open files."""
QUICK = {"dead": ROLES, "read-only": ("state",), "quota": ("state",)}
"""The folders with these errors in each run of the tests."""
MAX_LINES = 3
"""Of one error in the log, within the seconds of a fault."""
SLOW = pytest.mark.slow


@contextmanager
def own_file_systems(root: Path) -> Iterator[None]:
    """Each folder of the service is a file system of its own."""
    try:
        for role in ROLES:
            (root / role).mkdir()
            options = "size=2m,nr_inodes=200,mode=750"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, role, root / role], check=True)
        yield
    finally:
        for role in ROLES:
            subprocess.run(["umount", "--lazy", root / role], check=False)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    filler = folder / ".filler"
    try:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield
    finally:
        filler.unlink()


@contextmanager
def without_inodes(folder: Path) -> Iterator[None]:
    made: list[Path] = []
    try:
        with suppress(OSError):
            while True:
                path = folder / f".filler{len(made)}"
                path.touch()
                made.append(path)
        yield
    finally:
        for path in made:
            path.unlink()


@contextmanager
def failing(conditions: Conditions, folder: Path, kind: str) -> Iterator[None]:
    error, only_writes = ERRORS[kind]
    conditions.set(error=error, below=folder, only_writes=only_writes)
    try:
        yield
    finally:
        conditions.set()


class Visitor:
    """Drops jobs into a service whose file systems fail one after the other."""

    def __init__(self, house: Forked) -> None:
        self._house = house
        self._dropped: dict[str, bytes] = {}

    def drop(self, name: str) -> None:
        """If it is possible now."""
        text = self._house.script(name, PLANNING, GOOD)
        if not any(self._house.spool.glob(f"*/*{name}.yaml")):
            self._house.drop(f"{name}.yaml", text)
            self._dropped[f"{name}.yaml"] = text.encode()

    def until_named(self, role: str) -> None:
        """The fault has been seen, and the daemon lives."""

        def named() -> bool:
            assert house.alive(), f"the daemon ended with {house.exit_status}: {house.log[-4000:]}"
            status, text = house.browse("/healthz")
            return status == 503 and str(house.root / role) in text

        house = self._house
        until(named, f"{role} is named: {house.log[-3000:]}")

    def settle(self) -> None:
        house = self._house
        starts, books = house.starts, house.come_to_rest()
        assert house.starts == starts, f"the daemon ended with {house.exit_status}: {house.log[-4000:]}"
        said = [*lost_files(books, self._dropped, house.spool), *wrong_outcomes(books, house.spool)]
        said += [*illegal_paths(books)]
        said += [f"{job['vm_name']} is {job['state']}" for job in books.jobs if job["state"] != "succeeded"]
        assert not said, "\n".join([*said, house.log[-6000:]])
        until(lambda: house.browse("/healthz")[0] == 200, f"all is well again: {house.log[-3000:]}")


@pytest.mark.root
@pytest.mark.parametrize("fault", [full, pytest.param(without_inodes, marks=SLOW)])
def test_full_file_systems(tmp_path: Path, fault: Callable[[Path], AbstractContextManager[None]]) -> None:
    house = Forked(tmp_path)
    house.configure()
    visitor = Visitor(house)
    with own_file_systems(house.root):
        try:
            house.begin()
            visitor.drop("first")
            visitor.settle()
            for role in ROLES:
                with fault(house.root / role):
                    with suppress(OSError):
                        visitor.drop(f"during-{role}")
                    visitor.until_named(role)
                (house.spool / f"during-{role}.yaml.draft").unlink(missing_ok=True)
                visitor.drop(f"during-{role}")
                visitor.settle()
        finally:
            house.end()


def cases() -> Iterator[object]:
    for kind, roles in QUICK.items():
        yield pytest.param(kind, roles, id=kind)
    for kind in ERRORS:
        rest = tuple(role for role in ROLES if role not in QUICK.get(kind, ()))
        if rest:
            yield pytest.param(kind, rest, id=f"{kind}-elsewhere", marks=SLOW)


@pytest.mark.parametrize(("kind", "roles"), [*cases()])
def test_failing_file_systems(tmp_path: Path, kind: str, roles: tuple[str, ...]) -> None:
    house = Forked(tmp_path, conditions=Conditions(tmp_path))
    house.configure()
    visitor = Visitor(house)
    assert house.conditions is not None
    try:
        house.begin()
        visitor.drop("first")
        visitor.settle()
        for role in roles:
            with failing(house.conditions, house.root / role, kind):
                visitor.drop(f"during-{role}")
                visitor.until_named(role)
            visitor.settle()
            said = Counter(line.partition(" ERROR ")[2] for line in house.log.splitlines() if "database-" in line)
            assert not [text for text, times in said.items() if times > MAX_LINES], house.log[-6000:]
        assert "database-corrupt" not in house.log
    finally:
        house.end()


def test_database_that_only_reads_is_named(tmp_path: Path) -> None:
    """Its directory can be written to: a quota, or the last few KiB of a file system."""
    house = Forked(tmp_path, conditions=Conditions(tmp_path))
    house.configure()
    visitor = Visitor(house)
    assert house.conditions is not None

    def named() -> bool:
        status, text = house.browse("/healthz")
        return status == 503 and "[database-unavailable]" in text

    try:
        house.begin()
        visitor.drop("first")
        visitor.settle()
        house.conditions.set(error=errno.EDQUOT, below=house.database, only_writes=True)
        visitor.drop("during")
        until(named, f"it is named: {house.log[-3000:]}")
        house.conditions.set()
        visitor.settle()
    finally:
        house.end()
