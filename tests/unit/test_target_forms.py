"""The files that describe a machine for other platforms, byte for byte, and against the rules of those platforms."""

from __future__ import annotations

import base64
import itertools
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Layout, LocalFile, SourceDisk
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import HardwareNic, Plan, SourceNic
from hyper2kvmd.targets.kubevirt import rfc1123
from hyper2kvmd.targets.machine_files import NewMachine
from tests.support.benches import plan_for
from tests.support.kubevirt_schema import VirtualMachine, faults
from tests.support.new_machines import DEBIAN, FORMS, GIB, MACHINES, new_machine

GOLDEN = Path(__file__).parents[1] / "golden-targets"
SCRIPTS = {"qemu": (), "proxmox": ("100", "local-lvm"), "openstack": ("m1.large", "net")}
"""The targets with scripts, and arguments of these."""
HOSTILE = "x'; touch /tmp/broken-out\n$(id) `id` \"\\ é\t\x07"


def made(machine: NewMachine, target: str) -> dict[str, str]:
    return {f"{machine.name}{suffix}": render(machine) for suffix, render in FORMS[target].files.items()}


def words(machine: NewMachine, target: str, folder: Path) -> list[list[str]]:
    """The commands that the script would run."""
    ((name, text),) = made(machine, target).items()
    (folder / name).write_text(text)
    argv = ["sh", str(folder / name), "--dry-run", *SCRIPTS[target]]
    environment = {"PATH": "/usr/bin:/bin", "OVMF_CODE": "/usr/share/my,ovmf/code.fd", "OVMF_VARS": "/vars.fd"}
    shown = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert [path.name for path in folder.iterdir()] == [name]
    program = re.compile(r"(?m)^(?='(?:cd|cp|chmod|mv|mkdir|rm|swtpm|qemu-system-x86_64|qm|openstack)' )")
    return [shlex.split(command) for command in program.split(shown.stdout) if command]


def options(command: list[str], name: str) -> list[str]:
    return [value for key, value in itertools.pairwise(command) if key == name]


def plan_of(count: int, **source: object) -> Plan:
    disk = SourceDisk(at=LocalFile(path=Path("/a")), subformat="x", virtual_size=1, data_bytes=1, files=())
    plan = plan_for((disk,) * count, Layout(tables=()))
    return plan.with_changes(machine=plan.machine.with_changes(**source))


def concerns(target: str, plan: Plan, **keys: object) -> list[str]:
    asked = Migration.model_validate({"vmdk": "/a.vmdk", "vm_name": "web01", "target": target, **keys})
    return [concern.code for concern in FORMS[target].examine(asked, plan)]


@pytest.mark.parametrize("target", FORMS)
@pytest.mark.parametrize("case", MACHINES)
def test_the_files_of_a_machine(case: str, target: str) -> None:
    folder = GOLDEN / case / target
    assert made(MACHINES[case], target) == {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("target", SCRIPTS)
@pytest.mark.parametrize("case", MACHINES)
def test_a_script_prints_what_it_would_run(case: str, target: str, tmp_path: Path) -> None:
    program = {"qemu": "qemu-system-x86_64", "proxmox": "qm", "openstack": "openstack"}[target]
    commands = words(MACHINES[case], target, tmp_path)
    assert commands[0] == ["cd", "--", str(tmp_path)]
    assert program in {command[0] for command in commands[1:]}


def stubs(folder: Path, **programs: str) -> dict[str, str]:
    """An environment in which these programs note their arguments, then run that text."""
    for name, text in programs.items():
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\nprintf '%s\\0' {name} \"$@\" >> {shlex.quote(str(folder / 'log'))}\n{text}\n")
        path.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:/usr/bin:/bin"}


def run_script(case: str, target: str, folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    ((name, text),) = made(MACHINES[case], target).items()
    (folder / name).write_text(text)
    argv = ["sh", str(folder / name), *SCRIPTS[target]]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def test_proxmox_is_asked_for_what_was_printed(tmp_path: Path) -> None:
    promised = words(MACHINES["secure-boot-tpm-three-cards"], "proxmox", tmp_path)[-1]
    done = run_script("secure-boot-tpm-three-cards", "proxmox", tmp_path, stubs(tmp_path, qm=""))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "log").read_text().split("\0")[:-1] == promised


