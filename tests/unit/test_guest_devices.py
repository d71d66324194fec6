from __future__ import annotations

import pytest

from hyper2kvmd.guest.linux.cmdline import stabilize
from hyper2kvmd.guest.linux.devices import Devices, dm_name
from hyper2kvmd.model.disks import Crypt, Layout, Segment, Volume
from hyper2kvmd.volumes.mapping import encrypted, linear
from tests.support.guest_on_disk import ROOT_UUID, logical, partition

LUKS_UUID = "77777777-1111-4222-8333-777777777777"
INSIDE_UUID = "88888888-1111-4222-8333-777777777777"
ROOT = partition(1, uuid=ROOT_UUID, label="sys tem", partuuid="deadbeef-01")
SWAP = partition(5, "swap", partuuid="deadbeef-05")
DATA = partition(6, label="data")
NAMED = partition(7, partlabel="named")
BARE = partition(8)
HOME = logical("vg-a", "ho-me", uuid="11111111-2222-4333-8444-555555555555")
WHOLE = Volume(kind="disk", name="whole disk")
ONE_DISK = Layout(tables=("gpt",), volumes=(WHOLE, ROOT, SWAP, DATA, NAMED, BARE, HOME))
OTHER = partition(1, uuid="99999999-2222-4333-8444-555555555555").with_changes(disk=1)
BOTH = Layout(tables=("gpt", "dos"), volumes=(*ONE_DISK.volumes, OTHER))


@pytest.mark.parametrize(
    ("spec", "volume"),
    [
        ("/dev/sda1", ROOT),
        ("/dev/hda5", SWAP),
        ("/dev/vda1", ROOT),
        ("/dev/xvda6", DATA),
        ("/dev/nvme0n1p1", ROOT),
        ("/dev/loop0p1", ROOT),
        ("/dev/loop7p6", DATA),
        ("/dev/mapper/loop0p1", ROOT),
        ("/dev/nbd0p5", SWAP),
        ("/dev/sda", WHOLE),
        ("/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0-part5", SWAP),
        ("/dev/disk/by-path/pci-0000:00:07.1-ata-1", WHOLE),
        ("/dev/disk/by-id/scsi-36000c29-part1", ROOT),
        ("/dev/disk/by-id/wwn-0x6000c29-part6", DATA),
        ("/dev/disk/by-id/dm-name-vg--a-ho--me", HOME),
        (f"/dev/disk/by-uuid/{ROOT_UUID}", ROOT),
        ("/dev/disk/by-label/sys\\x20tem", ROOT),
        ("/dev/disk/by-partuuid/deadbeef-05", SWAP),
        ("/dev/disk/by-partlabel/named", NAMED),
        (f"UUID={ROOT_UUID.upper()}", ROOT),
        (f'UUID="{ROOT_UUID}"', ROOT),
        ("LABEL=sys\\040tem", ROOT),
        ("PARTUUID=DEADBEEF-05", SWAP),
        ("PARTLABEL=named", NAMED),
        ("/dev/mapper/vg--a-ho--me", HOME),
        ("/dev/vg-a/ho-me", HOME),
        ("/dev/dm-0", HOME),
        ("/dev/root", ROOT),
        ("/dev/sdb1", None),
        ("/dev/sda9", None),
        ("/dev/nvme1n1p1", None),
        ("/dev/dm-1", None),
        ("/dev/mapper/secret", None),
        ("/dev/mapper/vg-a-ho-me", None),
        ("/dev/disk/by-id/md-name-host:0", None),
        ("/dev/sr0", None),
        ("/dev/md0", None),
        ("LABEL=SYS TEM", None),
        ("tmpfs", None),
        ("UUID=", None),
    ],
)
def test_find(spec: str, volume: Volume | None) -> None:
    assert Devices(ONE_DISK, ROOT).find(spec) == volume


@pytest.mark.parametrize(
    "spec", ["/dev/sdb1", "/dev/nvme0n2p1", "/dev/nvme1n1p1", "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:1:0-part1"]
)
def test_the_second_disk_is_found_by_its_place(spec: str) -> None:
    assert Devices(BOTH).find(spec) == OTHER


@pytest.mark.parametrize(
    "spec", ["/dev/mapper/mpathb1", "/dev/disk/by-id/scsi-36000c29f2ad50fd4cd1c0a2c9d1bb2c9-part1"]
)
def test_a_name_without_an_order_means_none_of_several_disks(spec: str) -> None:
    assert Devices(BOTH).find(spec) is None


@pytest.mark.parametrize(
    ("volume", "spec"),
    [
        (ROOT, f"UUID={ROOT_UUID}"),
        (SWAP, "PARTUUID=deadbeef-05"),
        (DATA, "LABEL=data"),
        (NAMED, "PARTLABEL=named"),
        (BARE, None),
        (HOME, f"UUID={HOME.uuid}"),
        (partition(9, "LVM2_member", uuid="abc"), None),
    ],
)
def test_stable(volume: Volume, spec: str | None) -> None:
    assert Devices(ONE_DISK).stable(volume) == spec


