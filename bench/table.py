"""What was measured, as the table of docs/explanation/performance.md."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from statistics import median

from bench.measure import Measured, sh
from bench.rows import Bench, Row

MEMORY_LIMIT = 150 << 20
"""Bytes that our process may have resident, whatever the disk."""
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


@dataclass(frozen=True)
class Result:
    """All runs of one row, in the order they were made; `shared_data` as in `Pair`."""

    row: Row
    ours: tuple[Measured, ...]
    theirs: tuple[Measured, ...]
    shared_data: int | None = None

    @property
    def ratio(self) -> float:
        return median(run.seconds for run in self.theirs) / median(run.seconds for run in self.ours)

    @property
    def durable_ratio(self) -> float:
        return median(run.durable for run in self.theirs) / median(run.durable for run in self.ours)

    @property
    def memory(self) -> int:
        return max(run.peak_memory for run in self.ours)

    @property
    def extra(self) -> float | None:
        """Blocks that ours took, as a fraction of the data."""
        return self.shared_data and median(run.blocks for run in self.ours) / self.shared_data

    @property
    def met(self) -> bool:
        extra, most = self.extra, self.row.most_extra_blocks
        return (
            (self.row.at_least is None or self.durable_ratio >= self.row.at_least)
            and self.memory < MEMORY_LIMIT
            and (most is None or (extra is not None and extra < most))
        )


def render(results: list[Result], bench: Bench, command: str) -> str:
    """Markdown, between the marks of docs/explanation/performance.md: the host, the command and a line for each row."""
    runs = min((len(result.ours) for result in results), default=0)
    lines = [
        BEGIN,
        "",
        f"    {command}",
        "",
        f"{host()}. {bench.threads} threads; medians of {runs} runs a side, in turns, cold page cache.",
        "Seconds until the process ended, then until its result was on disk; memory: the most that was resident, MiB.",
        "",
        "| row | source | against | ours, s | theirs, s | ratio | on disk | at least | memory: ours, theirs |"
        " blocks: ours, theirs | met |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(result, bench) for result in results]
    return "\n".join([*lines, "", END])


def _line(result: Result, bench: Bench) -> str:
    row = result.row
    cells = [
        row.name,
        f"{row.title}; {row.disk(bench)}",
        row.against,
        _seconds(result.ours),
        _seconds(result.theirs),
        f"{result.ratio:.2f}",
        f"{result.durable_ratio:.2f}",
        "" if row.at_least is None else f"{row.at_least:g}",
        f"{result.memory >> 20}, {max(run.peak_memory for run in result.theirs) >> 20}",
        f"{_size(result.ours)}, {_size(result.theirs)}" + (f" ({result.extra:.2%} extra)" if result.extra else ""),
        "yes" if result.met else "**no**",
    ]
    return f"| {' | '.join(cells)} |"


def _seconds(runs: tuple[Measured, ...]) -> str:
    return f"{median(run.seconds for run in runs):.2f}, {median(run.durable for run in runs):.2f}"


def _size(runs: tuple[Measured, ...]) -> str:
    blocks = median(run.blocks for run in runs)
    return f"{blocks / 1e9:.2f} GB" if blocks >= 1e8 else f"{blocks / 1e6:.1f} MB"


def host() -> str:
    """What it was measured on, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    version = sh("qemu-img", "--version").split()[2]
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}, qemu-img {version}"
