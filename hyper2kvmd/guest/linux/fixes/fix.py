"""The interface of repairs. Each repair is one file here, which states what it looks for, what it changes and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.linux import cmdline, early_volumes
from hyper2kvmd.guest.linux.devices import Devices
from hyper2kvmd.guest.linux.inspect import System
from hyper2kvmd.guest.linux.network import kernel_line
from hyper2kvmd.guest.linux.network.cards import Cards
from hyper2kvmd.guest.linux.network.survey import Survey
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Volume
from hyper2kvmd.model.machine import Firmware


@dataclass(frozen=True)
class Case:
    """One guest under repair. Repairs read `tree` and stage their edits in it."""

    system: System
    tree: GuestTree
    devices: Devices
    root: Volume
    migration: Migration
    firmware: Firmware
    survey: Survey
    cards: Cards
    esp: str | None = None
    """Mount point of the EFI system partition in `tree`."""
    other_roots: bool = False
    """Whether the disks hold other Linux systems, which the boot loader may start as well."""


@dataclass(frozen=True)
class Mended:
    """A text after a repair, a summary of the changes (empty: none), and the failures."""

    text: str
    summary: str = ""
    warnings: tuple[str, ...] = ()


BY_HAND = "Write a UUID there by hand."
CORRECT = "Correct or remove it."
Mender = Callable[[Case, str, str], Mended]
"""Takes the case, the text and its path in messages. It also repairs the copy in an initramfs."""


@dataclass(frozen=True)
class Fix:
    """`apply` returns warnings. A required repair that fails ends the job; an optional one becomes a warning."""

    name: str
    required: bool
    wanted: Callable[[Migration], bool]
    apply: Callable[[Case], list[str]]


def always(_: Migration) -> bool:
    return True


def unless_no_grub(migration: Migration) -> bool:
    return not migration.no_grub


def when_regenerating(migration: Migration) -> bool:
    return migration.regen_initramfs


def when_stabilizing(migration: Migration) -> bool:
    return migration.fstab_mode == "stabilize-all"


def mend_files(case: Case, fix: str, mender: Mender, *patterns: str) -> list[str]:
    """Repair every regular file that matches; returns warnings."""
    warnings: list[str] = []
    for path in regular_files(case, *patterns):
        mended = mender(case, case.tree.read_text(path), path)
        case.tree.write_text(path, mended.text, fix=fix, summary=mended.summary)
        warnings += mended.warnings
    return warnings


def mend_cmdline(case: Case, fix: str, *patterns: str) -> list[str]:
    """Stabilize the kernel command lines in text files; returns warnings for unknown devices."""
    return mend_files(case, fix, command_lines, *patterns)


def command_lines(case: Case, text: str, path: str) -> Mended:
    rewritten = stabilized(case, text)
    return Mended(rewritten.text, rewritten.summary, tuple(unresolved(path, rewritten)))


def stabilized(case: Case, text: str) -> cmdline.Rewritten:
    kernels = case.system.kernels
    without_initramfs = bool(kernels) and not case.system.unified and not any(kernel.initrds for kernel in kernels)
    root = None if case.other_roots else case.root
    stable = cmdline.stabilize(text, case.devices, root=root, without_initramfs=without_initramfs)
    stable = replace(stable, missing=early_volumes.missing(text, case.devices))
    named = kernel_line.visit("", stable.text, case.cards.choose, pins=case.survey.dracut)
    if named == stable.text:
        return stable
    summary = ", ".join(filter(None, (stable.summary, "the initramfs finds network cards by MAC address")))
    before = set(stable.text.split())
    cards = " ".join(dict.fromkeys(word for word in named.split() if word not in before))
    return replace(stable, text=named, summary=summary, cards=cards)


def unresolved(path: str, rewritten: cmdline.Rewritten) -> list[str]:
    """Warnings about the names that are not on the disks."""
    return [
        *(f"{path}: {parameter} {why}. {BY_HAND}" for parameter, why in rewritten.unresolved.items()),
        *(f"{path}: {name} {why}: the boot may stop there. {CORRECT}" for name, why in rewritten.missing.items()),
    ]


def regular_files(case: Case, *patterns: str) -> list[str]:
    """Regular files that match, each once even if several links lead to it."""
    found = {case.tree.canonical(path): None for pattern in patterns for path in case.tree.glob(pattern)}
    return [path for path in found if case.tree.is_file(path)]
