"""Repairs of names of disks in settings other than fstab and the boot loader's."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.guest.linux import cpio, initrd
from hyper2kvmd.model.disks import Layout
from hyper2kvmd.model.guest import Guest
from tests.support.guest_on_disk import ROOT_UUID, SWAP_UUID, files_below, migration, partition, put, repaired

LUKS_UUID = "77777777-1111-4222-8333-777777777777"
ARRAY_UUID = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
LAYOUT = Layout(
    tables=("gpt",),
    volumes=(
        partition(1, uuid=ROOT_UUID, partuuid="10000000-0000-4000-8000-000000000001"),
        partition(2, "LVM2_member", uuid="pvpvpv-1", partuuid="20000000-0000-4000-8000-000000000002"),
        partition(3, "crypto_LUKS", uuid=LUKS_UUID, partuuid="30000000-0000-4000-8000-000000000003"),
        partition(4, "linux_raid_member", uuid=ARRAY_UUID),
        partition(5, "swap", uuid=SWAP_UUID, partuuid="50000000-0000-4000-8000-000000000005"),
        partition(6, "unknown"),
    ),
)
ALL_OFF = {"regen_initramfs": False}


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    put(tmp_path, "etc/os-release", "ID=debian\n")
    (tmp_path / "usr").mkdir()
    return tmp_path


def repair(guest: Path, **options: object) -> Guest:
    asked = migration(**{**ALL_OFF, **options})
    found = repaired({"partition 1": guest}, LAYOUT, asked)
    assert repaired({"partition 1": guest}, LAYOUT, asked).changes == ()
    return found


def mended(guest: Path, path: str, before: str, **options: object) -> tuple[str, tuple[str, ...]]:
    file = put(guest, path, before)
    found = repair(guest, **options)
    assert {change.path for change in found.changes} <= {f"/{path}"}
    return file.read_text(), found.warnings


def test_crypttab(guest: Path) -> None:
    text = (
        "# <target> <source> <key> <options>\n"
        "data\t/dev/sda3  none\tluks,discard # x\n"
        "cswap /dev/sda5 /dev/urandom swap,cipher=aes-xts-plain64\n"
        "done UUID=11111111-1111-4111-8111-111111111111 none\n"
        "away /dev/sdb7 none nofail\n"
        "# old /dev/sda3 none\n"
    )
    after, warnings = mended(guest, "etc/crypttab", text)
    swap = "/dev/disk/by-partuuid/50000000-0000-4000-8000-000000000005"
    assert after == text.replace("/dev/sda3  none", f"UUID={LUKS_UUID}  none").replace("/dev/sda5", swap)
    gone = "/etc/crypttab line 4: UUID=11111111-1111-4111-8111-111111111111 matches no volume on these disks: the guest"
    away = "/etc/crypttab line 5: /dev/sdb7 matches no volume on these disks: the guest boots without it (nofail)"
    assert len(warnings) == 2 and gone in warnings[0] and away in warnings[1]


def test_encrypted_swap_never_gets_the_uuid_of_what_it_overwrites(guest: Path) -> None:
    after, _ = mended(guest, "etc/crypttab", "cswap /dev/sda5 /dev/urandom swap\n")
    assert SWAP_UUID not in after


@pytest.mark.parametrize("mode", ["bypath-only", "noop"])
def test_crypttab_and_units_keep_their_names_when_fstab_does(guest: Path, mode: str) -> None:
    put(guest, "etc/systemd/system/srv.mount", "[Mount]\nWhat=/dev/sda1\n")
    put(guest, "etc/crypttab", "data /dev/sda3 none\n")
    assert repair(guest, fstab_mode=mode).changes == ()


def test_mount_units(guest: Path) -> None:
    text = "[Mount]\nWhat = /dev/sda5\n#What=/dev/sda1\nWhere=/srv\n"
    after, _ = mended(guest, "etc/systemd/system/srv.swap", text)
    assert after == text.replace("/dev/sda5", f"/dev/disk/by-uuid/{SWAP_UUID}")
    after, warnings = mended(guest, "etc/systemd/system/old.mount", "[Mount]\nWhat=/dev/sdq1\n")
    assert after.endswith("/dev/sdq1\n") and "old.mount: /dev/sdq1 matches no volume" in warnings[0]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("DEVICE /dev/sda* /dev/sdb*\n", "DEVICE partitions\n"),
        ("DEVICE partitions\n", "DEVICE partitions\n"),
        ("dev  /dev/sd[ab]1 containers # both\nMAILADDR root\n", "dev  partitions containers # both\nMAILADDR root\n"),
        ("DEVICE partitions /dev/hda\n", "DEVICE partitions\n"),
        ("DEVICE /dev/sda1\n   /dev/sdb1\n# DEVICE /dev/sda\n", "DEVICE partitions\n# DEVICE /dev/sda\n"),
        (
            "ARRAY /dev/md0 level=raid1 devices=/dev/sda4,/dev/sdb4\n",
            "ARRAY /dev/md0 level=raid1 UUID=0a1b2c3d:4e5f6071:8293a4b5:c6d7e8f9\n",
        ),
        (
            "ARRAY /dev/md0\n   devices=/dev/sda4,/dev/sdb4\n   uuid=0:1:2:3 name=x\n",
            "ARRAY /dev/md0\n   uuid=0:1:2:3 name=x\n",
        ),
        ("ARRAY /dev/md/0 metadata=1.2 UUID=0:1:2:3\n", "ARRAY /dev/md/0 metadata=1.2 UUID=0:1:2:3\n"),
        ("ARRAY /dev/md9 devices=/dev/md1,/dev/md2\n", "ARRAY /dev/md9 devices=/dev/md1,/dev/md2\n"),
    ],
)
def test_mdadm(guest: Path, before: str, after: str) -> None:
    assert mended(guest, "etc/mdadm/mdadm.conf", before) == (after, ())


def test_an_array_of_other_disks_is_told(guest: Path) -> None:
    text = "ARRAY /dev/md0 devices=/dev/sdb1,/dev/sdc1\n"
    after, warnings = mended(guest, "etc/mdadm.conf", text)
    assert after == text and "matches no array on these disks" in warnings[0]


@pytest.mark.parametrize(
    ("before", "accepted"),
    [
        ('filter = [ "a|^/dev/sda2$|", "r|.*|" ]', True),
        ('global_filter=["a|/dev/sd.*|","r/.*/"]', True),
        ('filter = "r|/dev/.*|"', True),
        ('\tfilter = [ "a|/dev/disk/by-path/pci-0000:03:00.0-scsi.*|",\n\t\t"r|.*|" ]', True),
        ('filter = [ "a(^/dev/(sda|sdb)[0-9]*)", "r(.)" ]', True),
        ('filter = [ "a/.*/" ]', False),
        ('filter = [ "r|/dev/cdrom|" ]', False),
        ('filter = [ "r|/dev/.*/by-path/.*|", "r|/dev/.*/by-id/.*|", "r|/dev/fd.*|", "a/.*/" ]', False),
        ('filter = [ "a|^/dev/sda2$|", "a|^/dev/vd|", "r|.*|" ]', False),
        ('filter = [ "a|lvm-pv-uuid-pvpvpv-1$|", "r|.*|" ]', False),
        ('filter = [ "r|^/dev/vd|" ]', True),
        ("filter = []", False),
        ('# filter = [ "r|.*|" ]', False),
        ('filter_note = "r|.*|"', False),
    ],
)
def test_lvm_filter(guest: Path, before: str, accepted: bool) -> None:
    text = f'devices {{\n    dir = "/dev"\n    {before}\n}}\n'
    after, warnings = mended(guest, "etc/lvm/lvm.conf", text)
    assert warnings == () and (after != text) == accepted
    if accepted:
        assert after.replace('"a|^/dev/vda2$|", ', "").replace("[ ", "[").replace(" ]", "]") in (
            text.replace("[ ", "[").replace(" ]", "]"),
            text.replace('"r|/dev/.*|"', '["r|/dev/.*|"]'),
        )
        assert after.index('"a|^/dev/vda2$|"') < after.index('"', after.index("filter") + 30)


@pytest.mark.parametrize(
    "pattern",
    ["x", "a", "z|y|", "a|(|", "a|((.*)*)*x|", "a|.*.*.*.*.*.*.*.*.*.*.*x|", "a|b{1,9}|", "a|" + "b" * 300 + "|"],
)
def test_a_filter_that_cannot_be_judged_is_told(guest: Path, pattern: str) -> None:
    text = f'filter = [ "{pattern}", "r|.*|" ]\n'
    after, warnings = mended(guest, "etc/lvm/lvm.conf", text)
    assert after == text and "is unclear. Make sure that it includes /dev/vda2." in warnings[0]


def test_caches_go(guest: Path) -> None:
    for path in ("etc/lvm/cache/.cache", "etc/blkid.tab", "etc/blkid/blkid.tab", "etc/lvm/backup/vg"):
        put(guest, path, "/dev/sda2\n")
    repair(guest)
    assert [path for path in files_below(guest) if "lvm" in path or "blkid" in path] == ["etc/lvm/backup/vg"]


DEBCONF = """Name: grub-pc/chainload_from_menu.lst
Template: grub-pc/chainload_from_menu.lst
Value: true
Owners: grub-pc

