"""Volumes that an initramfs or GRUB has to find before the root: logical volumes, LUKS containers, arrays, `search`.

Reads kernel lines and GRUB's commands; nothing is replaced, because these names are derived from content. Sources:
dracut.cmdline(7) and the `rd_*` names before it, systemd-cryptsetup-generator(8), GRUB manual (`search`,
`cryptomount`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from hyper2kvmd.guest.linux.cmdline import PARAMETER
from hyper2kvmd.guest.linux.devices import INCOMPLETE, Devices
from hyper2kvmd.model.disks import Volume

Check = Callable[[str, Devices], str | None]
"""Why the value of a parameter is not on the disks, as text to follow it; None if it is."""

WORD = re.compile(
    r"(?<![^\s\"'])(?:(?:kernelopts|default_kernel_opts|GRUB_CMDLINE_\w{1,20})=)?([A-Za-z][\w.-]{0,63})=([^\s\"'\\]+)"
)
"""Name and value of a parameter, the first one of an unquoted setting included."""
DEVICE = re.compile(r"(?:/dev/disk/by-path/[^\s,;]+|/dev/[^\s,:;]+|\b(?:UUID|LABEL|PARTUUID|PARTLABEL)=[^\s,:;]+)")
LV = ("rd.lvm.lv", "rd_LVM_LV")
VG = ("rd.lvm.vg", "rd_LVM_VG")
LUKS = ("rd.luks.uuid", "rd.luks.name", "luks.uuid", "luks.name", "rd_LUKS_UUID")
ARRAY = ("rd.md.uuid", "rd_MD_UUID")
GRUB_DEVICES = ("GRUB_DEVICE", "GRUB_DEVICE_BOOT")
"""Settings that `grub-default` examines."""
NO_DISK = re.compile(r"/dev/(?:tty|console|hvc|ttyS|pts/|input/|fb\d|watchdog|rtc|kmsg|u?random|hwrng|mem|kvm|net/)\S*")
NUMBERED = re.compile(r"root=(?:0x)?(?:[0-9a-fA-F]{3,4}|[0-9a-fA-F]{1,3}:[0-9a-fA-F]{1,3})")
"""A root by its device number: 8:1 or 0801 is /dev/sda1."""
SEARCH = re.compile(r"^[ \t]*search(?:\.(fs_uuid|fs_label))?[ \t]+(.+)$", re.MULTILINE)
CRYPTOMOUNT = re.compile(r"^[ \t]*cryptomount[ \t]+(?:-u|--uuid)[ \t=]+([0-9A-Fa-f-]+)", re.MULTILINE)
SEARCH_TAGS = {"-u": "UUID", "--fs-uuid": "UUID", "fs_uuid": "UUID", "-l": "LABEL", "--label": "LABEL"}
SEARCH_TAGS |= {"--fs-label": "LABEL", "fs_label": "LABEL"}
NOT_HEX = re.compile(r"[^0-9a-f]")


def missing(text: str, devices: Devices) -> dict[str, str]:
    """The names in `text` that are on none of the disks, as they are written there, and why. Without comment lines."""
    lines = "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("#"))
    return dict(_on_kernel_lines(lines, devices)) | dict(_in_grub(lines, devices))


def hides_root(line: str, root: Volume, devices: Devices) -> str | None:
    """Why an initramfs with this kernel line does not start the volume that holds the root; None if it does.

    It starts only the volumes of these parameters if there are any.
    """
    gone = dict(_on_kernel_lines(line, devices))
    for names, holds_root in _holders(root):
        words = [match for match in WORD.finditer(line) if match[1] in names]
        lost = next((word for match in words if (word := f"{match[1]}={match[2]}") in gone), None)
        if lost and not any(holds_root(match[1], match[2]) for match in words):
            return f"{lost} {gone[lost]}"
    return None


def _holders(root: Volume) -> Iterator[tuple[tuple[str, ...], Callable[[str, str], bool]]]:
    """The parameters that start what the root lies in, and whether a parameter's value is that."""
    if root.kind == "lv":
        yield (*LV, *VG), lambda key, value: value == (f"{root.vg}/{root.lv}" if key in LV else root.vg)
    crypt = root.stretches[0].crypt if root.stretches else None
    if crypt is not None:
        container = crypt.container
        yield LUKS, lambda _key, value: _hex(_luks_uuid(value)) in _hex(container)


