"""The drives of a machine: which disks it has, in which order, and where their files are."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hyper2kvmd.model.disks import LocalFile, NamedBy
from hyper2kvmd.model.machine import DiskAddress
from tests.support.vmx import DISK, ONE_DISK, QUIET, codes, failure_of, names, put, read, text

BUSES = ("scsi", "nvme", "sata", "ide")


def disk(place: str, file: str, **more: str) -> dict[str, str]:
    given = {"present": "TRUE", "fileName": file, **more}
    return {f"{place}.{key}": value for key, value in given.items()}


def disks_at(folder: Path, *places: str, **more: str) -> list[str]:
    """The places of the disks in the order in which they are migrated. Each file has the name of its place."""
    lines = dict[str, str](QUIET)
    for place in places:
        lines |= disk(place, f"{place.replace(':', '-')}.vmdk")
    vmx = put(folder, lines | more, [f"{place.replace(':', '-')}.vmdk" for place in places])
    return [name.removesuffix(".vmdk").replace("-", ":") for name in names(read(vmx))]


# ---------------------------------------------------------------- order


@pytest.mark.parametrize(
    "places",
    [
        ("scsi0:2", "scsi0:10"),
        ("scsi0:0", "scsi0:1", "scsi0:15"),
        ("scsi0:9", "scsi0:64"),
        ("scsi0:5", "scsi1:0", "scsi2:0", "scsi3:0"),
        ("scsi0:1", "scsi10:0"),
        ("nvme0:0", "nvme0:1", "nvme0:2"),
        ("nvme0:2", "nvme0:10", "nvme0:14"),
        ("sata0:0", "sata0:1", "sata0:29", "sata1:0"),
        ("ide0:0", "ide0:1", "ide1:0", "ide1:1"),
        ("scsi0:0", "nvme0:0", "sata0:0", "ide0:0"),
        ("scsi3:15", "nvme0:0"),
        ("nvme3:14", "sata0:0"),
        ("sata3:29", "ide0:0"),
    ],
)
def test_the_order_of_disks(places: tuple[str, ...], tmp_path: Path) -> None:
    for number, shuffled in enumerate(permutations(places)):
        if number < 6:
            assert disks_at(tmp_path, *shuffled) == list(places)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    places=st.lists(
        st.tuples(st.sampled_from(BUSES), st.integers(0, 12), st.integers(0, 64)), min_size=1, max_size=20, unique=True
    )
)
def test_numbers_are_compared_as_numbers(places: list[tuple[str, int, int]], tmp_path: Path) -> None:
    written = [f"{bus}{controller}:{unit}" for bus, controller, unit in places]
    expected = sorted(places, key=lambda one: (BUSES.index(one[0]), *one[1:]))
    assert disks_at(tmp_path, *written) == [f"{bus}{controller}:{unit}" for bus, controller, unit in expected]


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("scsi0:1", ["scsi0:1", "scsi0:0", "nvme0:0"]),
        ("nvme0:0, scsi0:1", ["nvme0:0", "scsi0:1", "scsi0:0"]),
        ("NVMe0:0", ["nvme0:0", "scsi0:0", "scsi0:1"]),
        ("scsi3:3,,x", ["scsi0:0", "scsi0:1", "nvme0:0"]),
        ("", ["scsi0:0", "scsi0:1", "nvme0:0"]),
    ],
)
def test_the_order_that_the_bios_is_told(order: str, expected: list[str], tmp_path: Path) -> None:
    assert disks_at(tmp_path, "scsi0:0", "scsi0:1", "nvme0:0", **{"bios.hddOrder": order}) == expected


def test_addresses_and_slots(tmp_path: Path) -> None:
    lines = {**QUIET, **disk("scsi1:2", "a.vmdk"), **disk("nvme0:3", "b.vmdk"), "SCSI1.pciSlotNumber": "160"}
    found = read(put(tmp_path, lines, ["a.vmdk", "b.vmdk"]))
    assert [one.address for one in found.disks] == [
        DiskAddress(bus="scsi", controller=1, unit=2, slot=160),
        DiskAddress(bus="nvme", controller=0, unit=3),
    ]


@pytest.mark.parametrize("model", ["pvscsi", "lsilogic", "lsisas1068", "buslogic", "", "unheard-of"])
def test_models_of_scsi_controllers(model: str, tmp_path: Path) -> None:
    found = read(put(tmp_path, {**QUIET, **ONE_DISK, "scsi0.virtualDev": model}))
    assert names(found) == ["web01.vmdk"]


@pytest.mark.parametrize("key", ["SCSI0:0.FILENAME", "Scsi0:0.FileName", "scsi0:0.filename"])
def test_keys_in_any_case(key: str, tmp_path: Path) -> None:
    assert names(read(put(tmp_path, {**QUIET, "scsi0:0.Present": "true", key: "web01.vmdk"}))) == ["web01.vmdk"]


# ---------------------------------------------------------------- presence and kinds


@pytest.mark.parametrize("bus", BUSES)
@pytest.mark.parametrize("gone", ["{bus}1:1.present", "{bus}1.present", "{bus}1:1.PRESENT"])
@pytest.mark.parametrize("word", ["FALSE", "false", "0", "no"])
def test_a_device_that_was_removed(bus: str, gone: str, word: str, tmp_path: Path) -> None:
    lines = {**QUIET, **ONE_DISK, **disk(f"{bus}1:1", "other.vmdk")}
    lines = {key: value for key, value in lines.items() if key.lower() != gone.format(bus=bus).lower()}
    assert names(read(put(tmp_path, {**lines, gone.format(bus=bus): word}))) == ["web01.vmdk"]


def test_a_disk_that_does_not_say_whether_it_is_present(tmp_path: Path) -> None:
    found = read(put(tmp_path, {**QUIET, "scsi0:0.fileName": "web01.vmdk", "scsi0:1.redo": "", "scsi0:2.mode": "x"}))
    assert names(found) == ["web01.vmdk"]
    assert codes(found) == ["drive-doubtful"]


@pytest.mark.parametrize(
    ("device_type", "file", "kind"),
    [
        ("scsi-hardDisk", "other.vmdk", "disk"),
        ("disk", "other.vmdk", "disk"),
        ("ata-hardDisk", "other.vmdk", "disk"),
        ("sata-hardDisk", "other.vmdk", "disk"),
        ("plainDisk", "other.vmdk", "disk"),
        ("rawDisk", "other.vmdk", "disk"),
        ("SCSI-HARDDISK", "other.vmdk", "disk"),
        ("", "other.vmdk", "disk"),
        ("", "OTHER.VMDK", "disk"),
        ("unheard-of", "other.vmdk", "disk"),
        ("disk", "other.raw", "disk"),
        ("cdrom-image", "/vmfs/volumes/iso/x.iso", "cdrom"),
        ("cdrom-image", "/usr/lib/vmware/isoimages/linux.iso", "cdrom"),
        ("cdrom-image", "emptyBackingString", "cdrom"),
        ("cdrom-image", "other.vmdk", "cdrom"),
        ("atapi-cdrom", "auto detect", "cdrom"),
        ("ATAPI-CDROM", "/dev/cdrom", "cdrom"),
        ("cdrom-raw", "auto detect", "cdrom"),
        ("cdrom-raw", "D:", "cdrom"),
        ("cdrom-raw", "", "cdrom"),
        ("", "x.iso", "cdrom"),
        ("", "", "cdrom"),
        ("scsi-passthru", "/vmfs/devices/cdrom/mpx.vmhba0:C0:T0:L0", "cdrom"),
        ("scsi-passthru", "/vmfs/devices/genscsi/mpx.vmhba0:C0:T1:L0", "other"),
        ("scsi-passthrough", "/dev/sg1", "other"),
        ("disk", "", "other"),
        ("scsi-hardDisk", "emptyBackingString", "other"),
    ],
)
def test_kinds_of_drives(device_type: str, file: str, kind: str, tmp_path: Path) -> None:
    lines = {**QUIET, **ONE_DISK, **disk("scsi0:1", file, deviceType=device_type)}
    extra = [file] if kind == "disk" else []
    found = read(put(tmp_path, lines, ["web01.vmdk", *extra] if not file.endswith(".raw") else ["web01.vmdk", file]))
    assert len(found.disks) == (2 if kind == "disk" else 1)
    assert found.cdroms == (1 if kind == "cdrom" else 0)
    assert ("drive-not-migrated" in codes(found)) is (kind == "other")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_optical_drives_are_counted(count: int, tmp_path: Path) -> None:
    drives = dict[str, str]()
    for number in range(count):
        drives |= disk(f"sata0:{number}", "auto detect", deviceType="cdrom-raw")
    assert read(put(tmp_path, {**QUIET, **ONE_DISK, **drives})).cdroms == count


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ({"floppy0.present": "FALSE"}, 0),
        ({}, 1),
        ({"floppy0.present": "TRUE"}, 1),
        ({"floppy0.fileName": "x.flp"}, 1),
        ({"floppy0.present": "FALSE", "floppy1.present": "TRUE"}, 1),
        ({"floppy1.present": "TRUE"}, 2),
    ],
)
def test_floppies_are_counted(lines: dict[str, str], count: int, tmp_path: Path) -> None:
    quiet = {key: value for key, value in QUIET.items() if "floppy" not in key}
    found = read(put(tmp_path, {**quiet, **ONE_DISK, **lines}))
    assert codes(found) == ["floppy-not-migrated"] * bool(count)
    assert all(f"floppy drives ({count})" in one.message for one in found.concerns)


@pytest.mark.parametrize("lines", [{}, {"scsi0:0.present": "FALSE"}, disk("sata0:0", "x.iso")])
def test_a_machine_without_disks(lines: dict[str, str], tmp_path: Path) -> None:
    assert failure_of(put(tmp_path, QUIET | lines)).code == "vmx-without-disks"


def test_a_machine_with_too_many_disks(tmp_path: Path) -> None:
    lines = dict[str, str](QUIET)
    for number in range(27):
        lines |= disk(f"sata0:{number}", f"{number}.vmdk")
    vmx = put(tmp_path, lines, [f"{number}.vmdk" for number in range(27)])
    assert failure_of(vmx).code == "disks-too-many"
    vmx.write_text(text(lines | {"sata0:26.present": "FALSE"}))
    assert len(read(vmx).disks) == 26


@pytest.mark.parametrize(
    "kind", ["vmfsRawDeviceMap", "vmfsPassthroughRawDeviceMap", "vmfsRDM", "vmfsRDMP", "fullDevice"]
)
def test_a_raw_device_mapping_is_refused(kind: str, tmp_path: Path) -> None:
    vmx = put(tmp_path, {**QUIET, **ONE_DISK})
    extent = 'RW 8388608 VMFSRDM "web01-rdm.vmdk"'
    (tmp_path / "web01.vmdk").write_text(f'# Disk DescriptorFile\nversion=1\ncreateType="{kind}"\n{extent}\n')
    failure = failure_of(vmx)
    assert failure.code == "disk-raw-mapped"
    assert "scsi0:0" in failure.message and "vmkfstools" in failure.hint


# ---------------------------------------------------------------- where the files are


def test_a_disk_is_named_by_its_vmx(tmp_path: Path) -> None:
    vmx = put(tmp_path, {**QUIET, **ONE_DISK})
    (found,) = read(vmx).disks
    assert found.at == LocalFile(path=tmp_path / "web01.vmdk", named_by=NamedBy(path=vmx, uid=vmx.stat().st_uid))


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("web01.vmdk", "web01.vmdk"),
        ("./web01.vmdk", "web01.vmdk"),
        ("disks/web01.vmdk", "disks/web01.vmdk"),
        (r"disks\web01.vmdk", "disks/web01.vmdk"),
        ("../data/web01.vmdk", "../data/web01.vmdk"),
        (r"..\data\web01.vmdk", "../data/web01.vmdk"),
        ("{folder}/x/web01.vmdk", "x/web01.vmdk"),
        ("a |7C|22b|22.vmdk", 'a |"b".vmdk'),
        ("B\u00fcro.vmdk", "B\u00fcro.vmdk"),
    ],
)
def test_a_path_that_leads_to_the_file(written: str, file: str, tmp_path: Path) -> None:
    folder = tmp_path / "web01"
    folder.mkdir()
    vmx = put(folder, {**QUIET, **disk("scsi0:0", written.format(folder=folder))}, [file])
    found = read(vmx)
    assert [one.at.path.resolve() for one in found.disks if isinstance(one.at, LocalFile)] == [
        (folder / file).resolve()
    ]
    assert found.concerns == ()


@pytest.mark.parametrize(
    ("written", "file"),
    [
        ("/vmfs/volumes/ssd1/web01/data.vmdk", "data.vmdk"),
        ("/vmfs/volumes/5f1c2d3e-4b5a6978-1234-0050569f0001/x/data.vmdk", "data.vmdk"),
        ("/vmfs/volumes/ssd1/../x/data.vmdk", "data.vmdk"),
        ("/home/alice/vmware/web01/data.vmdk", "data.vmdk"),
        (r"C:\Virtual Machines\web01\data.vmdk", "data.vmdk"),
        ("D:/VM/data.vmdk", "data.vmdk"),
        (r"\\server\share\data.vmdk", "data.vmdk"),
        ("DATA.VMDK", "data.vmdk"),
        ("other/Data.vmdk", "data.vmdk"),
    ],
)
def test_a_path_of_another_host(written: str, file: str, tmp_path: Path) -> None:
    found = read(put(tmp_path, {**QUIET, **disk("scsi0:0", written)}, [file]))
    assert names(found) == [file]
    assert codes(found) == ["disk-found-by-name"]
    assert str(tmp_path / file) in found.concerns[0].message


@pytest.mark.parametrize("name", ["ssd1", "Daten 1", "5f1c2d3e-4b5a6978-1234-0050569f0001", "ds_1-a"])
def test_a_datastore_that_is_mapped(name: str, tmp_path: Path) -> None:
    vmx = put(tmp_path / "vm", {**QUIET, **disk("scsi0:0", f"/vmfs/volumes/{name}/web01/data.vmdk")}, ["data.vmdk"])
    there = tmp_path / "exports/web01/data.vmdk"
    there.parent.mkdir(parents=True)
    there.write_bytes(DISK)
    found = read(vmx, datastores={name: tmp_path / "exports"})
    assert [one.at.path for one in found.disks if isinstance(one.at, LocalFile)] == [there]
    assert found.concerns == ()


def test_a_mapped_datastore_without_the_file(tmp_path: Path) -> None:
    """The file of the same name beside the .vmx is another one."""
    vmx = put(tmp_path, {**QUIET, **disk("scsi0:0", "/vmfs/volumes/ssd1/web01/web01.vmdk")})
    failure = failure_of(vmx, datastores={"ssd1": tmp_path})
    assert failure.code == "vmx-disk-missing"
    assert f"{tmp_path}/web01/web01.vmdk" in failure.message and "datastore_map" in failure.hint


def test_an_entry_of_datastore_map_that_has_no_effect(tmp_path: Path) -> None:
    vmx = put(tmp_path / "vm", {**QUIET, **disk("scsi0:0", "/vmfs/volumes/ssd1/data.vmdk")}, ["data.vmdk"])
    (concern,) = read(vmx, datastores={"ssd1": tmp_path / "vm", "ssd2": tmp_path}).concerns
    assert (concern.code, concern.level) == ("datastore-unknown", "information") and "is on ssd2," in concern.message


def test_a_missing_disk_names_the_directory_that_was_searched(tmp_path: Path) -> None:
    vmx = put(tmp_path / "vm", {**QUIET, **disk("scsi0:0", "/vmfs/volumes/ssd1/web01/gone.vmdk")})
    mapped = failure_of(vmx, datastores={"ssd1": tmp_path / "ds"})
    assert f"{tmp_path}/ds/web01/gone.vmdk does not exist" in mapped.message
    assert mapped.hint == f"Correct datastore_map, or copy the file to {tmp_path}/ds/web01"
    unmapped = failure_of(vmx, datastores={"ssd2": tmp_path / "ds"})
    assert unmapped.message.endswith(f"is not on this host: {tmp_path}/vm has no file gone.vmdk")
    assert "`ssd1: /directory` to datastore_map" in unmapped.hint and f"{tmp_path}/vm" in unmapped.hint


def test_a_mapped_path_stays_in_its_directory(tmp_path: Path) -> None:
    (tmp_path / "secret.vmdk").write_bytes(DISK)
    vmx = put(tmp_path / "vm", {**QUIET, **disk("scsi0:0", "/vmfs/volumes/ssd1/../../secret.vmdk")}, ())
    assert failure_of(vmx, datastores={"ssd1": tmp_path / "vm"}).code == "vmx-disk-missing"


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("gone.vmdk", "Copy the disk"),
        ("/vmfs/volumes/ssd1/web01/gone.vmdk", "`datastore_map: {ssd1: /directory}`"),
        (r"C:\VM\gone.vmdk", "Copy the disk"),
        ("a|0Ab.vmdk", "Correct the name"),
        ("sub/", "Correct the name"),
        ("sub/..", "Correct the name"),
        ("x" * 300 + ".vmdk", "Correct the name"),
        ("x/" * 3000 + "x.vmdk", "Correct the name"),
    ],
)
def test_a_disk_that_is_not_there(written: str, hint: str, tmp_path: Path) -> None:
    failure = failure_of(put(tmp_path, {**QUIET, **disk("scsi0:3", written, deviceType="disk")}))
    assert failure.code == "vmx-disk-missing"
    assert "scsi0:3" in failure.message and hint in failure.hint


def test_a_name_in_another_encoding(tmp_path: Path) -> None:
    vmx = put(tmp_path, {})
    vmx.write_bytes(text(QUIET).encode() + 'scsi0:0.fileName = "B\u00fcro.vmdk"\n'.encode("cp1252"))
    failure = failure_of(vmx)
    assert failure.code == "vmx-disk-missing" and ".encoding" in failure.hint


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/vmfs/volumes/ssd1/web01/web01.vmdk", "/vmfs/volumes/ssd2/web01/web01.vmdk"),
        ("web01.vmdk", "/vmfs/volumes/ssd2/web01/web01.vmdk"),
        ("web01.vmdk", "web01.vmdk"),
        (r"C:\a\web01.vmdk", "WEB01.vmdk"),
    ],
)
def test_two_disks_that_would_be_one_file(one: str, other: str, tmp_path: Path) -> None:
    vmx = put(tmp_path, {**QUIET, **disk("scsi0:0", one), **disk("scsi0:1", other)})
    failure = failure_of(vmx)
    assert failure.code == "vmx-disk-unclear"
    assert "scsi0:0" in failure.message and "scsi0:1" in failure.message and "datastore_map" in failure.hint


def test_two_files_that_a_name_can_mean(tmp_path: Path) -> None:
    files = ["Data.vmdk", "DATA.vmdk"]
    failure = failure_of(put(tmp_path, {**QUIET, **disk("scsi0:0", "data.vmdk")}, files))
    assert failure.code == "vmx-disk-unclear"
    assert all(name in failure.message for name in files)
    assert names(read(put(tmp_path, {**QUIET, **disk("scsi0:0", "C:/DATA.vmdk")}, files))) == ["DATA.vmdk"]
