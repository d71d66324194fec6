"""The service user edits guests through the real sudo, the real helper and real images."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyper2kvmd.guest.files.root import ConfinedRoot
from hyper2kvmd.guest.mounts.access import default_helper, open_image
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.model.disks import Image, Segment
from tests.support.access import CLIENT, check, client, client_argv, facts
from tests.support.host import (
    HELPER,
    as_qcow2,
    as_raw,
    as_service,
    behind_socket,
    command,
    gathered,
    give,
    looped,
    make_disk,
    scattered,
    service_python,
)
from tests.support.journals import copied_in_use
from tests.support.kernel import Kernel, eventually, until_clean
from tests.support.own_host import FOLDER_PREFIX

ALL = ("ext4", "ext2", "xfs", "btrfs")


@pytest.fixture
def disk(service_folder: Path) -> Image:
    """A raw image with one ext4 partition."""
    return give(make_disk(service_folder / "disk.raw", ("ext4",), table="dos"))


@pytest.fixture
def qcow2(disk: Image) -> Image:
    return give(as_qcow2(disk))


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_edits_of_every_file_system_reach_the_image(
    installed_helper: tuple[str, ...], service_folder: Path, form: str
) -> None:
    image = give(make_disk(service_folder / "disk.raw", ALL))
    if form == "qcow2":
        image = give(as_qcow2(image))
    done = subprocess.run(client_argv("edit", image, installed_helper), capture_output=True, text=True, timeout=100)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1] == {"done": True}, done.stdout + done.stderr
    mounts = [line for line in lines if "volume" in line]
    assert [line["volume"] for line in mounts] == [volume.name for volume in image.layout.volumes]
    wanted = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC
    for line in mounts:
        assert line["uid"] == line["me"] != 0
        assert line["flags"] & wanted == wanted
        assert line["ran"] == "Permission denied"
    assert all(line["visible"] == [] for line in lines if "visible" in line)
    assert Kernel.now().clean
    if form == "qcow2":
        command("qemu-img", "check", "-f", "qcow2", image.disks[0].path)
    raw = as_raw(image)
    for volume in image.layout.volumes:
        with looped(raw, volume.segments[0]) as root:
            assert (root / "etc/fstab").read_text() == "/dev/sda1 / ext4 defaults 0 1\n# edited\n"
            made = (root / "etc/new").stat()
            assert (made.st_uid, made.st_gid, made.st_mode & 0o777, made.st_size) == (0, 0, 0o640, 100_000)
            assert (root / "etc/new").read_bytes() == b"n" * 100_000


def test_root_edits_without_sudo(disk: Image) -> None:
    with (
        open_image(disk, Helper(default_helper()), disk.disks[0].path.parent) as access,
        access.mount(disk.layout.volumes[0]) as root,
    ):
        handle = os.open("etc/by-root", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=root)
        os.close(handle)
    with looped(disk.disks[0].path, disk.layout.volumes[0].segments[0]) as root_folder:
        assert (root_folder / "etc/by-root").stat().st_uid == 0
    assert Kernel.now().clean


def test_read_only_writes_nothing(disk: Image, installed_helper: tuple[str, ...]) -> None:
    before = disk.disks[0].path.read_bytes()
    status, said = client("read-only", disk, installed_helper)
    assert (status, said["refused"]) == (0, "Read-only file system")
    assert said["names"] == ["device", "fstab", "program"]
    assert disk.disks[0].path.read_bytes() == before


@pytest.mark.parametrize("name", ["partition 1", "another name for its bytes"])
def test_a_read_only_mount_serves_again_until_its_bytes_are_written(disk: Image, name: str) -> None:
    (volume,) = disk.layout.volumes
    heard: list[str] = []
    helper = Helper(default_helper(), lambda verb, _: heard.append(verb))
    with open_image(disk, helper, disk.disks[0].path.parent) as access:
        for _ in range(2):
            with access.mount(volume, read_only=True) as root:
                assert not ConfinedRoot(root).exists("written")
        with access.mount(volume.with_changes(name=name)) as root:
            os.mkdir("written", dir_fd=root)
        with access.mount(volume, read_only=True) as root:
            assert ConfinedRoot(root).exists("written")
    assert heard == ["mount", "mount", "mount"]
    assert Kernel.now().clean


@pytest.mark.parametrize("form", ["raw", "qcow2"])
@pytest.mark.parametrize("content", ["ext4", "xfs", "btrfs"])
def test_a_dirty_journal_is_replayed_once_to_be_read(
    installed_helper: tuple[str, ...], service_folder: Path, content: str, form: str
) -> None:
    running = make_disk(service_folder / "running.raw", (content,))
    image = give(copied_in_use(running, service_folder / "disk.raw"))
    image = image if form == "raw" else give(as_qcow2(image))
    names = ["device", "fstab", "program", "written"]
    for replayed in (["partition 1"], []):
        said = client("inspect", image, installed_helper)[1]
        assert said == {"names": names, "replayed": replayed, "done": True}
    assert Kernel.now().clean


def test_the_holder_cannot_undo_the_flags_of_its_mount(disk: Image, installed_helper: tuple[str, ...]) -> None:
    said = client("escape", disk, installed_helper)[1]
    assert (said["cleared"], said["opened"]) == ("Operation not permitted", "Permission denied")


def test_a_volume_is_mounted_once(disk: Image, installed_helper: tuple[str, ...]) -> None:
    assert client("twice", disk, installed_helper)[1]["code"] == "mount-busy"
    assert Kernel.now().clean


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_killed_caller_leaves_nothing(
    request: pytest.FixtureRequest, installed_helper: tuple[str, ...], form: str
) -> None:
    image: Image = request.getfixturevalue("disk" if form == "raw" else "qcow2")
    argv = client_argv("hold", image, installed_helper)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = json.loads(process.stdout.readline())["holding"]
        try:
            assert not Kernel.now().clean
        finally:
            os.kill(pid, signal.SIGKILL)
    assert until_clean(), Kernel.now()
    part = gathered(as_raw(image), image.layout.volumes[0])
    if form == "qcow2":  # its exporter died with the caller: the journal is for the next mount to replay
        command("qemu-img", "check", "-f", "qcow2", image.disks[0].path)
        subprocess.run(["e2fsck", "-fp", part], check=False, capture_output=True)
    command("e2fsck", "-fn", part)


def test_errors_panic_is_overridden(disk: Image, installed_helper: tuple[str, ...]) -> None:
    segment = disk.layout.volumes[0].segments[0]
    command("tune2fs", "-e", "panic", f"{disk.disks[0].path}?offset={segment.offset}")
    status, said = client("panic", disk, installed_helper)
    assert status == 0
    assert len(said["options"]) >= 1, said
    assert any("errors=remount-ro" in text for text in said["options"].values())
    assert not any("errors=panic" in text for text in said["options"].values())


@pytest.mark.parametrize("action", ["freeze-exporter", "freeze-fuse", "freeze-before", "kill-exporter"])
def test_a_server_that_freezes_or_dies_is_an_error_not_a_hang(
    qcow2: Image, installed_helper: tuple[str, ...], action: str
) -> None:
    if action == "freeze-fuse" and Path("/sys/module/nbd").exists():
        pytest.skip("this kernel has NBD: there is no FUSE server to freeze")
    status, said = client(action, qcow2, installed_helper)
    assert status != 0
    assert said["code"] in ("exporter-died", "os-error", "mount-failed", "fuse-failed", "fuse-died"), said
    assert until_clean(), Kernel.now()
    assert client("edit", qcow2, installed_helper)[1]["done"] is True


def test_what_the_guest_reserves_for_root_is_for_us(disk: Image, installed_helper: tuple[str, ...]) -> None:
    """Whoever runs the service writes as the guest's root; the kernel compares the user of the host."""
    segment = disk.layout.volumes[0].segments[0]
    command("tune2fs", "-m", "40", f"{disk.disks[0].path}?offset={segment.offset}")
    with looped(disk.disks[0].path, segment) as root:
        facts = os.statvfs(root)
        (root / "fill").write_bytes(bytes(facts.f_bavail * facts.f_frsize))
        assert os.statvfs(root).f_bavail == 0
    status, said = client("edit", disk, installed_helper)
    assert (status, said["done"]) == (0, True)
    with looped(disk.disks[0].path, segment) as root:
        assert (root / "etc/new").stat().st_size == 100_000
    shown = command("dumpe2fs", "-h", f"{disk.disks[0].path}?offset={segment.offset}")
    assert "Reserved blocks uid:      0 (user root)" in shown, "the guest's own setting stays"


