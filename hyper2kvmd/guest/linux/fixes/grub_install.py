"""The target of the guest's next grub-install, which an update of GRUB runs.

Debian keeps this disk in debconf, SUSE in grub_installdevice and Red Hat's old releases in /etc/sysconfig/grub. An
update that does not find the disk leaves old boot code with new modules, or fails. A disk has only the name that the
kernel gives it, so this is /dev/vda; a partition gets its by-uuid or by-partuuid link.
Sources: debconf-devel(7), perl-Bootloader's grub2 module.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from hyper2kvmd.guest.linux.devices import virtio_disk
from hyper2kvmd.guest.linux.fixes.fix import (
    Case,
    Fix,
    Mended,
    mend_files,
    unless_no_grub,
)

DEBCONF = "/var/cache/debconf/config.dat"
QUESTION = "Name: grub-pc/install_devices"
DEVICE = re.compile(r"/dev/[^\s,\"']+")


def mend_debconf(case: Case, text: str, path: str) -> Mended:
    """Change the value of one question only."""
    start = f"\n{text}".find(f"\n{QUESTION}\n")
    value = text.find("\nValue: ", start) if start >= 0 else -1
    end = text.find("\n\n", start) if start >= 0 else -1
    if value < 0 or 0 <= end < value:
        return Mended(text)
    value += len("\nValue: ")
    stop = text.find("\n", value)
    stop = stop if stop >= 0 else len(text)
    line, done, warnings = _line(case, text[value:stop], path)
    return Mended(text[:value] + line + text[stop:], ", ".join(done), tuple(warnings))


def mend_list(case: Case, text: str, path: str) -> Mended:
    """One device per line, with words such as `activate` in between."""
    return _lines(case, text, path, lambda line: not line.lstrip().startswith("#"))


def mend_boot(case: Case, text: str, path: str) -> Mended:
    """One assignment among others."""
    return _lines(case, text, path, lambda line: line.lstrip().startswith("boot="))


def _lines(case: Case, text: str, path: str, concerned: Callable[[str], bool]) -> Mended:
    lines: list[str] = []
    done: list[str] = []
    warnings: list[str] = []
    for line in text.split("\n"):
        mended, news, troubles = _line(case, line, path) if concerned(line) else (line, [], [])
        lines.append(mended)
        done += news
        warnings += troubles
    return Mended("\n".join(lines), ", ".join(done), tuple(warnings))


def _line(case: Case, line: str, path: str) -> tuple[str, list[str], list[str]]:
    done: list[str] = []
    warnings: list[str] = []

    def exchange(match: re.Match[str]) -> str:
        if not case.devices.is_unstable(match[0]):
            why = case.devices.absent(match[0])
            warnings.extend([f"{path}: {match[0]} {why}; the next grub-install will fail"] if why else [])
            return match[0]
        disk, volume = case.devices.whole_disk(match[0]), case.devices.find(match[0])
        target = virtio_disk(disk) if disk is not None else case.devices.stable_path(volume) if volume else None
        if target is None:
            warnings.append(f"{path}: {match[0]} matches nothing on these disks; the next grub-install will fail")
        if target in (None, match[0]):
            return match[0]
        done.append(f"{match[0]} is now {target}")
        return str(target)

    return DEVICE.sub(exchange, line), done, warnings


def apply(case: Case) -> list[str]:
    return [
        *mend_files(case, FIX.name, mend_debconf, DEBCONF),
        *mend_files(case, FIX.name, mend_list, "/etc/default/grub_installdevice"),
        *mend_files(case, FIX.name, mend_boot, "/etc/sysconfig/grub"),
    ]


FIX = Fix("grub-install", required=False, wanted=unless_no_grub, apply=apply)
