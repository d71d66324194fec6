"""VMware Tools: services that fail or wait on another platform.

Their start type becomes "disabled". Drivers of disks and network cards stay, so that the guest can return to VMware; so
do all filters of a device class, without which no device of the class starts.
"""

from __future__ import annotations

from collections.abc import Iterator

from hyper2kvmd.guest.windows.fixes.fix import WindowsCase, WindowsFix
from hyper2kvmd.guest.windows.inspect import SYSTEM
from hyper2kvmd.guest.windows.registry import Key, Value
from hyper2kvmd.model.concerns import Concern

SERVICES = (
    *("VMTools", "VGAuthService", "vm3dservice", "vmvss", "VMwareCAFCommAmqpListener"),
    *("VMwareCAFManagementAgentHost", "VMware Physical Disk Helper Service", "VMUpgradeHelper"),
    *("TPAutoConnSvc", "TPVCGateway", "VMMemCtl", "vmhgfs", "vmrawdsk", "vsepflt", "vnetflt", "vnetwfp"),
)
TOOLS_FOLDER = "\\vmware\\vmware tools\\"
NEVER = ("pvscsi", "lsi_sas", "lsi_scsi", "lsi_sas2", "lsi_sas3", "vmxnet3ndis6", "vmxnet", "vmci", "vsock")
"""Drivers of devices, which start only with their devices."""
CLASSES = r"Control\Class"
FILTERS = ("UpperFilters", "LowerFilters")
DISABLED = 4
MOST = 5000
"""Services and device classes that are looked at."""


def apply(case: WindowsCase) -> list[Concern]:
    if case.migration.win_tools == "keep":
        return []
    filters = {name.lower() for name in _filters(case)}
    for name in _services(case):
        if name.lower() not in (*filters, *NEVER) and case.number(rf"Services\{name}", "Start") != DISABLED:
            path = rf"{case.system.control_set}\Services\{name}"
            case.hives.edit(SYSTEM).set(path, Value.dword("Start", DISABLED))
    return []


def _services(case: WindowsCase) -> Iterator[str]:
    known = {name.lower() for name in SERVICES}
    for key in _subkeys(case.control("Services")):
        image = key.value("ImagePath")
        if key.name.lower() in known or (image is not None and TOOLS_FOLDER in image.text().lower()):
            yield key.name


def _filters(case: WindowsCase) -> Iterator[str]:
    for key in _subkeys(case.control(CLASSES)):
        for name in FILTERS:
            value = key.value(name)
            yield from value.texts() if value else ()


def _subkeys(key: Key | None) -> Iterator[Key]:
    yield from (one for one, _ in zip(key.subkeys() if key else (), range(MOST), strict=False))


FIX = WindowsFix("vmware-services", "VMware Tools do not start", apply=apply)
