"""A small virtio-win: INF files in the form of the real ones, programs of our own, catalogues, and a tree of all.

The ISO is made by genisoimage.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from tests.support.authenticode import authenticode_digest
from tests.support.disks import sh

Signed = Literal["both", "driver", "catalogue", "nothing"]


class Signer(Protocol):
    def sign_driver(self, data: bytes) -> bytes: ...

    def sign_catalog(self, digests: Sequence[bytes]) -> bytes: ...


SCSI = "{4D36E97B-E325-11CE-BFC1-08002BE10318}"
NET = "{4d36e972-e325-11ce-bfc1-08002be10318}"
SYSTEM = "{4d36e97d-e325-11ce-bfc1-08002be10318}"

STORAGE_INF = """\
;/*++ a driver of a test --*/
[Version]
Signature="$Windows NT$"
Class=SCSIAdapter
ClassGUID={guid}
Provider=%VENDOR%
DriverVer={date},{version} ; stamped
CatalogFile={name}.cat
DriverPackageType = PlugAndPlay
PnpLockdown=1

[SourceDisksNames]
1 = %DiskId1%,,,""

[SourceDisksFiles]
{name}.sys = 1,,

[DestinationDirs]
{name}_Files_Driver = {dirid}

[Manufacturer]
%VENDOR%   = Disks,NT{decoration}

[Disks.NT{decoration}]
%Disk.DeviceDesc% = scsi_inst, PCI\\VEN_1AF4&DEV_{old}&SUBSYS_{subsystem}1AF4&REV_00, PCI\\VEN_1AF4&DEV_{old}
%Disk.DeviceDesc% = scsi_inst, PCI\\VEN_1AF4&DEV_{new}&SUBSYS_11001AF4&REV_01, PCI\\VEN_1AF4&DEV_{new}

[{name}_Files_Driver]
{name}.sys,,,2

[scsi_inst]
CopyFiles={name}_Files_Driver

[scsi_inst.Services]
AddService = {name}, 0x00000002 , scsi_Service_Inst, scsi_EventLog_Inst

[scsi_Service_Inst]
ServiceType    = %SERVICE_KERNEL_DRIVER%
StartType      = %SERVICE_BOOT_START%
ErrorControl   = %SERVICE_ERROR_NORMAL%
ServiceBinary  = %{dirid}%\\{name}.sys
LoadOrderGroup = SCSI miniport
AddReg         = pnpsafe_pci_addreg

[scsi_inst.HW]
AddReg         = pnpsafe_pci_addreg_msix

[scsi_EventLog_Inst]
AddReg = scsi_EventLog_AddReg

[scsi_EventLog_AddReg]
HKR,,EventMessageFile,%REG_EXPAND_SZ%,"%%SystemRoot%%\\System32\\IoLogMsg.dll"
HKR,,TypesSupported,%REG_DWORD%,7

[pnpsafe_pci_addreg]
HKR, "Parameters\\PnpInterface", "5", %REG_DWORD%, 0x00000001
HKR, "Parameters", "BusType", %REG_DWORD%, {bus}

[pnpsafe_pci_addreg_msix]
HKR, "Interrupt Management",, 0x00000010
HKR, "Interrupt Management\\MessageSignaledInterruptProperties",, 0x00000010
HKR, "Interrupt Management\\MessageSignaledInterruptProperties", MSISupported, 0x00010001, 1
HKR, "Interrupt Management\\MessageSignaledInterruptProperties", MessageNumberLimit, 0x00010001, 256
HKR, "Interrupt Management\\Affinity Policy",, 0x00000010
HKR, "Interrupt Management\\Affinity Policy", DevicePolicy, 0x00010001, 5

[Strings]
VENDOR = "Red Hat, Inc."
diskId1 = "Installation Disk"
Disk.DeviceDesc = "Red Hat VirtIO SCSI controller"

REG_EXPAND_SZ  = 0x00020000
REG_DWORD      = 0x00010001
SERVICE_KERNEL_DRIVER  = 1
SERVICE_BOOT_START     = 0
SERVICE_ERROR_NORMAL   = 1
"""

NET_INF = """\
[version]\x20
Signature   = "$Windows NT$"\x20
Class       = Net\x20
CatalogFile = netkvm.cat\x20
ClassGUID   = {guid}\x20
Provider=%VENDOR%
DriverVer={date},{version}
DriverPackageType = PlugAndPlay\x20

