"""What tests need of the host itself: the service user, the helper and its sudoers line installed, disks with guests.

All of it needs root, as CI has. What a fixture installs it removes; what was there before is put back.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyper2kvmd.model.disks import DiskImage, Image, Layout, Segment, Volume
from hyper2kvmd.volumes.mapping import linear
from tests.support.own_host import FOLDER_PREFIX
from tests.support.own_host import USER as USER

REPOSITORY = Path(__file__).resolve().parents[2]
HELPER = Path("/usr/libexec/hyper2kvm/helper")
SUDOERS = Path("/etc/sudoers.d/hyper2kvm")
MIB = 1 << 20


def command(*argv: object) -> str:
    """Run a tool that must succeed; its stdout."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def installed(source: Path, target: Path, mode: int) -> Iterator[None]:
    """`source` at `target`, root's own; what was there is put back."""
    before = target.read_bytes() if target.exists() else None
    target.parent.mkdir(parents=True, exist_ok=True)
    command("install", "-o", "root", "-g", "root", "-m", f"{mode:o}", source, target)
    try:
        yield
    finally:
        if before is None:
            target.unlink()
        else:
            target.write_bytes(before)


@pytest.fixture(scope="session")
def service_user() -> Iterator[pwd.struct_passwd]:
    """The user that the sudoers line names."""
    made = USER not in {entry.pw_name for entry in pwd.getpwall()}
    if made:
        command("useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", USER)
    try:
        reach = subprocess.run(as_service("test", "-x", sys.executable), check=False)
        assert reach.returncode == 0, f"{USER} cannot reach {sys.executable}: clone where every user may look"
        yield pwd.getpwnam(USER)
    finally:
        if made:
            subprocess.run(["userdel", USER], capture_output=True, check=False)


@pytest.fixture(scope="session")
def installed_helper(service_user: pwd.struct_passwd) -> Iterator[tuple[str, ...]]:
    """The helper and the sudoers line where a package puts them; the argv to call it by."""
    source = REPOSITORY / "hyper2kvmd" / "helper" / "helper.py"
    with installed(source, HELPER, 0o755), installed(REPOSITORY / "sudoers.d" / "hyper2kvm", SUDOERS, 0o440):
        yield ("sudo", "-n", str(HELPER))


UNITS = REPOSITORY / "systemd"


def unit_settings(name: str) -> dict[str, str]:
    """All that a unit says, by key; of what it says twice, the last."""
    lines = [line for line in (UNITS / name).read_text().splitlines() if "=" in line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@contextmanager
def behind_socket(helper: Path, **environment: str) -> Iterator[tuple[Path, Path]]:
    """The installed helper behind a socket as its units say, by systemd's own activator; and what it prints there.

    `environment` is systemd's own.
    """
    listener, service = unit_settings("hyper2kvm-helper.socket"), unit_settings("hyper2kvm-helper@.service")
    kept = {name: value for name, value in environment.items() if name not in service["UnsetEnvironment"].split()}
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/run"))
    folder.chmod(0o755)
    path, log = folder / "socket", folder / "log"
    argv = ["systemd-socket-activate", "--accept", "--inetd", "--seqpacket", f"--listen={path}"]
    words = [f"--setenv={name}={value}" for name, value in kept.items()]
    # --inetd makes the channel its stdout as well
    program = ["/bin/sh", "-c", f"exec {helper} >/dev/{service['StandardOutput']}"]
    try:
        with log.open("wb") as output, subprocess.Popen([*argv, *words, *program], stderr=output, cwd="/") as process:
            try:
                while process.poll() is None and not path.exists():
                    time.sleep(0.01)
                shutil.chown(path, listener["SocketUser"], listener["SocketGroup"])
                path.chmod(int(listener["SocketMode"], 8))
                yield path, log
            finally:
                process.kill()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def helper_socket(installed_helper: tuple[str, ...]) -> Iterator[Path]:
    with behind_socket(HELPER) as (path, log):
        yield path
        assert "Traceback" not in log.read_text()


@pytest.fixture
def service_folder(service_user: pwd.struct_passwd) -> Iterator[Path]:
    """A folder of the service user's own, mode 0700, that it can reach (pytest's are closed to it)."""
    folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir="/var/tmp"))
    shutil.chown(folder, USER, USER)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def as_service(*argv: object) -> list[str]:
    """`argv` to be run as the service user, with no more than that user has."""
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--reset-env", "--", *map(str, argv)]


def service_python(module: str, *arguments: object) -> list[str]:
    """A module of this repository, to be run by the service user with this very Python."""
    path = os.pathsep.join((str(REPOSITORY), os.environ.get("PYTHONPATH", "")))
    setting = ("env", f"PYTHONPATH={path}", "PYTHONDONTWRITEBYTECODE=1")
    return as_service(*setting, sys.executable, "-m", module, *arguments)


