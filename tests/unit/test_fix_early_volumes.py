"""What an initramfs or GRUB starts before the root: a name on none of the disks is reported, in whatever form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.model.disks import Crypt, Layout, Volume
from tests.support.guest_on_disk import GOLDEN, GoldenCase, logical, migration, partition, put, repaired

ROOT_UUID = "1b7f8c5e-5b3a-4c53-9f6e-0a2c1d3e4f50"
BOOT_UUID = "2c2c2c2c-5b3a-4c53-9f6e-0a2c1d3e4f51"
LUKS_UUID = "3d3d3d3d-1111-4222-8333-bbbbbbbbbbbb"
ARRAY_UUID = "4e4e4e4e-1111-4222-8333-cccccccccccc"
ARRAY = "4e4e4e4e:11114222:8333cccc:cccccccc"
GONE = "99999999-1111-4111-8111-111111111111"


def some(kind: str, **attributes: object) -> Volume:
    return partition(9).with_changes(kind=kind, **attributes)


def volumes(root: Volume | None = None) -> tuple[Volume, ...]:
    return (
        root or logical("rhel", "root", uuid=ROOT_UUID),
        logical("rhel", "swap", "swap"),
        partition(1, "swap", uuid=BOOT_UUID, label="boot"),
        partition(2, "LVM2_member", uuid="aa-bb"),
        partition(3, "crypto_LUKS", uuid=LUKS_UUID),
        partition(4, "linux_raid_member", uuid=ARRAY_UUID),
    )


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    put(tmp_path, "etc/os-release", "ID=rhel\n")
    (tmp_path / "usr").mkdir()
    return tmp_path


def warnings_of(guest: Path, *found: Volume, **options: object) -> list[str]:
    """Without those about volumes that this test cannot mount."""
    found = found or volumes()
    layout = Layout(tables=("gpt",), volumes=found)
    after = repaired({found[0].name: guest}, layout, migration(regen_initramfs=False, **options))
    return [warning for warning in after.warnings if "was not inspected" not in warning]


PARAMETERS = [
    ("rd.lvm.lv=rhel/swap", "rd.lvm.lv=rhel/home"),
    ("rd_LVM_LV=rhel/swap", "rd_LVM_LV=vg_db01/swap"),
    ("rd.lvm.vg=rhel", "rd.lvm.vg=rhel9"),
    ("rd_LVM_VG=rhel", "rd_LVM_VG=data"),
    (f"rd.luks.uuid={LUKS_UUID}", f"rd.luks.uuid={GONE}"),
    (f"rd.luks.uuid=luks-{LUKS_UUID}", f"rd.luks.uuid=luks-{GONE}"),
    (f"rd.luks.uuid=luks-{LUKS_UUID[:13]}", "rd.luks.uuid=luks-99999999-11"),
    (f"rd_LUKS_UUID=luks-{LUKS_UUID}", f"rd_LUKS_UUID=luks-{GONE}"),
    (f"rd.luks.name={LUKS_UUID}=data", f"rd.luks.name={GONE}=data"),
    (f"luks.name={LUKS_UUID}=data", f"luks.name={GONE}=data"),
    (f"rd.md.uuid={ARRAY}", f"rd.md.uuid={ARRAY.replace('4', '5')}"),
    (f"rd.md.uuid={ARRAY_UUID}", f"rd.md.uuid={GONE}"),
    (f"rd_MD_UUID={ARRAY}", f"rd_MD_UUID={ARRAY.replace('4', '5')}"),
    (f"cryptdevice=UUID={LUKS_UUID}:data", f"cryptdevice=UUID={GONE}:data"),
    (f"cryptopts=target=data,source=UUID={LUKS_UUID}", f"cryptopts=target=data,source=UUID={GONE}"),
    (f"rd.luks.data={LUKS_UUID}=UUID={BOOT_UUID}", f"rd.luks.data={LUKS_UUID}=UUID={GONE}"),
    (f"rd.luks.key=/key:UUID={BOOT_UUID}", f"rd.luks.key=/key:UUID={GONE}"),
    (f"cryptkey=UUID={BOOT_UUID}:ext4:/key", f"cryptkey=UUID={GONE}:ext4:/key"),
    (f"systemd.mount-extra=UUID={BOOT_UUID}:/srv:ext4", f"systemd.mount-extra=UUID={GONE}:/srv:ext4"),
    ("rootflags=subvol=@", "rootflags=device=/dev/sdb1"),
    ("overlayroot=tmpfs", "overlayroot=device:dev=/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:1:0-part1"),
    ("root=block:/dev/mapper/rhel-root", "root=block:LABEL=gone"),
    ("rootdelay=0801", "root=0801"),
    ("panic=8:1", "root=8:1"),
    ("systemd.journald.tty_path=/dev/ttyS0", "cryptkey=/dev/sdc1:ext4:/key"),
]


@pytest.mark.parametrize(("right", "wrong"), PARAMETERS, ids=[wrong for _, wrong in PARAMETERS])
@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("boot/grub2/grub.cfg", "linux /v root=/dev/mapper/rhel-root rd.lvm.lv=rhel/root {0} quiet\n"),
        ("boot/loader/entries/one.conf", "options root=/dev/mapper/rhel-root rd.lvm.vg=rhel {0}\n"),
        ("etc/default/grub", 'GRUB_CMDLINE_LINUX="quiet {0}"\n'),
        ("etc/kernel/cmdline", "{0}\n"),
        ("boot/grub2/grubenv", f"# GRUB Environment Block\nkernelopts={{0}}\n{'#' * 900}"),
    ],
)
def test_a_parameter(guest: Path, path: str, line: str, right: str, wrong: str) -> None:
    put(guest, path, line.format(right))
    assert warnings_of(guest) == []
    file = put(guest, path, line.format(wrong))
    (warning,) = warnings_of(guest)
    assert f"/{path}: {wrong}" in warning
    assert file.read_text() == line.format(wrong)
    put(guest, path, f"# {line.format(wrong)}")
    assert warnings_of(guest) == []


@pytest.mark.parametrize(
    "search",
    [
        "  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt2 --hint='hd0,gpt2'  {0}",
        "search -n -u {0} -s",
        "search.fs_uuid {0} root hd0,gpt2",
        "search --fs-uuid --set {0}",
        "\tsearch --no-floppy --set=root --label {1}",
        "search.fs_label {1} root",
        "cryptomount -u {2}",
    ],
)
@pytest.mark.parametrize("path", ["boot/grub2/grub.cfg", "boot/grub/custom.cfg"])
def test_a_command_of_grub(guest: Path, path: str, search: str) -> None:
    put(guest, path, search.format(BOOT_UUID, "boot", LUKS_UUID.replace("-", "")) + "\n")
    assert warnings_of(guest) == []
    put(guest, path, search.format(GONE, "gone", GONE.replace("-", "")) + "\n")
    (warning,) = warnings_of(guest)
    assert ("gone" in warning or "99999999" in warning) and "the boot may stop there" in warning


@pytest.mark.parametrize(
    "text",
    [
        "search --no-floppy --file --set=root /boot/vmlinuz",
        "search --fs-uuid --set=root $uuid",
        "linux /v root=$rootdev rd.lvm.lv=$lv",
        "insmod search_fs_uuid",
        "echo search --fs-uuid no",
    ],
)
def test_what_names_no_volume_is_left_alone(guest: Path, text: str) -> None:
    put(guest, "boot/grub2/grub.cfg", f"{text}\n")
    assert warnings_of(guest) == []


def test_what_may_be_in_a_locked_container_is_not_missing(guest: Path) -> None:
    locked = some("luks", name="locked", stretches=(), obstacle="there is no key")
    line = "linux /v root=/dev/mapper/rhel-root rd.lvm.lv=inside/data"
    put(guest, "boot/grub2/grub.cfg", line)
    assert warnings_of(guest, *volumes(), locked) == []
    put(guest, "boot/grub2/grub.cfg", f"{line} rd.luks.uuid={GONE}")
    (warning,) = warnings_of(guest, *volumes(), locked)
    assert "matches no volume that can be read" in warning


@pytest.mark.parametrize("spec", ["rd.lvm.lv=rhel/data", "resume=/dev/mapper/rhel-data"])
def test_a_logical_volume_with_a_part_elsewhere(guest: Path, spec: str) -> None:
    part = logical("rhel", "data").with_changes(stretches=(), obstacle="a part is missing", incomplete=True)
    put(guest, "boot/grub2/grub.cfg", f"linux /v root=/dev/mapper/rhel-root rd.lvm.lv=rhel/root {spec}\n")
    (warning,) = warnings_of(guest, *volumes(), part)
    assert f"{spec} has a part on a disk that is not among the disks" in warning
    put(guest, "boot/grub2/grub.cfg", "linux /v root=/dev/mapper/rhel-root\n")
    put(guest, "etc/fstab", "/dev/rhel/data /data xfs defaults 0 0\n")
    assert "emergency mode" in warnings_of(guest, *volumes(), part)[0]


CRYPT = Crypt(container=LUKS_UUID, cipher="aes-xts-plain64")


def opened() -> Volume:
    root = some("luks", name="partition 3, decrypted", number=None, uuid=ROOT_UUID)
    (stretch,) = root.stretches
    return root.with_changes(stretches=(stretch.with_changes(crypt=CRYPT),))


@pytest.mark.parametrize(
    ("root", "started", "hidden"),
    [
        (None, "rd.lvm.lv=rhel/root", "rd.lvm.lv=old/root"),
        (None, "rd.lvm.vg=rhel", "rd.lvm.vg=old"),
        (None, "rd.lvm.lv=rhel/root", "rd.lvm.lv=rhel/swap rd.lvm.lv=old/root"),
        (opened(), f"rd.luks.uuid={LUKS_UUID}", f"rd.luks.uuid={GONE}"),
        (opened(), f"rd.luks.name={LUKS_UUID}=root", f"rd.luks.name={GONE}=root"),
    ],
)
def test_a_line_that_does_not_start_what_holds_the_root_fails_the_job(
    guest: Path, root: Volume | None, started: str, hidden: str
) -> None:
    found = volumes(root)
    name = "/dev/mapper/rhel-root" if root is None else f"UUID={ROOT_UUID}"
    file = put(guest, "boot/grub2/grub.cfg", f"linux /v root={name} {hidden}\n")
    with pytest.raises(MigrationFailed) as caught:
        warnings_of(guest, *found)
    assert caught.value.code == "kernel-root-missing" and hidden.split()[-1] in caught.value.message
    left = " ".join(warnings_of(guest, *found, no_grub=True))
    assert "nothing else in this line starts" in left
    file.write_text(f"linux /v root={name} {hidden} {started}\n")
    assert len(warnings_of(guest, *found)) == 1
    file.write_text(f"linux /v root={name} {hidden}\n")
    put(guest, "boot/grub2/custom.cfg", f"linux /v root={name} {started}\n")
    assert len(warnings_of(guest, *found)) == 1


def test_no_grub_leaves_names_that_change(guest: Path) -> None:
    swap = partition(5, "swap", uuid=GONE)
    text = "linux /v root=/dev/mapper/rhel-root resume=/dev/sda5\n"
    file = put(guest, "boot/grub2/grub.cfg", text)
    (warning,) = warnings_of(guest, *volumes(), swap, no_grub=True)
    assert "resume=/dev/sda5 is not a name on KVM, and no_grub: true leaves it" in warning
    assert file.read_text() == text


@pytest.mark.parametrize(("name", "count"), [("early-network-dracut", 1), ("early-network-initramfs-tools", 0)])
def test_no_grub_leaves_cards_that_the_initramfs_uses_by_name(tmp_path: Path, name: str, count: int) -> None:
    """Without dracut, the udev rules in the appended archive name them."""
    case = GoldenCase(name, tmp_path / "guest")
    asked = migration(**json.loads((GOLDEN / name / "case.json").read_text())["migration"], no_grub=True)
    warnings = [text for text in repaired(case.folders, case.layout, asked, case.vmx).warnings if "ifname=" in text]
    assert len(warnings) >= count and bool(warnings) == bool(count)
    for warning in warnings:
        assert "no_grub: true leaves the kernel line" in warning and "ifname=ens192:00:50:56:8a:10:02" in warning
