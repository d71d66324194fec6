"""Guests as plain folders: a directory fd behaves as a detached mount does."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hyper2kvmd.errors import MigrationFailed
from hyper2kvmd.guest.family import GuestDisks
from hyper2kvmd.guest.files.root import ConfinedRoot
from hyper2kvmd.guest.files.tree import GuestTree
from hyper2kvmd.guest.mounts.access import Access
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Layout, Segment, Volume
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.machine import Firmware, SourceNic
from hyper2kvmd.model.orders import SpaceNeeded
from hyper2kvmd.progress import Context, Event
from hyper2kvmd.stages.repair import repair_disks
from hyper2kvmd.volumes.fat import Blocks
from hyper2kvmd.volumes.mapping import linear
from hyper2kvmd.volumes.window import FileDisk, Window

GOLDEN = Path(__file__).parent.parent / "golden"
ROOT_UUID = "1b7f8c5e-5b3a-4c53-9f6e-0a2c1d3e4f50"
MTOOLS = {"MTOOLS_SKIP_CHECK": "1", "LC_ALL": "C.UTF-8"}
SWAP_UUID = "22222222-aaaa-4bbb-8ccc-333333333333"


def mtools(*argv: object) -> str:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, env={**os.environ, **MTOOLS})
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


class FolderAccess:
    """Volumes that are folders, by name; any other volume cannot be mounted."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self._folders = folders
        self.mounted: list[tuple[str, bool]] = []
        """Names of volumes, and whether read-only."""

    @property
    def replayed(self) -> tuple[Volume, ...]:
        return ()

    @contextmanager
    def blocks(self, volume: Volume, *, read_only: bool = False) -> Iterator[Blocks]:
        """A FAT file system made of the folder by mtools, which put what became of it back into the folder."""
        if volume.name not in self._folders:
            raise MigrationFailed("mount-unsupported", f"{volume.name} cannot be read", hint="repair it")
        self.mounted.append((volume.name, read_only))
        folder = self._folders[volume.name]
        with tempfile.NamedTemporaryFile(suffix=".fat") as file:
            size = volume.segments[0].length
            file.truncate(size)
            mtools(
                "mformat", "-F" if size > 32 << 20 else "-h2", "-T", size // 512, "-s32", "-h64", "-i", file.name, "::"
            )
            for entry in folder.iterdir():
                mtools("mcopy", "-s", "-i", file.name, entry, "::/")
            yield Window((FileDisk(file.fileno()),), linear(Segment(offset=0, length=size)), read_only)
            if not read_only:
                shutil.rmtree(folder)
                folder.mkdir()
                mtools("mcopy", "-s", "-n", "-i", file.name, "::/*", folder)

    @contextmanager
    def mount(self, volume: Volume, *, read_only: bool = False) -> Iterator[int]:
        if volume.name not in self._folders:
            raise MigrationFailed("mount-failed", f"{volume.name} cannot be mounted", hint="repair it")
        self.mounted.append((volume.name, read_only))
        handle = os.open(self._folders[volume.name], os.O_PATH | os.O_DIRECTORY)
        try:
            yield handle
        finally:
            os.close(handle)


@contextmanager
def tree_of(folder: Path, **mounts: Path) -> Iterator[GuestTree]:
    """`folder` as the guest's root; `boot=...` puts another folder at /boot."""
    handles = {"/": os.open(folder, os.O_PATH)}
    handles |= {f"/{point}": os.open(path, os.O_PATH) for point, path in mounts.items()}
    try:
        yield GuestTree({point: ConfinedRoot(handle) for point, handle in handles.items()})
    finally:
        for handle in handles.values():
            os.close(handle)


def put(folder: Path, path: str, text: str | bytes) -> Path:
    target = folder / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(text if isinstance(text, bytes) else text.encode())
    return target


def deny_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a kernel that runs no SELinux of its own: nobody but root may set a label there."""
    allowed = os.setxattr

    def setxattr(place: int, name: str, value: bytes) -> None:
        if name == "security.selinux":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        allowed(place, name, value)

    monkeypatch.setattr(os, "setxattr", setxattr)


def partition(number: int, content: str = "ext4", **attributes: str | None) -> Volume:
    return Volume(
        kind="partition",
        name=f"partition {number}",
        number=number,
        stretches=linear(Segment(offset=number << 20, length=1 << 20)),
        content=content,
        uuid=attributes.get("uuid"),
        label=attributes.get("label"),
        partuuid=attributes.get("partuuid"),
        partlabel=attributes.get("partlabel"),
        parttype=attributes.get("parttype"),
    )


def logical(vg: str, lv: str, content: str = "xfs", uuid: str | None = None) -> Volume:
    return Volume(
        kind="lv",
        name=f"{vg}/{lv}",
        vg=vg,
        lv=lv,
        stretches=linear(Segment(offset=64 << 20, length=1 << 20)),
        content=content,
        uuid=uuid,
    )


def layout(*volumes: Volume) -> Layout:
    return Layout(tables=("gpt",), volumes=volumes)


def simple_layout() -> Layout:
    return Layout(
        tables=("dos",),
        volumes=(
            partition(1, uuid=ROOT_UUID, partuuid="deadbeef-01"),
            partition(5, "swap", uuid=SWAP_UUID, partuuid="deadbeef-05"),
        ),
    )


def migration(**options: object) -> Migration:
    return Migration.model_validate({"vmdk": "/vm/web01.vmdk", "vm_name": "web01", **options})


def quiet_context(events: list[Event] | None = None) -> Context:
    def admit(_: SpaceNeeded) -> None:
        raise AssertionError("repair asks for no space")

    return Context((events if events is not None else []).append, admit)


def guest_disks(
    access: Access,
    layout: Layout,
    asked: Migration,
    nics: tuple[SourceNic, ...] = (),
    *,
    events: list[Event] | None = None,
) -> GuestDisks:
    """UEFI by an EFI system partition: these layouts do not say whether it has a boot loader."""
    has_esp = any(volume.is_esp for volume in layout.volumes)
    firmware: Firmware = "uefi" if has_esp and asked.uefi is not False else "bios"
    return GuestDisks(access, layout, asked, quiet_context(events), firmware, nics)


def repaired(folders: dict[str, Path], layout: Layout, asked: Migration, nics: tuple[SourceNic, ...] = ()) -> Guest:
    return repair_disks(guest_disks(FolderAccess(folders), layout, asked, nics))


class GoldenCase:
    """`case.json` and a folder of files per volume, before and after.

    `case.json` holds layout and migration, what is warned of, and optionally the source's network cards (`vmx`: MAC
    and slot) and those of the migrated machine (`nics`: name and MAC).
    """

    def __init__(self, name: str, scratch: Path) -> None:
        self.place = GOLDEN / name
        told = json.loads((self.place / "case.json").read_text())
        self.layout = Layout.model_validate(told["layout"])
        self.migration = migration(**told["migration"])
        self.warnings: list[str] = told["warnings"]
        self.vmx = tuple(SourceNic(mac=mac, slot=slot) for mac, slot in told.get("vmx", ()))
        self.nics: list[list[str | None]] | None = told.get("nics")
        shutil.copytree(self.place / "before", scratch, symlinks=True)
        self.folders = {
            volume.name: scratch / volume.name.replace("/", "-").replace(" ", "-") for volume in self.layout.volumes
        }
        self.folders = {name: folder for name, folder in self.folders.items() if folder.is_dir()}


def files_below(folder: Path) -> dict[str, bytes | str]:
    """Every file's content and every link's target, by relative name."""
    return {
        str(path.relative_to(folder)): f"-> {path.readlink()}" if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }
