"""/etc/fstab: names of disks that change on another hypervisor.

Replaces specs that depend on bus, order or make of a disk, and logical volumes, with UUID=, else PARTUUID=, LABEL=,
PARTLABEL=; the rest of the line stays. A guest that waits for /dev/sda1 while its disk is /dev/vda ends in emergency
mode. So does one whose VMware shared folder cannot be mounted: that gets `nofail`. Devices that are on none of the
disks are reported.
"""

from __future__ import annotations

from dataclasses import dataclass

from hyper2kvmd.guest.linux import fstab
from hyper2kvmd.guest.linux.disk_order import can_hold
from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, always
from hyper2kvmd.guest.linux.fstab import FstabEntry
from hyper2kvmd.model.disks import Volume

PATH = "/etc/fstab"
BY_PATH = "/dev/disk/by-path/"
REMOVABLE = ("iso9660", "udf")
OPTIONAL = ("nofail", "noauto", "_netdev")
"""Options of mounts that the guest boots without."""


@dataclass(frozen=True)
class _Decision:
    """The new first field, or what is wrong with the old one; neither if the line stays."""

    spec: str | None = None
    trouble: str | None = None


def apply(case: Case) -> list[str]:
    mode = case.migration.fstab_mode
    if not case.tree.is_file(PATH):
        return []
    text = case.tree.read_text(PATH)
    done, warnings = [], []
    for entry in fstab.entries(text):
        place = f"{PATH} line {entry.number + 1}: {entry.spec} ({entry.mount_point})"
        if entry.fs_type.startswith(("fuse.vmhgfs", "vmhgfs")):
            warnings.append(f"{place} is a VMware shared folder, which is not available on KVM. Remove the line.")
            if mode == "stabilize-all" and not {"nofail", "noauto"}.intersection(entry.options):
                text = fstab.with_option(text, entry.number, "nofail")
                done.append(f"{entry.mount_point} may be missing")
        if any(fs_type in REMOVABLE for fs_type in entry.fs_type.split(",")):
            continue
        decision = _decide(case, entry)
        if decision.trouble is not None:
            warnings.append(f"{place} {decision.trouble}")
        elif decision.spec is not None and _concerned(mode, entry):
            text = fstab.with_spec(text, entry.number, decision.spec)
            done.append(f"{entry.spec} is now {decision.spec}")
        elif case.devices.is_unstable(entry.spec):
            warnings.append(f"{place} is not a name on KVM, and fstab_mode: {mode} leaves it: {_effect(entry)}")
    case.tree.write_text(PATH, text, fix=FIX.name, summary=", ".join(done))
    return warnings


def _decide(case: Case, entry: FstabEntry) -> _Decision:
    unstable = case.devices.is_unstable(entry.spec)
    if entry.mount_point == "/" and unstable:
        volume: Volume | None = case.root
    else:
        volume = case.devices.find(entry.spec)
        if (why := case.devices.absent(entry.spec)) is not None:
            return _Decision(trouble=f"{why}: {_effect(entry)}")
    if volume is None or not entry.spec.startswith("/dev/") or not (unstable or volume.kind == "lv"):
        return _Decision(trouble=_doubt(case, entry, volume) if not unstable else None)
    if unstable and (doubt := _contradiction(case, entry, volume)):
        return _Decision(trouble=f"{doubt}: {_effect(entry)}")
    spec = case.devices.stable(volume)
    if spec is None and unstable:
        return _Decision(trouble=f"has no UUID or label: {_effect(entry)}")
    return _Decision(spec=spec)


def _doubt(case: Case, entry: FstabEntry, volume: Volume | None) -> str | None:
    if entry.mount_point != "/" or volume is None or volume == case.root or volume.uuid == case.root.uuid:
        return None
    return f"is {volume.name}, and the system was found on {case.root.name}. Correct the line."


def _contradiction(case: Case, entry: FstabEntry, volume: Volume) -> str | None:
    """Why a name that depends on hardware cannot mean the volume that it was resolved to."""
    if entry.mount_point == "/":
        return None
    if volume == case.root and volume.content != "btrfs" and "bind" not in entry.options:
        return f"would be {volume.name}, which is the root"
    if not can_hold(volume, entry.fs_type):
        return f"would be {volume.name}, which has {volume.content} instead of {entry.fs_type}"
    return None


def _effect(entry: FstabEntry) -> str:
    """What happens at the next boot, and the remedy."""
    for option in OPTIONAL:
        if option in entry.options:
            return f"the guest boots without it ({option}). Correct or remove the line."
    if entry.mount_point == "/":
        return "the guest may not find its root. Correct the line."
    if entry.fs_type == "swap":
        return "the guest waits for it when it boots. Correct or remove the line."
    return "the guest stops in emergency mode when it boots. Correct or remove the line, or add nofail."


def _concerned(mode: str, entry: FstabEntry) -> bool:
    return {
        "stabilize-all": entry.spec.startswith("/dev/"),
        "bypath-only": entry.spec.startswith(BY_PATH),
        "noop": False,
    }[mode]


FIX = Fix("fstab", required=True, wanted=always, apply=apply)
