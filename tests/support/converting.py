"""The convert stage, as a job runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.disks import Image, LocalFile, SourceDisk
from hyper2kvmd.model.machine import Plan
from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import Event, Step
from hyper2kvmd.stages.convert import convert, prove_all_same, prove_same
from hyper2kvmd.stages.plan import read_disks
from tests.support.benches import bench_for, plan_for, unheard


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir() if path.is_file()}


def order_for(migration: Migration, work: Path) -> Order:
    return Order(job_id="7", migration=migration, conversion_dir=work, output_dir=work, helper=("none",))


def run_convert(
    source: Path, work: Path, *, events: list[Event] | None = None, preallocate: bool = False, **wanted: object
) -> tuple[Plan, Image]:
    migration = Migration.model_validate({"vmdk": source, "vm_name": "web01", **wanted})
    plan = planned(source, preallocate=preallocate)
    heard = events if events is not None else []
    return plan, convert_planned(plan, order_for(migration, work), heard.append)


def convert_planned(plan: Plan, order: Order, emit: Callable[[Event], None] = unheard) -> Image:
    """In an attempt of its own, which opens the disks anew."""
    with bench_for(order, order.conversion_dir, emit) as bench:
        return convert(bench, plan)


def prove(plan: Plan, image: Image, folder: Path) -> tuple[str, ...]:
    with Sources(folder) as sources:
        return prove_same(sources.planned(plan.disks), plan, image, folder)


def prove_all(plan: Plan, image: Image, folder: Path) -> None:
    """Of the machine's first disk."""
    disk = plan.disks[0]
    with Sources(folder) as sources:
        (source,) = sources.planned(plan.disks)
        step = Step("Comparing", disk.virtual_size, unheard)
        prove_all_same(source, disk, image.disks[0], image.format, threads=2, step=step)


def read_source(path: Path, folder: Path) -> SourceDisk:
    with Sources(folder) as sources:
        (disk,), _ = read_disks(sources, (LocalFile(path=path),))
    return disk


def planned(*paths: Path, preallocate: bool = False, keys: tuple[bytes, ...] = ()) -> Plan:
    with Sources(paths[0].parent) as sources:
        disks, layout = read_disks(sources, [LocalFile(path=path) for path in paths], keys)
    return plan_for(tuple(disk.with_changes(preallocate=preallocate) for disk in disks), layout)