[Manufacturer]\x20
%VENDOR% = NetKVM, NT{decoration}

[NetKVM.NT{decoration}]
%kvmnet6.DeviceDesc%    = kvmnet6.ndi, PCI\\VEN_1AF4&DEV_1000&SUBSYS_00011AF4&REV_00, PCI\\VEN_1AF4&DEV_1000
%kvmnet6.DeviceDesc%    = kvmnet6.ndi, PCI\\VEN_1AF4&DEV_1041&SUBSYS_11001AF4&REV_01, PCI\\VEN_1AF4&DEV_1041

[kvmnet6.ndi.hw]
AddReg          = kvmnet6.EnableMSI

[kvmnet6.EnableMSI]
HKR, "Interrupt Management\\MessageSignaledInterruptProperties", MSISupported, 0x00010001, 1

[kvmnet6.ndi]
Characteristics = 0x84 ; NCF_PHYSICAL  | NCF_HAS_UI
BusType     = 5 ; PCI
AddReg          = kvmnet6.Reg
CopyFiles       = kvmnet6.CopyFiles
*IfType         = 6

[kvmnet6.ndi.Services]
AddService      = netkvm, 2, kvmnet6.Service, kvmnet6.EventLog

[kvmnet6.Reg]
HKR, Ndi,                         Service,             0, "netkvm"

[kvmnet6.CopyFiles]
netkvm.sys,,,2

[kvmnet6.Service]
DisplayName     = %kvmnet6.Service.DispName%
ServiceType     = 1 ;%SERVICE_KERNEL_DRIVER%
StartType       = 3 ;%SERVICE_DEMAND_START%
ErrorControl    = 1 ;%SERVICE_ERROR_NORMAL%
ServiceBinary   = %12%\\netkvm.sys
LoadOrderGroup  = NDIS
AddReg          = TextModeFlags.Reg

[kvmnet6.EventLog]
AddReg = kvmnet6.AddEventLog.Reg

[kvmnet6.AddEventLog.Reg]
HKR, , EventMessageFile, 0x00020000, "%%SystemRoot%%\\System32\\netevent.dll"
HKR, , TypesSupported,   0x00010001, 7

[TextModeFlags.Reg]
HKR,,TextModeFlags,0x00010001, 0x0001
HKR,Parameters,DisableMSI,,"0"

[SourceDisksNames]
1 = %DiskId1%,,,""

[SourceDisksFiles]
netkvm.sys  = 1,,

[DestinationDirs]
kvmnet6.CopyFiles = 12

[Strings]
VENDOR = "Red Hat, Inc."
kvmnet6.DeviceDesc        = "Red Hat VirtIO Ethernet Adapter"
kvmnet6.Service.DispName    = "Red Hat VirtIO Ethernet Adapter Service"
DiskId1 = "Driver Disk #1"
Tx = "Tx Enabled";
"""

FRAMEWORK_INF = """\
[Version]
Signature="$WINDOWS NT$"
Class=System
ClassGuid={guid}
Provider=%VENDOR%
DriverVer={date},{version}
CatalogFile={file}.cat
DriverPackageType = PlugAndPlay
PnpLockdown = 1

[DestinationDirs]
DefaultDestDir = 12

[SourceDisksFiles]
{file}.sys  = 1,,

[SourceDisksNames]
1 = %DiskId1%,,,""

[Manufacturer]
%VENDOR%={name},NT{decoration}

[{name}.NT{decoration}]
%{name}.DeviceDesc%={name}_Device, PCI\\VEN_1AF4&DEV_{old}&SUBSYS_{subsystem}1AF4&REV_00, PCI\\VEN_1AF4&DEV_{old}
%{name}.DeviceDesc%={name}_Device, PCI\\VEN_1AF4&DEV_{new}&SUBSYS_11001AF4&REV_01, PCI\\VEN_1AF4&DEV_{new}

[{name}_Device.NT]
CopyFiles=Drivers_Dir

{hardware}
[Drivers_Dir]
{file}.sys

[{name}_Device.NT.Services]
AddService = {name}, 0x00000002, {name}_Service_Inst

[{name}_Service_Inst]
DisplayName    = %{name}.ServiceDesc%
ServiceType    = 1               ; SERVICE_KERNEL_DRIVER
StartType      = 3               ; SERVICE_DEMAND_START
ErrorControl   = 1               ; SERVICE_ERROR_NORMAL
ServiceBinary  = %12%\\{file}.sys

