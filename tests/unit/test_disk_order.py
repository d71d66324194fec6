"""Which disk a guest meant by a name of its hardware: the root that was found decides, and then further evidence."""

from __future__ import annotations

import pytest

from hyper2kvmd.guest.linux.devices import Devices
from hyper2kvmd.guest.linux.disk_names import multipath_serials, parse
from hyper2kvmd.guest.linux.disk_order import DiskOrder, DiskUse, Evidence
from hyper2kvmd.model.disks import Layout, Volume
from hyper2kvmd.model.machine import DiskAddress, DiskIdentity
from tests.support.guest_on_disk import partition

SERIALS = ("6000c2999b5bbb78e14f73e7f0b7c4a2", "6000c29f2ad50fd4cd1c0a2c9d1bb2c9", "6000c29aaaaaaaaaaaaaaaaaaaaaaaaa")
PCI = "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0"


def on(disk: int, number: int = 1, content: str = "ext4", **known: str) -> Volume:
    volume = partition(number, content).with_changes(disk=disk, name=f"disk {disk + 1}, partition {number}", **known)
    return volume.with_changes(uuid=f"0000000{disk}-0000-4000-8000-00000000000{number}")


ROOT, SWAP = on(0), on(0, 5, "swap")
DATA, LOGS = on(1), on(2)
TWO = Layout(tables=("dos",) * 2, volumes=(ROOT, SWAP, DATA))
THREE = Layout(tables=("dos",) * 3, volumes=(*TWO.volumes, LOGS))


def devices(
    layout: Layout,
    *fstab: str,
    root: Volume | None = ROOT,
    identities: tuple[DiskIdentity, ...] = (),
    kernel: tuple[str, ...] = (),
    maps: dict[str, str] | None = None,
    kernels_on: Volume | None = None,
) -> Devices:
    """The names of a guest whose fstab has these lines: device, mount point, and maybe a type."""
    uses = []
    for line in fstab:
        spec, point, *kind = line.split()
        if (name := parse(spec, maps)) is not None:
            uses.append(DiskUse(name, point, kind[0] if kind else "ext4"))
    roots = tuple(name for spec in kernel if (name := parse(spec, maps)))
    evidence = Evidence(root, tuple(uses), roots, lambda volume: volume == kernels_on)
    return Devices(layout, root, order=DiskOrder(layout, identities, evidence), maps=maps)


def known(*addresses: str, serials: tuple[str, ...] = (), slots: tuple[int, ...] = ()) -> tuple[DiskIdentity, ...]:
    found = []
    for number, address in enumerate(addresses):
        bus, unit = address.rstrip("0123456789").rstrip(":").rstrip("0123456789"), int(address.partition(":")[2])
        controller = int(address.partition(":")[0].removeprefix(bus))
        place = DiskAddress.model_validate(
            {"bus": bus, "controller": controller, "unit": unit, "slot": slots[number] if slots else None}
        )
        found.append(DiskIdentity(address=place))
    return tuple(found) or tuple(DiskIdentity(serial=serial) for serial in serials)


def test_the_root_decides_what_the_letters_mean() -> None:
    guest = devices(TWO, "/dev/sdb1 /", "/dev/sda1 /srv", "/dev/sdb5 none swap")
    assert [guest.find(f"/dev/{name}") for name in ("sdb1", "sda1", "sdb5")] == [ROOT, DATA, SWAP]
    assert guest.whole_disk("/dev/sdb") == 0 and guest.whole_disk("/dev/sda") == 1
    assert guest.warnings == []


def test_the_kernel_line_decides_if_fstab_has_the_root_by_uuid() -> None:
    guest = devices(TWO, "UUID=x /", "/dev/sda1 /srv", kernel=("/dev/sdb1",))
    assert guest.find("/dev/sda1") == DATA and guest.find("/dev/sdb5") == SWAP


def test_fstab_goes_before_a_kernel_line_and_the_contradiction_is_reported() -> None:
    guest = devices(TWO, "/dev/sdb1 /", "/dev/sda1 /srv", kernel=("/dev/sda1",))
    assert guest.find("/dev/sda1") == DATA
    assert guest.warnings == ["the root is /dev/sdb in /etc/fstab and /dev/sda in the boot loader's configuration"]


