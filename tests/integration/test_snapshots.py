"""The disk that the machine really runs on: a disk with snapshots beside it is refused, unless the base is meant."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from hyper2kvmd import spec
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.disk.sources.snapshots import MAX_FILES, check_snapshots
from hyper2kvmd.disk.sources.vmdk.links import ONLY_LINKS
from hyper2kvmd.errors import Failure
from hyper2kvmd.host.mandate import ANYONE, Mandate
from hyper2kvmd.machines.reader import read_machine
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import LocalFile
from tests.support.ctl import ctl
from tests.support.disks import sh
from tests.support.vmdk import full
from tests.support.vmdk_images import descriptor, hosted

CID = "4f1ae3b1"
UUID = "1b2c3d4e-0000-1111-2222-333344445555"


def base(folder: Path, name: str = "web01", cid: str = CID, parent: tuple[str, str] | None = None) -> Path:
    (folder / f"{name}-flat.vmdk").write_bytes(full(65536))
    path = folder / f"{name}.vmdk"
    path.write_bytes(descriptor("vmfs", f'RW 128 VMFS "{name}-flat.vmdk"', cid=cid, parent=parent))
    return path


def delta(folder: Path, name: str, parent: str = "web01.vmdk", parent_cid: str = CID, cid: str = "9b2c6d10") -> Path:
    """A snapshot in one file, as Workstation writes it."""
    text = descriptor("monolithicSparse", f'RW 128 SPARSE "{name}"', cid=cid, parent=(parent_cid, parent))
    return hosted({}, 128, text=text).write(folder / name)


def vmx(folder: Path, *disks: str, name: str = "web01.vmx") -> None:
    lines = [
        f'scsi0:{number}.fileName = "{disk}"\nscsi0:{number}.present = "TRUE"' for number, disk in enumerate(disks)
    ]
    (folder / name).write_text("\n".join(lines))


def checked(
    *disks: Path, meant: Literal["base"] | None = None, mandate: Mandate = ANYONE, names: Sequence[str] | None = None
) -> tuple[str, ...]:
    """As plan does it, with the disk names of the .vmx beside the first disk."""
    asked = Migration(vmdk=disks, vm_name="web01")
    with Sources(disks[0].parent, mandate) as sources:
        opened = [source.files[0] for source in sources.open([LocalFile(path=disk) for disk in disks])]
        names = read_machine(asked, sources).disk_names if names is None else names
        return tuple(concern.message for concern in check_snapshots(opened, names, meant, mandate))


def refused(*disks: Path, mandate: Mandate = ANYONE) -> Failure:
    with pytest.raises(Failure) as caught:
        checked(*disks, mandate=mandate)
    assert str(caught.value).isprintable()
    assert caught.value.code == "source-has-snapshot"
    return caught.value


def test_a_migration_is_refused_and_done_with_the_key(tmp_path: Path) -> None:
    disk, result = base(tmp_path), tmp_path / "out"
    delta(tmp_path, "web01-000001.vmdk")
    text = f"vmdk: {disk}\nvm_name: web01\noutput_dir: {result}\nconversion_dir: {tmp_path}/work\n"
    (tmp_path / "refused.yaml").write_text(text)
    done = ctl("--config", tmp_path / "refused.yaml", cwd=tmp_path)
    assert done.returncode == 1 and "[source-has-snapshot]" in done.stderr
    assert not result.exists()

    (tmp_path / "meant.yaml").write_text(f"{text}snapshot: base\n")
    done = ctl("--config", tmp_path / "meant.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = (result / "web01.report.md").read_text()
    assert "web01-000001.vmdk" in report.partition("## Warnings")[2].partition("##")[0]


@pytest.mark.parametrize("value", ["top", "Base", "true"])
def test_the_key_has_one_value(value: str) -> None:
    with pytest.raises(Failure) as caught:
        spec.parse(f"vmdk: /srv/web01.vmdk\nsnapshot: {value}\n", default_name="web01")
    assert "snapshot" in str(caught.value)


# ---------------------------------------------------------------- by the snapshots beside it


def test_the_base_of_a_snapshot_is_refused_unless_it_is_meant(tmp_path: Path) -> None:
    disk, top = base(tmp_path), delta(tmp_path, "web01-000001.vmdk")
    failure = refused(disk)
    assert str(top) in failure.hint and "snapshot: base" in failure.hint
    (warning,) = checked(disk, meant="base")
    assert "web01-000001.vmdk" in warning
    assert checked(top) == ()


def test_a_disk_in_the_middle_of_a_chain_is_refused_with_the_topmost_one(tmp_path: Path) -> None:
    disk, middle = base(tmp_path), delta(tmp_path, "web01-000002.vmdk", cid="00000abc")
    top = delta(tmp_path, "web01-000001.vmdk", "web01-000002.vmdk", "abc")
    for below in (disk, middle):
        assert str(top) in refused(below).hint
    assert checked(top) == ()


def test_a_snapshot_of_esx_in_two_files(tmp_path: Path) -> None:
    disk = base(tmp_path)
    text = descriptor("vmfsSparse", 'RW 128 VMFSSPARSE "web01-000001-delta.vmdk"', parent=(CID, "web01.vmdk"))
    (tmp_path / "web01-000001.vmdk").write_bytes(text)
    refused(disk)


@pytest.mark.parametrize("hint", ["WEB01.VMDK", "/vmfs/volumes/5f1c/web01/web01.vmdk", r"D:\\VMs\web01\web01.vmdk"])
def test_a_parent_with_a_path_or_in_other_case(hint: str, tmp_path: Path) -> None:
    disk = base(tmp_path)
    delta(tmp_path, "other.vmdk", hint)
    refused(disk)


def test_the_id_alone_is_a_warning(tmp_path: Path) -> None:
    """The disk may be the renamed parent, or a copy of a parent that is elsewhere: a template, for example."""
    disk = base(tmp_path, "renamed")
    delta(tmp_path, "web01-000001.vmdk")
    (warning,) = checked(disk)
    assert "web01-000001.vmdk" in warning and "'web01.vmdk'" in warning


@pytest.mark.parametrize("name", ["web01.vmdk", "WEB01.vmdk"])
@pytest.mark.parametrize("readable", [True, False])
def test_the_parent_itself_is_beside_its_copy(name: str, readable: bool, tmp_path: Path) -> None:
    disk = base(tmp_path, "copy")
    delta(tmp_path, "web01-000001.vmdk")
    if readable:
        base(tmp_path, name.removesuffix(".vmdk"))
    else:
        os.mkfifo(tmp_path / name)
    assert checked(disk) == ()


def test_an_id_that_many_disks_have_is_no_evidence(tmp_path: Path) -> None:
    disk = base(tmp_path, "db01", cid="fffffffe")
    delta(tmp_path, "web01-000001.vmdk", parent_cid="fffffffe")
    assert checked(disk) == ()


def test_a_snapshot_of_an_earlier_state_is_a_warning(tmp_path: Path) -> None:
    """Nothing can use it: this is what a failed consolidation leaves behind."""
    disk = base(tmp_path)
    delta(tmp_path, "web01-000001.vmdk", parent_cid="12345678")
    (warning,) = checked(disk)
    assert "web01-000001.vmdk" in warning


def test_a_flat_extent_that_is_alone_has_the_name_of_its_descriptor(tmp_path: Path) -> None:
    base(tmp_path).unlink()
    delta(tmp_path, "web01-000001.vmdk")
    refused(tmp_path / "web01-flat.vmdk")


def test_every_disk_of_the_machine_counts(tmp_path: Path) -> None:
    first, second = base(tmp_path), base(tmp_path, "data", cid="aaaa1111")
    delta(tmp_path, "data-000001.vmdk", "data.vmdk", "aaaa1111")
    assert "data.vmdk" in refused(first, second).message


def test_files_that_cannot_be_read_are_no_error(tmp_path: Path) -> None:
    disk = base(tmp_path)
    os.mkfifo(tmp_path / "web01-000001.vmdk")
    (tmp_path / "web01-000002.vmdk").symlink_to("/etc/shadow")
    (tmp_path / "web01-000003.vmdk").mkdir()
    (tmp_path / "web01-000004.vmdk").write_bytes(b"KDMV" + os.urandom(508))
    (tmp_path / "web01-000005.vmdk").touch()
    (tmp_path / "web01-00000\n6.vmdk").write_bytes(delta(tmp_path, "x").read_bytes())
    (tmp_path / "x").unlink()
    assert checked(disk) == ()


def test_a_bounded_number_of_files_is_opened_the_likely_ones_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = base(tmp_path)
    for number in range(MAX_FILES + 20):
        (tmp_path / f"a{number}.vmdk").touch()
    assert checked(disk) == ()
    delta(tmp_path, "web01-000001.vmdk")
    opened: list[str] = []

    def count(_: Mandate, path: Path, flags: int) -> int:
        opened.append(path.name)
        return os.open(path, flags)

    monkeypatch.setattr(Mandate, "open", count)
    refused(disk)
    assert "web01-000001.vmdk" in opened
    assert len([name for name in opened if name.startswith("a")]) < MAX_FILES


def test_extents_are_not_opened(tmp_path: Path) -> None:
    """A guest writes their content, and cannot make its disk look like the base of another one."""
    disk = base(tmp_path)
    text = descriptor("vmfs", "RW 128 ZERO", parent=(CID, "web01.vmdk"))
    (tmp_path / "db01-flat.vmdk").write_bytes(text)
    assert checked(disk) == ()


@pytest.mark.parametrize("name", ["web01_1.img", "web01-000001.RAW", "web01.copy.dd", "web01.bin", "web01-rdm.vmdk"])
def test_a_raw_disk_beside_is_not_read(name: str, tmp_path: Path) -> None:
    """Its guest could write a descriptor into it, and have another disk refused."""
    disk = base(tmp_path)
    (tmp_path / name).write_bytes(descriptor("vmfs", "RW 128 ZERO", parent=(CID, "web01.vmdk")).ljust(4096, b"\0"))
    assert checked(disk) == ()


def test_a_snapshot_of_more_extents_than_are_read(tmp_path: Path) -> None:
    disk = base(tmp_path)
    extents = [f'RW 4192256 SPARSE "web01-000001-s{number:04}.vmdk"' for number in range(3000)]
    text = descriptor("twoGbMaxExtentSparse", *extents, parent=(CID, "web01.vmdk"))
    assert len(text) > 2 * ONLY_LINKS
    (tmp_path / "web01-000001.vmdk").write_bytes(text)
    refused(disk)


# ---------------------------------------------------------------- by the .vmx


def test_six_digits_alone_are_no_snapshot(tmp_path: Path) -> None:
    """A dated copy beside its original, and two disks that are numbered like snapshots."""
    base(tmp_path)
    copy, other = base(tmp_path, "web01-240101", cid="22222222"), base(tmp_path, "web01-240102", cid="33333333")
    vmx(tmp_path, "web01.vmdk")
    assert checked(copy) == ()
    vmx(tmp_path, "web01-240102.vmdk")
    assert checked(copy) == ()
    delta(tmp_path, "web01-000001.vmdk", "web01-240102.vmdk", "33333333")
    vmx(tmp_path, "web01-000001.vmdk")
    assert checked(copy) == ()
    assert "web01-000001.vmdk" in refused(other).hint


def test_a_chain_that_is_incomplete_may_be_one_of_the_disk(tmp_path: Path) -> None:
    disk = base(tmp_path)
    delta(tmp_path, "web01-000002.vmdk", "web01-000001.vmdk")
    vmx(tmp_path, "web01-000002.vmdk")
    refused(disk)


@pytest.mark.parametrize("content", [b"", b"KDMV", b"# Disk DescriptorFile\n"])
def test_a_damaged_snapshot_that_the_vmx_names(content: bytes, tmp_path: Path) -> None:
    disk = base(tmp_path)
    (tmp_path / "web01-000001.vmdk").write_bytes(content)
    vmx(tmp_path, "web01-000001.vmdk")
    refused(disk)


def test_a_converted_disk_beside_its_machine(tmp_path: Path) -> None:
    disk = tmp_path / "web01.img"
    disk.write_bytes(full(65536))
    vmx(tmp_path, "web01.vmdk")
    assert checked(disk) == ()


@pytest.mark.parametrize(
    "named", ["web01-000003.vmdk", "/vmfs/volumes/5f1c/web01/web01-000003.vmdk", "WEB01-000003.vmdk"]
)
@pytest.mark.parametrize("file", ["web01.vmx", "production.vmx"])
def test_the_vmx_names_a_snapshot_that_is_not_here(file: str, named: str, tmp_path: Path) -> None:
    disk = base(tmp_path)
    vmx(tmp_path, named, name=file)
    failure = refused(disk)
    assert "000003" in failure.message and "copied it" in failure.hint
    assert len(checked(disk, meant="base")) == 1


def test_the_vmx_names_another_branch(tmp_path: Path) -> None:
    base(tmp_path)
    one = delta(tmp_path, "web01-000001.vmdk")
    other = delta(tmp_path, "web01-000002.vmdk")
    vmx(tmp_path, "web01-000002.vmdk")
    assert str(other) in refused(one).hint
    assert checked(other) == ()


def test_the_vmx_names_the_base_of_the_given_snapshot(tmp_path: Path) -> None:
    base(tmp_path)
    top = delta(tmp_path, "web01-000001.vmdk")
    vmx(tmp_path, "web01.vmdk")
    (warning,) = checked(top)
    assert "'web01.vmdk'" in warning


def test_the_vmx_names_the_given_disk_and_others(tmp_path: Path) -> None:
    disk = base(tmp_path)
    vmx(tmp_path, "web01.vmdk", "web01_1.vmdk", "data-000001.vmdk")
    assert checked(disk) == ()


def test_a_device_that_is_not_present_has_no_disk(tmp_path: Path) -> None:
    disk = base(tmp_path)
    (tmp_path / "web01.vmx").write_text('ide0:0.present = "FALSE"\nide0:0.fileName = "web01-000001.vmdk"\n')
    assert checked(disk) == ()


# ---------------------------------------------------------------- other formats


def test_a_qcow2_with_an_overlay(tmp_path: Path) -> None:
    disk, overlay = tmp_path / "web01.qcow2", tmp_path / "web01.before-update"
    sh("qemu-img", "create", "-q", "-f", "qcow2", disk, "1M")
    assert checked(disk) == ()
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", overlay)
    assert str(overlay) in refused(disk).hint


def test_a_raw_disk_with_an_overlay(tmp_path: Path) -> None:
    disk = tmp_path / "web01.raw"
    disk.write_bytes(full(65536))
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", tmp_path / "overlay.qcow2")
    refused(disk)


def test_a_vdi_with_a_snapshot(tmp_path: Path) -> None:
    disk, child = tmp_path / "web01.vdi", tmp_path / "{1b2c}.vdi"
    sh("qemu-img", "create", "-q", "-f", "vdi", disk, "1M")
    data = bytearray(disk.read_bytes())
    image = bytes(data[0x188:0x198])
    assert any(image)
    data[0x188:0x198] = bytes(16)[::-1].replace(b"\0", b"\7")
    data[0x1A8:0x1B8] = image
    child.write_bytes(data)
    assert str(child) in refused(disk).hint
    data[0x1A8:0x1B8] = b"\5" * 16
    child.write_bytes(data)
    assert checked(disk) == ()


def test_a_vhdx_with_a_checkpoint(tmp_path: Path) -> None:
    disk = tmp_path / "web01.vhdx"
    sh("qemu-img", "create", "-q", "-f", "vhdx", disk, "4M")
    (tmp_path / f"db01_{UUID}.avhdx").touch()
    assert checked(disk) == ()
    (tmp_path / f"web01_{UUID.upper()}.avhdx").touch()
    refused(disk)
