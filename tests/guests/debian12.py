"""A real Debian 12 guest, made from packages, broken the way a guest that leaves VMware is.

The broken guest boots from VMware's own disk controller (pvscsi) or IDE and names its disks by `/dev/sda*`: in
fstab, in GRUB and as resume device. Its initramfs holds nothing of virtio, so on KVM it stops at the initramfs
shell. With `broken=False` the same guest uses UUIDs and a general initramfs, and boots anywhere.

Disks are built once and kept in `.cache/guests/` (or in the folder that H2K_GUEST_CACHE names), under a name that
changes with this file. Building takes root: this module asks sudo when it is not root, and builds in a mount
namespace of its own, which takes every mount with it when it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

REPOSITORY = Path(__file__).resolve().parents[2]
MIB = 1 << 20
Firmware = Literal["bios", "uefi"]
Subformat = Literal["monolithicSparse", "streamOptimized", "monolithicFlat", "twoGbMaxExtentSparse"]

HOSTNAME = "web01"
SUITE = "bookworm"
PACKAGES = (
    "linux-image-cloud-amd64",
    "systemd-sysv",
    "udev",
    "initramfs-tools",
    "lvm2",
    "grub-pc",
    "grub-efi-amd64-bin",
)
UNNEEDED = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*", "/usr/share/info/*")
VMWARE_MODULES = ("vmw_pvscsi", "ata_piix", "ata_generic", "sd_mod", "ext4")
"""All that the broken guest's initramfs can drive: VMware's controllers."""
EXT4 = ("mkfs.ext4", "-q", "-F", "-O", "^metadata_csum_seed,^orphan_file")
"""Without the features that Debian 12's GRUB cannot read, whatever the builder's own defaults are."""

DISK_SIZE = 3072 * MIB
SWAP_SIZE = 256 * MIB
BOOT_SIZE = 256 * MIB
ESP_SIZE = 64 * MIB
LOOP_CLR_FD = 0x4C01
"""linux/loop.h"""
UNTIMELY_UNITS = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_reap.service")
GRUB_MODULES = ("part_msdos", "part_gpt", "ext2", "normal", "linux", "configfile", "search", "search_fs_uuid", "echo")


@dataclass(frozen=True)
class Recipe:
    broken: bool = True
    lvm: bool = False
    """Root and swap are logical volumes of `vg0`; /boot is a partition."""
    firmware: Firmware = "bios"
    packages: tuple[str, ...] = ()
    """Besides those that every guest has."""

    @property
    def key(self) -> str:
        text = repr(sorted(asdict(self).items())).encode() + Path(__file__).read_bytes()
        return hashlib.sha256(text).hexdigest()[:16]


@dataclass(frozen=True)
class Part:
    """A byte range of the disk, and the name that the guest has for it under VMware."""

    device: str
    offset: int
    size: int


@dataclass(frozen=True)
class Plan:
    """Where everything lies on the disk."""

    root: Part
    swap: Part
    boot: Part | None = None
    esp: Part | None = None


def disk(recipe: Recipe = Recipe()) -> Path:
    """The raw disk, read-only: work on a copy or an overlay."""
    path = _cache() / f"debian12-{recipe.key}" / "disk.raw"
    with _locked(_cache() / "lock"):
        if not path.exists():
            _build_as_root(recipe)
    return path


def vmdk(recipe: Recipe = Recipe(), subformat: Subformat = "streamOptimized") -> Path:
    """The disk as a VMDK; the folder that it lies in holds its extents and nothing else."""
    raw = disk(recipe)
    folder = _cache() / f"debian12-{recipe.key}-{subformat}"
    with _locked(_cache() / "lock"):
        if not folder.exists():
            with _finished_at_once(folder) as unfinished:
                target = unfinished / f"{HOSTNAME}.vmdk"
                _run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={subformat}", raw, target)
                for file in unfinished.iterdir():
                    file.chmod(0o444)
    return folder / f"{HOSTNAME}.vmdk"


# ---------------------------------------------------------------- the cache


def _cache() -> Path:
    folder = Path(os.environ.get("H2K_GUEST_CACHE") or REPOSITORY / ".cache" / "guests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _finished_at_once(folder: Path) -> Iterator[Path]:
    """A folder that gets its name only when the block has filled it."""
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder.parent))
    unfinished.chmod(0o755)
    owner = folder.parent.stat()
    os.chown(unfinished, owner.st_uid, owner.st_gid)  # root builds for whoever owns the cache
    try:
        yield unfinished
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _build_as_root(recipe: Recipe) -> None:
    command = ["unshare", "--mount", "--", sys.executable, "-B", "-m", "tests.guests.debian12", "--build"]
    command += ["--firmware", recipe.firmware]
    command += ["--lvm"] if recipe.lvm else []
    command += ["--healthy"] if not recipe.broken else []
    command += ["--packages", *recipe.packages] if recipe.packages else []
    if os.geteuid() != 0:
        command = ["sudo", "-n", f"H2K_GUEST_CACHE={_cache()}", *command]
    subprocess.run(command, cwd=REPOSITORY, check=True, stdin=subprocess.DEVNULL)


# ---------------------------------------------------------------- building, as root


def _run(*argv: str | Path, stdin: str | None = None, **environment: str) -> str:
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


def _base(packages: tuple[str, ...]) -> Path:
    """Debian's files as a tar archive, without an initramfs: each disk gets its own."""
    arguments = ["--variant=apt", f"--include={','.join((*PACKAGES, *packages))}"]
    arguments += [f"--dpkgopt=path-exclude={pattern}" for pattern in UNNEEDED]
    key = hashlib.sha256(repr((SUITE, arguments)).encode()).hexdigest()[:16]
    folder = _cache() / f"base-{key}"
    if not folder.exists():
        with _finished_at_once(folder) as unfinished:
            _run("mmdebstrap", "--mode=root", *arguments, SUITE, unfinished / "base.tar", INITRD="No")
    return folder / "base.tar"