@contextmanager
def looped(path: Path, segment: Segment) -> Iterator[Path]:
    """A range of a raw file, mounted by root in the ordinary way: to fill a disk, and to look at the outcome."""
    where = Path(tempfile.mkdtemp(prefix="h2k-look-", dir="/var/tmp"))
    option = f"loop,offset={segment.offset},sizelimit={segment.length}"
    command("mount", "-o", option, path, where)
    try:
        yield where
    finally:
        command("umount", where)
        where.rmdir()


MAKERS = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "ext2": ("mkfs.ext2", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}
SIZES = {"ext4": 64 * MIB, "ext2": 32 * MIB, "xfs": 320 * MIB, "btrfs": 128 * MIB}


def make_disk(path: Path, contents: tuple[str, ...], table: str = "gpt") -> Image:
    """A raw disk with one partition per file system, each with an etc/fstab of root's, and its layout."""
    starts, at = [], MIB
    for content in contents:
        starts.append(at)
        at += SIZES[content]
    with path.open("wb") as file:
        file.truncate(at + MIB)
    script = "".join(
        f"start={start // 512}, size={SIZES[content] // 512}\n" for start, content in zip(starts, contents, strict=True)
    )
    subprocess.run(
        ["sfdisk", "-q", path], input=f"label: {table}\n{script}", text=True, check=True, capture_output=True
    )
    volumes = []
    for number, (start, content) in enumerate(zip(starts, contents, strict=True), 1):
        segment = Segment(offset=start, length=SIZES[content])
        with tempfile.NamedTemporaryFile(dir=path.parent) as scratch:
            scratch.truncate(segment.length)
            command(*MAKERS[content], scratch.name)
            command(
                "dd",
                f"if={scratch.name}",
                f"of={path}",
                "bs=1M",
                f"seek={start // MIB}",
                "conv=notrunc,sparse",
                "status=none",
            )
        with looped(path, segment) as root:
            (root / "etc").mkdir()
            (root / "etc" / "fstab").write_text("/dev/sda1 / ext4 defaults 0 1\n")
            (root / "etc" / "fstab").chmod(0o644)
            shutil.copy("/bin/true", root / "etc" / "program")
            (root / "etc" / "program").chmod(0o4755)
            os.mknod(root / "etc" / "device", stat.S_IFCHR, os.makedev(1, 5))
            (root / "etc" / "device").chmod(0o666)
        volumes.append(
            Volume(
                kind="partition", name=f"partition {number}", number=number, content=content, stretches=linear(segment)
            )
        )
    layout = Layout(tables=("gpt",) if table == "gpt" else ("dos",), volumes=tuple(volumes))
    return image_of(path, layout)


def image_of(path: Path, layout: Layout) -> Image:
    """A raw disk as the image of a machine with no other one."""
    disk = DiskImage(path=path, virtual_size=path.stat().st_size, file_bytes=path.stat().st_blocks * 512)
    return Image(disks=(disk,), format="raw", layout=layout)


def moved(image: Image, path: Path) -> Image:
    """The image as if its one disk were at `path`."""
    return image.with_changes(disks=(image.disks[0].with_changes(path=path),))


def as_qcow2(image: Image) -> Image:
    """The same disk as a QCOW2 image beside it."""
    path = image.disks[0].path.with_suffix(".qcow2")
    command("qemu-img", "convert", "-f", "raw", "-O", "qcow2", image.disks[0].path, path)
    return moved(image, path).with_changes(format="qcow2")


def as_raw(image: Image) -> Path:
    """The bytes of an image as a raw file, to look at."""
    path = image.disks[0].path.with_suffix(".look")
    command("qemu-img", "convert", "-f", image.format, "-O", "raw", image.disks[0].path, path)
    return path


def give(image: Image) -> Image:
    """Hand an image file to the service user."""
    shutil.chown(image.disks[0].path, USER, USER)
    return image


def scattered(image: Image) -> Image:
    """A raw disk whose first volume lies in two pieces, the second one first, as a fragmented LV may."""
    volume = image.layout.volumes[0]
    segment = volume.segments[0]
    half = segment.length // 2
    with image.disks[0].path.open("r+b") as file:
        file.seek(segment.offset)
        first, second = file.read(half), file.read(half)
        file.seek(segment.offset)
        file.write(second + first)
    pieces = (Segment(offset=segment.offset + half, length=half), Segment(offset=segment.offset, length=half))
    volume = volume.with_changes(kind="lv", name="vg0/root", stretches=linear(*pieces))
    return image.with_changes(layout=image.layout.with_changes(volumes=(volume,)))


def gathered(raw: Path, volume: Volume) -> Path:
    """A volume of a raw disk as a file of its own."""
    path = raw.with_suffix(".volume")
    with raw.open("rb") as source, path.open("wb") as target:
        for segment in volume.segments:
            source.seek(segment.offset)
            target.write(source.read(segment.length))
    return path
