"""/etc/fstab: names of disks that change on another hypervisor.

Replaces specs that depend on bus, order or make of a disk, and logical volumes, with UUID=, else PARTUUID=, LABEL=,
PARTLABEL=; the rest of the line stays. A guest that waits for /dev/sda1 while its disk is /dev/vda ends in emergency
mode. So does one whose VMware shared folder cannot be mounted: that gets `nofail`.
"""

from __future__ import annotations

from hyper2kvmd.guest.linux import fstab
from hyper2kvmd.guest.linux.fixes.fix import Case, Fix, always

PATH = "/etc/fstab"
BY_PATH = "/dev/disk/by-path/"
REMOVABLE = ("iso9660", "udf")


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
        if not _concerned(mode, entry):
            continue
        unstable = case.devices.is_unstable(entry.spec)
        volume = case.devices.find(entry.spec)
        if volume is None and unstable and entry.mount_point == "/":
            volume = case.root
        if not unstable and (volume is None or volume.kind != "lv"):
            continue
        spec = case.devices.stable(volume) if volume is not None else None
        if spec is not None:
            text = fstab.with_spec(text, entry.number, spec)
            done.append(f"{entry.spec} is now {spec}")
        elif unstable:
            why = "has no UUID or label" if volume is not None else "matches no volume on these disks"
            warnings.append(f"{place} {why}. Correct or remove the line, or the guest waits for it when it boots.")
    case.tree.write_text(PATH, text, fix=FIX.name, summary=", ".join(done))
    return warnings


def _concerned(mode: str, entry: fstab.FstabEntry) -> bool:
    if any(fs_type in REMOVABLE for fs_type in entry.fs_type.split(",")):
        return False
    return {
        "stabilize-all": entry.spec.startswith("/dev/"),
        "bypath-only": entry.spec.startswith(BY_PATH),
        "noop": False,
    }[mode]


FIX = Fix("fstab", required=True, wanted=always, apply=apply)