def test_a_file_system_newer_than_the_kernel_is_not_called_damaged(
    disk: Image, installed_helper: tuple[str, ...]
) -> None:
    segment = disk.layout.volumes[0].segments[0]
    command("debugfs", "-w", "-R", "feature FEATURE_I30", f"{disk.disks[0].path}?offset={segment.offset}")
    status, said = client("edit", disk, installed_helper)
    assert (status, said["code"]) == (1, "mount-newer")
    assert "does not have its feature FEATURE_I30" in said["message"]
    assert Kernel.now().clean


def test_a_damaged_file_system_is_named(disk: Image, installed_helper: tuple[str, ...]) -> None:
    with disk.disks[0].path.open("r+b") as file:
        file.seek(disk.layout.volumes[0].segments[0].offset)
        file.write(bytes(1 << 20))
    status, said = client("edit", disk, installed_helper)
    assert (status, said["code"]) == (1, "mount-failed")
    assert said["message"].startswith("partition 1 (ext4) cannot be mounted:")
    assert Kernel.now().clean


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_scattered_volume_needs_device_mapper(disk: Image, installed_helper: tuple[str, ...], form: str) -> None:
    image = scattered(disk)
    if form == "qcow2":
        image = give(as_qcow2(image))
    status, said = client("edit", image, installed_helper)
    assert Kernel.now().clean
    if not Path("/sys/class/misc/device-mapper").exists():
        assert (status, said["code"]) == (1, "mount-unsupported")
        assert "device-mapper" in said["message"]
        return
    assert said["done"] is True, said
    volume = gathered(as_raw(image), image.layout.volumes[0])
    command("e2fsck", "-fn", volume)
    with looped(volume, Segment(offset=0, length=volume.stat().st_size)) as root:
        assert (root / "etc/fstab").read_text().endswith("# edited\n")


