"""Guests of many makes: their files before and after, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.guest.linux.fixes import FIXES
from hyper2kvmd.stages.repair import repair_disks
from tests.support.guest_on_disk import GOLDEN, FolderAccess, GoldenCase, files_below, guest_disks, repaired

CASES = sorted(place.name for place in GOLDEN.iterdir())
ONLY_WARNING = {
    "boot-loader": "which is not repaired",
    "dhcp-identity": "the identifier of the DHCP client",
    "hardware-names": "which is not a disk name on KVM",
    "kernel-left": "rd.luks.uuid=",
    "kernel-root": "no_grub: true leaves it",
}
"""Repairs that change no file, and what they say."""
NOTHING_TO_MEND = ("left-alone", "net-alpine-mdev")


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> GoldenCase:
    return GoldenCase(request.param, tmp_path / "guest")


def test_files_after_repair(case: GoldenCase, tmp_path: Path) -> None:
    guest = repaired(case.folders, case.layout, case.migration, case.vmx)
    assert files_below(tmp_path / "guest") == files_below(case.place / "after")
    assert list(guest.warnings) == case.warnings
    if case.nics is not None:
        assert [[nic.name, nic.mac] for nic in guest.nics] == case.nics


def test_a_second_repair_changes_nothing(case: GoldenCase, tmp_path: Path) -> None:
    first = repaired(case.folders, case.layout, case.migration, case.vmx)
    before = files_below(tmp_path / "guest")
    again = repaired(case.folders, case.layout, case.migration, case.vmx)
    assert again.changes == ()
    assert again.nics == first.nics
    assert files_below(tmp_path / "guest") == before


def test_a_dry_run_says_the_same_and_writes_nothing(case: GoldenCase, tmp_path: Path) -> None:
    access = FolderAccess(case.folders)
    dry = case.migration.with_changes(dry_run=True)
    promised = repair_disks(guest_disks(access, case.layout, dry, case.vmx))
    assert files_below(tmp_path / "guest") == files_below(case.place / "before")
    assert all(read_only for _, read_only in access.mounted)
    assert promised == repaired(case.folders, case.layout, case.migration, case.vmx)


def test_only_a_volume_with_a_change_is_mounted_writable(case: GoldenCase) -> None:
    before = {name: files_below(folder) for name, folder in case.folders.items()}
    access = FolderAccess(case.folders)
    repair_disks(guest_disks(access, case.layout, case.migration, case.vmx))
    changed = {name for name, folder in case.folders.items() if files_below(folder) != before[name]}
    assert {name for name, read_only in access.mounted if not read_only} == changed


def test_no_file_changes_but_those_that_the_report_lists(case: GoldenCase, tmp_path: Path) -> None:
    """A path in the report is the guest's, a file here lies below its volume's folder, maybe a subvolume's."""
    before = files_below(tmp_path / "guest")
    guest = repaired(case.folders, case.layout, case.migration, case.vmx)
    after = files_below(tmp_path / "guest")
    touched = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    listed = {change.path for change in guest.changes}
    for path in touched:
        assert any(
            path.endswith(name.removeprefix(point)) for name in listed for point in ("", "/boot", "/boot/efi")
        ), path
    assert len(touched) == len(listed)


def test_comments_and_blank_lines_stay_and_lines_keep_their_order(case: GoldenCase, tmp_path: Path) -> None:
    before = files_below(tmp_path / "guest")
    repaired(case.folders, case.layout, case.migration, case.vmx)
    for path, new in files_below(tmp_path / "guest").items():
        old = before.get(path)
        if not isinstance(old, bytes) or not isinstance(new, bytes) or b"\0" in old:
            continue
        old_lines, new_lines = old.rstrip(b"#").split(b"\n"), new.rstrip(b"#").split(b"\n")
        rest = iter(new_lines)
        for line in old_lines:
            if not line.strip() or line.lstrip().startswith(b"#"):
                assert line in rest, f"{path}: {line!r}"
        kept = [line for line in old_lines if line in set(new_lines)]
        rest = iter(new_lines)
        assert all(line in rest for line in kept), path


def test_who_the_guest_is_stays(case: GoldenCase, tmp_path: Path) -> None:
    """The machine's id, its name, its clock, its terminals: none of them is the hypervisor's business."""
    kept = ("etc/machine-id", "etc/hostname", "etc/HOSTNAME", "etc/adjtime", "etc/inittab", "etc/os-release")
    before = files_below(tmp_path / "guest")
    repaired(case.folders, case.layout, case.migration, case.vmx)
    after = files_below(tmp_path / "guest")
    for path, data in before.items():
        assert not path.endswith(kept) or after[path] == data
        if isinstance(data, bytes):
            text = after.get(path)
            assert not isinstance(text, bytes) or text.count(b"console=tty") == data.count(b"console=tty")


def test_nearly_every_case_has_something_to_mend() -> None:
    for name in CASES:
        before, after = files_below(GOLDEN / name / "before"), files_below(GOLDEN / name / "after")
        assert (before != after) == (name not in NOTHING_TO_MEND), name
        assert before.keys() & after.keys(), name


def test_every_repair_of_text_is_in_a_golden_case(tmp_path: Path) -> None:
    seen, warned = set(), ""
    for name in CASES:
        golden = GoldenCase(name, tmp_path / name)
        guest = repaired(golden.folders, golden.layout, golden.migration, golden.vmx)
        seen |= {change.fix for change in guest.changes}
        warned += "".join(guest.warnings)
    seen |= {name for name, fact in ONLY_WARNING.items() if fact in warned}
    assert {fix.name for fix in FIXES} - seen <= {"initramfs", "unified-kernel"}