def _on_kernel_lines(text: str, devices: Devices) -> Iterator[tuple[str, str]]:
    for match in WORD.finditer(text):
        if "$" in match[2] or match[1] in GRUB_DEVICES or PARAMETER.match(f"{match[1]}={match[2]}"):
            continue
        word = f"{match[1]}={match[2]}"
        why = CHECKS.get(match[1], _device_in)(match[2], devices)
        why = "is a device number, which is another one on KVM" if NUMBERED.fullmatch(word) else why
        if why is not None:
            yield word, why


def _device_in(value: str, devices: Devices) -> str | None:
    """The fault of the first device in the value of any other parameter."""
    for name in (match[0] for match in DEVICE.finditer(value) if not NO_DISK.fullmatch(match[0])):
        why = devices.absent(name)
        if why is None and devices.is_unstable(name):
            why = "is not a name on KVM"
        if why is not None:
            return why if name == value else f"names {name}, which {why}"
    return None


def _in_grub(text: str, devices: Devices) -> Iterator[tuple[str, str]]:
    for match in SEARCH.finditer(text):
        words = match[2].split(";")[0].split()
        tag = next((SEARCH_TAGS[word] for word in (match[1], *words) if word in SEARCH_TAGS), None)
        name = _searched(words, positional_first=match[1] is not None)
        if tag is None or name is None or "$" in name:
            continue
        why = devices.absent(f"{tag}={name}")
        if why is not None:
            yield f"search for {tag}={name}", why
    for match in CRYPTOMOUNT.finditer(text):
        why = _container(match[1], devices)
        if why is not None:
            yield match[0].strip(), why


def _searched(words: list[str], *, positional_first: bool) -> str | None:
    """The operand: in GRUB's scripts it follows the options, after `search.fs_uuid` a variable and hints follow it."""
    operands = [word.strip("\"'") for word in words if not word.startswith("-")]
    if not operands:
        return None
    return operands[0] if positional_first else operands[-1]


def _lv(value: str, devices: Devices) -> str | None:
    vg, _, lv = value.removeprefix("/dev/").partition("/")
    found = [volume for volume in devices.volumes if volume.vg == vg and volume.lv == lv]
    if not found:
        return devices.why_missing(may_be_locked=True)
    return INCOMPLETE if found[0].incomplete else None


def _vg(value: str, devices: Devices) -> str | None:
    here = any(volume.vg == value for volume in devices.volumes)
    return None if here else devices.why_missing(may_be_locked=True)


def _luks_uuid(value: str) -> str:
    """Of `UUID`, `luks-UUID` and `UUID=NAME`."""
    return value.partition("=")[0].removeprefix("luks-")


def _container(value: str, devices: Devices) -> str | None:
    """dracut accepts a part of the UUID as well."""
    wanted = _hex(_luks_uuid(value))
    containers = (volume for volume in devices.volumes if volume.content == "crypto_LUKS")
    here = any(wanted in _hex(volume.uuid or "") for volume in containers)
    return None if here else devices.why_missing(may_be_locked=False)


def _array(value: str, devices: Devices) -> str | None:
    members = (volume for volume in devices.volumes if volume.content == "linux_raid_member")
    here = any(_hex(volume.uuid or "") == _hex(value) for volume in members)
    return None if here else devices.why_missing(may_be_locked=True)


def _hex(text: str) -> str:
    return NOT_HEX.sub("", text.lower())


CHECKS: Mapping[str, Check] = {
    **dict.fromkeys(LV, _lv),
    **dict.fromkeys(VG, _vg),
    **dict.fromkeys(LUKS, _container),
    **dict.fromkeys(ARRAY, _array),
}