def _build(recipe: Recipe) -> None:
    base = _base(recipe.packages)
    with _finished_at_once(_cache() / f"debian12-{recipe.key}") as folder, contextlib.ExitStack() as undo:
        raw, root, devices = folder / "disk.raw", folder / "root", folder / "dev"
        with raw.open("wb") as file:
            file.truncate(DISK_SIZE)
        plan = _partition(raw, recipe)
        for scratch in (root, devices):
            scratch.mkdir()
            undo.callback(scratch.rmdir)
        _mount(undo, devices, "-t", "tmpfs", "tmpfs")
        _make_devices(raw, plan, devices)
        _run("mount", "--bind", devices, "/dev")
        undo.callback(_run, "umount", "--lazy", "/dev")  # this umount's own stdin lies there
        for part, at in ((plan.root, root), (plan.boot, root / "boot")):
            if part:
                at.mkdir(exist_ok=True)
                _mount(undo, at, part.device)
                _free_with_last_mount(part.device)
        _run("tar", "--extract", "--numeric-owner", "--exclude=./dev/*", "--file", base, "--directory", root)
        _mount(undo, root / "dev", "--bind", devices)
        _mount(undo, root / "proc", "-t", "proc", "proc")
        _mount(undo, root / "sys", "-t", "sysfs", "sysfs")
        _configure(raw, root, plan, recipe)
        _install_grub(raw, root, plan)
        raw.chmod(0o444)


def _mount(undo: contextlib.ExitStack, at: Path, *what: str | Path) -> None:
    _run("mount", *what, at)
    undo.callback(_run, "umount", at)


