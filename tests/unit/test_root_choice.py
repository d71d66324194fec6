"""Several Linux roots: the key `root:` chooses, else the default entry of the boot loader, else the job is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.linux.boot_menu import default_entry
from hyper2kvmd.guest.linux.root_search import find_root
from hyper2kvmd.model.disks import ESP_TYPES, Layout
from tests.support.guest_on_disk import FolderAccess, partition, put

A, B = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
MENU = """if [ "${{next_entry}}" ] ; then
   set default="${{next_entry}}"
else
   set default="{default}"
fi
function load_video {{
  insmod all_video
}}
menuentry 'Slot A' --class os $menuentry_id_option 'slot-a' {{
    if [ x$grub_platform = xxen ]; then insmod xzio; fi
    linux /vmlinuz root=UUID={a} ro
}}
submenu 'Advanced' $menuentry_id_option 'advanced' {{
    menuentry 'Old A' $menuentry_id_option 'old-a' {{
        linux /vmlinuz.old root=UUID={a} ro
    }}
    menuentry 'Old B' $menuentry_id_option 'old-b' {{
        linux /vmlinuz.old root=UUID={b} ro
    }}
}}
menuentry "Slot B" {{
    linux /vmlinuz root=UUID={b} ro
}}
"""


def menu(default: str) -> str:
    return MENU.format(default=default, a=A, b=B)


@pytest.mark.parametrize(
    ("default", "environment", "root"),
    [
        ("0", "", A),
        ("2", "", B),
        ("1>1", "", B),
        ("advanced>old-a", "", A),
        ("slot-a", "", A),
        ("Slot B", "", B),
        ("${saved_entry}", "saved_entry=Slot B\n", B),
        ("${saved_entry}", "", A),
        ("0", "next_entry=2\n", B),
        ("7", "", None),
        ("$unknown", "", None),
    ],
)
def test_the_default_entry_of_grub(default: str, environment: str, root: str | None) -> None:
    text = default_entry(menu(default), environment)
    assert (f"root=UUID={root}" in text) if root else text == ""


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("default 1\ntitle a\n kernel /v root=A\ntitle b\n kernel /v root=B\n", "B"),
        ("default=0\ntitle a\n kernel /v root=A\ntitle b\n kernel /v root=B\n", "A"),
        ("DEFAULT two\nLABEL one\n append root=A\nLABEL two\n append root=B\n", "B"),
        ("label one\n append root=A\nlabel two\n append root=B\n", "A"),
    ],
)
def test_the_default_entry_of_older_menus(text: str, root: str) -> None:
    found = default_entry(text)
    assert f"root={root}" in found and found.count("root=") == 1


class Slots:
    """Two roots, and whatever else a test puts on their disk."""

    def __init__(self, folder: Path) -> None:
        self.folders = {name: folder / name.replace(" ", "-") for name in ("partition 1", "partition 2")}
        for root in self.folders.values():
            put(root, "etc/os-release", "ID=debian\n")
            (root / "usr").mkdir()
        self.volumes = [partition(1, uuid=A), partition(2, uuid=B)]

    def found(self, asked: str | None = None) -> str:
        root = find_root(FolderAccess(self.folders), Layout(tables=("gpt",), volumes=tuple(self.volumes)), asked)
        assert root is not None and root.has_rivals
        return root.volume.name


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    return Slots(tmp_path)


@pytest.mark.parametrize("text", ["linux /v root=/dev/sda2 ro\n", menu("2")])
def test_the_boot_loaders_root_is_chosen(slots: Slots, text: str) -> None:
    put(slots.folders["partition 1"], "boot/grub/grub.cfg", text)
    assert slots.found() == "partition 2"


def test_a_separate_boot_partition_counts_as_well(slots: Slots, tmp_path: Path) -> None:
    slots.folders["partition 3"] = tmp_path / "boot"
    slots.volumes.append(partition(3))
    put(tmp_path, "boot/grub2/grubenv", f"# GRUB Environment Block\nkernelopts=root=UUID={B} ro\n")
    put(tmp_path, "boot/grub2/grub.cfg", "set default=0\nblscfg\n")
    assert slots.found() == "partition 2"


def test_two_boot_loaders_are_told_apart_by_the_efi_partition(slots: Slots, tmp_path: Path) -> None:
    for name, uuid in (("partition 1", A), ("partition 2", B)):
        put(slots.folders[name], "boot/grub/grub.cfg", f"linux /v root=UUID={uuid}\n")
    with pytest.raises(MigrationFailed):
        slots.found()
    slots.folders["partition 9"] = tmp_path / "esp"
    slots.volumes.append(partition(9, "vfat", parttype=ESP_TYPES[0]))
    put(tmp_path, "esp/EFI/debian/grub.cfg", f"search.fs_uuid {B} root \nset prefix=($root)'/boot/grub'\n")
    assert slots.found() == "partition 2"


@pytest.mark.parametrize("text", ["", "linux /v root=UUID=cccccccc-0000-4000-8000-000000000003\n", menu("9")])
def test_without_a_clear_default_both_are_listed_with_what_to_write(slots: Slots, text: str) -> None:
    put(slots.folders["partition 1"], "boot/grub/grub.cfg", text)
    with pytest.raises(MigrationFailed) as caught:
        slots.found()
    assert caught.value.code == "guest-ambiguous"
    assert f"root: UUID={A} or root: UUID={B}" in caught.value.hint


@pytest.mark.parametrize("asked", [f"UUID={B}", "partition 2", f"/dev/disk/by-uuid/{B}", "/dev/sda2"])
def test_the_migration_chooses_against_the_boot_loader(slots: Slots, asked: str) -> None:
    put(slots.folders["partition 1"], "boot/grub/grub.cfg", f"linux /v root=UUID={A}\n")
    assert slots.found(asked) == "partition 2"


@pytest.mark.parametrize("asked", ["UUID=0", "partition 3", "/dev/sdb1"])
def test_a_root_that_is_none_is_refused(slots: Slots, asked: str) -> None:
    with pytest.raises(MigrationFailed) as caught:
        slots.found(asked)
    assert caught.value.code == "root-unknown" and f"UUID={A}" in caught.value.hint


def test_subvolumes_are_chosen_by_name(tmp_path: Path) -> None:
    for name in ("@", "@rootfs"):
        put(tmp_path, f"{name}/etc/os-release", "ID=debian\n")
        (tmp_path / name / "usr").mkdir()
    layout = Layout(tables=("gpt",), volumes=(partition(1, "btrfs", uuid=A),))
    access = FolderAccess({"partition 1": tmp_path})
    with pytest.raises(MigrationFailed) as caught:
        find_root(access, layout, f"UUID={A}")
    assert "several Linux systems" in caught.value.message and f'"UUID={A}, subvolume @"' in caught.value.hint
    found = find_root(access, layout, f"UUID={A}, subvolume @rootfs")
    assert found is not None and found.subvolume == "@rootfs"
    put(tmp_path, "@/boot/grub/grub.cfg", f"linux /v root=UUID={A} rootflags=subvol=@ ro\n")
    found = find_root(access, layout)
    assert found is not None and found.subvolume == "@"