def test_a_root_with_another_partition_number_decides_nothing_and_is_reported() -> None:
    guest = devices(TWO, "/dev/sdb2 /", kernel=("/dev/sdb2",))
    assert guest.find("/dev/sdb1") == DATA
    assert "/etc/fstab has the root on partition 2 of /dev/sdb, but it was found on disk 1" in guest.warnings[0]


@pytest.mark.parametrize("prefix", ["hd", "xvd", "sd"])
def test_stale_names_of_another_driver_have_the_same_letters(prefix: str) -> None:
    guest = devices(TWO, "/dev/sdb1 /", "/dev/sda1 /srv")
    assert guest.find(f"/dev/{prefix}b5") == SWAP


def test_ide_and_scsi_disks_in_one_fstab_are_different_disks() -> None:
    guest = devices(TWO, "/dev/sda1 /", "/dev/hda1 /srv")
    assert guest.find("/dev/hda1") == DATA
    one = Layout(tables=("dos",), volumes=(ROOT, SWAP))
    assert devices(one, "/dev/sda1 /", "/dev/hda1 /srv").find("/dev/hda1") is None


def test_a_name_beside_those_of_all_disks_is_an_old_one_of_the_disk_that_fits() -> None:
    guest = devices(TWO, "/dev/nvme0n1p1 /", "/dev/nvme0n2p1 /srv", "/dev/sda5 none swap", "/dev/sdb9 /gone")
    assert guest.find("/dev/sda5") == SWAP and guest.find("/dev/sdb9") is None
    assert guest.warnings == ["/dev/sda is taken to be disk 1: it is a name beside those of all disks in /etc/fstab"]


def test_a_letter_beyond_the_disks_is_a_missing_disk() -> None:
    guest = devices(TWO, "/dev/sda1 /", "/dev/sdb1 /srv", "/dev/sdc1 /logs")
    assert guest.find("/dev/sdc1") is None


def test_the_only_disk_may_have_been_another_letter() -> None:
    one = Layout(tables=("dos",), volumes=(ROOT, SWAP))
    guest = devices(one, "/dev/sdb1 /", "/dev/sda1 /srv", "/dev/sdb5 none swap")
    assert guest.find("/dev/sdb5") == SWAP and guest.find("/dev/sda1") is None


def test_other_disks_keep_their_order_unless_their_content_says_otherwise() -> None:
    lines = ("/dev/sdb1 /", "/dev/sda1 /srv", "/dev/sdc1 /logs")
    assert devices(THREE, *lines).find("/dev/sda1") == DATA
    labelled = Layout(tables=THREE.tables, volumes=(ROOT, SWAP, DATA, LOGS.with_changes(label="srv")))
    assert devices(labelled, *lines).find("/dev/sda1") == labelled.volumes[3]
    assert devices(labelled, *lines).find("/dev/sdc1") == DATA
    mounted = Layout(tables=THREE.tables, volumes=(ROOT, SWAP, DATA.with_changes(mounted_at="/logs"), LOGS))
    assert devices(mounted, *lines).find("/dev/sda1") == LOGS


def test_a_file_system_of_another_type_is_another_disk() -> None:
    lines = ("UUID=x /", "/dev/sdb1 /srv xfs", "/dev/sdc1 /logs ext4")
    layout = Layout(tables=THREE.tables, volumes=(ROOT, SWAP, DATA, LOGS.with_changes(content="xfs")))
    guest = devices(layout, *lines)
    assert guest.find("/dev/sdb1") == layout.volumes[3] and guest.find("/dev/sdc1") == DATA
    assert "/dev/sdb is taken to be disk 3" in " ".join(guest.warnings)


def test_boot_is_the_volume_with_kernels() -> None:
    root = Volume(kind="lv", name="vg/root", vg="vg", lv="root", content="xfs", disk=0)
    layout = Layout(tables=("dos",) * 2, volumes=(ROOT, DATA, root))
    guest = devices(layout, "/dev/mapper/vg-root /", "/dev/sda1 /boot", "/dev/sdb1 /srv", root=root, kernels_on=DATA)
    assert guest.find("/dev/sda1") == DATA and guest.find("/dev/sdb1") == ROOT


def test_without_other_evidence_the_controllers_of_the_source_give_the_order() -> None:
    guest = devices(TWO, "UUID=x /", "/dev/sda1 /srv", identities=known("scsi0:1", "scsi0:0"))
    assert guest.find("/dev/sda1") == DATA


