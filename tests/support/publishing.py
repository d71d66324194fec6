"""The publish stage, as a job runs it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import DiskImage, FileIdentity, Image, Layout, LocalFile, SourceDisk
from hyper2kvmd.model.guest import Guest
from hyper2kvmd.model.jobs import NOBODY_AT_ALL
from hyper2kvmd.model.orders import Order
from hyper2kvmd.model.results import Artifact, Verdict
from hyper2kvmd.progress import Event
from hyper2kvmd.stages.publish import publish
from tests.support.benches import bench_for, hardware_for, plan_for, unheard
from tests.support.disks import empty_disk

MIB = 1 << 20


def sparse_image(folder: Path) -> Path:
    path = empty_disk(folder / "disk.raw", 64)
    with path.open("r+b") as file:
        for offset in (0, 30 * MIB, 63 * MIB):
            file.seek(offset)
            file.write(os.urandom(MIB))
    return path


def run_publish(
    images: Path | tuple[Path, ...],
    output: Path,
    *,
    reserve: bool = False,
    checksum: bool = False,
    overwrite: bool = False,
    vm_name: str = "web01",
    to_output: str | None = None,
    submitter_uid: int = NOBODY_AT_ALL,
    emit: Callable[[Event], None] = unheard,
) -> Artifact:
    images = images if isinstance(images, tuple) else (images,)
    folder, sizes = images[0].parent, [image.stat().st_size for image in images]
    sources = tuple(Path(f"/{image.stem}.vmdk") for image in images)
    migration = Migration(
        vmdk=sources,
        vm_name=vm_name,
        to_output=to_output,
        out_format="raw",
        checksum=checksum,
        overwrite=overwrite,
    )
    disks = tuple(
        SourceDisk(
            at=LocalFile(path=path),
            subformat="monolithicFlat",
            virtual_size=size,
            data_bytes=size,
            files=(FileIdentity(path=path, device=1, inode=1, size=1, mtime_ns=1, ctime_ns=1),),
            preallocate=reserve,
        )
        for path, size in zip(sources, sizes, strict=True)
    )
    layout = Layout(tables=tuple("none" for _ in disks))
    made = tuple(
        DiskImage(path=image, virtual_size=size, file_bytes=size) for image, size in zip(images, sizes, strict=True)
    )
    order = Order(
        job_id="7",
        migration=migration,
        submitter_uid=submitter_uid,
        conversion_dir=folder,
        output_dir=output,
        helper=("none",),
    )
    image = Image(disks=made, format="raw", layout=layout)
    with bench_for(order, folder, emit) as bench:
        return publish(
            bench,
            plan_for(disks, layout),
            hardware_for("bios"),
            image,
            Guest(family="none"),
            Verdict(level="check", evidence=("size",)),
        )


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != "lost+found"}