Name: grub-pc/install_devices
Template: grub-pc/install_devices
Value: {devices}
Owners: grub-pc
Flags: seen
Variables:
 CHOICES = /dev/sda (21474 MB; VMware_Virtual_disk)
 RAW_CHOICES = /dev/sda

Name: other/disk
Template: other/disk
Value: /dev/sda
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/dev/sda", "/dev/vda"),
        ("/dev/disk/by-id/scsi-36000c29a1b2c3d4e5f", "/dev/vda"),
        ("/dev/sda, /dev/sda1", f"/dev/vda, /dev/disk/by-uuid/{ROOT_UUID}"),
        ("/dev/vda", "/dev/vda"),
        ("", ""),
    ],
)
def test_debian_installs_grub_on_the_disk_there_is(guest: Path, before: str, after: str) -> None:
    text, warnings = mended(guest, "var/cache/debconf/config.dat", DEBCONF.format(devices=before))
    assert (text, warnings) == (DEBCONF.format(devices=after), ())


def test_suse_and_red_hat_install_grub_on_the_disk_there_is(guest: Path) -> None:
    text = "# /dev/sda\n/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0\n/dev/sda1\nactivate\ngeneric_mbr\n"
    after, _ = mended(guest, "etc/default/grub_installdevice", text)
    assert after == f"# /dev/sda\n/dev/vda\n/dev/disk/by-uuid/{ROOT_UUID}\nactivate\ngeneric_mbr\n"
    after, _ = mended(guest, "etc/sysconfig/grub", "boot=/dev/sda\nforcelba=0\n# boot=/dev/sda\nx=/dev/sda\n")
    assert after == "boot=/dev/vda\nforcelba=0\n# boot=/dev/sda\nx=/dev/sda\n"


