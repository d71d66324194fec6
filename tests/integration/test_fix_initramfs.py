"""Virtio appended to initrds that real tools built, read back by real tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from tests.support.broken_initrd import COMPRESSORS, DRIVERS, TREE, VERSION, BrokenGuest, tool
from tests.support.guest_on_disk import SWAP_UUID, put


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_every_compression(tmp_path: Path, compression: str) -> None:
    guest = BrokenGuest(tmp_path, compression=compression)
    (change,) = [change for change in guest.repair().changes if change.fix == "initramfs"]
    assert "virtio_blk" in change.summary and VERSION in change.summary
    stage = guest.boot_stage()
    assert (stage / "lib").is_symlink() and (stage / "init").exists()
    shown = tool("modprobe", "-d", str(stage), "-S", VERSION, "--show-depends", "virtio_blk").decode().split()
    assert [Path(path).name for path in shown if path != "insmod"] == ["virtio.ko", "virtio_ring.ko", "virtio_blk.ko"]
    for path in TREE:
        assert (stage / f"lib/modules/{VERSION}/{path}").is_file()


@pytest.mark.parametrize("suffix", ["", ".xz", ".zst", ".gz"])
def test_modules_that_the_initramfs_builder_unpacked_stay_loadable(tmp_path: Path, suffix: str) -> None:
    """initramfs-tools keeps foo.ko where the guest has foo.ko.xz: the guest's own index would lose ext4."""
    guest = BrokenGuest(tmp_path, suffix=suffix)
    guest.repair()
    stage = guest.boot_stage()
    for name in ("ext4", "ata_piix", "virtio_scsi", "virtio_pci", "virtio_net"):
        shown = tool("modprobe", "-d", str(stage), "-S", VERSION, "--show-depends", name).decode().split()
        paths = [Path(word) for word in shown if word != "insmod"]
        assert paths and all(path.is_file() for path in paths)


def test_modules_are_added_as_they_are_and_present_ones_are_not(tmp_path: Path) -> None:
    guest = BrokenGuest(tmp_path, suffix=".xz")
    guest.repair()
    names = tool("cpio", "-t", "--quiet", data=guest.appended()).decode().split()
    assert f"usr/lib/modules/{VERSION}/{DRIVERS}/block/virtio_blk.ko.xz" in names
    assert not [name for name in names if "sd_mod" in name or "ata_piix" in name]
    assert "lib" not in names and "usr" not in names


def test_a_guest_without_merged_usr(tmp_path: Path) -> None:
    guest = BrokenGuest(tmp_path, merged=False)
    guest.repair()
    stage = guest.boot_stage()
    assert (stage / f"lib/modules/{VERSION}/{DRIVERS}/block/virtio_blk.ko").is_file()
    assert not (stage / "usr").exists()


def test_stale_resume_inside_is_mended(tmp_path: Path) -> None:
    guest = BrokenGuest(tmp_path)
    guest.repair()
    assert (guest.boot_stage() / "conf/conf.d/resume").read_text() == f"RESUME=UUID={SWAP_UUID}\n"


RULES = "etc/udev/rules.d/71-hyper2kvm-net.rules"
IP = "ip=10.0.2.77::10.0.2.2:255.255.255.0:web01:ens192:off"


@pytest.mark.parametrize(
    ("path", "text"),
    [("etc/initramfs-tools/initramfs.conf", IP.replace("ip=", "IP=")), ("boot/grub/grub.cfg", f"linux /vmlinuz {IP}")],
)
def test_cards_that_it_uses_by_name_have_their_names_inside(tmp_path: Path, path: str, text: str) -> None:
    guest = BrokenGuest(tmp_path)
    put(guest.root, path, f"{text}\n")
    put(guest.root, "usr/lib/udev/rules.d/80-net-setup-link.rules", "")
    guest.repair()
    assert (guest.boot_stage() / RULES).read_text() == (guest.root / RULES).read_text()


def test_an_initramfs_that_uses_no_card_gets_no_rules(tmp_path: Path) -> None:
    guest = BrokenGuest(tmp_path)
    put(guest.root, "etc/network/interfaces", "auto ens192\niface ens192 inet dhcp\n")
    put(guest.root, "usr/lib/udev/rules.d/80-net-setup-link.rules", "")
    guest.repair()
    assert (guest.root / RULES).is_file() and not (guest.boot_stage() / RULES).exists()


def test_an_initramfs_that_only_lacks_the_driver_of_its_network(tmp_path: Path) -> None:
    guest = BrokenGuest(tmp_path)
    put(guest.root, "boot/grub/grub.cfg", "linux /vmlinuz root=nfs ip=dhcp\n")
    for path in TREE:
        if "virtio_net" not in path:
            put(guest.stage, f"{guest.lib}/modules/{VERSION}/{path}", "code")
    guest.initrd.write_bytes(guest.build(tmp_path))
    guest.original = guest.initrd.read_bytes()
    (change,) = [change for change in guest.repair().changes if change.fix == "initramfs"]
    assert "virtio_net" in change.summary