def test_the_check_names_what_cannot_be_mounted(installed_helper: tuple[str, ...]) -> None:
    status, said = check(installed_helper, ("ext4", "ntfs", "swap"))
    assert status == 0 and said["unmountable"] == []  # NTFS is never mounted


def without_user_namespaces(folder: Path) -> tuple[str, ...]:
    """The kernel gives none to a process in a chroot, as it gives none to anybody where the limit is 0."""
    place = folder / "chroot"
    place.mkdir()
    return ("unshare", "--mount", "sh", "-c", f'mount --rbind / {place} && exec chroot {place} "$@"', "sh")


def test_the_check_knows_each_remedy(installed_helper: tuple[str, ...], service_folder: Path) -> None:
    unknown = service_folder / "other"
    unknown.write_text("#!/bin/sh\n")
    unknown.chmod(0o755)
    for helper, prefix, words in (
        (("sudo", "-n", "/usr/libexec/hyper2kvm/none"), (), "install -D"),
        (("sudo", "-n", str(unknown)), (), "sudoers.d/hyper2kvm"),
        (installed_helper, ("setpriv", "--no-new-privs", "--"), "NoNewPrivileges="),
        (installed_helper, without_user_namespaces(service_folder), "max_user_namespaces"),
        (("/bin/true",), (), "read its output"),
    ):
        status, said = check(helper, (), *prefix)
        assert (status, said["code"]) == (78, "helper-unreachable"), said
        assert words in said["hint"], said


def test_a_helper_that_never_answers_is_given_up(service_user: object) -> None:
    status, said = check(("/bin/cat",), (), action="check-silent")
    assert (status, said["code"]) == (78, "helper-unreachable")


def test_another_user_gets_the_remedy(installed_helper: tuple[str, ...]) -> None:
    argv = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--reset-env", "--"]
    rest = service_python(CLIENT, "check", "[]", "/var/tmp", json.dumps(installed_helper))
    done = subprocess.run([*argv, *rest[len(as_service()) :]], capture_output=True, text=True, timeout=60)
    said = facts(done.stdout)
    assert (done.returncode, said["code"]) == (78, "helper-unreachable")
    assert "sudoers.d/hyper2kvm" in said["hint"]


# ---------------------------------------------------------------- the helper behind a socket

WITHOUT_SETUID = ("setpriv", "--no-new-privs", "--")


