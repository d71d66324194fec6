"""What the hives SOFTWARE and DRIVERS of a Windows under VMware hold, as far as a migration looks at them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.guests.windows.machine import Windows
from tests.guests.windows.registry_text import Values, binary, dword, expand, render, text, texts

VMWARE_TOOLS = "{2A5B7F3D-6C1E-4B8A-9D42-7E0F1C3B5A66}"
DEFAULT_POLICY = "{31B2F340-016D-11D2-945F-00C04FB984F9}"
GROUP_POLICY = "{35378EAC-683F-11D2-A89A-00C04FBBCFA2}"


def software_text(windows: Windows) -> str:
    return render(_software(windows))


def _software(windows: Windows) -> Iterator[tuple[str, Values]]:
    release = windows.release
    nt = {
        "ProductName": text(release.product),
        "CurrentVersion": text(release.version),
        "CurrentBuild": text(str(release.build)),
        "CurrentBuildNumber": text(str(release.build)),
        "CurrentType": text("Multiprocessor Free"),
        "EditionID": text(release.edition),
        "InstallationType": text("Server" if release.is_server else "Client"),
        "SystemRoot": text("C:\\Windows"),
        "PathName": text("C:\\Windows"),
    }
    if release.is_10_or_later:
        nt |= {"CurrentMajorVersionNumber": dword(10), "CurrentMinorVersionNumber": dword(0), "UBR": dword(4291)}
    if release.display:
        nt["DisplayVersion"] = text(release.display)
    yield "Microsoft\\Windows NT\\CurrentVersion", nt
    current = "Microsoft\\Windows\\CurrentVersion"
    folders = {"ProgramFilesDir": text("C:\\Program Files"), "CommonFilesDir": text("C:\\Program Files\\Common Files")}
    yield current, folders | {"DevicePath": expand("%SystemRoot%\\inf")}
    yield f"{current}\\Setup\\PnpLockdownFiles", {}
    yield f"{current}\\Group Policy\\History", {}
    if windows.has_group_policy:
        values = {"DisplayName": text("Default Domain Policy"), "GPOName": text(DEFAULT_POLICY)}
        yield f"{current}\\Group Policy\\History\\{GROUP_POLICY}\\0", values
    tools = {"DisplayName": text("VMware Tools"), "Publisher": text("VMware, Inc."), "WindowsInstaller": dword(1)}
    tools["UninstallString"] = expand(f"MsiExec.exe /I{VMWARE_TOOLS}")
    yield f"{current}\\Uninstall\\{VMWARE_TOOLS}", tools
    yield "VMware, Inc.\\VMware Tools", {"InstallPath": text("C:\\Program Files\\VMware\\VMware Tools\\")}
    yield "Classes\\.txt", {"@": text("txtfile")}
    yield "Policies\\Microsoft\\Windows", {}


def drivers_text(windows: Windows) -> str:
    """The driver database from Windows 8 on."""
    package = f"vmxnet3.inf_{windows.package_architecture}_1c0d3e4a5b6c8f2b"
    return render(
        (
            ("DriverDatabase", {"OemInfMap": binary(b"\xe0"), "Version": dword(0x0A000000)}),
            ("DriverDatabase\\DriverInfFiles\\oem2.inf", {"@": texts(package), "Active": text(package)}),
            ("DriverDatabase\\DeviceIds\\PCI\\VEN_15AD&DEV_07B0", {"oem2.inf": binary(b"\x01\xff\0\0")}),
            (f"DriverDatabase\\DriverPackages\\{package}", {"@": text("oem2.inf"), "Provider": text("VMware, Inc.")}),
        )
    )
