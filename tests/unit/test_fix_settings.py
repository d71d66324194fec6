"""The repairs that have no golden guest of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.linux.fixes import FIXES
from hyper2kvmd.model.guest import Guest
from tests.support.guest_on_disk import deny_labels, files_below, migration, put, repaired, simple_layout

VERSION = "6.1.0-18-amd64"


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A guest whose kernel has virtio built in and no initramfs."""
    put(tmp_path, "etc/os-release", "ID=debian\n")
    modules = f"usr/lib/modules/{VERSION}"
    put(tmp_path, f"{modules}/modules.dep", "")
    put(tmp_path, f"{modules}/modules.builtin", "kernel/virtio_pci.ko\nkernel/virtio_blk.ko\n")
    put(tmp_path, f"boot/vmlinuz-{VERSION}", "")
    return tmp_path


def repair(guest: Path, **options: object) -> Guest:
    found = repaired({"partition 1": guest}, simple_layout(), migration(**options))
    assert repaired({"partition 1": guest}, simple_layout(), migration(**options)).changes == ()
    return found


def test_the_next_initramfs_keeps_virtio(guest: Path) -> None:
    put(guest, "etc/initramfs-tools/modules", "# modules\nvirtio_blk")
    (guest / "etc/dracut.conf.d").mkdir()
    put(guest, "etc/mkinitcpio.conf", "# MODULES=(x)\nMODULES=(ext4)\nHOOKS=(base udev)\n")
    repair(guest)
    lines = (guest / "etc/initramfs-tools/modules").read_text().split("\n")
    assert lines[:2] == ["# modules", "virtio_blk"] and lines.count("virtio_blk") == 1
    assert {"virtio_pci", "virtio_scsi", "virtio_net"} <= set(lines)
    dracut = (guest / "etc/dracut.conf.d/90-hyper2kvm.conf").read_text()
    assert 'add_drivers+=" virtio_pci virtio_blk virtio_scsi virtio_net "' in dracut
    expected = "# MODULES=(x)\nMODULES=(ext4 virtio_pci virtio_blk virtio_scsi virtio_net)\nHOOKS=(base udev)\n"
    assert (guest / "etc/mkinitcpio.conf").read_text() == expected


@pytest.mark.parametrize(("before", "after"), [('MODULES=""\n', '"virtio_pci '), ("MODULES=()\n", "(virtio_pci ")])
def test_empty_mkinitcpio_lists(guest: Path, before: str, after: str) -> None:
    put(guest, "etc/mkinitcpio.conf", before)
    repair(guest)
    assert after in (guest / "etc/mkinitcpio.conf").read_text()


@pytest.mark.parametrize(
    ("path", "before", "after"),
    [
        (
            "etc/sysconfig/kernel",
            '# modules\nINITRD_MODULES="mptspi ext3"\nDOMU_INITRD_MODULES="xennet"\n',
            '# modules\nINITRD_MODULES="mptspi ext3 virtio_pci virtio_blk virtio_scsi virtio_net"\n'
            'DOMU_INITRD_MODULES="xennet"\n',
        ),
        ("etc/mkinitfs/mkinitfs.conf", 'features="ata base ext4 scsi"\n', 'features="ata base ext4 scsi virtio"\n'),
        ("etc/mkinitfs/mkinitfs.conf", 'features="base virtio ext4"\n', 'features="base virtio ext4"\n'),
        ("etc/mkinitcpio.conf", "MODULES=(\n" * 100_000, "MODULES=(\n" * 100_000),
        (
            "etc/mkinitcpio.conf",
            "MODULES=(\n  ext4\n)\n",
            "MODULES=(\n  ext4\n virtio_pci virtio_blk virtio_scsi virtio_net)\n",
        ),
    ],
)
def test_builders_of_other_makes(guest: Path, path: str, before: str, after: str) -> None:
    put(guest, path, before)
    repair(guest)
    assert (guest / path).read_text() == after


@pytest.mark.parametrize("mark", ["etc/dracut.conf", "usr/share/dracut/modules.d/x", "usr/lib/dracut/modules.d/x"])
def test_a_dracut_without_a_folder_for_settings_gets_one(guest: Path, mark: str) -> None:
    put(guest, mark, "")
    repair(guest)
    assert "add_drivers+=" in (guest / "etc/dracut.conf.d/90-hyper2kvm.conf").read_text()


