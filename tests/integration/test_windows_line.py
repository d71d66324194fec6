"""Windows disks through the whole line, as `h2kvmctl --config` and the daemon run it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.guests.altered import image_of
from tests.guests.windows import states
from tests.guests.windows.adapters import DHCP, STATIC, Adapter
from tests.guests.windows.driver_disc import driver_folder
from tests.guests.windows.files import CONFIG
from tests.guests.windows.machine import Windows
from tests.guests.windows.releases import SERVER_2008_R2, SERVER_2012_R2, SERVER_2019, WINDOWS_11
from tests.support import ntfs_judges
from tests.support.ctl import ctl
from tests.support.disks import empty_disk, sh
from tests.support.hive_judges import REG_DWORD, REG_MULTI_SZ, REG_SZ, Value
from tests.support.service import fingerprint, running
from tests.support.windows_beds import Beds
from tests.support.windows_repair import Judged, repair_image

FAILED = 1
GUESTS = (Windows(release=SERVER_2019, san_policy=3, clock_in_utc="dword"), Windows(WINDOWS_11, firmware="uefi"))
REFUSALS = {
    "guest-hibernated": (states.hibernated, states.resuming, states.woken, states.log_of_fast_startup),
    "windows-unclean": (states.to_be_checked, states.unclean_log),
    "windows-bitlocker": (states.encrypted,),
    "windows-dynamic-disk": (states.dynamic,),
}

SERVICE = "ControlSet001\\Services\\hyper2kvm-first-boot"
SCRIPT, AGENT = f"{CONFIG}/hyper2kvm-first-boot.ps1", f"{CONFIG}/hyper2kvm-qemu-ga.msi"


def line(folder: Path, vmdk: Path, **keys: object) -> subprocess.CompletedProcess[str]:
    config = folder / "win.yaml"
    asked = {"vmdk": vmdk, "vm_name": "win", "output_dir": folder / "images", "verify": "content", **keys}
    config.write_text("".join(f"{key}: {json.dumps(value, default=str)}\n" for key, value in asked.items()))
    return ctl("--config", config, "--conversion-dir", folder / "work", cwd=folder)


def report(folder: Path) -> Any:
    return json.loads((folder / "images/win.report.json").read_text())


@pytest.mark.parametrize("windows", GUESTS, ids=lambda windows: f"{windows.release.name}-{windows.firmware}")
def test_windows_goes_through_the_line(windows_beds: Beds, virtio_win: Path, tmp_path: Path, windows: Windows) -> None:
    """Domain and image fit each other, the rest of the disk is untouched, and the report says what was done."""
    vmdk = windows_beds.vmdk(tmp_path / "export", windows)
    before = fingerprint(vmdk.parent)
    done = line(tmp_path, vmdk, virtio_win=virtio_win)
    assert done.returncode == 0, done.stderr
    assert fingerprint(vmdk.parent) == before

    raws = [tmp_path / name for name in ("source.raw", "image.raw")]
    for image, raw in zip((vmdk, tmp_path / "images/win.qcow2"), raws, strict=True):
        sh("qemu-img", "convert", "-O", "raw", image, raw)
    disk = replace(windows_beds.disk(tmp_path / "bed.raw", windows), path=raws[0])
    source, made = Judged(disk), Judged(replace(disk, path=raws[1]))
    changed = {path for path, entry in source.files.items() if made.files[path] != entry}
    assert changed == {f"{CONFIG}/{name}" for name in ("SYSTEM", "SOFTWARE", "DRIVERS")}

    told = report(tmp_path)
    facts = {file["sha256"] for driver in told["guest"]["windows"]["drivers"] for file in driver["files"]}
    assert facts <= {entry.digest for entry in made.files.values()}
    assert told["guest"]["windows"]["build"] == windows.release.build
    domain = ElementTree.parse(tmp_path / "images/win.xml").getroot()
    assert [target.get("bus") for target in domain.findall("devices/disk[@device='disk']/target")] == ["virtio"]
    clock = domain.find("clock")
    assert clock is not None
    assert clock.get("offset") == ("utc" if windows.clock_in_utc != "no" else "localtime")
    assert domain.find("clock/timer[@name='hypervclock']") is not None
    assert domain.find("features/hyperv") is not None
    text = (tmp_path / "images/win.report.md").read_text()
    assert all(word in text for word in ("viostor", "192.0.2.21", "Microsoft Windows Hardware", "StartOverride"))


# ---------------------------------------------------------------- the first boot


def texts(*parts: str) -> Value:
    return REG_MULTI_SZ, "".join(f"{part}\0" for part in (*parts, "")).encode("utf-16-le")


def text(content: str) -> Value:
    return REG_SZ, f"{content}\0".encode("utf-16-le")


def dword(number: int) -> Value:
    return REG_DWORD, number.to_bytes(4, "little")


def card(mac: str) -> str:
    return f"{SERVICE}\\Parameters\\Network\\{mac}"


def identity(adapter: Adapter) -> dict[str, Value]:
    mac = ":".join(adapter.mac[at : at + 2] for at in range(0, 12, 2)).upper()
    return {"Mac": text(mac), "Name": text(adapter.name), "Guid": text(adapter.guid)}


@dataclass(frozen=True)
class Asked:
    """Keys of the migration, and what they leave for the first boot."""

    name: str
    keys: Mapping[str, object]
    steps: tuple[str, ...] = ()
    values: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    """Below keys of the service, some of those that are there."""
    lines: tuple[str, ...] = ()
    """In the report."""
    concerns: tuple[str, ...] = ()


NEW = {"mac": "00-50-56-A1-B2-C3", "address": "198.51.100.7/25", "gateway": "198.51.100.1", "dns": ["198.51.100.53"]}
OTHER = {"mac": "00:0c:29:f3:ff:de", "address": "203.0.113.9/24"}
NOBODY = {"mac": "52:54:00:00:00:01", "address": "203.0.113.10/24"}
TOOLS_LINE, AGENT_LINE = "VMware Tools are uninstalled", "QEMU's guest agent is installed"
ASKED = (
    Asked("dhcp", {"win_net": "dhcp"}),
    Asked("tools", {"win_net": "dhcp", "win_tools": "remove"}, ("tools",), lines=(TOOLS_LINE,)),
    Asked("agent", {"win_net": "dhcp", "win_agent": True}, ("agent",), lines=(AGENT_LINE,)),
    Asked(
        "list",
        {"win_net": [NEW, OTHER, NOBODY]},
        ("network",),
        {
            card(STATIC.mac): identity(STATIC),
            f"{card(STATIC.mac)}\\Tcpip": {
                "EnableDHCP": dword(0),
                "IPAddress": texts("198.51.100.7"),
                "SubnetMask": texts("255.255.255.128"),
                "DefaultGateway": texts("198.51.100.1"),
                "NameServer": text("198.51.100.53"),
            },
            f"{card(DHCP.mac)}\\Tcpip": {
                "EnableDHCP": dword(0),
                "IPAddress": texts("203.0.113.9"),
                "SubnetMask": texts("255.255.255.0"),
                "DefaultGateway": texts(),
                "NameServer": text(""),
            },
        },
        ("the card 00:50:56:a1:b2:c3 gets the address 198.51.100.7/25", "the card 00:0c:29:f3:ff:de gets"),
        ("windows-address-unused",),
    ),
    Asked(
        "all",
        {"win_tools": "remove", "win_agent": True},
        ("network", "tools", "agent"),
        {f"{card(STATIC.mac)}\\Tcpip": {"IPAddress": texts("192.0.2.21"), "SubnetMask": texts("255.255.255.0")}},
        ("the card 00:50:56:a1:b2:c3 gets the address 192.0.2.21", TOOLS_LINE, AGENT_LINE),
    ),
)


@pytest.mark.parametrize("asked", ASKED, ids=lambda asked: asked.name)
def test_the_first_boot_gets_what_was_asked_for(
    windows_beds: Beds, virtio_win: Path, tmp_path: Path, asked: Asked
) -> None:
    """Readers of other authors find it in the image; the report has it in words; a second repair changes nothing."""
    vmdk, windows = windows_beds.vmdk(tmp_path / "export", Windows(SERVER_2019)), Windows(SERVER_2019)
    done = line(tmp_path, vmdk, virtio_win=virtio_win, **asked.keys)
    assert done.returncode == 0, done.stderr
    raw = tmp_path / "image.raw"
    sh("qemu-img", "convert", "-O", "raw", tmp_path / "images/win.qcow2", raw)
    made = Judged(replace(windows_beds.disk(tmp_path / "bed.raw", windows), path=raw))

    system = made.hive("SYSTEM")
    below = {key for key in system if key.startswith(SERVICE)}
    assert (SERVICE in below) == (SCRIPT in made.files) == bool(asked.steps)
    if asked.steps:
        assert system[SERVICE]["Start"] == dword(2) and system[SERVICE]["ObjectName"] == text("LocalSystem")
        assert system[f"{SERVICE}\\Parameters"]["Steps"] == texts(*asked.steps)
        script = resources.files("hyper2kvmd.guest.windows").joinpath("first_boot.ps1").read_bytes()
        assert made.files[SCRIPT] == ntfs_judges.as_entry(script)
    assert {key: {name: system[key][name] for name in values} for key, values in asked.values.items()} == asked.values
    assert bool({key for key in below if "Network" in key}) == ("network" in asked.steps)
    assert (AGENT in made.files) == ("agent" in asked.steps)
    if "agent" in asked.steps:
        assert made.files[AGENT] == ntfs_judges.as_entry(installer(virtio_win))

    told, shown = report(tmp_path)["guest"], (tmp_path / "images/win.report.md").read_text()
    assert len(told["windows"]["first_boot"]) == (len(asked.lines) + 1 if asked.steps else 0)
    assert all(f"- {part}" in shown for part in asked.lines)
    assert ("Nothing is left to do" in shown) == (not asked.steps)
    assert set(asked.concerns) == {one["code"] for one in told["concerns"]} & {"windows-address-unused"}

    once = sha256(raw.read_bytes()).digest()
    (again := tmp_path / "again").mkdir()
    found = repair_image(image_of(raw), again, windows.firmware, nics=(), virtio_win=virtio_win, **asked.keys)
    assert found.changes == ()
    assert sha256(raw.read_bytes()).digest() == once


def installer(virtio_win: Path) -> bytes:
    path = "/guest-agent/qemu-ga-x86_64.msi"
    return subprocess.run(["isoinfo", "-J", "-i", virtio_win, "-x", path], capture_output=True, check=True).stdout


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
@pytest.mark.parametrize(
    ("state", "code"),
    [(state, code) for code, some in REFUSALS.items() for state in some],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_states_are_refused_by_name_before_a_byte_is_converted(
    windows_beds: Beds, virtio_win: Path, tmp_path: Path, state: states.Make, code: str, firmware: str
) -> None:
    windows = Windows(firmware="uefi" if firmware == "uefi" else "bios")
    done = line(tmp_path, windows_beds.vmdk(tmp_path / "export", windows, state), virtio_win=virtio_win)
    assert done.returncode == FAILED
    assert f"[{code}]" in done.stderr
    assert [*(tmp_path / "work").glob("**/*")] == [*(tmp_path / "images").glob("*.qcow2")] == []


def test_storage_space_is_refused_by_name(windows_beds: Beds, tmp_path: Path) -> None:
    done = line(tmp_path, windows_beds.vmdk(tmp_path / "export", Windows(firmware="uefi"), states.in_storage_space))
    assert done.returncode == FAILED and "[windows-storage-spaces]" in done.stderr


OBSTACLES: dict[str, tuple[Windows, dict[str, object]]] = {
    "windows-unsupported": (Windows(WINDOWS_11, architecture="ARM64"), {}),
    "windows-disk-driver-missing": (Windows(), {"win_disk": "virtio"}),
    "virtio-win-no-driver": (Windows(SERVER_2008_R2), {"virtio_win": "drivers"}),
}


@pytest.mark.parametrize("code", OBSTACLES)
def test_obstacles_in_windows_are_found_before_a_byte_is_converted(
    windows_beds: Beds, tmp_path: Path, code: str
) -> None:
    driver_folder(tmp_path / "drivers", folders=("2k22",))
    windows, keys = OBSTACLES[code]
    named = {name: tmp_path / str(value) if name == "virtio_win" else value for name, value in keys.items()}
    done = line(tmp_path, windows_beds.vmdk(tmp_path / "export", windows), **named)
    assert done.returncode == FAILED and f"[{code}]" in done.stderr
    assert "Converting disk" not in done.stdout + done.stderr


def test_a_dry_run_shows_the_edits_of_the_registry_and_a_plan_does_not(windows_beds: Beds, tmp_path: Path) -> None:
    line(tmp_path, windows_beds.vmdk(tmp_path / "export"), dry_run=True)
    shown = ctl("--dry-run", "--config", tmp_path / "win.yaml", cwd=tmp_path).stdout
    assert '"Start"=dword:00000004' in shown and "SYSTEM" in shown
    assert "dword:" not in ctl("plan", tmp_path / "win.yaml", cwd=tmp_path).stdout
    assert not (tmp_path / "images").exists()


def test_warnings_about_windows_come_before_the_conversion_and_once(windows_beds: Beds, tmp_path: Path) -> None:
    said_before_the_conversion(line(tmp_path, windows_beds.vmdk(tmp_path / "export")), "windows-no-virtio")


def test_signatures_that_windows_may_refuse_are_named_before_the_conversion(
    windows_beds: Beds, virtio_win: Path, tmp_path: Path
) -> None:
    vmdk = windows_beds.vmdk(tmp_path / "export", Windows(release=SERVER_2012_R2))
    done = line(tmp_path, vmdk, virtio_win=virtio_win, win_disk="scsi")
    said_before_the_conversion(done, "driver-signature-limited")


def said_before_the_conversion(done: subprocess.CompletedProcess[str], code: str) -> None:
    """Once: the repair itself does not say it again."""
    told = done.stdout + done.stderr
    assert told.count(f"[{code}]") == 1
    assert told.index(f"[{code}]") < told.index("Converting disk")


@pytest.mark.parametrize("name", ["empty.iso", "missing.iso"])
def test_useless_driver_disc_is_refused_before_a_byte_is_converted(
    windows_beds: Beds, tmp_path: Path, name: str
) -> None:
    empty_disk(tmp_path / "empty.iso", 1)
    done = line(tmp_path, windows_beds.vmdk(tmp_path / "export"), virtio_win=tmp_path / name)
    assert done.returncode == FAILED and "[virtio-win-unreadable]" in done.stderr
    assert not (tmp_path / "images/win.qcow2").exists()


def test_windows_without_drivers_gets_devices_that_it_knows(
    windows_beds: Beds, service_folder: Path, installed_helper: tuple[str, ...], tmp_path: Path
) -> None:
    """The job succeeds with a warning, which list, show and report have."""
    vmdk = windows_beds.vmdk(tmp_path / "export")
    with running(service_folder, installed_helper) as service:
        source = service.source(vmdk)
        service.drop("win.yaml", vmdk=source, vm_name="win", verify="content")
        job = service.succeeded("win")
        assert "windows-no-virtio" in {concern["code"] for concern in service.report("win")["guest"]["concerns"]}
        assert "SATA disks and e1000e" in (service.images / "win.report.md").read_text()
        assert "SATA disks and e1000e" in service.ctl("show", job.id).stdout
        assert "warning" in service.ctl("list").stdout
        domain = ElementTree.parse(service.images / "win.xml").getroot()
    assert [target.get("bus") for target in domain.findall("devices/disk[@device='disk']/target")] == ["sata"]
    assert {model.get("type") for model in domain.findall("devices/interface/model")} == {"e1000e"}
