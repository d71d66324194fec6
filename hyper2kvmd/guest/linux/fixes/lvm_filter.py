"""lvm.conf: the `filter` that determines which disks LVM may scan.

Looks for filters that reject the physical volumes once they are on virtio disks: the root's volume group is then not
found. Puts patterns that accept exactly those volumes first; everything else that the filter rejects stays rejected.
Source: lvm.conf(5): for each name of a device, the first pattern that matches decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hyper2kvmd.guest.linux.fixes.fix import (
    Case,
    Fix,
    Mended,
    always,
    mend_files,
)
from hyper2kvmd.model.disks import Volume

FILTER = re.compile(
    r"^([ \t]*(?:devices/)?(global_filter|filter)[ \t]*=[ \t]*)"
    r"(?:(\[\s*)((?:\"(?:[^\"\\\n]|\\.)*\"[\s,]*)*)\]|(\"(?:[^\"\\\n]|\\.)*\"))?",
    re.MULTILINE,
)
STRING = re.compile(r"\"((?:[^\"\\\n]|\\.)*)\"")
CLOSING = {"(": ")", "[": "]", "{": "}"}
MAX_PATTERN, MAX_QUANTIFIERS = 200, 6
"""Limits of a pattern from a guest: within them, matching a short name is fast."""


class _NotUnderstood(Exception):
    pass


def mend(case: Case, text: str, path: str) -> Mended:
    members = [
        volume
        for volume in case.devices.volumes
        if volume.content == "LVM2_member" and volume.kind in ("partition", "disk")
    ]
    done: list[str] = []
    warnings: list[str] = []

    def exchange(match: re.Match[str]) -> str:
        try:
            if match[4] is None and match[5] is None:
                raise _NotUnderstood
            patterns = [_pattern(written) for written in STRING.findall(match[4] or match[5] or "")]
        except _NotUnderstood:
            names = ", ".join(case.devices.virtio_name(volume) for volume in members)
            warnings.append(f"{path}: what {match[2]} accepts is unclear. Make sure that it includes {names}.")
            return match[0]
        shut_out = [volume for volume in members if not _accepts(patterns, _names(case, volume))]
        if not shut_out:
            return match[0]
        accepting = [f'"a|^{case.devices.virtio_name(volume)}$|"' for volume in shut_out]
        done.append(f"{match[2]} accepts {', '.join(case.devices.virtio_name(volume) for volume in shut_out)}")
        opening, rest = (match[3], f"{match[4]}]") if match[3] else ("[ ", f"{match[5]} ]")
        return match[1] + opening + ", ".join([*accepting, rest])

    return Mended(FILTER.sub(exchange, text) if members else text, ", ".join(done), tuple(dict.fromkeys(warnings)))


def _pattern(written: str) -> tuple[bool, re.Pattern[str]]:
    """Accepting or not, and the expression. Raises _NotUnderstood."""
    text = re.sub(r"\\([\"\\])", r"\1", written)
    if len(text) < 3 or text[0] not in "ar" or text[-1] != CLOSING.get(text[1], text[1]) or len(text) > MAX_PATTERN:
        raise _NotUnderstood
    expression = text[2:-1]
    if re.search(r"\)[*+?{]|\{|\(\?", expression) or len(re.findall(r"[*+?]", expression)) > MAX_QUANTIFIERS:
        raise _NotUnderstood
    try:
        return text[0] == "a", re.compile(expression)
    except re.error as error:
        raise _NotUnderstood from error


def _accepts(patterns: list[tuple[bool, re.Pattern[str]]], names: Iterable[str]) -> bool:
    rejected = False
    for name in names:
        verdict = next((accepting for accepting, expression in patterns if expression.search(name)), None)
        if verdict:
            return True
        rejected = rejected or verdict is False
    return not rejected


def _names(case: Case, volume: Volume) -> list[str]:
    """The udev names of a physical volume on a virtio disk without a serial number."""
    slot = "/dev/disk/by-path/virtio-pci-0000:04:00.0" + (f"-part{volume.number}" if volume.number else "")
    links = [slot, slot.replace("virtio-", ""), f"/dev/disk/by-id/lvm-pv-uuid-{volume.uuid}"]
    partition = [f"/dev/disk/by-partuuid/{volume.partuuid}"] if volume.partuuid else []
    return [case.devices.virtio_name(volume), *links, *partition]


def apply(case: Case) -> list[str]:
    return mend_files(case, FIX.name, mend, "/etc/lvm/lvm.conf", "/etc/lvm/lvmlocal.conf")


FIX = Fix("lvm-filter", required=False, wanted=always, apply=apply)
