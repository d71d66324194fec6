"""Guests whose initramfs knows VMware's disks only, packed by real tools."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hyper2kvmd.guest.linux import frames
from hyper2kvmd.model.guest import Guest
from tests.support.guest_on_disk import ROOT_UUID, migration, put, repaired, simple_layout

VERSION = "6.12.38+deb13-amd64"
DRIVERS = "kernel/drivers"
TREE = {
    f"{DRIVERS}/virtio/virtio.ko": (),
    f"{DRIVERS}/virtio/virtio_ring.ko": (f"{DRIVERS}/virtio/virtio.ko",),
    f"{DRIVERS}/virtio/virtio_pci_legacy_dev.ko": (),
    f"{DRIVERS}/virtio/virtio_pci_modern_dev.ko": (),
    f"{DRIVERS}/virtio/virtio_pci.ko": (
        f"{DRIVERS}/virtio/virtio_pci_legacy_dev.ko",
        f"{DRIVERS}/virtio/virtio_pci_modern_dev.ko",
        f"{DRIVERS}/virtio/virtio_ring.ko",
        f"{DRIVERS}/virtio/virtio.ko",
    ),
    f"{DRIVERS}/block/virtio_blk.ko": (f"{DRIVERS}/virtio/virtio_ring.ko", f"{DRIVERS}/virtio/virtio.ko"),
    f"{DRIVERS}/scsi/scsi_common.ko": (),
    f"{DRIVERS}/scsi/scsi_mod.ko": (f"{DRIVERS}/scsi/scsi_common.ko",),
    f"{DRIVERS}/scsi/sd_mod.ko": (f"{DRIVERS}/scsi/scsi_mod.ko", f"{DRIVERS}/scsi/scsi_common.ko"),
    f"{DRIVERS}/scsi/virtio_scsi.ko": (
        f"{DRIVERS}/scsi/scsi_mod.ko",
        f"{DRIVERS}/scsi/scsi_common.ko",
        f"{DRIVERS}/virtio/virtio_ring.ko",
        f"{DRIVERS}/virtio/virtio.ko",
    ),
    "kernel/net/core/failover.ko": (),
    f"{DRIVERS}/net/net_failover.ko": ("kernel/net/core/failover.ko",),
    f"{DRIVERS}/net/virtio_net.ko": (
        f"{DRIVERS}/net/net_failover.ko",
        "kernel/net/core/failover.ko",
        f"{DRIVERS}/virtio/virtio_ring.ko",
        f"{DRIVERS}/virtio/virtio.ko",
    ),
    f"{DRIVERS}/ata/ata_piix.ko": (f"{DRIVERS}/scsi/scsi_mod.ko", f"{DRIVERS}/scsi/scsi_common.ko"),
    "kernel/fs/ext4/ext4.ko": (),
}
COMPRESSORS: dict[str, list[str]] = {
    "none": ["cat"],
    "gzip": ["gzip", "-n"],
    "xz": ["xz", "--check=crc32"],
    "lzma": ["xz", "--format=lzma"],
    "bzip2": ["bzip2"],
    "zstd": ["zstd", "-q"],
    "lz4": ["lz4", "-l", "-q"],
}
IN_INITRD = [f"{DRIVERS}/scsi/scsi_common.ko", f"{DRIVERS}/scsi/scsi_mod.ko", f"{DRIVERS}/scsi/sd_mod.ko"]
IN_INITRD += [f"{DRIVERS}/ata/ata_piix.ko", "kernel/fs/ext4/ext4.ko"]


def tool(*argv: str, data: bytes = b"", cwd: Path | None = None) -> bytes:
    return subprocess.run(argv, input=data, stdout=subprocess.PIPE, check=True, cwd=cwd, timeout=60).stdout


def pack(folder: Path) -> bytes:
    names = tool("find", ".", "-print0", cwd=folder)
    return tool("cpio", "-o", "-H", "newc", "-0", "--quiet", data=names, cwd=folder)


class BrokenGuest:
    """A guest with one kernel whose initrd knows VMware's disks only. `suffix` is the modules' packing in the guest."""

    def __init__(self, folder: Path, *, compression: str = "gzip", suffix: str = "", merged: bool = True) -> None:
        self.root = folder / "guest"
        self.stage = folder / "stage"
        self.compression, self.suffix = compression, suffix
        put(self.root, "etc/os-release", "ID=debian\nPRETTY_NAME='Debian GNU/Linux 13 (trixie)'\n")
        put(self.root, "etc/fstab", f"UUID={ROOT_UUID} / ext4 defaults 0 1\n")
        put(self.root, f"boot/vmlinuz-{VERSION}", "kernel")
        self.lib = "usr/lib" if merged else "lib"
        if merged:
            (self.root / "usr").mkdir()
            (self.root / "lib").symlink_to("usr/lib")
        modules = f"{self.lib}/modules/{VERSION}"
        lines = [f"{path}{suffix}:" + "".join(f" {need}{suffix}" for need in needs) for path, needs in TREE.items()]
        put(self.root, f"{modules}/modules.dep", "\n".join(lines) + "\n")
        put(self.root, f"{modules}/modules.builtin", "kernel/drivers/char/random.ko\n")
        put(self.root, f"{modules}/modules.alias", "alias virtio:d00000002v* virtio_blk\n")
        for path in TREE:
            put(self.root, f"{modules}/{path}{suffix}", f"code of {path}{suffix}")
        for path in IN_INITRD:
            put(self.stage, f"{modules}/{path}", f"unpacked code of {path}")
        put(self.stage, "init", "#!/bin/sh\n")
        put(self.stage, "conf/conf.d/resume", "RESUME=/dev/sda5\n")
        put(self.stage, f"{modules}/modules.dep", "old index\n")
        if merged:
            (self.stage / "lib").symlink_to("usr/lib")
        put(folder / "early", "kernel/x86/microcode/GenuineIntel.bin", b"microcode" * 999)
        self.initrd = put(self.root, f"boot/initrd.img-{VERSION}", self.build(folder))
        self.original = self.initrd.read_bytes()

    def build(self, folder: Path) -> bytes:
        return pack(folder / "early") + tool(*COMPRESSORS[self.compression], data=pack(self.stage))

    def repair(self, **options: object) -> Guest:
        return repaired({"partition 1": self.root}, simple_layout(), migration(**options))

    def appended(self) -> bytes:
        """Our cpio archive, unpacked by the tool that made the initrd, or by gzip."""
        data = self.initrd.read_bytes()
        assert data.startswith(self.original)
        added = data[len(self.original) :]
        if self.compression == "lz4":
            whole = tool("lz4", "-dcq", data=data[data.index(frames.LZ4_LEGACY) :])
            return whole[len(pack(self.stage)) :]
        member = added.lstrip(b"\0")
        assert (len(data) - len(member)) % 4 == 0
        return tool("gzip", "-dc", data=member)

    def boot_stage(self) -> Path:
        """What the kernel would see: our archive unpacked over the original one."""
        tool("cpio", "-idu", "--quiet", data=self.appended(), cwd=self.stage)
        return self.stage