@pytest.mark.parametrize(
    ("spec", "found"),
    [("/dev/md/boot", True), ("/dev/md0", False), ("/dev/md7", True), ("/dev/md/7", True), ("/dev/mdboot", False)],
)
def test_an_array_is_found_by_the_name_in_its_superblocks(spec: str, found: bool) -> None:
    name = spec.rpartition("/")[2].removeprefix("md") if found else "boot"
    array = Volume(kind="md", name=f"md {name}", array=name, content="ext4", uuid=ROOT_UUID)
    devices = Devices(Layout(tables=("gpt",), volumes=(array,)))
    assert devices.find(spec) == (array if found else None)


def test_a_uuid_that_two_volumes_share_is_not_stable() -> None:
    twin = partition(2, uuid=ROOT_UUID, partuuid="deadbeef-02")
    devices = Devices(Layout(tables=("dos",), volumes=(ROOT, twin)))
    assert devices.stable(ROOT) == "PARTUUID=deadbeef-01"
    assert devices.find(f"UUID={ROOT_UUID}") is None


def test_a_label_that_would_need_quoting_is_not_used() -> None:
    odd = partition(1, label='x"; reboot; "')
    assert Devices(Layout(tables=("dos",), volumes=(odd,))).stable(odd) is None


def test_kernel_is_told_a_logical_volume_by_its_mapper_name() -> None:
    """initramfs-tools activates the one volume that root= names; a UUID would leave it inactive."""
    assert Devices(ONE_DISK).for_kernel(HOME) == "/dev/mapper/vg--a-ho--me"
    assert dm_name(HOME) == "vg--a-ho--me"


@pytest.mark.parametrize(
    "spec",
    [
        "/dev/mapper/vg-root",
        "/dev/vg/root",
        "/dev/disk/by-id/dm-uuid-LVM-xyz",
        "/dev/disk/by-id/md-uuid-1:2:3:4",
        "/dev/disk/by-uuid/x",
        "UUID=x",
        "/dev/md0",
        "/dev/sr0",
        "/dev/fd0",
        "nas:/x",
    ],
)
def test_stable_names_are_told_from_unstable_ones(spec: str) -> None:
    assert not Devices(ONE_DISK).is_unstable(spec)


def test_comments_and_other_words_stay() -> None:
    devices = Devices(ONE_DISK, ROOT)
    text = "# root=/dev/sda1\nset root='hd0,msdos1'\nlinux /x netroot=/dev/sda1 root=/dev/sda1 x.root=/dev/sda1\n"
    mended = stabilize(text, devices)
    assert mended.text == text.replace(" root=/dev/sda1 ", f" root=UUID={ROOT_UUID} ")
    assert mended.summary == f"root=/dev/sda1 is now root=UUID={ROOT_UUID}"


def test_the_only_root_of_a_text_is_the_guests_root() -> None:
    devices = Devices(ONE_DISK, ROOT)
    assert stabilize("root=/dev/sdb1 ro", devices, root=ROOT).text == f"root=UUID={ROOT_UUID} ro"
    two = stabilize("root=/dev/sdb1 ro\nroot=/dev/sdc1 ro", devices, root=ROOT)
    assert two.summary == "" and list(two.unresolved) == ["root=/dev/sdb1", "root=/dev/sdc1"]


def test_a_kernel_alone_knows_partuuid_only() -> None:
    devices = Devices(ONE_DISK, ROOT)
    assert stabilize("root=/dev/sda1", devices, without_initramfs=True).text == "root=PARTUUID=deadbeef-01"


INSIDE = Volume(
    kind="luks",
    name="partition 3, decrypted",
    content="ext4",
    uuid=INSIDE_UUID,
    stretches=encrypted(
        linear(Segment(offset=8 << 20, length=1 << 20)), Crypt(container=LUKS_UUID, cipher="aes-xts-plain64")
    ),
)
ENCRYPTED = Layout(tables=("gpt",), volumes=(ROOT, partition(3, "crypto_LUKS", uuid=LUKS_UUID), INSIDE))


@pytest.mark.parametrize("source", ["/dev/sda3", f"UUID={LUKS_UUID}"])
def test_the_inside_of_a_container_has_the_name_that_crypttab_gives(source: str) -> None:
    devices = Devices(ENCRYPTED, crypttab=f"# <name> <device>\nsda3_crypt {source} none luks\nother /dev/sda9 none\n")
    assert devices.find("/dev/mapper/sda3_crypt") == INSIDE
    assert devices.find(f"/dev/mapper/luks-{LUKS_UUID}") == INSIDE
    assert devices.find("/dev/mapper/other") is None
    assert Devices(ENCRYPTED).find("/dev/mapper/sda3_crypt") is None
