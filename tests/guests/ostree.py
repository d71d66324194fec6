"""Debian 12 as a deployment of ostree, laid out as Fedora CoreOS is: /usr in a repository, /etc and /var beside it.

Its initramfs is dracut's, with `ostree-prepare-root` and without virtio. The boot entry and GRUB name `/dev/sda1`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.guests.build import CONSOLE, DEBIAN, Disk, Root, make
from tests.guests.dracut import DRACUT
from tests.guests.guest import Guest
from tests.guests.installer import SIZE

NAME, BRANCH = "debian", "debian/12"
SYSROOT, TREE = "/sysroot.new", "/tree"
LINKS = {
    **{name: f"usr/{name}" for name in ("bin", "sbin", "lib", "lib64")},
    **{name: f"var/{name}" for name in ("home", "opt", "srv", "mnt")},
    "root": "var/roothome",
    "tmp": "sysroot/tmp",
    "ostree": "sysroot/ostree",
}
FOLDERS = ("boot", "dev", "proc", "run", "sys", "sysroot", "var")
SETTINGS = {name: text.replace(" systemd ", " systemd ostree ") for name, text in DRACUT.items()}
STATE = "d /var/roothome 0700 root root\nd /var/home\nd /var/log\nd /var/lib\nL /var/run - - - - ../run"


def build(disk: Disk) -> None:
    (root,) = disk.partition(SIZE, ("/dev/sda1", 0, "L"))
    make(root, "ext4")
    with disk.root({"/": root}) as files:
        files.settle(f"{root.device} / ext4 defaults 0 1")
        files.write({**SETTINGS, "/etc/tmpfiles.d/ostree.conf": STATE})
        (version,) = files.kernels
        modules = f"/usr/lib/modules/{version}"
        files.run("dracut", "--force", "--kver", version, f"{modules}/initramfs.img")
        files.copy(f"/boot/vmlinuz-{version}", f"{modules}/vmlinuz")
        _commit(files)
        deployed = _deploy(files, f"root={root.device}", "rw", *CONSOLE.split())
        files.write({"/boot/grub/grub.cfg": deployed})
        files.boot_by_grub(disk, root)
        _become_sysroot(files.path)


def _commit(files: Root) -> None:
    """The system as a tree of ostree's: /etc in /usr, nothing in /var, links to both."""
    tree = files.path / TREE.strip("/")
    tree.mkdir()
    for name in FOLDERS:
        (tree / name).mkdir()
    for name, target in LINKS.items():
        (tree / name).symlink_to(target)
    files.run("cp", "--archive", "--link", "/usr", f"{TREE}/usr")
    files.run("cp", "--archive", "/etc", f"{TREE}/usr/etc")
    (files.path / SYSROOT.strip("/")).mkdir()
    files.run("ostree", "admin", "init-fs", SYSROOT)
    files.run("ostree", "admin", "os-init", NAME, f"--sysroot={SYSROOT}")
    files.run("ostree", "commit", f"--repo={SYSROOT}/ostree/repo", f"--branch={BRANCH}", f"--tree=dir={TREE}")


def _deploy(files: Root, *arguments: str) -> str:
    """Make the deployment; a grub.cfg for its boot entry, since Debian's GRUB reads no entries."""
    words = [f"--karg={argument}" for argument in arguments]
    files.run("ostree", "admin", "deploy", f"--sysroot={SYSROOT}", f"--os={NAME}", *words, BRANCH)
    (entry,) = (files.path / SYSROOT.strip("/") / "boot/loader/entries").glob("*.conf")
    values = dict(line.split(None, 1) for line in entry.read_text().splitlines())
    lines = (f"linux /boot{values['linux']} {values['options']}", f"initrd /boot{values['initrd']}")
    return "\n".join(("set timeout=0", "menuentry Debian {", *lines, "}"))


def _become_sysroot(top: Path) -> None:
    """Put the new root in the place of Debian's own, with GRUB's files."""
    new = top / SYSROOT.strip("/")
    shutil.move(top / "boot/grub", new / "boot/grub")
    for old in top.iterdir():
        if old.name in ("boot", "dev", "proc", "sys", "lost+found", new.name):
            continue
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()
    shutil.rmtree(top / "boot")
    for one in new.iterdir():
        if not (top / one.name).exists():
            one.rename(top / one.name)
        else:
            one.rmdir()
    new.rmdir()


MENDED = frozenset(
    (
        "/etc/fstab",
        "/boot/grub/grub.cfg",
        "/boot/loader.*/entries/ostree-1-debian.conf",
        "/boot/ostree/debian-*/initramfs-*.img",
        "/etc/dracut.conf.d/90-hyper2kvm.conf",
    )
)
GUEST = Guest("ostree", Path(__file__), build, (*DEBIAN, "dracut", "ostree", "ostree-boot"), mended=MENDED)
