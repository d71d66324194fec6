"""The files of an installed Windows: names as Windows spells them, contents of our own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tests.guests.windows.machine import Windows
from tests.support.virtio_win import program

SYSTEM32 = "Windows/System32"
CONFIG = f"{SYSTEM32}/config"
REPOSITORY = f"{SYSTEM32}/DriverStore/FileRepository"
DRIVERS = ("ACPI", "pci", "disk", "partmgr", "volmgr", "mountmgr", "atapi", "intelide", "pciide", "lsi_sas", "ntfs")
DRIVERS_SINCE_8, DRIVERS_BEFORE_8 = ("storahci", "stornvme", "e1i65x64"), ("msahci", "e1i62x64")
DRIVERS_OF_VMWARE = ("pvscsi", "vmci", "vsock", "vm3dmp", "vm3dmp_loader", "vmmouse", "vmrawdsk", "vmmemctl", "vmxnet3")
EMPTY_FOLDERS = (
    *("PerfLogs", "ProgramData/Microsoft/Windows/Start Menu", "Program Files/Common Files", "Windows/Temp"),
    *("Users/Administrator/Desktop", "Users/Public/Documents", "Users/Default/AppData/Roaming"),
    *("Windows/System32/GroupPolicy", "Windows/SysWOW64", "Windows/Setup/Scripts", "System Volume Information"),
)
EFI_LOADER = "EFI/Microsoft/Boot/bootmgfw.efi"


def system_files(windows: Windows) -> dict[str, bytes]:
    """On the volume of Windows; the hives come on top of these."""
    files = {f"{SYSTEM32}/{name}.exe": _program(windows, name) for name in ("cmd", "ntoskrnl", "svchost", "pnputil")}
    own = DRIVERS_SINCE_8 if windows.release.has_driver_database else DRIVERS_BEFORE_8
    for name in (*DRIVERS, *own, *DRIVERS_OF_VMWARE):
        files[f"{SYSTEM32}/drivers/{name}.sys"] = _program(windows, name)
    files |= _packages(windows)
    files["Windows/INF/setupapi.dev.log"] = b"[Device Install Log]\r\n" * 300
    files[f"{SYSTEM32}/winevt/Logs/System.evtx"] = b"ElfFile\0".ljust(69632, b"\0")
    files["Windows/System32/DriverStore/infpub.dat"] = bytes(4096)
    files["Program Files/VMware/VMware Tools/vmtoolsd.exe"] = _program(windows, "vmtoolsd")
    files["Users/Administrator/NTUSER.DAT"] = bytes(1024)
    files["Users/desktop.ini"] = "\r\n[.ShellClassInfo]\r\n".encode("utf-16")
    files["inetpub/wwwroot/Grüße an Łódź.html"] = "<html>ż</html>".encode()
    files["inetpub/wwwroot/big.bin"] = hashlib.shake_256(b"big").digest(3 << 20)
    files["pagefile.sys"] = bytes(1 << 20)
    files["$Recycle.Bin/S-1-5-18/desktop.ini"] = b"[.ShellClassInfo]\r\n"
    return files


def loader_files(windows: Windows) -> dict[str, bytes]:
    """On the system partition; the boot configuration comes on top of these."""
    if windows.firmware == "uefi":
        return {name: _program(windows, name) for name in (EFI_LOADER, "EFI/Microsoft/Boot/memtest.efi")}
    return {"bootmgr": b"BOOTMGR stub" * 100, "BOOTNXT": b"\x01", "Boot/memtest.exe": _program(windows, "memtest")}


RECOVERY_FILES: Mapping[str, bytes] = {
    "Recovery/WindowsRE/Winre.wim": b"MSWIM\0\0\0".ljust(300_000, b"\x55"),
    "Recovery/WindowsRE/boot.sdi": bytes(4096),
}


def _packages(windows: Windows) -> dict[str, bytes]:
    """Drivers that VMware Tools and Windows brought."""
    files: dict[str, bytes] = {}
    for number, name in enumerate(("pvscsi", "vmxnet3", "vmci", "mshdc", "disk")):
        folder = f"{REPOSITORY}/{name}.inf_{windows.package_architecture}_{0x8F2B1C0D3E4A5B60 + number:016x}"
        lines = ("[Version]", 'Signature="$Windows NT$"', 'Provider="VMware, Inc."', f"CatalogFile={name}.cat", "")
        text = "\r\n".join(lines).encode()
        files |= {f"{folder}/{name}.inf": text, f"{folder}/{name}.sys": _program(windows, name)}
        own = name in ("mshdc", "disk")
        files[f"Windows/INF/{name if own else f'oem{number}'}.inf"] = text
        files[f"Windows/INF/{name if own else f'oem{number}'}.PNF"] = bytes(2048)
    return files


def _program(windows: Windows, name: str) -> bytes:
    """A PE file that does nothing, and is not equal to another."""
    return program(windows.package_architecture) + name.encode() * 300
