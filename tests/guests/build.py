"""Building blocks of guests: a disk with the names that it had under VMware, a root file system, a boot loader.

All of it runs as root in a mount namespace of its own, where /dev holds the guest's disk and little else: so the
guest's own tools write the names that they would write under VMware. Every loop device ends with its last user.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tests.guests.guest import HOSTNAME, Guest, cache, finished_at_once

MIB = 1 << 20
SECTOR = 512
LOOP_CLR_FD = 0x4C01
"""linux/loop.h"""
LOOPS = 64

DEBIAN = ("linux-image-cloud-amd64", "systemd-sysv", "udev", "login", "passwd", "grub-pc")
UNNEEDED = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*", "/usr/share/info/*")
UNTIMELY_UNITS = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_reap.service")
VMWARE_MODULES = ("vmw_pvscsi", "ata_piix", "ata_generic", "sd_mod")
"""All that a broken guest's initramfs can drive: VMware's controllers."""
CONSOLE = "console=tty0 console=ttyS0,115200 no_timer_check"
"""A busy host starves the timer of an emulated machine, and the kernel's check of it panics."""
GRUB_DRIVERS = ("part_msdos", "part_gpt", "normal", "linux", "configfile", "search", "search_fs_uuid", "echo")
MAKERS = {
    # without the features that older GRUBs cannot read, whatever the builder's own defaults are
    "ext4": ("mkfs.ext4", "-q", "-F", "-O", "^metadata_csum_seed,^orphan_file"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "vfat": ("mkfs.vfat", "-F", "32"),
    "swap": ("mkswap",),
}


def run(*argv: str | Path, stdin: str | None = None, **environment: str) -> str:
    """A tool that must succeed; its stdout."""
    completed = subprocess.run(
        [str(word) for word in argv],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **environment},
    )
    if completed.returncode != 0:
        raise SystemExit(f"{argv[0]} failed ({completed.returncode}):\n{completed.stdout}{completed.stderr}")
    return completed.stdout


def build(guest: Guest) -> None:
    archive = base(guest.suite, guest.packages)
    with finished_at_once(guest.folder) as folder, contextlib.ExitStack() as undo:
        devices = folder / "dev"
        devices.mkdir()
        undo.callback(devices.rmdir)
        mount(undo, devices, "-t", "tmpfs", "tmpfs")
        _make_devices(devices)
        run("mount", "--bind", devices, "/dev")
        undo.callback(run, "umount", "--lazy", "/dev")  # this umount's own stdin lies there
        disk = Disk(folder / "disk.raw", archive, undo)
        guest.build(disk)
        for raw in folder.glob("disk*.raw"):
            raw.chmod(0o444)


def mount(undo: contextlib.ExitStack, at: Path, *what: str | Path) -> None:
    run("mount", *what, at)
    undo.callback(run, "umount", at)