@pytest.mark.parametrize(
    ("addresses", "root", "data", "expected"),
    [
        (("nvme0:0", "scsi0:0"), "/dev/nvme0n1p1", "/dev/sda1", DATA),
        (("nvme0:0", "sata0:0"), "/dev/nvme0n1p1", "/dev/sda1", DATA),
        (("scsi0:0", "nvme0:0"), "/dev/sda1", "/dev/nvme0n1p1", DATA),
        (("nvme0:0", "scsi0:0"), "UUID=x", "/dev/sda1", DATA),
        (("nvme0:0", "scsi0:0"), "/dev/sda1", "/dev/sdb1", DATA),
    ],
)
def test_nvme_disks_are_counted_apart(addresses: tuple[str, ...], root: str, data: str, expected: Volume) -> None:
    """Unless the root shows that the names are older than the addresses."""
    guest = devices(TWO, f"{root} /", f"{data} /srv", identities=known(*addresses))
    assert guest.find(data) == expected
    assert guest.warnings == []


def test_nvme_disks_are_counted_apart_in_the_order_of_their_addresses() -> None:
    found = known("scsi0:1", "nvme0:0", "scsi0:0")
    guest = devices(THREE, "UUID=x /", root=None, identities=found)
    assert [guest.whole_disk(f"/dev/{name}") for name in ("sda", "sdb", "nvme0n1")] == [2, 0, 1]


@pytest.mark.parametrize("serial", ["scsi-3{}", "wwn-0x{}", "scsi-SVMware_Virtual_disk_{}", "dm-uuid-part1-mpath-3{}"])
def test_a_serial_number_is_the_disks_own(serial: str) -> None:
    identities = known(serials=SERIALS[:2][::-1])
    spec = f"/dev/disk/by-id/{serial.format(SERIALS[0])}" + ("" if "mpath" in serial else "-part1")
    assert devices(TWO, f"{spec} /srv", root=None, identities=identities).find(spec) == DATA


def test_a_serial_number_of_no_disk_is_a_missing_disk() -> None:
    spec, identities = f"/dev/disk/by-id/wwn-0x{SERIALS[2]}-part1", known(serials=SERIALS[:2])
    assert devices(TWO, "UUID=x /", f"{spec} /srv", identities=identities).find(spec) is None


def test_a_disk_with_a_known_serial_number_leaves_the_others_to_other_names() -> None:
    first, second = (f"/dev/disk/by-id/wwn-0x{serial}-part1" for serial in SERIALS[:2])
    identities = (DiskIdentity(), DiskIdentity(serial=SERIALS[1]))
    guest = devices(TWO, "UUID=x /", f"{first} /var", f"{second} /srv", root=None, identities=identities)
    assert guest.find(second) == DATA and guest.find(first) == ROOT


def test_serial_numbers_that_the_root_contradicts_prove_nothing() -> None:
    root, data = (f"/dev/disk/by-id/wwn-0x{serial}-part1" for serial in (SERIALS[1], SERIALS[0]))
    guest = devices(TWO, f"{root} /", f"{data} /srv", identities=known(serials=SERIALS[:2]))
    assert guest.find(root) == ROOT and guest.find(data) == DATA


def test_unknown_serial_numbers_of_two_disks_are_told_apart_by_the_root() -> None:
    root, data = (f"/dev/disk/by-id/scsi-3{serial}-part1" for serial in SERIALS[:2])
    assert devices(TWO, f"{root} /", f"{data} /srv").find(data) == DATA
    assert devices(THREE, f"{root} /", f"{data} /srv").find(data) is None


