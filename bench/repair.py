"""`python -m bench.repair`: how long guests are held open while they are repaired, from attach to detach."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from bench.measure import ROOT, sh
from bench.table import host
from bench.windows import large_windows
from hyper2kvmd.booting import firmware_of
from hyper2kvmd.disk.sources.opened import Sources
from hyper2kvmd.guest.mounts.access import default_helper
from hyper2kvmd.model.asked import Migration
from hyper2kvmd.model.machine import Machine, Plan
from hyper2kvmd.model.orders import Order
from hyper2kvmd.progress import Context
from hyper2kvmd.stages.bench import Bench
from hyper2kvmd.stages.repair import repair
from tests.guests import debian12
from tests.guests.altered import image_of
from tests.guests.catalogue import BROKEN, BY_UEFI
from tests.guests.guest import disks

BEGIN, END = "<!-- repair: begin -->", "<!-- repair: end -->"
DOCUMENT = ROOT / "docs" / "explanation" / "performance.md"
FIRST = debian12.Recipe().guest
GUESTS = (FIRST, debian12.Recipe(lvm=True).guest, *BY_UEFI, *BROKEN)
LIMIT, LIMIT_OF_FIRST = 5.0, 2.0
"""Seconds."""
WINDOWS = "Windows Server 2022, 12 MiB of registry with logs, 60 files of drivers"


@dataclass(frozen=True)
class Row:
    name: str
    disks: Callable[[], tuple[Path, ...]]
    limit: float = LIMIT
    virtio_win: Callable[[], Path | None] = lambda: None


def rows() -> tuple[Row, ...]:
    linux = (Row(one.name, partial(disks, one), LIMIT_OF_FIRST if one is FIRST else LIMIT) for one in GUESTS)
    return *linux, Row(WINDOWS, lambda: large_windows()[:1], virtio_win=lambda: large_windows()[1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.repair", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--markdown", action="store_true", help=f"put the table into {DOCUMENT.relative_to(ROOT)}")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("bench: run it as root: it builds guests and mounts them")
    took = {row: [seconds(row) for _ in range(asked.runs)] for row in rows()}
    table = render(took, asked.runs)
    print(table)
    if asked.markdown:
        text = DOCUMENT.read_text()
        DOCUMENT.write_text(text.split(BEGIN)[0] + table + text.split(END)[1])
    return 0 if all(median(runs) < row.limit for row, runs in took.items()) else 1


def seconds(row: Row) -> float:
    """One repair of a fresh copy, all changes on disk at its end."""
    raw = image_of(*row.disks())
    with tempfile.TemporaryDirectory(prefix="h2k-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        copies = []
        for number, one in enumerate(raw.disks, 1):
            path = folder / f"disk{number}.qcow2"
            sh("qemu-img", "convert", "-f", "raw", "-O", "qcow2", one.path, path)
            copies.append(one.with_changes(path=path, file_bytes=path.stat().st_blocks * 512))
        sh("sync")
        image = raw.with_changes(disks=tuple(copies), format="qcow2")
        machine = Machine(disks=())
        plan = Plan(machine=machine, disks=(), layout=raw.layout, firmware=firmware_of(raw.layout), needed_bytes=1)
        paths = tuple(one.path for one in raw.disks)
        migration = Migration(vmdk=paths, vm_name="web01", virtio_win=row.virtio_win())
        order = Order(
            job_id="1", migration=migration, conversion_dir=folder, output_dir=folder, helper=default_helper()
        )
        context = Context(lambda _event: None, lambda _plan: None)
        with Sources(folder) as sources:
            bench = Bench(order, folder, context, sources)
            began = time.perf_counter()
            found = repair(bench, plan, image)
            took = time.perf_counter() - began
    if not found.changes:
        raise SystemExit(f"bench: nothing was repaired in {row.name}")
    print(f"{row.name}: {took:.2f} s, {len(found.changes)} changes", file=sys.stderr)
    return took


def render(took: dict[Row, list[float]], runs: int) -> str:
    lines = [BEGIN, "", f"    python -m bench.repair --runs {runs}", "", f"{host()}. Medians of {runs} runs.", ""]
    lines += ["| guest | repair, s | at most | met |", "|---|---|---|---|"]
    for row, each in took.items():
        met = "yes" if median(each) < row.limit else "**no**"
        lines.append(f"| {row.name} | {median(each):.2f} | {row.limit:g} | {met} |")
    return "\n".join([*lines, "", END])


if __name__ == "__main__":
    sys.exit(main())
