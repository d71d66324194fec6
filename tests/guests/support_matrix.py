"""Writes docs/reference/guests.md: which guests are tested, and how. Its tables come from the tests themselves."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hyper2kvmd import catalogue
from hyper2kvmd.guest.data_disks import FOREIGN, FOREIGN_TYPES
from tests.guests import spanned_uefi
from tests.guests.catalogue import BY_UEFI, DEBIAN12, GUESTS
from tests.guests.guest import REPOSITORY

GOLDEN = REPOSITORY / "tests/golden"
PRETTY_NAME = re.compile(r'^PRETTY_NAME="?([^"\n]*)"?$', re.MULTILINE)
RELEASE_FILES = ("os-release", "redhat-release", "centos-release", "SuSE-release")
SUITES = {"bullseye": "Debian 11", "bookworm": "Debian 12", "trixie": "Debian 13"}


UEFI = frozenset(
    guest.name
    for guest in (
        *BY_UEFI,
        spanned_uefi.GUEST,
        *(recipe.guest for recipe in DEBIAN12 if recipe.firmware == "uefi"),
    )
)
SECURE_BOOT = {
    "uefi-shim": ("UEFI", "Secure Boot"),
    "spanned-uefi": ("Secure Boot",),
}
"""How guests with a signed chain are booted."""
FIRMWARES = ("BIOS", "UEFI", "Secure Boot")
NEVER, ALL = "-", ", ".join(FIRMWARES)


@dataclass(frozen=True)
class Booted:
    """What a guest is there for, and the test that migrates and boots it."""

    about: str
    test: str


MATRIX = "tests/guests/test_matrix.py::test_it_boots_on_virtio_and_a_second_repair_finds_nothing_to_do[{}]"
IN_VM = "tests/guests/test_in_vm.py::test_guests_on_arrays_and_in_containers_boot_on_virtio"
BY_GRUB = "tests/guests/test_uefi.py::test_grub_boots_without_its_boot_entry[{}]"
BOOTED: Mapping[str, Booted] = {
    "debian12": Booted("GRUB, ext4, swap", MATRIX.format("debian12")),
    "debian12-lvm": Booted(
        "root on LVM, separate /boot", "tests/integration/test_migration.py::test_a_repaired_lvm_guest_boots"
    ),
    "debian12-healthy": Booted(
        "needs no repair to boot on virtio",
        "tests/integration/test_boot.py::test_a_healthy_guest_without_a_serial_console_is_heard_and_its_image_stays_untouched",
    ),
    "debian12-uefi-healthy": Booted(
        "the same on a disk for UEFI", "tests/integration/test_boot.py::test_a_uefi_guest_boots"
    ),
    "cloud-init": Booted(
        "set up by cloud-init on VMware, static address",
        "tests/guests/test_first_boot.py::test_a_guest_of_cloud_init_stays_the_instance_that_it_was",
    ),
    "btrfs-subvolumes": Booted("root and /home are btrfs subvolumes", MATRIX.format("btrfs-subvolumes")),
    "debian11": Booted("kernel 5.10", MATRIX.format("debian11")),
    "debian13": Booted("initramfs packed with zstd, modules with xz", MATRIX.format("debian13")),
    "dracut": Booted("host-only initramfs made by dracut", MATRIX.format("dracut")),
    "extlinux": Booted("extlinux instead of GRUB", MATRIX.format("extlinux")),
    "lvm-xfs": Booted("XFS root on LVM with a devices file", MATRIX.format("lvm-xfs")),
    "ostree": Booted("a deployment of ostree, `/boot` in the root file system", MATRIX.format("ostree")),
    "selinux": Booted("SELinux enforcing", MATRIX.format("selinux")),
    "several-kernels": Booted("two kernels", MATRIX.format("several-kernels")),
    "two-disks": Booted("data on a second disk", MATRIX.format("two-disks")),
    "luks": Booted("root in a LUKS container, with its key", IN_VM),
    "raid-lvm": Booted("LVM on md RAID 1 of two disks", IN_VM),
    "luks-healthy": Booted(
        "root in a LUKS container, without a key",
        "tests/guests/test_matrix.py::test_without_its_key_what_lies_outside_a_container_is_done_and_the_rest_is_told",
    ),
    "uefi-grub": Booted("GRUB, no fallback loader", BY_GRUB.format("uefi-grub-copied0")),
    "uefi-shim": Booted(
        "signed shim with its fallback program",
        BY_GRUB.format("uefi-shim-copied1"),
    ),
    "uefi-shim-bare": Booted("signed shim without its fallback program", BY_GRUB.format("uefi-shim-bare-copied2")),
    "systemd-boot": Booted(
        "systemd-boot",
        "tests/guests/test_uefi.py::test_systemd_boot_finds_virtio_in_the_initrd_beside_its_entry",
    ),
    "unified-kernel": Booted(
        "unified kernel image", "tests/guests/test_uefi.py::test_a_unified_kernel_image_is_mended_inside"
    ),
    "spanned-uefi": Booted(
        "an OVA: signed shim, LVM on two disks, a card with a static address",
        "tests/guests/test_machine.py::test_a_machine_keeps_disks_firmware_card_and_address",
    ),
    "network-stacks": Booted(
        "two cards with static addresses by ifupdown; `make test-long` adds NetworkManager, netplan, networkd, bonds "
        "and VLANs",
        "tests/guests/test_network.py::test_names_and_addresses_stay[ifupdown]",
    ),
}
BY_UNIT_TESTS: Mapping[str, str] = {
    "ostree deployments with a separate `/boot`, such as Fedora CoreOS": "tests/unit/test_guest_ostree.py",
    "disks without a system, and systems that are refused": "tests/unit/test_guest_data_disks.py",
}
REFUSED = (
    "guest-not-linux",
    "guest-not-found",
    "guest-root-missing",
    "guest-ambiguous",
    "guest-deployment-unclear",
    "guest-etc-overlay",
    "guest-hibernated",
    "efi-loader-missing",
    "unified-kernel-unsupported",
    "virtio-missing",
)
INTRODUCTION = """\
# Tested guests

