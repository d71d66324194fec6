"""What the SYSTEM hive of a Windows under VMware holds, as far as a migration looks at it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from tests.guests.windows.adapters import HARDWARE, NET_CLASS, Adapter
from tests.guests.windows.machine import Windows
from tests.guests.windows.registry_text import Values, binary, dword, expand, qword, render, text, texts

Keys = Iterator[tuple[str, Values]]
SCSI_CLASS = "{4d36e97b-e325-11ce-bfc1-08002be10318}"
KERNEL_DRIVER, OWN_PROCESS = 1, 16
BOOT, AUTOMATIC, DEMAND, DISABLED = 0, 2, 3, 4
TOOLS = "C:\\Program Files\\VMware\\VMware Tools"
SERVICES = {
    # name: type, start, group, path of the program
    "ACPI": (KERNEL_DRIVER, BOOT, "Core", "System32\\drivers\\ACPI.sys"),
    "pci": (KERNEL_DRIVER, BOOT, "System Bus Extender", "System32\\drivers\\pci.sys"),
    "disk": (KERNEL_DRIVER, BOOT, "", "System32\\drivers\\disk.sys"),
    "partmgr": (KERNEL_DRIVER, BOOT, "Boot Bus Extender", "System32\\drivers\\partmgr.sys"),
    "volmgr": (KERNEL_DRIVER, BOOT, "System Bus Extender", "System32\\drivers\\volmgr.sys"),
    "mountmgr": (KERNEL_DRIVER, BOOT, "System Bus Extender", "System32\\drivers\\mountmgr.sys"),
    "storahci": (KERNEL_DRIVER, BOOT, "SCSI Miniport", "System32\\drivers\\storahci.sys"),
    "stornvme": (KERNEL_DRIVER, BOOT, "SCSI Miniport", "System32\\drivers\\stornvme.sys"),
    "msahci": (KERNEL_DRIVER, DEMAND, "System Bus Extender", "System32\\drivers\\msahci.sys"),
    "atapi": (KERNEL_DRIVER, BOOT, "SCSI Miniport", "System32\\drivers\\atapi.sys"),
    "intelide": (KERNEL_DRIVER, BOOT, "System Bus Extender", "System32\\drivers\\intelide.sys"),
    "pciide": (KERNEL_DRIVER, BOOT, "System Bus Extender", "System32\\drivers\\pciide.sys"),
    "LSI_SAS": (KERNEL_DRIVER, BOOT, "SCSI Miniport", "System32\\drivers\\lsi_sas.sys"),
    "pvscsi": (KERNEL_DRIVER, BOOT, "SCSI miniport", "System32\\drivers\\pvscsi.sys"),
    "vmci": (KERNEL_DRIVER, BOOT, "System Bus Extender", "System32\\drivers\\vmci.sys"),
    "vsock": (KERNEL_DRIVER, BOOT, "", "System32\\drivers\\vsock.sys"),
    "vm3dmp": (KERNEL_DRIVER, DEMAND, "Video", "System32\\drivers\\vm3dmp.sys"),
    "vm3dmp_loader": (KERNEL_DRIVER, DEMAND, "Video", "System32\\drivers\\vm3dmp_loader.sys"),
    "vmmouse": (KERNEL_DRIVER, DEMAND, "Pointer Port", "System32\\drivers\\vmmouse.sys"),
    "vmrawdsk": (KERNEL_DRIVER, 1, "", "System32\\drivers\\vmrawdsk.sys"),
    "VMMemCtl": (KERNEL_DRIVER, AUTOMATIC, "", "System32\\drivers\\vmmemctl.sys"),
    "vmxnet3ndis6": (KERNEL_DRIVER, DEMAND, "NDIS", "System32\\drivers\\vmxnet3.sys"),
    "e1iexpress": (KERNEL_DRIVER, DEMAND, "NDIS", "System32\\drivers\\e1i65x64.sys"),
    "VMTools": (OWN_PROCESS, AUTOMATIC, "", f'"{TOOLS}\\vmtoolsd.exe"'),
    "VGAuthService": (OWN_PROCESS, AUTOMATIC, "", f'"{TOOLS}\\VMware VGAuth\\VGAuthService.exe"'),
    "vmvss": (OWN_PROCESS, DEMAND, "", "C:\\Windows\\system32\\dllhost.exe /Processid:{E2C5C2B5-04E3-4A10-A7D1}"),
    "Tcpip": (KERNEL_DRIVER, BOOT, "PNP_TDI", "System32\\drivers\\tcpip.sys"),
    "NetBT": (KERNEL_DRIVER, 1, "PNP_TDI", "System32\\DRIVERS\\netbt.sys"),
    "Dhcp": (32, AUTOMATIC, "TDI", "%SystemRoot%\\system32\\svchost.exe -k LocalServiceNetworkRestricted -p"),
    "EventLog": (32, AUTOMATIC, "Event Log", "%SystemRoot%\\System32\\svchost.exe -k LocalServiceNetworkRestricted -p"),
}
SINCE_8, BEFORE_8 = ("storahci", "stornvme"), ("msahci",)
OVERRIDDEN = (*SINCE_8, "atapi", "intelide", "pciide")
"""Not needed for the disks of VMware's machine, so Windows does not start them when it boots; it does so since 8."""


