"""The AppArmor profiles under a kernel that enforces them. Run inside the machine of test_kernel.py.

Nothing that the service does is denied, and a file whose mode is a mistake stays closed. The program lies where a
package puts it; /dev/vdb holds an exported guest.
"""

from __future__ import annotations

import errno
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.access import CLIENT
from tests.support.host import HELPER, REPOSITORY, UNITS, USER, as_qcow2, as_service, command, give, make_disk
from tests.support.kernel import Kernel, until_clean
from tests.support.service import until
from tests.system.units import SOCKET, SYSTEM, edited, formed, in_the_daemons_place
from tests.system.units import state as state
from tests.system.units import units as units
from tests.system.volumes import KEY, KINDS, image_of, make_guest

PROFILES = REPOSITORY / "packaging/apparmor"
ENVIRONMENT = Path("/usr/lib/hyper2kvmd")
SITE = ENVIRONMENT / f"lib/python3.{sys.version_info.minor}/site-packages"
PROGRAM = """#!{python} -I
import sys
from hyper2kvmd.cli.{module} import main
sys.exit(main())
"""


def bound(source: Path, target: Path) -> None:
    """As if it were there: a link would show the profiles another path."""
    target.mkdir(parents=True, exist_ok=True)
    command("mount", "--bind", source, target)