This page is generated by `make reference` from the tests and checked by a unit test. It shows how thoroughly each kind
of guest is tested. [repairs.md](../explanation/repairs.md) describes the repairs.

## Families and releases
"""
BUILT = """
Secure Boot means UEFI with Microsoft's keys enrolled. Every guest that was booted is x86-64. For a Linux system whose
release is not booted here, the plan has the note `guest-not-booted`.

## Built and booted

A recipe in `tests/guests/` builds each of these guests. The test migrates it, as far as it needs a migration, and
boots it on virtio in QEMU.
"""
KERNEL = """
`luks` and `raid-lvm` are repaired in the virtual machine of `make test-kernel`, because the repair needs md and
device-mapper, and are booted outside of it. `make test-kernel` itself boots no guest. `make test-system` boots what an
installed server has made of `debian12-lvm`.
"""
GOLDEN_INTRODUCTION = """
## Golden files

The text repairs of these systems are checked byte for byte, by `make unit`: each case in `tests/golden/` has files of
the guest before and after the repair. These cases are not booted.
"""
UNIT_INTRODUCTION = """
## Unit tests only

These guests have neither a recipe nor a golden case.
"""
REFUSED_INTRODUCTION = """
## Refused

These guests are refused with one of these codes, by `h2kvmctl plan` or before their images are published.
`guest: none` converts disks without a repair, for a machine with SATA disks and e1000e network cards.
"""
WINDOWS = """
Windows guests are repaired on disks that are made from nothing, with the registries of ten releases:
`tests/integration/test_windows_repair.py`. No Windows guest is booted. [howto/windows.md](../howto/windows.md) has the
support of each release, and what is proven.
"""


@functools.cache
def collected(marks: str) -> frozenset[str]:
    """The tests that pytest runs with `-m marks`, of the files that boot guests."""
    files = sorted({one.test.partition("::")[0] for one in BOOTED.values()})
    argv = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", "-m", marks, *files]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return frozenset(line for line in done.stdout.splitlines() if "::" in line)


def make_target(test: str) -> str:
    """The target of the Makefile that runs a test. Raises LookupError for an unknown test."""
    if test in collected("not slow"):
        return "`make test`"
    if test in collected("slow"):
        return "`make test-long`"
    raise LookupError(f"no test is called {test}")


def golden_systems() -> Mapping[str, tuple[str, ...]]:
    """The golden cases by the name of their system."""
    found = defaultdict(list)
    for case in sorted(GOLDEN.iterdir()):
        found[_system(case)].append(case.name)
    return {name: tuple(cases) for name, cases in sorted(found.items(), key=lambda one: one[0].lower())}


def _system(case: Path) -> str:
    for name in RELEASE_FILES:
        for file in sorted((case / "before").rglob(name)):
            text = file.read_text()
            found = PRETTY_NAME.search(text)
            return found[1] if found else text.splitlines()[0]
    return f"{case.name.split('-')[1]} (no os-release)"


def table(headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{'---|' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def firmwares(name: str) -> tuple[str, ...]:
    """With which a guest is booted. Secure Boot is UEFI's."""
    return SECURE_BOOT.get(name) or (("UEFI",) if name in UEFI else ("BIOS",))


