"""Facts about a Windows guest that a person should know before its first boot on KVM."""

from __future__ import annotations

from collections.abc import Iterator

from hyper2kvmd.guest.windows.hives import Hives
from hyper2kvmd.guest.windows.inspect import SOFTWARE, SYSTEM, WindowsSystem
from hyper2kvmd.guest.windows.registry import Key
from hyper2kvmd.model.concerns import Concern

RESTRICTIONS = r"Policies\Microsoft\Windows\DeviceInstall\Restrictions"
DENYING = ("DenyUnspecified", "DenyDeviceIDs", "DenyDeviceClasses", "DenyInstanceIDs", "DenyRemovableDevices")
ANTIVIRUS = {
    "ccSvcHst": "Symantec",
    "SepMasterService": "Symantec",
    "McShield": "McAfee",
    "mfemms": "Trellix",
    "SAVService": "Sophos",
    "Sophos Endpoint Defense Service": "Sophos",
    "ntrtscan": "Trend Micro",
    "ds_agent": "Trend Micro",
    "klnagent": "Kaspersky",
    "CSFalconService": "CrowdStrike",
    "SentinelAgent": "SentinelOne",
    "ekrn": "ESET",
    "CbDefense": "Carbon Black",
    "CylanceSvc": "Cylance",
    "EPSecurityService": "Bitdefender",
    "WRSVC": "Webroot",
    "avast! Antivirus": "Avast",
    "cyserver": "Cortex XDR",
}
"""Services of other vendors' protection, which may block new drivers. Defender does not."""
IPV6_ADDRESSES = r"Control\Nsi\{eb004a01-9b1a-11d4-9123-0050047759bc}\10"


def concerns_about(system: WindowsSystem, hives: Hives) -> Iterator[Concern]:
    control = hives.read(SYSTEM).find(system.control_set)
    if system.support == "best effort":
        yield Concern(
            code="windows-best-effort",
            message=f"{system.product_name} (build {system.build}, {system.architecture}) is repaired as well as "
            "possible: supported are Windows 10 and later and Windows Server 2012 R2 and later, for x86-64",
            hint="Check disks, network and devices after the first boot",
        )
    if _denies_devices(hives.read(SOFTWARE).find(RESTRICTIONS)):
        yield Concern(
            code="windows-device-policy",
            message="a group policy of the guest restricts the installation of devices: Windows may refuse those of "
            "the new machine",
            hint="Lift the policy before the export, or allow the devices PCI\\VEN_1AF4 in it",
        )
    if found := sorted({vendor for name, vendor in ANTIVIRUS.items() if control and _has(control, name)}):
        yield Concern(
            code="windows-antivirus",
            message=f"the guest has protection software that can block new drivers: {', '.join(found)}",
            hint="Pause it before the export, or allow the virtio drivers in it",
        )
    addresses = control.find(IPV6_ADDRESSES) if control else None
    if addresses is not None and any(True for _ in addresses.values()):
        yield Concern(
            code="windows-ipv6-static",
            message="the guest has static IPv6 addresses, which are not given to the new network cards",
            hint="Set them again after the first boot",
        )


def _denies_devices(policy: Key | None) -> bool:
    values = (policy.value(name) for name in DENYING) if policy else ()
    return any(value is not None and value.number() for value in values)


def _has(control: Key, service: str) -> bool:
    return control.find(rf"Services\{service}") is not None
