"""mdadm.conf: the possible and the actual members of arrays.

Looks for `DEVICE` lines that allow only disks of the old machine, and for `ARRAY` lines that list their members by
name. Either prevents assembly of the array once the disks are /dev/vda and /dev/vdb. `DEVICE partitions` considers
every disk, as mdadm does by default; an array is identified by its UUID. Source: mdadm.conf(5).
"""

from __future__ import annotations

import re

from hyper2kvmd.guest.linux.fixes.fix import (
    Case,
    Fix,
    Mended,
    always,
    mend_files,
)

STATEMENT = re.compile(r"(?:^|\n)[^\s#][^\n]*(?:\n[ \t]+[^\s#][^\n]*)*")
"""A line and the indented ones that continue it."""
KEYWORD = re.compile(r"\s*(\w*)")
HARDWARE = re.compile(r"(?<!\s)(\s+)(/dev/(?:[hs]d|xvd|nvme|mapper/|cciss/|emcpower|disk/by-(?:path|id)/)[^\s#]*)")
MEMBERS = re.compile(r"(?<!\s)(\s+)devices=([^\s#]+)", re.IGNORECASE)
HAS_UUID = re.compile(r"\suuid=", re.IGNORECASE)


def mend(case: Case, text: str, path: str) -> Mended:
    done: list[str] = []
    warnings: list[str] = []

    def exchange(match: re.Match[str]) -> str:
        keyword = KEYWORD.match(match[0])
        word = keyword[1].lower() if keyword else ""
        if len(word) >= 3 and "device".startswith(word):
            return _any_disk(match[0], done)
        if len(word) >= 3 and "array".startswith(word):
            return _by_uuid(case, match[0], path, done, warnings)
        return match[0]

    return Mended(STATEMENT.sub(exchange, text), ", ".join(done), tuple(warnings))


def _any_disk(statement: str, done: list[str]) -> str:
    named = HARDWARE.findall(statement)
    if not named:
        return statement
    done.append(f"DEVICE {' '.join(word for _, word in named)} is now DEVICE partitions")
    rest = HARDWARE.sub("", statement)
    if "partitions" in rest.split():
        return rest
    return re.sub(r"\w+", lambda keyword: f"{keyword[0]}{named[0][0]}partitions", rest, count=1)


def _by_uuid(case: Case, statement: str, path: str, done: list[str], warnings: list[str]) -> str:
    match = MEMBERS.search(statement)
    if match is None or not HARDWARE.match(f" {match[2]}"):
        return statement
    replacement = ""
    if not HAS_UUID.search(statement):
        uuid = next((uuid for name in match[2].split(",") if (uuid := _array_uuid(case, name))), None)
        if uuid is None:
            warnings.append(f"{path}: devices={match[2]} matches no array on these disks. Write its UUID= by hand.")
            return statement
        replacement = f"{match[1]}UUID={uuid}"
    done.append(f"devices={match[2]} is now {replacement.strip() or 'left out: the UUID is sufficient'}")
    return statement[: match.start()] + replacement + statement[match.end() :]


def _array_uuid(case: Case, name: str) -> str | None:
    """In mdadm's notation: four words of eight digits."""
    volume = case.devices.find(name)
    if volume is None or volume.content != "linux_raid_member" or volume.uuid is None:
        return None
    digits = volume.uuid.replace("-", "")
    return ":".join(digits[at : at + 8] for at in range(0, 32, 8))


def apply(case: Case) -> list[str]:
    return mend_files(case, FIX.name, mend, "/etc/mdadm.conf", "/etc/mdadm/mdadm.conf")


FIX = Fix("mdadm", required=False, wanted=always, apply=apply)