def _make_devices(devices: Path) -> None:
    characters = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9))
    for name, major, minor in (*characters, ("loop-control", 10, 237)):
        os.mknod(devices / name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
        (devices / name).chmod(0o666)
    for number in range(LOOPS):
        os.mknod(devices / f"loop{number}", stat.S_IFBLK | 0o600, os.makedev(7, number))


def base(suite: str, packages: tuple[str, ...]) -> Path:
    """Debian's files as a tar archive, without an initramfs: each disk gets its own."""
    arguments = ["--variant=apt", f"--include={','.join(packages)}"]
    arguments += [f"--dpkgopt=path-exclude={pattern}" for pattern in UNNEEDED]
    arguments += ["--setup-hook=sed -i /security/d $1/etc/apt/sources.list"]  # those of an old release lose packages
    key = hashlib.sha256(repr((suite, arguments)).encode()).hexdigest()[:16]
    folder = cache() / f"base-{key}"
    if not folder.exists():
        with finished_at_once(folder) as unfinished:
            # its filter is a Python script, started once for each package: Debian's own Python starts soonest
            path = f"/usr/bin:{os.environ['PATH']}"
            run("mmdebstrap", "--mode=root", *arguments, suite, unfinished / "base.tar", INITRD="No", PATH=path)
    return folder / "base.tar"


# ---------------------------------------------------------------- the disk


@dataclass(frozen=True)
class Part:
    """A byte range of the disk, and the name that the guest has for it under VMware."""

    device: str
    offset: int
    size: int

    @property
    def uuid(self) -> str:
        """Of what it holds, read afresh."""
        return run("blkid", "--probe", "--output", "value", "--match-tag", "UUID", self.device).strip()


class Disk:
    """A raw disk in the making. Its parts are block devices as long as it is open."""

    def __init__(self, raw: Path, archive: Path, undo: contextlib.ExitStack) -> None:
        self.raw, self._archive, self._undo = raw, archive, undo

    def second(self) -> Disk:
        """The machine's other disk."""
        return Disk(self.raw.with_name("disk2.raw"), self._archive, self._undo)

    def partition(self, size: int, *wanted: tuple[str, int, str], label: str = "dos") -> tuple[Part, ...]:
        """Partitions one after the other from 1 MiB on: name, bytes (0: all that is left), sfdisk's type.

        Logical ones (number 5 and up) come last, in an extended one that takes the next number.
        """
        with self.raw.open("wb") as file:
            file.truncate(size)
        lines, parts, at = [f"label: {label}"], [], MIB
        for index, (device, length, kind) in enumerate(wanted):
            number = int("".join(filter(str.isdigit, device)))
            if number > 4 and label == "dos":
                lines.append(f"{index + 1} : start={at // SECTOR}, size={(size - at) // SECTOR}, type=E")
                at += MIB
            length = length or size - MIB - at - sum(rest + MIB for _, rest, _ in wanted[index + 1 :])
            flag = ", bootable" if index == 0 and label == "dos" else ""
            lines.append(f"{number} : start={at // SECTOR}, size={length // SECTOR}, type={kind}{flag}")
            parts.append(self.attach(device, at, length))
            at += length
        run("sfdisk", "--quiet", self.raw, stdin="\n".join(lines))
        return tuple(parts)

    def attach(self, device: str, offset: int, size: int) -> Part:
        """A range of the disk as a block device; it ends when this disk is closed, or this process killed."""
        extent = ("--offset", str(offset), "--sizelimit", str(size))
        loop = Path(run("losetup", "--find", "--show", *extent, self.raw).strip())
        held = self._undo.enter_context(loop.open("rb"))
        with loop.open("rb") as second:  # asked for while somebody else has it open, the end is put off
            fcntl.ioctl(second, LOOP_CLR_FD)
        node = Path(device)
        node.parent.mkdir(parents=True, exist_ok=True)
        os.mknod(node, stat.S_IFBLK | 0o600, os.fstat(held.fileno()).st_rdev)
        return Part(device, offset, size)

    def volumes(self, pv: Part, group: str, swap: int) -> tuple[Part, Part]:
        """Root and swap as linear volumes: metadata only, so it needs no device-mapper and no udev."""
        found = {}
        with _undisturbed(pv):
            settings = "backup { backup=0 archive=0 } devices { obtain_device_list_from_udev=0 }"
            here = ("--driverloaded", "n", "--devices", pv.device, "--config", settings)
            inactive = ("--activate", "n", "--zero", "n", "--wipesignatures", "n")
            run("pvcreate", *here, pv.device)
            run("vgcreate", *here, group, pv.device)
            run("lvcreate", *here, *inactive, "--name", "swap", "--size", f"{swap}b", group)
            run("lvcreate", *here, *inactive, "--name", "root", "--extents", "100%FREE", group)
            columns = ("-o", "lv_name,pe_start,vg_extent_size,pvseg_start,pvseg_size")
            for line in run("pvs", *here, "--units", "b", "--nosuffix", "--noheadings", *columns).splitlines():
                name, pe_start, extent, start, count = line.split()
                offset = pv.offset + int(pe_start) + int(start) * int(extent)
                found[name] = (offset, int(count) * int(extent))
        mapped = f"/dev/mapper/{group.replace('-', '--')}"
        return self.attach(f"{mapped}-root", *found["root"]), self.attach(f"{mapped}-swap", *found["swap"])

    @contextlib.contextmanager
    def root(self, mounts: Mapping[str, Part], options: str = "") -> Iterator[Root]:
        """The parts mounted by mount point, /boot below / for one, filled with Debian's files."""
        with contextlib.ExitStack() as undo:
            place = self.raw.with_name("root")
            place.mkdir()
            undo.callback(place.rmdir)
            for point, part in mounts.items():
                at = place / point.strip("/")
                at.mkdir(exist_ok=True)
                mount(undo, at, *(("-o", options) if options and point == "/" else ()), part.device)
            unpack = ("tar", "--extract", "--numeric-owner", "--exclude=./dev/*")
            run(*unpack, "--file", self._archive, "--directory", place)
            mount(undo, place / "dev", "--bind", "/dev")
            mount(undo, place / "proc", "-t", "proc", "proc")
            mount(undo, place / "sys", "-t", "sysfs", "sysfs")
            yield Root(place)


def make(part: Part, kind: str, *options: str) -> None:
    """A file system or swap in `part`."""
    run(*MAKERS[kind], *options, part.device)


@contextlib.contextmanager
def _undisturbed(part: Part) -> Iterator[BinaryIO]:
    """systemd-udevd leaves a locked device alone: no activation on the host."""
    with Path(part.device).open("rb") as device:
        fcntl.flock(device, fcntl.LOCK_EX)
        yield device


# ---------------------------------------------------------------- the system on it


class Root:
    """The guest's mounted files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *argv: str | Path, stdin: str | None = None, **environment: str) -> str:
        """A program of the guest, in the guest."""
        return run("chroot", self.path, *argv, stdin=stdin, **environment)

    def write(self, files: Mapping[str, str]) -> None:
        """Files by their names in the guest; each ends in a newline."""
        for name, text in files.items():
            path = self.path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")

    def copy(self, source: str, target: str) -> None:
        """A file of the guest under another name in the guest."""
        place = self.path / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.path / source.lstrip("/"), place)

    @property
    def kernels(self) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in (self.path / "lib/modules").iterdir()))

    def settle(self, *fstab: str) -> None:
        """What any Debian needs: its names, its fstab, a password, no timers that fire while it is watched."""
        self.write(
            {
                "/etc/fstab": "\n".join(("# /etc/fstab: static file system information.", *fstab)),
                "/etc/hostname": HOSTNAME,
                "/etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {HOSTNAME}",
                "/etc/machine-id": hashlib.sha256("".join(fstab).encode()).hexdigest()[:32],
            }
        )
        for unit in UNTIMELY_UNITS:
            (self.path / "etc/systemd/system" / unit).symlink_to("/dev/null")
        self.run("chpasswd", stdin="root:demo\n")

    def initramfs(self, resume: str, *modules: str) -> None:
        """initramfs-tools, for these modules and VMware's controllers alone; for all hardware without modules."""
        self.write(
            {
                "/etc/initramfs-tools/conf.d/resume": f"RESUME={resume}",
                "/etc/initramfs-tools/conf.d/modules": f"MODULES={'list' if modules else 'most'}",
                "/etc/initramfs-tools/modules": "\n".join((*VMWARE_MODULES, *modules)) if modules else "",
            }
        )
        for version in self.kernels:
            self.run("update-initramfs", "-c", "-k", version)

    def grub(self, cmdline: str, default_cmdline: str = "", *, uuids: bool = False) -> None:
        """GRUB's settings and, made from them, its grub.cfg. Without `uuids` it names the root by its device."""
        self.write(
            {
                "/boot/grub/device.map": "(hd0) /dev/sda",
                "/etc/default/grub": "\n".join(
                    (
                        "GRUB_DEFAULT=0",
                        "GRUB_TIMEOUT=0",
                        "GRUB_DISTRIBUTOR=Debian",
                        f'GRUB_CMDLINE_LINUX_DEFAULT="{default_cmdline}"',
                        f'GRUB_CMDLINE_LINUX="{cmdline} {CONSOLE}"',
                        "GRUB_TERMINAL=console",
                        f"GRUB_DISABLE_LINUX_UUID={'false' if uuids else 'true'}",
                    )
                ),
            }
        )
        self.run("grub-mkconfig", "--output", "/boot/grub/grub.cfg")

    def grub_image(self, target: str, holder: Part, folder: str, *drivers: str) -> Path:
        """GRUB's core image, which finds `folder` (its own files) on `holder`, by UUID."""
        early = f"search --no-floppy --fs-uuid --set=root {holder.uuid}\nset prefix=($root){folder}"
        self.write({"/boot/grub/early.cfg": early})
        name = f"/boot/grub/{target}/core.img"
        shutil.copytree(self.path / "usr/lib/grub" / target, self.path / "boot/grub" / target)
        options = ("--format", target, "--prefix", folder, "--config", "/boot/grub/early.cfg", "--output", name)
        self.run("grub-mkimage", *options, *GRUB_DRIVERS, *drivers)
        return self.path / name.lstrip("/")

    def boot_by_grub(self, disk: Disk, holder: Part, folder: str = "/boot/grub", *drivers: str) -> None:
        """GRUB's images straight into the disk: grub-install wants device nodes of a whole disk.

        `drivers` are for what `holder` lies in; ext4 without any.
        """
        code = self.grub_image("i386-pc", holder, folder, "biosdisk", *(drivers or ("ext2",))).read_bytes()
        if SECTOR + len(code) > MIB:
            raise SystemExit("GRUB's core image does not fit before the first partition")
        with disk.raw.open("r+b") as file:
            file.write((self.path / "usr/lib/grub/i386-pc/boot.img").read_bytes()[:440])
            file.seek(SECTOR)
            file.write(code)
