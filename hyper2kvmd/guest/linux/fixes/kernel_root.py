"""`root=` on the kernel lines that the boot loader can start: the last check of the repaired configuration.

Looks at the first kernel line of each file. The job fails if none of them names a device that is on the disks: such a
guest waits for its root in the initramfs. A line that names another volume than the root that was repaired is reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.linux import cmdline, early_volumes, pe
from hyper2kvmd.guest.linux.fixes import bls, grub_cfg, grubenv
from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, always, regular_files
from hyper2kvmd.guest.linux.inspect import UNIFIED_LIMIT
from hyper2kvmd.model.disks import Volume

EXTLINUX = ("/boot/extlinux/*.conf", "/boot/syslinux/*.cfg", "/boot/extlinux.conf", "/extlinux.conf")
PATTERNS = (*grub_cfg.PATTERNS, *grubenv.PATTERNS, *bls.PATTERNS, *EXTLINUX)


def apply(case: Case) -> list[str]:
    """Raises MigrationFailed (`kernel-root-missing`)."""
    absent: list[str] = []
    elsewhere: list[str] = []
    right = False
    for path, line, root in _roots(case):
        volume = case.devices.find(root)
        left = case.devices.is_unstable(root)  # its name does not exist on KVM
        why = f"is not a name on KVM, and no_grub: {str(case.migration.no_grub).lower()} leaves it" if left else None
        why = why or case.devices.absent(root)
        hidden = early_volumes.hides_root(line, case.root, case.devices)
        if why is not None:
            absent.append(f"{path}: root={root} {why}")
        elif volume is not None and not _same(volume, case.root):
            elsewhere.append(f"{path}: root={root} is {volume.name}, and {case.root.name} was repaired")
        elif hidden is not None:
            absent.append(f"{path}: {hidden}, and nothing else in this line starts {case.root.name}")
        else:
            right = True
    if absent and not right and not elsewhere and not case.migration.no_grub:
        raise MigrationFailed(
            "kernel-root-missing",
            f"{absent[0]}, and no other kernel line names the root",
            hint="Convert the machine with all its disks, or correct the line in the guest "
            f"(the root is {case.root.name}{f', UUID {case.root.uuid}' if case.root.uuid else ''})",
        )
    effect = "the guest does not find its root with this line. Write a UUID there by hand."
    reported = absent if case.migration.no_grub else []  # the repair of the file has reported it otherwise
    return [*(f"{fact}: {effect}" for fact in reported), *elsewhere]


def _same(volume: Volume, root: Volume) -> bool:
    return volume == root or (volume.uuid is not None and volume.uuid == root.uuid)


def _roots(case: Case) -> Iterator[tuple[str, str, str]]:
    """Path, first kernel line and its `root=` of each text; those with variables are left out."""
    for path, text in texts(case):
        lines = ((line, root) for line in text.split("\n") for root in cmdline.named_roots(line) if "$" not in root)
        for line, root in islice(lines, 1):
            yield path, line, root


def texts(case: Case) -> Iterator[tuple[str, str]]:
    """Path and text of everything with kernel lines that a boot loader reads."""
    for path in regular_files(case, *PATTERNS):
        yield path, case.tree.read_text(path)
    for image in case.system.unified:
        program = pe.parse(case.tree.read_bytes(image.path, UNIFIED_LIMIT))
        line = program.content(".cmdline") if program else None
        if line is not None:
            yield image.path, line.decode(errors="surrogateescape")


FIX = Fix("kernel-root", required=True, wanted=always, apply=apply)
