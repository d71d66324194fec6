"""The library that makes calls fail or kill their process: see shim.c. It counts in every process of the box."""

from __future__ import annotations

import random
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from errno import EDQUOT, EFBIG, EIO, ENOSPC
from pathlib import Path

FOLDER = Path("/run/h2k-faults")
PRELOAD = Path("/etc/ld.so.preload")
LIBRARY = Path("/usr/libexec/h2k-faults.so")
ONCE, LASTING = "{}", "{}+"
FULL = (*(LASTING.format(number) for number in (ENOSPC, EIO, EDQUOT)), ONCE.format(ENOSPC), ONCE.format(EIO))
ACTIONS: dict[str, tuple[str, ...]] = {
    "fsync": ("before", "after", *FULL),
    "write": ("before", "torn", *FULL, ONCE.format(EFBIG)),
    "copy": ("before", "torn", *FULL),
    "allocate": ("before", "after", *FULL),
    "truncate": ("before", "after", *FULL, ONCE.format(EFBIG)),
    "rename": ("before", "after", *FULL),
    "link": ("before", "after", *FULL),
    "mkdir": ("before", "after", *FULL),
    "unlink": ("before", "after", ONCE.format(EIO)),
}
"""What can happen at a call of each kind."""
DEATHS = frozenset({"before", "after", "torn"})
ROLES = ("daemon", "worker")
UNSTEADY = re.compile(r"^.*/house(?=/)|(small|guest|bad)\d+|(export|source)-\w+|[0-9a-f]{8,}|\d+")
"""Parts of paths that are others in each run, or for another machine."""


@dataclass(frozen=True)
class Call:
    """The `number`th call of its kind on such a path in a process."""

    role: str
    name: str
    number: int
    pattern: str
    """Of its path, as fnmatch reads it."""

    @property
    def actions(self) -> tuple[str, ...]:
        """Errors inside a guest are the guest's own, and end its job: there, only deaths."""
        inside = not self.pattern.startswith("*")
        return tuple(one for one in ACTIONS[self.name] if one in DEATHS or not inside)


@dataclass(frozen=True)
class Point:
    """What happens at a call; as a text, `worker:fsync:1:before:*/images`."""

    role: str
    call: str
    number: int
    action: str
    pattern: str

    @staticmethod
    def of(text: str) -> Point:
        role, call, number, action, pattern = text.split(":", 4)
        return Point(role, call, int(number), action, pattern)

    def __str__(self) -> str:
        return f"{self.role}:{self.call}:{self.number}:{self.action}:{self.pattern}"


def build() -> None:
    source = Path(__file__).with_name("shim.c")
    words = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(LIBRARY), str(source), "-ldl"]
    subprocess.run(words, check=True)
    FOLDER.mkdir(exist_ok=True)
    FOLDER.chmod(0o1777)


class Shim:
    """In force for processes that start from now on, until `lift`."""

    def __init__(self, points: Sequence[Point] = (), *, record: bool = False) -> None:
        build()
        for file in FOLDER.iterdir():
            file.unlink()
        self._points = {f"p{number}": point for number, point in enumerate(points)}
        lines = [
            f"{key} {one.role} {one.call} {one.number} {one.action} {one.pattern}" for key, one in self._points.items()
        ]
        (FOLDER / "points").write_text("\n".join([*lines, ""]))
        if record:
            calls = FOLDER / "calls"
            calls.touch()
            calls.chmod(0o666)
            (FOLDER / "record").touch()
        PRELOAD.write_text(f"{LIBRARY}\n")

    def met(self) -> dict[str, str]:
        """The path of the call at which each point was met."""
        keys = [key for key in self._points if (FOLDER / f"{key}.met").exists()]
        return {str(self._points[key]): (FOLDER / f"{key}.met").read_text() for key in keys}

    def untaken(self, role: str) -> int:
        """How many points no process has taken."""
        keys = [key for key, point in self._points.items() if point.role == role]
        return sum(not (FOLDER / f"{key}.taken").exists() for key in keys)

    def lift(self) -> None:
        """No process meets a fault any more."""
        PRELOAD.unlink(missing_ok=True)
        for key in self._points:
            (FOLDER / f"{key}.taken").touch()


def recorded() -> list[Call]:
    """All calls of the first process of each role, in their order."""
    first: dict[str, str] = {}
    counts: Counter[tuple[str, str, str]] = Counter()
    calls = []
    for line in (FOLDER / "calls").read_text(errors="replace").splitlines():
        role, pid, name, path = line.split(" ", 3)
        if role in ROLES and first.setdefault(role, pid) == pid and " " not in path:
            key = role, name, UNSTEADY.sub("*", path)
            counts[key] += 1
            calls.append(Call(role, name, counts[key], key[2]))
    return calls


def all_points(calls: Iterable[Call]) -> list[Point]:
    """Every action at every call."""
    return [_point(one, action) for one in calls for action in one.actions]


def choose(calls: Sequence[Call], count: int, seed: int, role: str) -> list[Point]:
    """Points of one role: of as many kinds of calls and paths as there are."""
    chance = random.Random(f"{seed} {role}")  # noqa: S311 - a choice that can be repeated
    groups: dict[tuple[str, str], list[Call]] = {}
    for one in calls:
        if one.role == role:
            groups.setdefault((one.name, one.pattern), []).append(one)
    kinds = chance.sample(sorted(groups), min(count, len(groups)))
    chosen = [chance.choice(groups[kind]) for kind in kinds]
    return [_point(one, chance.choice(one.actions)) for one in chosen]


def one_point_each(calls: Iterable[Call], seed: int) -> list[Point]:
    """Each call with one action; another seed takes another one."""
    chance = random.Random(seed)  # noqa: S311 - a choice that can be repeated
    return [_point(one, chance.choice(one.actions)) for one in calls]


def _point(call: Call, action: str) -> Point:
    return Point(call.role, call.name, call.number, action, call.pattern)