def _families() -> Iterator[tuple[str, ...]]:
    """What was booted after a migration, and what was not."""
    for suite, system in SUITES.items():
        booted = {one for name in BOOTED if GUESTS[name].suite == suite for one in firmwares(name)}
        others = ", ".join(one for one in FIRMWARES if one not in booted) or "-"
        yield "Linux", system, "yes", ", ".join(one for one in FIRMWARES if one in booted), others
    yield "Linux", "the others under [golden files](#golden-files)", "yes, tested on their files", NEVER, ALL
    yield "Linux", "all others", "yes, untested", NEVER, ALL
    yield "Windows", "all", "no: SATA disks, e1000e cards", NEVER, ALL
    yield "disks without a system", "-", "there is nothing to repair", NEVER, ALL
    yield "other systems", "all", "no: [refused](#refused)", NEVER, ALL


def _booted() -> Iterator[tuple[str, ...]]:
    for name, one in BOOTED.items():
        firmware = " and ".join(firmwares(name))
        yield f"`{name}`", SUITES[GUESTS[name].suite], firmware, one.about, make_target(one.test)


def _refused() -> Iterator[tuple[str, ...]]:
    meanings = {entry.code: entry.meaning for subject in catalogue.read() for entry in subject.entries}
    for code in REFUSED:
        yield f"[`{code}`](errors.md#{code})", meanings[code]


def markdown() -> str:
    systems, contents = sorted(set(FOREIGN_TYPES.values()), key=str.lower), sorted(FOREIGN, key=str.lower)
    golden = ((name, ", ".join(f"`{case}`" for case in cases)) for name, cases in golden_systems().items())
    unit = ((about, f"`{file}`") for about, file in BY_UNIT_TESTS.items())
    lines = [
        INTRODUCTION,
        *table(("family", "releases", "repaired", "booted with", "not booted with"), _families()),
        BUILT,
        *table(("guest", "system", "booted with", "what it has", "booted by"), _booted()),
        KERNEL,
        GOLDEN_INTRODUCTION.lstrip(),
        *table(("system", "cases"), golden),
        UNIT_INTRODUCTION,
        *table(("guest", "test"), unit),
        REFUSED_INTRODUCTION,
        *table(("code", "meaning"), _refused()),
        f"\nPartitions of these systems are recognised by their type: {', '.join(systems)}.",
        f"A root in one of these is refused, because it cannot be opened: {', '.join(f'`{one}`' for one in contents)}.",
        WINDOWS.rstrip(),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
