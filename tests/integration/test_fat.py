"""Our FAT reader and writer, judged by dosfstools and mtools."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.mounts.access import open_image
from hyper2kvmd.guest.mounts.rootside import Helper
from hyper2kvmd.model.disks import DiskImage, Image, Layout, Segment, Volume
from hyper2kvmd.volumes.fat import FatVolume
from hyper2kvmd.volumes.mapping import linear
from hyper2kvmd.volumes.window import FileDisk, Window
from tests.support.host import as_qcow2, as_raw
from tests.support.kernel import Kernel

KIB, MIB = 1 << 10, 1 << 20
KINDS = {
    "fat12": (2 * MIB, ("-F", "12")),
    "fat16": (16 * MIB, ("-F", "16")),
    "fat32": (64 * MIB, ("-F", "32")),
    "fat32 with 4 KiB sectors": (300 * MIB, ("-F", "32", "-S", "4096")),
    "fat16, one table": (16 * MIB, ("-F", "16", "-f", "1")),
    "fat32, large clusters": (300 * MIB, ("-F", "32", "-s", "8")),
}
LOADER = "EFI/BOOT/BOOTX64.EFI"


def tool(*argv: object) -> str:
    environment = {**os.environ, "MTOOLS_SKIP_CHECK": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def chances(seed: int) -> random.Random:
    """The same ones each time."""
    return random.Random(seed)  # noqa: S311 - chance, not secrets


def sound(path: Path) -> None:
    """fsck finds nothing, not even a wrong count of free clusters."""
    said = tool("fsck.vfat", "-n", "-v", path)
    assert "differs" not in said and "wrong" not in said and "Perform" not in said, said


def made(path: Path, kind: str) -> Path:
    size, options = KINDS[kind]
    with path.open("wb") as file:
        file.truncate(size)
    tool("mkfs.vfat", *options, path)
    return path


@contextmanager
def opened(path: Path) -> Iterator[FatVolume]:
    handle = os.open(path, os.O_RDWR)
    try:
        yield FatVolume(Window((FileDisk(handle),), linear(Segment(offset=0, length=path.stat().st_size)), False))
    finally:
        os.close(handle)


def content(volume: FatVolume, path: str) -> bytes:
    return b"".join(volume.pieces(path))


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return made(tmp_path / "disk.fat", request.param)


def test_what_mtools_wrote_is_read(disk: Path, tmp_path: Path) -> None:
    data = chances(1).randbytes(300 * KIB + 5)
    (tmp_path / "loader").write_bytes(data)
    tool("mmd", "-i", disk, "::/EFI", "::/EFI/A long folder name")
    tool("mcopy", "-i", disk, tmp_path / "loader", "::/EFI/A long folder name/shimx64.efi")
    tool("mcopy", "-i", disk, tmp_path / "loader", "::/EFI/GRUB.CFG")
    tool("mcopy", "-i", disk, tmp_path / "loader", "::/grün.conf")
    with opened(disk) as volume:
        assert sorted(volume.names("")) == ["EFI", "grün.conf"]
        assert sorted(volume.names("efi")) == ["A long folder name", "GRUB.CFG"]
        assert content(volume, "efi/a LONG folder name/ShimX64.EFI") == data
        assert content(volume, "GRÜN.conf") == data
        assert volume.spelling("efi/a LONG folder name/shimx64.EFI") == "EFI/A long folder name/shimx64.efi"
        assert volume.spelling("efi/new/File") == "EFI/new/File"
        with pytest.raises(FileNotFoundError):
            volume.entry("EFI/none")
        with pytest.raises(NotADirectoryError):
            volume.names("EFI/GRUB.CFG")
        with pytest.raises(IsADirectoryError):
            volume.replace("efi", b"")


def test_what_we_write_is_read_by_mtools(disk: Path, tmp_path: Path) -> None:
    """Two hundred random changes, each known to a model beside the disk."""
    chance = chances(7)
    model: dict[str, bytes] = {}
    folders = [""]
    with opened(disk) as volume:
        for number in range(200):
            what = chance.choice(("replace", "replace", "append", "unlink", "mkdir", "new", "new"))
            folder = chance.choice(folders)
            data = chance.randbytes(chance.choice((0, 1, 511, 512, 4096, 9000, 20000)))
            if what == "mkdir" and len(folders) < 6:
                folders.append(f"{folder}/Folder number {number}".lstrip("/"))
                volume.mkdir(folders[-1])
            elif what == "new" and len(model) < 40:
                name = chance.choice(
                    (f"FILE{number}.EFI", f"initrd.img-6.1.0-{number}-amd64", f"ünïcode {number}.conf")
                )
                path = f"{folder}/{name}".lstrip("/")
                volume.replace(path, data)
                model[path] = data
            elif model and what in ("replace", "append", "unlink"):
                path = chance.choice(sorted(model))
                if what == "unlink":
                    volume.unlink(path.upper())
                    del model[path]
                elif what == "append":
                    volume.append(path.upper(), data)
                    model[path] += data
                else:
                    volume.replace(path.lower(), data)
                    model[path] = data
        free = volume.free_bytes
    sound(disk)
    with opened(disk) as volume:
        assert volume.free_bytes == free
        assert {path: content(volume, path) for path in model} == model
    tool("mcopy", "-s", "-n", "-i", disk, "::/*", tmp_path)
    disk.unlink()
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == model


def test_a_full_file_system_is_told_before_anything_is_written(disk: Path) -> None:
    with opened(disk) as volume:
        volume.replace("FILE.BIN", b"before")
        image = disk.read_bytes()
        for change in (volume.replace, volume.append):
            with pytest.raises(MigrationFailed) as caught:
                change("FILE.BIN", bytes(volume.free_bytes + 64 * KIB))
            assert caught.value.code == "guest-full"
            assert disk.read_bytes() == image
        volume.append("FILE.BIN", bytes(volume.free_bytes))
        assert volume.free_bytes == 0
        volume.unlink("FILE.BIN")
    sound(disk)


def test_a_fat32_of_few_clusters(tmp_path: Path) -> None:
    """Installers make such EFI partitions, against the specification; Linux and firmware read them."""
    disk = tmp_path / "disk.fat"
    with disk.open("wb") as file:
        file.truncate(64 * MIB)
    tool("mkfs.vfat", "-F", "32", "-s", "16", disk)
    with opened(disk) as volume:
        volume.mkdir("EFI")
        volume.replace("EFI/loader.efi", b"loader")
    sound(disk)
    with opened(disk) as volume:
        assert content(volume, "EFI/LOADER.EFI") == b"loader"


def test_names_that_tell_nothing_to_fat_are_refused(tmp_path: Path) -> None:
    with opened(made(tmp_path / "disk.fat", "fat16")) as volume:
        for name in ("a:b", "tab\there", "dot.", "space ", "x" * 256):
            with pytest.raises(OSError, match="Invalid argument"):
                volume.replace(name, b"")
        volume.replace("x" * 255, b"long")
        assert volume.names("") == ("x" * 255,)
    sound(tmp_path / "disk.fat")


@pytest.mark.parametrize("fmt", ["raw", "qcow2"])
def test_a_partition_in_an_image_is_edited_without_a_mount(
    fmt: str, service_folder: Path, installed_helper: tuple[str, ...]
) -> None:
    """And nothing beside it is touched."""
    esp = made(service_folder / "esp.fat", "fat16")
    place = Segment(offset=MIB, length=esp.stat().st_size)
    disk = service_folder / "disk.raw"
    around = chances(5).randbytes(MIB)
    disk.write_bytes(around + esp.read_bytes() + around)
    volume = Volume(kind="partition", name="partition 1", content="vfat", stretches=linear(place))
    size = disk.stat().st_size
    image = Image(
        disks=(DiskImage(path=disk, virtual_size=size, file_bytes=size),),
        format="raw",
        layout=Layout(tables=("gpt",), volumes=(volume,)),
    )
    image = as_qcow2(image) if fmt == "qcow2" else image
    with open_image(image, Helper(installed_helper), service_folder) as access:
        with access.blocks(volume) as blocks:
            FatVolume(blocks).replace("FILE.EFI", b"loader")
            with pytest.raises(MigrationFailed, match="mounted already"), access.blocks(volume):
                pass
        with access.blocks(volume, read_only=True) as blocks:
            assert content(FatVolume(blocks), "file.efi") == b"loader"
            with pytest.raises(MigrationFailed) as caught:
                FatVolume(blocks).replace("FILE.EFI", b"other")
            assert caught.value.code == "volume-read-only"
    after = as_raw(image).read_bytes()
    assert after[:MIB] == after[-MIB:] == around
    esp.write_bytes(after[MIB:-MIB])
    sound(esp)
    with opened(esp) as fat:
        assert content(fat, "FILE.EFI") == b"loader"
    assert Kernel.now().clean


# ---------------------------------------------------------------- a crash at any instant


@dataclass
class Recorder:
    """A disk in memory that remembers the order of what was written to it."""

    data: bytearray
    writes: list[tuple[int, bytes]] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self.data[offset : offset + len(data)] = data
        self.writes.append((offset, data))

    def flush(self) -> None: ...


@pytest.mark.parametrize("kind", ["fat12", "fat16", "fat32"])
@pytest.mark.parametrize("change", ["replace", "append", "new", "new, in a full folder"])
def test_a_crash_leaves_the_old_file_or_the_new_one(tmp_path: Path, kind: str, change: str) -> None:
    disk = made(tmp_path / "disk.fat", kind)
    old, new, other = (chances(seed).randbytes(70 * KIB + seed) for seed in (1, 2, 3))
    path = LOADER if not change.startswith("new") else "EFI/BOOT/A rather long name of a loader.efi"
    with opened(disk) as volume:
        volume.mkdir("EFI")
        volume.mkdir("EFI/BOOT")
        volume.replace("EFI/other", other)
        volume.replace(LOADER, old)
        while change.endswith("full folder") and len(volume.names("EFI/BOOT")) % 64 != 61:
            volume.replace(f"EFI/BOOT/F{len(volume.names('EFI/BOOT'))}", b"")
    before = disk.read_bytes()
    recorder = Recorder(bytearray(before))
    live = FatVolume(recorder)
    if change == "append":
        live.append(path, new)
    else:
        live.replace(path, new)
    after = {"append": old + new}.get(change, new)
    state = Recorder(bytearray(before))
    seen = set()
    for offset, data in [(0, b""), *recorder.writes]:
        state.write(offset, data)
        volume = FatVolume(state)
        assert content(volume, "EFI/other") == other
        names = volume.names("EFI/BOOT")
        now = content(volume, path) if path.split("/")[-1] in names else None
        assert now in ((old, after) if path == LOADER else (None, after))
        seen.add(now)
    assert len(seen) == 2
    assert content(FatVolume(state), LOADER) == (after if path == LOADER else old)


# ---------------------------------------------------------------- hostile disks


def hostile(path: Path, kind: str = "fat16") -> tuple[Path, int, int]:
    """A disk with EFI/BOOT/BOOTX64.EFI; the offset of its table and of the first cluster."""
    disk = made(path / "disk.fat", kind)
    with opened(disk) as volume:
        volume.mkdir("EFI")
        volume.mkdir("EFI/BOOT")
        volume.replace(LOADER, bytes(range(256)) * 256)
        geometry = volume._geometry
        return disk, geometry.tables[0], geometry.data


def patch(disk: Path, offset: int, data: bytes) -> None:
    with disk.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def refused(disk: Path) -> str:
    with pytest.raises(MigrationFailed) as caught, opened(disk) as volume:
        content(volume, LOADER)
    assert caught.value.code == "guest-damaged"
    assert "fsck" in caught.value.hint
    return caught.value.message


def test_a_circle_of_clusters(tmp_path: Path) -> None:
    disk, table, _ = hostile(tmp_path)
    with opened(disk) as volume:
        first = volume.entry(LOADER).cluster
    patch(disk, table + 2 * first, struct.pack("<HH", first + 1, first))
    assert "loop" in refused(disk)


def test_a_folder_without_end(tmp_path: Path) -> None:
    disk, table, _ = hostile(tmp_path, "fat32")
    with opened(disk) as volume:
        count = volume._geometry.clusters
        boot = volume.entry("EFI/BOOT").cluster
        last = volume.entry(LOADER).cluster + 200
    chain = b"".join(struct.pack("<I", cluster + 1) for cluster in range(last, count + 1))
    patch(disk, table + 4 * last, chain)
    patch(disk, table + 4 * boot, struct.pack("<I", last))
    assert "never end" in refused(disk)


@pytest.mark.parametrize("link", [1, 0xFFF7, 0xFFF0, 0])
def test_a_cluster_that_leads_nowhere(tmp_path: Path, link: int) -> None:
    disk, table, _ = hostile(tmp_path)
    with opened(disk) as volume:
        first = volume.entry(LOADER).cluster
    patch(disk, table + 2 * first, struct.pack("<H", link))
    refused(disk)


def test_a_folder_that_is_its_own_parent_ends_with_the_path(tmp_path: Path) -> None:
    disk, _, _ = hostile(tmp_path)
    with opened(disk) as volume:
        efi, boot = volume.entry("EFI"), volume.entry("EFI/BOOT")
        at = volume._geometry.offset(efi.cluster) + boot.slots[-1] * 32 + 26
    patch(disk, at, struct.pack("<H", efi.cluster))
    with opened(disk) as volume:
        assert volume.names("EFI/BOOT/BOOT/BOOT") == ("BOOT",)
        with pytest.raises(FileNotFoundError):
            volume.entry(LOADER)
    patch(disk, at, struct.pack("<H", 0))
    refused(disk)


def test_names_with_control_characters_and_slashes_are_not_there(tmp_path: Path) -> None:
    disk, _, _ = hostile(tmp_path)
    with opened(disk) as volume:
        volume.replace("EFI/BOOT/an ordinary name", b"x")
        entry = volume.entry("EFI/BOOT/an ordinary name")
        at = volume._geometry.offset(volume.entry("EFI/BOOT").cluster) + entry.slots[-2] * 32 + 1
        boot = volume._geometry.offset(volume.entry("EFI/BOOT").cluster)
    for odd in ("\x1b", "/", "\n"):
        patch(disk, at, odd.encode("utf-16-le"))
        with opened(disk) as volume:
            assert volume.names("EFI/BOOT") == ("BOOTX64.EFI",)
    patch(disk, boot + (entry.slots[-1]) * 32, b"\x01\x02/")
    with opened(disk) as volume:
        assert volume.names("EFI/BOOT") == ("BOOTX64.EFI",)


def test_what_lies_behind_the_end_of_a_folder_stays_there(tmp_path: Path) -> None:
    """Old slots that a formatter left: a new file must not make them files."""
    disk, _, _ = hostile(tmp_path)
    with opened(disk) as volume:
        boot, entry = volume.entry("EFI/BOOT"), volume.entry(LOADER)
        end = volume._geometry.offset(boot.cluster) + (entry.slots[-1] + 1) * 32
    stale = b"STALE   EFI".ljust(32, b"\0")
    patch(disk, end + 32, stale * 8)
    with opened(disk) as volume:
        volume.replace("EFI/BOOT/NEW.EFI", b"")
        volume.replace("EFI/BOOT/a long name.efi", b"")
        assert sorted(volume.names("EFI/BOOT")) == ["BOOTX64.EFI", "NEW.EFI", "a long name.efi"]


def test_a_name_whose_parts_do_not_fit_falls_back_to_the_short_one(tmp_path: Path) -> None:
    disk, _, _ = hostile(tmp_path)
    with opened(disk) as volume:
        volume.replace("EFI/BOOT/an ordinary name.efi", b"x")
        entry = volume.entry("EFI/BOOT/an ordinary name.efi")
        at = volume._geometry.offset(volume.entry("EFI/BOOT").cluster) + entry.slots[0] * 32 + 13
    patch(disk, at, b"\0")
    with opened(disk) as volume:
        assert volume.names("EFI/BOOT") == ("BOOTX64.EFI", "ANORDI~1.EFI")


@pytest.mark.parametrize("size", [100, 512, 1024, 30 * KIB, 100 * KIB])
def test_a_truncated_disk(tmp_path: Path, size: int) -> None:
    disk, _, _ = hostile(tmp_path)
    os.truncate(disk, size)
    refused(disk)


@pytest.mark.parametrize("kind", ["fat12", "fat16", "fat32"])
def test_random_damage_is_bytes_or_a_failure(tmp_path: Path, kind: str) -> None:
    disk, table, data = hostile(tmp_path, kind)
    image = disk.read_bytes()
    chance = chances(11)
    outcomes = set()
    for _ in range(400 if kind != "fat32" else 40):
        recorder = Recorder(bytearray(image))
        for _ in range(chance.choice((1, 4, 30))):
            place = chance.choice((chance.randrange(512), table + chance.randrange(300), data + chance.randrange(2048)))
            recorder.data[place] = chance.randrange(256)
        try:
            volume = FatVolume(recorder)
            content(volume, LOADER)
            volume.append(LOADER, b"more")
            volume.replace("EFI/BOOT/grubx64.efi", b"loader")
            outcomes.add("fine")
        except (OSError, MigrationFailed) as error:
            outcomes.add(type(error).__name__)
    assert {"fine", "MigrationFailed", "FileNotFoundError"} <= outcomes