def test_a_disk_that_is_not_here_is_no_place_for_grub(guest: Path) -> None:
    after, warnings = mended(guest, "etc/default/grub_installdevice", "/dev/sdb\n")
    assert after == "/dev/sdb\n" and "/dev/sdb matches nothing on these disks" in warnings[0]


def test_device_map_of_grub_legacy_is_rewritten(guest: Path) -> None:
    put(guest, "boot/grub/menu.lst", "timeout 5\n")
    text = "(fd0)\t/dev/fd0\n(hd0)\t/dev/sda\n(hd1)\t/dev/disk/by-id/ata-x\n"
    after, _ = mended(guest, "boot/grub/device.map", text)
    assert after == "(fd0)\t/dev/fd0\n(hd0)\t/dev/vda\n(hd1)\t/dev/vdb\n"


def test_device_map_beside_grub_2_goes_even_with_an_old_menu(guest: Path) -> None:
    for path in ("boot/grub/menu.lst", "boot/grub/grub.cfg"):
        put(guest, path, "")
    put(guest, "boot/grub/device.map", "(hd0)\t/dev/sda\n")
    repair(guest)
    assert not (guest / "boot/grub/device.map").exists()


def test_a_question_of_debconf_that_has_no_answer_gets_none(guest: Path) -> None:
    text = "Name: grub-pc/install_devices\nOwners: grub-pc\n\nName: other/disk\nValue: /dev/sda\n"
    assert mended(guest, "var/cache/debconf/config.dat", text) == (text, ())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/mdadm.conf", "DEVICE x" + " " * 300_000 + "y\n"),
        ("etc/sysconfig/oracleasm", "SCANORDER=" * 100_000 + "\n"),
        ("etc/lvm/lvm.conf", 'filter = [ "a", \n' * 100_000),
        ("etc/X11/xorg.conf", 'Section "Device"\n' * 100_000),
    ],
)
def test_texts_made_to_take_for_ever(guest: Path, path: str, text: str) -> None:
    """A pattern that looks at every end from every start would be here until the job is killed."""
    assert mended(guest, path, text)[0] == text


XORG = """Section "Device"
    Identifier "VMware SVGA"
    Driver "vmware"
    BusID "PCI:0:15:0"
EndSection
Section "Device"
    Identifier "other"
    BusID "PCI:1:0:0"
    Driver "modesetting"
EndSection
Section "InputDevice"
    Identifier "Mouse"
    Driver "vmmouse"
EndSection
Section "InputClass"
    Identifier "vm"
    Driver  "VMMouse"
EndSection
"""


