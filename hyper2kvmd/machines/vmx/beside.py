"""The .vmx next to a VMDK: firmware, memory, processors, disks and network cards of its virtual machine.

It is untrusted: only a regular file is read, opened once and up to a limit. It is never required; its errors are
warnings.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from hyper2kvmd.disk.file_names import family, last_part
from hyper2kvmd.disk.files import open_file
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.errors import Failure
from hyper2kvmd.host.mandate import Mandate
from hyper2kvmd.machines.disks import Disks
from hyper2kvmd.machines.vmx.hardware import MEMORY, VCPUS, firmware_of
from hyper2kvmd.machines.vmx.matching import machines_of
from hyper2kvmd.machines.vmx.nics import read_nics
from hyper2kvmd.machines.vmx.places import with_addresses
from hyper2kvmd.machines.vmx.settings import Settings, parse_settings
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.concerns import Concern
from hyper2kvmd.model.machine import Machine

DISKS = Disks()
MAX_BYTES = 1 << 18
"""Of one file. VMware's have a few KiB; 256 disks take about 50."""
MAX_FILES = 64
MAX_NAMES = 20_000
"""Names in the folder that are looked at."""
MAX_SHOWN = 3
MAX_DISKS = 256
"""On four SCSI controllers; more than vSphere allows."""
MAX_SETTINGS = 2048
"""Used settings of one file: with MAX_BYTES and MAX_FILES, it bounds the memory that all of them take."""
LONGEST_NAME = 255
USED_KEY = re.compile(
    r"memsize|numvcpus|firmware|.+\.filename|(?:scsi|sata|nvme|ide)[0-9]{1,2}:[0-9]{1,3}\.present"
    r"|(?:scsi|sata|nvme|ide)[0-9]{1,2}\.pcislotnumber"
    r"|ethernet[0-9]\.(?:present|addresstype|address|generatedaddress|pcislotnumber|startconnected)"
    r"|ethernet[0-9]\.(?:networkname|dvs\.portgroupid|opaquenetwork\.id|connectiontype|vnet)"
)
NOTHING = Settings()


class DisksWithVmx:
    """A `MachineReader` for `vmdk`: these disks, and the .vmx beside them that names the first one or has its name."""

    def read(self, asked: Migration, sources: Sources) -> Machine:
        """A .vmx that the owner of the open disk neither owns nor can read is ignored with a warning.

        Raises as `Sources.open` does.
        """
        machine = DISKS.read(asked, sources)
        first, *_ = sources.open([disk.at for disk in machine.disks])
        file = first.files[0]
        settings, concerns = _settings_for(file.path, sources.mandate.named_by(file.fd, file.path))
        return machine.with_changes(
            disks=with_addresses(machine.disks, settings),
            firmware=firmware_of(settings) if settings.values else None,
            memory=settings.number("memsize", MEMORY),
            vcpus=settings.number("numvcpus", VCPUS),
            nics=read_nics(settings),
            disk_names=_disk_names(settings),
            concerns=(*concerns, *_left_out(asked.vmdk, settings)),
        )


def _left_out(disks: Sequence[Path], settings: Settings) -> Iterator[Concern]:
    """A concern if the machine has more disks than the migration names."""
    named = {family(disk.name).casefold() for disk in disks}
    left_out = [name for name in _disk_names(settings) if family(name).casefold() not in named]
    if left_out:
        more = " and others" if len(left_out) > MAX_SHOWN else ""
        yield Concern(
            code="disks-left-out",
            message=f"the .vmx beside {disks[0]} also has {', '.join(left_out[:MAX_SHOWN])}{more}, not migrated here",
            hint="If these disks belong to the new machine, list them in vmdk, or name the .vmx with vmx",
        )


def _settings_for(disk: Path, mandate: Mandate) -> tuple[Settings, tuple[Concern, ...]]:
    """The settings of the only machine with this disk, or none; and warnings about the files."""
    found, concerns = dict[Path, Settings](), list[Concern]()
    names = _names_beside(disk, mandate)
    for path in _candidates(disk, names):
        try:
            found[path] = _read(path, mandate)
        except Failure as failure:
            if failure.code != "source-missing":
                concerns.append(_unclear(f"{failure.message}: its memory, processors and network cards are unknown"))
    described = {
        path: [value for key, value in settings.values.items() if key.endswith(".filename")]
        for path, settings in found.items()
    }
    machines = machines_of(disk, described, frozenset(names))
    if len(machines) == 1:
        return found[machines[0]], tuple(concerns)
    if machines:
        all_names = ", ".join(path.name for path in machines)
        concerns.append(
            _unclear(f"{all_names} all have the disk {disk.name}: its memory, processors and network cards are unclear")
        )
    elif others := [path.name for path, settings in found.items() if _disk_names(settings)]:
        more = " and others" if len(others) > MAX_SHOWN else ""
        fact = f"{', '.join(others[:MAX_SHOWN])}{more} name other disks than {disk.name}"
        concerns.append(_unclear(f"{fact}: its memory, processors and network cards are unknown"))
    return NOTHING, tuple(concerns)


def _unclear(message: str) -> Concern:
    return Concern(
        code="description-unclear",
        message=message,
        hint="Name the machine's .vmx with vmx: instead of its disks with vmdk:, or set memory, vcpus and uefi",
    )


def _names_beside(disk: Path, mandate: Mandate) -> tuple[str, ...]:
    with suppress(OSError):  # a folder that cannot be listed may contain a .vmx with the disk's name all the same
        return mandate.names_in(disk.parent, MAX_NAMES)
    return ()


def _candidates(disk: Path, names: Sequence[str]) -> list[Path]:
    """The .vmx with the disk's name, whether or not it exists, and others in its folder; MAX_FILES at most."""
    own = disk.with_suffix(".vmx").name
    others = sorted({name for name in names if name.lower().endswith(".vmx")} - {own})[: MAX_FILES - 1]
    return [disk.with_name(name) for name in sorted((own, *others))]


def _read(path: Path, mandate: Mandate) -> Settings:
    """The used settings. Raises as `open_file` does."""
    file = open_file(path, mandate)
    try:
        data = file.read(0, MAX_BYTES)
    finally:
        os.close(file.fd)
    return parse_settings(data, lambda key: USED_KEY.fullmatch(key) is not None, MAX_SETTINGS)


def _disk_names(settings: Settings) -> tuple[str, ...]:
    """The file names of the machine's hard disks."""
    disks = [
        (key.removesuffix(".filename"), value) for key, value in settings.values.items() if key.endswith(".filename")
    ]
    names = [
        last_part(value)[:LONGEST_NAME]
        for device, value in disks
        if value.lower().endswith(".vmdk") and settings.flag(f"{device}.present", default=True)
    ]
    return tuple(name for name in names if name.isprintable())[:MAX_DISKS]
