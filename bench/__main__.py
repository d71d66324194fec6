"""`python -m bench`: our engine and its rivals side by side, A B A B, on disks made by recipe."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from bench.measure import ROOT, Measured, measure
from bench.rows import ROWS, Bench, Row
from bench.sources import GIB, MIB, Disk
from bench.table import BEGIN, END, Result, render

DOCUMENT = ROOT / "docs" / "explanation" / "performance.md"
UNITS = {"M": MIB, "G": GIB, "T": GIB << 10}


def main() -> int:
    asked = arguments()
    if os.geteuid() != 0:
        raise SystemExit("bench: run it as root: it drops the page cache and mounts a file system")
    bench = Bench(asked.disk, asked.huge, asked.threads, asked.cache)
    results = []
    for row in ROWS:
        if row.name in asked.rows:
            results.append(run(row, bench, asked.runs))
            print(summary(results[-1]), file=sys.stderr)
    table = render(results, bench, f"python -m bench {' '.join(sys.argv[1:])}".strip())
    print(table)
    if asked.markdown:
        write(table)
    if not asked.keep:
        shutil.rmtree(bench.cache)
    return 0 if all(result.met for result in results) else 1


def run(row: Row, bench: Bench, runs: int) -> Result:
    print(f"{row.name}: {row.title}; {row.disk(bench)}", file=sys.stderr)
    ours: list[Measured] = []
    theirs: list[Measured] = []
    with row.prepared(bench) as pair:
        for number in range(runs):
            for side, command in ((ours, pair.ours), (theirs, pair.theirs)):
                side.append(measure(command, own_file_system=row.reflink))
                one = side[-1]
                print(
                    f"  {number + 1}/{runs} {command.label}: {one.seconds:.2f} s, on disk {one.durable:.2f} s,"
                    f" {one.peak_memory >> 20} MiB, {one.blocks / 1e6:.1f} MB of blocks",
                    file=sys.stderr,
                )
        return Result(row, tuple(ours), tuple(theirs), pair.shared_data)


def summary(result: Result) -> str:
    verdict = "" if result.met else ": NOT what is asked"
    return f"  {result.ratio:.2f} times as fast, on disk {result.durable_ratio:.2f}{verdict}"


def write(table: str) -> None:
    text = DOCUMENT.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOCUMENT.write_text(before + table + after)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = [row.name for row in ROWS]
    parser.add_argument("--rows", nargs="+", choices=names, default=names, metavar="ROW", help=", ".join(names))
    parser.add_argument("--runs", type=int, default=5, help="for each side")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of our engine")
    parser.add_argument("--size", type=size, default="20G", help="virtual size of the usual disk")
    parser.add_argument("--data", type=size, default="4G", help="bytes of data on it")
    parser.add_argument("--huge-size", type=size, default="1T", help="virtual size of the huge disk")
    parser.add_argument("--huge-data", type=size, default="1G", help="bytes of data on it")
    parser.add_argument("--quick", action="store_true", help="small disks, one run: does it work at all?")
    parser.add_argument("--markdown", action="store_true", help=f"put the table into {DOCUMENT.relative_to(ROOT)}")
    parser.add_argument("--keep", action="store_true", help="leave the disks for the next time")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "bench", help="where the disks are made")
    asked = parser.parse_args()
    if asked.quick:
        asked.size, asked.data, asked.huge_data, asked.runs = GIB, 256 * MIB, 64 * MIB, 1
    asked.disk, asked.huge = Disk(asked.size, asked.data), Disk(asked.huge_size, asked.huge_data)
    asked.cache = asked.cache.absolute()
    return asked


def size(text: str) -> int:
    number, unit = text[:-1], text[-1:].upper()
    if unit not in UNITS or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 20G")
    return int(number) * UNITS[unit]


if __name__ == "__main__":
    sys.exit(main())