VOLUMES = """
case "$*" in
"server show "*) exit 1 ;;
*"-c status web01-disk1") [ -e "$0.asked" ] && echo available || { echo creating; : >"$0.asked"; } ;;
*"-c id web01-disk1") echo 1234 ;;
esac
"""


def test_openstack_waits_for_the_volumes(tmp_path: Path) -> None:
    done = run_script("bios", "openstack", tmp_path, stubs(tmp_path, openstack=VOLUMES, sleep=""))
    assert done.returncode == 0, done.stderr
    commands = " ".join((tmp_path / "log").read_text().split("\0")).split("openstack ")
    steps = [" ".join(command.split()[:2]) for command in commands if command]
    shown = ["volume show"] * 3  # the second after a pause
    assert steps == ["server show", "image create", "volume create", "port create", *shown, "server create"]
    assert "--flavor m1.large --volume 1234 --port web01-nic1 web01" in commands[-1]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("", "this project already has a server of that name"),
        ('case "$*" in "server show"*) exit 1 ;; *status*) echo error_managing ;; esac', "cannot be created"),
        ('case "$*" in "server show"*) exit 1 ;; *status*) echo gone >&2; exit 1 ;; esac', "gone"),
    ],
)
def test_openstack_gets_no_server_then(answer: str, error: str, tmp_path: Path) -> None:
    done = run_script("bios", "openstack", tmp_path, stubs(tmp_path, openstack=answer))
    assert done.returncode == 1
    assert error in done.stderr
    assert "create\0--flavor" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("target", ["proxmox", "openstack"])
def test_a_script_without_arguments_shows_its_usage(target: str, tmp_path: Path) -> None:
    ((name, text),) = made(MACHINES["bios"], target).items()
    (tmp_path / name).write_text(text)
    for given in ([], ["--dry-run"], ["--dry-run", "1", "2", "3", "4"]):
        done = subprocess.run(["sh", str(tmp_path / name), *given], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr.partition(":")[0]) == (1, "", "Usage")


def test_qemu_prints_nothing_before_a_missing_template(tmp_path: Path) -> None:
    ((name, text),) = made(MACHINES["uefi-two-disks"], "qemu").items()
    (tmp_path / name).write_text(text)
    environment = {"PATH": "/usr/bin:/bin", "OVMF_CODE": "/code.fd"}
    argv = ["sh", str(tmp_path / name), "--dry-run"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith("OVMF_VARS: not set.")


@pytest.mark.parametrize("target", SCRIPTS)
def test_text_of_a_guest_stays_text(target: str, tmp_path: Path) -> None:
    machine = MACHINES["uefi-two-disks"]
    hardware = machine.hardware.with_changes(serial=HOSTILE)
    guest = Guest(os_id=HOSTILE, os_name=HOSTILE)
    hostile = new_machine("web01", hardware, guest, GIB, GIB)
    shown = words(hostile, target, tmp_path)[-1]
    if target == "qemu":
        assert options(shown, "-smbios") == [f"type=1,serial={HOSTILE}"]
    if target == "proxmox":
        (identity,) = options(shown, "--smbios1")
        assert base64.b64decode(identity.rpartition("serial=")[2]).decode() == HOSTILE


def test_the_boot_order_is_on_the_device(tmp_path: Path) -> None:
    """QEMU rejects it on a drive."""
    command = words(MACHINES["uefi-two-disks"], "qemu", tmp_path)[-1]
    assert [option for option in command if "bootindex" in option] == [
        option for option in options(command, "-device") if "drive=disk1," in option
    ]


def test_a_comma_in_the_path_of_the_firmware(tmp_path: Path) -> None:
    command = words(MACHINES["uefi-two-disks"], "qemu", tmp_path)[-1]
    assert options(command, "-drive")[0].endswith("file=/usr/share/my,,ovmf/code.fd")


def test_root_ports_for_many_devices(tmp_path: Path) -> None:
    hardware = MACHINES["bios"].hardware.with_changes(nics=(HardwareNic(mac="52:54:00:00:00:01"),) * 10)
    command = words(new_machine("web01", hardware, DEBIAN, *([GIB] * 26)), "qemu", tmp_path)[-1]
    addresses = re.findall(r"addr=(0x[0-9a-f]+\.[0-7])", " ".join(command))
    assert len(set(addresses)) == len(addresses) == 40
    assert max(int(address.partition(".")[0], 16) for address in addresses) < 0x1F


@pytest.mark.parametrize("file", FORMS["kubevirt"].files)
@pytest.mark.parametrize("case", MACHINES)
def test_kubevirt_takes_the_machine(case: str, file: str) -> None:
    text = FORMS["kubevirt"].files[file](MACHINES[case])
    machine = VirtualMachine.model_validate(yaml.safe_load(text))
    assert faults(machine) == []


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("web01", "web01"), ("DB_Main.Example-", "db-main-example"), ("a" * 63, "a" * 56), ("a-" * 31, "a-" * 27 + "a")],
)
def test_names_for_kubernetes(name: str, theirs: str) -> None:
    assert rfc1123(name) == theirs


