"""The convert stage, as a job runs it."""

from __future__ import annotations

from pathlib import Path

from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Image, SourceDisk
from hyper2kvmd.model.machine import Source
from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import (
    Context,
    Event,
)
from hyper2kvmd.stages.convert import convert
from hyper2kvmd.stages.plan import read_sources


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()}


def order_for(migration: Migration, work: Path) -> Order:
    return Order(job_id="7", migration=migration, conversion_dir=work, output_dir=work, helper=("none",))


def run_convert(
    source: Path, work: Path, *, events: list[Event] | None = None, preallocate: bool = False, **wanted: object
) -> tuple[Source, Image]:
    migration = Migration.model_validate({"vmdk": source, "vm_name": "web01", **wanted})
    plan = planned(source, preallocate=preallocate)
    heard = events if events is not None else []
    return plan, convert(order_for(migration, work), plan, work, Context(heard.append, lambda _source: None))


def read_source(path: Path, folder: Path) -> SourceDisk:
    (disk,), _ = read_sources((path,), folder)
    return disk


def planned(*paths: Path, preallocate: bool = False) -> Source:
    disks, layout = read_sources(paths, paths[0].parent)
    disks = tuple(disk.with_changes(preallocate=preallocate) for disk in disks)
    return Source(disks=disks, layout=layout, firmware="bios", needed_bytes=1)