def system_text(windows: Windows, mounted_devices: Mapping[str, bytes]) -> str:
    """`mounted_devices` are the drive letters and volumes of its disk."""
    mounted = {name: binary(data) for name, data in mounted_devices.items()}
    return render((("MountedDevices", mounted), *_top(windows), *_both_sets(windows), *_database(windows)))


def _top(windows: Windows) -> Keys:
    current = windows.control_set
    numbers = {"Current": current, "Default": current, "Failed": 0, "LastKnownGood": 3 - current}
    yield "Select", {name: dword(number) for name, number in numbers.items()}
    yield "Setup", {"SystemSetupInProgress": dword(0), "SetupType": dword(0), "CmdLine": text("")}


def _both_sets(windows: Windows) -> Keys:
    """The set that is not current is one of long ago: of another machine and address."""
    for number in (1, 2):
        top = f"ControlSet{number:03}"
        is_current = number == windows.control_set
        yield from ((f"{top}\\{key}", values) for key, values in _control_set(windows, is_current))


def _control_set(windows: Windows, is_current: bool) -> Keys:
    yield from _control(windows)
    yield from _services(windows)
    if not is_current:
        return
    for number, adapter in enumerate(windows.adapters, 1):
        yield from _adapter(windows, adapter, number)
        yield from _addresses(adapter)
    if not windows.release.has_driver_database:
        for device in ("VEN_15AD&DEV_07C0", "VEN_1000&DEV_0054", "CC_0101"):
            service = {"VEN_15AD&DEV_07C0": "pvscsi", "VEN_1000&DEV_0054": "LSI_SAS"}.get(device, "atapi")
            place = f"Control\\CriticalDeviceDatabase\\PCI#{device}"
            yield place, {"Service": text(service), "ClassGUID": text(SCSI_CLASS.upper())}


def _control(windows: Windows) -> Keys:
    yield "Control\\ComputerName\\ComputerName", {"ComputerName": text(windows.computer)}
    environment = {"ComSpec": expand("%SystemRoot%\\system32\\cmd.exe"), "OS": text("Windows_NT")}
    environment["PROCESSOR_ARCHITECTURE"] = text(windows.architecture)
    yield "Control\\Session Manager\\Environment", environment
    zone: dict[str, str] = {"TimeZoneKeyName": text("W. Europe Standard Time"), "Bias": dword(0xFFFFFFC4)}
    if windows.clock_in_utc == "dword":
        zone["RealTimeIsUniversal"] = dword(1)
    if windows.clock_in_utc == "qword":
        zone["RealTimeIsUniversal"] = qword(1)
    yield "Control\\TimeZoneInformation", zone
    yield "Control\\CrashControl", {"AutoReboot": dword(1), "CrashDumpEnabled": dword(7)}
    product = "ServerNT" if windows.release.is_server else "WinNT"
    yield "Control\\ProductOptions", {"ProductType": text(product)}


def _services(windows: Windows) -> Keys:
    is_8 = windows.release.has_driver_database
    for name, (kind, start, group, path) in SERVICES.items():
        if name in (BEFORE_8 if is_8 else SINCE_8):
            continue
        values = {"Type": dword(kind), "Start": dword(start), "ErrorControl": dword(1), "ImagePath": expand(path)}
        values |= {"Group": text(group)} if group else {}
        yield f"Services\\{name}", values
        if is_8 and name in OVERRIDDEN:
            yield f"Services\\{name}\\StartOverride", {"0": dword(3)}
    yield "Services\\partmgr\\Parameters", {"SanPolicy": dword(windows.san_policy)}
    yield "Services\\disk\\Enum", {"0": text("SCSI\\Disk&Ven_VMware&Prod_Virtual_disk\\5&1ec51bf7&0&000000")}
    if windows.is_clustered:
        service = {"Type": dword(OWN_PROCESS), "Start": dword(AUTOMATIC), "ErrorControl": dword(1)}
        yield "Services\\ClusSvc", service | {"ImagePath": expand("%SystemRoot%\\Cluster\\clussvc.exe -s")}