def test_a_volume_of_openstack_is_not_smaller_than_its_disk(tmp_path: Path) -> None:
    commands = words(MACHINES["uefi-two-disks"], "openstack", tmp_path)
    sizes = [options(command, "--size")[0] for command in commands if command[:2] == ["openstack", "volume"]]
    assert sizes == ["21", "100"]


@pytest.mark.parametrize(("bus", "last"), [("virtio", "--scsi9"), ("scsi", "--scsi25"), ("sata", "--scsi19")])
def test_more_disks_than_a_bus_of_proxmox_has(bus: str, last: str, tmp_path: Path) -> None:
    hardware = MACHINES["bios"].hardware.with_changes(disk_bus=bus)
    command = words(new_machine("web01", hardware, DEBIAN, *([GIB] * 26)), "proxmox", tmp_path)[-1]
    imports = [key for key, value in itertools.pairwise(command) if "import-from=" in value]
    assert (len(set(imports)), imports[-1]) == (26, last)


def test_proxmox_cannot_import_from_every_directory(tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    folder.mkdir()
    (folder / "web01.proxmox.sh").write_text(made(MACHINES["bios"], "proxmox")["web01.proxmox.sh"])
    argv = ["sh", str(folder / "web01.proxmox.sh"), "--dry-run", "100", "local"]
    refused = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "a directory with a comma in its name" in refused.stderr


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Windows Server 2022", "win11"),
        ("Windows 11 Pro", "win11"),
        ("Windows Server 2012 R2", "win8"),
        ("Windows Server 2008 R2 Standard", "win7"),
        ("Windows", "other"),
    ],
)
def test_the_type_of_windows_for_proxmox(name: str, kind: str, tmp_path: Path) -> None:
    machine = new_machine("win", MACHINES["windows"].hardware, Guest(family="windows", os_name=name), GIB, GIB)
    assert options(words(machine, "proxmox", tmp_path)[-1], "--ostype") == [kind]


def test_concerns_of_proxmox() -> None:
    assert [concerns("proxmox", plan_of(count)) for count in (6, 7)] == [[], ["bus-full"]]
    names = {"web01": [], "Web01.example.org": [], "web_01": ["name-changed"], "web01-": ["name-changed"]}
    assert {name: concerns("proxmox", plan_of(1), vm_name=name) for name in names} == names


def test_concerns_of_openstack() -> None:
    assert [concerns("openstack", plan_of(1, uuid=uuid)) for uuid in (None, "x")] == [[], ["identity-not-kept"]]


def test_concerns_of_kubevirt() -> None:
    cards = (SourceNic(mac=None, network="a"), SourceNic(mac=None, network="b"))
    assert concerns("kubevirt", plan_of(1, nics=cards), network_map={"b": "vlan10"}) == []
    assert concerns("kubevirt", plan_of(1, nics=cards)) == ["pod-network-full"]
    assert concerns("kubevirt", plan_of(1), vm_name="Web_01") == ["name-changed"]


def test_kubevirt_has_one_machine_type() -> None:
    with pytest.raises(MigrationFailed) as caught:
        concerns("kubevirt", plan_of(1), machine="pc")
    assert caught.value.code == "hardware-unsupported"