def test_lvms_devices_file_inside_is_taken_out(tmp_path: Path) -> None:
    """LVM in the initramfs would use no other disk than those of the old machine."""
    guest = BrokenGuest(tmp_path)
    path = "etc/lvm/devices/system.devices"
    put(guest.stage, path, "VERSION=1.1.2\nIDTYPE=sys_wwid IDNAME=naa.6000c29 DEVNAME=/dev/sda2 PVID=x PART=2\n")
    put(guest.stage, "etc/lvm/devices/ours.devices", "VERSION=1.1.2\nIDTYPE=md_uuid IDNAME=y DEVNAME=/dev/md0\n")
    guest.initrd.write_bytes(guest.build(tmp_path))
    guest.original = guest.initrd.read_bytes()
    guest.repair()
    stage = guest.boot_stage()
    assert not (stage / path).exists()
    assert (stage / "etc/lvm/devices/ours.devices").is_file()


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_a_second_repair_appends_nothing(tmp_path: Path, compression: str) -> None:
    guest = BrokenGuest(tmp_path, compression=compression)
    guest.repair()
    after = guest.initrd.read_bytes()
    assert guest.repair().changes == ()
    assert guest.initrd.read_bytes() == after


def test_an_initrd_that_has_virtio_is_left_alone(tmp_path: Path) -> None:
    guest = BrokenGuest(tmp_path)
    for path in TREE:
        put(guest.stage, f"{guest.lib}/modules/{VERSION}/{path}", "code")
    put(guest.stage, "conf/conf.d/resume", "RESUME=none\n")
    guest.initrd.write_bytes(guest.build(tmp_path))
    before = guest.initrd.read_bytes()
    guest.repair()
    assert guest.initrd.read_bytes() == before


def test_builtin_drivers_count(tmp_path: Path) -> None:
    guest = BrokenGuest(tmp_path)
    modules = f"{guest.lib}/modules/{VERSION}"
    kept = [path for path in TREE if "virtio" not in path]
    put(guest.root, f"{modules}/modules.dep", "".join(f"{path}: {' '.join(TREE[path])}\n" for path in kept))
    put(guest.root, f"{modules}/modules.builtin", "".join(f"{path}\n" for path in TREE if "virtio" in path))
    put(guest.stage, "conf/conf.d/resume", "")
    guest.initrd.write_bytes(guest.build(tmp_path))
    before = guest.initrd.read_bytes()
    guest.repair()
    assert guest.initrd.read_bytes() == before


def test_every_kernel_is_mended_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    guest = BrokenGuest(tmp_path)
    modules = guest.root / "usr/lib/modules"
    for version, data in (("6.1.0-1-amd64", guest.original), ("6.1.0-2-amd64", b"no initrd at all")):
        tool("cp", "-a", str(modules / VERSION), str(modules / version))
        put(guest.root, f"boot/vmlinuz-{version}", "kernel")
        put(guest.root, f"boot/initrd.img-{version}", data)
    found = guest.repair()
    assert found.kernels == ("6.1.0-1-amd64", "6.1.0-2-amd64", VERSION)
    mended = sorted(change.path for change in found.changes if change.fix == "initramfs")
    assert mended == [f"/boot/initrd.img-{version}" for version in ("6.1.0-1-amd64", VERSION)]
    (warning,) = found.warnings
    assert "kernel 6.1.0-2-amd64 will not find its disk" in warning


def test_no_readable_initrd_at_all_fails_the_job_and_writes_nothing(tmp_path: Path) -> None:
    guest = BrokenGuest(tmp_path)
    guest.initrd.write_bytes(guest.original[:-200])
    put(guest.root, "etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n")
    with pytest.raises(MigrationFailed) as caught:
        guest.repair()
    assert caught.value.code == "initrd-damaged"
    assert (guest.root / "etc/fstab").read_text() == "/dev/sda1 / ext4 defaults 0 1\n"


def test_a_kernel_without_virtio_is_unsupported(tmp_path: Path) -> None:
    guest = BrokenGuest(tmp_path)
    put(guest.root, f"{guest.lib}/modules/{VERSION}/modules.dep", "kernel/fs/ext4/ext4.ko:\n")
    with pytest.raises(MigrationFailed, match="has no module virtio_pci"):
        guest.repair()


def test_no_kernel_is_unsupported_unless_the_initramfs_is_not_asked_for(tmp_path: Path) -> None:
    guest = BrokenGuest(tmp_path)
    guest.initrd.unlink()
    (guest.root / f"boot/vmlinuz-{VERSION}").unlink()
    with pytest.raises(MigrationFailed, match="no installed kernel"):
        guest.repair()
    assert guest.repair(regen_initramfs=False).changes == ()


def test_a_link_to_the_host_in_the_module_tree_is_not_followed(tmp_path: Path) -> None:
    guest = BrokenGuest(tmp_path)
    secret = put(tmp_path, "host-secret", "the host's own")
    module = guest.root / f"usr/lib/modules/{VERSION}/{DRIVERS}/block/virtio_blk.ko"
    module.unlink()
    module.symlink_to(secret)
    with pytest.raises(MigrationFailed, match="is missing, though"):
        guest.repair()
    assert guest.initrd.read_bytes() == guest.original
