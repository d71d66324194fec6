"""What must hold whatever happened, judged from files, rows and processes by code of its own.

`account` is for a house whose daemon runs or not, `nothing_left` for one whose daemon has ended. Both return what is
wrong, in sentences; `check` raises all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.faults.house import Dropped, House, commands, role
from tests.faults.legal_events import illegal_events

FOLDERS = {"succeeded": "done", "failed": "failed", "cancelled": "failed", "rejected": "rejected"}
"""Where the file of a job in this state is, at rest."""
OUTCOMES = (".reason.json", ".result.json", ".result.md")
"""Ends of the names of files that the daemon writes beside a submitted one."""
PATIENCE_SECONDS = 30.0
"""What ends by itself shortly after the daemon, such as a mount of a dead worker, is waited for."""


def check(house: House, *, ended: bool = True) -> None:
    """All invariants of a house where nothing is queued or running; `ended`: its daemon was stopped as well."""
    wrong = [*account(house), *illegal_events(house.rows(), house.rows("SELECT * FROM events ORDER BY id"))]
    wrong += [f"{line!r} is in the log" for line in house.tail(1 << 20).splitlines() if "Traceback (most" in line]
    if ended:
        wrong += nothing_left(house)
    assert not wrong, "\n".join([*wrong, "", house.tail()])


# ------------------------------------------------------------------ files and their rows


def account(house: House) -> list[str]:
    """Every dropped file is in one folder, with a row that says so; and no other file is in the spool."""
    return list(_account(house))


def _account(house: House) -> Iterator[str]:
    found = _spool_files(house.spool)
    rows = house.rows()
    claims = Counter(row["spool_claim"] for row in rows if row["spool_claim"])
    yield from (f"{claim} was claimed by {count} rows" for claim, count in claims.items() if count > 1)
    for dropped in house.drops:
        places = found.pop(hashlib.sha256(dropped.data).hexdigest(), [])
        if len(places) == 1:
            yield from _judge_place(house, dropped, places[0], rows)
        else:
            yield f"{dropped.name} is in {places or 'no folder'}"
    yield from (f"{places}: nobody dropped this" for places in found.values())
    yield from _outcomes_alone(house.spool)


def _spool_files(spool: Path) -> dict[str, list[str]]:
    """The submitted files of all folders, by the digest of their content, as `done/web01.yaml`."""
    found: dict[str, list[str]] = {}
    for path in sorted(spool.glob("*/*")):
        if path.is_file() and not path.name.endswith(OUTCOMES) and not path.name.startswith("."):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found.setdefault(digest, []).append(str(path.relative_to(spool)))
    return found


def _judge_place(house: House, dropped: Dropped, place: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    own = [row for row in rows if row["spool_path"] == place]
    group = {row["spool_group"] for row in own} - {None}
    members = [row for row in rows if row["spool_group"] in group] or own
    folder = place.partition("/")[0]
    states = sorted(row["state"] for row in members)
    if folder not in FOLDERS.values():
        yield f"{dropped.name} is still at {place}, with rows in {states or 'no state'}"
    elif len(own) != 1:
        yield f"{place} has {len(own)} rows: {[(row['id'], row['state']) for row in own]}"
    elif folder == "rejected":
        yield from _judge_rejected(house, dropped, place, states)
    else:
        if FOLDERS.get(own[0]["state"]) != folder:
            yield f"{place} belongs to a job that is {own[0]['state']}"
        names = sorted(row["vm_name"] for row in members)
        if dropped.vm_names and names != sorted(dropped.vm_names):
            yield f"{place} has rows for {names}"
        if not any((house.spool / f"{place}{end}").exists() for end in OUTCOMES):
            yield f"{place} has no outcome beside it"


def _judge_rejected(house: House, dropped: Dropped, place: str, states: list[str]) -> Iterator[str]:
    if states != ["rejected"]:
        yield f"{place} has rows in {states}"
    try:
        codes = [one["code"] for one in json.loads((house.spool / f"{place}.reason.json").read_text())["problems"]]
    except (OSError, ValueError, KeyError) as error:
        yield f"{place} has no readable reason: {error}"
    else:
        if dropped.vm_names and codes != ["duplicate"]:
            yield f"{place} was rejected: {codes}"


def _outcomes_alone(spool: Path) -> Iterator[str]:
    for path in sorted(spool.glob("*/*")):
        name = path.name
        if path.parent.name == "incoming":
            continue
        if name.startswith("."):
            yield f"{path} was left"
        for end in OUTCOMES:
            if name.endswith(end) and not (path.parent / name.removesuffix(end)).exists():
                yield f"{path} lies there without its file"


# ------------------------------------------------------------------ what is left


def nothing_left(
    house: House, *, working_folders: Iterable[str] = (), patience_seconds: float = PATIENCE_SECONDS
) -> list[str]:
    """Of a daemon that was stopped: processes, loop devices, mounts, folders (but those named), hidden files."""
    limit = time.monotonic() + patience_seconds
    while True:
        left = [*_processes(), *_devices(house), *_fuse(house), *_mounts(house), *_files(house, set(working_folders))]
        if not left or time.monotonic() > limit:
            return left
        time.sleep(0.2)


def _processes() -> Iterator[str]:
    for pid, command in commands().items():
        if name := role(command):
            yield f"process {pid} was left: {name}: {' '.join(command)[:200]}"


def _devices(house: House) -> Iterator[str]:
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = entry.read_text().strip()
        except OSError:
            continue
        if backing.startswith(str(house.root)):
            yield f"{entry.parts[3]} on {backing} was left"


def _fuse(house: House) -> Iterator[str]:
    """The uid of the service user is this box's alone. Loop devices on a FUSE file keep its connection."""
    uid = house.state.stat().st_uid
    for entry in Path("/sys/fs/fuse/connections").iterdir():
        try:
            if entry.stat().st_uid == uid:
                yield f"FUSE connection {entry.name} was left"
        except OSError:
            continue


def _mounts(house: House) -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4]
        if place.startswith(str(house.conversions)) or (" - fuse" in line and str(house.root) in line):
            yield f"a mount was left at {place}"


def _files(house: House, expected: set[str]) -> Iterator[str]:
    for entry in os.scandir(house.conversions):
        if entry.name not in expected and not entry.name.endswith(".lock"):
            yield f"{entry.path} was left"
    for path in house.images.rglob(".*"):
        if not path.name.endswith(".lock"):
            yield f"{path} was left"
    uid = house.state.stat().st_uid
    for folder in ("/tmp", "/run", "/dev/shm"):
        for entry in os.scandir(folder):
            if entry.stat(follow_symlinks=False).st_uid == uid and "h2k-faults" not in entry.name:
                yield f"{entry.path} was left"
