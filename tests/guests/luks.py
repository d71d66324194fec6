"""Debian 12 with its root in a LUKS container, /boot outside: crypttab and its copy in the initramfs say /dev/sda2.

A key file in the initramfs opens the container, so that nobody has to type. cryptsetup encrypts what the partition
holds as it stands, which takes no device-mapper. The healthy one says UUIDs, and its initramfs knows any hardware.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tests.guests.build import MIB, Disk, make, run
from tests.guests.guest import Guest
from tests.guests.installer import BOOT, CDROM, PACKAGES

SIZE = 1792 * MIB
"""Encrypted, it is full from end to end."""
NAME = "sda2_crypt"
UUID = "b6f0c2d4-5a1e-4f39-8c77-2d9e0a3b4c5d"
KEY = "correct horse"
KEY_FILE = "/etc/keys/root.key"
ROOM = 32 * MIB
"""What the container's header takes, twice: cryptsetup moves what follows it by one half."""
DERIVATION = ("--pbkdf", "argon2id", "--pbkdf-memory", "32768", "--pbkdf-force-iterations", "4")


def build(disk: Disk, *, broken: bool) -> None:
    boot, container = disk.partition(SIZE, ("/dev/sda1", BOOT, "L"), ("/dev/sda2", 0, "L"))
    root = disk.attach(f"/dev/mapper/{NAME}", container.offset, container.size - ROOM)
    for part in (boot, root):
        make(part, "ext4")
    source, beside = (container.device, boot.device) if broken else (f"UUID={UUID}", f"UUID={boot.uuid}")
    with disk.root({"/": root, "/boot": boot}) as files:
        files.settle(f"{root.device} / ext4 errors=remount-ro 0 1", f"{beside} /boot ext4 defaults 0 2", CDROM)
        files.write(
            {
                "/etc/crypttab": f"{NAME} {source} {KEY_FILE} luks,initramfs",
                "/etc/cryptsetup-initramfs/conf-hook": 'KEYFILE_PATTERN="/etc/keys/*.key"',
                "/etc/initramfs-tools/conf.d/umask": "UMASK=0077",
            }
        )
        place = files.path / KEY_FILE.lstrip("/")
        place.parent.mkdir(mode=0o700)
        place.write_text(KEY)
        place.chmod(0o400)
        files.initramfs("none", *(("ext4",) if broken else ()))
        files.grub(f"root={root.device}")
        files.boot_by_grub(disk, boot, "/grub")
    key = disk.raw.with_name("key")
    key.write_text(KEY)
    encrypt = ("--encrypt", "--type", "luks2", "--uuid", UUID, "--reduce-device-size", str(ROOM), *DERIVATION)
    run("cryptsetup", "--batch-mode", "reencrypt", *encrypt, "--key-file", key, container.device)
    key.unlink()


MENDED = {
    "/etc/fstab",
    "/etc/crypttab",
    "/boot/grub/device.map",
    "/boot/initrd.img-*",
    "/etc/initramfs-tools/modules",
}
LUKS = (*PACKAGES, "cryptsetup-initramfs")
GUEST = Guest("luks", Path(__file__), partial(build, broken=True), LUKS, mended=frozenset(MENDED))
HEALTHY = Guest("luks-healthy", Path(__file__), partial(build, broken=False), LUKS)