def _adapter(windows: Windows, adapter: Adapter, number: int) -> Keys:
    driver = f"{NET_CLASS.lower()}\\{number:04}"
    service = "vmxnet3ndis6" if adapter.model == "vmxnet3" else "e1iexpress"
    yield (
        f"Enum\\{adapter.device}",
        {
            "HardwareID": texts(f"PCI\\{HARDWARE[adapter.model]}", f"PCI\\{HARDWARE[adapter.model][:17]}"),
            "ClassGUID": text(NET_CLASS.lower()),
            "Driver": text(driver),
            "Service": text(service),
            "ConfigFlags": dword(0),
            "LocationInformation": text(f"@System32\\drivers\\pci.sys,#65536;PCI bus %1;({2 + number},0,0)"),
        },
    )
    yield (
        f"Control\\Class\\{driver}",
        {
            "NetCfgInstanceId": text(adapter.guid),
            "DriverDesc": text("vmxnet3 Ethernet Adapter" if adapter.model == "vmxnet3" else "Intel(R) 82574L"),
            "DeviceInstanceID": text(adapter.device),
            "ComponentId": text(f"PCI\\{HARDWARE[adapter.model][:17]}"),
        },
    )
    connection = {"Name": text(adapter.name), "PnPInstanceID": text(adapter.device), "DefaultNameIndex": dword(number)}
    yield f"Control\\Network\\{NET_CLASS}\\{adapter.guid}\\Connection", connection
    if windows.release.is_10_or_later:
        kernel = {"PermanentAddress": binary(bytes.fromhex(adapter.mac)), "IfAlias": text(adapter.name)}
        yield f"Control\\NetworkSetup2\\Interfaces\\{adapter.guid}\\Kernel", kernel


def _addresses(adapter: Adapter) -> Keys:
    place = f"Services\\Tcpip\\Parameters\\Interfaces\\{adapter.guid}"
    values = {"EnableDHCP": dword(0 if adapter.address else 1), "Domain": text(adapter.domain)}
    values["NameServer"] = text(",".join(adapter.servers))
    if adapter.address:
        values["IPAddress"] = texts(adapter.address.address)
        values["SubnetMask"] = texts(adapter.address.mask)
        values["DefaultGateway"] = texts(*filter(None, (adapter.address.gateway,)))
        values["DefaultGatewayMetric"] = texts("0")
    else:
        values["DhcpIPAddress"], values["DhcpSubnetMask"] = text("198.51.100.77"), text("255.255.255.0")
        values["DhcpNameServer"], values["LeaseObtainedTime"] = text("198.51.100.1"), dword(0x65000000)
    yield place, values
    yield f"Services\\Tcpip6\\Parameters\\Interfaces\\{adapter.guid}", {"EnableDHCP": dword(1)}
    netbios = {"NetbiosOptions": dword(2 if adapter.address else 0), "NameServerList": texts()}
    yield f"Services\\NetBT\\Parameters\\Interfaces\\Tcpip_{adapter.guid}", netbios


def _database(windows: Windows) -> Keys:
    """The boot-critical part of the driver database; the rest of it lies in the hive DRIVERS."""
    if not windows.release.has_driver_database:
        return
    architecture = windows.package_architecture
    yield "DriverDatabase", {"OemInfMap": binary(b"\xe0"), "Version": dword(0x0A000000), "Architecture": dword(9)}
    package = f"pvscsi.inf_{architecture}_8f2b1c0d3e4a5b6c"
    yield "DriverDatabase\\DriverInfFiles\\oem1.inf", {"@": texts(package), "Active": text(package)}
    yield "DriverDatabase\\DeviceIds\\PCI\\VEN_15AD&DEV_07C0", {"oem1.inf": binary(b"\x01\xff\0\0")}
    version = struct.pack("<II", 0xFF00, 9) + _guid_bytes(SCSI_CLASS) + bytes(24)
    facts = {"@": text("oem1.inf"), "Version": binary(version), "Provider": text("VMware, Inc.")}
    place = f"DriverDatabase\\DriverPackages\\{package}"
    yield place, facts | {"InfName": text("pvscsi.inf")}
    yield f"{place}\\Configurations\\pvscsi", {"ConfigFlags": dword(0), "Service": text("pvscsi")}
    yield f"{place}\\Descriptors\\PCI\\VEN_15AD&DEV_07C0", {"Configuration": text("pvscsi")}
    for number in range(windows.known_devices):
        device = f"VEN_{0x8086 + number % 7:04X}&DEV_{number * 17 % 65536:04X}"
        yield f"DriverDatabase\\DeviceIds\\PCI\\{device}", {"mshdc.inf": binary(b"\x01\xff\0\0")}


def _guid_bytes(guid: str) -> bytes:
    one, two, three, four, five = guid.strip("{}").split("-")
    return struct.pack("<IHH", int(one, 16), int(two, 16), int(three, 16)) + bytes.fromhex(four + five)