def _make_devices(raw: Path, plan: Plan, devices: Path) -> None:
    """A /dev with the names that the guest's disk had under VMware: so the guest's own GRUB tools write them."""
    for name, major, minor in (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9)):
        os.mknod(devices / name, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for part in (plan.root, plan.boot):
        if part:
            node = devices / part.device.removeprefix("/dev/")
            node.parent.mkdir(exist_ok=True)
            extent = ("--offset", str(part.offset), "--sizelimit", str(part.size))
            loop = Path(_run("losetup", "--find", "--show", *extent, raw).strip())
            os.mknod(node, stat.S_IFBLK | 0o600, loop.stat().st_rdev)


def _free_with_last_mount(loop: str) -> None:
    """Ask for the loop device's end; while it is mounted, the kernel waits for the unmount, whoever causes that."""
    with open(loop, "rb") as device:  # noqa: PTH123 - a device
        fcntl.ioctl(device, LOOP_CLR_FD)


def _partition(raw: Path, recipe: Recipe) -> Plan:
    """Partition table, file systems, swap: as Debian's installer lays them out."""
    swap_start = DISK_SIZE - SWAP_SIZE - MIB
    if recipe.firmware == "uefi":
        esp = Part("/dev/sda1", MIB, ESP_SIZE)
        root = Part("/dev/sda2", esp.offset + esp.size, swap_start - esp.offset - esp.size)
        swap = Part("/dev/sda3", swap_start, SWAP_SIZE)
        kinds = ((esp, "uefi"), (root, "linux"), (swap, "swap"))
        table = "".join(f"start={part.offset // 512}, size={part.size // 512}, type={kind}\n" for part, kind in kinds)
        _run("sfdisk", "--quiet", raw, stdin=f"label: gpt\n{table}")
        plan = Plan(root, swap, esp=esp)
    elif recipe.lvm:
        boot = Part("/dev/sda1", MIB, BOOT_SIZE)
        rest = MIB + BOOT_SIZE
        _run("sfdisk", "--quiet", raw, stdin=f"label: dos\n{MIB // 512},{BOOT_SIZE // 512},L,*\n{rest // 512},,lvm\n")
        root, swap = _volumes(raw, Part("/dev/sda2", rest, DISK_SIZE - rest))
        plan = Plan(root, swap, boot=boot)
    else:
        root = Part("/dev/sda1", MIB, swap_start - 2 * MIB)
        extended = swap_start - MIB
        lines = (
            "label: dos",
            f"1 : start={MIB // 512}, size={root.size // 512}, type=L, bootable",
            f"2 : start={extended // 512}, type=E",
            f"5 : start={swap_start // 512}, size={SWAP_SIZE // 512}, type=S",
        )
        _run("sfdisk", "--quiet", raw, stdin="\n".join(lines))
        plan = Plan(root, Part("/dev/sda5", swap_start, SWAP_SIZE))
    for part in (plan.root, plan.boot):
        if part:
            _run(*EXT4, "-E", f"offset={part.offset}", raw, f"{part.size // 1024}k")
    if plan.esp:
        _run("mformat", "-i", f"{raw}@@{plan.esp.offset}", "-F", "-T", str(plan.esp.size // 512), "-h64", "-s32", "::")
    _make_swap(raw, plan.swap)
    return plan


def _make_swap(raw: Path, part: Part) -> None:
    """Debian 12's mkswap takes no offset; all that it writes is the first page."""
    with tempfile.NamedTemporaryFile() as scratch:
        scratch.truncate(part.size)
        _run("mkswap", scratch.name)
        page = scratch.read(4096)
    with raw.open("r+b") as file:
        file.seek(part.offset)
        file.write(page)


def _volumes(raw: Path, pv: Part) -> tuple[Part, Part]:
    """Root and swap as linear volumes of `vg0`: metadata only, so it needs no device-mapper and no udev."""
    where = ("--offset", str(pv.offset), "--sizelimit", str(pv.size))
    loop = _run("losetup", "--find", "--show", *where, raw).strip()
    found = {}
    with Path(loop).open("rb") as device:
        fcntl.flock(device, fcntl.LOCK_EX)  # systemd-udevd leaves a locked device alone: no activation on the host
        here = ("--driverloaded", "n", "--devices", loop, "--config", "backup { backup=0 archive=0 }")
        inactive = ("--activate", "n", "--zero", "n", "--wipesignatures", "n")
        _run("pvcreate", *here, loop)
        _run("vgcreate", *here, "vg0", loop)
        _run("lvcreate", *here, *inactive, "--name", "swap", "--size", f"{SWAP_SIZE}b", "vg0")
        _run("lvcreate", *here, *inactive, "--name", "root", "--extents", "100%FREE", "vg0")
        columns = ("-o", "lv_name,pe_start,vg_extent_size,pvseg_start,pvseg_size")
        for line in _run("pvs", *here, "--units", "b", "--nosuffix", "--noheadings", *columns).splitlines():
            name, pe_start, extent, start, count = line.split()
            offset = pv.offset + int(pe_start) + int(start) * int(extent)
            found[name] = Part(f"/dev/mapper/vg0-{name}", offset, int(count) * int(extent))
        fcntl.ioctl(device, LOOP_CLR_FD)
    return found["root"], found["swap"]


def _uuid(raw: Path, part: Part) -> str:
    probe = ("blkid", "--probe", "--offset", str(part.offset), "--size", str(part.size))
    return _run(*probe, "--output", "value", "--match-tag", "UUID", raw).strip()


def _configure(raw: Path, root: Path, plan: Plan, recipe: Recipe) -> None:
    def spec(part: Part) -> str:
        return part.device if recipe.broken else f"UUID={_uuid(raw, part)}"

    fstab = [f"{spec(plan.root)} / ext4 errors=remount-ro 0 1"]
    if plan.boot:
        fstab.append(f"{spec(plan.boot)} /boot ext4 defaults 0 2")
    if plan.esp:
        fstab.append(f"{spec(plan.esp)} /boot/efi vfat umask=0077,nofail 0 1")
    fstab += [f"{spec(plan.swap)} none swap sw 0 0", "/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0"]
    files = {
        "etc/fstab": "# /etc/fstab: static file system information.\n" + "\n".join(fstab),
        "etc/hostname": HOSTNAME,
        "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {HOSTNAME}",
        "etc/machine-id": hashlib.sha256(recipe.key.encode()).hexdigest()[:32],
        "etc/default/grub": "\n".join(
            (
                "GRUB_DEFAULT=0",
                "GRUB_TIMEOUT=0",
                "GRUB_DISTRIBUTOR=Debian",
                f'GRUB_CMDLINE_LINUX_DEFAULT="resume={spec(plan.swap)}"',
                f'GRUB_CMDLINE_LINUX="root={spec(plan.root)} console=tty0 console=ttyS0,115200"',
                "GRUB_TERMINAL=console",
                f"GRUB_DISABLE_LINUX_UUID={'true' if recipe.broken else 'false'}",
            )
        ),
        "etc/initramfs-tools/conf.d/resume": f"RESUME={spec(plan.swap)}",
        "etc/initramfs-tools/conf.d/modules": f"MODULES={'list' if recipe.broken else 'most'}",
        "etc/initramfs-tools/modules": "\n".join(VMWARE_MODULES) if recipe.broken else "",
        "boot/grub/device.map": "(hd0) /dev/sda",
    }
    for name, text in files.items():
        (root / name).write_text(f"{text}\n")
    for folder in ("media/cdrom0", "boot/efi") if plan.esp else ("media/cdrom0",):
        (root / folder).mkdir()
    for unit in UNTIMELY_UNITS:
        (root / "etc/systemd/system" / unit).symlink_to("/dev/null")
    (version,) = (path.name for path in (root / "lib/modules").iterdir())
    _run("chroot", root, "chpasswd", stdin="root:demo\n")
    _run("chroot", root, "update-initramfs", "-c", "-k", version)
    _run("chroot", root, "grub-mkconfig", "--output", "/boot/grub/grub.cfg")


def _install_grub(raw: Path, root: Path, plan: Plan) -> None:
    """GRUB's images straight into the disk: grub-install wants partition device nodes, which not every host makes."""
    holder = plan.boot or plan.root
    folder = "/grub" if plan.boot else "/boot/grub"
    embedded = root / "boot/grub/early.cfg"
    search = f"search --no-floppy --fs-uuid --set=root {_uuid(raw, holder)}\nset prefix=($root){folder}\n"
    embedded.write_text(search)
    target, image = ("x86_64-efi", "grubx64.efi") if plan.esp else ("i386-pc", "core.img")
    modules = root / "usr/lib/grub" / target
    shutil.copytree(modules, root / "boot/grub" / target)
    core = root / "boot/grub" / target / image
    drivers = GRUB_MODULES if plan.esp else ("biosdisk", *GRUB_MODULES)
    _run(
        *("chroot", root, "grub-mkimage", "--format", target, "--prefix", folder),
        *("--config", "/boot/grub/early.cfg", "--output", f"/boot/grub/{target}/{image}", *drivers),
    )
    if plan.esp:
        esp = f"{raw}@@{plan.esp.offset}"
        _run("mmd", "-i", esp, "::/EFI", "::/EFI/BOOT", "::/EFI/debian")
        for name in ("BOOT/BOOTX64.EFI", "debian/grubx64.efi"):
            _run("mcopy", "-i", esp, core, f"::/EFI/{name}")
        return
    code = core.read_bytes()
    if 512 + len(code) > MIB:
        raise SystemExit("GRUB's core image does not fit before the first partition")
    with raw.open("r+b") as file:
        file.write((modules / "boot.img").read_bytes()[:440])
        file.seek(512)
        file.write(code)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build a Debian 12 guest and print the path of its disk.")
    parser.add_argument("--subformat", choices=Subformat.__args__, help="print a VMDK instead of the raw disk")  # type: ignore[attr-defined]
    parser.add_argument("--healthy", action="store_true", help="stable names and a general initramfs")
    parser.add_argument("--lvm", action="store_true")
    parser.add_argument("--firmware", choices=("bios", "uefi"), default="bios")
    parser.add_argument("--packages", nargs="*", default=[], help="installed besides the usual ones")
    parser.add_argument("--build", action="store_true", help="build now, as root, in this mount namespace")
    arguments = parser.parse_args()
    recipe = Recipe(
        broken=not arguments.healthy,
        lvm=arguments.lvm,
        firmware=arguments.firmware,
        packages=tuple(arguments.packages),
    )
    if arguments.build:
        _build(recipe)
        return
    try:
        print(vmdk(recipe, arguments.subformat) if arguments.subformat else disk(recipe))
    except subprocess.CalledProcessError as error:  # the builder has said why
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