def test_edits_without_any_setuid_program(disk: Image, helper_socket: Path) -> None:
    """A raw image: no sudo, no fusermount3."""
    assert client("edit", disk, helper_socket, prefix=WITHOUT_SETUID)[1]["done"] is True
    assert Kernel.now().clean
    with looped(disk.disks[0].path, disk.layout.volumes[0].segments[0]) as root:
        assert (root / "etc/fstab").read_text().endswith("# edited\n")


@contextmanager
def slow_helper(script: str) -> Iterator[tuple[Path, Path]]:
    """A script that runs the helper and then lives on, behind a socket; and the file that is its sign."""
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, dir="/run") as folder:
        sign, program = Path(folder, "sign"), Path(folder, "slow")
        program.write_text(script.format(helper=HELPER, sign=sign))
        program.chmod(0o755)
        with behind_socket(program) as (path, _):
            yield path, sign


WITH_ITS_CHANNEL = "#!/bin/sh\n{helper}\nsleep 3\ntouch {sign}\n"
AFTER_ITS_CHANNEL = """#!/usr/bin/python3 -IS
import pathlib, runpy, time
try:
    runpy.run_path("{helper}", run_name="__main__")
except SystemExit:
    pathlib.Path("{sign}").touch()
    while pathlib.Path(__file__).exists():
        time.sleep(0.1)
"""


def test_a_helper_behind_the_socket_is_waited_for(disk: Image, installed_helper: tuple[str, ...]) -> None:
    with slow_helper(WITH_ITS_CHANNEL) as (path, ended):
        assert client("edit", disk, path)[1]["done"] is True
        assert ended.exists()


def test_a_helper_that_has_closed_its_channel_holds_nothing(disk: Image, installed_helper: tuple[str, ...]) -> None:
    """It has yet to end, and the image may be opened by others."""
    with slow_helper(AFTER_ITS_CHANNEL) as (path, lingers):
        assert client("edit", disk, path)[1]["done"] is True
        assert eventually(lingers.exists)
        assert Kernel.now().clean


def test_edits_of_a_qcow2_by_the_socket(qcow2: Image, helper_socket: Path) -> None:
    assert client("edit", qcow2, helper_socket)[1]["done"] is True
    assert Kernel.now().clean


def test_without_setuid_programs_a_qcow2_needs_nbd(helper_socket: Path) -> None:
    status, said = check(helper_socket, ("ext4",), *WITHOUT_SETUID)
    if Path("/sys/module/nbd").exists():
        assert (status, said["transport"]) == (0, "nbd")
        return
    assert (status, said["code"]) == (78, "transport-missing")
    assert "fusermount3" in said["message"]
    assert "modprobe nbd" in said["hint"] and "out_format: raw" in said["hint"]


def test_a_caller_killed_by_the_socket_leaves_nothing(disk: Image, helper_socket: Path) -> None:
    with subprocess.Popen(client_argv("hold", disk, helper_socket), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = json.loads(process.stdout.readline())["holding"]
        try:
            assert not Kernel.now().clean
        finally:
            os.kill(pid, signal.SIGKILL)
    assert until_clean(), Kernel.now()


@pytest.mark.parametrize("state", ["missing", "abandoned", "closed", "stream", "silent"])
def test_the_check_knows_each_remedy_for_a_socket(state: str, service_folder: Path) -> None:
    path = service_folder / "helper.sock"
    kind = socket.SOCK_STREAM if state == "stream" else socket.SOCK_SEQPACKET
    with socket.socket(socket.AF_UNIX, kind) as listener:
        if state != "missing":
            listener.bind(str(path))
            path.chmod(0o600 if state == "closed" else 0o666)
        if state not in ("missing", "abandoned"):
            listener.listen()
        if state == "silent":
            threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        status, said = check(path, ())
    # a helper that took the connection has died; the others were never reached
    ends = (1, "helper-died") if state == "silent" else (78, "helper-unreachable")
    assert (status, said["code"]) == ends, said
    assert str(path) in said["message"]
    remedies = {
        "missing": "systemctl enable --now hyper2kvm-helper.socket",
        "abandoned": "systemctl restart hyper2kvm-helper.socket",
        "closed": "as the user hyper2kvm",
        "stream": "this is another one",
        "silent": "journalctl -t hyper2kvm-helper",
    }
    assert remedies[state] in said["hint"]
