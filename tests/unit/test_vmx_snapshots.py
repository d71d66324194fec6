"""The snapshots of a machine: the current state, or the disks of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.vmx import DISK, ONE_DISK, QUIET, codes, failure_of, names, put, read, text


def vmsd(folder: Path, *snapshots: tuple[str, Mapping[str, str]], order: Sequence[int] | None = None) -> Path:
    """A .vmsd with (name, file by device) for each snapshot, and their files; `order` is that of the lines."""
    blocks = []
    for number, (name, disks) in enumerate(snapshots):
        block = {f"snapshot{number}.uid": str(number + 1), f"snapshot{number}.displayName": name}
        block[f"snapshot{number}.numDisks"] = str(len(disks))
        for disk, (device, file) in enumerate(disks.items()):
            block |= {f"snapshot{number}.disk{disk}.fileName": file, f"snapshot{number}.disk{disk}.node": device}
            (folder / file).write_bytes(DISK)
        blocks.append(text(block))
    start = {".encoding": "UTF-8", "snapshot.lastUID": "1", "snapshot.numSnapshots": str(len(snapshots))}
    path = folder / "web01.vmsd"
    path.write_text(text(start) + "".join(blocks[number] for number in order or range(len(blocks))))
    return path


def current(folder: Path, **more: str) -> Path:
    lines = {**QUIET, **ONE_DISK, "scsi0:0.fileName": "web01-000099.vmdk"}
    return put(folder, lines | {key.replace("_", "."): value for key, value in more.items()}, ["web01-000099.vmdk"])


def chain(folder: Path, count: int) -> Path:
    """`count` snapshots, called `state 0` and so on; of each the disk has the same number."""
    snapshots = [(f"state {number}", {"scsi0:0": f"web01-{number:06}.vmdk"}) for number in range(count)]
    vmsd(folder, *snapshots)
    return current(folder)


@pytest.mark.parametrize("count", [1, 9, 10, 11, 12, 32, 101])
def test_every_snapshot_can_be_chosen(count: int, tmp_path: Path) -> None:
    vmx = chain(tmp_path, count)
    for number in {0, 1, 9, 10, count - 1} & set(range(count)):
        found = read(vmx, snapshot=f"state {number}")
        assert names(found) == [f"web01-{number:06}.vmdk"]
        assert codes(found) == ["snapshot-chosen"]


@pytest.mark.parametrize("count", [1, 10, 33])
def test_the_current_state_is_the_default(count: int, tmp_path: Path) -> None:
    found = read(chain(tmp_path, count))
    assert names(found) == ["web01-000099.vmdk"]
    assert codes(found) == ["snapshots-present"]
    assert f"snapshots ({count})" in found.concerns[0].message


def test_no_snapshots(tmp_path: Path) -> None:
    vmx = current(tmp_path)
    assert codes(read(vmx)) == []
    vmsd(tmp_path)
    assert codes(read(vmx)) == []


def test_the_order_of_the_lines_does_not_matter(tmp_path: Path) -> None:
    snapshots = [(f"s{number}", {"scsi0:0": f"web01-{number:06}.vmdk"}) for number in range(12)]
    vmsd(tmp_path, *snapshots, order=[11, 10, 1, 2, 0, 9, 8, 7, 6, 5, 4, 3])
    assert names(read(current(tmp_path), snapshot="s10")) == ["web01-000010.vmdk"]
    failure = failure_of(current(tmp_path), snapshot="x")
    places = [failure.message.index(f"(uid {number + 1})") for number in range(12)]
    assert places == sorted(places)


def test_an_unknown_name_shows_all_names(tmp_path: Path) -> None:
    failure = failure_of(chain(tmp_path, 12), snapshot="state")
    assert failure.code == "snapshot-unknown"
    assert all(f"'state {number}' (uid {number + 1})" in failure.message for number in range(12))


@pytest.mark.parametrize("there", [True, False])
def test_a_machine_without_snapshots(there: bool, tmp_path: Path) -> None:
    if there:
        vmsd(tmp_path)
    failure = failure_of(current(tmp_path), snapshot="x")
    assert failure.code == ("snapshot-unknown" if there else "source-missing")
    assert "remove" in failure.hint and f"{tmp_path / 'web01.vmsd'}" in failure.message


def test_names_that_repeat_are_chosen_by_uid(tmp_path: Path) -> None:
    vmsd(
        tmp_path,
        ("before update", {"scsi0:0": "web01.vmdk"}),
        ("other", {"scsi0:0": "web01-000001.vmdk"}),
        ("before update", {"scsi0:0": "web01-000002.vmdk"}),
    )
    failure = failure_of(current(tmp_path), snapshot="before update")
    assert failure.code == "snapshot-unknown"
    assert "uid 1" in failure.message and "uid 3" in failure.message and "other" not in failure.message
    assert names(read(current(tmp_path), snapshot="1")) == ["web01.vmdk"]
    assert names(read(current(tmp_path), snapshot="3")) == ["web01-000002.vmdk"]
    assert failure_of(current(tmp_path), snapshot="0").code == "snapshot-unknown"


def test_a_uid_that_repeats_or_is_missing_chooses_nothing(tmp_path: Path) -> None:
    path = vmsd(tmp_path, *((name, {"scsi0:0": f"{name}.vmdk"}) for name in "abc"))
    path.write_text(path.read_text().replace('snapshot1.uid = "2"', 'snapshot1.uid = "1"'))
    failure = failure_of(current(tmp_path), snapshot="1")
    assert "2 snapshots have the name or uid '1'" in failure.message
    path.write_text(path.read_text().replace('snapshot2.uid = "3"\n', ""))
    assert "'c' (uid unknown)" in failure_of(current(tmp_path), snapshot="3").message
    assert names(read(current(tmp_path), snapshot="c")) == ["c.vmdk"]


@pytest.mark.parametrize("wanted", ["1", "base", "0", "B\u00fcro |", "x" * 80])
def test_a_name_counts_before_a_uid(wanted: str, tmp_path: Path) -> None:
    written = wanted.replace("|", "|7C")
    vmsd(
        tmp_path, ("first", {"scsi0:0": "a.vmdk"}), ("second", {"scsi0:0": "b.vmdk"}), (written, {"scsi0:0": "c.vmdk"})
    )
    assert names(read(current(tmp_path), snapshot=wanted)) == ["c.vmdk"]


def test_the_disks_of_a_snapshot_are_in_boot_order(tmp_path: Path) -> None:
    vmsd(tmp_path, ("s", {"scsi0:10": "a.vmdk", "nvme0:0": "b.vmdk", "SCSI0:2": "c.vmdk", "": "d.vmdk"}))
    vmx = current(tmp_path, scsi0_pciSlotNumber="160")
    found = read(vmx, snapshot="s")
    assert names(found) == ["c.vmdk", "a.vmdk", "b.vmdk", "d.vmdk"]
    assert [one.address and (one.address.bus, one.address.unit, one.address.slot) for one in found.disks] == [
        ("scsi", 2, 160),
        ("scsi", 10, 160),
        ("nvme", 0, None),
        None,
    ]
    vmx = current(tmp_path, bios_hddOrder="nvme0:0")
    assert names(read(vmx, snapshot="s")) == ["b.vmdk", "c.vmdk", "a.vmdk", "d.vmdk"]


def test_disks_that_a_snapshot_does_not_have(tmp_path: Path) -> None:
    vmsd(tmp_path, ("s", {"scsi0:0": "web01.vmdk"}))
    lines = {**QUIET, **ONE_DISK}
    for unit, mode in ((1, "persistent"), (2, "independent-persistent")):
        lines |= {f"scsi0:{unit}.present": "TRUE", f"scsi0:{unit}.fileName": f"{unit}.vmdk", f"scsi0:{unit}.mode": mode}
    found = read(put(tmp_path, lines, ["web01.vmdk", "1.vmdk", "2.vmdk"]), snapshot="s")
    assert names(found) == ["web01.vmdk", "2.vmdk"]
    assert sorted(codes(found)) == ["disk-independent", "disk-not-in-snapshot", "snapshot-chosen"]
    assert any("scsi0:1" in one.message for one in found.concerns if one.code == "disk-not-in-snapshot")


def test_a_snapshot_without_disks(tmp_path: Path) -> None:
    vmsd(tmp_path, ("s", {}))
    assert failure_of(current(tmp_path), snapshot="s").code == "vmx-without-disks"


def test_two_disks_of_a_snapshot_in_one_place(tmp_path: Path) -> None:
    vmsd(tmp_path, ("s", {"scsi0:0": "a.vmdk", "SCSI0:0": "b.vmdk", "": "c.vmdk"}))
    failure = failure_of(current(tmp_path), snapshot="s")
    assert failure.code == "vmx-disk-unclear"
    assert "scsi0:0 is a.vmdk as well as b.vmdk" in failure.message


def test_a_suspended_machine_has_usable_snapshots(tmp_path: Path) -> None:
    vmsd(tmp_path, ("s", {"scsi0:0": "web01.vmdk"}))
    vmx = current(tmp_path, checkpoint_vmState="web01.vmss")
    assert failure_of(vmx).code == "machine-suspended"
    assert names(read(vmx, snapshot="s")) == ["web01.vmdk"]


@pytest.mark.parametrize("data", [b"", b"\0" * 4096, b"x" * (2 << 20)])
def test_a_damaged_vmsd_prevents_only_a_choice(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "web01.vmsd").write_bytes(data)
    assert names(read(current(tmp_path))) == ["web01-000099.vmdk"]
    assert failure_of(current(tmp_path), snapshot="s").code == "vmx-invalid"


def test_a_vmsd_in_the_encoding_of_its_host(tmp_path: Path) -> None:
    path = vmsd(tmp_path, ("x", {"scsi0:0": "web01.vmdk"}))
    path.write_bytes(
        path.read_text().replace("UTF-8", "windows-1252").replace('"x"', '"vor \u00c4nderung"').encode("cp1252")
    )
    assert names(read(current(tmp_path), snapshot="vor \u00c4nderung")) == ["web01.vmdk"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(chosen=st.integers(0, 30), order=st.permutations(range(31)))
def test_any_order_of_many_snapshots(chosen: int, order: list[int], tmp_path: Path) -> None:
    snapshots = [(f"s{number}", {"scsi0:0": f"web01-{number:06}.vmdk"}) for number in range(31)]
    vmsd(tmp_path, *snapshots, order=order)
    assert names(read(current(tmp_path), snapshot=f"s{chosen}")) == [f"web01-{chosen:06}.vmdk"]