@pytest.fixture(scope="module", autouse=True)
def package(installed_helper: tuple[str, ...]) -> None:
    """The program, its units and its folders at a package's places, and the profiles in force."""
    bound(Path("/opt/packages"), SITE)
    bound(REPOSITORY / "hyper2kvmd", SITE / "hyper2kvmd")
    (ENVIRONMENT / "bin").mkdir()
    python = ENVIRONMENT / "bin/python3"
    python.symlink_to(Path(sys.executable).resolve())
    (ENVIRONMENT / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    for name, module in (("hyper2kvmd", "daemon"), ("h2kvmctl", "ctl")):
        program = ENVIRONMENT / "bin" / name
        program.write_text(PROGRAM.format(python=python, module=module))
        program.chmod(0o755)
        Path("/usr/bin", name).symlink_to(program)
    packaging = REPOSITORY / "packaging"
    command("systemd-sysusers", packaging / "sysusers.d/hyper2kvm.conf")
    command("systemd-tmpfiles", "--create", packaging / "tmpfiles.d/hyper2kvm.conf")
    command("install", "-D", "-m", "0644", "-t", "/etc/hyper2kvm", packaging / "hyper2kvmd.yaml")
    shutil.copy(UNITS / "hyper2kvmd.service", SYSTEM)
    Path("/etc/apparmor.d/local/hyper2kvmd").write_text("/opt/packages/**.so{,.*} mr,\n")  # of the tests' own clients
    command("sysctl", "-q", "kernel.printk_ratelimit=0")
    for profile in ("hyper2kvmd", "hyper2kvm-helper"):
        command("apparmor_parser", "--replace", "--skip-cache", "--base=/etc/apparmor.d", PROFILES / profile)
    command("systemctl", "daemon-reload")


def denials() -> list[str]:
    """What the kernel has denied since the last look."""
    said = command("dmesg", "--read-clear")
    return [line for line in said.splitlines() if 'apparmor="DENIED"' in line]


@pytest.fixture
def nothing_denied(package: None) -> Iterator[None]:
    denials()
    yield
    assert denials() == []


def test_the_profiles_are_in_force() -> None:
    loaded = Path("/sys/kernel/security/apparmor/profiles").read_text().splitlines()
    assert {"hyper2kvmd (enforce)", "hyper2kvmd//sudo (enforce)", "hyper2kvm-helper (enforce)"} <= set(loaded)


@pytest.mark.parametrize("form", ["raw", "qcow2", "scattered"])
@pytest.mark.parametrize("way", ["sudo", "socket"])
def test_guests_are_edited(
    state: Path, installed_helper: tuple[str, ...], nothing_denied: None, form: str, way: str
) -> None:
    """By loop, by NBD, and by device-mapper above NBD."""
    said = edited(formed(state, form), SOCKET if way == "socket" else installed_helper)
    assert said.get("done") is True, (said, denials())
    assert until_clean(), Kernel.now()


@pytest.fixture
def no_nbd() -> Iterator[None]:
    module = Path(command("modinfo", "--field=filename", "nbd").strip())
    command("modprobe", "-r", "nbd")
    away = module.rename(module.with_suffix(".away"))
    yield
    away.rename(module)
    command("modprobe", "nbd")


def test_guests_are_edited_by_fuse(
    state: Path, installed_helper: tuple[str, ...], no_nbd: None, nothing_denied: None
) -> None:
    image = give(as_qcow2(make_disk(state / "disk.raw", ("ext4",))))
    said = edited(image, installed_helper)
    assert said.get("done") is True, (said, denials())
    assert until_clean(), Kernel.now()


def test_an_encrypted_guest_is_edited(
    state: Path, tmp_path: Path, installed_helper: tuple[str, ...], nothing_denied: None
) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    image = image_of(make_guest(state, key, KINDS["LVM in LUKS2"]), "qcow2")
    argv = ("-m", CLIENT, "edit", image.model_dump_json(), state, json.dumps(installed_helper), KEY)
    said = in_the_daemons_place(sys.executable, *argv, hardened=False)
    assert said.get("done") is True, (said, denials())
    assert until_clean(), Kernel.now()


BOOT = """
import json, sys, time
from pathlib import Path
from hyper2kvmd.host.kvm import choose_accelerator
from hyper2kvmd.proof import machine
from hyper2kvmd.model.disks import Image
from tests.support.benches import hardware_for
image, folder = Image.model_validate_json(sys.argv[1]), Path(sys.argv[2])
hardware = hardware_for("bios", memory=256)
with machine.running(machine.overlay(image, folder), hardware, folder, choose_accelerator()) as running:
    for _ in range(300):
        if running.disk_bytes():
            break
        time.sleep(0.1)
    else:
        sys.exit(running.console.read().decode())
print(json.dumps({"read": True}))
"""


def test_a_machine_is_started(state: Path, nothing_denied: None) -> None:
    """As far as its firmware's look at the disk."""
    image = give(make_disk(state / "disk.raw", ("ext4",)))
    script, scratch = state / "boot.py", state / "scratch"
    script.write_text(BOOT)
    scratch.mkdir()
    shutil.chown(scratch, USER, USER)
    assert in_the_daemons_place(sys.executable, script, image.model_dump_json(), scratch) == {"read": True}


@pytest.fixture
def source() -> Iterator[Path]:
    folder = Path("/srv")
    command("mount", "-o", "ro", "/dev/vdb", folder)
    yield next(folder.glob("*.vmdk"))
    command("umount", folder)


def job() -> dict[str, object]:
    listed: list[dict[str, object]] = json.loads(command("h2kvmctl", "list", "--json"))
    return listed[0] if listed else {}


def test_an_export_becomes_an_image(source: Path, nothing_denied: None) -> None:
    """By the real service: its unit, its folders, sudo."""
    command("systemd-tmpfiles", "--create", REPOSITORY / "packaging/tmpfiles.d/hyper2kvm.conf")
    command("systemctl", "start", "hyper2kvmd.service")
    pid = command("systemctl", "show", "--value", "--property=MainPID", "hyper2kvmd.service").strip()
    assert Path(f"/proc/{pid}/attr/current").read_text() == "hyper2kvmd (enforce)\n"
    draft = Path("/root/web01.yaml")
    draft.write_text(f"vmdk: {source}\nverify: content\nchecksum: true\n")
    shutil.move(shutil.copy(draft, "/var/spool/hyper2kvm/web01.yaml"), "/var/spool/hyper2kvm/incoming")
    command("systemctl", "reload", "hyper2kvmd.service")
    for _ in range(900):
        if job().get("state") in ("succeeded", "failed", "rejected"):
            break
        time.sleep(1)
    log = command("journalctl", "-b", "--no-pager", "-u", "hyper2kvmd", "-n", "40")
    assert job()["state"] == "succeeded", (job(), denials(), log)
    report = json.loads(Path("/var/lib/hyper2kvm/images/web01.report.json").read_text())
    assert "/etc/fstab" in {change["path"] for change in report["guest"]["changes"]}
    command("systemctl", "stop", "hyper2kvmd.service")
    assert "Traceback" not in log


# ---------------------------------------------------------------- what is denied

OPEN_HANDED = {
    "/etc/open-handed": 0o666,
    "/etc/ssh/ssh_host_test_key": 0o644,
    "/etc/shadow": 0o644,
    "/root/open-handed": 0o666,
    "/var/lib/open-handed": 0o666,
    "/dev/vda": 0o666,
}
"""Root's files as a careless administrator might leave them."""
TRY = """
import ctypes, os, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def called(failed):
    if failed:
        raise OSError(ctypes.get_errno(), "")
def mount():
    called(libc.unshare(0x10000000 | 0x20000))
    called(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None))
def run(program):
    pid = os.posix_spawn(program, [program, "-c", "true"], {})
    os.waitpid(pid, 0)
try:
    exec(sys.argv[1])
except OSError as error:
    sys.exit(error.errno)
"""
BY_THE_DAEMON = [
    "open('/etc/open-handed', 'r+b')",
    "open('/etc/shadow', 'rb')",
    "open('/etc/ssh/ssh_host_test_key', 'rb')",
    "open('/dev/vda', 'rb')",
    "run('/bin/sh')",
    "run('/usr/bin/id')",
    "run('/usr/libexec/hyper2kvm/helper')",
    "mount()",
    "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)",
    "os.kill({stranger}, signal.SIGTERM)",
    "open('/proc/{stranger}/environ', 'rb')",
]
BY_THE_HELPER = [
    "open('/etc/passwd', 'r+b')",
    "open('/root/open-handed', 'rb')",
    "open('/var/lib/open-handed', 'rb')",
    "open('/etc/shadow', 'rb')",
    "open('/dev/vda', 'rb')",
    "open('/proc/sys/kernel/core_pattern', 'r+b')",
    "run('/bin/sh')",
    "mount()",
    "socket.socket(socket.AF_INET, socket.SOCK_STREAM)",
    "os.setpriority(os.PRIO_PROCESS, 0, -5)",
]


@pytest.fixture(scope="module")
def open_handed(package: None) -> None:
    for name, mode in OPEN_HANDED.items():
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.touch()
        path.chmod(mode)


@pytest.fixture
def stranger(service_user: object) -> Iterator[int]:
    """Another program of the service user's."""
    with subprocess.Popen(as_service("sleep", "600")) as process:
        while b"sleep" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()[:5]:
            time.sleep(0.01)
        yield process.pid
        process.kill()


def tried(deed: str, *prefix: object) -> int:
    argv = [*map(str, prefix), str(Path(sys.executable).resolve()), "-c", TRY, deed]
    return subprocess.run(argv, check=False, timeout=60).returncode


@pytest.mark.parametrize("deed", BY_THE_DAEMON)
def test_the_daemon_may_not_though_modes_let_it(deed: str, open_handed: None, stranger: int) -> None:
    deed = deed.format(stranger=stranger)
    assert tried(deed, *as_service("aa-exec", "-p", "hyper2kvmd", "--")) in (errno.EACCES, errno.EPERM)
    assert tried(deed, *as_service()) == 0


@pytest.mark.parametrize("deed", BY_THE_HELPER)
def test_the_helper_may_not_though_it_is_root(deed: str, open_handed: None) -> None:
    assert tried(deed, "aa-exec", "-p", "hyper2kvm-helper", "--") in (errno.EACCES, errno.EPERM)
    assert tried(deed) == 0


def test_whoever_starts_the_helper_it_is_confined(installed_helper: tuple[str, ...]) -> None:
    """It waits for a request while we look."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, subprocess.Popen([str(HELPER)], stdin=theirs.fileno()) as process:
        theirs.close()
        profile = Path(f"/proc/{process.pid}/attr/current")
        until("the helper is confined", lambda: profile.read_text() == "hyper2kvm-helper (enforce)\n")