[{name}_Device.NT.Wdf]
KmdfService =  {name}, {name}_wdfsect
[{name}_wdfsect]
KmdfLibraryVersion = 1.15

[Strings]
VENDOR = "Red Hat, Inc."
DiskId1 = "Installation Disk #1"
{name}.DeviceDesc = "VirtIO {name} Driver"
{name}.ServiceDesc = "VirtIO {name} Service"
"""
HARDWARE = """\
[{name}_Device.NT.HW]
AddReg={name}_AddReg

[{name}_AddReg]
HKR,Interrupt Management,,0x00000010
HKR,Interrupt Management\\MessageSignaledInterruptProperties,,0x00000010
HKR,Interrupt Management\\MessageSignaledInterruptProperties,MSISupported,0x00010001,1
HKR,Interrupt Management\\MessageSignaledInterruptProperties,MessageNumberLimit,0x00010001,2
"""
PROPERTY = """\
[BALLOON_Device.NT.HW]
AddReg=BALLOON_SD

[BALLOON_SD]
HKR,,Security,,"D:P(A;;GA;;;SY)"
"""


@dataclass(frozen=True)
class Stamp:
    """What a build of virtio-win puts into its INF files."""

    decoration: str = "amd64.10.0"
    date: str = "01/12/2022"
    version: str = "100.90.104.21500"
    dirid: int = 12


def inf(driver: str, stamp: Stamp = Stamp()) -> str:
    """The text of an INF of virtio-win: viostor, vioscsi, NetKVM, Balloon or vioserial."""
    values = {"decoration": stamp.decoration, "date": stamp.date, "version": stamp.version, "dirid": stamp.dirid}
    match driver:
        case "viostor":
            more = {"name": "viostor", "old": "1001", "new": "1042", "subsystem": "0002", "bus": "0x00000001"}
            return STORAGE_INF.format(guid=SCSI, **values, **more)
        case "vioscsi":
            more = {"name": "vioscsi", "old": "1004", "new": "1048", "subsystem": "0008", "bus": "0x0000000A"}
            return STORAGE_INF.format(guid=SCSI, **values, **more)
        case "NetKVM":
            return NET_INF.format(guid=NET, **values)
        case "Balloon":
            more = {"name": "BALLOON", "file": "balloon", "old": "1002", "new": "1045", "subsystem": "0005"}
            return FRAMEWORK_INF.format(guid=SYSTEM, hardware=PROPERTY, **values, **more)
        case "vioserial":
            more = {"name": "VirtioSerial", "file": "vioser", "old": "1003", "new": "1043", "subsystem": "0003"}
            hardware = HARDWARE.format(name="VirtioSerial")
            return FRAMEWORK_INF.format(guid=SYSTEM, hardware=hardware, **values, **more)
        case "viorng":
            more = {"name": "VirtRng", "file": "viorng", "old": "1005", "new": "1044", "subsystem": "0004"}
            return FRAMEWORK_INF.format(guid=SYSTEM, hardware=HARDWARE.format(name="VirtRng"), **values, **more)
    raise ValueError(driver)


FILES = {"viostor": "viostor", "vioscsi": "vioscsi", "NetKVM": "netkvm", "Balloon": "balloon", "vioserial": "vioser"}
"""Names of INF, catalogue and driver, by the folder of virtio-win; some discs also have viorng."""


# ---------------------------------------------------------------- programs


def program(architecture: str = "amd64", version: tuple[int, int, int, int] = (100, 90, 104, 21500)) -> bytes:
    """A driver that does nothing: a PE with code and a version."""
    machine, magic = {"amd64": (0x8664, 0x20B), "x86": (0x14C, 0x10B), "arm64": (0xAA64, 0x20B)}[architecture]
    optional_size = 240 if magic == 0x20B else 224
    text = b"\xc3".ljust(512, b"\xcc")
    resources = _resources(0x2000, version).ljust(512, b"\0")
    header = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)
    coff = struct.pack("<4sHHIIIHH", b"PE\0\0", machine, 2, 0, 0, 0, optional_size, 0x2022)
    optional = bytearray(optional_size)
    struct.pack_into("<H", optional, 0, magic)
    struct.pack_into("<I", optional, 16, 0x1000)  # entry point
    struct.pack_into("<II", optional, 32, 0x1000, 0x200)
    struct.pack_into("<HHHH", optional, 40, 10, 0, 10, 0)
    struct.pack_into("<H", optional, 48, 10)
    struct.pack_into("<II", optional, 56, 0x3000, 0x200)
    struct.pack_into("<H", optional, 68, 1)  # native
    directories = 112 if magic == 0x20B else 96
    struct.pack_into("<I", optional, directories - 4, 16)
    struct.pack_into("<II", optional, directories + 2 * 8, 0x2000, 512)
    sections = struct.pack("<8sIIIIIIHHI", b".text", 1, 0x1000, 512, 0x200, 0, 0, 0, 0, 0x60000020)
    sections += struct.pack("<8sIIIIIIHHI", b".rsrc", 512, 0x2000, 512, 0x400, 0, 0, 0, 0, 0x40000040)
    return (header + coff + bytes(optional) + sections).ljust(0x200, b"\0") + text + resources


def _resources(address: int, version: tuple[int, int, int, int]) -> bytes:
    """Type, name and language of one version resource."""

    def directory(number: int, to: int, below: bool) -> bytes:
        return struct.pack("<IIHHHHII", 0, 0, 0, 0, 0, 1, number, to | (0x80000000 if below else 0))

    first, second, third, fourth = version
    numbers = (0xFEEF04BD, 0x10000, first << 16 | second, third << 16 | fourth, first << 16 | second)
    fixed = struct.pack("<13I", *numbers, third << 16 | fourth, 0x3F, 0, 0x40004, 3, 7, 0, 0)
    name = "VS_VERSION_INFO\0".encode("utf-16-le")
    head = struct.pack("<HHH", 40 + len(fixed), len(fixed), 0) + name
    value = head.ljust(40, b"\0") + fixed
    table = directory(16, 24, True) + directory(1, 48, True) + directory(0x409, 72, False)
    return table + struct.pack("<IIII", address + 88, len(value), 0, 0) + value


# ---------------------------------------------------------------- the whole


@dataclass(frozen=True)
class Package:
    """A folder of virtio-win: driver, release, architecture."""

    driver: str
    folder: str
    stamp: Stamp = Stamp()
    architecture: str = "amd64"
    utf_16: bool = False

    signed: Signed = "both"

    def write(self, root: Path, signer: Signer | None) -> Path:
        """In a folder; signed as the real ones are: the driver itself, and a catalogue of INF and driver."""
        place = root / self.driver / self.folder / self.architecture
        place.mkdir(parents=True)
        for name, data in self.files(signer).items():
            (place / name).write_bytes(data)
        return place

    def files(self, signer: Signer | None) -> dict[str, bytes]:
        name = FILES.get(self.driver, self.driver)
        text = inf(self.driver, self.stamp).replace("\n", "\r\n").encode("utf-16" if self.utf_16 else "utf-8")
        driver = program(self.architecture)
        found = {f"{name}.inf": text, f"{name}.sys": driver, f"{name}.pdb": b"symbols"}
        if signer is None:
            return found
        if self.signed in ("both", "driver"):
            found[f"{name}.sys"] = signer.sign_driver(driver)
        if self.signed in ("both", "catalogue"):
            found[f"{name}.cat"] = signer.sign_catalog([hashlib.sha256(text).digest(), authenticode_digest(driver)])
        return found


WINDOWS_10, WINDOWS_2012_R2 = Stamp(), Stamp(decoration="amd64.6.3", version="100.85.104.20800")
ALL = tuple(Package(driver, folder, WINDOWS_10) for driver in FILES for folder in ("w10", "2k19")) + tuple(
    Package(driver, "2k12R2", WINDOWS_2012_R2, utf_16=True) for driver in FILES
)


def tree(root: Path, signer: Signer | None, packages: tuple[Package, ...] = ALL) -> Path:
    """The folder of an ISO of virtio-win."""
    root.mkdir(parents=True, exist_ok=True)
    for package in packages:
        package.write(root, signer)
    agent = root / "guest-agent"
    agent.mkdir()
    (agent / "qemu-ga-x86_64.msi").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504))
    (agent / "qemu-ga-i386.msi").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1016))
    (root / "virtio-win_license.txt").write_text("licence")
    return root


def image(root: Path, path: Path, *options: str) -> Path:
    """An ISO of a folder, by default with names of both Rock Ridge and Joliet."""
    chosen = options or ("-rock", "-joliet", "-iso-level", "4")
    sh("genisoimage", "-quiet", "-V", "virtio-win-0.1.266", *chosen, "-o", path, root)
    return path