def test_builders_are_left_alone_without_regen_initramfs(guest: Path) -> None:
    (guest / "etc/dracut.conf.d").mkdir()
    assert repair(guest, regen_initramfs=False).changes == ()


def enforcing(guest: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A guest with labels that we may not set, and a folder in which a repair makes a new file."""
    put(guest, "etc/selinux/config", "SELINUX=enforcing\n")
    folder = guest / "etc/dracut.conf.d"
    folder.mkdir()
    os.setxattr(folder, "security.selinux", b"system_u:object_r:etc_t:s0\0")
    deny_labels(monkeypatch)
    return guest


def test_a_new_file_without_its_label_makes_the_guest_label_itself(
    guest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(enforcing(guest, monkeypatch), "sbin/fixfiles", "#!/bin/sh\n")
    found = repair(guest)
    assert [change.path for change in found.changes if change.fix == "selinux"] == ["/.autorelabel"]
    assert (guest / ".autorelabel").read_bytes() == b""
    assert found.warnings == ()


def test_a_new_file_without_its_label_is_named_where_the_guest_cannot_label_itself(
    guest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = repair(enforcing(guest, monkeypatch))
    assert "90-hyper2kvm.conf. Run restorecon" in found.warnings[0]
    assert not (guest / ".autorelabel").exists()


def with_tools(guest: Path) -> None:
    put(guest, "usr/lib/systemd/system/open-vm-tools.service", "[Unit]\n")
    put(guest, "usr/lib/systemd/system/vgauth.service", "[Unit]\n")
    wants = guest / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "open-vm-tools.service").symlink_to("/lib/systemd/system/open-vm-tools.service")
    (wants / "ssh.service").symlink_to("/lib/systemd/system/ssh.service")
    (guest / "etc/systemd/system/vmtoolsd.service").symlink_to("/lib/systemd/system/open-vm-tools.service")
    put(guest, "etc/init.d/vmware-tools", "#!/bin/sh\n")
    (guest / "etc/rc3.d").mkdir()
    (guest / "etc/rc3.d/S20vmware-tools").symlink_to("../init.d/vmware-tools")


def test_vmware_tools_are_masked(guest: Path) -> None:
    with_tools(guest)
    repair(guest, remove_vmware_tools=True)
    etc = guest / "etc/systemd/system"
    for unit in ("open-vm-tools.service", "vmtoolsd.service", "vgauth.service"):
        assert (etc / unit).readlink() == Path("/dev/null")
    assert [path.name for path in (etc / "multi-user.target.wants").iterdir()] == ["ssh.service"]
    assert not (etc / "vmware-tools.service").is_symlink()
    assert list((guest / "etc/rc3.d").iterdir()) == []


def test_a_unit_that_minds_the_hypervisor_itself_stays_as_it_is(guest: Path) -> None:
    guarded = "[Unit]\nDescription=VMware\nConditionVirtualization=vmware\n"
    put(guest, "usr/lib/systemd/system/open-vm-tools.service", guarded)
    wants = guest / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "open-vm-tools.service").symlink_to("/lib/systemd/system/open-vm-tools.service")
    before = files_below(guest)
    assert repair(guest).changes == ()
    assert files_below(guest) == before
    repair(guest, remove_vmware_tools=True)
    assert (guest / "etc/systemd/system/open-vm-tools.service").readlink() == Path("/dev/null")


def test_what_would_start_on_kvm_is_disabled_and_nothing_is_masked(guest: Path) -> None:
    with_tools(guest)
    put(guest, "etc/systemd/system/vmware-tools.service", "[Service]\nExecStart=/etc/vmware-tools/services.sh start\n")
    (guest / "etc/rc3.d/K80vmware-tools").symlink_to("../init.d/vmware-tools")
    put(guest, "etc/init.d/open-vm-tools", "#!/sbin/openrc-run\n")
    (guest / "etc/runlevels/default").mkdir(parents=True)
    (guest / "etc/runlevels/default/open-vm-tools").symlink_to("/etc/init.d/open-vm-tools")
    repair(guest)
    etc = guest / "etc/systemd/system"
    assert [path.name for path in (etc / "multi-user.target.wants").iterdir()] == ["ssh.service"]
    assert [path.name for path in (guest / "etc/rc3.d").iterdir()] == ["K80vmware-tools"]
    assert list((guest / "etc/runlevels/default").iterdir()) == []
    assert not (etc / "open-vm-tools.service").exists() and (etc / "vmware-tools.service").is_file()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "start on runlevel [2345]\nstop on runlevel [!2345]\n",
            "#start on runlevel [2345]\nstop on runlevel [!2345]\n",
        ),
        (
            "env A=b\nstart on (local-filesystems\n   and started udev)\npre-start exec x\n",
            "env A=b\n#start on (local-filesystems\n#   and started udev)\npre-start exec x\n",
        ),
        ("# start on boot\ntask\n", "# start on boot\ntask\n"),
    ],
)
def test_upstart_job_no_longer_starts_by_itself(guest: Path, before: str, after: str) -> None:
    job = put(guest, "etc/init/vmware-tools.conf", before)
    repair(guest)
    assert job.read_text() == after


def test_vmware_modules_are_not_loaded_when_the_tools_go(guest: Path) -> None:
    modules = put(guest, "etc/modules", "# modules\nloop\nvmw_balloon\n  vmhgfs \nvmw_balloon_else\n")
    before = modules.read_text()
    repair(guest)
    assert modules.read_text() == before
    repair(guest, remove_vmware_tools=True)
    assert modules.read_text() == "# modules\nloop\n#vmw_balloon\n#  vmhgfs \nvmw_balloon_else\n"


def test_a_unit_of_the_guests_own_stays_but_is_not_pulled_in(guest: Path) -> None:
    put(guest, "etc/systemd/system/vmware-tools.service", "[Unit]\n")
    wants = guest / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir()
    (wants / "vmware-tools.service").symlink_to("../vmware-tools.service")
    repair(guest, remove_vmware_tools=True)
    assert (guest / "etc/systemd/system/vmware-tools.service").read_text() == "[Unit]\n"
    assert list(wants.iterdir()) == []


def test_grubenv_keeps_its_size_and_a_full_one_fails_the_job(guest: Path) -> None:
    head = "# GRUB Environment Block\nkernelopts=root=/dev/sda1 ro\n"
    path = put(guest, "boot/grub2/grubenv", head + "#" * (1024 - len(head)))
    repair(guest)
    assert len(path.read_bytes()) == 1024 and "root=PARTUUID=deadbeef-01 ro\n#" in path.read_text()
    full = head + "x=" + "y" * (1024 - len(head) - 3) + "\n"
    path.write_text(full)
    with pytest.raises(MigrationFailed) as caught:
        repair(guest)
    assert caught.value.code == "grubenv-full" and path.read_text() == full


def test_an_optional_repair_that_fails_is_a_warning_by_name(guest: Path) -> None:
    first = put(guest, "etc/default/grub", 'GRUB_CMDLINE_LINUX="root=/dev/sda1"\n')
    put(guest, "etc/default/grub.d/large.cfg", b"#" * (5 << 20))
    put(guest, "etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n")
    found = repaired({"partition 1": guest}, simple_layout(), migration())
    assert [change.fix for change in found.changes] == ["fstab"]
    (warning,) = found.warnings
    assert warning.startswith("the repair grub-default failed: the guest's file etc/default/grub.d/large.cfg is")
    assert first.read_text() == 'GRUB_CMDLINE_LINUX="root=/dev/sda1"\n'


def test_a_required_repair_that_fails_fails_the_job_and_nothing_is_written(guest: Path) -> None:
    put(guest, "etc/fstab", "/dev/sda1 / ext4 defaults 0 1\n")
    put(guest, "boot/grub/grub.cfg", b"#" * (5 << 20))
    before = files_below(guest)
    with pytest.raises(MigrationFailed):
        repair(guest)
    assert files_below(guest) == before


def test_extlinux(guest: Path) -> None:
    path = put(guest, "boot/extlinux/extlinux.conf", "label l0\n  append root=/dev/hda1 ro\n")
    repair(guest)
    assert path.read_text() == "label l0\n  append root=PARTUUID=deadbeef-01 ro\n"


def test_names_of_repairs_are_their_own() -> None:
    assert len({fix.name for fix in FIXES}) == len(FIXES)