@pytest.mark.parametrize(
    ("root", "data", "addresses"),
    [
        ("/dev/nvme0n1p1", "/dev/nvme0n2p1", ("nvme0:0", "nvme0:1")),
        ("/dev/nvme0n2p1", "/dev/nvme0n1p1", ("nvme0:1", "nvme0:0")),
        ("/dev/nvme0n2p1", "/dev/nvme0n1p1", ()),
        ("/dev/nvme1n1p1", "/dev/nvme0n1p1", ()),
        (f"{PCI}:0:0-part1", f"{PCI}:1:0-part1", ("scsi0:0", "scsi0:1")),
        (f"{PCI}:3:0-part1", f"{PCI}:9:0-part1", ("scsi0:3", "scsi0:9")),
        (f"{PCI}:1:0-part1", f"{PCI}:0:0-part1", ()),
        ("/dev/disk/by-path/pci-0000:02:03.0-ata-1-part1", "/dev/disk/by-path/pci-0000:02:03.0-ata-2.0-part1", ()),
        ("/dev/mapper/mpathb1", "/dev/mapper/mpatha-part1", ()),
        ("/dev/emcpowera1", "/dev/emcpowerb1", ()),
        ("/dev/cciss/c0d1p1", "/dev/cciss/c0d0p1", ()),
        ("/dev/disk/by-id/ata-VMware_1-part1", "/dev/disk/by-id/ata-VMware_2-part1", ()),
    ],
)
@pytest.mark.parametrize("rooted", [True, False])
def test_names_of_two_disks(root: str, data: str, addresses: tuple[str, ...], rooted: bool) -> None:
    """By the root; with the addresses of the source machine without it as well."""
    if not rooted and not addresses:
        return
    guest = devices(
        TWO, f"{root} /" if rooted else "UUID=x /", f"{root} /var", f"{data} /srv", identities=known(*addresses)
    )
    assert guest.find(data) == DATA and guest.whole_disk(root.removesuffix("-part1").removesuffix("p1")) in (0, None)


IDE, SATA = (f"/dev/disk/by-id/ata-VMware_Virtual_{kind}_Hard_Drive_{{}}{'0' * 17}1-part1" for kind in ("IDE", "SATA"))
NVME = "/dev/disk/by-id/nvme-VMware_Virtual_NVMe_Disk_VMware_NVME_{}-part1"
OLD = f"/dev/disk/by-id/scsi-SATA_VMware_Virtual_{{}}{'0' * 17}1-part1"
CUT = f"/dev/disk/by-id/scsi-0ATA_VMware_Virtual_S_{{}}{'0' * 17}1-part1"


@pytest.mark.parametrize(
    ("link", "numbers", "addresses"),
    [
        (IDE, ("00", "01", "10"), ("ide0:0", "ide0:1", "ide1:0")),
        (OLD, ("00", "01", "10"), ("ide0:0", "ide0:1", "ide1:0")),
        (SATA, ("00", "02", "03"), ("sata0:0", "sata0:2", "sata0:3")),
        (OLD, ("00", "02", "03"), ("sata0:0", "sata0:2", "sata0:3")),
        (CUT, ("00", "02", "03"), ("sata0:0", "sata0:2", "sata0:3")),
        (NVME, ("0000_1", "0000_2", "0000_3"), ("nvme0:0", "nvme0:1", "nvme0:2")),
        (NVME, ("0000_1", "0001_1", "0001_2"), ("nvme0:0", "nvme1:0", "nvme1:1")),
    ],
)
def test_links_with_vmwares_numbers_of_disks_are_addresses(
    link: str, numbers: tuple[str, ...], addresses: tuple[str, ...]
) -> None:
    names = [link.format(number) for number in numbers]
    for turned, order in ((addresses, (ROOT, DATA, LOGS)), ((addresses[0], *addresses[:0:-1]), (ROOT, LOGS, DATA))):
        guest = devices(THREE, "UUID=x /", f"{names[1]} /srv", f"{names[2]} /logs", identities=known(*turned))
        assert [guest.find(name) for name in names] == list(order)


@pytest.mark.parametrize(
    ("link", "numbers", "addresses"),
    [
        (SATA, ("00", "01"), ("sata0:0", "sata1:0", "sata1:1")),
        (SATA, ("01", "02"), ("ide0:0", "ide0:1", "ide1:0")),
        (SATA, ("01", "02"), ()),
        (IDE, ("01", "10"), ()),
        (NVME, ("0000_5", "0000_6"), ()),
        (
            "/dev/disk/by-id/nvme-eui.{}-part1",
            ("0011223344556677", "0011223344556678"),
            ("nvme0:0", "nvme0:1", "nvme0:2"),
        ),
    ],
)
def test_links_that_could_mean_several_disks_are_named_as_unresolved(
    link: str, numbers: tuple[str, ...], addresses: tuple[str, ...]
) -> None:
    names = [link.format(number) for number in numbers]
    lines = (f"{name} {point}" for name, point in zip(names, ("/srv", "/logs"), strict=True))
    guest = devices(THREE, "UUID=x /", *lines, identities=known(*addresses))
    for name in names:
        assert guest.find(name) is None
        assert guest.absent(name) == "could be several of these disks"