def test_x_finds_its_own_driver(guest: Path) -> None:
    after, _ = mended(guest, "etc/X11/xorg.conf", XORG)
    expected = XORG.replace('    Driver "vmware"', '#    Driver "vmware"').replace(
        '    BusID "PCI:0', '#    BusID "PCI:0'
    )
    assert after == expected.replace('    Driver  "VMMouse"', '#    Driver  "VMMouse"')


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("etc/hdparm.conf", "/dev/sda {"),
        ("etc/smartd.conf", "/dev/sdb -a -m root"),
        ("etc/kdump.conf", "ext4 /dev/sda3"),
        ("etc/rc.local", "echo noop > /sys/block/sda/queue/scheduler"),
        ("etc/sysconfig/oracleasm", 'ORACLEASM_SCANORDER="dm sd"'),
        ("etc/udev/rules.d/99-asm.rules", 'KERNEL=="sd?1", SUBSYSTEM=="block", OWNER="grid"'),
    ],
)
def test_hardware_that_is_meant_is_told(guest: Path, path: str, line: str) -> None:
    text = f"# about /dev/sda\n\n{line}\n/dev/sdc\n"
    after, warnings = mended(guest, path, text)
    assert after == text and len(warnings) == 1 and f"/{path} line 3 names" in warnings[0]


@pytest.mark.parametrize("line", ["DEVICESCAN -d removable", "/dev/disk/by-id/dm-name-x", 'KERNEL=="vd?"', "#/dev/sda"])
def test_other_settings_of_hardware_are_not_told(guest: Path, line: str) -> None:
    assert mended(guest, "etc/smartd.conf", line + "\n") == (line + "\n", ())


def test_lilo_is_told_unless_another_loader_boots_the_guest(guest: Path) -> None:
    text = "boot=/dev/sda\nimage=/boot/vmlinuz\n root=/dev/sda1\n"
    after, warnings = mended(guest, "etc/lilo.conf", text)
    assert after == text and "boots by LILO, which is not repaired" in warnings[0]
    put(guest, "boot/grub/grub.cfg", "")
    assert repair(guest).warnings == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("fips=1 boot=/dev/sda1", f"fips=1 boot=UUID={ROOT_UUID}"),
        ("cryptdevice=/dev/sda3:cryptroot:allow-discards", f"cryptdevice=UUID={LUKS_UUID}:cryptroot:allow-discards"),
        ("cryptroot=/dev/sda3 cryptdm=root", f"cryptroot=UUID={LUKS_UUID} cryptdm=root"),
        ("boot=live noprompt", "boot=live noprompt"),
        ("vmw_pvscsi.cmd_per_lun=254 clocksource=tsc console=ttyS0,115200 quiet", None),
        (f"rd.luks.uuid=luks-{LUKS_UUID} quiet", None),
    ],
)
def test_other_devices_of_the_command_line(guest: Path, before: str, after: str | None) -> None:
    text, warnings = mended(guest, "etc/default/grub", f'GRUB_CMDLINE_LINUX="{before}"\n')
    assert (text, warnings) == (f'GRUB_CMDLINE_LINUX="{after or before}"\n', ())


def test_copies_in_the_initramfs_are_mended_too(guest: Path) -> None:
    """The guest's builder baked them in; LVM in there reads its own lvm.conf."""
    version = "6.1.0-18-amd64"
    put(
        guest,
        f"lib/modules/{version}/modules.builtin",
        "kernel/virtio_pci.ko\nkernel/virtio_blk.ko\nkernel/virtio_scsi.ko\n",
    )
    put(guest, f"lib/modules/{version}/modules.dep", "")
    archive = cpio.Archive()
    settings = {
        "conf/conf.d/resume": "RESUME=/dev/sda5\n",
        "etc/lvm/lvm.conf": 'devices {\n filter = [ "a|/dev/sda|", "r|.*|" ]\n}\n',
        "etc/mdadm/mdadm.conf": "DEVICE /dev/sda4\n",
        "cryptroot/crypttab": "data /dev/sda3 none luks\n",
        "etc/cmdline.d/95resume.conf": " resume=/dev/sda5\n",
        "etc/fstab": "/dev/sda1 / ext4\n",
    }
    for name, text in settings.items():
        archive.file(name, text.encode())
    packed = archive.finish()
    image = put(guest, f"boot/initrd.img-{version}", packed)
    (change,) = repair(guest, regen_initramfs=True).changes
    assert image.read_bytes().startswith(packed)
    with image.open("rb") as file:
        after = initrd.read(file, lambda _: True).contents.files
    assert after["conf/conf.d/resume"] == f"RESUME=UUID={SWAP_UUID}\n".encode()
    assert b'[ "a|^/dev/vda2$|", "a|/dev/sda|", "r|.*|" ]' in after["etc/lvm/lvm.conf"]
    assert after["etc/mdadm/mdadm.conf"] == b"DEVICE partitions\n"
    assert after["cryptroot/crypttab"] == f"data UUID={LUKS_UUID} none luks\n".encode()
    assert after["etc/cmdline.d/95resume.conf"] == f" resume=UUID={SWAP_UUID}\n".encode()
    assert "etc/lvm/lvm.conf mended" in change.summary and "etc/fstab" not in change.summary