def test_namespaces_have_an_order_without_a_vmx() -> None:
    names = [NVME.format(f"0000_{number}") for number in (1, 2, 3)]
    guest = devices(THREE, f"{names[0]} /", f"{names[1]} /srv", f"{names[2]} /logs")
    assert [guest.find(name) for name in names] == [ROOT, DATA, LOGS]


@pytest.mark.parametrize(("slots", "found"), [((160, 192), True), ((192, 160), False)])
def test_links_of_two_controllers_are_told_apart_by_their_slots(slots: tuple[int, int], found: bool) -> None:
    spec = "/dev/disk/by-path/pci-0000:0b:00.0-scsi-0:0:0:0-part1"
    guest = devices(TWO, root=None, identities=known("scsi0:0", "scsi1:0", slots=slots))
    assert (guest.find(spec) == DATA) == found


def test_multipath_names_lead_to_serial_numbers() -> None:
    bindings = f"# alias wwid\nmpatha 3{SERIALS[1]}\nmpathb 3{SERIALS[0]}\n"
    config = f"multipaths {{\n multipath {{\n  wwid 3{SERIALS[1]}\n  alias data7\n }}\n}}\n"
    maps = multipath_serials([bindings], config)
    guest = devices(TWO, root=None, identities=known(serials=SERIALS[:2]), maps=maps)
    for name in ("mpatha1", "mpathap1", "mpatha-part1", "data7p1", "data7-part1", f"3{SERIALS[1]}p1"):
        assert guest.find(f"/dev/mapper/{name}") == DATA, name
        assert guest.is_unstable(f"/dev/mapper/{name}")
    assert guest.find("/dev/mapper/mpathb_part1") == ROOT
    assert guest.find("/dev/disk/by-id/dm-name-mpathb1") == ROOT
    assert not guest.is_unstable("/dev/mapper/data71")


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("UUID=11111111-1111-4111-8111-111111111111", "matches no volume"),
        ("LABEL=gone", "matches no volume"),
        ("PARTUUID=0-1", "matches no volume"),
        ("/dev/disk/by-label/gone", "matches no volume"),
        ("/dev/mapper/gone-lv", "matches no volume"),
        ("/dev/gone/lv", "matches no volume"),
        ("/dev/mapper/mpathz1", "matches no volume"),
        ("/dev/anything", "matches no volume"),
        ("/dev/md0", "matches no volume"),
        ("LABEL=twin", "matches disk 2, partition 1 and disk 3, partition 1, which have the same identifier"),
    ],
)
def test_a_device_that_is_on_none_of_the_disks_is_named(spec: str, why: str) -> None:
    twins = (DATA.with_changes(label="twin"), LOGS.with_changes(label="twin"))
    reason = devices(Layout(tables=THREE.tables, volumes=(ROOT, SWAP, *twins)), "/dev/sda1 /").absent(spec)
    assert reason is not None and reason.startswith(why)


def test_a_btrfs_on_several_disks_is_not_missing() -> None:
    parts = tuple(one.with_changes(content="btrfs", label="pool", multi_device=True) for one in (DATA, LOGS))
    assert devices(Layout(tables=THREE.tables, volumes=(ROOT, *parts))).absent("LABEL=pool") is None


@pytest.mark.parametrize("spec", ["tmpfs", "nas:/x", "/swapfile", "/dev/sr0", "/dev/zram0", "/dev/cdrom", "/dev/sda1"])
def test_other_devices_are_not_missing(spec: str) -> None:
    assert devices(THREE, "/dev/sda1 /").absent(spec) is None


def test_what_may_be_inside_a_closed_container_is_not_missing() -> None:
    closed = Volume(kind="luks", name="partition 3, decrypted", obstacle="it is encrypted")
    layout = Layout(tables=("dos",), volumes=(ROOT, partition(3, "crypto_LUKS", uuid="x"), closed))
    guest = devices(layout, "/dev/sda1 /")
    assert guest.absent("UUID=11111111-1111-4111-8111-111111111111") is None
    assert guest.absent("/dev/mapper/opened") is None
    assert guest.absent("/dev/sdb1") is not None
